//! The state machine: trials, workers and units by name, over the [`Board`] of dense numbers.

use std::collections::HashMap;
use std::time::Duration;

use super::board::{Board, Done, NONE, Phase};
use super::bound::Bound;
use super::cost::Costs;
use super::dispatch::{Choice, Dispatcher};
use super::error::ScheduleError;
use super::layout::Layout;
use super::lookahead::{Lookahead, Running};
use super::order::OrderLog;
use super::policy::Policy;
use super::prefetch::Guesses;
use super::report::{Assignment, Completion, Failure, Next, Stall};
use super::ring::Ring;
use super::spec::{PartitionSpec, TrialSpec, WorkerSpec};
use crate::id::{PartitionId, Split, TrialId, Unit, WorkerId};
use crate::seed::{Seed, SeededRng};

/// A change of a rate or a speed that is worth computing all sums anew.
const RATE_CHANGE: f64 = 0.05;
const SLOWNESS_CHANGE: f64 = 0.2;

/// The MOP scheduler: a state machine without clock, I/O or threads.
///
/// It is told what happens and answers what is to start. The same calls in the same order give the
/// same answers. See the [module](super) for an example and for how it chooses.
#[derive(Debug)]
pub struct Scheduler {
    pub(super) policy: Policy,
    rng: SeededRng,
    /// Training partitions first, then validation; each group in the order of the data set.
    pub(super) partitions: Vec<PartitionSpec>,
    partition_numbers: HashMap<PartitionId, u32>,
    pub(super) workers: Vec<Worker>,
    worker_numbers: HashMap<WorkerId, usize>,
    pub(super) trials: Vec<Trial>,
    trial_numbers: HashMap<TrialId, usize>,
    pub(super) board: Board,
    pub(super) costs: Costs,
    /// The scales on which the rates of unmeasured trials rest at present.
    scales: (f64, f64),
    dispatcher: Dispatcher,
    lookahead: Lookahead,
    pub(super) guesses: Guesses,
    running: usize,
    now: Duration,
}

#[derive(Clone, Debug)]
pub(super) struct Worker {
    pub(super) id: WorkerId,
    pub(super) slots: usize,
    pub(super) running: Vec<Attempt>,
}

/// A unit that runs on a worker.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt {
    unit: Unit,
    pub(super) trial: usize,
    pub(super) partition: usize,
    started: Duration,
    expected: f64,
}

