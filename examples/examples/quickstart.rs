//! Model selection from raw data to an exported model: two workers hop 24 networks over the
//! partitions of a real data set.
//!
//! ```text
//! cargo run --release --example quickstart [-- FOLDER]
//! ```
//!
//! The data are the UCI handwritten digits (see `examples/data/README.md`). Everything is written
//! below `FOLDER`, `runs/quickstart` unless told otherwise.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cerebro_backend_local::LocalBackend;
use cerebro_core::data::{
    Dataset, Normalization, ParquetDataset, Prepare, Scope, Source, TensorColumns, Validation,
};
use cerebro_core::experiment::{Experiment, ExperimentResult};
use cerebro_core::observe::{HtmlReport, JsonLines, Leaderboard, Outcome, Progress, TrialLogs};
use cerebro_core::search::Random;
use cerebro_core::{Config, Objective, Seed, Space, Split};
use cerebro_models::loss::Loss;
use cerebro_models::metric::Metric;
use cerebro_models::{Architecture, Inference, Trainer, nn, runtime};
use futures::executor::block_on;
use ndarray::Axis;

const SEED: u64 = 2020;
const TRIALS: u64 = 24;
const EPOCHS: u32 = 20;
const WORKERS: usize = 2;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args().nth(1).unwrap_or_else(|| "runs/quickstart".to_owned());
    let folder = PathBuf::from(folder);
    std::fs::create_dir_all(&folder)
        .map_err(|error| format!("cannot create the folder {}: {error}", folder.display()))?;
    let runtime = runtime::install()?;
    println!("ONNX Runtime  {}", runtime.library().display());

    let dataset = prepare(&folder)?;
    let trainer = Arc::new(trainer());
    let result = search(dataset.clone(), Arc::clone(&trainer), &folder)?;
    println!("\n{}\n{}", Leaderboard::from(&result).top(10), result.summary());
    export(&result, &trainer, &dataset, &folder)
}

/// Cuts the digits into 4 training partitions and a validation set, once: another run finds them.
fn prepare(folder: &Path) -> Result<ParquetDataset, Box<dyn Error>> {
    let digits = concat!(env!("CARGO_MANIFEST_DIR"), "/data/digits.parquet");
    let pixels = TensorColumns::new("pixels", ["pixels"]);
    let dataset = Prepare::new(Source::parquet(digits))
        .tensor(pixels.normalize(Normalization::MinMax, Scope::Tensor))
        .tensor(TensorColumns::new("label", ["label"]).classes(10))
        .partitions(4)
        .validation(Validation::Fraction(0.2))
        .validation_partitions(2)
        .stratify("label")
        .seed(Seed(SEED))
        .run(folder.join("data"))?;
    for split in [Split::Train, Split::Validation] {
        let rows: Vec<u64> = rows(&dataset, split).collect();
        println!("{split:<13} {} rows in {} partitions", rows.iter().sum::<u64>(), rows.len());
    }
    Ok(dataset)
}

fn rows(dataset: &ParquetDataset, split: Split) -> impl Iterator<Item = u64> {
    dataset.partitions().iter().filter(move |info| info.split == split).map(|info| info.rows)
}

/// Networks of one or two hidden layers, trained to tell ten digits apart.
fn trainer() -> Trainer {
    let network = Architecture::new(["hidden"], |config: &Config| {
        Ok(nn::mlp(64, &config.sizes("hidden")?, 10))
    });
    Trainer::new(network, Loss::cross_entropy())
        .metric(Metric::Accuracy)
        .input("pixels")
        .target("label")
}

/// Tries 24 Configs on two workers.
fn search(
    dataset: ParquetDataset,
    trainer: Arc<Trainer>,
    folder: &Path,
) -> Result<ExperimentResult, Box<dyn Error>> {
    let space = Space::builder()
        .choice("hidden", [vec![256], vec![512, 256], vec![512, 512]])
        .choice("batch_size", [4, 8])
        .choice("optimizer", ["sgd", "adamw"])
        .loguniform("learning_rate", 3e-4, 1e-1)
        .loguniform("weight_decay", 1e-6, 1e-2)
        .build()?;
    let experiment = Experiment::builder()
        .name("handwritten digits")
        .dataset(dataset)
        .shared_model(trainer)
        .search(Random::new(&space, TRIALS, Seed(SEED))?)
        .objective(Objective::maximize("accuracy"))
        .epochs(EPOCHS)
        .seed(SEED)
        .concurrent_trials(12)
        .keep_models(1)
        .observer(Progress::new())
        .observer(JsonLines::create(folder.join("events.jsonl"))?)
        .observer(TrialLogs::create(folder.join("logs"))?)
        .observer(HtmlReport::create(folder.join("report.html"))?)
        .build()?;
    let handle = experiment.handle();
    // Ctrl-C: units stop at their next batch, and what was done until then is shown and exported.
    ctrlc::set_handler(move || handle.stop())?;
    let backend = LocalBackend::builder().workers(WORKERS).build()?;
    Ok(experiment.run_blocking(Arc::new(backend))?)
}

/// Exports the best model, and measures it again as anyone else would: from its file.
fn export(
    result: &ExperimentResult,
    trainer: &Trainer,
    dataset: &ParquetDataset,
    folder: &Path,
) -> Result<(), Box<dyn Error>> {
    let best = result.best()?;
    let state = block_on(result.state(best.id))?;
    let onnx = trainer.export(&best.config, &state)?.save(folder, "best")?;
    let reported = best.best_value().unwrap_or(f64::NAN);
    let measured = accuracy(&onnx, dataset)?;
    println!("best model    {} with {}", best.id, best.config);
    println!("accuracy      {reported:.4} in training, {measured:.4} from the file");
    if (reported - measured).abs() > 1e-3 {
        return Err(
            format!("{} does not give the accuracy that was measured", onnx.display()).into()
        );
    }
    for file in ["report.html", "events.jsonl", "logs", "best.onnx", "best.safetensors"] {
        println!("wrote         {}", folder.join(file).display());
    }
    if result.summary().outcome == Outcome::Stopped {
        println!("stopped before the end: the figures are those of what was done");
    }
    Ok(())
}

/// The share of validation rows that the ONNX model in `file` labels rightly.
fn accuracy(file: &Path, dataset: &ParquetDataset) -> Result<f64, Box<dyn Error>> {
    let mut model = Inference::from_file(file)?;
    let (mut right, mut rows) = (0_usize, 0_usize);
    for info in dataset.partitions().iter().filter(|info| info.split == Split::Validation) {
        let partition = dataset.load(info.id)?;
        let logits = model.predict(&*partition, &[("input", "pixels")])?;
        let logits = logits.as_f32().ok_or("the logits are floats")?;
        let labels = partition.read("label")?;
        let labels = labels.as_i64().ok_or("the labels are whole numbers")?;
        for (scores, &label) in logits.axis_iter(Axis(0)).zip(labels) {
            let best = scores.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
            right += usize::from(best.is_some_and(|(class, _)| class as i64 == label));
            rows += 1;
        }
    }
    Ok(right as f64 / rows as f64)
}
