//! Convolutions and their transposes, over any number of spatial axes.

use super::fused::may_fuse;
use super::window::{Window, sizes};
use super::{Gradients, Lowered, Node, Operator, Site};
use crate::autodiff::{Forward, Mode};
use crate::graph::{Attributes, Builder, Call, Transposed, Type, Value};
use crate::kernels;

pub(super) const OPERATORS: &[Operator] = &[
    Operator::lowered("Conv", conv_shape, conv_forward, conv),
    Operator::rule("ConvTranspose", conv_transpose_shape, conv_transpose),
];

/// Kernels of more places than this are differentiated by one convolution instead of one product
/// per place.
const MOST_TAPS: usize = 49;

/// Operators of this crate's own.
struct Own {
    forward: &'static str,
    by_input: &'static str,
    by_weight: &'static str,
}

/// A convolution with everything that its attributes leave open filled in.
#[derive(Debug)]
struct Convolution {
    window: Window,
    groups: usize,
}

impl Convolution {
    /// The attributes of this crate's own convolutions, with the sizes `given`.
    fn fused_attributes(&self, given: &str, sizes: &[usize]) -> Attributes {
        let ints = |values: &[usize]| values.iter().map(|&v| v as i64).collect::<Vec<_>>();
        let attributes = Attributes::none().with("strides", ints(&self.window.strides));
        let attributes = match self.groups {
            1 => attributes,
            _ => attributes.with("dilations", ints(&self.window.dilations)),
        };
        attributes.with("pads_before", ints(&self.window.pads_before)).with(given, ints(sizes))
    }

    /// The operators of this crate's own that it may be: for one group, or for one per channel.
    fn fused(&self, g: &Builder, values: &[Value], channels: usize, filters: usize) -> Option<Own> {
        let window = &self.window;
        let fits = may_fuse(g, values)
            && (1..=2).contains(&window.kernel.len())
            && window.kernel.iter().all(|&size| size > 0)
            && values.iter().all(|&value| g.value_type(value).elements() > 0);
        if !fits {
            return None;
        }
        let dense = self.groups == 1 && window.dilations.iter().all(|&dilation| dilation == 1);
        if dense {
            return Some(Own {
                forward: kernels::CONV,
                by_input: kernels::CONV_INPUT_GRADIENT,
                by_weight: kernels::CONV_WEIGHT_GRADIENT,
            });
        }
        let apart = self.groups > 1 && self.groups == channels && self.groups == filters;
        apart.then_some(Own {
            forward: kernels::DEPTHWISE,
            by_input: kernels::DEPTHWISE_INPUT_GRADIENT,
            by_weight: kernels::DEPTHWISE_WEIGHT_GRADIENT,
        })
    }

    fn attributes(&self) -> Attributes {
        let ints = |values: &[usize]| values.iter().map(|&v| v as i64).collect::<Vec<_>>();
        let window = &self.window;
        let pads = [ints(&window.pads_before), ints(&window.pads_after)].concat();
        Attributes::none()
            .with("kernel_shape", ints(&window.kernel))
            .with("strides", ints(&window.strides))
            .with("dilations", ints(&window.dilations))
            .with("pads", pads)
            .with("group", self.groups as i64)
    }
}

fn groups(call: &Call<'_>) -> Result<usize, String> {
    let groups = usize::try_from(call.attributes.int("group", 1)).unwrap_or(0);
    if groups == 0 { Err("the number of groups is not positive".to_owned()) } else { Ok(groups) }
}

/// Batch, channels and spatial sizes.
fn split_dims(dims: &[usize]) -> Result<(usize, usize, &[usize]), String> {
    match dims {
        [batch, channels, spatial @ ..] if !spatial.is_empty() => Ok((*batch, *channels, spatial)),
        _ => Err(format!("{dims:?} has no batch, channels and spatial axes")),
    }
}

fn convolution(call: &Call<'_>) -> Result<Convolution, String> {
    let (_, channels, spatial) = split_dims(call.dims(0)?)?;
    let weight = call.dims(1)?;
    let (filters, inner, kernel) = split_dims(weight)?;
    let groups = groups(call)?;
    if inner * groups != channels || filters % groups != 0 {
        return Err(format!(
            "weights {weight:?} in {groups} groups do not fit {channels} channels"
        ));
    }
    Ok(Convolution { window: Window::new(call, kernel.to_vec(), spatial)?, groups })
}

fn conv_shape(call: &Call<'_>) -> Result<Vec<Type>, String> {
    let (batch, _, spatial) = split_dims(call.dims(0)?)?;
    let convolution = convolution(call)?;
    let mut dims = vec![batch, call.dims(1)?[0]];
    dims.extend(convolution.window.places(spatial)?);
    Ok(vec![Type::new(call.data_type(0)?, dims)])
}

