//! [`ExperimentResult`]: what came out of an experiment.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::{ExperimentError, TrialRecord};
use crate::backend::Backend;
use crate::id::TrialId;
use crate::metric::Objective;
use crate::observe::{Summary, TrialStatus};
use crate::schedule::VisitOrders;
use crate::state::State;
use crate::store::{Archive, Checkpoint};

/// What came out of an experiment: every trial's history, the leaderboard, the States that were
/// kept.
///
/// States stay with the backend until they are asked for, so the backend lives as long as this.
#[derive(Clone)]
pub struct ExperimentResult {
    pub(super) objective: Objective,
    pub(super) trials: BTreeMap<TrialId, TrialRecord>,
    pub(super) summary: Summary,
    pub(super) backend: Arc<dyn Backend>,
    /// Where States are that the backend does not have, and what is there of each trial.
    pub(super) archive: Option<Arc<dyn Archive>>,
    pub(super) checkpoints: BTreeMap<TrialId, Vec<Checkpoint>>,
}

impl ExperimentResult {
    /// The trial with the best value of the objective in any epoch.
    pub fn best(&self) -> Result<&TrialRecord, ExperimentError> {
        let best = self.leaderboard().into_iter().next();
        best.filter(|trial| trial.best_value().is_some()).ok_or_else(|| {
            let first_failure = self.trials.values().find_map(|trial| match &trial.status {
                TrialStatus::Failed { reason } => Some(format!("{}: {reason}", trial.id)),
                _ => None,
            });
            ExperimentError::NoBest { first_failure }
        })
    }

    /// All trials, the best first; those without a value last, in the order of their ids.
    pub fn leaderboard(&self) -> Vec<&TrialRecord> {
        let mut trials: Vec<&TrialRecord> = self.trials.values().collect();
        trials.sort_by(|a, b| best_first(&self.objective, a, b));
        trials
    }

    /// All trials, in the order of their ids.
    pub fn trials(&self) -> impl Iterator<Item = &TrialRecord> {
        self.trials.values()
    }

    /// One trial.
    pub fn trial(&self, id: TrialId) -> Option<&TrialRecord> {
        self.trials.get(&id)
    }

    /// The order in which each trial trained on the partitions, epoch by epoch, as far as epochs were
    /// completed. Under [`Policy::Replay`](crate::schedule::Policy::Replay) an experiment with the
    /// same trials trains in it again, to the same bits.
    pub fn visit_orders(&self) -> VisitOrders {
        let orders = |trial: &TrialRecord| {
            trial.history.iter().map(|epoch| epoch.visit_order.clone()).collect()
        };
        VisitOrders(self.trials.values().map(|trial| (trial.id, orders(trial))).collect())
    }

    /// What was optimised.
    pub fn objective(&self) -> &Objective {
        &self.objective
    }

    /// The experiment in figures.
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// The State of `trial` after its best epoch, which is of its
    /// [`best_config`](TrialRecord::best_config).
    pub async fn state(&self, trial: TrialId) -> Result<State, ExperimentError> {
        let not_kept = |reason: String| ExperimentError::NotKept { trial, reason };
        let record =
            self.trial(trial).ok_or_else(|| not_kept("there is no such trial".to_owned()))?;
        let epoch = record
            .best_epoch()
            .ok_or_else(|| not_kept("it has no epoch with a finite value".to_owned()))?;
        let error = match self.backend.state(trial, epoch.version).await {
            Ok(state) => return Ok(state),
            Err(error) => error,
        };
        let checkpoints = self.checkpoints.get(&trial).map_or(&[][..], Vec::as_slice);
        let written = checkpoints.iter().find(|checkpoint| checkpoint.version == epoch.version);
        match (written, &self.archive) {
            (Some(checkpoint), Some(archive)) => Ok(archive.read(trial, checkpoint).await?),
            _ => Err(not_kept(error.to_string())),
        }
    }
}

/// Orders trials by their best values, and where these are equal by their ids.
pub(super) fn best_first(objective: &Objective, a: &TrialRecord, b: &TrialRecord) -> Ordering {
    let value = |trial: &TrialRecord| trial.best_value().unwrap_or(f64::NAN);
    objective.best_first(value(a), value(b)).then(a.id.cmp(&b.id))
}

impl fmt::Debug for ExperimentResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExperimentResult")
            .field("objective", &self.objective)
            .field("trials", &self.trials.len())
            .field("summary", &self.summary)
            .finish_non_exhaustive()
    }
}
