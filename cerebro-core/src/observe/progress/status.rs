//! [`Status`]: how far the experiment is, as lines of text.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::time::Duration;

use super::standings::Standings;
use crate::experiment::TrialRecord;
use crate::id::{Split, TrialId, Unit, WorkerId};
use crate::metric::{Direction, Objective};
use crate::observe::{Event, TrialStatus};
use crate::text::{clock, count, fit, thousands};

/// One column is left free: a full last column makes some terminals wrap.
const WIDTH: usize = 79;
const BAR: usize = 24;
/// More workers than this share a line.
const MOST_WORKERS: usize = 16;

/// How far the experiment is.
#[derive(Debug)]
pub(super) struct Status {
    name: String,
    objective: Objective,
    epochs: u32,
    planned: Option<u64>,
    /// The epochs that all trials together will train, about, and those of earlier processes.
    planned_epochs: Option<u64>,
    earlier_epochs: u64,
    /// Training and validation partitions.
    partitions: u64,
    started: Duration,
    done: u64,
    trials: Trials,
    workers: BTreeMap<WorkerId, Worker>,
    standings: Standings,
    /// Time that models computed, summed over slots.
    computed: Duration,
    loaded: u64,
    loaded_rows: u64,
}

/// Trials by how they stand, and the units that they still have before them.
#[derive(Debug, Default)]
struct Trials {
    seen: u64,
    /// Units left of running trials; their sum.
    running: BTreeMap<TrialId, u64>,
    left: u64,
    /// Units left of paused trials, which may never go on.
    paused: BTreeMap<TrialId, u64>,
    completed: u64,
    stopped: u64,
    failed: u64,
}

/// What a worker does.
#[derive(Debug, Default)]
struct Worker {
    /// The newest last.
    units: VecDeque<(Unit, Duration)>,
    /// Rows per second of what was measured last.
    rate: Option<f64>,
    slots: usize,
    lost: bool,
}

impl Default for Status {
    fn default() -> Self {
        Self {
            name: String::new(),
            objective: Objective { metric: String::new(), direction: Direction::Minimize },
            epochs: 0,
            planned: None,
            planned_epochs: None,
            earlier_epochs: 0,
            partitions: 0,
            started: Duration::ZERO,
            done: 0,
            trials: Trials::default(),
            workers: BTreeMap::new(),
            standings: Standings::default(),
            computed: Duration::ZERO,
            loaded: 0,
            loaded_rows: 0,
        }
    }
}

impl Status {
    pub(super) fn observe(&mut self, at: Duration, event: &Event) {
        match event {
            Event::PartitionLoaded { rows, .. } => {
                self.loaded += 1;
                self.loaded_rows += rows;
            }
            Event::ExperimentStarted {
                name,
                objective,
                epochs,
                trials,
                planned_epochs,
                workers,
                partitions,
                ..
            } => {
                self.name.clone_from(name);
                self.objective = objective.clone();
                self.epochs = *epochs;
                self.planned = *trials;
                self.planned_epochs = *planned_epochs;
                self.partitions = partitions.len() as u64;
                self.started = at;
                for worker in workers {
                    let slots = worker.slots;
                    self.workers.insert(worker.id, Worker { slots, ..Worker::default() });
                }
            }
            Event::WorkerJoined { worker } => {
                let known = self.workers.entry(worker.id).or_default();
                (known.lost, known.slots) = (false, worker.slots);
            }
            Event::WorkerLost { worker, .. } => {
                let worker = self.workers.entry(*worker).or_default();
                worker.units.clear();
                worker.lost = true;
            }
            Event::ExperimentResumed { trials, .. } => {
                for trial in trials {
                    self.take_up(trial);
                }
            }
            Event::TrialExploited { trial, config, .. } => self.standings.config(*trial, config),
            Event::TrialStarted { trial, config, .. } => {
                self.trials.seen += 1;
                self.standings.config(*trial, config);
                let units = u64::from(self.epochs) * self.partitions;
                self.trials.go_on(*trial, units);
            }
            Event::UnitStarted { unit, worker, .. } => {
                self.workers.entry(*worker).or_default().units.push_back((*unit, at));
            }
            Event::UnitProgress { unit, worker, rows } => {
                if let Some(worker) = self.workers.get_mut(worker) {
                    let started = worker.units.iter().find(|(known, _)| known == unit);
                    let took = started
                        .map_or(0.0, |(_, started)| at.saturating_sub(*started).as_secs_f64());
                    if took > 0.0 {
                        worker.rate = Some(*rows as f64 / took);
                    }
                }
            }
            Event::UnitCompleted { unit, worker, report, .. } => {
                self.done += 1;
                self.computed += report.computed;
                self.trials.unit_done(unit.trial);
                let seconds = report.computed.as_secs_f64();
                let worker = self.end_unit(*worker, unit);
                if seconds > 0.0 {
                    worker.rate = Some(report.rows as f64 / seconds);
                }
            }
            Event::UnitFailed { unit, worker, .. } | Event::UnitSuperseded { unit, worker } => {
                self.end_unit(*worker, unit);
            }
            Event::EpochCompleted { trial, epoch, value, .. } => {
                self.standings.value(&self.objective, *trial, *value, *epoch);
            }
            Event::TrialStatus { trial, status } => self.trials.status(*trial, status),
            Event::PlanChanged { epochs, trials, planned_epochs } => {
                let more = u64::from(epochs.saturating_sub(self.epochs)) * self.partitions;
                self.trials.extend(more);
                self.epochs = *epochs;
                self.planned = *trials;
                self.planned_epochs = *planned_epochs;
            }
            _ => {}
        }
    }

