//! Cerebro's part of the comparison of step times; `benches/side_by_side/step_time.py` runs it
//! beside PyTorch.
//!
//! ```text
//! step-time FOLDER THREADS     answers requests on standard input, a line each, in JSON
//! ```
//!
//! | request | answer |
//! | --- | --- |
//! | `steps NET COUNT` | seconds per training step |
//! | `losses NET` | the losses of three steps on the first batch, from the initial values |
//! | `memory NET COUNT` | resident bytes before the network is there, and at the peak of its steps |
//! | `switch NET` | seconds to go on with another trial: the best of many |
//! | `create` | seconds to draw and compile the training step of a ResNet-18 |

use std::collections::HashMap;
use std::error::Error;
use std::fs::{self, File};
use std::io::{BufReader, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use cerebro_core::data::{MemoryPartition, Partition, Tensor};
use cerebro_core::{
    Cancellation, Config, Model, ModelBuilder, PartitionId, Pass, Seed, Slot, Split, TrialId, Unit,
};
use cerebro_models::loss::Loss;
use cerebro_models::nn::{self, Depth};
use cerebro_models::{Trainer, onnx, runtime};
use ndarray::{ArrayD, IxDyn};
use serde::Deserialize;
use serde_json::{Value, json};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Steps before the clock runs.
const WARM_UP_STEPS: usize = 3;

#[derive(Deserialize)]
struct Job {
    inputs: Vec<String>,
    loss: String,
    batch_size: usize,
    optimizer: String,
    learning_rate: f64,
    momentum: Option<f64>,
}

/// A network with its data, ready to train.
struct Training {
    trainer: Trainer,
    config: Config,
    slot: Slot,
    model: Box<dyn Model>,
    batch_size: usize,
    tensors: Vec<(String, Tensor)>,
    partition: MemoryPartition,
}

impl Training {
    fn read(folder: &Path, net: &str, slot: Slot) -> Outcome<Self> {
        let folder = folder.join(net);
        let job: Job = serde_json::from_slice(&fs::read(folder.join("job.json"))?)?;
        let loss = match job.loss.as_str() {
            "cross_entropy" => Loss::cross_entropy(),
            "bce_with_logits" => Loss::binary_cross_entropy_with_logits(),
            _ => Loss::MeanSquaredError,
        };
        let network = onnx::Model::from_file(folder.join("model.onnx"))?;
        let mut trainer = Trainer::new(network, loss).target("y");
        let mut tensors = vec![("y".to_owned(), tensor(&folder.join("y.npy"))?)];
        for input in &job.inputs {
            trainer = trainer.bind(input, input);
            tensors.push((input.clone(), tensor(&folder.join(format!("{input}.npy")))?));
        }
        let mut config = Config::new()
            .with("optimizer", job.optimizer.as_str())
            .with("learning_rate", job.learning_rate)
            .with("batch_size", job.batch_size as i64);
        if let Some(momentum) = job.momentum {
            config = config.with("momentum", momentum);
        }
        let mut model = trainer.build(&config, &slot)?;
        model.initialize(Seed(1))?;
        let partition = MemoryPartition::new(PartitionId(0), tensors.clone())?;
        let batch_size = job.batch_size;
        Ok(Self { trainer, config, slot, model, batch_size, tensors, partition })
    }

    /// Makes whole passes, at least `count` steps; gives the number of steps.
    fn steps(&mut self, count: usize) -> Outcome<usize> {
        let per_pass = self.partition.rows().div_ceil(self.batch_size);
        let passes = count.div_ceil(per_pass);
        (0..passes).try_for_each(|_| pass(&mut *self.model, &self.partition).map(drop))?;
        Ok(passes * per_pass)
    }

    fn losses(&mut self) -> Outcome<Vec<f64>> {
        let head =
            |(name, tensor): &(String, Tensor)| (name.clone(), first(tensor, self.batch_size));
        let batch = MemoryPartition::new(PartitionId(0), self.tensors.iter().map(head))?;
        (0..3).map(|_| pass(&mut *self.model, &batch)).collect()
    }

    /// What a worker does to go on with another trial in a slot that has its graphs.
    fn switch(&mut self) -> Outcome<f64> {
        self.steps(1)?;
        let state = self.model.state()?;
        let mut best = f64::INFINITY;
        for _ in 0..200 {
            let begun = Instant::now();
            let mut other = self.trainer.build(&self.config, &self.slot)?;
            other.restore(&state)?;
            best = best.min(begun.elapsed().as_secs_f64());
        }
        Ok(best)
    }
}

fn tensor(file: &Path) -> Outcome<Tensor> {
    let array = npyz::NpyFile::new(BufReader::new(File::open(file)?))?;
    let shape: Vec<usize> = array.shape().iter().map(|&size| size as usize).collect();
    let is_float = array.dtype().descr().contains("f4");
    Ok(if is_float {
        ArrayD::from_shape_vec(IxDyn(&shape), array.into_vec::<f32>()?)?.into()
    } else {
        ArrayD::from_shape_vec(IxDyn(&shape), array.into_vec::<i64>()?)?.into()
    })
}

fn first(tensor: &Tensor, rows: usize) -> Tensor {
    let head = ndarray::Slice::from(..rows);
    match (tensor.as_f32(), tensor.as_i64()) {
        (Some(array), _) => array.slice_axis(ndarray::Axis(0), head).to_owned().into(),
        (_, Some(array)) => array.slice_axis(ndarray::Axis(0), head).to_owned().into(),
        _ => tensor.clone(),
    }
}

/// One training pass; gives its loss.
fn pass(model: &mut dyn Model, partition: &dyn Partition) -> Outcome<f64> {
    let unit = Unit { trial: TrialId(0), epoch: 0, split: Split::Train, partition: partition.id() };
    let cancellation = Cancellation::new();
    let metrics = model.train(partition, &Pass::new(unit, Seed(1), &cancellation, &|_| ()))?;
    metrics.value("loss").ok_or_else(|| "a pass without a loss".into())
}

/// The first unit of a ResNet-18 in a slot less a later one.
fn create(slot: Slot) -> Outcome<f64> {
    let rows = 8;
    let trainer =
        Trainer::new(nn::resnet(Depth::Eighteen, 64, [3, 32, 32], 10), Loss::cross_entropy());
    let trainer = trainer.input("x").target("y");
    let config =
        Config::new().with("optimizer", "sgd").with("learning_rate", 0.01).with("batch_size", rows);
    let x = ArrayD::<f32>::zeros(IxDyn(&[rows as usize, 3, 32, 32]));
    let y = ArrayD::<i64>::zeros(IxDyn(&[rows as usize]));
    let tensors = [("x", Tensor::from(x)), ("y", Tensor::from(y))];
    let partition = MemoryPartition::new(PartitionId(0), tensors)?;
    let mut model = trainer.build(&config, &slot)?;
    model.initialize(Seed(1))?;
    let mut timed = || -> Outcome<f64> {
        let begun = Instant::now();
        pass(&mut *model, &partition)?;
        Ok(begun.elapsed().as_secs_f64())
    };
    let with_creation = timed()?;
    Ok(with_creation - timed()?)
}

fn resident(what: &str) -> Outcome<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with(what)).ok_or("no such line")?;
    let kibibytes = line.split_whitespace().nth(1).ok_or("no figure")?;
    Ok(1024 * kibibytes.parse::<u64>()?)
}

