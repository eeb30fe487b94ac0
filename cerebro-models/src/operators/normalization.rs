//! Normalizations.

use super::fused::may_fuse;
use super::shapes::same;
use super::{Composition, Gradients, Lowered, Node, Operator, Site, only};
use crate::autodiff::{Forward, Mode};
use crate::graph::{Attributes, Builder, Call, Type, Value, normalize_axis};
use crate::kernels;
use crate::onnx::{DataType, TensorData};

/// Channels in shorter pieces than this are left to the standard operators, which read rows of all
/// channels in the order of memory.
const SHORTEST_PIECE: usize = 4;

pub(super) const OPERATORS: &[Operator] = &[
    Operator::lowered("BatchNormalization", batch_shape, batch_forward, batch),
    Operator::lowered("LayerNormalization", layer_shape, layer_forward, layer),
    Operator::composed("InstanceNormalization", INSTANCE),
    Operator::composed("GroupNormalization", GROUP),
    Operator::composed("MeanVarianceNormalization", MEAN_VARIANCE),
    Operator::composed("RMSNormalization", ROOT_MEAN_SQUARE),
    Operator::composed("LpNormalization", LP),
    Operator::lowered("LRN", same, response_forward, response),
];

/// The most channels that a response is normalized with.
const MOST_NEIGHBOURS: usize = 64;

fn batch_shape(call: &Call<'_>) -> Result<Vec<Type>, String> {
    let dims = call.dims(0)?;
    let channels = *dims.get(1).ok_or_else(|| format!("{dims:?} has no channels"))?;
    for index in 1..5 {
        if call.dims(index)? != [channels] {
            return Err(format!("input {index} is {:?}, not [{channels}]", call.dims(index)?));
        }
    }
    let statistic = Type::new(call.data_type(3)?, [channels]);
    Ok(vec![call.value_type(0)?.clone(), statistic.clone(), statistic])
}

/// Training normalizes with the batch's own statistics and blends them into the running ones,
/// whatever mode the file was exported in (Ioffe and Szegedy 2015). The variance that normalizes
/// is divided by n, the one that is kept by n - 1, as in PyTorch. A batch with one value per
/// channel says nothing about the variance: the running one stays.
///
/// A normalization in training mode that has no running statistics (PyTorch standardizes weights
/// so, and normalizes with `track_running_stats=False`) uses its own ones at inference too.
fn batch_forward(forward: &mut Forward<'_>, node: &Node<'_>) -> Result<Lowered, String> {
    batch_shape(&node.call(forward.graph))?;
    let (x, scale, bias) = (node.required(0)?, node.required(1)?, node.required(2)?);
    let (mean, variance) = (node.required(3)?, node.required(4)?);
    let epsilon = node.attributes.float("epsilon", 1e-5);
    let has_running = forward.is_statistic(mean);
    let is_own = if has_running {
        forward.mode == Mode::Training
    } else {
        node.attributes.flag("training_mode")
    };
    if !is_own {
        let y = affine(forward.graph, x, [scale, bias, mean, variance], epsilon);
        let outputs = [y, mean, variance].into_iter().take(node.outputs).collect();
        return Ok(Lowered { outputs, saved: Vec::new() });
    }
    let (mut kept_mean, mut kept_variance) = (forward.statistic(mean), forward.statistic(variance));
    let g = &mut *forward.graph;
    let [y, batch_mean, batch_variance] = normalize_batch(g, x, scale, bias, epsilon);
    if has_running {
        let count = g.value_type(x).elements() / g.dims(scale)[0].max(1);
        let keep = node.attributes.float("momentum", 0.9);
        kept_mean = blend(g, kept_mean, batch_mean, keep, 1.0 - keep);
        if count > 1 {
            let unbiased = count as f64 / (count - 1) as f64;
            let share = (1.0 - keep) * unbiased;
            kept_variance = blend(g, kept_variance, batch_variance, keep, share);
        }
        forward.update_statistic(mean, kept_mean);
        forward.update_statistic(variance, kept_variance);
    }
    let outputs = [y, kept_mean, kept_variance].into_iter().take(node.outputs).collect();
    Ok(Lowered { outputs, saved: vec![batch_mean, batch_variance] })
}

