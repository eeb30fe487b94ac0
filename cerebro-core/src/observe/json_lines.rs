//! [`JsonLines`]: every event as a line of JSON.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::error::make_folder_of;
use super::{Event, ObserveError, Observer, OutputError};

const WHAT: &str = "events";

/// An event and when it happened, as `events.jsonl` holds it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TimedEvent {
    /// When it happened, in seconds since the experiment's start, or since it was resumed.
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
/// A resumed experiment goes on in the file that it began: its second process tells
/// `experiment_started` again, and counts time from its own start.
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
    /// The lines until it is known whether the file holds events of this experiment already.
    held: Option<Vec<u8>>,
}

impl JsonLines {
    /// Writes to the file `path`. What it held stays if it is of the same experiment, which has been
    /// resumed, and is replaced otherwise; not before the experiment has started, so that one that is
    /// refused leaves the file as it was. Makes the folder if it is absent.
    pub fn create(path: impl Into<PathBuf>) -> Result<Self, OutputError> {
        let path = path.into();
        make_folder_of(WHAT, &path)?;
        let file = OpenOptions::new().read(true).append(true).create(true).open(&path);
        let file = file.map_err(OutputError::write(WHAT, &path))?;
        Ok(Self { path, file, progress: false, held: Some(Vec::new()) })
    }

    /// Also writes [`Event::UnitProgress`], of which there are many.
    pub fn with_progress(mut self) -> Self {
        self.progress = true;
        self
    }

    /// Has the file end where the events of this process begin.
    fn make_room(&mut self, id: Option<&str>) -> io::Result<()> {
        let mut kept = 0;
        if id.is_some() && experiment_in(&self.path).as_deref() == id {
            // A process that was killed may have left half a line.
            kept = whole_lines(&self.file)?;
        }
        self.file.set_len(kept)
    }
}

/// The id of the experiment whose events the file holds, as far as that can be told.
fn experiment_in(path: &Path) -> Option<String> {
    let mut id = None;
    // What cannot be read is of no experiment.
    let _ = each_event(path, |timed| {
        if let Event::ExperimentStarted { id: of, .. } = timed.event {
            id = of;
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    });
    id
}

/// The bytes of a file up to the end of its last whole line.
fn whole_lines(mut file: &File) -> io::Result<u64> {
    let mut end = file.seek(io::SeekFrom::End(0))?;
    let mut byte = [0];
    while end > 0 {
        file.seek(io::SeekFrom::Start(end - 1))?;
        file.read_exact(&mut byte)?;
        if byte == *b"\n" {
            break;
        }
        end -= 1;
    }
    Ok(end)
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
        if let Some(held) = &mut self.held {
            held.append(&mut line);
            // The data are loaded before the experiment says what it is.
            if matches!(event, Event::PartitionLoaded { .. }) {
                return Ok(());
            }
            line = std::mem::take(held);
            self.held = None;
            let id = match event {
                Event::ExperimentStarted { id, .. } => id.as_deref(),
                _ => None,
            };
            self.make_room(id).map_err(OutputError::write(WHAT, &self.path))?;
        }
        self.file.write_all(&line).map_err(OutputError::write(WHAT, &self.path))?;
        Ok(())
    }
}

/// Reads the events that [`JsonLines`] wrote.
///
/// A last line without its end, as a process that was killed may leave it, is passed over.
pub fn read_events(path: impl AsRef<Path>) -> Result<Vec<TimedEvent>, OutputError> {
    let mut events = Vec::new();
    each_event(path.as_ref(), |event| {
        events.push(event);
        ControlFlow::Continue(())
    })?;
    Ok(events)
}

/// Gives the events of a file to `take`, one by one, until it breaks off.
pub(super) fn each_event(
    path: &Path,
    mut take: impl FnMut(TimedEvent) -> ControlFlow<()>,
) -> Result<(), OutputError> {
    let file = File::open(path).map_err(OutputError::read(WHAT, path))?;
    let mut reader = BufReader::new(file);
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
        if take(event).is_break() {
            break;
        }
    }
    Ok(())
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

    /// Has a new observer of the file take note of `events`.
    fn write(path: &Path, events: &[TimedEvent]) {
        let mut observer = JsonLines::create(path).unwrap();
        for TimedEvent { at, event } in events {
            observer.observe(*at, event).unwrap();
        }
    }

    #[test]
    fn what_an_earlier_experiment_wrote_stays_until_the_experiment_has_started() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        let events = Synthetic::default().events();
        let start = |timed: &TimedEvent| matches!(timed.event, Event::ExperimentStarted { .. });
        let start = events.iter().position(start).unwrap();
        std::fs::write(&path, "of an earlier experiment\n").unwrap();
        write(&path, &events[..start]);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "of an earlier experiment\n");
        write(&path, &events[..=start]);
        assert_eq!(read_events(&path).unwrap().len(), start + 1);
    }

    #[test]
    fn a_resumed_experiment_goes_on_in_its_file_and_another_one_begins_it_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        let mut events = Synthetic::default().events();
        events.retain(|timed| !matches!(timed.event, Event::UnitProgress { .. }));
        write(&path, &events[..30]);
        // Killed while it wrote.
        let whole = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{whole}{}", &whole[..20])).unwrap();
        write(&path, &events[..40]);
        let back = read_events(&path).unwrap();
        assert_eq!(back.len(), 70);
        assert!(same(&back[30], &events[0]), "{:?}", back[30]);

        for timed in &mut events {
            if let Event::ExperimentStarted { id, .. } = &mut timed.event {
                *id = None;
            }
        }
        write(&path, &events[..40]);
        assert_eq!(read_events(&path).unwrap().len(), 40, "it cannot be known to be the same");
        write(&path, &events[..40]);
        assert_eq!(read_events(&path).unwrap().len(), 40);
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
