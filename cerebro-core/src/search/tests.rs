//! What every search promises, whatever the order of results and whatever users do.

use proptest::prelude::*;

use super::testing::Simulation;
use super::*;
use crate::seed::Seed;

fn space() -> Space {
    Space::builder()
        .choice("optimizer", ["adam", "sgd"])
        .loguniform("rate", 1e-4, 1.0)
        .uniform("momentum", 0.0, 1.0)
        .when("optimizer", ["sgd"])
        .int("layers", 1, 5)
        .build()
        .unwrap()
}

fn loss(config: &Config, trial: TrialId, epoch: u32) -> f64 {
    let rate = config.float("rate").unwrap().log10() + 2.0;
    if config.int("layers") == Ok(5) && epoch == 2 {
        return f64::NAN;
    }
    let noise = Seed(trial.0).derive("noise", &[u64::from(epoch)]).rng().unit();
    rate * rate + 3.0 / f64::from(epoch) + noise
}

const KINDS: usize = 12;

/// A search of each kind, for at most 27 epochs.
fn search(kind: usize, seed: Seed) -> Box<dyn Search> {
    let space = &space();
    let rungs = || Rungs::new(1, 27, 3).unwrap();
    let random = || Random::new(space, 30, seed).unwrap();
    let sizes = BracketSizes::Algorithm;
    match kind {
        0 => Box::new(Grid::of((0..20).map(|n| space.sample(Seed(n)))).unwrap()),
        1 => Box::new(random()),
        2 => Box::new(QuasiRandom::new(space, 30, seed).unwrap()),
        3 => Box::new(Tpe::univariate(space, 30, seed).unwrap()),
        4 => Box::new(Tpe::multivariate(space, 30, seed).unwrap()),
        5 => Box::new(SuccessiveHalving::new(random(), 27, rungs()).unwrap()),
        6 => Box::new(Asha::new(Tpe::univariate(space, 30, seed).unwrap(), rungs())),
        7 => Box::new(Hyperband::new(random(), rungs(), sizes, 1).unwrap()),
        8 => Box::new(Hyperband::bohb(space, rungs(), 1, seed).unwrap()),
        9 => Box::new(MedianStopping::new(Asha::new(random(), rungs()), 2, 3).unwrap()),
        10 => {
            let rules = [
                StopRule::Target(0.3),
                StopRule::Epochs(200),
                StopRule::NoImprovement { epochs: 120, least: 0.01 },
            ];
            Box::new(StopWhen::new(Asha::new(random(), rungs()), rules).unwrap())
        }
        _ => Box::new(Population::new(space, 12, ["rate", "momentum"], seed).unwrap()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..Default::default() })]

    #[test]
    fn a_search_that_is_restored_at_any_point_goes_on_identically(
        kind in 0..KINDS, seed in 0u64..1000, places in 1usize..9, cut in 0usize..700, mishaps in 0u64..6,
    ) {
        let mut first = search(kind, Seed(seed));
        let mut simulation =
            Simulation::new(places, 27, loss).in_order_of(seed).with_mishaps(mishaps);
        for _ in 0..cut {
            simulation.step(&mut first);
        }
        let written = first.snapshot().to_string();
        // Even the seed comes from the snapshot.
        let mut second = search(kind, Seed(seed + 1));
        second.restore(&serde_json::from_str(&written).unwrap()).unwrap();
        prop_assert_eq!(second.snapshot().to_string(), written);

        let mut resumed = simulation.clone();
        simulation.run(&mut first);
        resumed.run(&mut second);
        prop_assert_eq!(simulation.log, resumed.log);
        prop_assert_eq!(first.snapshot(), second.snapshot());
    }

    #[test]
    fn every_started_config_is_in_the_space(kind in 0..KINDS, seed in 0u64..1000) {
        let mut search = search(kind, Seed(seed));
        for next in 0..12 {
            if let Ask::Start(config) = search.ask(TrialId(next)) {
                prop_assert!(space().check(&config).is_ok(), "{config}");
            }
        }
    }
}

#[test]
fn every_search_ends_with_its_trials_over_or_paused_for_good() {
    for kind in 0..KINDS {
        for places in [1, 4, 100] {
            let mut search = search(kind, Seed(3));
            let mut simulation = Simulation::new(places, 27, loss);
            simulation.run(&mut search);
            let epochs = simulation.epochs();
            let most = epochs.iter().max();
            assert!(epochs.len() >= 12 && most >= Some(&9), "search {kind}: {epochs:?}");
        }
    }
}

#[test]
fn no_search_is_confused_by_trials_that_it_does_not_know() {
    for kind in 0..KINDS {
        let mut search = search(kind, Seed(3));
        let report = testing::report(1_000, 3, 0.5);
        let decision = search.tell(&report);
        assert!(matches!(decision, Decision::Continue), "search {kind}: {decision:?}");
        search.ended(TrialId(2_000), Ending::Failed);
    }
}
