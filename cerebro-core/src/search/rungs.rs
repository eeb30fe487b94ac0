//! [`Rungs`]: the epochs at which successive halving compares trials.

use serde::{Deserialize, Serialize};

use super::SearchError;

/// The epochs at which successive halving compares trials, and what part of them goes on from each.
///
/// ```
/// use cerebro_core::search::Rungs;
/// assert_eq!(Rungs::new(1, 81, 3)?.epochs(), [1, 3, 9, 27, 81]);
/// assert_eq!(Rungs::new(4, 100, 4)?.epochs(), [6, 25, 100]);
/// # Ok::<(), cerebro_core::search::SearchError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rungs {
    epochs: Vec<u32>,
    reduction: u32,
}

impl Rungs {
    /// As many rungs as there are between `min_epochs` and `max_epochs` if each has `reduction`
    /// times the epochs of the one below; of the trials that come to a rung, the best one in
    /// `reduction` goes on to the next.
    ///
    /// The papers call the numbers *r*, *R* and *η*. The highest rung has exactly `max_epochs`; the
    /// others are rounded down to whole epochs.
    pub fn new(min_epochs: u32, max_epochs: u32, reduction: u32) -> Result<Self, SearchError> {
        let setting = |setting, found: u32, expected| {
            Err(SearchError::Setting {
                search: "rungs",
                setting,
                found: found.to_string(),
                expected,
            })
        };
        if reduction < 2 {
            return setting("reduction", reduction, "at least 2");
        }
        if min_epochs == 0 {
            return setting("min_epochs", min_epochs, "at least 1");
        }
        if max_epochs < min_epochs {
            return setting("max_epochs", max_epochs, "at least `min_epochs`");
        }
        let mut epochs: Vec<u32> = std::iter::successors(Some(1u32), |power| {
            power.checked_mul(reduction).filter(|power| max_epochs / power >= min_epochs)
        })
        .map(|power| max_epochs / power)
        .collect();
        epochs.reverse();
        Ok(Self { epochs, reduction })
    }

    /// The epochs of each rung, from the lowest; at least one.
    pub fn epochs(&self) -> &[u32] {
        &self.epochs
    }

    /// One trial in so many goes on from each rung.
    pub fn reduction(&self) -> u32 {
        self.reduction
    }

    /// The epochs of the highest rung.
    pub fn max_epochs(&self) -> u32 {
        self.epochs.last().copied().unwrap_or_default()
    }

    /// How many epochs so many trials train together, from the first rung to the last.
    pub(super) fn epochs_of(&self, trials: u64) -> u64 {
        let (mut sum, mut below, mut left) = (0, 0, trials);
        for &epochs in &self.epochs {
            sum += left * u64::from(epochs - below);
            (below, left) = (epochs, left / u64::from(self.reduction));
        }
        sum
    }

    /// These rungs without the lowest `count`.
    pub(super) fn above(&self, count: usize) -> Self {
        Self { epochs: self.epochs[count..].to_vec(), reduction: self.reduction }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rungs_are_powers_of_the_reduction_below_the_highest() {
        let epochs = |min, max, reduction| Rungs::new(min, max, reduction).unwrap().epochs;
        assert_eq!(epochs(1, 9, 3), [1, 3, 9]);
        assert_eq!(epochs(2, 16, 2), [2, 4, 8, 16]);
        assert_eq!(epochs(1, 100, 3), [1, 3, 11, 33, 100]);
        assert_eq!(epochs(5, 5, 3), [5]);
        assert_eq!(epochs(1, 1, 3), [1]);
        assert_eq!(epochs(1, u32::MAX, 65_536), [65_535, u32::MAX]);
    }

    #[test]
    fn the_epochs_of_a_bracket_are_those_of_all_its_rungs() {
        // 9 x 1, 3 x 2, 1 x 6.
        assert_eq!(Rungs::new(1, 9, 3).unwrap().epochs_of(9), 9 + 6 + 6);
        assert_eq!(Rungs::new(5, 5, 3).unwrap().epochs_of(4), 20);
    }

    #[test]
    fn settings_out_of_range_are_refused() {
        for (min, max, reduction) in [(0, 9, 3), (1, 9, 1), (10, 9, 3), (0, 0, 2)] {
            assert!(Rungs::new(min, max, reduction).is_err());
        }
    }
}
