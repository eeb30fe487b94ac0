//! The gradient of `Relu`: what comes back through the elements that were let through.

#![allow(
    clippy::inline_always,
    reason = "vector code comes of inlining into the function that enables the instructions"
)]

use ort::operator::{ComputeContext, Kernel, KernelContext};
use ort::value::TensorElementType::{self, Float32};

use super::node::{Fused, PIECE, Parts, dims, for_each_piece, input, output, refused};

/// Inputs: the gradient by the output, the output. Output: the gradient by the input, which is
/// the former times 1 where the latter is not 0, else times 0.
pub(crate) const RELU_GRADIENT: &str = "ai.cerebro.ReluGradient";

pub(super) struct ReluGradient;

impl Fused for ReluGradient {
    const NAME: &'static str = RELU_GRADIENT;
    const INPUTS: &'static [TensorElementType] = &[Float32; 2];
    const OUTPUTS: &'static [TensorElementType] = &[Float32];

    fn new(_: &KernelContext<'_>) -> ort::Result<Self> {
        Ok(Self)
    }
}

impl Kernel for ReluGradient {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let name = Self::NAME;
        let (dy, y) = (input(context, name, 0)?, input(context, name, 1)?);
        let (shape, dy) = dy.try_extract_tensor::<f32>()?;
        let (_, y) = y.try_extract_tensor::<f32>()?;
        if y.len() != dy.len() {
            return Err(refused(name, "its inputs differ in size"));
        }
        let mut dx = output(context, name, 0, &dims(shape))?;
        let dx = Parts::of(dx.try_extract_tensor_mut::<f32>()?.1);
        for_each_piece(context, dy.len(), PIECE, 3 * dy.len(), |range| {
            let (dy, y) = (&dy[range.clone()], &y[range.clone()]);
            // SAFETY: each piece is another part.
            let dx = unsafe { dx.part(range) };
            fastest!(mask(dy: &[f32], y: &[f32], dx: &mut [f32]));
        })
    }
}

#[inline(always)]
fn mask(dy: &[f32], y: &[f32], dx: &mut [f32]) {
    for ((dx, dy), y) in dx.iter_mut().zip(dy).zip(y) {
        *dx = dy * if *y == 0.0 { 0.0 } else { 1.0 };
    }
}
