//! What became of a unit, and what it teaches.

use std::ops::Range;
use std::time::Duration;

use super::cost::Learned;
use super::error::ScheduleError;
use super::job::{Done, Phase};
use super::report::{Completion, Failure, Next};
use super::scheduler::{Attempt, Scheduler};
use super::speculation::{Other, STRAGGLES};
use crate::id::{Split, Unit, WorkerId};

/// A change of a rate or a speed that is worth computing all sums anew.
const CHANGE: f64 = 0.01;

/// The same where that takes long: for more open visits than so many times the units done since.
const GREAT_CHANGE: f64 = 0.2;
const VISITS_PER_UNIT: usize = 256;

/// The most visits, of all trials on all partitions, for which the first units are fitted together.
const FITTED_VISITS: usize = 1 << 16;

impl Scheduler {
    /// Takes in that a unit is done, and the time that it took.
    pub fn completed(
        &mut self,
        unit: Unit,
        worker: WorkerId,
        cost: Duration,
    ) -> Result<Completion, ScheduleError> {
        let (worker, attempt) = self.end_attempt(unit, worker)?;
        let number = attempt.trial;
        self.learn(worker, &attempt, cost);
        if self.settle(unit, true) == Other::Done {
            return Ok(Completion::Superseded);
        }
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
        if self.settle(unit, false) != Other::None {
            return Ok(Failure::Discarded);
        }
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

    pub(super) fn reopen(&mut self, trial: usize, partition: usize) {
        self.board.reopen(trial, partition);
        self.lookahead.rewind_rotation();
        self.refresh_fixed(trial);
        self.give_up_unwanted_epoch(trial);
    }

    fn learn(&mut self, worker: usize, attempt: &Attempt, cost: Duration) {
        let (trial, spec) = (attempt.trial, &self.partitions[attempt.partition]);
        self.lookahead.earn(cost.as_secs_f64(), self.board.units_left);
        self.units_since_change += 1;
        if !self.fits_units_together() {
            self.costs.end_fit();
        }
        let sample = attempt.underway.sample;
        let learned = self.costs.learn(trial, worker, spec.split, spec.rows, cost, sample);
        self.take_in(learned, trial, worker);
    }

    /// Brings the board up to what was learned of a unit.
    pub(super) fn take_in(&mut self, learned: Learned, trial: usize, worker: usize) {
        match learned {
            Learned::OfUnit => {
                self.refresh_rate(trial);
                self.refresh_slowness(worker..worker + 1);
            }
            Learned::OfAll => {
                (0..self.trials.len()).for_each(|trial| self.refresh_rate(trial));
                self.refresh_slowness(0..self.workers.len());
            }
        }
        self.lookahead.measured(|worker| self.costs.has_measured(worker));
        let scales = self.costs.scales();
        if differs(scales.0, self.scales.0, GREAT_CHANGE)
            || differs(scales.1, self.scales.1, GREAT_CHANGE)
        {
            self.scales = scales;
            for trial in 0..self.trials.len() {
                if !self.costs.is_measured(trial) {
                    self.refresh_rate(trial);
                }
            }
        }
    }

    /// Whether units are fitted together, since they are few.
    pub(super) fn fits_units_together(&self) -> bool {
        self.costs.fits() && self.board_size() <= FITTED_VISITS
    }

    pub(super) fn refresh_slowness(&mut self, workers: Range<usize>) {
        let costs = &self.costs;
        let layout = &self.board.layout;
        let is_due = self.board_size() <= self.units_since_change * VISITS_PER_UNIT;
        let change = if is_due { CHANGE } else { GREAT_CHANGE };
        let has_changed =
            |&worker: &usize| differs(costs.slowness(worker), layout.slowness(worker), change);
        let changed: Vec<usize> = workers.clone().filter(has_changed).collect();
        if !changed.is_empty() {
            self.units_since_change = 0;
            self.board.relayout(|layout| {
                layout.set_slowness(changed.iter().map(|&worker| (worker, costs.slowness(worker))));
            });
            self.lookahead.speeds_changed(&self.board);
        }
        for worker in workers {
            self.board.seats[worker].measured = costs.is_speed_known(worker);
            self.fastest = self.fastest.min(costs.slowness(worker));
            self.may_straggle |= costs.lasting_slowness(worker) >= STRAGGLES * self.fastest;
        }
    }

    /// What changes of all rates or speeds cost to take in.
    fn board_size(&self) -> usize {
        self.board.working.len() * self.board.layout.partitions()
    }

    fn refresh_rate(&mut self, trial: usize) {
        let training = self.costs.rate(trial, Split::Train);
        let validation = self.costs.rate(trial, Split::Validation);
        let job = &self.board.jobs[trial];
        if differs(training, job.training_rate, CHANGE)
            || differs(validation, job.validation_rate, CHANGE)
        {
            self.board.change(trial, |job| {
                job.training_rate = training;
                job.validation_rate = validation;
            });
        }
    }
}

fn differs(a: f64, b: f64, by: f64) -> bool {
    (a - b).abs() > by * a.abs().min(b.abs())
}
