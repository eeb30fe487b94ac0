//! A worker: a thread that runs units one at a time.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use cerebro_core::backend::{Job, UnitError, UnitOrder, UnitReport, WorkerEvent};
use cerebro_core::data::{DataError, Partition, PartitionCache};
use cerebro_core::execute::execute;
use cerebro_core::{PartitionId, Slot, State, WorkerId};
use futures::channel::{mpsc, oneshot};

use crate::states::States;

/// How often a running unit says how far it is: often enough for a person to see it move.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// How long a worker stays awake for its next unit. That mostly comes within microseconds of the last
/// one's report, and a thread that went to sleep takes longer than that to wake.
const AWAKE: Duration = Duration::from_micros(200);

/// What a worker is asked to do.
pub(crate) enum Request {
    /// Load partitions into memory.
    Load { partitions: Vec<PartitionId>, done: oneshot::Sender<Result<(), DataError>> },
    /// Run a unit.
    Run { order: UnitOrder, done: oneshot::Sender<Result<UnitReport, UnitError>> },
}

/// A worker's own view: everything that its thread needs.
pub(crate) struct Worker {
    pub(crate) id: WorkerId,
    pub(crate) slot: Slot,
    pub(crate) job: Job,
    pub(crate) partitions: Arc<PartitionCache>,
    pub(crate) states: Arc<States>,
    pub(crate) events: mpsc::UnboundedSender<WorkerEvent>,
}

impl Worker {
    /// Serves requests until the backend drops its end.
    pub(crate) fn serve(self, requests: &Receiver<Request>) {
        while let Some(request) = next(requests) {
            match request {
                // The receiving ends may be gone when the driver gave up; then nobody asks.
                Request::Load { partitions, done } => {
                    let _ = done.send(self.load_all(&partitions));
                }
                Request::Run { order, done } => {
                    let _ = done.send(self.run(&order));
                }
            }
        }
    }

    fn load_all(&self, partitions: &[PartitionId]) -> Result<(), DataError> {
        partitions.iter().try_for_each(|&partition| self.load(partition).map(drop))
    }

    /// The partition, from memory if it is there.
    fn load(&self, partition: PartitionId) -> Result<Arc<dyn Partition>, DataError> {
        let (loaded, took) = self.partitions.fetch(partition)?;
        if let Some(took) = took {
            self.say(WorkerEvent::PartitionLoaded {
                worker: self.id,
                partition,
                rows: loaded.rows() as u64,
                bytes: loaded.bytes() as u64,
                took,
            });
        }
        Ok(loaded)
    }

    fn run(&self, order: &UnitOrder) -> Result<UnitReport, UnitError> {
        let begun = Instant::now();
        let start = self.state_before(order)?;
        let partition = order.unit.partition;
        let partition = self.load(partition).map_err(|source| UnitError::Partition {
            partition,
            worker: self.id,
            source,
        })?;
        let progress = Progress::new(self, order);
        let report = |rows| progress.add(rows);
        let Job { builder, .. } = &self.job;
        let executed =
            execute(&**builder, &self.slot, order, start.as_ref(), &*partition, &report)?;
        let kept = executed.state.as_ref().or(start.as_ref());
        let state_bytes = kept.map_or(0, |state| state.bytes() as u64);
        let version = match executed.state {
            Some(state) => {
                let version = order.version + 1;
                self.states.put(order.unit, version, state);
                version
            }
            None => order.version,
        };
        Ok(UnitReport {
            metrics: executed.metrics,
            rows: partition.rows() as u64,
            version,
            state_bytes,
            occupied: begun.elapsed(),
            computed: executed.computed,
        })
    }

    fn state_before(&self, order: &UnitOrder) -> Result<Option<State>, UnitError> {
        let (trial, version) = (order.unit.trial, order.version);
        match self.states.get(trial, version) {
            Some(state) => Ok(Some(state)),
            None if version == 0 => Ok(None),
            None => Err(UnitError::NoState {
                trial,
                version,
                reason: "no unit of this backend has made it, or it was let go".to_owned(),
            }),
        }
    }

    fn say(&self, event: WorkerEvent) {
        // Nobody listens any more once the driver is gone.
        let _ = self.events.unbounded_send(event);
    }
}

/// The next request; none when the backend has dropped its end.
fn next(requests: &Receiver<Request>) -> Option<Request> {
    let reported = Instant::now();
    while reported.elapsed() < AWAKE {
        match requests.try_recv() {
            Ok(request) => return Some(request),
            // The driver, which is to decide on the next unit, may need this core.
            Err(TryRecvError::Empty) => std::thread::yield_now(),
            Err(TryRecvError::Disconnected) => return None,
        }
    }
    requests.recv().ok()
}

/// Counts a unit's rows and says so from time to time.
struct Progress<'a> {
    worker: &'a Worker,
    order: &'a UnitOrder,
    rows: Cell<u64>,
    said: Cell<Instant>,
}

impl<'a> Progress<'a> {
    fn new(worker: &'a Worker, order: &'a UnitOrder) -> Self {
        Self { worker, order, rows: Cell::new(0), said: Cell::new(Instant::now()) }
    }

    fn add(&self, rows: usize) {
        self.rows.set(self.rows.get() + rows as u64);
        let now = Instant::now();
        if now.duration_since(self.said.get()) >= PROGRESS_INTERVAL {
            self.said.set(now);
            self.worker.say(WorkerEvent::Progress {
                worker: self.worker.id,
                unit: self.order.unit,
                rows: self.rows.get(),
            });
        }
    }
}
