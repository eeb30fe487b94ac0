//! Networks built without Python: forward-only ONNX models with seeded initial values.
//!
//! Layers are initialised as PyTorch's are by default, so that hyperparameters found elsewhere
//! carry over.

mod convolutional;
mod layers;
mod lstm;
mod mlp;
mod spec;
mod tabular;
mod transformer;

use crate::init::Initializers;
use crate::onnx::Model;

pub use convolutional::{Depth, conv1d, lenet, resnet};
pub use lstm::lstm;
pub use mlp::mlp;
pub use spec::{NetworkSpec, Size, Sizes};
pub use tabular::tabular;
pub use transformer::{Encoder, transformer_encoder, vit};

/// A forward-only ONNX model, and how its weights are initialised.
///
/// A weight without an initializer starts with the value in the model: so an exported or
/// pretrained model goes on from its own weights, and a [`Model`] converts into a `Network`.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    /// The forward pass.
    pub model: Model,
    /// The initial values of its weights, by the name of the initializer in the model.
    pub initializers: Initializers,
}

impl From<Model> for Network {
    fn from(model: Model) -> Self {
        Self { model, initializers: Initializers::new() }
    }
}
