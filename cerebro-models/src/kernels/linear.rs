//! Linear layers and their gradients: products of matrices that do what follows or precedes them
//! on the way.
//!
//! ONNX Runtime's product copies operands that are not constants into another layout and leaves
//! bias, rectifier, mask and sums to passes of their own. A left operand of more than two axes is
//! one tall matrix. Attributes of all: `transA` and `transB`.

use ort::operator::{ComputeContext, Kernel, KernelContext};
use ort::value::TensorElementType::{self, Float32};
use ort::value::ValueRef;

use super::node::{Fused, dims, input, output, refused, size};
use super::product::{Finish, Matrix, Product};
use super::sum::sum_rows;

/// Inputs: `a`, `b`. Output: their product.
pub(crate) const PRODUCT: &str = "ai.cerebro.Product";

/// Inputs: `x`, the weights, the bias. Output: `x w + bias`. Attribute: `rectified`, 1 if negative
/// results become zero.
pub(crate) const LINEAR: &str = "ai.cerebro.Linear";

/// Inputs: the gradient by the output, the weights, and what lies beside their product. Output: the
/// gradient by what became the input of a layer through its activation. Attribute: `scaled`, 0 where the
/// activation was a rectifier, whose results lie beside the product: what is zero there is zero; 1
/// where its slopes do, by which the product is multiplied.
pub(crate) const LINEAR_INPUT_GRADIENT: &str = "ai.cerebro.LinearInputGradient";

/// Inputs: `a`, which is transposed, `b`. Outputs: their product, and the sums of the columns of
/// one of them, the gradient by the bias. Attribute: `summed`, 0 for `a` and 1 for `b`.
pub(crate) const LINEAR_WEIGHT_GRADIENT: &str = "ai.cerebro.LinearWeightGradient";

/// Which operands are transposed.
struct Transposed {
    a: bool,
    b: bool,
}

impl Transposed {
    fn of(node: &KernelContext<'_>, name: &str) -> ort::Result<Self> {
        Ok(Self { a: size(node, name, "transA")? != 0, b: size(node, name, "transB")? != 0 })
    }

    /// The two operands as matrices, and the shape of the product.
    fn matrices<'v>(
        &self,
        name: &str,
        a: &'v ValueRef<'_>,
        b: &'v ValueRef<'_>,
    ) -> ort::Result<(Matrix<'v>, Matrix<'v>, Vec<usize>)> {
        let (a_shape, a) = a.try_extract_tensor::<f32>()?;
        let (b_shape, b) = b.try_extract_tensor::<f32>()?;
        let unfit = || refused(name, format!("{a_shape:?} and {b_shape:?} cannot be multiplied"));
        let (mut shape, b_dims) = (dims(a_shape), dims(b_shape));
        let (Some(last), &[b_rows, b_columns]) = (shape.pop(), b_dims.as_slice()) else {
            return Err(unfit());
        };
        if self.a && shape.len() != 1 {
            return Err(unfit());
        }
        let tall = shape.iter().product();
        let a = Matrix::new(a, [tall, last], self.a).ok_or_else(unfit)?;
        let b = Matrix::new(b, [b_rows, b_columns], self.b).ok_or_else(unfit)?;
        if a.size()[1] != b.size()[0] {
            return Err(unfit());
        }
        if self.a {
            shape = vec![a.size()[0]];
        }
        shape.push(b.size()[1]);
        Ok((a, b, shape))
    }
}

/// Multiplies and writes the first output.
fn multiply(
    context: &ComputeContext,
    name: &str,
    product: &Product<'_>,
    shape: &[usize],
) -> ort::Result<()> {
    let mut c = output(context, name, 0, shape)?;
    let (_, c) = c.try_extract_tensor_mut::<f32>()?;
    if !product.fits(c.len()) {
        return Err(refused(name, format!("its inputs do not fit a result of {shape:?}")));
    }
    product.write(context, c)
}

pub(super) struct Plain(Transposed);

impl Fused for Plain {
    const NAME: &'static str = PRODUCT;
    const INPUTS: &'static [TensorElementType] = &[Float32; 2];
    const OUTPUTS: &'static [TensorElementType] = &[Float32];

