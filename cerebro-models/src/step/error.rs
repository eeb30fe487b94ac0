//! What can go wrong between the host and a compiled graph.

use cerebro_core::data::ElementType;
use cerebro_core::{Device, ModelError};
use thiserror::Error;

use crate::onnx::DataType;

/// Why a step could not be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StepError {
    /// Elements that cannot be kept between steps.
    #[error("a variable of element type {0} cannot be trained; convert it to float32")]
    ElementType(DataType),
    /// No memory.
    #[error("no memory for a tensor of shape {dims:?}: {source}")]
    Allocation {
        /// The tensor's shape.
        dims: Vec<usize>,
        /// What ONNX Runtime says.
        source: ort::Error,
    },
    /// A device that this build has no support for.
    #[error(
        "this build of Cerebro cannot train on {0}: for `cuda:N`, build with the feature `cuda` \
         of cerebro-models"
    )]
    Device(Device),
    /// A device that ONNX Runtime cannot use.
    #[error(
        "ONNX Runtime ({library}) cannot use {device}: {message}\n\
         It takes an NVIDIA GPU with its driver, the libraries of CUDA 13 and cuDNN 9 where the \
         system's loader finds them, and a build of ONNX Runtime for them: \
         `cerebro_models::runtime::install_cuda()` fetches one; to train without a GPU, ask for \
         the device `cpu`"
    )]
    Provider {
        /// The device.
        device: Device,
        /// The library that was loaded.
        library: String,
        /// What it says.
        message: String,
    },
    /// Memory that cannot be copied from one device to another.
    #[error("a tensor cannot be copied from {from} to {to}: {message}")]
    Copy {
        /// The device that has it.
        from: Device,
        /// The device that is to have it.
        to: Device,
        /// What ONNX Runtime says.
        message: String,
    },
    /// ONNX Runtime refuses a graph.
    #[error("ONNX Runtime cannot compile the {graph} graph for {rows} rows: {message}")]
    Compile {
        /// Which graph.
        graph: &'static str,
        /// The rows of its batches.
        rows: usize,
        /// What ONNX Runtime says.
        message: String,
    },
    /// ONNX Runtime fails to run a graph.
    #[error("ONNX Runtime failed to run the {graph} graph: {message}")]
    Run {
        /// Which graph.
        graph: &'static str,
        /// What ONNX Runtime says.
        message: String,
    },
    /// A graph without an input or an output that it should have.
    #[error("the {graph} graph has no {direction} `{name}`")]
    Interface {
        /// Which graph.
        graph: &'static str,
        /// Input or output.
        direction: &'static str,
        /// Its name.
        name: String,
    },
    /// Rows of another shape than the model takes.
    #[error(
        "the model takes `{input}` in rows of shape {expected:?}, but tensor `{tensor}` has rows of shape {found:?}"
    )]
    RowShape {
        /// The model's input.
        input: String,
        /// The row shape that it takes.
        expected: Vec<usize>,
        /// The data set's tensor.
        tensor: String,
        /// The row shape that it has.
        found: Vec<usize>,
    },
    /// A label that is no class.
    #[error(
        "row {row} of tensor `{tensor}` is {label}, but the model has {classes} classes, 0 to {}",
        classes - 1
    )]
    Label {
        /// The data set's tensor.
        tensor: String,
        /// The row in the partition.
        row: u32,
        /// The label.
        label: i64,
        /// The number of classes.
        classes: usize,
    },
    /// A target of more classes than the model tells apart.
    #[error(
        "tensor `{tensor}` has labels of {found} classes, but the model tells {classes} apart: give \
         it as many outputs"
    )]
    Classes {
        /// The data set's tensor.
        tensor: String,
        /// The number of its classes.
        found: u64,
        /// The number of the model's classes.
        classes: usize,
    },
    /// A value that is no number.
    #[error(
        "row {row} of tensor `{tensor}` holds {value}: remove such rows or fill them in when preparing the data"
    )]
    NotFinite {
        /// The data set's tensor.
        tensor: String,
        /// The row in the partition.
        row: u32,
        /// NaN or an infinity.
        value: f32,
    },
    /// A data set tensor of a type that the model cannot take.
    #[error("the model takes `{input}` as {expected}, but tensor `{tensor}` holds {found}")]
    Element {
        /// The model's input.
        input: String,
        /// The type that it takes.
        expected: ElementType,
        /// The data set's tensor.
        tensor: String,
        /// The type that it holds.
        found: ElementType,
    },
}

impl From<StepError> for ModelError {
    fn from(error: StepError) -> Self {
        let context = match error {
            StepError::RowShape { .. }
            | StepError::Label { .. }
            | StepError::Classes { .. }
            | StepError::NotFinite { .. }
            | StepError::Element { .. } => "cannot train on this data",
            _ => "cannot train",
        };
        ModelError::other(context, error)
    }
}
