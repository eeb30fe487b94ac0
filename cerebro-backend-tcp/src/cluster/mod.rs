//! [`Cluster`]: what the driver knows of its workers, and what follows from each thing that happens.
//!
//! Everything that happens (a worker registers, a partition is loaded, a unit ends, a lease runs
//! out) takes the lock, changes the books, queues messages and lets go: the lock is never held
//! while waiting.

mod leaving;
mod membership;
mod messages;
mod orders;
mod states;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cerebro_core::backend::{BackendError, UnitReport, WorkerEvent, WorkerInfo};
use cerebro_core::data::PartitionInfo;
use cerebro_core::{Device, PartitionId, State, TrialId, Unit, WorkerId};
use futures::channel::{mpsc, oneshot};
use futures::{Stream, StreamExt};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::bulk::Fetcher;
use crate::ledger::{Holder, Ledger, Recipe, StateName};
use crate::placement::Place;
use crate::protocol::{self, from_driver};
use crate::security::{Identity, Security};
use crate::wire::Failed;

/// What a source is called that is the driver itself: workers know where they dialled it.
pub(crate) const FROM_DRIVER: &str = "";

/// The name of the backend in errors.
pub(crate) const NAME: &str = "TCP";

/// How the driver treats its workers.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    pub(crate) replicas: usize,
    pub(crate) lease: Duration,
    pub(crate) patience: Duration,
    pub(crate) most_workers: usize,
    pub(crate) most_state_bytes: usize,
    pub(crate) security: Security,
    pub(crate) lending: bool,
    /// Workers that may register, by the names in their certificates; none: all of the authority.
    pub(crate) authorised: Option<BTreeSet<String>>,
}

/// The driver's books.
pub(crate) struct Cluster {
    /// Drawn when the driver starts.
    pub(crate) run: u64,
    pub(crate) terms: Terms,
    books: Mutex<Books>,
    changed: Notify,
    events: mpsc::UnboundedSender<WorkerEvent>,
    /// States that the driver holds itself.
    held: Mutex<HashMap<StateName, State>>,
    pub(crate) fetcher: Fetcher,
    repairs: Mutex<HashMap<TrialId, Arc<tokio::sync::Mutex<()>>>>,
    /// States that the driver is to fetch, because no worker is left to take them over.
    relays: mpsc::UnboundedSender<StateName>,
}

/// Where the backend is between its start and its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Workers may register, but nobody has said what they are to do.
    Gathering,
    /// Partitions are being loaded.
    Loading,
    Running,
    Ended,
}

pub(crate) struct Books {
    pub(crate) phase: Phase,
    pub(crate) job: Option<PreparedJob>,
    pub(crate) workers: BTreeMap<WorkerId, Worker>,
    pub(crate) ledger: Ledger,
    /// What a worker said of the job when it could not do it, before anything ran.
    pub(crate) refusal: Option<String>,
    /// Sessions whose connection is open, those of lost workers too.
    pub(crate) sessions: usize,
    orders: HashMap<u64, Pending>,
    /// States that workers were told to take in and have not answered for.
    copying: BTreeSet<(StateName, WorkerId)>,
    /// States that the driver fetches because nobody else takes them over.
    relaying: BTreeSet<StateName>,
    next_worker: u32,
    next_order: u64,
}

/// A job in the form that workers are told it.
#[derive(Clone)]
pub(crate) struct PreparedJob {
    pub(crate) partitions: Vec<PartitionInfo>,
    pub(crate) message: protocol::Job,
    pub(crate) blueprint: State,
}

/// A registered worker.
pub(crate) struct Worker {
    pub(crate) name: String,
    pub(crate) slots: usize,
    pub(crate) device: Device,
    /// Where others reach its States.
    pub(crate) address: String,
    pub(crate) place: Place,
    /// What it had when it came, in memory or on disk, by the URL of the data set.
    holdings: BTreeMap<String, BTreeSet<PartitionId>>,
    pub(crate) loading: BTreeSet<PartitionId>,
    pub(crate) status: Status,
    /// How often a State that it held could not be had from it.
    pub(crate) missed: u32,
    instance: u64,
    /// Who its certificate says that it is.
    identity: Identity,
    to: Outbox,
}

/// What is on its way to a worker.
#[derive(Clone, Debug)]
pub(crate) struct Outbox {
    to: mpsc::UnboundedSender<protocol::FromDriver>,
    waiting: Arc<AtomicUsize>,
    /// States that it may forget. It is told so with the next message, which wakes it anyway: an
    /// order, or the answer to its heartbeat.
    needless: Arc<Mutex<Vec<protocol::StateName>>>,
}

