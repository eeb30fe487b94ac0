//! Plans a cluster before it is rented: simulates a model selection job under the real scheduler and
//! compares what other ways of training the same trials would move over the network.
//!
//! `cargo run --release --example simulate -- --trials 64 --partitions 16 --workers 16 --sigma 1.0
//! --epochs 5 --replicas 2 --state-mb 100 --data-gb 500 --bandwidth-gbps 10`
//!
//! With `--grid` it shows how near to the optimum the scheduler comes on jobs of many sizes.

mod grid;

use std::error::Error;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use cerebro_core::Seed;
use cerebro_core::schedule::Policy;
use cerebro_core::simulate::{
    Ending, KnownCosts, Outcome, Span, Strategy, Traffic, Uniform, gantt,
};

const USAGE: &str = "\
Simulates a model selection job by Model Hopper Parallelism.

  --trials N                 configurations [64]
  --partitions N             training partitions [16]
  --validation-partitions N  validation partitions [0]
  --workers N                workers [16]
  --slots N                  units that a worker runs at once [1]
  --replicas N               workers that hold each partition [1]
  --epochs N                 epochs of each trial [1]
  --unit-seconds X           median time of one training unit [60]
  --sigma X                  spread of the trials' unit times: standard deviation of the logarithm [1.0]
  --size-sigma X             spread of the partitions' sizes [0]
  --slowness-sigma X         spread of the workers' slowness [0]
  --jitter X                 spread of a unit's time about its mean [0]
  --failures X               chance that a unit fails [0]
  --stragglers X             chance that a unit takes 10 times as long [0]
  --slow-worker X            how many times slower than the others the first worker is [1]
  --speculation X            runs a unit that takes X times as long as expected a second time [never]
  --unknown-costs            the scheduler is told nothing of costs beforehand
  --guessed-costs X          the scheduler is told guesses of costs with this spread about the truth
  --policy NAME              longest-remaining, random or seeded [longest-remaining]
  --state-mb X               size of a State in MB [100]
  --data-gb X                size of the data in GB [500]
  --batches-per-epoch N      mini-batches of an epoch, for all-reduce [100000]
  --bandwidth-gbps X         network of each worker in Gbit/s; 0: hops take no time [10]
  --seeds N                  simulations, each with trials of its own [20]
  --gantt FILE               writes the first simulation's schedule as an SVG
  --grid                     simulates jobs of many sizes; of the options only --seeds, --json, --part and
                             --instances count
  --part TEXT                with --grid: only the jobs whose name has TEXT in it; names are like
                             \"uneven 5 1.0 256 x 16\": cluster, epochs, sigma, trials x workers
  --instances FILE           with --grid: writes the jobs that the default misses the aim on, as JSON, for
                             benches/schedule_optimum.py
  --json                     prints JSON
  --help                     prints this";

struct Options {
    uniform: Uniform,
    seeds: u64,
    data_bytes: u64,
    batches_per_epoch: u64,
    gantt: Option<String>,
    instances: Option<String>,
    part: String,
    subject: Subject,
    output: Output,
}

#[derive(Clone, Copy, PartialEq)]
enum Subject {
    Job,
    Grid,
}

#[derive(Clone, Copy, PartialEq)]
enum Output {
    Text,
    Json,
}

fn main() -> Result<(), Box<dyn Error>> {
    let Some(options) = parse(std::env::args().skip(1))? else {
        println!("{USAGE}");
        return Ok(());
    };
    if options.subject == Subject::Grid {
        let cells = match options.output {
            Output::Text => grid::print_text(options.seeds, &options.part)?,
            Output::Json => grid::print_json(options.seeds, &options.part)?,
        };
        if let Some(path) = &options.instances {
            let instances = grid::instances(&cells, options.seeds)?.to_string();
            std::fs::write(path, instances)
                .map_err(|error| format!("cannot write the instances to {path}: {error}"))?;
        }
        return Ok(());
    }
    let outcomes = simulate(&options)?;
    let traffic = Traffic {
        trials: options.uniform.trials as u64,
        epochs: u64::from(options.uniform.epochs),
        workers: options.uniform.workers as u64,
        model_bytes: options.uniform.state_bytes,
        data_bytes: options.data_bytes,
        batches_per_epoch: options.batches_per_epoch,
    };
    match options.output {
        Output::Text => print_text(&options, &outcomes, &traffic),
        Output::Json => println!("{}", json(&options, &outcomes, &traffic)),
    }
    Ok(())
}

