//! Normalizations in training: forward with the batch's own statistics, and gradients, each in as
//! few passes over memory as its sums allow.

#![allow(
    clippy::inline_always,
    reason = "vector code comes of inlining into the function that enables the instructions"
)]

use std::ops::Range;

use ort::operator::{ComputeContext, Kernel, KernelContext};
use ort::value::TensorElementType::{self, Float32};

use super::exponential::Arithmetic;
use super::node::{Fused, Parts, dims, for_each, input, output, refused, size};
use super::silu::{silu, silu_slope};
use super::sum::{Partial, add, add_both, sums, total};
use super::vector::fetch;

/// Inputs: `x` of shape `[batch, channels, ...]`, scale, bias. Outputs: the normalized `x`, its
/// means and its variances (divided by n) per channel. Attributes: `epsilon`; `activation`, what the
/// normalized `x` goes through: 0 for nothing, [`RECTIFIED`], [`SMOOTH`].
pub(crate) const BATCH_NORM: &str = "ai.cerebro.BatchNorm";

/// The `activation` by which what is below zero becomes zero.
pub(crate) const RECTIFIED: i64 = 1;

/// The `activation` that is the sigmoid linear unit.
pub(crate) const SMOOTH: i64 = 2;

/// Inputs: the gradient by the output, `x`, scale, bias, means, variances. Outputs: the gradients
/// by `x`, scale and bias. Attributes as of [`BATCH_NORM`].
pub(crate) const BATCH_NORM_GRADIENT: &str = "ai.cerebro.BatchNormGradient";

/// Inputs: the gradient by the output, `x`, scale, the mean and the inverse deviation of each row.
/// Outputs: the gradients by `x`, scale and bias. A row is as long as the scale.
pub(crate) const LAYER_NORM_GRADIENT: &str = "ai.cerebro.LayerNormGradient";

/// How the elements of a channel lie in memory: `batch` pieces of `area` elements.
#[derive(Clone, Copy)]
struct Layout {
    batch: usize,
    channels: usize,
    area: usize,
}

impl Layout {
    fn of(name: &str, shape: &[i64], scale: usize) -> ort::Result<Self> {
        match dims(shape).as_slice() {
            [batch, channels, spatial @ ..] if *channels == scale => {
                Ok(Self { batch: *batch, channels: *channels, area: spatial.iter().product() })
            }
            other => Err(refused(name, format!("{other:?} has not {scale} channels"))),
        }
    }

    /// Where the piece of `channel` in `row` is.
    fn piece(self, row: usize, channel: usize) -> Range<usize> {
        let start = (row * self.channels + channel) * self.area;
        start..start + self.area
    }

    /// Where the pieces of `channel` are.
    fn pieces(self, channel: usize) -> impl Iterator<Item = Range<usize>> {
        (0..self.batch).map(move |row| self.piece(row, channel))
    }

    /// Rows whose pieces are added up together: there are few sums of vectors then, and none is so long
    /// that it becomes inexact.
    fn groups(self) -> impl Iterator<Item = Range<usize>> {
        let rows = (ADDED / self.area.max(1)).max(1);
        (0..self.batch).step_by(rows).map(move |row| row..self.batch.min(row + rows))
    }

    /// The piece after that in `row`.
    fn next(self, x: &[f32], row: usize, channel: usize) -> &[f32] {
        if row + 1 < self.batch { &x[self.piece(row + 1, channel)] } else { &[] }
    }
}

/// Elements that are added up in single precision.
const ADDED: usize = 1024;

#[derive(Clone, Copy)]
enum Activation {
    None,
    Rectified,
    Smooth,
}

#[derive(Clone, Copy)]
struct Settings {
    epsilon: f32,
    activation: Activation,
}

