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
    /// Its Config, which is another one than at first if it took over that of a better trial: see
    /// [`best_config`](Self::best_config).
    pub config: Arc<Config>,
    /// Its seed: of its initial weights and of all its passes.
    pub seed: Seed,
    /// How it stands.
    pub status: TrialStatus,
    /// Its completed epochs, in order.
    pub history: Vec<EpochRecord>,
    /// The place in `history` of the epoch with the best value.
    pub best: Option<usize>,
    /// The trial that it was cloned from, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<TrialId>,
    /// The States of other trials that it took over, in order: at its start if it is a clone with
    /// weights, later if the search had it exploit a better trial.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inherited: Vec<InheritedState>,
}

/// A State that a trial took over from another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InheritedState {
    /// The epochs that the trial had completed by then.
    pub epoch: u32,
    /// The trial that the State is of.
    pub source: TrialId,
    /// The epoch of that trial after which it had this State; none if it had itself taken it over.
    pub source_epoch: Option<u32>,
    /// The Config that the trial had until then.
    #[serde(default)]
    pub config_before: Arc<Config>,
}

impl TrialRecord {
    /// The epoch with the best value of the objective.
    pub fn best_epoch(&self) -> Option<&EpochRecord> {
        self.best.and_then(|index| self.history.get(index))
    }

    /// The Config with which it trained an epoch.
    pub fn config_of(&self, epoch: u32) -> &Arc<Config> {
        let later = self.inherited.iter().find(|inherited| inherited.epoch >= epoch);
        later.map_or(&self.config, |inherited| &inherited.config_before)
    }

    /// The Config with which it trained its best epoch: that of the State which is kept.
    pub fn best_config(&self) -> &Arc<Config> {
        self.best_epoch().map_or(&self.config, |best| self.config_of(best.epoch))
    }

    /// The best value of the objective, over all epochs so far.
    pub fn best_value(&self) -> Option<f64> {
        self.best_epoch().map(|epoch| epoch.value)
    }
}
