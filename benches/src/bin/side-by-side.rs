//! Cerebro's part of the side-by-side job; `benches/side_by_side/run.py` runs it beside PyTorch.
//!
//! ```text
//! side-by-side prepare JOB.json DATA ROWS     makes the data set
//! side-by-side run JOB.json DATA [EVENTS]     runs the job, prints one JSON object
//! ```

use std::error::Error;
use std::io;
use std::path::Path;
use std::sync::Arc;

use cerebro_backend_local::LocalBackend;
use cerebro_core::data::{ParquetDataset, Prepare, Source, TensorColumns, Validation};
use cerebro_core::experiment::Experiment;
use cerebro_core::observe::JsonLines;
use cerebro_core::search::Grid;
use cerebro_core::{Config, Objective, Seed};
use cerebro_models::loss::Loss;
use cerebro_models::metric::Metric;
use cerebro_models::{Trainer, nn, runtime};
use ndarray::{Array1, Array2, Axis};
use npyz::WriterBuilder;
use serde::Deserialize;

#[derive(Deserialize)]
struct Job {
    features: usize,
    hidden: Vec<usize>,
    classes: usize,
    momentum: f64,
    epochs: u32,
    workers: usize,
    configs: Vec<Point>,
}

#[derive(Deserialize)]
struct Point {
    learning_rate: f64,
    batch_size: i64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let read = |path: &str| -> Result<Job, Box<dyn Error>> {
        Ok(serde_json::from_slice(&std::fs::read(path)?)?)
    };
    match arguments[..] {
        ["prepare", job, data, rows] => prepare(&read(job)?, Path::new(data), rows.parse()?),
        ["run", job, data] => run(&read(job)?, data, None),
        ["run", job, data, events] => run(&read(job)?, data, Some(events)),
        _ => {
            Err("usage: side-by-side prepare JOB.json DATA ROWS | run JOB.json DATA [EVENTS]"
                .into())
        }
    }
}

/// Gaussian features, labelled by a random network of one hidden layer, a tenth of them wrongly:
/// something to learn, and something to overfit.
fn prepare(job: &Job, folder: &Path, rows: usize) -> Result<(), Box<dyn Error>> {
    let seed = Seed(20);
    let normal = |purpose: &str, rows: usize, columns: usize| {
        let mut rng = seed.derive(purpose, &[]).rng();
        Array2::from_shape_simple_fn((rows, columns), || rng.normal() as f32)
    };
    let x = normal("x", rows, job.features);
    let hidden = x.dot(&normal("hidden", job.features, 32)).mapv(f32::tanh);
    let scores = hidden.dot(&normal("output", 32, job.classes));
    let mut rng = seed.derive("noise", &[]).rng();
    let y: Array1<i64> = scores.map_axis(Axis(1), |scores| {
        if rng.unit() < 0.1 {
            return rng.below(job.classes as u64) as i64;
        }
        let best = scores.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
        best.map_or(0, |(class, _)| class as i64)
    });
    std::fs::create_dir_all(folder)?;
    let files = [("x", folder.join("x.npy")), ("y", folder.join("y.npy"))];
    write(&files[0].1, &[rows as u64, job.features as u64], x.iter().copied())?;
    write(&files[1].1, &[rows as u64], y.iter().copied())?;
    Prepare::new(Source::npy(files))
        .tensor(TensorColumns::new("x", ["x"]))
        .tensor(TensorColumns::new("y", ["y"]).classes(job.classes as u64))
        .partitions(4)
        .validation(Validation::Fraction(0.2))
        .validation_partitions(4)
        .run(folder)?;
    Ok(())
}

fn write<T: npyz::AutoSerialize>(
    path: &Path,
    shape: &[u64],
    values: impl Iterator<Item = T>,
) -> io::Result<()> {
    let file = io::BufWriter::new(std::fs::File::create(path)?);
    let mut array =
        npyz::WriteOptions::new().default_dtype().shape(shape).writer(file).begin_nd()?;
    array.extend(values)?;
    array.finish()
}

fn run(job: &Job, data: &str, events: Option<&str>) -> Result<(), Box<dyn Error>> {
    runtime::install()?;
    let network = nn::mlp(job.features, &job.hidden, job.classes);
    let trainer = Trainer::new(network, Loss::cross_entropy())
        .metric(Metric::Accuracy)
        .input("x")
        .target("y")
        .default("optimizer", "sgd")
        .default("momentum", job.momentum);
    let configs = job.configs.iter().map(|point| {
        Config::new()
            .with("learning_rate", point.learning_rate)
            .with("batch_size", point.batch_size)
    });
    let backend = LocalBackend::builder().workers(job.workers).threads_per_worker(1).build()?;
    let mut experiment = Experiment::builder();
    if let Some(path) = events {
        experiment = experiment.observer(JsonLines::create(path)?);
    }
    let result = experiment
        .dataset(ParquetDataset::open(data)?)
        .model(trainer)
        .search(Grid::of(configs)?)
        .objective(Objective::maximize("accuracy"))
        .epochs(job.epochs)
        .build()?
        .run_blocking(Arc::new(backend))?;
    // The last epoch's accuracy, as the peers report it; not the best one's.
    let accuracies: Vec<Option<f64>> =
        result.trials().map(|trial| trial.history.last().map(|epoch| epoch.value)).collect();
    let utilisation = result.summary().utilisation();
    println!("{}", serde_json::json!({ "accuracies": accuracies, "utilisation": utilisation }));
    Ok(())
}
