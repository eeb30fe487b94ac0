//! Training of ONNX models through stock ONNX Runtime, by differentiation of the graph.

mod autodiff;
mod bindings;
mod error;
mod export;
pub mod graph;
mod hyperparameters;
mod import;
mod inference;
pub mod init;
mod kernels;
pub mod loss;
pub mod metric;
mod model;
pub mod nn;
pub mod onnx;
pub mod operators;
pub mod optim;
mod program;
pub mod runtime;
mod state;
mod step;
mod trainer;
pub mod training;

pub use error::GraphError;
pub use export::Export;
pub use inference::Inference;
pub use state::{StateError, TrainingState};
pub use step::StepError;
pub use trainer::{Architecture, Trainer};
