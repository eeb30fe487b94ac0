//! The end that holds States.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use cerebro_core::State;
use futures::StreamExt;
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_util::codec::{FramedRead, FramedWrite};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::lend::lend;
use super::{CHUNK, DIGEST, KEPT, MAX_WANTED, MOST_KEPT, codec, in_time, send};
use crate::protocol::{Offer, Wanted};
use crate::security::Identity;
use crate::transport::Connection;

/// How long a connection is kept for another request.
const PATIENCE: Duration = KEPT.saturating_add(Duration::from_secs(1));

/// Where the States are that this process gives away.
pub(crate) trait Holdings: Send + Sync + 'static {
    fn find(&self, wanted: &Wanted) -> Option<State>;
}

/// Gives what is held to whoever asks, until the listener ends.
pub(crate) async fn serve(
    mut connections: mpsc::Receiver<Connection>,
    holdings: Arc<dyn Holdings>,
) {
    let kept = Arc::new(Semaphore::new(MOST_KEPT));
    while let Some(connection) = connections.recv().await {
        let peer = connection.peer().clone();
        if connection.peer().identity == Identity::Other {
            tracing::warn!(%peer, "a request for a State was refused: the peer may not have it");
            continue;
        }
        let (holdings, kept) = (Arc::clone(&holdings), Arc::clone(&kept));
        tokio::spawn(async move {
            if let Err(error) = answer(connection, &*holdings, &kept).await {
                tracing::debug!(%peer, %error, "a State was not given away in full");
            }
        });
    }
}

/// Answers one request after the other, as long as another one may come.
pub(super) async fn answer(
    mut connection: Connection,
    holdings: &dyn Holdings,
    kept: &Semaphore,
) -> io::Result<()> {
    let mut asked = in_time(listen(&mut connection)).await??;
    while let Some(wanted) = asked {
        let found = holdings.find(&wanted);
        match connection.peer().process {
            Some(process) => lend(&mut connection, process, found).await?,
            None => give(&mut connection, found).await?,
        }
        let Ok(_kept) = kept.try_acquire() else { break };
        let Ok(next) = timeout(PATIENCE, listen(&mut connection)).await else { break };
        asked = next?;
    }
    in_time(connection.shutdown()).await?
}

/// The next request; none if the other end has none any more.
async fn listen(stream: impl AsyncRead + Unpin) -> io::Result<Option<Wanted>> {
    let mut frames = FramedRead::new(stream, codec(MAX_WANTED));
    let Some(frame) = frames.next().await else { return Ok(None) };
    let wanted = Wanted::decode(frame?)?;
    // Whoever asks waits for the answer before the next request.
    if !frames.read_buffer().is_empty() {
        let hurried = "a request came before the answer to the one before it";
        return Err(io::Error::new(io::ErrorKind::InvalidData, hurried));
    }
    Ok(Some(wanted))
}

async fn give(stream: impl AsyncWrite + Unpin, found: Option<State>) -> io::Result<()> {
    let mut frames = FramedWrite::new(stream, codec(DIGEST + CHUNK));
    let bytes = found.as_ref().map_or(0, |state| state.bytes() as u64);
    let offer = Offer { held: found.is_some(), bytes, pieces: Vec::new() };
    send(&mut frames, offer.encode_to_vec().into()).await?;
    let Some(state) = found else { return Ok(()) };
    let mut chunks = Chunks::default();
    for part in state.parts() {
        let part = part?;
        let mut rest = &*part;
        while !rest.is_empty() {
            rest = chunks.fill(rest);
            if chunks.is_full() {
                send(&mut frames, chunks.seal()).await?;
            }
        }
    }
    if !chunks.is_empty() {
        send(&mut frames, chunks.seal()).await?;
    }
    // The last one is empty. Had anything failed, it would be missing, and the receiver would know.
    send(&mut frames, chunks.seal()).await
}

/// Cuts parts into chunks with checksums, in memory that it uses again.
#[derive(Default)]
struct Chunks {
    number: u64,
    buffer: BytesMut,
}

impl Chunks {
    fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    fn is_full(&self) -> bool {
        self.buffer.len() == DIGEST + CHUNK
    }

    /// Takes in as much of `bytes` as the chunk has room for, and gives the rest back.
    fn fill<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        self.begin(bytes.len());
        let (taken, rest) = bytes.split_at(bytes.len().min(DIGEST + CHUNK - self.buffer.len()));
        self.buffer.extend_from_slice(taken);
        rest
    }

    /// Room for the checksum of a chunk that begins, and for its first `bytes`.
    fn begin(&mut self, bytes: usize) {
        if self.buffer.is_empty() {
            self.buffer.reserve(DIGEST + bytes.min(CHUNK));
            self.buffer.put_bytes(0, DIGEST);
        }
    }

    /// The chunk as a frame.
    fn seal(&mut self) -> Bytes {
        self.begin(0);
        let (digest, chunk) = self.buffer.split_at_mut(DIGEST);
        digest.copy_from_slice(&xxh3_64_with_seed(chunk, self.number).to_be_bytes());
        self.number += 1;
        self.buffer.split().freeze()
    }
}
