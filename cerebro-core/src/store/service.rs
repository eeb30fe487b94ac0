//! The thread that reads and writes, with the runtime that clients of object stores need.

use std::sync::Mutex;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use futures::channel::{mpsc, oneshot};
use futures::future::{BoxFuture, Either, select};
use futures::{FutureExt, StreamExt};
use tokio::sync::watch;
use xxhash_rust::xxh3::xxh3_64;

use super::journal::{self, Journal};
use super::lease::Lease;
use super::objects::{Created, Objects};
use super::writer::Persistence;
use super::{Checkpoint, Keeper, Record, Said, StoreError};
use crate::id::TrialId;
use crate::state::State;

enum Request {
    Append(Vec<u8>),
    Write { path: String, version: u64, state: State, done: Done<Checkpoint> },
    Delete(Vec<Checkpoint>),
}

/// So many files are written at once at most: each has a thread, with a stack and a heap of its own.
const FILES: usize = 8;

type Done<T> = oneshot::Sender<Result<T, StoreError>>;

/// The driver's end of the thread.
#[derive(Debug)]
pub(super) struct Service {
    requests: mpsc::UnboundedSender<Request>,
    driver: u64,
    give_up: watch::Sender<bool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What the thread works with.
pub(super) struct Desk {
    pub(super) objects: Objects,
    pub(super) lease: Lease,
    pub(super) expiry: Duration,
    pub(super) journal: Journal,
}

/// A thread that serves: its other end, what it says, and what it found when it opened the store.
pub(super) type Started<O> = (Service, mpsc::UnboundedReceiver<Said>, O);

/// A thread that opens a store by `open`, tells what came out, and then serves it.
pub(super) fn start<O>(
    open: impl Future<Output = Result<(Desk, O), StoreError>> + Send + 'static,
) -> BoxFuture<'static, Result<Started<O>, StoreError>>
where
    O: Send + 'static,
{
    let (opened, outcome) = oneshot::channel();
    let (requests, inbox) = mpsc::unbounded();
    let (said, events) = mpsc::unbounded();
    let (give_up, given_up) = watch::channel(false);
    let persistence = Persistence::new(said, given_up);
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .max_blocking_threads(FILES)
            .enable_all()
            .build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => {
                let reason = format!("the runtime of its requests did not start: {error}");
                let location = "the store".to_owned();
                let _ = opened.send(Err(StoreError::Location { location, reason }));
                return;
            }
        };
        runtime.block_on(async {
            match open.await {
                Ok((desk, output)) => {
                    if opened.send(Ok((desk.lease.driver, output))).is_ok() {
                        serve(desk, inbox, persistence).await;
                    } else if let Err(error) = desk.lease.release().await {
                        tracing::warn!("the lease stays until it expires: {error}");
                    }
                }
                Err(error) => {
                    // The caller may have stopped waiting.
                    let _ = opened.send(Err(error));
                }
            }
        });
    };
    let thread = std::thread::Builder::new().name("cerebro-store".to_owned()).spawn(run);
    async move {
        let thread = thread.map_err(|error| StoreError::Location {
            location: "the store".to_owned(),
            reason: format!("its thread did not start: {error}"),
        })?;
        let (driver, output) = outcome.await.map_err(|_| StoreError::Closed)??;
        let thread = Mutex::new(Some(thread));
        Ok((Service { requests, driver, give_up, thread }, events, output))
    }
    .boxed()
}

impl Service {
    fn request(&self, request: Request) {
        // The thread ends before this only when the experiment is another driver's, which it said.
        let _ = self.requests.unbounded_send(request);
    }

    fn ask<T: Send + 'static>(
        &self,
        request: impl FnOnce(Done<T>) -> Request,
    ) -> BoxFuture<'static, Result<T, StoreError>> {
        let (done, outcome) = oneshot::channel();
        self.request(request(done));
        outcome.map(|outcome| outcome.unwrap_or(Err(StoreError::Closed))).boxed()
    }
}

impl Keeper for Service {
    fn append(&self, record: &Record) {
        self.request(Request::Append(journal::line(record)));
    }

    fn write(
        &self,
        trial: TrialId,
        version: u64,
        state: State,
    ) -> BoxFuture<'static, Result<Checkpoint, StoreError>> {
        // The driver's number keeps a driver that was replaced from writing over its successor's.
        let path = format!("checkpoints/{trial}/{version}.{:06}", self.driver);
        self.ask(|done| Request::Write { path, version, state, done })
    }

    fn delete(&self, checkpoints: Vec<Checkpoint>) {
        self.request(Request::Delete(checkpoints));
    }

    fn give_up(&self) {
        self.give_up.send_replace(true);
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // What is in the inbox is still written, but nothing is waited for any more.
        self.give_up.send_replace(true);
        self.requests.close_channel();
        let thread = match self.thread.get_mut() {
            Ok(thread) => thread.take(),
            Err(poisoned) => poisoned.into_inner().take(),
        };
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the store's thread panicked");
        }
    }
}

