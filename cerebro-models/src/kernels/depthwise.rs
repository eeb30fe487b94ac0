//! Convolutions of each channel by itself, over one or two spatial axes, and their gradients.
//!
//! A channel's image is small and stays in the nearest cache, so sums over windows are made where it
//! lies: many places of a row at a time. So that these follow each other whatever the stride, the
//! columns that windows see through one column of the kernel are laid out side by side, with zeros
//! around them.

#![allow(
    clippy::inline_always,
    reason = "vector code comes of inlining into the function that enables the instructions"
)]

use std::ops::Range;

use ort::operator::{ComputeContext, Kernel, KernelContext};
use ort::value::TensorElementType::{self, Float32};

use super::convolution::{four, shaped, two};
use super::node::{Fused, Parts, for_each, input, output, refused, sizes};
use super::vector::Vector;

/// Inputs: `x`, the weights, the bias (zeros if there is none). Output: `y`. Attributes, an entry
/// per spatial axis: `strides`, `dilations`, `pads_before`, `places` (the spatial sizes of `y`).
pub(crate) const DEPTHWISE: &str = "ai.cerebro.DepthwiseConv";

/// Inputs: the gradient by the output, the weights. Output: the gradient by the input. Attributes:
/// `strides`, `dilations`, `pads_before`, `input` (the spatial sizes of the input).
pub(crate) const DEPTHWISE_INPUT_GRADIENT: &str = "ai.cerebro.DepthwiseConvInputGradient";

/// Inputs: the gradient by the output, the input. Output: the gradient by the weights. Attributes:
/// `strides`, `dilations`, `pads_before`, `kernel_shape`.
pub(crate) const DEPTHWISE_WEIGHT_GRADIENT: &str = "ai.cerebro.DepthwiseConvWeightGradient";

/// Images of channels that one call of a thread works on.
const PLANES: usize = 16;

/// The most places of a kernel whose gradients are summed at once, in registers.
const AT_ONCE: usize = 9;

/// The most elements of a vector, over all kinds of them.
const WIDEST: usize = 16;

/// What the attributes say; with one spatial axis the first entries are those of an axis of size 1.
#[derive(Clone, Copy, Debug)]
struct Attributes {
    strides: [usize; 2],
    dilations: [usize; 2],
    before: [usize; 2],
    /// What else the operator has to know of sizes.
    given: [usize; 2],
}

impl Attributes {
    fn of(node: &KernelContext<'_>, name: &str, given: &str) -> ort::Result<Self> {
        let pair = |attribute, filling| {
            let values = sizes(node, name, attribute)?;
            let pair = two(&values, filling);
            pair.ok_or_else(|| refused(name, format!("`{attribute}` has {} axes", values.len())))
        };
        let all = Self {
            strides: pair("strides", 1)?,
            dilations: pair("dilations", 1)?,
            before: pair("pads_before", 0)?,
            given: pair(given, 1)?,
        };
        if all.strides.contains(&0) || all.dilations.contains(&0) {
            return Err(refused(name, "a stride or dilation is 0"));
        }
        Ok(all)
    }
}

/// How windows slide over one channel's image, and how that is laid out.
#[derive(Debug)]
struct Plan {
    strides: [usize; 2],
    dilations: [usize; 2],
    before: [usize; 2],
    kernel: [usize; 2],
    size: [usize; 2],
    places: [usize; 2],
    /// Rows of the laid-out image, and elements of each.
    rows: usize,
    row: usize,
    /// For each place of the kernel, where what the first window sees through it lies.
    taps: Vec<usize>,
    /// The places of a row, filled up to whole vectors.
    across: usize,
}

impl Plan {
    fn new(of: &Attributes, kernel: [usize; 2], size: [usize; 2], places: [usize; 2]) -> Self {
        let Attributes { strides, dilations, before, .. } = *of;
        let reach = [0, 1].map(|axis| (kernel[axis].max(1) - 1) * dilations[axis]);
        let rows = (before[0] + size[0]).max((places[0].max(1) - 1) * strides[0] + reach[0] + 1);
        let across = places[1].next_multiple_of(WIDEST);
        let row = across + reach[1] / strides[1];
        let mut taps = Vec::with_capacity(kernel[0] * kernel[1]);
        for down in 0..kernel[0] {
            for side in 0..kernel[1] {
                let column = side * dilations[1];
                let phase = column % strides[1] * rows * row;
                taps.push(phase + down * dilations[0] * row + column / strides[1]);
            }
        }
        Self { strides, dilations, before, kernel, size, places, rows, row, taps, across }
    }

