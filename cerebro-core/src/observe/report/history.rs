//! [`History`]: what the report needs to know of an experiment, gathered from its events.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::backend::WorkerInfo;
use crate::config::Config;
use crate::data::PartitionInfo;
use crate::experiment::{Command, EpochRecord, Start, TrialRecord};
use crate::id::{PartitionId, Split, TrialId, Unit, WorkerId};
use crate::metric::{Direction, Metrics, Objective};
use crate::observe::{Event, Summary, TrialStatus};
use crate::seed::Seed;

/// More units than this are counted but not drawn, so that memory and page stay bounded.
const MOST_BARS: usize = 20_000;

/// What the report needs to know of an experiment.
#[derive(Debug)]
pub(super) struct History {
    /// Of the experiment, if it is in a store.
    id: Option<String>,
    pub(super) name: String,
    pub(super) seed: Seed,
    pub(super) objective: Objective,
    pub(super) epochs: u32,
    pub(super) partitions: Vec<PartitionInfo>,
    pub(super) workers: BTreeMap<WorkerId, WorkerHistory>,
    pub(super) trials: BTreeMap<TrialId, TrialHistory>,
    /// The names of the columns of [`EpochPoint::values`].
    pub(super) metrics: Vec<(Split, String)>,
    pub(super) loads: Vec<Load>,
    pub(super) bars: Vec<Bar>,
    pub(super) bars_left_out: u64,
    /// The figures of the latest process so far; those of the driver once it has ended.
    pub(super) summary: Summary,
    pub(super) finished: bool,
    /// When the first process started that is known, and when the latest one did.
    pub(super) started: Option<Duration>,
    latest_start: Duration,
    pub(super) now: Duration,
    /// When the experiment was taken up from its store.
    pub(super) resumed: Vec<Duration>,
    /// Epochs that were complete by then, and whose units are not known.
    pub(super) unseen_epochs: u64,
    /// Where the clock of the latest process begins: one process is drawn after the other.
    offset: Duration,
    /// The trials as the process before knew them.
    earlier: BTreeMap<TrialId, TrialHistory>,
    /// What was loaded since the last other event, by the clock of its process.
    loading: Vec<Load>,
    open: HashMap<(Unit, WorkerId), Open>,
    /// What the clone starts with that was asked for last.
    asked: Start,
}

/// A worker and when it was away.
#[derive(Debug)]
pub(super) struct WorkerHistory {
    pub(super) info: WorkerInfo,
    pub(super) absences: Vec<Absence>,
    /// The time that models computed on it, summed over slots.
    pub(super) computed: Duration,
    /// Which of its lanes in the schedule are taken.
    lanes: Vec<bool>,
}

impl WorkerHistory {
    pub(super) fn lanes(&self) -> usize {
        self.lanes.len().max(self.info.slots)
    }
}

#[derive(Debug)]
pub(super) struct Absence {
    pub(super) from: Duration,
    pub(super) to: Option<Duration>,
    pub(super) reason: String,
}

#[derive(Debug)]
pub(super) struct TrialHistory {
    config: Config,
    /// The Config of its best epoch, if it has taken over another one since.
    best_config: Option<Config>,
    pub(super) parent: Option<TrialId>,
    /// Whether it was cloned without the weights of its parent.
    pub(super) cold: bool,
    pub(super) status: TrialStatus,
    pub(super) started: Duration,
    pub(super) ended: Option<Duration>,
    pub(super) best: Option<(f64, u32)>,
    pub(super) curve: Vec<EpochPoint>,
    pub(super) exploits: Vec<(Duration, TrialId)>,
}

impl TrialHistory {
    /// The Config that its best value is of.
    pub(super) fn config(&self) -> &Config {
        self.best_config.as_ref().unwrap_or(&self.config)
    }

    /// When it completed an epoch.
    fn completed(&self, epoch: u32) -> Option<Duration> {
        let found = self.curve.binary_search_by_key(&epoch, |point| point.epoch);
        found.ok().map(|index| self.curve[index].at)
    }
}

#[derive(Debug)]
pub(super) struct EpochPoint {
    pub(super) epoch: u32,
    pub(super) at: Duration,
    pub(super) values: Vec<f64>,
}

