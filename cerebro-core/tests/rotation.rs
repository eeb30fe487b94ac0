//! Trials that begin together go round the workers and hardly wait.

use cerebro_core::simulate::{KnownCosts, Plan, Span, Uniform};
use cerebro_core::{Seed, TrialId};

fn worst(job: &Uniform) -> f64 {
    let ratios = (0..10).map(|seed| job.plan(Seed(seed)).run(|_| ()).unwrap().ratio());
    ratios.fold(0.0, f64::max)
}

#[test]
fn no_more_trials_than_workers_never_wait_whatever_is_known_of_their_costs() {
    for costs in [KnownCosts::Ratios, KnownCosts::None] {
        for (trials, sigma, epochs) in [(4, 0.3, 1), (8, 0.0, 5), (8, 0.3, 5)] {
            let job = Uniform { trials, sigma, epochs, costs, workers: 8, ..Uniform::default() };
            assert!(
                worst(&job) < 1.02,
                "{trials} trials, sigma {sigma}, {epochs} epochs, {costs:?}"
            );
        }
    }
}

#[test]
fn a_long_trial_among_many_never_waits_in_any_epoch() {
    let job = Uniform { trials: 16, sigma: 1.0, epochs: 5, ..Uniform::default() };
    assert!(worst(&job) < 1.02);
}

/// One worker in three is half as fast as the others, and each has a partition of another size.
fn uneven(sigma: f64, workers: usize) -> Uniform {
    let (trials, partitions) = (4, workers);
    let job = Uniform { trials, partitions, workers, sigma, ..Uniform::default() };
    Uniform { size_sigma: 0.3, slowness: vec![2.0, 1.0, 1.0], ..job }
}

#[test]
fn trials_of_known_costs_go_round_until_it_is_known_which_workers_are_slow() {
    assert!(worst(&uneven(0.0, 4)) < 1.01);
}

#[test]
fn slow_workers_are_known_by_what_they_say_before_their_first_unit_ends() {
    assert!(worst(&uneven(0.3, 4)) < 1.02);
}

#[test]
fn nobody_waits_on_uneven_clusters_whose_speeds_are_known_beforehand() {
    for (sigma, workers) in [(0.0, 4), (0.0, 8), (0.3, 4), (0.3, 8), (1.0, 4)] {
        for seed in 0..20 {
            let mut plan = uneven(sigma, workers).plan(Seed(seed));
            // Sizes are known, so what a slow worker takes longer is counted with them.
            for (partition, worker) in plan.partitions.iter_mut().zip(&mut plan.workers) {
                let slowness = std::mem::replace(&mut worker.slowness, 1.0);
                partition.rows = (partition.rows as f64 * slowness) as u64;
            }
            let ratio = plan.run(|_| ()).unwrap().ratio();
            assert!(ratio < 1.01, "{sigma} {workers} {seed}: {ratio}");
        }
    }
}

#[test]
fn trials_on_several_partitions_of_each_worker_and_with_validation_come_near_the_bound() {
    let job = Uniform { trials: 8, sigma: 0.3, epochs: 3, partitions: 16, ..Uniform::default() };
    assert!(worst(&job) < 1.02);
    let job = Uniform { validation_partitions: 8, ..job };
    assert!(worst(&job) < 1.1);
}

#[test]
fn failures_do_not_end_a_rotation_for_good() {
    let job =
        Uniform { trials: 8, sigma: 0.0, epochs: 5, failure_rate: 0.02, ..Uniform::default() };
    assert!(worst(&job) < 1.25);
}

/// The same plan, of units that are a single mini-batch: there is nothing to report before the end.
fn silent(mut plan: Plan) -> Plan {
    plan.partitions.iter_mut().for_each(|partition| partition.rows = 25);
    plan.trials.iter_mut().for_each(|trial| trial.per_row *= 40);
    plan
}

#[test]
fn units_that_take_ten_times_as_long_and_say_nothing_keep_hardly_anybody_waiting() {
    let job = Uniform { trials: 16, straggler_rate: 0.02, ..Uniform::default() };
    let ratio = |seed| silent(job.plan(Seed(seed))).run(|_| ()).unwrap().ratio();
    let mean = (0..20).map(ratio).sum::<f64>() / 20.0;
    assert!(mean < 1.01, "{mean}");
}

#[test]
fn a_worker_is_idle_for_a_unit_at_most_until_another_trial_takes_the_place_of_one_that_hangs() {
    // One trial goes round by itself, and two of half its cost together.
    let job = Uniform { trials: 3, partitions: 2, workers: 2, sigma: 0.0, ..Uniform::default() };
    let job = Uniform { straggler_rate: 0.3, ..job };
    let mut seen = 0;
    for seed in 0..50 {
        let mut plan = silent(job.plan(Seed(seed)));
        plan.trials[0].per_row *= 2;
        let mut spans = Vec::new();
        plan.run(|span| spans.push(*span)).unwrap();
        spans.sort_by_key(|span| span.start);
        let took = |span: &Span| span.end.saturating_sub(span.start).as_secs_f64();
        let (long, others): (Vec<Span>, _) =
            spans.iter().partition(|span| span.unit.trial == TrialId(0));
        if took(&long[0]) < 2.1 && took(&others[0]) > 5.0 {
            seen += 1;
            let next = spans
                .iter()
                .find(|span| span.worker == long[0].worker && span.start >= long[0].end);
            let idle = next.unwrap().start.saturating_sub(long[0].end).as_secs_f64();
            assert!(idle < 1.0, "{idle}");
        }
    }
    assert!(seen > 0);
}
