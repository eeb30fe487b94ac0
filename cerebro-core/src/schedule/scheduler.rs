//! The state machine: what runs where, what is open, what is done.

use std::collections::HashMap;
use std::time::Duration;

use super::bits::Bits;
use super::cost::Costs;
use super::error::ScheduleError;
use super::policy::Policy;
use super::report::{Assignment, Completion, Failure, Next, Stall};
use super::spec::{PartitionSpec, TrialSpec, WorkerSpec};
use super::trial::{Done, Phase, Status, Trial};
use crate::id::{PartitionId, Split, TrialId, Unit, WorkerId};
use crate::seed::{Seed, SeededRng};

/// The MOP scheduler: a state machine without clock, I/O or threads.
///
/// It is told what happens and answers what is to start. The same calls in the same order give the
/// same answers.
#[derive(Debug)]
pub struct Scheduler {
    policy: Policy,
    seed: Seed,
    rng: SeededRng,
    /// Training partitions first, then validation; each group in the order of the data set.
    partitions: Vec<PartitionSpec>,
    training: usize,
    partition_numbers: HashMap<PartitionId, usize>,
    workers: Vec<Worker>,
    worker_numbers: HashMap<WorkerId, usize>,
    trials: Vec<Trial>,
    trial_numbers: HashMap<TrialId, usize>,
    /// The order that a trial's current epoch must follow, if the policy fixes one.
    plans: Vec<Plan>,
    running: HashMap<Unit, Vec<usize>>,
    costs: Costs,
}

