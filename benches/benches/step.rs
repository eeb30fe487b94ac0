//! What does a training step cost, and what does changing the trial cost?
//!
//! One thread. `step` is the time per mini-batch, its rows gathered from a partition in memory;
//! `switch` is what a slot does to go on with another trial; `compile` is the first unit of an
//! architecture in a slot, which compiles its step. PyTorch's times of the same steps are measured
//! by `side_by_side/`.

use std::time::{Duration, Instant};

use cerebro_core::data::{MemoryPartition, Partition, Tensor};
use cerebro_core::{
    Cancellation, Config, Model, ModelBuilder, PartitionId, Pass, Seed, Slot, Split, State,
    TrialId, Unit,
};
use cerebro_models::loss::Loss;
use cerebro_models::{Trainer, nn, runtime};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use ndarray::{Array1, Array2};

/// The mini-batches of one pass.
const STEPS: usize = 20;

struct Job {
    name: &'static str,
    sizes: &'static [usize],
    batch_size: usize,
    optimizer: &'static str,
}

const JOBS: [Job; 6] = [
    Job { name: "692-100-1", sizes: &[692, 100, 1], batch_size: 32, optimizer: "sgd" },
    Job { name: "692-100-1", sizes: &[692, 100, 1], batch_size: 32, optimizer: "adam" },
    Job { name: "100-256-256-10", sizes: &[100, 256, 256, 10], batch_size: 64, optimizer: "sgd" },
    Job { name: "100-256-256-10", sizes: &[100, 256, 256, 10], batch_size: 256, optimizer: "sgd" },
    Job {
        name: "784-1024-1024-10",
        sizes: &[784, 1024, 1024, 10],
        batch_size: 256,
        optimizer: "sgd",
    },
    Job {
        name: "784-1024-1024-10",
        sizes: &[784, 1024, 1024, 10],
        batch_size: 256,
        optimizer: "adam",
    },
];

impl Job {
    fn id(&self, group: &str) -> BenchmarkId {
        let optimizer = if self.optimizer == "sgd" { "momentum" } else { self.optimizer };
        BenchmarkId::new(group, format!("{}, batch {}, {optimizer}", self.name, self.batch_size))
    }

    fn trainer(&self) -> Trainer {
        runtime::install().expect("ONNX Runtime");
        let (&outputs, rest) = self.sizes.split_last().expect("several sizes");
        let loss = match outputs {
            1 => Loss::binary_cross_entropy_with_logits(),
            _ => Loss::cross_entropy(),
        };
        let network = nn::mlp(rest[0], &rest[1..], outputs);
        Trainer::new(network, loss).input("x").target("y")
    }

    fn config(&self) -> Config {
        let config = Config::new()
            .with("optimizer", self.optimizer)
            .with("learning_rate", 1e-4)
            .with("batch_size", self.batch_size as i64);
        if self.optimizer == "sgd" { config.with("momentum", 0.9) } else { config }
    }

    fn partition(&self, rows: usize) -> MemoryPartition {
        let mut rng = Seed(1).rng();
        let x = Array2::from_shape_fn((rows, self.sizes[0]), |_| rng.normal() as f32);
        let classes = self.sizes[self.sizes.len() - 1].max(2) as u64;
        let y = Array1::from_shape_fn(rows, |_| rng.below(classes) as i64);
        let tensors = [("x", Tensor::from(x.into_dyn())), ("y", Tensor::from(y.into_dyn()))];
        MemoryPartition::new(PartitionId(0), tensors).expect("rows")
    }
}

fn train(model: &mut dyn Model, partition: &dyn Partition) {
    let unit = Unit { trial: TrialId(0), epoch: 0, split: Split::Train, partition: partition.id() };
    let cancellation = Cancellation::new();
    let pass = Pass::new(unit, Seed(1), &cancellation, &|_| ());
    model.train(partition, &pass).expect("a pass");
}

fn resumed(trainer: &Trainer, config: &Config, state: &State) -> Box<dyn Model> {
    let mut model = trainer.build(config, &Slot::default()).expect("a valid Config");
    model.restore(state).expect("a State of this architecture");
    model
}

fn step(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("train");
    group.sample_size(10).measurement_time(Duration::from_secs(2));
    for job in &JOBS {
        let (trainer, config) = (job.trainer(), job.config());
        let partition = job.partition(STEPS * job.batch_size);
        let mut model = trainer.build(&config, &Slot::default()).expect("a valid Config");
        model.initialize(Seed(1)).expect("initial weights");
        train(&mut *model, &partition);
        group.bench_function(job.id("step"), |bencher| {
            bencher.iter_custom(|passes| {
                let begun = Instant::now();
                (0..passes).for_each(|_| train(&mut *model, &partition));
                begun.elapsed() / STEPS as u32
            });
        });
        let state = model.state().expect("a State");
        group.bench_function(job.id("switch"), |bencher| {
            bencher.iter(|| resumed(&trainer, &config, &state));
        });
    }
    group.finish();
}

fn compile(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("first unit");
    group.sample_size(10);
    for job in [&JOBS[1], &JOBS[2]] {
        let partition = job.partition(job.batch_size);
        group.bench_function(job.id("compile"), |bencher| {
            bencher.iter_custom(|times| {
                let trainers: Vec<Trainer> = (0..times).map(|_| job.trainer()).collect();
                let begun = Instant::now();
                for trainer in &trainers {
                    let mut model =
                        trainer.build(&job.config(), &Slot::default()).expect("a valid Config");
                    model.initialize(Seed(1)).expect("initial weights");
                    train(&mut *model, &partition);
                }
                begun.elapsed()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, step, compile);
criterion_main!(benches);
