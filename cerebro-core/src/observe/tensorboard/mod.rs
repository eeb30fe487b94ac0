//! [`TensorBoard`]: event files that TensorBoard reads.

mod messages;

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prost::Message;

use self::messages::{
    Content, Dimension, Hyperparameters, Kind, Metadata, Parameter, Plugin, Session, SessionEnd,
    SessionStart, Shape, Status, Summary, Tensor, Value, What,
};
use super::{Event, ObserveError, Observer, OutputError, TrialStatus};
use crate::config::{self, Config};
use crate::id::TrialId;
use crate::metric::Metrics;

const WHAT: &str = "a TensorBoard event file";
/// How the names of files of this observer end.
const SUFFIX: &str = ".cerebro";

/// Writes event files that TensorBoard reads: `tensorboard --logdir FOLDER`.
///
/// Each trial is a run. The training and validation metrics of each epoch are its scalars, by
/// epoch; its Config and how it ended are in the HPARAMS tab. TensorBoard holds metrics as 32-bit
/// floats. It knows one Config per run: that of a trial that took over another's State is the one
/// that it began with.
#[derive(Debug)]
pub struct TensorBoard {
    folder: PathBuf,
    /// The experiment's start, since 1970.
    start: Duration,
}

impl TensorBoard {
    /// Writes to a folder per trial in `folder`, which is made if it is absent. Event files that
    /// this observer wrote for trials of the same number before are replaced.
    pub fn create(folder: impl Into<PathBuf>) -> Result<Self, OutputError> {
        let folder = folder.into();
        std::fs::create_dir_all(&folder).map_err(OutputError::write(WHAT, &folder))?;
        // A folder that exists may still not be writable, which is better known now than later.
        let probe = folder.join(".writable");
        std::fs::write(&probe, "").map_err(OutputError::write(WHAT, &probe))?;
        std::fs::remove_file(&probe).map_err(OutputError::write(WHAT, &probe))?;
        // A clock before 1970 only shifts the times shown.
        let start = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Self { folder, start })
    }

    fn path(&self, trial: TrialId) -> PathBuf {
        let seconds = self.start.as_secs();
        self.folder.join(trial.to_string()).join(format!("events.out.tfevents.{seconds}{SUFFIX}"))
    }

    fn wall(&self, at: Duration) -> f64 {
        (self.start + at).as_secs_f64()
    }

    fn begin(&self, trial: TrialId, at: Duration, config: &Config) -> Result<(), OutputError> {
        let path = self.path(trial);
        let folder = path.parent().unwrap_or(&self.folder);
        std::fs::create_dir_all(folder)
            .and_then(|()| remove_earlier(folder))
            .map_err(OutputError::write(WHAT, folder))?;
        let version = What::FileVersion("brain.Event:2".to_owned());
        self.append(trial, at, 0, version)?;
        let values =
            config.iter().map(|(name, value)| (name.to_owned(), parameter(value))).collect();
        let session = Session::Start(SessionStart { values, start: self.wall(at) });
        self.append(trial, at, 0, hyperparameters("_hparams_/session_start_info", session))
    }

    fn epoch(
        &self,
        trial: TrialId,
        at: Duration,
        epoch: u32,
        train: &Metrics,
        validation: &Metrics,
    ) -> Result<(), OutputError> {
        let of = |split: &'static str, metrics: &Metrics| {
            let scalar = |(name, value): (&str, f64)| Value {
                tag: format!("{split}/{name}"),
                content: Some(Content::Simple(value as f32)),
                metadata: None,
            };
            metrics.values().map(scalar).collect::<Vec<_>>()
        };
        let value = [of("train", train), of("validation", validation)].concat();
        self.append(trial, at, i64::from(epoch), What::Summary(Summary { value }))
    }

    fn status(
        &self,
        trial: TrialId,
        at: Duration,
        status: &TrialStatus,
    ) -> Result<(), OutputError> {
        match status {
            TrialStatus::Completed | TrialStatus::Stopped => self.end(trial, at, Status::Success),
            TrialStatus::Failed { .. } => self.end(trial, at, Status::Failure),
            TrialStatus::Running | TrialStatus::Paused => Ok(()),
        }
    }

    fn end(&self, trial: TrialId, at: Duration, status: Status) -> Result<(), OutputError> {
        let session = Session::End(SessionEnd { status: status.into(), end: self.wall(at) });
        self.append(trial, at, 0, hyperparameters("_hparams_/session_end_info", session))
    }

    fn append(
        &self,
        trial: TrialId,
        at: Duration,
        step: i64,
        what: What,
    ) -> Result<(), OutputError> {
        let event = messages::Event { wall_time: self.wall(at), step, what: Some(what) };
        let path = self.path(trial);
        OpenOptions::new()
            .append(true)
            .create(true)
            .open(&path)
            .and_then(|mut file| file.write_all(&record(&event.encode_to_vec())))
            .map_err(OutputError::write(WHAT, &path))
    }
}

