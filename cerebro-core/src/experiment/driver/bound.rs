//! How much of the store checkpoints may take.

use super::Driver;
use crate::observe::Event;

impl Driver {
    /// Takes in the size of a State, which is told if it is the largest so far.
    pub(super) fn state_sized(&mut self, bytes: u64) {
        if bytes > self.largest_state {
            self.largest_state = bytes;
            self.tell_store_bound();
        }
    }

    /// Tells how much of the store checkpoints take at most, as far as that is known.
    pub(super) fn tell_store_bound(&mut self) {
        let state_bytes = self.largest_state;
        if state_bytes == 0 || self.durable.archive().is_none() {
            return;
        }
        let Some(planned) = self.ledger.search.planned() else { return };
        // A person may have added some.
        let trials = planned.max(self.ledger.trials.len() as u64);
        let of_each = self.experiment.retention.most_states(self.ledger.epochs());
        let states = trials.saturating_mul(of_each);
        tracing::info!("the store will hold {states} States of {state_bytes} bytes at most");
        self.tell(Event::StoreBound { states, state_bytes });
    }
}
