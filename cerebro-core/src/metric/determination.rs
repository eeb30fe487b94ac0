//! [`Determination`]: R2 of a regression, as moments that merge.

use serde::{Deserialize, Serialize};

/// How much of the targets' variance a regression explains: `1 - residual / squares`, the mean over
/// the outputs.
///
/// Squares are about the mean and merge by the formula of Chan et al. (1979, "Updating formulae and
/// a pairwise algorithm for computing sample variances"), so that targets far from zero lose no
/// digits.
///
/// ```
/// use cerebro_core::metric::{Determination, Explained};
/// // Targets 1, 2, 3, predicted as 1, 2, 4.
/// let output = Explained { mean: 2.0, squares: 2.0, residual: 1.0 };
/// assert_eq!(Determination { rows: 3.0, outputs: vec![output] }.value(), 0.5);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Determination {
    /// The number of rows.
    pub rows: f64,
    /// The moments of each output.
    pub outputs: Vec<Explained>,
}

/// The moments of one output of a regression.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explained {
    /// The mean of the targets.
    #[serde(with = "crate::real")]
    pub mean: f64,
    /// The sum of the squares of the targets' distances from their mean.
    #[serde(with = "crate::real")]
    pub squares: f64,
    /// The sum of the squares of the errors.
    #[serde(with = "crate::real")]
    pub residual: f64,
}

impl Determination {
    /// Adds the rows of `other`, unless it has another number of outputs: then `false`.
    pub(super) fn merge(&mut self, other: &Self) -> bool {
        if self.outputs.len() != other.outputs.len() {
            return false;
        }
        let rows = self.rows + other.rows;
        if other.rows > 0.0 {
            for (own, other_output) in self.outputs.iter_mut().zip(&other.outputs) {
                let distance = other_output.mean - own.mean;
                own.mean += distance * other.rows / rows;
                own.squares +=
                    other_output.squares + distance * distance * self.rows * other.rows / rows;
                own.residual += other_output.residual;
            }
        }
        self.rows = rows;
        true
    }

    /// R2; for an output of constant targets 1 if it is met and 0 if not, as in scikit-learn. NaN
    /// for fewer than two rows.
    pub fn value(&self) -> f64 {
        if self.rows < 2.0 {
            return f64::NAN;
        }
        let each = |output: &Explained| match (output.squares, output.residual) {
            (0.0, 0.0) => 1.0,
            (0.0, _) => 0.0,
            (squares, residual) => 1.0 - residual / squares,
        };
        self.outputs.iter().map(each).sum::<f64>() / self.outputs.len() as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(rows: &[(f64, f64)]) -> Determination {
        let mut all = Determination { rows: 0.0, outputs: vec![] };
        for (target, predicted) in rows {
            let residual = (target - predicted).powi(2);
            let output = Explained { mean: *target, squares: 0.0, residual };
            let row = Determination { rows: 1.0, outputs: vec![output] };
            if all.outputs.is_empty() { all = row } else { assert!(all.merge(&row)) }
        }
        all
    }

    #[test]
    fn targets_far_from_zero_lose_no_digits() {
        // scikit-learn: r2_score([1, 2, 3, 5], [1.5, 2, 2.5, 4]) = 0.8285714285714286
        let rows = [(1.0, 1.5), (2.0, 2.0), (3.0, 2.5), (5.0, 4.0)];
        let far = rows.map(|(target, predicted)| (target + 1e6, predicted + 1e6));
        assert!((of(&rows).value() - 0.8285714285714286).abs() < 1e-15);
        assert!((of(&far).value() - 0.8285714285714286).abs() < 1e-12);
    }

    #[test]
    fn constant_targets_are_met_or_not() {
        assert_eq!(of(&[(2.0, 2.0), (2.0, 2.0)]).value(), 1.0);
        assert_eq!(of(&[(2.0, 2.0), (2.0, 3.0)]).value(), 0.0);
        assert!(of(&[(2.0, 2.0)]).value().is_nan());
    }
}
