//! What the host feeds to training graphs and reads from them.

use cerebro_core::Statistic;
use cerebro_core::data::ElementType;
use cerebro_core::metric::{
    Average, ClassCount, ClassRanks, ClassScore, Determination, Explained, RankHistogram, Score,
};

use crate::onnx::{DataType, TensorData};

/// The data that a drawn graph reads, and the statistics that it gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Interface {
    /// The rows of every batch.
    pub rows: usize,
    /// The model's inputs, as step, evaluation and prediction graphs read them.
    pub inputs: Vec<DataInput>,
    /// The target, as step and evaluation graphs read it; none when the model computes its own
    /// loss.
    pub target: Option<DataInput>,
    /// Whether the step graph reads [`SEED`](super::SEED).
    pub random: bool,
    /// What is in the packed [`STATISTICS`](super::STATISTICS) of step and evaluation graphs; the
    /// first one is the loss.
    pub statistics: Vec<StatisticOutput>,
    /// The name and the shape of the prediction: the output that the loss is computed from.
    pub prediction: (String, Vec<usize>),
}

/// An input that holds rows of data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataInput {
    /// The name of the graph's input.
    pub name: String,
    /// The type of its elements. Graphs convert where the model wants another one.
    pub element: ElementType,
    /// Its shape, rows first. A target of `[rows, 1]` takes data with rows of shape `[]` as well
    /// as `[1]`: the elements are the same.
    pub dims: Vec<usize>,
}

/// A tensor that a trial owns: it hops with it.
#[derive(Clone, Debug, PartialEq)]
pub struct Variable {
    /// The name, as it is in a State: that of the model's initializer, for optimizer state
    /// followed by `/` and the name of the slot.
    pub name: String,
    /// What it is.
    pub kind: VariableKind,
    /// The type of its elements.
    pub data_type: DataType,
    /// Its shape.
    pub dims: Vec<usize>,
    /// Its value before the first step.
    pub initial: Initial,
    /// The name of the graphs' input that reads it. Step graphs read all variables; evaluation and
    /// prediction graphs read parameters and statistics, but no slots.
    pub input: String,
    /// The name of the step graph's output that gives the new value; none for a frozen parameter.
    pub output: Option<String>,
}

impl Variable {
    /// The number of elements.
    pub fn elements(&self) -> usize {
        self.dims.iter().product()
    }
}

/// A sum over several batches: it lives from one update to the next and is in no State.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Accumulator {
    /// The name of the graphs' input that reads it.
    pub(crate) input: String,
    /// The name of the output that gives it with a batch added.
    pub(crate) output: String,
    /// The type of its elements.
    pub(crate) data_type: DataType,
    /// Its shape.
    pub(crate) dims: Vec<usize>,
}

/// What a [`Variable`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VariableKind {
    /// A weight that the optimizer updates.
    Parameter,
    /// A weight that stays as it is.
    Frozen,
    /// A running statistic, which the forward pass of a step updates.
    Statistic,
    /// State of the optimizer, for one parameter.
    Slot,
}

/// The value of a [`Variable`] before the first step.
#[derive(Clone, Debug, PartialEq)]
pub enum Initial {
    /// That of the model's file.
    Tensor(TensorData),
    /// The same in every element.
    Fill(f32),
}

/// One statistic in the packed [`STATISTICS`](super::STATISTICS).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatisticOutput {
    /// The metric's name.
    pub name: String,
    /// What its part is, and how the metric follows from it.
    pub kind: StatisticKind,
}

/// What a metric's part of the packed statistics is, and how the metric follows from it: the kinds
/// of [`cerebro_core::Statistic`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StatisticKind {
    /// A sum and a weight, of which the metric is `sum / weight`.
    Mean,
    /// A sum and a weight, of which the metric is `sqrt(sum / weight)`.
    RootMean,
    /// A sum and a weight, of which the metric is `exp(sum / weight)`.
    ExpMean,
    /// The hits of each class, then how often each was predicted, then how often each occurred.
    Score {
        /// What the metric is.
        score: Score,
        /// Over which classes.
        average: Average,
        /// The number of classes.
        classes: usize,
    },
    /// The scores of each row, one per class, then whether it is of each: 1, 0, or -1 for a row
    /// that does not count.
    RocAuc {
        /// The number of rows.
        rows: usize,
        /// The number of scores of a row.
        classes: usize,
    },
    /// The mean of each output's targets, then their squares about it, then the squared errors.
    R2 {
        /// The number of rows.
        rows: usize,
        /// The number of outputs.
        outputs: usize,
    },
}

impl StatisticKind {
    /// The length of the metric's part of the packed statistics.
    pub fn length(self) -> usize {
        match self {
            StatisticKind::Mean | StatisticKind::RootMean | StatisticKind::ExpMean => 2,
            StatisticKind::Score { classes, .. } => 3 * classes,
            StatisticKind::RocAuc { rows, classes } => 2 * rows * classes,
            StatisticKind::R2 { outputs, .. } => 3 * outputs,
        }
    }

    /// The statistic of one batch, whose part of the packed statistics is `packed`, of
    /// [`length`](Self::length).
    pub fn statistic(self, packed: &[f32]) -> Statistic {
        let (sum, weight) = match *packed {
            [sum, weight, ..] => (f64::from(sum), f64::from(weight)),
            _ => (f64::NAN, 0.0),
        };
        match self {
            StatisticKind::Mean => Statistic::Mean { sum, weight },
            StatisticKind::RootMean => Statistic::RootMean { sum, weight },
            StatisticKind::ExpMean => Statistic::ExpMean { sum, weight },
            StatisticKind::Score { score, average, classes } => {
                let count = |group: usize, class: usize| packed[group * classes + class] as u64;
                let class = |class| ClassCount {
                    hits: count(0, class),
                    predicted: count(1, class),
                    actual: count(2, class),
                };
                let classes = (0..classes).map(class).collect();
                Statistic::Score(ClassScore { score, average, classes })
            }
            StatisticKind::RocAuc { rows, classes } => {
                let (scores, labels) = packed.split_at(rows * classes);
                let of_class = |class: usize| {
                    let rows = (class..scores.len()).step_by(classes);
                    let counted = rows.filter(|&row| labels[row] >= 0.0);
                    RankHistogram::of(counted.map(|row| (scores[row], labels[row] > 0.5)))
                };
                Statistic::RocAuc(ClassRanks { classes: (0..classes).map(of_class).collect() })
            }
            StatisticKind::R2 { rows, outputs } => {
                let value =
                    |group: usize, output: usize| f64::from(packed[group * outputs + output]);
                let output = |output| Explained {
                    mean: value(0, output),
                    squares: value(1, output),
                    residual: value(2, output),
                };
                let outputs = (0..outputs).map(output).collect();
                Statistic::R2(Determination { rows: rows as f64, outputs })
            }
        }
    }
}
