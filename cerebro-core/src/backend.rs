//! [`Backend`]: where units run.
//!
//! # A backend of your own
//!
//! The smallest one runs every unit on the driver's thread. What it must do is all here: place and
//! load partitions, keep States by trial and version, run a unit from one version to the next.
//! [`execute`](crate::execute::execute) does what is the same for all: it builds the model, gives it
//! its State, and turns a panic into that unit's error.
//!
//! ```
//! use std::collections::HashMap;
//! use std::sync::{Arc, Mutex};
//!
//! use async_trait::async_trait;
//! use cerebro_core::backend::{
//!     BackendError, Job, UnitError, UnitOrder, UnitReport, WorkerEvent, WorkerInfo,
//! };
//! use cerebro_core::execute::execute;
//! use cerebro_core::{Backend, Device, Slot, State, TrialId, WorkerId};
//! use futures::stream::{self, BoxStream, StreamExt};
//!
//! #[derive(Debug, Default)]
//! struct Inline {
//!     job: Mutex<Option<Job>>,
//!     states: Mutex<HashMap<(TrialId, u64), State>>,
//! }
//!
//! #[async_trait]
//! impl Backend for Inline {
//!     async fn start(&self, job: Job) -> Result<Vec<WorkerInfo>, BackendError> {
//!         let partitions = job.dataset.partitions().iter().map(|info| info.id).collect();
//!         *self.job.lock().unwrap() = Some(job);
//!         let name = "this thread".to_owned();
//!         Ok(vec![WorkerInfo { id: WorkerId(0), name, slots: 1, device: Device::Cpu, partitions }])
//!     }
//!
//!     async fn run(&self, order: UnitOrder) -> Result<UnitReport, UnitError> {
//!         let (trial, worker, partition) = (order.unit.trial, order.worker, order.unit.partition);
//!         let lost = || UnitError::WorkerLost { worker, reason: "it was not started".to_owned() };
//!         let job = self.job.lock().unwrap().clone().ok_or_else(lost)?;
//!         let start = self.states.lock().unwrap().get(&(trial, order.version)).cloned();
//!         if start.is_none() && order.version > 0 {
//!             let reason = "it was let go".to_owned();
//!             return Err(UnitError::NoState { trial, version: order.version, reason });
//!         }
//!         let rows = job.dataset.load(partition);
//!         let rows = rows.map_err(|source| UnitError::Partition { partition, worker, source })?;
//!         let done = execute(&*job.builder, &Slot::default(), &order, start.as_ref(), &*rows, &|_| ())?;
//!         let mut version = order.version;
//!         let state_bytes = done.state.as_ref().or(start.as_ref()).map_or(0, State::bytes) as u64;
//!         if let Some(state) = done.state {
//!             version += 1;
//!             self.states.lock().unwrap().insert((trial, version), state);
//!         }
//!         Ok(UnitReport {
//!             metrics: done.metrics,
//!             rows: rows.rows() as u64,
//!             version,
//!             state_bytes,
//!             occupied: done.computed,
//!             computed: done.computed,
//!         })
//!     }
//!
//!     async fn state(&self, trial: TrialId, version: u64) -> Result<State, BackendError> {
//!         let state = self.states.lock().unwrap().get(&(trial, version)).cloned();
//!         state.ok_or(BackendError::NoState { trial, version })
//!     }
//!
//!     async fn install(&self, trial: TrialId, version: u64, state: State) -> Result<(), BackendError> {
//!         self.states.lock().unwrap().insert((trial, version), state);
//!         Ok(())
//!     }
//!
//!     async fn release(&self, trial: TrialId, below: u64, keep: &[u64]) {
//!         self.states.lock().unwrap().retain(|(other, version), _| {
//!             *other != trial || *version >= below || keep.contains(version)
//!         });
//!     }
//!
//!     fn events(&self) -> BoxStream<'static, WorkerEvent> {
//!         stream::pending().boxed() // this worker never says anything on its own
//!     }
//!
//!     async fn shutdown(&self) -> Result<(), BackendError> {
//!         *self.job.lock().unwrap() = None;
//!         Ok(())
//!     }
//! }
//! ```
//!
//! A real backend runs units on threads or machines of its own, and passes the conformance suite
//! `cerebro_core::testing::backend_conforms` (feature `testing`).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::cancel::Cancellation;
use crate::config::Config;
use crate::data::{DataError, Dataset};
use crate::id::{PartitionId, TrialId, Unit, WorkerId};
use crate::metric::Metrics;
use crate::model::{Device, ModelBuilder, ModelError};
use crate::seed::Seed;
use crate::state::State;