impl Outbox {
    /// The two ends of the way to a worker.
    pub(crate) fn new() -> (Self, impl Stream<Item = protocol::FromDriver> + Send + 'static) {
        let (to, outbound) = mpsc::unbounded();
        let outbox = Self { to, waiting: Arc::default(), needless: Arc::default() };
        let waiting = Arc::clone(&outbox.waiting);
        let taken = move |_: &protocol::FromDriver| {
            waiting.fetch_sub(1, Ordering::Relaxed);
        };
        (outbox, outbound.inspect(taken))
    }

    fn send(&self, what: from_driver::What) {
        let states = std::mem::take(&mut *self.needless());
        if !states.is_empty() {
            self.put(from_driver::What::Drop(protocol::Drop { states }));
        }
        self.put(what);
    }

    fn let_go(&self, state: StateName) {
        self.needless().push(state.into());
    }

    fn needless(&self) -> MutexGuard<'_, Vec<protocol::StateName>> {
        // Nothing panics while it holds the lock.
        self.needless.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, what: from_driver::What) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        // The session of a worker whose queue is gone is about to be found lost.
        let _ = self.to.unbounded_send(protocol::FromDriver { what: Some(what) });
    }

    /// Messages that the worker has not taken, and States that it is yet to be told of.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed) + self.needless().len()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// It has not loaded its first partitions: nobody has heard of it.
    New,
    Serving,
    Draining,
}

/// A unit that a worker runs.
struct Pending {
    worker: WorkerId,
    unit: Unit,
    version: u64,
    /// How to make again what it makes; `None` for validation, which makes nothing.
    recipe: Option<Recipe>,
    reply: oneshot::Sender<Result<UnitReport, Failed>>,
}

/// What the driver sends, to whom and when it comes back.
pub(crate) struct Dispatch {
    pub(crate) worker: WorkerId,
    pub(crate) unit: Unit,
    pub(crate) version: u64,
    pub(crate) recipe: Option<Recipe>,
    pub(crate) config: Vec<u8>,
    pub(crate) seed: u64,
}

impl Worker {
    pub(crate) fn holds(&self, partition: PartitionId) -> bool {
        self.place.holds.contains(&partition) && !self.loading.contains(&partition)
    }

    fn send(&self, what: from_driver::What) {
        self.to.send(what);
    }

    fn let_go(&self, state: StateName) {
        self.to.let_go(state);
    }

    fn info(&self, id: WorkerId) -> WorkerInfo {
        let held = self.place.holds.iter().copied();
        WorkerInfo {
            id,
            name: self.name.clone(),
            slots: self.slots,
            device: self.device,
            partitions: held.filter(|partition| !self.loading.contains(partition)).collect(),
        }
    }
}

impl Books {
    /// Takes in that a State could not be had from one who holds it.
    pub(crate) fn missed(&mut self, name: StateName, holder: Holder) {
        self.ledger.missed(name, holder);
        if let Holder::Worker(id) = holder
            && let Some(worker) = self.workers.get_mut(&id)
        {
            worker.missed += 1;
        }
    }
}

impl Cluster {
    pub(crate) fn new(
        terms: Terms,
        events: mpsc::UnboundedSender<WorkerEvent>,
        relays: mpsc::UnboundedSender<StateName>,
    ) -> Self {
        Self {
            run: crate::drawn(),
            fetcher: Fetcher::new(terms.security.clone()),
            terms,
            books: Mutex::new(Books {
                phase: Phase::Gathering,
                job: None,
                workers: BTreeMap::new(),
                ledger: Ledger::default(),
                refusal: None,
                sessions: 0,
                orders: HashMap::new(),
                copying: BTreeSet::new(),
                relaying: BTreeSet::new(),
                next_worker: 0,
                next_order: 1,
            }),
            changed: Notify::new(),
            events,
            held: Mutex::default(),
            repairs: Mutex::default(),
            relays,
        }
    }

    pub(crate) fn books(&self) -> MutexGuard<'_, Books> {
        // Nothing panics while it holds the lock.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `check` gives something; it is asked again after each change.
    pub(crate) async fn until<T>(
        &self,
        deadline: Option<Instant>,
        mut check: impl FnMut(&mut Books) -> Option<T>,
    ) -> Option<T> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(found) = check(&mut self.books()) {
                return Some(found);
            }
            match deadline {
                None => changed.await,
                Some(deadline) => timeout_at(deadline, changed).await.ok()?,
            }
        }
    }

    pub(crate) fn changed(&self) {
        self.changed.notify_waiters();
    }

    pub(crate) fn say(&self, event: WorkerEvent) {
        // Nobody listens any more once the driver is gone.
        let _ = self.events.unbounded_send(event);
    }
}

/// A call before `start` or after `shutdown`.
pub(crate) fn not_running() -> BackendError {
    BackendError::NotRunning { backend: NAME }
}
