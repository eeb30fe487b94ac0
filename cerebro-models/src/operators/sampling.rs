//! Sampling of images at places that the network computes (Jaderberg et al. 2015, "Spatial
//! transformer networks").

use super::{Composition, Node, Operator, elements_to_make};
use crate::autodiff::{Forward, Mode};
use crate::graph::{Attributes, Call, Type, Value};
use crate::onnx::{DataType, TensorData};

pub(super) const OPERATORS: &[Operator] = &[
    Operator::unrolled("GridSample", grid_sample_shape, GRID_SAMPLE),
    Operator::composed("AffineGrid", AFFINE_GRID),
];

/// The `a` of the cubic convolution (Keys 1981), as PyTorch has it.
const CUBIC: f64 = -0.75;

/// What is read outside the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Padding {
    Zeros,
    Border,
    Reflection,
}

/// One spatial axis of the image.
#[derive(Clone, Copy, Debug)]
struct Axis {
    size: usize,
    padding: Padding,
    aligns_corners: bool,
}

/// A place along an axis that is read, and its share of the result.
#[derive(Clone, Copy, Debug)]
struct Tap {
    /// The element's number, of 64-bit integers.
    index: Value,
    share: Option<Value>,
}

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
        let place = forward.reshape(place, &[count, 1])?;
        let place = axis.place(forward, place)?;
        taps.push(match mode {
            "nearest" => axis.nearest(forward, place)?,
            "linear" => axis.linear(forward, place)?,
            _ => axis.cubic(forward, place)?,
        });
    }

    // Each element of the image is a row of its channels.
    let area: usize = spatial.iter().product();
    let image = forward.reshape(x, &[batch, channels, area])?;
    let image = swap_channels(forward, image)?;
    let rows = forward.reshape(image, &[batch * area, channels])?;
    let firsts: Vec<i64> =
        (0..count).map(|row| (row / (count / batch).max(1) * area) as i64).collect();
    let firsts = forward.graph.constant(TensorData::from_i64(&[count, 1], &firsts));
    let mut parts = Vec::new();
    for combination in combinations(&taps) {
        let mut index = firsts;
        let mut share: Option<Value> = None;
        for (number, tap) in combination.into_iter().enumerate() {
            let stride: usize = spatial[number + 1..].iter().product();
            let stride = forward.graph.ints(&[stride as i64]);
            let offset = forward.binary("Mul", tap.index, stride)?;
            index = forward.binary("Add", index, offset)?;
            share = match (share, tap.share) {
                (Some(a), Some(b)) => Some(forward.binary("Mul", a, b)?),
                (a, b) => a.or(b),
            };
        }
        let index = forward.reshape(index, &[count])?;
        let picked = forward.apply("Gather", &[Some(rows), Some(index)], Attributes::none())?;
        parts.push(match share {
            Some(share) => forward.binary("Mul", picked, share)?,
            None => picked,
        });
    }
    let parts: Vec<Option<Value>> = parts.into_iter().map(Some).collect();
    let sum = forward.apply("Sum", &parts, Attributes::none())?;
    let sum = forward.reshape(sum, &[batch, count / batch, channels])?;
    let sum = swap_channels(forward, sum)?;
    Ok(vec![forward.reshape(sum, sampled)?])
};

/// All choices of one tap per axis.
fn combinations(taps: &[Vec<Tap>]) -> Vec<Vec<Tap>> {
    taps.iter().fold(vec![Vec::new()], |chosen, axis| {
        let longer = |chosen: &Vec<Tap>| -> Vec<Vec<Tap>> {
            axis.iter().map(|&tap| [chosen.as_slice(), &[tap]].concat()).collect()
        };
        chosen.iter().flat_map(longer).collect()
    })
}

impl Axis {
    fn last(self) -> f64 {
        self.size as f64 - 1.0
    }

    /// Where a place from -1 to 1 is, counted in elements.
    fn place(self, forward: &mut Forward<'_>, place: Value) -> Result<Value, String> {
        let shifted = with_scalar(forward, "Add", place, 1.0)?;
        if self.aligns_corners {
            let half = with_scalar(forward, "Div", shifted, 2.0)?;
            return with_scalar(forward, "Mul", half, self.last());
        }
        let scaled = with_scalar(forward, "Mul", shifted, self.size as f64)?;
        let moved = with_scalar(forward, "Sub", scaled, 1.0)?;
        with_scalar(forward, "Div", moved, 2.0)
    }

    /// A place brought into the image, as the padding says.
    fn inside(self, forward: &mut Forward<'_>, place: Value) -> Result<Value, String> {
        match self.padding {
            Padding::Zeros => Ok(place),
            Padding::Border => self.clamped(forward, place),
            Padding::Reflection => {
                let reflected = self.reflected(forward, place)?;
                self.clamped(forward, reflected)
            }
        }
    }

    fn clamped(self, forward: &mut Forward<'_>, place: Value) -> Result<Value, String> {
        let (first, last) =
            (forward.graph.scalar(0.0, place), forward.graph.scalar(self.last(), place));
        let mut clamped = place;
        for (within, edge) in [("Greater", first), ("Less", last)] {
            let within = forward.binary(within, clamped, edge)?;
            let inputs = [Some(within), Some(clamped), Some(edge)];
            clamped = forward.apply("Where", &inputs, Attributes::none())?;
        }
        Ok(clamped)
    }

