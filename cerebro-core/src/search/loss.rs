//! [`Loss`]: an objective as searches compare it.

use serde::{Deserialize, Serialize};

/// An objective as searches compare it: lower is better, and what is missing or not finite is worse
/// than everything else. It has a total order, and its written form is a number or nothing.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Option<f64>", into = "Option<f64>")]
pub(super) struct Loss(f64);

impl Loss {
    pub(super) const WORST: Loss = Loss(f64::INFINITY);

    pub(super) fn new(loss: f64) -> Self {
        if loss.is_finite() { Loss(loss) } else { Self::WORST }
    }

    pub(super) fn get(self) -> f64 {
        self.0
    }

    /// Whether there is a value at all.
    pub(super) fn is_known(self) -> bool {
        self.0.is_finite()
    }
}

impl Eq for Loss {}

impl Ord for Loss {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Loss {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl From<Option<f64>> for Loss {
    fn from(loss: Option<f64>) -> Self {
        loss.map_or(Self::WORST, Self::new)
    }
}

impl From<Loss> for Option<f64> {
    fn from(loss: Loss) -> Self {
        loss.is_known().then_some(loss.0)
    }
}
