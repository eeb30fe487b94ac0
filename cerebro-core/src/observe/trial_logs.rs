//! [`TrialLogs`]: a log file per trial.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Event, ObserveError, Observer, OutputError, TrialStatus};
use crate::id::{TrialId, WorkerId};
use crate::metric::Metrics;
use crate::text::{clean, number, thousands};

const WHAT: &str = "the log of a trial";

/// Writes a log file per trial, `trial-0.log` and so on: its Config, each unit with worker, time,
/// rows per second and metrics, each epoch with metrics and the time per worker, how it ended.
///
/// No file stays open, so that thousands of trials do not exhaust what the system allows.
#[derive(Debug)]
pub struct TrialLogs {
    folder: PathBuf,
    /// The time that a trial's current epoch took on each worker.
    times: BTreeMap<TrialId, BTreeMap<WorkerId, Duration>>,
}

impl TrialLogs {
    /// Writes to `folder`, which is made if it is absent; logs of earlier experiments there are
    /// replaced as trials of the same number begin.
    pub fn create(folder: impl Into<PathBuf>) -> Result<Self, OutputError> {
        let folder = folder.into();
        std::fs::create_dir_all(&folder).map_err(OutputError::write(WHAT, &folder))?;
        let logs = Self { folder, times: BTreeMap::new() };
        // A folder that exists may still not be writable, which is better known now than later.
        let probe = logs.folder.join(".writable");
        std::fs::write(&probe, "").map_err(OutputError::write(WHAT, &probe))?;
        std::fs::remove_file(&probe).map_err(OutputError::write(WHAT, &probe))?;
        Ok(logs)
    }

    /// The folder of the logs.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The log of a trial.
    pub fn path(&self, trial: TrialId) -> PathBuf {
        self.folder.join(format!("{trial}.log"))
    }

    fn append(&self, trial: TrialId, at: Duration, text: &str) -> Result<(), OutputError> {
        self.write(trial, at, text, OpenOptions::new().append(true).create(true))
    }

    fn write(
        &self,
        trial: TrialId,
        at: Duration,
        text: &str,
        how: &OpenOptions,
    ) -> Result<(), OutputError> {
        let path = self.path(trial);
        let line = format!("{:>11.3} s  {text}\n", at.as_secs_f64());
        how.open(&path)
            .and_then(|mut file| file.write_all(line.as_bytes()))
            .map_err(OutputError::write(WHAT, &path))
    }
}

impl Observer for TrialLogs {
    fn observe(&mut self, at: Duration, event: &Event) -> Result<(), ObserveError> {
        match event {
            Event::TrialStarted { trial, config, seed, parent } => {
                let mut text =
                    format!("began with {}, seed {}", clean(&config.to_string()), seed.0);
                if let Some(parent) = parent {
                    // Writing to a String cannot fail.
                    let _ = write!(text, ", cloned from {parent}");
                }
                let anew = OpenOptions::new().write(true).create(true).truncate(true).clone();
                self.write(*trial, at, &text, &anew)?;
            }
            Event::UnitCompleted { unit, worker, report, .. } => {
                let seconds = report.computed.as_secs_f64();
                let rate = if seconds > 0.0 { report.rows as f64 / seconds } else { 0.0 };
                let text = format!(
                    "epoch {}  {:<10}  {:<12}  {worker}  {seconds:.6} s  {} rows/s {}",
                    unit.epoch + 1,
                    unit.split,
                    unit.partition,
                    thousands(rate as u64),
                    listed(&report.metrics),
                );
                let times = self.times.entry(unit.trial).or_default();
                *times.entry(*worker).or_default() += report.computed;
                self.append(unit.trial, at, &text)?;
            }
            Event::UnitFailed { unit, worker, error, retry, .. } => {
                let next = if *retry { "will be tried again" } else { "will not be tried again" };
                let text = format!("{unit} on {worker} failed and {next}: {}", clean(error));
                self.append(unit.trial, at, &text)?;
            }
            Event::UnitRepeated { unit, worker } => {
                let text = format!("{unit} runs again on {worker}: its State was lost");
                self.append(unit.trial, at, &text)?;
            }
            Event::EpochCompleted { trial, epoch, train, validation, value, visit_order } => {
                let mut text = format!(
                    "epoch {epoch}  completed: value {}; train{}; validation{}; time",
                    number(*value),
                    listed(train),
                    listed(validation),
                );
                for (worker, time) in self.times.remove(trial).unwrap_or_default() {
                    let _ = write!(text, "  {worker} {:.6} s", time.as_secs_f64());
                }
                text.push_str("; visited");
                for partition in visit_order {
                    let _ = write!(text, " {partition}");
                }
                self.append(*trial, at, &text)?;
            }
            Event::TrialExploited { trial, source, config } => {
                let config = clean(&config.to_string());
                let text = format!("took over the State of {source} and goes on with {config}");
                self.append(*trial, at, &text)?;
            }
            Event::TrialStatus { trial, status } => {
                if status.is_final() {
                    self.times.remove(trial);
                }
                let text = match status {
                    TrialStatus::Failed { reason } => format!("failed: {}", clean(reason)),
                    other => other.to_string(),
                };
                self.append(*trial, at, &text)?;
            }
            _ => {}
        }
        Ok(())
    }
}

/// `  loss=0.1234  accuracy=0.9712`.
fn listed(metrics: &Metrics) -> String {
    metrics.values().fold(String::new(), |mut text, (name, value)| {
        let _ = write!(text, "  {}={}", clean(name), number(value));
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::TimedEvent;
    use crate::observe::synthetic::Synthetic;

    #[test]
    fn each_trial_has_a_log_of_its_units_epochs_times_per_worker_and_end() {
        let folder = tempfile::tempdir().unwrap();
        let mut logs = TrialLogs::create(folder.path().join("logs")).unwrap();
        std::fs::write(logs.path(TrialId(0)), "from an earlier experiment\n").unwrap();
        for TimedEvent { at, event } in Synthetic::default().events() {
            logs.observe(at, &event).unwrap();
        }
        assert_eq!(std::fs::read_dir(logs.folder()).unwrap().count(), 12);
        let log = std::fs::read_to_string(logs.path(TrialId(0))).unwrap();
        assert!(!log.contains("earlier"));
        assert_eq!(log.matches("rows/s").count(), 6 * (6 + 3), "{log}");
        let epochs: Vec<&str> = log.lines().filter(|line| line.contains("completed:")).collect();
        assert_eq!(epochs.len(), 6);
        for part in ["value 0.", "loss=", "worker-0 ", "worker-2 ", "visited partition-"] {
            assert!(epochs[0].contains(part), "{part} is not in {}", epochs[0]);
        }
        assert!(log.lines().next().unwrap().contains("learning_rate="));
        assert!(log.lines().last().unwrap().ends_with("completed"));
        let failed = std::fs::read_to_string(logs.path(TrialId(1))).unwrap();
        assert!(failed.contains("will not be tried again: the loss became NaN"), "{failed}");
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_an_error_at_once() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), "").unwrap();
        let error = TrialLogs::create(folder.path().join("file").join("logs")).unwrap_err();
        assert!(error.to_string().contains("logs"), "{error}");
    }
}
