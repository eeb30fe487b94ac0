//! Searches: which Config to try next, and what becomes of a trial after each epoch.
//!
//! A [`Search`] is asked and told. The driver [asks](Search::ask) it when there is room for a
//! trial, and [tells](Search::tell) it the result of every epoch; the answer says whether that
//! trial goes on, pauses, stops or takes over the State of a better one. A search has no clock and
//! no randomness but that of its seed: the same seed and the same order of results give the same
//! decisions, and a [snapshot](Search::snapshot) holds all that it knows.
//!
//! # Which one
//!
//! | To propose Configs | |
//! | --- | --- |
//! | [`Grid`] | every combination, or a list of Configs |
//! | [`Random`] | independent draws |
//! | [`QuasiRandom`] | draws that cover the space evenly; better than random for the same price |
//! | [`Tpe`] | learns from the results where good Configs are; multivariate in most cases |
//! | `CmaEs` | adapts a normal density to numbers that depend on each other, with hundreds of trials to spend (feature `cma-es`) |
//!
//! | To save epochs, around one of those | |
//! | --- | --- |
//! | [`Asha`] | trains many trials a little and the best ones to the end, without ever waiting |
//! | [`SuccessiveHalving`] | the same, comparing complete rungs |
//! | [`Hyperband`] | several ways to spend the same epochs, where it is not known how soon a trial shows what it is worth; [with TPE](Hyperband::bohb) it is BOHB |
//! | [`MedianStopping`] | stops what falls behind |
//! | [`StopWhen`] | ends it all at a target, at a number of epochs, or when nothing gets better |
//!
//! [`Population`] changes hyperparameters while it trains.
//!
//! They combine, since one that saves epochs takes any other search:
//!
//! ```
//! use cerebro_core::search::{Asha, Rungs, Tpe};
//! use cerebro_core::{Seed, Space};
//!
//! let space = Space::builder()
//!     .loguniform("learning_rate", 1e-5, 1e-1)
//!     .int("layers", 1, 4)
//!     .build()?;
//! let search = Asha::new(Tpe::multivariate(&space, 100, Seed(7))?, Rungs::new(1, 27, 3)?);
//! # let _ = search;
//! # Ok::<(), cerebro_core::search::SearchError>(())
//! ```
//!
//! # Write your own search
//!
//! Propose Configs, say what a snapshot holds, and leave the rest to the defaults: this one takes
//! the best trial so far and changes one hyperparameter of it at a time.
//!
//! ```
//! use cerebro_core::search::{Ask, Decision, EpochReport, SearchError};
//! use cerebro_core::{Config, Search, Seed, Space, TrialId};
//! use serde_json::{Value, json};
//!
//! #[derive(Debug)]
//! struct Climb {
//!     space: Space,
//!     seed: Seed,
//!     trials: u64,
//!     configs: Vec<Config>,
//!     best: Option<(f64, TrialId)>,
//! }
//!
//! impl Search for Climb {
//!     fn ask(&mut self, next: TrialId) -> Ask {
//!         if next.0 == self.trials {
//!             return Ask::Finished;
//!         }
//!         let mut config = self.space.sample(self.seed.derive("climb", &[next.0]));
//!         if let Some((_, best)) = self.best {
//!             let parameters = self.space.parameters();
//!             let changed = &parameters[next.0 as usize % parameters.len()].name;
//!             let value = config.get(changed).cloned();
//!             config = self.configs[best.0 as usize].clone();
//!             config.set(changed, value.expect("this space has no conditions"));
//!         }
//!         self.configs.push(config.clone());
//!         Ask::Start(config)
//!     }
//!
//!     fn tell(&mut self, report: &EpochReport) -> Decision {
//!         if self.best.is_none_or(|(loss, _)| report.loss() < loss) {
//!             self.best = Some((report.loss(), report.trial));
//!         }
//!         Decision::Continue
//!     }
//!
//!     fn snapshot(&self) -> Value {
//!         json!({ "configs": self.configs, "best": self.best })
//!     }
//!
//!     fn restore(&mut self, snapshot: &Value) -> Result<(), SearchError> {
//!         let field = |name: &str| snapshot.get(name).cloned().unwrap_or_default();
//!         self.configs =
//!             serde_json::from_value(field("configs")).map_err(SearchError::snapshot("climb"))?;
//!         self.best =
//!             serde_json::from_value(field("best")).map_err(SearchError::snapshot("climb"))?;
//!         Ok(())
//!     }
//! }
//!
//! let space = Space::builder().uniform("x", -5.0, 5.0).uniform("y", -5.0, 5.0).build()?;
//! let mut search = Climb { space, seed: Seed(1), trials: 60, configs: vec![], best: None };
//! // What the driver does, one trial at a time and one epoch each.
//! for trial in (0..).map(TrialId) {
//!     let Ask::Start(config) = search.ask(trial) else { break };
//!     let (x, y) = (config.float("x")?, config.float("y")?);
//!     search.tell(&EpochReport::minimized(trial, 1, 1, x * x + y * y));
//! }
//! assert!(search.best.is_some_and(|(loss, _)| loss < 0.5));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod asha;
#[cfg(feature = "cma-es")]
mod cma;
mod error;
mod grid;
mod halving;
mod hyperband;
mod loss;
mod median;
mod population;
mod quasi;
mod random;
mod rungs;
mod stop;
#[cfg(test)]
mod testing;
mod tpe;

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use asha::Asha;
#[cfg(feature = "cma-es")]
pub use cma::CmaEs;
pub use error::SearchError;
pub use grid::Grid;
pub use halving::SuccessiveHalving;
pub use hyperband::{BracketSizes, Hyperband};
pub use median::MedianStopping;
pub use population::{Inheritance, Population};
pub use quasi::QuasiRandom;
pub use random::Random;
pub use rungs::Rungs;
pub use stop::{StopRule, StopWhen};
pub use tpe::Tpe;

