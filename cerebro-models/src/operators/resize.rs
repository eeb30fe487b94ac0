//! Resizing of images: each axis is a linear map, whose transpose is the gradient.

use super::{Gradients, Operator, Site};
use crate::graph::{Builder, Call, Type, Value};
use crate::onnx::TensorData;

pub(super) const OPERATORS: &[Operator] = &[Operator::rule("Resize", resize_shape, resize)];

/// The most elements of the matrix of an axis.
const LARGEST_MAP: usize = 1 << 26;

/// How one axis is resized.
#[derive(Clone, Copy, Debug)]
struct Resized {
    axis: usize,
    input: usize,
    output: usize,
    scale: f64,
}

/// The axes that are resized.
fn resized(call: &Call<'_>) -> Result<Vec<Resized>, String> {
    let dims = call.dims(0)?;
    let axes: Vec<usize> = match call.attributes.ints("axes") {
        Some(axes) => axes
            .iter()
            .map(|&axis| crate::graph::normalize_axis(axis, dims.len()))
            .collect::<Result<_, _>>()?,
        None => (0..dims.len()).collect(),
    };
    if call.attributes.text("keep_aspect_ratio_policy", "stretch") != "stretch" {
        return Err("keep_aspect_ratio_policy should be `stretch`".to_owned());
    }
    let is_given = |index: usize| {
        call.input(index).is_some() && call.value_type(index).is_ok_and(|t| t.elements() > 0)
    };
    let mut all = Vec::with_capacity(axes.len());
    if is_given(3) {
        let sizes = call.ints(3)?;
        for (&axis, &size) in axes.iter().zip(&sizes) {
            let (input, output) = (dims[axis], usize::try_from(size).unwrap_or(0));
            all.push(Resized { axis, input, output, scale: output as f64 / input as f64 });
        }
    } else if is_given(2) {
        let scales = call.constant(2)?.to_f64s();
        for (&axis, &scale) in axes.iter().zip(&scales) {
            let input = dims[axis];
            all.push(Resized {
                axis,
                input,
                output: (input as f64 * scale).floor() as usize,
                scale,
            });
        }
    } else {
        return Err("it has neither scales nor sizes".to_owned());
    }
    if all.len() != axes.len() {
        return Err(format!("{} axes and {} sizes or scales", axes.len(), all.len()));
    }
    let is_odd = |r: &&Resized| r.input == 0 || r.output == 0 || !r.scale.is_finite();
    match all.iter().find(is_odd) {
        Some(Resized { axis, input, output, scale }) => Err(format!(
            "axis {axis} cannot be resized from {input} to {output} elements (scale {scale})"
        )),
        None => Ok(all),
    }
}

fn resize_shape(call: &Call<'_>) -> Result<Vec<Type>, String> {
    let mut dims = call.dims(0)?.to_vec();
    for resized in resized(call)? {
        dims[resized.axis] = resized.output;
    }
    Ok(vec![Type::new(call.data_type(0)?, dims)])
}

fn resize(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let call = at.call(g);
    let mut maps = Vec::new();
    for resized in resized(&call)? {
        if resized.input != resized.output || (resized.scale - 1.0).abs() > f64::EPSILON {
            maps.push((resized, weights(&call, resized)?));
        }
    }
    let mut gradient = at.dy();
    for (resized, weights) in maps {
        gradient = transposed_map(g, gradient, resized, &weights);
    }
    let mut gradients = vec![None; at.inputs.len()];
    if let Some(first) = gradients.first_mut() {
        *first = Some(gradient);
    }
    Ok(gradients)
}

/// Applies the transpose of the map of one axis.
fn transposed_map(g: &mut Builder, dy: Value, resized: Resized, weights: &[f64]) -> Value {
    let Resized { axis, input, output, .. } = resized;
    let dims = g.dims(dy).to_vec();
    if let Some(copies) = repetition(resized, weights) {
        let mut split = dims[..axis].to_vec();
        split.extend([input, copies]);
        split.extend(&dims[axis + 1..]);
        let split = g.reshape(dy, &split);
        let sum = g.reduce_sum(split, &[axis + 1]);
        let mut joined = dims;
        joined[axis] = input;
        return g.reshape(sum, &joined);
    }
    let map = TensorData::from_f64(g.data_type(dy), &[output, input], weights);
    let map = g.constant(map);
    let mut order: Vec<usize> = (0..dims.len()).filter(|&other| other != axis).collect();
    order.push(axis);
    let moved = g.transpose(dy, &order);
    let product = g.matmul(moved, map);
    let mut inverse = vec![0; order.len()];
    for (to, from) in order.into_iter().enumerate() {
        inverse[from] = to;
    }
    g.transpose(product, &inverse)
}

/// How often each element is repeated, if that is all the map does.
fn repetition(Resized { input, output, .. }: Resized, weights: &[f64]) -> Option<usize> {
    let copies = output.checked_div(input).filter(|copies| copies * input == output)?;
    let repeats = weights.iter().enumerate().all(|(index, &weight)| {
        let (to, from) = (index / input, index % input);
        weight == f64::from(to / copies == from)
    });
    repeats.then_some(copies)
}