    /// Takes up a trial where it was when the process before ended.
    fn take_up(&mut self, trial: &TrialRecord) {
        self.trials.seen += 1;
        self.standings.config(trial.id, &trial.config);
        for epoch in &trial.history {
            self.standings.value(&self.objective, trial.id, epoch.value, epoch.epoch);
        }
        self.earlier_epochs += trial.history.len() as u64;
        let left = u64::from(self.epochs).saturating_sub(trial.history.len() as u64);
        self.trials.go_on(trial.id, left * self.partitions);
        if trial.status != TrialStatus::Running {
            self.trials.status(trial.id, &trial.status);
        }
    }

    fn end_unit(&mut self, worker: WorkerId, unit: &Unit) -> &mut Worker {
        let worker = self.workers.entry(worker).or_default();
        worker.units.retain(|(known, _)| known != unit);
        worker
    }

    pub(super) fn metric(&self) -> &str {
        &self.objective.metric
    }

    pub(super) fn epochs(&self) -> u32 {
        self.epochs
    }

    /// What is about to happen.
    pub(super) fn headline(&self) -> String {
        let epochs = count(u64::from(self.epochs), "epoch");
        let trials = match self.planned {
            Some(trials) => format!("{} x {epochs}", count(trials, "trial")),
            None => format!("trials of up to {epochs}"),
        };
        let workers = count(self.workers.len() as u64, "worker");
        let partitions = count(self.partitions, "partition");
        let name = fit(&self.name, 18);
        format!("{name}: {trials}, {workers}, {partitions}")
    }

    /// Units done and to do, as far as is known.
    fn units(&self) -> (u64, u64) {
        let unseen = self.planned.unwrap_or(0).saturating_sub(self.trials.seen);
        let most = self.trials.left + unseen * u64::from(self.epochs) * self.partitions;
        // A search that ends most trials early says what to expect of all of them; each trial that
        // runs or is to come has at least a unit before it all the same.
        let least = self.trials.running.len() as u64 + unseen;
        let left = self.planned_epochs.map_or(most, |planned| {
            let planned = planned.saturating_sub(self.earlier_epochs) * self.partitions;
            planned.saturating_sub(self.done).max(least).min(most)
        });
        (self.done, self.done + left)
    }

    /// `123/456 units`.
    pub(super) fn share(&self) -> String {
        let (done, all) = self.units();
        format!("{}/{} units", thousands(done), thousands(all))
    }

    /// The time left, if units go on taking what they took so far.
    fn left(&self, at: Duration) -> Option<Duration> {
        let (done, all) = self.units();
        let elapsed = at.saturating_sub(self.started);
        (done > 0).then(|| elapsed.mul_f64((all - done) as f64 / done as f64))
    }

    /// Bar, trials, the best of them, workers: each line fits 80 columns.
    pub(super) fn lines(&self, at: Duration) -> Vec<String> {
        if self.workers.is_empty() {
            let partitions = count(self.loaded, "partition");
            let rows = count(self.loaded_rows, "row");
            return vec![format!("loading the data: {partitions}, {rows}")];
        }
        let mut lines = vec![self.bar(at), self.standing(at)];
        lines.extend(self.standings.lines());
        lines.extend(
            self.workers.iter().take(MOST_WORKERS).map(|(id, worker)| worker.line(*id, at)),
        );
        let others = self.workers.len().saturating_sub(MOST_WORKERS);
        if others > 0 {
            let running = |worker: &&Worker| !worker.units.is_empty();
            let busy = self.workers.values().skip(MOST_WORKERS).filter(running).count();
            lines.push(format!("and {}, {busy} busy", count(others as u64, "other worker")));
        }
        lines.iter().map(|line| fit(line, WIDTH)).collect()
    }

