//! Recurrent networks.

use super::Network;
use super::layers::{Layers, REST};
use crate::init::Initializer;
use crate::onnx::{Attribute, DataType};

/// Layers of long short-term memory (Hochreiter and Schmidhuber 1997) over a series, and a linear
/// layer on the last one's final state.
///
/// `series` is length and features. Input `input` of shape `[rows, length, features]`, output
/// `output` of shape `[rows, outputs]`.
///
/// ```
/// use cerebro_models::nn;
/// let network = nn::lstm([50, 8], 64, 2, 1);
/// assert_eq!(network.model.graph.initializers["lstm2.recurrence"].dims(), [1, 256, 64]);
/// ```
pub fn lstm(series: [usize; 2], hidden: usize, layers: usize, outputs: usize) -> Network {
    let [_, features] = series;
    let count = layers;
    let mut layers = Layers::new("lstm");
    let input = layers.input("input", DataType::Float32, &series);
    // ONNX's recurrent operators take time first.
    let mut value = layers.transpose("time_first", &input, &[1, 0, 2]);
    let mut width = features;
    let mut last = String::new();
    // PyTorch's default for all weights and biases of a recurrent layer.
    let initializer = Initializer::Uniform { bound: 1.0 / (hidden.max(1) as f64).sqrt() };
    for layer in 1..=count.max(1) {
        let name = format!("lstm{layer}");
        let dims = [1, 4 * hidden, width];
        let weight = layers.weight(&format!("{name}.weight"), &dims, initializer);
        let dims = [1, 4 * hidden, hidden];
        let recurrence = layers.weight(&format!("{name}.recurrence"), &dims, initializer);
        let bias = layers.weight(&format!("{name}.bias"), &[1, 8 * hidden], initializer);
        let (states, state) = (format!("{name}.states"), format!("{name}.state"));
        layers.node_with_outputs(
            "LSTM",
            &[&value, &weight, &recurrence, &bias],
            &[&states, &state],
            [("hidden_size", Attribute::Int(hidden as i64))],
        );
        // `[length, directions, rows, hidden]`, of one direction.
        let dims = [series[0] as i64, REST, hidden as i64];
        value = layers.reshape(&format!("{name}.series"), &states, &dims);
        (last, width) = (state, hidden);
    }
    let value = layers.reshape("final", &last, &[REST, hidden as i64]);
    let value = layers.linear("last", &value, (hidden, outputs));
    layers.finish(&value, &[outputs], "output")
}
