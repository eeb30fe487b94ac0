//! Training graphs: from a forward-only model to plain ONNX graphs that train, measure and predict.
//!
//! A [`Blueprint`] holds a model and a [`TrainingSpec`] (`Blueprint::new(model, spec)`) and knows its
//! [`Variable`]s (`variables()`); for given [`InputShapes`] it describes the [`Interface`]
//! (`interface(&shapes)`) and draws, each as an [`onnx::Model`](crate::onnx::Model),
//!
//! * the **step** graph (`step(&shapes)`): forward, loss, gradients, optimizer update. It reads weights, optimizer
//!   state and statistics ([`Variable`]s) and gives their new values, so one session serves every
//!   trial of the same architecture, batch size and optimizer kind, and a hop is a change of
//!   pointers;
//! * the **evaluation** graph (`evaluation(&shapes)`): forward as at inference, loss and metrics;
//! * the **prediction** graph (`prediction(&shapes)`): forward as at inference.
//!
//! All shapes in a drawn graph are fixed: the last, smaller batch of a partition has graphs of
//! its own. What the host feeds and reads is described by [`Interface`].

mod blueprint;
mod interface;
mod parameters;
mod pattern;
mod signature;
mod spec;
#[cfg(test)]
mod tests;

pub use blueprint::{Blueprint, Threads};
pub(crate) use interface::Accumulator;
pub use interface::{
    DataInput, Initial, Interface, StatisticKind, StatisticOutput, Variable, VariableKind,
};
pub(crate) use pattern::matches;
pub use spec::{InputShapes, ParameterGroup, Selection, TrainingSpec};

/// The name of the packed hyperparameters' input of a step graph: `float32 [k]`, the values of
/// [`Optimizer::hyperparameters`](crate::optim::Optimizer::hyperparameters).
pub const HYPERPARAMETERS: &str = "cerebro.hyperparameters";

/// The name of the seed's input of a step graph that draws random numbers: `int64 [1]`, from 0 to
/// 2^31 - 1, another one each step.
pub const SEED: &str = "cerebro.seed";

/// The name of the loss output: `float32` scalar, the loss that is minimised, of this batch.
pub const LOSS: &str = "cerebro.loss";

/// The name of the packed statistics' output: `float32 [n]`, one after the other what the
/// [`StatisticKind`] of each [`StatisticOutput`] says: for the loss, the sum and the weight.
pub const STATISTICS: &str = "cerebro.statistics";

/// The name of the target's input of step and evaluation graphs.
pub const TARGET: &str = "cerebro.target";

/// The name under which a graph of [`Blueprint::gradients`] gives the gradient of a parameter.
pub fn gradient_name(parameter: &str) -> String {
    format!("{parameter}/gradient")
}