fn conv_forward(forward: &mut Forward<'_>, node: &Node<'_>) -> Result<Lowered, String> {
    let (x, w) = (node.required(0)?, node.required(1)?);
    let types = conv_shape(&node.call(forward.graph))?;
    let convolution = convolution(&node.call(forward.graph))?;
    let g = &mut *forward.graph;
    let (channels, filters) = (g.dims(x)[1], g.dims(w)[0]);
    let own = convolution.fused(g, &[x, w], channels, filters);
    let outputs = if let (Mode::Training, Some(own)) = (forward.mode, own) {
        let bias = node.input(2).unwrap_or_else(|| {
            let data_type = g.data_type(w);
            g.fill(0.0, data_type, &[filters])
        });
        let attributes = convolution.fused_attributes("places", &types[0].dims[2..]);
        vec![g.op(own.forward, &[x, w, bias], attributes)]
    } else {
        // With the padding in numbers: ONNX Runtime refuses `auto_pad` beside dilations.
        g.emit("Conv", node.inputs, convolution.attributes(), 1)
    };
    Ok(Lowered { outputs, saved: Vec::new() })
}

/// The gradients of a convolution are convolutions (Dumoulin and Visin 2016, "A guide to
/// convolution arithmetic for deep learning").
fn conv(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let convolution = convolution(&at.call(g))?;
    let (x, w, dy) = (at.x(0), at.x(1), at.dy());
    let (channels, filters) = (g.dims(x)[1], g.dims(w)[0]);
    let (dx, dw) = if let Some(own) = convolution.fused(g, &[x, w, dy], channels, filters) {
        let size = g.dims(x)[2..].to_vec();
        let by_input = convolution.fused_attributes("input", &size);
        let by_weight = convolution.fused_attributes("kernel_shape", &convolution.window.kernel);
        (g.op(own.by_input, &[dy, w], by_input), g.op(own.by_weight, &[dy, x], by_weight))
    } else {
        (input_gradient(g, &convolution, x, w, dy), weight_gradient(g, &convolution, x, dy, w))
    };
    Ok(vec![Some(dx), Some(dw), at.input(2).map(|_| bias_gradient(g, dy))])
}

fn bias_gradient(g: &mut Builder, dy: Value) -> Value {
    let dims = g.dims(dy).to_vec();
    // In two stages: the first one reads memory in its order.
    let flat = g.reshape(dy, &[dims[0], dims[1], dims[2..].iter().product()]);
    let rows = g.reduce_sum(flat, &[2]);
    let sum = g.reduce_sum(rows, &[0]);
    g.reshape(sum, &[dims[1]])
}

/// With stride 1 a convolution with the kernel turned around, which has the fastest kernels; with
/// other strides the transposed convolution.
fn input_gradient(
    g: &mut Builder,
    convolution: &Convolution,
    x: Value,
    w: Value,
    dy: Value,
) -> Value {
    let window = &convolution.window;
    let rank = window.kernel.len();
    let input = g.dims(x)[2..].to_vec();
    let output = g.dims(dy)[2..].to_vec();
    let reach = |axis: usize| window.extent(axis) - 1;
    let plain = (0..rank).all(|axis| {
        window.strides[axis] == 1
            && window.pads_before[axis] <= reach(axis)
            && window.pads_after[axis] <= reach(axis)
    });
    if plain {
        let turned = Convolution {
            window: Window {
                pads_before: (0..rank).map(|a| reach(a) - window.pads_before[a]).collect(),
                pads_after: (0..rank).map(|a| reach(a) - window.pads_after[a]).collect(),
                ..window.clone()
            },
            groups: convolution.groups,
        };
        let kernel = turned_kernel(g, w, convolution.groups);
        return g.op("Conv", &[dy, kernel], turned.attributes());
    }
    // What the strides skipped at the end of the input.
    let rest: Vec<i64> = (0..rank)
        .map(|axis| {
            let covered = (output[axis] - 1) * window.strides[axis] + window.extent(axis);
            window.padded(axis, input[axis]) as i64 - covered as i64
        })
        .collect();
    g.op("ConvTranspose", &[dy, w], convolution.attributes().with("output_padding", rest))
}

/// The kernel with its places in reverse order, and the roles of input and output channels
/// exchanged within each group.
fn turned_kernel(g: &mut Builder, w: Value, groups: usize) -> Value {
    let dims = g.dims(w).to_vec();
    let (filters, inner, kernel) = (dims[0], dims[1], &dims[2..]);
    let rank = kernel.len();
    let mut grouped = vec![groups, filters / groups, inner];
    grouped.extend(kernel);
    let mut order: Vec<usize> = (0..grouped.len()).collect();
    order.swap(1, 2);
    let split = g.reshape(w, &grouped);
    let exchanged = g.transpose(split, &order);
    let mut joined = vec![groups * inner, filters / groups];
    joined.extend(kernel);
    let exchanged = g.reshape(exchanged, &joined);
    if kernel.iter().all(|&size| size == 1) {
        return exchanged;
    }
    let spatial: Vec<i64> = (2..2 + rank as i64).collect();
    let (starts, ends) = (g.ints(&vec![-1; rank]), g.ints(&vec![i64::MIN; rank]));
    let (axes, steps) = (g.ints(&spatial), g.ints(&vec![-1; rank]));
    g.op("Slice", &[exchanged, starts, ends, axes, steps], Attributes::none())
}

