//! Initial values of weights, as functions of the trial's seed and of the weight's name.

use std::collections::BTreeMap;

use cerebro_core::{Seed, SeededRng};
use serde::{Deserialize, Serialize};

/// The [`Initializer`] of each weight that does not start with the value in the model's file.
pub type Initializers = BTreeMap<String, Initializer>;

/// A distribution of initial values.
///
/// For a weight of shape `[out, in, kernel...]`, as PyTorch lays it out, `fan_in` is
/// `in * kernel` and `fan_out` is `out * kernel` (products over the kernel's axes).
///
/// ```
/// use cerebro_core::Seed;
/// use cerebro_models::init::Initializer;
/// let mut weight = vec![0.0; 256 * 100];
/// Initializer::KaimingUniform { negative_slope: 0.0 }.fill(Seed(1), &[256, 100], &mut weight);
/// let bound = (6.0_f32 / 100.0).sqrt();
/// assert!(weight.iter().all(|value| value.abs() <= bound));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Initializer {
    /// The same value everywhere.
    Constant(f32),
    /// Uniform between `-bound` and `bound`.
    Uniform {
        /// The largest absolute value.
        bound: f64,
    },
    /// Normal with mean 0.
    Normal {
        /// The standard deviation.
        deviation: f64,
    },
    /// Uniform with variance `2 / ((1 + a^2) fan_in)`, for layers before a leaky rectifier of slope
    /// `a` (He et al. 2015, "Delving deep into rectifiers"). PyTorch's default for linear and
    /// convolution layers is `a^2 = 5`, which comes to a bound of `1 / sqrt(fan_in)`.
    KaimingUniform {
        /// The slope `a` of the activation below zero; 0 for `Relu`.
        negative_slope: f64,
    },
    /// Normal with the variance of [`KaimingUniform`](Initializer::KaimingUniform).
    KaimingNormal {
        /// The slope `a` of the activation below zero; 0 for `Relu`.
        negative_slope: f64,
    },
    /// Uniform with variance `2 / (fan_in + fan_out)`, for layers before a symmetric activation
    /// (Glorot and Bengio 2010, "Understanding the difficulty of training deep feedforward neural
    /// networks").
    GlorotUniform,
    /// Normal with the variance of [`GlorotUniform`](Initializer::GlorotUniform).
    GlorotNormal,
}

impl Initializer {
    /// Fills `values`, a weight of shape `dims`, with draws from the stream of `seed`.
    pub fn fill(self, seed: Seed, dims: &[usize], values: &mut [f32]) {
        let mut rng = seed.rng();
        match self {
            Initializer::Constant(value) => values.fill(value),
            Initializer::Uniform { bound } => uniform(&mut rng, bound, values),
            Initializer::Normal { deviation } => normal(&mut rng, deviation, values),
            Initializer::KaimingUniform { negative_slope } => {
                // A uniform distribution on [-b, b] has the variance b^2 / 3.
                uniform(&mut rng, (3.0 * kaiming_variance(negative_slope, dims)).sqrt(), values);
            }
            Initializer::KaimingNormal { negative_slope } => {
                normal(&mut rng, kaiming_variance(negative_slope, dims).sqrt(), values);
            }
            Initializer::GlorotUniform => {
                uniform(&mut rng, (3.0 * glorot_variance(dims)).sqrt(), values);
            }
            Initializer::GlorotNormal => normal(&mut rng, glorot_variance(dims).sqrt(), values),
        }
    }
}

fn kaiming_variance(negative_slope: f64, dims: &[usize]) -> f64 {
    2.0 / ((1.0 + negative_slope.powi(2)) * fan_in(dims))
}

fn glorot_variance(dims: &[usize]) -> f64 {
    2.0 / (fan_in(dims) + fan_out(dims))
}

fn fan_in(dims: &[usize]) -> f64 {
    dims.iter().skip(1).product::<usize>().max(1) as f64
}

fn fan_out(dims: &[usize]) -> f64 {
    let kernel: usize = dims.iter().skip(2).product();
    (dims.first().copied().unwrap_or(1) * kernel) as f64
}

fn uniform(rng: &mut SeededRng, bound: f64, values: &mut [f32]) {
    values.fill_with(|| ((2.0 * rng.unit() - 1.0) * bound) as f32);
}

fn normal(rng: &mut SeededRng, deviation: f64, values: &mut [f32]) {
    values.fill_with(|| (rng.normal() * deviation) as f32);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Standard deviation and largest absolute value of a weight of shape `[80, 20, 3, 3]`.
    fn spread(initializer: Initializer) -> (f64, f64) {
        let mut values = vec![0.0; 80 * 20 * 9];
        initializer.fill(Seed(5), &[80, 20, 3, 3], &mut values);
        let squares: f64 = values.iter().map(|&value| f64::from(value).powi(2)).sum();
        let largest = values.iter().fold(0.0, |largest, value| value.abs().max(largest));
        ((squares / values.len() as f64).sqrt(), f64::from(largest))
    }

    fn close(a: f64, b: f64) -> bool {
        (a / b - 1.0).abs() < 0.02
    }

    #[test]
    fn variances_follow_the_papers() {
        let (fan_in, fan_out) = (180.0_f64, 720.0_f64);
        let kaiming = (2.0 / fan_in).sqrt();
        assert!(close(spread(Initializer::KaimingNormal { negative_slope: 0.0 }).0, kaiming));
        assert!(close(spread(Initializer::KaimingUniform { negative_slope: 0.0 }).0, kaiming));
        let glorot = (2.0 / (fan_in + fan_out)).sqrt();
        assert!(close(spread(Initializer::GlorotNormal).0, glorot));
        assert!(close(spread(Initializer::GlorotUniform).0, glorot));
        assert!(close(spread(Initializer::Normal { deviation: 0.3 }).0, 0.3));
    }

    #[test]
    fn the_default_of_pytorch_is_bounded_by_one_over_the_root_of_fan_in() {
        let slope = 5.0_f64.sqrt();
        let (_, largest) = spread(Initializer::KaimingUniform { negative_slope: slope });
        assert!(close(largest, 1.0 / 180.0_f64.sqrt()) && largest <= 1.0 / 180.0_f64.sqrt());
    }
}
