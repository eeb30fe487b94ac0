//! A worker: a thread that runs units one at a time.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use cerebro_core::backend::{Job, UnitError, UnitOrder, UnitReport, WorkerEvent};
use cerebro_core::data::{DataError, Dataset, Partition};
use cerebro_core::{Model, ModelError, PartitionId, Pass, Slot, Split, State, WorkerId};
use futures::channel::{mpsc, oneshot};

use crate::states::States;

/// How often a running unit says how far it is: often enough for a person to see it move.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

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
    pub(crate) dataset: Arc<dyn Dataset>,
    pub(crate) states: Arc<States>,
    pub(crate) events: mpsc::UnboundedSender<WorkerEvent>,
}

impl Worker {
    /// Serves requests until the backend drops its end.
    pub(crate) fn serve(self, requests: &Receiver<Request>) {
        while let Ok(request) = requests.recv() {
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
        for &partition in partitions {
            let begun = Instant::now();
            let loaded = self.dataset.load(partition)?;
            self.say(WorkerEvent::PartitionLoaded {
                worker: self.id,
                partition,
                rows: loaded.rows() as u64,
                bytes: loaded.bytes() as u64,
                took: begun.elapsed(),
            });
        }
        Ok(())
    }

    fn run(&self, order: &UnitOrder) -> Result<UnitReport, UnitError> {
        let begun = Instant::now();
        let trial = order.unit.trial;
        let start = self.state_before(order)?;
        let partition = order.unit.partition;
        let partition = self.dataset.load(partition).map_err(|source| UnitError::Partition {
            partition,
            worker: self.id,
            source,
        })?;
        // Whatever the model left half done is dropped with it when it panics: the State that the
        // unit started from is immutable, and the new one is recorded below, after success only.
        let passed =
            catch_unwind(AssertUnwindSafe(|| self.pass(order, start.as_ref(), &*partition)));
        let passed =
            passed.map_err(|panic| UnitError::Panicked { message: message(&*panic) })??;
        let version = match passed.state {
            Some(state) => {
                let version = order.version + 1;
                self.states.put(trial, version, state);
                version
            }
            None => order.version,
        };
        Ok(UnitReport {
            metrics: passed.metrics,
            rows: partition.rows() as u64,
            version,
            state_bytes: passed.state_bytes,
            occupied: begun.elapsed(),
            computed: passed.computed,
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

    fn pass(
        &self,
        order: &UnitOrder,
        start: Option<&State>,
        partition: &dyn Partition,
    ) -> Result<Passed, ModelError> {
        let mut model = self.job.builder.build(&order.config, &self.slot)?;
        match start {
            Some(state) => model.restore(state)?,
            None => model.initialize(order.seed)?,
        }
        let progress = Progress::new(self, order);
        let report = |rows| progress.add(rows);
        let pass = Pass::new(order.unit, order.seed, &order.cancellation, &report);
        let begun = Instant::now();
        let metrics = match order.unit.split {
            Split::Train => model.train(partition, &pass)?,
            Split::Validation => model.evaluate(partition, &pass)?,
        };
        let computed = begun.elapsed();
        let (state, state_bytes) = match order.unit.split {
            Split::Train => trained(&mut *model)?,
            Split::Validation => (None, start.map_or(0, |state| state.bytes() as u64)),
        };
        Ok(Passed { metrics, state, state_bytes, computed })
    }

    fn say(&self, event: WorkerEvent) {
        // Nobody listens any more once the driver is gone.
        let _ = self.events.unbounded_send(event);
    }
}

/// What a model made of a partition.
struct Passed {
    metrics: cerebro_core::Metrics,
    state: Option<State>,
    state_bytes: u64,
    computed: Duration,
}

fn trained(model: &mut dyn Model) -> Result<(Option<State>, u64), ModelError> {
    let state = model.state()?;
    let bytes = state.bytes() as u64;
    Ok((Some(state), bytes))
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

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a value that is not a text".to_owned())
}
