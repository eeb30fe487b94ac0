//! Statistics of the training rows, and the scaling that they give.

use crate::data::{Normalization, Scaling, Scope};

/// Mean, variance and range of a stream of numbers, in one pass and without cancellation
/// (Welford 1962, "Note on a method for calculating corrected sums of squares and products").
#[derive(Clone, Copy, Debug)]
pub(super) struct Moments {
    count: u64,
    mean: f64,
    squares: f64,
    minimum: f64,
    maximum: f64,
}

impl Default for Moments {
    fn default() -> Self {
        let (minimum, maximum) = (f64::INFINITY, f64::NEG_INFINITY);
        Self { count: 0, mean: 0.0, squares: 0.0, minimum, maximum }
    }
}

impl Moments {
    pub(super) fn push(&mut self, value: f32) {
        let value = f64::from(value);
        self.count += 1;
        let delta = value - self.mean;
        self.mean += delta / self.count as f64;
        self.squares += delta * (value - self.mean);
        self.minimum = self.minimum.min(value);
        self.maximum = self.maximum.max(value);
    }

    /// The moments of both streams together (Chan et al. 1979, "Updating formulae and a
    /// pairwise algorithm for computing sample variances").
    fn merge(self, other: Self) -> Self {
        let count = self.count + other.count;
        if count == 0 {
            return self;
        }
        let delta = other.mean - self.mean;
        let share = other.count as f64 / count as f64;
        Self {
            count,
            mean: self.mean + delta * share,
            squares: self.squares + other.squares + delta * delta * self.count as f64 * share,
            minimum: self.minimum.min(other.minimum),
            maximum: self.maximum.max(other.maximum),
        }
    }

    fn shift_and_scale(&self, kind: Normalization) -> (f32, f32) {
        let (shift, spread) = match kind {
            Normalization::Standardize => {
                (self.mean, (self.squares / self.count.max(1) as f64).sqrt())
            }
            Normalization::MinMax => (self.minimum, self.maximum - self.minimum),
        };
        // What does not vary has no scale: subtracting the shift makes it 0.
        (shift as f32, if spread > 0.0 { (1.0 / spread) as f32 } else { 1.0 })
    }
}

/// The scaling of a tensor whose elements have these moments.
pub(super) fn scaling(moments: &[Moments], kind: Normalization, scope: Scope) -> Scaling {
    let merged;
    let moments = match scope {
        Scope::Element => moments,
        Scope::Tensor => {
            merged = [moments.iter().copied().fold(Moments::default(), Moments::merge)];
            &merged
        }
    };
    let (shift, scale) = moments.iter().map(|moments| moments.shift_and_scale(kind)).unzip();
    Scaling { kind, scope, shift, scale }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(values: &[f32]) -> Moments {
        let mut moments = Moments::default();
        for &value in values {
            moments.push(value);
        }
        moments
    }

    #[test]
    fn standardising_divides_by_the_deviation_of_the_population() {
        // Mean 5 and population deviation 2 by hand.
        let values = [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0];
        let scaling = scaling(&[moments(&values)], Normalization::Standardize, Scope::Element);
        assert_eq!((scaling.shift[0], scaling.scale[0]), (5.0, 0.5));
    }

    #[test]
    fn one_scale_for_a_tensor_is_that_of_all_its_elements() {
        let (left, right) = ([1.0, 2.0, 6.0], [10.0, -3.0, 4.0]);
        let both: Vec<f32> = left.into_iter().chain(right).collect();
        let parts = [moments(&left), moments(&right)];
        for kind in [Normalization::Standardize, Normalization::MinMax] {
            let merged = scaling(&parts, kind, Scope::Tensor);
            let whole = scaling(&[moments(&both)], kind, Scope::Element);
            assert!((merged.shift[0] - whole.shift[0]).abs() < 1e-6);
            assert!((merged.scale[0] - whole.scale[0]).abs() < 1e-6);
        }
    }

    #[test]
    fn a_large_mean_does_not_drown_the_deviation() {
        let scaling =
            scaling(&[moments(&[1e6, 1e6 + 2.0])], Normalization::Standardize, Scope::Element);
        assert_eq!((scaling.shift[0], scaling.scale[0]), (1e6 + 1.0, 1.0));
    }

    #[test]
    fn what_does_not_vary_becomes_zero() {
        for kind in [Normalization::Standardize, Normalization::MinMax] {
            let scaling = scaling(&[moments(&[3.0, 3.0])], kind, Scope::Element);
            assert_eq!((3.0 - scaling.shift[0]) * scaling.scale[0], 0.0);
        }
    }
}
