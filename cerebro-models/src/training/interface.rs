//! What the host feeds to training graphs and reads from them.

use cerebro_core::data::ElementType;

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
    /// How the metric follows from sum and weight.
    pub kind: StatisticKind,
}

/// How a metric follows from a sum and a weight: the kinds of [`cerebro_core::Statistic`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StatisticKind {
    /// `sum / weight`.
    Mean,
    /// `sqrt(sum / weight)`.
    RootMean,
    /// `exp(sum / weight)`.
    ExpMean,
}

impl StatisticKind {
    /// The statistic of one batch.
    pub fn statistic(self, sum: f64, weight: f64) -> cerebro_core::Statistic {
        use cerebro_core::Statistic;
        match self {
            StatisticKind::Mean => Statistic::Mean { sum, weight },
            StatisticKind::RootMean => Statistic::RootMean { sum, weight },
            StatisticKind::ExpMean => Statistic::ExpMean { sum, weight },
        }
    }
}
