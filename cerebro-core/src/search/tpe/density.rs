//! The density that a [`Tpe`](super::Tpe) estimates from a set of points: a mixture of kernels.
//!
//! Kernels live on the positions from 0 to 1 on which a [`Domain`] is laid out, where a uniform
//! density is the domain's own distribution. So logarithms and quanta need no cases here: a value
//! of a discrete domain is a cell of positions, and its probability the mass of that cell.

use std::f64::consts::{PI, SQRT_2};

use crate::config::Value;
use crate::seed::SeededRng;
use crate::space::Domain;

/// One hyperparameter of the mixture.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis<'a>(pub(super) &'a Domain);

/// A value of one hyperparameter, with the positions that it takes.
#[derive(Clone, Debug)]
pub(super) struct Point {
    pub(super) value: Value,
    low: f64,
    high: f64,
}

/// How wide the kernels of numbers are.
#[derive(Clone, Copy, Debug)]
pub(super) enum Bandwidth {
    /// As wide as the larger distance to the neighbouring points (Bergstra et al. 2011).
    Neighbours,
    /// All the same, narrower with more points and wider with more hyperparameters (Scott's rule).
    Scott,
}

/// Kernels around points, and a flat one that keeps every value possible.
#[derive(Debug)]
pub(super) struct Mixture<'a> {
    axes: &'a [Axis<'a>],
    /// The sum of the weights up to each kernel.
    cumulative: Vec<f64>,
    log_weights: Vec<f64>,
    kernels: Vec<Kernels>,
}

/// The kernels along one axis; the last one is the flat one.
#[derive(Debug)]
enum Kernels {
    /// Normal densities, cut off outside 0 to 1.
    Normal(Vec<Normal>),
    /// The point's value is more likely than the rest.
    Category { chosen: Vec<Option<usize>>, categories: usize, log_chosen: f64, log_rest: f64 },
}

#[derive(Clone, Copy, Debug)]
struct Normal {
    mean: f64,
    deviation: f64,
    /// The mass between 0 and 1.
    mass: f64,
}

impl Point {
    pub(super) fn new(domain: &Domain, value: &Value) -> Option<Self> {
        let (low, high) = domain.cell(value)?;
        Some(Self { value: value.clone(), low, high })
    }

    fn middle(&self) -> f64 {
        f64::midpoint(self.low, self.high)
    }

    fn category(&self, categories: usize) -> usize {
        (self.middle() * categories as f64) as usize
    }
}

impl<'a> Mixture<'a> {
    pub(super) fn new(axes: &'a [Axis<'a>], points: &[Vec<Point>], bandwidth: Bandwidth) -> Self {
        let weights = weights(points.len());
        let total: f64 = weights.iter().sum();
        let cumulative = weights
            .iter()
            .scan(0.0, |sum, weight| {
                *sum += weight / total;
                Some(*sum)
            })
            .collect();
        let log_weights = weights.iter().map(|weight| (weight / total).ln()).collect();
        let kernels = axes
            .iter()
            .enumerate()
            .map(|(index, axis)| {
                let points: Vec<&Point> = points.iter().map(|point| &point[index]).collect();
                Kernels::new(axis.0, &points, bandwidth, axes.len())
            })
            .collect();
        Self { axes, cumulative, log_weights, kernels }
    }

    pub(super) fn sample(&self, rng: &mut SeededRng) -> Vec<Point> {
        let share = rng.unit();
        let last = self.cumulative.len() - 1;
        let kernel = self.cumulative.partition_point(|sum| *sum <= share).min(last);
        self.axes
            .iter()
            .zip(&self.kernels)
            .map(|(axis, kernels)| {
                let value = axis.0.at(kernels.sample(kernel, rng));
                Point::new(axis.0, &value).expect("a domain holds the value at each position")
            })
            .collect()
    }

    pub(super) fn log_density(&self, point: &[Point]) -> f64 {
        let mut logs = self.log_weights.clone();
        for (kernels, value) in self.kernels.iter().zip(point) {
            kernels.add_log_densities(value, &mut logs);
        }
        let largest = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        largest + logs.iter().map(|log| (log - largest).exp()).sum::<f64>().ln()
    }
}

