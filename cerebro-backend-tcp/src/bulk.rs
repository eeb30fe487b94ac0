//! States and blueprints on their way: streams of length-delimited frames, each with its checksum.
//!
//! The receiver asks with a `Wanted`; the holder answers with an `Offer` and then with chunks, each
//! one frame: 8 bytes of XXH3 over the chunk, seeded with the chunk's number, then at most
//! [`CHUNK`] bytes. A chunk without bytes is the last, so that what was cut off is noticed. The
//! holder writes a State out chunk by chunk as the network takes them, so it never holds a second
//! copy of the whole.
//!
//! It stands beside gRPC because a gRPC stream reaches about half of what TCP carries, and this
//! about nine tenths (`benches/transfer.rs`).

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use cerebro_core::State;
use futures::{SinkExt, StreamExt};
use prost::Message;
use thiserror::Error;
use tokio::io::AsyncRead;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::codec::{FramedRead, FramedWrite, LengthDelimitedCodec};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::protocol::{Offer, Wanted};
use crate::security::{Identity, Security};
use crate::transport::{Connection, Purpose, dial};

/// The bytes of a State that travel in one frame.
const CHUNK: usize = 1 << 20;
/// The checksum before them.
const DIGEST: usize = 8;
/// A `Wanted` is a few numbers.
const MAX_WANTED: usize = 256;
/// Chunks that are written out and not yet sent.
const AHEAD: usize = 2;
/// An end that neither sends nor takes anything for this long is given up.
const STALL: Duration = Duration::from_secs(10);
/// How often a source is asked again after a chunk came damaged.
const ATTEMPTS: usize = 3;

/// Where the States are that this process gives away.
pub(crate) trait Holdings: Send + Sync + 'static {
    fn find(&self, wanted: &Wanted) -> Option<State>;
}

/// Gives what is held to whoever asks, until the listener ends.
pub(crate) async fn serve(
    mut connections: mpsc::Receiver<Connection>,
    holdings: Arc<dyn Holdings>,
) {
    while let Some(connection) = connections.recv().await {
        let peer = connection.peer().clone();
        if connection.peer().identity == Identity::Other {
            tracing::warn!(%peer, "a request for a State was refused: the peer may not have it");
            continue;
        }
        let holdings = Arc::clone(&holdings);
        tokio::spawn(async move {
            if let Err(error) = give(connection, &*holdings).await {
                tracing::debug!(%peer, %error, "a State was not given away in full");
            }
        });
    }
}

async fn give(connection: Connection, holdings: &dyn Holdings) -> io::Result<()> {
    let mut frames = FramedRead::new(connection, codec(MAX_WANTED));
    let Some(frame) = in_time(frames.next()).await? else { return Ok(()) };
    let wanted = Wanted::decode(frame?)?;
    let found = holdings.find(&wanted);
    let bytes = found.as_ref().map_or(0, |state| state.bytes() as u64);
    let offer = Offer { held: found.is_some(), bytes };
    let mut frames = FramedWrite::new(frames.into_inner(), codec(DIGEST + CHUNK));
    send(&mut frames, offer.encode_to_vec().into()).await?;
    let Some(state) = found else { return Ok(()) };
    let (sender, mut chunks) = mpsc::channel(AHEAD);
    let writing = tokio::task::spawn_blocking(move || {
        let mut writer = ChunkWriter::new(sender);
        state.write_to(&mut writer)?;
        writer.finish()
    });
    while let Some(chunk) = chunks.recv().await {
        send(&mut frames, chunk).await?;
    }
    // Had writing failed, the last chunk would be missing, and the receiver would notice.
    writing.await??;
    in_time(SinkExt::<Bytes>::close(&mut frames)).await?
}

/// Cuts what is written to it into chunks with checksums. Blocks while the network is slower.
struct ChunkWriter {
    chunks: mpsc::Sender<Bytes>,
    number: u64,
    buffer: BytesMut,
}

impl ChunkWriter {
    fn new(chunks: mpsc::Sender<Bytes>) -> Self {
        Self { chunks, number: 0, buffer: BytesMut::new() }
    }

    fn send(&mut self) -> io::Result<()> {
        let mut frame = self.buffer.split();
        let (digest, chunk) = frame.split_at_mut(DIGEST);
        digest.copy_from_slice(&xxh3_64_with_seed(chunk, self.number).to_be_bytes());
        self.number += 1;
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        self.chunks.blocking_send(frame.freeze()).map_err(gone)
    }