    /// Elements of a laid-out image.
    fn laid_out(&self) -> usize {
        self.strides[1] * self.rows * self.row
    }

    /// Lays an image out in `to`, where zeros are around it: first the columns whose number, padding
    /// included, is a multiple of the stride, then those after them, and so on.
    fn lay_out(&self, image: &[f32], to: &mut [f32]) {
        let lay = self;
        fastest!(lay_out(lay: &Plan, image: &[f32], to: &mut [f32]));
    }

    /// Copies the rows of an image of places, filled up with zeros, to `to`, each `before` elements
    /// after the beginning of one of `row` elements.
    fn lay_out_places(&self, places: &[f32], row: usize, before: usize, to: &mut [f32]) {
        let rows = places.chunks_exact(self.places[1].max(1)).zip(to.chunks_exact_mut(row));
        for (from, to) in rows {
            to[before..].iter_mut().zip(from).for_each(|(to, from)| *to = *from);
        }
    }
}

#[inline(always)]
fn lay_out(plan: &Plan, image: &[f32], to: &mut [f32]) {
    let ([_, stride], [above, left], width) = (plan.strides, plan.before, plan.size[1]);
    let phase_length = plan.rows * plan.row;
    for (number, from) in image.chunks_exact(width.max(1)).enumerate() {
        let start = (number + above) * plan.row;
        if stride == 1 {
            let used = width.min(plan.row.saturating_sub(left));
            to[start + left..][..used].copy_from_slice(&from[..used]);
            continue;
        }
        for phase in 0..stride {
            let to = &mut to[phase * phase_length + start..][..plan.row];
            // The first column of this phase that is not padding.
            let first = (phase + stride - left % stride) % stride;
            let to = &mut to[((left + first) / stride).min(plan.row)..];
            let from = &from[first.min(width)..];
            if stride == 2 {
                let (pairs, rest) = from.as_chunks::<2>();
                to.iter_mut().zip(pairs).for_each(|(to, pair)| *to = pair[0]);
                if let (Some(to), Some(last)) = (to.get_mut(pairs.len()), rest.first()) {
                    *to = *last;
                }
            } else {
                to.iter_mut().zip(from.iter().step_by(stride)).for_each(|(to, from)| *to = *from);
            }
        }
    }
}

/// Calls `each` for ranges of `planes` images of channels.
fn for_each_group(
    context: &ComputeContext,
    planes: usize,
    elements: usize,
    each: impl Fn(Range<usize>) + Sync + Send,
) -> ort::Result<()> {
    for_each(context, planes.div_ceil(PLANES), 8 * elements, |group| {
        each(group * PLANES..((group + 1) * PLANES).min(planes));
    })
}

pub(super) struct Depthwise(Attributes);

impl Fused for Depthwise {
    const NAME: &'static str = DEPTHWISE;
    const INPUTS: &'static [TensorElementType] = &[Float32; 3];
    const OUTPUTS: &'static [TensorElementType] = &[Float32];

    fn new(node: &KernelContext<'_>) -> ort::Result<Self> {
        Attributes::of(node, Self::NAME, "places").map(Self)
    }
}

impl Kernel for Depthwise {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let name = Self::NAME;
        let (x, w, bias) =
            (input(context, name, 0)?, input(context, name, 1)?, input(context, name, 2)?);
        let (shape, x) = x.try_extract_tensor::<f32>()?;
        let (kernel, w) = w.try_extract_tensor::<f32>()?;
        let (_, bias) = bias.try_extract_tensor::<f32>()?;
        let [batch, channels, height, width] = four(name, shape)?;
        let [filters, inner, rows, columns] = four(name, kernel)?;
        if inner != 1 || filters != channels || bias.len() != channels {
            return Err(refused(name, format!("weights {kernel:?} do not fit {shape:?}")));
        }
        let places = self.0.given;
        let mut y = output(context, name, 0, &shaped(shape, batch, channels, places))?;
        let y = Parts::of(y.try_extract_tensor_mut::<f32>()?.1);
        let plan = &Plan::new(&self.0, [rows, columns], [height, width], places);
        let (from, to, taps) = (height * width, places[0] * places[1], rows * columns);
        for_each_group(context, batch * channels, x.len(), |planes| {
            let mut image = vec![0.0; plan.laid_out()];
            for plane in planes {
                let channel = plane % channels;
                plan.lay_out(&x[plane * from..(plane + 1) * from], &mut image);
                // SAFETY: each plane is another part.
                let y = unsafe { y.part(plane * to..(plane + 1) * to) };
                let (image, w) = (&image[..], &w[channel * taps..(channel + 1) * taps]);
                let bias = bias[channel];
                // SAFETY: the plan's taps lie within the image for all places.
                widest!(correlate(plan: &Plan, image: &[f32], w: &[f32], bias: f32, y: &mut [f32]));
            }
        })
    }
}

