//! How good are the searches? Prints what each finds on each problem, one JSON object a line.
//!
//! `compare.py`, beside this file, runs it and Optuna on the same problems and prints a table.

mod problems;

use std::collections::BTreeMap;
use std::error::Error;
use std::time::{Duration, Instant};

#[cfg(feature = "cma-es")]
use cerebro_core::search::CmaEs;
use cerebro_core::search::{
    Asha, Ask, BracketSizes, Decision, EpochReport, Hyperband, MedianStopping, QuasiRandom, Random,
    Rungs, Search, SearchError, Tpe,
};
use cerebro_core::{Config, Seed, TrialId};
use problems::{Problem, observed};
use serde_json::json;

fn main() -> Result<(), Box<dyn Error>> {
    let seeds: u64 = std::env::args().nth(1).map_or(Ok(30), |seeds| seeds.parse())?;
    for problem in problems::all()? {
        for seed in 0..5 {
            let config = problem.space.sample(Seed(seed));
            let epoch = problem.max_epochs.min(5);
            let loss = (problem.loss)(&config, epoch)?;
            let check = json!({
                "check": problem.name, "config": config, "epoch": epoch, "loss": loss,
                "epochs": problem.max_epochs, "budget": problem.budget, "noise": problem.noise,
            });
            println!("{check}");
        }
        for (name, make) in searches(&problem) {
            for seed in 0..seeds {
                let run = run(&problem, make(&problem, Seed(seed))?, seed)?;
                let found = json!({
                    "problem": problem.name, "search": name, "seed": seed, "best": run.best,
                    "trials": run.trials, "seconds": run.searching.as_secs_f64(),
                });
                println!("{found}");
            }
        }
    }
    Ok(())
}

type Make = fn(&Problem, Seed) -> Result<Box<dyn Search>, SearchError>;

fn searches(problem: &Problem) -> Vec<(&'static str, Make)> {
    let mut searches: Vec<(&'static str, Make)> = vec![
        ("random", |problem, seed| Ok(Box::new(Random::new(&problem.space, MANY, seed)?))),
        ("quasi-random", |problem, seed| {
            Ok(Box::new(QuasiRandom::new(&problem.space, MANY, seed)?))
        }),
        ("TPE, univariate", |problem, seed| {
            Ok(Box::new(Tpe::univariate(&problem.space, MANY, seed)?))
        }),
        ("TPE, multivariate", |problem, seed| Ok(Box::new(multivariate(problem, seed)?))),
    ];
    #[cfg(feature = "cma-es")]
    if CmaEs::new(&problem.space, MANY, Seed(0)).is_ok() {
        searches.push(("CMA-ES", |problem, seed| {
            Ok(Box::new(CmaEs::new(&problem.space, MANY, seed)?))
        }));
    }
    if problem.max_epochs > 1 {
        let more: [(&'static str, Make); 5] = [
            ("ASHA, random", |problem, seed| {
                let random = Random::new(&problem.space, MANY, seed)?;
                Ok(Box::new(Asha::new(random, rungs(problem)?)))
            }),
            ("ASHA, TPE", |problem, seed| {
                Ok(Box::new(Asha::new(multivariate(problem, seed)?, rungs(problem)?)))
            }),
            ("Hyperband, random", |problem, seed| {
                let random = Random::new(&problem.space, MANY, seed)?;
                let sizes = BracketSizes::default();
                Ok(Box::new(Hyperband::new(random, rungs(problem)?, sizes, 99)?))
            }),
            ("BOHB", |problem, seed| {
                Ok(Box::new(Hyperband::bohb(&problem.space, rungs(problem)?, 99, seed)?))
            }),
            ("median stopping, TPE", |problem, seed| {
                Ok(Box::new(MedianStopping::new(multivariate(problem, seed)?, 1, 5)?))
            }),
        ];
        searches.extend(more);
    }
    searches
}

/// The budget ends a search, not its number of trials.
const MANY: u64 = 1_000_000;

fn multivariate(problem: &Problem, seed: Seed) -> Result<Tpe, SearchError> {
    Tpe::multivariate(&problem.space, MANY, seed)
}

fn rungs(problem: &Problem) -> Result<Rungs, SearchError> {
    Rungs::new(1, problem.max_epochs, 3)
}

struct Run {
    /// The loss without noise, after all epochs, of the trial that looks best: of those with the
    /// most epochs, the one that reported the lowest loss.
    best: f64,
    trials: usize,
    /// The time that the search itself took.
    searching: Duration,
}

/// Runs one trial at a time until the budget of epochs is spent.
fn run(problem: &Problem, mut search: Box<dyn Search>, seed: u64) -> Result<Run, Box<dyn Error>> {
    let mut trials: BTreeMap<TrialId, (Config, u32, f64)> = BTreeMap::new();
    let mut searching = Duration::ZERO;
    let mut spent = 0;
    while spent < problem.budget {
        let next = TrialId(trials.len() as u64);
        let begin = Instant::now();
        let ask = search.ask(next);
        searching += begin.elapsed();
        let trial = match ask {
            Ask::Start(config) => {
                trials.insert(next, (config, 0, f64::INFINITY));
                next
            }
            Ask::Resume(trial) => trial,
            Ask::Stop(_) => continue,
            Ask::Wait | Ask::Finished => break,
        };
        let (config, epoch, last) = trials.get_mut(&trial).ok_or("an unknown trial")?;
        while *epoch < problem.max_epochs && spent < problem.budget {
            *epoch += 1;
            spent += 1;
            *last = observed(problem, config, seed, trial.0, *epoch)?;
            let report = EpochReport::minimized(trial, *epoch, problem.max_epochs, *last);
            let begin = Instant::now();
            let decision = search.tell(&report);
            searching += begin.elapsed();
            if decision != Decision::Continue {
                break;
            }
        }
    }
    let ranked = trials.values().min_by(|a, b| b.1.cmp(&a.1).then(a.2.total_cmp(&b.2)));
    let (config, ..) = ranked.ok_or("no trial was started")?;
    let best = (problem.loss)(config, problem.max_epochs)?;
    Ok(Run { best, trials: trials.len(), searching })
}
