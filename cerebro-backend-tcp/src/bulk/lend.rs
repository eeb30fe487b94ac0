//! States that do not leave their machine: the holder says where in its memory they lie, and the
//! receiver reads them there.

use std::borrow::Cow;
use std::io;

use bytes::Bytes;
use cerebro_core::State;
use futures::StreamExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::task::yield_now;
use tokio_util::codec::{FramedRead, FramedWrite};
use xxhash_rust::xxh3::Xxh3Default;

use super::fetch::{FetchError, offered};
use super::{CHUNK, DIGEST, codec, in_time, send};
use crate::here::{Piece, Process};
use crate::protocol;

/// The bytes that are read and hashed at a time: they stay in the cache, and others wait little.
const READ: usize = 1 << 19;
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
    send(&mut frames, prost::Message::encode_to_vec(&offer).into()).await?;
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
) -> Result<Vec<u8>, FetchError> {
    let mut frames = FramedRead::new(&mut stream, codec(DIGEST + CHUNK));
    let offer = offered(&mut frames, limit).await?;
    if offer.pieces.is_empty() {
        return Err(FetchError::NotLent);
    }
    let total = offer.pieces.iter().try_fold(0_u64, |sum, piece| sum.checked_add(piece.bytes));
    let total = total.and_then(|total| usize::try_from(total).ok()).filter(|&sum| sum <= limit);
    let total = total.ok_or(FetchError::TooLarge { limit })?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(total).map_err(|_| FetchError::NoMemory(total as u64))?;
    let mut digest = Xxh3Default::new();
    for chunk in chunks(&offer.pieces) {
        let begun = bytes.len();
        bytes.resize(begun + chunk.iter().map(|piece| piece.bytes).sum::<usize>(), 0);
        from.read(&chunk, &mut bytes[begun..]).map_err(FetchError::Memory)?;
        digest.update(&bytes[begun..]);
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
