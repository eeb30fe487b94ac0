//! Pools: maxima, means and norms of windows.

use super::fused::may_fuse;
use super::window::{Window, sizes};
use super::{Composition, Gradients, Lowered, Node, Operator, Site, elements_to_make, only};
use crate::autodiff::{Forward, Mode};
use crate::graph::{Attributes, Builder, Call, Type, Value};
use crate::kernels;
use crate::onnx::{DataType, TensorData};

/// The most elements of a constant that a rule makes.
const LARGEST_TABLE: usize = 1 << 26;

pub(super) const OPERATORS: &[Operator] = &[
    Operator::lowered("MaxPool", pool_shape, max_pool_forward, max_pool),
    Operator::rule("AveragePool", pool_shape, average_pool),
    Operator::rule("GlobalAveragePool", global_shape, global_average_pool),
    Operator::rule("GlobalMaxPool", global_shape, global_max_pool),
    Operator::composed("LpPool", LP_POOL),
    Operator::composed("GlobalLpPool", GLOBAL_LP_POOL),
    Operator::composed("MaxUnpool", MAX_UNPOOL),
];

/// The spatial sizes: all axes but batch and channels.
fn spatial(dims: &[usize]) -> Result<&[usize], String> {
    match dims {
        [_, _, spatial @ ..] if !spatial.is_empty() => Ok(spatial),
        _ => Err(format!("{dims:?} has no batch, channels and spatial axes")),
    }
}

fn window(call: &Call<'_>) -> Result<Window, String> {
    let input = spatial(call.dims(0)?)?;
    let kernel = sizes(call, "kernel_shape", input.len(), 0)?;
    Window::new(call, kernel, input)
}

/// The number of places along each axis. With `ceil_mode` the last place may be over the edge, but
/// must start inside the input or the padding before it.
fn places(call: &Call<'_>, window: &Window) -> Result<Vec<usize>, String> {
    let input = spatial(call.dims(0)?)?;
    let mut places = window.places(input)?;
    if call.attributes.flag("ceil_mode") {
        for (axis, count) in places.iter_mut().enumerate() {
            let rest = window.padded(axis, input[axis]) - window.extent(axis);
            let rounded_up = rest.div_ceil(window.strides[axis]) + 1;
            let start = (rounded_up - 1) * window.strides[axis];
            *count = if start < input[axis] + window.pads_before[axis] {
                rounded_up
            } else {
                rounded_up - 1
            };
        }
    }
    Ok(places)
}

fn pool_shape(call: &Call<'_>) -> Result<Vec<Type>, String> {
    let window = window(call)?;
    let mut dims = call.dims(0)?[..2].to_vec();
    dims.extend(places(call, &window)?);
    let values = Type::new(call.data_type(0)?, dims.clone());
    Ok(vec![values, Type::new(DataType::Int64, dims)])
}

/// Whether where the maxima were is found again by the gradient.
fn looks_again(g: &Builder, x: Value, outputs: usize) -> bool {
    let axes = g.dims(x).len().saturating_sub(2);
    may_fuse(g, &[x]) && outputs == 1 && axes <= kernels::MOST_AXES
}

/// Training keeps where each maximum was, unless the gradient can do without.
fn max_pool_forward(forward: &mut Forward<'_>, node: &Node<'_>) -> Result<Lowered, String> {
    let attributes = node.attributes.clone();
    let again = looks_again(forward.graph, node.required(0)?, node.outputs);
    if forward.mode == Mode::Inference || again {
        let outputs = forward.graph.emit("MaxPool", node.inputs, attributes, node.outputs);
        return Ok(Lowered { outputs, saved: Vec::new() });
    }
    let pooled = forward.graph.emit("MaxPool", node.inputs, attributes.without("storage_order"), 2);
    let saved = vec![pooled.get(1).copied().unwrap_or(Value::REFUSED)];
    Ok(Lowered { outputs: pooled.into_iter().take(node.outputs).collect(), saved })
}

