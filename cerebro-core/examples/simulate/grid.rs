//! The scheduler over a grid of job sizes: makespan over what no schedule can beat.

use std::error::Error;
use std::fmt;

use cerebro_core::Seed;
use cerebro_core::schedule::Policy;
use cerebro_core::simulate::{KnownCosts, SimulationError, Uniform};

const SIGMAS: [f64; 3] = [0.0, 0.3, 1.0];
const TRIALS: [usize; 4] = [4, 16, 64, 256];
const WORKERS: [usize; 3] = [4, 8, 16];
const EPOCHS: [u32; 2] = [1, 5];

/// The spread of guesses about the true costs.
const GUESS_SIGMA: f64 = 0.3;

/// Uneven clusters: the spread of the partitions' sizes, and what the workers' slowness is in turn.
const SIZE_SIGMA: f64 = 0.3;
const SLOWNESS: [f64; 3] = [2.0, 1.0, 1.0];

/// Whether partitions and workers are alike.
#[derive(Clone, Copy, PartialEq)]
enum Cluster {
    Even,
    Uneven,
}

impl fmt::Display for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Even => "alike",
            Self::Uneven => "uneven",
        })
    }
}

/// The ways of scheduling that are compared.
const WAYS: [(&str, Policy, KnownCosts); 5] = [
    ("default", Policy::LongestRemainingFirst, KnownCosts::Ratios),
    ("guessed costs", Policy::LongestRemainingFirst, KnownCosts::Guesses { sigma: GUESS_SIGMA }),
    ("unknown costs", Policy::LongestRemainingFirst, KnownCosts::None),
    ("seeded", Policy::Seeded, KnownCosts::Ratios),
    ("random", Policy::Random, KnownCosts::Ratios),
];

/// Makespan over bound, over all seeds.
#[derive(Clone, Copy, Debug)]
struct Ratio {
    mean: f64,
    worst: f64,
}

impl Ratio {
    fn is_within_aim(self) -> bool {
        self.mean <= 1.01 && self.worst <= 1.05
    }
}

/// One row: a job, and how each way of scheduling fares.
pub(crate) struct Cell {
    cluster: Cluster,
    sigma: f64,
    trials: usize,
    workers: usize,
    epochs: u32,
    ratios: [Ratio; WAYS.len()],
}

/// Simulates the rows of the grid whose name has `part` in it; `done` is told of each.
fn cells(seeds: u64, part: &str, mut done: impl FnMut(&Cell)) -> Result<Vec<Cell>, Box<dyn Error>> {
    let mut cells = Vec::new();
    for cluster in [Cluster::Even, Cluster::Uneven] {
        for (epochs, sigma) in EPOCHS.iter().flat_map(|&e| SIGMAS.map(|sigma| (e, sigma))) {
            for (trials, workers) in TRIALS.iter().flat_map(|&t| WORKERS.map(|w| (t, w))) {
                let name = format!("{cluster} {epochs} {sigma:.1} {trials} x {workers}");
                if !name.contains(part) {
                    continue;
                }
                let job = job(cluster, sigma, trials, workers, epochs);
                let mut ratios = [Ratio { mean: 0.0, worst: 0.0 }; WAYS.len()];
                std::thread::scope(|scope| -> Result<(), SimulationError> {
                    let ways = WAYS.map(|(_, policy, costs)| {
                        let job = Uniform { policy, costs, ..job.clone() };
                        scope.spawn(move || ratio(&job, seeds))
                    });
                    for (found, way) in ratios.iter_mut().zip(ways) {
                        *found = way.join().expect("a simulation does not panic")?;
                    }
                    Ok(())
                })?;
                let cell = Cell { cluster, sigma, trials, workers, epochs, ratios };
                done(&cell);
                cells.push(cell);
            }
        }
    }
    Ok(cells)
}

fn job(cluster: Cluster, sigma: f64, trials: usize, workers: usize, epochs: u32) -> Uniform {
    let job = Uniform { trials, workers, partitions: workers, sigma, epochs, ..Uniform::default() };
    match cluster {
        Cluster::Even => job,
        Cluster::Uneven => Uniform { size_sigma: SIZE_SIGMA, slowness: SLOWNESS.to_vec(), ..job },
    }
}

fn ratio(job: &Uniform, seeds: u64) -> Result<Ratio, SimulationError> {
    let mut ratio = Ratio { mean: 0.0, worst: 0.0 };
    for seed in 0..seeds {
        let found = job.plan(Seed(seed)).run(|_| ())?.ratio();
        ratio.mean += found / seeds as f64;
        ratio.worst = ratio.worst.max(found);
    }
    Ok(ratio)
}

