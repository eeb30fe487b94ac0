//! [`SuccessiveHalving`]: a given number of trials, of which the best part goes on from each rung.

use std::collections::{BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use super::loss::Loss;
use super::{Ask, Decision, Ending, EpochReport, Rungs, Search, SearchError, read, written};
use crate::config::Config;
use crate::id::TrialId;
use crate::space::Space;

/// Successive halving (Jamieson and Talwalkar 2016, "Non-stochastic best arm identification and
/// hyperparameter optimization") of the trials that another search starts.
///
/// All trials train to the first rung; when the last of them has arrived, the best
/// 1/*reduction* of them go on to the next rung, from the States that they have, and so on. Where
/// waiting for a complete rung would leave workers idle, [`Asha`](super::Asha) is the better choice.
#[derive(Clone, Debug)]
pub struct SuccessiveHalving<S> {
    inner: S,
    bracket: Bracket,
    /// The trials of brackets that come after this one, since the search was extended.
    later: VecDeque<u64>,
}

#[derive(Serialize, Deserialize)]
struct Snapshot {
    inner: serde_json::Value,
    bracket: Bracket,
    #[serde(default, skip_serializing_if = "VecDeque::is_empty")]
    later: VecDeque<u64>,
}

const KIND: &str = "successive_halving";

impl<S: Search> SuccessiveHalving<S> {
    /// Starts `trials` trials of `inner`; an error if so few would leave none for the last rung.
    pub fn new(inner: S, trials: u64, rungs: Rungs) -> Result<Self, SearchError> {
        enough(trials, &rungs)?;
        Ok(Self { inner, bracket: Bracket::new(trials, rungs), later: VecDeque::new() })
    }
}

/// Refuses so few trials that none would come to the last rung.
fn enough(trials: u64, rungs: &Rungs) -> Result<(), SearchError> {
    let mut least = 1;
    for _ in 1..rungs.epochs().len() {
        least *= u64::from(rungs.reduction());
    }
    if trials >= least {
        return Ok(());
    }
    Err(SearchError::Setting {
        search: KIND,
        setting: "trials",
        found: trials.to_string(),
        expected: "at least the reduction to the power of the number of rungs after the first",
    })
}

// `serde(skip_serializing_if = ...)` calls it with a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// One run of successive halving, which the searches of this module and Hyperband share.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Bracket {
    rungs: Rungs,
    trials: u64,
    /// The trials of brackets before this one.
    #[serde(default, skip_serializing_if = "is_zero")]
    done_before: u64,
    started: u64,
    /// The rung that trials are on the way to.
    rung: usize,
    running: BTreeSet<TrialId>,
    /// The trials that came to the rung, from the best.
    arrived: Vec<(Loss, TrialId)>,
    promoted: VecDeque<TrialId>,
    dropped: VecDeque<TrialId>,
}

impl Bracket {
    pub(super) fn new(trials: u64, rungs: Rungs) -> Self {
        Self {
            rungs,
            trials,
            done_before: 0,
            started: 0,
            rung: 0,
            running: BTreeSet::new(),
            arrived: Vec::new(),
            promoted: VecDeque::new(),
            dropped: VecDeque::new(),
        }
    }

    /// What the bracket wants; `Finished` if it is over.
    pub(super) fn ask(&mut self, inner: &mut impl Search, next: TrialId) -> Ask {
        loop {
            if let Some(trial) = self.dropped.pop_front() {
                return Ask::Stop(trial);
            }
            if let Some(trial) = self.promoted.pop_front() {
                self.running.insert(trial);
                return Ask::Resume(trial);
            }
            if self.started < self.trials {
                match inner.ask(next) {
                    Ask::Start(config) => {
                        self.started += 1;
                        self.running.insert(next);
                        return Ask::Start(config);
                    }
                    // Fewer trials than planned: the rungs are complete without them.
                    Ask::Finished => self.trials = self.started,
                    ask => return ask,
                }
            }
            if !self.running.is_empty() {
                return Ask::Wait;
            }
            if self.arrived.is_empty() {
                return Ask::Finished;
            }
            self.next_rung();
        }
    }

    fn next_rung(&mut self) {
        // Algorithm 1 of Li et al. 2018 keeps floor(n_i / η) of the n_i = floor(n / η^i) trials that
        // the rung has, which is floor(n / η^(i+1)); failed trials leave fewer to choose from.
        let divisor = u64::from(self.rungs.reduction()).saturating_pow(self.rung as u32 + 1);
        let keep = (self.trials / divisor) as usize;
        let arrived = std::mem::take(&mut self.arrived);
        for (place, (loss, trial)) in arrived.into_iter().enumerate() {
            let better = place < keep && loss.is_known();
            if better { &mut self.promoted } else { &mut self.dropped }.push_back(trial);
        }
        self.rung += 1;
    }

    pub(super) fn contains(&self, trial: TrialId) -> bool {
        self.running.contains(&trial)
    }

