//! Operators of Cerebro's own domain, which gradient rules and optimizers emit in fused graphs.

use super::Operator;
use super::shapes::same;
use crate::graph::{Builder, Call, Type, Value};
use crate::kernels;
use crate::onnx::DataType;

pub(super) const OPERATORS: &[Operator] = &[
    Operator::opaque(kernels::BATCH_NORM, batch_norm_shape),
    Operator::opaque(kernels::BATCH_NORM_GRADIENT, norm_gradient_shape),
    Operator::opaque(kernels::CONV, convolution_shape),
    Operator::opaque(kernels::CONV_INPUT_GRADIENT, convolution_shape),
    Operator::opaque(kernels::CONV_WEIGHT_GRADIENT, convolution_shape),
    Operator::opaque(kernels::CROSS_ENTROPY, cross_entropy_shape),
    Operator::opaque(kernels::DEPTHWISE, depthwise_shape),
    Operator::opaque(kernels::DEPTHWISE_INPUT_GRADIENT, depthwise_shape),
    Operator::opaque(kernels::DEPTHWISE_WEIGHT_GRADIENT, depthwise_shape),
    Operator::opaque(kernels::EMBEDDING_GRADIENT, embedding_shape),
    Operator::opaque(kernels::GELU, twice),
    Operator::opaque(kernels::HITS, hits_shape),
    Operator::opaque(kernels::LAYER_NORM_GRADIENT, norm_gradient_shape),
    Operator::opaque(kernels::MAX_POOL_GRADIENT, as_second),
    Operator::opaque(kernels::RELU_GRADIENT, same),
    Operator::opaque(kernels::SILU_GRADIENT, same),
    Operator::opaque(kernels::SOFTMAX_GRADIENT, same),
    Operator::opaque(kernels::SGD, update_shape),
    Operator::opaque(kernels::MOMENTUM, update_shape),
    Operator::opaque(kernels::ADAM, update_shape),
    Operator::opaque(kernels::rmsprop(false, false), update_shape),
    Operator::opaque(kernels::rmsprop(false, true), update_shape),
    Operator::opaque(kernels::rmsprop(true, false), update_shape),
    Operator::opaque(kernels::rmsprop(true, true), update_shape),
    Operator::opaque(kernels::ADAGRAD, update_shape),
    Operator::opaque(kernels::LAMB, update_shape),
    Operator::opaque(kernels::LION, update_shape),
];

/// Whether `graph` may have a node of this domain that works on `values`: these are for 32-bit
/// floats.
pub(super) fn may_fuse(graph: &Builder, values: &[Value]) -> bool {
    graph.dialect().is_fused()
        && values.iter().all(|&value| graph.data_type(value) == DataType::Float32)
}

/// Normalized values, and two statistics per channel.
fn batch_norm_shape(call: &Call<'_>) -> Result<Vec<Type>, String> {
    let scale = call.value_type(1)?.clone();
    Ok(vec![call.value_type(0)?.clone(), scale.clone(), scale])
}

/// A tensor of batch, channels and space, and the weights or another such tensor; the attribute that
/// gives the sizes says which of the three operators it is.
fn convolution_shape(call: &Call<'_>) -> Result<Vec<Type>, String> {
    let (first, second) = (call.dims(0)?, call.dims(1)?);
    let (leading, sizes) =
        match ["places", "input", "kernel_shape"].map(|n| call.attributes.ints(n)) {
            [Some(places), ..] => ([first[0], second[0]], places),
            [_, Some(input), _] => ([first[0], second[1]], input),
            [.., Some(kernel)] => ([first[1], second[1]], kernel),
            _ => return Err("it has none of `places`, `input` and `kernel_shape`".to_owned()),
        };
    let sizes = sizes.iter().map(|&size| usize::try_from(size).unwrap_or(0));
    Ok(vec![Type::new(call.data_type(0)?, leading.into_iter().chain(sizes).collect::<Vec<_>>())])
}

/// The same where each channel is convolved by itself.
fn depthwise_shape(call: &Call<'_>) -> Result<Vec<Type>, String> {
    let first = call.dims(0)?;
    let sizes = ["places", "input", "kernel_shape"].map(|name| call.attributes.ints(name));
    let (leading, sizes) = match sizes {
        [Some(sizes), ..] | [_, Some(sizes), _] => ([first[0], first[1]], sizes),
        [.., Some(kernel)] => ([first[1], 1], kernel),
        _ => return Err("it has none of `places`, `input` and `kernel_shape`".to_owned()),
    };
    let sizes = sizes.iter().map(|&size| usize::try_from(size).unwrap_or(0));
    Ok(vec![Type::new(call.data_type(0)?, leading.into_iter().chain(sizes).collect::<Vec<_>>())])
}

/// Output gradient, input, scale: the gradients of input, scale and bias.
fn norm_gradient_shape(call: &Call<'_>) -> Result<Vec<Type>, String> {
    let scale = call.value_type(2)?.clone();
    Ok(vec![call.value_type(1)?.clone(), scale.clone(), scale])
}

/// A value and its slope.
fn twice(call: &Call<'_>) -> Result<Vec<Type>, String> {
    Ok(vec![call.value_type(0)?.clone(); 2])
}

/// The gradient by the logits, and a sum.
fn cross_entropy_shape(call: &Call<'_>) -> Result<Vec<Type>, String> {
    Ok(vec![call.value_type(0)?.clone(), Type::new(call.data_type(0)?, [1])])
}

fn hits_shape(call: &Call<'_>) -> Result<Vec<Type>, String> {
    Ok(vec![Type::new(call.data_type(0)?, [1])])
}

/// Whether `logits`, whose classes lie along `axis`, may have nodes of this domain that read them
/// with `labels`.
pub(crate) fn may_fuse_classes(graph: &Builder, logits: Value, labels: Value, axis: usize) -> bool {
    may_fuse(graph, &[logits])
        && graph.data_type(labels) == DataType::Int64
        && axis + 1 == graph.dims(logits).len()
        && (1..=kernels::MOST_LOGITS).contains(&graph.value_type(logits).elements())
}

fn as_second(call: &Call<'_>) -> Result<Vec<Type>, String> {
    Ok(vec![call.value_type(1)?.clone()])
}

/// Gradients of rows, their numbers: a table of `height` rows.
fn embedding_shape(call: &Call<'_>) -> Result<Vec<Type>, String> {
    let &[_, width] = call.dims(0)? else {
        return Err(format!("its rows {:?} have not two axes", call.dims(0)?));
    };
    let height = usize::try_from(call.attributes.int("height", 0)).unwrap_or(0);
    Ok(vec![Type::new(call.data_type(0)?, [height, width])])
}

/// Packed hyperparameters, parameter, gradient, slots: the new parameter and slots.
fn update_shape(call: &Call<'_>) -> Result<Vec<Type>, String> {
    let parameter = call.value_type(1)?;
    for index in 2..call.inputs.len() {
        if call.value_type(index)? != parameter {
            return Err(format!("input {index} is not of the parameter's type {parameter}"));
        }
    }
    Ok(vec![parameter.clone(); call.inputs.len() - 2])
}
