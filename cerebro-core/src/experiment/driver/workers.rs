//! Workers: they come, go, and say how far they are.

use std::sync::Arc;

use futures::FutureExt;

use super::{Driver, Happening, chain};
use crate::backend::{BackendError, WorkerEvent, WorkerInfo};
use crate::experiment::Interruption;
use crate::id::{PartitionId, TrialId, WorkerId};
use crate::observe::Event;
use crate::schedule::WorkerSpec;

/// A unit that so many workers were lost with is taken for the cause: its trial is given up.
const LOSSES: u32 = 3;
/// More troubles of workers than this do not go into the summary.
const MOST_TROUBLES: usize = 20;

/// Where the event loop stands when nothing runs.
pub(super) enum Standstill {
    /// Everything is done.
    End,
    /// Units wait for workers that the backend may yet give.
    Wait,
}

impl Driver {
    /// Nothing runs: that is right if everything has ended, was told to, or waits for workers.
    pub(super) fn standstill(&mut self) -> Result<Standstill, Interruption> {
        if self.stopping {
            return Ok(Standstill::End);
        }
        if self.ledger.paused && self.controlled {
            return Ok(Standstill::Wait);
        }
        let stalls = self.scheduler.stalled();
        if !stalls.is_empty() {
            let partitions: Vec<PartitionId> = stalls.iter().map(|stall| stall.partition).collect();
            let backend = Arc::clone(&self.backend);
            let awaiting =
                async move { Happening::HoldersAwaited(backend.await_holders(&partitions).await) };
            self.awaiting_holders = Some(awaiting.boxed());
            return Ok(Standstill::Wait);
        }
        let held = self.ledger.held_trials();
        if self.ledger.paused || !held.is_empty() {
            if self.controlled {
                self.tell_held(held);
                return Ok(Standstill::Wait);
            }
            let left = "trials that a person paused are left, and nobody can resume them any more";
            self.summary.warnings.push(left.to_owned());
            self.stopping = true;
            return Ok(Standstill::End);
        }
        if self.ledger.exhausted || self.ledger.asking {
            Ok(Standstill::End)
        } else {
            Err(Interruption::SearchWaits)
        }
    }

    /// Tells, once, that all waits for trials which a person paused.
    fn tell_held(&mut self, trials: Vec<TrialId>) {
        if self.told_held != trials {
            self.told_held.clone_from(&trials);
            tracing::info!(?trials, "nothing runs until paused trials are resumed or stopped");
            self.tell(Event::AwaitingResume { trials });
            self.tell_observers();
        }
    }

    /// The backend has given the workers that units waited for, or cannot.
    pub(super) fn holders_awaited(
        &mut self,
        awaited: Result<(), BackendError>,
    ) -> Result<(), Interruption> {
        self.awaiting_holders = None;
        let stalls = self.scheduler.stalled();
        match awaited {
            Err(error) if !stalls.is_empty() => {
                Err(Interruption::Stalled { stalls, reason: chain(&error) })
            }
            _ => Ok(()),
        }
    }

    /// Adds up for how long slots have run nothing.
    pub(super) fn count_idle_slots(&mut self) {
        let now = self.begun.elapsed();
        let slots: usize = self.workers.values().sum();
        let idle = slots.saturating_sub(self.running.len()) as u32;
        self.summary.idle += now.saturating_sub(self.counted) * idle;
        self.counted = now;
    }

    /// Tells, once, that there are fewer trials than slots and that no more are started.
    pub(super) fn tell_few_trials(&mut self) {
        let slots: usize = self.workers.values().sum();
        let trials = self.ledger.active();
        // The last trials of a search that had enough of them are nothing to tell of.
        let all_were_few = !self.ledger.exhausted || self.ledger.trials.len() < slots;
        if !self.few_trials && trials < slots && trials > 0 && all_were_few {
            self.few_trials = true;
            // The search is asked for as many as there is room for before units start.
            let limit = self.ledger.asking.then(|| self.room());
            tracing::info!(trials, slots, limit, "trials are too few to keep all slots busy");
            self.tell(Event::FewTrials { trials, slots, limit });
        }
    }

    pub(super) fn worker_event(&mut self, event: WorkerEvent) -> Result<(), Interruption> {
        match event {
            WorkerEvent::Joined(worker) => {
                self.workers.insert(worker.id, worker.slots);
                self.summary.slots = self.summary.slots.max(self.workers.values().sum());
                self.scheduler.worker_joined(&worker_spec(&worker))?;
                self.tell(Event::WorkerJoined { worker });
            }
            WorkerEvent::Lost { worker, reason } => self.worker_lost(worker, &reason)?,
            WorkerEvent::Draining { worker } => {
                self.scheduler.drain(worker);
                self.tell(Event::WorkerDraining { worker });
            }
            WorkerEvent::PartitionLoaded { worker, partition, rows, bytes, took } => {
                self.tell(Event::PartitionLoaded { worker, partition, rows, bytes, took });
            }
            WorkerEvent::UnitRepeated { worker, unit } => {
                self.summary.repeated_units += 1;
                self.tell(Event::UnitRepeated { unit, worker });
            }
            WorkerEvent::Progress { worker, unit, rows } => {
                self.scheduler.progress(unit, worker, rows, self.begun.elapsed());
                self.tell(Event::UnitProgress { unit, worker, rows });
            }
            WorkerEvent::Trouble { worker, what } => self.trouble(&format!("{worker}: {what}")),
        }
        Ok(())
    }

    /// Keeps what was not said before, up to a number that people read.
    fn trouble(&mut self, what: &str) {
        self.troubles += 1;
        if self.troubles <= MOST_TROUBLES {
            self.summary.warnings.push(what.to_owned());
        } else if self.troubles == MOST_TROUBLES + 1 {
            let more = format!("workers met with more than {MOST_TROUBLES} troubles; see the log");
            self.summary.warnings.push(more);
        }
    }

    pub(super) fn worker_lost(
        &mut self,
        worker: WorkerId,
        reason: &str,
    ) -> Result<(), Interruption> {
        if self.workers.remove(&worker).is_none() {
            return Ok(()); // It was said already.
        }
        let units = self.scheduler.worker_lost(worker);
        self.running.retain(|(_, on), _| *on != worker);
        self.summary.lost_workers += 1;
        self.tell(Event::WorkerLost { worker, reason: reason.to_owned(), units: units.clone() });
        for unit in units {
            let losses = self.losses.entry(unit).or_default();
            *losses += 1;
            if *losses >= LOSSES {
                let losses = *losses;
                self.fail_trial(unit.trial, format!(
                    "{unit}: {losses} workers were lost while they ran it, {worker} last: {reason}; \
                     perhaps it takes more memory than they have"
                ))?;
            }
        }
        Ok(())
    }
}

pub(super) fn worker_spec(worker: &WorkerInfo) -> WorkerSpec {
    WorkerSpec { id: worker.id, slots: worker.slots, partitions: worker.partitions.clone() }
}
