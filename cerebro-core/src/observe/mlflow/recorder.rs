//! What events become on the server; runs on a thread of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use super::api::{Api, Batch, Found, MlFlowError, RunStatus};
use crate::config::Config;
use crate::experiment::{EpochRecord, TrialRecord};
use crate::id::TrialId;
use crate::metric::Metrics;
use crate::observe::{Event, Outcome, Summary, TrialStatus};

/// The server refuses batches of more metrics.
const MOST_METRICS: usize = 1000;
/// The server refuses longer values of parameters and tags.
const LONGEST_VALUE: usize = 5000;

/// On every run of an experiment that is in a store: the experiment's id.
const EXPERIMENT: &str = "cerebro.experiment";
/// On the runs of trials beside it: the trial.
const TRIAL: &str = "cerebro.trial";
/// How a trial stands.
const STATUS: &str = "cerebro.status";

/// An event, and when it happened in milliseconds since 1970.
pub(super) type Told = (u64, Event);

pub(super) struct Recorder {
    api: Api,
    experiment: String,
    /// What tells the experiment from every other one, if it is in a store.
    id: Option<String>,
    /// The run of the whole experiment.
    whole: Option<String>,
    /// The runs that trials had when the experiment was resumed.
    earlier: BTreeMap<String, Found>,
    /// The trials whose runs have not ended.
    open: BTreeSet<TrialId>,
    /// The runs of all trials.
    runs: BTreeMap<TrialId, String>,
    pending: BTreeMap<TrialId, Batch>,
}

impl Recorder {
    pub(super) fn new(api: Api, experiment: String) -> Self {
        Self {
            api,
            experiment,
            id: None,
            whole: None,
            earlier: BTreeMap::new(),
            open: BTreeSet::new(),
            runs: BTreeMap::new(),
            pending: BTreeMap::new(),
        }
    }

    /// Records what is told until nobody can tell more. Metrics that come in the meantime go
    /// together.
    pub(super) fn run(mut self, told: &Receiver<Told>) -> Result<(), MlFlowError> {
        let mut last = 0;
        while let Ok((at, event)) = told.recv() {
            last = at;
            self.take(at, &event)?;
            while let Ok((at, event)) = told.try_recv() {
                last = at;
                self.take(at, &event)?;
            }
            self.flush()?;
        }
        // Nothing was told of an end: the experiment was broken off.
        self.end_all(last, RunStatus::Killed)
    }

    fn take(&mut self, at: u64, event: &Event) -> Result<(), MlFlowError> {
        match event {
            Event::ExperimentStarted { id, name, seed, objective, epochs, .. } => {
                self.id.clone_from(id);
                if self.find_runs()? {
                    return Ok(());
                }
                let run = self.api.start_run(&self.experiment, name, at, &self.tags())?;
                let params = vec![
                    ("seed".to_owned(), seed.0.to_string()),
                    ("objective".to_owned(), objective.to_string()),
                    ("epochs".to_owned(), epochs.to_string()),
                ];
                self.api.log(&run, &Batch { params, ..Batch::default() })?;
                self.whole = Some(run);
            }
            Event::ExperimentResumed { trials, .. } => {
                for trial in trials {
                    self.take_up(at, trial)?;
                }
            }
            Event::TrialStarted { trial, config, parent, .. } => {
                self.start(at, *trial, config, *parent)?;
                self.go_on(*trial)?;
            }
            Event::EpochCompleted { trial, epoch, train, validation, .. } => {
                self.epoch(at, *trial, *epoch, train, validation)?;
            }
            Event::TrialExploited { trial, source, config } => {
                // A run's parameters are fixed, so what it goes on with is a tag.
                let tags = &mut self.pending.entry(*trial).or_default().tags;
                tags.push(("cerebro.took_over_from".to_owned(), source.to_string()));
                tags.push(("cerebro.config".to_owned(), short(config.to_string())));
            }
            Event::TrialStatus { trial, status } => self.status(at, *trial, status)?,
            Event::ExperimentEnded { summary } => self.conclude(at, summary)?,
            _ => {}
        }
        Ok(())
    }

