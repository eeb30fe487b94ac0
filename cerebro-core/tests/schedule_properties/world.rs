//! An independent record of what was started and reported, which checks the invariants at every step.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cerebro_core::schedule::{
    Assignment, Completion, Failure, Next, PartitionSpec, Policy, Scheduler, TrialSpec,
    VisitOrders, WorkerSpec,
};
use cerebro_core::{PartitionId, Seed, Split, TrialId, Unit, WorkerId};

use crate::acts::{Act, Setting};

#[derive(Clone, Debug)]
struct WorkerRecord {
    slots: usize,
    held: BTreeSet<PartitionId>,
    takes_units: bool,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct TrialRecord {
    pub(crate) epochs: u32,
    pub(crate) paused: bool,
    pub(crate) stopped: bool,
    /// The training partitions done, epoch by epoch.
    pub(crate) trained: Vec<Vec<PartitionId>>,
    /// The validation partitions done, epoch by epoch.
    pub(crate) validated: Vec<BTreeSet<PartitionId>>,
    pub(crate) failures: BTreeMap<Unit, BTreeSet<WorkerId>>,
}

/// The independent record.
pub(crate) struct World {
    pub(crate) scheduler: Scheduler,
    partitions: Vec<PartitionSpec>,
    /// How many of them are trained on.
    training: usize,
    workers: BTreeMap<WorkerId, WorkerRecord>,
    gone: Vec<WorkerId>,
    pub(crate) trials: BTreeMap<TrialId, TrialRecord>,
    pub(crate) running: Vec<Assignment>,
    /// Attempts at units that another one was faster at.
    superseded: BTreeSet<(Unit, WorkerId)>,
    now: Duration,
    policy: Policy,
    /// Whether it is known what any unit takes.
    has_completed: bool,
}

impl World {
    pub(crate) fn new(setting: &Setting) -> Self {
        let partition = |id, split| PartitionSpec {
            id: PartitionId(id),
            split,
            rows: 10 + u64::from(id) * 7 % 30,
        };
        // Validation partitions first, so that nothing rests on the order of the numbers.
        let validation = (0..setting.validation).map(|id| partition(id, Split::Validation));
        let training = (0..setting.training).map(|id| partition(100 + id, Split::Train));
        let partitions: Vec<PartitionSpec> = validation.chain(training).collect();
        let mut scheduler =
            Scheduler::new(setting.policy.clone(), Seed(setting.seed), &partitions).unwrap();
        scheduler.set_speculation(setting.speculation);
        let mut world = Self {
            scheduler,
            partitions,
            training: setting.training as usize,
            workers: BTreeMap::new(),
            gone: Vec::new(),
            trials: BTreeMap::new(),
            running: Vec::new(),
            superseded: BTreeSet::new(),
            now: Duration::ZERO,
            policy: setting.policy.clone(),
            has_completed: false,
        };
        for &(slots, held) in &setting.workers {
            world.join(slots, held);
        }
        for &(epochs, guess) in &setting.trials {
            world.add(epochs, guess);
        }
        world
    }

    fn held(&self, bits: u64) -> BTreeSet<PartitionId> {
        let bit = |at: usize| bits >> (at % 64) & 1 == 1;
        let all = self.partitions.iter().enumerate();
        all.filter(|&(at, _)| bit(at)).map(|(_, spec)| spec.id).collect()
    }

    fn join(&mut self, slots: usize, bits: u64) {
        let id = WorkerId((self.workers.len() + self.gone.len()) as u32);
        self.set_worker(id, slots, self.held(bits));
    }

    fn set_worker(&mut self, id: WorkerId, slots: usize, held: BTreeSet<PartitionId>) {
        let partitions = held.iter().copied().collect();
        self.scheduler.worker_joined(&WorkerSpec { id, slots, partitions }).unwrap();
        self.workers.insert(id, WorkerRecord { slots, held, takes_units: slots > 0 });
    }

    fn add(&mut self, epochs: u32, guess: Option<u16>) {
        let id = TrialId(self.trials.len() as u64);
        let spec = TrialSpec { cost_per_row: guess.map(f64::from), ..TrialSpec::new(id, epochs) };
        self.scheduler.add_trial(&spec).unwrap();
        self.trials.insert(id, TrialRecord { epochs, ..TrialRecord::default() });
    }

