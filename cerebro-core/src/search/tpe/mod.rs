//! [`Tpe`]: the tree-structured Parzen estimator.

mod density;
mod history;

use serde::{Deserialize, Serialize};

use super::{Ask, Decision, Ending, EpochReport, Search, SearchError, quasi, read, written};
use crate::config::Config;
use crate::id::TrialId;
use crate::seed::{Seed, SeededRng};
use crate::space::{Parameter, Space};
use density::{Axis, Bandwidth, Mixture, Point};
use history::History;

/// The tree-structured Parzen estimator (Bergstra et al. 2011, "Algorithms for hyper-parameter
/// optimization"): it splits the trials so far into the good ones and the others, estimates the
/// density of either, and proposes the candidate whose density is most in favour of the good ones.
///
/// - The first trials (10, or [as set](Tpe::with_startup)) are a [quasi-random](super::QuasiRandom)
///   sequence.
/// - Trials are compared at the largest number of epochs that enough of them have completed (as BOHB
///   does), so that proposals need not wait for complete trials. One that has not come that far
///   counts among the others if it is behind all the good ones where it stands.
/// - Trials that have reported nothing yet count among the others (the constant liar), so that
///   proposals made at the same time differ.
/// - In a conditional space, hyperparameters are estimated from the trials in which they are active.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Tpe {
    space: Space,
    seed: Seed,
    trials: u64,
    started: u64,
    dependence: Dependence,
    startup: u64,
    random_share: f64,
    history: History,
}

/// Whether hyperparameters are estimated together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Dependence {
    /// Each by itself.
    Univariate,
    /// Those that are active under the same conditions together.
    Multivariate,
}

const KIND: &str = "tpe";

/// Candidates that are compared for a proposal.
const CANDIDATES_UNIVARIATE: usize = 24;
const CANDIDATES_MULTIVARIATE: usize = 24;

impl Tpe {
    /// Estimates each hyperparameter by itself: robust where they have little to do with each other.
    pub fn univariate(space: &Space, trials: u64, seed: Seed) -> Result<Self, SearchError> {
        Self::new(space, trials, seed, Dependence::Univariate)
    }

    /// Estimates hyperparameters together (Falkner, Klein and Hutter 2018), those that are active
    /// under the same conditions: finds combinations that are good only together.
    pub fn multivariate(space: &Space, trials: u64, seed: Seed) -> Result<Self, SearchError> {
        Self::new(space, trials, seed, Dependence::Multivariate)
    }

    fn new(
        space: &Space,
        trials: u64,
        seed: Seed,
        dependence: Dependence,
    ) -> Result<Self, SearchError> {
        if trials == 0 {
            return Err(SearchError::NoTrials);
        }
        Ok(Self {
            space: space.clone(),
            seed,
            trials,
            started: 0,
            dependence,
            startup: 10,
            random_share: 0.0,
            history: History::default(),
        })
    }

    /// Proposes from estimates only when `trials` trials can be compared; at least 2.
    pub fn with_startup(mut self, trials: u64) -> Result<Self, SearchError> {
        if trials < 2 {
            return Err(SearchError::Setting {
                search: KIND,
                setting: "startup",
                found: trials.to_string(),
                expected: "at least 2",
            });
        }
        self.startup = trials;
        Ok(self)
    }

    /// Proposes this share of the trials quasi-randomly for good, whatever the estimates say; from
    /// 0 to 1.
    pub fn with_random_share(mut self, share: f64) -> Result<Self, SearchError> {
        if !(0.0..=1.0).contains(&share) {
            return Err(SearchError::Setting {
                search: KIND,
                setting: "random_share",
                found: share.to_string(),
                expected: "from 0 to 1",
            });
        }
        self.random_share = share;
        Ok(self)
    }

    fn propose(&self) -> Config {
        let mut rng = self.seed.derive("search.tpe", &[self.started]).rng();
        let explore = rng.unit() < self.random_share;
        let split = if explore { None } else { self.history.split(self.startup as usize) };
        let Some((good, others)) = split else {
            return quasi::point(&self.space, self.seed, self.started);
        };
        let mut config = Config::new();
        for group in self.groups() {
            if group[0].is_active(&config) {
                let point = self.best_candidate(&group, &good, &others, &mut rng);
                for (parameter, value) in group.iter().zip(point) {
                    config.set(&parameter.name, value.value);
                }
            }
        }
        config
    }

    /// The hyperparameters that are estimated together, parents first.
    fn groups(&self) -> Vec<Vec<&Parameter>> {
        let mut groups: Vec<Vec<&Parameter>> = Vec::new();
        for parameter in self.space.parameters() {
            let group = groups.iter_mut().find(|group| {
                self.dependence == Dependence::Multivariate && group[0].when == parameter.when
            });
            match group {
                Some(group) => group.push(parameter),
                None => groups.push(vec![parameter]),
            }
        }
        groups
    }

    fn best_candidate(
        &self,
        group: &[&Parameter],
        good: &[&Config],
        others: &[&Config],
        rng: &mut SeededRng,
    ) -> Vec<Point> {
        let axes: Vec<Axis<'_>> = group.iter().map(|parameter| Axis(&parameter.domain)).collect();
        let points = |configs: &[&Config]| -> Vec<Vec<Point>> {
            configs.iter().filter_map(|config| points_of(group, config)).collect()
        };
        let (bandwidth, candidates) = match self.dependence {
            Dependence::Univariate => (Bandwidth::Neighbours, CANDIDATES_UNIVARIATE),
            Dependence::Multivariate => (Bandwidth::Scott, CANDIDATES_MULTIVARIATE),
        };
        let good = Mixture::new(&axes, &points(good), bandwidth);
        let others = Mixture::new(&axes, &points(others), bandwidth);
        let mut best = good.sample(rng);
        let mut best_score = good.log_density(&best) - others.log_density(&best);
        for _ in 1..candidates {
            let candidate = good.sample(rng);
            let score = good.log_density(&candidate) - others.log_density(&candidate);
            if score > best_score {
                (best, best_score) = (candidate, score);
            }
        }
        best
    }
}

/// The values that a Config has for the hyperparameters of a group, if it has all of them.
fn points_of(group: &[&Parameter], config: &Config) -> Option<Vec<Point>> {
    group
        .iter()
        .map(|parameter| Point::new(&parameter.domain, config.get(&parameter.name)?))
        .collect()
}

impl Search for Tpe {
    fn ask(&mut self, next: TrialId) -> Ask {
        if self.started == self.trials {
            return Ask::Finished;
        }
        let config = self.propose();
        self.started += 1;
        self.history.start(next, &config);
        Ask::Start(config)
    }

    fn tell(&mut self, report: &EpochReport) -> Decision {
        self.history.tell(report);
        Decision::Continue
    }

    fn ended(&mut self, trial: TrialId, ending: Ending) {
        self.history.end(trial, ending);
    }

    fn added(&mut self, trial: TrialId, config: &Config) {
        self.history.start(trial, config);
    }

    fn extend(&mut self, trials: u64) -> Result<(), SearchError> {
        self.trials += trials;
        Ok(())
    }

    fn narrow(&mut self, space: &Space) -> Result<(), SearchError> {
        self.space = space.clone();
        Ok(())
    }

    fn snapshot(&self) -> serde_json::Value {
        written(KIND, self)
    }

    fn restore(&mut self, snapshot: &serde_json::Value) -> Result<(), SearchError> {
        *self = read(KIND, snapshot)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