impl Settings {
    fn of(node: &KernelContext<'_>, name: &str) -> ort::Result<Self> {
        let epsilon = node.get::<f32>("epsilon");
        let epsilon = epsilon.ok_or_else(|| refused(name, "attribute `epsilon` is missing"))?;
        let activation = match size(node, name, "activation")? as i64 {
            0 => Activation::None,
            RECTIFIED => Activation::Rectified,
            SMOOTH => Activation::Smooth,
            other => return Err(refused(name, format!("activation {other} is unknown"))),
        };
        Ok(Self { epsilon, activation })
    }

    /// What no result is below.
    fn floor(self) -> f32 {
        match self.activation {
            Activation::Rectified => 0.0,
            Activation::None | Activation::Smooth => f32::NEG_INFINITY,
        }
    }

    fn is_smooth(self) -> bool {
        matches!(self.activation, Activation::Smooth)
    }
}

/// `y = gain x + offset`: the same bits in the forward pass and where the gradient asks which
/// elements were above zero.
#[derive(Clone, Copy)]
struct Affine {
    gain: f32,
    offset: f32,
}

impl Affine {
    fn new(scale: f32, bias: f32, mean: f32, variance: f32, epsilon: f32) -> Self {
        let gain = scale / (variance + epsilon).sqrt();
        Self { gain, offset: bias - mean * gain }
    }

    #[inline(always)]
    fn apply(self, x: f32) -> f32 {
        x * self.gain + self.offset
    }
}

pub(super) struct BatchNorm(Settings);

impl Fused for BatchNorm {
    const NAME: &'static str = BATCH_NORM;
    const INPUTS: &'static [TensorElementType] = &[Float32; 3];
    const OUTPUTS: &'static [TensorElementType] = &[Float32; 3];

    fn new(node: &KernelContext<'_>) -> ort::Result<Self> {
        Settings::of(node, Self::NAME).map(Self)
    }
}

impl Kernel for BatchNorm {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let name = Self::NAME;
        let (x, scale, bias) =
            (input(context, name, 0)?, input(context, name, 1)?, input(context, name, 2)?);
        let (shape, x) = x.try_extract_tensor::<f32>()?;
        let (_, scale) = scale.try_extract_tensor::<f32>()?;
        let (_, bias) = bias.try_extract_tensor::<f32>()?;
        let layout = Layout::of(name, shape, scale.len())?;
        if bias.len() != scale.len() {
            return Err(refused(name, "scale and bias differ in size"));
        }
        let mut y = output(context, name, 0, &dims(shape))?;
        let mut mean = output(context, name, 1, &[scale.len()])?;
        let mut variance = output(context, name, 2, &[scale.len()])?;
        let job = &Forward {
            x,
            scale,
            bias,
            y: Parts::of(y.try_extract_tensor_mut::<f32>()?.1),
            mean: Parts::of(mean.try_extract_tensor_mut::<f32>()?.1),
            variance: Parts::of(variance.try_extract_tensor_mut::<f32>()?.1),
            layout,
            settings: self.0,
        };
        for_each(context, layout.channels, x.len(), |channel| {
            contracted!(forward(job: &Forward<'_>, channel: usize));
        })
    }
}

struct Forward<'a> {
    x: &'a [f32],
    scale: &'a [f32],
    bias: &'a [f32],
    y: Parts<'a, f32>,
    mean: Parts<'a, f32>,
    variance: Parts<'a, f32>,
    layout: Layout,
    settings: Settings,
}

/// The sum of `term` over a channel.
#[inline(always)]
fn channel_sum(x: &[f32], layout: Layout, channel: usize, term: impl Fn(f32) -> f32) -> f64 {
    let mut sum = 0.0;
    for rows in layout.groups() {
        let mut partial = Partial::default();
        for row in rows {
            fetch(layout.next(x, row, channel));
            add(&mut partial, &x[layout.piece(row, channel)], &term);
        }
        sum += f64::from(total(partial));
    }
    sum
}

