//! Operators that move elements: shapes, slices, joins, tiles and pads.

use super::shapes::same;
use super::{Gradients, Operator, Site, only};
use crate::graph::{Attributes, Builder, Call, LARGEST, Type, Value, broadcast, normalize_axis};
use crate::onnx::DataType;

pub(super) const OPERATORS: &[Operator] = &[
    Operator::rule("Identity", same, identity),
    Operator::rule("Reshape", reshape_shape, reshape),
    Operator::rule("Flatten", flatten_shape, reshape),
    Operator::rule("Squeeze", squeeze_shape, reshape),
    Operator::rule("Unsqueeze", unsqueeze_shape, reshape),
    Operator::rule("Transpose", transpose_shape, transpose),
    Operator::rule("Expand", expand_shape, expand),
    Operator::rule("Tile", tile_shape, tile),
    Operator::rule("Concat", concat_shape, concat),
    Operator::rule("Split", split_shape, split),
    Operator::rule("Slice", slice_shape, slice),
    Operator::rule("Pad", pad_shape, pad),
    Operator::rule("DepthToSpace", depth_to_space_shape, depth_to_space),
    Operator::rule("SpaceToDepth", space_to_depth_shape, space_to_depth),
    Operator::rule("Trilu", same, trilu),
    Operator::rule("ReverseSequence", same, reverse_sequence),
];

fn identity(_: &mut Builder, at: &Site<'_>) -> Gradients {
    only(at.dy())
}

fn reshape_shape(call: &Call<'_>) -> Result<Vec<Type>, String> {
    let from = call.dims(0)?;
    let wanted = call.ints(1)?;
    let keep_zero = call.attributes.flag("allowzero");
    let mut dims = Vec::with_capacity(wanted.len());
    let mut inferred = None;
    for (index, &size) in wanted.iter().enumerate() {
        dims.push(match size {
            -1 if inferred.replace(index).is_none() => 1,
            0 if !keep_zero => {
                *from.get(index).ok_or("a size of 0 copies an axis that is not there")?
            }
            size => usize::try_from(size).map_err(|_| format!("shape {wanted:?} is not valid"))?,
        });
    }
    if !Type::new(DataType::Bool, dims.as_slice()).is_possible() {
        return Err(format!("{from:?} cannot be reshaped to {wanted:?}"));
    }
    let (elements, product) = (from.iter().product::<usize>(), dims.iter().product::<usize>());
    if let Some(index) = inferred {
        dims[index] = elements.checked_div(product).unwrap_or(0);
    }
    if dims.iter().product::<usize>() != elements {
        return Err(format!("{from:?} cannot be reshaped to {wanted:?}"));
    }
    Ok(vec![Type::new(call.data_type(0)?, dims)])
}

fn flatten_shape(call: &Call<'_>) -> Result<Vec<Type>, String> {
    let dims = call.dims(0)?;
    // The axis may be the number of axes: then the second size is 1.
    let axis = match call.attributes.int("axis", 1) {
        axis if axis == dims.len() as i64 => dims.len(),
        axis => normalize_axis(axis, dims.len())?,
    };
    let (outer, inner) = dims.split_at(axis);
    Ok(vec![Type::new(call.data_type(0)?, [outer.iter().product(), inner.iter().product()])])
}

fn squeeze_shape(call: &Call<'_>) -> Result<Vec<Type>, String> {
    let dims = call.dims(0)?;
    let axes = match call.axes(1, dims.len())? {
        Some(axes) => axes,
        None => (0..dims.len()).filter(|&axis| dims[axis] == 1).collect(),
    };
    if let Some(axis) = axes.iter().find(|&&axis| dims[axis] != 1) {
        return Err(format!("axis {axis} of {dims:?} cannot be squeezed: its size is not 1"));
    }
    let kept = (0..dims.len()).filter(|axis| !axes.contains(axis)).map(|axis| dims[axis]);
    Ok(vec![Type::new(call.data_type(0)?, kept.collect::<Vec<_>>())])
}

fn unsqueeze_shape(call: &Call<'_>) -> Result<Vec<Type>, String> {
    let from = call.dims(0)?;
    let wanted = call.ints(1)?;
    let rank = from.len() + wanted.len();
    let mut axes =
        wanted.iter().map(|&axis| normalize_axis(axis, rank)).collect::<Result<Vec<_>, _>>()?;
    axes.sort_unstable();
    let mut dims = from.to_vec();
    for axis in axes {
        if axis > dims.len() {
            return Err(format!("axes {wanted:?} are not valid for {from:?}"));
        }
        dims.insert(axis, 1);
    }
    Ok(vec![Type::new(call.data_type(0)?, dims)])
}

