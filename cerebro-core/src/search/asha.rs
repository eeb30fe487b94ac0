//! [`Asha`]: asynchronous successive halving.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::loss::Loss;
use super::{Ask, Decision, Ending, EpochReport, Rungs, Search, SearchError, read, written};
use crate::config::Config;
use crate::id::TrialId;
use crate::space::Space;

/// Asynchronous successive halving (Li et al. 2020, "A system for massively parallel hyperparameter
/// tuning", algorithm 2) of the trials that another search starts.
///
/// A trial pauses at each rung. When there is room, the best trial that is among the top
/// 1/*reduction* of its rung and was not promoted yet goes on to the next rung, from the State that
/// it has; the highest rung with such a trial comes first. If there is none, a new trial starts. So
/// nothing ever waits for a rung to be complete, and no epoch is trained twice.
#[derive(Clone, Debug)]
pub struct Asha<S> {
    inner: S,
    ladder: Ladder,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Ladder {
    rungs: Rungs,
    /// The trials that came to each rung but the highest, from the best.
    arrived: Vec<Vec<Arrival>>,
    /// The trials of this search that will report without being resumed.
    running: BTreeSet<TrialId>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Arrival {
    loss: Loss,
    trial: TrialId,
    /// Whether the trial is on its way to the next rung, or over.
    left: bool,
}

#[derive(Serialize, Deserialize)]
struct Snapshot {
    inner: serde_json::Value,
    ladder: Ladder,
}

const KIND: &str = "asha";

impl<S: Search> Asha<S> {
    /// Promotes the trials of `inner` from rung to rung.
    pub fn new(inner: S, rungs: Rungs) -> Self {
        let arrived = vec![Vec::new(); rungs.epochs().len() - 1];
        Self { inner, ladder: Ladder { rungs, arrived, running: BTreeSet::new() } }
    }
}

impl Ladder {
    /// The trial to promote, if there is one: of the highest rung that has some, the best.
    fn promote(&mut self) -> Option<TrialId> {
        let reduction = self.rungs.reduction() as usize;
        for rung in self.arrived.iter_mut().rev() {
            let top = rung.len() / reduction;
            let candidate =
                rung[..top].iter_mut().find(|arrival| !arrival.left && arrival.loss.is_known());
            if let Some(arrival) = candidate {
                arrival.left = true;
                return Some(arrival.trial);
            }
        }
        None
    }

    fn tell(&mut self, report: &EpochReport) -> Decision {
        let trial = report.trial;
        if !self.running.contains(&trial) {
            return Decision::Continue;
        }
        if report.epoch >= self.rungs.max_epochs() || report.epoch >= report.max_epochs {
            self.running.remove(&trial);
            return Decision::Stop;
        }
        let Some(rung) = self.rungs.epochs().iter().position(|&epoch| epoch == report.epoch) else {
            return Decision::Continue;
        };
        let loss = Loss::new(report.loss());
        let arrived = &mut self.arrived[rung];
        let place = arrived.partition_point(|other| other.loss <= loss);
        arrived.insert(place, Arrival { loss, trial, left: false });
        self.running.remove(&trial);
        Decision::Pause
    }

    /// The trial does not wait at any rung (any more); `false` if it never came to one.
    fn leave(&mut self, trial: TrialId) -> bool {
        let mut known = false;
        for arrival in self.arrived.iter_mut().flatten().filter(|arrival| arrival.trial == trial) {
            arrival.left = true;
            known = true;
        }
        known
    }
}

impl<S: Search> Search for Asha<S> {
    fn ask(&mut self, next: TrialId) -> Ask {
        if let Some(trial) = self.ladder.promote() {
            self.ladder.running.insert(trial);
            return Ask::Resume(trial);
        }
        let ask = self.inner.ask(next);
        match ask {
            Ask::Start(_) => {
                self.ladder.running.insert(next);
            }
            Ask::Resume(trial) => {
                self.ladder.running.insert(trial);
            }
            Ask::Finished if !self.ladder.running.is_empty() => return Ask::Wait,
            Ask::Finished | Ask::Wait | Ask::Stop(_) => {}
        }
        ask
    }

    fn planned(&self) -> Option<u64> {
        self.inner.planned()
    }

    fn planned_epochs(&self) -> Option<u64> {
        Some(self.ladder.rungs.epochs_of(self.inner.planned()?))
    }

    fn tell(&mut self, report: &EpochReport) -> Decision {
        match self.inner.tell(report) {
            Decision::Continue => self.ladder.tell(report),
            decision => {
                if matches!(decision, Decision::Pause | Decision::Stop) {
                    self.ladder.running.remove(&report.trial);
                }
                decision
            }
        }
    }

    fn ended(&mut self, trial: TrialId, ending: Ending) {
        self.ladder.running.remove(&trial);
        self.ladder.leave(trial);
        self.inner.ended(trial, ending);
    }

    fn resumed(&mut self, trial: TrialId) {
        if self.ladder.leave(trial) {
            self.ladder.running.insert(trial);
        }
        self.inner.resumed(trial);
    }

    fn added(&mut self, trial: TrialId, config: &Config) {
        self.inner.added(trial, config);
    }

    fn may_take_over(&self, source: TrialId) -> bool {
        self.inner.may_take_over(source)
    }

    fn space(&self) -> Option<&Space> {
        self.inner.space()
    }

    fn max_epochs(&self) -> Option<u32> {
        Some(self.ladder.rungs.max_epochs())
    }

    fn extend(&mut self, trials: u64) -> Result<(), SearchError> {
        self.inner.extend(trials)
    }

    fn narrow(&mut self, space: &Space) -> Result<(), SearchError> {
        self.inner.narrow(space)
    }

    fn snapshot(&self) -> serde_json::Value {
        written(KIND, &Snapshot { inner: self.inner.snapshot(), ladder: self.ladder.clone() })
    }

    fn restore(&mut self, snapshot: &serde_json::Value) -> Result<(), SearchError> {
        let snapshot: Snapshot = read(KIND, snapshot)?;
        self.inner.restore(&snapshot.inner)?;
        self.ladder = snapshot.ladder;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
