//! [`Hyperband`]: brackets of successive halving, from the boldest to the most careful.

use serde::{Deserialize, Serialize};

use super::halving::Bracket;
use super::{Ask, Decision, Ending, EpochReport, Rungs, Search, SearchError, Tpe, read, written};
use crate::config::Config;
use crate::id::TrialId;
use crate::seed::Seed;
use crate::space::Space;

/// Hyperband (Li et al. 2018, "Hyperband: a novel bandit-based approach to hyperparameter
/// optimization") over the trials that another search starts.
///
/// A round has a bracket of successive halving for each rung: the first starts many trials with few
/// epochs, the last starts few with all their epochs, and each costs about the same. While a
/// bracket waits for a rung to be complete, the next one starts, so that workers stay busy; what is
/// promoted is what it would be one after the other.
#[derive(Clone, Debug)]
pub struct Hyperband<S> {
    inner: S,
    plan: Plan,
}

/// How many trials the brackets start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BracketSizes {
    /// As algorithm 1 of the paper says, and most implementations do: bracket *s* of
    /// *s*<sub>max</sub> + 1 starts ceil((*s*<sub>max</sub> + 1) *η*^*s* / (*s* + 1)) trials.
    /// That is 81, 34, 15, 8 and 5 for 81 epochs and a reduction of 3.
    #[default]
    Algorithm,
    /// As the example in table 1 of the paper has it:
    /// floor((*s*<sub>max</sub> + 1) / (*s* + 1)) *η*^*s* trials.
    /// That is 81, 27, 9, 6 and 5 for 81 epochs and a reduction of 3.
    Table,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Plan {
    rungs: Rungs,
    sizes: BracketSizes,
    rounds: u32,
    /// The brackets that were begun and are not over.
    active: Vec<Bracket>,
    /// How many brackets were begun.
    begun: usize,
}

#[derive(Serialize, Deserialize)]
struct Snapshot {
    inner: serde_json::Value,
    plan: Plan,
}

const KIND: &str = "hyperband";

impl<S: Search> Hyperband<S> {
    /// `rounds` rounds of brackets; an error if there is none. A search without a number of trials
    /// of its own needs [`trials`](Hyperband::trials) of them.
    pub fn new(
        inner: S,
        rungs: Rungs,
        sizes: BracketSizes,
        rounds: u32,
    ) -> Result<Self, SearchError> {
        if rounds == 0 {
            return Err(SearchError::NoTrials);
        }
        Ok(Self { inner, plan: Plan { rungs, sizes, rounds, active: Vec::new(), begun: 0 } })
    }

    /// How many trials all the rounds start.
    pub fn trials(rungs: &Rungs, sizes: BracketSizes, rounds: u32) -> u64 {
        let round: u64 =
            (0..rungs.epochs().len()).map(|bracket| sizes.trials(rungs, bracket)).sum();
        round * u64::from(rounds)
    }
}

impl Hyperband<Tpe> {
    /// BOHB (Falkner, Klein and Hutter 2018, "BOHB: robust and efficient hyperparameter
    /// optimization at scale"): Hyperband whose trials are proposed by a multivariate [`Tpe`] that
    /// learns from the largest number of epochs with enough results, one in three at random.
    pub fn bohb(space: &Space, rungs: Rungs, rounds: u32, seed: Seed) -> Result<Self, SearchError> {
        let sizes = BracketSizes::default();
        let trials = Self::trials(&rungs, sizes, rounds);
        let tpe = Tpe::multivariate(space, trials, seed)?.with_random_share(1.0 / 3.0)?;
        Self::new(tpe, rungs, sizes, rounds)
    }
}

impl BracketSizes {
    /// How many trials bracket number `bracket` of a round starts, counted from the boldest.
    fn trials(self, rungs: &Rungs, bracket: usize) -> u64 {
        let brackets = rungs.epochs().len() as u64;
        let s = brackets - 1 - bracket as u64;
        let power = u64::from(rungs.reduction()).pow(s as u32);
        match self {
            BracketSizes::Algorithm => (brackets * power).div_ceil(s + 1),
            BracketSizes::Table => brackets / (s + 1) * power,
        }
    }
}