/// # Safety
///
/// `image` is laid out as `plan` says, `w` has its kernel's places.
#[inline(always)]
unsafe fn correlate<V: Vector, const _R: usize>(
    plan: &Plan,
    image: &[f32],
    w: &[f32],
    bias: f32,
    y: &mut [f32],
) {
    let width = plan.places[1];
    for (row, y) in y.chunks_exact_mut(width.max(1)).enumerate() {
        for column in (0..width).step_by(V::LANES) {
            // SAFETY: as of the caller; the rows of the image are filled up to whole vectors.
            unsafe {
                let first = image.as_ptr().add(row * plan.strides[0] * plan.row + column);
                let mut sum = V::splat(bias);
                for (tap, w) in plan.taps.iter().zip(w) {
                    sum = V::multiply_add(V::splat(*w), V::load(first.add(*tap)), sum);
                }
                store_some::<V>(sum, &mut y[column..]);
            }
        }
    }
}

/// Stores as many elements as there is room for.
///
/// # Safety
///
/// The processor has the vector's instructions.
#[inline(always)]
unsafe fn store_some<V: Vector>(value: V::Value, to: &mut [f32]) {
    // SAFETY: as of the caller, and there is room.
    unsafe {
        if to.len() >= V::LANES {
            V::store(value, to.as_mut_ptr());
        } else {
            let mut all = [0.0; WIDEST];
            V::store(value, all.as_mut_ptr());
            to.copy_from_slice(&all[..to.len()]);
        }
    }
}

pub(super) struct DepthwiseInputGradient(Attributes);

impl Fused for DepthwiseInputGradient {
    const NAME: &'static str = DEPTHWISE_INPUT_GRADIENT;
    const INPUTS: &'static [TensorElementType] = &[Float32; 2];
    const OUTPUTS: &'static [TensorElementType] = &[Float32];

    fn new(node: &KernelContext<'_>) -> ort::Result<Self> {
        Attributes::of(node, Self::NAME, "input").map(Self)
    }
}

/// A column `t` (counted with the padding) was seen by the place `o` through the kernel's column `k`
/// where `t = stride o + dilation k`: so columns with the same remainder by the stride were seen
/// through the same columns of the kernel, and for them the gradient is a correlation without stride
/// (Dumoulin and Visin 2016, "A guide to convolution arithmetic for deep learning", chapter 4).
impl Kernel for DepthwiseInputGradient {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let name = Self::NAME;
        let (dy, w) = (input(context, name, 0)?, input(context, name, 1)?);
        let (shape, dy) = dy.try_extract_tensor::<f32>()?;
        let (kernel, w) = w.try_extract_tensor::<f32>()?;
        let [batch, channels, down, side] = four(name, shape)?;
        let [filters, inner, rows, columns] = four(name, kernel)?;
        if inner != 1 || filters != channels {
            return Err(refused(name, format!("weights {kernel:?} do not fit {shape:?}")));
        }
        let size = self.0.given;
        let mut dx = output(context, name, 0, &shaped(shape, batch, channels, size))?;
        let dx = Parts::of(dx.try_extract_tensor_mut::<f32>()?.1);
        let plan = Plan::new(&self.0, [rows, columns], size, [down, side]);
        let job = &Spread::new(plan);
        let (from, to, taps) = (down * side, size[0] * size[1], rows * columns);
        for_each_group(context, batch * channels, dy.len(), |planes| {
            let mut places = vec![0.0; down * job.row];
            let mut phases = vec![0.0; job.across * job.plan.strides[1]];
            for plane in planes {
                let channel = plane % channels;
                let dy = &dy[plane * from..(plane + 1) * from];
                job.plan.lay_out_places(dy, job.row, job.before, &mut places);
                // SAFETY: each plane is another part.
                let dx = unsafe { dx.part(plane * to..(plane + 1) * to) };
                let (places, w) = (&places[..], &w[channel * taps..(channel + 1) * taps]);
                let phases = &mut phases[..];
                // SAFETY: the job's places have room on all sides for its kernel.
                widest!(spread(
                    job: &Spread,
                    places: &[f32],
                    w: &[f32],
                    phases: &mut [f32],
                    dx: &mut [f32],
                ));
            }
        })
    }
}

