//! The state machine: trials, workers and units by name, over the [`Board`] of dense numbers.

use std::collections::HashMap;
use std::time::Duration;

use super::board::Board;
use super::bound::Bound;
use super::cost::Costs;
use super::dispatch::Dispatcher;
use super::error::ScheduleError;
use super::job::{Done, NONE, Orders, Phase};
use super::layout::Layout;
use super::lookahead::Lookahead;
use super::order::OrderLog;
use super::policy::Policy;
use super::prefetch::Guesses;
use super::report::Stall;
use super::ring::Ring;
use super::spec::{PartitionSpec, TrialSpec, WorkerSpec};
use super::speculation::{Double, Other};
use super::underway::Underway;
use crate::id::{PartitionId, Split, TrialId, Unit, WorkerId};
use crate::seed::{Seed, SeededRng};

/// The MOP scheduler: a state machine without clock, I/O or threads.
///
/// It is told what happens and answers what is to start. The same calls in the same order give the
/// same answers. See the [module](super) for an example and for how it chooses.
#[derive(Debug)]
pub struct Scheduler {
    pub(super) policy: Policy,
    pub(super) rng: SeededRng,
    /// Training partitions first, then validation; each group in the order of the data set.
    pub(super) partitions: Vec<PartitionSpec>,
    pub(super) partition_numbers: HashMap<PartitionId, u32>,
    pub(super) workers: Vec<Worker>,
    pub(super) worker_numbers: HashMap<WorkerId, usize>,
    pub(super) trials: Vec<Trial>,
    pub(super) trial_numbers: HashMap<TrialId, usize>,
    pub(super) board: Board,
    pub(super) costs: Costs,
    /// The scales on which the rates of unmeasured trials rest at present.
    pub(super) scales: (f64, f64),
    pub(super) dispatcher: Dispatcher,
    pub(super) lookahead: Lookahead,
    pub(super) guesses: Guesses,
    /// A unit that takes so many times as long as expected runs twice.
    pub(super) speculation: Option<f64>,
    /// The units that do.
    pub(super) doubles: Vec<Double>,
    /// Whether, since stragglers were asked for, a worker may have become one.
    pub(super) may_straggle: bool,
    /// The least slowness that any worker ever had.
    pub(super) fastest: f64,
    pub(super) running: usize,
    /// Units that were measured since the board took in a change of speed.
    pub(super) units_since_change: usize,
    pub(super) now: Duration,
}

#[derive(Clone, Debug)]
pub(super) struct Worker {
    pub(super) id: WorkerId,
    pub(super) slots: usize,
    pub(super) running: Vec<Attempt>,
    /// Whether it was said to be slow.
    pub(super) straggles: bool,
}

/// A unit that runs on a worker.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt {
    pub(super) unit: Unit,
    pub(super) trial: usize,
    pub(super) partition: usize,
    pub(super) started: Duration,
    pub(super) underway: Underway,
}

/// What is known of a trial beside its place on the board.
#[derive(Clone, Debug)]
pub(super) struct Trial {
    pub(super) id: TrialId,
    pub(super) stopped: bool,
    /// The current epoch, or, when resting, the next one.
    pub(super) epoch: u32,
    /// The epochs that were asked for in all.
    pub(super) epochs: u32,
    pub(super) order: OrderLog,
    /// The order that the current epoch must follow, if the policy fixes one.
    pub(super) plan: Vec<u32>,
    /// Partitions on which units of the current epoch failed, once per failure.
    pub(super) failures: Vec<u32>,
}

