//! What the scheduler tells: assignments, and what a completion or a failure came to.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::{PartitionId, Split, TrialId, Unit, WorkerId};

/// A unit that is to start now on a worker that holds its partition and has a slot for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// The unit.
    pub unit: Unit,
    /// The worker.
    pub worker: WorkerId,
    /// The worker that made the State which the unit starts from, if that is another one: the
    /// State hops. `None` where the State is there already, is made from the trial's seed, or where
    /// its maker is gone.
    pub hop_from: Option<WorkerId>,
    /// Whether the unit runs elsewhere already, and takes too long there: the first result counts.
    pub speculative: bool,
}

/// A State that will probably be wanted on a worker as soon as what runs there is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prefetch {
    /// The trial, of which no training unit runs.
    pub trial: TrialId,
    /// The worker that made its State.
    pub from: WorkerId,
    /// The worker that will probably run its next unit.
    pub to: WorkerId,
}

/// What a completed unit came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "completion", rename_all = "snake_case")]
pub enum Completion {
    /// The trial's epoch goes on.
    Unit,
    /// It was the epoch's last training unit; validation begins.
    EpochTrained {
        /// The epoch.
        epoch: u32,
    },
    /// It was the epoch's last unit: every training and validation partition was visited.
    EpochCompleted {
        /// The epoch.
        epoch: u32,
        /// What the trial does now.
        next: Next,
    },
    /// The result is not wanted: the trial was stopped meanwhile. The slot is free again; the State
    /// from before the unit remains valid.
    Discarded,
    /// Another attempt at the same unit was faster; what that one made counts. The slot is free again.
    Superseded,
}

/// What a trial does after an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Next {
    /// It goes on with the next epoch.
    Epoch,
    /// It has all its epochs and rests until it is given more.
    Rest,
}

/// What a failed unit came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "failure", rename_all = "snake_case")]
pub enum Failure {
    /// The unit is open again.
    Open {
        /// How often it has failed by now.
        failures: u32,
        /// The workers that hold its partition and on which it has not failed yet. The scheduler
        /// takes one of them if there is one.
        fresh_holders: usize,
    },
    /// Nobody waits for the unit: its trial was stopped, or another attempt goes on or is done.
    Discarded,
}

/// A worker that is slower than the others.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Straggler {
    /// The worker.
    pub worker: WorkerId,
    /// How many times as long as on the usual worker units take on it.
    pub factor: f64,
}

/// A partition that units wait for and that no worker can run them on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stall {
    /// The partition.
    pub partition: PartitionId,
    /// What it is for.
    pub split: Split,
    /// How many trials need it.
    pub trials: usize,
}

impl fmt::Display for Stall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "no worker holds {} ({}), which {} trials need; start a worker that holds it",
            self.partition, self.split, self.trials
        )
    }
}
