//! The exponential function and what is made of it, in the operations that vectors have.

#![allow(
    clippy::inline_always,
    reason = "vector code comes of inlining into the function that enables the instructions"
)]

/// How a product is added to something.
pub(super) trait Arithmetic {
    /// `a b + c`.
    fn multiply_add(a: f32, b: f32, c: f32) -> f32;
}

/// In one operation, which rounds once; fast where the processor has it.
pub(super) struct AtOnce;

impl Arithmetic for AtOnce {
    #[inline(always)]
    fn multiply_add(a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }
}

/// In two operations.
pub(super) struct Apart;

impl Arithmetic for Apart {
    #[inline(always)]
    fn multiply_add(a: f32, b: f32, c: f32) -> f32 {
        a * b + c
    }
}

/// The polynomial with these coefficients, that of the constant term first.
#[inline(always)]
pub(super) fn polynomial<A: Arithmetic, const N: usize>(coefficients: &[f32; N], x: f32) -> f32 {
    let others = coefficients[..N - 1].iter().rev();
    others.fold(coefficients[N - 1], |sum, &coefficient| A::multiply_add(sum, x, coefficient))
}

/// `exp(x)` of a number that is not above zero: `2^n exp(r)` with `|r| <= ln 2 / 2`, and of
/// `exp(r)` the first terms of its series. What is below the normal numbers is as small as the
/// smallest of them.
#[inline(always)]
pub(super) fn exp_of_negative<A: Arithmetic>(x: f32) -> f32 {
    use std::f32::consts::LOG2_E;
    /// Added to a small number, it leaves the nearest whole one in the low bits.
    const WHOLE: f32 = 12_582_912.0;
    /// The logarithm of 2 as a number of few bits, so that products with it are exact, and the rest.
    const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    const SERIES: [f32; 8] =
        [1.0, 1.0, 1.0 / 2.0, 1.0 / 6.0, 1.0 / 24.0, 1.0 / 120.0, 1.0 / 720.0, 1.0 / 5040.0];
    let x = if x < -87.0 { -87.0 } else { x };
    let shifted = A::multiply_add(x, LOG2_E, WHOLE);
    let whole = shifted - WHOLE;
    let rest = A::multiply_add(-whole, LN_2[1], A::multiply_add(-whole, LN_2[0], x));
    let power = polynomial::<A, _>(&SERIES, rest);
    let exponent = shifted.to_bits().wrapping_add(127) << 23;
    power * f32::from_bits(exponent)
}

/// `1 / (1 + exp(-x))`.
#[inline(always)]
pub(super) fn sigmoid<A: Arithmetic>(x: f32) -> f32 {
    let small = exp_of_negative::<A>(-x.abs());
    let above = 1.0 / (1.0 + small);
    if x < 0.0 { small * above } else { above }
}

/// The hyperbolic tangent. Near zero it is `x + x^3 P(x^2)`, where the polynomial is a fit of least
/// maximal relative error, 4e-8, over `|x| <= 0.55`; elsewhere it is made of `exp(-2 |x|)`.
#[inline(always)]
pub(super) fn tanh<A: Arithmetic>(x: f32) -> f32 {
    const NEAR: f32 = 0.55;
    const ODD: [f32; 4] = [-0.333_329_47, 0.133_207_24, -0.052_671_78, 0.016_437_53];
    let small = exp_of_negative::<A>(-2.0 * x.abs());
    let far = (1.0 - small) / (1.0 + small);
    let far = if x < 0.0 { -far } else { far };
    let square = x * x;
    let near = A::multiply_add(x * square, polynomial::<A, _>(&ODD, square), x);
    if x.abs() < NEAR { near } else { far }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn are_as_near_as_floats_come<A: Arithmetic>() {
        for step in -20_000..=20_000 {
            let x = step as f32 / 1000.0;
            let wide = f64::from(x);
            let found = sigmoid::<A>(x);
            let expected = 1.0 / (1.0 + (-wide).exp());
            let error = (f64::from(found) - expected).abs();
            assert!(error <= 4e-7 * expected, "sigmoid of {x}: {found} {expected}");
            let (found, expected) = (tanh::<A>(x), wide.tanh());
            let error = (f64::from(found) - expected).abs();
            assert!(error <= 4e-7 * expected.abs(), "tanh of {x}: {found} {expected}");
        }
    }

    #[test]
    fn they_are_as_near_as_floats_come() {
        are_as_near_as_floats_come::<Apart>();
        are_as_near_as_floats_come::<AtOnce>();
    }

    fn reach_their_limits<A: Arithmetic>() {
        assert_eq!([-1e30, 1e30].map(tanh::<A>), [-1.0, 1.0]);
        assert!(sigmoid::<A>(-1e30) < 1e-37 && sigmoid::<A>(1e30) == 1.0);
        assert!(sigmoid::<A>(f32::NAN).is_nan() && tanh::<A>(f32::NAN).is_nan());
    }

    #[test]
    fn far_away_they_reach_their_limits_and_what_is_no_number_stays_so() {
        reach_their_limits::<Apart>();
        reach_their_limits::<AtOnce>();
    }
}
