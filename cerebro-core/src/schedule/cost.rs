//! What a unit will take: learned while the run goes on.
//!
//! A unit of trial t on partition p and worker w is taken to cost `rate(t) * rows(p) * slowness(w)`.
//! Rates are measured means in seconds per row. Before a trial was measured, its rate is its first
//! guess times the ratio of measured rates to guesses that the other trials show, or else the highest
//! rate of the others: what may be long had better be measured early.

use std::time::Duration;

use super::fit::Fit;
use crate::id::Split;

/// How much of what was learned remains when a unit is measured; recent units count more, since
/// machines warm up and are shared.
const MEMORY: f64 = 0.75;

/// A validation pass runs forward only; until it was measured it is taken for a third of training.
const FIRST_VALIDATION_RATIO: f64 = 1.0 / 3.0;

/// A unit counts for a worker's speed as if it took at most so many times as long as expected.
pub(super) const OUTLIER: f64 = 4.0;

/// So many training units in a row tell a worker that is slow from one that was busy for a moment.
const IN_A_ROW: usize = 5;

/// Units that are measured on a worker before its speed is taken for known.
const MEASURED: u32 = 3;

/// A mean that forgets slowly.
#[derive(Clone, Copy, Debug, Default)]
struct Mean {
    value: f64,
    samples: u32,
}

impl Mean {
    fn add(&mut self, sample: f64) {
        // The first samples are averaged plainly, so that the first one alone has no great weight.
        let weight = (1.0 / f64::from(self.samples + 1)).max(1.0 - MEMORY);
        self.value += (sample - self.value) * weight;
        self.samples = self.samples.saturating_add(1);
    }

    /// A value without samples is of units that run still.
    fn get(self) -> Option<f64> {
        (self.samples > 0 || self.value > 0.0).then_some(self.value)
    }
}

/// How much slower than usual a worker is.
#[derive(Clone, Copy, Debug)]
struct Slowness {
    mean: Mean,
    /// What the last training units said, the newest anywhere; 0 where there was none yet.
    last: [f64; IN_A_ROW],
    /// Where the next one goes.
    next: usize,
}

impl Slowness {
    /// Taken for 1 until shown otherwise.
    const USUAL: Self =
        Self { mean: Mean { value: 1.0, samples: 1 }, last: [0.0; IN_A_ROW], next: 0 };

    fn add(&mut self, sample: f64, split: Split) {
        self.mean.add(sample);
        // Validation passes are short, and what is short is disturbed easily.
        if split == Split::Train {
            self.last[self.next] = sample;
            self.next = (self.next + 1) % IN_A_ROW;
        }
    }
}

/// What a trial's rows take, and where that was measured.
#[derive(Clone, Copy, Debug, Default)]
struct Measured {
    rate: Mean,
    /// The worker of the last measurement.
    on: usize,
    /// Whether there were several.
    elsewhere: bool,
}

impl Measured {
    /// The rate, as far as it says something of a worker: what was measured there alone does not.
    fn as_seen_from(&self, worker: usize) -> Option<f64> {
        let rate = (self.rate.samples > 0).then_some(self.rate.value);
        rate.filter(|rate| *rate > 0.0).filter(|_| self.elsewhere || self.on != worker)
    }

    fn add(&mut self, worker: usize, sample: f64) {
        self.elsewhere |= self.rate.samples > 0 && self.on != worker;
        self.on = worker;
        self.rate.add(sample);
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct TrialCost {
    guess: Option<f64>,
    training: Measured,
    validation: Measured,
}

/// The learned costs of trials and workers, by their dense numbers.
#[derive(Clone, Debug)]
pub(super) struct Costs {
    trials: Vec<TrialCost>,
    slowness: Vec<Slowness>,
    /// Measured training rate over guess, over the trials that have both.
    guess_scale: Mean,
    /// The highest training rate of all trials.
    highest: f64,
    /// Validation rate over training rate, over all trials.
    validation_ratio: Mean,
    /// What the first units say together; goes before the means while there is one.
    fit: Option<Fit>,
}

/// Whose costs are known better by now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Learned {
    /// The trial's and the worker's.
    OfUnit,
    OfAll,
}

impl Default for Costs {
    fn default() -> Self {
        Self {
            trials: Vec::new(),
            slowness: Vec::new(),
            guess_scale: Mean::default(),
            highest: 0.0,
            validation_ratio: Mean::default(),
            fit: Some(Fit::default()),
        }
    }
}

impl Costs {
    pub(super) fn add_trial(&mut self, guess: Option<f64>) {
        let guess = guess.filter(|guess| guess.is_finite() && *guess > 0.0);
        self.trials.push(TrialCost { guess, ..TrialCost::default() });
    }

    pub(super) fn add_worker(&mut self) {
        self.slowness.push(Slowness::USUAL);
    }

    /// Whether the trial itself was measured.
    pub(super) fn is_measured(&self, trial: usize) -> bool {
        self.trials[trial].training.rate.samples > 0
    }

    /// Whether the trial's rate is more than an assumption.
    pub(super) fn is_known(&self, trial: usize) -> bool {
        self.is_measured(trial) || self.trials[trial].guess.is_some()
    }

