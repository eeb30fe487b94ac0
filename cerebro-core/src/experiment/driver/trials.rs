//! Trials: started when the search says so, and their States kept or let go.

use std::sync::Arc;

use futures::FutureExt;

use super::{Driver, Happening, chain};
use crate::config::Config;
use crate::experiment::Interruption;
use crate::experiment::ledger::Needed;
use crate::id::TrialId;
use crate::observe::{Event, TrialStatus};
use crate::schedule::{Policy, TrialSpec};
use crate::search::Ask;
use crate::store::Record;

/// How many trials are under way at once, at least.
const ROOM: usize = 16;

impl Driver {
    /// How many trials are under way at once.
    pub(super) fn room(&self) -> usize {
        let slots: usize = self.workers.values().sum();
        let usual = match self.experiment.policy {
            Policy::Seeded if !self.ledger.search.ignores_results() => ROOM,
            _ => (4 * slots).max(ROOM),
        };
        self.experiment.concurrency.unwrap_or(usual)
    }

    /// Asks the search for trials as long as there is room.
    pub(super) fn start_trials(&mut self) -> Result<(), Interruption> {
        let room = self.room();
        while self.ledger.asking && self.ledger.active() < room {
            let next = TrialId(self.ledger.trials.len() as u64);
            let answer = self.ledger.search.ask(next);
            self.commit(&Record::Asked { next, answer: answer.clone() });
            match answer {
                Ask::Start(config) => self.add_trial(next, &config)?,
                Ask::Resume(trial) => self.resume(trial)?,
                Ask::Stop(trial) => {
                    self.scheduler.stop(trial)?;
                    self.tell(Event::TrialStatus { trial, status: TrialStatus::Stopped });
                }
                Ask::Wait | Ask::Finished => {}
            }
        }
        Ok(())
    }

    pub(super) fn add_trial(&mut self, id: TrialId, config: &Config) -> Result<(), Interruption> {
        let trial = &self.ledger.trials[&id];
        let (seed, parent, rests) = (trial.record.seed, trial.record.parent, trial.rests());
        self.tell(Event::TrialStarted { trial: id, config: config.clone(), seed, parent });
        let mut spec = TrialSpec::new(id, self.ledger.trials[&id].epochs);
        spec.cost_per_row = self.experiment.model.cost_per_row(config);
        if let Some(bytes) = self.experiment.model.state_bytes(config) {
            self.state_sized(bytes);
        }
        self.scheduler.add_trial(&spec)?;
        if rests {
            self.scheduler.pause(id)?;
        }
        if let Err(error) = self.experiment.model.check(config) {
            self.fail_trial(id, chain(&error))?;
        }
        Ok(())
    }

    fn resume(&mut self, id: TrialId) -> Result<(), Interruption> {
        let trial = self.ledger.trials.get(&id);
        if trial.is_some_and(|trial| trial.record.status == TrialStatus::Running) {
            self.let_go_on(id)?;
            self.tell(Event::TrialStatus { trial: id, status: TrialStatus::Running });
        }
        Ok(())
    }

    /// Lets units of a trial start, unless it waits for something else than workers.
    pub(super) fn let_go_on(&mut self, id: TrialId) -> Result<(), Interruption> {
        if self.ledger.trials.get(&id).is_some_and(|trial| !trial.rests()) {
            self.scheduler.resume(id)?;
        }
        Ok(())
    }

    /// Ends a trial that cannot go on; the others do. The search is told in its turn.
    pub(super) fn fail_trial(
        &mut self,
        trial: TrialId,
        reason: String,
    ) -> Result<(), Interruption> {
        self.scheduler.stop(trial)?;
        self.ledger.fail(trial, reason);
        Ok(())
    }

    /// Tells the backend and the store which States of a trial are still needed.
    pub(super) fn release(&mut self, id: TrialId) {
        let Needed { from, keep } = self.ledger.needed(id);
        let backend = Arc::clone(&self.backend);
        let release = async move {
            backend.release(id, from, &keep).await;
            Happening::Released
        };
        self.pending.push(release.boxed());
        let superseded = self.ledger.superseded(id);
        if let Some(keeper) = self.durable.keeper().filter(|_| !superseded.is_empty()) {
            keeper.delete(superseded);
        }
    }
}