    fn finish(mut self) -> io::Result<()> {
        if !self.buffer.is_empty() {
            self.send()?;
        }
        self.buffer.put_bytes(0, DIGEST);
        self.send()
    }
}

impl io::Write for ChunkWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.is_empty() {
            self.buffer.reserve(DIGEST + bytes.len().min(CHUNK));
            self.buffer.put_bytes(0, DIGEST);
        }
        let taken = bytes.len().min(DIGEST + CHUNK - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..taken]);
        if self.buffer.len() == DIGEST + CHUNK {
            self.send()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A process that is said to hold something.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) address: String,
    /// The name that its certificate must have.
    pub(crate) role: &'static str,
}

/// Why a State was not received.
#[derive(Debug, Error)]
pub(crate) enum FetchError {
    #[error(transparent)]
    Connection(#[from] io::Error),
    #[error("it is not held there")]
    NotHeld,
    #[error("chunk {0} came damaged")]
    Damaged(u64),
    #[error("the stream ended after {0} chunks, before its end")]
    CutOff(u64),
    #[error("it is larger than the {limit} bytes that this process takes")]
    TooLarge { limit: usize },
    #[error("there is no memory for its {0} bytes")]
    NoMemory(u64),
}

/// What was received, and what went wrong on the way to it.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) state: State,
    pub(crate) troubles: Vec<String>,
}

/// Takes what is wanted from the first of `sources` that has it; damaged, it is asked for again.
///
/// The error names every source and what was wrong with it.
pub(crate) async fn fetch_from_any(
    sources: impl IntoIterator<Item = Source>,
    wanted: &Wanted,
    limit: usize,
    security: &Security,
) -> Result<Fetched, String> {
    let mut troubles = Vec::new();
    for source in sources {
        for attempt in 1..=ATTEMPTS {
            let error = match fetch(&source, wanted, limit, security).await {
                Ok(bytes) => return Ok(Fetched { state: State::from(bytes), troubles }),
                Err(error) => error,
            };
            tracing::warn!(source = source.address, %error, attempt, "a State could not be fetched");
            troubles.push(format!("from {}: {error}", source.address));
            // Whatever else it is, it will be the same again.
            if !matches!(error, FetchError::Damaged(_)) {
                break;
            }
        }
    }
    if troubles.is_empty() {
        return Err("nobody is known to hold it".to_owned());
    }
    Err(troubles.join("; "))
}

async fn fetch(
    source: &Source,
    wanted: &Wanted,
    limit: usize,
    security: &Security,
) -> Result<Vec<u8>, FetchError> {
    let connection = dial(&source.address, source.role, Purpose::Bulk, security).await?;
    let mut frames = FramedWrite::new(connection, codec(MAX_WANTED));
    send(&mut frames, wanted.encode_to_vec().into()).await?;
    receive(frames.into_inner(), limit).await
}

/// Takes in what a holder says to a `Wanted`.
pub(crate) async fn receive(
    stream: impl AsyncRead + Unpin,
    limit: usize,
) -> Result<Vec<u8>, FetchError> {
    let mut frames = FramedRead::new(stream, codec(DIGEST + CHUNK));
    let Some(offer) = in_time(frames.next()).await? else { return Err(FetchError::CutOff(0)) };
    let offer = Offer::decode(offer?).map_err(io::Error::from)?;
    if !offer.held {
        return Err(FetchError::NotHeld);
    }
    if offer.bytes > limit as u64 {
        return Err(FetchError::TooLarge { limit });
    }
    let mut bytes = Vec::new();
    let reserved = bytes.try_reserve_exact(offer.bytes as usize);
    reserved.map_err(|_| FetchError::NoMemory(offer.bytes))?;
    for number in 0.. {
        let Some(frame) = in_time(frames.next()).await? else {
            return Err(FetchError::CutOff(number));
        };
        let mut frame = frame?;
        if frame.len() < DIGEST {
            return Err(FetchError::Damaged(number));
        }
        let digest = frame.get_u64();
        if digest != xxh3_64_with_seed(&frame, number) {
            return Err(FetchError::Damaged(number));
        }
        if frame.is_empty() {
            break;
        }
        if bytes.len() + frame.len() > limit {
            return Err(FetchError::TooLarge { limit });
        }
        bytes.extend_from_slice(&frame);
    }
    Ok(bytes)
}

async fn send(
    frames: &mut FramedWrite<Connection, LengthDelimitedCodec>,
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
