//! Metrics: what is measured besides the loss, as sums that merge exactly over batches.

mod classes;
mod emit;

use cerebro_core::metric::Score;
use serde::{Deserialize, Serialize};

pub use cerebro_core::metric::Average;

/// What is measured of output and target, in training and in evaluation.
///
/// Values over several batches, partitions and workers are those over all their rows: counts and
/// moments are merged, never means. Definitions are scikit-learn's, where it has the metric.
///
/// Classes are those of cross-entropy, and [`Average::Binary`] is for two of them, of which the
/// second is the positive one. With binary cross-entropy or hinge loss each output is a class of
/// its own, predicted or not, and [`Average::Binary`] is for one output.
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
    /// Of the rows predicted to be of a class, the share that is.
    Precision {
        /// Over which classes.
        average: Average,
    },
    /// Of the rows of a class, the share predicted to be.
    Recall {
        /// Over which classes.
        average: Average,
    },
    /// The harmonic mean of precision and recall.
    F1 {
        /// Over which classes.
        average: Average,
    },
    /// The area under the receiver operating characteristic, from histograms of the scores: see
    /// [`RankHistogram`](cerebro_core::metric::RankHistogram) for its error, which is usually below
    /// 0.001. For more than two classes, and for several outputs of binary losses, the mean of the
    /// areas of each against the others, over those that have both positive and negative rows.
    RocAuc,
    /// The share of the targets' variance that a regression explains, the mean over the outputs.
    R2,
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
            Metric::Precision { average } => averaged("precision", average),
            Metric::Recall { average } => averaged("recall", average),
            Metric::F1 { average } => averaged("f1", average),
            Metric::RocAuc => "roc_auc".to_owned(),
            Metric::R2 => "r2".to_owned(),
        }
    }

    /// The score of counts per class that it is, and its average.
    fn score(self) -> Option<(Score, Average)> {
        match self {
            Metric::Precision { average } => Some((Score::Precision, average)),
            Metric::Recall { average } => Some((Score::Recall, average)),
            Metric::F1 { average } => Some((Score::F1, average)),
            _ => None,
        }
    }
}

/// `precision` for the positive class, `macro_precision` for all of them.
fn averaged(name: &str, average: Average) -> String {
    match average {
        Average::Binary => name.to_owned(),
        Average::Macro => format!("macro_{name}"),
        Average::Micro => format!("micro_{name}"),
        Average::Weighted => format!("weighted_{name}"),
    }
}
