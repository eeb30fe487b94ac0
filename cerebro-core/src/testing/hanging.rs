//! [`Hanging`]: tallies of which one unit hangs, for tests of second attempts.

use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::Tally;
use crate::config::Config;
use crate::data::Partition;
use crate::id::Unit;
use crate::metric::Metrics;
use crate::model::{Model, ModelBuilder, ModelError, Pass, Slot};
use crate::seed::Seed;
use crate::state::State;

/// More than a machine ever needs, however busy it is.
const LONG: Duration = Duration::from_mins(2);

/// How a unit hangs.
#[derive(Debug)]
pub enum Hang {
    /// Until it is cancelled; then it fails.
    UntilCancelled,
    /// Its work done, until it is told to go on. It does not hear that it was cancelled.
    Until(Receiver<()>),
}

/// Makes [`Tally`]s of which one unit hangs, the first time that any of them trains on it.
#[derive(Debug)]
pub struct Hanging {
    unit: Unit,
    hang: Arc<Mutex<Option<Hang>>>,
}

impl Hanging {
    /// A builder of tallies that hang in `unit`.
    pub fn on(unit: Unit, hang: Hang) -> Self {
        Self { unit, hang: Arc::new(Mutex::new(Some(hang))) }
    }
}

impl ModelBuilder for Hanging {
    fn build(&self, config: &Config, _: &Slot) -> Result<Box<dyn Model>, ModelError> {
        let (tally, hang) = (Tally::new(config)?, Arc::clone(&self.hang));
        Ok(Box::new(HangingTally { tally, unit: self.unit, hang }))
    }
}

struct HangingTally {
    tally: Tally,
    unit: Unit,
    /// Taken by the one that hangs.
    hang: Arc<Mutex<Option<Hang>>>,
}

impl Model for HangingTally {
    fn initialize(&mut self, seed: Seed) -> Result<(), ModelError> {
        self.tally.initialize(seed)
    }

    fn restore(&mut self, state: &State) -> Result<(), ModelError> {
        self.tally.restore(state)
    }

    fn state(&mut self) -> Result<State, ModelError> {
        self.tally.state()
    }

    fn train(&mut self, partition: &dyn Partition, pass: &Pass<'_>) -> Result<Metrics, ModelError> {
        let take = || self.hang.lock().unwrap_or_else(PoisonError::into_inner).take();
        match (pass.unit() == self.unit).then(take).flatten() {
            None => self.tally.train(partition, pass),
            Some(Hang::UntilCancelled) => loop {
                pass.advance(0)?;
                thread::yield_now();
            },
            Some(Hang::Until(told)) => {
                let metrics = self.tally.train(partition, pass)?;
                told.recv_timeout(LONG).expect("it is told to go on");
                Ok(metrics)
            }
        }
    }

    fn evaluate(
        &mut self,
        partition: &dyn Partition,
        pass: &Pass<'_>,
    ) -> Result<Metrics, ModelError> {
        self.tally.evaluate(partition, pass)
    }
}