fn memory(folder: &Path, net: &str, slot: Slot, count: usize) -> Outcome<Value> {
    Training::read(folder, "mlp-small-sgd", slot)?.steps(1)?;
    let before = resident("VmRSS")?;
    fs::write("/proc/self/clear_refs", "5")?;
    Training::read(folder, net, slot)?.steps(count)?;
    Ok(json!({ "before": before, "peak": resident("VmHWM")? }))
}

struct Worker {
    folder: PathBuf,
    slot: Slot,
    trainings: HashMap<String, Training>,
}

impl Worker {
    fn answer(&mut self, request: &[&str]) -> Outcome<Value> {
        let (folder, slot) = (self.folder.as_path(), self.slot);
        match request {
            ["steps", net, count] => {
                if !self.trainings.contains_key(*net) {
                    let mut training = Training::read(folder, net, slot)?;
                    training.steps(WARM_UP_STEPS)?;
                    self.trainings.insert((*net).to_owned(), training);
                }
                let training = self.trainings.get_mut(*net).ok_or("just inserted")?;
                let begun = Instant::now();
                let made = training.steps(count.parse()?)?;
                Ok(json!({ "seconds": begun.elapsed().as_secs_f64() / made as f64 }))
            }
            ["losses", net] => {
                Ok(json!({ "losses": Training::read(folder, net, slot)?.losses()? }))
            }
            ["memory", net, count] => memory(folder, net, slot, count.parse()?),
            ["switch", net] => {
                Ok(json!({ "seconds": Training::read(folder, net, slot)?.switch()? }))
            }
            ["create"] => Ok(json!({ "seconds": create(slot)? })),
            other => Err(format!("unknown request {other:?}").into()),
        }
    }
}

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, threads] = arguments.as_slice() else {
        return Err("usage: step-time FOLDER THREADS".into());
    };
    runtime::install()?;
    let slot = Slot { threads: threads.parse()?, ..Slot::default() };
    let mut worker = Worker { folder: folder.into(), slot, trainings: HashMap::new() };
    for line in std::io::stdin().lines() {
        let line = line?;
        let request: Vec<&str> = line.split_whitespace().collect();
        let answer = worker.answer(&request)?;
        println!("{answer}");
        std::io::stdout().flush()?;
    }
    Ok(())
}
