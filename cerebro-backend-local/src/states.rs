//! The States of all trials, shared by the workers of this process.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use cerebro_core::{State, TrialId};

/// Versions of States by trial. A hop is a clone of the pointer.
#[derive(Debug, Default)]
pub(crate) struct States(Mutex<HashMap<TrialId, BTreeMap<u64, State>>>);

impl States {
    pub(crate) fn get(&self, trial: TrialId, version: u64) -> Option<State> {
        self.lock().get(&trial)?.get(&version).cloned()
    }

    pub(crate) fn put(&self, trial: TrialId, version: u64, state: State) {
        self.lock().entry(trial).or_default().insert(version, state);
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

    fn lock(&self) -> MutexGuard<'_, HashMap<TrialId, BTreeMap<u64, State>>> {
        // Nothing panics while it holds the lock, and the map is valid between any two operations.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
