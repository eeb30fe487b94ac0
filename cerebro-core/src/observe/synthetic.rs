//! An experiment as events, made up for the tests of observers: every kind of event, metrics that
//! follow from the Configs, a trial that diverges, a unit that is tried again, a worker that is lost
//! and comes back, trials that are stopped, cloned and exploited.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Event, Summary, TimedEvent, TrialStatus};
use crate::backend::{UnitReport, WorkerInfo};
use crate::config::Config;
use crate::data::PartitionInfo;
use crate::id::{PartitionId, Split, TrialId, Unit, WorkerId};
use crate::metric::{Metrics, Objective, Statistic};
use crate::model::Device;
use crate::seed::{Seed, SeededRng};

/// The size of the experiment.
pub(super) struct Synthetic {
    pub(super) trials: u64,
    pub(super) epochs: u32,
    pub(super) workers: u32,
    pub(super) train: u32,
    pub(super) validation: u32,
}

impl Default for Synthetic {
    fn default() -> Self {
        Self { trials: 12, epochs: 6, workers: 3, train: 6, validation: 3 }
    }
}

/// Whether two events are the same, NaN being the same as NaN.
pub(super) fn same(a: &TimedEvent, b: &TimedEvent) -> bool {
    serde_json::to_string(a).unwrap() == serde_json::to_string(b).unwrap()
}

impl Synthetic {
    pub(super) fn events(self) -> Vec<TimedEvent> {
        let mut simulation = Simulation::new(self);
        simulation.load();
        simulation.run();
        simulation.end();
        simulation.events
    }
}

/// A trial under way.
struct Trial {
    id: TrialId,
    config: Config,
    epoch: u32,
    open: Vec<(PartitionId, Split)>,
    trains: bool,
    running: usize,
    visit_order: Vec<PartitionId>,
    ended: bool,
}

/// A unit under way.
struct Running {
    unit: Unit,
    worker: WorkerId,
    started: f64,
    ends: f64,
}

struct Simulation {
    size: Synthetic,
    rng: SeededRng,
    now: f64,
    events: Vec<TimedEvent>,
    trials: Vec<Trial>,
    last_on: BTreeMap<TrialId, WorkerId>,
    running: Vec<Running>,
    absent: Option<WorkerId>,
    lost_once: bool,
    retried_once: bool,
    summary: Summary,
}

const ROWS: u64 = 12_000;
const LOADING: f64 = 0.8;

impl Simulation {
    fn new(size: Synthetic) -> Self {
        let summary = Summary {
            loading: Duration::from_secs_f64(LOADING),
            slots: size.workers as usize + 1,
            warnings: vec!["an observer gave up: no space left on device".to_owned()],
            ..Summary::default()
        };
        Self {
            size,
            rng: Seed(7).rng(),
            now: 0.0,
            events: Vec::new(),
            trials: Vec::new(),
            last_on: BTreeMap::new(),
            running: Vec::new(),
            absent: None,
            lost_once: false,
            retried_once: false,
            summary,
        }
    }

    fn tell(&mut self, event: Event) {
        let at = Duration::from_secs_f64(self.now);
        self.events.push(TimedEvent { at, event });
    }

    fn worker(&self, number: u32) -> WorkerInfo {
        let all = self.size.train + self.size.validation;
        WorkerInfo {
            id: WorkerId(number),
            name: format!("host-{number}"),
            slots: if number == 0 { 2 } else { 1 },
            device: if number == 0 { Device::Cuda(0) } else { Device::Cpu },
            partitions: (0..all)
                .filter(|p| p % self.size.workers == number)
                .map(PartitionId)
                .collect(),
        }
    }

