//! What the first units say of trials and of workers together.
//!
//! A trial's first unit alone cannot tell a slow worker from a long trial. But the logarithm of what a
//! row takes is the trial's rate plus the worker's slowness, and the units of all trials on all workers
//! that were measured so far make a system of such equations: a two-way layout (Scheffé 1959, "The
//! Analysis of Variance", chapter 4), solved by least squares. Once each trial has been on two
//! workers, hardly anything is left open, long before every pair was measured. What is left open is
//! held to the guesses of the rates, up to a common scale, or to trials that are alike, and to workers
//! that are alike.
//!
//! The equations are solved by conjugate gradients (Hestenes, Stiefel 1952) from the last solution, so
//! a unit that took what was expected costs next to nothing.

use super::cost::OUTLIER;
use super::job::NONE;

/// Units that are kept, the first ones; what comes later is learned unit by unit.
const MOST_UNITS: usize = 1024;

/// How much the assumption that a trial or a worker is like the others weighs against one measured
/// unit: units scatter by some per cent, trials and workers by some ten. Guesses of rates are better.
const LIKENESS: f64 = 0.01;
const GUESSED: f64 = 0.02;

/// A slowness whose logarithm is nearer to 0 is the usual one.
const USUAL: f64 = 0.01;

/// Differences of logarithms that do not matter.
const TOLERANCE: f64 = 1e-6;

const MOST_STEPS: usize = 64;

/// The unknowns by which all guesses are to be raised, and near which rates are that nobody guessed.
const SCALE: u32 = 0;
const TYPICAL: u32 = 1;

/// A measured training unit: two unknowns and their sum.
#[derive(Clone, Copy, Debug)]
struct Sample {
    rate: u32,
    slowness: u32,
    sum: f64,
}

/// What a rate probably is: so much above another unknown.
#[derive(Clone, Copy, Debug)]
struct Guess {
    rate: u32,
    from: u32,
    above: f64,
}

impl Guess {
    fn weight(&self) -> f64 {
        if self.from == SCALE { GUESSED } else { LIKENESS }
    }
}

/// The equations and their solution, in logarithms of seconds per row.
#[derive(Clone, Debug)]
pub(super) struct Fit {
    samples: Vec<Sample>,
    guesses: Vec<Guess>,
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
            solution: vec![0.0; 2],
        }
    }
}

impl Fit {
    /// Takes in a unit, in the place of what was taken in of it before, if anything was. Answers with
    /// its place, unless there are too many already.
    pub(super) fn take(
        &mut self,
        place: Option<usize>,
        trial: usize,
        guess: Option<f64>,
        worker: usize,
        per_row: f64,
    ) -> Option<usize> {
        let place = place.unwrap_or(self.samples.len());
        if place >= MOST_UNITS || !per_row.is_normal() {
            return None;
        }
        let expected = self.rate(trial).zip(self.slowness(worker)).map(|(rate, slow)| rate * slow);
        // One unit that takes very long says little.
        let per_row = expected.map_or(per_row, |e| per_row.clamp(e / OUTLIER, e * OUTLIER));
        let slowness = unknown(&mut self.slowness, worker, &mut self.solution);
        let unknowns = self.solution.len();
        let rate = unknown(&mut self.rates, trial, &mut self.solution);
        let sum = per_row.ln();
        if self.solution.len() > unknowns {
            self.solution[rate as usize] = sum - self.solution[slowness as usize];
            self.guesses.push(match guess {
                Some(guess) => Guess { rate, from: SCALE, above: guess.ln() },
                None => Guess { rate, from: TYPICAL, above: 0.0 },
            });
        }
        let sample = Sample { rate, slowness, sum };
        match self.samples.get_mut(place) {
            Some(before) => *before = sample,
            None => self.samples.push(sample),
        }
        self.solve();
        Some(place)
    }

    /// The rate of a trial that was measured, in seconds per row on a worker of usual speed.
    pub(super) fn rate(&self, trial: usize) -> Option<f64> {
        self.value(self.rates.get(trial))
    }

    /// The slowness of a worker that was measured.
    pub(super) fn slowness(&self, worker: usize) -> Option<f64> {
        self.value(self.slowness.get(worker))
    }

