//! Sums in vector code: always of the same partial sums in the same order.

#![allow(
    clippy::inline_always,
    reason = "vector code comes of inlining into the function that enables the instructions"
)]

use ort::operator::ComputeContext;

use super::node::{Parts, for_each};

/// As many partial sums as keep the additions of several vectors in flight.
const LANES: usize = 32;

/// Sums of which each element adds to one lane.
pub(super) type Partial = [f32; LANES];

/// Adds `term` of each element of `x`.
#[inline(always)]
pub(super) fn add(partial: &mut Partial, x: &[f32], term: impl Fn(f32) -> f32) {
    let (chunks, rest) = x.as_chunks::<LANES>();
    for x in chunks {
        for lane in 0..LANES {
            partial[lane] += term(x[lane]);
        }
    }
    for (partial, x) in partial.iter_mut().zip(rest) {
        *partial += term(*x);
    }
}

/// Adds both of what `term` gives of the elements of `a` and `b`.
#[inline(always)]
pub(super) fn add_both(
    [first, second]: &mut [Partial; 2],
    a: &[f32],
    b: &[f32],
    term: impl Fn(f32, f32) -> (f32, f32),
) {
    let (a_chunks, a_rest) = a.as_chunks::<LANES>();
    let (b_chunks, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        for lane in 0..LANES {
            let (one, two) = term(a[lane], b[lane]);
            first[lane] += one;
            second[lane] += two;
        }
    }
    let lanes = first.iter_mut().zip(second);
    for ((first, second), (a, b)) in lanes.zip(a_rest.iter().zip(b_rest)) {
        let (one, two) = term(*a, *b);
        *first += one;
        *second += two;
    }
}

/// The sum over `a` and `b` of `term`, and of what else it gives.
#[inline(always)]
pub(super) fn sums(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> (f32, f32)) -> (f32, f32) {
    let mut partial = [[0.0; LANES]; 2];
    add_both(&mut partial, a, b, term);
    let [first, second] = partial;
    (total(first), total(second))
}

/// Halves added to halves, down to one.
#[inline(always)]
pub(super) fn total(mut partial: Partial) -> f32 {
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