    fn tags(&self) -> Vec<(String, String)> {
        self.id.iter().map(|id| (EXPERIMENT.to_owned(), id.clone())).collect()
    }

    /// Finds the runs that the experiment began before it was resumed, and goes on with its own.
    fn find_runs(&mut self) -> Result<bool, MlFlowError> {
        let Some(id) = &self.id else { return Ok(false) };
        for run in self.api.runs(&self.experiment, EXPERIMENT, id)? {
            match run.tags.get(TRIAL).cloned() {
                Some(trial) => drop(self.earlier.insert(trial, run)),
                None => self.whole = Some(run.id),
            }
        }
        match &self.whole {
            Some(run) => self.api.reopen_run(run)?,
            // Its trials were nested in it.
            None => self.earlier.clear(),
        }
        Ok(self.whole.is_some())
    }

    /// Goes on with the run of a trial, or makes one; it holds what the trial has trained, then.
    fn take_up(&mut self, at: u64, trial: &TrialRecord) -> Result<(), MlFlowError> {
        let found = self.start(at, trial.id, trial.config_of(1), trial.parent)?;
        let known = found.as_ref().map_or(0, |run| run.step);
        for EpochRecord { epoch, train, validation, .. } in &trial.history {
            if *epoch > known {
                self.epoch(at, trial.id, *epoch, train, validation)?;
            }
        }
        let status = trial.status.to_string();
        let is_told = |run: Found| run.ended && run.tags.get(STATUS) == Some(&status);
        if trial.status.is_final() && found.is_some_and(is_told) {
            // It keeps the time at which it ended.
            return Ok(());
        }
        self.status(at, trial.id, &trial.status)
    }

    /// Starts the run of a trial, unless it has one with this Config.
    fn start(
        &mut self,
        at: u64,
        trial: TrialId,
        config: &Config,
        parent: Option<TrialId>,
    ) -> Result<Option<Found>, MlFlowError> {
        let params = config.iter().map(|(name, value)| (key(name), short(value.to_string())));
        let mut params: Vec<_> = params.collect();
        let found = self.earlier.remove(&trial.to_string());
        // Another Config is drawn for a trial that was not recorded if the space is narrower now.
        let fits = |run: &Found| {
            params.iter().all(|(key, value)| run.params.get(key).is_none_or(|held| held == value))
        };
        if let Some(run) = found.filter(fits) {
            params.retain(|(key, _)| !run.params.contains_key(key));
            self.pending.entry(trial).or_default().params.extend(params);
            self.runs.insert(trial, run.id.clone());
            if !run.ended {
                self.open.insert(trial);
            }
            return Ok(Some(run));
        }
        let mut tags = self.tags();
        tags.push((TRIAL.to_owned(), trial.to_string()));
        tags.extend(self.whole.iter().map(|run| ("mlflow.parentRunId".to_owned(), run.clone())));
        tags.extend(parent.map(|parent| ("cerebro.cloned_from".to_owned(), parent.to_string())));
        let run = self.api.start_run(&self.experiment, &trial.to_string(), at, &tags)?;
        self.open.insert(trial);
        self.runs.insert(trial, run);
        self.pending.entry(trial).or_default().params.extend(params);
        Ok(None)
    }

    /// Has the run of a trial go on if it had ended.
    fn go_on(&mut self, trial: TrialId) -> Result<(), MlFlowError> {
        match self.runs.get(&trial) {
            Some(run) if self.open.insert(trial) => self.api.reopen_run(run),
            _ => Ok(()),
        }
    }