/// `x` normalized with its own statistics, and these: mean and variance per channel.
fn normalize_batch(
    g: &mut Builder,
    x: Value,
    scale: Value,
    bias: Value,
    epsilon: f64,
) -> [Value; 3] {
    if fuses_batch(g, &[x, scale, bias]) {
        let inputs = [x, scale, bias].map(Some);
        let outputs = g.emit(kernels::BATCH_NORM, &inputs, batch_attributes(epsilon), 3);
        return outputs.try_into().unwrap_or([Value::REFUSED; 3]);
    }
    let mean = channel_mean(g, x);
    let shaped = per_channel(g, mean, x);
    let centered = g.sub(x, shaped);
    let squared = g.square(centered);
    let variance = channel_mean(g, squared);
    [affine(g, x, [scale, bias, mean, variance], epsilon), mean, variance]
}

/// Whether the batch normalization of the first of `values` may be a node of its own.
fn fuses_batch(g: &Builder, values: &[Value]) -> bool {
    let piece: usize = g.dims(values[0]).iter().skip(2).product();
    may_fuse(g, values) && g.dims(values[0]).len() > 2 && piece >= SHORTEST_PIECE
}

fn batch_attributes(epsilon: f64) -> Attributes {
    Attributes::none().with("epsilon", epsilon as f32).with("activation", 0)
}

/// `scale (x - mean) / sqrt(variance + epsilon) + bias` per channel: the inference operator.
fn affine(
    g: &mut Builder,
    x: Value,
    [scale, bias, mean, variance]: [Value; 4],
    epsilon: f64,
) -> Value {
    let attributes = Attributes::none().with("epsilon", epsilon as f32);
    g.op("BatchNormalization", &[x, scale, bias, mean, variance], attributes)
}

fn blend(g: &mut Builder, old: Value, new: Value, keep: f64, take: f64) -> Value {
    let old_part = g.scale(old, keep);
    let new_part = g.scale(new, take);
    g.add(old_part, new_part)
}

/// The mean over all axes but the channels; in two stages, the first of which reads memory in
/// its order.
fn channel_mean(g: &mut Builder, x: Value) -> Value {
    channel_reduction(g, "ReduceMean", x)
}

fn channel_reduction(g: &mut Builder, op: &str, x: Value) -> Value {
    let dims = g.dims(x).to_vec();
    let rows = if dims.len() > 2 {
        let flat = g.reshape(x, &[dims[0], dims[1], dims[2..].iter().product()]);
        let rows = g.reduce(op, flat, &[2]);
        g.reshape(rows, &dims[..2])
    } else {
        x
    };
    let reduced = g.reduce(op, rows, &[0]);
    g.reshape(reduced, &[dims[1]])
}

/// A value per channel in a shape that broadcasts to `x`.
fn per_channel(g: &mut Builder, value: Value, x: Value) -> Value {
    let mut dims = vec![1; g.dims(x).len()];
    dims[1] = g.dims(value)[0];
    g.reshape(value, &dims)
}

/// With `h = (x - mean) / s` and `s = sqrt(variance + epsilon)`: `dbias = sum dy`,
/// `dscale = sum dy h`, `dx = scale / s (dy - dbias / n - h dscale / n)` (Ioffe and Szegedy 2015,
/// section 3). Both affine maps in `dx` are inference operators again. Given statistics are inputs
/// like others: the last two terms fall away, and `dmean = -scale / s dbias`, `dvariance = -scale /
/// (2 s^2) dscale`.
fn batch(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let (x, scale, dy) = (at.x(0), at.x(1), at.dy());
    let epsilon = at.attributes.float("epsilon", 1e-5);
    let own_statistics = at.saved.len() == 2;
    let (mean, variance) =
        if own_statistics { (at.saved[0], at.saved[1]) } else { (at.x(3), at.x(4)) };
    let inputs = [dy, x, scale, at.x(2), mean, variance];
    if own_statistics && fuses_batch(g, &[x, scale, at.x(2)]) && may_fuse(g, &inputs) {
        let inputs = inputs.map(Some);
        let gradients = g.emit(kernels::BATCH_NORM_GRADIENT, &inputs, batch_attributes(epsilon), 3);
        return Ok(gradients.into_iter().map(Some).chain([None, None]).collect());
    }
    let (zeros, ones) = (g.filled(0.0, scale), g.filled(1.0, scale));
    let shifted = g.add_scalar(variance, epsilon);
    let deviation = g.unary("Sqrt", shifted);
    let gain = g.div(scale, deviation);
    let normalized = affine(g, x, [ones, zeros, mean, variance], epsilon);
    let dbias = channel_reduction(g, "ReduceSum", dy);
    let product = g.mul(dy, normalized);
    let dscale = channel_reduction(g, "ReduceSum", product);
    if !own_statistics {
        let dx = affine(g, dy, [gain, zeros, zeros, ones], 0.0);
        let falling = g.mul(gain, dbias);
        let dmean = g.neg(falling);
        let product = g.mul(scale, dscale);
        let share = g.div(product, shifted);
        let dvariance = g.scale(share, -0.5);
        return Ok([dx, dscale, dbias, dmean, dvariance].map(Some).to_vec());
    }
    let count = g.value_type(x).elements() / g.dims(scale)[0].max(1);
    let share = g.scale(gain, -1.0 / count as f64);
    let (offset, slope) = (g.mul(share, dbias), g.mul(share, dscale));
    let direct = affine(g, dy, [gain, offset, zeros, ones], 0.0);
    let indirect = affine(g, normalized, [slope, zeros, zeros, ones], 0.0);
    let dx = g.add(direct, indirect);
    Ok(vec![Some(dx), Some(dscale), Some(dbias), None, None])
}

