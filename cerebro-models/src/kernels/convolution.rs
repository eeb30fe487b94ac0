//! Convolutions over one or two spatial axes and their gradients: one group, no dilation.
//!
//! ONNX Runtime's convolution gathers what windows see into a matrix (`im2col`) before it
//! multiplies; its fastest kernels want weights that are constants, which those of a training step
//! are not. These lay images out so that nothing need be gathered.

use ort::operator::{ComputeContext, Kernel, KernelContext};
use ort::value::TensorElementType::{self, Float32};

use super::correlation::{Correlation, Image, Outer, Place, Windows, tile_rows, with_images};
use super::node::{Fused, Parts, dims, for_each, input, output, refused, sizes};
use super::pointwise::Pointwise;

/// Inputs: `x`, the weights, the bias (zeros if there is none). Output: `y`. Attributes, an entry
/// per spatial axis: `strides`, `pads_before`, `places` (the spatial sizes of `y`).
pub(crate) const CONV: &str = "ai.cerebro.Conv";

/// Inputs: the gradient by the output, the weights. Output: the gradient by the input. Attributes:
/// `strides`, `pads_before`, `input` (the spatial sizes of the input).
pub(crate) const CONV_INPUT_GRADIENT: &str = "ai.cerebro.ConvInputGradient";

/// Inputs: the gradient by the output, the input. Output: the gradient by the weights. Attributes:
/// `strides`, `pads_before`, `kernel_shape`.
pub(crate) const CONV_WEIGHT_GRADIENT: &str = "ai.cerebro.ConvWeightGradient";

/// Images that one call of a thread works on.
const IMAGES: usize = 4;

/// The parts of a batch whose weight gradients are summed by themselves, perhaps by another
/// thread; always as many, so that the sums are the same.
const SHARES: usize = 4;

/// Elements of laid-out images that stay in a core's cache while all their sums are made.
const CACHED: usize = 1 << 16;

/// Strides and paddings; with one spatial axis the first entries are those of an axis of size 1.
#[derive(Clone, Copy, Debug)]
struct Geometry {
    strides: [usize; 2],
    before: [usize; 2],
    /// What else the operator has to know of sizes.
    given: [usize; 2],
}

/// One entry per spatial axis as two, the first of which is `filling` where there is one axis.
pub(super) fn two(values: &[usize], filling: usize) -> Option<[usize; 2]> {
    match *values {
        [one] => Some([filling, one]),
        [one, two] => Some([one, two]),
        _ => None,
    }
}

impl Geometry {
    fn of(node: &KernelContext<'_>, name: &str, given: &str) -> ort::Result<Self> {
        let pair = |attribute, filling| {
            let values = sizes(node, name, attribute)?;
            let pair = two(&values, filling);
            pair.ok_or_else(|| refused(name, format!("`{attribute}` has {} axes", values.len())))
        };
        Ok(Self {
            strides: pair("strides", 1)?,
            before: pair("pads_before", 0)?,
            given: pair(given, 1)?,
        })
    }

    /// Whether windows of the size `window` are the pixels of an image of as many as there are places.
    fn is_pointwise(&self, window: [usize; 2], image: [usize; 2], places: [usize; 2]) -> bool {
        self.strides == [1; 2] && window == [1; 2] && image == places && self.before == [0; 2]
    }
}

/// Batch, channels, height and width.
pub(super) fn four(name: &str, shape: &[i64]) -> ort::Result<[usize; 4]> {
    match dims(shape).as_slice() {
        &[batch, channels, width] => Ok([batch, channels, 1, width]),
        &[batch, channels, height, width] => Ok([batch, channels, height, width]),
        other => Err(refused(name, format!("{other:?} has not one or two spatial axes"))),
    }
}

/// The shape with `channels` and the spatial sizes `size`, of as many axes as `like` has.
pub(super) fn shaped(like: &[i64], batch: usize, channels: usize, size: [usize; 2]) -> Vec<usize> {
    if like.len() == 3 {
        vec![batch, channels, size[1]]
    } else {
        vec![batch, channels, size[0], size[1]]
    }
}

pub(super) struct Conv(Geometry);

impl Fused for Conv {
    const NAME: &'static str = CONV;
    const INPUTS: &'static [TensorElementType] = &[Float32; 3];
    const OUTPUTS: &'static [TensorElementType] = &[Float32];

    fn new(node: &KernelContext<'_>) -> ort::Result<Self> {
        Geometry::of(node, Self::NAME, "places").map(Self)
    }
}