    fn epoch(
        &mut self,
        at: u64,
        trial: TrialId,
        epoch: u32,
        train: &Metrics,
        validation: &Metrics,
    ) -> Result<(), MlFlowError> {
        let batch = self.pending.entry(trial).or_default();
        for (split, metrics) in [("train", train), ("validation", validation)] {
            let metrics = metrics.values();
            let metric =
                |(name, value): (&str, f64)| (key(&format!("{split}/{name}")), value, at, epoch);
            batch.metrics.extend(metrics.map(metric));
        }
        if batch.metrics.len() > MOST_METRICS / 2 { self.flush() } else { Ok(()) }
    }

    fn status(&mut self, at: u64, trial: TrialId, status: &TrialStatus) -> Result<(), MlFlowError> {
        let tags = &mut self.pending.entry(trial).or_default().tags;
        tags.push((STATUS.to_owned(), status.to_string()));
        let ended = match status {
            TrialStatus::Completed | TrialStatus::Stopped => RunStatus::Finished,
            TrialStatus::Failed { reason } => {
                tags.push(("cerebro.failure".to_owned(), short(reason.clone())));
                RunStatus::Failed
            }
            TrialStatus::Running | TrialStatus::Paused => return self.go_on(trial),
        };
        self.flush()?;
        self.open.remove(&trial);
        match self.runs.get(&trial) {
            Some(run) => self.api.end_run(run, ended, at),
            None => Ok(()),
        }
    }

    fn conclude(&mut self, at: u64, summary: &Summary) -> Result<(), MlFlowError> {
        self.flush()?;
        if let Some(run) = &self.whole {
            let mut batch = Batch::default();
            let seconds = |time: Duration| time.as_secs_f64();
            batch.metrics = vec![
                ("wall_seconds".to_owned(), seconds(summary.wall), at, 0),
                ("utilisation".to_owned(), summary.utilisation(), at, 0),
                ("completed_trials".to_owned(), summary.completed as f64, at, 0),
                ("stopped_trials".to_owned(), summary.stopped as f64, at, 0),
                ("failed_trials".to_owned(), summary.failed as f64, at, 0),
            ];
            if let Some((trial, value, epoch)) = summary.best {
                batch.metrics.push(("best_value".to_owned(), value, at, epoch));
                batch.tags.push(("cerebro.best_trial".to_owned(), trial.to_string()));
                let run = self.runs.get(&trial).cloned();
                batch.tags.extend(run.map(|run| ("cerebro.best_run".to_owned(), run)));
            }
            self.api.log(run, &batch)?;
        }
        let status = match summary.outcome {
            Outcome::Finished => RunStatus::Finished,
            Outcome::Stopped => RunStatus::Killed,
        };
        self.end_all(at, status)
    }

    /// Ends the runs of trials that have not ended as killed, and that of the experiment.
    fn end_all(&mut self, at: u64, status: RunStatus) -> Result<(), MlFlowError> {
        while let Some(trial) = self.open.pop_first() {
            if let Some(run) = self.runs.get(&trial) {
                self.api.end_run(run, RunStatus::Killed, at)?;
            }
        }
        match self.whole.take() {
            Some(run) => self.api.end_run(&run, status, at),
            None => Ok(()),
        }
    }

    fn flush(&mut self) -> Result<(), MlFlowError> {
        while let Some((trial, batch)) = self.pending.pop_first() {
            if let Some(run) = self.runs.get(&trial) {
                self.api.log(run, &batch)?;
            }
        }
        Ok(())
    }
}

/// A name with what MLflow does not allow in one replaced.
fn key(name: &str) -> String {
    let allowed = |c: char| c.is_alphanumeric() || "_-./ ".contains(c);
    name.chars().map(|c| if allowed(c) { c } else { '_' }).take(250).collect()
}

fn short(value: String) -> String {
    if value.len() <= LONGEST_VALUE {
        return value;
    }
    let cut = value.floor_char_boundary(LONGEST_VALUE);
    format!("{}...", &value[..cut])
}
