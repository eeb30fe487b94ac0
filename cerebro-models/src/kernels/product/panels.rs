//! A right matrix laid out once, to be multiplied by many left ones of few rows.

use super::strided::Left;
use super::{Ahead, LARGEST_TILE, LINE, Matrix, ROWS, Tile, multiply_rows, tile_columns};
use crate::kernels::vector::Vector;

/// Places of the inner dimension that are summed at once: a panel of so many stays in the nearest
/// cache.
const DEPTH: usize = 256;

/// A matrix in panels as wide as a tile, and of [`DEPTH`] places of the inner dimension.
#[derive(Debug)]
pub(in crate::kernels) struct Panels {
    elements: Vec<f32>,
    inner: usize,
    columns: usize,
}

/// What a product is added to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kernels) enum Onto {
    /// Nothing.
    Zeros,
    /// What the result holds.
    Held,
}

impl Panels {
    pub(in crate::kernels) fn of(matrix: Matrix<'_>) -> Self {
        Self::within(Vec::new(), matrix)
    }

    /// The same in memory that was used before.
    pub(in crate::kernels) fn within(mut elements: Vec<f32>, matrix: Matrix<'_>) -> Self {
        let ([inner, columns], [down, across]) = (matrix.size(), matrix.strides());
        let (width, stride) = (tile_columns(), columns.next_multiple_of(tile_columns()));
        elements.resize(stride * inner, 0.0);
        for first in (0..inner).step_by(DEPTH) {
            let depth = DEPTH.min(inner - first);
            for column in (0..columns).step_by(width) {
                let used = width.min(columns - column);
                let panel = &mut elements[first * stride + column * depth..][..depth * width];
                for (place, to) in panel.chunks_exact_mut(width).enumerate() {
                    let from = &matrix.elements[(first + place) * down + column * across..];
                    if across == 1 {
                        to[..used].copy_from_slice(&from[..used]);
                    } else {
                        let from = from.iter().step_by(across);
                        to[..used].iter_mut().zip(from).for_each(|(to, from)| *to = *from);
                    }
                    to[used..].fill(0.0);
                }
            }
        }
        Self { elements, inner, columns }
    }

    /// The memory, to be used again.
    pub(in crate::kernels) fn into_memory(self) -> Vec<f32> {
        self.elements
    }

    /// How far apart the rows of results lie: whole tiles.
    pub(in crate::kernels) fn stride(&self) -> usize {
        self.columns.next_multiple_of(tile_columns())
    }

    /// Multiplies `left`, whose rows follow each other, by the matrix. Rows of `c` lie
    /// [`stride`](Self::stride) elements apart.
    pub(in crate::kernels) fn multiply(&self, left: &[f32], onto: Onto, c: &mut [f32]) {
        assert!(self.inner > 0 && left.len().is_multiple_of(self.inner), "whole rows");
        let rows = left.len() / self.inner;
        let left = Left { elements: left, steps: [self.inner, 1] };
        self.multiply_fetching((left, rows), onto, c, &[]);
    }

    /// The same for `left` with so many rows, and fetches `next` from memory meanwhile, as much of it as
    /// there is time for.
    pub(in crate::kernels) fn multiply_fetching(
        &self,
        (left, rows): (Left<'_>, usize),
        onto: Onto,
        c: &mut [f32],
        next: &[&[f32]],
    ) {
        let [row_step, place_step] = left.steps;
        let last = rows.saturating_sub(1) * row_step + self.inner.saturating_sub(1) * place_step;
        assert!(rows == 0 || last < left.elements.len(), "all rows are there");
        assert!(c.len() >= rows * self.stride(), "the result has room");
        let panels = self;
        // SAFETY: as asserted, all rows lie within the slices.
        widest!(multiply(
            panels: &Panels,
            left: Left<'_>,
            rows: usize,
            onto: Onto,
            c: &mut [f32],
            next: &[&[f32]],
        ));
    }
}

/// # Safety
///
/// `left` and `c` have so many rows.
#[inline(always)]
unsafe fn multiply<V: Vector, const _R: usize>(
    panels: &Panels,
    left: Left<'_>,
    rows: usize,
    onto: Onto,
    c: &mut [f32],
    next: &[&[f32]],
) {
    const NOTHING: [f32; 32] = [0.0; 32];
    const { assert!(LARGEST_TILE == ROWS * NOTHING.len()) };
    let (inner, stride, width) = (panels.inner, panels.stride(), 2 * V::LANES);
    let [row_step, place_step] = left.steps;
    // What a tile has time to fetch.
    let mut next = next.iter().flat_map(|next| next.chunks(LINE * inner.min(DEPTH)));
    for first in (0..inner).step_by(DEPTH) {
        let depth = DEPTH.min(inner - first);
        for column in (0..stride).step_by(width) {
            for row in (0..rows).step_by(ROWS) {
                // SAFETY: as of the caller.
                unsafe {
                    let tile = Tile {
                        depth,
                        left: left.elements.as_ptr().add(row * row_step + first * place_step),
                        row_step,
                        place_step,
                        right: panels.elements.as_ptr().add(first * stride + column * depth),
                        right_step: width,
                        bias: (first == 0 && onto == Onto::Zeros).then_some(&NOTHING),
                        rectified: false,
                        beside: std::ptr::null(),
                        scaled: false,
                        c: c.as_mut_ptr().add(row * stride + column),
                        columns: stride,
                        ahead: next.next().map_or(Ahead::NOTHING, |next| Ahead {
                            from: next.as_ptr(),
                            step: LINE,
                        }),
                    };
                    multiply_rows::<V, 2>(&tile, ROWS.min(rows - row));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panels_give_the_bits_of_the_sums_in_order() {
        for (rows, inner, columns) in [(1, 1, 1), (5, 3, 20), (16, 300, 33), (7, 513, 16)] {
            let value = |at: usize| ((at * 37 % 101) as f32 - 50.0) / 16.0;
            let left: Vec<f32> = (0..rows * inner).map(value).collect();
            let right: Vec<f32> = (0..inner * columns).map(|at| value(at + 7)).collect();
            for turned in [false, true] {
                let size = if turned { [columns, inner] } else { [inner, columns] };
                let panels = Panels::of(Matrix::new(&right, size, turned).unwrap());
                for onto in [Onto::Zeros, Onto::Held] {
                    let mut c = vec![1.0; rows * panels.stride()];
                    panels.multiply(&left, onto, &mut c);
                    for row in 0..rows {
                        for column in 0..columns {
                            let b = |k: usize| {
                                right
                                    [if turned { column * inner + k } else { k * columns + column }]
                            };
                            let start = if onto == Onto::Held { 1.0 } else { 0.0 };
                            // All of these are whole 256ths that a float holds.
                            let sum =
                                (0..inner).fold(start, |sum, k| sum + left[row * inner + k] * b(k));
                            assert_eq!(c[row * panels.stride() + column], sum);
                        }
                    }
                }
            }
        }
    }
}