impl Kernel for Conv {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let name = Self::NAME;
        let (x, w, bias) =
            (input(context, name, 0)?, input(context, name, 1)?, input(context, name, 2)?);
        let (shape, x) = x.try_extract_tensor::<f32>()?;
        let (kernel, w) = w.try_extract_tensor::<f32>()?;
        let (_, bias) = bias.try_extract_tensor::<f32>()?;
        let [batch, channels, height, width] = four(name, shape)?;
        let [filters, inner, rows, columns] = four(name, kernel)?;
        let Geometry { strides, before, given: places } = self.0;
        if inner != channels || bias.len() != filters {
            return Err(refused(name, format!("weights {kernel:?} do not fit {shape:?}")));
        }
        let mut y = output(context, name, 0, &shaped(shape, batch, filters, places))?;
        let (_, y) = y.try_extract_tensor_mut::<f32>()?;
        if self.0.is_pointwise([rows, columns], [height, width], places) {
            let job = Pointwise { filters, channels, area: height * width };
            return for_each_group(context, batch, x, y, |x, y| job.forward(x, w, bias, y));
        }
        let reach = |axis: usize, window: usize| (places[axis].max(1) - 1) * strides[axis] + window;
        let source = Image {
            channels,
            pixel: channels,
            size: [height, width],
            before,
            padded: [
                reach(0, rows).max(before[0] + height),
                reach(1, columns).max(before[1] + width),
            ],
        };
        let mut at = Vec::with_capacity(places[0] * places[1]);
        for row in 0..places[0] {
            for column in 0..places[1] {
                let start = source.offset(row * strides[0], column * strides[1]);
                at.push(Place { start, target: row * places[1] + column });
            }
        }
        let filter = channels * rows * columns;
        let windows = Windows::new(
            [rows, columns],
            channels,
            filters,
            at,
            |[row, column, channel], first, to| {
                let at = (channel * rows + row) * columns + column;
                let values = w[first * filter + at..].iter().step_by(filter);
                to.iter_mut().zip(values).for_each(|(to, value)| *to = *value);
            },
        );
        let plane = places[0] * places[1];
        let job = Correlation { source, outputs: filters, plane, windows: vec![windows] };
        apply(context, &job, x, bias, y, batch)
    }
}

/// Calls `each` for some images of `batch` at a time, of which `x` has all, and for their places in `y`.
fn for_each_group(
    context: &ComputeContext,
    batch: usize,
    x: &[f32],
    y: &mut [f32],
    each: impl Fn(&[f32], &mut [f32]) + Sync + Send,
) -> ort::Result<()> {
    let sizes = [x.len(), y.len()].map(|length| length / batch.max(1));
    let parts = Parts::of(y);
    for_each(context, batch.div_ceil(IMAGES), x.len() * 8, |group| {
        let images = |size: usize| group * IMAGES * size..((group + 1) * IMAGES).min(batch) * size;
        // SAFETY: each group has images of its own.
        each(&x[images(sizes[0])], unsafe { parts.part(images(sizes[1])) });
    })
}

/// Lays out each of `batch` images and correlates it.
fn apply(
    context: &ComputeContext,
    job: &Correlation,
    x: &[f32],
    bias: &[f32],
    y: &mut [f32],
    batch: usize,
) -> ort::Result<()> {
    let size = job.source.channels * job.source.size[0] * job.source.size[1];
    let result = job.outputs * job.plane;
    for_each_group(context, batch, x, y, |x, y| {
        with_images(job.source.length(), |laid_out| {
            for (x, y) in x.chunks_exact(size).zip(y.chunks_exact_mut(result)) {
                job.source.lay_out(x, laid_out);
                job.apply(laid_out, bias, y);
            }
        });
    })
}

pub(super) struct ConvInputGradient(Geometry);

impl Fused for ConvInputGradient {
    const NAME: &'static str = CONV_INPUT_GRADIENT;
    const INPUTS: &'static [TensorElementType] = &[Float32; 2];
    const OUTPUTS: &'static [TensorElementType] = &[Float32];

    fn new(node: &KernelContext<'_>) -> ort::Result<Self> {
        Geometry::of(node, Self::NAME, "input").map(Self)
    }
}

/// The places of an axis of the input that see the same places of the kernel, which are every
/// stride-th: `kernel` of them from `first` on; an input element and where its window of the output
/// starts.
struct Phase {
    first: usize,
    kernel: usize,
    /// Input element, and the last output element that it contributed to.
    elements: Vec<(usize, usize)>,
}

