use super::*;
use crate::config::Config;
use crate::search::testing::{Simulation, report};
use crate::search::{Asha, Random, Rungs};

fn space() -> Space {
    Space::builder()
        .uniform("x", -5.0, 10.0)
        .loguniform("y", 1e-4, 1.0)
        .int("n", 1, 60)
        .build()
        .unwrap()
}

fn loss(config: &Config) -> f64 {
    let x = config.float("x").unwrap() - 4.0;
    let y = config.float("y").unwrap().log10() + 2.5;
    let n = config.int("n").unwrap() as f64 - 20.0;
    // A narrow valley that is along no axis.
    (x + 2.0 * y).powi(2) + 0.1 * (2.0 * x - y).powi(2) + n * n / 400.0
}

/// The best loss of `trials` trials, of which `at_once` are under way.
fn best(mut search: impl Search, trials: u64, at_once: usize) -> f64 {
    let (mut best, mut running) = (f64::INFINITY, VecDeque::new());
    for trial in 0..trials {
        let Ask::Start(config) = search.ask(TrialId(trial)) else { panic!("too few trials") };
        space().check(&config).unwrap();
        running.push_back((trial, loss(&config)));
        if running.len() == at_once {
            let (trial, loss) = running.pop_front().unwrap();
            best = best.min(loss);
            search.tell(&EpochReport { max_epochs: 1, ..report(trial, 1, loss) });
        }
    }
    best
}

/// The median over some seeds of the best loss that a search finds.
fn median(search: impl Fn(Seed) -> Box<dyn Search>, at_once: usize) -> f64 {
    let mut found: Vec<f64> = (0..9).map(|seed| best(search(Seed(seed)), 300, at_once)).collect();
    found.sort_by(f64::total_cmp);
    found[4]
}

#[test]
fn it_finds_a_valley_that_random_draws_do_not() {
    let random = |seed| Box::new(Random::new(&space(), 300, seed).unwrap()) as Box<dyn Search>;
    let one_by_one = |seed| Box::new(CmaEs::new(&space(), 300, seed).unwrap()) as Box<dyn Search>;
    let found = median(one_by_one, 1);
    assert!(found < 0.01, "{found}");
    let at_once = |seed| {
        let search = CmaEs::new(&space(), 300, seed).unwrap().with_population(31).unwrap();
        Box::new(search) as Box<dyn Search>
    };
    let (found, random) = (median(at_once, 16), median(random, 16));
    assert!(found < random / 1.5, "{found}, random {random}");
}

#[test]
fn a_restored_search_goes_on_as_the_one_that_was_written() {
    let mut search = CmaEs::new(&space(), 500, Seed(7)).unwrap();
    for trial in 0..200 {
        let Ask::Start(config) = search.ask(TrialId(trial)) else { panic!() };
        if trial % 7 == 3 {
            search.ended(TrialId(trial), Ending::Failed);
        } else if trial % 5 > 0 {
            search.tell(&EpochReport { max_epochs: 1, ..report(trial, 1, loss(&config)) });
        }
    }
    let text = search.snapshot().to_string();
    let mut restored = CmaEs::new(&space(), 1, Seed(0)).unwrap();
    restored.restore(&serde_json::from_str(&text).unwrap()).unwrap();
    for trial in 200..260 {
        let (ask, again) = (search.ask(TrialId(trial)), restored.ask(TrialId(trial)));
        assert_eq!(ask, again);
        let Ask::Start(config) = ask else { panic!() };
        for search in [&mut search, &mut restored] {
            search.tell(&EpochReport { max_epochs: 1, ..report(trial, 1, loss(&config)) });
        }
    }
    assert_eq!(search.snapshot(), restored.snapshot());
}

#[test]
fn it_starts_again_with_twice_the_population_when_it_has_converged() {
    let mut search = CmaEs::new(&space(), 20_000, Seed(3)).unwrap();
    let first = search.run.start.population;
    assert_eq!(first, 4 + 3, "4 + floor(3 ln 3)");
    for trial in 0..20_000 {
        let Ask::Start(config) = search.ask(TrialId(trial)) else { panic!() };
        search.tell(&EpochReport { max_epochs: 1, ..report(trial, 1, loss(&config)) });
        if search.run.start.number == 1 {
            assert_eq!(search.run.start.population, 2 * first);
            return;
        }
    }
    panic!("it never converged");
}

#[test]
fn under_halving_it_learns_from_the_first_rung_and_nobody_waits_for_nothing() {
    let inner = CmaEs::new(&space(), 120, Seed(2)).unwrap().compared_after(1).unwrap();
    let mut search = Asha::new(inner, Rungs::new(1, 9, 3).unwrap());
    let mut simulation =
        Simulation::new(6, 9, |config, _, epoch| loss(config) + 1.0 / f64::from(epoch));
    simulation.run(&mut search);
    assert_eq!(simulation.epochs().len(), 120);
    assert!(simulation.epochs().contains(&9));
}

#[test]
fn trials_that_all_fail_do_no_harm() {
    let mut search = CmaEs::new(&space(), 60, Seed(2)).unwrap();
    let mut simulation = Simulation::new(3, 1, |_, _, _| f64::NAN);
    simulation.run(&mut search);
    assert_eq!(simulation.epochs().len(), 60);
}

#[test]
fn choices_and_conditions_are_refused_with_a_search_that_takes_them() {
    let choice = Space::builder().choice("optimizer", ["sgd", "adam"]).build().unwrap();
    let conditional = Space::builder()
        .int("layers", 1, 2)
        .uniform("second", 0.0, 1.0)
        .when("layers", [2])
        .build()
        .unwrap();
    for (space, name) in [(choice, "`optimizer`"), (conditional, "`second`")] {
        let error = CmaEs::new(&space, 5, Seed(0)).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("`tpe`"), "{error}");
    }
    assert!(CmaEs::new(&space(), 0, Seed(0)).is_err());
    let search = || CmaEs::new(&space(), 5, Seed(0)).unwrap();
    assert!(search().with_population(3).is_err());
    assert!(search().compared_after(0).is_err());
}