use crate::config::Config;
use crate::id::TrialId;
use crate::metric::{Direction, Metrics};
use crate::space::Space;

/// Which Config to try next, and what becomes of a trial after each epoch.
///
/// A user's own search implements [`ask`](Search::ask), [`snapshot`](Search::snapshot) and
/// [`restore`](Search::restore); the other methods have defaults for a search that lets every
/// trial run to its last epoch.
pub trait Search: Send + fmt::Debug {
    /// What to do when there is room for a trial. If the answer is [`Ask::Start`], the new trial's
    /// id is `next`, which is higher than all ids before.
    fn ask(&mut self, next: TrialId) -> Ask;

    /// How many trials there will be in all, if that is known beforehand: for progress.
    fn planned(&self) -> Option<u64> {
        None
    }

    /// How many epochs all the trials together will train, about, if that can be said beforehand: for
    /// progress. `None`, as by default, where trials may be taken to train to their last epoch.
    fn planned_epochs(&self) -> Option<u64> {
        None
    }

    /// A trial has completed an epoch, with its validation: what becomes of it.
    ///
    /// The answer to a report of the last epoch does not matter, except
    /// [`Exploit`](Decision::Exploit), which is never given there. A trial that the search does not
    /// know (a user may [add](Search::added) some) goes on.
    fn tell(&mut self, report: &EpochReport) -> Decision {
        let _ = report;
        Decision::Continue
    }

    /// A trial will report no more although it did not complete its last epoch and the search did
    /// not stop it.
    fn ended(&mut self, trial: TrialId, ending: Ending) {
        let _ = (trial, ending);
    }

    /// A user resumed a trial that the search paused: it will report, and the search may neither
    /// resume nor stop it before it has paused it again.
    fn resumed(&mut self, trial: TrialId) {
        let _ = trial;
    }

    /// Somebody else started a trial, which will report like the others: a search may learn from
    /// it.
    fn added(&mut self, trial: TrialId, config: &Config) {
        let _ = (trial, config);
    }

    /// Whether the search may yet let another trial take over the State of `source`, which has
    /// ended; if not, that State may be deleted. `false` by default: the States of trials that have not
    /// ended can always be taken over.
    fn may_take_over(&self, source: TrialId) -> bool {
        let _ = source;
        false
    }

    /// Whether all answers are the same whatever is told: then it does not matter in which order results
    /// are told, and with [`Policy::Seeded`](crate::schedule::Policy::Seeded) no trial waits for its
    /// turn. `false` by default, which is right for every search.
    fn ignores_results(&self) -> bool {
        false
    }

    /// Whether the search may [pause](Decision::Pause) trials, or let ended ones be
    /// [taken over](Search::may_take_over): then any number of trials may have States that are needed, and
    /// else only those under way do, which the bound of the store is for. `true` by default, which is
    /// right for every search.
    fn keeps_trials_waiting(&self) -> bool {
        true
    }

    /// The space that Configs are taken from, if there is one: what a user adds is to be in it.
    fn space(&self) -> Option<&Space> {
        None
    }

    /// How many epochs the search gives a trial at most; `None` if that is for the experiment to say.
    fn max_epochs(&self) -> Option<u32> {
        None
    }

    /// Starts `trials` more trials than it was to start before.
    fn extend(&mut self, trials: u64) -> Result<(), SearchError> {
        let _ = trials;
        Err(SearchError::NotExtended {
            reason: "it has all the trials that it was made for",
            remedy: "add trials with Configs of your own",
        })
    }

    /// Takes the Configs of future trials from `space`.
    fn narrow(&mut self, space: &Space) -> Result<(), SearchError> {
        let _ = space;
        Err(SearchError::Unsupported("given another space"))
    }

    /// All that the search knows, such that a search that [restores](Search::restore) it decides
    /// from then on exactly as this one.
    fn snapshot(&self) -> serde_json::Value;

    /// Goes on from a snapshot of a search of this kind, forgetting all else.
    fn restore(&mut self, snapshot: &serde_json::Value) -> Result<(), SearchError>;
}

impl Search for Box<dyn Search> {
    fn ask(&mut self, next: TrialId) -> Ask {
        self.as_mut().ask(next)
    }

    fn planned(&self) -> Option<u64> {
        self.as_ref().planned()
    }