fn phases(stride: usize, kernel: usize, before: usize, size: usize) -> Vec<Phase> {
    let phase = |first: usize| Phase {
        first,
        kernel: (kernel.max(first) - first).div_ceil(stride),
        elements: (0..size)
            .filter(|element| (element + before) % stride == first)
            .map(|element| (element, (element + before) / stride))
            .collect(),
    };
    (0..stride).map(phase).collect()
}

/// An input element `t` (counted with the padding) contributed to the output `o` through the kernel
/// place `k` where `t = stride o + k`: so elements with the same remainder by the stride see the
/// same places of the kernel, and for them the gradient is a correlation without strides (Dumoulin
/// and Visin 2016, chapter 4).
impl Kernel for ConvInputGradient {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let name = Self::NAME;
        let (dy, w) = (input(context, name, 0)?, input(context, name, 1)?);
        let (shape, dy) = dy.try_extract_tensor::<f32>()?;
        let (kernel, w) = w.try_extract_tensor::<f32>()?;
        let [batch, filters, height, width] = four(name, shape)?;
        let [outputs, channels, rows, columns] = four(name, kernel)?;
        let Geometry { strides, before, given: size } = self.0;
        if outputs != filters {
            return Err(refused(name, format!("weights {kernel:?} do not fit {shape:?}")));
        }
        let mut dx = output(context, name, 0, &shaped(shape, batch, channels, size))?;
        let (_, dx) = dx.try_extract_tensor_mut::<f32>()?;
        if self.0.is_pointwise([rows, columns], size, [height, width]) {
            let job = Pointwise { filters, channels, area: height * width };
            return for_each_group(context, batch, dy, dx, |dy, dx| job.back(dy, w, dx));
        }
        let by_row = phases(strides[0], rows, before[0], size[0]);
        let by_column = phases(strides[1], columns, before[1], size[1]);
        // Zeros on both sides, for windows that stand out.
        let around = [rows.div_ceil(strides[0]) - 1, columns.div_ceil(strides[1]) - 1];
        let last = |phases: &[Phase]| {
            phases.iter().filter_map(|phase| phase.elements.last()).map(|last| last.1 + 1).max()
        };
        let source = Image {
            channels: filters,
            pixel: filters,
            size: [height, width],
            before: around,
            padded: [
                around[0] + height.max(last(&by_row).unwrap_or(0)),
                around[1] + width.max(last(&by_column).unwrap_or(0)),
            ],
        };
        let mut windows = Vec::new();
        let mut whole = true;
        for row in &by_row {
            for column in &by_column {
                if row.kernel == 0 || column.kernel == 0 {
                    whole = false;
                    continue;
                }
                let mut at = Vec::with_capacity(row.elements.len() * column.elements.len());
                for &(y, above) in &row.elements {
                    for &(x, left) in &column.elements {
                        let start = source.offset(
                            above + around[0] + 1 - row.kernel,
                            left + around[1] + 1 - column.kernel,
                        );
                        at.push(Place { start, target: y * size[1] + x });
                    }
                }
                // Later output elements saw it through earlier places of the kernel.
                let fill = |[r, c, filter]: [usize; 3], first: usize, to: &mut [f32]| {
                    let r = row.first + (row.kernel - 1 - r) * strides[0];
                    let c = column.first + (column.kernel - 1 - c) * strides[1];
                    let plane = rows * columns;
                    let at = (filter * channels + first) * plane + r * columns + c;
                    let values = w[at..].iter().step_by(plane);
                    to.iter_mut().zip(values).for_each(|(to, value)| *to = *value);
                };
                windows.push(Windows::new(
                    [row.kernel, column.kernel],
                    filters,
                    channels,
                    at,
                    fill,
                ));
            }
        }
        if !whole {
            dx.fill(0.0);
        }
        let job = Correlation { source, outputs: channels, plane: size[0] * size[1], windows };
        apply(context, &job, dy, &[], dx, batch)
    }
}

pub(super) struct ConvWeightGradient(Geometry);

impl Fused for ConvWeightGradient {
    const NAME: &'static str = CONV_WEIGHT_GRADIENT;
    const INPUTS: &'static [TensorElementType] = &[Float32; 2];
    const OUTPUTS: &'static [TensorElementType] = &[Float32];

    fn new(node: &KernelContext<'_>) -> ort::Result<Self> {
        Geometry::of(node, Self::NAME, "kernel_shape").map(Self)
    }
}

