//! The end that wants a State.

use std::fmt;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Buf;
use cerebro_core::State;
use futures::StreamExt;
use prost::Message;
use thiserror::Error;
use tokio::io::AsyncRead;
use tokio::time::Instant;
use tokio_util::codec::{FramedRead, FramedWrite, LengthDelimitedCodec};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::lend::borrow;
use super::spare::Spare;
use super::{CHUNK, DIGEST, KEPT, MAX_WANTED, MOST_KEPT, codec, in_time, send};
use crate::protocol::{Offer, Wanted};
use crate::security::Security;
use crate::transport::{Connection, Purpose, dial, dial_here};

/// How often a source is asked again after a chunk came damaged.
const ATTEMPTS: usize = 3;

/// A process that is said to hold something.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    #[error("it goes on after its end")]
    Unasked,
    #[error("it cannot be read where it lies")]
    NotLent,
    #[error("reading the memory of the process that holds it")]
    Memory(#[source] io::Error),
}

/// What was received, and what went wrong on the way to it.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) state: State,
    pub(crate) troubles: Vec<String>,
}

/// Fetches what others hold, over connections that it keeps for a while.
pub(crate) struct Fetcher {
    security: Security,
    kept: Mutex<Vec<Kept>>,
    spare: Spare,
}

/// A connection on which nothing is under way.
struct Kept {
    source: Source,
    connection: Connection,
    since: Instant,
}

impl Fetcher {
    pub(crate) fn new(security: Security) -> Self {
        Self { security, kept: Mutex::default(), spare: Spare::default() }
    }

    /// Takes what is wanted from the first of `sources` that has it; damaged, it is asked for again.
    ///
    /// The error names every source and what was wrong with it.
    pub(crate) async fn fetch(
        &self,
        sources: impl IntoIterator<Item = Source>,
        wanted: &Wanted,
        limit: usize,
    ) -> Result<Fetched, String> {
        let mut troubles = Vec::new();
        for source in sources {
            for attempt in 1..=ATTEMPTS {
                let error = match self.fetch_from(&source, wanted, limit).await {
                    Ok(bytes) => return Ok(Fetched { state: State::from(bytes), troubles }),
                    Err(error) => error,
                };
                let address = &source.address;
                if matches!(error, FetchError::NotHeld) {
                    // It may have been let go meanwhile: whoever asked for it knows.
                    tracing::debug!(source = address, "a State is not held there");
                } else {
                    tracing::warn!(source = address, %error, attempt, "a State was not fetched");
                }
                troubles.push(format!("from {address}: {error}"));
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

    async fn fetch_from(
        &self,
        source: &Source,
        wanted: &Wanted,
        limit: usize,
    ) -> Result<Vec<u8>, FetchError> {
        let Source { address, role } = source;
        if let Some(connection) = self.take(source) {
            match self.ask(source, connection, wanted, limit).await {
                // The other end has closed it meanwhile: that says nothing of the State.
                Err(FetchError::Connection(error)) if error.kind() != io::ErrorKind::TimedOut => {}
                Err(FetchError::CutOff(0) | FetchError::NotLent | FetchError::Memory(_)) => {}
                answered => return answered,
            }
        }
        if let Some(connection) = dial_here(address, role, &self.security).await {
            match self.ask(source, connection, wanted, limit).await {
                answered @ (Ok(_) | Err(FetchError::NotHeld | FetchError::TooLarge { .. })) => {
                    return answered;
                }
                // A process that stands still does so on every connection.
                Err(FetchError::Connection(error)) if error.kind() == io::ErrorKind::TimedOut => {
                    return Err(error.into());
                }
                Err(error) => {
                    let error: &(dyn std::error::Error + 'static) = &error;
                    tracing::debug!(source = address, error, "a State is sent, not lent");
                }
            }
        }
        let connection = dial(address, role, Purpose::Bulk, &self.security).await?;
        self.ask(source, connection, wanted, limit).await
    }

    async fn ask(
        &self,
        source: &Source,
        mut connection: Connection,
        wanted: &Wanted,
        limit: usize,
    ) -> Result<Vec<u8>, FetchError> {
        let mut frames = FramedWrite::new(&mut connection, codec(MAX_WANTED));
        send(&mut frames, wanted.encode_to_vec().into()).await?;
        let received = match connection.peer().process {
            Some(process) => borrow(&mut connection, process, limit, &self.spare).await,
            None => receive(&mut connection, limit).await,
        };
        // After anything else than an answer nobody knows what would come next.
        if matches!(received, Ok(_) | Err(FetchError::NotHeld)) {
            self.keep(Kept { source: source.clone(), connection, since: Instant::now() });
        }
        received
    }

    /// Takes what is needed no more: its memory may serve what is fetched next.
    pub(crate) fn forget(&self, states: impl IntoIterator<Item = State>) {
        states.into_iter().for_each(|state| self.spare.put(state));
    }

    /// A connection to `source` that was used not long ago.
    fn take(&self, source: &Source) -> Option<Connection> {
        let mut kept = self.kept();
        kept.retain(|kept| kept.since.elapsed() < KEPT);
        let at = kept.iter().rposition(|kept| kept.source == *source)?;
        Some(kept.remove(at).connection)
    }

    fn keep(&self, connection: Kept) {
        let mut kept = self.kept();
        if kept.len() == MOST_KEPT {
            kept.remove(0);
        }
        kept.push(connection);
    }

    fn kept(&self) -> MutexGuard<'_, Vec<Kept>> {
        // Nothing panics while it holds the lock.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetcher").field("kept", &self.kept().len()).finish_non_exhaustive()
    }
}

/// What a holder offers to a `Wanted`, if it has it and it is not too large.
pub(super) async fn offered(
    frames: &mut FramedRead<impl AsyncRead + Unpin, LengthDelimitedCodec>,
    limit: usize,
) -> Result<Offer, FetchError> {
    let Some(offer) = in_time(frames.next()).await? else { return Err(FetchError::CutOff(0)) };
    let offer = Offer::decode(offer?).map_err(io::Error::from)?;
    if !offer.held {
        return Err(FetchError::NotHeld);
    }
    if offer.bytes > limit as u64 {
        return Err(FetchError::TooLarge { limit });
    }
    Ok(offer)
}

/// Takes in what a holder sends to a `Wanted`.
pub(crate) async fn receive(
    stream: impl AsyncRead + Unpin,
    limit: usize,
) -> Result<Vec<u8>, FetchError> {
    let mut frames = FramedRead::new(stream, codec(DIGEST + CHUNK));
    let offer = offered(&mut frames, limit).await?;
    let mut bytes = Vec::new();
    // Besides its values a State has a header, seldom longer than a chunk: room for it, or all is
    // moved for its sake.
    let reserved = bytes.try_reserve_exact((offer.bytes as usize).saturating_add(CHUNK));
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
            if !frames.read_buffer().is_empty() {
                return Err(FetchError::Unasked);
            }
            break;
        }
        if bytes.len() + frame.len() > limit {
            return Err(FetchError::TooLarge { limit });
        }
        bytes.extend_from_slice(&frame);
    }
    bytes.shrink_to_fit();
    Ok(bytes)
}