/// A partition being read by a worker.
#[derive(Debug)]
pub(super) struct Load {
    pub(super) worker: WorkerId,
    pub(super) partition: PartitionId,
    pub(super) from: Duration,
    pub(super) to: Duration,
}

/// A unit in the schedule.
#[derive(Debug)]
pub(super) struct Bar {
    pub(super) unit: Unit,
    pub(super) worker: WorkerId,
    pub(super) lane: usize,
    pub(super) from: Duration,
    pub(super) to: Duration,
    /// The part of it that the model computed.
    pub(super) computed: Duration,
    pub(super) hopped: bool,
    pub(super) end: BarEnd,
}

/// What became of a unit in the schedule; the page knows them by these numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BarEnd {
    Completed = 0,
    Failed = 1,
    Lost = 2,
    /// It still runs, or nobody waited for its end.
    Open = 3,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    lane: usize,
    from: Duration,
    hopped: bool,
}

impl Default for History {
    fn default() -> Self {
        Self {
            id: None,
            name: String::new(),
            seed: Seed(0),
            objective: Objective { metric: String::new(), direction: Direction::Minimize },
            epochs: 0,
            partitions: Vec::new(),
            workers: BTreeMap::new(),
            trials: BTreeMap::new(),
            metrics: Vec::new(),
            loads: Vec::new(),
            bars: Vec::new(),
            bars_left_out: 0,
            summary: Summary::default(),
            finished: false,
            started: None,
            latest_start: Duration::ZERO,
            now: Duration::ZERO,
            resumed: Vec::new(),
            unseen_epochs: 0,
            offset: Duration::ZERO,
            earlier: BTreeMap::new(),
            loading: Vec::new(),
            open: HashMap::new(),
            asked: Start::Latest,
        }
    }
}

impl History {
    pub(super) fn observe(&mut self, at: Duration, event: &Event) {
        match event {
            // The first loads of a process come before it has said what it starts.
            Event::PartitionLoaded { worker, partition, took, .. } => {
                let from = at.saturating_sub(*took);
                self.loading.push(Load { worker: *worker, partition: *partition, from, to: at });
                return;
            }
            Event::ExperimentStarted { id, .. } if self.started.is_some() => {
                self.start_again(id.as_deref());
            }
            _ => {}
        }
        let offset = self.offset;
        let at = at + offset;
        let shifted = |load: Load| Load { from: load.from + offset, to: load.to + offset, ..load };
        self.loads.extend(self.loading.drain(..).map(shifted));
        self.now = self.now.max(at);
        if !self.finished {
            self.summary.wall = self.now.saturating_sub(self.latest_start);
        }
        match event {
            Event::ExperimentStarted {
                id,
                name,
                seed,
                objective,
                epochs,
                workers,
                partitions,
                ..
            } => {
                self.id.clone_from(id);
                self.name.clone_from(name);
                self.seed = *seed;
                self.objective = objective.clone();
                self.epochs = *epochs;
                self.partitions.clone_from(partitions);
                self.started.get_or_insert(at);
                self.latest_start = at;
                self.summary.loading = at.saturating_sub(offset);
                for worker in workers {
                    self.joined(at, worker);
                }
            }
            Event::WorkerJoined { worker } => self.joined(at, worker),
            Event::WorkerLost { worker, reason, .. } => self.lost(at, *worker, reason),
            Event::UnitStarted { unit, worker, hop_from, .. } => {
                let lanes = self.workers.get_mut(worker).map(|worker| &mut worker.lanes);
                let lane = lanes.map_or(0, take_lane);
                let hopped = hop_from.is_some();
                self.summary.hops += u64::from(hopped);
                self.open.insert((*unit, *worker), Open { lane, from: at, hopped });
            }
            Event::UnitCompleted { unit, worker, report, .. } => {
                match unit.split {
                    Split::Train => {
                        self.summary.training += report.computed;
                        self.summary.train_units += 1;
                    }
                    Split::Validation => {
                        self.summary.validating += report.computed;
                        self.summary.validation_units += 1;
                    }
                }
                if let Some(worker) = self.workers.get_mut(worker) {
                    worker.computed += report.computed;
                }
                self.close(at, *unit, *worker, report.computed, BarEnd::Completed);
            }
            Event::UnitFailed { unit, worker, retry, .. } => {
                self.summary.retried_units += u64::from(*retry);
                self.close(at, *unit, *worker, Duration::ZERO, BarEnd::Failed);
            }
            Event::UnitRepeated { .. } => self.summary.repeated_units += 1,
            Event::TrialStarted { trial, config, parent, .. } => {
                let history = TrialHistory {
                    config: config.clone(),
                    best_config: None,
                    parent: *parent,
                    cold: parent.is_some() && self.asked == Start::Cold,
                    status: TrialStatus::Running,
                    started: at,
                    ended: None,
                    best: None,
                    curve: Vec::new(),
                    exploits: Vec::new(),
                };
                self.trials.insert(*trial, history);
            }
            Event::EpochCompleted { trial, epoch, train, validation, value, .. } => {
                self.epoch(at, *trial, *epoch, [train, validation], *value);
            }
            Event::TrialExploited { trial, source, config } => {
                if let Some(trial) = self.trials.get_mut(trial) {
                    trial.exploits.push((at, *source));
                    let before = std::mem::replace(&mut trial.config, config.clone());
                    if trial.best.is_some() {
                        trial.best_config.get_or_insert(before);
                    }
                }
            }
            Event::TrialStatus { trial, status } => self.status(at, *trial, status),
            Event::ExperimentEnded { summary } => {
                self.close_all(at);
                self.summary = summary.clone();
                self.finished = true;
            }
            Event::ExperimentResumed { trials, .. } => {
                self.resumed.push(at);
                for trial in trials {
                    self.taken_up(at, trial);
                }
            }
            Event::UnitSuperseded { unit, worker } => {
                self.close(at, *unit, *worker, Duration::ZERO, BarEnd::Open);
            }
            Event::PartitionLoaded { .. }
            | Event::WorkerDraining { .. }
            | Event::WorkerSlow { .. }
            | Event::FewTrials { .. }
            | Event::AwaitingResume { .. }
            | Event::UnitProgress { .. }
            | Event::StoreFailing { .. }
            | Event::StoreRecovered
            | Event::StoreBound { .. }
            | Event::WallTimeOver { .. } => {}
            Event::Commanded { command } => {
                if let Command::CloneTrial { start, .. } = command {
                    self.asked = *start;
                }
            }
            Event::PlanChanged { epochs, .. } => self.epochs = *epochs,
        }
    }