/// Each gradient goes to where the maximum was; the places count through the whole tensor.
fn max_pool(g: &mut Builder, at: &Site<'_>) -> Gradients {
    if at.saved.is_empty() {
        let window = window(&at.call(g))?;
        let ints = |values: &[usize]| values.iter().map(|&v| v as i64).collect::<Vec<_>>();
        let attributes = Attributes::none()
            .with("kernel_shape", ints(&window.kernel))
            .with("strides", ints(&window.strides))
            .with("dilations", ints(&window.dilations))
            .with("pads_before", ints(&window.pads_before));
        let inputs = [at.dy(), at.x(0), at.y(0)];
        return only(g.op(kernels::MAX_POOL_GRADIENT, &inputs, attributes));
    }
    let dims = g.dims(at.x(0)).to_vec();
    let indices = at.saved.first().copied().unwrap_or(Value::REFUSED);
    let count = g.value_type(at.dy()).elements();
    let flat_indices = g.reshape(indices, &[count]);
    let flat = g.reshape(at.dy(), &[count]);
    let data_type = g.data_type(flat);
    let zeros = g.fill(0.0, data_type, &[dims.iter().product()]);
    let attributes = Builder::along(0).with("reduction", "add");
    let scattered = g.op("ScatterElements", &[zeros, flat_indices, flat], attributes);
    only(g.reshape(scattered, &dims))
}

/// Each gradient is spread evenly over its window: a transposed convolution with a kernel of ones,
/// of each channel by itself.
fn average_pool(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let call = at.call(g);
    let (window, include_pads) = (window(&call)?, at.attributes.flag("count_include_pad"));
    let dims = g.dims(at.x(0)).to_vec();
    let (input, output) = (spatial(&dims)?.to_vec(), spatial(g.dims(at.dy()))?.to_vec());
    if output.iter().product::<usize>() > LARGEST_TABLE {
        return Err(format!("{output:?} windows are too many"));
    }
    let shares = shares(&window, &input, &output, include_pads);
    let shares = TensorData::from_f64(g.data_type(at.dy()), &output, &shares);
    let shares = g.constant(shares);
    let dy = g.mul(at.dy(), shares);
    let rank = input.len();
    let tiles = (0..rank).all(|axis| {
        window.extent(axis) == window.strides[axis]
            && input[axis] == output[axis] * window.strides[axis]
    });
    if tiles && window.dilations.iter().all(|&dilation| dilation == 1) {
        return only(spread_tiles(g, dy, &dims, &window.strides));
    }
    let images = dims[0] * dims[1];
    let single = |sizes: &[usize]| [&[images, 1], sizes].concat();
    let one_channel = g.reshape(dy, &single(&output));
    let kernel = [&[1, 1], window.kernel.as_slice()].concat();
    let data_type = g.data_type(dy);
    let ones = g.fill(1.0, data_type, &kernel);
    let ints = |values: &[usize]| values.iter().map(|&v| v as i64).collect::<Vec<_>>();
    let attributes = Attributes::none()
        .with("strides", ints(&window.strides))
        .with("dilations", ints(&window.dilations));
    let spread = g.op("ConvTranspose", &[one_channel, ones], attributes);
    // The padding is cut off; windows may have left out the end of the input or gone beyond it.
    let full = g.dims(spread)[2..].to_vec();
    let mut gradient = spread;
    let mut after = vec![0; rank + 2];
    for axis in 0..rank {
        let start = window.pads_before[axis];
        let end = full[axis].min(start + input[axis]);
        gradient = g.slice(gradient, axis + 2, start as i64, end as i64, 1);
        after[axis + 2] = (input[axis] - (end - start)) as i64;
    }
    let gradient = g.pad(gradient, &vec![0; rank + 2], &after);
    only(g.reshape(gradient, &dims))
}

