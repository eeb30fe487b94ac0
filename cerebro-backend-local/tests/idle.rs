//! Slots without work: what is told of them, and how early the search is asked for more trials.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use cerebro_backend_local::LocalBackend;
use cerebro_core::experiment::{Experiment, ExperimentBuilder, ExperimentResult};
use cerebro_core::observe::Event;
use cerebro_core::schedule::Policy;
use cerebro_core::search::{
    Ask, Decision, EpochReport, Grid, Rungs, Search, SearchError, SuccessiveHalving,
};
use cerebro_core::testing::{self, Tally};
use cerebro_core::{Config, Model, ModelError, Objective, Slot, TrialId};

const EPOCHS: u32 = 2;

fn rates(count: u32) -> impl Iterator<Item = Config> {
    (0..count).map(|n| Config::new().with("rate", f64::from(n) / 100.0))
}

fn experiment(partitions: u32, search: impl Search + 'static) -> ExperimentBuilder {
    Experiment::builder()
        .dataset(testing::dataset(partitions, 1))
        .model(|config: &Config, _: &Slot| -> Result<Box<dyn Model>, ModelError> {
            Ok(Box::new(Tally::new(config)?))
        })
        .search(search)
        .objective(Objective::maximize("accuracy"))
        .epochs(EPOCHS)
        .seed(5)
}

/// What was told of trials that are too few: trials, slots, limit.
type Told = Vec<(usize, usize, Option<usize>)>;

/// Runs it on a worker for each partition.
fn run(builder: ExperimentBuilder, workers: usize) -> (ExperimentResult, Told) {
    let told: Arc<Mutex<Told>> = Arc::default();
    let heard = Arc::clone(&told);
    let builder = builder.observer(move |_: Duration, event: &Event| {
        if let Event::FewTrials { trials, slots, limit } = event {
            heard.lock().unwrap().push((*trials, *slots, *limit));
        }
    });
    let backend = LocalBackend::builder().workers(workers).build().unwrap();
    let result = builder.build().unwrap().run_blocking(Arc::new(backend)).unwrap();
    let told = told.lock().unwrap().clone();
    (result, told)
}

fn grid(trials: u32) -> Grid {
    Grid::of(rates(trials)).unwrap()
}

#[test]
fn trials_that_are_fewer_than_the_slots_are_told_of_once() {
    for policy in [Policy::LongestRemainingFirst, Policy::Seeded, Policy::Random] {
        let (_, told) = run(experiment(4, grid(3)).policy(policy), 4);
        assert_eq!(told, [(3, 4, None)]);
    }
}

#[test]
fn the_last_ones_of_enough_trials_are_not_told_of() {
    for trials in [4, 9] {
        let (_, told) = run(experiment(4, grid(trials)), 4);
        assert_eq!(told, []);
    }
}

#[test]
fn a_limit_on_trials_under_way_that_leaves_slots_idle_is_named() {
    let (_, told) = run(experiment(4, grid(9)).concurrent_trials(2), 4);
    assert_eq!(told, [(2, 4, Some(2))]);
}

#[test]
fn a_search_that_waits_for_results_with_fewer_trials_than_slots_is_told_of() {
    // All four train their first epoch, then the two better ones go on.
    let halving = SuccessiveHalving::new(grid(4), 4, Rungs::new(1, EPOCHS, 2).unwrap()).unwrap();
    let (result, told) = run(experiment(4, halving), 4);
    assert_eq!(result.trials().count(), 4);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].0 < 4 && told[0].1 == 4 && told[0].2.is_none(), "{told:?}");
}

/// Learns nothing, and notes what is under way when it is told. To the driver it is like any search
/// that learns from results.
#[derive(Clone, Debug)]
struct Watched {
    trials: u64,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Debug, Default)]
struct Seen {
    started: u64,
    ended: u64,
    /// Each time that a result came: the trials under way, and those that had ended.
    results: Vec<(u64, u64)>,
}

impl Search for Watched {
    fn ask(&mut self, next: TrialId) -> Ask {
        if next.0 == self.trials {
            return Ask::Finished;
        }
        self.seen.lock().unwrap().started += 1;
        Ask::Start(Config::new().with("rate", next.0 as f64 / 100.0))
    }

    fn tell(&mut self, report: &EpochReport) -> Decision {
        let mut seen = self.seen.lock().unwrap();
        let result = (seen.started - seen.ended, seen.ended);
        seen.results.push(result);
        seen.ended += u64::from(report.epoch == report.max_epochs);
        Decision::Continue
    }

    fn snapshot(&self) -> serde_json::Value {
        serde_json::Value::Null
    }

    fn restore(&mut self, _: &serde_json::Value) -> Result<(), SearchError> {
        Ok(())
    }
}

/// Runs so many trials on so many workers; checks that `room` of them were under way whenever a result
/// came, or all that were left.
fn is_kept_full(policy: Policy, workers: u32, trials: u64, room: u64) -> Told {
    let search = Watched { trials, seen: Arc::default() };
    let seen = Arc::clone(&search.seen);
    let (result, told) = run(experiment(workers, search).policy(policy), workers as usize);
    assert_eq!(result.summary().completed as u64, trials);
    let results = &seen.lock().unwrap().results;
    assert_eq!(results.len() as u64, trials * u64::from(EPOCHS));
    for &(under_way, ended) in results {
        assert_eq!(under_way, room.min(trials - ended), "after {ended} had ended");
    }
    told
}

#[test]
fn a_search_is_asked_for_more_trials_than_slots_before_a_result_and_at_once_when_a_trial_ends() {
    for (workers, room) in [(2, 16), (5, 20)] {
        let told = is_kept_full(Policy::LongestRemainingFirst, workers, 40, room);
        assert_eq!(told, [], "no slot is idle for want of trials");
    }
}

#[test]
fn under_a_seeded_order_it_is_asked_as_early_for_as_many_whatever_the_slots() {
    for workers in [1, 2, 5] {
        assert_eq!(is_kept_full(Policy::Seeded, workers, 24, 16), []);
    }
    // What it decides may not depend on the slots; where they are more, that is told.
    assert_eq!(is_kept_full(Policy::Seeded, 20, 24, 16), [(16, 20, Some(16))]);
}

#[test]
fn the_idle_share_is_what_units_leave_of_the_slots_time() {
    let occupied: Arc<Mutex<Duration>> = Arc::default();
    let sum = Arc::clone(&occupied);
    // One unit at a time, on two workers.
    let builder = experiment(2, grid(1)).epochs(5).observer(move |_: Duration, event: &Event| {
        if let Event::UnitCompleted { report, .. } = event {
            *sum.lock().unwrap() += report.occupied;
        }
    });
    let (result, told) = run(builder, 2);
    assert_eq!(told, [(1, 2, None)]);
    let summary = result.summary();
    let share = summary.idle_share();
    assert!(summary.idle >= summary.wall, "one of two slots is idle all the time: {summary}");
    let busy = occupied.lock().unwrap().as_secs_f64() / (2.0 * summary.wall.as_secs_f64());
    assert!(share <= 1.0 - busy, "{share} idle and {busy} busy");
    let line = format!("{:.1} % of the slots' time without a unit", 100.0 * share);
    assert!(summary.to_string().contains(&line), "{summary}");
}