    /// Another process starts: it goes on with this experiment where the last one left it, or else with
    /// one of which nothing is known yet.
    fn start_again(&mut self, id: Option<&str>) {
        if id.is_none() || self.id.as_deref() != id {
            let loading = std::mem::take(&mut self.loading);
            *self = Self { loading, ..Self::default() };
            return;
        }
        self.close_all(self.now);
        // Those that are there no more have no slots.
        self.workers.values_mut().for_each(|worker| worker.info.slots = 0);
        self.offset = self.now;
        self.earlier = std::mem::take(&mut self.trials);
        self.summary = Summary::default();
        self.finished = false;
    }

    /// A trial of an earlier process. What it did before is shown as of then, where that is known, and
    /// otherwise as of now.
    fn taken_up(&mut self, at: Duration, record: &TrialRecord) {
        let earlier = self.earlier.remove(&record.id);
        let earlier = earlier.as_ref();
        let warm = record.inherited.iter().any(|inherited| inherited.epoch == 0);
        let later = record.inherited.iter().filter(|inherited| inherited.epoch > 0);
        let history = TrialHistory {
            config: Config::clone(&record.config),
            best_config: None,
            parent: record.parent,
            cold: record.parent.is_some() && !warm,
            status: TrialStatus::Running,
            started: earlier.map_or(at, |earlier| earlier.started),
            ended: None,
            best: None,
            curve: Vec::new(),
            // A clone's first State is its parent's, which is shown as such.
            exploits: later
                .enumerate()
                .map(|(index, inherited)| {
                    let seen = earlier.and_then(|earlier| earlier.exploits.get(index));
                    (seen.map_or(at, |(at, _)| *at), inherited.source)
                })
                .collect(),
        };
        self.trials.insert(record.id, history);
        for EpochRecord { epoch, train, validation, value, .. } in &record.history {
            let seen = earlier.and_then(|earlier| earlier.completed(*epoch));
            self.unseen_epochs += u64::from(seen.is_none());
            self.epoch(seen.unwrap_or(at), record.id, *epoch, [train, validation], *value);
        }
        if let Some(trial) = self.trials.get_mut(&record.id)
            && record.best_config() != &record.config
        {
            trial.best_config = Some(Config::clone(record.best_config()));
        }
        let ended = earlier.and_then(|earlier| earlier.ended);
        self.status(ended.unwrap_or(at), record.id, &record.status);
    }

