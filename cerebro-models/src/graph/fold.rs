//! Constant folding: nodes whose inputs are small constants are computed while the graph is built.
//!
//! What is folded is the arithmetic on shapes, masks and scalars that exporters leave in graphs;
//! larger constants are left to ONNX Runtime. Floating-point results are computed in 64 bits and
//! rounded once.

use ndarray::{Array1, ArrayD, ArrayViewD, Axis, IxDyn, Slice, Zip};

use super::builder::Type;
use super::call::Call;
use super::values::normalize_axis;
use crate::onnx::{DataType, TensorData};

/// Nodes with more elements than this in an input or in an output are not folded.
const LIMIT: usize = 1 << 16;

/// The outputs of the node, if they can be computed now.
pub(super) fn fold(op: &str, call: &Call<'_>, types: &[Type]) -> Option<Vec<TensorData>> {
    if op == "Shape" {
        return shape_of(call);
    }
    let output = types.first()?;
    if op == "Size" {
        let size = call.value_type(0).ok()?.elements() as i64;
        return Some(vec![TensorData::from_i64(&[], &[size])]);
    }
    if call.inputs.is_empty() || types.iter().any(|output| output.elements() > LIMIT) {
        return None;
    }
    let mut inputs = Vec::with_capacity(call.inputs.len());
    for input in call.inputs {
        match input {
            None => inputs.push(None),
            Some(value) => {
                let constant = call.graph.constant_of(*value)?;
                if constant.elements() > LIMIT {
                    return None;
                }
                inputs.push(Some(Array::from_tensor(constant)?));
            }
        }
    }
    if op == "Split" {
        return split(&inputs, call, types);
    }
    let result = compute(op, call, &inputs, output)?;
    Some(vec![result.into_tensor(output)?])
}

fn shape_of(call: &Call<'_>) -> Option<Vec<TensorData>> {
    let dims = call.dims(0).ok()?;
    let rank = dims.len() as i64;
    let clamp = |index: i64| (if index < 0 { index + rank } else { index }).clamp(0, rank) as usize;
    let start = clamp(call.attributes.int("start", 0));
    let end = clamp(call.attributes.int("end", rank)).max(start);
    let sizes: Vec<i64> = dims[start..end].iter().map(|&dim| dim as i64).collect();
    Some(vec![TensorData::from_i64(&[sizes.len()], &sizes)])
}

/// A constant, as integers (and booleans) or as floats.
#[derive(Clone, Debug)]
enum Array {
    Int(ArrayD<i64>),
    Float(ArrayD<f64>),
}

impl Array {
    fn from_tensor(tensor: &TensorData) -> Option<Self> {
        let dims = IxDyn(tensor.dims());
        if tensor.data_type().is_float() {
            ArrayD::from_shape_vec(dims, tensor.to_f64s()).ok().map(Array::Float)
        } else {
            ArrayD::from_shape_vec(dims, tensor.to_i64s()?).ok().map(Array::Int)
        }
    }

    fn into_tensor(self, as_type: &Type) -> Option<TensorData> {
        let Type { data_type, dims } = as_type;
        match self {
            Array::Int(array) => {
                let values: Vec<i64> = array.iter().copied().collect();
                (array.shape() == dims.as_slice())
                    .then(|| TensorData::from_integers(*data_type, dims, &values))
            }
            Array::Float(array) => {
                let values: Vec<f64> = array.iter().copied().collect();
                (array.shape() == dims.as_slice())
                    .then(|| TensorData::from_f64(*data_type, dims, &values))
            }
        }
    }

    fn ints(&self) -> Option<&ArrayD<i64>> {
        if let Array::Int(array) = self { Some(array) } else { None }
    }

    fn to_floats(&self) -> ArrayD<f64> {
        match self {
            Array::Int(array) => array.mapv(|value| value as f64),
            Array::Float(array) => array.clone(),
        }
    }