impl Plan {
    fn ask(&mut self, inner: &mut impl Search, next: TrialId) -> Ask {
        let mut index = 0;
        while index < self.active.len() {
            match self.active[index].ask(inner, next) {
                Ask::Finished => {
                    self.active.remove(index);
                }
                Ask::Wait => index += 1,
                ask => return ask,
            }
        }
        let brackets = self.rungs.epochs().len();
        while self.begun < brackets * self.rounds as usize {
            let number = self.begun % brackets;
            self.begun += 1;
            let trials = self.sizes.trials(&self.rungs, number);
            let mut bracket = Bracket::new(trials, self.rungs.above(number));
            let ask = bracket.ask(inner, next);
            if ask != Ask::Finished {
                self.active.push(bracket);
                return ask;
            }
        }
        if self.active.is_empty() { Ask::Finished } else { Ask::Wait }
    }
}

impl<S: Search> Search for Hyperband<S> {
    fn ask(&mut self, next: TrialId) -> Ask {
        self.plan.ask(&mut self.inner, next)
    }

    fn planned(&self) -> Option<u64> {
        Some(Self::trials(&self.plan.rungs, self.plan.sizes, self.plan.rounds))
    }

    fn planned_epochs(&self) -> Option<u64> {
        let Plan { rungs, sizes, rounds, .. } = &self.plan;
        let bracket = |number| rungs.above(number).epochs_of(sizes.trials(rungs, number));
        let round: u64 = (0..rungs.epochs().len()).map(bracket).sum();
        Some(round * u64::from(*rounds))
    }

    fn tell(&mut self, report: &EpochReport) -> Decision {
        let decision = self.inner.tell(report);
        let bracket = self.plan.active.iter_mut().find(|bracket| bracket.contains(report.trial));
        match (decision, bracket) {
            (Decision::Continue, Some(bracket)) => bracket.tell(report),
            (Decision::Stop, Some(bracket)) => {
                bracket.ended(report.trial);
                Decision::Stop
            }
            (decision, _) => decision,
        }
    }

    fn ended(&mut self, trial: TrialId, ending: Ending) {
        for bracket in &mut self.plan.active {
            bracket.ended(trial);
        }
        self.inner.ended(trial, ending);
    }

    fn resumed(&mut self, trial: TrialId) {
        for bracket in &mut self.plan.active {
            bracket.ended(trial);
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
        Some(self.plan.rungs.max_epochs())
    }

    /// Adds rounds: `trials` must be those of one round, or of several.
    fn extend(&mut self, trials: u64) -> Result<(), SearchError> {
        let step = Self::trials(&self.plan.rungs, self.plan.sizes, 1);
        let rounds = u32::try_from(trials / step).unwrap_or(u32::MAX);
        let all = self.plan.rounds.checked_add(rounds);
        match all.filter(|_| trials > 0 && trials.is_multiple_of(step)) {
            None => Err(SearchError::NoWholeRound { found: trials, step }),
            Some(rounds) => {
                self.inner.extend(trials)?;
                self.plan.rounds = rounds;
                Ok(())
            }
        }
    }

    fn narrow(&mut self, space: &Space) -> Result<(), SearchError> {
        self.inner.narrow(space)
    }

    fn snapshot(&self) -> serde_json::Value {
        written(KIND, &Snapshot { inner: self.inner.snapshot(), plan: self.plan.clone() })
    }

    fn restore(&mut self, snapshot: &serde_json::Value) -> Result<(), SearchError> {
        let snapshot: Snapshot = read(KIND, snapshot)?;
        self.inner.restore(&snapshot.inner)?;
        self.plan = snapshot.plan;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
