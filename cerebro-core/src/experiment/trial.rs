//! [`TrialRecord`]: what is known of a trial.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::id::{PartitionId, TrialId};
use crate::metric::Metrics;
use crate::observe::TrialStatus;
use crate::seed::Seed;

/// One completed epoch of a trial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// The epoch; the first one is 1.
    pub epoch: u32,
    /// Metrics over the training rows of this epoch, each batch before its update.
    pub train: Metrics,
    /// Metrics over the validation rows, after this epoch.
    pub validation: Metrics,
    /// The objective's value.
    #[serde(with = "crate::real")]
    pub value: f64,
    /// The version of the State after this epoch.
    pub version: u64,
    /// The order in which the trial saw the training partitions.
    pub visit_order: Vec<PartitionId>,
}

/// What is known of a trial: its Config, its history, how it stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrialRecord {
    /// The trial.
    pub id: TrialId,
    /// Its Config.
    pub config: Arc<Config>,
    /// Its seed: of its initial weights and of all its passes.
    pub seed: Seed,
    /// How it stands.
    pub status: TrialStatus,
    /// Its completed epochs, in order.
    pub history: Vec<EpochRecord>,
    /// The place in `history` of the epoch with the best value.
    pub best: Option<usize>,
}

impl TrialRecord {
    /// The epoch with the best value of the objective.
    pub fn best_epoch(&self) -> Option<&EpochRecord> {
        self.best.and_then(|index| self.history.get(index))
    }

    /// The best value of the objective, over all epochs so far.
    pub fn best_value(&self) -> Option<f64> {
        self.best_epoch().map(|epoch| epoch.value)
    }
}