/// What a backend is to run units of.
#[derive(Clone)]
pub struct Job {
    /// The data set; the backend places its partitions on workers.
    pub dataset: Arc<dyn Dataset>,
    /// Makes the models.
    pub builder: Arc<dyn ModelBuilder>,
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").field("dataset", &self.dataset).finish_non_exhaustive()
    }
}

/// A worker, as the scheduler sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerInfo {
    /// The worker.
    pub id: WorkerId,
    /// A name for people: a host, a thread.
    pub name: String,
    /// How many units it runs at once.
    pub slots: usize,
    /// Where its models compute.
    pub device: Device,
    /// The partitions that it holds.
    pub partitions: Vec<PartitionId>,
}

/// The order to run one unit on one worker.
#[derive(Clone, Debug)]
pub struct UnitOrder {
    /// The unit.
    pub unit: Unit,
    /// The worker, which holds the unit's partition.
    pub worker: WorkerId,
    /// The trial's Config.
    pub config: Arc<Config>,
    /// The trial's seed: of its initial weights and of all its passes.
    pub seed: Seed,
    /// The version of the State to start from: the number of training units that it contains.
    /// Version 0 is made from the seed, where the unit runs.
    pub version: u64,
    /// Asks the unit to stop at a batch boundary.
    pub cancellation: Cancellation,
}

/// What became of a unit that completed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnitReport {
    /// Metrics over the unit's rows.
    pub metrics: Metrics,
    /// The rows that were passed over.
    pub rows: u64,
    /// The version of the State afterwards: one more after training, the same after validation.
    pub version: u64,
    /// The size of that State, in bytes.
    pub state_bytes: u64,
    /// Time from when the slot took the unit up until it was free again, in seconds.
    #[serde(with = "crate::seconds")]
    pub occupied: Duration,
    /// The part of it that the model spent in `train` or `evaluate`, in seconds.
    #[serde(with = "crate::seconds")]
    pub computed: Duration,
}

/// What workers say on their own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum WorkerEvent {
    /// A worker is there, or holds other partitions than before.
    Joined(WorkerInfo),
    /// A worker is gone, and with it the States and the units that it held.
    Lost {
        /// The worker.
        worker: WorkerId,
        /// Why, as far as is known.
        reason: String,
    },
    /// A worker wants to leave: it finishes its units and takes no others.
    Draining {
        /// The worker.
        worker: WorkerId,
    },
    /// A partition was read into a worker's memory.
    PartitionLoaded {
        /// The worker.
        worker: WorkerId,
        /// The partition.
        partition: PartitionId,
        /// Its rows.
        rows: u64,
        /// The memory that it takes, in bytes.
        bytes: u64,
        /// How long it took, in seconds.
        #[serde(with = "crate::seconds")]
        took: Duration,
    },
    /// A worker runs a training unit again, because the State that it had made was lost. The same
    /// State comes out, so the trial goes on as if nothing had happened.
    UnitRepeated {
        /// The worker that runs it now.
        worker: WorkerId,
        /// The unit.
        unit: Unit,
    },
    /// Rows that a running unit has passed over so far.
    Progress {
        /// The worker.
        worker: WorkerId,
        /// The unit.
        unit: Unit,
        /// The rows since the unit began.
        rows: u64,
    },
    /// Something went wrong that cost time and nothing else: a State that came damaged and was
    /// fetched again, a cache on a disk that is full. The summary of the experiment has it among its
    /// warnings.
    Trouble {
        /// The worker that met with it.
        worker: WorkerId,
        /// What it was, for people.
        what: String,
    },
}

/// Where units run: threads of this process, a cluster.
///
/// The driver calls [`start`](Backend::start) once, then [`run`](Backend::run) for each unit that
/// the scheduler assigned, never more at once on a worker than it has slots. A backend keeps the
/// States: `run` starts from a version that an earlier unit made and keeps the one that it makes,
/// until [`release`](Backend::release) says which are needed no more. Dropping the future
/// of `run` does not stop the unit; its [`Cancellation`] does.
///
/// `cerebro_core::testing` (feature `testing`) holds the conformance suite that every
/// implementation runs.
#[async_trait]
pub trait Backend: Send + Sync + fmt::Debug {
    /// Makes the workers ready for `job`: places the partitions and loads them. Returns when at
    /// least one worker is there; later ones come as [`WorkerEvent::Joined`].
    async fn start(&self, job: Job) -> Result<Vec<WorkerInfo>, BackendError>;

    /// Runs one unit to its end.
    async fn run(&self, order: UnitOrder) -> Result<UnitReport, UnitError>;

    /// The State of `trial` at `version`.
    async fn state(&self, trial: TrialId, version: u64) -> Result<State, BackendError>;

    /// Takes `state` in as the State of `trial` at `version`: a resumed or a cloned trial.
    async fn install(&self, trial: TrialId, version: u64, state: State)
    -> Result<(), BackendError>;