    /// Reflected at the middles of the outermost elements, or at their outer edges.
    fn reflected(self, forward: &mut Forward<'_>, place: Value) -> Result<Value, String> {
        let (least, span) =
            if self.aligns_corners { (0.0, self.last()) } else { (-0.5, self.size as f64) };
        if span == 0.0 {
            return with_scalar(forward, "Mul", place, 0.0);
        }
        let from_least = with_scalar(forward, "Sub", place, least)?;
        let distance = forward.apply("Abs", &[Some(from_least)], Attributes::none())?;
        let spans = with_scalar(forward, "Div", distance, span)?;
        let spans = forward.apply("Floor", &[Some(spans)], Attributes::none())?;
        let whole = with_scalar(forward, "Mul", spans, span)?;
        let rest = forward.binary("Sub", distance, whole)?;
        // 1 where an odd number of spans was left out: there the rest counts backwards.
        let half = with_scalar(forward, "Div", spans, 2.0)?;
        let half = forward.apply("Floor", &[Some(half)], Attributes::none())?;
        let even = with_scalar(forward, "Mul", half, 2.0)?;
        let odd = forward.binary("Sub", spans, even)?;
        let turned = with_scalar(forward, "Mul", odd, span)?;
        let direction = with_scalar(forward, "Mul", odd, -2.0)?;
        let direction = with_scalar(forward, "Add", direction, 1.0)?;
        let rest = forward.binary("Mul", rest, direction)?;
        let reflected = forward.binary("Add", rest, turned)?;
        with_scalar(forward, "Add", reflected, least)
    }

    fn nearest(self, forward: &mut Forward<'_>, place: Value) -> Result<Vec<Tap>, String> {
        let place = self.inside(forward, place)?;
        let element = forward.apply("Round", &[Some(place)], Attributes::none())?;
        Ok(vec![self.tap(forward, element, None)?])
    }

    fn linear(self, forward: &mut Forward<'_>, place: Value) -> Result<Vec<Tap>, String> {
        let place = self.inside(forward, place)?;
        let below = forward.apply("Floor", &[Some(place)], Attributes::none())?;
        let above = with_scalar(forward, "Add", below, 1.0)?;
        let (to_above, to_below) =
            (forward.binary("Sub", above, place)?, forward.binary("Sub", place, below)?);
        Ok(vec![
            self.tap(forward, below, Some(to_above))?,
            self.tap(forward, above, Some(to_below))?,
        ])
    }

    /// Cubic convolution over four neighbours (Keys 1981); these, not the place, are brought into
    /// the image.
    fn cubic(self, forward: &mut Forward<'_>, place: Value) -> Result<Vec<Tap>, String> {
        let a = CUBIC;
        let near = [a + 2.0, -(a + 3.0), 0.0, 1.0];
        let far = [a, -5.0 * a, 8.0 * a, -4.0 * a];
        let below = forward.apply("Floor", &[Some(place)], Attributes::none())?;
        let rest = forward.binary("Sub", place, below)?;
        let mut taps = Vec::with_capacity(4);
        for (offset, polynomial) in [(-1.0, far), (0.0, near), (1.0, near), (2.0, far)] {
            let element = with_scalar(forward, "Add", below, offset)?;
            let element = self.inside(forward, element)?;
            let distance = with_scalar(forward, "Sub", rest, offset)?;
            let distance = forward.apply("Abs", &[Some(distance)], Attributes::none())?;
            let mut share = with_scalar(forward, "Mul", distance, polynomial[0])?;
            for (index, &coefficient) in polynomial.iter().enumerate().skip(1) {
                share = with_scalar(forward, "Add", share, coefficient)?;
                if index + 1 < polynomial.len() {
                    share = forward.binary("Mul", share, distance)?;
                }
            }
            taps.push(self.tap(forward, element, Some(share))?);
        }
        Ok(taps)
    }

    /// The tap at `element`, a whole number; outside the image its share is 0.
    fn tap(
        self,
        forward: &mut Forward<'_>,
        element: Value,
        share: Option<Value>,
    ) -> Result<Tap, String> {
        let (first, last) =
            (forward.graph.scalar(0.0, element), forward.graph.scalar(self.last(), element));
        let not_below = forward.binary("GreaterOrEqual", element, first)?;
        let not_above = forward.binary("LessOrEqual", element, last)?;
        let inside = forward.binary("And", not_below, not_above)?;
        let share = match share {
            Some(share) => {
                let inputs = [Some(inside), Some(share), Some(first)];
                forward.apply("Where", &inputs, Attributes::none())?
            }
            None => forward.graph.indicator(inside, element),
        };
        let inputs = [Some(element), Some(first), Some(last)];
        let index = forward.apply("Clip", &inputs, Attributes::none())?;
        let index = forward.graph.cast(index, DataType::Int64);
        Ok(Tap { index, share: Some(share) })
    }
}

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

fn with_scalar(
    forward: &mut Forward<'_>,
    op: &str,
    x: Value,
    constant: f64,
) -> Result<Value, String> {
    let constant = forward.graph.scalar(constant, x);
    forward.binary(op, x, constant)
}

/// `x` of three axes with the last two swapped.
fn swap_channels(forward: &mut Forward<'_>, x: Value) -> Result<Value, String> {
    let attributes = Attributes::none().with("perm", vec![0, 2, 1]);
    forward.apply("Transpose", &[Some(x)], attributes)
}