#[derive(Clone, Debug)]
struct Worker {
    id: WorkerId,
    availability: Availability,
    slots: usize,
    busy: usize,
    holds: Bits,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Availability {
    Available,
    Draining,
    Lost,
}

#[derive(Clone, Debug)]
struct Plan {
    seed: Seed,
    epoch: Option<u32>,
    order: Vec<u32>,
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
            if partition_numbers.insert(spec.id, number).is_some() {
                return Err(ScheduleError::DuplicatePartition { partition: spec.id });
            }
        }
        Ok(Self {
            policy,
            seed,
            rng: seed.derive("schedule", &[]).rng(),
            partitions: dense,
            training,
            partition_numbers,
            workers: Vec::new(),
            worker_numbers: HashMap::new(),
            trials: Vec::new(),
            trial_numbers: HashMap::new(),
            plans: Vec::new(),
            running: HashMap::new(),
            costs: Costs::default(),
        })
    }

    /// Takes in a worker, or the new slots and partitions of a worker that is there already.
    pub fn worker_joined(&mut self, spec: &WorkerSpec) -> Result<(), ScheduleError> {
        let mut holds = Bits::new(self.partitions.len());
        for &partition in &spec.partitions {
            holds.insert(self.partition_number(partition, || spec.id.to_string())?);
        }
        if let Some(&number) = self.worker_numbers.get(&spec.id) {
            let worker = &mut self.workers[number];
            worker.slots = spec.slots;
            worker.holds = holds;
            worker.availability = Availability::Available;
            return Ok(());
        }
        self.worker_numbers.insert(spec.id, self.workers.len());
        self.costs.add_worker();
        self.workers.push(Worker {
            id: spec.id,
            availability: Availability::Available,
            slots: spec.slots,
            busy: 0,
            holds,
        });
        Ok(())
    }

    /// Takes in that a worker is gone. Answers with the units that ran there alone; they are open
    /// again. Reports of them that come late are refused.
    pub fn worker_lost(&mut self, worker: WorkerId) -> Vec<Unit> {
        let Some(number) = self.worker_numbers.remove(&worker) else {
            return Vec::new();
        };
        self.workers[number].availability = Availability::Lost;
        self.workers[number].busy = 0;
        for trial in &mut self.trials {
            if trial.location == Some(number) {
                trial.location = None;
            }
        }
        let mut units: Vec<Unit> = Vec::new();
        self.running.retain(|unit, workers| {
            workers.retain(|&other| other != number);
            if workers.is_empty() {
                units.push(*unit);
            }
            !workers.is_empty()
        });
        units.sort_unstable();
        let wanted =
            |unit: &Unit| self.trials[self.trial_numbers[&unit.trial]].status != Status::Stopped;
        let (open, discarded): (Vec<Unit>, Vec<Unit>) = units.into_iter().partition(wanted);
        for unit in &open {
            let partition = self.partition_numbers[&unit.partition];
            self.trials[self.trial_numbers[&unit.trial]].reopen(partition);
        }
        for unit in &discarded {
            self.trials[self.trial_numbers[&unit.trial]].running -= 1;
        }
        open
    }

    /// Takes in that a worker is to leave: what runs there goes on, nothing more starts.
    pub fn drain(&mut self, worker: WorkerId) {
        if let Some(&number) = self.worker_numbers.get(&worker) {
            self.workers[number].availability = Availability::Draining;
        }
    }

    /// Takes in a trial, new or to be resumed.
    pub fn add_trial(&mut self, spec: &TrialSpec) -> Result<(), ScheduleError> {
        if self.trial_numbers.contains_key(&spec.id) {
            return Err(ScheduleError::DuplicateTrial { trial: spec.id });
        }
        self.check_record(spec.id, spec.epochs)?;
        let mut trial = self.resumed_trial(spec)?;
        trial.state_bytes = spec.state_bytes;
        self.costs.add_trial(spec.cost_per_row);
        self.trial_numbers.insert(spec.id, self.trials.len());
        self.trials.push(trial);
        self.plans.push(Plan { seed: spec.order_seed, epoch: None, order: Vec::new() });
        Ok(())
    }

    /// Changes how many epochs a trial is to train in all. An epoch that has begun is finished.
    pub fn set_epochs(&mut self, trial: TrialId, epochs: u32) -> Result<(), ScheduleError> {
        let number = self.changeable(trial)?;
        self.check_record(trial, epochs)?;
        self.trials[number].set_epochs(epochs);
        Ok(())
    }

    /// Lets the trial's running units finish and starts no others.
    pub fn pause(&mut self, trial: TrialId) -> Result<(), ScheduleError> {
        let number = self.changeable(trial)?;
        self.trials[number].status = Status::Paused;
        Ok(())
    }

    /// Lets units of a paused trial start again.
    pub fn resume(&mut self, trial: TrialId) -> Result<(), ScheduleError> {
        let number = self.changeable(trial)?;
        self.trials[number].status = Status::Active;
        Ok(())
    }

    /// Forgets what the trial has still to do. Reports of its running units are still taken, as
    /// [`Completion::Discarded`] or [`Failure::Discarded`].
    pub fn stop(&mut self, trial: TrialId) -> Result<(), ScheduleError> {
        let number = self.trial_number(trial)?;
        self.trials[number].stop();
        Ok(())
    }

    /// All units that can start now; they count as running from here on.
    ///
    /// `now` is the time since any fixed instant.
    pub fn assign(&mut self, now: Duration) -> Vec<Assignment> {
        let _ = now;
        let mut assignments = Vec::new();
        while let Some((trial, partition, worker)) = self.choose() {
            assignments.push(self.start(trial, partition, worker));
        }
        assignments
    }

    /// Takes in that a unit is done, and the time that it took.
    pub fn completed(
        &mut self,
        unit: Unit,
        worker: WorkerId,
        cost: Duration,
    ) -> Result<Completion, ScheduleError> {
        let (worker, last) = self.take_running(unit, worker)?;
        let trial = self.trial_numbers[&unit.trial];
        let partition = self.partition_numbers[&unit.partition];
        self.costs.learn(trial, worker, unit.split, self.partitions[partition].rows, cost);
        for other in last {
            // A second attempt at the same unit lost the race; its report will be unknown.
            self.workers[other].busy = self.workers[other].busy.saturating_sub(1);
        }
        let progress = &mut self.trials[trial];
        if progress.status == Status::Stopped {
            progress.running -= 1;
            return Ok(Completion::Discarded);
        }
        if unit.split == Split::Train {
            progress.location = Some(worker);
        }
        Ok(match progress.complete(partition) {
            Done::Unit => Completion::Unit,
            Done::Training => Completion::EpochTrained { epoch: unit.epoch },
            Done::Epoch => Completion::EpochCompleted {
                epoch: unit.epoch,
                next: if progress.phase == Phase::Resting { Next::Rest } else { Next::Epoch },
            },
        })
    }

    /// Takes in that a unit failed and left no trace.
    pub fn failed(&mut self, unit: Unit, worker: WorkerId) -> Result<Failure, ScheduleError> {
        let (worker, others) = self.take_running(unit, worker)?;
        let number = self.trial_numbers[&unit.trial];
        let partition = self.partition_numbers[&unit.partition];
        let trial = &mut self.trials[number];
        if trial.status == Status::Stopped {
            trial.running -= 1;
            return Ok(Failure::Discarded);
        }
        trial.failures.push((partition, worker));
        if !others.is_empty() {
            self.running.insert(unit, others);
            return Ok(Failure::Discarded);
        }
        trial.reopen(partition);
        let failures = trial.failures.iter().filter(|&&(at, _)| at == partition).count() as u32;
        let fresh_holders =
            self.holders(partition).filter(|&h| !self.has_failed(number, partition, h)).count();
        Ok(Failure::Open { failures, fresh_holders })
    }

    /// The partitions that open units of active trials need and that no available worker holds.
    pub fn stalled(&self) -> Vec<Stall> {
        let orphans = (0..self.partitions.len()).filter(|&p| self.holders(p).next().is_none());
        let stalls = orphans.map(|partition| {
            let needs = |trial: &&Trial| {
                let later = trial.epoch + 1 < trial.epochs;
                trial.has_work() && (later || trial.open.contains(partition))
            };
            let trials = self.trials.iter().filter(needs).count();
            let spec = &self.partitions[partition];
            Stall { partition: spec.id, split: spec.split, trials }
        });
        stalls.filter(|stall| stall.trials > 0).collect()
    }

    /// Whether nothing runs and no active trial has anything left to do.
    pub fn is_idle(&self) -> bool {
        self.running.is_empty() && !self.trials.iter().any(Trial::has_work)
    }

    /// The partitions in the order that the trial trained on them, epoch by epoch; the last epoch
    /// may be under way. `None` if the trial is not known.
    pub fn visit_order(&self, trial: TrialId) -> Option<Vec<Vec<PartitionId>>> {
        let trial = &self.trials[*self.trial_numbers.get(&trial)?];
        let named = |epoch: Vec<usize>| epoch.into_iter().map(|p| self.partitions[p].id).collect();
        Some(trial.order.epochs().map(named).collect())
    }

    /// An estimate of the slot time that the trial's remaining units take, one after the other;
    /// `None` if the trial is not known.
    pub fn remaining_cost(&self, trial: TrialId) -> Option<Duration> {
        let number = *self.trial_numbers.get(&trial)?;
        Duration::try_from_secs_f64(self.remaining(number)).ok()
    }

    fn start(&mut self, trial: usize, partition: usize, worker: usize) -> Assignment {
        let spec = self.partitions[partition];
        let progress = &mut self.trials[trial];
        progress.start(partition);
        let unit = Unit {
            trial: progress.id,
            epoch: progress.epoch,
            split: spec.split,
            partition: spec.id,
        };
        self.workers[worker].busy += 1;
        self.running.entry(unit).or_default().push(worker);
        let maker = progress.location.filter(|&maker| maker != worker);
        Assignment {
            unit,
            worker: self.workers[worker].id,
            hop_from: maker.map(|maker| self.workers[maker].id),
        }
    }

    /// Frees the slot of a running unit; answers with the worker and those that run it as well.
    fn take_running(
        &mut self,
        unit: Unit,
        worker: WorkerId,
    ) -> Result<(usize, Vec<usize>), ScheduleError> {
        let unknown = || ScheduleError::NotRunning { unit, worker };
        let number = *self.worker_numbers.get(&worker).ok_or_else(unknown)?;
        let workers = self.running.get_mut(&unit).ok_or_else(unknown)?;
        let at = workers.iter().position(|&other| other == number).ok_or_else(unknown)?;
        workers.swap_remove(at);
        let others = self.running.remove(&unit).unwrap_or_default();
        self.workers[number].busy -= 1;
        Ok((number, others))
    }

    /// The unit to start next, as trial, partition and worker.
    fn choose(&mut self) -> Option<(usize, usize, usize)> {
        let free: Vec<usize> = (0..self.workers.len()).filter(|&w| self.has_free_slot(w)).collect();
        if self.policy == Policy::Random {
            let mut all: Vec<_> = free.iter().flat_map(|&w| self.choices(w)).collect();
            all.sort_unstable();
            let drawn = self.rng.below(all.len() as u64) as usize;
            return all.get(drawn).copied();
        }
        let mut best: Option<((f64, f64), (usize, usize, usize))> = None;
        for worker in free {
            for (trial, partition, worker) in self.choices(worker) {
                let key = (self.remaining(trial), self.demand(partition));
                if best.is_none_or(|(other, _)| key > other) {
                    best = Some((key, (trial, partition, worker)));
                }
            }
        }
        best.map(|(_, choice)| choice)
    }

    /// The units that could start on a worker.
    fn choices(&mut self, worker: usize) -> Vec<(usize, usize, usize)> {
        let mut choices = Vec::new();
        for trial in 0..self.trials.len() {
            let range = self.trials[trial].startable();
            if range.is_empty() {
                continue;
            }
            let fixed = self.planned(trial);
            let open = self.trials[trial].open.intersection(&self.workers[worker].holds);
            choices.extend(
                open.filter(|p| range.contains(p) && fixed.is_none_or(|fixed| fixed == *p))
                    .filter(|&p| self.may_run(trial, p, worker))
                    .map(|partition| (trial, partition, worker)),
            );
        }
        choices
    }

    /// Whether the unit has not failed there, or has failed on all that could run it.
    fn may_run(&self, trial: usize, partition: usize, worker: usize) -> bool {
        !self.has_failed(trial, partition, worker)
            || self.holders(partition).all(|holder| self.has_failed(trial, partition, holder))
    }

    fn has_failed(&self, trial: usize, partition: usize, worker: usize) -> bool {
        self.trials[trial].failures.contains(&(partition, worker))
    }

    /// The training partition that the policy fixes as the trial's next, if it does.
    fn planned(&mut self, number: usize) -> Option<usize> {
        let trial = &self.trials[number];
        if trial.phase != Phase::Training {
            return None;
        }
        let plan = &mut self.plans[number];
        if plan.epoch != Some(trial.epoch) {
            plan.order = match &self.policy {
                Policy::Random | Policy::LongestRemainingFirst => return None,
                Policy::Seeded => plan
                    .seed
                    .derive("visit order", &[self.seed.0, u64::from(trial.epoch)])
                    .permutation(self.training),
                Policy::Replay(orders) => orders.0[&trial.id][trial.epoch as usize]
                    .iter()
                    .map(|partition| self.partition_numbers[partition] as u32)
                    .collect(),
            };
            plan.epoch = Some(trial.epoch);
        }
        plan.order.iter().map(|&partition| partition as usize).find(|&p| trial.open.contains(p))
    }

    fn has_free_slot(&self, worker: usize) -> bool {
        let worker = &self.workers[worker];
        worker.availability == Availability::Available && worker.busy < worker.slots
    }

    /// The workers that could run units on a partition, now or later.
    fn holders(&self, partition: usize) -> impl Iterator<Item = usize> + '_ {
        let able =
            |worker: &Worker| worker.availability == Availability::Available && worker.slots > 0;
        let all = self.workers.iter().enumerate();
        all.filter(move |(_, worker)| able(worker) && worker.holds.contains(partition))
            .map(|(n, _)| n)
    }

    /// Seconds that the trial's remaining units take one after the other.
    fn remaining(&self, number: usize) -> f64 {
        let trial = &self.trials[number];
        if !trial.has_work() {
            return 0.0;
        }
        let later = f64::from(trial.epochs_to_train() - trial.epoch - 1);
        let cost = |partition: usize| {
            let spec = &self.partitions[partition];
            spec.rows as f64 * self.costs.rate(number, spec.split)
        };
        let all = 0..self.partitions.len();
        all.map(|p| cost(p) * (later + f64::from(u8::from(trial.open.contains(p))))).sum()
    }

    /// How much work waits for the workers that hold a partition.
    fn demand(&self, partition: usize) -> f64 {
        let waiting = self.trials.iter().filter(|trial| trial.open.contains(partition)).count();
        waiting as f64 / self.holders(partition).count().max(1) as f64
    }

    fn resumed_trial(&self, spec: &TrialSpec) -> Result<Trial, ScheduleError> {
        let partitions = self.partitions.len();
        let progress = spec.completed.clone().unwrap_or_default();
        let inconsistent =
            |reason: String| ScheduleError::InconsistentProgress { trial: spec.id, reason };
        let done = progress.epochs.len() as u32;
        let begun = !progress.trained.is_empty() || !progress.validated.is_empty();
        let epochs = if begun { spec.epochs.max(done + 1) } else { spec.epochs };
        let mut trial = Trial::new(spec.id, epochs, done, self.training, partitions);
        for (epoch, order) in progress.epochs.iter().enumerate() {
            let visits = self.visits(spec.id, order, Split::Train)?;
            if visits.len() != self.training {
                let reason = format!(
                    "epoch {epoch} has {} of {} training partitions",
                    visits.len(),
                    self.training
                );
                return Err(inconsistent(reason));
            }
            for partition in visits {
                trial.order.push(partition);
            }
        }
        let trained = self.visits(spec.id, &progress.trained, Split::Train)?;
        let validated = self.visits(spec.id, &progress.validated, Split::Validation)?;
        if !validated.is_empty() && trained.len() < self.training {
            return Err(inconsistent(format!(
                "it was validated in epoch {done} after {} of {} training partitions",
                trained.len(),
                self.training
            )));
        }
        if let Policy::Replay(orders) = &self.policy {
            let recorded = orders.0.get(&spec.id).map_or(&[][..], Vec::as_slice);
            let agrees = recorded.starts_with(&progress.epochs)
                && recorded
                    .get(done as usize)
                    .map_or(&[][..], Vec::as_slice)
                    .starts_with(&progress.trained);
            if !agrees {
                return Err(inconsistent("it differs from the orders to be replayed".to_owned()));
            }
        }
        for partition in trained.into_iter().chain(validated) {
            trial.restore(partition);
        }
        trial.set_epochs(spec.epochs);
        Ok(trial)
    }

    /// The dense numbers of partitions that a trial has visited, each at most once.
    fn visits(
        &self,
        trial: TrialId,
        visited: &[PartitionId],
        split: Split,
    ) -> Result<Vec<usize>, ScheduleError> {
        let mut seen = Bits::new(self.partitions.len());
        let mut numbers = Vec::with_capacity(visited.len());
        for &partition in visited {
            let number = self.partition_number(partition, || format!("the progress of {trial}"))?;
            if seen.contains(number) || self.partitions[number].split != split {
                let reason = format!("{partition} is listed twice or under the wrong split");
                return Err(ScheduleError::InconsistentProgress { trial, reason });
            }
            seen.insert(number);
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
            if self.visits(trial, order, Split::Train)?.len() == self.training {
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
    ) -> Result<usize, ScheduleError> {
        let number = self.partition_numbers.get(&partition).copied();
        number.ok_or_else(|| ScheduleError::UnknownPartition { holder: holder(), partition })
    }

    fn trial_number(&self, trial: TrialId) -> Result<usize, ScheduleError> {
        self.trial_numbers.get(&trial).copied().ok_or(ScheduleError::UnknownTrial { trial })
    }

    fn changeable(&self, trial: TrialId) -> Result<usize, ScheduleError> {
        let number = self.trial_number(trial)?;
        if self.trials[number].status == Status::Stopped {
            return Err(ScheduleError::StoppedTrial { trial });
        }
        Ok(number)
    }
}
