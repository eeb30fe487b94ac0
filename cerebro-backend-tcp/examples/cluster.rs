//! A cluster on this machine: a driver and three worker processes. One of them is killed in the
//! middle of the run and brought back; nothing is lost.
//!
//! ```text
//! cargo run --release -p cerebro-backend-tcp --example cluster [-- REPORT.html]
//! ```
//!
//! The report's schedule shows the death and the return. On real machines the same program is started
//! on each, with certificates (see `docs/run-a-cluster.md`); nothing is killed then:
//!
//! ```text
//! cluster driver 0.0.0.0:7700 WORKERS CERTIFICATES
//! cluster worker DRIVER:7700 0.0.0.0:0 CERTIFICATES
//! ```

use std::error::Error;
use std::net::SocketAddr;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cerebro_backend_tcp::worker::{self, Options, Registry};
use cerebro_backend_tcp::{Certificates, Security, TcpBackend, TcpBackendBuilder};
use cerebro_core::data::{DataError, MemoryDataset, MemoryPartition, Partition};
use cerebro_core::experiment::{Experiment, ExperimentBuilder};
use cerebro_core::metric::LOSS;
use cerebro_core::observe::{Event, HtmlReport, Leaderboard};
use cerebro_core::search::Random;
use cerebro_core::{
    Backend, Config, Metrics, Model, ModelError, Objective, PartitionId, Pass, Seed, Slot, Space,
    Split, State, Statistic,
};
use futures::executor::block_on;
use ndarray::{Array1, Array2};

const ROWS: usize = 20_000;
const DATA: &str = "moons:6,3";

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["driver", address, workers, keys] => run_driver(address, workers.parse()?, keys),
        ["worker", driver, address, keys] => {
            serve(Options::new(driver).listen(address).security(tls(keys)?))
        }
        ["worker", driver] => serve(Options::new(driver)),
        [report] => demonstrate(report),
        [] => demonstrate("cluster.html"),
        _ => {
            Err("usage: cluster [REPORT.html], or cluster driver ADDRESS WORKERS CERTIFICATES, or \
                  cluster worker DRIVER:PORT [ADDRESS CERTIFICATES]"
                .into())
        }
    }
}

fn tls(keys: &str) -> Result<Security, Box<dyn Error>> {
    Ok(Security::MutualTls(Certificates::read(keys)?))
}

/// A worker that can make this program's models and data.
fn serve(options: Options) -> Result<(), Box<dyn Error>> {
    let registry = Registry::new()
        .model("logistic regression", |_: &[u8]| Ok(Arc::new(logistic_regression) as _))
        .dataset("moons", |url| Ok(Arc::new(moons(url)?)));
    Ok(worker::serve(registry, options)?)
}

/// A driver for workers elsewhere.
fn run_driver(address: &str, workers: usize, keys: &str) -> Result<(), Box<dyn Error>> {
    let backend = driver().listen(address).workers(workers).security(tls(keys)?).build()?;
    let result = experiment()?.build()?.run_blocking(Arc::new(backend))?;
    println!("\n{}\n{}", Leaderboard::from(&result).top(5), result.summary());
    Ok(())
}

fn driver() -> TcpBackendBuilder {
    TcpBackend::builder().model("logistic regression", []).data(DATA)
}

fn experiment() -> Result<ExperimentBuilder, Box<dyn Error>> {
    let space = Space::builder()
        .loguniform("learning_rate", 1e-3, 1.0)
        .choice("batch_size", [16, 64])
        .build()?;
    Ok(Experiment::builder()
        .name("a cluster that survives")
        .dataset(moons(DATA)?)
        .model(logistic_regression)
        .search(Random::new(&space, 12, Seed(7))?)
        .objective(Objective::maximize("accuracy"))
        .epochs(8))
}