    fn bar(&self, at: Duration) -> String {
        let (done, all) = self.units();
        let share = if all == 0 { 0.0 } else { done as f64 / all as f64 };
        let full = (share * BAR as f64) as usize;
        let bar = format!("{}{}", "█".repeat(full), "░".repeat(BAR - full));
        let elapsed = clock(at.saturating_sub(self.started));
        let left = self.left(at).map_or_else(|| "?".to_owned(), clock);
        format!("{bar} {:>3.0} %  {}  {elapsed} elapsed, {left} left", 100.0 * share, self.share())
    }

    fn standing(&self, at: Duration) -> String {
        let trials = &self.trials;
        let mut text = format!("trials: {} running", trials.running.len());
        for (number, word) in [
            (trials.paused.len() as u64, "paused"),
            (trials.completed, "done"),
            (trials.stopped, "stopped"),
            (trials.failed, "failed"),
        ] {
            if number > 0 {
                let _ = write!(text, ", {number} {word}"); // It cannot fail.
            }
        }
        let slots: usize =
            self.workers.values().filter(|worker| !worker.lost).map(|worker| worker.slots).sum();
        let available = at.saturating_sub(self.started).as_secs_f64() * slots as f64;
        if available > 0.0 && self.done > 0 {
            let share = 100.0 * (self.computed.as_secs_f64() / available).min(1.0);
            let _ = write!(text, "   utilisation: {share:.0} %"); // It cannot fail.
        }
        text
    }
}

impl Trials {
    fn go_on(&mut self, trial: TrialId, units: u64) {
        self.left += units;
        self.running.insert(trial, units);
    }

    /// Every trial under way has so many units more to do.
    fn extend(&mut self, units: u64) {
        for left in self.running.values_mut() {
            *left += units;
            self.left += units;
        }
        for left in self.paused.values_mut() {
            *left += units;
        }
    }

    fn unit_done(&mut self, trial: TrialId) {
        if let Some(units) = self.running.get_mut(&trial)
            && *units > 0
        {
            *units -= 1;
            self.left -= 1;
        }
    }

    fn status(&mut self, trial: TrialId, status: &TrialStatus) {
        let running = self.running.remove(&trial);
        self.left -= running.unwrap_or(0);
        let paused = self.paused.remove(&trial);
        let units = running.or(paused).unwrap_or(0);
        match status {
            TrialStatus::Running => {
                // One that had completed goes on when epochs are added, and completes again.
                if running.is_none() && paused.is_none() {
                    self.completed = self.completed.saturating_sub(1);
                }
                self.go_on(trial, units);
            }
            TrialStatus::Paused => {
                self.paused.insert(trial, units);
            }
            TrialStatus::Completed => self.completed += 1,
            TrialStatus::Stopped => self.stopped += 1,
            TrialStatus::Failed { .. } => self.failed += 1,
        }
    }
}

