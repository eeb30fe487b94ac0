use super::*;
use crate::search::testing::{Simulation, report};

fn quadratic() -> Space {
    Space::builder()
        .uniform("x", -5.0, 5.0)
        .loguniform("y", 1e-4, 1.0)
        .int("n", 1, 30)
        .choice("kind", ["a", "b", "c", "d"])
        .build()
        .unwrap()
}

fn quadratic_loss(config: &Config, _: TrialId, _: u32) -> f64 {
    let x = config.float("x").unwrap() - 1.0;
    let y = config.float("y").unwrap().log10() + 2.0;
    let n = config.int("n").unwrap() as f64 - 12.0;
    let kind = if config.text("kind") == Ok("c") { 0.0 } else { 5.0 };
    x * x + y * y + n * n / 50.0 + kind
}

/// The mean loss of the second half of the trials.
fn late_mean(mut search: impl Search, trials: u64) -> f64 {
    let mut late = Vec::new();
    for trial in 0..trials {
        let Ask::Start(config) = search.ask(TrialId(trial)) else { panic!("too few trials") };
        let loss = quadratic_loss(&config, TrialId(trial), 1);
        search.tell(&EpochReport { max_epochs: 1, ..report(trial, 1, loss) });
        if trial >= trials / 2 {
            late.push(loss);
        }
    }
    late.iter().sum::<f64>() / late.len() as f64
}

#[test]
fn proposals_get_better_than_random_ones() {
    let random = crate::search::Random::new(&quadratic(), 80, Seed(1)).unwrap();
    let bar = late_mean(random, 80) / 2.0;
    let univariate = late_mean(Tpe::univariate(&quadratic(), 80, Seed(1)).unwrap(), 80);
    assert!(univariate < bar, "{univariate}, random / 2 is {bar}");
    let multivariate = late_mean(Tpe::multivariate(&quadratic(), 80, Seed(1)).unwrap(), 80);
    assert!(multivariate < bar, "{multivariate}, random / 2 is {bar}");
}

#[test]
fn a_conditional_space_is_searched_within_its_conditions() {
    let space = Space::builder()
        .choice("kind", ["line", "well"])
        .uniform("slope", 0.0, 1.0)
        .when("kind", ["line"])
        .uniform("depth", 0.0, 1.0)
        .when("kind", ["well"])
        .uniform("width", 0.0, 1.0)
        .when("kind", ["well"])
        .build()
        .unwrap();
    for search in [
        Tpe::univariate(&space, 60, Seed(4)).unwrap(),
        Tpe::multivariate(&space, 60, Seed(4)).unwrap(),
    ] {
        let mut search = search;
        let mut wells = 0;
        for trial in 0..60 {
            let Ask::Start(config) = search.ask(TrialId(trial)) else { panic!() };
            space.check(&config).unwrap();
            let loss = match config.float("depth") {
                Ok(depth) => 1.0 - depth,
                Err(_) => 2.0 + config.float("slope").unwrap(),
            };
            wells += u32::from(trial >= 30 && config.get("depth").is_some());
            search.tell(&EpochReport { max_epochs: 1, ..report(trial, 1, loss) });
        }
        assert!(wells >= 22, "{wells} of the last 30 are wells");
    }
}

#[test]
fn proposals_that_are_made_at_once_differ() {
    let space = Space::builder().uniform("x", 0.0, 1.0).build().unwrap();
    let proposals = |told: bool| {
        let mut search = Tpe::univariate(&space, 100, Seed(9)).unwrap();
        for trial in 0..30 {
            let Ask::Start(config) = search.ask(TrialId(trial)) else { panic!() };
            let loss = (config.float("x").unwrap() - 0.3).powi(2);
            search.tell(&EpochReport { max_epochs: 1, ..report(trial, 1, loss) });
        }
        let mut points: Vec<f64> = (30..60)
            .map(|trial| {
                let Ask::Start(config) = search.ask(TrialId(trial)) else { panic!() };
                if !told {
                    // As if the trial had never been started: no liar.
                    search.ended(TrialId(trial), Ending::Stopped);
                }
                config.float("x").unwrap()
            })
            .collect();
        points.sort_by(f64::total_cmp);
        points[22] - points[7]
    };
    let (with_liar, without) = (proposals(true), proposals(false));
    assert!(with_liar > 1.5 * without, "spread {with_liar} with the liar, {without} without");
}

#[test]
fn a_trial_that_lags_behind_counts_against_its_config_only_if_it_is_worse() {
    let mut history = History::default();
    let config = |n: i64| Config::new().with("n", n);
    for trial in 0..14 {
        history.start(TrialId(trial), &config(trial as i64));
    }
    for trial in 0..10 {
        for epoch in 1..=3 {
            history.tell(&report(trial, epoch, trial as f64 + 10.0 / f64::from(epoch)));
        }
    }
    history.tell(&report(10, 1, 9.0)); // better than the good trial 0 was after one epoch
    history.tell(&report(11, 1, 50.0)); // worse
    history.end(TrialId(13), Ending::Failed); // 12 has reported nothing yet
    let (good, others) = history.split(10).unwrap();
    let numbers = |configs: &[&Config]| -> Vec<i64> {
        configs.iter().map(|config| config.int("n").unwrap()).collect()
    };
    assert_eq!(numbers(&good), [0]);
    assert_eq!(numbers(&others), [1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13]);
    assert!(history.split(13).is_none());
}