fn layer_shape(call: &Call<'_>) -> Result<Vec<Type>, String> {
    let input = call.value_type(0)?;
    let axis = normalize_axis(call.attributes.int("axis", -1), input.dims.len())?;
    let mut statistic = input.dims.clone();
    statistic[axis..].fill(1);
    // ONNX keeps statistics in 32 bits (`stash_type`).
    let statistic = Type::new(DataType::Float32, statistic);
    Ok(vec![input.clone(), statistic.clone(), statistic])
}

fn layer_forward(forward: &mut Forward<'_>, node: &Node<'_>) -> Result<Lowered, String> {
    let count = if forward.mode == Mode::Training { 3 } else { node.outputs };
    let outputs =
        forward.graph.emit("LayerNormalization", node.inputs, node.attributes.clone(), count);
    let saved = outputs.get(1..).unwrap_or_default().to_vec();
    Ok(Lowered { outputs: outputs.into_iter().take(node.outputs).collect(), saved })
}

/// With `h = (x - mean) / s` and `u = dy scale`: `dx = (u - mean(u) - h mean(u h)) / s`, means
/// over the normalized axes (Ba, Kiros and Hinton 2016); `dscale = sum dy h`, `dbias = sum dy`.
fn layer(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let (x, scale, dy) = (at.x(0), at.x(1), at.dy());
    let rank = g.dims(x).len();
    let axis = normalize_axis(at.attributes.int("axis", -1), rank)?;
    let axes: Vec<usize> = (axis..rank).collect();
    let &[mean, inverse] = at.saved else {
        return Err("its statistics were not kept".to_owned());
    };
    let inputs = [dy, x, scale, mean, inverse];
    if may_fuse(g, &inputs) && g.dims(scale) == &g.dims(x)[axis..] {
        let gradients =
            g.emit(kernels::LAYER_NORM_GRADIENT, &inputs.map(Some), Attributes::none(), 3);
        let count = if at.input(2).is_some() { 3 } else { 2 };
        return Ok(gradients.into_iter().take(count).map(Some).collect());
    }
    let data_type = g.data_type(x);
    let (mean, inverse) = (g.cast(mean, data_type), g.cast(inverse, data_type));
    let centered = g.sub(x, mean);
    let normalized = g.mul(centered, inverse);
    let weighted = g.mul(dy, scale);
    let average = g.reduce("ReduceMean", weighted, &axes);
    let product = g.mul(weighted, normalized);
    let correlation = g.reduce("ReduceMean", product, &axes);
    let along = g.mul(normalized, correlation);
    let difference = g.sub(weighted, average);
    let difference = g.sub(difference, along);
    let dx = g.mul(difference, inverse);
    let scale_dims = g.dims(scale).to_vec();
    let dscale = g.mul(dy, normalized);
    let mut gradients = vec![Some(dx), Some(g.sum_to(dscale, &scale_dims))];
    if let Some(bias) = at.input(2) {
        let dims = g.dims(bias).to_vec();
        gradients.push(Some(g.sum_to(dy, &dims)));
    }
    Ok(gradients)
}