impl Worker {
    fn line(&self, id: WorkerId, at: Duration) -> String {
        let Some((unit, started)) = self.units.back() else {
            return format!("{id:<10} {}", if self.lost { "lost" } else { "idle" });
        };
        let split = match unit.split {
            Split::Train => "train",
            Split::Validation => "validate",
        };
        let epoch = unit.epoch + 1;
        let rate = match self.rate {
            Some(rate) => format!("{} rows/s", thousands(rate as u64)),
            None => format!("for {}", clock(at.saturating_sub(*started))),
        };
        let (trial, partition) = (unit.trial, unit.partition);
        let mut line =
            format!("{id:<10} {trial:<11} epoch {epoch:<4} {split:<8} {partition:<13} {rate:>17}");
        if self.units.len() > 1 {
            let _ = write!(line, " +{}", self.units.len() - 1); // It cannot fail.
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::TimedEvent;
    use crate::observe::synthetic::Synthetic;
    use crate::text::number;

    #[test]
    fn lines_fit_80_columns_at_every_instant_and_name_what_each_worker_does() {
        let sizes = [
            Synthetic::default(),
            Synthetic { trials: 10, epochs: 3, workers: 30, train: 60, ..Synthetic::default() },
        ];
        for size in sizes {
            let workers = size.workers as usize;
            let mut status = Status::default();
            let mut named = 0;
            for TimedEvent { at, event } in size.events() {
                status.observe(at, &event);
                let lines = status.lines(at);
                assert!(lines.len() <= 6 + workers.min(MOST_WORKERS));
                for line in lines {
                    assert!(line.chars().count() < 80, "{line}");
                    assert!(!line.chars().any(char::is_control), "{line:?}");
                    named += usize::from(
                        line.contains("trial-")
                            && line.contains("partition-")
                            && line.contains("rows/s"),
                    );
                }
            }
            assert!(named > 100, "{named}");
        }
    }

    #[test]
    fn units_done_reach_the_number_expected_when_every_trial_has_ended() {
        let mut status = Status::default();
        let mut last = Duration::ZERO;
        for TimedEvent { at, event } in Synthetic::default().events() {
            status.observe(at, &event);
            last = at;
        }
        let (done, all) = status.units();
        assert_eq!(done, all);
        assert!(done > 300, "{done}");
        assert_eq!(status.left(last), Some(Duration::ZERO));
        assert!(status.lines(last)[0].contains("100 %"));
    }

    #[test]
    fn what_the_search_expects_of_all_trials_bounds_what_is_left() {
        let events = Synthetic::default().events();
        let is_epoch = |timed: &&TimedEvent| matches!(timed.event, Event::EpochCompleted { .. });
        let epochs = events.iter().filter(is_epoch).count() as u64;
        let (mut told, mut untold) = (Status::default(), Status::default());
        let (mut checked, mut fewer) = (0, 0);
        for TimedEvent { at, mut event } in events {
            untold.observe(at, &event);
            if let Event::ExperimentStarted { planned_epochs, .. } = &mut event {
                *planned_epochs = Some(epochs);
            }
            told.observe(at, &event);
            let ((done, all), (_, most)) = (told.units(), untold.units());
            assert!(done <= all && all <= most, "{done} {all} {most}");
            checked += 1;
            fewer += u64::from(all < most);
        }
        let (done, all) = told.units();
        assert_eq!(done, all, "nothing is left at the end");
        assert!(fewer > checked / 4, "{fewer} of {checked}");
    }

    #[test]
    fn the_best_trials_are_shown_from_the_best_with_utilisation() {
        let mut status = Status::default();
        let mut last = Duration::ZERO;
        let mut best: BTreeMap<TrialId, f64> = BTreeMap::new();
        for TimedEvent { at, event } in Synthetic::default().events() {
            status.observe(at, &event);
            last = at;
            if let Event::EpochCompleted { trial, value, .. } = event
                && !value.is_nan()
            {
                let known = best.entry(trial).or_insert(value);
                *known = known.max(value);
            }
        }
        let mut ranking: Vec<_> = best.into_iter().collect();
        ranking.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let lines = status.lines(last);
        for (place, (trial, value)) in ranking.iter().take(3).enumerate() {
            let line = &lines[2 + place];
            let start = format!("{}. {:>8} {trial} ", place + 1, number(*value));
            assert!(line.starts_with(&start), "{line} | {start}");
            assert!(line.contains("hidden="), "{line}");
        }
        assert!(lines[1].contains("utilisation: "), "{}", lines[1]);
    }

    #[test]
    fn a_resumed_experiment_shows_what_it_had_come_to() {
        let mut status = Status::default();
        let events = Synthetic::default().events();
        let (mut records, mut at) = (Vec::new(), Duration::ZERO);
        for timed in &events {
            match &timed.event {
                Event::ExperimentStarted { .. } => {
                    status.observe(timed.at, &timed.event);
                    at = timed.at;
                }
                Event::TrialStarted { trial, config, seed, .. } if records.len() < 2 => {
                    // As the journal has it, so that only what matters here need be said.
                    let record = serde_json::json!({
                        "id": trial, "config": config, "seed": seed,
                        "status": TrialStatus::Completed, "best": null, "history": [{
                            "epoch": 1, "train": {}, "validation": {}, "version": 6,
                            "value": 0.25 * (records.len() + 1) as f64, "visit_order": [],
                        }],
                    });
                    records.push(serde_json::from_value::<TrialRecord>(record).unwrap());
                }
                _ => {}
            }
        }
        let before = status.units();
        status.observe(at, &Event::ExperimentResumed { trials: records, warnings: Vec::new() });
        let lines = status.lines(at);
        assert!(lines[1].contains("2 done"), "{}", lines[1]);
        assert!(lines[2].starts_with("1.   0.5000 trial-1"), "{}", lines[2]);
        assert!(status.units().1 < before.1, "two trials are over");
    }

    #[test]
    fn the_time_left_follows_from_the_time_that_units_took() {
        let mut status = Status::default();
        let events = Synthetic::default().events();
        for TimedEvent { at, event } in &events[..events.len() / 2] {
            status.observe(*at, event);
        }
        let at = events[events.len() / 2 - 1].at;
        let (done, all) = status.units();
        let per_unit = at.saturating_sub(status.started).as_secs_f64() / done as f64;
        let left = status.left(at).unwrap().as_secs_f64();
        assert!((left - per_unit * (all - done) as f64).abs() < 1e-6);
        assert!(status.trials.paused.is_empty() && all > done);
    }
}
