//! [`TrainingSpec`]: what to minimise, over which parameters, and how.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::loss::Loss;
use crate::metric::Metric;
use crate::optim::OptimizerKind;

/// Everything that decides the structure of the training graphs, besides the model and the batch
/// size: two trials with equal specs share their sessions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainingSpec {
    /// The model's output that the loss compares with the target, or a value inside the model; by
    /// default the first output of floating-point numbers.
    pub output: Option<String>,
    /// What is minimised.
    pub loss: Loss,
    /// What is measured besides the loss.
    pub metrics: Vec<Metric>,
    /// How parameters are updated.
    pub optimizer: OptimizerKind,
    /// Which initializers of the model are parameters.
    pub parameters: Selection,
    /// Parameters that are not trained, by name pattern: transfer learning.
    pub frozen: Vec<String>,
    /// Parameters with other factors than 1 on learning rate and weight decay; the first group
    /// that matches holds.
    pub groups: Vec<ParameterGroup>,
}

impl TrainingSpec {
    /// Minimises `loss` over all parameters.
    pub fn new(loss: Loss, optimizer: OptimizerKind) -> Self {
        Self {
            output: None,
            loss,
            metrics: Vec::new(),
            optimizer,
            parameters: Selection::default(),
            frozen: Vec::new(),
            groups: Vec::new(),
        }
    }

    /// Measures `metric` too.
    pub fn metric(mut self, metric: Metric) -> Self {
        self.metrics.push(metric);
        self
    }
}

/// Which initializers of a model are its parameters.
///
/// Most ONNX files do not say which of their constant tensors were trained. PyTorch's older exporter
/// writes constants of the computation as `Constant` nodes or scalars, and parameters (but buffers
/// too) as initializers with at least one axis.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Selection {
    /// Floating-point initializers with at least one axis that influence the output through
    /// differentiable operators, and that are no running statistics, also by name. Of a file of
    /// PyTorch's newer exporter (`dynamo=True`) only what were parameters in PyTorch: it says which.
    #[default]
    Automatic,
    /// Those with these names, and no others.
    Named(Vec<String>),
}

/// Factors for the parameters whose name matches a pattern.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ParameterGroup {
    /// A name pattern, in which `*` stands for any characters: `*.bias`.
    pub pattern: String,
    /// Multiplies the learning rate.
    pub learning_rate: f64,
    /// Multiplies the weight decay; 0 for none.
    pub weight_decay: f64,
}

/// The sizes for which a graph is drawn.
///
/// ```
/// use cerebro_models::training::InputShapes;
/// let shapes = InputShapes::rows(32).with("tokens", [128]);
/// assert_eq!(shapes.rows, 32);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct InputShapes {
    /// The number of rows: the first axis of every input.
    pub rows: usize,
    /// The shape of one row of inputs (by name) that the model leaves open, such as the length of
    /// a sequence.
    pub row_shapes: BTreeMap<String, Vec<usize>>,
}

impl InputShapes {
    /// `rows` rows, of the shape that the model says.
    pub fn rows(rows: usize) -> Self {
        Self { rows, row_shapes: BTreeMap::new() }
    }

    /// One row of `input` has the shape `shape`.
    pub fn with(mut self, input: impl Into<String>, shape: impl Into<Vec<usize>>) -> Self {
        self.row_shapes.insert(input.into(), shape.into());
        self
    }
}