/// Normalizes each of `rows` equal parts of `x` by itself; no scale, no bias.
fn normalize_rows(
    forward: &mut Forward<'_>,
    x: Value,
    rows: usize,
    epsilon: f64,
) -> Result<Value, String> {
    let dims = forward.graph.dims(x).to_vec();
    let columns = dims.iter().product::<usize>() / rows.max(1);
    let flat = forward.reshape(x, &[rows, columns])?;
    let data_type = forward.graph.data_type(x);
    let ones = forward.graph.fill(1.0, data_type, &[columns]);
    let attributes = Attributes::none().with("axis", -1).with("epsilon", epsilon as f32);
    let normalized = forward.apply("LayerNormalization", &[Some(flat), Some(ones)], attributes)?;
    forward.reshape(normalized, &dims)
}

/// `scale x + bias`, one of each per channel.
fn scale_channels(
    forward: &mut Forward<'_>,
    x: Value,
    scale: Value,
    bias: Value,
) -> Result<Value, String> {
    let dims = forward.graph.dims(x).to_vec();
    let mut shape = vec![1; dims.len()];
    shape[1] = dims[1];
    let scale = forward.reshape(scale, &shape)?;
    let bias = forward.reshape(bias, &shape)?;
    let scaled = forward.binary("Mul", x, scale)?;
    forward.binary("Add", scaled, bias)
}

/// Batch size and channels of `x`.
fn batch_and_channels(forward: &Forward<'_>, x: Value) -> Result<(usize, usize), String> {
    match forward.graph.dims(x) {
        [batch, channels, ..] => Ok((*batch, *channels)),
        dims => Err(format!("{dims:?} has no batch and channels")),
    }
}

/// Each channel of each example by itself (Ulyanov, Vedaldi and Lempitsky 2016).
const INSTANCE: Composition = |forward, node| {
    let x = node.required(0)?;
    let (batch, channels) = batch_and_channels(forward, x)?;
    let epsilon = node.attributes.float("epsilon", 1e-5);
    let normalized = normalize_rows(forward, x, batch * channels, epsilon)?;
    Ok(vec![scale_channels(forward, normalized, node.required(1)?, node.required(2)?)?])
};

/// Each group of channels of each example by itself (Wu and He 2018).
const GROUP: Composition = |forward, node| {
    let x = node.required(0)?;
    let (batch, channels) = batch_and_channels(forward, x)?;
    let groups = usize::try_from(node.attributes.int("num_groups", 0)).unwrap_or(0);
    if groups == 0 || channels % groups != 0 {
        return Err(format!("{channels} channels do not divide into {groups} groups"));
    }
    let epsilon = node.attributes.float("epsilon", 1e-5);
    let normalized = normalize_rows(forward, x, batch * groups, epsilon)?;
    Ok(vec![scale_channels(forward, normalized, node.required(1)?, node.required(2)?)?])
};

/// `(x - mean(x)) / (sqrt(mean(x^2) - mean(x)^2) + 1e-9)` over the axes, as ONNX defines it.
const MEAN_VARIANCE: Composition = |forward, node| {
    let x = node.required(0)?;
    let axes = node.attributes.ints("axes").unwrap_or(&[0, 2, 3]).to_vec();
    let axes = forward.graph.ints(&axes);
    let keep = Attributes::none().with("keepdims", 1);
    let none = Attributes::none;
    let mean = forward.apply("ReduceMean", &[Some(x), Some(axes)], keep.clone())?;
    let centered = forward.apply("Sub", &[Some(x), Some(mean)], none())?;
    let squared = forward.apply("Mul", &[Some(centered), Some(centered)], none())?;
    let variance = forward.apply("ReduceMean", &[Some(squared), Some(axes)], keep)?;
    let deviation = forward.apply("Sqrt", &[Some(variance)], none())?;
    let least = forward.graph.scalar(1e-9, x);
    let divisor = forward.apply("Add", &[Some(deviation), Some(least)], none())?;
    Ok(vec![forward.apply("Div", &[Some(centered), Some(divisor)], none())?])
};

/// `scale x / sqrt(mean(x^2) + epsilon)`, the mean over all axes from `axis` on (Zhang and Sennrich
/// 2019).
const ROOT_MEAN_SQUARE: Composition = |forward, node| {
    let (x, scale) = (node.required(0)?, node.required(1)?);
    let rank = forward.graph.dims(x).len();
    let axis = normalize_axis(node.attributes.int("axis", -1), rank)?;
    let axes: Vec<i64> = (axis as i64..rank as i64).collect();
    let axes = forward.graph.ints(&axes);
    let none = Attributes::none;
    let squared = forward.apply("Mul", &[Some(x), Some(x)], none())?;
    let keep = none().with("keepdims", 1);
    let mean = forward.apply("ReduceMean", &[Some(squared), Some(axes)], keep)?;
    let epsilon = forward.graph.scalar(node.attributes.float("epsilon", 1e-5), x);
    let shifted = forward.apply("Add", &[Some(mean), Some(epsilon)], none())?;
    let root = forward.apply("Sqrt", &[Some(shifted)], none())?;
    let normalized = forward.apply("Div", &[Some(x), Some(root)], none())?;
    Ok(vec![forward.apply("Mul", &[Some(normalized), Some(scale)], none())?])
};