fn parse(arguments: impl Iterator<Item = String>) -> Result<Option<Options>, Box<dyn Error>> {
    let mut options = Options {
        uniform: Uniform {
            trials: 64,
            partitions: 16,
            workers: 16,
            sigma: 1.0,
            unit: Duration::from_mins(1),
            state_bytes: 100_000_000,
            bandwidth: Some(10e9 / 8.0),
            ..Uniform::default()
        },
        seeds: 20,
        data_bytes: 500_000_000_000,
        batches_per_epoch: 100_000,
        gantt: None,
        instances: None,
        part: String::new(),
        subject: Subject::Job,
        output: Output::Text,
    };
    let (mut arguments, mut slow) = (arguments, 1.0);
    while let Some(flag) = arguments.next() {
        let uniform = &mut options.uniform;
        match flag.as_str() {
            "--help" | "-h" => return Ok(None),
            "--json" => {
                options.output = Output::Json;
                continue;
            }
            "--grid" => {
                options.subject = Subject::Grid;
                continue;
            }
            "--unknown-costs" => {
                uniform.costs = KnownCosts::None;
                continue;
            }
            _ => {}
        }
        let value = arguments.next().ok_or(format!("{flag} needs a value; see --help"))?;
        let real = || number::<f64>(&flag, &value).and_then(|x| at_least_zero(&flag, x));
        let count = || number::<usize>(&flag, &value);
        match flag.as_str() {
            "--trials" => uniform.trials = count()?,
            "--partitions" => uniform.partitions = count()?,
            "--validation-partitions" => uniform.validation_partitions = count()?,
            "--workers" => uniform.workers = count()?,
            "--slots" => uniform.slots = count()?,
            "--replicas" => uniform.replicas = count()?,
            "--epochs" => uniform.epochs = number(&flag, &value)?,
            "--unit-seconds" => uniform.unit = Duration::try_from_secs_f64(real()?)?,
            "--sigma" => uniform.sigma = real()?,
            "--size-sigma" => uniform.size_sigma = real()?,
            "--slowness-sigma" => uniform.slowness_sigma = real()?,
            "--jitter" => uniform.jitter = real()?,
            "--failures" => uniform.failure_rate = real()?,
            "--stragglers" => uniform.straggler_rate = real()?,
            "--guessed-costs" => uniform.costs = KnownCosts::Guesses { sigma: real()? },
            "--slow-worker" => slow = real()?,
            "--speculation" => uniform.speculation = Some(real()?),
            "--state-mb" => uniform.state_bytes = (real()? * 1e6) as u64,
            "--data-gb" => options.data_bytes = (real()? * 1e9) as u64,
            "--batches-per-epoch" => options.batches_per_epoch = number(&flag, &value)?,
            "--bandwidth-gbps" => {
                let gigabits = real()?;
                uniform.bandwidth = (gigabits > 0.0).then_some(gigabits * 1e9 / 8.0);
            }
            "--seeds" => options.seeds = number::<u64>(&flag, &value)?.max(1),
            "--gantt" => options.gantt = Some(value),
            "--instances" => options.instances = Some(value),
            "--part" => options.part = value,
            "--policy" => {
                uniform.policy = match value.as_str() {
                    "longest-remaining" => Policy::LongestRemainingFirst,
                    "random" => Policy::Random,
                    "seeded" => Policy::Seeded,
                    other => {
                        return Err(format!(
                            "--policy is `{other}`; it must be longest-remaining, random or seeded"
                        )
                        .into());
                    }
                }
            }
            other => return Err(format!("unknown option `{other}`; see --help").into()),
        }
    }
    let workers = options.uniform.workers;
    options.uniform.slowness = vec![1.0; workers];
    if let Some(first) = options.uniform.slowness.first_mut() {
        *first = slow;
    }
    Ok(Some(options))
}