    /// What the rates of trials that were not measured rest on: the scale of guesses, and the
    /// highest rate of those that were.
    pub(super) fn scales(&self) -> (f64, f64) {
        (self.guess_scale.get().unwrap_or(1.0), self.highest_or_one())
    }

    fn highest_or_one(&self) -> f64 {
        if self.highest > 0.0 { self.highest } else { 1.0 }
    }

    /// Seconds per row of a trial on a worker of usual speed.
    pub(super) fn rate(&self, trial: usize, split: Split) -> f64 {
        let cost = &self.trials[trial];
        let training = || {
            let scaled = |guess: f64| guess * self.guess_scale.get().unwrap_or(1.0);
            let measured = cost.training.rate.get().or_else(|| cost.guess.map(scaled));
            measured.unwrap_or_else(|| self.highest_or_one())
        };
        match split {
            Split::Train => training(),
            Split::Validation => cost.validation.rate.get().unwrap_or_else(|| {
                training() * self.validation_ratio.get().unwrap_or(FIRST_VALIDATION_RATIO)
            }),
        }
    }

    /// How much slower than usual a worker is: 2 if its units take twice as long.
    pub(super) fn slowness(&self, worker: usize) -> f64 {
        self.slowness[worker].mean.value
    }

    /// The slowness of a worker that each of its last training units showed at least; 0 while there
    /// were too few.
    pub(super) fn lasting_slowness(&self, worker: usize) -> f64 {
        self.slowness[worker].last.into_iter().fold(f64::INFINITY, f64::min)
    }

    /// Whether enough units were measured on a worker of trials that are known from others.
    pub(super) fn is_speed_known(&self, worker: usize) -> bool {
        // The first sample is the assumption.
        self.slowness[worker].mean.samples > MEASURED
    }

    /// Whether a worker can be told from the trials that were there, or units are not fitted together any
    /// more.
    pub(super) fn has_measured(&self, worker: usize) -> bool {
        self.fit.as_ref().is_none_or(|fit| fit.tells(worker))
    }

    /// Takes in that a unit took a multiple of what was expected of a worker, or more.
    pub(super) fn learn_slowness(&mut self, worker: usize, factor: f64) {
        let slowness = self.slowness(worker);
        self.slowness[worker].add(slowness * factor, Split::Train);
    }

    /// Takes in that a unit of `rows` rows took `cost`.
    pub(super) fn learn(
        &mut self,
        trial: usize,
        worker: usize,
        split: Split,
        rows: u64,
        cost: Duration,
        sample: Option<usize>,
    ) -> Learned {
        let per_row = cost.as_secs_f64() / rows as f64;
        let before = self.trials[trial];
        let known = match split {
            Split::Train => before.training.as_seen_from(worker),
            Split::Validation => before.validation.as_seen_from(worker),
        };
        if let Some(known) = known {
            // One unit that takes very long says little of a worker.
            let slowness = self.slowness(worker);
            let sample = (per_row / known).clamp(slowness / OUTLIER, slowness * OUTLIER);
            self.slowness[worker].add(sample, split);
        }
        let normal = per_row / self.slowness(worker);
        let learned = &mut self.trials[trial];
        match split {
            Split::Train => {
                learned.training.add(worker, normal);
                self.highest = self.highest.max(normal);
                if let (0, Some(guess)) = (before.training.rate.samples, before.guess) {
                    self.guess_scale.add(normal / guess);
                }
            }
            Split::Validation => {
                learned.validation.add(worker, normal);
                if let Some(training) = before.training.rate.get().filter(|rate| *rate > 0.0) {
                    self.validation_ratio.add(normal / training);
                }
            }
        }
        if split == Split::Train && self.fit_in(trial, worker, per_row, sample).is_some() {
            Learned::OfAll
        } else {
            Learned::OfUnit
        }
    }

    /// Whether units are fitted together still.
    pub(super) fn fits(&self) -> bool {
        self.fit.is_some()
    }

    /// Lets each trial and each worker learn from its own units alone from now on.
    pub(super) fn end_fit(&mut self) {
        self.fit = None;
    }

    /// Fits a training unit in with all others, in the place that it has already or a new one, if that is
    /// done still: one that is done, or one that runs, by what it will probably take. Answers with its
    /// place.
    pub(super) fn fit_in(
        &mut self,
        trial: usize,
        worker: usize,
        per_row: f64,
        sample: Option<usize>,
    ) -> Option<usize> {
        let fit = self.fit.as_mut()?;
        let guess = self.trials[trial].guess;
        let Some(sample) = fit.take(sample, trial, guess, worker, per_row) else {
            self.fit = None;
            return None;
        };
        self.highest = 0.0;
        for (trial, cost) in self.trials.iter_mut().enumerate() {
            if let Some(rate) = fit.rate(trial) {
                cost.training.rate.value = rate;
                self.highest = self.highest.max(rate);
            }
        }
        for (worker, slowness) in self.slowness.iter_mut().enumerate() {
            if let Some(fitted) = fit.slowness(worker) {
                slowness.mean.value = fitted;
            }
        }
        if let Some(scale) = fit.scale() {
            self.guess_scale.value = scale;
        }
        Some(sample)
    }
}
