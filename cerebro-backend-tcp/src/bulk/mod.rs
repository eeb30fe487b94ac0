//! States and blueprints on their way: streams of length-delimited frames, each with its checksum.
//!
//! The receiver asks with a `Wanted`; the holder answers with an `Offer` and then with chunks, each
//! one frame: 8 bytes of XXH3 over the chunk, seeded with the chunk's number, then at most
//! [`CHUNK`] bytes. A chunk without bytes is the last, so that what was cut off is noticed. The
//! holder writes a State out chunk by chunk as the network takes them, so it never holds a second
//! copy of the whole; and chunks are small, so that what is copied once more is still in the cache.
//! The receiver may ask again on the same connection, which saves the handshake and lets TCP go on
//! as fast as it was; either end may close it between two requests.
//!
//! Between processes of one machine nothing is sent (`lend.rs`): the offer says where in the holder's
//! memory the State lies, the receiver reads it there, and both compare one checksum of the whole.
//! What cannot be read so is sent as to anybody else.
//!
//! It stands beside gRPC because a gRPC stream reaches about half of what TCP carries, and this
//! about nine tenths (`benches/cluster.rs`).

mod fetch;
mod give;
mod lend;
mod spare;

use std::future::Future;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures::SinkExt;
use tokio::io::AsyncWrite;
use tokio::time::timeout;
use tokio_util::codec::{FramedWrite, LengthDelimitedCodec};

pub(crate) use fetch::{Fetched, Fetcher, Source};
pub(crate) use give::{Holdings, serve};
#[cfg(any(test, fuzzing))]
pub(crate) use {fetch::receive, lend::borrow, spare::Spare};

/// The bytes of a State that travel in one frame.
const CHUNK: usize = 1 << 17;
/// The checksum before them.
const DIGEST: usize = 8;
/// A `Wanted` is a few numbers.
const MAX_WANTED: usize = 256;
/// An end that neither sends nor takes anything for this long is given up.
const STALL: Duration = Duration::from_secs(10);
/// How long a connection is kept that nobody asks anything on, at the end that asks. The other end
/// is a little more patient, so that requests seldom meet a connection that is being closed.
const KEPT: Duration = Duration::from_secs(4);
/// The most connections that an end keeps so: a part of those that it accepts.
const MOST_KEPT: usize = 64;

async fn send<W: AsyncWrite + Unpin>(
    frames: &mut FramedWrite<W, LengthDelimitedCodec>,
    frame: Bytes,
) -> io::Result<()> {
    in_time(frames.send(frame)).await?
}

fn codec(largest: usize) -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder().max_frame_length(largest).new_codec()
}

async fn in_time<T>(work: impl Future<Output = T>) -> io::Result<T> {
    timeout(STALL, work).await.map_err(|_| {
        let text = format!("the other end has stood still for {} s", STALL.as_secs());
        io::Error::new(io::ErrorKind::TimedOut, text)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use cerebro_core::State;
    use tokio::net::TcpListener;
    use tokio::sync::{Semaphore, mpsc};

    use super::*;
    use crate::protocol::{Wanted, wanted};
    use crate::security::{Security, WORKER};
    use crate::transport::{Listeners, accept};

    const LIMIT: usize = 1 << 24;

    /// Holds States of as many bytes as their number says, up to `LIMIT`.
    struct Zeros;

    impl Holdings for Zeros {
        fn find(&self, wanted: &Wanted) -> Option<State> {
            match wanted.what? {
                wanted::What::Blueprint(bytes) if bytes <= LIMIT as u64 => {
                    Some(State::from(vec![0; bytes as usize]))
                }
                _ => None,
            }
        }
    }

    fn zeros(bytes: u64) -> Wanted {
        Wanted { what: Some(wanted::What::Blueprint(bytes)) }
    }

    /// Somebody who holds `Zeros`, and how many connections were made to it. After each answer it
    /// closes the connection, if `closes`. It lends States, if `lending`, or sends them.
    async fn holder(closes: bool, lending: bool) -> (Source, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (calls, _) = mpsc::channel(1);
        let (to, mut accepted) = mpsc::channel(16);
        let listeners = Listeners::new(listener, lending).unwrap();
        tokio::spawn(accept(listeners, Security::Loopback, 16, calls, to));
        let made = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&made);
        tokio::spawn(async move {
            let (to, connections) = mpsc::channel(16);
            tokio::spawn(serve(connections, Arc::new(Zeros)));
            while let Some(connection) = accepted.recv().await {
                count.fetch_add(1, Ordering::Relaxed);
                if closes {
                    give::answer(connection, &Zeros, &Semaphore::new(0)).await.unwrap();
                } else {
                    to.send(connection).await.unwrap();
                }
            }
        });
        (Source { address, role: WORKER }, made)
    }

    pub(super) fn block_on(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(test);
    }

    #[test]
    fn states_follow_each_other_over_one_connection() {
        follow_each_other(false);
    }

    #[test]
    fn lent_states_follow_each_other_over_one_connection() {
        follow_each_other(true);
    }

    fn follow_each_other(lending: bool) {
        block_on(async {
            let (source, made) = holder(false, lending).await;
            let fetcher = Fetcher::new(Security::Loopback);
            // Nothing is not lent: there is no place where it lies.
            let sizes = [0, 1, CHUNK - 1, CHUNK, 5 * CHUNK + 1];
            for bytes in sizes.into_iter().skip(usize::from(lending)) {
                let fetched = fetcher.fetch([source.clone()], &zeros(bytes as u64), LIMIT).await;
                let Fetched { state, troubles } = fetched.unwrap();
                assert_eq!((state.bytes(), troubles.len()), (bytes, 0));
            }
            let refused = fetcher.fetch([source.clone()], &zeros(u64::MAX), LIMIT).await;
            assert!(refused.unwrap_err().contains("not held"));
            fetcher.fetch([source.clone()], &zeros(1), LIMIT).await.unwrap();
            assert_eq!(made.load(Ordering::Relaxed), 1);
            let too_large = fetcher.fetch([source.clone()], &zeros(2), 1).await;
            assert!(too_large.unwrap_err().contains("larger than"));
            // What is left of that answer is not taken for the answer to another request.
            let after = fetcher.fetch([source], &zeros(3), LIMIT).await.unwrap();
            assert_eq!((after.state.bytes(), made.load(Ordering::Relaxed)), (3, 2));
        });
    }

    #[test]
    fn a_connection_that_was_closed_meanwhile_is_no_trouble() {
        block_on(async {
            let (source, made) = holder(true, false).await;
            let fetcher = Fetcher::new(Security::Loopback);
            for fetches in 1..=3 {
                let fetched = fetcher.fetch([source.clone()], &zeros(9), LIMIT).await.unwrap();
                assert_eq!((fetched.state.bytes(), fetched.troubles.len()), (9, 0));
                assert_eq!(made.load(Ordering::Relaxed), fetches);
            }
        });
    }

    #[test]
    fn whoever_asks_before_its_turn_is_left() {
        block_on(async {
            let (source, _) = holder(false, false).await;
            let stream = tokio::net::TcpStream::connect(&source.address).await.unwrap();
            let mut frames = FramedWrite::new(stream, codec(MAX_WANTED));
            let request = Bytes::from(prost::Message::encode_to_vec(&zeros(1)));
            frames.feed(request.clone()).await.unwrap();
            frames.feed(request).await.unwrap();
            SinkExt::<Bytes>::flush(&mut frames).await.unwrap();
            let answer = receive(frames.into_inner(), LIMIT).await;
            assert!(answer.is_err(), "{answer:?}");
        });
    }
}
