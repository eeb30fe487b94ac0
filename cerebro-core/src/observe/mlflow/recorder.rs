//! What events become on the server; runs on a thread of its own.

use std::collections::BTreeMap;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use super::api::{Api, Batch, MlFlowError, RunStatus};
use crate::config::Config;
use crate::experiment::EpochRecord;
use crate::id::TrialId;
use crate::metric::Metrics;
use crate::observe::{Event, Outcome, Summary, TrialStatus};

/// The server refuses batches of more metrics.
const MOST_METRICS: usize = 1000;
/// The server refuses longer values of parameters and tags.
const LONGEST_VALUE: usize = 5000;

/// An event, and when it happened in milliseconds since 1970.
pub(super) type Told = (u64, Event);

pub(super) struct Recorder {
    api: Api,
    experiment: String,
    /// The run of the whole experiment.
    whole: Option<String>,
    /// The runs of trials that have not ended.
    open: BTreeMap<TrialId, String>,
    /// The runs of all trials.
    runs: BTreeMap<TrialId, String>,
    pending: BTreeMap<TrialId, Batch>,
}

impl Recorder {
    pub(super) fn new(api: Api, experiment: String) -> Self {
        Self {
            api,
            experiment,
            whole: None,
            open: BTreeMap::new(),
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
            Event::ExperimentStarted { name, seed, objective, epochs, .. } => {
                let run = self.api.start_run(&self.experiment, name, at, &[])?;
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
                    self.start(at, trial.id, &trial.config, None)?;
                    for epoch in &trial.history {
                        let EpochRecord { epoch, train, validation, .. } = epoch;
                        self.epoch(at, trial.id, *epoch, train, validation)?;
                    }
                    self.status(at, trial.id, &trial.status)?;
                }
            }
            Event::TrialStarted { trial, config, parent, .. } => {
                self.start(at, *trial, config, *parent)?;
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

    fn start(
        &mut self,
        at: u64,
        trial: TrialId,
        config: &Config,
        parent: Option<TrialId>,
    ) -> Result<(), MlFlowError> {
        let mut tags = Vec::new();
        tags.extend(self.whole.iter().map(|run| ("mlflow.parentRunId".to_owned(), run.clone())));
        tags.extend(parent.map(|parent| ("cerebro.cloned_from".to_owned(), parent.to_string())));
        let run = self.api.start_run(&self.experiment, &trial.to_string(), at, &tags)?;
        self.open.insert(trial, run.clone());
        self.runs.insert(trial, run);
        let params = config.iter().map(|(name, value)| (key(name), short(value.to_string())));
        self.pending.entry(trial).or_default().params.extend(params);
        Ok(())
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
        tags.push(("cerebro.status".to_owned(), status.to_string()));
        let ended = match status {
            TrialStatus::Completed | TrialStatus::Stopped => RunStatus::Finished,
            TrialStatus::Failed { reason } => {
                tags.push(("cerebro.failure".to_owned(), short(reason.clone())));
                RunStatus::Failed
            }
            TrialStatus::Running | TrialStatus::Paused => return Ok(()),
        };
        self.flush()?;
        match self.open.remove(&trial) {
            Some(run) => self.api.end_run(&run, ended, at),
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
        while let Some((_, run)) = self.open.pop_first() {
            self.api.end_run(&run, RunStatus::Killed, at)?;
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