impl Scheduler {
    /// A scheduler without workers and trials over the partitions of a data set.
    ///
    /// `seed` is the experiment's: it settles what is left to chance.
    pub fn new(
        policy: Policy,
        seed: Seed,
        partitions: &[PartitionSpec],
    ) -> Result<Self, ScheduleError> {
        let of = |split| partitions.iter().copied().filter(move |spec| spec.split == split);
        let dense: Vec<PartitionSpec> = of(Split::Train).chain(of(Split::Validation)).collect();
        let training = of(Split::Train).count();
        if training == 0 {
            return Err(ScheduleError::NoTrainingPartitions);
        }
        let mut partition_numbers = HashMap::with_capacity(dense.len());
        for (number, spec) in dense.iter().enumerate() {
            if spec.rows == 0 {
                return Err(ScheduleError::EmptyPartition { partition: spec.id });
            }
            if partition_numbers.insert(spec.id, number as u32).is_some() {
                return Err(ScheduleError::DuplicatePartition { partition: spec.id });
            }
        }
        let rows = dense.iter().map(|spec| spec.rows as f64).collect();
        let orders = match policy {
            Policy::Seeded | Policy::Replay(_) => Orders::Fixed,
            Policy::Random | Policy::LongestRemainingFirst => Orders::Free,
        };
        let ring = (policy == Policy::Seeded).then(|| Ring::new(seed, training));
        Ok(Self {
            policy,
            rng: seed.derive("schedule", &[]).rng(),
            partitions: dense,
            partition_numbers,
            workers: Vec::new(),
            worker_numbers: HashMap::new(),
            trials: Vec::new(),
            trial_numbers: HashMap::new(),
            board: Board::new(Layout::new(training, rows), ring, orders),
            costs: Costs::default(),
            scales: (1.0, 1.0),
            dispatcher: Dispatcher::default(),
            lookahead: Lookahead::default(),
            guesses: Guesses::default(),
            speculation: None,
            doubles: Vec::new(),
            may_straggle: false,
            fastest: 1.0,
            running: 0,
            units_since_change: 0,
            now: Duration::ZERO,
        })
    }

    /// Takes in a worker, or the new slots and partitions of a worker that is there already.
    pub fn worker_joined(&mut self, spec: &WorkerSpec) -> Result<(), ScheduleError> {
        self.lookahead.end_rotation();
        let mut held = Vec::with_capacity(spec.partitions.len());
        for &partition in &spec.partitions {
            held.push(self.partition_number(partition, || spec.id.to_string())?);
        }
        held.sort_unstable();
        held.dedup();
        if spec.slots == 0 {
            held.clear();
        }
        let number = if let Some(&number) = self.worker_numbers.get(&spec.id) {
            number
        } else {
            self.worker_numbers.insert(spec.id, self.workers.len());
            self.costs.add_worker();
            self.board.relayout(Layout::add_worker);
            self.workers.push(Worker {
                id: spec.id,
                slots: 0,
                running: Vec::new(),
                straggles: false,
            });
            self.workers.len() - 1
        };
        self.workers[number].slots = spec.slots;
        self.board.relayout(|layout| layout.set_held(number, held));
        self.refresh_slots(number);
        Ok(())
    }

    /// Takes in that a worker is gone. Answers with the units that ran there alone; they are open
    /// again. Reports of them that come late are refused.
    pub fn worker_lost(&mut self, worker: WorkerId) -> Vec<Unit> {
        self.lookahead.end_rotation();
        let Some(number) = self.worker_numbers.remove(&worker) else {
            return Vec::new();
        };
        self.board.relayout(|layout| layout.set_held(number, Vec::new()));
        self.guesses.lost(number);
        for job in &mut self.board.jobs {
            if job.location == number as u32 {
                job.location = NONE;
            }
        }
        let attempts = std::mem::take(&mut self.workers[number].running);
        self.workers[number].slots = 0;
        self.running -= attempts.len();
        self.refresh_slots(number);
        let mut open = Vec::new();
        for attempt in attempts {
            match self.settle(attempt.unit, false) {
                Other::Running | Other::Done => {}
                Other::None if self.trials[attempt.trial].stopped => {
                    self.board.jobs[attempt.trial].running -= 1;
                }
                Other::None => {
                    self.reopen(attempt.trial, attempt.partition);
                    open.push(attempt.unit);
                }
            }
        }
        open
    }

    /// Takes in that a worker is to leave: what runs there goes on, nothing more starts.
    pub fn drain(&mut self, worker: WorkerId) {
        self.lookahead.end_rotation();
        if let Some(&number) = self.worker_numbers.get(&worker) {
            self.board.relayout(|layout| layout.set_held(number, Vec::new()));
        }
    }

