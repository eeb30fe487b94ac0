//! States that do not leave their machine: the holder says where in its memory they lie, and the
//! receiver reads them there.

use std::borrow::Cow;
use std::io;

use bytes::Bytes;
use cerebro_core::State;
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::task::yield_now;
use tokio_util::codec::{FramedRead, FramedWrite};
use xxhash_rust::xxh3::Xxh3Default;

use super::fetch::{FetchError, offered};
use super::spare::Spare;
use super::{CHUNK, DIGEST, codec, in_time, send};
use crate::here::{Piece, Process};
use crate::protocol;

/// The bytes that are read and hashed at a time: they stay in the cache, and others wait little.
const READ: usize = 1 << 19;
/// Who borrows less than this is told where it lies and its checksum at once: it waits no longer for
/// both than to be woken a second time.
const SMALL: u64 = 1 << 22;
/// More pieces than this are not lent: an offer must not be long.
const MOST_PIECES: usize = 4096;

/// Lends what was found to the process `to` at the other end of `stream`.
pub(super) async fn lend(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    to: Process,
    found: Option<State>,
) -> io::Result<()> {
    let parts = found.as_ref().map(lendable).transpose()?.flatten();
    let piece = |part: &Cow<'_, [u8]>| protocol::Piece {
        address: part.as_ptr().expose_provenance() as u64,
        bytes: part.len() as u64,
    };
    let offer = protocol::Offer {
        held: found.is_some(),
        bytes: found.as_ref().map_or(0, |state| state.bytes() as u64),
        pieces: parts.iter().flatten().map(piece).collect(),
    };
    let mut frames = FramedWrite::new(&mut stream, codec(DIGEST + CHUNK));
    to.admit();
    frames.feed(Bytes::from(prost::Message::encode_to_vec(&offer))).await?;
    if parts.is_none() || offer.bytes > SMALL {
        in_time(SinkExt::<Bytes>::flush(&mut frames)).await??;
    }
    let Some(parts) = parts else { return Ok(()) };
    let mut digest = Xxh3Default::new();
    for chunk in parts.iter().flat_map(|part| part.chunks(READ)) {
        digest.update(chunk);
        yield_now().await;
    }
    send(&mut frames, Bytes::copy_from_slice(&digest.digest().to_be_bytes())).await?;
    // Until it has read them the parts stay; if it takes too long, it will know by the checksum.
    in_time(stream.read_u8()).await??;
    Ok(())
}

/// The parts of a State, if there are some and if they lie in memory anyway, but for a header.
fn lendable(state: &State) -> io::Result<Option<Vec<Cow<'_, [u8]>>>> {
    let (mut parts, mut made) = (Vec::new(), 0);
    for part in state.parts() {
        let part = part?;
        if let Cow::Owned(part) = &part {
            made += part.len();
        }
        if made > CHUNK || parts.len() == MOST_PIECES {
            return Ok(None);
        }
        parts.extend((!part.is_empty()).then_some(part));
    }
    Ok((!parts.is_empty()).then_some(parts))
}

/// Reads what the process `from` at the other end of `stream` offers to a `Wanted`.
pub(crate) async fn borrow(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    from: Process,
    limit: usize,
    spare: &Spare,
) -> Result<Vec<u8>, FetchError> {
    let mut frames = FramedRead::new(&mut stream, codec(DIGEST + CHUNK));
    let offer = offered(&mut frames, limit).await?;
    if offer.pieces.is_empty() {
        return Err(FetchError::NotLent);
    }
    let total = offer.pieces.iter().try_fold(0_u64, |sum, piece| sum.checked_add(piece.bytes));
    let total = total.and_then(|total| usize::try_from(total).ok()).filter(|&sum| sum <= limit);
    let total = total.ok_or(FetchError::TooLarge { limit })?;
    let mut bytes = spare.take(total).map_err(|_| FetchError::NoMemory(total as u64))?;
    let (mut digest, mut begun) = (Xxh3Default::new(), 0);
    for chunk in chunks(&offer.pieces) {
        let end = begun + chunk.iter().map(|piece| piece.bytes).sum::<usize>();
        bytes.resize(end.max(bytes.len()), 0);
        from.read(&chunk, &mut bytes[begun..end]).map_err(FetchError::Memory)?;
        digest.update(&bytes[begun..end]);
        begun = end;
        yield_now().await;
    }
    let Some(said) = in_time(frames.next()).await? else { return Err(FetchError::CutOff(0)) };
    if *said? != digest.digest().to_be_bytes() {
        return Err(FetchError::Damaged(0));
    }
    if !frames.read_buffer().is_empty() {
        return Err(FetchError::Unasked);
    }
    in_time(stream.write_u8(0)).await??;
    Ok(bytes)
}

