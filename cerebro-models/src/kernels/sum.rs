//! Sums in vector code: always of the same partial sums in the same order.

#![allow(
    clippy::inline_always,
    reason = "vector code comes of inlining into the function that enables the instructions"
)]

use ort::operator::ComputeContext;

use super::node::{Parts, for_each};

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

/// The sum of the rows of a matrix that lies row by row, as many columns as `sums` has elements.
pub(super) fn sum_rows(
    context: &ComputeContext,
    elements: &[f32],
    sums: &mut [f32],
) -> ort::Result<()> {
    let columns = sums.len();
    let parts = Parts::of(sums);
    for_each(context, columns.div_ceil(LANES), elements.len(), |number| {
        let first = number * LANES;
        // SAFETY: each number has columns of its own.
        let sums = unsafe { parts.part(first..first + LANES) };
        fastest!(sum_some(elements: &[f32], columns: usize, first: usize, sums: &mut [f32]));
    })
}

/// Sums as many columns as there are `sums`, up to [`LANES`], from `first` on.
#[inline(always)]
fn sum_some(elements: &[f32], columns: usize, first: usize, sums: &mut [f32]) {
    let mut total = [0.0_f32; LANES];
    for row in elements.chunks_exact(columns) {
        let row = &row[first..first + sums.len()];
        if let Some(row) = row.first_chunk::<LANES>() {
            for lane in 0..LANES {
                total[lane] += row[lane];
            }
        } else {
            total.iter_mut().zip(row).for_each(|(total, value)| *total += value);
        }
    }
    sums.copy_from_slice(&total[..sums.len()]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_summed() {
        for columns in [1, 10, 32, 50] {
            let table: Vec<f32> = (0..7 * columns).map(|at| (at * 37 % 101) as f32).collect();
            let mut sums = vec![f32::NAN; columns];
            for (number, sums) in sums.chunks_mut(LANES).enumerate() {
                sum_some(&table, columns, number * LANES, sums);
            }
            for (column, sum) in sums.iter().enumerate() {
                let expected: f32 = table.iter().skip(column).step_by(columns).sum();
                assert_eq!(*sum, expected);
            }
        }
    }
}