    /// Takes in a trial, new or to be resumed.
    pub fn add_trial(&mut self, spec: &TrialSpec) -> Result<(), ScheduleError> {
        self.lookahead.end_rotation();
        if self.trial_numbers.contains_key(&spec.id) {
            return Err(ScheduleError::DuplicateTrial { trial: spec.id });
        }
        self.check_record(spec.id, spec.epochs)?;
        let progress = self.checked_progress(spec)?;
        let number = self.trials.len();
        let mut trial = Trial {
            id: spec.id,
            stopped: false,
            epoch: progress.epochs,
            epochs: spec.epochs,
            order: OrderLog::new(self.training()),
            plan: Vec::new(),
            failures: Vec::new(),
        };
        for &partition in progress.visited.iter().chain(&progress.trained) {
            trial.order.push(partition);
        }
        let begun = !progress.trained.is_empty();
        // An epoch that has begun is finished, and those that are done stay done.
        let wanted = spec.epochs.max(progress.epochs + u32::from(begun)) - progress.epochs;
        self.costs.add_trial(spec.cost_per_row);
        let rates =
            (self.costs.rate(number, Split::Train), self.costs.rate(number, Split::Validation));
        self.board.add_job(wanted, rates.0, rates.1, spec.id);
        for &partition in progress.trained.iter().chain(&progress.validated) {
            if self.board.restore(number, partition as usize) == Done::Epoch {
                trial.epoch += 1;
            }
        }
        self.trial_numbers.insert(spec.id, number);
        self.trials.push(trial);
        self.plan_epoch(number);
        Ok(())
    }

    /// Changes how many epochs a trial is to train in all. An epoch that has begun is finished.
    pub fn set_epochs(&mut self, trial: TrialId, epochs: u32) -> Result<(), ScheduleError> {
        self.lookahead.end_rotation();
        let number = self.changeable(trial)?;
        self.check_record(trial, epochs)?;
        self.trials[number].epochs = epochs;
        if self.board.jobs[number].phase == Phase::Resting {
            let epoch = self.trials[number].epoch;
            self.board.change(number, |job| job.later_epochs = epochs.saturating_sub(epoch));
            self.board.wake(number);
            self.plan_epoch(number);
        } else {
            let later = epochs.saturating_sub(self.trials[number].epoch + 1);
            self.board.change(number, |job| job.later_epochs = later);
            self.give_up_unwanted_epoch(number);
        }
        Ok(())
    }

    /// Lets units of the trial start before those of trials whose level is lower, and after those
    /// whose level is higher; levels go from -10 to 10, and all begin at 0. No order of a trial's own
    /// partitions changes. [`Policy::Random`] knows no levels.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use cerebro_core::schedule::{PartitionSpec, Policy, Scheduler, TrialSpec, WorkerSpec};
    /// # use cerebro_core::{PartitionId, Seed, Split, TrialId, WorkerId};
    /// let partition = PartitionSpec { id: PartitionId(0), split: Split::Train, rows: 100 };
    /// let mut scheduler = Scheduler::new(Policy::default(), Seed(1), &[partition])?;
    /// # let partitions = vec![PartitionId(0)];
    /// scheduler.worker_joined(&WorkerSpec { id: WorkerId(0), slots: 1, partitions })?;
    /// scheduler.add_trial(&TrialSpec::new(TrialId(0), 100))?;
    /// scheduler.add_trial(&TrialSpec::new(TrialId(1), 2))?;
    /// scheduler.set_priority(TrialId(1), 1)?;
    /// let mut first = Vec::new();
    /// for _ in 0..3 {
    ///     let start = scheduler.assign(Duration::ZERO)[0];
    ///     first.push(start.unit.trial.0);
    ///     scheduler.completed(start.unit, start.worker, Duration::from_secs(1))?;
    /// }
    /// assert_eq!(first, [1, 1, 0]);
    /// # Ok::<(), cerebro_core::schedule::ScheduleError>(())
    /// ```
    pub fn set_priority(&mut self, trial: TrialId, level: i32) -> Result<(), ScheduleError> {
        self.lookahead.end_rotation();
        let number = self.changeable(trial)?;
        // No two trials differ as much in the work that they have left.
        let weight = 1e12_f64.powi(level.clamp(-10, 10));
        self.board.change(number, |job| job.weight = weight);
        Ok(())
    }

    /// Lets the trial's running units finish and starts no others.
    pub fn pause(&mut self, trial: TrialId) -> Result<(), ScheduleError> {
        self.lookahead.end_rotation();
        let number = self.changeable(trial)?;
        self.board.change(number, |job| job.active = false);
        Ok(())
    }

    /// Lets units of a paused trial start again.
    pub fn resume(&mut self, trial: TrialId) -> Result<(), ScheduleError> {
        self.lookahead.end_rotation();
        let number = self.changeable(trial)?;
        self.board.change(number, |job| job.active = true);
        Ok(())
    }

