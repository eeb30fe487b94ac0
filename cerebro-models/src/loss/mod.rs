//! Losses: what a training step minimises.

mod emit;
#[cfg(test)]
mod tests;

pub(crate) use emit::EmittedLoss;

use serde::{Deserialize, Serialize};

/// What is minimised. Always a mean over the elements of the output; for cross-entropy over all
/// positions, that is over the elements of the target.
///
/// The target has the output's shape and 32-bit floats, for [`CrossEntropy`](Loss::CrossEntropy)
/// the output's shape without the class axis and 64-bit integers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Loss {
    /// Softmax cross-entropy of logits against class indices.
    CrossEntropy {
        /// The axis of the output that holds the classes; negative ones count from the end.
        class_axis: i64,
        /// The share of the target that is spread evenly over all classes; 0 for none.
        label_smoothing: f64,
        /// Positions with this target count for nothing.
        ignore_index: Option<i64>,
        /// One weight per class. The mean is then weighted by those of the targets.
        class_weights: Option<Vec<f32>>,
    },
    /// Binary cross-entropy of logits: `max(x, 0) - x y + log(1 + exp(-|x|))`.
    BinaryCrossEntropyWithLogits {
        /// One weight of positive targets per element of the last axis, or one for all.
        positive_weight: Option<Vec<f32>>,
    },
    /// Binary cross-entropy of probabilities; logarithms are not below -100, as in PyTorch.
    BinaryCrossEntropy,
    /// Squared error.
    MeanSquaredError,
    /// Absolute error.
    MeanAbsoluteError,
    /// Half the squared error where the error is below `delta`, linear beyond (Huber 1964).
    Huber {
        /// Where it becomes linear.
        delta: f64,
    },
    /// Kullback-Leibler divergence of the target's probabilities from log-probabilities:
    /// `y (log y - x)`, the mean over rows of the sums.
    KullbackLeibler,
    /// Hinge loss `max(0, 1 - x y)` for targets of -1 and 1.
    Hinge,
    /// The output itself, a scalar: the model computes its own loss.
    Output,
}

impl Loss {
    /// Cross-entropy over axis 1, the classes of a `[rows, classes, ...]` output.
    pub fn cross_entropy() -> Self {
        Loss::CrossEntropy {
            class_axis: 1,
            label_smoothing: 0.0,
            ignore_index: None,
            class_weights: None,
        }
    }

    /// Binary cross-entropy of logits, positive and negative targets weighing the same.
    pub fn binary_cross_entropy_with_logits() -> Self {
        Loss::BinaryCrossEntropyWithLogits { positive_weight: None }
    }
}
