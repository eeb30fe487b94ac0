//! The elements of an image around places in it, and their shares of what is sampled there.

use crate::autodiff::Forward;
use crate::graph::{Attributes, Value};
use crate::onnx::{DataType, TensorData};

/// The `a` of the cubic convolution (Keys 1981), as PyTorch has it.
const CUBIC: f64 = -0.75;

/// What is read outside the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::operators) enum Padding {
    Zeros,
    Border,
    Reflection,
}

/// One spatial axis of the image.
#[derive(Clone, Copy, Debug)]
pub(in crate::operators) struct Axis {
    pub(in crate::operators) size: usize,
    pub(in crate::operators) padding: Padding,
    pub(in crate::operators) aligns_corners: bool,
}

/// A place along an axis that is read, and its share of the result.
#[derive(Clone, Copy, Debug)]
pub(in crate::operators) struct Tap {
    /// The element's number, of 64-bit integers.
    pub(in crate::operators) index: Value,
    pub(in crate::operators) share: Value,
}

/// The most axes of an image that is sampled: with each the number of elements around a place doubles.
const MOST_AXES: usize = 3;

/// Images whose elements are rows, of all channels.
#[derive(Clone, Copy, Debug)]
pub(in crate::operators) struct Pixels<'a> {
    pub(in crate::operators) rows: Value,
    /// The number of the first row of each image, in a shape that broadcasts to that of the taps.
    pub(in crate::operators) firsts: Value,
    pub(in crate::operators) spatial: &'a [usize],
}

impl<'a> Pixels<'a> {
    /// Those of `x`, with the axes batch, channels and `spatial`, whose channels are `groups` images
    /// each; the first rows are a column.
    pub(in crate::operators) fn of(
        forward: &mut Forward<'_>,
        x: Value,
        groups: usize,
        spatial: &'a [usize],
    ) -> Result<Self, String> {
        let dims = forward.graph.dims(x);
        if spatial.len() > MOST_AXES {
            return Err(format!("images {dims:?} have more than {MOST_AXES} spatial axes"));
        }
        let (images, channels) = (dims[0] * groups, dims[1] / groups);
        let area: usize = spatial.iter().product();
        let image = forward.reshape(x, &[images, channels, area])?;
        let image = swap_channels(forward, image)?;
        let rows = forward.reshape(image, &[images * area, channels])?;
        let firsts: Vec<i64> = (0..images).map(|image| (image * area) as i64).collect();
        let firsts = TensorData::from_i64(&[images, 1], &firsts);
        Ok(Self { rows, firsts: forward.graph.constant(firsts), spatial })
    }

    /// The rows of each choice of a tap per axis, times their shares of the result and `share`: as many
    /// rows as there are `count` places.
    pub(in crate::operators) fn pick(
        self,
        forward: &mut Forward<'_>,
        taps: &[Vec<Tap>],
        share: Option<Value>,
        count: usize,
    ) -> Result<Vec<Option<Value>>, String> {
        let mut parts = Vec::new();
        for combination in combinations(taps) {
            let (mut index, mut share) = (self.firsts, share);
            for (number, tap) in combination.into_iter().enumerate() {
                let stride: usize = self.spatial[number + 1..].iter().product();
                let stride = forward.graph.ints(&[stride as i64]);
                let offset = forward.binary("Mul", tap.index, stride)?;
                index = forward.binary("Add", index, offset)?;
                share = Some(match share {
                    Some(share) => forward.binary("Mul", share, tap.share)?,
                    None => tap.share,
                });
            }
            let index = forward.reshape(index, &[count])?;
            let inputs = [Some(self.rows), Some(index)];
            let mut picked = forward.apply("Gather", &inputs, Attributes::none())?;
            if let Some(share) = share {
                let share = forward.reshape(share, &[count, 1])?;
                picked = forward.binary("Mul", picked, share)?;
            }
            parts.push(Some(picked));
        }
        Ok(parts)
    }
}

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
    pub(super) fn place(self, forward: &mut Forward<'_>, place: Value) -> Result<Value, String> {
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

    pub(super) fn nearest(
        self,
        forward: &mut Forward<'_>,
        place: Value,
    ) -> Result<Vec<Tap>, String> {
        let place = self.inside(forward, place)?;
        let element = forward.apply("Round", &[Some(place)], Attributes::none())?;
        Ok(vec![self.tap(forward, element, None)?])
    }

    pub(in crate::operators) fn linear(
        self,
        forward: &mut Forward<'_>,
        place: Value,
    ) -> Result<Vec<Tap>, String> {
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
    pub(super) fn cubic(self, forward: &mut Forward<'_>, place: Value) -> Result<Vec<Tap>, String> {
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
        Ok(Tap { index, share })
    }
}

pub(super) fn with_scalar(
    forward: &mut Forward<'_>,
    op: &str,
    x: Value,
    constant: f64,
) -> Result<Value, String> {
    let constant = forward.graph.scalar(constant, x);
    forward.binary(op, x, constant)
}

/// `x` of three axes with the last two swapped.
pub(in crate::operators) fn swap_channels(
    forward: &mut Forward<'_>,
    x: Value,
) -> Result<Value, String> {
    let attributes = Attributes::none().with("perm", vec![0, 2, 1]);
    forward.apply("Transpose", &[Some(x)], attributes)
}
