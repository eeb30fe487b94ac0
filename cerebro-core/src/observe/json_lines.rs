//! [`JsonLines`]: every event as a line of JSON.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::error::make_folder_of;
use super::{Event, ObserveError, Observer, OutputError};

const WHAT: &str = "events";

/// An event and when it happened, as `events.jsonl` holds it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TimedEvent {
    /// When it happened, in seconds since the experiment's start.
    #[serde(with = "crate::seconds")]
    pub at: Duration,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// Writes every event as a line of JSON, for other programs and to make a report again later.
///
/// Each line is written whole and at once, so that a program that follows the file never sees half
/// an event. Numbers that JSON does not have are texts: `"NaN"`, `"Infinity"`, `"-Infinity"`.
///
/// ```
/// use std::time::Duration;
/// use cerebro_core::WorkerId;
/// use cerebro_core::observe::{Event, JsonLines, Observer, read_events};
/// # fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// # let folder = tempfile::tempdir()?;
/// let path = folder.path().join("events.jsonl");
/// let mut observer = JsonLines::create(&path)?;
/// let event = Event::WorkerDraining { worker: WorkerId(1) };
/// observer.observe(Duration::from_millis(1500), &event)?;
/// let line = std::fs::read_to_string(&path)?;
/// assert_eq!(line, "{\"at\":1.5,\"event\":\"worker_draining\",\"worker\":1}\n");
/// assert_eq!(read_events(&path)?[0].event, event);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct JsonLines {
    path: PathBuf,
    file: File,
    progress: bool,
    /// Whether the file holds this experiment's events, and not what it held before.
    begun: bool,
}

impl JsonLines {
    /// Writes to the file `path`, in place of what it held once the first event comes: an experiment
    /// that is refused leaves the file as it was. Makes its folder if that is absent.
    pub fn create(path: impl Into<PathBuf>) -> Result<Self, OutputError> {
        let path = path.into();
        make_folder_of(WHAT, &path)?;
        let file = OpenOptions::new().append(true).create(true).open(&path);
        let file = file.map_err(OutputError::write(WHAT, &path))?;
        Ok(Self { path, file, progress: false, begun: false })
    }

    /// Also writes [`Event::UnitProgress`], of which there are many.
    pub fn with_progress(mut self) -> Self {
        self.progress = true;
        self
    }
}

impl Observer for JsonLines {
    fn observe(&mut self, at: Duration, event: &Event) -> Result<(), ObserveError> {
        /// A [`TimedEvent`] that borrows.
        #[derive(Serialize)]
        struct Line<'a> {
            #[serde(with = "crate::seconds")]
            at: Duration,
            #[serde(flatten)]
            event: &'a Event,
        }

        if matches!(event, Event::UnitProgress { .. }) && !self.progress {
            return Ok(());
        }
        let mut line = serde_json::to_vec(&Line { at, event })?;
        line.push(b'\n');
        if !self.begun {
            self.file.set_len(0).map_err(OutputError::write(WHAT, &self.path))?;
            self.begun = true;
        }
        self.file.write_all(&line).map_err(OutputError::write(WHAT, &self.path))?;
        Ok(())
    }
}

/// Reads the events that [`JsonLines`] wrote.
///
/// A last line without its end, as a process that was killed may leave it, is passed over.
pub fn read_events(path: impl AsRef<Path>) -> Result<Vec<TimedEvent>, OutputError> {
    let path = path.as_ref();
    let file = File::open(path).map_err(OutputError::read(WHAT, path))?;
    let mut reader = BufReader::new(file);
    let mut events = Vec::new();
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        reader.read_until(b'\n', &mut line).map_err(OutputError::read(WHAT, path))?;
        if line.last() != Some(&b'\n') {
            break;
        }
        let event = serde_json::from_slice(&line).map_err(|source| OutputError::NoEvent {
            path: path.to_owned(),
            line: number,
            source,
        })?;
        events.push(event);
    }
    Ok(events)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::synthetic::{Synthetic, same};

    #[test]
    fn every_event_is_read_back_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new").join("events.jsonl");
        let events = Synthetic::default().events();
        let mut observer = JsonLines::create(&path).unwrap().with_progress();
        for TimedEvent { at, event } in &events {
            observer.observe(*at, event).unwrap();
        }
        let back = read_events(&path).unwrap();
        assert_eq!(back.len(), events.len());
        for (read, written) in back.iter().zip(&events) {
            assert!(same(read, written), "{read:?} was {written:?}");
        }
    }

    #[test]
    fn what_an_earlier_experiment_wrote_stays_until_the_first_event() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        std::fs::write(&path, "of an earlier experiment\n").unwrap();
        let mut observer = JsonLines::create(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "of an earlier experiment\n");
        for TimedEvent { at, event } in &Synthetic::default().events()[..3] {
            observer.observe(*at, event).unwrap();
        }
        assert_eq!(read_events(&path).unwrap().len(), 3);
    }

    #[test]
    fn progress_within_units_is_left_out_unless_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        let mut observer = JsonLines::create(&path).unwrap();
        let mut expected = 0;
        for TimedEvent { at, event } in Synthetic::default().events() {
            observer.observe(at, &event).unwrap();
            expected += usize::from(!matches!(event, Event::UnitProgress { .. }));
        }
        assert_eq!(read_events(&path).unwrap().len(), expected);
    }

    #[test]
    fn a_line_cut_short_at_the_end_is_passed_over_and_a_broken_one_before_it_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        let whole = "{\"at\":1.0,\"event\":\"worker_draining\",\"worker\":1}\n";
        std::fs::write(&path, format!("{whole}{}", &whole[..20])).unwrap();
        assert_eq!(read_events(&path).unwrap().len(), 1);
        std::fs::write(&path, format!("{whole}{}\n{whole}", &whole[..20])).unwrap();
        let error = read_events(&path).unwrap_err().to_string();
        assert!(error.contains("line 2 of") && error.contains("events.jsonl"), "{error}");
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_an_error_at_once_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        let error = JsonLines::create(file.join("events.jsonl")).unwrap_err().to_string();
        assert!(error.contains(&*file.to_string_lossy()), "{error}");
        assert!(error.contains("choose a folder"), "{error}");
    }
}
