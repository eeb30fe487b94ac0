//! [`RankHistogram`] and [`ClassRanks`]: the area under the ROC curve, from counts of scores that merge exactly.

use serde::{Deserialize, Serialize};

/// How many positive and negative rows had a score in each of 65,536 bins.
///
/// The area under the ROC curve is the probability that a positive row has a higher score than a
/// negative one, where equal scores count one half (the Mann-Whitney statistic). It depends on the
/// order of all scores, which no summary of fixed size keeps; so scores are rounded to the 8
/// significant bits of a bfloat16, and those of a bin are taken for equal. Counts are whole
/// numbers: merging is exact, and the area of merged histograms is that of all rows together.
///
/// Only pairs within a bin can count wrongly, each by one half at most: the area is off by at most
/// [`error_bound`](Self::error_bound), which is usually below 0.001 and far above the actual error,
/// because pairs of a bin are in either order.
///
/// ```
/// use cerebro_core::metric::RankHistogram;
/// let histogram = RankHistogram::of([(0.1, false), (0.4, false), (0.35, true), (0.8, true)]);
/// assert_eq!(histogram.area(), 0.75);
/// assert_eq!(histogram.error_bound(), 0.0);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RankHistogram {
    /// The number of a bin, its positive rows, its negative rows; those without rows are left out.
    bins: Vec<(u16, u64, u64)>,
}

impl RankHistogram {
    /// The histogram of rows, each with its score and whether it is positive.
    pub fn of(rows: impl IntoIterator<Item = (f32, bool)>) -> Self {
        let mut keys: Vec<(u16, bool)> =
            rows.into_iter().map(|(score, is_positive)| (bin(score), is_positive)).collect();
        keys.sort_unstable();
        let mut bins: Vec<(u16, u64, u64)> = Vec::new();
        for (key, is_positive) in keys {
            if bins.last().is_none_or(|last| last.0 != key) {
                bins.push((key, 0, 0));
            }
            let last = bins.last_mut().expect("one was pushed if there was none");
            if is_positive { last.1 += 1 } else { last.2 += 1 }
        }
        Self { bins }
    }

    /// Adds the rows of `other`.
    pub fn merge(&mut self, other: &Self) {
        let mut merged = Vec::with_capacity(self.bins.len().max(other.bins.len()));
        let (mut own, mut others) = (self.bins.iter().peekable(), other.bins.iter().peekable());
        while let Some(&&(key, ..)) = match (own.peek(), others.peek()) {
            (Some(a), Some(b)) => Some(if a.0 <= b.0 { a } else { b }),
            (a, b) => a.or(b),
        } {
            let mut bin = (key, 0, 0);
            for side in [&mut own, &mut others] {
                if let Some(found) = side.next_if(|found| found.0 == key) {
                    bin.1 += found.1;
                    bin.2 += found.2;
                }
            }
            merged.push(bin);
        }
        self.bins = merged;
    }

    /// The area under the ROC curve; NaN without positive or without negative rows.
    pub fn area(&self) -> f64 {
        let (mut below, mut won) = (0.0, 0.0);
        for &(_, positive, negative) in &self.bins {
            let (positive, negative) = (positive as f64, negative as f64);
            won += positive * (below + negative / 2.0);
            below += negative;
        }
        won / self.pairs()
    }

    /// How far [`area`](Self::area) can be from the area of the scores as they were.
    pub fn error_bound(&self) -> f64 {
        let tied: f64 = self.bins.iter().map(|&(_, p, n)| p as f64 * n as f64).sum();
        0.5 * tied / self.pairs()
    }

    fn pairs(&self) -> f64 {
        let positive: u64 = self.bins.iter().map(|bin| bin.1).sum();
        let negative: u64 = self.bins.iter().map(|bin| bin.2).sum();
        positive as f64 * negative as f64
    }
}

/// Histograms of several classes, each of which is ranked against all others together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassRanks {
    /// The histogram of each class; only that of the positive one for two classes.
    pub classes: Vec<RankHistogram>,
}

impl ClassRanks {
    /// Adds the rows of `other`, unless it has another number of classes: then `false`.
    pub(super) fn merge(&mut self, other: &Self) -> bool {
        let fits = self.classes.len() == other.classes.len();
        if fits {
            self.classes.iter_mut().zip(&other.classes).for_each(|(own, other)| own.merge(other));
        }
        fits
    }

    /// The mean of the areas of the classes that have one; NaN if none has.
    pub fn value(&self) -> f64 {
        let areas = self.classes.iter().map(RankHistogram::area).filter(|area| !area.is_nan());
        let (sum, count) = areas.fold((0.0, 0.0), |(sum, count), area| (sum + area, count + 1.0));
        sum / count
    }
}

/// The bin of `score`: the upper half of its bits, so arranged that larger scores have larger
/// numbers.
fn bin(score: f32) -> u16 {
    // The sum makes the two zeros one.
    let bits = (score + 0.0).to_bits();
    let ordered = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
    (ordered >> 16) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Seed;

    /// Every pair, one by one.
    fn exact(rows: &[(f32, bool)]) -> f64 {
        let (mut won, mut pairs) = (0.0, 0.0);
        for (high, _) in rows.iter().filter(|row| row.1) {
            for (low, _) in rows.iter().filter(|row| !row.1) {
                pairs += 1.0;
                won += if high > low {
                    1.0
                } else if high == low {
                    0.5
                } else {
                    0.0
                };
            }
        }
        won / pairs
    }

    fn rows(count: usize) -> Vec<(f32, bool)> {
        let mut rng = Seed(5).derive("scores", &[]).rng();
        let row = |_| {
            let is_positive = rng.below(4) == 0;
            let score = rng.normal() + if is_positive { 0.8 } else { -0.2 };
            (score as f32, is_positive)
        };
        (0..count).map(row).collect()
    }

    #[test]
    fn the_area_is_within_its_bound_of_the_exact_one() {
        let rows = rows(2000);
        let histogram = RankHistogram::of(rows.iter().copied());
        let (area, exact) = (histogram.area(), exact(&rows));
        assert!(area != exact, "no pair was rounded: the test tests nothing");
        assert!((area - exact).abs() <= histogram.error_bound(), "{area} {exact}");
        assert!(histogram.error_bound() < 2e-3, "{}", histogram.error_bound());
        assert!((area - exact).abs() < 1e-4, "{area} {exact}");
    }

    #[test]
    fn merging_parts_gives_the_histogram_of_the_whole() {
        let rows = rows(500);
        let whole = RankHistogram::of(rows.iter().copied());
        for parts in [1, 7, 100, 499] {
            let mut merged = RankHistogram::default();
            for part in rows.chunks(parts) {
                merged.merge(&RankHistogram::of(part.iter().copied()));
            }
            assert_eq!(merged, whole);
        }
    }

    #[test]
    fn scores_of_any_sign_and_size_are_in_order() {
        let scores = [f32::NEG_INFINITY, -1e30, -2.0, -1e-30, 0.0, 1e-30, 0.5, 0.75, 3e8];
        let bins: Vec<u16> = scores.map(bin).to_vec();
        assert!(bins.windows(2).all(|pair| pair[0] < pair[1]), "{bins:?}");
        assert_eq!(bin(-0.0), bin(0.0));
    }

    #[test]
    fn without_both_kinds_of_rows_there_is_no_area() {
        assert!(RankHistogram::default().area().is_nan());
        assert!(RankHistogram::of([(0.5, true), (0.1, true)]).area().is_nan());
    }
}