    fn training_partitions(&self) -> usize {
        self.training
    }

    fn validation_partitions(&self) -> usize {
        self.partitions.len() - self.training
    }

    pub(crate) fn epochs_done(&self, trial: &TrialRecord) -> u32 {
        let (training, validation) = (self.training_partitions(), self.validation_partitions());
        let validated = |epoch| trial.validated.get(epoch).map_or(0, BTreeSet::len);
        let full = |&(epoch, order): &(usize, &Vec<_>)| {
            order.len() == training && validated(epoch) == validation
        };
        trial.trained.iter().enumerate().take_while(full).count() as u32
    }

    /// Starts what is to start and checks that it may.
    pub(crate) fn assign(&mut self) {
        self.now += Duration::from_millis(10);
        for start in self.scheduler.assign(self.now) {
            let Assignment { unit, worker, .. } = start;
            let spec = self.partitions.iter().find(|spec| spec.id == unit.partition).unwrap();
            assert_eq!(spec.split, unit.split);
            let record = &self.workers[&worker];
            assert!(record.takes_units, "{worker} is draining and was given {unit}");
            assert!(record.held.contains(&unit.partition), "{worker} does not hold {unit}");
            let busy = self.running.iter().filter(|other| other.worker == worker).count();
            assert!(busy < record.slots, "exclusivity: {worker} has no slot for {unit}");

            let trial = &self.trials[&unit.trial];
            assert!(!trial.stopped && !trial.paused, "{unit} started though it was not to");
            assert_eq!(unit.epoch, self.epochs_done(trial), "{unit} is of another epoch");
            let mut first = self.running.iter().filter(|other| other.unit == unit);
            if start.speculative {
                // Isolation: a second attempt at what runs, in a place of its own.
                assert!(first.next().is_some_and(|first| first.worker != worker), "{unit}");
            }
            assert_eq!(first.next(), None, "{unit} runs already");
            let others = self.live().filter(|other| other.unit.trial == unit.trial);
            let others = others.filter(|other| other.unit != unit || !start.speculative);
            let epoch = unit.epoch as usize;
            let trained = trial.trained.get(epoch).map_or(&[][..], Vec::as_slice);
            match unit.split {
                Split::Train => {
                    assert_eq!(others.count(), 0, "isolation: {unit} while others run");
                    assert!(!trained.contains(&unit.partition), "completeness: {unit} twice");
                }
                Split::Validation => {
                    let mut others = others.map(|other| other.unit);
                    assert!(others.all(|other| other != unit && other.split == unit.split));
                    assert_eq!(trained.len(), self.training_partitions(), "{unit} too early");
                    let done = trial.validated.get(epoch);
                    let twice = done.is_some_and(|done| done.contains(&unit.partition));
                    assert!(!twice, "completeness: {unit} twice");
                }
            }
            let failed_on = trial.failures.get(&unit);
            if failed_on.is_some_and(|workers| workers.contains(&worker)) {
                let mut holders = self.holders(unit.partition);
                assert!(holders.all(|holder| failed_on.unwrap().contains(&holder)));
            }
            self.running.push(start);
        }
        self.check_prefetches();
        self.check_stalls();
    }

    /// A State is sent ahead only if it is final for now, to a busy worker that may use it.
    fn check_prefetches(&mut self) {
        for prefetch in self.scheduler.prefetches() {
            let of_trial = |other: &&Assignment| other.unit.trial == prefetch.trial;
            let mut running = self.live().filter(of_trial);
            assert!(running.all(|other| other.unit.split == Split::Validation), "{prefetch:?}");
            let record = &self.workers[&prefetch.to];
            let busy = self.running.iter().filter(|other| other.worker == prefetch.to).count();
            assert!(busy >= record.slots && record.takes_units, "{prefetch:?}");
            assert!(prefetch.from != prefetch.to && self.workers.contains_key(&prefetch.from));
            let trial = &self.trials[&prefetch.trial];
            assert!(!trial.stopped && !trial.paused && trial.trained.iter().flatten().count() > 0);
        }
    }

    /// What runs and is still waited for.
    fn live(&self) -> impl Iterator<Item = &Assignment> {
        self.running.iter().filter(|other| !self.superseded.contains(&(other.unit, other.worker)))
    }