    /// Applies what only moves elements.
    fn moved(
        &self,
        ints: impl FnOnce(ArrayViewD<'_, i64>) -> Option<ArrayD<i64>>,
        floats: impl FnOnce(ArrayViewD<'_, f64>) -> Option<ArrayD<f64>>,
    ) -> Option<Self> {
        match self {
            Array::Int(array) => ints(array.view()).map(Array::Int),
            Array::Float(array) => floats(array.view()).map(Array::Float),
        }
    }
}

/// Applies a generic function to whichever array it is: closures cannot be generic.
macro_rules! moved {
    ($array:expr, |$view:ident| $body:expr) => {
        $array.moved(|$view| $body, |$view| $body)
    };
}

fn compute(op: &str, call: &Call<'_>, inputs: &[Option<Array>], output: &Type) -> Option<Array> {
    let input = |index: usize| inputs.get(index)?.as_ref();
    let x = input(0)?;
    let dims = output.dims.as_slice();
    match op {
        "Identity" | "CastLike" | "Cast" => Some(cast(x, output.data_type)),
        "Reshape" | "Squeeze" | "Unsqueeze" | "Flatten" => {
            moved!(x, |view| view
                .as_standard_layout()
                .into_owned()
                .into_shape_with_order(dims)
                .ok())
        }
        "Expand" => moved!(x, |view| view.broadcast(dims).map(|view| view.to_owned())),
        "Transpose" => {
            let rank = dims.len();
            let order: Vec<usize> = match call.attributes.ints("perm") {
                Some(order) => order.iter().map(|&axis| axis as usize).collect(),
                None => (0..rank).rev().collect(),
            };
            moved!(x, |view| Some(view.permuted_axes(IxDyn(&order)).to_owned()))
        }
        "Concat" => concat(call, inputs),
        "Gather" => gather(call, x, input(1)?.ints()?, dims),
        "Slice" => slice(call, x, dims),
        "Tile" => tile(x, input(1)?.ints()?),
        "OneHot" => one_hot(call, x.ints()?, input(2)?, dims),
        "Range" => range(x, input(2)?, output.elements()),
        "ConstantOfShape" => constant_of_shape(call, dims),
        "Where" => {
            let condition = x.ints()?.broadcast(dims)?.to_owned();
            select(&condition, input(1)?, input(2)?, dims)
        }
        "ReduceProd" | "ReduceSum" | "ReduceMax" | "ReduceMin" => reduce(op, x, call, dims),
        "Clip" => {
            let bounds = [("Max", input(1)), ("Min", input(2))];
            bounds.into_iter().try_fold(x.clone(), |clipped, (op, bound)| match bound {
                Some(bound) => binary(op, call, &clipped, bound, dims),
                None => Some(clipped),
            })
        }
        _ if inputs.len() == 2 => binary(op, call, x, input(1)?, dims),
        _ if inputs.len() == 1 => unary(op, x),
        _ => None,
    }
}

fn cast(x: &Array, to: DataType) -> Array {
    match x {
        Array::Float(array) if to == DataType::Bool => {
            Array::Int(array.mapv(|value| i64::from(value != 0.0)))
        }
        Array::Int(array) if to == DataType::Bool => {
            Array::Int(array.mapv(|value| i64::from(value != 0)))
        }
        Array::Float(array) if !to.is_float() => Array::Int(array.mapv(|value| value as i64)),
        Array::Int(array) if to.is_float() => Array::Float(array.mapv(|value| value as f64)),
        same => same.clone(),
    }
}

fn concat(call: &Call<'_>, inputs: &[Option<Array>]) -> Option<Array> {
    let rank = call.dims(0).ok()?.len();
    let axis = Axis(normalize_axis(call.attributes.int("axis", 0), rank).ok()?);
    let arrays: Option<Vec<&Array>> = inputs.iter().map(Option::as_ref).collect();
    let ints: Option<Vec<_>> =
        arrays.as_ref()?.iter().map(|array| Some(array.ints()?.view())).collect();
    if let Some(views) = ints {
        return ndarray::concatenate(axis, &views).ok().map(Array::Int);
    }
    let floats: Vec<ArrayD<f64>> = arrays?.into_iter().map(Array::to_floats).collect();
    let views: Vec<_> = floats.iter().map(|array| array.view()).collect();
    ndarray::concatenate(axis, &views).ok().map(Array::Float)
}

fn gather(call: &Call<'_>, x: &Array, indices: &ArrayD<i64>, dims: &[usize]) -> Option<Array> {
    let from = call.dims(0).ok()?;
    let axis = normalize_axis(call.attributes.int("axis", 0), from.len()).ok()?;
    let chosen: Option<Vec<usize>> =
        indices.iter().map(|&index| normalize_axis(index, from[axis]).ok()).collect();
    let chosen = chosen?;
    moved!(x, |view| view
        .select(Axis(axis), &chosen)
        .as_standard_layout()
        .into_owned()
        .into_shape_with_order(dims)
        .ok())
}

/// Cuts along each axis as `Slice` does (the bounds were checked when the shape was inferred).
fn slice(call: &Call<'_>, x: &Array, dims: &[usize]) -> Option<Array> {
    let rank = dims.len();
    let (starts, ends) = (call.ints(1).ok()?, call.ints(2).ok()?);
    let axes = match call.axes(3, rank).ok()? {
        Some(axes) => axes,
        None => (0..starts.len()).collect(),
    };
    let steps = if call.input(4).is_some() { call.ints(4).ok()? } else { vec![1; starts.len()] };
    moved!(x, |view| {
        let mut view = view;
        for (index, &axis) in axes.iter().enumerate() {
            let (size, step) = (view.len_of(Axis(axis)) as i64, *steps.get(index)?);
            let from_front = |at: i64| if at < 0 { at.saturating_add(size) } else { at };
            let (start, end) = (from_front(*starts.get(index)?), from_front(*ends.get(index)?));
            // `ndarray` takes a range and, for a negative step, walks it from its end.
            let (first, past) = match step {
                0 => return None,
                1.. => (start.clamp(0, size), end.clamp(0, size)),
                _ => (end.clamp(-1, size - 1) + 1, start.clamp(-1, size - 1) + 1),
            };
            let range = Slice::new(first as isize, Some(past.max(first) as isize), step as isize);
            view.slice_axis_inplace(Axis(axis), range);
        }
        Some(view.to_owned())
    })
}

/// Copies along each axis, none if so said.
fn tile(x: &Array, repeats: &ArrayD<i64>) -> Option<Array> {
    moved!(x, |view| {
        let mut tiled = view.to_owned();
        for (axis, &count) in repeats.iter().enumerate() {
            let size = tiled.len_of(Axis(axis));
            let copies = 0..size * usize::try_from(count).ok()?;
            let places: Vec<usize> = copies.map(|place| place % size).collect();
            tiled = tiled.select(Axis(axis), &places);
        }
        Some(tiled)
    })
}

fn range(start: &Array, step: &Array, count: usize) -> Option<Array> {
    if let (Array::Int(start), Array::Int(step)) = (start, step) {
        let (start, step) = (*start.first()?, *step.first()?);
        let values = (0..count as i64).map(|index| start.wrapping_add(index.wrapping_mul(step)));
        return Some(Array::Int(values.collect::<Array1<_>>().into_dyn()));
    }
    let (start, step) = (*start.to_floats().first()?, *step.to_floats().first()?);
    let values = (0..count).map(|index| start + index as f64 * step);
    Some(Array::Float(values.collect::<Array1<_>>().into_dyn()))
}

fn one_hot(
    call: &Call<'_>,
    classes: &ArrayD<i64>,
    values: &Array,
    dims: &[usize],
) -> Option<Array> {
    let axis = normalize_axis(call.attributes.int("axis", -1), dims.len()).ok()?;
    let depth = dims[axis] as i64;
    let is_class = |place: IxDyn| {
        let class = place[axis] as i64;
        let rest: Vec<usize> =
            (0..dims.len()).filter(|&other| other != axis).map(|other| place[other]).collect();
        let wanted = classes[IxDyn(&rest)];
        wanted == class || wanted + depth == class
    };
    let places = ArrayD::from_shape_fn(IxDyn(dims), |place| usize::from(is_class(place)));
    moved!(values, |view| (view.len() == 2).then(|| places.mapv(|which| view[which])))
}

fn constant_of_shape(call: &Call<'_>, dims: &[usize]) -> Option<Array> {
    // A large fill is cheaper as a node than as bytes in the file.
    if dims.iter().product::<usize>() > 1024 {
        return None;
    }
    let value = match call.attributes.tensor("value") {
        Some(tensor) => Array::from_tensor(tensor)?,
        None => Array::Float(ArrayD::zeros(IxDyn(&[1]))),
    };
    moved!(value, |view| Some(ArrayD::from_elem(IxDyn(dims), *view.first()?)))
}

fn select(condition: &ArrayD<i64>, a: &Array, b: &Array, dims: &[usize]) -> Option<Array> {
    if let (Array::Int(a), Array::Int(b)) = (a, b) {
        let (a, b) = (a.broadcast(dims)?, b.broadcast(dims)?);
        let chosen =
            Zip::from(condition).and(a).and(b).map_collect(|&c, &a, &b| if c != 0 { a } else { b });
        return Some(Array::Int(chosen));
    }
    let (a, b) = (a.to_floats(), b.to_floats());
    let (a, b) = (a.broadcast(dims)?, b.broadcast(dims)?);
    let chosen =
        Zip::from(condition).and(a).and(b).map_collect(|&c, &a, &b| if c != 0 { a } else { b });
    Some(Array::Float(chosen))
}

fn reduce(op: &str, x: &Array, call: &Call<'_>, dims: &[usize]) -> Option<Array> {
    let rank = call.dims(0).ok()?.len();
    let axes = match call.axes(1, rank).ok()? {
        Some(axes) if !axes.is_empty() => axes,
        _ if call.attributes.flag("noop_with_empty_axes") => return Some(x.clone()),
        _ => (0..rank).collect(),
    };
    let Array::Int(array) = x else { return None };
    let mut result = array.clone();
    for axis in axes {
        let axis = Axis(axis);
        let reduced = match op {
            "ReduceProd" => result.fold_axis(axis, 1i64, |&a, &b| a.wrapping_mul(b)),
            "ReduceSum" => result.fold_axis(axis, 0i64, |&a, &b| a.wrapping_add(b)),
            "ReduceMax" => result.fold_axis(axis, i64::MIN, |&a, &b| a.max(b)),
            _ => result.fold_axis(axis, i64::MAX, |&a, &b| a.min(b)),
        };
        result = reduced.insert_axis(axis);
    }
    result.into_shape_with_order(dims).ok().map(Array::Int)
}

fn split(inputs: &[Option<Array>], call: &Call<'_>, types: &[Type]) -> Option<Vec<TensorData>> {
    let x = inputs.first()?.as_ref()?;
    let axis = normalize_axis(call.attributes.int("axis", 0), call.dims(0).ok()?.len()).ok()?;
    let mut start = 0;
    types
        .iter()
        .map(|output| {
            let end = start + output.dims[axis] as isize;
            let range = Slice::new(start, Some(end), 1);
            start = end;
            moved!(x, |view| Some(view.slice_axis(Axis(axis), range).to_owned()))?
                .into_tensor(output)
        })
        .collect()
}

fn unary(op: &str, x: &Array) -> Option<Array> {
    if let Array::Int(array) = x {
        let f: fn(i64) -> i64 = match op {
            "Neg" => i64::wrapping_neg,
            "Abs" => i64::wrapping_abs,
            "Not" => |value| i64::from(value == 0),
            "Sign" => i64::signum,
            _ => return None,
        };
        return Some(Array::Int(array.mapv(f)));
    }
    let f: fn(f64) -> f64 = match op {
        "Neg" => |value| -value,
        "Abs" => f64::abs,
        "Sqrt" => f64::sqrt,
        "Exp" => f64::exp,
        "Log" => f64::ln,
        "Floor" => f64::floor,
        "Ceil" => f64::ceil,
        "Round" => f64::round_ties_even,
        "Reciprocal" => f64::recip,
        "Sin" => f64::sin,
        "Cos" => f64::cos,
        _ => return None,
    };
    Some(Array::Float(x.to_floats().mapv(f)))
}

fn binary(op: &str, call: &Call<'_>, a: &Array, b: &Array, dims: &[usize]) -> Option<Array> {
    if let (Array::Int(a), Array::Int(b)) = (a, b) {
        let f: fn(i64, i64) -> Option<i64> = match op {
            "Add" => i64::checked_add,
            "Sub" => i64::checked_sub,
            "Mul" => i64::checked_mul,
            "Div" => i64::checked_div,
            "Mod" if call.attributes.flag("fmod") => i64::checked_rem,
            // The sign is the divisor's, as in Python.
            "Mod" => |a, b| {
                a.checked_rem(b).map(|r| if r != 0 && (r < 0) != (b < 0) { r + b } else { r })
            },
            "Pow" => |a, b| a.checked_pow(u32::try_from(b).ok()?),
            "Min" => |a, b| Some(a.min(b)),
            "Max" => |a, b| Some(a.max(b)),
            "Equal" => |a, b| Some(i64::from(a == b)),
            "Less" => |a, b| Some(i64::from(a < b)),
            "LessOrEqual" => |a, b| Some(i64::from(a <= b)),
            "Greater" => |a, b| Some(i64::from(a > b)),
            "GreaterOrEqual" => |a, b| Some(i64::from(a >= b)),
            "And" => |a, b| Some(i64::from(a != 0 && b != 0)),
            "Or" => |a, b| Some(i64::from(a != 0 || b != 0)),
            "Xor" => |a, b| Some(i64::from((a != 0) != (b != 0))),
            _ => return None,
        };
        let (a, b) = (a.broadcast(dims)?, b.broadcast(dims)?);
        let values: Option<Vec<i64>> = a.iter().zip(b.iter()).map(|(&a, &b)| f(a, b)).collect();
        return ArrayD::from_shape_vec(IxDyn(dims), values?).ok().map(Array::Int);
    }
    let (a, b) = (a.to_floats(), b.to_floats());
    let (a, b) = (a.broadcast(dims)?, b.broadcast(dims)?);
    let float = |f: fn(f64, f64) -> f64| {
        Some(Array::Float(Zip::from(&a).and(&b).map_collect(|&a, &b| f(a, b))))
    };
    let compare = |f: fn(&f64, &f64) -> bool| {
        Some(Array::Int(Zip::from(&a).and(&b).map_collect(|a, b| i64::from(f(a, b)))))
    };
    match op {
        "Add" => float(|a, b| a + b),
        "Sub" => float(|a, b| a - b),
        "Mul" => float(|a, b| a * b),
        "Div" => float(|a, b| a / b),
        "Pow" => float(f64::powf),
        "Min" => float(f64::min),
        "Max" => float(f64::max),
        "Equal" => compare(|a, b| a == b),
        "Less" => compare(|a, b| a < b),
        "LessOrEqual" => compare(|a, b| a <= b),
        "Greater" => compare(|a, b| a > b),
        "GreaterOrEqual" => compare(|a, b| a >= b),
        _ => None,
    }
}