fn nested() -> Space {
    Space::builder()
        .choice("kind", ["a", "b", "c"])
        .int("n", 1, 6)
        .when("kind", ["a", "b"])
        .quniform("q", 0.0, 1.0, 0.25)
        .when("n", [2, 3])
        .qloguniform("width", 8.0, 256.0, 8.0)
        .build()
        .unwrap()
}

#[test]
fn the_density_of_a_conditional_space_adds_up_to_one() {
    let space = nested();
    let parameters: Vec<&Parameter> = space.parameters().iter().collect();
    let configs: Vec<Config> = (0..40).map(|seed| space.sample(Seed(seed))).collect();
    let grid = space.grid().unwrap();
    for count in [0, 1, 7, 40] {
        let configs: Vec<&Config> = configs[..count].iter().collect();
        let mixture = Mixture::new(&parameters, &configs);
        let density = |config| mixture.log_density(&Location::of(&parameters, config)).exp();
        let total: f64 = grid.iter().map(density).sum();
        assert!((total - 1.0).abs() < 1e-4, "{count} configs: {total}");
    }
}

#[test]
fn the_density_of_numbers_has_an_integral_of_one() {
    let space =
        Space::builder().loguniform("y", 1e-4, 1.0).uniform("x", -1.0, 2.0).build().unwrap();
    for parameter in space.parameters() {
        let parameters = [parameter];
        let configs: Vec<Config> = (0..5).map(|seed| space.sample(Seed(seed))).collect();
        let mixture = Mixture::new(&parameters, &configs.iter().collect::<Vec<_>>());
        let steps = 4000;
        let density = |step: i32| {
            let value = parameter.domain.at((f64::from(step) + 0.5) / f64::from(steps));
            let config = Config::new().with(&parameter.name, value);
            mixture.log_density(&Location::of(&parameters, &config)).exp()
        };
        let total = (0..steps).map(density).sum::<f64>() / f64::from(steps);
        assert!((total - 1.0).abs() < 1e-3, "{}: {total}", parameter.name);
    }
}

#[test]
fn samples_follow_the_density() {
    let space = nested();
    let parameters: Vec<&Parameter> = space.parameters().iter().collect();
    let configs: Vec<Config> = (0..4).map(|seed| space.sample(Seed(seed))).collect();
    let mixture = Mixture::new(&parameters, &configs.iter().collect::<Vec<_>>());
    let mut rng = Seed(5).rng();
    let mut shares: std::collections::BTreeMap<Config, f64> = std::collections::BTreeMap::new();
    for _ in 0..40_000 {
        let mut config = Config::new();
        mixture.sample(&mut config, &mut rng);
        *shares.entry(config).or_default() += 1.0 / 40_000.0;
    }
    for config in space.grid().unwrap() {
        let expected = mixture.log_density(&Location::of(&parameters, &config)).exp();
        let share = shares.remove(&config).unwrap_or_default();
        let deviation = (expected / 40_000.0).sqrt();
        assert!((share - expected).abs() < 5.0 * deviation, "{config}: {share}, not {expected}");
    }
    assert!(shares.is_empty(), "outside the space: {shares:?}");
}

#[test]
fn a_proposal_goes_with_what_is_good_in_combination() {
    // Good where both are high or both are low: each by itself tells nothing.
    let space = Space::builder().uniform("x", 0.0, 1.0).uniform("y", 0.0, 1.0).build().unwrap();
    let mut search = Tpe::multivariate(&space, 160, Seed(1)).unwrap();
    let mut together = 0;
    for trial in 0..160 {
        let Ask::Start(config) = search.ask(TrialId(trial)) else { panic!() };
        let (x, y) = (config.float("x").unwrap(), config.float("y").unwrap());
        search.tell(&EpochReport { max_epochs: 1, ..report(trial, 1, (x - y).abs()) });
        together += u32::from(trial >= 80 && (x - y).abs() < 0.2);
    }
    assert!(together > 50, "{together} of 80, where chance gives 29");
}

#[test]
fn settings_out_of_range_are_refused() {
    let tpe = || Tpe::univariate(&quadratic(), 5, Seed(0)).unwrap();
    assert!(tpe().with_startup(1).is_err());
    assert!(tpe().with_random_share(1.5).is_err());
    assert!(tpe().with_random_share(f64::NAN).is_err());
    assert!(Tpe::multivariate(&quadratic(), 0, Seed(0)).is_err());
}

#[test]
fn trials_that_fail_are_avoided() {
    // Everything above 0 fails; only the liar and the failures tell the search.
    let space = Space::builder().uniform("x", -1.0, 1.0).build().unwrap();
    let mut search = Tpe::univariate(&space, 80, Seed(2)).unwrap();
    let mut simulation = Simulation::new(1, 1, |config, _, _| match config.float("x").unwrap() {
        x if x > 0.0 => f64::NAN,
        x => (x + 0.5).abs(),
    });
    simulation.run(&mut search);
    let late = simulation.log.iter().filter(|line| line.starts_with("start")).skip(40);
    let failed = late.filter(|line| !line.contains("x=-")).count();
    assert!(failed < 12, "{failed} of the last 40 fail");
}
