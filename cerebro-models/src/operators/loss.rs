//! Losses that are part of a model.

use super::{Composition, Operator};
use crate::autodiff::Forward;
use crate::graph::{Attributes, Builder, Value};
use crate::onnx::TensorData;

pub(super) const OPERATORS: &[Operator] = &[
    Operator::composed("SoftmaxCrossEntropyLoss", SOFTMAX_CROSS_ENTROPY),
    Operator::composed("NegativeLogLikelihoodLoss", NEGATIVE_LOG_LIKELIHOOD),
];

const SOFTMAX_CROSS_ENTROPY: Composition = |forward, node| {
    let scores = node.required(0)?;
    let log_probabilities = forward.apply("LogSoftmax", &[Some(scores)], Builder::along(1))?;
    let loss =
        likelihood(forward, log_probabilities, node.required(1)?, node.input(2), node.attributes)?;
    Ok([loss, log_probabilities].into_iter().take(node.outputs).collect())
};

const NEGATIVE_LOG_LIKELIHOOD: Composition = |forward, node| {
    let (x, labels, weights) = (node.required(0)?, node.required(1)?, node.input(2));
    Ok(vec![likelihood(forward, x, labels, weights, node.attributes)?])
};

/// Minus the log-probability of each label, weighted by its class; mean, sum, or as it is.
fn likelihood(
    forward: &mut Forward<'_>,
    x: Value,
    labels: Value,
    weights: Option<Value>,
    attributes: &Attributes,
) -> Result<Value, String> {
    let g = &mut *forward.graph;
    let dims = g.dims(x).to_vec();
    let classes = *dims.get(1).ok_or("it has no axis of classes")?;
    let mut chosen = g.one_hot(labels, classes, 1, x);
    if attributes.get("ignore_index").is_some() {
        let ignored = [attributes.int("ignore_index", 0)];
        let ignored = TensorData::from_integers(g.data_type(labels), &[], &ignored);
        let ignored = g.constant(ignored);
        let is_ignored = g.binary("Equal", labels, ignored);
        let is_kept = g.unary("Not", is_ignored);
        let kept = g.indicator(is_kept, x);
        let kept = g.unsqueeze(kept, &[1]);
        chosen = g.mul(chosen, kept);
    }
    if let Some(weights) = weights {
        let mut shape = vec![1; dims.len()];
        shape[1] = classes;
        let weights = g.reshape(weights, &shape);
        chosen = g.mul(chosen, weights);
    }
    let total_weight = g.total(chosen);
    let axis = g.ints(&[1]);
    let none = Attributes::none;
    let products = forward.apply("Mul", &[Some(x), Some(chosen)], none())?;
    let drop = none().with("keepdims", 0);
    let sums = forward.apply("ReduceSum", &[Some(products), Some(axis)], drop.clone())?;
    let losses = forward.apply("Neg", &[Some(sums)], none())?;
    match attributes.text("reduction", "mean") {
        "none" => Ok(losses),
        "sum" => forward.apply("ReduceSum", &[Some(losses)], drop),
        _ => {
            let sum = forward.apply("ReduceSum", &[Some(losses)], drop)?;
            forward.apply("Div", &[Some(sum), Some(total_weight)], none())
        }
    }
}
