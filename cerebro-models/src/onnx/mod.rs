//! The ONNX file format: models, graphs, nodes and tensors, read and written.
//!
//! This is the format as it is in files: values have names, shapes may be symbolic, operators are
//! of whatever version the exporter chose. What Cerebro differentiates is the typed
//! [`graph`](crate::graph) made from it.
//!
//! Source of the format: `onnx.proto` and `IR.md` of the ONNX project (IR version 10).

mod error;
mod external;
mod model;
mod proto;
mod read;
mod tensor;
mod write;

pub use error::OnnxError;
pub use model::{
    Attribute, Dimension, Function, Graph, Model, Node, TensorType, ValueInfo, ValueType,
};
pub use tensor::{DataType, TensorData};
