//! The scheduler over a grid of job sizes: makespan over what no schedule can beat.

use std::error::Error;

use cerebro_core::Seed;
use cerebro_core::schedule::Policy;
use cerebro_core::simulate::{KnownCosts, Uniform};

const SIGMAS: [f64; 3] = [0.0, 0.3, 1.0];
const TRIALS: [usize; 4] = [4, 16, 64, 256];
const WORKERS: [usize; 3] = [4, 8, 16];
const EPOCHS: [u32; 2] = [1, 5];

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
struct Cell {
    sigma: f64,
    trials: usize,
    workers: usize,
    epochs: u32,
    known: Ratio,
    unknown: Ratio,
    seeded: Ratio,
    random: Ratio,
}

/// Simulates the whole grid; `done` is told of each row.
fn cells(seeds: u64, mut done: impl FnMut(&Cell)) -> Result<Vec<Cell>, Box<dyn Error>> {
    let mut cells = Vec::new();
    for epochs in EPOCHS {
        for sigma in SIGMAS {
            for trials in TRIALS {
                for workers in WORKERS {
                    let job = Uniform {
                        trials,
                        workers,
                        partitions: workers,
                        sigma,
                        epochs,
                        ..Uniform::default()
                    };
                    let ratio =
                        |policy, costs| ratio(&Uniform { policy, costs, ..job.clone() }, seeds);
                    let cell = Cell {
                        sigma,
                        trials,
                        workers,
                        epochs,
                        known: ratio(Policy::LongestRemainingFirst, KnownCosts::Ratios)?,
                        unknown: ratio(Policy::LongestRemainingFirst, KnownCosts::None)?,
                        seeded: ratio(Policy::Seeded, KnownCosts::Ratios)?,
                        random: ratio(Policy::Random, KnownCosts::Ratios)?,
                    };
                    done(&cell);
                    cells.push(cell);
                }
            }
        }
    }
    Ok(cells)
}

fn ratio(job: &Uniform, seeds: u64) -> Result<Ratio, Box<dyn Error>> {
    let mut ratio = Ratio { mean: 0.0, worst: 0.0 };
    for seed in 0..seeds {
        let found = job.plan(Seed(seed)).run(|_| ())?.ratio();
        ratio.mean += found / seeds as f64;
        ratio.worst = ratio.worst.max(found);
    }
    Ok(ratio)
}

/// Prints the grid as a Markdown table, row by row as it is simulated.
pub(crate) fn print_text(seeds: u64) -> Result<(), Box<dyn Error>> {
    println!("makespan over max(longest trial, busiest worker): mean / worst of {seeds} seeds;");
    println!("one partition per worker; * beyond mean 1.01 or worst 1.05\n");
    println!("| epochs | sigma | trials x workers | default | unknown costs | seeded | random |");
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    let cells = cells(seeds, |cell| {
        let show = |ratio: Ratio| {
            let mark = if ratio.is_within_aim() { "" } else { " *" };
            format!("{:.3} / {:.3}{mark}", ratio.mean, ratio.worst)
        };
        println!(
            "| {} | {:.1} | {} x {} | {} | {} | {} | {} |",
            cell.epochs,
            cell.sigma,
            cell.trials,
            cell.workers,
            show(cell.known),
            show(cell.unknown),
            show(cell.seeded),
            show(cell.random)
        );
    })?;
    println!();
    for epochs in EPOCHS {
        let of: Vec<&Cell> = cells.iter().filter(|cell| cell.epochs == epochs).collect();
        let within = |ratio: fn(&Cell) -> Ratio| {
            of.iter().filter(|cell| ratio(cell).is_within_aim()).count()
        };
        println!(
            "{epochs} epochs, of {} jobs within mean 1.01 and worst 1.05: default {}, unknown costs {}, seeded {}, random {}",
            of.len(),
            within(|cell| cell.known),
            within(|cell| cell.unknown),
            within(|cell| cell.seeded),
            within(|cell| cell.random)
        );
    }
    Ok(())
}

/// The grid as JSON.
pub(crate) fn json(seeds: u64) -> Result<serde_json::Value, Box<dyn Error>> {
    let pair = |ratio: Ratio| serde_json::json!({ "mean": ratio.mean, "worst": ratio.worst });
    let cells = cells(seeds, |_| ())?;
    let rows = cells.iter().map(|cell| {
        serde_json::json!({
            "epochs": cell.epochs,
            "sigma": cell.sigma,
            "trials": cell.trials,
            "workers": cell.workers,
            "default": pair(cell.known),
            "unknown_costs": pair(cell.unknown),
            "seeded": pair(cell.seeded),
            "random": pair(cell.random),
        })
    });
    Ok(rows.collect())
}
