//! The multilayer perceptron.

use super::Network;
use super::layers::Layers;
use crate::onnx::DataType;

/// A multilayer perceptron: linear layers of the sizes `hidden`, each followed by a rectifier (`Relu`), and a
/// linear layer of `outputs`.
///
/// Input `input` of shape `[rows, inputs]`, output `output` of shape `[rows, outputs]`: logits or
/// regressed values, without an activation. Without hidden layers it is linear (or, under a
/// cross-entropy loss, logistic) regression.
///
/// ```
/// use cerebro_models::nn;
/// let digits = nn::mlp(64, &[128, 32], 10);
/// let sizes = digits.model.graph.initializers.values().map(|weight| weight.elements());
/// assert_eq!(sizes.sum::<usize>(), 64 * 128 + 128 + 128 * 32 + 32 + 32 * 10 + 10);
/// ```
pub fn mlp(inputs: usize, hidden: &[usize], outputs: usize) -> Network {
    let mut layers = Layers::new("mlp");
    let mut value = layers.input("input", DataType::Float32, &[inputs]);
    let mut width = inputs;
    for (index, &size) in hidden.iter().enumerate() {
        let name = format!("hidden{}", index + 1);
        value = layers.linear(&name, &value, (width, size));
        value = layers.relu(&value);
        width = size;
    }
    let value = layers.linear("last", &value, (width, outputs));
    layers.finish(&value, &[outputs], "output")
}
