//! Dropout and random tensors, from a seed that is fed: never from a generator that lives in a
//! session.
//!
//! Each node draws a stream of its own, whatever its attribute `seed` says. Graphs for evaluation and
//! prediction drop nothing, and draw the same numbers at every batch, which are a constant of the
//! graph: what they give can be repeated.

use std::f64::consts::TAU;

use super::shapes::same;
use super::{Composition, Gradients, Lowered, Node, Operator, Site, only};
use crate::autodiff::{Forward, Mode};
use crate::graph::{Attributes, Builder, Call, Type, Value};
use crate::onnx::{DataType, TensorData};

pub(super) const OPERATORS: &[Operator] = &[
    Operator::made("Bernoulli", BERNOULLI),
    Operator::lowered("Dropout", dropout_shape, dropout_forward, dropout),
    Operator::made("Multinomial", MULTINOMIAL),
    Operator::made("RandomNormal", NORMAL),
    Operator::made("RandomNormalLike", NORMAL),
    Operator::made("RandomUniform", UNIFORM),
    Operator::made("RandomUniformLike", UNIFORM),
];

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
    let dims = forward.graph.dims(x).to_vec();
    let drawn = random_bits(forward, &dims)?;
    let g = &mut *forward.graph;
    let threshold = g.scalar((1.0 - ratio) * RANGE, drawn);
    let kept = g.binary("Less", drawn, threshold);
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

/// 1 with the probability that the input says, else 0.
const BERNOULLI: Composition = |forward, node| {
    let probability = node.required(0)?;
    let Type { data_type, dims } = drawn_type(forward, node)?;
    let drawn = random_bits(forward, &dims)?;
    let g = &mut *forward.graph;
    let probability = g.cast(probability, DataType::Float32);
    let threshold = g.scale(probability, RANGE);
    let hit = g.binary("Less", drawn, threshold);
    Ok(vec![g.cast(hit, data_type)])
};

/// Classes, each as often as the logarithm of its probability says: where that and a number of
/// Gumbel's distribution are largest together (Maddison, Tarlow and Minka 2014, "A* sampling",
/// section 2).
const MULTINOMIAL: Composition = |forward, node| {
    let logits = node.required(0)?;
    let &[rows, classes] = forward.graph.dims(logits) else {
        return Err(format!("{:?} should be rows and classes", forward.graph.dims(logits)));
    };
    let samples = node.attributes.int("sample_size", 1);
    let samples = usize::try_from(samples).map_err(|_| format!("{samples} is no sample's size"))?;
    let code = node.attributes.int("dtype", DataType::Int32.code());
    let to = DataType::from_code(code).ok_or_else(|| format!("type {code} is not supported"))?;
    let drawn = random_bits(forward, &[rows, samples, classes])?;
    let g = &mut *forward.graph;
    let mut noise = g.scale(drawn, 1.0 / RANGE);
    for _ in 0..2 {
        let logarithm = g.unary("Log", noise);
        noise = g.neg(logarithm);
    }
    let logits = g.cast(logits, DataType::Float32);
    let logits = g.unsqueeze(logits, &[1]);
    let scores = g.add(logits, noise);
    let last = Attributes::none().with("axis", -1).with("keepdims", 0);
    let chosen = g.op("ArgMax", &[scores], last);
    Ok(vec![g.cast(chosen, to)])
};

/// Numbers from `low` to below `high`.
const UNIFORM: Composition = |forward, node| {
    let Type { data_type, dims } = drawn_type(forward, node)?;
    let low = node.attributes.float("low", 0.0);
    let high = node.attributes.float("high", 1.0);
    let drawn = random_bits(forward, &dims)?;
    let g = &mut *forward.graph;
    let above_low = g.scale(drawn, (high - low) / RANGE);
    let drawn = g.add_scalar(above_low, low);
    Ok(vec![g.cast(drawn, data_type)])
};

