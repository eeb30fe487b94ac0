//! What does one unit cost beyond its computation? An empty model on the local backend: from the
//! order to the report, hand-over to the worker's thread and back included. Bound: 100 us.

use std::hint::black_box;
use std::sync::Arc;

use cerebro_backend_local::LocalBackend;
use cerebro_core::backend::{Job, UnitOrder};
use cerebro_core::data::Partition;
use cerebro_core::experiment::Experiment;
use cerebro_core::search::Grid;
use cerebro_core::{
    Backend, Cancellation, Config, Metrics, Model, ModelError, Objective, PartitionId, Pass, Seed,
    Slot, Split, State, Statistic, TrialId, Unit, WorkerId, testing,
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use futures::executor::block_on;

/// A model that computes nothing.
struct Empty;

impl Model for Empty {
    fn initialize(&mut self, _: Seed) -> Result<(), ModelError> {
        Ok(())
    }

    fn restore(&mut self, state: &State) -> Result<(), ModelError> {
        black_box(state);
        Ok(())
    }

    fn state(&mut self) -> Result<State, ModelError> {
        Ok(State::from(Vec::new()))
    }

    fn train(&mut self, on: &dyn Partition, _: &Pass<'_>) -> Result<Metrics, ModelError> {
        let mut metrics = Metrics::new();
        metrics.record("loss", Statistic::mean(1.0, on.rows()));
        Ok(metrics)
    }

    fn evaluate(&mut self, on: &dyn Partition, pass: &Pass<'_>) -> Result<Metrics, ModelError> {
        self.train(on, pass)
    }
}

#[expect(clippy::unnecessary_wraps, reason = "the signature of a builder")]
fn build(_: &Config, _: &Slot) -> Result<Box<dyn Model>, ModelError> {
    Ok(Box::new(Empty))
}

fn backend_alone(criterion: &mut Criterion) {
    let backend = LocalBackend::builder().build().expect("one worker");
    let job = Job { dataset: Arc::new(testing::dataset(1, 1)), builder: Arc::new(build) };
    block_on(backend.start(job)).expect("data in memory");
    let order = UnitOrder {
        unit: Unit { trial: TrialId(0), epoch: 0, split: Split::Train, partition: PartitionId(0) },
        worker: WorkerId(0),
        config: Arc::new(Config::new()),
        seed: Seed(0),
        version: 0,
        cancellation: Cancellation::new(),
    };
    criterion.bench_function("unit/local backend, empty model", |bencher| {
        bencher.iter(|| block_on(backend.run(order.clone())).expect("an empty model trains"));
    });
}

fn whole_experiment(criterion: &mut Criterion) {
    const TRIALS: u64 = 100;
    const EPOCHS: u32 = 5;
    let mut group = criterion.benchmark_group("unit");
    // 4 training and 1 validation unit per trial and epoch: scheduler, driver and backend together.
    group.throughput(Throughput::Elements(TRIALS * u64::from(EPOCHS) * 5));
    group.sample_size(10);
    group.bench_function("experiment of 100 trials, empty model", |bencher| {
        bencher.iter(|| {
            let backend = LocalBackend::builder().workers(2).build().expect("two workers");
            let result = Experiment::builder()
                .dataset(testing::dataset(4, 1))
                .model(build)
                .search(
                    Grid::of((0..TRIALS as i64).map(|n| Config::new().with("n", n)))
                        .expect("a grid"),
                )
                .objective(Objective::minimize("loss"))
                .epochs(EPOCHS)
                .build()
                .expect("complete")
                .run_blocking(Arc::new(backend))
                .expect("runs");
            assert_eq!(result.summary().train_units, TRIALS * u64::from(EPOCHS) * 4);
        });
    });
    group.finish();
}

criterion_group!(benches, backend_alone, whole_experiment);
criterion_main!(benches);
