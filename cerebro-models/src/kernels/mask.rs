//! The gradient of `Relu`: what comes back through the elements that were let through.

#![allow(
    clippy::inline_always,
    reason = "vector code comes of inlining into the function that enables the instructions"
)]

use ort::operator::{ComputeContext, Kernel, KernelContext};
use ort::value::TensorElementType::{self, Float32};

use super::node::{Fused, back_by_elements};

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
        back_by_elements(context, Self::NAME, 3, |dy, y, dx| {
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
