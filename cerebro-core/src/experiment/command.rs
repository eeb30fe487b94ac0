//! [`Command`]: what a person may ask of a running experiment, and what comes of it.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::config::Config;
use crate::id::TrialId;
use crate::model::ModelError;
use crate::observe::TrialStatus;
use crate::search::SearchError;
use crate::space::{Space, SpaceError};
use crate::text::count;

/// What a person asks of a running experiment; see
/// [`ExperimentHandle`](super::ExperimentHandle), which has a method for each.
///
/// Serialised, as `{"command": "pause_trial", "trial": 3}`, it is what a program that controls an
/// experiment from elsewhere may send.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Command {
    /// The trial's running units finish, and no others of it start.
    PauseTrial {
        /// The trial.
        trial: TrialId,
    },
    /// A trial that a person paused goes on; or one that the search paused goes on before its turn.
    ResumeTrial {
        /// The trial.
        trial: TrialId,
    },
    /// The trial ends, at the next batch boundary; its completed epochs count.
    StopTrial {
        /// The trial.
        trial: TrialId,
    },
    /// Running units finish, and no others start.
    PauseAll,
    /// Units start again, but for those of trials that are paused themselves.
    ResumeAll,
    /// A new trial with the Config of another one, but for `changes`.
    CloneTrial {
        /// The trial that is cloned.
        trial: TrialId,
        /// Hyperparameters that differ. Those whose condition holds no more are left out.
        #[serde(default)]
        changes: Config,
        /// The State to start from.
        #[serde(default)]
        start: Start,
    },
    /// A new trial with this Config.
    AddTrial {
        /// Its Config.
        config: Config,
    },
    /// Every trial trains so many epochs in all: those under way, those to come, and those that have
    /// completed all theirs and whose last and best States were kept.
    ExtendEpochs {
        /// The epochs, those that are trained already included.
        epochs: u32,
    },
    /// The search starts so many trials more than it was to start before.
    ExtendTrials {
        /// The trials.
        trials: u64,
    },
    /// The search takes the Configs of future trials from another space.
    Narrow {
        /// The space; it has the same hyperparameters as the one before.
        space: Space,
    },
    /// Units of the trial start before those of trials with a lower priority.
    SetPriority {
        /// The trial.
        trial: TrialId,
        /// Its priority.
        priority: Priority,
    },
}

/// From which State a clone starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Start {
    /// From initial weights, drawn by the clone's own seed: a cold start.
    #[default]
    Cold,
    /// From the State after the last completed epoch of the trial that is cloned.
    Latest,
    /// From the State after its best epoch.
    Best,
}

/// How a trial's units stand beside those of others: of two that could start, that of the higher
/// priority does. From -10 to 10; 0 by default.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(try_from = "i32")]
pub struct Priority(i8);

impl Priority {
    /// The priority of this level, or the nearest that there is.
    pub fn new(level: i32) -> Self {
        Self(level.clamp(-10, 10) as i8)
    }

    /// Its level, from -10 to 10.
    pub fn level(self) -> i32 {
        self.0.into()
    }
}

impl TryFrom<i32> for Priority {
    type Error = String;

    fn try_from(level: i32) -> Result<Self, String> {
        let priority = Self::new(level);
        if priority.level() == level {
            return Ok(priority);
        }
        Err(format!("{level} is no priority; those are from -10 to 10"))
    }
}

/// What came of a command that was carried out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Answer {
    /// It was done.
    Done,
    /// How the trial stands now.
    Trial {
        /// The trial.
        trial: TrialId,
        /// Its status.
        status: TrialStatus,
    },
    /// A trial was started.
    Started {
        /// The new trial.
        trial: TrialId,
    },
    /// The trials train longer.
    Extended {
        /// Trials that had completed all their epochs and go on.
        continued: Vec<TrialId>,
    },
}