/// A driver and its workers on this machine, one of which is killed.
fn demonstrate(report: &str) -> Result<(), Box<dyn Error>> {
    let backend =
        driver().listen("127.0.0.1:0").workers(3).lease(Duration::from_secs(2)).build()?;
    let address = backend.address();
    let crew = (0..3).map(|_| start_worker(address)).collect::<Result<Vec<Child>, _>>()?;
    let crew = Arc::new(Mutex::new(crew));
    let result = experiment()?
        .observer(trouble(address, Arc::clone(&crew)))
        .observer(HtmlReport::create(report)?)
        .build()?;
    let backend = Arc::new(backend);
    let result = result.run_blocking(Arc::clone(&backend) as Arc<dyn Backend>)?;
    println!("\n{}\n{}", Leaderboard::from(&result).top(5), result.summary());
    println!("wrote {report}");
    block_on(backend.shutdown())?;
    for worker in crew.lock().map_err(|_| "the observer panicked")?.iter_mut() {
        worker.wait()?;
    }
    Ok(())
}

fn start_worker(driver: SocketAddr) -> std::io::Result<Child> {
    Command::new(std::env::current_exe()?).args(["worker", &driver.to_string()]).spawn()
}

/// Kills a worker in the middle of the run, and starts another once it is missed.
fn trouble(
    driver: SocketAddr,
    crew: Arc<Mutex<Vec<Child>>>,
) -> impl FnMut(Duration, &Event) + Send + 'static {
    let mut epochs = 0;
    move |at: Duration, event: &Event| {
        let Ok(mut crew) = crew.lock() else { return };
        match event {
            Event::EpochCompleted { .. } => {
                epochs += 1;
                if epochs == 30
                    && let Some(mut worker) = crew.pop()
                {
                    println!("{:6.2} s  a worker is killed", at.as_secs_f64());
                    // It may only fail when it has ended by itself, which is as well.
                    let _ = worker.kill().and_then(|()| worker.wait());
                }
            }
            Event::WorkerLost { worker, reason, units } => {
                println!("{:6.2} s  {worker} is lost: {reason}", at.as_secs_f64());
                println!("{:10} its units are open again: {}", "", units.len());
                match start_worker(driver) {
                    Ok(worker) => crew.push(worker),
                    Err(error) => println!("it cannot be started again: {error}"),
                }
            }
            Event::WorkerJoined { worker } => {
                let held = worker.partitions.len();
                println!("{:6.2} s  {} holds {held} partitions", at.as_secs_f64(), worker.id);
            }
            Event::UnitRepeated { unit, worker } => {
                println!("{:6.2} s  {unit} is repeated on {worker}", at.as_secs_f64());
            }
            _ => {}
        }
    }
}

/// Two interleaving half circles: `moons:TRAIN,VALIDATION` has that many partitions.
fn moons(url: &str) -> Result<MemoryDataset, DataError> {
    let numbers = url.split_once(':').and_then(|(_, numbers)| numbers.split_once(','));
    let (train, validation) = numbers.unwrap_or(("6", "3"));
    let (train, validation) = (train.parse().unwrap_or(6), validation.parse().unwrap_or(3));
    let partition = |id: u32| {
        let mut random = Seed(1).derive("moons", &[u64::from(id)]).rng();
        let mut x = Array2::<f32>::zeros((ROWS, 2));
        let mut label = Array1::<i64>::zeros(ROWS);
        for row in 0..ROWS {
            let (angle, side) = (random.unit() * std::f64::consts::PI, random.below(2));
            let noise = (random.unit() - 0.5, random.unit() - 0.5);
            let (mut right, mut up) = (angle.cos(), angle.sin());
            if side == 1 {
                (right, up) = (1.0 - right, 0.5 - up);
            }
            x[[row, 0]] = (right + 0.5 * noise.0) as f32;
            x[[row, 1]] = (up + 0.5 * noise.1) as f32;
            label[row] = side as i64;
        }
        let tensors = [("x", x.into_dyn().into()), ("label", label.into_dyn().into())];
        let split = if id < train { Split::Train } else { Split::Validation };
        Ok((split, MemoryPartition::new(PartitionId(id), tensors)?))
    };
    let partitions = (0..train + validation).map(partition);
    MemoryDataset::new(partitions.collect::<Result<Vec<_>, DataError>>()?)
}

