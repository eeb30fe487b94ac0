//! What is simulated: a cluster, a data set, trials.

use std::time::Duration;

use thiserror::Error;

use crate::id::Split;
use crate::schedule::{Policy, ScheduleError};
use crate::seed::Seed;

/// A cluster and a job to be simulated.
///
/// Times are what one training unit of a trial would take on an average partition and a worker of
/// usual speed.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The workers.
    pub workers: Vec<SimulatedWorker>,
    /// The partitions.
    pub partitions: Vec<SimulatedPartition>,
    /// The trials.
    pub trials: Vec<SimulatedTrial>,
    /// Epochs that each trial trains.
    pub epochs: u32,
    /// How the scheduler chooses.
    pub policy: Policy,
    /// Settles all that is left to chance.
    pub seed: Seed,
    /// Standard deviation of the logarithm of a unit's time about its mean.
    pub jitter: f64,
    /// The chance that a unit takes [`STRAGGLING`] times as long as it should.
    pub straggler_rate: f64,
    /// A unit that takes so many times as long as expected runs a second time, on an idle worker.
    pub speculation: Option<f64>,
    /// The chance that a unit fails, at any point of its time.
    pub failure_rate: f64,
    /// Bytes per second at which a State hops; hops take no time if there is none.
    pub bandwidth: Option<f64>,
    /// Whether the scheduler is told the trials' relative costs, as a model builder may do.
    pub costs: KnownCosts,
}

/// How many times as long as it should a straggling unit takes.
pub const STRAGGLING: f64 = 10.0;

/// What the scheduler knows of costs before it has measured any.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum KnownCosts {
    /// Nothing.
    None,
    /// The ratios between the trials.
    Ratios,
    /// Guesses of the ratios.
    Guesses {
        /// Standard deviation of the logarithm of a guess about the truth.
        sigma: f64,
    },
}

/// A worker.
#[derive(Clone, Debug, PartialEq)]
pub struct SimulatedWorker {
    /// Units that it runs at once.
    pub slots: usize,
    /// How much slower than usual it is.
    pub slowness: f64,
    /// The numbers of the partitions that it holds.
    pub partitions: Vec<u32>,
}

/// A partition.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SimulatedPartition {
    /// What it is for.
    pub split: Split,
    /// Its rows.
    pub rows: u64,
}

/// A trial.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SimulatedTrial {
    /// What one training row takes.
    pub per_row: Duration,
    /// The size of its State, in bytes.
    pub state_bytes: u64,
}

/// Why a simulation could not be run to its end.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SimulationError {
    /// The plan is not one that the scheduler accepts.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// A number of the plan is out of its range.
    #[error("the plan's {what} is {found}; it must be {expected}")]
    Invalid {
        /// The number.
        what: &'static str,
        /// Its value.
        found: f64,
        /// What it must be.
        expected: &'static str,
    },
    /// Units that no worker can run.
    #[error("the simulation came to a stand after {units} units: {stalls}")]
    Stalled {
        /// Units done by then.
        units: u64,
        /// The partitions that nobody holds.
        stalls: String,
    },
}
