//! [`Retention`]: which States stay in the store beside those that are needed.

use std::cmp::Ordering;

use super::trial::EpochRecord;
use crate::metric::Objective;

/// Of which epochs the States stay in the store, for each trial that has not ended and for the best
/// ones that have (see [`keep_models`](super::ExperimentBuilder::keep_models)).
///
/// A State stays if one of these says so, or if it is needed: to go on after a crash, to be taken over
/// by another trial, or as the best one of its trial. So nothing that is asked for here can delete what
/// an experiment needs. By default the latest and the best State of each trial stay.
///
/// ```
/// use cerebro_core::experiment::Retention;
///
/// // The last three, the best two, and every tenth.
/// let retention = Retention::new().last(3).best(2).every(10);
/// assert_eq!(retention.most_states(40), 3 + 2 + 4 + 3);
/// assert_eq!(retention.most_states(4), 4 + 3, "a trial has no more epochs than that");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    last: usize,
    best: usize,
    every: Option<u32>,
}

impl Default for Retention {
    fn default() -> Self {
        Self { last: 1, best: 1, every: None }
    }
}

impl Retention {
    /// The latest State and the best one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps the States of the last so many epochs; at least 1.
    pub fn last(mut self, epochs: usize) -> Self {
        self.last = epochs.max(1);
        self
    }

    /// Keeps the States of the so many best epochs; at least 1.
    pub fn best(mut self, epochs: usize) -> Self {
        self.best = epochs.max(1);
        self
    }

    /// Keeps the State of every `epochs`-th epoch too; 0 is taken for 1.
    pub fn every(mut self, epochs: u32) -> Self {
        self.every = Some(epochs.max(1));
        self
    }

    /// How many States of a trial of `epochs` epochs are in the store at once at most: those that are
    /// to stay, one that is being written, one that it took over or that another is about to, and one that
    /// is not needed any more but stays until the record that says so is safe.
    pub fn most_states(&self, epochs: u32) -> u64 {
        self.staying_states(epochs) + 3
    }

    /// How many States of a trial of `epochs` epochs stay when it has ended, at most.
    pub(super) fn staying_states(&self, epochs: u32) -> u64 {
        let every = self.every.map_or(0, |every| u64::from(epochs / every));
        let stay = self.last as u64 + self.best as u64 + every;
        stay.min(u64::from(epochs))
    }

    /// Whether this asks for nothing that is not kept anyway.
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The versions of the States that are to stay.
    pub(super) fn versions(&self, objective: &Objective, history: &[EpochRecord]) -> Vec<u64> {
        let last = history.iter().rev().take(self.last);
        let mut ranking: Vec<&EpochRecord> =
            history.iter().filter(|epoch| epoch.value.is_finite()).collect();
        // Of equal ones the earlier is the better, as everywhere.
        ranking.sort_by(|a, b| match objective.best_first(a.value, b.value) {
            Ordering::Equal => a.epoch.cmp(&b.epoch),
            order => order,
        });
        let best = ranking.into_iter().take(self.best);
        let every = self.every.unwrap_or(u32::MAX);
        let regular = history.iter().filter(|epoch| epoch.epoch.is_multiple_of(every));
        last.chain(best).chain(regular).map(|epoch| epoch.version).collect()
    }
}
