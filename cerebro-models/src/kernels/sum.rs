//! Sums in vector code: always of the same partial sums in the same order.

#![allow(
    clippy::inline_always,
    reason = "vector code comes of inlining into the function that enables the instructions"
)]

/// As many partial sums as keep the additions of several vectors in flight.
const LANES: usize = 32;

/// The sum over `x` of `term`, and of what else it gives: both are added up lane by lane.
#[inline(always)]
pub(super) fn sums<'a>(
    a: &'a [f32],
    b: &'a [f32],
    term: impl Fn(f32, f32) -> (f32, f32),
) -> (f32, f32) {
    let (mut first, mut second) = ([0.0_f32; LANES], [0.0_f32; LANES]);
    let (a_chunks, a_rest) = a.as_chunks::<LANES>();
    let (b_chunks, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        for lane in 0..LANES {
            let (one, two) = term(a[lane], b[lane]);
            first[lane] += one;
            second[lane] += two;
        }
    }
    for (lane, (a, b)) in a_rest.iter().zip(b_rest).enumerate() {
        let (one, two) = term(*a, *b);
        first[lane] += one;
        second[lane] += two;
    }
    (total(first), total(second))
}

/// The sum over `x` of `term`.
#[inline(always)]
pub(super) fn sum(x: &[f32], term: impl Fn(f32) -> f32) -> f32 {
    let mut partial = [0.0_f32; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for x in chunks {
        for lane in 0..LANES {
            partial[lane] += term(x[lane]);
        }
    }
    for (lane, x) in rest.iter().enumerate() {
        partial[lane] += term(*x);
    }
    total(partial)
}

/// Halves added to halves, down to one.
#[inline(always)]
fn total(mut partial: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            partial[lane] += partial[lane + width];
        }
        width /= 2;
    }
    partial[0]
}
