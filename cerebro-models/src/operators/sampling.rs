//! Sampling of images at places that the network computes (Jaderberg et al. 2015, "Spatial
//! transformer networks").

pub(super) mod taps;

use self::taps::{Axis, Padding, Pixels, swap_channels};
use super::{Composition, Node, Operator, elements_to_make};
use crate::autodiff::Mode;
use crate::graph::{Attributes, Call, Type};
use crate::onnx::TensorData;

pub(super) const OPERATORS: &[Operator] = &[
    Operator::unrolled("GridSample", grid_sample_shape, GRID_SAMPLE),
    Operator::composed("AffineGrid", AFFINE_GRID),
];

fn grid_sample_shape(call: &Call<'_>) -> Result<Vec<Type>, String> {
    let (dims, places) = (call.dims(0)?, call.dims(1)?);
    let fits = dims.len() > 2
        && places.len() == dims.len()
        && places.first() == dims.first()
        && places.last() == Some(&(dims.len() - 2));
    if !fits || dims.contains(&0) {
        return Err(format!("a grid {places:?} does not fit images {dims:?}"));
    }
    let sampled = [&dims[..2], &places[1..places.len() - 1]].concat();
    Ok(vec![Type::new(call.data_type(0)?, sampled)])
}

/// The mode by its name in the current version.
fn mode<'a>(node: &Node<'a>) -> Result<&'a str, String> {
    match node.attributes.text("mode", "linear") {
        "bilinear" => Ok("linear"),
        "bicubic" => Ok("cubic"),
        mode @ ("nearest" | "linear" | "cubic") => Ok(mode),
        other => Err(format!("mode `{other}` is unknown")),
    }
}

/// Each output is a sum of elements of the image around a place of the grid. The formulas, also at
/// the edges, are those of PyTorch's `GridSampler.h`, where gradients vanish at and beyond the
/// edges to which places are clamped.
const GRID_SAMPLE: Composition = |forward, node| {
    let types = grid_sample_shape(&node.call(forward.graph))?;
    let mode = mode(node)?;
    if forward.mode == Mode::Inference {
        let attributes = node.attributes.clone().with("mode", mode);
        return Ok(forward.graph.emit("GridSample", node.inputs, attributes, 1));
    }
    let (x, grid) = (node.required(0)?, node.required(1)?);
    let dims = forward.graph.dims(x).to_vec();
    let (batch, channels, spatial) = (dims[0], dims[1], &dims[2..]);
    let padding = match node.attributes.text("padding_mode", "zeros") {
        "zeros" => Padding::Zeros,
        "border" => Padding::Border,
        "reflection" => Padding::Reflection,
        other => return Err(format!("padding_mode `{other}` is unknown")),
    };
    let aligns_corners = node.attributes.flag("align_corners");
    let sampled = &types[0].dims;
    let count = elements_to_make(&[&[batch], &sampled[2..]].concat())?;

    let mut taps = Vec::with_capacity(spatial.len());
    for (number, &size) in spatial.iter().enumerate() {
        let axis = Axis { size, padding, aligns_corners };
        // The grid has the last axis first.
        let place = forward
            .graph
            .constant(TensorData::from_i64(&[], &[(spatial.len() - 1 - number) as i64]));
        let along = Attributes::none().with("axis", -1);
        let place = forward.apply("Gather", &[Some(grid), Some(place)], along)?;
        let place = forward.reshape(place, &[batch, count / batch])?;
        let place = axis.place(forward, place)?;
        taps.push(match mode {
            "nearest" => axis.nearest(forward, place)?,
            "linear" => axis.linear(forward, place)?,
            _ => axis.cubic(forward, place)?,
        });
    }

    let rows = Pixels::of(forward, x, 1, spatial)?;
    let parts = rows.pick(forward, &taps, None, count)?;
    let sum = forward.apply("Sum", &parts, Attributes::none())?;
    let sum = forward.reshape(sum, &[batch, count / batch, channels])?;
    let sum = swap_channels(forward, sum)?;
    Ok(vec![forward.reshape(sum, sampled)?])
};

/// The places of an even grid (the same for all), each a product with its example's matrix.
const AFFINE_GRID: Composition = |forward, node| {
    let theta = node.required(0)?;
    let sizes = node.call(forward.graph).sizes(1)?;
    let [batch, _, spatial @ ..] = sizes.as_slice() else {
        return Err(format!("{sizes:?} has no batch and channels"));
    };
    let axes = spatial.len();
    let Type { data_type, dims } = forward.graph.value_type(theta).clone();
    if dims != [*batch, axes, axes + 1] {
        return Err(format!("matrices {dims:?} do not fit images {sizes:?}"));
    }
    let count = elements_to_make(spatial)?;
    let aligns_corners = node.attributes.flag("align_corners");
    let mut even = Vec::with_capacity(count * (axes + 1));
    for place in 0..count {
        let mut stride = 1;
        for &size in spatial.iter().rev() {
            even.push(even_place(place / stride % size, size, aligns_corners));
            stride *= size;
        }
        even.push(1.0);
    }
    let even = TensorData::from_f64(data_type, &[count, axes + 1], &even);
    let even = forward.graph.constant(even);
    let columns = Attributes::none().with("perm", vec![0, 2, 1]);
    let columns = forward.apply("Transpose", &[Some(theta)], columns)?;
    let grid = forward.binary("MatMul", even, columns)?;
    Ok(vec![forward.reshape(grid, &[&[*batch], spatial, &[axes]].concat())?])
};

/// Element number `index` of `size` on the way from -1 to 1.
fn even_place(index: usize, size: usize, aligns_corners: bool) -> f64 {
    let (index, size) = (index as f64, size as f64);
    match aligns_corners {
        true if size > 1.0 => 2.0 * index / (size - 1.0) - 1.0,
        true => 0.0,
        false => (2.0 * index + 1.0) / size - 1.0,
    }
}
