//! [`Archive`]: States read back from a store, by whoever may look at it.

use futures::FutureExt;
use futures::channel::oneshot;
use futures::future::BoxFuture;
use xxhash_rust::xxh3::xxh3_64;

use super::objects::Objects;
use super::{Archive, Checkpoint, StoreError};
use crate::data::Location;
use crate::id::TrialId;
use crate::state::State;

/// Needs no lease, since checkpoints never change.
#[derive(Debug)]
pub(super) struct LocationArchive {
    pub(super) location: Location,
}

impl Archive for LocationArchive {
    fn read(
        &self,
        trial: TrialId,
        checkpoint: &Checkpoint,
    ) -> BoxFuture<'static, Result<State, StoreError>> {
        let (location, checkpoint) = (self.location.clone(), checkpoint.clone());
        let (done, outcome) = oneshot::channel();
        // States are read when a run begins and ends: a thread each costs nothing beside them.
        let thread =
            std::thread::Builder::new().name("cerebro-archive".to_owned()).spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let state = match runtime {
                    Ok(runtime) => runtime.block_on(async {
                        let objects = Objects::at(&location)?;
                        read(&objects, trial, &checkpoint).await
                    }),
                    Err(error) => Err(StoreError::Location {
                        location: location.to_string(),
                        reason: format!("the runtime of its requests did not start: {error}"),
                    }),
                };
                // Nobody waits for it any more if the driver was dropped.
                let _ = done.send(state);
            });
        let location = self.location.to_string();
        async move {
            thread.map_err(|error| StoreError::Location {
                location,
                reason: format!("its thread did not start: {error}"),
            })?;
            outcome.await.unwrap_or(Err(StoreError::Closed))
        }
        .boxed()
    }
}

async fn read(
    objects: &Objects,
    trial: TrialId,
    checkpoint: &Checkpoint,
) -> Result<State, StoreError> {
    let Checkpoint { path, bytes: expected, digest, .. } = checkpoint;
    let damaged =
        |reason: String| StoreError::DamagedCheckpoint { path: path.clone(), trial, reason };
    let Some(bytes) = objects.get(path).await? else {
        return Err(damaged("it is not there".to_owned()));
    };
    if bytes.len() as u64 != *expected {
        return Err(damaged(format!("it has {} bytes, and had {expected}", bytes.len())));
    }
    let found = xxh3_64(&bytes);
    if found != *digest {
        return Err(damaged(format!("its XXH3 is {found:016x}, and was {digest:016x}")));
    }
    Ok(State::from(Vec::from(bytes)))
}