    fn load(&mut self) {
        let all = self.size.train + self.size.validation;
        let mut partitions = Vec::new();
        for number in 0..all {
            let id = PartitionId(number);
            let split = if number < self.size.train { Split::Train } else { Split::Validation };
            partitions.push(PartitionInfo { id, split, rows: ROWS, bytes: ROWS * 400 });
            self.now = LOADING * f64::from(number + 1) / f64::from(all);
            let took = Duration::from_secs_f64(0.6 * LOADING / f64::from(all));
            let worker = WorkerId(number % self.size.workers);
            let (partition, rows, bytes) = (id, ROWS, ROWS * 400);
            self.tell(Event::PartitionLoaded { worker, partition, rows, bytes, took });
        }
        let workers = (0..self.size.workers).map(|number| self.worker(number)).collect();
        self.tell(Event::ExperimentStarted {
            id: Some("5eed".to_owned()),
            name: "digits <of> & \"hands\"".to_owned(),
            seed: Seed(7),
            objective: Objective::maximize("accuracy"),
            epochs: self.size.epochs,
            trials: Some(self.size.trials),
            planned_epochs: None,
            workers,
            partitions,
        });
        for number in 0..self.size.trials {
            let id = TrialId(number);
            let rate = 10f64.powf(-4.0 + 4.0 * self.rng.unit());
            let width = [32, 64, 128, 256][self.rng.below(4) as usize];
            let optimizer = ["sgd", "adam", "adamw"][self.rng.below(3) as usize];
            let mut config = Config::new()
                .with("learning_rate", rate)
                .with("batch_size", [16, 32, 64, 128][self.rng.below(4) as usize])
                .with("hidden", [width, width / 2])
                .with("optimizer", optimizer);
            if optimizer != "sgd" {
                config.set("weight_decay", 10f64.powf(-6.0 + 4.0 * self.rng.unit()));
            }
            let parent = (number + 1 == self.size.trials && number > 0).then_some(TrialId(0));
            self.tell(Event::TrialStarted {
                trial: id,
                config: config.clone(),
                seed: Seed(number),
                parent,
            });
            let mut trial = Trial {
                id,
                config,
                epoch: 0,
                open: Vec::new(),
                trains: true,
                running: 0,
                visit_order: Vec::new(),
                ended: false,
            };
            trial.open = self.partitions(Split::Train);
            self.trials.push(trial);
        }
    }

    fn partitions(&self, split: Split) -> Vec<(PartitionId, Split)> {
        let (train, all) = (self.size.train, self.size.train + self.size.validation);
        let range = match split {
            Split::Train => 0..train,
            Split::Validation => train..all,
        };
        range.map(|number| (PartitionId(number), split)).collect()
    }

    fn run(&mut self) {
        loop {
            self.assign();
            let Some(next) = (0..self.running.len())
                .min_by(|&a, &b| self.running[a].ends.total_cmp(&self.running[b].ends))
            else {
                if self.absent.is_some() {
                    self.rejoin();
                    continue;
                }
                return;
            };
            let running = self.running.swap_remove(next);
            self.now = running.ends;
            self.unit_ended(&running);
            let done = self.summary.train_units;
            let all = u64::from(self.size.epochs * self.size.train) * self.size.trials;
            if !self.lost_once && done * 4 > all && self.size.workers > 1 {
                self.lose(WorkerId(1));
            } else if self.absent.is_some() && done * 3 > all {
                self.rejoin();
            }
        }
    }

    fn assign(&mut self) {
        for number in 0..self.size.workers {
            let worker = self.worker(number);
            if self.absent == Some(worker.id) {
                continue;
            }
            while self.running.iter().filter(|unit| unit.worker == worker.id).count() < worker.slots
            {
                let Some((index, place)) = self.choose(&worker) else { break };
                let (partition, split) = self.trials[index].open.swap_remove(place);
                let trial = &mut self.trials[index];
                trial.running += 1;
                let unit = Unit { trial: trial.id, epoch: trial.epoch, split, partition };
                let from = self.last_on.insert(unit.trial, worker.id);
                let hop_from = from.filter(|&from| from != worker.id);
                if hop_from.is_some() {
                    self.summary.hops += 1;
                    self.summary.hop_bytes += 180_000;
                }
                if self.absent.is_some() && self.summary.repeated_units == 0 {
                    self.summary.repeated_units += 1;
                    self.tell(Event::UnitRepeated { unit, worker: worker.id });
                }
                self.tell(Event::UnitStarted { unit, worker: worker.id, rows: ROWS, hop_from });
                let cost = if split == Split::Train { 0.42 } else { 0.12 };
                let ends = self.now + cost * (0.8 + 0.4 * self.rng.unit());
                self.running.push(Running { unit, worker: worker.id, started: self.now, ends });
            }
        }
    }

