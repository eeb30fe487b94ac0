//! The gradient of `MaxPool`: what comes back goes to the largest element of its window.
//!
//! ONNX Runtime's `MaxPool` takes ten times as long when it has to tell where the maxima were; so
//! they are looked for again here.

#![allow(clippy::needless_bitwise_bool, reason = "without branches it becomes vector code")]
#![allow(
    clippy::inline_always,
    reason = "vector code comes of inlining into the function that enables the instructions"
)]
#![allow(clippy::needless_range_loop, reason = "loops over lanes index several arrays")]

use ort::operator::{ComputeContext, Kernel, KernelContext};
use ort::value::TensorElementType::{self, Float32};

use super::node::{Fused, Parts, dims, for_each, input, output, refused, sizes};

/// Inputs: the gradient by the output, the input, the output. Output: the gradient by the input.
/// Where several elements of a window are the largest, the first one gets it. Attributes, one
/// entry per spatial axis: `kernel_shape`, `strides`, `dilations`, `pads_before`.
pub(crate) const MAX_POOL_GRADIENT: &str = "ai.cerebro.MaxPoolGradient";

/// At most this many spatial axes.
pub(crate) const MOST_AXES: usize = 3;

/// Entries for three axes; those that are not there are of size 1.
type Axes = [usize; MOST_AXES];

pub(super) struct MaxPoolGradient {
    kernel: Axes,
    strides: Axes,
    dilations: Axes,
    pads: Axes,
    axes: usize,
}

/// `values`, as the last of three axes, the others `filling`.
fn last_axes(values: &[usize], filling: usize) -> Option<Axes> {
    let mut axes = [filling; MOST_AXES];
    let missing = MOST_AXES.checked_sub(values.len())?;
    axes[missing..].copy_from_slice(values);
    Some(axes)
}

impl Fused for MaxPoolGradient {
    const NAME: &'static str = MAX_POOL_GRADIENT;
    const INPUTS: &'static [TensorElementType] = &[Float32; 3];
    const OUTPUTS: &'static [TensorElementType] = &[Float32];

    fn new(node: &KernelContext<'_>) -> ort::Result<Self> {
        let kernel = sizes(node, Self::NAME, "kernel_shape")?;
        let axes = |name, filling| {
            let values = sizes(node, Self::NAME, name)?;
            let fits = values.len() == kernel.len();
            let axes = last_axes(&values, filling).filter(|_| fits);
            axes.ok_or_else(|| refused(Self::NAME, format!("`{name}` has {} axes", values.len())))
        };
        let (strides, dilations) = (axes("strides", 1)?, axes("dilations", 1)?);
        let (pads, kernel_axes) = (axes("pads_before", 0)?, axes("kernel_shape", 1)?);
        Ok(Self { kernel: kernel_axes, strides, dilations, pads, axes: kernel.len() })
    }
}

impl Kernel for MaxPoolGradient {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let name = Self::NAME;
        let (dy, x, y) =
            (input(context, name, 0)?, input(context, name, 1)?, input(context, name, 2)?);
        let (places, dy) = dy.try_extract_tensor::<f32>()?;
        let (shape, x) = x.try_extract_tensor::<f32>()?;
        let (_, y) = y.try_extract_tensor::<f32>()?;
        let (shape, places) = (dims(shape), dims(places));
        let mut dx = output(context, name, 0, &shape)?;
        let (_, dx) = dx.try_extract_tensor_mut::<f32>()?;
        let fits = shape.len() == 2 + self.axes
            && places.len() == shape.len()
            && places[..2] == shape[..2]
            && y.len() == dy.len();
        let sizes = shape.get(2..).and_then(|sizes| last_axes(sizes, 1)).filter(|_| fits);
        let places = places.get(2..).and_then(|places| last_axes(places, 1));
        let (Some(sizes), Some(places)) = (sizes, places) else {
            return Err(refused(name, format!("inputs of {shape:?} do not fit the window")));
        };
        let (area, windows) = (sizes.iter().product::<usize>(), places.iter().product::<usize>());
        if area == 0 || windows == 0 {
            dx.fill(0.0);
            return Ok(());
        }
        let images = x.len() / area;
        let parts = Parts::of(dx);
        for_each(context, images, x.len(), |image| {
            // SAFETY: each image is another part.
            let dx = unsafe { parts.part(image * area..(image + 1) * area) };
            let of = |values: &'_ [f32], size: usize| {
                image * size..((image + 1) * size).min(values.len())
            };
            let (x, dy, y) = (&x[of(x, area)], &dy[of(dy, windows)], &y[of(y, windows)]);
            if self.halves(&sizes, &places) {
                let (width, places) = (sizes[2], places[2]);
                fastest!(halved(
                    dy: &[f32],
                    x: &[f32],
                    y: &[f32],
                    dx: &mut [f32],
                    width: usize,
                    places: usize,
                ));
            } else {
                self.spread(dy, x, y, dx, &sizes, &places);
            }
        })
    }
}

