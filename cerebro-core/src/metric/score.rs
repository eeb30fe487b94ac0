//! [`ClassScore`]: precision, recall and F1 as counts that merge exactly.

use serde::{Deserialize, Serialize};

/// Which share of a classification is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Score {
    /// Of the rows predicted to be of a class, the share that is.
    Precision,
    /// Of the rows of a class, the share predicted to be.
    Recall,
    /// The harmonic mean of precision and recall.
    F1,
}

/// How the scores of several classes become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Average {
    /// The score of the positive class alone: the last one of those counted.
    Binary,
    /// The mean over the classes that occur or are predicted.
    Macro,
    /// The score of all classes' counts together.
    Micro,
    /// The mean over the classes, each weighted by how often it occurs.
    Weighted,
}

/// How often a class was predicted, occurred, and both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassCount {
    /// Rows of the class that were predicted to be of it.
    pub hits: u64,
    /// Rows predicted to be of the class.
    pub predicted: u64,
    /// Rows of the class.
    pub actual: u64,
}

/// Precision, recall or F1 of a classification, from counts per class.
///
/// ```
/// use cerebro_core::metric::{Average, ClassCount, ClassScore, Score};
/// let spam = ClassCount { hits: 3, predicted: 4, actual: 6 };
/// let score = |score| ClassScore { score, average: Average::Binary, classes: vec![spam] }.value();
/// assert_eq!(score(Score::Precision), 0.75);
/// assert_eq!(score(Score::Recall), 0.5);
/// assert_eq!(score(Score::F1), 0.6);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassScore {
    /// Which share.
    pub score: Score,
    /// Over which classes.
    pub average: Average,
    /// The counts of each class.
    pub classes: Vec<ClassCount>,
}

impl ClassCount {
    /// The score of these counts; 0 where there is nothing to divide by, as in scikit-learn.
    fn score(&self, score: Score) -> f64 {
        let (part, whole) = match score {
            Score::Precision => (self.hits, self.predicted),
            Score::Recall => (self.hits, self.actual),
            Score::F1 => (2 * self.hits, self.predicted + self.actual),
        };
        if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
    }

    fn add(&mut self, other: &Self) {
        self.hits += other.hits;
        self.predicted += other.predicted;
        self.actual += other.actual;
    }
}

impl ClassScore {
    /// Adds the counts of `other`, unless it is another score: then `false`.
    pub(super) fn merge(&mut self, other: &Self) -> bool {
        let fits = (self.score, self.average, self.classes.len())
            == (other.score, other.average, other.classes.len());
        if fits {
            self.classes.iter_mut().zip(&other.classes).for_each(|(own, other)| own.add(other));
        }
        fits
    }

    /// The score; NaN if nothing was counted.
    pub fn value(&self) -> f64 {
        let counted = || self.classes.iter().filter(|class| class.predicted + class.actual > 0);
        let each = |class: &ClassCount| class.score(self.score);
        match self.average {
            Average::Binary => self.classes.last().map_or(f64::NAN, each),
            Average::Macro => counted().map(each).sum::<f64>() / counted().count() as f64,
            Average::Micro => {
                let mut all = ClassCount::default();
                self.classes.iter().for_each(|class| all.add(class));
                all.score(self.score)
            }
            Average::Weighted => {
                let rows: u64 = counted().map(|class| class.actual).sum();
                let sum: f64 = counted().map(|class| each(class) * class.actual as f64).sum();
                sum / rows as f64
            }
        }
    }
}
