//! What a cluster costs: the job of the quickstart on two threads of this process, and on two worker
//! processes that are reached through TCP, in turn. Prints the ratio of the times from when the
//! workers are there to the end.
//!
//! ```text
//! cargo run --release -p cerebro-backend-tcp --features onnx --example quickstart_cluster [-- ROUNDS]
//! ```
//!
//! The two train to the same bits, or this program fails.

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
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments[..] {
        [command, driver] if command == "worker" => {
            runtime::install()?;
            let options = Options::new(driver).threads_per_slot(1);
            Ok(worker::serve(Registry::onnx(), options)?)
        }
        [] => compare(ROUNDS),
        [rounds] => compare(rounds.parse()?),
        _ => Err("usage: quickstart_cluster [ROUNDS]".into()),
    }
}

fn compare(rounds: usize) -> Result<(), Box<dyn Error>> {
    runtime::install()?;
    let folder = tempfile::tempdir()?;
    let dataset = prepare(folder.path())?;
    let (mut local, mut cluster) = (Vec::new(), Vec::new());
    for round in 1..=rounds.max(1) {
        let backend = LocalBackend::builder().workers(WORKERS).threads_per_worker(1).build()?;
        let (time, weights) = train(&dataset, Arc::new(backend))?;
        local.push(time);
        let (cluster_time, cluster_weights) = on_processes(&dataset)?;
        cluster.push(cluster_time);
        if weights != cluster_weights {
            return Err("the weights of the best model are not the same".into());
        }
        let (a, b) = (time.as_secs_f64(), cluster_time.as_secs_f64());
        println!("round {round}: threads {a:.2} s, processes {b:.2} s, ratio {:.3}", b / a);
    }
    let ratio = median(&mut cluster).as_secs_f64() / median(&mut local).as_secs_f64();
    println!("medians: ratio {ratio:.3}");
    Ok(())
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
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

/// The time of the training, and the weights of the best model.
fn train(
    dataset: &ParquetDataset,
    backend: Arc<dyn Backend>,
) -> Result<(Duration, Vec<u8>), Box<dyn Error>> {
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
    let ends = Arc::new(Mutex::new((Duration::ZERO, Duration::ZERO)));
    let seen = Arc::clone(&ends);
    let result = Experiment::builder()
        .dataset(dataset.clone())
        .model(trainer)
        .search(Random::new(&space, TRIALS, Seed(SEED))?)
        .objective(Objective::maximize("accuracy"))
        .policy(Policy::Seeded)
        .epochs(EPOCHS)
        .seed(SEED)
        .concurrent_trials(12)
        .keep_models(1)
        .observer(move |at: Duration, event: &Event| {
            if let Ok(mut ends) = seen.lock() {
                match event {
                    Event::ExperimentStarted { .. } => ends.0 = at,
                    Event::ExperimentEnded { .. } => ends.1 = at,
                    _ => {}
                }
            }
        })
        .build()?
        .run_blocking(backend)?;
    let weights = block_on(result.state(result.best()?.id))?.to_vec();
    let (started, ended) = *ends.lock().map_err(|_| "the observer panicked")?;
    Ok((ended.saturating_sub(started), weights))
}

fn on_processes(dataset: &ParquetDataset) -> Result<(Duration, Vec<u8>), Box<dyn Error>> {
    let backend = Arc::new(TcpBackend::builder().listen("127.0.0.1:0").workers(WORKERS).build()?);
    let driver = backend.address().to_string();
    let program = std::env::current_exe()?;
    let start = |_| Command::new(&program).args(["worker", &driver]).spawn();
    let crew = (0..WORKERS).map(start).collect::<Result<Vec<Child>, _>>()?;
    let trained = train(dataset, Arc::clone(&backend) as Arc<dyn Backend>);
    block_on(backend.shutdown())?;
    for mut worker in crew {
        worker.wait()?;
    }
    trained
}
