//! A network for tables: embedded categories and normalized numbers.

use super::Network;
use super::layers::Layers;
use crate::onnx::{Attribute, DataType};

/// A network for tables: each categorical column is embedded, continuous columns are batch
/// normalized, and what comes of both goes through linear layers of the sizes `hidden`, each with
/// a rectifier and batch normalization after it (Guo and Berkhahn 2016, "Entity embeddings of
/// categorical variables").
///
/// `categories` gives for each categorical column the number of its categories and the width of
/// its embedding. Inputs: `categories`, whole numbers of shape `[rows, columns]` that count from
/// 0, and `continuous` of shape `[rows, continuous]`, each only where there are such columns.
/// Output: `output` of shape `[rows, outputs]`.
///
/// ```
/// use cerebro_models::nn;
/// let network = nn::tabular(&[(7, 4), (1115, 50)], 12, &[100, 50], 1);
/// assert_eq!(network.model.graph.inputs.len(), 2);
/// ```
pub fn tabular(
    categories: &[(usize, usize)],
    continuous: usize,
    hidden: &[usize],
    outputs: usize,
) -> Network {
    let mut layers = Layers::new("tabular");
    let mut parts = Vec::new();
    if !categories.is_empty() {
        let indices = layers.input("categories", DataType::Int64, &[categories.len()]);
        for (column, &sizes) in categories.iter().enumerate() {
            let index = layers.column(&format!("column{column}"), &indices, column);
            parts.push(layers.embedding(&format!("embedding{column}"), &index, sizes));
        }
    }
    if continuous > 0 {
        let numbers = layers.input("continuous", DataType::Float32, &[continuous]);
        parts.push(layers.batch_norm("continuous_norm", &numbers, continuous));
    }
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let mut value = layers.node("Concat", &parts, "features", [("axis", Attribute::Int(1))]);
    let mut width = categories.iter().map(|(_, width)| width).sum::<usize>() + continuous;
    for (index, &size) in hidden.iter().enumerate() {
        value = layers.linear(&format!("hidden{}", index + 1), &value, (width, size));
        value = layers.relu(&value);
        value = layers.batch_norm(&format!("norm{}", index + 1), &value, size);
        width = size;
    }
    let value = layers.linear("last", &value, (width, outputs));
    layers.finish(&value, &[outputs], "output")
}
