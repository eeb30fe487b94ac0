//! [`Bindings`]: which tensor of the data set feeds which input of the model.

use cerebro_core::ModelError;
use cerebro_core::data::{Partition, TensorSpec};
use serde::{Deserialize, Serialize};

use crate::loss::Loss;
use crate::onnx::{Dimension, ValueInfo, ValueType};
use crate::program::Program;
use crate::step::{Feed, Labels, Task};
use crate::training::{DataInput, InputShapes, Interface};

/// Which tensor of the data set feeds which input of the model, and which one is the target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Bindings {
    /// The tensor of the model's only input.
    pub(crate) only_input: Option<String>,
    /// The tensors of named inputs.
    pub(crate) inputs: Vec<(String, String)>,
    /// The tensor that the loss compares with.
    pub(crate) target: String,
    /// What is minimised: it says what a target may be.
    pub(crate) loss: Loss,
}

impl Bindings {
    /// The tensor that feeds `input`, one of `count` inputs; one of the same name by default.
    fn tensor<'a>(&'a self, input: &'a str, count: usize) -> &'a str {
        let named = self.inputs.iter().find(|(name, _)| name == input).map(|(_, tensor)| tensor);
        let only = self.only_input.as_ref().filter(|_| count == 1);
        named.or(only).map_or(input, String::as_str)
    }

    /// The shapes for which graphs are drawn: `rows` rows, and what the model leaves open as the
    /// partition has it.
    pub(crate) fn shapes(
        &self,
        program: &Program,
        partition: &dyn Partition,
        rows: usize,
    ) -> Result<InputShapes, ModelError> {
        let inputs = program.inputs();
        let mut shapes = InputShapes::rows(rows);
        for input in inputs.iter().filter(|input| is_open(input)) {
            let tensor = partition.tensor_index(self.tensor(&input.name, inputs.len()))?;
            let row = partition.tensors()[tensor].shape.clone();
            shapes = shapes.with(&input.name, row);
        }
        Ok(shapes)
    }

    /// How `partition` feeds graphs for `task`.
    pub(crate) fn feed<'p>(
        &self,
        partition: &'p dyn Partition,
        interface: &Interface,
        task: Task,
    ) -> Result<Feed<'p>, ModelError> {
        let count = interface.inputs.len();
        let inputs = interface.inputs.iter();
        let inputs = inputs.map(|input| (input, self.tensor(&input.name, count), None));
        let target = interface.target.iter().filter(|_| task != Task::Prediction);
        let labels = self.labels(interface);
        let target = target.map(|target| (target, self.target.as_str(), labels));
        let columns: Vec<(&DataInput, &str, Option<Labels>)> = inputs.chain(target).collect();
        Feed::new(partition, &columns)
    }

    /// An error if the target among `tensors` is known to have more classes than the network gives.
    pub(crate) fn check_classes(
        &self,
        interface: &Interface,
        tensors: &[TensorSpec],
    ) -> Result<(), ModelError> {
        let target = tensors.iter().find(|spec| spec.name == self.target);
        let labels = self.labels(interface).zip(target);
        Ok(labels.map_or(Ok(()), |(labels, target)| labels.check(target))?)
    }

    fn labels(&self, interface: &Interface) -> Option<Labels> {
        let Loss::CrossEntropy { class_axis, ignore_index, .. } = &self.loss else { return None };
        let dims = &interface.prediction.1;
        let from_end = if *class_axis < 0 { dims.len() as i64 } else { 0 };
        let axis = usize::try_from(class_axis + from_end).ok()?;
        Some(Labels { classes: *dims.get(axis)?, ignored: *ignore_index })
    }
}

/// Whether the model leaves the shape of a row of `input` open.
fn is_open(input: &ValueInfo) -> bool {
    let ValueType::Tensor(tensor) = &input.value_type else { return false };
    let row = tensor.dims.as_ref().map(|dims| dims.iter().skip(1));
    row.is_none_or(|mut row| row.any(|dim| !matches!(dim, Dimension::Size(_))))
}
