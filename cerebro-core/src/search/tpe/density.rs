//! The density that a [`Tpe`](super::Tpe) estimates from a set of Configs: a mixture of kernels.
//!
//! Kernels live on the positions from 0 to 1 on which a [`Domain`] is laid out, where a uniform
//! density is the domain's own distribution. So logarithms and quanta need no cases here: a value
//! of a discrete domain is a cell of positions, and its probability the mass of that cell.
//!
//! The kernel of a Config is a product over the hyperparameters that are active, and flat along
//! those that are not active in that Config. So the mixture is a density on conditional spaces too,
//! in which a value of a parent goes with the values of its children.

use std::f64::consts::{PI, SQRT_2};

use crate::config::{Config, Value};
use crate::seed::SeededRng;
use crate::space::{Domain, Parameter};

/// The positions that a value of one hyperparameter takes.
#[derive(Clone, Copy, Debug)]
struct Point {
    low: f64,
    high: f64,
}

/// Where the values of a Config are, for the mixture's hyperparameters; nowhere if one is not active.
#[derive(Clone, Debug)]
pub(super) struct Location(Vec<Option<Point>>);

/// Kernels around Configs, and a flat one that keeps every value possible.
#[derive(Debug)]
pub(super) struct Mixture<'a> {
    parameters: &'a [&'a Parameter],
    /// The sum of the weights up to each kernel.
    cumulative: Vec<f64>,
    log_weights: Vec<f64>,
    kernels: Vec<Kernels>,
}

/// The kernels along one hyperparameter; those that are flat are none.
#[derive(Debug)]
enum Kernels {
    /// Normal densities, cut off outside 0 to 1.
    Normal(Vec<Option<Normal>>),
    /// The Config's own value is more likely than the rest.
    Category { chosen: Vec<Option<usize>>, categories: usize, log_chosen: f64, log_rest: f64 },
}

#[derive(Clone, Copy, Debug)]
struct Normal {
    mean: f64,
    deviation: f64,
    /// The logarithm of the mass between 0 and 1.
    log_mass: f64,
    /// The logarithm of the density at the mean.
    log_peak: f64,
}

impl Point {
    fn new(domain: &Domain, value: &Value) -> Option<Self> {
        let (low, high) = domain.cell(value)?;
        Some(Self { low, high })
    }

    fn middle(self) -> f64 {
        f64::midpoint(self.low, self.high)
    }

    fn category(self, categories: usize) -> usize {
        (self.middle() * categories as f64) as usize
    }

    /// The logarithm of its density, or probability, under the domain's own distribution.
    fn log_flat_density(self) -> f64 {
        if self.low < self.high { (self.high - self.low).ln() } else { 0.0 }
    }
}

impl Location {
    /// Where the values are that a Config has for `parameters`. One that is outside its domain, as
    /// after the space was narrowed, tells nothing.
    pub(super) fn of(parameters: &[&Parameter], config: &Config) -> Self {
        let point =
            |parameter: &&Parameter| Point::new(&parameter.domain, config.get(&parameter.name)?);
        Self(parameters.iter().map(point).collect())
    }

    fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }
}

impl<'a> Mixture<'a> {
    /// The density of `parameters` among `configs`, which are in the order of their trials.
    pub(super) fn new(parameters: &'a [&'a Parameter], configs: &[&Config]) -> Self {
        let centres: Vec<Location> = configs
            .iter()
            .map(|config| Location::of(parameters, config))
            .filter(|centre| !centre.is_empty())
            .collect();
        let weights = weights(centres.len());
        let total: f64 = weights.iter().sum();
        let cumulative = weights
            .iter()
            .scan(0.0, |sum, weight| {
                *sum += weight / total;
                Some(*sum)
            })
            .collect();
        let log_weights = weights.iter().map(|weight| (weight / total).ln()).collect();
        let along = |(axis, parameter): (usize, &&Parameter)| {
            let points: Vec<Option<Point>> = centres.iter().map(|centre| centre.0[axis]).collect();
            Kernels::new(&parameter.domain, &points)
        };
        let kernels = parameters.iter().enumerate().map(along).collect();
        Self { parameters, cumulative, log_weights, kernels }
    }

    /// Draws values, and adds them to a Config that has those of other hyperparameters already.
    pub(super) fn sample(&self, config: &mut Config, rng: &mut SeededRng) {
        let share = rng.unit();
        let last = self.cumulative.len() - 1;
        let kernel = self.cumulative.partition_point(|sum| *sum <= share).min(last);
        for (parameter, kernels) in self.parameters.iter().zip(&self.kernels) {
            if parameter.is_active(config) {
                config.set(&parameter.name, parameter.domain.at(kernels.sample(kernel, rng)));
            }
        }
    }

    pub(super) fn log_density(&self, location: &Location) -> f64 {
        let mut logs = self.log_weights.clone();
        for (kernels, point) in self.kernels.iter().zip(&location.0) {
            if let Some(point) = *point {
                kernels.add_log_densities(point, &mut logs);
            }
        }
        let largest = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        largest + logs.iter().map(|log| (log - largest).exp()).sum::<f64>().ln()
    }
}

/// The weight of each Config's kernel, from the oldest, and of the flat one: recent ones count more
/// once there are many, since they tell more about where the search is now.
fn weights(configs: usize) -> Vec<f64> {
    const FULL: usize = 25;
    let ramp = configs.saturating_sub(FULL);
    let rising = (0..ramp).map(|index| {
        let least = 1.0 / configs as f64;
        least + (1.0 - least) * index as f64 / (ramp.max(2) - 1) as f64
    });
    rising.chain(std::iter::repeat_n(1.0, configs - ramp + 1)).collect()
}

