//! The gradient of `Softmax` along the last axis, in one pass.

#![allow(
    clippy::inline_always,
    reason = "vector code comes of inlining into the function that enables the instructions"
)]

use ort::operator::{ComputeContext, Kernel, KernelContext};
use ort::value::TensorElementType::{self, Float32};

use super::node::{Fused, PIECE, Parts, dims, for_each_piece, input, output, refused};
use super::sum::sums;

/// Inputs: the gradient by the output, the output `y`. Output: the gradient by the input,
/// `y (dy - sum(y dy))` with the sum over the last axis.
pub(crate) const SOFTMAX_GRADIENT: &str = "ai.cerebro.SoftmaxGradient";

pub(super) struct SoftmaxGradient;

impl Fused for SoftmaxGradient {
    const NAME: &'static str = SOFTMAX_GRADIENT;
    const INPUTS: &'static [TensorElementType] = &[Float32, Float32];
    const OUTPUTS: &'static [TensorElementType] = &[Float32];

    fn new(_: &KernelContext<'_>) -> ort::Result<Self> {
        Ok(Self)
    }
}

impl Kernel for SoftmaxGradient {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let name = Self::NAME;
        let (dy, y) = (input(context, name, 0)?, input(context, name, 1)?);
        let (shape, dy) = dy.try_extract_tensor::<f32>()?;
        let (_, y) = y.try_extract_tensor::<f32>()?;
        if dy.len() != y.len() {
            return Err(refused(name, "its inputs differ in size"));
        }
        let shape = dims(shape);
        let mut dx = output(context, name, 0, &shape)?;
        let (_, dx) = dx.try_extract_tensor_mut::<f32>()?;
        let width = shape.last().copied().unwrap_or(1);
        if width == 0 {
            return Ok(());
        }
        let dx = Parts::of(dx);
        let whole_rows = width * (PIECE / width).max(1);
        for_each_piece(context, y.len(), whole_rows, 3 * y.len(), |range| {
            // SAFETY: pieces do not overlap, and each is computed once.
            let dx = unsafe { dx.part(range.clone()) };
            let (dy, y) = (&dy[range.clone()], &y[range]);
            fastest!(rows(width: usize, dy: &[f32], y: &[f32], dx: &mut [f32]));
        })
    }
}

#[inline(always)]
fn rows(width: usize, dy: &[f32], y: &[f32], dx: &mut [f32]) {
    let rows = dy.chunks_exact(width).zip(y.chunks_exact(width)).zip(dx.chunks_exact_mut(width));
    for ((dy, y), dx) in rows {
        let (sum, _) = sums(dy, y, |dy, y| (dy * y, 0.0));
        for ((dx, dy), y) in dx.iter_mut().zip(dy).zip(y) {
            *dx = y * (dy - sum);
        }
    }
}