    /// An attempt has ended: whether another one at the same unit runs or was faster.
    fn is_double(&mut self, unit: Unit, worker: WorkerId) -> bool {
        self.superseded.remove(&(unit, worker))
            || self.running.iter().any(|other| other.unit == unit)
    }

    fn holders(&self, partition: PartitionId) -> impl Iterator<Item = WorkerId> {
        let holds =
            move |record: &WorkerRecord| record.takes_units && record.held.contains(&partition);
        self.workers.iter().filter(move |(_, record)| holds(record)).map(|(&id, _)| id)
    }

    /// Whether an active trial has an open unit on a partition, in this epoch or later.
    fn needs(&self, id: TrialId, spec: &PartitionSpec) -> bool {
        let trial = &self.trials[&id];
        let later = !trial.stopped && !trial.paused && self.epochs_done(trial) + 1 < trial.epochs;
        later || self.needs_now(id, spec)
    }

    /// Whether it has one in this epoch.
    fn needs_now(&self, id: TrialId, spec: &PartitionSpec) -> bool {
        let trial = &self.trials[&id];
        if trial.stopped || trial.paused {
            return false;
        }
        let epoch = self.epochs_done(trial);
        let unit = Unit { trial: id, epoch, split: spec.split, partition: spec.id };
        let done = match spec.split {
            Split::Train => trial.trained.get(epoch as usize).is_some_and(|d| d.contains(&spec.id)),
            Split::Validation => {
                trial.validated.get(epoch as usize).is_some_and(|d| d.contains(&spec.id))
            }
        };
        let runs = self.live().any(|other| other.unit == unit);
        (epoch < trial.epochs || self.has_begun(id)) && !done && !runs
    }

    fn has_begun(&self, id: TrialId) -> bool {
        let trial = &self.trials[&id];
        let epoch = self.epochs_done(trial);
        trial.trained.get(epoch as usize).is_some_and(|done| !done.is_empty())
            || self.live().any(|other| other.unit.trial == id)
    }

    fn check_stalls(&self) {
        let named: BTreeMap<PartitionId, usize> =
            self.scheduler.stalled().iter().map(|stall| (stall.partition, stall.trials)).collect();
        let mut expected = BTreeMap::new();
        for spec in &self.partitions {
            if self.holders(spec.id).next().is_none() {
                let trials = self.trials.keys().filter(|&&id| self.needs(id, spec)).count();
                if trials > 0 {
                    expected.insert(spec.id, trials);
                }
            }
        }
        assert_eq!(named, expected, "the partitions without a holder");
    }

    pub(crate) fn complete(&mut self, at: usize, took: Duration) {
        let Assignment { unit, worker, .. } = self.running.swap_remove(at);
        let completion = self.scheduler.completed(unit, worker, took).unwrap();
        self.has_completed = true;
        if self.superseded.remove(&(unit, worker)) {
            assert_eq!(completion, Completion::Superseded);
            return;
        }
        let others = self.running.iter().filter(|other| other.unit == unit);
        self.superseded.extend(others.map(|other| (unit, other.worker)));
        let (training, validation) = (self.training_partitions(), self.validation_partitions());
        let trial = self.trials.get_mut(&unit.trial).unwrap();
        if trial.stopped {
            assert_eq!(completion, Completion::Discarded);
            return;
        }
        let epoch = unit.epoch as usize;
        trial.trained.resize(trial.trained.len().max(epoch + 1), Vec::new());
        trial.validated.resize(trial.validated.len().max(epoch + 1), BTreeSet::new());
        match unit.split {
            Split::Train => trial.trained[epoch].push(unit.partition),
            Split::Validation => assert!(trial.validated[epoch].insert(unit.partition)),
        }
        let trained = trial.trained[epoch].len() == training;
        let expected = if trained && trial.validated[epoch].len() == validation {
            let next = if unit.epoch + 1 < trial.epochs { Next::Epoch } else { Next::Rest };
            Completion::EpochCompleted { epoch: unit.epoch, next }
        } else if trained && unit.split == Split::Train {
            Completion::EpochTrained { epoch: unit.epoch }
        } else {
            Completion::Unit
        };
        assert_eq!(completion, expected);
    }

