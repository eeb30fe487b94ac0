//! The sigmoid linear unit, also called swish, and its gradient: one pass each.

#![allow(
    clippy::inline_always,
    reason = "vector code comes of inlining into the function that enables the instructions"
)]

use ort::operator::{ComputeContext, Kernel, KernelContext};
use ort::value::TensorElementType::{self, Float32};

use super::exponential::{Arithmetic, sigmoid};
use super::node::{Fused, PIECE, Parts, back_by_elements, dims, for_each_piece, input, output};

/// Input: `x`. Output: `x sigmoid(x)` (Hendrycks and Gimpel 2016; Elfwing, Uchibe and Doya 2018).
pub(crate) const SILU: &str = "ai.cerebro.Silu";

/// Inputs: the gradient by the output, the input. Output: the gradient by the input.
pub(crate) const SILU_GRADIENT: &str = "ai.cerebro.SiluGradient";

#[inline(always)]
pub(super) fn silu<A: Arithmetic>(x: f32) -> f32 {
    x * sigmoid::<A>(x)
}

/// With `s = sigmoid(x)`: `s + x s (1 - s)`.
#[inline(always)]
pub(super) fn silu_slope<A: Arithmetic>(x: f32) -> f32 {
    let gate = sigmoid::<A>(x);
    gate * (1.0 + x * (1.0 - gate))
}

pub(super) struct Silu;

impl Fused for Silu {
    const NAME: &'static str = SILU;
    const INPUTS: &'static [TensorElementType] = &[Float32];
    const OUTPUTS: &'static [TensorElementType] = &[Float32];

    fn new(_: &KernelContext<'_>) -> ort::Result<Self> {
        Ok(Self)
    }
}

impl Kernel for Silu {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let x = input(context, SILU, 0)?;
        let (shape, x) = x.try_extract_tensor::<f32>()?;
        let mut y = output(context, SILU, 0, &dims(shape))?;
        let y = Parts::of(y.try_extract_tensor_mut::<f32>()?.1);
        for_each_piece(context, x.len(), PIECE, 4 * x.len(), |range| {
            // SAFETY: each piece is another part.
            let y = unsafe { y.part(range.clone()) };
            let x = &x[range];
            contracted!(all(x: &[f32], y: &mut [f32]));
        })
    }
}

#[inline(always)]
fn all<A: Arithmetic>(x: &[f32], y: &mut [f32]) {
    for (x, y) in x.iter().zip(y) {
        *y = silu::<A>(*x);
    }
}

pub(super) struct SiluGradient;

impl Fused for SiluGradient {
    const NAME: &'static str = SILU_GRADIENT;
    const INPUTS: &'static [TensorElementType] = &[Float32; 2];
    const OUTPUTS: &'static [TensorElementType] = &[Float32];

    fn new(_: &KernelContext<'_>) -> ort::Result<Self> {
        Ok(Self)
    }
}

impl Kernel for SiluGradient {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        back_by_elements(context, Self::NAME, 4, |dy, x, dx| {
            contracted!(back(dy: &[f32], x: &[f32], dx: &mut [f32]));
        })
    }
}

/// What comes back through the unit.
#[inline(always)]
pub(super) fn back<A: Arithmetic>(dy: &[f32], x: &[f32], dx: &mut [f32]) {
    for ((dx, dy), x) in dx.iter_mut().zip(dy).zip(x) {
        *dx = dy * silu_slope::<A>(*x);
    }
}
