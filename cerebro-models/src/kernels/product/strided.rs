//! Products of small matrices that lie anywhere, made by the thread that asks for them.

#![allow(
    clippy::inline_always,
    reason = "vector code comes of inlining into the function that enables the instructions"
)]

use super::{Ahead, LARGEST_TILE, Onto, ROWS, Tile, multiply_rows, tile_columns};
use crate::kernels::vector::Vector;

/// The elements of a vector: rows of what is multiplied here are padded to whole ones.
pub(in crate::kernels) fn lanes() -> usize {
    tile_columns() / 2
}

/// A matrix on the left of a product.
#[derive(Clone, Copy, Debug)]
pub(in crate::kernels) struct Left<'a> {
    pub(in crate::kernels) elements: &'a [f32],
    /// How far apart its rows lie, and the places of the inner dimension.
    pub(in crate::kernels) steps: [usize; 2],
}

/// A matrix on the right of a product, whose columns lie side by side in strips of two vectors.
#[derive(Clone, Copy, Debug)]
pub(in crate::kernels) struct Right<'a> {
    elements: &'a [f32],
    /// How far apart the places of the inner dimension lie, and the strips.
    steps: [usize; 2],
}

impl<'a> Right<'a> {
    /// The matrix whose rows lie `stride` apart.
    pub(in crate::kernels) fn rows(elements: &'a [f32], stride: usize) -> Self {
        Self { elements, steps: [stride, tile_columns()] }
    }

    /// What [`turn`] made of rows of `columns` elements.
    pub(in crate::kernels) fn turned(elements: &'a [f32], columns: usize) -> Self {
        Self { elements, steps: [tile_columns(), columns * tile_columns()] }
    }
}

/// How many elements [`turn`] writes for `rows` rows of `columns` elements.
pub(in crate::kernels) fn turned_length(rows: usize, columns: usize) -> usize {
    rows.next_multiple_of(tile_columns()) * columns
}

/// Writes the transposed matrix of `from`, `columns` wide: to `to`, as [`Right::turned`] takes it.
/// Rows and columns are whole vectors.
pub(in crate::kernels) fn turn(from: &[f32], columns: usize, to: &mut [f32]) {
    let rows = from.len() / columns.max(1);
    assert!(rows.is_multiple_of(lanes()) && columns.is_multiple_of(lanes()), "whole vectors");
    assert!(to.len() >= turned_length(rows, columns), "the result has room");
    // SAFETY: as asserted, all squares lie within the slices.
    widest!(turn_rows(from: &[f32], rows: usize, columns: usize, to: &mut [f32]));
}

/// # Safety
///
/// As [`turn`] asserts.
#[inline(always)]
unsafe fn turn_rows<V: Vector, const _R: usize>(
    from: &[f32],
    rows: usize,
    columns: usize,
    to: &mut [f32],
) {
    let width = 2 * V::LANES;
    for row in (0..rows).step_by(V::LANES) {
        let strip = row / width * width * columns + row % width;
        for column in (0..columns).step_by(V::LANES) {
            // SAFETY: as of the caller.
            unsafe {
                let from = from.as_ptr().add(row * columns + column);
                V::transpose(from, columns, to.as_mut_ptr().add(strip + column * width), width);
            }
        }
    }
}

/// Multiplies; `size` is rows, places of the inner dimension and columns. Rows of `c` lie `stride`
/// apart, and of each whole vectors are written.
pub(in crate::kernels) fn multiply(
    size: [usize; 3],
    left: Left<'_>,
    right: Right<'_>,
    onto: Onto,
    c: &mut [f32],
    stride: usize,
) {
    let [rows, depth, columns] = size;
    if rows == 0 || columns == 0 {
        return;
    }
    assert!(depth > 0, "a product sums over something");
    let whole = columns.next_multiple_of(lanes());
    let last = |count: usize, step: usize| (count - 1) * step;
    let strip = (columns - 1) / tile_columns();
    let right_end =
        strip * right.steps[1] + last(depth, right.steps[0]) + whole - strip * tile_columns();
    assert!(last(rows, left.steps[0]) + last(depth, left.steps[1]) < left.elements.len(), "left");
    assert!(right_end <= right.elements.len(), "right");
    assert!(stride >= whole && last(rows, stride) + whole <= c.len(), "the result has room");
    // SAFETY: as asserted, all accesses lie within the slices.
    widest!(multiply_strips(
        size: [usize; 3],
        left: Left<'_>,
        right: Right<'_>,
        onto: Onto,
        c: &mut [f32],
        stride: usize,
    ));
}