/// What is known of a trial beside its place on the board.
#[derive(Clone, Debug)]
pub(super) struct Trial {
    pub(super) id: TrialId,
    stopped: bool,
    /// The current epoch, or, when resting, the next one.
    pub(super) epoch: u32,
    /// The epochs that were asked for in all.
    epochs: u32,
    pub(super) order: OrderLog,
    /// The order that the current epoch must follow, if the policy fixes one.
    plan: Vec<u32>,
    /// Partitions on which units of the current epoch failed, once per failure.
    failures: Vec<u32>,
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
            board: Board::new(Layout::new(training, rows), ring),
            costs: Costs::default(),
            scales: (1.0, 1.0),
            dispatcher: Dispatcher::default(),
            lookahead: Lookahead::default(),
            guesses: Guesses::default(),
            running: 0,
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
            self.workers.push(Worker { id: spec.id, slots: 0, running: Vec::new() });
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
            if self.trials[attempt.trial].stopped {
                self.board.jobs[attempt.trial].running -= 1;
            } else {
                self.reopen(attempt.trial, attempt.partition);
                open.push(attempt.unit);
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
    /// [`Completion::Discarded`] or [`Failure::Discarded`].
    pub fn stop(&mut self, trial: TrialId) -> Result<(), ScheduleError> {
        let number = self.trial_number(trial)?;
        self.board.stop(number);
        let trial = &mut self.trials[number];
        trial.stopped = true;
        trial.plan = Vec::new();
        trial.failures = Vec::new();
        Ok(())
    }

    /// The units that should start now; they count as running from here on.
    ///
    /// `now` is the time since any fixed instant. To be called after every other call that can have
    /// freed a slot or opened a unit. A unit that could start may be held back for one that is
    /// about to become free, but never while nothing runs.
    pub fn assign(&mut self, now: Duration) -> Vec<Assignment> {
        self.now = self.now.max(now);
        let mut choices = Vec::new();
        let mut assignments = Vec::new();
        if self.policy == Policy::LongestRemainingFirst && self.running == 0 {
            let bound = self.bound_seconds().makespan();
            let (lookahead, costs) = (&mut self.lookahead, &self.costs);
            let known = |job| costs.is_known(job);
            lookahead.consider_rotation(&mut self.dispatcher, &self.board, bound, known);
        }
        let looks_ahead = matches!(self.policy, Policy::LongestRemainingFirst | Policy::Seeded);
        if looks_ahead && self.lookahead.is_wanted(&self.board) {
            let running = self.running_units();
            let bound = self.bound_seconds().makespan();
            let lookahead = &mut self.lookahead;
            lookahead.choose(&mut self.dispatcher, &self.board, &running, bound, &mut choices);
            assignments.extend(choices.drain(..).map(|choice| self.start(choice)));
            return assignments;
        }
        loop {
            if self.policy == Policy::Random {
                choices.clear();
                choices.extend(self.draw());
            } else {
                self.dispatcher.choose(&mut self.board, &[], &mut choices);
            }
            if choices.is_empty() {
                return assignments;
            }
            assignments.extend(choices.drain(..).map(|choice| self.start(choice)));
        }
    }

    /// Takes in that a unit is done, and the time that it took.
    pub fn completed(
        &mut self,
        unit: Unit,
        worker: WorkerId,
        cost: Duration,
    ) -> Result<Completion, ScheduleError> {
        let (worker, attempt) = self.end_attempt(unit, worker)?;
        let number = attempt.trial;
        self.learn(number, worker, attempt.partition, cost);
        if self.trials[number].stopped {
            self.board.jobs[number].running -= 1;
            return Ok(Completion::Discarded);
        }
        if unit.split == Split::Train {
            self.board.jobs[number].location = worker as u32;
            self.trials[number].order.push(attempt.partition as u32);
        }
        let done = self.board.complete(number, attempt.partition);
        self.lookahead.completed(number);
        if done == Done::Epoch {
            self.trials[number].epoch += 1;
            self.trials[number].failures.clear();
            self.plan_epoch(number);
        } else {
            self.refresh_fixed(number);
        }
        Ok(match done {
            Done::Unit => Completion::Unit,
            Done::Training => Completion::EpochTrained { epoch: unit.epoch },
            Done::Epoch => {
                let rests = self.board.jobs[number].phase == Phase::Resting;
                let next = if rests { Next::Rest } else { Next::Epoch };
                Completion::EpochCompleted { epoch: unit.epoch, next }
            }
        })
    }

    /// Takes in that a unit failed and left no trace.
    pub fn failed(&mut self, unit: Unit, worker: WorkerId) -> Result<Failure, ScheduleError> {
        let (worker, attempt) = self.end_attempt(unit, worker)?;
        let (number, partition) = (attempt.trial, attempt.partition);
        if self.trials[number].stopped {
            self.board.jobs[number].running -= 1;
            return Ok(Failure::Discarded);
        }
        self.board.blocked.push((number as u32, partition as u32, worker as u32));
        self.reopen(number, partition);
        let failures = &mut self.trials[number].failures;
        failures.push(partition as u32);
        let failures = failures.iter().filter(|&&at| at as usize == partition).count() as u32;
        let holders = self.board.layout.holders(partition).iter();
        let fresh = |&&holder: &&u32| {
            !self.board.blocked.contains(&(number as u32, partition as u32, holder))
        };
        let fresh_holders = holders.filter(fresh).count();
        Ok(Failure::Open { failures, fresh_holders })
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

    fn training(&self) -> usize {
        self.board.layout.training()
    }

    fn start(&mut self, choice: Choice) -> Assignment {
        let (number, partition, worker) =
            (choice.job as usize, choice.partition as usize, choice.worker as usize);
        let spec = self.partitions[partition];
        let trial = &self.trials[number];
        let (split, epoch) = (spec.split, trial.epoch);
        let unit = Unit { trial: trial.id, epoch, split, partition: spec.id };
        let expected = self.board.estimate(number, partition, worker);
        self.board.start(number, partition, worker);
        self.guesses.started(number, worker);
        let started = self.now;
        let attempt = Attempt { unit, trial: number, partition, started, expected };
        self.workers[worker].running.push(attempt);
        self.running += 1;
        let maker = self.board.jobs[number].location;
        let hops = maker != NONE && maker as usize != worker;
        Assignment {
            unit,
            worker: self.workers[worker].id,
            hop_from: hops.then(|| self.workers[maker as usize].id),
        }
    }

    /// Takes a running unit off its slot.
    fn end_attempt(
        &mut self,
        unit: Unit,
        worker: WorkerId,
    ) -> Result<(usize, Attempt), ScheduleError> {
        let unknown = || ScheduleError::NotRunning { unit, worker };
        let number = *self.worker_numbers.get(&worker).ok_or_else(unknown)?;
        let running = &mut self.workers[number].running;
        let at = running.iter().position(|attempt| attempt.unit == unit).ok_or_else(unknown)?;
        let attempt = running.swap_remove(at);
        self.running -= 1;
        self.refresh_slots(number);
        Ok((number, attempt))
    }

    fn refresh_slots(&mut self, worker: usize) {
        let Worker { slots, running, .. } = &self.workers[worker];
        self.board.set_free(worker, slots.saturating_sub(running.len()) as u32);
    }

    fn reopen(&mut self, trial: usize, partition: usize) {
        self.board.reopen(trial, partition);
        self.lookahead.rewind_rotation();
        self.refresh_fixed(trial);
        self.give_up_unwanted_epoch(trial);
    }

    /// Lets a trial rest that has all its epochs and nothing done or running of another one.
    fn give_up_unwanted_epoch(&mut self, number: usize) {
        let trial = &self.trials[number];
        let job = &self.board.jobs[number];
        let all = self.board.layout.partitions() as u32;
        let begun = job.running > 0 || job.training_left + job.validation_left < all;
        if trial.epochs <= trial.epoch && !begun {
            self.board.give_up_epoch(number);
        }
    }

    fn learn(&mut self, trial: usize, worker: usize, partition: usize, cost: Duration) {
        let spec = &self.partitions[partition];
        self.lookahead.earn(cost.as_secs_f64());
        self.costs.learn(trial, worker, spec.split, spec.rows, cost);
        self.refresh_rate(trial);
        let slowness = self.costs.slowness(worker);
        if differs(slowness, self.board.layout.slowness(worker), SLOWNESS_CHANGE) {
            self.board.relayout(|layout| layout.set_slowness(worker, slowness));
        }
        let scales = self.costs.scales();
        if differs(scales.0, self.scales.0, SLOWNESS_CHANGE)
            || differs(scales.1, self.scales.1, SLOWNESS_CHANGE)
        {
            self.scales = scales;
            for trial in 0..self.trials.len() {
                if !self.costs.is_measured(trial) {
                    self.refresh_rate(trial);
                }
            }
        }
    }

    fn refresh_rate(&mut self, trial: usize) {
        let training = self.costs.rate(trial, Split::Train);
        let validation = self.costs.rate(trial, Split::Validation);
        let job = &self.board.jobs[trial];
        if differs(training, job.training_rate, RATE_CHANGE)
            || differs(validation, job.validation_rate, RATE_CHANGE)
        {
            self.board.change(trial, |job| {
                job.training_rate = training;
                job.validation_rate = validation;
            });
        }
    }

    /// Any unit that could start, all with the same chance.
    fn draw(&mut self) -> Option<Choice> {
        let mut pairs = Vec::new();
        for &worker in self.board.free() {
            let jobs = self.board.ready().iter().map(|&(_, job)| job);
            let fitting = jobs.filter(|&job| self.board.fits(job as usize, worker as usize));
            pairs.extend(fitting.map(|job| (job, worker)));
        }
        pairs.sort_unstable();
        let &(job, worker) = pairs.get(self.rng.below(pairs.len() as u64) as usize)?;
        let layout = &self.board.layout;
        let split = self.board.jobs[job as usize].split()?;
        let open = layout.open_here(self.board.open(job as usize), worker as usize, split);
        let fitting = open.filter(|&p| self.board.fits_on(job as usize, p, worker as usize));
        let partitions: Vec<usize> = fitting.collect();
        let drawn = self.rng.below(partitions.len() as u64) as usize;
        Some(Choice { job, partition: *partitions.get(drawn)? as u32, worker })
    }

    /// The running units, with the seconds that they still take.
    fn running_units(&self) -> Vec<Running> {
        let workers = self.workers.iter().enumerate();
        let units = workers.flat_map(|(worker, state)| {
            state.running.iter().map(move |attempt| Running {
                ends: self.still_takes(attempt),
                job: attempt.trial as u32,
                partition: attempt.partition as u32,
                worker: worker as u32,
            })
        });
        units.collect()
    }

    /// Seconds that a running unit still takes. One that is late is taken to need a tenth more.
    pub(super) fn still_takes(&self, attempt: &Attempt) -> f64 {
        let elapsed = self.now.saturating_sub(attempt.started).as_secs_f64();
        (attempt.expected - elapsed).max(elapsed * 0.1).min(attempt.expected.max(elapsed * 0.1))
    }

    /// Sets up the order of a new epoch, if the policy fixes one.
    fn plan_epoch(&mut self, number: usize) {
        let trial = &mut self.trials[number];
        if self.board.jobs[number].phase == Phase::Resting {
            trial.plan = Vec::new();
            return;
        }
        trial.plan = match &self.policy {
            Policy::Random | Policy::LongestRemainingFirst | Policy::Seeded => return,
            Policy::Replay(orders) => {
                let recorded =
                    orders.0.get(&trial.id).and_then(|all| all.get(trial.epoch as usize));
                let visits = recorded.into_iter().flatten();
                visits
                    .filter_map(|partition| self.partition_numbers.get(partition).copied())
                    .collect()
            }
        };
        self.refresh_fixed(number);
    }

    fn refresh_fixed(&mut self, number: usize) {
        let plan = &self.trials[number].plan;
        if !plan.is_empty() {
            let next = plan.iter().copied().find(|&p| self.board.is_open(number, p as usize));
            self.board.jobs[number].fixed = next.unwrap_or(NONE);
        }
    }

    fn checked_progress(&self, spec: &TrialSpec) -> Result<Progress, ScheduleError> {
        let given = spec.completed.clone().unwrap_or_default();
        let inconsistent =
            |reason: String| ScheduleError::InconsistentProgress { trial: spec.id, reason };
        let mut visited = Vec::new();
        let training = self.training();
        for (epoch, order) in given.epochs.iter().enumerate() {
            let visits = self.visits(spec.id, order, Split::Train)?;
            if visits.len() != training {
                let found = visits.len();
                return Err(inconsistent(format!(
                    "epoch {epoch} has {found} of {training} training partitions"
                )));
            }
            visited.extend(visits);
        }
        let epochs = given.epochs.len() as u32;
        let trained = self.visits(spec.id, &given.trained, Split::Train)?;
        let validated = self.visits(spec.id, &given.validated, Split::Validation)?;
        if !validated.is_empty() && trained.len() < training {
            let found = trained.len();
            return Err(inconsistent(format!(
                "it was validated in epoch {epochs} after {found} of {training} training partitions"
            )));
        }
        if let Policy::Replay(orders) = &self.policy {
            let recorded = orders.0.get(&spec.id).map_or(&[][..], Vec::as_slice);
            let current = recorded.get(epochs as usize).map_or(&[][..], Vec::as_slice);
            if !recorded.starts_with(&given.epochs) || !current.starts_with(&given.trained) {
                return Err(inconsistent("it differs from the orders to be replayed".to_owned()));
            }
        }
        Ok(Progress { epochs, visited, trained, validated })
    }

    /// The dense numbers of partitions that a trial has visited, each at most once.
    fn visits(
        &self,
        trial: TrialId,
        visited: &[PartitionId],
        split: Split,
    ) -> Result<Vec<u32>, ScheduleError> {
        let mut seen = vec![false; self.partitions.len()];
        let mut numbers = Vec::with_capacity(visited.len());
        for &partition in visited {
            let number = self.partition_number(partition, || format!("the record of {trial}"))?;
            let twice = std::mem::replace(&mut seen[number as usize], true);
            if twice || self.partitions[number as usize].split != split {
                let reason = format!("{partition} is listed twice, or is no {split} partition");
                return Err(ScheduleError::InconsistentProgress { trial, reason });
            }
            numbers.push(number);
        }
        Ok(numbers)
    }

    /// Refuses to train epochs that a replay has no order for.
    fn check_record(&self, trial: TrialId, needed: u32) -> Result<(), ScheduleError> {
        let Policy::Replay(orders) = &self.policy else {
            return Ok(());
        };
        let recorded = orders.0.get(&trial).map_or(&[][..], Vec::as_slice);
        let mut complete = 0;
        for order in recorded.iter().take(needed as usize) {
            if self.visits(trial, order, Split::Train)?.len() == self.training() {
                complete += 1;
            }
        }
        if complete < needed as usize {
            return Err(ScheduleError::NotRecorded { trial, recorded: complete, needed });
        }
        Ok(())
    }

    fn partition_number(
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

/// Progress to resume from, by dense numbers.
struct Progress {
    epochs: u32,
    /// The visits of completed epochs.
    visited: Vec<u32>,
    trained: Vec<u32>,
    validated: Vec<u32>,
}

fn differs(a: f64, b: f64, by: f64) -> bool {
    (a - b).abs() > by * a.abs().min(b.abs())
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX)
}