/// One over the number of elements that each window averages. Padding counts if said so, but not
/// what `ceil_mode` adds beyond it.
fn shares(window: &Window, input: &[usize], output: &[usize], include_pads: bool) -> Vec<f64> {
    let count = |axis: usize, place: usize| -> usize {
        let (first, last) = if include_pads {
            (0, window.padded(axis, input[axis]))
        } else {
            (window.pads_before[axis], window.pads_before[axis] + input[axis])
        };
        let start = place * window.strides[axis];
        (0..window.kernel[axis])
            .map(|tap| start + tap * window.dilations[axis])
            .filter(|at| (first..last).contains(at))
            .count()
    };
    let mut shares = vec![1.0];
    for (axis, &places) in output.iter().enumerate() {
        let counts: Vec<f64> = (0..places).map(|place| count(axis, place) as f64).collect();
        shares =
            shares.iter().flat_map(|share| counts.iter().map(move |count| share / count)).collect();
    }
    shares
}

/// Copies each element over its tile, where tiles cover the input exactly.
fn spread_tiles(g: &mut Builder, dy: Value, dims: &[usize], tile: &[usize]) -> Value {
    let (mut thin, mut wide) = (dims[..2].to_vec(), dims[..2].to_vec());
    for (axis, &size) in tile.iter().enumerate() {
        let places = dims[axis + 2] / size;
        thin.extend([places, 1]);
        wide.extend([places, size]);
    }
    let thin = g.reshape(dy, &thin);
    let copies = g.expand(thin, &wide);
    g.reshape(copies, dims)
}

fn global_shape(call: &Call<'_>) -> Result<Vec<Type>, String> {
    let dims = call.dims(0)?;
    spatial(dims)?;
    let reduced: Vec<usize> =
        dims.iter().enumerate().map(|(axis, &size)| if axis < 2 { size } else { 1 }).collect();
    Ok(vec![Type::new(call.data_type(0)?, reduced)])
}

fn global_average_pool(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let dims = g.dims(at.x(0)).to_vec();
    let area: usize = dims[2..].iter().product();
    let share = g.scale(at.dy(), 1.0 / area as f64);
    only(g.expand(share, &dims))
}

/// The gradient goes to the first of the largest elements.
fn global_max_pool(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let dims = g.dims(at.x(0)).to_vec();
    let area: usize = dims[2..].iter().product();
    if area > LARGEST_TABLE {
        return Err(format!("{area} elements are too many"));
    }
    let flat = [dims[0], dims[1], area];
    let x = g.reshape(at.x(0), &flat);
    let place = g.op("ArgMax", &[x], Builder::along(2).with("keepdims", 1));
    let places: Vec<i64> = (0..area as i64).collect();
    let places = g.ints(&places);
    let is_place = g.binary("Equal", places, place);
    let dy = g.reshape(at.dy(), &[dims[0], dims[1], 1]);
    let zero = g.scalar(0.0, dy);
    let gradient = g.select(is_place, dy, zero);
    only(g.reshape(gradient, &dims))
}

/// A norm: the root of the sum of powers.
#[derive(Clone, Copy)]
struct Norm(i64);

impl Norm {
    fn of(node: &Node<'_>) -> Result<Self, String> {
        match node.attributes.int("p", 2) {
            p if p > 0 => Ok(Self(p)),
            p => Err(format!("its `p` is {p}")),
        }
    }

    fn powers(self, forward: &mut Forward<'_>, x: Value) -> Result<Value, String> {
        if self.0 == 2 {
            return forward.binary("Mul", x, x);
        }
        let sizes = forward.apply("Abs", &[Some(x)], Attributes::none())?;
        if self.0 == 1 {
            return Ok(sizes);
        }
        let exponent = forward.graph.scalar(self.0 as f64, x);
        forward.binary("Pow", sizes, exponent)
    }

    /// The root of sums of powers; where these are 0 so is the gradient.
    fn root(self, forward: &mut Forward<'_>, sums: Value) -> Result<Value, String> {
        if self.0 == 1 {
            return Ok(sums);
        }
        let [zero, one] = [0.0, 1.0].map(|value| forward.graph.scalar(value, sums));
        let is_there = forward.graph.binary("Greater", sums, zero);
        let inputs = [is_there, sums, one].map(Some);
        let usable = forward.apply("Where", &inputs, Attributes::none())?;
        let root = if self.0 == 2 {
            forward.apply("Sqrt", &[Some(usable)], Attributes::none())?
        } else {
            let exponent = forward.graph.scalar(1.0 / self.0 as f64, sums);
            forward.binary("Pow", usable, exponent)?
        };
        forward.apply("Where", &[is_there, root, zero].map(Some), Attributes::none())
    }
}

