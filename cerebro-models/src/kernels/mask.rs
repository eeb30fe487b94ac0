//! The gradient of `Relu`: what comes back through the elements that were let through.

#![allow(
    clippy::inline_always,
    reason = "vector code comes of inlining into the function that enables the instructions"
)]

use ort::operator::{
    ComputeContext, Kernel, KernelContext, Operator, OperatorDomain, OperatorInput, OperatorOutput,
};
use ort::value::TensorElementType;

use super::in_domain;
use super::node::{Parts, for_each};

/// Elements that one call of a thread masks.
const PIECE: usize = 1 << 14;

/// Inputs: the gradient by the output, the output. Output: the gradient by the input, which is
/// the former times 1 where the latter is not 0, else times 0.
pub(crate) const RELU_GRADIENT: &str = "ai.cerebro.ReluGradient";

pub(super) fn add_to(domain: OperatorDomain) -> ort::Result<OperatorDomain> {
    domain.add(ReluGradient)
}

struct ReluGradient;

impl Operator for ReluGradient {
    type Kernel<'attr> = ReluGradientKernel;

    fn name(&self) -> &str {
        in_domain(RELU_GRADIENT)
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        [(); 2].map(|()| OperatorInput::required(TensorElementType::Float32))
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(TensorElementType::Float32)]
    }

    fn create_kernel(&self, _: &KernelContext<'_>) -> ort::Result<ReluGradientKernel> {
        Ok(ReluGradientKernel)
    }
}

struct ReluGradientKernel;

impl Kernel for ReluGradientKernel {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let missing = || ort::Error::new("ReluGradient lacks an input or an output");
        let (dy, y) = (context.input(0)?, context.input(1)?);
        let (dy, y) = (dy.ok_or_else(missing)?, y.ok_or_else(missing)?);
        let (shape, dy) = dy.try_extract_tensor::<f32>()?;
        let (_, y) = y.try_extract_tensor::<f32>()?;
        let mut dx = context.output(0, shape.clone())?.ok_or_else(missing)?;
        let (_, dx) = dx.try_extract_tensor_mut::<f32>()?;
        if y.len() != dy.len() {
            return Err(ort::Error::new("the inputs of ReluGradient differ in size"));
        }
        let length = dx.len();
        let parts = Parts::of(dx);
        for_each(context, length.div_ceil(PIECE), 3 * length, |piece| {
            let range = piece * PIECE..length.min((piece + 1) * PIECE);
            let (dy, y) = (&dy[range.clone()], &y[range.clone()]);
            // SAFETY: each piece is another part.
            let dx = unsafe { parts.part(range) };
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