impl Kernels {
    fn new(domain: &Domain, points: &[Option<Point>]) -> Self {
        if let Domain::Choice(values) = domain {
            let categories = values.len();
            let chosen: Vec<Option<usize>> = points
                .iter()
                .map(|point| point.map(|point| point.category(categories)))
                .chain([None])
                .collect();
            let spread = 1.0 / (chosen.iter().flatten().count() + 1) as f64;
            let total = 1.0 + spread * categories as f64;
            let (log_chosen, log_rest) = (((1.0 + spread) / total).ln(), (spread / total).ln());
            return Kernels::Category { chosen, categories, log_chosen, log_rest };
        }
        let means: Vec<f64> = points.iter().flatten().map(|point| point.middle()).collect();
        let narrowest = 1.0 / (means.len() as f64 + 2.0).min(100.0);
        let mut deviations = neighbour_distances(&means).into_iter();
        let mut kernels = Vec::with_capacity(points.len() + 1);
        for point in points {
            kernels.push(point.and_then(|point| {
                let deviation = deviations.next()?.clamp(narrowest, 1.0);
                Some(Normal::new(point.middle(), deviation))
            }));
        }
        kernels.push(None);
        Kernels::Normal(kernels)
    }

    /// A position, from kernel number `kernel`.
    fn sample(&self, kernel: usize, rng: &mut SeededRng) -> f64 {
        match self {
            Kernels::Normal(kernels) => match kernels[kernel] {
                Some(normal) => normal.sample(rng),
                None => rng.unit(),
            },
            Kernels::Category { chosen, categories, log_chosen, log_rest } => {
                let excess = log_chosen.exp() - log_rest.exp();
                let category = match chosen[kernel] {
                    Some(category) if rng.unit() < excess => category,
                    _ => rng.below(*categories as u64) as usize,
                };
                (category as f64 + 0.5) / *categories as f64
            }
        }
    }

    /// Adds the logarithm of each kernel's density, or probability, at `point` to `logs`.
    fn add_log_densities(&self, point: Point, logs: &mut [f64]) {
        let flat = point.log_flat_density();
        match self {
            Kernels::Normal(kernels) => {
                for (kernel, log) in kernels.iter().zip(logs) {
                    *log += kernel.map_or(flat, |normal| normal.log_density(point));
                }
            }
            Kernels::Category { chosen, categories, log_chosen, log_rest } => {
                let category = point.category(*categories);
                for (chosen, log) in chosen.iter().zip(logs) {
                    *log += match chosen {
                        None => flat,
                        Some(chosen) if *chosen == category => *log_chosen,
                        Some(_) => *log_rest,
                    };
                }
            }
        }
    }
}

/// The larger distance of each mean to its neighbours, among which are the ends for a mean that is
/// alone on its side (Bergstra et al. 2011).
fn neighbour_distances(means: &[f64]) -> Vec<f64> {
    let mut sorted = means.to_vec();
    sorted.sort_by(f64::total_cmp);
    let distance = |mean: &f64| {
        let place = sorted.partition_point(|other| other < mean);
        let below = place.checked_sub(1).map(|below| mean - sorted[below]);
        let above = sorted.get(place + 1).map(|above| above - mean);
        match (below, above) {
            (Some(below), Some(above)) => below.max(above),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => mean.max(1.0 - mean),
        }
    };
    means.iter().map(distance).collect()
}

impl Normal {
    fn new(mean: f64, deviation: f64) -> Self {
        let mut normal = Self { mean, deviation, log_mass: 0.0, log_peak: 0.0 };
        normal.log_mass = normal.mass_between(0.0, 1.0).ln();
        normal.log_peak = -normal.log_mass - (deviation * (2.0 * PI).sqrt()).ln();
        normal
    }

    fn mass_between(&self, low: f64, high: f64) -> f64 {
        let scaled = |position: f64| (position - self.mean) / (self.deviation * SQRT_2);
        let (low, high) = (scaled(low), scaled(high));
        // Far out on one side, differences of erf would cancel.
        let doubled = if low > 0.0 {
            libm::erfc(low) - libm::erfc(high)
        } else if high < 0.0 {
            libm::erfc(-high) - libm::erfc(-low)
        } else {
            libm::erf(high) - libm::erf(low)
        };
        doubled / 2.0
    }

    fn log_density(&self, point: Point) -> f64 {
        let z = (point.middle() - self.mean) / self.deviation;
        let at_middle = self.log_peak - 0.5 * z * z;
        let width = point.high - point.low;
        if width <= 0.0 {
            return at_middle;
        }
        let relative = width / self.deviation;
        if relative < 0.5 {
            // The integral over a narrow cell, to the second order: far cheaper than two erf.
            return at_middle + width.ln() + relative * relative * (z * z - 1.0) / 24.0;
        }
        let mass = self.mass_between(point.low, point.high);
        mass.max(f64::MIN_POSITIVE).ln() - self.log_mass
    }

    fn sample(&self, rng: &mut SeededRng) -> f64 {
        // The mean lies between 0 and 1 and the deviation is at most 1, so a third of the draws or
        // more are accepted.
        loop {
            let position = self.mean + self.deviation * rng.normal();
            if (0.0..=1.0).contains(&position) {
                return position;
            }
        }
    }
}