/// Sums of powers are means times the size of the window, once zeros around the input make all windows
/// whole.
const LP_POOL: Composition = |forward, node| {
    let call = node.call(forward.graph);
    let (norm, window) = (Norm::of(node)?, window(&call)?);
    let (input, places) = (spatial(call.dims(0)?)?.to_vec(), places(&call, &window)?);
    let elements = elements_to_make(&window.kernel)?;
    let after = (0..input.len()).map(|axis| {
        let covered = (places[axis].max(1) - 1) * window.strides[axis] + window.extent(axis);
        covered.saturating_sub(window.pads_before[axis] + input[axis])
    });
    let after: Vec<usize> = after.collect();
    let ints = |sizes: &[usize]| sizes.iter().map(|&size| size as i64).collect::<Vec<_>>();
    let mut powers = norm.powers(forward, node.required(0)?)?;
    if window.pads_before.iter().chain(&after).any(|&size| size > 0) {
        let pads = [vec![0, 0], ints(&window.pads_before), vec![0, 0], ints(&after)].concat();
        let pads = forward.graph.ints(&pads);
        powers = forward.binary("Pad", powers, pads)?;
    }
    let attributes = Attributes::none()
        .with("kernel_shape", ints(&window.kernel))
        .with("strides", ints(&window.strides))
        .with("dilations", ints(&window.dilations));
    let means = forward.apply("AveragePool", &[Some(powers)], attributes)?;
    let elements = forward.graph.scalar(elements as f64, means);
    let sums = forward.binary("Mul", means, elements)?;
    Ok(vec![norm.root(forward, sums)?])
};

const GLOBAL_LP_POOL: Composition = |forward, node| {
    let (norm, x) = (Norm::of(node)?, node.required(0)?);
    global_shape(&node.call(forward.graph))?;
    let powers = norm.powers(forward, x)?;
    let axes: Vec<usize> = (2..forward.graph.dims(x).len()).collect();
    let axes = forward.graph.sizes(&axes);
    let keep = Attributes::none().with("keepdims", 1);
    let sums = forward.apply("ReduceSum", &[Some(powers), Some(axes)], keep)?;
    Ok(vec![norm.root(forward, sums)?])
};

/// Each element goes to its place, counted through the whole output, as in PyTorch's `max_unpool2d` and
/// in ONNX Runtime, where the reference of ONNX counts through the output without `output_shape`.
const MAX_UNPOOL: Composition = |forward, node| {
    let (x, indices) = (node.required(0)?, node.required(1)?);
    let call = node.call(forward.graph);
    let dims = call.dims(0)?.to_vec();
    let window = window(&call)?;
    let output = if call.input(2).is_some() {
        call.sizes(2)?
    } else {
        let sizes = spatial(&dims)?.iter().enumerate().map(|(axis, &size)| {
            let covered = (size.max(1) - 1) * window.strides[axis] + window.kernel[axis];
            covered.saturating_sub(window.pads_before[axis] + window.pads_after[axis])
        });
        dims[..2].iter().copied().chain(sizes).collect()
    };
    if output.len() != dims.len() || call.dims(1)? != dims {
        let places = call.dims(1)?;
        return Err(format!("elements {dims:?} at places {places:?} do not fit {output:?}"));
    }
    let (count, elements) = (dims.iter().product(), elements_to_make(&output)?);
    let places = forward.reshape(indices, &[count])?;
    let values = forward.reshape(x, &[count])?;
    let data_type = forward.graph.data_type(x);
    let zeros = forward.graph.fill(0.0, data_type, &[elements]);
    let inputs = [zeros, places, values].map(Some);
    let flat = forward.apply("ScatterElements", &inputs, Builder::along(0))?;
    Ok(vec![forward.reshape(flat, &output)?])
};
