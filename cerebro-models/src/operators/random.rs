//! Dropout, from a seed that is fed: never from a generator that lives in a session.

use super::shapes::same;
use super::{Gradients, Lowered, Node, Operator, Site, only};
use crate::autodiff::{Forward, Mode};
use crate::graph::{Attributes, Builder, Call, Type, Value};
use crate::onnx::{DataType, TensorData};

pub(super) const OPERATORS: &[Operator] =
    &[Operator::lowered("Dropout", dropout_shape, dropout_forward, dropout)];

fn dropout_shape(call: &Call<'_>) -> Result<Vec<Type>, String> {
    let mut types = same(call)?;
    types.push(Type::new(DataType::Bool, call.dims(0)?));
    Ok(types)
}

/// Training drops whatever mode the file was exported in; what stays is scaled up, so that the
/// mean stays (Srivastava et al. 2014, "inverted" as everywhere today).
fn dropout_forward(forward: &mut Forward<'_>, node: &Node<'_>) -> Result<Lowered, String> {
    let x = node.required(0)?;
    let ratio = match node.input(1) {
        None => 0.5,
        Some(ratio) => {
            let ratio = forward.graph.constant_of(ratio).map(TensorData::to_f64s);
            *ratio.as_ref().and_then(|values| values.first()).ok_or("the ratio is not constant")?
        }
    };
    if !(0.0..1.0).contains(&ratio) {
        return Err(format!("a ratio of {ratio} is not from 0 to below 1"));
    }
    if forward.mode == Mode::Inference || ratio == 0.0 {
        let dims = forward.graph.dims(x).to_vec();
        let y = forward.graph.unary("Identity", x);
        let mut outputs = vec![y];
        if node.outputs > 1 {
            outputs.push(forward.graph.fill(1.0, DataType::Bool, &dims));
        }
        return Ok(Lowered { outputs, saved: Vec::new() });
    }
    let (seed, stream) = forward.random_stream();
    let g = &mut *forward.graph;
    let kept = kept(g, seed, stream, 1.0 - ratio, x);
    let indicator = g.indicator(kept, x);
    let mask = g.scale(indicator, 1.0 / (1.0 - ratio));
    let y = g.mul(x, mask);
    let outputs = [y, kept].into_iter().take(node.outputs.max(1)).collect();
    Ok(Lowered { outputs, saved: vec![mask] })
}

fn dropout(g: &mut Builder, at: &Site<'_>) -> Gradients {
    match at.saved.first() {
        Some(&mask) => only(g.mul(at.dy(), mask)),
        None => only(at.dy()),
    }
}

/// True with the given probability, for each element of `x`: a hash of (seed, stream, place).
///
/// The hash is `lowbias32` (C. Wellons 2018, "Prospecting for hash functions"), with the seed
/// mixed in before and half-way, so that two seeds do not give the same bits in another order.
/// Multiplications are on int32 and shifts on uint32: those are the types for which ONNX
/// Runtime's kernels have them.
fn kept(g: &mut Builder, seed: Value, stream: u64, probability: f64, x: Value) -> Value {
    let dims = g.dims(x).to_vec();
    let count: usize = dims.iter().product();
    let seed = g.cast(seed, DataType::Int32);
    let stream_start = int32(g, (stream.wrapping_mul(0x9E37_79B9)) as i32);
    let first = g.add(seed, stream_start);
    let first = lowbias_first(g, first);
    let first = lowbias_second(g, first);
    let second = int32(g, 0x5851_F42D);
    let second = g.mul(first, second);
    let (zero, limit, one) = (int32(g, 0), int32(g, count as i32), int32(g, 1));
    let places = g.op("Range", &[zero, limit, one], Attributes::none());
    let spread = int32(g, 0x9E37_79B9_u32 as i32);
    let spread = g.mul(places, spread);
    let state = g.add(spread, first);
    let state = lowbias_first(g, state);
    let state = g.add(state, second);
    let state = lowbias_second(g, state);
    // The upper 24 bits: as many as a 32-bit float holds exactly.
    let bits = shifted(g, state, 8);
    let uniform = g.cast(bits, DataType::Float32);
    let threshold = probability * f64::from(1 << 24);
    let threshold = g.scalar(threshold, uniform);
    let kept = g.binary("Less", uniform, threshold);
    g.reshape(kept, &dims)
}

fn int32(g: &mut Builder, value: i32) -> Value {
    g.constant(TensorData::from_integers(DataType::Int32, &[], &[i64::from(value)]))
}

fn lowbias_first(g: &mut Builder, x: Value) -> Value {
    let x = xor_shifted(g, x, 16);
    let factor = int32(g, 0x7feb_352d);
    g.mul(x, factor)
}

fn lowbias_second(g: &mut Builder, x: Value) -> Value {
    let x = xor_shifted(g, x, 15);
    let factor = int32(g, 0x846c_a68b_u32 as i32);
    let x = g.mul(x, factor);
    xor_shifted(g, x, 16)
}

/// `x ^ (x >> bits)`.
fn xor_shifted(g: &mut Builder, x: Value, bits: i64) -> Value {
    let unsigned = g.cast(x, DataType::Uint32);
    let shifted = shifted(g, x, bits);
    let mixed = g.binary("BitwiseXor", unsigned, shifted);
    g.cast(mixed, DataType::Int32)
}

/// `x >> bits`, as unsigned numbers.
fn shifted(g: &mut Builder, x: Value, bits: i64) -> Value {
    let unsigned = g.cast(x, DataType::Uint32);
    let bits = g.constant(TensorData::from_integers(DataType::Uint32, &[], &[bits]));
    g.op("BitShift", &[unsigned, bits], Attributes::none().with("direction", "RIGHT"))
}