    fn joined(&mut self, at: Duration, info: &WorkerInfo) {
        if let Some(worker) = self.workers.get_mut(&info.id) {
            worker.info = info.clone();
            if let Some(absence) = worker.absences.last_mut() {
                absence.to.get_or_insert(at);
            }
        } else {
            let worker = WorkerHistory {
                info: info.clone(),
                absences: Vec::new(),
                computed: Duration::ZERO,
                lanes: Vec::new(),
            };
            self.workers.insert(info.id, worker);
        }
        self.summary.slots = self.workers.values().map(|worker| worker.info.slots).sum();
    }

    fn lost(&mut self, at: Duration, id: WorkerId, reason: &str) {
        self.summary.lost_workers += 1;
        let units: Vec<Unit> =
            self.open.keys().filter(|(_, worker)| *worker == id).map(|(unit, _)| *unit).collect();
        for unit in units {
            self.close(at, unit, id, Duration::ZERO, BarEnd::Lost);
        }
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.absences.push(Absence { from: at, to: None, reason: reason.to_owned() });
        }
    }

    /// Nobody waits for the ends of units that run.
    fn close_all(&mut self, at: Duration) {
        for (unit, worker) in self.open.keys().copied().collect::<Vec<_>>() {
            self.close(at, unit, worker, Duration::ZERO, BarEnd::Open);
        }
    }

    fn close(
        &mut self,
        at: Duration,
        unit: Unit,
        worker: WorkerId,
        computed: Duration,
        end: BarEnd,
    ) {
        let Some(Open { lane, from, hopped }) = self.open.remove(&(unit, worker)) else { return };
        if let Some(worker) = self.workers.get_mut(&worker)
            && let Some(taken) = worker.lanes.get_mut(lane)
        {
            *taken = false;
        }
        if self.bars.len() < MOST_BARS {
            self.bars.push(Bar { unit, worker, lane, from, to: at, computed, hopped, end });
        } else {
            self.bars_left_out += 1;
        }
    }

    fn epoch(
        &mut self,
        at: Duration,
        id: TrialId,
        epoch: u32,
        [train, validation]: [&Metrics; 2],
        value: f64,
    ) {
        let mut values = vec![f64::NAN; self.metrics.len()];
        for (split, metrics) in [(Split::Train, train), (Split::Validation, validation)] {
            for (name, value) in metrics.values() {
                let known = |(s, n): &(Split, String)| *s == split && n == name;
                if let Some(column) = self.metrics.iter().position(known) {
                    values[column] = value;
                } else {
                    self.metrics.push((split, name.to_owned()));
                    values.push(value);
                }
            }
        }
        let Some(trial) = self.trials.get_mut(&id) else { return };
        let better = |best: f64| self.objective.best_first(value, best).is_lt();
        if trial.best.map_or(value.is_finite(), |(best, _)| better(best)) {
            trial.best = Some((value, epoch));
            trial.best_config = None;
        }
        if value.is_finite() && self.summary.best.is_none_or(|(_, best, _)| better(best)) {
            self.summary.best = Some((id, value, epoch));
        }
        trial.curve.push(EpochPoint { epoch, at, values });
    }

    fn status(&mut self, at: Duration, id: TrialId, status: &TrialStatus) {
        let Some(trial) = self.trials.get_mut(&id) else { return };
        // One that had completed goes on when epochs are added, and completes again.
        if trial.status == TrialStatus::Completed {
            self.summary.completed -= 1;
        }
        trial.status = status.clone();
        trial.ended = status.is_final().then_some(at);
        match status {
            TrialStatus::Completed => self.summary.completed += 1,
            TrialStatus::Stopped => self.summary.stopped += 1,
            TrialStatus::Failed { .. } => self.summary.failed += 1,
            TrialStatus::Running | TrialStatus::Paused => {}
        }
    }
}