    /// Lets go of the States of `trial` whose version is below `below`, except those in `keep`.
    async fn release(&self, trial: TrialId, below: u64, keep: &[u64]);

    /// A unit of `trial` will probably start from `version` on `worker` as soon as what runs there is
    /// done, and `worker` did not make that State: a backend that has to move it may begin now, so
    /// that the unit does not wait. Returns at once; nothing comes of it if it fails, if the guess
    /// was wrong, or if the State is [released](Backend::release) meanwhile. By default nothing is
    /// done.
    fn prefetch(&self, trial: TrialId, version: u64, worker: WorkerId) {
        let _ = (trial, version, worker);
    }

    /// Waits for workers that hold `partitions`: units need these, no worker holds them, and
    /// nothing else runs. Returns once such workers have been told of as [`WorkerEvent::Joined`],
    /// or with an error if none are to be expected, as where workers never come on their own.
    async fn await_holders(&self, partitions: &[PartitionId]) -> Result<(), BackendError> {
        Err(BackendError::NoHolders { partitions: partitions.to_vec() })
    }

    /// What workers say on their own, from `start` on. Called once, before `start`.
    fn events(&self) -> BoxStream<'static, WorkerEvent>;

    /// Ends the workers; running units stop at a batch boundary.
    async fn shutdown(&self) -> Result<(), BackendError>;
}

/// Why a unit did not complete. The State that it started from is unchanged.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum UnitError {
    /// The model said so.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The model panicked.
    #[error("the model panicked: {message}")]
    Panicked {
        /// The panic's message.
        message: String,
    },
    /// The partition could not be loaded.
    #[error("{partition} could not be loaded on {worker}: {source}")]
    Partition {
        /// The partition.
        partition: PartitionId,
        /// The worker.
        worker: WorkerId,
        /// What went wrong.
        source: DataError,
    },
    /// What a worker in another process says was wrong.
    #[error("{message}")]
    Remote {
        /// The worker.
        worker: WorkerId,
        /// The error there, with its causes.
        message: String,
        /// Whether another attempt is bound to give the same.
        hopeless: bool,
    },
    /// The State to start from is not to be had.
    #[error("version {version} of the State of {trial} is not to be had: {reason}")]
    NoState {
        /// The trial.
        trial: TrialId,
        /// The version.
        version: u64,
        /// Why.
        reason: String,
    },
    /// The worker is gone.
    #[error("{worker} was lost while it ran the unit: {reason}")]
    WorkerLost {
        /// The worker.
        worker: WorkerId,
        /// Why, as far as is known.
        reason: String,
    },
}

impl UnitError {
    /// Whether the unit stopped because it was asked to.
    pub fn is_cancelled(&self) -> bool {
        matches!(self, UnitError::Model(ModelError::Cancelled))
    }

    /// Whether another attempt might go better: not where the same Config, State and rows are
    /// bound to give the same error.
    pub fn is_retryable(&self) -> bool {
        !matches!(
            self,
            UnitError::Remote { hopeless: true, .. }
                | UnitError::Model(
                    ModelError::Cancelled | ModelError::Diverged { .. } | ModelError::Config(_)
                )
        )
    }
}

/// Why a backend could not do what it was asked to.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BackendError {
    /// No workers.
    #[error("the {backend} backend has no workers; give it at least 1")]
    NoWorkers {
        /// The backend.
        backend: &'static str,
    },
    /// Fewer partitions than workers: some would never work.
    #[error(
        "{workers} workers cannot share {partitions} training partitions: {idle} would never train. \
         Use at most {partitions} workers, prepare more partitions, or place each on several workers"
    )]
    IdleWorkers {
        /// The workers asked for.
        workers: usize,
        /// The training partitions that there are.
        partitions: usize,
        /// The workers that would have none.
        idle: usize,
    },
    /// A State that the backend does not have.
    #[error("version {version} of the State of {trial} is not held by any worker")]
    NoState {
        /// The trial.
        trial: TrialId,
        /// The version.
        version: u64,
    },
    /// Partitions that no worker holds or will hold.
    #[error(
        "no worker holds {}, and none is expected that will",
        .partitions.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    )]
    NoHolders {
        /// The partitions.
        partitions: Vec<PartitionId>,
    },
    /// Data that could not be loaded.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A call before `start` or after `shutdown`.
    #[error(
        "the {backend} backend is not running: call `start` first, and nothing after `shutdown`"
    )]
    NotRunning {
        /// The backend.
        backend: &'static str,
    },
    /// What the backend itself reports.
    #[error("{context}: {source}")]
    Other {
        /// What was attempted.
        context: String,
        /// What went wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
