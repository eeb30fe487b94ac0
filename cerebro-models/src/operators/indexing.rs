//! Operators that pick elements by index, and those that put them there.

use super::fused::may_fuse;
use super::shapes::same;
use super::{Gradients, Lowered, Node, Operator, Site, only};
use crate::autodiff::Forward;
use crate::graph::{Attributes, Builder, Call, Type, Value, normalize_axis};
use crate::kernels;
use crate::onnx::{DataType, TensorData};

pub(super) const OPERATORS: &[Operator] = &[
    Operator::rule("Gather", gather_shape, gather),
    Operator::rule("GatherElements", gather_elements_shape, gather_elements),
    Operator::rule("GatherND", gather_nd_shape, gather_nd),
    Operator::rule("ScatterElements", same, scatter_elements),
    Operator::lowered("ScatterND", same, scatter_nd_forward, scatter_nd),
    Operator::rule("TopK", top_k_shape, top_k),
];

fn gather_shape(call: &Call<'_>) -> Result<Vec<Type>, String> {
    let dims = call.dims(0)?;
    let axis = call.axis("axis", 0, dims.len())?;
    let picked = [&dims[..axis], call.dims(1)?, &dims[axis + 1..]].concat();
    Ok(vec![Type::new(call.data_type(0)?, picked)])
}

/// Rows that were picked several times get the sum of their gradients, rows that were not get 0.
fn gather(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let (x, indices, dy) = (at.x(0), at.x(1), at.dy());
    let dims = g.dims(x).to_vec();
    let axis = normalize_axis(at.attributes.int("axis", 0), dims.len())?;
    if let Some(gradient) = one_row(g, dy, indices, axis, &dims) {
        return Ok(vec![Some(gradient), None]);
    }
    // The axis comes first, so that a picked thing is a row.
    let picked = g.dims(indices).to_vec();
    let places: Vec<usize> = (axis..axis + picked.len()).collect();
    let others = (0..g.dims(dy).len()).filter(|place| !places.contains(place));
    let order: Vec<usize> = places.iter().copied().chain(others).collect();
    let rows = g.transpose(dy, &order);
    let count: usize = picked.iter().product();
    let width = dims.iter().product::<usize>() / dims[axis].max(1);
    let rows = g.reshape(rows, &[count, width]);
    let column = g.reshape(indices, &[count, 1]);
    let column = g.cast(column, DataType::Int64);
    let table = add_rows(g, rows, column, dims[axis], width);
    let mut moved = vec![dims[axis]];
    moved.extend(dims[..axis].iter().chain(&dims[axis + 1..]));
    let table = g.reshape(table, &moved);
    let mut back: Vec<usize> = (1..=axis).collect();
    back.push(0);
    back.extend(axis + 1..dims.len());
    Ok(vec![Some(g.transpose(table, &back)), None])
}

/// The gradient of picking a single known row: zeros around it.
fn one_row(
    g: &mut Builder,
    dy: Value,
    indices: Value,
    axis: usize,
    dims: &[usize],
) -> Option<Value> {
    let index = match g.constant_of(indices)?.to_i64s()?.as_slice() {
        &[index] => normalize_axis(index, dims[axis]).ok()?,
        _ => return None,
    };
    let mut row = dims.to_vec();
    row[axis] = 1;
    let row = g.reshape(dy, &row);
    let (mut before, mut after) = (vec![0; dims.len()], vec![0; dims.len()]);
    before[axis] = index as i64;
    after[axis] = (dims[axis] - index - 1) as i64;
    Some(g.pad(row, &before, &after))
}

/// A table of `height` rows of zeros, to which each of `rows` is added at its place in `column`.
fn add_rows(g: &mut Builder, rows: Value, column: Value, height: usize, width: usize) -> Value {
    if may_fuse(g, &[rows]) {
        let attributes = Attributes::none().with("height", height as i64);
        return g.op(kernels::EMBEDDING_GRADIENT, &[rows, column], attributes);
    }
    let data_type = g.data_type(rows);
    let zeros = g.fill(0.0, data_type, &[height, width]);
    put_nd(g, [zeros, column, rows], "add")
}

fn gather_elements_shape(call: &Call<'_>) -> Result<Vec<Type>, String> {
    Ok(vec![Type::new(call.data_type(0)?, call.dims(1)?)])
}

fn gather_elements(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let axis = normalize_axis(at.attributes.int("axis", 0), g.dims(at.x(0)).len())?;
    let zeros = g.filled(0.0, at.x(0));
    let places = Places { indices: at.x(1), axis: Some(axis) };
    Ok(vec![Some(places.write(g, zeros, at.dy(), "add")), None])
}

