//! Metrics: sums that merge exactly over batches, partitions and workers, and the objective.

mod determination;
mod ranking;
mod score;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use determination::{Determination, Explained};
pub use ranking::{ClassRanks, RankHistogram};
pub use score::{Average, ClassCount, ClassScore, Score};

use crate::named::Named;

/// A sufficient statistic of a metric: what must be summed so that its value over many batches is
/// the value over all their rows.
///
/// Means of means are wrong as soon as batches differ in size; statistics are merged instead, and
/// the value is computed once, at the end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Statistic {
    /// A weighted mean, such as a loss or an accuracy: `sum / weight`.
    Mean {
        /// The sum of the values over all rows (or other things counted).
        #[serde(with = "crate::real")]
        sum: f64,
        /// How many there were.
        #[serde(with = "crate::real")]
        weight: f64,
    },
    /// The square root of a mean, such as the root mean squared error: `sqrt(sum / weight)`.
    RootMean {
        /// The sum of the squares.
        #[serde(with = "crate::real")]
        sum: f64,
        /// How many there were.
        #[serde(with = "crate::real")]
        weight: f64,
    },
    /// The exponential of a mean, such as perplexity: `exp(sum / weight)`.
    ExpMean {
        /// The sum of the values.
        #[serde(with = "crate::real")]
        sum: f64,
        /// How many there were.
        #[serde(with = "crate::real")]
        weight: f64,
    },
    /// Precision, recall or F1 of a classification.
    Score(ClassScore),
    /// The area under the receiver operating characteristic: of each class against the others.
    RocAuc(ClassRanks),
    /// The coefficient of determination of a regression.
    R2(Determination),
}

impl Statistic {
    /// The mean of `weight` values whose mean is `mean`.
    pub fn mean(mean: f64, weight: usize) -> Self {
        Statistic::Mean { sum: mean * weight as f64, weight: weight as f64 }
    }

    /// Adds what `other` has counted. Statistics of different kinds do not merge: `false`.
    #[must_use = "statistics of different kinds do not merge"]
    pub fn merge(&mut self, other: &Self) -> bool {
        use Statistic::{ExpMean, Mean, R2, RocAuc, RootMean, Score};
        match (self, other) {
            (Mean { sum, weight }, Mean { sum: s, weight: w })
            | (RootMean { sum, weight }, RootMean { sum: s, weight: w })
            | (ExpMean { sum, weight }, ExpMean { sum: s, weight: w }) => {
                *sum += s;
                *weight += w;
                true
            }
            (Score(own), Score(other)) => own.merge(other),
            (RocAuc(own), RocAuc(other)) => own.merge(other),
            (R2(own), R2(other)) => own.merge(other),
            _ => false,
        }
    }

    /// What is left of the statistic once nothing more is merged into it: its value, without the
    /// counts of each class, bin or output that it came from.
    fn settled(self) -> Self {
        match self {
            Statistic::Score(_) | Statistic::RocAuc(_) | Statistic::R2(_) => {
                Statistic::Mean { sum: self.value(), weight: 1.0 }
            }
            small => small,
        }
    }

    /// The metric's value over everything that was counted; NaN if nothing was.
    pub fn value(&self) -> f64 {
        match self {
            Statistic::Mean { sum, weight } => sum / weight,
            Statistic::RootMean { sum, weight } => (sum / weight).sqrt(),
            Statistic::ExpMean { sum, weight } => (sum / weight).exp(),
            Statistic::Score(score) => score.value(),
            Statistic::RocAuc(ranks) => ranks.value(),
            Statistic::R2(determination) => determination.value(),
        }
    }
}

/// The name under which a model reports its loss: what an experiment watches for NaN.
pub const LOSS: &str = "loss";

/// Named metrics of one pass, as statistics that merge.
///
/// ```
/// use cerebro_core::{Metrics, Statistic};
/// let mut epoch = Metrics::new();
/// epoch.record("accuracy", Statistic::mean(1.0, 64));
/// epoch.record("accuracy", Statistic::mean(0.0, 16));
/// assert_eq!(epoch.value("accuracy"), Some(0.8));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Metrics(Named<Statistic>);

impl Metrics {
    /// No metrics.
    pub fn new() -> Self {
        Self::default()
    }

