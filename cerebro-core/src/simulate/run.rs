//! The discrete-event clock under the scheduler.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use super::plan::{KnownCosts, Plan, STRAGGLING, SimulationError};
use crate::id::{PartitionId, Split, TrialId, Unit, WorkerId};
use crate::schedule::{PartitionSpec, Scheduler, TrialSpec, WorkerSpec};
use crate::seed::SeededRng;

/// Validation passes forward only: a third of the time of training.
const VALIDATION_COST: f64 = 1.0 / 3.0;

/// Workers say how far a unit is after a mini-batch, and at most so often, in nanoseconds.
const REPORT_INTERVAL: f64 = 1e8;
const BATCH_ROWS: u64 = 32;

/// A unit's time in a slot.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span {
    /// The unit.
    pub unit: Unit,
    /// The worker.
    pub worker: WorkerId,
    /// When it began.
    pub start: Duration,
    /// When it ended.
    pub end: Duration,
    /// How it ended.
    pub ending: Ending,
}

/// How a simulated unit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It was done.
    Completed,
    /// It failed and was tried again.
    Failed,
    /// Another attempt at the same unit was faster.
    Superseded,
}

/// What a simulated run came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// When the last unit ended.
    pub makespan: Duration,
    /// The longest trial: its training units one after the other and, in each epoch, its longest
    /// validation unit.
    pub longest_trial: Duration,
    /// The busiest worker: what it alone can do, or its share of all.
    pub busiest_worker: Duration,
    /// Units that completed.
    pub units: u64,
    /// Units that failed.
    pub failures: u64,
    /// Slot time of units that completed.
    pub busy: Duration,
    /// Slot time of units that failed or were superseded.
    pub lost: Duration,
    /// Second attempts at units that took too long.
    pub second_attempts: u64,
    /// Workers that the scheduler found to be slow.
    pub stragglers: u64,
    /// States that went to another worker.
    pub hops: u64,
    /// Bytes that they took along.
    pub hop_bytes: u64,
    /// Slots of all workers.
    pub slots: usize,
}

impl Outcome {
    /// The greater of the two lower bounds, which no schedule can beat.
    pub fn bound(&self) -> Duration {
        self.longest_trial.max(self.busiest_worker)
    }

    /// Makespan over bound: 1 is perfect.
    pub fn ratio(&self) -> f64 {
        self.makespan.as_secs_f64() / self.bound().as_secs_f64()
    }

    /// The part of the slots' time in which units completed.
    pub fn utilisation(&self) -> f64 {
        self.busy.as_secs_f64() / (self.makespan.as_secs_f64() * self.slots as f64)
    }
}

impl Plan {
    /// Runs the plan to its end. `observe` is told of each unit when it ends.
    pub fn run(&self, mut observe: impl FnMut(&Span)) -> Result<Outcome, SimulationError> {
        self.check()?;
        let mut scheduler = self.scheduler()?;
        scheduler.set_speculation(self.speculation);
        let mut run = Run::new(self);
        loop {
            run.reports_count = scheduler.learns_from_progress();
            for assignment in scheduler.assign(Duration::from_nanos(run.now)) {
                run.outcome.second_attempts += u64::from(assignment.speculative);
                run.start(assignment.unit, assignment.worker, assignment.hop_from.is_some());
            }
            let Some(now) = run.next_event() else {
                break;
            };
            let again = scheduler.look_again_at();
            if let Some(again) = again.filter(|again| *again < Duration::from_nanos(now)) {
                run.now = again.as_nanos() as u64;
                continue;
            }
            run.now = now;
            while let Some(happening) = run.next_happening_now() {
                let attempt = match happening {
                    Happening::Ended(attempt) => attempt,
                    Happening::Reported(unit, worker, rows) => {
                        scheduler.progress(unit, worker, rows, Duration::from_nanos(now));
                        continue;
                    }
                };
                let cost = Duration::from_nanos(now - attempt.start);
                match attempt.ending {
                    Ending::Completed => {
                        scheduler.completed(attempt.unit, attempt.worker, cost)?;
                        run.outcome.stragglers += scheduler.new_stragglers().len() as u64;
                    }
                    Ending::Failed | Ending::Superseded => {
                        scheduler.failed(attempt.unit, attempt.worker)?;
                    }
                }
                run.account(&attempt);
                observe(&attempt.span(now));
                let is_done = attempt.ending == Ending::Completed && self.speculation.is_some();
                while let Some(other) = is_done.then(|| run.supersede(attempt.unit)).flatten() {
                    scheduler.failed(other.unit, other.worker)?;
                    run.account(&other);
                    observe(&other.span(now));
                }
            }
        }
        if !scheduler.is_idle() {
            let stalls = scheduler.stalled();
            let stalls: Vec<String> = stalls.iter().map(ToString::to_string).collect();
            return Err(SimulationError::Stalled { units: run.units, stalls: stalls.join("; ") });
        }
        Ok(run.outcome())
    }