    fn fail(&mut self, at: usize) {
        let Assignment { unit, worker, .. } = self.running.swap_remove(at);
        let failure = self.scheduler.failed(unit, worker).unwrap();
        if self.is_double(unit, worker) {
            assert_eq!(failure, Failure::Discarded);
            return;
        }
        let holders: Vec<WorkerId> = self.holders(unit.partition).collect();
        let trial = self.trials.get_mut(&unit.trial).unwrap();
        if trial.stopped {
            assert_eq!(failure, Failure::Discarded);
            return;
        }
        let failed_on = trial.failures.entry(unit).or_default();
        failed_on.insert(worker);
        let expected = holders.iter().filter(|&holder| !failed_on.contains(holder)).count();
        let Failure::Open { failures, fresh_holders } = failure else {
            panic!("{failure:?} of {unit}");
        };
        assert!(failures >= 1);
        assert_eq!(fresh_holders, expected);
    }

    fn lose(&mut self, worker: WorkerId) {
        let (lost, left): (Vec<_>, Vec<_>) =
            self.running.drain(..).partition(|other| other.worker == worker);
        self.running = left;
        self.workers.remove(&worker);
        self.gone.push(worker);
        let mut open = self.scheduler.worker_lost(worker);
        open.sort_unstable();
        let mut expected = Vec::new();
        for &Assignment { unit, worker, .. } in &lost {
            if !self.is_double(unit, worker) && !self.trials[&unit.trial].stopped {
                expected.push(unit);
            }
        }
        expected.sort_unstable();
        assert_eq!(open, expected);
        for late in lost {
            // Atomicity: a report from the lost worker changes nothing.
            self.scheduler.progress(late.unit, worker, 50, self.now);
            assert!(self.scheduler.completed(late.unit, worker, Duration::from_secs(1)).is_err());
            assert!(self.scheduler.failed(late.unit, worker).is_err());
        }
    }

    pub(crate) fn act(&mut self, act: &Act) {
        let worker = |world: &Self, at: usize| {
            world.workers.keys().nth(at % world.workers.len().max(1)).copied()
        };
        let trial = |world: &Self, at: usize| TrialId((at % world.trials.len()) as u64);
        let count = self.running.len();
        match *act {
            Act::Complete { running, took } if count > 0 => {
                self.complete(running % count, Duration::from_micros(1 << took));
            }
            Act::Fail { running } if count > 0 => self.fail(running % count),
            Act::Report { running, rows } if count > 0 => {
                let Assignment { unit, worker, .. } = self.running[running % count];
                self.now += Duration::from_millis(10);
                self.scheduler.progress(unit, worker, rows, self.now);
            }
            Act::Complete { .. } | Act::Fail { .. } | Act::Report { .. } => {}
            Act::Wait => self.wait(),
            Act::Lose { worker: at } => {
                if let Some(id) = worker(self, at) {
                    self.lose(id);
                }
            }
            Act::Join { slots, held } => self.join(slots, held),
            Act::Drain { worker: at } => {
                if let Some(id) = worker(self, at) {
                    self.scheduler.drain(id);
                    self.workers.get_mut(&id).unwrap().takes_units = false;
                }
            }
            Act::Regrow { worker: at, slots, held } => {
                if let Some(id) = worker(self, at) {
                    self.set_worker(id, slots, self.held(held));
                }
            }
            Act::Add { epochs, guess } => self.add(epochs, guess),
            Act::Pause { trial: at } => {
                self.change(trial(self, at), Scheduler::pause, |t| t.paused = true);
            }
            Act::Resume { trial: at } => {
                self.change(trial(self, at), Scheduler::resume, |t| t.paused = false);
            }
            Act::Stop { trial: at } => {
                let id = trial(self, at);
                self.scheduler.stop(id).unwrap();
                self.trials.get_mut(&id).unwrap().stopped = true;
            }
            Act::SetEpochs { trial: at, epochs } => {
                let set = |s: &mut Scheduler, id| s.set_epochs(id, epochs);
                self.change(trial(self, at), set, |t| t.epochs = epochs);
            }
        }
        self.assign();
    }

