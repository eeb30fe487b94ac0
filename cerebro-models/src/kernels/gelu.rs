//! The Gaussian error linear unit, with its slope in the same pass.

#![allow(
    clippy::inline_always,
    reason = "vector code comes of inlining into the function that enables the instructions"
)]

use ort::operator::{ComputeContext, Kernel, KernelContext};
use ort::value::TensorElementType::{self, Float32};

use super::exponential::{Arithmetic, exp_of_negative, polynomial};
use super::node::{Fused, PIECE, Parts, dims, for_each_piece, input, output};

/// Input: `x`. Outputs: `y = x Phi(x)` and its slope `Phi(x) + x phi(x)`, where `Phi` and `phi` are
/// the standard normal distribution and its density (Hendrycks and Gimpel 2016). The gradient is
/// then one product, and neither `x` nor anything between is kept for it.
pub(crate) const GELU: &str = "ai.cerebro.Gelu";

pub(super) struct Gelu;

impl Fused for Gelu {
    const NAME: &'static str = GELU;
    const INPUTS: &'static [TensorElementType] = &[Float32];
    const OUTPUTS: &'static [TensorElementType] = &[Float32, Float32];

    fn new(_: &KernelContext<'_>) -> ort::Result<Self> {
        Ok(Self)
    }
}

impl Kernel for Gelu {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let x = input(context, GELU, 0)?;
        let (shape, x) = x.try_extract_tensor::<f32>()?;
        let shape = dims(shape);
        let mut y = output(context, GELU, 0, &shape)?;
        let mut slope = output(context, GELU, 1, &shape)?;
        let (_, y) = y.try_extract_tensor_mut::<f32>()?;
        let (_, slope) = slope.try_extract_tensor_mut::<f32>()?;
        let (y, slope) = (Parts::of(y), Parts::of(slope));
        for_each_piece(context, x.len(), PIECE, 3 * x.len(), |range| {
            // SAFETY: pieces do not overlap, and each is computed once.
            let (y, slope) = unsafe { (y.part(range.clone()), slope.part(range.clone())) };
            let x = &x[range];
            contracted!(gelu(x: &[f32], y: &mut [f32], slope: &mut [f32]));
        })
    }
}

#[inline(always)]
fn gelu<A: Arithmetic>(x: &[f32], y: &mut [f32], slope: &mut [f32]) {
    for ((x, y), slope) in x.iter().zip(y).zip(slope) {
        let (cumulative, density) = normal::<A>(*x);
        *y = x * cumulative;
        *slope = A::multiply_add(*x, density, cumulative);
    }
}

/// The standard normal distribution and its density.
///
/// Above zero `1 - Phi(x) = exp(-x^2 / 2) t P(t)` with `t = 1 / (1 + 0.26 x)`: the form of Hastings'
/// approximations ("Approximations for Digital Computers", 1955). The polynomial is a fit of least
/// maximal relative error, 2.5e-8, over `0 <= x <= 14`; rounding makes it 2e-7 or so.
#[inline(always)]
fn normal<A: Arithmetic>(x: f32) -> (f32, f32) {
    const STEEPNESS: f32 = 0.26;
    const TAIL: [f32; 9] = [
        0.103_759_06,
        0.103_016_74,
        0.103_030_3,
        0.051_027_5,
        0.160_948_29,
        -0.150_949_6,
        0.251_491_86,
        -0.152_829_1,
        0.030_504_942,
    ];
    const PEAK: f32 = 0.398_942_3;
    let t = 1.0 / A::multiply_add(STEEPNESS, x.abs(), 1.0);
    let bell = exp_of_negative::<A>(-0.5 * x * x);
    let tail = bell * (t * polynomial::<A, _>(&TAIL, t));
    (if x < 0.0 { tail } else { 1.0 - tail }, PEAK * bell)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::exponential::{Apart, AtOnce};

    /// `Phi(x)` by the series of the error function at the origin.
    fn distribution(x: f64) -> f64 {
        let z = x / std::f64::consts::SQRT_2;
        let (mut term, mut sum) = (z, z);
        for k in 1..200 {
            term *= -z * z / f64::from(k);
            sum += term / f64::from(2 * k + 1);
        }
        0.5 + sum / std::f64::consts::PI.sqrt()
    }

    #[test]
    fn values_and_slopes_are_those_of_the_normal_distribution() {
        let x: Vec<f32> = (-5000..=5000).map(|step| step as f32 / 1000.0).collect();
        for gelu in [gelu::<AtOnce>, gelu::<Apart>] {
            let (mut y, mut slope) = (vec![0.0; x.len()], vec![0.0; x.len()]);
            gelu(&x, &mut y, &mut slope);
            for ((x, y), slope) in x.iter().zip(y).zip(slope) {
                let x = f64::from(*x);
                let cumulative = distribution(x);
                let density = (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
                let (expected, rise) = (x * cumulative, cumulative + x * density);
                let error = (f64::from(y) - expected).abs();
                assert!(error <= 1e-7 + 4e-7 * expected.abs(), "{y} of {x}, not {expected}");
                let error = (f64::from(slope) - rise).abs();
                assert!(error <= 4e-7, "slope {slope} at {x}, not {rise}");
            }
        }
    }

    #[test]
    fn far_from_zero_it_is_the_identity_or_nothing() {
        let x = [-1e30, -40.0, -14.0, 0.0, 14.0, 40.0, 1e30, f32::NAN];
        let (mut y, mut slope) = ([1.0; 8], [1.0; 8]);
        gelu::<AtOnce>(&x, &mut y, &mut slope);
        assert_eq!(y[3..7], [0.0, 14.0, 40.0, 1e30]);
        assert_eq!(slope[4..7], [1.0; 3]);
        assert!(y[..3].iter().all(|y| y.abs() < 1e-6), "{y:?}");
        assert!(slope[..3].iter().all(|slope| slope.abs() < 1e-6), "{slope:?}");
        assert!(y[7].is_nan() && slope[7].is_nan(), "a number that is none stays one");
    }
}
