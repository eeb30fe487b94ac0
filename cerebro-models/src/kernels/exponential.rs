//! The exponential function and what is made of it, in the operations that vectors have.

#![allow(
    clippy::inline_always,
    reason = "vector code comes of inlining into the function that enables the instructions"
)]

/// `exp(x)` of a number that is not above zero: `2^n exp(r)` with `|r| <= ln 2 / 2`, and of
/// `exp(r)` the first terms of its series. What is below the normal numbers is as small as the
/// smallest of them.
#[inline(always)]
pub(super) fn exp_of_negative(x: f32) -> f32 {
    use std::f32::consts::LOG2_E;
    /// Added to a small number, it leaves the nearest whole one in the low bits.
    const WHOLE: f32 = 12_582_912.0;
    /// The logarithm of 2 as a number of few bits, so that products with it are exact, and the rest.
    const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    const SERIES: [f32; 8] =
        [1.0, 1.0, 1.0 / 2.0, 1.0 / 6.0, 1.0 / 24.0, 1.0 / 120.0, 1.0 / 720.0, 1.0 / 5040.0];
    let x = if x < -87.0 { -87.0 } else { x };
    let shifted = x * LOG2_E + WHOLE;
    let whole = shifted - WHOLE;
    let rest = (x - whole * LN_2[0]) - whole * LN_2[1];
    let power = SERIES.iter().rev().fold(0.0, |sum, coefficient| sum * rest + coefficient);
    let exponent = shifted.to_bits().wrapping_add(127) << 23;
    power * f32::from_bits(exponent)
}

/// `1 / (1 + exp(-x))`.
#[inline(always)]
pub(super) fn sigmoid(x: f32) -> f32 {
    let small = exp_of_negative(-x.abs());
    let above = 1.0 / (1.0 + small);
    if x < 0.0 { small * above } else { above }
}

/// The hyperbolic tangent. Near zero it is `x + x^3 P(x^2)`, where the polynomial is a fit of least
/// maximal relative error, 4e-8, over `|x| <= 0.55`; elsewhere it is made of `exp(-2 |x|)`.
#[inline(always)]
pub(super) fn tanh(x: f32) -> f32 {
    const NEAR: f32 = 0.55;
    const ODD: [f32; 4] = [-0.333_329_47, 0.133_207_24, -0.052_671_78, 0.016_437_53];
    let small = exp_of_negative(-2.0 * x.abs());
    let far = (1.0 - small) / (1.0 + small);
    let far = if x < 0.0 { -far } else { far };
    let square = x * x;
    let near = x + x * square * ODD.iter().rev().fold(0.0, |sum, odd| sum * square + odd);
    if x.abs() < NEAR { near } else { far }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_as_near_as_floats_come() {
        for step in -20_000..=20_000 {
            let x = step as f32 / 1000.0;
            let wide = f64::from(x);
            let expected = 1.0 / (1.0 + (-wide).exp());
            let error = (f64::from(sigmoid(x)) - expected).abs();
            assert!(error <= 4e-7 * expected, "sigmoid of {x}: {} {expected}", sigmoid(x));
            let expected = wide.tanh();
            let error = (f64::from(tanh(x)) - expected).abs();
            assert!(error <= 4e-7 * expected.abs(), "tanh of {x}: {} {expected}", tanh(x));
        }
    }

    #[test]
    fn far_away_they_reach_their_limits_and_what_is_no_number_stays_so() {
        assert_eq!([-1e30, 1e30].map(tanh), [-1.0, 1.0]);
        assert!(sigmoid(-1e30) < 1e-37 && sigmoid(1e30) == 1.0);
        assert!(sigmoid(f32::NAN).is_nan() && tanh(f32::NAN).is_nan());
    }
}