    /// Merges `statistic` into the metric `name`.
    ///
    /// A statistic of another kind than before replaces the earlier one: a model that changes its
    /// mind about what a metric is has no exact aggregate.
    pub fn record(&mut self, name: &str, statistic: Statistic) {
        match self.0.get_mut(name) {
            Some(known) => {
                if !known.merge(&statistic) {
                    *known = statistic;
                }
            }
            None => {
                self.0.insert(name, statistic);
            }
        }
    }

    /// Merges all of `other`.
    pub fn merge(&mut self, other: &Metrics) {
        for (name, statistic) in other.iter() {
            self.record(name, statistic.clone());
        }
    }

    /// These metrics, complete, in little memory: a histogram that was needed to merge the ranks of
    /// all rows may take a megabyte, and there are as many of these as epochs of trials.
    pub(crate) fn settled(self) -> Self {
        let settle = |(name, statistic): (Box<str>, Statistic)| (name, statistic.settled());
        Self(self.0.into_iter().map(settle).collect())
    }

    /// The value of the metric `name`.
    pub fn value(&self, name: &str) -> Option<f64> {
        self.0.get(name).map(Statistic::value)
    }

    /// Names and values, ordered by name.
    pub fn values(&self) -> impl Iterator<Item = (&str, f64)> {
        self.0.iter().map(|(name, statistic)| (name, statistic.value()))
    }

    /// Names and statistics, ordered by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Statistic)> {
        self.0.iter()
    }

    /// Whether there is no metric.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Which values of a metric are better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Lower is better, as for a loss.
    Minimize,
    /// Higher is better, as for an accuracy.
    Maximize,
}

/// What an experiment optimises: a validation metric and its direction.
///
/// The direction always goes with the name: a tool that guesses it picks the worst model.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Objective {
    /// The metric, as the model reports it on validation partitions.
    pub metric: String,
    /// Which values of it are better.
    pub direction: Direction,
}

impl Objective {
    /// Lower values of the validation metric `metric` are better.
    pub fn minimize(metric: impl Into<String>) -> Self {
        Self { metric: metric.into(), direction: Direction::Minimize }
    }

    /// Higher values of the validation metric `metric` are better.
    pub fn maximize(metric: impl Into<String>) -> Self {
        Self { metric: metric.into(), direction: Direction::Maximize }
    }

    /// Orders values from best to worst; NaN comes last, whatever the direction.
    pub fn best_first(&self, a: f64, b: f64) -> std::cmp::Ordering {
        match (a.is_nan(), b.is_nan()) {
            (true, true) => std::cmp::Ordering::Equal,
            (true, false) => std::cmp::Ordering::Greater,
            (false, true) => std::cmp::Ordering::Less,
            (false, false) => match self.direction {
                Direction::Minimize => a.total_cmp(&b),
                Direction::Maximize => b.total_cmp(&a),
            },
        }
    }
}

impl fmt::Display for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.direction {
            Direction::Minimize => write!(f, "validation {} (lower is better)", self.metric),
            Direction::Maximize => write!(f, "validation {} (higher is better)", self.metric),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_last_batch_weighs_by_its_rows() {
        let mut metrics = Metrics::new();
        metrics.record(LOSS, Statistic::mean(2.0, 90));
        metrics.record(LOSS, Statistic::mean(4.0, 10));
        assert_eq!(metrics.value(LOSS), Some(2.2));
    }

    #[test]
    fn metrics_that_are_no_numbers_survive_serialisation() {
        let mut metrics = Metrics::new();
        metrics.record("infinite", Statistic::Mean { sum: f64::NEG_INFINITY, weight: 2.0 });
        metrics.record("nothing", Statistic::RootMean { sum: f64::NAN, weight: 1.0 });
        let json = serde_json::to_string(&metrics).unwrap();
        let back: Metrics = serde_json::from_str(&json).unwrap();
        assert_eq!(back.value("infinite"), Some(f64::NEG_INFINITY));
        assert!(back.value("nothing").unwrap().is_nan(), "{json}");
    }

    #[test]
    fn the_best_accuracy_is_the_highest_and_nan_is_never_best() {
        let mut values = [0.5, f64::NAN, 0.9, 0.7];
        values.sort_by(|a, b| Objective::maximize("accuracy").best_first(*a, *b));
        assert_eq!(values[..3], [0.9, 0.7, 0.5]);
        values.sort_by(|a, b| Objective::minimize("loss").best_first(*a, *b));
        assert_eq!(values[..3], [0.5, 0.7, 0.9]);
    }
}