    /// Lets time go by without reports. The scheduler may ask to be called again, later, and once
    /// for each unit that runs, or that starts then; after that it holds nothing back.
    fn wait(&mut self) {
        let slots: usize = self.workers.values().map(|record| record.slots).sum();
        let mut looks = 0;
        while let Some(at) = self.scheduler.look_again_at() {
            assert!(at > self.now, "{at:?} is no later than {:?}", self.now);
            looks += 1;
            assert!(looks <= 2 * (slots + self.running.len()), "it is asked again and again");
            self.now = at;
            self.assign();
        }
        if self.has_completed && self.policy == Policy::LongestRemainingFirst {
            let startable = self.startable();
            assert_eq!(startable, None, "it is held back for good");
        }
    }

    /// A trial and a worker that has a free slot for it, if there are any.
    fn startable(&self) -> Option<(TrialId, WorkerId)> {
        let busy = |worker| self.running.iter().filter(|other| other.worker == worker).count();
        let free = |&(&id, record): &(&WorkerId, &WorkerRecord)| {
            record.takes_units && busy(id) < record.slots
        };
        let workers: Vec<_> = self.workers.iter().filter(free).collect();
        let mut pairs = self.trials.keys().flat_map(|&id| {
            workers.iter().map(move |&(&worker, record)| (id, worker, &record.held))
        });
        let pair = pairs.find(|&(id, worker, held)| {
            let mut specs = self.partitions.iter().filter(|spec| held.contains(&spec.id));
            specs.any(|spec| self.could_start(id, spec, worker))
        });
        pair.map(|(id, worker, _)| (id, worker))
    }

    /// Whether the trial's next unit may be the one on a partition, and did not fail on the worker.
    fn could_start(&self, id: TrialId, spec: &PartitionSpec, worker: WorkerId) -> bool {
        let trial = &self.trials[&id];
        let epoch = self.epochs_done(trial);
        let trained = trial.trained.get(epoch as usize).map_or(0, Vec::len);
        let trains = trained < self.training;
        let runs = self.live().any(|other| other.unit.trial == id);
        let unit = Unit { trial: id, epoch, split: spec.split, partition: spec.id };
        let failed = trial.failures.get(&unit).is_some_and(|failed_on| failed_on.contains(&worker));
        let is_next = trains == (spec.split == Split::Train) && !(trains && runs);
        is_next && !failed && self.needs_now(id, spec)
    }

    fn change<E: std::fmt::Debug>(
        &mut self,
        id: TrialId,
        call: impl Fn(&mut Scheduler, TrialId) -> Result<(), E>,
        record: impl Fn(&mut TrialRecord),
    ) {
        let called = call(&mut self.scheduler, id);
        assert_eq!(called.is_err(), self.trials[&id].stopped);
        if called.is_ok() {
            record(self.trials.get_mut(&id).unwrap());
        }
    }

    /// Gives every partition a holder and every trial leave to go on, and runs to the end.
    pub(crate) fn finish(&mut self) {
        self.join(1, u64::MAX);
        let trials: Vec<TrialId> = self.trials.keys().copied().collect();
        for id in trials {
            self.change(id, Scheduler::resume, |t| t.paused = false);
        }
        self.assign();
        assert_eq!(self.scheduler.stalled(), []);
        while !self.scheduler.is_idle() {
            assert!(!self.running.is_empty(), "work is left, a holder is there, and nothing runs");
            self.complete(0, Duration::from_micros(500));
            self.assign();
        }
        assert!(self.running.is_empty());
        for (id, trial) in &self.trials {
            let recorded = self.scheduler.visit_order(*id).unwrap();
            let kept = trial.trained.iter().filter(|order| !order.is_empty()).cloned();
            assert_eq!(recorded, kept.collect::<Vec<_>>());
            if trial.stopped {
                continue;
            }
            let done = self.epochs_done(trial);
            assert!(done >= trial.epochs, "{id} has {done} of {} epochs", trial.epochs);
            for order in recorded {
                let distinct: BTreeSet<_> = order.iter().collect();
                assert_eq!(order.len(), self.training_partitions(), "completeness");
                assert_eq!(distinct.len(), order.len(), "completeness");
            }
        }
    }

    pub(crate) fn orders(&self) -> VisitOrders {
        let order = |id: &TrialId| (*id, self.scheduler.visit_order(*id).unwrap());
        VisitOrders(self.trials.keys().map(order).collect())
    }
}