/// # Safety
///
/// As [`multiply`] asserts.
#[inline(always)]
unsafe fn multiply_strips<V: Vector, const _R: usize>(
    [rows, depth, columns]: [usize; 3],
    left: Left<'_>,
    right: Right<'_>,
    onto: Onto,
    c: &mut [f32],
    stride: usize,
) {
    const NOTHING: [f32; 32] = [0.0; 32];
    const { assert!(LARGEST_TILE == ROWS * NOTHING.len()) };
    let width = 2 * V::LANES;
    for column in (0..columns).step_by(width) {
        for row in (0..rows).step_by(ROWS) {
            // SAFETY: as of the caller.
            unsafe {
                let tile = Tile {
                    depth,
                    left: left.elements.as_ptr().add(row * left.steps[0]),
                    row_step: left.steps[0],
                    place_step: left.steps[1],
                    right: right.elements.as_ptr().add(column / width * right.steps[1]),
                    right_step: right.steps[0],
                    bias: (onto == Onto::Zeros).then_some(&NOTHING),
                    rectified: false,
                    beside: std::ptr::null(),
                    scaled: false,
                    c: c.as_mut_ptr().add(row * stride + column),
                    columns: stride,
                    ahead: Ahead::NOTHING,
                };
                let height = ROWS.min(rows - row);
                if columns - column > V::LANES {
                    multiply_rows::<V, 2>(&tile, height);
                } else {
                    multiply_rows::<V, 1>(&tile, height);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_give_the_bits_of_the_sums_in_order() {
        let value = |at: usize| ((at * 37 % 101) as f32 - 50.0) / 16.0;
        for [rows, depth, columns] in [[1_usize, 1, 1], [5, 3, 20], [16, 30, 33], [7, 70, 16]] {
            let [deep, wide] = [depth, columns].map(|size| size.next_multiple_of(lanes()));
            let left: Vec<f32> = (0..rows * depth).map(value).collect();
            // The right matrix as it is, and the one that becomes it when it is turned.
            let at = |place: usize, column: usize| {
                if place < depth && column < columns {
                    value(place * columns + column + 7)
                } else {
                    0.0
                }
            };
            let plain: Vec<f32> =
                (0..depth * wide).map(|index| at(index / wide, index % wide)).collect();
            let lying: Vec<f32> =
                (0..wide * deep).map(|index| at(index % deep, index / deep)).collect();
            let mut turned = vec![f32::NAN; turned_length(wide, deep)];
            turn(&lying, deep, &mut turned);
            for steps in [[depth, 1], [1, rows]] {
                for right in [Right::rows(&plain, wide), Right::turned(&turned, deep)] {
                    for (onto, start) in [(Onto::Zeros, 0.0), (Onto::Held, 1.0)] {
                        let mut c = vec![1.0; rows * wide];
                        let left = Left { elements: &left, steps };
                        multiply([rows, depth, columns], left, right, onto, &mut c, wide);
                        for row in 0..rows {
                            for column in 0..columns {
                                let term = |place: usize| {
                                    left.elements[row * steps[0] + place * steps[1]]
                                        * at(place, column)
                                };
                                // All of these are whole 256ths that a float holds.
                                let sum = (0..depth).fold(start, |sum, place| sum + term(place));
                                assert_eq!(c[row * wide + column], sum);
                            }
                        }
                    }
                }
            }
        }
    }
}
