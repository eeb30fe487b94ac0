//! Training of ONNX models through stock ONNX Runtime, by differentiation of the graph.

mod autodiff;
mod error;
pub mod graph;
mod import;
pub mod loss;
pub mod metric;
pub mod onnx;
pub mod operators;
pub mod optim;
pub mod runtime;
pub mod training;

pub use error::GraphError;