/// Three passes over a channel, all but the first of which find it in the cache.
#[inline(always)]
fn forward<A: Arithmetic>(job: &Forward<'_>, channel: usize) {
    let Forward { x, layout, settings, .. } = *job;
    let count = (layout.batch * layout.area).max(1) as f64;
    let mean = (channel_sum(x, layout, channel, |x| x) / count) as f32;
    let squares = channel_sum(x, layout, channel, |x| (x - mean) * (x - mean));
    let variance = (squares / count) as f32;
    let affine =
        Affine::new(job.scale[channel], job.bias[channel], mean, variance, settings.epsilon);
    let floor = settings.floor();
    for piece in layout.pieces(channel) {
        // SAFETY: the pieces of a channel overlap with no others.
        let y = unsafe { job.y.part(piece.clone()) };
        if settings.is_smooth() {
            y.iter_mut().zip(&x[piece]).for_each(|(y, x)| *y = silu::<A>(affine.apply(*x)));
            continue;
        }
        for (y, x) in y.iter_mut().zip(&x[piece]) {
            let value = affine.apply(*x);
            // Not `max`, which would make a number of what is none.
            *y = if value < floor { floor } else { value };
        }
    }
    // SAFETY: each channel is another element.
    unsafe {
        job.mean.part(channel..channel + 1).fill(mean);
        job.variance.part(channel..channel + 1).fill(variance);
    }
}

pub(super) struct BatchNormGradient(Settings);

impl Fused for BatchNormGradient {
    const NAME: &'static str = BATCH_NORM_GRADIENT;
    const INPUTS: &'static [TensorElementType] = &[Float32; 6];
    const OUTPUTS: &'static [TensorElementType] = &[Float32; 3];

    fn new(node: &KernelContext<'_>) -> ort::Result<Self> {
        Settings::of(node, Self::NAME).map(Self)
    }
}

impl Kernel for BatchNormGradient {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let name = Self::NAME;
        let values: Vec<_> =
            (0..6).map(|index| input(context, name, index)).collect::<ort::Result<_>>()?;
        let slices = values.iter().map(|value| Ok(value.try_extract_tensor::<f32>()?.1));
        let slices: Vec<&[f32]> = slices.collect::<ort::Result<_>>()?;
        let &[dy, x, scale, bias, mean, variance] = slices.as_slice() else {
            return Err(refused(name, "six inputs are needed"));
        };
        let (shape, _) = values[1].try_extract_tensor::<f32>()?;
        let layout = Layout::of(name, shape, scale.len())?;
        let fits = dy.len() == x.len()
            && [bias, mean, variance].iter().all(|values| values.len() == scale.len());
        if !fits {
            return Err(refused(name, "the inputs differ in size"));
        }
        let mut dx = output(context, name, 0, &dims(shape))?;
        let mut dscale = output(context, name, 1, &[scale.len()])?;
        let mut dbias = output(context, name, 2, &[scale.len()])?;
        let job = &Backward {
            dy,
            x,
            scale,
            bias,
            mean,
            variance,
            dx: Parts::of(dx.try_extract_tensor_mut::<f32>()?.1),
            dscale: Parts::of(dscale.try_extract_tensor_mut::<f32>()?.1),
            dbias: Parts::of(dbias.try_extract_tensor_mut::<f32>()?.1),
            layout,
            settings: self.0,
        };
        for_each(context, layout.channels, 2 * x.len(), |channel| {
            contracted!(backward(job: &Backward<'_>, channel: usize));
        })
    }
}

struct Backward<'a> {
    dy: &'a [f32],
    x: &'a [f32],
    scale: &'a [f32],
    bias: &'a [f32],
    mean: &'a [f32],
    variance: &'a [f32],
    dx: Parts<'a, f32>,
    dscale: Parts<'a, f32>,
    dbias: Parts<'a, f32>,
    layout: Layout,
    settings: Settings,
}