/// The map of one axis as a matrix of output by input.
fn weights(call: &Call<'_>, resized: Resized) -> Result<Vec<f64>, String> {
    let Resized { input, output, .. } = resized;
    if output.saturating_mul(input) > LARGEST_MAP {
        return Err(format!("a map from {input} to {output} elements is too large"));
    }
    let mut matrix = vec![0.0; output * input];
    for to in 0..output {
        let source = coordinate(call, resized, to)?;
        let row = &mut matrix[to * input..(to + 1) * input];
        if call.attributes.flag("antialias") {
            antialiased(call, source, resized.scale.min(1.0), row)?;
            continue;
        }
        match call.attributes.text("mode", "nearest") {
            "nearest" => row[nearest(call, source, input)?] = 1.0,
            "linear" => {
                let source = source.clamp(0.0, input as f64 - 1.0);
                let below = source.floor();
                let share = source - below;
                row[below as usize] += 1.0 - share;
                row[(below as usize + 1).min(input - 1)] += share;
            }
            "cubic" => cubic(call, source, row),
            other => return Err(format!("mode `{other}` is unknown")),
        }
    }
    Ok(matrix)
}

/// Where in the input the output's element `to` lies (the formulas are those of ONNX's `Resize`).
fn coordinate(call: &Call<'_>, resized: Resized, to: usize) -> Result<f64, String> {
    let Resized { input, output, scale, .. } = resized;
    let to = to as f64;
    let mode = call.attributes.text("coordinate_transformation_mode", "half_pixel");
    Ok(match mode {
        "half_pixel" => (to + 0.5) / scale - 0.5,
        "half_pixel_symmetric" => {
            let adjustment = output as f64 / (input as f64 * scale);
            let center = input as f64 / 2.0;
            center * (1.0 - adjustment) + (to + 0.5) / scale - 0.5
        }
        "pytorch_half_pixel" if output > 1 => (to + 0.5) / scale - 0.5,
        "align_corners" if output > 1 => to * (input as f64 - 1.0) / (output as f64 - 1.0),
        "pytorch_half_pixel" | "align_corners" => 0.0,
        "asymmetric" => to / scale,
        "tf_half_pixel_for_nn" => (to + 0.5) / scale,
        other => return Err(format!("coordinate_transformation_mode `{other}` has no gradient")),
    })
}

fn nearest(call: &Call<'_>, source: f64, input: usize) -> Result<usize, String> {
    let rounded = match call.attributes.text("nearest_mode", "round_prefer_floor") {
        "round_prefer_floor" => (source - 0.5).ceil(),
        "round_prefer_ceil" => (source + 0.5).floor(),
        "floor" => source.floor(),
        "ceil" => source.ceil(),
        other => return Err(format!("nearest_mode `{other}` is unknown")),
    };
    Ok(rounded.clamp(0.0, input as f64 - 1.0) as usize)
}

/// A filter as wide as an element of the output, where that is wider than one of the input.
fn antialiased(call: &Call<'_>, source: f64, scale: f64, row: &mut [f64]) -> Result<(), String> {
    let a = call.attributes.float("cubic_coeff_a", -0.75);
    let (support, filter): (f64, &dyn Fn(f64) -> f64) =
        match call.attributes.text("mode", "nearest") {
            "linear" => (1.0, &|d| (1.0 - d).max(0.0)),
            "cubic" => (2.0, &|d| keys(a, d)),
            other => return Err(format!("mode `{other}` has no antialiasing")),
        };
    let center = source + 0.5;
    let first = (center - support / scale + 0.5).floor() as i64;
    let end = (center + support / scale + 0.5).floor() as i64;
    let taps =
        (first..end).map(|place| (place, filter(((place as f64 - center + 0.5) * scale).abs())));
    spread(call, &taps.collect::<Vec<_>>(), row);
    Ok(())
}

/// The kernel of cubic convolution at distance `d` (Keys 1981).
fn keys(a: f64, d: f64) -> f64 {
    if d < 1.0 {
        ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0
    } else if d < 2.0 {
        ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a
    } else {
        0.0
    }
}

/// Cubic convolution over four neighbours.
fn cubic(call: &Call<'_>, source: f64, row: &mut [f64]) {
    let a = call.attributes.float("cubic_coeff_a", -0.75);
    let below = source.floor();
    let taps = [-1.0, 0.0, 1.0, 2.0].map(|offset| {
        let place = below + offset;
        (place as i64, keys(a, (source - place).abs()))
    });
    spread(call, &taps, row);
}

/// Places and their weights, which add up to 1 here, as a row of the map; at the edges elements
/// repeat, or are left out and the others weigh more (`exclude_outside`).
fn spread(call: &Call<'_>, taps: &[(i64, f64)], row: &mut [f64]) {
    let last = row.len() as i64 - 1;
    let exclude = call.attributes.flag("exclude_outside");
    let counts = |place: &i64| !exclude || (0..=last).contains(place);
    let taps = || taps.iter().filter(|(place, _)| counts(place));
    let total: f64 = taps().map(|(_, weight)| weight).sum();
    for (place, weight) in taps() {
        row[(*place).clamp(0, last) as usize] += weight / total;
    }
}