/// A learner of three numbers: the weights of two inputs, and a bias.
#[derive(Debug)]
struct LogisticRegression {
    rate: f32,
    batch_size: usize,
    weights: [f32; 3],
}

fn logistic_regression(config: &Config, _: &Slot) -> Result<Box<dyn Model>, ModelError> {
    let rate = config.float("learning_rate")? as f32;
    let batch_size = config.int("batch_size")? as usize;
    Ok(Box::new(LogisticRegression { rate, batch_size, weights: [0.0; 3] }))
}

impl LogisticRegression {
    fn probability(&self, x: [f32; 2]) -> f32 {
        let [a, b, bias] = self.weights;
        1.0 / (1.0 + (-(a * x[0] + b * x[1] + bias)).exp())
    }

    /// One pass over the rows, a batch at a time; at a rate of 0 the weights stay as they are.
    fn pass(
        &mut self,
        batches: cerebro_core::data::Batches<'_>,
        pass: &Pass<'_>,
        rate: f32,
    ) -> Result<Metrics, ModelError> {
        let mut metrics = Metrics::new();
        for batch in batches {
            let batch = batch?;
            let (x, labels) = (batch.f32("x")?, batch.i64("label")?);
            let (mut loss, mut right, mut gradient) = (0.0, 0.0, [0.0; 3]);
            for (row, &label) in x.rows().into_iter().zip(labels) {
                let (input, label) = ([row[0], row[1]], label as f32);
                let p = self.probability(input);
                loss -= f64::from(if label > 0.5 { p } else { 1.0 - p }.max(1e-7).ln());
                right += f64::from(u8::from((p > 0.5) == (label > 0.5)));
                let error = p - label;
                for (slope, input) in gradient.iter_mut().zip([input[0], input[1], 1.0]) {
                    *slope += error * input;
                }
            }
            let rows = batch.rows();
            for (weight, slope) in self.weights.iter_mut().zip(gradient) {
                *weight -= rate * slope / rows as f32;
            }
            metrics.record(LOSS, Statistic::Mean { sum: loss, weight: rows as f64 });
            metrics.record("accuracy", Statistic::Mean { sum: right, weight: rows as f64 });
            pass.advance(rows)?;
        }
        Ok(metrics)
    }
}

impl Model for LogisticRegression {
    fn initialize(&mut self, seed: Seed) -> Result<(), ModelError> {
        let mut random = seed.rng();
        self.weights = [0; 3].map(|_| random.unit() as f32 - 0.5);
        Ok(())
    }

    fn restore(&mut self, state: &State) -> Result<(), ModelError> {
        let bytes = state.to_vec();
        for (weight, bytes) in self.weights.iter_mut().zip(bytes.chunks_exact(4)) {
            let bytes = bytes.try_into().map_err(|_| ModelError::State("too short".to_owned()))?;
            *weight = f32::from_le_bytes(bytes);
        }
        Ok(())
    }

    fn state(&mut self) -> Result<State, ModelError> {
        Ok(self.weights.iter().flat_map(|weight| weight.to_le_bytes()).collect::<Vec<u8>>().into())
    }

    fn train(&mut self, partition: &dyn Partition, pass: &Pass<'_>) -> Result<Metrics, ModelError> {
        self.pass(pass.shuffled_batches(partition, self.batch_size), pass, self.rate)
    }

    fn evaluate(
        &mut self,
        partition: &dyn Partition,
        pass: &Pass<'_>,
    ) -> Result<Metrics, ModelError> {
        self.pass(pass.batches(partition, 1024), pass, 0.0)
    }
}
