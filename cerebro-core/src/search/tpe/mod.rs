//! [`Tpe`]: the tree-structured Parzen estimator.

mod density;
mod history;

use serde::{Deserialize, Serialize};

use super::{Ask, Decision, Ending, EpochReport, Search, SearchError, quasi, read, written};
use crate::config::Config;
use crate::id::TrialId;
use crate::seed::{Seed, SeededRng};
use crate::space::{Parameter, Space};
use density::{Location, Mixture};
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
    /// All together.
    Multivariate,
}

const KIND: &str = "tpe";

/// Candidates that are compared for a proposal.
const CANDIDATES: usize = 24;

impl Tpe {
    /// Estimates each hyperparameter by itself, from the trials in which it is active.
    pub fn univariate(space: &Space, trials: u64, seed: Seed) -> Result<Self, SearchError> {
        Self::new(space, trials, seed, Dependence::Univariate)
    }

    /// Estimates all hyperparameters together (Falkner, Klein and Hutter 2018): finds values that are
    /// good only in combination, and in conditional spaces the values of children that go with
    /// those of their parents. In most spaces this is the better choice.
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
        let parameters: Vec<&Parameter> = self.space.parameters().iter().collect();
        let at_once = match self.dependence {
            Dependence::Univariate => 1,
            Dependence::Multivariate => parameters.len(),
        };
        for parameters in parameters.chunks(at_once) {
            config = best_candidate(parameters, config, &good, &others, &mut rng);
        }
        config
    }
}

/// Adds values of `parameters` to a Config: of some candidates from the good density, those with the
/// highest ratio of the good density to that of the others.
fn best_candidate(
    parameters: &[&Parameter],
    config: Config,
    good: &[&Config],
    others: &[&Config],
    rng: &mut SeededRng,
) -> Config {
    if !parameters.iter().any(|parameter| parameter.is_active(&config)) {
        return config;
    }
    let good = Mixture::new(parameters, good);
    let others = Mixture::new(parameters, others);
    let mut draw = || {
        let mut candidate = config.clone();
        good.sample(&mut candidate, rng);
        let location = Location::of(parameters, &candidate);
        (good.log_density(&location) - others.log_density(&location), candidate)
    };
    let mut best = draw();
    for _ in 1..CANDIDATES {
        let next = draw();
        if next.0 > best.0 {
            best = next;
        }
    }
    best.1
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

    fn planned(&self) -> Option<u64> {
        Some(self.trials)
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

    fn keeps_trials_waiting(&self) -> bool {
        false
    }

    fn space(&self) -> Option<&Space> {
        Some(&self.space)
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
