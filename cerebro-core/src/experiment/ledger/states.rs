//! Which States are needed: to go on, to be taken over by another trial, to be the result.

use super::Ledger;
use crate::id::TrialId;
use crate::store::Checkpoint;

/// Which States of a trial are needed: those from `from` on and those in `keep`.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::experiment) struct Needed {
    pub(in crate::experiment) from: u64,
    pub(in crate::experiment) keep: Vec<u64>,
}

impl Needed {
    pub(super) fn contains(&self, version: u64) -> bool {
        version >= self.from || self.keep.contains(&version)
    }
}

impl Ledger {
    /// The trials that may need fewer States than when this was last called.
    pub(in crate::experiment) fn touched(&mut self) -> Vec<TrialId> {
        let mut touched = std::mem::take(&mut self.touched);
        touched.sort_unstable();
        touched.dedup();
        touched
    }

    /// The States that a trial needs: to go on, to be taken over by another, to be the result.
    pub(in crate::experiment) fn needed(&self, id: TrialId) -> Needed {
        let trial = &self.trials[&id];
        let best = trial.record.best_epoch().map(|epoch| epoch.version);
        let mut keep = trial.pinned.clone();
        if !trial.record.status.is_final() {
            keep.extend(best);
            keep.push(trial.told_version);
            return Needed { from: trial.version, keep };
        }
        if self.kept.contains(&id) {
            keep.extend(best);
            keep.extend(trial.record.history.last().map(|epoch| epoch.version));
        }
        if self.search.may_take_over(id) {
            keep.push(trial.told_version);
        }
        Needed { from: u64::MAX, keep }
    }

    /// The States of a trial that stay in the store though they are not needed.
    fn retained(&self, id: TrialId) -> Vec<u64> {
        let record = &self.trials[&id].record;
        if self.retention.is_default() || record.status.is_final() && !self.kept.contains(&id) {
            return Vec::new();
        }
        self.retention.versions(&self.objective, &record.history)
    }

    /// The checkpoints of a trial that are not needed any more; they are forgotten here.
    pub(in crate::experiment) fn superseded(&mut self, id: TrialId) -> Vec<Checkpoint> {
        let Needed { mut keep, .. } = self.needed(id);
        keep.extend(self.retained(id));
        let Some(trial) = self.trials.get_mut(&id) else { return Vec::new() };
        // A trial that goes on starts from its newest checkpoint when it is resumed.
        let goes_on = !trial.record.status.is_final();
        let newest = trial.checkpoints.last().map(|newest| newest.version).filter(|_| goes_on);
        let superseded = |checkpoint: &mut Checkpoint| {
            !keep.contains(&checkpoint.version) && Some(checkpoint.version) != newest
        };
        let superseded = trial.checkpoints.extract_if(.., superseded).collect();
        trial.checkpoints.shrink_to_fit();
        superseded
    }
}