/// With `h = (x - mean) / s` and `s = sqrt(variance + epsilon)`: `dbias = sum dy`,
/// `dscale = sum dy h`, `dx = scale / s (dy - dbias / n - h dscale / n)` (Ioffe and Szegedy 2015,
/// section 3).
#[inline(always)]
fn backward<A: Arithmetic>(job: &Backward<'_>, channel: usize) {
    let Backward { dy, x, layout, settings, .. } = *job;
    let (mean, variance) = (job.mean[channel], job.variance[channel]);
    let affine =
        Affine::new(job.scale[channel], job.bias[channel], mean, variance, settings.epsilon);
    let floor = settings.floor();
    // What the rectifier let through, as the forward pass computed it.
    let passed = |dy: f32, x: f32| if affine.apply(x) <= floor { 0.0 } else { dy };
    let (mut plain, mut along) = (0.0_f64, 0.0_f64);
    let term = |dy: f32, x: f32| {
        let dy = passed(dy, x);
        (dy, dy * (x - mean))
    };
    for rows in layout.groups() {
        let mut partial = [Partial::default(); 2];
        for row in rows {
            let piece = layout.piece(row, channel);
            fetch(layout.next(dy, row, channel));
            fetch(layout.next(x, row, channel));
            if settings.is_smooth() {
                // SAFETY: the pieces of a channel overlap with no others.
                let back = unsafe { job.dx.part(piece.clone()) };
                let x = &x[piece.clone()];
                for ((back, dy), x) in back.iter_mut().zip(&dy[piece]).zip(x) {
                    *back = dy * silu_slope::<A>(affine.apply(*x));
                }
                add_both(&mut partial, back, x, term);
            } else {
                add_both(&mut partial, &dy[piece.clone()], &x[piece], term);
            }
        }
        let [one, two] = partial;
        plain += f64::from(total(one));
        along += f64::from(total(two));
    }
    let count = (layout.batch * layout.area).max(1) as f64;
    let inverse = 1.0 / f64::from((variance + settings.epsilon).sqrt());
    let gain = affine.gain;
    let offset = (f64::from(gain) * plain / count) as f32;
    let slope = (f64::from(gain) * inverse * inverse * along / count) as f32;
    for piece in layout.pieces(channel) {
        // SAFETY: the pieces of a channel overlap with no others.
        let dx = unsafe { job.dx.part(piece.clone()) };
        if settings.is_smooth() {
            // What came back through the unit is there already.
            for (dx, x) in dx.iter_mut().zip(&x[piece]) {
                *dx = *dx * gain - offset - (x - mean) * slope;
            }
            continue;
        }
        for ((dx, dy), x) in dx.iter_mut().zip(&dy[piece.clone()]).zip(&x[piece]) {
            *dx = passed(*dy, *x) * gain - offset - (x - mean) * slope;
        }
    }
    // SAFETY: each channel is another element.
    unsafe {
        job.dscale.part(channel..channel + 1).fill((along * inverse) as f32);
        job.dbias.part(channel..channel + 1).fill(plain as f32);
    }
}

pub(super) struct LayerNormGradient;

/// Rows whose contributions to the gradients of scale and bias are added up together.
const ROWS: usize = 64;

impl Fused for LayerNormGradient {
    const NAME: &'static str = LAYER_NORM_GRADIENT;
    const INPUTS: &'static [TensorElementType] = &[Float32; 5];
    const OUTPUTS: &'static [TensorElementType] = &[Float32; 3];

    fn new(_: &KernelContext<'_>) -> ort::Result<Self> {
        Ok(Self)
    }
}

