//! [`ExperimentStatus`]: how an experiment stands at an instant.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::command::Priority;
use crate::config::Config;
use crate::id::TrialId;
use crate::metric::Objective;
use crate::observe::TrialStatus;

/// How an experiment stands: what somebody needs who is to control it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExperimentStatus {
    /// The experiment's name.
    pub name: String,
    /// What is optimised.
    pub objective: Objective,
    /// Time since the experiment started, in seconds.
    #[serde(with = "crate::seconds")]
    pub at: Duration,
    /// The epochs that a trial trains.
    pub epochs: u32,
    /// The trials that the search starts in all, if it knows.
    pub planned: Option<u64>,
    /// Whether a person paused everything.
    pub paused: bool,
    /// Why the store takes nothing in at present, which keeps everything waiting.
    pub store_trouble: Option<String>,
    /// Workers that are there.
    pub workers: usize,
    /// Their slots together.
    pub slots: usize,
    /// Units that run.
    pub running_units: usize,
    /// The trials, in the order of their ids.
    pub trials: Vec<TrialOverview>,
}

/// How a trial stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrialOverview {
    /// The trial.
    pub id: TrialId,
    /// Its Config.
    pub config: Arc<Config>,
    /// The trial that it was cloned from, if any.
    pub parent: Option<TrialId>,
    /// How it stands.
    pub status: TrialStatus,
    /// Whether a person paused it.
    pub held: bool,
    /// Its priority.
    pub priority: Priority,
    /// The epochs that it has completed.
    pub completed_epochs: u32,
    /// The epochs that it is to train in all.
    pub epochs: u32,
    /// The objective's value after its last epoch, if that is a finite number.
    pub latest: Option<f64>,
    /// The best value of the objective, and the epoch that reached it; the first one is 1.
    pub best: Option<(f64, u32)>,
}