fn number<T: std::str::FromStr<Err: std::fmt::Display>>(
    flag: &str,
    value: &str,
) -> Result<T, Box<dyn Error>> {
    value.parse().map_err(|error| format!("{flag} is `{value}`: {error}").into())
}

fn at_least_zero(flag: &str, value: f64) -> Result<f64, Box<dyn Error>> {
    if value.is_finite() && value >= 0.0 {
        Ok(value)
    } else {
        Err(format!("{flag} is {value}; it must be 0 or more").into())
    }
}

fn simulate(options: &Options) -> Result<Vec<Outcome>, Box<dyn Error>> {
    let mut outcomes = Vec::new();
    let mut progress = Progress::new(options);
    for seed in 0..options.seeds {
        let plan = options.uniform.plan(Seed(seed));
        let mut spans: Vec<Span> = Vec::new();
        let keeps_spans = seed == 0 && options.gantt.is_some();
        let outcome = plan.run(|span| {
            if keeps_spans {
                spans.push(*span);
            }
            if span.ending == Ending::Completed {
                progress.unit();
            }
        })?;
        if let (true, Some(path)) = (keeps_spans, &options.gantt) {
            std::fs::write(path, gantt(&spans, outcome.makespan))
                .map_err(|error| format!("cannot write the Gantt chart to {path}: {error}"))?;
        }
        outcomes.push(outcome);
    }
    Ok(outcomes)
}

/// One line on the terminal that says how far a long simulation is.
struct Progress {
    done: u64,
    all: u64,
    begun: Instant,
    shown: Instant,
    is_shown: bool,
    on_terminal: bool,
}

impl Progress {
    fn new(options: &Options) -> Self {
        let uniform = &options.uniform;
        let partitions = (uniform.partitions + uniform.validation_partitions) as u64;
        let units = uniform.trials as u64 * partitions * u64::from(uniform.epochs);
        Self {
            done: 0,
            all: units * options.seeds,
            begun: Instant::now(),
            shown: Instant::now(),
            is_shown: false,
            on_terminal: std::io::stderr().is_terminal(),
        }
    }