impl Kernel for ConvWeightGradient {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let name = Self::NAME;
        let (dy, x) = (input(context, name, 0)?, input(context, name, 1)?);
        let (places, dy) = dy.try_extract_tensor::<f32>()?;
        let (shape, x) = x.try_extract_tensor::<f32>()?;
        let [batch, channels, height, width] = four(name, shape)?;
        let [same_batch, filters, down, across] = four(name, places)?;
        let Geometry { strides, before, given: window } = self.0;
        if same_batch != batch {
            return Err(refused(name, format!("{places:?} does not fit {shape:?}")));
        }
        let dw_shape = shaped(shape, filters, channels, window);
        let mut dw = output(context, name, 0, &dw_shape)?;
        let (_, dw) = dw.try_extract_tensor_mut::<f32>()?;
        let shares = SHARES.min(batch).max(1);
        let images = |share: usize| share * batch / shares..(share + 1) * batch / shares;
        if self.0.is_pointwise(window, [height, width], [down, across]) {
            let job = Pointwise { filters, channels, area: height * width };
            let mut sums = vec![0.0_f32; shares * dw.len()];
            let (parts, length) = (Parts::of(&mut sums), dw.len());
            for_each(context, shares, 8 * x.len(), |share| {
                // SAFETY: each share is another part.
                let sums = unsafe { parts.part(share * length..(share + 1) * length) };
                job.add_by_weights(images(share), dy, x, sums);
            })?;
            for (at, dw) in dw.iter_mut().enumerate() {
                *dw = sums[at..].iter().step_by(length).sum();
            }
            return Ok(());
        }
        let reach = |axis: usize, places: usize| (places.max(1) - 1) * strides[axis] + window[axis];
        let job = Outer {
            x: Image {
                channels,
                pixel: channels,
                size: [height, width],
                before,
                padded: [
                    reach(0, down).max(before[0] + height),
                    reach(1, across).max(before[1] + width),
                ],
            },
            dy: Image {
                channels: filters,
                pixel: filters.next_multiple_of(tile_rows()),
                size: [down, across],
                before: [0; 2],
                padded: [down, across],
            },
            window,
            strides,
        };
        let length = job.length();
        let mut sums = vec![0.0_f32; shares * length];
        let parts = Parts::of(&mut sums);
        for_each(context, shares, 8 * x.len(), |share| {
            // SAFETY: each share is another part.
            let sums = unsafe { parts.part(share * length..(share + 1) * length) };
            add_images(&job, images(share), x, dy, sums);
        })?;
        gather_weights(&job, filters, &sums, dw);
        Ok(())
    }
}

/// Adds what `images` contribute, as many at a time as stay in the cache.
fn add_images(
    job: &Outer,
    images: std::ops::Range<usize>,
    x: &[f32],
    dy: &[f32],
    sums: &mut [f32],
) {
    let size = |image: &Image| image.channels * image.size[0] * image.size[1];
    let (x_size, dy_size) = (size(&job.x), size(&job.dy));
    let (x_length, dy_length) = (job.x.length(), job.dy.length());
    let at_once = (CACHED / (x_length + dy_length)).clamp(1, images.len().max(1));
    with_images(at_once * (x_length + dy_length), |laid_out| {
        let (x_out, dy_out) = laid_out.split_at_mut(at_once * x_length);
        let mut first = images.start;
        while first < images.end {
            let count = at_once.min(images.end - first);
            for image in 0..count {
                let at = first + image;
                let to = &mut x_out[image * x_length..(image + 1) * x_length];
                job.x.lay_out(&x[at * x_size..(at + 1) * x_size], to);
                let to = &mut dy_out[image * dy_length..(image + 1) * dy_length];
                job.dy.lay_out(&dy[at * dy_size..(at + 1) * dy_size], to);
            }
            job.add(count, x_out, dy_out, sums);
            first += count;
        }
    });
}

/// Adds up the shares, in their order, into the weights' own layout.
fn gather_weights(job: &Outer, filters: usize, shares: &[f32], dw: &mut [f32]) {
    let [rows, columns] = job.window;
    let channels = job.x.channels;
    for (filter, dw) in
        dw.chunks_exact_mut((channels * rows * columns).max(1)).enumerate().take(filters)
    {
        for row in 0..rows {
            let start = (row * job.dy.pixel + filter) * job.columns();
            for column in 0..columns {
                for channel in 0..channels {
                    let at = start + column * channels + channel;
                    let sum = shares.chunks_exact(job.length()).map(|share| share[at]).sum();
                    dw[(channel * rows + row) * columns + column] = sum;
                }
            }
        }
    }
}
