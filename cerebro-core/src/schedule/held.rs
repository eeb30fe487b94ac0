//! Units that are held back for one that is about to end, and for how long.
//!
//! What is worth waiting for was found by playing the rest of the run through with units that take what
//! is expected of them. So a unit is waited for while that is what it does, and for a while longer: by
//! the window of the plan, or by the time of a unit where jobs go round.

use std::time::Duration;

use super::lookahead::Running;
use super::scheduler::{Attempt, Scheduler};

/// A unit that takes so many times as long as expected is late.
const LATE: f64 = 1.01;

/// One that is late is taken to need this part of its time more.
const MORE: f64 = 0.1;

/// Clocks are read a little early or late.
const TICK: Duration = Duration::from_millis(1);

impl Scheduler {
    /// When [`assign`](Self::assign) should be called again if nothing else happens before: a unit will
    /// have taken so long that others do not wait for it any more, or that it should run
    /// [a second time](Self::set_speculation). Later than the last call of `assign`; `None` where only
    /// something that happens can make a difference.
    pub fn look_again_at(&self) -> Option<Duration> {
        self.overdue_at().into_iter().chain(self.held_until()).min()
    }

    /// When some unit that runs is not waited for any more, if any is.
    fn held_until(&self) -> Option<Duration> {
        let patience = self.lookahead.patience()?;
        let mut free = self.board.free().iter();
        free.find(|&&worker| self.board.longest_fitting(worker as usize).is_some())?;
        let workers = self.workers.iter().enumerate();
        let times = workers.flat_map(|(worker, state)| {
            state.running.iter().map(move |attempt| {
                let expected = self.expected(attempt, worker);
                // Then it is late by less than the patience, less what it is taken to need more.
                let seconds = (expected * LATE).max((expected + patience) / (1.0 + MORE));
                let after = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
                attempt.started.saturating_add(after).saturating_add(TICK)
            })
        });
        times.filter(|at| *at > self.now).min()
    }

    /// The running units, with the seconds that they still take.
    pub(super) fn running_units(&self) -> Vec<Running> {
        let workers = self.workers.iter().enumerate();
        let units = workers.flat_map(|(worker, state)| {
            state.running.iter().map(move |attempt| {
                let expected = self.expected(attempt, worker);
                let ends = self.still_takes(attempt, worker);
                let elapsed = self.elapsed(attempt);
                Running {
                    ends,
                    late: (elapsed - expected).max(0.0),
                    overrun: elapsed + ends - expected.min(self.estimate(attempt, worker)),
                    job: attempt.trial as u32,
                    partition: attempt.partition as u32,
                    worker: worker as u32,
                }
            })
        });
        units.collect()
    }

    /// Seconds that a running unit still takes, by what is known by now.
    pub(super) fn still_takes(&self, attempt: &Attempt, worker: usize) -> f64 {
        let (elapsed, expected) = (self.elapsed(attempt), self.expected(attempt, worker));
        if elapsed > expected * LATE { elapsed * MORE } else { (expected - elapsed).max(0.0) }
    }

    fn elapsed(&self, attempt: &Attempt) -> f64 {
        self.now.saturating_sub(attempt.started).as_secs_f64()
    }

    /// Seconds that a running unit takes in all, by what was said of it, or of others.
    fn expected(&self, attempt: &Attempt, worker: usize) -> f64 {
        attempt.underway.takes.unwrap_or_else(|| self.estimate(attempt, worker))
    }

    fn estimate(&self, attempt: &Attempt, worker: usize) -> f64 {
        self.board.estimate(attempt.trial, attempt.partition, worker)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{PartitionId, Split, TrialId, WorkerId};
    use crate::schedule::{PartitionSpec, Policy, TrialSpec, WorkerSpec};
    use crate::seed::Seed;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_unit_that_hangs_is_waited_for_as_long_as_a_unit_takes_where_trials_go_round() {
        let partitions = [0, 1].map(PartitionId);
        let specs = partitions.map(|id| PartitionSpec { id, split: Split::Train, rows: 100 });
        let mut scheduler = Scheduler::new(Policy::default(), Seed(1), &specs).unwrap();
        for id in partitions {
            let (worker, partitions) = (WorkerId(id.0), vec![id]);
            scheduler.worker_joined(&WorkerSpec { id: worker, slots: 1, partitions }).unwrap();
        }
        // One goes round the workers by itself, the others together.
        for (id, cost) in [(0, 2.0), (1, 1.0), (2, 1.0)] {
            let trial = TrialSpec::new(TrialId(id), 1);
            scheduler.add_trial(&TrialSpec { cost_per_row: Some(cost), ..trial }).unwrap();
        }
        let started = scheduler.assign(Duration::ZERO);
        let long = started.iter().find(|start| start.unit.trial == TrialId(0)).unwrap();
        let hangs = started.iter().find(|start| start.unit.trial != TrialId(0)).unwrap();
        scheduler.completed(long.unit, long.worker, 2 * SECOND).unwrap();
        assert_eq!(scheduler.assign(2 * SECOND), [], "its worker waits for the other two");
        let again = scheduler.look_again_at().unwrap();
        assert!(again > 2 * SECOND && again < 3 * SECOND, "{again:?}");
        let [start] = scheduler.assign(again)[..] else { panic!("a worker is idle") };
        assert_eq!(start.worker, long.worker);
        assert!(start.unit.trial != TrialId(0) && start.unit.trial != hangs.unit.trial);
        assert_eq!(scheduler.look_again_at(), None);
    }
}