    /// Forgets what the trial has still to do. Reports of its running units are still taken, as
    /// [`Completion::Discarded`](super::Completion::Discarded) or
    /// [`Failure::Discarded`](super::Failure::Discarded).
    pub fn stop(&mut self, trial: TrialId) -> Result<(), ScheduleError> {
        let number = self.trial_number(trial)?;
        self.board.stop(number);
        let trial = &mut self.trials[number];
        trial.stopped = true;
        trial.plan = Vec::new();
        trial.failures = Vec::new();
        Ok(())
    }

    /// The partitions that open units of active trials need and that no worker holds which takes
    /// units.
    pub fn stalled(&self) -> Vec<Stall> {
        let layout = &self.board.layout;
        let orphans = (0..layout.partitions()).filter(|&p| layout.holders(p).is_empty());
        let stalls = orphans.map(|partition| {
            let needs = |number: &usize| {
                let job = &self.board.jobs[*number];
                job.has_work() && (job.later_epochs > 0 || self.board.is_open(*number, partition))
            };
            let trials = (0..self.trials.len()).filter(needs).count();
            let spec = &self.partitions[partition];
            Stall { partition: spec.id, split: spec.split, trials }
        });
        stalls.filter(|stall| stall.trials > 0).collect()
    }

    /// Whether nothing runs and no active trial has anything left to do.
    pub fn is_idle(&self) -> bool {
        self.running == 0 && self.board.units_left == 0
    }

    /// The partitions in the order that the trial trained on them, epoch by epoch; the last epoch
    /// may be under way. `None` if the trial is not known.
    pub fn visit_order(&self, trial: TrialId) -> Option<Vec<Vec<PartitionId>>> {
        let trial = &self.trials[*self.trial_numbers.get(&trial)?];
        let name = |partition: u32| self.partitions[partition as usize].id;
        Some(trial.order.epochs().map(|epoch| epoch.map(name).collect()).collect())
    }

    /// An estimate of the slot time that the trial's units take which have not started yet; `None`
    /// if the trial is not known.
    pub fn remaining_cost(&self, trial: TrialId) -> Option<Duration> {
        let number = *self.trial_numbers.get(&trial)?;
        let job = &self.board.jobs[number];
        let times = |p| f64::from(job.later_epochs + u32::from(self.board.is_open(number, p)));
        let layout = &self.board.layout;
        let cost = |p: usize| times(p) * job.rate(layout.split(p)) * layout.weight(p);
        Some(seconds((0..layout.partitions()).map(cost).sum()))
    }

    /// What no schedule of the remaining work can beat, by the present estimates.
    pub fn lower_bound(&self) -> Bound {
        let bound = self.bound_seconds();
        Bound {
            longest_trial: seconds(bound.longest_trial),
            busiest_worker: seconds(bound.busiest_worker),
        }
    }

    pub(super) fn training(&self) -> usize {
        self.board.layout.training()
    }

    pub(super) fn refresh_slots(&mut self, worker: usize) {
        let Worker { slots, running, .. } = &self.workers[worker];
        self.board.set_free(worker, slots.saturating_sub(running.len()) as u32);
    }

    /// Lets a trial rest that has all its epochs and nothing done or running of another one.
    pub(super) fn give_up_unwanted_epoch(&mut self, number: usize) {
        let trial = &self.trials[number];
        let job = &self.board.jobs[number];
        let all = self.board.layout.partitions() as u32;
        let begun = job.running > 0 || job.training_left + job.validation_left < all;
        if trial.epochs <= trial.epoch && !begun {
            self.board.give_up_epoch(number);
        }
    }

    pub(super) fn partition_number(
        &self,
        partition: PartitionId,
        holder: impl Fn() -> String,
    ) -> Result<u32, ScheduleError> {
        let number = self.partition_numbers.get(&partition).copied();
        number.ok_or_else(|| ScheduleError::UnknownPartition { holder: holder(), partition })
    }

    fn trial_number(&self, trial: TrialId) -> Result<usize, ScheduleError> {
        self.trial_numbers.get(&trial).copied().ok_or(ScheduleError::UnknownTrial { trial })
    }

    fn changeable(&self, trial: TrialId) -> Result<usize, ScheduleError> {
        let number = self.trial_number(trial)?;
        if self.trials[number].stopped {
            return Err(ScheduleError::StoppedTrial { trial });
        }
        Ok(number)
    }
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX)
}
