//! Training of ONNX models through stock ONNX Runtime, by differentiation of the graph.

pub mod loss;
pub mod metric;
pub mod onnx;
pub mod optim;
pub mod runtime;
pub mod training;
