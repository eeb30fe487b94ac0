//! How much of the store checkpoints may take.

use super::Driver;
use crate::model::ModelBuilder;
use crate::observe::Event;
use crate::seed::Seed;
use crate::space::Space;

/// So many Configs of the space are looked at before the first trial.
const SAMPLES: u64 = 32;

impl Driver {
    /// Tells the bound before anything runs, if the model can say how large States will be, or if
    /// there are some.
    pub(super) fn foresee_store_bound(&mut self) {
        if self.durable.archive().is_none() {
            return;
        }
        let space = self.ledger.search.space();
        let foreseen = space.and_then(|space| largest_state(&*self.experiment.model, space));
        // The space may have been narrowed since, to smaller networks.
        let checkpoints = self.ledger.trials.values().flat_map(|trial| &trial.checkpoints);
        let stored = checkpoints.map(|checkpoint| checkpoint.bytes).max();
        if let Some(bytes) = foreseen.max(stored) {
            self.state_sized(bytes);
        }
    }

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
        let under_way = (!self.ledger.search.keeps_trials_waiting()).then(|| {
            let held = self.ledger.trials.values().filter(|trial| trial.held).count();
            self.room().max(self.ledger.active()) as u64 + held as u64
        });
        let states = self.experiment.most_states(trials, self.ledger.epochs(), under_way);
        if (states, state_bytes) == self.told_bound {
            return;
        }
        self.told_bound = (states, state_bytes);
        tracing::info!("the store will hold {states} States of {state_bytes} bytes at most");
        self.tell(Event::StoreBound { states, state_bytes });
    }
}

/// The size of the largest State of some Configs of the space: that of its largest values, that of its
/// smallest, and others at random.
fn largest_state(model: &dyn ModelBuilder, space: &Space) -> Option<u64> {
    let highest = space.config_at(|_, _| 1.0 - f64::EPSILON);
    let lowest = space.config_at(|_, _| 0.0);
    let others = (0..SAMPLES).map(|sample| space.sample(Seed(sample)));
    [highest, lowest]
        .into_iter()
        .chain(others)
        .filter_map(|config| model.state_bytes(&config))
        .max()
}
