//! What a cluster costs: the job of the quickstart on two threads of this process, and on two worker
//! processes that are reached through TCP, in turn. Prints the ratio of the times from when the
//! workers are there to the end, and of the processor time of all processes meanwhile, which depends
//! less on what else the machine does.
//!
//! ```text
//! cargo run --release -p cerebro-backend-tcp --features onnx --example quickstart_cluster [-- [seeded] [ROUNDS [EPOCHS]]]
//! ```
//!
//! With `seeded` each trial's order of partitions is fixed, so that nearly every unit begins with a hop;
//! and the two train to the same bits, or this program fails. Without, the scheduler does as in the
//! quickstart.

#[path = "../benches/support/processor.rs"]
mod processor;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cerebro_backend_local::LocalBackend;
use cerebro_backend_tcp::TcpBackend;
use cerebro_backend_tcp::worker::{self, Options, Registry};
use cerebro_core::data::{
    Normalization, ParquetDataset, Prepare, Scope, Source, TensorColumns, Validation,
};
use cerebro_core::experiment::Experiment;
use cerebro_core::observe::Event;
use cerebro_core::schedule::Policy;
use cerebro_core::search::Random;
use cerebro_core::{Backend, Objective, Seed, Space};
use cerebro_models::loss::Loss;
use cerebro_models::metric::Metric;
use cerebro_models::nn::NetworkSpec;
use cerebro_models::{Trainer, runtime};
use futures::executor::block_on;

const SEED: u64 = 2020;
const TRIALS: u64 = 24;
const EPOCHS: u32 = 20;
const WORKERS: usize = 2;
const ROUNDS: usize = 3;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let policy = if arguments.first().is_some_and(|first| first == "seeded") {
        arguments.remove(0);
        Policy::Seeded
    } else {
        Policy::default()
    };
    match &arguments[..] {
        [command, driver] if command == "worker" => {
            runtime::install()?;
            let options = Options::new(driver).threads_per_slot(1);
            Ok(worker::serve(Registry::onnx(), options)?)
        }
        [] => compare(&policy, ROUNDS, EPOCHS),
        [rounds] => compare(&policy, rounds.parse()?, EPOCHS),
        [rounds, epochs] => compare(&policy, rounds.parse()?, epochs.parse()?),
        _ => Err("usage: quickstart_cluster [seeded] [ROUNDS [EPOCHS]]".into()),
    }
}

/// What a training cost: the time, the processor time of all processes, and the share of their time
/// in which the slots computed.
struct Cost {
    wall: Duration,
    processor: Duration,
    utilisation: f64,
}

/// A training: its cost, and the weights of the best model.
type Trained = (Cost, Vec<u8>);

fn compare(policy: &Policy, rounds: usize, epochs: u32) -> Result<(), Box<dyn Error>> {
    runtime::install()?;
    let folder = tempfile::tempdir()?;
    let dataset = prepare(folder.path())?;
    let (mut walls, mut processors) = (Vec::new(), Vec::new());
    for round in 1..=rounds.max(1) {
        let backend = LocalBackend::builder().workers(WORKERS).threads_per_worker(1).build()?;
        let (threads, weights) = train(&dataset, policy, epochs, Arc::new(backend), &[])?;
        let (processes, cluster_weights) = on_processes(&dataset, policy, epochs)?;
        if matches!(policy, Policy::Seeded) && weights != cluster_weights {
            return Err("the weights of the best model are not the same".into());
        }
        for (name, cost) in [("threads", &threads), ("processes", &processes)] {
            let (wall, processor) = (cost.wall.as_secs_f64(), cost.processor.as_secs_f64());
            let busy = 100.0 * cost.utilisation;
            println!(
                "round {round}: {name:9} {wall:6.2} s, processor {processor:6.2} s, \
                 slots computing {busy:4.1} %"
            );
        }
        walls.push((threads.wall, processes.wall));
        processors.push((threads.processor, processes.processor));
    }
    println!(
        "processes over threads, medians: time {:.3}, processor time {:.3}",
        ratio(&walls),
        ratio(&processors)
    );
    Ok(())
}

/// The median of the second over the median of the first.
fn ratio(times: &[(Duration, Duration)]) -> f64 {
    let median = |mut times: Vec<Duration>| {
        times.sort_unstable();
        times[times.len() / 2].as_secs_f64()
    };
    let (first, second): (Vec<Duration>, Vec<Duration>) = times.iter().copied().unzip();
    median(second) / median(first)
}