    /// The trial that is furthest behind among those that this worker can serve.
    fn choose(&self, worker: &WorkerInfo) -> Option<(usize, usize)> {
        let mut best: Option<(usize, usize, usize)> = None;
        for (index, trial) in self.trials.iter().enumerate() {
            if trial.ended || (trial.trains && trial.running > 0) {
                continue;
            }
            let here =
                |&(partition, _): &(PartitionId, Split)| worker.partitions.contains(&partition);
            let Some(place) = trial.open.iter().position(here) else { continue };
            let left = (self.size.epochs - trial.epoch) as usize * 100 + trial.open.len();
            if best.is_none_or(|(most, ..)| left > most) {
                best = Some((left, index, place));
            }
        }
        best.map(|(_, index, place)| (index, place))
    }

    fn unit_ended(&mut self, &Running { unit, worker, started, ends }: &Running) {
        let index = unit.trial.0 as usize;
        let begun = Duration::from_secs_f64(started);
        self.trials[index].running -= 1;
        if index == 1 && unit.epoch == 1 && unit.split == Split::Train {
            let error = "the loss became NaN; a smaller learning rate may help".to_owned();
            self.tell(Event::UnitFailed {
                unit,
                worker,
                started: begun,
                error: error.clone(),
                retry: false,
            });
            return self.end_trial(index, TrialStatus::Failed { reason: error });
        }
        if !self.retried_once && index == 2 {
            self.retried_once = true;
            self.summary.retried_units += 1;
            self.trials[index].open.push((unit.partition, unit.split));
            let error = "the model panicked: index out of bounds".to_owned();
            return self.tell(Event::UnitFailed {
                unit,
                worker,
                started: begun,
                error,
                retry: true,
            });
        }
        self.tell(Event::UnitProgress { unit, worker, rows: ROWS / 2 });
        let occupied = Duration::from_secs_f64(ends - started);
        let computed = occupied.mul_f64(0.98);
        let metrics = self.metrics(index, unit.split);
        let report = UnitReport {
            metrics,
            rows: ROWS,
            version: u64::from(unit.epoch + 1),
            state_bytes: 180_000,
            occupied,
            computed,
        };
        match unit.split {
            Split::Train => {
                self.summary.train_units += 1;
                self.summary.training += computed;
                self.trials[index].visit_order.push(unit.partition);
            }
            Split::Validation => {
                self.summary.validation_units += 1;
                self.summary.validating += computed;
            }
        }
        self.tell(Event::UnitCompleted { unit, worker, started: begun, report });
        let trial = &self.trials[index];
        if !trial.ended && trial.open.is_empty() && trial.running == 0 {
            if trial.trains {
                self.trials[index].trains = false;
                self.trials[index].open = self.partitions(Split::Validation);
            } else {
                self.epoch_completed(index);
            }
        }
    }

    fn metrics(&mut self, index: usize, split: Split) -> Metrics {
        let trial = &self.trials[index];
        let rate = trial.config.float("learning_rate").unwrap();
        let width = trial.config.sizes("hidden").unwrap()[0] as f64;
        let off = (rate.log10() + 2.2) / 1.6;
        let limit = 0.985 - 0.25 * off * off - 0.4 / width;
        let speed = 0.5 + 0.5 * (-off * off).exp();
        let learnt = 1.0 - 0.9 * (-speed * f64::from(trial.epoch + 1)).exp();
        let gap = if split == Split::Train { 0.01 } else { 0.0 };
        let noise = 0.002 * self.rng.normal();
        let accuracy = (limit * learnt + gap + noise).clamp(0.05, 0.999);
        let loss = if index == 3 && self.trials[index].epoch == 0 {
            f64::INFINITY
        } else {
            2.3 * (1.0 - accuracy) + 0.01
        };
        let rows = ROWS as usize;
        let mut metrics = Metrics::new();
        metrics.record("accuracy", Statistic::mean(accuracy, rows));
        metrics.record("loss", Statistic::mean(loss, rows));
        metrics
    }

