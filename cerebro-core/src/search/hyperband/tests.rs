use std::collections::BTreeMap;

use super::*;
use crate::search::testing::Simulation;
use crate::search::{Grid, Random, SuccessiveHalving};

fn space() -> Space {
    Space::builder().uniform("x", 0.0, 1.0).build().unwrap()
}

fn loss(config: &Config, _: TrialId, epoch: u32) -> f64 {
    // Curves cross: what is good after one epoch need not be after ten.
    let x = config.float("x").unwrap();
    let swing = f64::from(epoch) * 7.0 * x;
    x + 0.3 * swing.sin()
}

/// How many trials came to each number of epochs, for each bracket of a round of 81 epochs.
fn layout(sizes: BracketSizes) -> Vec<BTreeMap<u32, usize>> {
    let rungs = Rungs::new(1, 81, 3).unwrap();
    let trials = Hyperband::<Random>::trials(&rungs, sizes, 1);
    let random = Random::new(&space(), trials, Seed(2)).unwrap();
    let mut search = Hyperband::new(random, rungs.clone(), sizes, 1).unwrap();
    let mut simulation = Simulation::new(1, 81, loss);
    simulation.run(&mut search);
    let epochs = simulation.epochs();
    assert_eq!(epochs.len() as u64, trials);
    let mut start = 0;
    (0..rungs.epochs().len())
        .map(|bracket| {
            let count = sizes.trials(&rungs, bracket) as usize;
            let of_bracket = &epochs[start..start + count];
            start += count;
            let came = |rung: &u32| of_bracket.iter().filter(|epochs| *epochs >= rung).count();
            rungs.epochs()[bracket..].iter().map(|rung| (*rung, came(rung))).collect()
        })
        .collect()
}

#[test]
fn the_papers_example_has_the_numbers_of_its_table() {
    // Li et al. 2018, table 1: R = 81, η = 3.
    let expected = [
        BTreeMap::from([(1, 81), (3, 27), (9, 9), (27, 3), (81, 1)]),
        BTreeMap::from([(3, 27), (9, 9), (27, 3), (81, 1)]),
        BTreeMap::from([(9, 9), (27, 3), (81, 1)]),
        BTreeMap::from([(27, 6), (81, 2)]),
        BTreeMap::from([(81, 5)]),
    ];
    assert_eq!(layout(BracketSizes::Table), expected);
}

#[test]
fn the_papers_algorithm_has_the_numbers_of_its_formula() {
    // Li et al. 2018, algorithm 1: n = ceil(5 * 3^s / (s + 1)), n_i = floor(n / 3^i).
    let expected = [
        BTreeMap::from([(1, 81), (3, 27), (9, 9), (27, 3), (81, 1)]),
        BTreeMap::from([(3, 34), (9, 11), (27, 3), (81, 1)]),
        BTreeMap::from([(9, 15), (27, 5), (81, 1)]),
        BTreeMap::from([(27, 8), (81, 2)]),
        BTreeMap::from([(81, 5)]),
    ];
    assert_eq!(layout(BracketSizes::Algorithm), expected);
}

/// The trials that the published successive halving promotes: (trial, epochs), by brute force.
fn published(configs: &[Config], rungs: &[u32], reduction: usize) -> Vec<u32> {
    let mut epochs = vec![rungs[0]; configs.len()];
    let mut alive: Vec<usize> = (0..configs.len()).collect();
    for (rung, next) in rungs.iter().zip(&rungs[1..]) {
        let at = |trial: usize| loss(&configs[trial], TrialId(0), *rung);
        alive.sort_by(|a, b| at(*a).total_cmp(&at(*b)));
        alive.truncate(alive.len() / reduction);
        for trial in &alive {
            epochs[*trial] = *next;
        }
    }
    epochs
}

#[test]
fn brackets_promote_the_best_of_each_rung_whatever_the_order_of_results() {
    let rungs = Rungs::new(1, 27, 3).unwrap();
    let sizes = BracketSizes::Algorithm;
    let trials = Hyperband::<Grid>::trials(&rungs, sizes, 1);
    let configs: Vec<Config> = (0..trials).map(|n| space().sample(Seed(n))).collect();
    for (places, seed) in [(1, 0), (3, 1), (16, 2), (200, 3)] {
        let grid = Grid::of(configs.clone()).unwrap();
        let mut search = Hyperband::new(grid, rungs.clone(), sizes, 1).unwrap();
        let mut simulation = Simulation::new(places, 27, loss).in_order_of(seed);
        simulation.run(&mut search);
        let mut expected = Vec::new();
        for bracket in 0..rungs.epochs().len() {
            let count = sizes.trials(&rungs, bracket) as usize;
            let of_bracket = &configs[expected.len()..expected.len() + count];
            expected.extend(published(of_bracket, &rungs.epochs()[bracket..], 3));
        }
        assert_eq!(simulation.epochs(), expected, "with {places} places");
    }
}

#[test]
fn successive_halving_gives_up_the_trials_that_it_does_not_promote() {
    let grid = Grid::of((0..9).map(|n| Config::new().with("x", f64::from(n)))).unwrap();
    let mut search = SuccessiveHalving::new(grid, 9, Rungs::new(1, 9, 3).unwrap()).unwrap();
    let mut simulation = Simulation::new(4, 9, |config, _, _| config.float("x").unwrap());
    simulation.run(&mut search);
    assert_eq!(simulation.epochs(), [9, 3, 3, 1, 1, 1, 1, 1, 1]);
    let dropped = simulation.log.iter().filter(|line| line.starts_with("drop")).count();
    assert_eq!(dropped, 8);
}

#[test]
fn too_few_trials_for_the_rungs_are_refused() {
    let few =
        SuccessiveHalving::new(Grid::of([Config::new()]).unwrap(), 8, Rungs::new(1, 9, 3).unwrap());
    assert!(few.unwrap_err().to_string().contains("`trials` is 8"));
    let random = Random::new(&space(), 1, Seed(0)).unwrap();
    assert!(Hyperband::new(random, Rungs::new(1, 9, 3).unwrap(), BracketSizes::Table, 0).is_err());
}

#[test]
fn it_is_extended_by_whole_rounds_and_says_how_many_trials_that_is() {
    let rungs = Rungs::new(1, 9, 3).unwrap();
    let one = Hyperband::<Random>::trials(&rungs, BracketSizes::Algorithm, 1);
    let hyperband = |rounds: u32| {
        let random = Random::new(&space(), one * u64::from(rounds), Seed(2)).unwrap();
        Hyperband::new(random, rungs.clone(), BracketSizes::Algorithm, rounds).unwrap()
    };
    let run = |search: &mut Hyperband<Random>| {
        let mut simulation = Simulation::new(1, 9, loss);
        simulation.run(search);
        simulation.epochs()
    };
    let mut extended = hyperband(1);
    let error = extended.extend(one + 1).unwrap_err().to_string();
    assert!(error.contains(&format!("by {one} trials")), "{error}");
    assert_eq!(extended.planned(), Some(one));
    extended.extend(one).unwrap();
    let (epochs, planned) = (run(&mut extended), extended.planned_epochs());
    assert_eq!(epochs, run(&mut hyperband(2)));
    assert_eq!(Some(epochs.iter().map(|&epochs| u64::from(epochs)).sum()), planned);
}