    fn check(&self) -> Result<(), SimulationError> {
        let check = |what, found: f64, valid: bool, expected| {
            if valid { Ok(()) } else { Err(SimulationError::Invalid { what, found, expected }) }
        };
        let jitter = (0.0..=3.0).contains(&self.jitter);
        check("jitter", self.jitter, jitter, "between 0 and 3")?;
        let rate = (0.0..=0.9).contains(&self.failure_rate);
        let stragglers = (0.0..=1.0).contains(&self.straggler_rate);
        check("straggler rate", self.straggler_rate, stragglers, "between 0 and 1")?;
        check("failure rate", self.failure_rate, rate, "between 0 and 0.9")?;
        if let Some(bandwidth) = self.bandwidth {
            let valid = bandwidth.is_finite() && bandwidth > 0.0;
            check("bandwidth", bandwidth, valid, "greater than 0 bytes per second")?;
        }
        for worker in &self.workers {
            let valid = worker.slowness.is_finite() && worker.slowness > 0.0;
            check("slowness of a worker", worker.slowness, valid, "greater than 0")?;
        }
        Ok(())
    }

    fn scheduler(&self) -> Result<Scheduler, SimulationError> {
        let partitions: Vec<PartitionSpec> = (0..)
            .zip(&self.partitions)
            .map(|(id, partition)| PartitionSpec {
                id: PartitionId(id),
                split: partition.split,
                rows: partition.rows,
            })
            .collect();
        let mut scheduler = Scheduler::new(self.policy.clone(), self.seed, &partitions)?;
        for (id, worker) in (0..).zip(&self.workers) {
            scheduler.worker_joined(&WorkerSpec {
                id: WorkerId(id),
                slots: worker.slots,
                partitions: worker.partitions.iter().map(|&id| PartitionId(id)).collect(),
            })?;
        }
        let mut guesses = self.seed.derive("guesses", &[]).rng();
        for (id, trial) in (0..).zip(&self.trials) {
            let truth = trial.per_row.as_secs_f64();
            let cost_per_row = match self.costs {
                KnownCosts::None => None,
                KnownCosts::Ratios => Some(truth),
                KnownCosts::Guesses { sigma } => Some(truth * (sigma * guesses.normal()).exp()),
            };
            scheduler.add_trial(&TrialSpec {
                cost_per_row,
                state_bytes: Some(trial.state_bytes),
                ..TrialSpec::new(TrialId(id), self.epochs)
            })?;
        }
        Ok(scheduler)
    }
}

#[derive(Clone, Copy, Debug)]
struct Attempt {
    unit: Unit,
    worker: WorkerId,
    start: u64,
    /// When its State was there, and the time on the partition since.
    begun: u64,
    work: u64,
    ending: Ending,
    /// Time between two reports, and the rows that are done in it.
    report_every: u64,
    report_rows: u64,
    reports: u64,
}

/// What happens next.
enum Happening {
    Ended(Attempt),
    Reported(Unit, WorkerId, u64),
}

/// What an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Report,
    End,
}

impl Attempt {
    fn span(&self, end: u64) -> Span {
        let (start, end) = (Duration::from_nanos(self.start), Duration::from_nanos(end));
        Span { unit: self.unit, worker: self.worker, start, end, ending: self.ending }
    }
}