/// The first lane that is free, now taken.
fn take_lane(lanes: &mut Vec<bool>) -> usize {
    if let Some(free) = lanes.iter().position(|taken| !taken) {
        lanes[free] = true;
        return free;
    }
    lanes.push(true);
    lanes.len() - 1
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::observe::TimedEvent;
    use crate::observe::synthetic::Synthetic;

    fn history(until: usize) -> History {
        let mut history = History::default();
        for TimedEvent { at, event } in Synthetic::default().events().iter().take(until) {
            history.observe(*at, event);
        }
        history
    }

    #[test]
    fn units_of_a_lane_never_overlap_and_no_worker_has_more_lanes_than_slots() {
        let history = history(usize::MAX);
        let mut ends: BTreeMap<(WorkerId, usize), Duration> = BTreeMap::new();
        let mut bars: Vec<&Bar> = history.bars.iter().collect();
        bars.sort_by_key(|bar| bar.from);
        for bar in bars {
            let end = ends.insert((bar.worker, bar.lane), bar.to).unwrap_or_default();
            assert!(bar.from >= end, "{bar:?} begins before {end:?}");
            assert!(bar.lane < history.workers[&bar.worker].info.slots, "{bar:?}");
        }
        assert_eq!(ends.len(), 4);
        let computed: Duration = history.workers.values().map(|worker| worker.computed).sum();
        assert_eq!(computed, history.summary.training + history.summary.validating);
    }

    #[test]
    fn what_was_before_an_experiment_was_resumed_is_shown_as_of_then_if_it_is_known() {
        let mut events = Synthetic::default().events();
        let start = |timed: &TimedEvent| matches!(timed.event, Event::ExperimentStarted { .. });
        let start = events.iter().position(start).unwrap();
        let at = events[start].at;
        let mut epochs = 0;
        let killed = events.iter().position(|timed| {
            epochs += u64::from(matches!(timed.event, Event::EpochCompleted { .. }));
            epochs == 9
        });
        let mut history = history(killed.unwrap() + 1);
        let (left, open) = (history.now, history.open.len());
        let (bars, loads) = (history.bars.len(), history.loads.len());
        assert!(open > 0, "units run");
        let times = |history: &History| -> Vec<Vec<Duration>> {
            let times = |trial: &TrialHistory| trial.curve.iter().map(|point| point.at).collect();
            history.trials.values().map(times).collect()
        };
        let before = times(&history);
        let record = |(id, trial): (&TrialId, &TrialHistory)| TrialRecord {
            id: *id,
            config: Arc::new(trial.config.clone()),
            seed: Seed(1),
            status: trial.status.clone(),
            history: (1..=trial.curve.len() as u32)
                .map(|epoch| EpochRecord {
                    epoch,
                    train: Metrics::new(),
                    validation: Metrics::new(),
                    value: 0.5,
                    version: u64::from(epoch),
                    visit_order: Vec::new(),
                })
                .collect(),
            best: None,
            parent: trial.parent,
            inherited: Vec::new(),
        };
        let trials: Vec<TrialRecord> = history.trials.iter().map(record).collect();
        let mut resume = |history: &mut History, id: &str| {
            if let Event::ExperimentStarted { id: of, .. } = &mut events[start].event {
                *of = Some(id.to_owned());
            }
            for TimedEvent { at, event } in &events[..=start] {
                history.observe(*at, event);
            }
            let (trials, warnings) = (trials.clone(), Vec::new());
            history.observe(at, &Event::ExperimentResumed { trials, warnings });
        };

        resume(&mut history, "5eed");
        assert_eq!((history.resumed.clone(), history.unseen_epochs), (vec![left + at], 0));
        assert_eq!(times(&history), before);
        assert_eq!((history.bars.len(), history.loads.len()), (bars + open, 2 * loads));
        assert_eq!((history.summary.train_units, history.summary.wall), (0, Duration::ZERO));
        assert!(
            history.loads[loads..].iter().all(|load| load.from >= left && load.to <= left + at)
        );

        // Nothing is known of another experiment, or of this one if its events are gone.
        for unknown in [&mut history, &mut History::default()] {
            resume(unknown, "another");
            assert_eq!((unknown.resumed.clone(), unknown.unseen_epochs), (vec![at], epochs));
            assert!(times(unknown).iter().flatten().all(|seen| *seen == at));
            assert_eq!((unknown.bars.len(), unknown.loads.len()), (0, loads));
        }
    }

    #[test]
    fn a_completed_trial_that_goes_on_after_more_epochs_has_one_curve_and_counts_once() {
        let mut history = history(usize::MAX);
        let completed = history.summary.completed;
        let of = |history: &History| {
            let is_completed = |(_, trial): &(&TrialId, &TrialHistory)| {
                trial.status == TrialStatus::Completed && !trial.curve.is_empty()
            };
            *history.trials.iter().find(is_completed).unwrap().0
        };
        let trial = of(&history);
        let epochs = history.trials[&trial].curve.len() as u32;
        let last = history.now;
        let tell = |history: &mut History, seconds: u64, event: Event| {
            history.observe(last + Duration::from_secs(seconds), &event);
        };
        tell(&mut history, 1, Event::TrialStatus { trial, status: TrialStatus::Running });
        assert_eq!(
            (history.summary.completed, history.trials[&trial].ended),
            (completed - 1, None)
        );
        let plan = Event::PlanChanged { epochs: epochs + 1, trials: None, planned_epochs: None };
        tell(&mut history, 1, plan);
        let event = Event::EpochCompleted {
            trial,
            epoch: epochs + 1,
            train: Metrics::new(),
            validation: Metrics::new(),
            value: 2.0,
            visit_order: Vec::new(),
        };
        tell(&mut history, 2, event);
        tell(&mut history, 2, Event::TrialStatus { trial, status: TrialStatus::Completed });
        let shown = &history.trials[&trial];
        let numbers: Vec<u32> = shown.curve.iter().map(|point| point.epoch).collect();
        assert_eq!(numbers, (1..=epochs + 1).collect::<Vec<_>>());
        assert_eq!(shown.best, Some((2.0, epochs + 1)));
        assert_eq!(shown.ended, Some(last + Duration::from_secs(2)));
        assert_eq!((history.summary.completed, history.epochs), (completed, epochs + 1));
    }

    #[test]
    fn the_config_that_is_shown_is_that_of_the_best_epoch() {
        let mut history = history(usize::MAX);
        let (trial, source) = (TrialId(0), TrialId(1));
        let before = history.trials[&trial].config().clone();
        let config = before.clone().with("learning_rate", 0.5);
        let mut observe = |event| {
            history.observe(Duration::from_secs(100), &event);
            history.trials[&trial].config().clone()
        };
        let exploited = Event::TrialExploited { trial, source, config: config.clone() };
        assert_eq!(observe(exploited), before, "of which the best value is");
        let epoch = |value| Event::EpochCompleted {
            trial,
            epoch: 99,
            train: Metrics::new(),
            validation: Metrics::new(),
            value,
            visit_order: Vec::new(),
        };
        assert_eq!(observe(epoch(-1.0)), before);
        assert_eq!(observe(epoch(2.0)), config);
    }

    #[test]
    fn a_lost_worker_is_away_until_it_joins_again_and_its_unit_is_lost() {
        let history = history(usize::MAX);
        let away = &history.workers[&WorkerId(1)].absences;
        assert_eq!(away.len(), 1);
        assert!(away[0].to.is_some_and(|to| to > away[0].from));
        let lost: Vec<&Bar> = history.bars.iter().filter(|bar| bar.end == BarEnd::Lost).collect();
        assert_eq!(lost.len(), 1);
        assert_eq!((lost[0].worker, lost[0].to), (WorkerId(1), away[0].from));
    }

    #[test]
    fn figures_on_the_way_agree_with_those_of_the_driver_at_the_end() {
        let events = Synthetic::default().events();
        let before = history(events.len() - 1);
        let Event::ExperimentEnded { summary } = &events[events.len() - 1].event else {
            panic!("the last event is the end");
        };
        assert!(!before.finished);
        let (a, b) = (&before.summary, summary);
        assert_eq!((a.completed, a.stopped, a.failed), (b.completed, b.stopped, b.failed));
        assert_eq!((a.train_units, a.validation_units), (b.train_units, b.validation_units));
        assert_eq!((a.hops, a.retried_units, a.slots), (b.hops, b.retried_units, b.slots));
        assert_eq!((a.lost_workers, a.repeated_units), (b.lost_workers, b.repeated_units));
        assert_eq!(a.best, b.best);
        assert!((a.utilisation() - b.utilisation()).abs() < 1e-3);
    }
}