/// Prints the grid as Markdown tables, row by row as it is simulated.
pub(crate) fn print_text(seeds: u64, part: &str) -> Result<Vec<Cell>, Box<dyn Error>> {
    println!("makespan over max(longest trial, busiest worker): mean / worst of {seeds} seeds;");
    println!("one partition per worker; * beyond mean 1.01 or worst 1.05");
    let names = WAYS.map(|(name, ..)| name).join(" | ");
    let mut printed = None;
    let cells = cells(seeds, part, |cell| {
        if printed.replace(cell.cluster) != Some(cell.cluster) {
            match cell.cluster {
                Cluster::Even => println!("\npartitions and workers alike\n"),
                Cluster::Uneven => println!(
                    "\npartition sizes lognormal with sigma {SIZE_SIGMA}, workers' slowness {SLOWNESS:?} in turn\n"
                ),
            }
            println!("| epochs | sigma | trials x workers | {names} |");
            println!("| --- | --- | --- |{}", " --- |".repeat(WAYS.len()));
        }
        let ratios = cell.ratios.map(|ratio| {
            let mark = if ratio.is_within_aim() { "" } else { " *" };
            format!("{:.3} / {:.3}{mark}", ratio.mean, ratio.worst)
        });
        let Cell { epochs, sigma, trials, workers, .. } = cell;
        println!("| {epochs} | {sigma:.1} | {trials} x {workers} | {} |", ratios.join(" | "));
    })?;
    println!();
    for cluster in [Cluster::Even, Cluster::Uneven] {
        for epochs in EPOCHS {
            let of = cells.iter().filter(|cell| cell.cluster == cluster && cell.epochs == epochs);
            let of: Vec<&Cell> = of.collect();
            if of.is_empty() {
                continue;
            }
            let within = WAYS.iter().enumerate().map(|(way, (name, ..))| {
                let within = of.iter().filter(|cell| cell.ratios[way].is_within_aim()).count();
                format!("{name} {within}")
            });
            println!(
                "{cluster}, {epochs} epochs, of {} jobs within mean 1.01 and worst 1.05: {}",
                of.len(),
                within.collect::<Vec<_>>().join(", ")
            );
        }
    }
    Ok(cells)
}

/// Prints the grid as JSON.
pub(crate) fn print_json(seeds: u64, part: &str) -> Result<Vec<Cell>, Box<dyn Error>> {
    let cells = cells(seeds, part, |_| ())?;
    let rows = cells.iter().map(|cell| {
        let ratios = WAYS.iter().zip(&cell.ratios).map(|((name, ..), ratio)| {
            let pair = serde_json::json!({ "mean": ratio.mean, "worst": ratio.worst });
            (name.replace(' ', "_"), pair)
        });
        let mut row: serde_json::Map<String, serde_json::Value> = ratios.collect();
        row.insert("uneven".to_owned(), (cell.cluster == Cluster::Uneven).into());
        row.insert("epochs".to_owned(), cell.epochs.into());
        row.insert("sigma".to_owned(), cell.sigma.into());
        row.insert("trials".to_owned(), cell.trials.into());
        row.insert("workers".to_owned(), cell.workers.into());
        serde_json::Value::from(row)
    });
    println!("{}", rows.collect::<serde_json::Value>());
    Ok(cells)
}

/// The jobs that the default misses the aim on: what each seed's units take, in seconds by trial and
/// partition (each on a worker of its own), the makespan, and what no schedule can beat.
pub(crate) fn instances(cells: &[Cell], seeds: u64) -> Result<serde_json::Value, Box<dyn Error>> {
    let missed = cells.iter().filter(|cell| !cell.ratios[0].is_within_aim());
    let instance = |cell: &Cell| -> Result<serde_json::Value, Box<dyn Error>> {
        let &Cell { cluster, sigma, trials, workers, epochs, .. } = cell;
        let runs = (0..seeds).map(|seed| -> Result<serde_json::Value, Box<dyn Error>> {
            let plan = job(cluster, sigma, trials, workers, epochs).plan(Seed(seed));
            let outcome = plan.run(|_| ())?;
            let places = || plan.partitions.iter().zip(&plan.workers);
            let times = plan.trials.iter().map(|trial| {
                let per_row = trial.per_row.as_secs_f64();
                let times = places().map(|(p, w)| per_row * p.rows as f64 * w.slowness);
                times.collect::<Vec<f64>>()
            });
            Ok(serde_json::json!({
                "seed": seed,
                "unit_seconds": times.collect::<Vec<_>>(),
                "makespan_seconds": outcome.makespan.as_secs_f64(),
                "bound_seconds": outcome.bound().as_secs_f64(),
            }))
        });
        Ok(serde_json::json!({
            "uneven": cluster == Cluster::Uneven,
            "sigma": sigma,
            "trials": trials,
            "workers": workers,
            "epochs": epochs,
            "runs": runs.collect::<Result<Vec<_>, _>>()?,
        }))
    };
    missed.map(instance).collect()
}