    fn epoch_completed(&mut self, index: usize) {
        let (train, validation) =
            (self.metrics(index, Split::Train), self.metrics(index, Split::Validation));
        let value = if index == 3 && self.trials[index].epoch == 0 {
            f64::NAN
        } else {
            validation.value("accuracy").unwrap()
        };
        let trial = &mut self.trials[index];
        trial.epoch += 1;
        trial.trains = true;
        let (id, epoch) = (trial.id, trial.epoch);
        let visit_order = std::mem::take(&mut trial.visit_order);
        if self.summary.best.is_none_or(|(_, best, _)| value > best) {
            self.summary.best = Some((id, value, epoch));
        }
        self.tell(Event::EpochCompleted {
            trial: id,
            epoch,
            train,
            validation,
            value,
            visit_order,
        });
        if epoch == self.size.epochs {
            self.end_trial(index, TrialStatus::Completed);
        } else if index % 3 == 2 && epoch * 2 > self.size.epochs && index > 2 {
            self.end_trial(index, TrialStatus::Stopped);
        } else {
            self.trials[index].open = self.partitions(Split::Train);
            let best = self.summary.best.map(|(best, ..)| best).filter(|&best| best != id);
            if let Some(source) = best
                && index % 4 == 1
                && epoch * 2 == self.size.epochs
            {
                self.tell(Event::TrialStatus { trial: id, status: TrialStatus::Paused });
                let rate = self.trials[source.0 as usize].config.float("learning_rate").unwrap();
                self.trials[index].config.set("learning_rate", rate * 1.2);
                let config = self.trials[index].config.clone();
                self.tell(Event::TrialExploited { trial: id, source, config });
                self.tell(Event::TrialStatus { trial: id, status: TrialStatus::Running });
            }
        }
    }

    fn end_trial(&mut self, index: usize, status: TrialStatus) {
        self.trials[index].ended = true;
        match status {
            TrialStatus::Completed => self.summary.completed += 1,
            TrialStatus::Failed { .. } => self.summary.failed += 1,
            _ => self.summary.stopped += 1,
        }
        let trial = self.trials[index].id;
        self.tell(Event::TrialStatus { trial, status });
    }

    fn lose(&mut self, worker: WorkerId) {
        self.lost_once = true;
        self.absent = Some(worker);
        self.now += 0.05;
        let units: Vec<Unit> = self
            .running
            .iter()
            .filter(|unit| unit.worker == worker)
            .map(|unit| unit.unit)
            .collect();
        self.running.retain(|unit| unit.worker != worker);
        for unit in &units {
            let trial = &mut self.trials[unit.trial.0 as usize];
            trial.running -= 1;
            trial.open.push((unit.partition, unit.split));
        }
        self.summary.lost_workers += 1;
        self.tell(Event::WorkerLost {
            worker,
            reason: "connection reset by peer".to_owned(),
            units,
        });
    }

    fn rejoin(&mut self) {
        if let Some(worker) = self.absent.take() {
            let worker = self.worker(worker.0);
            self.tell(Event::WorkerJoined { worker });
        }
    }

    fn end(&mut self) {
        self.tell(Event::WorkerDraining { worker: WorkerId(0) });
        self.summary.wall = Duration::from_secs_f64(self.now - LOADING);
        let summary = self.summary.clone();
        self.tell(Event::ExperimentEnded { summary });
    }
}