    /// Whether a worker can be told from the trials that were there: there were two, or the one took
    /// what it should on a worker of usual speed.
    pub(super) fn tells(&self, worker: usize) -> bool {
        let Some(&at) = self.slowness.get(worker).filter(|&&at| at != NONE) else {
            return false;
        };
        let on_it = self.samples.iter().filter(|sample| sample.slowness == at);
        on_it.count() > 1 || self.solution[at as usize].abs() < USUAL
    }

    /// What guesses are to be multiplied by, if any was measured.
    pub(super) fn scale(&self) -> Option<f64> {
        let mut guessed = self.guesses.iter().filter(|guess| guess.from == SCALE);
        guessed.next().map(|_| self.solution[SCALE as usize].exp())
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
            product[slowness as usize] += LIKENESS * vector[slowness as usize];
        }
        for guess in &self.guesses {
            let &Guess { rate, from, .. } = guess;
            let difference = guess.weight() * (vector[rate as usize] - vector[from as usize]);
            product[rate as usize] += difference;
            product[from as usize] -= difference;
        }
    }

    fn diagonal(&self) -> Vec<f64> {
        let mut diagonal = vec![0.0; self.solution.len()];
        for &Sample { rate, slowness, .. } in &self.samples {
            diagonal[rate as usize] += 1.0;
            diagonal[slowness as usize] += 1.0;
        }
        for guess in &self.guesses {
            diagonal[guess.from as usize] += guess.weight();
        }
        // What no equation names is not asked for.
        diagonal.iter_mut().filter(|d| **d == 0.0).for_each(|d| *d = 1.0);
        diagonal
    }

    fn right_side(&self) -> Vec<f64> {
        let mut side = vec![0.0; self.solution.len()];
        for &Sample { rate, slowness, sum } in &self.samples {
            side[rate as usize] += sum;
            side[slowness as usize] += sum;
        }
        for guess in &self.guesses {
            side[guess.rate as usize] += guess.weight() * guess.above;
            side[guess.from as usize] -= guess.weight() * guess.above;
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Trials take 1 and 3 on usual workers, and worker 1 is half as fast as worker 0.
    fn three_units(guesses: [Option<f64>; 2]) -> Fit {
        let mut fit = Fit::default();
        for (trial, worker, took) in [(0, 0, 1.0), (1, 1, 6.0), (0, 1, 2.0)] {
            fit.take(None, trial, guesses[trial], worker, took).unwrap();
        }
        fit
    }

    #[test]
    fn a_slow_worker_is_told_from_a_long_trial_once_one_trial_has_been_on_two() {
        for guesses in [[None, None], [Some(10.0), Some(10.0)], [Some(10.0), None]] {
            let fit = three_units(guesses);
            let slowness = fit.slowness(1).unwrap() / fit.slowness(0).unwrap();
            // Workers are taken to be alike, and trials to be as guessed, but that weighs little.
            assert!((1.95..2.05).contains(&slowness), "{slowness}");
            let rates = fit.rate(1).unwrap() / fit.rate(0).unwrap();
            assert!((2.9..3.1).contains(&rates), "{rates}");
        }
    }

    #[test]
    fn guesses_are_raised_to_what_is_measured() {
        let scale = three_units([Some(10.0), Some(30.0)]).scale().unwrap();
        assert!((0.05..0.2).contains(&scale), "{scale}");
        assert_eq!(three_units([None, None]).scale(), None);
    }

    #[test]
    fn what_was_never_measured_is_not_known() {
        let fit = three_units([None, None]);
        assert_eq!((fit.rate(2), fit.slowness(2)), (None, None));
    }

    #[test]
    fn one_unit_that_takes_very_long_says_little() {
        let mut fit = three_units([None, None]);
        let before = fit.rate(0).unwrap();
        for worker in [0, 1, 0, 1] {
            fit.take(None, 0, None, worker, before * fit.slowness(worker).unwrap());
        }
        fit.take(None, 0, None, 0, 1000.0);
        assert!(fit.rate(0).unwrap() < 1.5 * before);
    }

    #[test]
    fn only_the_first_units_are_taken() {
        let mut fit = Fit::default();
        assert_eq!(fit.take(None, 0, None, 0, 0.0), None);
        for _ in 0..MOST_UNITS {
            assert!(fit.take(None, 0, None, 0, 1.0).is_some());
        }
        assert_eq!(fit.take(None, 0, None, 0, 1.0), None);
        assert_eq!(fit.take(Some(7), 0, None, 0, 1.0), Some(7), "it is there already");
    }
}
