//! [`Progress`]: how far the experiment is, on standard error.

mod standings;
mod status;

use std::fmt::Write as _;
use std::io::Write;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use self::status::Status;
use super::{Event, ObserveError, Observer, TrialStatus};
use crate::text::{bytes, clean, count, duration, number};

/// Shows on standard error how far the experiment is.
///
/// On a terminal, some lines that stay in place: a bar with the time left, the best trial so far,
/// and per worker its trial, partition and rows per second. Elsewhere, as in a pipe or in a
/// scheduler's log, one plain line per completed epoch and per thing that went wrong.
///
/// A program that prints or logs to the same terminal meanwhile breaks the picture; let its log go
/// to a file.
pub struct Progress {
    status: Status,
    show: Show,
}

enum Show {
    /// Lines that stay in place.
    Terminal(ProgressBar),
    /// Lines one after the other.
    Lines(Box<dyn Write + Send>),
}

impl std::fmt::Debug for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Progress").field("status", &self.status).finish_non_exhaustive()
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

impl Progress {
    /// Shows progress as standard error allows: in place on a terminal, else in plain lines.
    pub fn new() -> Self {
        let target = ProgressDrawTarget::stderr();
        let show = if target.is_hidden() {
            Show::Lines(Box::new(std::io::stderr()))
        } else {
            let style = ProgressStyle::with_template("{msg}").expect("a template without styles");
            let bar = ProgressBar::with_draw_target(None, target).with_style(style);
            Show::Terminal(bar)
        };
        Self { status: Status::default(), show }
    }

    /// Writes plain lines to `out`, whatever it is.
    pub fn lines(out: impl Write + Send + 'static) -> Self {
        Self { status: Status::default(), show: Show::Lines(Box::new(out)) }
    }
}

impl Observer for Progress {
    fn observe(&mut self, at: Duration, event: &Event) -> Result<(), ObserveError> {
        self.status.observe(at, event);
        let line = notable(&self.status, event);
        match &mut self.show {
            Show::Lines(out) => {
                if let Some(line) = line.or_else(|| epoch(&self.status, event)) {
                    writeln!(out, "{:>10}  {line}", duration(at))?;
                }
            }
            Show::Terminal(bar) => {
                if let Some(line) = line {
                    bar.println(format!("{:>10}  {line}", duration(at)));
                }
                if matches!(event, Event::ExperimentEnded { .. }) {
                    bar.finish_and_clear();
                } else if redraws(event) && !bar.is_finished() {
                    bar.set_message(self.status.lines(at).join("\n"));
                }
            }
        }
        Ok(())
    }
}

/// Whether the lines in place are drawn again: not when a unit ends, as its worker is given the next
/// one at once and would seem idle.
fn redraws(event: &Event) -> bool {
    matches!(
        event,
        Event::PartitionLoaded { .. }
            | Event::ExperimentStarted { .. }
            | Event::WorkerJoined { .. }
            | Event::WorkerLost { .. }
            | Event::UnitStarted { .. }
            | Event::UnitProgress { .. }
    )
}

