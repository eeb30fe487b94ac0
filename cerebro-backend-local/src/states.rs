//! The States of all trials, shared by the workers of this process.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use cerebro_core::{State, TrialId, Unit};

/// Versions of States by trial. A hop is a clone of the pointer.
#[derive(Debug, Default)]
pub(crate) struct States(Mutex<HashMap<TrialId, BTreeMap<u64, Made>>>);

/// A State, and the unit that made it, if one did.
#[derive(Debug)]
struct Made {
    state: State,
    by: Option<Unit>,
}

impl States {
    pub(crate) fn get(&self, trial: TrialId, version: u64) -> Option<State> {
        Some(self.lock().get(&trial)?.get(&version)?.state.clone())
    }

    /// Keeps what a unit made. Of two attempts at the same unit the first one's State counts.
    pub(crate) fn put(&self, unit: Unit, version: u64, state: State) {
        let mut states = self.lock();
        let versions = states.entry(unit.trial).or_default();
        if versions.get(&version).is_none_or(|made| made.by != Some(unit)) {
            versions.insert(version, Made { state, by: Some(unit) });
        }
    }

    /// Keeps what the driver gives.
    pub(crate) fn install(&self, trial: TrialId, version: u64, state: State) {
        let made = Made { state, by: None };
        self.lock().entry(trial).or_default().insert(version, made);
    }

    pub(crate) fn release(&self, trial: TrialId, below: u64, keep: &[u64]) {
        // Dropping a State may free a lot of memory: outside the lock.
        let mut dropped = Vec::new();
        let mut states = self.lock();
        if let Some(versions) = states.get_mut(&trial) {
            let older = versions.range(..below).map(|(&version, _)| version);
            let unneeded: Vec<u64> = older.filter(|version| !keep.contains(version)).collect();
            dropped.extend(unneeded.into_iter().filter_map(|version| versions.remove(&version)));
            if versions.is_empty() {
                states.remove(&trial);
            }
        }
        drop(states);
    }

    pub(crate) fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TrialId, BTreeMap<u64, Made>>> {
        // Nothing panics while it holds the lock, and the map is valid between any two operations.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cerebro_core::{PartitionId, Split};

    fn unit(partition: u32) -> Unit {
        let (trial, partition) = (TrialId(0), PartitionId(partition));
        Unit { trial, epoch: 0, split: Split::Train, partition }
    }

    #[test]
    fn of_two_attempts_at_a_unit_the_first_counts_and_another_unit_takes_its_place() {
        let states = States::default();
        let put = |unit, bytes: &[u8]| {
            states.put(unit, 1, State::from(bytes.to_vec()));
            states.get(TrialId(0), 1).unwrap().to_vec()
        };
        assert_eq!(put(unit(0), b"first"), b"first");
        assert_eq!(put(unit(0), b"second"), b"first");
        assert_eq!(put(unit(1), b"other"), b"other");
    }
}