struct Run<'a> {
    plan: &'a Plan,
    /// Nanoseconds since the start.
    now: u64,
    /// When a running unit ends or reports how far it has come, and its place among those running.
    events: BinaryHeap<Reverse<(u64, u32, Kind)>>,
    /// Whether the scheduler heeds reports.
    reports_count: bool,
    running: Vec<Attempt>,
    vacant: Vec<u32>,
    rng: SeededRng,
    units: u64,
    outcome: Outcome,
    /// For each trial: training time, and its longest validation unit of each epoch.
    trial_time: Vec<u64>,
    validation_peak: Vec<(u32, u64)>,
    /// For each worker, time on partitions that it alone holds.
    alone_time: Vec<u64>,
    holders: Vec<u32>,
    /// For each partition, the slowness of its fastest holder.
    fastest: Vec<f64>,
    /// All work, in seconds of a worker of usual speed.
    work: f64,
}

impl<'a> Run<'a> {
    fn new(plan: &'a Plan) -> Self {
        let mut holders = vec![0; plan.partitions.len()];
        let mut fastest = vec![f64::INFINITY; plan.partitions.len()];
        for worker in &plan.workers {
            for &partition in &worker.partitions {
                holders[partition as usize] += 1;
                let fastest = &mut fastest[partition as usize];
                *fastest = fastest.min(worker.slowness);
            }
        }
        Self {
            plan,
            now: 0,
            events: BinaryHeap::new(),
            reports_count: false,
            running: Vec::new(),
            vacant: Vec::new(),
            rng: plan.seed.derive("simulation", &[]).rng(),
            units: 0,
            outcome: Outcome::default(),
            trial_time: vec![0; plan.trials.len()],
            validation_peak: vec![(0, 0); plan.trials.len()],
            alone_time: vec![0; plan.workers.len()],
            holders,
            fastest,
            work: 0.0,
        }
    }

    fn start(&mut self, unit: Unit, worker: WorkerId, hops: bool) {
        let trial = &self.plan.trials[unit.trial.0 as usize];
        let rows = self.plan.partitions[unit.partition.0 as usize].rows as f64;
        let slowness = self.plan.workers[worker.0 as usize].slowness;
        let mut seconds = trial.per_row.as_secs_f64() * rows * slowness;
        if unit.split == Split::Validation {
            seconds *= VALIDATION_COST;
        }
        if self.plan.jitter > 0.0 {
            seconds *= (self.plan.jitter * self.rng.normal()).exp();
        }
        if self.plan.straggler_rate > 0.0 && self.rng.unit() < self.plan.straggler_rate {
            seconds *= STRAGGLING;
        }
        let failed = self.plan.failure_rate > 0.0 && self.rng.unit() < self.plan.failure_rate;
        let full_seconds = seconds;
        if failed {
            seconds *= self.rng.unit();
        }
        let work = (seconds * 1e9) as u64;
        let mut hop = 0;
        if hops {
            self.outcome.hops += 1;
            self.outcome.hop_bytes += trial.state_bytes;
            hop = self.plan.bandwidth.map_or(0, |b| (trial.state_bytes as f64 / b * 1e9) as u64);
        }
        let ending = if failed { Ending::Failed } else { Ending::Completed };
        let batch = full_seconds * 1e9 * BATCH_ROWS as f64 / rows;
        let batches = (REPORT_INTERVAL / batch).ceil().max(1.0);
        let attempt = Attempt {
            unit,
            worker,
            start: self.now,
            begun: self.now + hop,
            work,
            ending,
            report_every: (batch * batches) as u64,
            report_rows: BATCH_ROWS * batches as u64,
            reports: 0,
        };
        let place = if let Some(place) = self.vacant.pop() {
            self.running[place as usize] = attempt;
            place
        } else {
            self.running.push(attempt);
            self.running.len() as u32 - 1
        };
        let begun = attempt.begun;
        self.events.push(Reverse((begun + work.max(1), place, Kind::End)));
        self.report_later(place, begun);
    }