/// `x` divided by its L1 or L2 norm along the axis.
const LP: Composition = |forward, node| {
    let x = node.required(0)?;
    let op = if node.attributes.int("p", 2) == 1 { "ReduceL1" } else { "ReduceL2" };
    let axis = TensorData::from_i64(&[1], &[node.attributes.int("axis", -1)]);
    let axis = forward.graph.constant(axis);
    let attributes = Attributes::none().with("keepdims", 1);
    let norm = forward.apply(op, &[Some(x), Some(axis)], attributes)?;
    Ok(vec![forward.apply("Div", &[Some(x), Some(norm)], Attributes::none())?])
};

/// How many channels before and after each one its response is normalized with, at most all.
fn neighbours(call: &Call<'_>) -> Result<[usize; 2], String> {
    let dims = call.dims(0)?;
    let channels = *dims.get(1).ok_or_else(|| format!("{dims:?} has no channels"))?;
    let size = call.attributes.int("size", 0);
    let others = usize::try_from(size).ok().and_then(|size| size.checked_sub(1));
    let others = others.ok_or_else(|| format!("its `size` is {size}"))?;
    let sides = [others / 2, others.div_ceil(2)].map(|side| side.min(channels.saturating_sub(1)));
    if sides[0] + sides[1] > MOST_NEIGHBOURS {
        return Err(format!("{size} channels are more than {MOST_NEIGHBOURS}"));
    }
    Ok(sides)
}

/// The sum over so many channels before and after each.
fn channel_sums(g: &mut Builder, x: Value, [before, after]: [usize; 2]) -> Value {
    let dims = g.dims(x).to_vec();
    let around = |side: usize| {
        let mut sizes = vec![0; dims.len()];
        sizes[1] = side as i64;
        sizes
    };
    let padded = g.pad(x, &around(before), &around(after));
    let shifted: Vec<Value> = (0..=before + after)
        .map(|first| g.slice(padded, 1, first as i64, (first + dims[1]) as i64, 1))
        .collect();
    g.sum(&shifted).unwrap_or(x)
}

/// `y = x / s^beta` with `s = bias + alpha / size W(x^2)`, where `W` sums over neighbouring channels
/// (Krizhevsky et al. 2012, section 3.3). ONNX Runtime has no kernel for even sizes.
fn response_forward(forward: &mut Forward<'_>, node: &Node<'_>) -> Result<Lowered, String> {
    let sides = neighbours(&node.call(forward.graph))?;
    let (x, g) = (node.required(0)?, &mut *forward.graph);
    let squares = g.square(x);
    let sums = channel_sums(g, squares, sides);
    let scaled = g.scale(sums, response_share(node.attributes));
    let base = g.add_scalar(scaled, node.attributes.float("bias", 1.0));
    let exponent = g.scalar(-node.attributes.float("beta", 0.75), base);
    let factor = g.binary("Pow", base, exponent);
    Ok(Lowered { outputs: vec![g.mul(x, factor)], saved: vec![base, factor] })
}

/// What a square adds to its neighbours' sums.
fn response_share(attributes: &Attributes) -> f64 {
    attributes.float("alpha", 1e-4) / attributes.int("size", 1) as f64
}

/// `dx = dy / s^beta - 2 beta alpha / size x W'(dy y / s)`, where `W'` sums over those of whose
/// neighbourhood an element is a part.
fn response(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let [before, after] = neighbours(&at.call(g))?;
    let &[base, factor] = at.saved else { return Err("its lowering kept two values".to_owned()) };
    let by_factor = g.mul(at.dy(), at.y(0));
    let by_base = g.div(by_factor, base);
    let sums = channel_sums(g, by_base, [after, before]);
    let share = 2.0 * at.attributes.float("beta", 0.75) * response_share(at.attributes);
    let along = g.mul(at.x(0), sums);
    let along = g.scale(along, share);
    let plain = g.mul(at.dy(), factor);
    only(g.sub(plain, along))
}