/// Why a command was not carried out. Nothing has changed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ControlError {
    /// No such trial.
    #[error(
        "there is no {trial}; the experiment has {trials} trials so far, numbered from 0, and another one \
         as soon as `Event::TrialStarted` tells of it"
    )]
    UnknownTrial {
        /// The trial.
        trial: TrialId,
        /// How many there are.
        trials: usize,
    },
    /// The trial trains no more.
    #[error("{trial} has ended already ({status}); clone it to go on from where it was")]
    Ended {
        /// The trial.
        trial: TrialId,
        /// How it ended.
        status: TrialStatus,
    },
    /// A Config outside the space of the search.
    #[error("the Config {config} is not in the search's space: {source}")]
    Outside {
        /// The Config.
        config: Config,
        /// What is wrong with it.
        source: SpaceError,
    },
    /// A Config that the model refuses.
    #[error("the model refuses the Config {config}: {source}")]
    Model {
        /// The Config.
        config: Config,
        /// Why.
        source: ModelError,
    },
    /// A State to start from that there is not.
    #[error(
        "{trial} cannot be cloned with its weights: {reason}; start the clone cold, or {remedy}"
    )]
    NoState {
        /// The trial.
        trial: TrialId,
        /// Why there is none.
        reason: &'static str,
        /// What else can be done.
        remedy: &'static str,
    },
    /// Epochs that are trained already.
    #[error(
        "a trial has {} already; it can be extended to more, not to {asked}",
        count((*present).into(), "epoch")
    )]
    FewerEpochs {
        /// What was asked for.
        asked: u32,
        /// What there is.
        present: u32,
    },
    /// The search says how long trials train.
    #[error(
        "the search gives a trial {} at most, so that {asked} would change nothing; begin an \
         experiment with another search",
        count((*limit).into(), "epoch")
    )]
    LimitedBySearch {
        /// What was asked for.
        asked: u32,
        /// The search's limit.
        limit: u32,
    },
    /// The search cannot do that.
    #[error(transparent)]
    Search(#[from] SearchError),
    /// A space with other hyperparameters.
    #[error(
        "future trials need the hyperparameters that the experiment has: {difference}; \
         begin an experiment to search over others"
    )]
    OtherSpace {
        /// What differs.
        difference: String,
    },
    /// Recorded orders have none for what was asked.
    #[error(
        "the experiment replays recorded visit orders, and there is none for new trials or epochs"
    )]
    Replay,
    /// The store failed before the command was durable.
    #[error("the store was lost before the command was durable, so it may be forgotten: {reason}")]
    NotDurable {
        /// What the store said.
        reason: String,
    },
    /// The experiment takes no commands any more.
    #[error(
        "the experiment has ended, or is about to; go on with it by `ExperimentBuilder::resume`"
    )]
    Over,
}

impl Command {
    /// The trial that it is about, if it is about one.
    pub fn trial(&self) -> Option<TrialId> {
        match self {
            Command::PauseTrial { trial }
            | Command::ResumeTrial { trial }
            | Command::StopTrial { trial }
            | Command::CloneTrial { trial, .. }
            | Command::SetPriority { trial, .. } => Some(*trial),
            _ => None,
        }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Command::PauseTrial { trial } => write!(f, "pause {trial}"),
            Command::ResumeTrial { trial } => write!(f, "resume {trial}"),
            Command::StopTrial { trial } => write!(f, "stop {trial}"),
            Command::PauseAll => f.write_str("pause all trials"),
            Command::ResumeAll => f.write_str("resume all trials"),
            Command::CloneTrial { trial, changes, start } => {
                write!(f, "clone {trial}")?;
                if !changes.is_empty() {
                    write!(f, " with {changes}")?;
                }
                match start {
                    Start::Cold => f.write_str(" from initial weights"),
                    Start::Latest => f.write_str(" from its latest weights"),
                    Start::Best => f.write_str(" from its best weights"),
                }
            }
            Command::AddTrial { config } => write!(f, "add a trial with {config}"),
            Command::ExtendEpochs { epochs } => {
                write!(f, "extend to {}", count((*epochs).into(), "epoch"))
            }
            Command::ExtendTrials { trials } => write!(f, "extend by {}", count(*trials, "trial")),
            Command::Narrow { space } => {
                let lines = space.to_string();
                write!(f, "take future Configs from {}", lines.replace('\n', ", "))
            }
            Command::SetPriority { trial, priority } => {
                write!(f, "give {trial} the priority {}", priority.level())
            }
        }
    }
}