/// What only changes the shape changes it back.
fn reshape(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let dims = g.dims(at.x(0)).to_vec();
    only(g.reshape(at.dy(), &dims))
}

fn permutation(call: &Call<'_>) -> Result<Vec<usize>, String> {
    let rank = call.dims(0)?.len();
    let order = match call.attributes.ints("perm") {
        Some(order) => {
            order.iter().map(|&axis| normalize_axis(axis, rank)).collect::<Result<Vec<_>, _>>()?
        }
        None => (0..rank).rev().collect(),
    };
    let mut sorted = order.clone();
    sorted.sort_unstable();
    if sorted.into_iter().eq(0..rank) {
        Ok(order)
    } else {
        Err(format!("{order:?} is no order of {rank} axes"))
    }
}

fn transpose_shape(call: &Call<'_>) -> Result<Vec<Type>, String> {
    let dims = call.dims(0)?;
    let dims: Vec<usize> = permutation(call)?.into_iter().map(|axis| dims[axis]).collect();
    Ok(vec![Type::new(call.data_type(0)?, dims)])
}

fn transpose(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let order = permutation(&at.call(g))?;
    let mut inverse = vec![0; order.len()];
    for (to, from) in order.into_iter().enumerate() {
        inverse[from] = to;
    }
    only(g.transpose(at.dy(), &inverse))
}

fn expand_shape(call: &Call<'_>) -> Result<Vec<Type>, String> {
    Ok(vec![Type::new(call.data_type(0)?, broadcast(call.dims(0)?, &call.sizes(1)?)?)])
}

fn expand(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let dims = g.dims(at.x(0)).to_vec();
    only(g.sum_to(at.dy(), &dims))
}

fn repeats(call: &Call<'_>) -> Result<Vec<usize>, String> {
    let rank = call.dims(0)?.len();
    let repeats = call.sizes(1)?;
    if repeats.len() == rank {
        Ok(repeats)
    } else {
        Err(format!("there are {} repeats for {rank} axes", repeats.len()))
    }
}

fn tile_shape(call: &Call<'_>) -> Result<Vec<Type>, String> {
    let dims: Vec<usize> = call
        .dims(0)?
        .iter()
        .zip(repeats(call)?)
        .map(|(size, count)| size.saturating_mul(count))
        .collect();
    Ok(vec![Type::new(call.data_type(0)?, dims)])
}

/// The sum over the copies: each axis is split into (copy, place in the copy).
fn tile(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let repeats = repeats(&at.call(g))?;
    let dims = g.dims(at.x(0)).to_vec();
    let split: Vec<usize> =
        repeats.iter().zip(&dims).flat_map(|(&count, &size)| [count, size]).collect();
    let copies: Vec<usize> = (0..dims.len()).map(|axis| 2 * axis).collect();
    let parts = g.reshape(at.dy(), &split);
    let sum = g.reduce_sum(parts, &copies);
    only(g.reshape(sum, &dims))
}

fn concat_shape(call: &Call<'_>) -> Result<Vec<Type>, String> {
    let mut dims = call.dims(0)?.to_vec();
    let axis = call.axis("axis", 0, dims.len())?;
    for index in 1..call.inputs.len() {
        let part = call.dims(index)?;
        let fits = part.len() == dims.len()
            && (0..dims.len()).all(|other| other == axis || part[other] == dims[other]);
        if !fits {
            return Err(format!("{part:?} cannot be joined to {dims:?} along axis {axis}"));
        }
        dims[axis] += part[axis];
    }
    Ok(vec![Type::new(call.data_type(0)?, dims)])
}

/// Each input gets its part of the gradient.
fn concat(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let axis = at.call(g).axis("axis", 0, g.dims(at.y(0)).len())?;
    let mut start = 0;
    Ok((0..at.inputs.len())
        .map(|index| {
            let end = start + g.dims(at.x(index))[axis] as i64;
            let part = g.slice(at.dy(), axis, start, end, 1);
            start = end;
            Some(part)
        })
        .collect())
}