/// The gradient of the kernel `w` of a convolution that made `dy`'s value of `x`.
fn weight_gradient(
    g: &mut Builder,
    convolution: &Convolution,
    x: Value,
    dy: Value,
    w: Value,
) -> Value {
    let window = &convolution.window;
    let (before, after) = paddings(window);
    let padded = g.pad(x, &before, &after);
    let dims = g.dims(w).to_vec();
    let depthwise = dims[1] == 1 && dims[0] == convolution.groups;
    if depthwise {
        return depthwise_weight_gradient(g, window, padded, dy, &dims);
    }
    if window.taps().len() > MOST_TAPS && convolution.groups == 1 {
        return weight_gradient_by_convolution(g, window, padded, dy, &dims);
    }
    // For each place in the kernel, the product of two matrices over all batch places.
    let groups = convolution.groups;
    let x_first = channels_first(g, padded);
    let dy_first = channels_first(g, dy);
    let dy_dims = g.dims(dy_first).to_vec();
    let columns: usize = dy_dims[1..].iter().product();
    let dy_matrix = g.reshape(dy_first, &[dims[0], columns]);
    let dy_groups = g.reshape(dy_matrix, &[groups, dims[0] / groups, columns]);
    let taps: Vec<Value> = window
        .taps()
        .iter()
        .map(|tap| {
            let part = at_tap(g, window, x_first, tap, &dy_dims[2..]);
            if groups == 1 {
                let part = g.reshape(part, &[dims[1], columns]);
                let product = g.gemm((dy_matrix, Transposed::No), (part, Transposed::Yes));
                return g.reshape(product, &[dims[0], dims[1], 1]);
            }
            let part = g.reshape(part, &[groups, dims[1], columns]);
            let part = g.swap_last_two(part);
            let product = g.matmul(dy_groups, part);
            g.reshape(product, &[dims[0], dims[1], 1])
        })
        .collect();
    let joined = g.concat(&taps, 2);
    g.reshape(joined, &dims)
}

fn paddings(window: &Window) -> (Vec<i64>, Vec<i64>) {
    let pads = |sizes: &[usize]| -> Vec<i64> {
        [0, 0].into_iter().chain(sizes.iter().map(|&size| size as i64)).collect()
    };
    (pads(&window.pads_before), pads(&window.pads_after))
}

fn channels_first(g: &mut Builder, x: Value) -> Value {
    let mut order: Vec<usize> = (0..g.dims(x).len()).collect();
    order.swap(0, 1);
    g.transpose(x, &order)
}

/// What the kernel's place `tap` sees of the padded input, whose spatial axes start at 2.
fn at_tap(
    g: &mut Builder,
    window: &Window,
    padded: Value,
    tap: &[usize],
    places: &[usize],
) -> Value {
    let rank = tap.len();
    let start: Vec<i64> =
        (0..rank).map(|axis| (tap[axis] * window.dilations[axis]) as i64).collect();
    let end: Vec<i64> = (0..rank)
        .map(|axis| start[axis] + ((places[axis] - 1) * window.strides[axis] + 1) as i64)
        .collect();
    let whole = (0..rank).all(|axis| {
        start[axis] == 0
            && end[axis] == g.dims(padded)[axis + 2] as i64
            && window.strides[axis] == 1
    });
    if whole {
        return padded;
    }
    let steps: Vec<i64> = window.strides.iter().map(|&stride| stride as i64).collect();
    let spatial: Vec<i64> = (2..2 + rank as i64).collect();
    let (start, end) = (g.ints(&start), g.ints(&end));
    let (axes, steps) = (g.ints(&spatial), g.ints(&steps));
    g.op("Slice", &[padded, start, end, axes, steps], Attributes::none())
}

/// One filter per channel: products of images, summed.
fn depthwise_weight_gradient(
    g: &mut Builder,
    window: &Window,
    padded: Value,
    dy: Value,
    dims: &[usize],
) -> Value {
    let dy_dims = g.dims(dy).to_vec();
    let area: usize = dy_dims[2..].iter().product();
    let taps: Vec<Value> = window
        .taps()
        .iter()
        .map(|tap| {
            let part = at_tap(g, window, padded, tap, &dy_dims[2..]);
            let product = g.mul(part, dy);
            let flat = g.reshape(product, &[dy_dims[0], dy_dims[1], area]);
            let rows = g.reduce_sum(flat, &[2]);
            let sum = g.reduce_sum(rows, &[0]);
            g.reshape(sum, &[dims[0], 1, 1])
        })
        .collect();
    let joined = g.concat(&taps, 2);
    g.reshape(joined, dims)
}