/// What is worth a line of its own, terminal or not: the start, the end, what went wrong.
fn notable(status: &Status, event: &Event) -> Option<String> {
    match event {
        Event::ExperimentStarted { .. } => Some(status.headline()),
        Event::WorkerJoined { worker } => {
            Some(format!("{} joined: {}", worker.id, clean(&worker.name)))
        }
        Event::WorkerLost { worker, reason, units } => {
            let units = count(units.len() as u64, "unit");
            Some(format!("{worker} was lost with {units}: {}", clean(reason)))
        }
        Event::StoreBound { states, state_bytes } => {
            let (all, each) = (bytes(states.saturating_mul(*state_bytes)), bytes(*state_bytes));
            let states = count(*states, "State");
            Some(format!("checkpoints take up to {all}: {states} of {each}"))
        }
        Event::ExperimentResumed { trials, warnings } => {
            let epochs = trials.iter().map(|trial| trial.history.len() as u64).sum();
            let complete = format!(
                "resumed with {} of {} complete",
                count(epochs, "epoch"),
                count(trials.len() as u64, "trial")
            );
            let warnings = warnings.iter().map(|warning| format!("warning: {}", clean(warning)));
            Some(std::iter::once(complete).chain(warnings).collect::<Vec<_>>().join("; "))
        }
        Event::StoreFailing { reason } => {
            Some(format!("waiting for the store, and no unit starts: {}", clean(reason)))
        }
        Event::StoreRecovered => Some("the store takes things in again; going on".to_owned()),
        Event::WallTimeOver { limit } => {
            Some(format!("stopping: the wall time of {} is over", duration(*limit)))
        }
        Event::WorkerDraining { worker } => Some(format!("{worker} takes no more units")),
        Event::WorkerSlow { worker, factor } => {
            Some(format!("{worker} is {factor:.1} times slower than the others"))
        }
        Event::FewTrials { trials, slots, limit } => {
            let idle = slots.saturating_sub(*trials);
            let percent = 100.0 * idle as f64 / (*slots).max(1) as f64;
            let trials = count(*trials as u64, "trial");
            let why = match limit {
                Some(limit) => format!("no more than {limit} may be under way at once"),
                None => "the search has no more for now".to_owned(),
            };
            Some(format!(
                "{trials} cannot keep {slots} slots busy: {idle} are idle ({percent:.0} %) while all train; {why}"
            ))
        }
        Event::AwaitingResume { trials } => {
            let names: Vec<String> = trials.iter().map(ToString::to_string).collect();
            let first = trials.first().map_or(0, |trial| trial.0);
            Some(format!(
                "waiting for {}, paused by a person: resume or stop them to go on \
                 (`tune control SOCKET resume {first}`, for a `tune` that runs with `--control SOCKET`)",
                names.join(", ")
            ))
        }
        Event::UnitFailed { unit, worker, error, retry: true, .. } => {
            Some(format!("{unit} failed on {worker}, is tried again: {}", clean(error)))
        }
        Event::TrialStatus { trial, status: TrialStatus::Failed { reason } } => {
            Some(format!("{trial} failed: {}", clean(reason)))
        }
        _ => None,
    }
}

/// The line of a completed epoch.
fn epoch(status: &Status, event: &Event) -> Option<String> {
    let Event::EpochCompleted { trial, epoch, value, train, .. } = event else { return None };
    let mut line = format!("{trial} epoch {epoch}/{}", status.epochs());
    if let Some(loss) = train.value(crate::metric::LOSS) {
        let _ = write!(line, "  loss {}", number(loss)); // It cannot fail.
    }
    let (metric, value) = (clean(status.metric()), number(*value));
    let _ = write!(line, "  {metric} {value}  [{}]", status.share());
    Some(line)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::observe::TimedEvent;
    use crate::observe::synthetic::Synthetic;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn without_a_terminal_there_is_a_plain_line_per_epoch_and_per_failure() {
        let out = Shared::default();
        let mut progress = Progress::lines(out.clone());
        let events = Synthetic::default().events();
        for TimedEvent { at, event } in &events {
            progress.observe(*at, event).unwrap();
        }
        let text = String::from_utf8(out.0.lock().unwrap().clone()).unwrap();
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
        assert!(text.lines().next().unwrap().chars().count() < 80, "{text}");
        let is_epoch = |event: &Event| matches!(event, Event::EpochCompleted { .. });
        let epochs = events.iter().filter(|timed| is_epoch(&timed.event)).count();
        assert_eq!(text.lines().filter(|line| line.contains("  accuracy ")).count(), epochs);
        for part in [
            ": 12 trials x 6 epochs, 3 workers, 9 partitions",
            "trial-1 failed: the loss became NaN",
            "worker-1 was lost with 1 unit: connection reset by peer",
            "worker-1 joined: host-1",
            "is tried again: the model panicked",
        ] {
            assert_eq!(text.matches(part).count(), 1, "{part}\n{text}");
        }
        assert!(text.lines().count() < epochs + 12, "{text}");
    }

    #[test]
    fn a_store_that_fails_and_what_was_amiss_when_resuming_are_told() {
        let out = Shared::default();
        let mut progress = Progress::lines(out.clone());
        let warnings = vec!["the journal's end is damaged".to_owned()];
        for event in [
            Event::ExperimentResumed { trials: Vec::new(), warnings },
            Event::StoreFailing { reason: "no space left; make room".to_owned() },
            Event::StoreRecovered,
        ] {
            progress.observe(Duration::ZERO, &event).unwrap();
        }
        let text = String::from_utf8(out.0.lock().unwrap().clone()).unwrap();
        for part in ["warning: the journal's end is", "no unit starts: no space left", "again"] {
            assert!(text.contains(part), "{part}\n{text}");
        }
    }
}