fn split_shape(call: &Call<'_>) -> Result<Vec<Type>, String> {
    let dims = call.dims(0)?;
    let axis = call.axis("axis", 0, dims.len())?;
    let sizes: Vec<usize> = if call.input(1).is_some() {
        call.sizes(1)?
    } else {
        // Equal parts, the last one smaller if need be (`num_outputs`).
        let parts = call.outputs.max(1);
        let size = dims[axis].div_ceil(parts);
        (0..parts).map(|part| size.min(dims[axis].saturating_sub(part * size))).collect()
    };
    if sizes.iter().sum::<usize>() != dims[axis] {
        return Err(format!("axis {axis} of {dims:?} cannot be split into {sizes:?}"));
    }
    let part = |size: usize| {
        let mut dims = dims.to_vec();
        dims[axis] = size;
        Type::new(call.value_type(0).map_or(DataType::Float32, |own| own.data_type), dims)
    };
    Ok(sizes.into_iter().map(part).collect())
}

fn split(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let axis = at.call(g).axis("axis", 0, g.dims(at.x(0)).len())?;
    let parts: Vec<Value> = (0..at.outputs.len()).map(|index| at.dy_or_zeros(g, index)).collect();
    only(g.concat(&parts, axis))
}

/// A slice along one axis, with its bounds made valid.
#[derive(Clone, Copy, Debug)]
struct Cut {
    axis: usize,
    start: i64,
    step: i64,
    count: usize,
}

fn cuts(call: &Call<'_>) -> Result<Vec<Cut>, String> {
    let dims = call.dims(0)?;
    let (starts, ends) = (call.ints(1)?, call.ints(2)?);
    let axes = match call.axes(3, dims.len())? {
        Some(axes) => axes,
        None => (0..starts.len()).collect(),
    };
    let steps = if call.input(4).is_some() { call.ints(4)? } else { vec![1; starts.len()] };
    if starts.len() != ends.len() || starts.len() != axes.len() || starts.len() != steps.len() {
        return Err("starts, ends, axes and steps differ in number".to_owned());
    }
    axes.into_iter()
        .enumerate()
        .map(|(index, axis)| {
            let size = *dims.get(axis).ok_or("there are more starts than axes")? as i64;
            let step = steps[index];
            let from_front = |at: i64| if at < 0 { at.saturating_add(size) } else { at };
            let (start, end) = (from_front(starts[index]), from_front(ends[index]));
            let (start, distance) = match step {
                0 => return Err("a step is 0".to_owned()),
                _ if step.unsigned_abs() > LARGEST as u64 => {
                    return Err(format!("a step of {step} is out of all bounds"));
                }
                1.. => {
                    let start = start.clamp(0, size);
                    (start, end.clamp(0, size) - start)
                }
                _ => {
                    let start = start.clamp(0, size - 1);
                    (start, start - end.clamp(-1, size - 1))
                }
            };
            let count = distance.max(0) as u64;
            Ok(Cut { axis, start, step, count: count.div_ceil(step.unsigned_abs()) as usize })
        })
        .collect()
}

fn slice_shape(call: &Call<'_>) -> Result<Vec<Type>, String> {
    let mut dims = call.dims(0)?.to_vec();
    for cut in cuts(call)? {
        dims[cut.axis] = cut.count;
    }
    Ok(vec![Type::new(call.data_type(0)?, dims)])
}

/// Zeros around what was cut out; between its elements too where the step was not 1.
fn slice(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let dims = g.dims(at.x(0)).to_vec();
    let cuts = cuts(&at.call(g))?;
    let mut gradient = at.dy();
    let (mut before, mut after) = (vec![0; dims.len()], vec![0; dims.len()]);
    for Cut { axis, start, step, count } in cuts {
        if count == 0 {
            return only(g.filled(0.0, at.x(0)));
        }
        if step < 0 {
            gradient = g.slice(gradient, axis, -1, i64::MIN, -1);
        }
        if count > 1 {
            gradient = spread(g, gradient, axis, step.unsigned_abs() as usize);
        }
        let covered = (count as i64 - 1) * step.abs() + 1;
        let first = if step < 0 { start - (covered - 1) } else { start };
        before[axis] = first;
        after[axis] = dims[axis] as i64 - first - covered;
    }
    only(g.pad(gradient, &before, &after))
}

