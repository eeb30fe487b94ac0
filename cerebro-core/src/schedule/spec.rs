//! What the scheduler is told of partitions, workers and trials.

use serde::{Deserialize, Serialize};

use crate::id::{PartitionId, Split, TrialId, WorkerId};

/// A partition of the data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionSpec {
    /// The partition.
    pub id: PartitionId,
    /// What it is for.
    pub split: Split,
    /// Its rows; at least 1.
    pub rows: u64,
}

/// A worker that joins, or that is there already and now holds other partitions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerSpec {
    /// The worker. One that comes back after it was lost needs another id, so that late reports of
    /// its earlier life are not taken for new ones.
    pub id: WorkerId,
    /// How many units it runs at once.
    pub slots: usize,
    /// The partitions that it holds. A partition may be held by several workers.
    pub partitions: Vec<PartitionId>,
}

/// A trial to be trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrialSpec {
    /// The trial. Its number says where [`Policy::Seeded`](super::Policy::Seeded) has it begin.
    pub id: TrialId,
    /// The epochs to train in all, those before a resume included;
    /// [`set_epochs`](super::Scheduler::set_epochs) changes them later.
    pub epochs: u32,
    /// A first guess of what one row costs, in any unit that is the same for all trials.
    pub cost_per_row: Option<f64>,
    /// The size of the trial's State, in bytes, if known before it was trained.
    pub state_bytes: Option<u64>,
    /// Where to go on, if the trial was trained before.
    pub completed: Option<TrialProgress>,
}

impl TrialSpec {
    /// A trial of `epochs` epochs that starts from nothing.
    pub fn new(id: TrialId, epochs: u32) -> Self {
        Self { id, epochs, cost_per_row: None, state_bytes: None, completed: None }
    }
}

/// How far a trial has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrialProgress {
    /// The visit orders of the completed epochs, one after the other.
    pub epochs: Vec<Vec<PartitionId>>,
    /// The training partitions visited in the current epoch, in this order.
    pub trained: Vec<PartitionId>,
    /// The validation partitions done in the current epoch.
    pub validated: Vec<PartitionId>,
}
