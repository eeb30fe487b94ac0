//! [`Event`]: one thing that happened in an experiment.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::backend::{UnitReport, WorkerInfo};
use crate::config::Config;
use crate::data::PartitionInfo;
use crate::experiment::{Command, TrialRecord};
use crate::id::{PartitionId, TrialId, Unit, WorkerId};
use crate::metric::{Metrics, Objective};
use crate::seed::Seed;

/// One thing that happened in an experiment; serialised, one line of `events.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// The workers are there and hold their partitions: training begins.
    ExperimentStarted {
        /// What tells it from every other experiment, if it is kept in a store: the same each time that
        /// it is resumed.
        #[serde(default)]
        id: Option<String>,
        /// The experiment's name.
        name: String,
        /// The experiment's seed.
        seed: Seed,
        /// What is optimised.
        objective: Objective,
        /// The epochs that a trial trains at most.
        epochs: u32,
        /// The number of trials, if the search knows it beforehand.
        trials: Option<u64>,
        /// The epochs that all trials together will train, about, if the search can say so.
        #[serde(default)]
        planned_epochs: Option<u64>,
        /// The workers.
        workers: Vec<WorkerInfo>,
        /// The partitions.
        partitions: Vec<PartitionInfo>,
    },
    /// The experiment was taken up from its store: this is what it had come to. Of what follows,
    /// nothing is told that was told before.
    ExperimentResumed {
        /// The trials and their completed epochs.
        trials: Vec<TrialRecord>,
        /// What was found amiss in the store and put right.
        warnings: Vec<String>,
    },
    /// The store cannot take anything in: no unit starts until it can again.
    StoreFailing {
        /// What it says.
        reason: String,
    },
    /// The store has taken in all that was held back, and the experiment goes on.
    StoreRecovered,
    /// A worker read a partition into memory.
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
    /// A worker joined the running experiment, or holds other partitions than before.
    WorkerJoined {
        /// The worker.
        worker: WorkerInfo,
    },
    /// A worker is gone; the units that it ran are open again.
    WorkerLost {
        /// The worker.
        worker: WorkerId,
        /// Why, as far as is known.
        reason: String,
        /// The units that it ran.
        units: Vec<Unit>,
    },
    /// A worker runs a completed training unit again: the State that it had made was lost with a
    /// worker, and the same comes out again.
    UnitRepeated {
        /// The unit.
        unit: Unit,
        /// The worker that runs it now.
        worker: WorkerId,
    },
    /// A worker finishes its units and takes no others.
    WorkerDraining {
        /// The worker.
        worker: WorkerId,
    },
    /// A worker turned out to be slower than the others. It is given fewer units where others hold the
    /// same partitions.
    WorkerSlow {
        /// The worker.
        worker: WorkerId,
        /// How many times as long as on the usual worker units take on it.
        factor: f64,
    },
    /// There are fewer trials than slots, and no more are started for now: while all of these train, a
    /// unit each, the other slots are idle. Told once, and not of the last trials of a search that had
    /// enough of them.
    FewTrials {
        /// The trials under way.
        trials: usize,
        /// The slots of all workers.
        slots: usize,
        /// How many trials may be under way at once, if that is why there are no more
        /// ([`concurrent_trials`](crate::experiment::ExperimentBuilder::concurrent_trials)); otherwise
        /// the search has no more to give, or waits for results.
        #[serde(default)]
        limit: Option<usize>,
    },
    /// Nothing runs, and all that is left waits for a person, who paused these trials: to be resumed or
    /// stopped.
    AwaitingResume {
        /// The paused trials.
        trials: Vec<TrialId>,
    },
    /// An attempt at a unit is not wanted any more: another one was faster.
    UnitSuperseded {
        /// The unit.
        unit: Unit,
        /// The worker of the slower attempt.
        worker: WorkerId,
    },
    /// A trial began.
    TrialStarted {
        /// The trial.
        trial: TrialId,
        /// Its Config.
        config: Config,
        /// Its seed.
        seed: Seed,
        /// The trial whose State it was cloned from, if any.
        parent: Option<TrialId>,
    },
    /// A unit was given to a worker.
    UnitStarted {
        /// The unit.
        unit: Unit,
        /// The worker.
        worker: WorkerId,
        /// The rows of its partition.
        rows: u64,
        /// The worker that the State comes from, if it hops.
        hop_from: Option<WorkerId>,
    },
    /// A unit is under way.
    UnitProgress {
        /// The unit.
        unit: Unit,
        /// The worker.
        worker: WorkerId,
        /// The rows that it has passed over so far.
        rows: u64,
    },
    /// A unit completed and its new State version is recorded.
    UnitCompleted {
        /// The unit.
        unit: Unit,
        /// The worker.
        worker: WorkerId,
        /// When it was given to the worker, in seconds since the experiment's start.
        #[serde(with = "crate::seconds")]
        started: Duration,
        /// What the worker reports.
        report: UnitReport,
    },
    /// A unit did not complete; the trial's State is the one before.
    UnitFailed {
        /// The unit.
        unit: Unit,
        /// The worker.
        worker: WorkerId,
        /// When it was given to the worker, in seconds since the experiment's start.
        #[serde(with = "crate::seconds")]
        started: Duration,
        /// The chain of errors.
        error: String,
        /// Whether it will be tried again.
        retry: bool,
    },
    /// A trial has trained on all training partitions and was measured on all validation
    /// partitions.
    EpochCompleted {
        /// The trial.
        trial: TrialId,
        /// The epochs that it has completed: the first one is 1.
        epoch: u32,
        /// Metrics over the training rows of this epoch, each batch before its update.
        train: Metrics,
        /// Metrics over the validation rows, after this epoch.
        validation: Metrics,
        /// The objective's value.
        #[serde(with = "crate::real")]
        value: f64,
        /// The order in which the trial saw the training partitions.
        visit_order: Vec<PartitionId>,
    },
    /// A trial took over the State of a better one and goes on with another Config.
    TrialExploited {
        /// The trial.
        trial: TrialId,
        /// The better one.
        source: TrialId,
        /// The Config to go on with.
        config: Config,
    },
    /// A trial's status changed: it paused, goes on, or ended.
    TrialStatus {
        /// The trial.
        trial: TrialId,
        /// The new status.
        status: TrialStatus,
    },
    /// A person asked for something, and it was done. What follows from it is told too.
    Commanded {
        /// What was asked for.
        command: Command,
    },
    /// A person changed how much there is to do.
    PlanChanged {
        /// The epochs that a trial trains at most.
        epochs: u32,
        /// The number of trials that the search starts in all, if it knows.
        trials: Option<u64>,
        /// The epochs that all trials together will train, about, if the search can say so.
        #[serde(default)]
        planned_epochs: Option<u64>,
    },
    /// How much of the store checkpoints take at most: so many States, of this size each. Told before
    /// the first unit if the model says how large its States are, else when the first State is known;
    /// again when a larger one comes up, or more trials or epochs.
    StoreBound {
        /// The States that are in the store at once at most.
        states: u64,
        /// The size of the largest State that is known, in bytes.
        state_bytes: u64,
    },
    /// The wall time that the experiment was given is over: it stops.
    WallTimeOver {
        /// The time, in seconds.
        #[serde(with = "crate::seconds")]
        limit: Duration,
    },
    /// The experiment ended.
    ExperimentEnded {
        /// What came out.
        summary: Summary,
    },
}