/// `x` with `stride - 1` zeros between neighbours along `axis`.
fn spread(g: &mut Builder, x: Value, axis: usize, stride: usize) -> Value {
    if stride == 1 {
        return x;
    }
    let dims = g.dims(x).to_vec();
    let with_gaps = g.unsqueeze(x, &[axis + 1]);
    let mut after = vec![0; dims.len() + 1];
    after[axis + 1] = stride as i64 - 1;
    let padded = g.pad(with_gaps, &vec![0; dims.len() + 1], &after);
    let mut joined = dims.clone();
    joined[axis] *= stride;
    let flat = g.reshape(padded, &joined);
    g.slice(flat, axis, 0, ((dims[axis] - 1) * stride + 1) as i64, 1)
}

/// Zeros (or other values) before and after each axis; negative ones cut.
fn pads(call: &Call<'_>) -> Result<(Vec<i64>, Vec<i64>), String> {
    let rank = call.dims(0)?.len();
    let listed = call.ints(1)?;
    let axes = match call.axes(3, rank)? {
        Some(axes) => axes,
        None => (0..rank).collect(),
    };
    if listed.len() != 2 * axes.len() {
        return Err(format!("{} pads are given for {} axes", listed.len(), axes.len()));
    }
    if listed.iter().any(|pad| pad.unsigned_abs() > LARGEST as u64) {
        return Err(format!("pads of {listed:?} are out of all bounds"));
    }
    let (mut before, mut after) = (vec![0; rank], vec![0; rank]);
    for (index, &axis) in axes.iter().enumerate() {
        before[axis] = listed[index];
        after[axis] = listed[index + axes.len()];
    }
    Ok((before, after))
}

fn pad_shape(call: &Call<'_>) -> Result<Vec<Type>, String> {
    let (before, after) = pads(call)?;
    let dims = call.dims(0)?.iter().zip(before).zip(after).map(|((&size, before), after)| {
        usize::try_from(size as i64 + before + after)
            .map_err(|_| "it pads away everything".to_owned())
    });
    Ok(vec![Type::new(call.data_type(0)?, dims.collect::<Result<Vec<_>, _>>()?)])
}

/// Constant padding is cut off again. What the other modes copied from inside goes back there: one
/// axis after the other, as sums of slices.
fn pad(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let (before, after) = pads(&at.call(g))?;
    let dims = g.dims(at.x(0)).to_vec();
    let mode = at.attributes.text("mode", "constant").to_owned();
    let mut gradient = at.dy();
    for axis in 0..dims.len() {
        let (front, back) = (before[axis], after[axis]);
        if front == 0 && back == 0 {
            continue;
        }
        let size = dims[axis] as i64;
        let total = size + front + back;
        // What is left of the input itself.
        let kept = (front.max(0), (front + size).min(total));
        let mut inner = g.slice(gradient, axis, kept.0, kept.1, 1);
        let (mut lost_front, mut lost_back) = ((-front).max(0), (-back).max(0));
        if mode != "constant" {
            let mut parts = vec![widen(g, inner, axis, lost_front, lost_back)];
            for copied in copied_parts(&mode, axis_padding(front, back), size)? {
                parts.push(copied.fold_back(g, gradient, axis, size, total));
            }
            inner = g.sum(&parts).unwrap_or(inner);
            (lost_front, lost_back) = (0, 0);
        }
        gradient = widen(g, inner, axis, lost_front, lost_back);
    }
    Ok(vec![Some(gradient), None, None, None])
}

fn widen(g: &mut Builder, x: Value, axis: usize, front: i64, back: i64) -> Value {
    let rank = g.dims(x).len();
    let (mut before, mut after) = (vec![0; rank], vec![0; rank]);
    (before[axis], after[axis]) = (front, back);
    g.pad(x, &before, &after)
}

fn axis_padding(front: i64, back: i64) -> (i64, i64) {
    (front.max(0), back.max(0))
}