impl MaxPoolGradient {
    /// Whether windows of 2 by 2 tile the input, as they mostly do.
    fn halves(&self, sizes: &Axes, places: &Axes) -> bool {
        self.kernel == [1, 2, 2]
            && self.strides[1..] == [2, 2]
            && self.dilations[1..] == [1, 1]
            && self.pads == [0; 3]
            && sizes[0] == 1
            && sizes[1] == 2 * places[1]
            && sizes[2] == 2 * places[2]
    }

    fn spread(
        &self,
        dy: &[f32],
        x: &[f32],
        y: &[f32],
        dx: &mut [f32],
        sizes: &Axes,
        places: &Axes,
    ) {
        dx.fill(0.0);
        let mut window = 0;
        for a in 0..places[0] {
            for b in 0..places[1] {
                for c in 0..places[2] {
                    if let Some(at) = self.first_largest(x, y[window], [a, b, c], sizes) {
                        dx[at] += dy[window];
                    }
                    window += 1;
                }
            }
        }
    }

    /// Where the window at `place` has its first element that is not below `largest`.
    fn first_largest(&self, x: &[f32], largest: f32, place: Axes, sizes: &Axes) -> Option<usize> {
        let at = |axis: usize, tap: usize| {
            let at = place[axis] * self.strides[axis] + tap * self.dilations[axis];
            at.checked_sub(self.pads[axis]).filter(|&at| at < sizes[axis])
        };
        for i in 0..self.kernel[0] {
            let Some(plane) = at(0, i) else { continue };
            for j in 0..self.kernel[1] {
                let Some(row) = at(1, j) else { continue };
                for k in 0..self.kernel[2] {
                    let Some(column) = at(2, k) else { continue };
                    let index = (plane * sizes[1] + row) * sizes[2] + column;
                    // So that a maximum that is no number is found too.
                    if x[index] >= largest || x[index].is_nan() {
                        return Some(index);
                    }
                }
            }
        }
        None
    }
}

/// Windows that are gone through at once, each of their elements as a vector.
const LANES: usize = 16;

/// Windows of 2 by 2 that tile an image of rows of `width`.
#[inline(always)]
fn halved(dy: &[f32], x: &[f32], y: &[f32], dx: &mut [f32], width: usize, places: usize) {
    let rows = x.chunks_exact(2 * width).zip(dx.chunks_exact_mut(2 * width));
    let windows = dy.chunks_exact(places).zip(y.chunks_exact(places));
    for ((x, dx), (dy, y)) in rows.zip(windows) {
        let ((above, below), (dx_above, dx_below)) = (x.split_at(width), dx.split_at_mut(width));
        let inputs = above.chunks(2 * LANES).zip(below.chunks(2 * LANES));
        let outputs = dx_above.chunks_mut(2 * LANES).zip(dx_below.chunks_mut(2 * LANES));
        let windows = dy.chunks(LANES).zip(y.chunks(LANES));
        for (((above, below), (dx_above, dx_below)), (dy, y)) in inputs.zip(outputs).zip(windows) {
            let count = y.len();
            let (mut x, mut largest, mut bits) = ([[0.0; LANES]; 3], [0.0; LANES], [0; LANES]);
            for at in 0..count {
                x[0][at] = above[2 * at];
                x[1][at] = above[2 * at + 1];
                x[2][at] = below[2 * at];
                largest[at] = y[at];
                bits[at] = dy[at].to_bits();
            }
            let mut shares = [[0; LANES]; 4];
            for at in 0..LANES {
                // All bits or none. A maximum that is no number is found too.
                let is_largest = |x: f32| {
                    let found = (x >= largest[at]) | x.is_nan();
                    u32::from(found).wrapping_neg()
                };
                let [first, second, third] = [x[0][at], x[1][at], x[2][at]].map(is_largest);
                shares[0][at] = bits[at] & first;
                shares[1][at] = bits[at] & second & !first;
                shares[2][at] = bits[at] & third & !(first | second);
                shares[3][at] = bits[at] & !(first | second | third);
            }
            let shares = shares.map(|shares| shares.map(f32::from_bits));
            for at in 0..count {
                dx_above[2 * at] = shares[0][at];
                dx_above[2 * at + 1] = shares[1][at];
                dx_below[2 * at] = shares[2][at];
                dx_below[2 * at + 1] = shares[3][at];
            }
        }
    }
}
