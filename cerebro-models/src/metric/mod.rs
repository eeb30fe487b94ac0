//! Metrics: what is measured besides the loss, as sums that merge exactly over batches.

mod emit;

use serde::{Deserialize, Serialize};

/// What is measured of output and target, in training and in evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Metric {
    /// The share of right predictions: of the largest logit for cross-entropy, of the sign of the
    /// logit (or of a probability above one half) for binary cross-entropy.
    Accuracy,
    /// The share of targets among the `k` largest logits; for cross-entropy.
    TopK {
        /// How many.
        k: usize,
    },
    /// The mean absolute error.
    MeanAbsoluteError,
    /// The root of the mean squared error.
    RootMeanSquaredError,
    /// The exponential of the mean cross-entropy.
    Perplexity,
}

impl Metric {
    /// The name under which it is reported.
    pub fn name(self) -> String {
        match self {
            Metric::Accuracy => "accuracy".to_owned(),
            Metric::TopK { k } => format!("top_{k}_accuracy"),
            Metric::MeanAbsoluteError => "mae".to_owned(),
            Metric::RootMeanSquaredError => "rmse".to_owned(),
            Metric::Perplexity => "perplexity".to_owned(),
        }
    }
}