/// Serves requests until the driver drops its end.
async fn serve(desk: Desk, mut inbox: mpsc::UnboundedReceiver<Request>, persistence: Persistence) {
    let Desk { objects, lease, expiry, mut journal } = desk;
    let (end, ended) = oneshot::channel();
    let pulse = tokio::spawn(pulse(lease.clone(), expiry, persistence.clone(), ended));
    let mut writes = tokio::task::JoinSet::new();
    let mut batch = Batch::default();
    let (mut superseded, mut committed) = (Vec::<Checkpoint>::new(), journal.len());
    while let Some(first) = inbox.next().await {
        // What has been written is let go of: a set of tasks keeps each until somebody asks for it.
        while writes.try_join_next().is_some() {}
        // Whatever came up meanwhile is done together, and its records go into one segment.
        let mut next = Some(first);
        let mut deleted = Vec::new();
        while let Some(request) = next {
            match request {
                Request::Append(line) => batch.add(&line),
                Request::Delete(checkpoints) => deleted.extend(checkpoints),
                Request::Write { path, version, state, done } => {
                    let (objects, persistence) = (objects.clone(), persistence.clone());
                    writes.spawn(async move {
                        // Nobody waits for it any more if the trial was stopped meanwhile.
                        let _ = done.send(write(objects, persistence, path, version, state).await);
                    });
                }
            }
            next = inbox.try_recv().ok();
        }
        if let Err(error) = commit(&mut batch, &mut journal, &lease, &objects, &persistence).await {
            persistence.say(Said::Ousted(error));
            return;
        }
        // The journal says by now that the earlier ones are not needed, and says it in more than its
        // last segment: were that one damaged, the one before would still find all that it names.
        if journal.len() > committed {
            committed = journal.len();
            delete(std::mem::take(&mut superseded), &objects).await;
        }
        superseded.extend(deleted);
        if let Err(error) = journal.merge().await {
            tracing::warn!("the journal's segments were not merged this time: {error}");
        }
    }
    while writes.join_next().await.is_some() {}
    if !superseded.is_empty() {
        batch.add(&journal::line(&Record::Closed));
        match commit(&mut batch, &mut journal, &lease, &objects, &persistence).await {
            Ok(()) => delete(superseded, &objects).await,
            Err(error) => tracing::warn!("checkpoints that are not needed stay: {error}"),
        }
    }
    // A beat that is under way must not come after the lease was given back.
    drop(end);
    let _ = pulse.await;
    if let Err(error) = lease.release().await {
        tracing::warn!("the lease stays until it expires: {error}");
    }
}

/// Deletes checkpoints that are not needed any more.
async fn delete(checkpoints: Vec<Checkpoint>, objects: &Objects) {
    for checkpoint in checkpoints {
        if let Err(error) = objects.delete(&checkpoint.path).await {
            tracing::warn!("a checkpoint that is not needed any more stays: {error}");
        }
    }
}

/// Lines that are not durable yet.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    records: u64,
}

impl Batch {
    fn add(&mut self, line: &[u8]) {
        self.bytes.extend_from_slice(line);
        self.records += 1;
    }
}

/// Makes the batch durable. An error if the experiment is another driver's, or was given up.
async fn commit(
    batch: &mut Batch,
    journal: &mut Journal,
    lease: &Lease,
    objects: &Objects,
    persistence: &Persistence,
) -> Result<(), StoreError> {
    if batch.records == 0 {
        return Ok(());
    }
    let bytes = Bytes::from(std::mem::take(&mut batch.bytes));
    let path = journal.next_path();
    let created = persistence.insist(|| async {
        match objects.create(&path, bytes.clone()).await? {
            Created::Yes => Ok(()),
            // An attempt that seemed to fail had succeeded: the name has this driver's number.
            Created::Exists if objects.get(&path).await?.as_ref() == Some(&bytes) => Ok(()),
            Created::Exists => Err(StoreError::TakenOver { store: objects.name().to_owned() }),
        }
    });
    created.await?;
    // After the write and before it counts: a driver that took over meanwhile either finds this
    // segment or is found here.
    persistence.insist(|| lease.check()).await?;
    journal.wrote(std::mem::take(&mut batch.records), bytes.len());
    persistence.say(Said::Durable(journal.len()));
    Ok(())
}

async fn write(
    objects: Objects,
    persistence: Persistence,
    path: String,
    version: u64,
    state: State,
) -> Result<Checkpoint, StoreError> {
    // Writing a State out computes: not on the thread that answers everybody.
    let written = tokio::task::spawn_blocking(move || {
        let bytes = state.to_vec();
        (xxh3_64(&bytes), Bytes::from(bytes))
    });
    let (digest, bytes) = written.await.map_err(|_| StoreError::Closed)?;
    persistence.insist(|| objects.put(&path, bytes.clone())).await?;
    Ok(Checkpoint { version, path, bytes: bytes.len() as u64, digest })
}

/// Shows that the driver is alive, and notices when another has taken over.
async fn pulse(
    mut lease: Lease,
    expiry: Duration,
    persistence: Persistence,
    mut ended: oneshot::Receiver<()>,
) {
    let mut beats = tokio::time::interval(expiry / 3);
    loop {
        let beat = std::pin::pin!(beats.tick());
        if let Either::Left(_) = select(&mut ended, beat).await {
            return;
        }
        if let Err(error @ StoreError::TakenOver { .. }) = lease.check().await {
            persistence.say(Said::Ousted(error));
            return;
        }
        if let Err(error) = lease.renew().await {
            tracing::warn!("the lease could not be renewed: {error}");
        }
    }
}