fn gather_nd_shape(call: &Call<'_>) -> Result<Vec<Type>, String> {
    let (dims, indices) = (call.dims(0)?, call.dims(1)?);
    let batch = usize::try_from(call.attributes.int("batch_dims", 0)).unwrap_or(0);
    let (&depth, places) = indices.split_last().ok_or("the indices are a scalar")?;
    let rest = dims
        .get(batch.saturating_add(depth)..)
        .ok_or("the indices have more parts than there are axes")?;
    Ok(vec![Type::new(call.data_type(0)?, [places, rest].concat())])
}

/// Scattered back to where it was picked; leading batch axes become part of the indices.
fn gather_nd(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let batch = usize::try_from(at.attributes.int("batch_dims", 0)).unwrap_or(0);
    let (dims, index_dims) = (g.dims(at.x(0)).to_vec(), g.dims(at.x(1)).to_vec());
    let Some((&depth, places)) = index_dims.split_last() else {
        return Err("the indices are a scalar".to_owned());
    };
    let mut parts = Vec::new();
    for axis in 0..batch {
        let mut shape = vec![1; index_dims.len()];
        shape[axis] = dims[axis];
        let range: Vec<i64> = (0..dims[axis] as i64).collect();
        let range = g.constant(TensorData::from_i64(&shape, &range));
        parts.push(g.expand(range, &[places, &[1]].concat()));
    }
    parts.push(at.x(1));
    let indices = g.concat(&parts, index_dims.len() - 1);
    // As flat numbers of rows, so that one way of adding rows serves all.
    let depth = depth + batch;
    let column = row_numbers(g, indices, &dims[..depth]);
    let count: usize = places.iter().product();
    let width: usize = dims[depth..].iter().product();
    let rows = g.reshape(at.dy(), &[count, width]);
    let table = add_rows(g, rows, column, dims[..depth].iter().product(), width);
    Ok(vec![Some(g.reshape(table, &dims)), None])
}

/// Indices of things along axes of `sizes`, in their last axis, as a column of flat numbers. Along
/// one axis they stay as they are, negative ones too.
fn row_numbers(g: &mut Builder, indices: Value, sizes: &[usize]) -> Value {
    let dims = g.dims(indices).to_vec();
    let Some((last, places)) = dims.split_last() else { return Value::REFUSED };
    debug_assert_eq!(*last, sizes.len(), "an index for each axis");
    if sizes.len() == 1 {
        return g.reshape(indices, &[places.iter().product(), 1]);
    }
    let strides: Vec<i64> =
        (0..sizes.len()).map(|axis| sizes[axis + 1..].iter().product::<usize>() as i64).collect();
    let sizes: Vec<i64> = sizes.iter().map(|&size| size as i64).collect();
    let (strides, sizes) = (g.ints(&strides), g.ints(&sizes));
    // The remainder makes negative ones positive.
    let indices = g.binary("Mod", indices, sizes);
    let products = g.mul(indices, strides);
    let numbers = g.reduce_sum(products, &[places.len()]);
    g.reshape(numbers, &[places.iter().product(), 1])
}

/// `data` with `updates` at the places that `indices` name.
///
/// `ScatterND` is fastest, but ONNX Runtime's processor kernel takes several at one place together
/// from several threads at once, without care: it is right with one thread only. `ScatterElements`
/// does it one after the other.
fn put_nd(g: &mut Builder, [data, indices, updates]: [Value; 3], reduction: &str) -> Value {
    let dims = g.dims(data).to_vec();
    let depth = g.dims(indices).last().copied().filter(|&depth| depth <= dims.len());
    let (Some(depth), true, true) = (depth, reduction != "none", g.scatters_in_parallel()) else {
        let attributes = Attributes::none().with("reduction", reduction);
        return g.op("ScatterND", &[data, indices, updates], attributes);
    };
    let column = row_numbers(g, indices, &dims[..depth]);
    let count = g.dims(column).first().copied().unwrap_or(0);
    let [height, width] = [&dims[..depth], &dims[depth..]].map(|axes| axes.iter().product());
    let places = g.expand(column, &[count, width]);
    let (table, rows) = (g.reshape(data, &[height, width]), g.reshape(updates, &[count, width]));
    let attributes = Builder::along(0).with("reduction", reduction);
    let table = g.op("ScatterElements", &[table, places, rows], attributes);
    g.reshape(table, &dims)
}

fn scatter_nd_forward(forward: &mut Forward<'_>, node: &Node<'_>) -> Result<Lowered, String> {
    let inputs = [node.required(0)?, node.required(1)?, node.required(2)?];
    let reduction = node.attributes.text("reduction", "none");
    let outputs = vec![put_nd(forward.graph, inputs, reduction)];
    Ok(Lowered { outputs, saved: Vec::new() })
}

