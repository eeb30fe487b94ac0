//! The end of an experiment, and what came out of it.

use super::{Driver, tell};
use crate::experiment::ExperimentResult;
use crate::id::TrialId;
use crate::observe::{Event, Outcome, TrialStatus};

impl Driver {
    pub(super) fn finish(mut self, finished: bool) -> ExperimentResult {
        self.tell_observers();
        let trials = self.ledger.trials.values();
        let unfinished: Vec<TrialId> = trials
            .filter(|trial| !trial.record.status.is_final())
            .map(|trial| trial.record.id)
            .collect();
        self.summary.outcome =
            if finished || unfinished.is_empty() { Outcome::Finished } else { Outcome::Stopped };
        for id in unfinished {
            // Not for the journal: when the experiment is resumed, these go on.
            if let Some(trial) = self.ledger.trials.get_mut(&id) {
                trial.record.status = TrialStatus::Stopped;
            }
            self.tell_now(&Event::TrialStatus { trial: id, status: TrialStatus::Stopped });
        }
        self.count_idle_slots();
        self.summary.wall = self.counted.saturating_sub(self.summary.loading);
        let archive = self.durable.archive();
        let mut trials = std::collections::BTreeMap::new();
        let mut checkpoints = std::collections::BTreeMap::new();
        for (id, trial) in self.ledger.trials {
            match trial.record.status {
                TrialStatus::Completed => self.summary.completed += 1,
                TrialStatus::Failed { .. } => self.summary.failed += 1,
                _ => self.summary.stopped += 1,
            }
            trials.insert(id, trial.record);
            if archive.is_some() && !trial.checkpoints.is_empty() {
                checkpoints.insert(id, trial.checkpoints);
            }
        }
        let mut result = ExperimentResult {
            objective: self.ledger.objective,
            trials,
            summary: self.summary,
            backend: self.backend,
            archive,
            checkpoints,
        };
        result.summary.best = result
            .best()
            .ok()
            .and_then(|trial| trial.best_epoch().map(|epoch| (trial.id, epoch.value, epoch.epoch)));
        let event = Event::ExperimentEnded { summary: result.summary.clone() };
        tell(&mut self.experiment.observers, self.begun.elapsed(), &event, &mut result.summary);
        result
    }
}
