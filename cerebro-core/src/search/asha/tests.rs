use super::*;
use crate::search::testing::{Simulation, report};
use crate::search::{Grid, Random};
use crate::seed::Seed;

fn grid(trials: i64) -> Grid {
    Grid::of((0..trials).map(|n| Config::new().with("n", n))).unwrap()
}

/// The example bracket of Li et al. 2020, figure 1: r = 1, R = 9, η = 3, 9 configurations.
fn example() -> Asha<Grid> {
    Asha::new(grid(9), Rungs::new(1, 9, 3).unwrap())
}

#[test]
fn the_papers_bracket_is_promoted_as_algorithm_2_says() {
    const LOSSES: [f64; 9] = [6.0, 2.0, 8.0, 1.0, 9.0, 4.0, 3.0, 7.0, 5.0];
    let mut simulation = Simulation::new(1, 9, |_, trial, _| LOSSES[trial.0 as usize]);
    simulation.run(&mut example());
    let jobs: Vec<String> = simulation
        .log
        .iter()
        .filter(|line| line.starts_with("start") || line.starts_with("resume"))
        .map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" "))
        .collect();
    // Worked by hand: after 0, 1, 2 the best of three is 1; then 3 is the best of four; the third
    // place of nine makes 6 promotable, and with it 3 is the best of three in rung 1.
    let expected = [
        "start 0", "start 1", "start 2", "resume 1", "start 3", "resume 3", "start 4", "start 5",
        "start 6", "start 7", "start 8", "resume 6", "resume 3",
    ];
    assert_eq!(jobs, expected);
    assert_eq!(simulation.epochs(), [1, 3, 1, 9, 1, 1, 3, 1, 1]);
}

/// Algorithm 2 of Li et al. 2020, word by word, with no thought of speed.
#[derive(Default)]
struct Published {
    rungs: Vec<PublishedRung>,
}

#[derive(Default)]
struct PublishedRung {
    /// In the order of arrival.
    results: Vec<(f64, TrialId)>,
    promoted: Vec<TrialId>,
}

impl Published {
    fn get_job(&mut self, reduction: usize) -> Option<TrialId> {
        for rung in self.rungs.iter_mut().rev() {
            let mut candidates = rung.results.clone();
            candidates.sort_by(|a, b| a.0.total_cmp(&b.0));
            candidates.truncate(rung.results.len() / reduction);
            let promotable =
                candidates.into_iter().find(|(_, trial)| !rung.promoted.contains(trial));
            if let Some((_, trial)) = promotable {
                rung.promoted.push(trial);
                return Some(trial);
            }
        }
        None
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 64, ..Default::default() })]
    #[test]
    fn any_order_of_results_is_promoted_as_algorithm_2_says(
        seed in 0u64..1000, reduction in 2u32..5, trials in 1i64..80,
    ) {
        let rungs = Rungs::new(1, 30, reduction).unwrap();
        let mut asha = Asha::new(grid(trials), rungs.clone());
        let levels = rungs.epochs().len() - 1;
        let mut published = Published { rungs: (0..levels).map(|_| PublishedRung::default()).collect() };
        let mut rng = Seed(seed).rng();
        let mut running: Vec<(TrialId, usize)> = Vec::new();
        let mut rung_of = std::collections::BTreeMap::new();
        let mut next = 0;
        loop {
            if running.len() < 5 {
                let expected = published.get_job(reduction as usize);
                match (asha.ask(TrialId(next)), expected) {
                    (Ask::Resume(trial), Some(expected)) => {
                        proptest::prop_assert_eq!(trial, expected);
                        let rung = rung_of[&trial] + 1;
                        rung_of.insert(trial, rung);
                        running.push((trial, rung));
                    }
                    (Ask::Start(_), None) => {
                        rung_of.insert(TrialId(next), 0);
                        running.push((TrialId(next), 0));
                        next += 1;
                    }
                    (Ask::Wait, None) => proptest::prop_assert!(!running.is_empty()),
                    (Ask::Finished, None) => {
                        proptest::prop_assert!(running.is_empty());
                        break;
                    }
                    (ask, expected) => {
                        return Err(proptest::test_runner::TestCaseError::fail(
                            format!("{ask:?}, but the algorithm says {expected:?}")));
                    }
                }
            }
            if running.is_empty() || (running.len() < 5 && rng.below(2) == 0) {
                continue;
            }
            let (trial, rung) = running.remove(rng.below(running.len() as u64) as usize);
            let loss = rng.unit();
            let report = EpochReport {
                max_epochs: 30, ..report(trial.0, rungs.epochs()[rung], loss)
            };
            let decision = asha.tell(&report);
            if rung < levels {
                proptest::prop_assert_eq!(decision, Decision::Pause);
                published.rungs[rung].results.push((loss, trial));
            }
        }
    }
}

#[test]
fn a_trial_goes_on_between_rungs() {
    let mut asha = Asha::new(grid(2), Rungs::new(4, 16, 4).unwrap());
    asha.ask(TrialId(0));
    for epoch in 1..4 {
        assert_eq!(asha.tell(&report(0, epoch, 1.0)), Decision::Continue);
    }
    assert_eq!(asha.tell(&report(0, 4, 1.0)), Decision::Pause);
}

#[test]
fn a_trial_without_an_objective_is_never_promoted() {
    let mut simulation = Simulation::new(2, 9, |_, trial, _| match trial.0 {
        4 => 1.0,
        _ => f64::NAN,
    });
    simulation.run(&mut example());
    assert_eq!(simulation.epochs(), [1, 1, 1, 1, 3, 1, 1, 1, 1]);
}

#[test]
fn a_search_that_is_extended_promotes_among_old_and_new_trials() {
    let space = Space::builder().uniform("x", 0.0, 1.0).build().unwrap();
    let random = Random::new(&space, 6, Seed(1)).unwrap();
    let mut asha = Asha::new(random, Rungs::new(1, 9, 3).unwrap());
    let loss = |config: &Config, _, _| config.float("x").unwrap();
    let mut simulation = Simulation::new(1, 9, loss);
    simulation.run(&mut asha);
    assert_eq!(asha.ask(TrialId(6)), Ask::Finished);
    asha.extend(21).unwrap();
    let mut trials = 6;
    while let Ask::Start(config) = asha.ask(TrialId(trials)) {
        asha.tell(&report(trials, 1, config.float("x").unwrap()));
        trials += 1;
        if trials > 26 {
            break;
        }
        while let Some(trial) = asha.ladder.promote() {
            assert!(trial.0 < trials);
        }
    }
    assert!(trials > 8, "{trials}");
}