    fn planned_epochs(&self) -> Option<u64> {
        self.as_ref().planned_epochs()
    }

    fn tell(&mut self, report: &EpochReport) -> Decision {
        self.as_mut().tell(report)
    }

    fn ended(&mut self, trial: TrialId, ending: Ending) {
        self.as_mut().ended(trial, ending);
    }

    fn resumed(&mut self, trial: TrialId) {
        self.as_mut().resumed(trial);
    }

    fn added(&mut self, trial: TrialId, config: &Config) {
        self.as_mut().added(trial, config);
    }

    fn may_take_over(&self, source: TrialId) -> bool {
        self.as_ref().may_take_over(source)
    }

    fn ignores_results(&self) -> bool {
        self.as_ref().ignores_results()
    }

    fn keeps_trials_waiting(&self) -> bool {
        self.as_ref().keeps_trials_waiting()
    }

    fn space(&self) -> Option<&Space> {
        self.as_ref().space()
    }

    fn max_epochs(&self) -> Option<u32> {
        self.as_ref().max_epochs()
    }

    fn extend(&mut self, trials: u64) -> Result<(), SearchError> {
        self.as_mut().extend(trials)
    }

    fn narrow(&mut self, space: &Space) -> Result<(), SearchError> {
        self.as_mut().narrow(space)
    }

    fn snapshot(&self) -> serde_json::Value {
        self.as_ref().snapshot()
    }

    fn restore(&mut self, snapshot: &serde_json::Value) -> Result<(), SearchError> {
        self.as_mut().restore(snapshot)
    }
}

/// What a [`Search`] wants when there is room for a trial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// A new trial.
    Start(Config),
    /// A trial that the search paused goes on, from the State that it has.
    Resume(TrialId),
    /// A trial that the search paused is over: it was not good enough to go on, and its State is no
    /// longer needed. The place is still free: ask again.
    Stop(TrialId),
    /// Nothing before the next result: some trial that runs must report first. Never the answer
    /// when every trial of the search is over or paused by it; one that a user paused still counts
    /// as running.
    Wait,
    /// Nothing any more, whatever the trials that still run report; those that are paused stay so.
    /// Only [`Search::extend`] changes that.
    Finished,
}

/// What a [`Search`] is told when a trial has completed an epoch.
#[derive(Clone, Debug, PartialEq)]
pub struct EpochReport {
    /// The trial.
    pub trial: TrialId,
    /// How many epochs it has completed, this one included.
    pub epoch: u32,
    /// How many epochs a trial of this experiment has at most.
    pub max_epochs: u32,
    /// The objective: the validation metric that the experiment optimises; NaN if it is missing.
    pub value: f64,
    /// Which values of the objective are better.
    pub direction: Direction,
    /// All the validation metrics of the epoch.
    pub metrics: Metrics,
}

impl EpochReport {
    /// The report that `trial` has completed `epoch` of `max_epochs` epochs and that its objective,
    /// of which lower values are better, is `value`; for those who try out a search of their own.
    pub fn minimized(trial: TrialId, epoch: u32, max_epochs: u32, value: f64) -> Self {
        let metrics = Metrics::new();
        Self { trial, epoch, max_epochs, value, direction: Direction::Minimize, metrics }
    }

    /// The objective as a loss: lower is better, and a value that is missing or not finite is
    /// worse than all others.
    pub fn loss(&self) -> f64 {
        let loss = match self.direction {
            Direction::Minimize => self.value,
            Direction::Maximize => -self.value,
        };
        if loss.is_finite() { loss } else { f64::INFINITY }
    }
}

/// What becomes of a trial after an epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// It trains its next epoch, if it has one.
    Continue,
    /// It keeps its State and waits for an [`Ask::Resume`]; its place is free for another trial.
    Pause,
    /// It is over: it was not good enough to go on.
    Stop,
    /// It takes over the State that `source` had after the last epoch that the search was told of,
    /// and trains its next epoch with `config`.
    Exploit {
        /// A better trial.
        source: TrialId,
        /// The Config to go on with.
        config: Config,
    },
}

/// Why a trial reports no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// It failed: its Config may be to blame, as when the loss diverges.
    Failed,
    /// A user stopped it: that says nothing of its Config.
    Stopped,
    /// The search around this one stopped it, since others were better.
    Outperformed,
}

/// The snapshot of a search that can be written as a whole, marked with the search's kind.
fn written<S: Serialize>(kind: &str, search: &S) -> serde_json::Value {
    let state = serde_json::to_value(search).expect("searches have text keys and finite numbers");
    serde_json::json!({ "search": kind, "state": state })
}

/// The search that [`written`] wrote.
fn read<S: DeserializeOwned>(kind: &str, snapshot: &serde_json::Value) -> Result<S, SearchError> {
    let found = snapshot.get("search").and_then(serde_json::Value::as_str);
    if found != Some(kind) {
        return Err(SearchError::OtherSearch {
            expected: kind.to_owned(),
            found: found.unwrap_or("something that is no search").to_owned(),
        });
    }
    S::deserialize(&snapshot["state"]).map_err(SearchError::snapshot(kind))
}

#[cfg(test)]
mod tests;