/// A run of padding that was copied from the input.
#[derive(Clone, Copy, Debug)]
struct Copied {
    /// Where the run is in the padded axis, negative from the end, and how long it is.
    start: i64,
    length: i64,
    /// Where in the input its elements came from, in ascending order; all from one for `edge`.
    source: i64,
    how: CopyOrder,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CopyOrder {
    Same,
    Mirrored,
    OneElement,
}

fn copied_parts(mode: &str, (front, back): (i64, i64), size: i64) -> Result<Vec<Copied>, String> {
    use CopyOrder::{Mirrored, OneElement, Same};
    let limit = if mode == "reflect" { size - 1 } else { size };
    if mode != "edge" && front.max(back) > limit {
        return Err(format!("{mode} padding of {front} and {back} exceeds the {size} elements"));
    }
    // The sources: reflect mirrors around the edge element, wrap goes on at the other end.
    let (front_source, back_source, how) = match mode {
        "reflect" => (1, size - 1 - back, Mirrored),
        "edge" => (0, size - 1, OneElement),
        "wrap" => (size - front, 0, Same),
        _ => return Err(format!("padding mode `{mode}` is unknown")),
    };
    let runs = [
        Copied { start: 0, length: front, source: front_source, how },
        Copied { start: -back, length: back, source: back_source, how },
    ];
    Ok(runs.into_iter().filter(|run| run.length > 0).collect())
}

impl Copied {
    /// The run's gradient, where its elements came from, as long as the input.
    fn fold_back(self, g: &mut Builder, dy: Value, axis: usize, size: i64, total: i64) -> Value {
        let start = if self.start < 0 { total + self.start } else { self.start };
        let run = g.slice(dy, axis, start, start + self.length, 1);
        let (run, length) = match self.how {
            CopyOrder::Same => (run, self.length),
            CopyOrder::Mirrored => (g.slice(run, axis, -1, i64::MIN, -1), self.length),
            CopyOrder::OneElement => (g.reduce_sum(run, &[axis]), 1),
        };
        widen(g, run, axis, self.source, size - self.source - length)
    }
}

/// The size of a block; 0, which fits nothing, if it is out of bounds.
fn block_size(call: &Call<'_>) -> usize {
    let size = usize::try_from(call.attributes.int("blocksize", 0));
    size.ok().filter(|&size| size < 1 << 16).unwrap_or(0)
}

fn depth_to_space_shape(call: &Call<'_>) -> Result<Vec<Type>, String> {
    let dims = call.dims(0)?;
    let block = block_size(call);
    match *dims {
        [n, c, h, w] if block > 0 && c % (block * block) == 0 => {
            Ok(vec![Type::new(call.data_type(0)?, [n, c / (block * block), h * block, w * block])])
        }
        _ => Err(format!("{dims:?} has no depth in blocks of {block} x {block}")),
    }
}

fn space_to_depth_shape(call: &Call<'_>) -> Result<Vec<Type>, String> {
    let dims = call.dims(0)?;
    let block = block_size(call);
    match *dims {
        [n, c, h, w] if block > 0 && h % block == 0 && w % block == 0 => {
            Ok(vec![Type::new(call.data_type(0)?, [n, c * block * block, h / block, w / block])])
        }
        _ => Err(format!("{dims:?} does not divide into blocks of {block} x {block}")),
    }
}

/// `SpaceToDepth` is the inverse of the mode "DCR" (block before channel); for "CRD" channels come
/// first, so their order changes after it.
fn depth_to_space(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let block = at.attributes.int("blocksize", 1);
    let attributes = Attributes::none().with("blocksize", block);
    let back = g.op("SpaceToDepth", &[at.dy()], attributes);
    if at.attributes.text("mode", "DCR") == "DCR" {
        return only(back);
    }
    let dims = g.dims(back).to_vec();
    let blocks = (block * block) as usize;
    let split = g.reshape(back, &[dims[0], blocks, dims[1] / blocks, dims[2] * dims[3]]);
    let swapped = g.transpose(split, &[0, 2, 1, 3]);
    only(g.reshape(swapped, &dims))
}

fn space_to_depth(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let attributes =
        Attributes::none().with("blocksize", at.attributes.int("blocksize", 1)).with("mode", "DCR");
    only(g.op("DepthToSpace", &[at.dy()], attributes))
}

/// The part of a matrix above or below a diagonal: the same part of the gradient.
fn trilu(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let mut inputs = vec![Some(at.dy())];
    inputs.extend(at.inputs.get(1));
    let gradient = g.emit("Trilu", &inputs, at.attributes.clone(), 1);
    Ok(vec![gradient.first().copied(), None])
}

/// What was turned round is turned back.
fn reverse_sequence(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let inputs = [Some(at.dy()), at.input(1)];
    let gradient = g.emit("ReverseSequence", &inputs, at.attributes.clone(), 1);
    Ok(vec![gradient.first().copied(), None])
}