impl Kernel for LayerNormGradient {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let name = Self::NAME;
        let values: Vec<_> =
            (0..5).map(|index| input(context, name, index)).collect::<ort::Result<_>>()?;
        let slices = values.iter().map(|value| Ok(value.try_extract_tensor::<f32>()?.1));
        let slices: Vec<&[f32]> = slices.collect::<ort::Result<_>>()?;
        let &[dy, x, scale, mean, inverse] = slices.as_slice() else {
            return Err(refused(name, "five inputs are needed"));
        };
        let (shape, _) = values[1].try_extract_tensor::<f32>()?;
        let (scale_shape, _) = values[2].try_extract_tensor::<f32>()?;
        let width = scale.len();
        let rows = mean.len();
        if dy.len() != x.len() || rows * width != x.len() || inverse.len() != rows {
            return Err(refused(name, "the inputs differ in size"));
        }
        let mut dx = output(context, name, 0, &dims(shape))?;
        let mut dscale = output(context, name, 1, &dims(scale_shape))?;
        let mut dbias = output(context, name, 2, &dims(scale_shape))?;
        let (_, dscale) = dscale.try_extract_tensor_mut::<f32>()?;
        let (_, dbias) = dbias.try_extract_tensor_mut::<f32>()?;
        let blocks = rows.div_ceil(ROWS);
        let mut partial = vec![0.0_f32; blocks * 2 * width];
        let job = &Rows {
            dy,
            x,
            scale,
            mean,
            inverse,
            dx: Parts::of(dx.try_extract_tensor_mut::<f32>()?.1),
            partial: Parts::of(&mut partial),
        };
        for_each(context, blocks, 2 * x.len(), |block| {
            fastest!(layer_backward(job: &Rows<'_>, block: usize));
        })?;
        // In the order of the rows, whichever thread had them.
        dscale.fill(0.0);
        dbias.fill(0.0);
        for block in partial.chunks_exact((2 * width).max(1)) {
            let (by_scale, by_bias) = block.split_at(width);
            dscale.iter_mut().zip(by_scale).for_each(|(sum, part)| *sum += part);
            dbias.iter_mut().zip(by_bias).for_each(|(sum, part)| *sum += part);
        }
        Ok(())
    }
}

struct Rows<'a> {
    dy: &'a [f32],
    x: &'a [f32],
    scale: &'a [f32],
    mean: &'a [f32],
    inverse: &'a [f32],
    dx: Parts<'a, f32>,
    /// For each block of rows its share of the gradients of scale and bias.
    partial: Parts<'a, f32>,
}

/// With `h = (x - mean) / s` and `u = dy scale`: `dx = (u - mean(u) - h mean(u h)) / s`, means
/// over a row (Ba, Kiros and Hinton 2016).
#[inline(always)]
fn layer_backward(job: &Rows<'_>, block: usize) {
    let scale = job.scale;
    let width = scale.len();
    let count = width.max(1) as f32;
    // SAFETY: each block is another part.
    let partial = unsafe { job.partial.part(2 * block * width..2 * (block + 1) * width) };
    let (by_scale, by_bias) = partial.split_at_mut(width);
    for row in block * ROWS..((block + 1) * ROWS).min(job.mean.len()) {
        let of_row = row * width..(row + 1) * width;
        let (dy, x) = (&job.dy[of_row.clone()], &job.x[of_row.clone()]);
        let (mean, inverse) = (job.mean[row], job.inverse[row]);
        // SAFETY: each row is another part.
        let dx = unsafe { job.dx.part(of_row) };
        for ((dx, dy), scale) in dx.iter_mut().zip(dy).zip(scale) {
            *dx = dy * scale;
        }
        let (plain, along) = sums(dx, x, |u, x| (u, u * (x - mean)));
        let (offset, slope) = (plain / count, along * inverse * inverse / count);
        for (dx, x) in dx.iter_mut().zip(x) {
            *dx = (*dx - offset - (x - mean) * slope) * inverse;
        }
        let shares = by_scale.iter_mut().zip(by_bias.iter_mut());
        for ((by_scale, by_bias), (dy, x)) in shares.zip(dy.iter().zip(x)) {
            *by_scale += dy * ((x - mean) * inverse);
            *by_bias += dy;
        }
    }
}