/// How gradients of places go back to an image.
struct Spread {
    plan: Plan,
    /// Zeros before the places of a row, and both together with the zeros after them.
    before: usize,
    row: usize,
    /// The image's columns of a phase, filled up to whole vectors: a phase has every stride-th column.
    across: usize,
    /// For each row of the image and each phase, the kernel's places that saw them: where the row of
    /// the places that saw them begins, and the kernel's place.
    taps: Vec<Vec<(usize, usize)>>,
}

impl Spread {
    fn new(plan: Plan) -> Self {
        let Plan { strides, dilations, before: padding, kernel, size, places, .. } = plan;
        let (stride, dilation) = (strides[1], dilations[1]);
        let before = (kernel[1].max(1) - 1) * dilation / stride;
        let across = size[1].div_ceil(stride).next_multiple_of(WIDEST);
        let row = before + padding[1].div_ceil(stride) + across;
        // The kernel's rows through which a place's row saw the image's row, and the place's row.
        let rows_seen = |number: usize| {
            (0..kernel[0]).filter_map(move |k| {
                let distance = (number + padding[0]).checked_sub(k * dilations[0])?;
                let place = distance / strides[0];
                (distance % strides[0] == 0 && place < places[0]).then_some((k, place))
            })
        };
        // The same for columns of a phase, whose first one is `first`.
        let columns_seen = |first: usize| {
            let first = first + padding[1];
            (0..kernel[1])
                .filter(move |k| k * dilation % stride == first % stride)
                .map(move |k| (k, before + first / stride - k * dilation / stride))
        };
        let mut taps = Vec::with_capacity(size[0] * stride);
        for number in 0..size[0] {
            for first in 0..stride {
                let of_row = |(k, place)| {
                    columns_seen(first)
                        .map(move |(column, start)| (place * row + start, k * kernel[1] + column))
                };
                taps.push(rows_seen(number).flat_map(of_row).collect());
            }
        }
        Self { plan, before, row, across, taps }
    }
}

/// # Safety
///
/// `places` is laid out as `job` says, `w` has its kernel's places, `phases` has room for a row of
/// each.
#[inline(always)]
unsafe fn spread<V: Vector, const _R: usize>(
    job: &Spread,
    places: &[f32],
    w: &[f32],
    phases: &mut [f32],
    dx: &mut [f32],
) {
    let (stride, width) = (job.plan.strides[1], job.plan.size[1]);
    for (taps, dx) in job.taps.chunks_exact(stride).zip(dx.chunks_exact_mut(width.max(1))) {
        for (taps, phase) in taps.iter().zip(phases.chunks_exact_mut(job.across)) {
            for at in (0..job.across).step_by(V::LANES) {
                // SAFETY: as of the caller: the taps of a row lie `across` elements before its end.
                unsafe {
                    let mut sum = V::splat(0.0);
                    for &(from, weight) in taps {
                        let seen = V::load(places.as_ptr().add(from + at));
                        sum = V::multiply_add(V::splat(w[weight]), seen, sum);
                    }
                    V::store(sum, phase.as_mut_ptr().add(at));
                }
            }
        }
        match stride {
            1 => dx.copy_from_slice(&phases[..width]),
            2 => {
                let (even, odd) = phases.split_at(job.across);
                let (pairs, last) = dx.as_chunks_mut::<2>();
                if let Some(last) = last.first_mut() {
                    *last = even[pairs.len()];
                }
                for ((pair, even), odd) in pairs.iter_mut().zip(even).zip(odd) {
                    *pair = [*even, *odd];
                }
            }
            _ => {
                for (first, values) in phases.chunks_exact(job.across).enumerate() {
                    let dx = dx.iter_mut().skip(first).step_by(stride);
                    dx.zip(values).for_each(|(dx, value)| *dx = *value);
                }
            }
        }
    }
}

pub(super) struct DepthwiseWeightGradient(Attributes);

impl Fused for DepthwiseWeightGradient {
    const NAME: &'static str = DEPTHWISE_WEIGHT_GRADIENT;
    const INPUTS: &'static [TensorElementType] = &[Float32; 2];
    const OUTPUTS: &'static [TensorElementType] = &[Float32];

    fn new(node: &KernelContext<'_>) -> ort::Result<Self> {
        Attributes::of(node, Self::NAME, "kernel_shape").map(Self)
    }
}