    fn unit(&mut self) {
        self.done += 1;
        let due =
            self.done.is_multiple_of(1024) && self.shown.elapsed() > Duration::from_millis(200);
        if due && self.on_terminal {
            self.shown = Instant::now();
            let part = self.done as f64 / self.all.max(1) as f64;
            let left = match self.begun.elapsed().as_secs_f64() * (1.0 / part - 1.0) {
                seconds if seconds < 100.0 => format!("{seconds:.0} s"),
                seconds => format!("{:.0} min", seconds / 60.0),
            };
            let (percent, all) = (100.0 * part, grouped(self.all));
            eprint!("\r\x1b[K{percent:.1} % of {all} units simulated, {left} left");
            self.is_shown = true;
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.is_shown {
            eprint!("\r\x1b[K");
        }
    }
}

fn mean(outcomes: &[Outcome], value: impl Fn(&Outcome) -> f64) -> f64 {
    outcomes.iter().map(value).sum::<f64>() / outcomes.len() as f64
}

fn worst(outcomes: &[Outcome]) -> f64 {
    outcomes.iter().map(Outcome::ratio).fold(0.0, f64::max)
}

fn print_text(options: &Options, outcomes: &[Outcome], traffic: &Traffic) {
    let uniform = &options.uniform;
    println!(
        "{} trials x {} partitions x {} epochs on {} workers, {} simulations",
        uniform.trials, uniform.partitions, uniform.epochs, uniform.workers, options.seeds
    );
    let makespan = mean(outcomes, |o| o.makespan.as_secs_f64());
    println!("  makespan           {}", human_time(makespan));
    let longest = mean(outcomes, |o| o.longest_trial.as_secs_f64());
    let busiest = mean(outcomes, |o| o.busiest_worker.as_secs_f64());
    println!(
        "  lower bounds       longest trial {}, busiest worker {}",
        human_time(longest),
        human_time(busiest)
    );
    println!(
        "  makespan / bound   mean {:.4}, worst {:.4}",
        mean(outcomes, Outcome::ratio),
        worst(outcomes)
    );
    println!("  utilisation        {:.1} %", 100.0 * mean(outcomes, Outcome::utilisation));
    println!(
        "  hops               {:.0}, {} moved",
        mean(outcomes, |o| o.hops as f64),
        human_bytes(mean(outcomes, |o| o.hop_bytes as f64))
    );
    println!(
        "  failures           {:.1}, slot time lost {}",
        mean(outcomes, |o| o.failures as f64),
        human_time(mean(outcomes, |o| o.lost.as_secs_f64()))
    );
    println!(
        "  slow workers       {:.1} found, {:.1} second attempts",
        mean(outcomes, |o| o.stragglers as f64),
        mean(outcomes, |o| o.second_attempts as f64)
    );
    println!("the same trials by other strategies, bytes over the network");
    println!("(the cost model of the Cerebro paper, which counts a hop after every unit):");
    for strategy in Strategy::ALL {
        println!("  {strategy:<18} {}", human_bytes(traffic.bytes(strategy) as f64));
    }
    if let Some(path) = &options.gantt {
        println!("the first simulation's schedule is drawn in {path}");
    }
}

fn json(options: &Options, outcomes: &[Outcome], traffic: &Traffic) -> serde_json::Value {
    let strategies: serde_json::Map<String, serde_json::Value> = Strategy::ALL
        .iter()
        .map(|&strategy| (strategy.to_string(), (traffic.bytes(strategy) as f64).into()))
        .collect();
    serde_json::json!({
        "trials": options.uniform.trials,
        "partitions": options.uniform.partitions,
        "workers": options.uniform.workers,
        "epochs": options.uniform.epochs,
        "simulations": options.seeds,
        "makespan_seconds": mean(outcomes, |o| o.makespan.as_secs_f64()),
        "longest_trial_seconds": mean(outcomes, |o| o.longest_trial.as_secs_f64()),
        "busiest_worker_seconds": mean(outcomes, |o| o.busiest_worker.as_secs_f64()),
        "ratio_mean": mean(outcomes, Outcome::ratio),
        "ratio_worst": worst(outcomes),
        "utilisation": mean(outcomes, Outcome::utilisation),
        "hops": mean(outcomes, |o| o.hops as f64),
        "hop_bytes": mean(outcomes, |o| o.hop_bytes as f64),
        "failures": mean(outcomes, |o| o.failures as f64),
        "slow_workers": mean(outcomes, |o| o.stragglers as f64),
        "second_attempts": mean(outcomes, |o| o.second_attempts as f64),
        "lost_seconds": mean(outcomes, |o| o.lost.as_secs_f64()),
        "network_bytes": strategies,
    })
}

/// A number with a comma after each thousand.
fn grouped(number: u64) -> String {
    let mut text = number.to_string();
    for at in
        (1..text.len()).rev().filter(|at| (text.len() - at).is_multiple_of(3)).collect::<Vec<_>>()
    {
        text.insert(at, ',');
    }
    text
}

fn human_time(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.2} s"),
        s if s < 7200.0 => format!("{:.2} min", s / 60.0),
        s => format!("{:.2} h", s / 3600.0),
    }
}

fn human_bytes(bytes: f64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let at = (0..units.len() - 1).find(|&at| bytes < 1000_f64.powi(at as i32 + 1));
    let at = at.unwrap_or(units.len() - 1);
    format!("{:.1} {}", bytes / 1000_f64.powi(at as i32), units[at])
}