/// The weight of each point's kernel, from the oldest, and of the flat one: recent points count
/// more once there are many, since they tell more about where the search is now.
fn weights(points: usize) -> Vec<f64> {
    const FULL: usize = 25;
    let ramp = points.saturating_sub(FULL);
    let rising = (0..ramp).map(|index| {
        let least = 1.0 / points as f64;
        least + (1.0 - least) * index as f64 / (ramp.max(2) - 1) as f64
    });
    rising.chain(std::iter::repeat_n(1.0, points - ramp + 1)).collect()
}

impl Kernels {
    fn new(domain: &Domain, points: &[&Point], bandwidth: Bandwidth, dimensions: usize) -> Self {
        if let Domain::Choice(values) = domain {
            let categories = values.len();
            let chosen: Vec<Option<usize>> =
                points.iter().map(|point| Some(point.category(categories))).chain([None]).collect();
            let spread = 1.0 / chosen.len() as f64;
            let total = 1.0 + spread * categories as f64;
            let (log_chosen, log_rest) = (((1.0 + spread) / total).ln(), (spread / total).ln());
            return Kernels::Category { chosen, categories, log_chosen, log_rest };
        }
        let means: Vec<f64> = points.iter().map(|point| point.middle()).collect();
        let count = means.len() as f64;
        let deviations = match bandwidth {
            Bandwidth::Neighbours => neighbour_distances(&means),
            Bandwidth::Scott => {
                let scott = 0.2 * count.max(1.0).powf(-1.0 / (dimensions as f64 + 4.0));
                vec![scott; means.len()]
            }
        };
        let narrowest = 1.0 / (count + 2.0).min(100.0);
        let around = means
            .iter()
            .zip(deviations)
            .map(|(mean, deviation)| Normal::new(*mean, deviation.clamp(narrowest, 1.0)));
        Kernels::Normal(around.chain([Normal::new(0.5, 1.0)]).collect())
    }

    /// A position, from kernel number `kernel`.
    fn sample(&self, kernel: usize, rng: &mut SeededRng) -> f64 {
        match self {
            Kernels::Normal(kernels) => kernels[kernel].sample(rng),
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
    fn add_log_densities(&self, point: &Point, logs: &mut [f64]) {
        match self {
            Kernels::Normal(kernels) => {
                for (kernel, log) in kernels.iter().zip(logs) {
                    *log += kernel.log_density(point);
                }
            }
            Kernels::Category { chosen, categories, log_chosen, log_rest } => {
                let category = point.category(*categories);
                let flat = -(*categories as f64).ln();
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

/// The larger distance of each mean to its neighbours, the flat kernel's mean being one of them.
fn neighbour_distances(means: &[f64]) -> Vec<f64> {
    let mut sorted: Vec<f64> = means.iter().copied().chain([0.5]).collect();
    sorted.sort_by(f64::total_cmp);
    means
        .iter()
        .map(|mean| {
            let place = sorted.partition_point(|other| other < mean);
            let below = place.checked_sub(1).map_or(0.0, |below| mean - sorted[below]);
            let above = sorted.get(place + 1).map_or(0.0, |above| above - mean);
            below.max(above)
        })
        .collect()
}

impl Normal {
    fn new(mean: f64, deviation: f64) -> Self {
        let mut normal = Self { mean, deviation, mass: 1.0 };
        normal.mass = normal.mass_between(0.0, 1.0);
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

    fn log_density(&self, point: &Point) -> f64 {
        if point.low < point.high {
            return (self.mass_between(point.low, point.high).max(f64::MIN_POSITIVE) / self.mass)
                .ln();
        }
        let z = (point.low - self.mean) / self.deviation;
        -0.5 * z * z - (self.mass * self.deviation * (2.0 * PI).sqrt()).ln()
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