/// The places that a scattering operator's indices name.
#[derive(Clone, Copy)]
struct Places {
    indices: Value,
    /// Along which they are counted, or `None` where they are coordinates.
    axis: Option<usize>,
}

impl Places {
    fn read(self, g: &mut Builder, from: Value) -> Value {
        let (op, attributes) = match self.axis {
            Some(axis) => ("GatherElements", Builder::along(axis)),
            None => ("GatherND", Attributes::none()),
        };
        g.op(op, &[from, self.indices], attributes)
    }

    fn write(self, g: &mut Builder, to: Value, values: Value, reduction: &str) -> Value {
        let inputs = [to, self.indices, values];
        match self.axis {
            Some(axis) => {
                let attributes = Builder::along(axis).with("reduction", reduction);
                g.op("ScatterElements", &inputs, attributes)
            }
            None => put_nd(g, inputs, reduction),
        }
    }
}

fn scatter_elements(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let axis = normalize_axis(at.attributes.int("axis", 0), g.dims(at.x(0)).len())?;
    scatter(g, at, Places { indices: at.x(1), axis: Some(axis) })
}

fn scatter_nd(g: &mut Builder, at: &Site<'_>) -> Gradients {
    scatter(g, at, Places { indices: at.x(1), axis: None })
}

/// What was overwritten has no gradient; what was written or added has that of its place.
fn scatter(g: &mut Builder, at: &Site<'_>, places: Places) -> Gradients {
    let dy = at.dy();
    let (data, updates) = match at.attributes.text("reduction", "none") {
        "add" => (dy, places.read(g, dy)),
        "none" => {
            let zeros = g.filled(0.0, at.x(2));
            (places.write(g, dy, zeros, "none"), places.read(g, dy))
        }
        "mul" => scattered_product(g, at, places),
        "max" | "min" => scattered_extremum(g, at, places),
        other => return Err(format!("reduction `{other}` has no gradient")),
    };
    Ok(vec![Some(data), None, Some(updates)])
}

/// Each factor has the product of the others. A zero is left out of the product to find it.
fn scattered_product(g: &mut Builder, at: &Site<'_>, places: Places) -> (Value, Value) {
    let (data, factors, dy) = (at.x(0), at.x(2), at.dy());
    let ones = g.filled(1.0, data);
    let others = places.write(g, ones, factors, "mul");
    let by_data = g.mul(dy, others);
    let (zero, one) = (g.scalar(0.0, factors), g.scalar(1.0, factors));
    let is_zero = g.equal(factors, zero);
    let none = g.filled(0.0, data);
    let zeros = places.write(g, none, is_zero, "add");
    let left_in = g.add(factors, is_zero);
    let product = places.write(g, data, left_in, "mul");
    let slope = g.mul(dy, product);
    let slope = places.read(g, slope);
    let slope = g.div(slope, left_in);
    // Of a place without zeros all factors have a gradient, of one with a single zero only this.
    let zeros = places.read(g, zeros);
    let other_zeros = g.sub(zeros, is_zero);
    let has_gradient = g.less(other_zeros, one);
    (by_data, g.mul(slope, has_gradient))
}

/// The gradient goes to whatever has the extreme value, in equal parts, as PyTorch's
/// `scatter_reduce` does it.
fn scattered_extremum(g: &mut Builder, at: &Site<'_>, places: Places) -> (Value, Value) {
    let (data, updates, y) = (at.x(0), at.x(2), at.y(0));
    let reached = places.read(g, y);
    let (of_data, of_updates) = (g.equal(data, y), g.equal(updates, reached));
    let count = places.write(g, of_data, of_updates, "add");
    let share = g.div(at.dy(), count);
    let picked = places.read(g, share);
    (g.mul(share, of_data), g.mul(picked, of_updates))
}

fn top_k_shape(call: &Call<'_>) -> Result<Vec<Type>, String> {
    let mut dims = call.dims(0)?.to_vec();
    let axis = call.axis("axis", -1, dims.len())?;
    let k = call.ints(1)?.first().copied().unwrap_or(0);
    dims[axis] = usize::try_from(k)
        .ok()
        .filter(|&k| k <= dims[axis])
        .ok_or_else(|| format!("k = {k} of the {} elements along axis {axis}", dims[axis]))?;
    Ok(vec![Type::new(call.data_type(0)?, dims.clone()), Type::new(DataType::Int64, dims)])
}

/// The gradients of the largest elements go back to where these were.
fn top_k(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let axis = normalize_axis(at.attributes.int("axis", -1), g.dims(at.x(0)).len())?;
    let zeros = g.filled(0.0, at.x(0));
    only(g.op("ScatterElements", &[zeros, at.y(1), at.dy()], Builder::along(axis)))
}