/// How a trial stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
#[non_exhaustive]
pub enum TrialStatus {
    /// It trains, or waits for a worker.
    Running,
    /// It waits for the search or a person to let it go on.
    Paused,
    /// It has trained all its epochs.
    Completed,
    /// The search or a person ended it early; its results so far count.
    Stopped,
    /// It cannot go on; the others do.
    Failed {
        /// Why.
        reason: String,
    },
}

impl TrialStatus {
    /// Whether the trial will train no more.
    pub fn is_final(&self) -> bool {
        matches!(self, TrialStatus::Completed | TrialStatus::Stopped | TrialStatus::Failed { .. })
    }
}

impl fmt::Display for TrialStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            TrialStatus::Running => "running",
            TrialStatus::Paused => "paused",
            TrialStatus::Completed => "completed",
            TrialStatus::Stopped => "stopped",
            TrialStatus::Failed { .. } => "failed",
        })
    }
}

/// How an experiment ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Every trial that the search asked for has ended.
    #[default]
    Finished,
    /// It was asked to stop before.
    Stopped,
}

/// What came out of an experiment, in figures.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// How it ended.
    pub outcome: Outcome,
    /// Wall time from the first unit to the last, data loaded, in seconds.
    #[serde(with = "crate::seconds")]
    pub wall: Duration,
    /// Time before that in which the workers loaded the data, in seconds.
    #[serde(with = "crate::seconds")]
    pub loading: Duration,
    /// Slots of all workers together.
    pub slots: usize,
    /// Time that models spent training, summed over slots, in seconds.
    #[serde(with = "crate::seconds")]
    pub training: Duration,
    /// Time that models spent validating, summed over slots, in seconds.
    #[serde(with = "crate::seconds")]
    pub validating: Duration,
    /// Trials that completed.
    pub completed: usize,
    /// Trials that were stopped early or still under way.
    pub stopped: usize,
    /// Trials that failed.
    pub failed: usize,
    /// Training units that completed.
    pub train_units: u64,
    /// Validation units that completed.
    pub validation_units: u64,
    /// Where the experiment was taken up from its store, the epochs that its trials had completed.
    #[serde(default)]
    pub resumed_epochs: u64,
    /// Units that failed and were tried again.
    pub retried_units: u64,
    /// Workers that were lost.
    #[serde(default)]
    pub lost_workers: u64,
    /// Completed training units that ran again because the States that they had made were lost.
    #[serde(default)]
    pub repeated_units: u64,
    /// Workers that turned out to be slower than the others.
    #[serde(default)]
    pub slow_workers: u64,
    /// Units that took too long and ran a second time elsewhere.
    #[serde(default)]
    pub second_attempts: u64,
    /// Time in which slots ran nothing, summed over slots, in seconds: because trials were few, or
    /// waited for each other.
    #[serde(default, with = "crate::seconds")]
    pub idle: Duration,
    /// States that moved from one worker to another.
    pub hops: u64,
    /// Their sizes together, in bytes.
    pub hop_bytes: u64,
    /// The trial with the best value, that value and the epoch that reached it (the first is 1).
    pub best: Option<(TrialId, f64, u32)>,
    /// What went wrong without ending the experiment, such as an observer's disk being full.
    pub warnings: Vec<String>,
}

impl Summary {
    /// The share of workers x wall that models spent computing, from 0 to 1.
    pub fn utilisation(&self) -> f64 {
        let available = self.wall.as_secs_f64() * self.slots as f64;
        if available == 0.0 {
            return 0.0;
        }
        (self.training + self.validating).as_secs_f64() / available
    }
}
