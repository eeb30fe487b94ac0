//! Searches: which Config to try next, and what becomes of a trial after each epoch.
//!
//! A [`Search`] is asked and told. The driver [asks](Search::ask) it when there is room for a
//! trial, and [tells](Search::tell) it the result of every epoch; the answer says whether that
//! trial goes on, pauses, stops or takes over the State of a better one. A search has no clock and
//! no randomness but that of its seed: the same seed and the same order of results give the same
//! decisions, and a [snapshot](Search::snapshot) holds all that it knows.

mod asha;
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
#[cfg(test)]
mod testing;
mod tpe;

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use asha::Asha;
pub use error::SearchError;
pub use grid::Grid;
pub use halving::SuccessiveHalving;
pub use hyperband::{BracketSizes, Hyperband};
pub use median::MedianStopping;
pub use population::{Inheritance, Population};
pub use quasi::QuasiRandom;
pub use random::Random;
pub use rungs::Rungs;
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

    /// How many epochs the search gives a trial at most; `None` if that is for the experiment to say.
    fn max_epochs(&self) -> Option<u32> {
        None
    }

    /// Starts `trials` more trials than it was to start before.
    fn extend(&mut self, trials: u64) -> Result<(), SearchError> {
        let _ = trials;
        Err(SearchError::Unsupported("extended"))
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
    /// It takes over the State of `source` as it is now, and trains its next epoch with `config`.
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
    S::deserialize(&snapshot["state"])
        .map_err(|source| SearchError::Snapshot { search: kind.to_owned(), source })
}

#[cfg(test)]
mod tests;