/// The processor time of this process and of its children so far, zero where `/proc` does not tell.
fn processor_time(children: &[u32]) -> Duration {
    let own = std::process::id();
    children.iter().chain([&own]).filter_map(|&process| processor::processor_time(process)).sum()
}

/// The digits of the quickstart, in 4 partitions to train on and 2 to validate.
fn prepare(folder: &Path) -> Result<ParquetDataset, Box<dyn Error>> {
    let digits = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../examples/data/digits.parquet");
    let pixels = TensorColumns::new("pixels", ["pixels"]);
    Ok(Prepare::new(Source::parquet(digits))
        .tensor(pixels.normalize(Normalization::MinMax, Scope::Tensor))
        .tensor(TensorColumns::new("label", ["label"]).classes(10))
        .partitions(4)
        .validation(Validation::Fraction(0.2))
        .validation_partitions(2)
        .stratify("label")
        .seed(Seed(SEED))
        .run(folder.join("data"))?)
}

/// Trains on `backend`, whose workers are in the processes `children`.
fn train(
    dataset: &ParquetDataset,
    policy: &Policy,
    epochs: u32,
    backend: Arc<dyn Backend>,
    children: &[u32],
) -> Result<Trained, Box<dyn Error>> {
    let space = Space::builder()
        .choice("hidden", [vec![256], vec![512, 256], vec![512, 512]])
        .choice("batch_size", [4, 8])
        .choice("optimizer", ["sgd", "adamw"])
        .loguniform("learning_rate", 3e-4, 1e-1)
        .loguniform("weight_decay", 1e-6, 1e-2)
        .build()?;
    let network =
        NetworkSpec::Mlp { inputs: 64.into(), hidden: "hidden".into(), outputs: 10.into() };
    let trainer = Trainer::new(network, Loss::cross_entropy())
        .metric(Metric::Accuracy)
        .input("pixels")
        .target("label");
    let now = Mark { at: Duration::ZERO, processor: Duration::ZERO };
    let ends = Arc::new(Mutex::new((now, now)));
    let (seen, processes) = (Arc::clone(&ends), children.to_vec());
    let result = Experiment::builder()
        .dataset(dataset.clone())
        .model(trainer)
        .search(Random::new(&space, TRIALS, Seed(SEED))?)
        .objective(Objective::maximize("accuracy"))
        .policy(policy.clone())
        .epochs(epochs)
        .seed(SEED)
        .concurrent_trials(12)
        .keep_models(1)
        .observer(move |at: Duration, event: &Event| {
            let Ok(mut ends) = seen.lock() else { return };
            let now = || Mark { at, processor: processor_time(&processes) };
            match event {
                Event::ExperimentStarted { .. } => ends.0 = now(),
                Event::ExperimentEnded { .. } => ends.1 = now(),
                _ => {}
            }
        })
        .build()?
        .run_blocking(backend)?;
    let weights = block_on(result.state(result.best()?.id))?.to_vec();
    let (started, ended) = *ends.lock().map_err(|_| "the observer panicked")?;
    let cost = Cost {
        wall: ended.at.saturating_sub(started.at),
        processor: ended.processor.saturating_sub(started.processor),
        utilisation: result.summary().utilisation(),
    };
    Ok((cost, weights))
}

/// An instant of a training, and the processor time until then.
#[derive(Clone, Copy)]
struct Mark {
    at: Duration,
    processor: Duration,
}

fn on_processes(
    dataset: &ParquetDataset,
    policy: &Policy,
    epochs: u32,
) -> Result<Trained, Box<dyn Error>> {
    let backend = Arc::new(TcpBackend::builder().listen("127.0.0.1:0").workers(WORKERS).build()?);
    let driver = backend.address().to_string();
    let program = std::env::current_exe()?;
    let start = |_| Command::new(&program).args(["worker", &driver]).spawn();
    let crew = (0..WORKERS).map(start).collect::<Result<Vec<Child>, _>>()?;
    let children: Vec<u32> = crew.iter().map(Child::id).collect();
    let trained =
        train(dataset, policy, epochs, Arc::clone(&backend) as Arc<dyn Backend>, &children);
    block_on(backend.shutdown())?;
    for mut worker in crew {
        worker.wait()?;
    }
    trained
}
