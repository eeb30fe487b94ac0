//! What does a decision of a search cost after ten thousand trials? One ask and one epoch's report,
//! with a conditional space of eight hyperparameters. Bound: 1 ms.

use std::hint::black_box;

use cerebro_core::search::{
    Asha, Ask, BracketSizes, EpochReport, Hyperband, MedianStopping, QuasiRandom, Random, Rungs,
    Search, SearchError, Tpe,
};
use cerebro_core::{Seed, Space, TrialId};
use criterion::{Criterion, criterion_group, criterion_main};

const TRIALS: u64 = 10_000;
const MAX_EPOCHS: u32 = 27;

fn space() -> Space {
    Space::builder()
        .choice("optimizer", ["adam", "sgd"])
        .loguniform("learning_rate", 1e-5, 1e-1)
        .loguniform("weight_decay", 1e-6, 1e-2)
        .uniform("momentum", 0.5, 0.99)
        .when("optimizer", ["sgd"])
        .uniform("beta", 0.8, 0.999)
        .when("optimizer", ["adam"])
        .int("layers", 1, 6)
        .qloguniform("width", 16.0, 1024.0, 16.0)
        .choice("activation", ["relu", "gelu", "tanh"])
        .build()
        .expect("a valid space")
}

type Make = fn(&Space) -> Result<Box<dyn Search>, SearchError>;

const SEED: Seed = Seed(1);
const MANY: u64 = u64::MAX;

fn rungs() -> Result<Rungs, SearchError> {
    Rungs::new(1, MAX_EPOCHS, 3)
}

const SEARCHES: [(&str, Make); 7] = [
    ("random", |space| Ok(Box::new(Random::new(space, MANY, SEED)?))),
    ("quasi_random", |space| Ok(Box::new(QuasiRandom::new(space, MANY, SEED)?))),
    ("tpe_univariate", |space| Ok(Box::new(Tpe::univariate(space, MANY, SEED)?))),
    ("tpe_multivariate", |space| Ok(Box::new(Tpe::multivariate(space, MANY, SEED)?))),
    ("median_stopping", |space| {
        Ok(Box::new(MedianStopping::new(Random::new(space, MANY, SEED)?, 1, 5)?))
    }),
    ("asha_tpe", |space| Ok(Box::new(Asha::new(Tpe::multivariate(space, MANY, SEED)?, rungs()?)))),
    ("hyperband", |space| {
        let random = Random::new(space, MANY, SEED)?;
        Ok(Box::new(Hyperband::new(random, rungs()?, BracketSizes::default(), u32::MAX)?))
    }),
];

/// A loss that the search may believe.
fn loss(trial: TrialId, epoch: u32) -> f64 {
    SEED.derive("loss", &[trial.0, u64::from(epoch)]).rng().unit() / f64::from(epoch)
}

/// Asks once, and trains what comes of it for an epoch.
fn decide(search: &mut dyn Search, epochs: &mut Vec<u32>) {
    let next = TrialId(epochs.len() as u64);
    let trial = match search.ask(next) {
        Ask::Start(config) => {
            black_box(config);
            epochs.push(0);
            next
        }
        Ask::Resume(trial) => trial,
        Ask::Stop(_) | Ask::Wait | Ask::Finished => return,
    };
    let epoch = &mut epochs[trial.0 as usize];
    *epoch += 1;
    let report = EpochReport::minimized(trial, *epoch, MAX_EPOCHS, loss(trial, *epoch));
    black_box(search.tell(&report));
}

fn searches(criterion: &mut Criterion) {
    let space = space();
    let mut group = criterion.benchmark_group("search_after_10000_trials");
    for (name, make) in SEARCHES {
        group.bench_function(name, |bencher| {
            let mut search = make(&space).expect("valid settings");
            let mut epochs = Vec::new();
            while (epochs.len() as u64) < TRIALS {
                decide(&mut search, &mut epochs);
            }
            bencher.iter(|| decide(&mut search, &mut epochs));
        });
    }
    group.finish();
}

criterion_group!(benches, searches);
criterion_main!(benches);