impl Kernel for DepthwiseWeightGradient {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let name = Self::NAME;
        let (dy, x) = (input(context, name, 0)?, input(context, name, 1)?);
        let (places, dy) = dy.try_extract_tensor::<f32>()?;
        let (shape, x) = x.try_extract_tensor::<f32>()?;
        let [batch, channels, height, width] = four(name, shape)?;
        let [same_batch, filters, down, side] = four(name, places)?;
        if same_batch != batch || filters != channels {
            return Err(refused(name, format!("{places:?} does not fit {shape:?}")));
        }
        let window = self.0.given;
        let mut dw = output(context, name, 0, &shaped(shape, channels, 1, window))?;
        let dw = Parts::of(dw.try_extract_tensor_mut::<f32>()?.1);
        let plan = &Plan::new(&self.0, window, [height, width], [down, side]);
        let (of_x, of_dy, taps) = (height * width, down * side, plan.taps.len());
        // A channel's sums go through the batch in its order, whichever thread has the channel.
        for_each(context, channels, 8 * x.len(), |channel| {
            let mut image = vec![0.0; plan.laid_out()];
            let mut filled = vec![0.0; down * plan.across];
            let mut sums = vec![[0.0; WIDEST]; taps];
            for row in 0..batch {
                let plane = row * channels + channel;
                plan.lay_out(&x[plane * of_x..(plane + 1) * of_x], &mut image);
                let dy = &dy[plane * of_dy..(plane + 1) * of_dy];
                plan.lay_out_places(dy, plan.across, 0, &mut filled);
                let (image, dy, sums) = (&image[..], &filled[..], &mut sums[..]);
                // SAFETY: both are laid out as the plan says.
                widest!(add_products(
                    plan: &Plan,
                    image: &[f32],
                    dy: &[f32],
                    sums: &mut [[f32; WIDEST]],
                ));
            }
            // SAFETY: each channel is another part.
            let dw = unsafe { dw.part(channel * taps..(channel + 1) * taps) };
            for (dw, lanes) in dw.iter_mut().zip(&sums) {
                *dw = lanes.iter().sum();
            }
        })
    }
}

/// # Safety
///
/// `image` is laid out as `plan` says, `dy` has whole vectors; there are as many sums as taps.
#[inline(always)]
unsafe fn add_products<V: Vector, const _R: usize>(
    plan: &Plan,
    image: &[f32],
    dy: &[f32],
    sums: &mut [[f32; WIDEST]],
) {
    for (taps, sums) in plan.taps.chunks(AT_ONCE).zip(sums.chunks_mut(AT_ONCE)) {
        // SAFETY: as of the caller.
        unsafe {
            match taps.len() {
                1 => add_some::<V, 1>(plan, image, dy, taps, sums),
                2 => add_some::<V, 2>(plan, image, dy, taps, sums),
                3 => add_some::<V, 3>(plan, image, dy, taps, sums),
                4 => add_some::<V, 4>(plan, image, dy, taps, sums),
                5 => add_some::<V, 5>(plan, image, dy, taps, sums),
                6 => add_some::<V, 6>(plan, image, dy, taps, sums),
                7 => add_some::<V, 7>(plan, image, dy, taps, sums),
                8 => add_some::<V, 8>(plan, image, dy, taps, sums),
                _ => add_some::<V, AT_ONCE>(plan, image, dy, taps, sums),
            }
        }
    }
}

#[inline(always)]
unsafe fn add_some<V: Vector, const T: usize>(
    plan: &Plan,
    image: &[f32],
    dy: &[f32],
    taps: &[usize],
    sums: &mut [[f32; WIDEST]],
) {
    // SAFETY: as of the caller.
    unsafe {
        let mut totals: [V::Value; T] = std::array::from_fn(|tap| V::load(sums[tap].as_ptr()));
        for (row, dy) in dy.chunks_exact(plan.across.max(1)).enumerate() {
            let image = image.as_ptr().add(row * plan.strides[0] * plan.row);
            for column in (0..plan.places[1]).step_by(V::LANES) {
                let dy = V::load(dy.as_ptr().add(column));
                for tap in 0..T {
                    let seen = V::load(image.add(column + taps[tap]));
                    totals[tap] = V::multiply_add(dy, seen, totals[tap]);
                }
            }
        }
        for tap in 0..T {
            V::store(totals[tap], sums[tap].as_mut_ptr());
        }
    }
}