/// The convolution of the inputs with the gradients as kernels: batch and channels change roles,
/// and so do strides and dilations.
fn weight_gradient_by_convolution(
    g: &mut Builder,
    window: &Window,
    padded: Value,
    dy: Value,
    dims: &[usize],
) -> Value {
    let x_first = channels_first(g, padded);
    let dy_first = channels_first(g, dy);
    let rank = window.kernel.len();
    let exchanged = Convolution {
        window: Window {
            kernel: g.dims(dy_first)[2..].to_vec(),
            strides: window.dilations.clone(),
            dilations: window.strides.clone(),
            pads_before: vec![0; rank],
            pads_after: vec![0; rank],
        },
        groups: 1,
    };
    let mut gradient = g.op("Conv", &[x_first, dy_first], exchanged.attributes());
    for axis in 0..rank {
        if g.dims(gradient)[axis + 2] > dims[axis + 2] {
            gradient = g.slice(gradient, axis + 2, 0, dims[axis + 2] as i64, 1);
        }
    }
    channels_first(g, gradient)
}

/// The convolution whose input gradient a transposed convolution computes: from the transposed
/// one's output to its input.
fn transposed(call: &Call<'_>) -> Result<(Convolution, Vec<usize>), String> {
    let (_, channels, spatial) = split_dims(call.dims(0)?)?;
    let weight = call.dims(1)?;
    let (filters, _, kernel) = split_dims(weight)?;
    let groups = groups(call)?;
    if filters != channels || filters % groups != 0 {
        return Err(format!(
            "weights {weight:?} in {groups} groups do not fit {channels} channels"
        ));
    }
    let rank = kernel.len();
    if rank != spatial.len() {
        return Err(format!("weights {weight:?} do not fit {} spatial axes", spatial.len()));
    }
    let strides = sizes(call, "strides", rank, 1)?;
    let extra = sizes(call, "output_padding", rank, 0)?;
    let dilations = sizes(call, "dilations", rank, 1)?;
    let pads = sizes(call, "pads", 2 * rank, 0)?;
    let mut window = Window {
        kernel: kernel.to_vec(),
        strides,
        dilations,
        pads_before: pads[..rank].to_vec(),
        pads_after: pads[rank..].to_vec(),
    };
    let mode = call.attributes.text("auto_pad", "NOTSET");
    let wanted = match call.attributes.ints("output_shape") {
        Some(wanted) => Some(wanted.iter().map(|&size| size as usize).collect::<Vec<_>>()),
        None if mode.starts_with("SAME") => {
            Some((0..rank).map(|axis| spatial[axis] * window.strides[axis]).collect())
        }
        None => None,
    };
    let mut output = Vec::with_capacity(rank);
    for axis in 0..rank {
        let full =
            (spatial[axis].max(1) - 1) * window.strides[axis] + extra[axis] + window.extent(axis);
        if let Some(wanted) = &wanted {
            let size = *wanted.get(axis).ok_or("output_shape has too few sizes")?;
            let total = full.saturating_sub(size);
            // ONNX: the larger half goes after the data for SAME_UPPER, before it otherwise.
            let (before, after) = if mode == "SAME_UPPER" {
                (total / 2, total - total / 2)
            } else {
                (total - total / 2, total / 2)
            };
            (window.pads_before[axis], window.pads_after[axis]) = (before, after);
            output.push(size);
        } else {
            let pads = window.pads_before[axis] + window.pads_after[axis];
            output.push(full.checked_sub(pads).ok_or("the padding exceeds the output")?);
        }
    }
    Ok((Convolution { window, groups }, output))
}

fn conv_transpose_shape(call: &Call<'_>) -> Result<Vec<Type>, String> {
    let (convolution, spatial) = transposed(call)?;
    let mut dims = vec![call.dims(0)?[0], call.dims(1)?[1] * convolution.groups];
    dims.extend(spatial);
    Ok(vec![Type::new(call.data_type(0)?, dims)])
}

/// The convolution backwards: its input gradient is the convolution itself, and in its weight
/// gradient input and output change roles.
fn conv_transpose(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let (convolution, _) = transposed(&at.call(g))?;
    let (x, w, dy) = (at.x(0), at.x(1), at.dy());
    let dx = g.op("Conv", &[dy, w], convolution.attributes());
    let dw = weight_gradient(g, &convolution, dy, x, w);
    Ok(vec![Some(dx), Some(dw), at.input(2).map(|_| bias_gradient(g, dy))])
}
