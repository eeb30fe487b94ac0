//! Units that run twice: where one takes far longer than expected and a slot is idle, another worker
//! that holds its partition runs it as well, and the first result counts (Dean and Ghemawat 2004,
//! "`MapReduce`: simplified data processing on large clusters", OSDI, section 3.6).
//!
//! A trial is still in one training unit only: both attempts start from the same version of its
//! State and stand for the same next one.

use std::time::Duration;

use super::report::{Assignment, Straggler};
use super::scheduler::{Attempt, Scheduler};
use crate::id::Unit;

/// A worker this many times slower than the usual one is a straggler.
pub(super) const STRAGGLES: f64 = 2.0;

/// A unit of which two attempts run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Double {
    unit: Unit,
    /// Whether one of them is done already; then nobody waits for the other.
    settled: bool,
}

/// What else there is of a unit of which one attempt has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Other {
    /// Nothing: it was the only attempt.
    None,
    /// Another attempt, which goes on.
    Running,
    /// Another attempt, which was faster.
    Done,
}

impl Scheduler {
    /// Lets a unit that has run `factor` times as long as it would take on another worker run a second
    /// time there, if that worker holds its partition and would be idle otherwise. The first result
    /// counts, the other is [superseded](super::Completion::Superseded). `None`, the default, runs no
    /// unit twice.
    ///
    /// Only units of trials that were measured before have an expected time. Factors below 1.1 are
    /// taken for 1.1.
    pub fn set_speculation(&mut self, factor: Option<f64>) {
        self.speculation = factor.filter(|factor| factor.is_finite()).map(|factor| factor.max(1.1));
    }

    /// When a running unit is to run a second time, if an idle worker can run any.
    pub(super) fn overdue_at(&self) -> Option<Duration> {
        let factor = self.speculation?;
        let free = self.board.free().iter().map(|&worker| worker as usize);
        let times = free.flat_map(|worker| {
            self.candidates(worker).map(move |attempt| self.overdue(attempt, worker, factor))
        });
        times.min()
    }

    /// Starts second attempts of overdue units in slots that are still idle.
    pub(super) fn speculate(&mut self, assignments: &mut Vec<Assignment>) {
        let Some(factor) = self.speculation else { return };
        for worker in self.board.free().to_vec() {
            let worker = worker as usize;
            while self.board.seats[worker].free > 0 {
                let candidates = self.candidates(worker);
                let overdue = candidates.filter(|&a| self.overdue(a, worker, factor) <= self.now);
                let left = |attempt: &Attempt| self.board.remaining(attempt.trial);
                let most_left = overdue.max_by(|a, b| left(a).total_cmp(&left(b)));
                let Some(attempt) = most_left else { break };
                self.lookahead.end_rotation();
                self.doubles.push(Double { unit: attempt.unit, settled: false });
                assignments.push(self.start_again(attempt, worker));
            }
        }
    }

    /// When a unit has taken so many times as long as it would take on another worker.
    fn overdue(&self, attempt: Attempt, worker: usize, factor: f64) -> Duration {
        let expected = self.board.estimate(attempt.trial, attempt.partition, worker);
        let limit = Duration::try_from_secs_f64(expected * factor).unwrap_or(Duration::MAX);
        attempt.started.saturating_add(limit)
    }

    /// The units that run once, elsewhere, and could run on a worker as well.
    fn candidates(&self, worker: usize) -> impl Iterator<Item = Attempt> {
        let elsewhere = self.workers.iter().enumerate().filter(move |&(other, _)| other != worker);
        let attempts = elsewhere.flat_map(|(_, state)| state.running.iter().copied());
        attempts.filter(move |attempt| {
            self.board.fits_on(attempt.trial, attempt.partition, worker)
                && self.board.jobs[attempt.trial].active
                && self.costs.is_measured(attempt.trial)
                && self.doubles.iter().all(|double| double.unit != attempt.unit)
        })
    }

    /// An attempt at a unit has ended: what there is of the other one. `completed` says whether it
    /// gave a result.
    pub(super) fn settle(&mut self, unit: Unit, completed: bool) -> Other {
        let Some(at) = self.doubles.iter().position(|double| double.unit == unit) else {
            return Other::None;
        };
        if self.doubles[at].settled {
            self.doubles.swap_remove(at);
            Other::Done
        } else if completed {
            self.doubles[at].settled = true;
            self.learn_from_late(unit);
            Other::Running
        } else {
            self.doubles.swap_remove(at);
            Other::Running
        }
    }

