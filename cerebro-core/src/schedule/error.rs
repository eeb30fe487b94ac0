//! What can be wrong with a call to the scheduler.

use thiserror::Error;

use crate::id::{PartitionId, TrialId, Unit, WorkerId};

/// Why the scheduler refused a call. Its state is as before.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ScheduleError {
    /// There is nothing to train on.
    #[error("the data set has no training partitions; a schedule needs at least 1")]
    NoTrainingPartitions,
    /// Two partitions of one name.
    #[error("{partition} is listed twice; give every partition a number of its own")]
    DuplicatePartition {
        /// The partition.
        partition: PartitionId,
    },
    /// A partition without rows: its units would train on nothing.
    #[error("{partition} has no rows; leave it out of the data set")]
    EmptyPartition {
        /// The partition.
        partition: PartitionId,
    },
    /// A partition that is not part of the data set.
    #[error("{holder} names {partition}, which is not part of the data set")]
    UnknownPartition {
        /// Who names it: a worker, a trial's progress, a recorded order.
        holder: String,
        /// The partition.
        partition: PartitionId,
    },
    /// A trial that was never added.
    #[error("{trial} is not known; add it first")]
    UnknownTrial {
        /// The trial.
        trial: TrialId,
    },
    /// A trial that was added before.
    #[error("{trial} was added before; a trial is added once, and extended by more epochs")]
    DuplicateTrial {
        /// The trial.
        trial: TrialId,
    },
    /// A trial that was stopped for good.
    #[error("{trial} was stopped; a stopped trial cannot be changed, clone it instead")]
    StoppedTrial {
        /// The trial.
        trial: TrialId,
    },
    /// A report of a unit that does not run there.
    #[error(
        "{unit} does not run on {worker}: it was never assigned there, was reported before, or the worker was lost"
    )]
    NotRunning {
        /// The unit.
        unit: Unit,
        /// The worker.
        worker: WorkerId,
    },
    /// Progress to resume from that no run can have made.
    #[error("{trial} cannot resume from the recorded progress: {reason}")]
    InconsistentProgress {
        /// The trial.
        trial: TrialId,
        /// What is wrong with the record.
        reason: String,
    },
    /// A replay of more than was recorded.
    #[error(
        "the recorded visit orders hold {recorded} epochs of {trial}, but {needed} are to be trained; record a longer run or train fewer epochs"
    )]
    NotRecorded {
        /// The trial.
        trial: TrialId,
        /// The epochs on record.
        recorded: usize,
        /// The epochs that are asked for.
        needed: u32,
    },
}
