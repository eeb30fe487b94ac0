//! What the first units say of trials and of workers together.
//!
//! A trial's first unit alone cannot tell a slow worker from a long trial. But the logarithm of what a
//! row takes is the trial's rate plus the worker's slowness, and the units of all trials on all workers
//! that were measured so far make a system of such equations: a two-way layout (Scheffé 1959, "The
//! Analysis of Variance", chapter 4), solved by least squares. Once each trial has been on two
//! workers, hardly anything is left open, long before every pair was measured. What is left open is
//! held to the guesses of the rates, up to a common scale, and to workers that are alike.
//!
//! The equations are solved by conjugate gradients (Hestenes, Stiefel 1952) from the last solution, so
//! a unit that took what was expected costs next to nothing.

use super::job::NONE;

/// Units that are kept, the first ones; what comes later is learned unit by unit.
const MOST_UNITS: usize = 1024;

/// How much a guess of a rate, and the assumption that a worker is like the others, weigh against one
/// measured unit: units scatter by some per cent, guesses and workers by some ten.
const PRIOR: f64 = 0.01;

/// Differences of logarithms that do not matter.
const TOLERANCE: f64 = 1e-6;

const MOST_STEPS: usize = 64;

/// The unknown by which all guesses are to be raised.
const SCALE: usize = 0;

/// A measured training unit: two unknowns and their sum.
#[derive(Clone, Copy, Debug)]
struct Sample {
    rate: u32,
    slowness: u32,
    sum: f64,
}

/// The equations and their solution, in logarithms of seconds per row.
#[derive(Clone, Debug)]
pub(super) struct Fit {
    samples: Vec<Sample>,
    /// Rates that were guessed, with the guesses.
    guesses: Vec<(u32, f64)>,
    /// The unknowns of the trials and the workers that were measured; `NONE` of the others.
    rates: Vec<u32>,
    slowness: Vec<u32>,
    solution: Vec<f64>,
}

impl Default for Fit {
    fn default() -> Self {
        Self {
            samples: Vec::new(),
            guesses: Vec::new(),
            rates: Vec::new(),
            slowness: Vec::new(),
            solution: vec![0.0],
        }
    }
}

impl Fit {
    /// Takes in a unit. Whether it could be: there are not too many yet.
    pub(super) fn add(
        &mut self,
        trial: usize,
        guess: Option<f64>,
        worker: usize,
        per_row: f64,
    ) -> bool {
        if self.samples.len() >= MOST_UNITS || per_row <= 0.0 {
            return false;
        }
        let slowness = unknown(&mut self.slowness, worker, &mut self.solution);
        let unknowns = self.solution.len();
        let rate = unknown(&mut self.rates, trial, &mut self.solution);
        let sum = per_row.ln();
        if self.solution.len() > unknowns {
            self.solution[rate as usize] = sum - self.solution[slowness as usize];
            self.guesses.extend(guess.map(|guess| (rate, guess.ln())));
        }
        self.samples.push(Sample { rate, slowness, sum });
        self.solve();
        true
    }

    /// The rate of a trial that was measured, in seconds per row on a worker of usual speed.
    pub(super) fn rate(&self, trial: usize) -> Option<f64> {
        self.value(self.rates.get(trial))
    }

    /// The slowness of a worker that was measured.
    pub(super) fn slowness(&self, worker: usize) -> Option<f64> {
        self.value(self.slowness.get(worker))
    }

    /// What guesses are to be multiplied by, if any was measured.
    pub(super) fn scale(&self) -> Option<f64> {
        (!self.guesses.is_empty()).then(|| self.solution[SCALE].exp())
    }

    fn value(&self, unknown: Option<&u32>) -> Option<f64> {
        unknown.filter(|&&unknown| unknown != NONE).map(|&at| self.solution[at as usize].exp())
    }

    fn solve(&mut self) {
        let mut solution = self.solution.clone();
        let unknowns = solution.len();
        let diagonal = self.diagonal();
        let mut residual = vec![0.0; unknowns];
        self.times(&solution, &mut residual);
        let wanted = self.right_side();
        residual.iter_mut().zip(wanted).for_each(|(found, wanted)| *found = wanted - *found);
        let scaled = |residual: &[f64]| -> Vec<f64> {
            residual.iter().zip(&diagonal).map(|(r, d)| r / d).collect()
        };
        let mut conditioned = scaled(&residual);
        let mut direction = conditioned.clone();
        let mut error = dot(&residual, &conditioned);
        let mut image = vec![0.0; unknowns];
        for _ in 0..MOST_STEPS {
            if conditioned.iter().all(|step| step.abs() < TOLERANCE) {
                break;
            }
            self.times(&direction, &mut image);
            let length = error / dot(&direction, &image);
            for at in 0..unknowns {
                solution[at] += length * direction[at];
                residual[at] -= length * image[at];
            }
            conditioned = scaled(&residual);
            let before = std::mem::replace(&mut error, dot(&residual, &conditioned));
            for (step, new) in direction.iter_mut().zip(&conditioned) {
                *step = new + error / before * *step;
            }
        }
        self.solution = solution;
    }

    /// The normal equations' matrix times a vector.
    fn times(&self, vector: &[f64], product: &mut [f64]) {
        product.fill(0.0);
        for &Sample { rate, slowness, .. } in &self.samples {
            let sum = vector[rate as usize] + vector[slowness as usize];
            product[rate as usize] += sum;
            product[slowness as usize] += sum;
        }
        for &slowness in self.slowness.iter().filter(|&&unknown| unknown != NONE) {
            product[slowness as usize] += PRIOR * vector[slowness as usize];
        }
        for &(rate, _) in &self.guesses {
            let difference = PRIOR * (vector[rate as usize] - vector[SCALE]);
            product[rate as usize] += difference;
            product[SCALE] -= difference;
        }
    }

    fn diagonal(&self) -> Vec<f64> {
        let mut diagonal = vec![0.0; self.solution.len()];
        for &Sample { rate, slowness, .. } in &self.samples {
            diagonal[rate as usize] += 1.0;
            diagonal[slowness as usize] += 1.0;
        }
        // Without guesses their scale is in no equation.
        diagonal[SCALE] = PRIOR * self.guesses.len().max(1) as f64;
        diagonal
    }

    fn right_side(&self) -> Vec<f64> {
        let mut side = vec![0.0; self.solution.len()];
        for &Sample { rate, slowness, sum } in &self.samples {
            side[rate as usize] += sum;
            side[slowness as usize] += sum;
        }
        for &(rate, guess) in &self.guesses {
            side[rate as usize] += PRIOR * guess;
            side[SCALE] -= PRIOR * guess;
        }
        side
    }
}

/// The unknown of a trial or a worker; a new one if it has none yet.
fn unknown(unknowns: &mut Vec<u32>, of: usize, solution: &mut Vec<f64>) -> u32 {
    if unknowns.len() <= of {
        unknowns.resize(of + 1, NONE);
    }
    if unknowns[of] == NONE {
        unknowns[of] = solution.len() as u32;
        solution.push(0.0);
    }
    unknowns[of]
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