/// Normally distributed numbers: two of each two that are uniform (Box and Muller 1958, "A note on
/// the generation of random normal deviates").
const NORMAL: Composition = |forward, node| {
    let Type { data_type, dims } = drawn_type(forward, node)?;
    let mean = node.attributes.float("mean", 0.0);
    let deviation = node.attributes.float("scale", 1.0);
    let count = dims.iter().product::<usize>();
    let drawn = random_bits(forward, &[2, count.div_ceil(2)])?;
    let g = &mut *forward.graph;
    let (first, second) = (g.slice(drawn, 0, 0, 1, 1), g.slice(drawn, 0, 1, 2, 1));
    // Above 0, which has no logarithm.
    let first = g.add_scalar(first, 1.0);
    let first = g.scale(first, 1.0 / RANGE);
    let logarithm = g.unary("Log", first);
    let squared_radius = g.scale(logarithm, -2.0 * deviation * deviation);
    let radius = g.unary("Sqrt", squared_radius);
    let angle = g.scale(second, TAU / RANGE);
    let directions = ["Cos", "Sin"].map(|op| g.unary(op, angle));
    let directions = g.concat(&directions, 0);
    let pairs = g.mul(radius, directions);
    let flat = g.reshape(pairs, &[2 * count.div_ceil(2)]);
    let flat = if count % 2 == 0 { flat } else { g.slice(flat, 0, 0, count as i64, 1) };
    let drawn = g.reshape(flat, &dims);
    let drawn = if mean == 0.0 { drawn } else { g.add_scalar(drawn, mean) };
    Ok(vec![g.cast(drawn, data_type)])
};

/// The type of what a node draws: of its attributes, or like its input.
fn drawn_type(forward: &Forward<'_>, node: &Node<'_>) -> Result<Type, String> {
    let like = node.input(0).map(|input| forward.graph.value_type(input));
    let data_type = match (node.attributes.int("dtype", 0), like) {
        (0, Some(like)) => like.data_type,
        (0, None) => DataType::Float32,
        (code, _) => {
            DataType::from_code(code).ok_or_else(|| format!("type {code} is not supported"))?
        }
    };
    let dims = if let Some(like) = like {
        like.dims.clone()
    } else {
        let shape = node.attributes.ints("shape").ok_or("it has no `shape`")?;
        let dims: Option<_> = shape.iter().map(|&size| usize::try_from(size).ok()).collect();
        dims.ok_or_else(|| format!("`shape` is {shape:?}, and should be sizes"))?
    };
    let drawn = Type::new(data_type, dims);
    if drawn.is_possible() { Ok(drawn) } else { Err(format!("{drawn} is too large")) }
}

/// Above what [`random_bits`] gives: it gives 24 bits, as many as a 32-bit float holds exactly.
const RANGE: f64 = (1 << 24) as f64;

/// Whole numbers from 0 to below [`RANGE`] as 32-bit floats: a hash of (seed, stream, place).
///
/// The hash is `lowbias32` (C. Wellons 2018, "Prospecting for hash functions"), with the seed
/// mixed in before and half-way, so that two seeds do not give the same bits in another order.
/// Multiplications are on int32 and shifts on uint32: those are the types for which ONNX
/// Runtime's kernels have them.
fn random_bits(forward: &mut Forward<'_>, dims: &[usize]) -> Result<Value, String> {
    let count = dims.iter().try_fold(1_usize, |product, &size| product.checked_mul(size));
    let count = count.and_then(|count| i32::try_from(count).ok());
    let count = count.ok_or_else(|| format!("2^31 or more numbers would be drawn: {dims:?}"))?;
    let (seed, stream) = forward.random_stream();
    let g = &mut *forward.graph;
    let seed = g.cast(seed, DataType::Int32);
    let stream_start = int32(g, (stream.wrapping_mul(0x9E37_79B9)) as i32);
    let first = g.add(seed, stream_start);
    let first = lowbias_first(g, first);
    let first = lowbias_second(g, first);
    let second = int32(g, 0x5851_F42D);
    let second = g.mul(first, second);
    let (zero, limit, one) = (int32(g, 0), int32(g, count), int32(g, 1));
    let places = g.op("Range", &[zero, limit, one], Attributes::none());
    let spread = int32(g, 0x9E37_79B9_u32 as i32);
    let spread = g.mul(places, spread);
    let state = g.add(spread, first);
    let state = lowbias_first(g, state);
    let state = g.add(state, second);
    let state = lowbias_second(g, state);
    let bits = shifted(g, state, 8);
    let bits = g.cast(bits, DataType::Float32);
    Ok(g.reshape(bits, dims))
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