/// The pieces in the order of their bytes, as many at a time as are read at once.
fn chunks(pieces: &[protocol::Piece]) -> impl Iterator<Item = Vec<Piece>> {
    let mut rest = pieces.iter().map(|piece| (piece.address, piece.bytes as usize)).peekable();
    std::iter::from_fn(move || {
        let (mut chunk, mut room) = (Vec::new(), READ);
        while let Some((address, bytes)) = rest.peek_mut().filter(|_| room > 0) {
            let taken = room.min(*bytes);
            chunk.push(Piece { address: *address, bytes: taken });
            (*address, *bytes) = (address.wrapping_add(taken as u64), *bytes - taken);
            room -= taken;
            if *bytes == 0 {
                rest.next();
            }
        }
        (!chunk.is_empty()).then_some(chunk)
    })
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;

    use cerebro_core::{Parts, StateData};
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;

    use super::*;
    use crate::bulk::tests::block_on;
    use crate::bulk::{Fetcher, Holdings, Source, serve};
    use crate::here::Listener;
    use crate::protocol::{Offer, Wanted, wanted};
    use crate::security::{Security, WORKER};
    use crate::transport::{Listeners, accept};

    const WANTED: Wanted = Wanted { what: Some(wanted::What::Blueprint(0)) };

    /// A State of a header that is made and of tensors that lie in memory, one of them empty.
    struct Tensors {
        header: Vec<u8>,
        tensors: Vec<Vec<u8>>,
    }

    impl StateData for Tensors {
        fn bytes(&self) -> usize {
            self.tensors.iter().map(Vec::len).sum()
        }

        fn parts(&self) -> Parts<'_> {
            let header = std::iter::once(Cow::Owned(self.header.clone()));
            let tensors = self.tensors.iter().map(|tensor| Cow::Borrowed(&tensor[..]));
            Box::new(header.chain(tensors).map(Ok))
        }
    }

    fn tensors(header: usize, sizes: &[usize]) -> State {
        let counted = |length: &usize| (0..*length).map(|byte| (byte % 251) as u8).collect();
        let tensors = sizes.iter().map(counted).collect();
        State::new(Tensors { header: counted(&header), tensors })
    }

    struct One(State);

    impl Holdings for One {
        fn find(&self, _: &Wanted) -> Option<State> {
            Some(self.0.clone())
        }
    }

    /// Where `state` is to be had over TCP, with the listener for who wants it lent.
    async fn sender(state: State) -> (Source, Listener) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let (calls, _) = mpsc::channel(1);
        let (to, connections) = mpsc::channel(16);
        let listeners = Listeners::new(listener, false).unwrap();
        tokio::spawn(accept(listeners, Security::Loopback, 16, calls, to));
        tokio::spawn(serve(connections, Arc::new(One(state))));
        let source = Source { address: address.to_string(), role: WORKER };
        (source, Listener::bind(address).unwrap())
    }

    /// Offers what it was told, with a checksum that it was told.
    async fn lie(
        stream: impl AsyncRead + AsyncWrite + Unpin,
        pieces: Vec<protocol::Piece>,
        digest: u64,
    ) {
        let mut frames = FramedWrite::new(stream, codec(DIGEST + CHUNK));
        let offer = Offer { held: true, bytes: 3, pieces };
        send(&mut frames, prost::Message::encode_to_vec(&offer).into()).await.unwrap();
        // The receiver may have left.
        let _ = send(&mut frames, Bytes::copy_from_slice(&digest.to_be_bytes())).await;
    }

    /// Who lies to the first who asks.
    async fn liar(listener: Listener, pieces: Vec<protocol::Piece>, digest: u64) {
        let (mut stream, _) = listener.accept().await.unwrap().identify().unwrap();
        let mut asked = FramedRead::new(&mut stream, codec(DIGEST + CHUNK));
        asked.next().await.unwrap().unwrap();
        lie(&mut stream, pieces, digest).await;
        let _ = stream.read_u8().await;
    }

    /// What `pieces` and `digest` are answered with when they are offered, and no sender is there.
    async fn told(pieces: Vec<protocol::Piece>, digest: u64, limit: usize) -> FetchError {
        let (mut ours, mut theirs) = tokio::io::duplex(1 << 16);
        let lies = lie(&mut theirs, pieces, digest);
        let spare = Spare::default();
        let (borrowed, ()) = tokio::join!(borrow(&mut ours, Process::this(), limit, &spare), lies);
        borrowed.unwrap_err()
    }

    fn piece(bytes: &[u8]) -> protocol::Piece {
        let address = bytes.as_ptr().expose_provenance() as u64;
        protocol::Piece { address, bytes: bytes.len() as u64 }
    }

    #[test]
    fn a_state_of_many_pieces_is_read_where_it_lies() {
        block_on(async {
            let spare = Spare::default();
            for sizes in [&[3, 0, 2 * READ, 1, READ - 1][..], &[0], &[1; 100], &[60], &[READ]] {
                let state = tensors(7, sizes);
                let (mut ours, mut theirs) = tokio::io::duplex(64);
                let lent = lend(&mut theirs, Process::this(), Some(state.clone()));
                let borrowed = borrow(&mut ours, Process::this(), usize::MAX, &spare);
                let (lent, borrowed) = tokio::join!(lent, borrowed);
                lent.unwrap();
                let borrowed = borrowed.unwrap();
                assert_eq!(borrowed, state.to_vec());
                // The next one may be read into the same memory.
                spare.put(State::from(borrowed));
            }
        });
    }

    #[test]
    fn what_does_not_lie_in_memory_is_not_lent() {
        block_on(async {
            let spare = Spare::default();
            for state in
                [tensors(CHUNK + 1, &[1]), tensors(0, &[]), tensors(0, &vec![1; MOST_PIECES + 1])]
            {
                let (mut ours, mut theirs) = tokio::io::duplex(64);
                let lent = lend(&mut theirs, Process::this(), Some(state.clone()));
                let borrowed = borrow(&mut ours, Process::this(), usize::MAX, &spare);
                let (lent, borrowed) = tokio::join!(lent, borrowed);
                lent.unwrap();
                assert!(matches!(borrowed, Err(FetchError::NotLent)), "{borrowed:?}");
            }
        });
    }

    #[test]
    fn pieces_that_are_not_there_too_large_or_of_another_state_are_refused() {
        block_on(async {
            let bytes = [1, 2, 3];
            let nowhere = protocol::Piece { address: 16, bytes: 3 };
            let error = told(vec![nowhere], 0, 100).await;
            assert!(matches!(error, FetchError::Memory(_)), "{error:?}");
            let endless = protocol::Piece { bytes: u64::MAX, ..piece(&bytes) };
            for pieces in [vec![piece(&bytes), piece(&bytes)], vec![endless; 2]] {
                let error = told(pieces, 0, 5).await;
                assert!(matches!(error, FetchError::TooLarge { limit: 5 }), "{error:?}");
            }
            let error = told(vec![piece(&bytes)], 0, 100).await;
            assert!(matches!(error, FetchError::Damaged(_)), "{error:?}");
        });
    }

    #[test]
    fn a_state_that_cannot_be_read_or_comes_damaged_is_sent() {
        block_on(async {
            let bytes = [1, 2, 3];
            let nowhere = protocol::Piece { address: 16, bytes: 3 };
            for pieces in [vec![], vec![nowhere], vec![piece(&bytes)]] {
                let state = tensors(2, &[CHUNK, 5]);
                let (source, listener) = sender(state.clone()).await;
                let lies = tokio::spawn(liar(listener, pieces, 0));
                let fetched =
                    Fetcher::new(Security::Loopback).fetch([source], &WANTED, 1 << 20).await;
                assert_eq!(fetched.unwrap().state.to_vec(), state.to_vec());
                lies.await.unwrap();
            }
        });
    }
}
