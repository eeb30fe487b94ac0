//! How far running units have come, and what that says before they end.
//!
//! The first unit of a slow worker takes long, and until it ends nothing is known of that worker. But
//! workers tell the rows that they are through with, and two such reports say what a row takes: the
//! unit's beginning, with a State to be fetched and a model to be built, is left out of it. What comes
//! of it goes into the fit of all units in the unit's place. Reports of a unit count each time that
//! its rows have doubled, so that a long unit says no more than a few things.

use std::time::Duration;

use super::cost::Learned;
use super::policy::Policy;
use super::scheduler::Scheduler;
use crate::id::{Split, Unit, WorkerId};

/// What is known of a running unit by what was reported of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Underway {
    /// The rows and the seconds of the first report.
    first: Option<(u64, f64)>,
    /// Rows since then, at the last report that counted.
    counted: u64,
    /// Seconds that the unit will take in all.
    pub(super) takes: Option<f64>,
    /// Its place among the units that are fitted together.
    pub(super) sample: Option<usize>,
}

impl Underway {
    /// Takes in that `rows` of `all` are done after so many seconds. Whether that counts.
    fn report(&mut self, rows: u64, all: u64, seconds: f64) -> bool {
        // A unit that a worker begins anew has fewer rows than before.
        let Some((first, begun)) = self.first.filter(|(first, _)| rows > *first) else {
            *self = Self { first: Some((rows, seconds)), counted: 0, ..*self };
            return false;
        };
        let since = rows - first;
        let per_row = (seconds - begun) / since as f64;
        self.takes = Some(seconds + per_row * all.saturating_sub(rows) as f64);
        let counts = since >= 2 * self.counted;
        if counts {
            self.counted = since;
        }
        counts
    }
}

impl Scheduler {
    /// Takes in that a running unit is through with so many rows, `now` on the clock of
    /// [`assign`](Self::assign).
    ///
    /// Nothing depends on its being told: it lets rates and speeds be known before the first units
    /// end. Reports of units that do not run, or that come when nothing is learned from them any more,
    /// are ignored.
    pub fn progress(&mut self, unit: Unit, worker: WorkerId, rows: u64, now: Duration) {
        self.now = self.now.max(now);
        if !self.learns_from_progress() {
            return;
        }
        let Some(&worker) = self.worker_numbers.get(&worker) else { return };
        let mut running = self.workers[worker].running.iter_mut();
        let Some(attempt) = running.find(|attempt| attempt.unit == unit) else { return };
        let seconds = self.now.saturating_sub(attempt.started).as_secs_f64();
        let all = self.partitions[attempt.partition].rows;
        if !attempt.underway.report(rows, all, seconds) || unit.split != Split::Train {
            return;
        }
        let Some(takes) = attempt.underway.takes else { return };
        let (trial, sample) = (attempt.trial, attempt.underway.sample);
        attempt.underway.sample = self.costs.fit_in(trial, worker, takes / all as f64, sample);
        self.units_since_change += 1;
        self.take_in(Learned::OfAll, trial, worker);
    }

    /// Whether [`progress`](Self::progress) has any effect at present.
    pub fn learns_from_progress(&self) -> bool {
        matches!(self.policy, Policy::LongestRemainingFirst | Policy::Seeded)
            && self.fits_units_together()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{PartitionId, TrialId};
    use crate::schedule::{Assignment, PartitionSpec, TrialSpec, VisitOrders, WorkerSpec};
    use crate::seed::Seed;

    /// Two workers with a partition each, and two trials of the same cost, both under way.
    fn two_units(policy: Policy) -> (Scheduler, Vec<Assignment>) {
        let partitions = [0, 1].map(PartitionId);
        let specs = partitions.map(|id| PartitionSpec { id, split: Split::Train, rows: 100 });
        let mut scheduler = Scheduler::new(policy, Seed(1), &specs).unwrap();
        for id in partitions {
            let (worker, partitions) = (WorkerId(id.0), vec![id]);
            scheduler.worker_joined(&WorkerSpec { id: worker, slots: 1, partitions }).unwrap();
            let trial = TrialSpec::new(TrialId(id.0.into()), 10);
            scheduler.add_trial(&TrialSpec { cost_per_row: Some(1.0), ..trial }).unwrap();
        }
        let started = scheduler.assign(Duration::ZERO);
        assert_eq!(started.len(), 2);
        (scheduler, started)
    }

    /// Each worker is through with 10 rows and then 20, after what it takes for them.
    fn report(scheduler: &mut Scheduler, started: &[Assignment], per_row: [f64; 2]) {
        for rows in [10, 20] {
            for &Assignment { unit, worker, .. } in started {
                let seconds = rows as f64 * per_row[worker.0 as usize];
                scheduler.progress(unit, worker, rows, Duration::from_secs_f64(seconds));
            }
        }
    }

    #[test]
    fn what_running_units_take_is_known_before_any_has_ended() {
        let (mut scheduler, started) = two_units(Policy::default());
        report(&mut scheduler, &started, [0.1, 0.1]);
        let alike = scheduler.lower_bound().makespan().as_secs_f64();
        assert!((190.0..202.0).contains(&alike), "20 units of 10 s, less 2 s: {alike}");
        let (mut scheduler, started) = two_units(Policy::default());
        report(&mut scheduler, &started, [0.1, 0.3]);
        let slow = scheduler.lower_bound().makespan().as_secs_f64();
        assert!(slow > 1.5 * alike, "worker 1 is slow, or its trial is: {slow}");
    }

    #[test]
    fn reports_of_units_that_do_not_run_are_ignored_and_so_are_all_where_nothing_is_chosen_by_them()
    {
        let (mut scheduler, started) = two_units(Policy::default());
        let before = scheduler.lower_bound();
        let elsewhere: Vec<Assignment> =
            started.iter().map(|s| Assignment { worker: WorkerId(7), ..*s }).collect();
        for &Assignment { unit, worker, .. } in &elsewhere {
            scheduler.progress(unit, worker, 50, Duration::ZERO);
        }
        assert_eq!(scheduler.lower_bound(), before);
        for policy in [Policy::Random, Policy::Replay(VisitOrders::default())] {
            let specs = [PartitionSpec { id: PartitionId(0), split: Split::Train, rows: 100 }];
            assert!(!Scheduler::new(policy, Seed(1), &specs).unwrap().learns_from_progress());
        }
    }

    #[test]
    fn two_reports_say_what_a_unit_takes_and_leave_its_beginning_out() {
        let mut underway = Underway::default();
        assert!(!underway.report(10, 100, 5.0), "it may have waited for its State");
        assert_eq!(underway.takes, None);
        assert!(underway.report(20, 100, 6.0));
        assert_eq!(underway.takes, Some(14.0));
    }

    #[test]
    fn reports_count_when_rows_have_doubled() {
        let mut underway = Underway::default();
        let counts = |report: &u64| underway.report(10 * report, 1000, *report as f64);
        assert_eq!((1..100).filter(counts).collect::<Vec<_>>(), [2, 3, 5, 9, 17, 33, 65]);
    }

    #[test]
    fn a_unit_that_begins_anew_is_measured_anew() {
        let mut underway = Underway::default();
        underway.report(50, 100, 5.0);
        underway.report(60, 100, 6.0);
        assert!(!underway.report(10, 100, 8.0));
        assert!(underway.report(20, 100, 10.0));
        assert_eq!(underway.takes, Some(26.0));
    }
}