    /// Has a unit report, unless it ends before.
    fn report_later(&mut self, place: u32, now: u64) {
        let attempt = &self.running[place as usize];
        let at = now + attempt.report_every;
        if self.reports_count && at < attempt.begun + attempt.work {
            self.events.push(Reverse((at, place, Kind::Report)));
        }
    }

    /// When the next unit ends or reports. Nobody waits for those that were superseded.
    fn next_event(&mut self) -> Option<u64> {
        while let Some(&Reverse((at, place, kind))) = self.events.peek() {
            if self.running[place as usize].ending != Ending::Superseded {
                return Some(at);
            }
            self.events.pop();
            if kind == Kind::End {
                self.vacant.push(place);
            }
        }
        None
    }

    /// Ends another attempt at a unit that is done, if there is one.
    fn supersede(&mut self, unit: Unit) -> Option<Attempt> {
        let waits = |at: &&Reverse<(u64, u32, Kind)>| {
            let attempt = &self.running[at.0.1 as usize];
            attempt.unit == unit && attempt.ending != Ending::Superseded
        };
        let place = self.events.iter().find(waits)?.0.1 as usize;
        self.running[place].ending = Ending::Superseded;
        Some(self.running[place])
    }

    fn next_happening_now(&mut self) -> Option<Happening> {
        if self.next_event()? > self.now {
            return None;
        }
        let Reverse((_, place, kind)) = self.events.pop()?;
        let attempt = &mut self.running[place as usize];
        if kind == Kind::End {
            self.vacant.push(place);
            return Some(Happening::Ended(*attempt));
        }
        attempt.reports += 1;
        let Attempt { unit, worker, .. } = *attempt;
        let rows = attempt.reports * attempt.report_rows;
        self.report_later(place, self.now);
        Some(Happening::Reported(unit, worker, rows))
    }

    fn account(&mut self, attempt: &Attempt) {
        let took = Duration::from_nanos(self.now - attempt.start);
        if attempt.ending != Ending::Completed {
            self.outcome.failures += u64::from(attempt.ending == Ending::Failed);
            self.outcome.lost += took;
            return;
        }
        self.units += 1;
        self.outcome.busy += took;
        let (trial, worker) = (attempt.unit.trial.0 as usize, attempt.worker.0 as usize);
        let partition = attempt.unit.partition.0 as usize;
        // What it would have taken where it takes least.
        let slowness = self.plan.workers[worker].slowness;
        let least = (attempt.work as f64 * (self.fastest[partition] / slowness)) as u64;
        match attempt.unit.split {
            Split::Train => self.trial_time[trial] += least,
            Split::Validation => {
                let (epoch, peak) = &mut self.validation_peak[trial];
                if *epoch != attempt.unit.epoch {
                    self.trial_time[trial] += *peak;
                    (*epoch, *peak) = (attempt.unit.epoch, 0);
                }
                *peak = (*peak).max(least);
            }
        }
        if self.holders[partition] == 1 {
            self.alone_time[worker] += attempt.work;
        }
        self.work += attempt.work as f64 * 1e-9 / slowness;
    }

    fn outcome(mut self) -> Outcome {
        let workers = &self.plan.workers;
        let trials = self.trial_time.iter().zip(&self.validation_peak);
        let longest = trials.map(|(time, (_, peak))| time + peak).max().unwrap_or(0);
        let alone = self.alone_time.iter().zip(workers);
        let alone = alone.map(|(&time, w)| time as f64 * 1e-9 / w.slots as f64);
        let speed: f64 = workers.iter().map(|w| w.slots as f64 / w.slowness).sum();
        let busiest = alone.fold(self.work / speed, f64::max);
        self.outcome.units = self.units;
        self.outcome.makespan = Duration::from_nanos(self.now);
        self.outcome.longest_trial = Duration::from_nanos(longest);
        self.outcome.busiest_worker = Duration::from_secs_f64(busiest);
        self.outcome.slots = workers.iter().map(|worker| worker.slots).sum();
        self.outcome
    }
}