impl Observer for TensorBoard {
    fn observe(&mut self, at: Duration, event: &Event) -> Result<(), ObserveError> {
        match event {
            // What the process before wrote is replaced by the same, whole.
            Event::ExperimentResumed { trials, .. } => {
                for trial in trials {
                    self.begin(trial.id, at, &trial.config)?;
                    for epoch in &trial.history {
                        let (train, validation) = (&epoch.train, &epoch.validation);
                        self.epoch(trial.id, at, epoch.epoch, train, validation)?;
                    }
                    self.status(trial.id, at, &trial.status)?;
                }
            }
            Event::TrialStarted { trial, config, .. } => self.begin(*trial, at, config)?,
            Event::EpochCompleted { trial, epoch, train, validation, .. } => {
                self.epoch(*trial, at, *epoch, train, validation)?;
            }
            Event::TrialStatus { trial, status } => self.status(*trial, at, status)?,
            _ => {}
        }
        Ok(())
    }
}

fn remove_earlier(folder: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().ends_with(SUFFIX) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn parameter(value: &config::Value) -> Parameter {
    let kind = match value {
        config::Value::Bool(value) => Kind::Bool(*value),
        config::Value::Int(value) => Kind::Number(*value as f64),
        config::Value::Float(value) => Kind::Number(*value),
        config::Value::Text(value) => Kind::Text(value.clone()),
        list @ config::Value::List(_) => Kind::Text(list.to_string()),
    };
    Parameter { kind: Some(kind) }
}

/// A summary for the plugin `hparams`: its data is in the metadata, the tensor is empty.
fn hyperparameters(tag: &str, session: Session) -> What {
    let content = Hyperparameters { session: Some(session) }.encode_to_vec();
    let shape = Shape { dimensions: vec![Dimension { size: 0 }] };
    let value = Value {
        tag: tag.to_owned(),
        content: Some(Content::Tensor(Tensor { element: 1, shape: Some(shape) })),
        metadata: Some(Metadata { plugin: Some(Plugin { name: "hparams".to_owned(), content }) }),
    };
    What::Summary(Summary { value: vec![value] })
}

/// A record of a `TFRecord` file: length, its checksum, data, their checksum.
fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(data.len() + 16);
    record.extend(length);
    record.extend(masked_checksum(&length).to_le_bytes());
    record.extend(data);
    record.extend(masked_checksum(data).to_le_bytes());
    record
}

/// CRC-32C, masked as `TFRecord` has it so that a checksum of data with checksums stays good.
fn masked_checksum(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_has_the_bytes_that_tensorboard_itself_writes() {
        // Of `tensorboard.summary.writer.record_writer.RecordWriter`, version 2.21.
        let expected = [3, 0, 0, 0, 0, 0, 0, 0, 176, 153, 73, 14, 97, 98, 99, 110, 87, 241, 33];
        assert_eq!(record(b"abc"), expected);
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_an_error_at_once() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), "").unwrap();
        let error = TensorBoard::create(folder.path().join("file").join("board")).unwrap_err();
        assert!(error.to_string().contains("board"), "{error}");
    }
}