    fn new(node: &KernelContext<'_>) -> ort::Result<Self> {
        Transposed::of(node, Self::NAME).map(Self)
    }
}

impl Kernel for Plain {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let name = Self::NAME;
        let (a, b) = (input(context, name, 0)?, input(context, name, 1)?);
        let (a, b, shape) = self.0.matrices(name, &a, &b)?;
        multiply(context, name, &Product { a, b, bias: &[], finish: Finish::None }, &shape)
    }
}

pub(super) struct Linear {
    transposed: Transposed,
    rectified: bool,
}

impl Fused for Linear {
    const NAME: &'static str = LINEAR;
    const INPUTS: &'static [TensorElementType] = &[Float32; 3];
    const OUTPUTS: &'static [TensorElementType] = &[Float32];

    fn new(node: &KernelContext<'_>) -> ort::Result<Self> {
        let rectified = size(node, Self::NAME, "rectified")? != 0;
        Ok(Self { transposed: Transposed::of(node, Self::NAME)?, rectified })
    }
}

impl Kernel for Linear {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let name = Self::NAME;
        let (x, w, bias) =
            (input(context, name, 0)?, input(context, name, 1)?, input(context, name, 2)?);
        let (a, b, shape) = self.transposed.matrices(name, &x, &w)?;
        let (_, bias) = bias.try_extract_tensor::<f32>()?;
        let finish = if self.rectified { Finish::Rectified } else { Finish::None };
        multiply(context, name, &Product { a, b, bias, finish }, &shape)
    }
}

pub(super) struct LinearInputGradient {
    transposed: Transposed,
    scaled: bool,
}

impl Fused for LinearInputGradient {
    const NAME: &'static str = LINEAR_INPUT_GRADIENT;
    const INPUTS: &'static [TensorElementType] = &[Float32; 3];
    const OUTPUTS: &'static [TensorElementType] = &[Float32];

    fn new(node: &KernelContext<'_>) -> ort::Result<Self> {
        let scaled = size(node, Self::NAME, "scaled")? != 0;
        Ok(Self { transposed: Transposed::of(node, Self::NAME)?, scaled })
    }
}

impl Kernel for LinearInputGradient {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let name = Self::NAME;
        let (dy, w, beside) =
            (input(context, name, 0)?, input(context, name, 1)?, input(context, name, 2)?);
        let (a, b, shape) = self.transposed.matrices(name, &dy, &w)?;
        let (_, beside) = beside.try_extract_tensor::<f32>()?;
        let finish = if self.scaled { Finish::Scaled(beside) } else { Finish::Masked(beside) };
        multiply(context, name, &Product { a, b, bias: &[], finish }, &shape)
    }
}

pub(super) struct LinearWeightGradient {
    transposed: Transposed,
    sums_b: bool,
}

impl Fused for LinearWeightGradient {
    const NAME: &'static str = LINEAR_WEIGHT_GRADIENT;
    const INPUTS: &'static [TensorElementType] = &[Float32; 2];
    const OUTPUTS: &'static [TensorElementType] = &[Float32; 2];

    fn new(node: &KernelContext<'_>) -> ort::Result<Self> {
        let sums_b = size(node, Self::NAME, "summed")? != 0;
        Ok(Self { transposed: Transposed::of(node, Self::NAME)?, sums_b })
    }
}

impl Kernel for LinearWeightGradient {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let name = Self::NAME;
        let (a, b) = (input(context, name, 0)?, input(context, name, 1)?);
        let summed = if self.sums_b { &b } else { &a };
        let (summed_shape, summed) = summed.try_extract_tensor::<f32>()?;
        let columns = *dims(summed_shape).last().unwrap_or(&0);
        let mut sums = output(context, name, 1, &[columns])?;
        sum_rows(context, summed, sums.try_extract_tensor_mut::<f32>()?.1)?;
        let (a, b, shape) = self.transposed.matrices(name, &a, &b)?;
        multiply(context, name, &Product { a, b, bias: &[], finish: Finish::None }, &shape)
    }
}