    pub(super) fn tell(&mut self, report: &EpochReport) -> Decision {
        let trial = report.trial;
        if !self.running.contains(&trial) {
            return Decision::Continue;
        }
        if report.epoch >= self.rungs.max_epochs() || report.epoch >= report.max_epochs {
            self.running.remove(&trial);
            return Decision::Stop;
        }
        if report.epoch < self.rungs.epochs()[self.rung] {
            return Decision::Continue;
        }
        self.running.remove(&trial);
        let loss = Loss::new(report.loss());
        let place = self.arrived.partition_point(|(other, _)| *other <= loss);
        self.arrived.insert(place, (loss, trial));
        Decision::Pause
    }

    pub(super) fn ended(&mut self, trial: TrialId) {
        self.running.remove(&trial);
        self.arrived.retain(|(_, other)| *other != trial);
        self.promoted.retain(|other| *other != trial);
        self.dropped.retain(|other| *other != trial);
    }
}

impl<S: Search> Search for SuccessiveHalving<S> {
    fn ask(&mut self, next: TrialId) -> Ask {
        loop {
            match (self.bracket.ask(&mut self.inner, next), self.later.pop_front()) {
                (Ask::Finished, Some(trials)) => {
                    let done_before = self.bracket.done_before + self.bracket.trials;
                    self.bracket = Bracket::new(trials, self.bracket.rungs.clone());
                    self.bracket.done_before = done_before;
                }
                (ask, later) => {
                    if let Some(later) = later {
                        self.later.push_front(later);
                    }
                    return ask;
                }
            }
        }
    }

    fn planned(&self) -> Option<u64> {
        Some(self.bracket.done_before + self.bracket.trials + self.later.iter().sum::<u64>())
    }

    fn planned_epochs(&self) -> Option<u64> {
        let rungs = &self.bracket.rungs;
        let brackets = self.later.iter().chain([&self.bracket.trials]);
        let before = rungs.epochs_of(self.bracket.done_before);
        Some(before + brackets.map(|&trials| rungs.epochs_of(trials)).sum::<u64>())
    }

    fn tell(&mut self, report: &EpochReport) -> Decision {
        match self.inner.tell(report) {
            Decision::Continue => self.bracket.tell(report),
            decision => {
                if decision == Decision::Stop {
                    self.bracket.ended(report.trial);
                }
                decision
            }
        }
    }

    fn ended(&mut self, trial: TrialId, ending: Ending) {
        self.bracket.ended(trial);
        self.inner.ended(trial, ending);
    }

    fn resumed(&mut self, trial: TrialId) {
        // It is the user's now, and trains to its last epoch.
        self.bracket.ended(trial);
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
        Some(self.bracket.rungs.max_epochs())
    }

    /// The trials are a bracket of their own, after the one that there is; so they must be enough for
    /// one.
    fn extend(&mut self, trials: u64) -> Result<(), SearchError> {
        enough(trials, &self.bracket.rungs)?;
        self.inner.extend(trials)?;
        self.later.push_back(trials);
        Ok(())
    }

    fn narrow(&mut self, space: &Space) -> Result<(), SearchError> {
        self.inner.narrow(space)
    }

    fn snapshot(&self) -> serde_json::Value {
        let (inner, bracket) = (self.inner.snapshot(), self.bracket.clone());
        written(KIND, &Snapshot { inner, bracket, later: self.later.clone() })
    }

    fn restore(&mut self, snapshot: &serde_json::Value) -> Result<(), SearchError> {
        let snapshot: Snapshot = read(KIND, snapshot)?;
        self.inner.restore(&snapshot.inner)?;
        self.bracket = snapshot.bracket;
        self.later = snapshot.later;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::Random;
    use crate::search::testing::Simulation;
    use crate::seed::Seed;

    fn search(trials: u64) -> SuccessiveHalving<Random> {
        let space = Space::builder().uniform("x", 0.0, 1.0).build().unwrap();
        let random = Random::new(&space, trials, Seed(4)).unwrap();
        SuccessiveHalving::new(random, trials, Rungs::new(1, 9, 3).unwrap()).unwrap()
    }

    fn epochs(search: &mut impl Search) -> Vec<u32> {
        let mut simulation = Simulation::new(2, 9, |config, _, _| config.float("x").unwrap());
        simulation.run(search);
        simulation.epochs()
    }

    #[test]
    fn trials_that_it_is_extended_by_are_a_bracket_of_their_own() {
        let mut extended = search(9);
        extended.extend(18).unwrap();
        let resumed = {
            let mut resumed = search(9);
            resumed.restore(&extended.snapshot()).unwrap();
            resumed
        };
        assert_eq!(extended.planned(), Some(27));
        let planned = extended.planned_epochs().unwrap();
        let epochs_of = epochs(&mut extended);
        assert_eq!(epochs_of, epochs(&mut { resumed }));
        let complete = |trials: &[u32]| trials.iter().filter(|&&epochs| epochs == 9).count();
        assert_eq!((complete(&epochs_of[..9]), complete(&epochs_of[9..])), (1, 2));
        assert_eq!(u64::from(epochs_of.iter().sum::<u32>()), planned);
        assert_eq!(extended.planned(), Some(27), "also when the first bracket is over");
    }

    #[test]
    fn too_few_trials_for_a_bracket_are_refused() {
        let mut search = search(9);
        let error = search.extend(8).unwrap_err().to_string();
        assert!(error.contains("`trials` is 8"), "{error}");
        assert_eq!(search.planned(), Some(9));
    }
}
