//! The States that a worker holds, for itself and for others.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cerebro_core::State;

use crate::bulk::Holdings;
use crate::ledger::StateName;
use crate::protocol::{Wanted, wanted};

/// States by name. What a unit of an earlier session makes late is not taken in: the driver has
/// given that unit up.
#[derive(Debug, Default)]
pub(super) struct States(Mutex<Held>);

#[derive(Debug, Default)]
struct Held {
    session: u64,
    /// The run that the States belong to.
    run: u64,
    states: HashMap<StateName, State>,
}

/// Whether a State was taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    In,
    TooLate,
}

impl States {
    /// Begins a session of a run: forgets everything but `keep`.
    pub(super) fn begin(&self, run: u64, keep: &[StateName]) -> u64 {
        let mut held = self.lock();
        held.session += 1;
        held.run = run;
        let (kept, dropped): (HashMap<_, _>, HashMap<_, _>) =
            std::mem::take(&mut held.states).into_iter().partition(|(name, _)| keep.contains(name));
        held.states = kept;
        let session = held.session;
        drop(held);
        // Freeing a State may take a while: outside the lock.
        drop(dropped);
        session
    }

    pub(super) fn get(&self, name: StateName) -> Option<State> {
        self.lock().states.get(&name).cloned()
    }

    pub(super) fn put(&self, session: u64, name: StateName, state: State) -> Taken {
        let mut held = self.lock();
        if held.session != session {
            return Taken::TooLate;
        }
        held.states.insert(name, state);
        Taken::In
    }

    /// Lets States go, and gives them to whoever has a use for them.
    pub(super) fn remove(&self, names: impl IntoIterator<Item = StateName>) -> Vec<State> {
        let mut held = self.lock();
        names.into_iter().filter_map(|name| held.states.remove(&name)).collect()
    }

    pub(super) fn run(&self) -> u64 {
        self.lock().run
    }

    pub(super) fn names(&self) -> Vec<StateName> {
        self.lock().states.keys().copied().collect()
    }

    /// How many there are, and their bytes.
    pub(super) fn size(&self) -> (usize, usize) {
        let held = self.lock();
        (held.states.len(), held.states.values().map(State::bytes).sum())
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        // Nothing panics while it holds the lock, and the map is valid between any two operations.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Holdings for States {
    fn find(&self, wanted: &Wanted) -> Option<State> {
        match wanted.what? {
            wanted::What::State(name) => self.get(name.into()),
            wanted::What::Blueprint(_) => None,
        }
    }
}
