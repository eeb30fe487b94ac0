//! Why an experiment could not be built or run.

use thiserror::Error;

use super::ExperimentResult;
use crate::backend::BackendError;
use crate::id::TrialId;
use crate::schedule::{ScheduleError, Stall};
use crate::search::SearchError;
use crate::store::StoreError;

/// Why an experiment could not be built, started or finished.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ExperimentError {
    /// Something that an experiment needs was not given.
    #[error("the experiment has no {0}; call `ExperimentBuilder::{0}` before `build`")]
    Missing(&'static str),
    /// No epochs.
    #[error("an experiment of 0 epochs trains nothing; give it at least 1")]
    NoEpochs,
    /// A data set that cannot serve the experiment.
    #[error("the data set has no {split} partitions; {remedy}")]
    NoPartitions {
        /// Which partitions are missing.
        split: crate::id::Split,
        /// What to do.
        remedy: &'static str,
    },
    /// The backend did not start.
    #[error("the backend could not start: {0}")]
    Backend(#[from] BackendError),
    /// The scheduler refuses the data set or the policy.
    #[error("the schedule cannot be made: {0}")]
    Schedule(#[from] ScheduleError),
    /// The search refuses its space.
    #[error(transparent)]
    Search(#[from] SearchError),
    /// The experiment could not be kept, or taken up again.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The experiment ended before its time; what was done until then is in `result`.
    #[error("the experiment ended early: {cause}")]
    Interrupted {
        /// Why.
        cause: Interruption,
        /// Everything that was done until then.
        result: Box<ExperimentResult>,
    },
    /// A State that was not kept.
    #[error(
        "the State of {trial} was not kept: {reason}; \
         `ExperimentBuilder::keep_models` says of how many trials States are kept"
    )]
    NotKept {
        /// The trial.
        trial: TrialId,
        /// Why.
        reason: String,
    },
    /// No trial has a value.
    #[error("no trial completed an epoch with a finite value{}", first_failure.as_ref().map_or(String::new(), |first| format!("; the first failure: {first}")))]
    NoBest {
        /// The reason that the first failed trial gave.
        first_failure: Option<String>,
    },
}

/// Why an experiment ended before its time.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Interruption {
    /// The objective is not among the metrics that the model reports.
    #[error("the model reports no validation metric `{metric}`; it reports {}", reported.join(", "))]
    UnknownMetric {
        /// The objective's metric.
        metric: String,
        /// The metrics that the model reports.
        reported: Vec<String>,
    },
    /// Open units that no worker can run.
    #[error("{} ({reason})", .stalls.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Stalled {
        /// What they need.
        stalls: Vec<Stall>,
        /// Why the backend will not give it.
        reason: String,
    },
    /// The search waits for results, but no trial will give any.
    #[error("the search waits for results, but no trial is under way")]
    SearchWaits,
    /// The store can be written no more by this driver.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The scheduler refuses what the driver tells it: a defect of this crate.
    #[error("the scheduler refused a report (a defect, please report it): {0}")]
    Scheduler(#[from] ScheduleError),
}