    /// Takes in that a unit was done elsewhere before it was here, which says how slow it is here at
    /// least.
    fn learn_from_late(&mut self, unit: Unit) {
        let workers = self.workers.iter().enumerate();
        let late = workers.flat_map(|(worker, state)| {
            state.running.iter().filter(|a| a.unit == unit).map(move |attempt| (worker, *attempt))
        });
        for (worker, attempt) in late.collect::<Vec<_>>() {
            let elapsed = self.now.saturating_sub(attempt.started).as_secs_f64();
            let expected = self.board.estimate(attempt.trial, attempt.partition, worker);
            if elapsed > expected && expected > 0.0 {
                self.costs.learn_slowness(worker, elapsed / expected);
                self.refresh_slowness(worker..worker + 1);
            }
        }
    }

    /// The workers of which the last training units all took at least twice as long as usual, and of
    /// which this was not said before. They are given fewer units where others hold the same
    /// partitions.
    pub fn new_stragglers(&mut self) -> Vec<Straggler> {
        if !std::mem::take(&mut self.may_straggle) {
            return Vec::new();
        }
        let measured = |&worker: &usize| {
            self.board.layout.takes_units(worker) && self.costs.lasting_slowness(worker) > 0.0
        };
        let mut speeds: Vec<f64> = (0..self.workers.len())
            .filter(measured)
            .map(|worker| self.costs.slowness(worker))
            .collect();
        speeds.sort_by(f64::total_cmp);
        // The lower median: of two workers, the faster one is the usual one.
        let Some(&usual) = speeds.get(speeds.len().saturating_sub(1) / 2) else {
            return Vec::new();
        };
        let mut stragglers = Vec::new();
        for worker in (0..self.workers.len()).filter(measured).collect::<Vec<_>>() {
            let straggles = self.costs.lasting_slowness(worker) >= STRAGGLES * usual;
            if straggles && !std::mem::replace(&mut self.workers[worker].straggles, true) {
                let factor = self.costs.slowness(worker) / usual;
                stragglers.push(Straggler { worker: self.workers[worker].id, factor });
            }
        }
        stragglers
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{PartitionId, Split, TrialId, WorkerId};
    use crate::schedule::{PartitionSpec, Policy, TrialSpec, WorkerSpec};
    use crate::seed::Seed;

    /// Three workers with a partition each and six trials, whose units take a second times what
    /// `slowness` says of the worker and of how many units it has done.
    fn stragglers(slowness: impl Fn(u32, usize) -> f64) -> Vec<Straggler> {
        let partitions = [0, 1, 2].map(PartitionId);
        let specs = partitions.map(|id| PartitionSpec { id, split: Split::Train, rows: 100 });
        let mut scheduler = Scheduler::new(Policy::default(), Seed(1), &specs).unwrap();
        for partition in partitions {
            let id = WorkerId(partition.0);
            let worker = WorkerSpec { id, slots: 1, partitions: vec![partition] };
            scheduler.worker_joined(&worker).unwrap();
        }
        for trial in 0..6 {
            scheduler.add_trial(&TrialSpec::new(TrialId(trial), 10)).unwrap();
        }
        let (mut done, mut now, mut stragglers) = ([0; 3], Duration::ZERO, Vec::new());
        while !scheduler.is_idle() {
            for start in scheduler.assign(now) {
                let units = &mut done[start.worker.0 as usize];
                let cost = Duration::from_secs_f64(slowness(start.worker.0, *units));
                *units += 1;
                now += cost;
                scheduler.completed(start.unit, start.worker, cost).unwrap();
                stragglers.extend(scheduler.new_stragglers());
            }
        }
        stragglers
    }

    #[test]
    fn a_worker_that_stays_slow_is_told_of_once_with_its_factor() {
        let told = stragglers(|worker, _| if worker == 1 { 3.0 } else { 1.0 });
        let [straggler] = told[..] else { panic!("{told:?}") };
        assert_eq!(straggler.worker, WorkerId(1));
        assert!((2.0..=3.5).contains(&straggler.factor), "{straggler:?}");
    }

    #[test]
    fn a_worker_that_was_busy_for_a_moment_is_not_called_slow() {
        let told = stragglers(|_, units| if units % 8 < 3 { 5.0 } else { 1.0 });
        assert!(told.is_empty(), "{told:?}");
    }
}
