//! Products of matrices, with what is done to each element of the result while it is in registers.
//!
//! The result is made tile by tile: a few rows of two vectors, summed in registers over the whole
//! inner dimension (Goto and van de Geijn 2008, "Anatomy of High-Performance Matrix
//! Multiplication"). What vectors are loaded from lies in panels as wide as a tile, which fit the
//! caches nearest to the core and are made just before they are used. Elements of the left matrix
//! are broadcast and are read where they lie, unless it is transposed.
//!
//! Every element is the same sum in the same order whatever the number of threads.

#![allow(
    clippy::inline_always,
    reason = "vector code comes of inlining into the function that enables the instructions"
)]

use std::cell::Cell;

use ort::operator::ComputeContext;

use super::node::{Parts, for_each};
use super::vector::{self, Vector, Width};

/// Rows of a tile: with two vectors each and what is multiplied, they fill 15 of 16 registers.
const ROWS: usize = 6;

/// The longest inner dimension that is summed at once, so that a panel of it stays in the caches.
const LONGEST: usize = 1024;

/// The same where the left matrix is transposed: a copy of so many of its rows is made.
const LONGEST_COPIED: usize = 512;

/// Products with fewer panels than this are shared between threads by rows too.
const FEW_PANELS: usize = 4;

/// Rows of a share.
const SHARE: usize = 16 * ROWS;

/// Elements of a line of the caches.
const LINE: usize = 16;

/// The most elements of a tile.
const LARGEST_TILE: usize = ROWS * 32;

/// The columns of a tile on this processor: two vectors.
fn tile_columns() -> usize {
    2 * match Width::of_processor() {
        Width::Portable => 4,
        #[cfg(target_arch = "x86_64")]
        Width::Avx2 => 8,
        #[cfg(target_arch = "x86_64")]
        Width::Avx512 => 16,
    }
}

/// Whether these products are faster than ONNX Runtime's on this processor: measured where 16 lanes
/// are multiplied in one cycle, be it in two vectors of AVX2 or in one of AVX-512.
pub(crate) fn products_pay() -> bool {
    match Width::of_processor() {
        Width::Portable => false,
        #[cfg(target_arch = "x86_64")]
        Width::Avx2 => true,
        #[cfg(target_arch = "x86_64")]
        Width::Avx512 => vector::is_zen4(),
    }
}

/// A matrix that lies row by row, as it is or transposed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Matrix<'a> {
    elements: &'a [f32],
    rows: usize,
    columns: usize,
    transposed: bool,
}

impl<'a> Matrix<'a> {
    /// The matrix whose `rows` by `columns` elements lie row by row, or its transposed one. None
    /// if there are not so many.
    pub(super) fn new(
        elements: &'a [f32],
        [rows, columns]: [usize; 2],
        transposed: bool,
    ) -> Option<Self> {
        let fits = rows.checked_mul(columns) == Some(elements.len());
        let (rows, columns) = if transposed { (columns, rows) } else { (rows, columns) };
        fits.then_some(Self { elements, rows, columns, transposed })
    }

    /// Rows and columns, of the transposed matrix if it is transposed.
    pub(super) fn size(&self) -> [usize; 2] {
        [self.rows, self.columns]
    }

    /// How far apart elements lie along a column, and along a row.
    fn strides(&self) -> [usize; 2] {
        if self.transposed { [1, self.rows] } else { [self.columns, 1] }
    }
}

/// What is done to the sums.
#[derive(Clone, Copy, Debug)]
pub(super) enum Finish<'a> {
    /// Nothing.
    None,
    /// Negative ones become zero.
    Rectified,
    /// Those become zero where this, of the shape of the result, is zero.
    Masked(&'a [f32]),
    /// They are multiplied by this, of the shape of the result.
    Scaled(&'a [f32]),
}

impl<'a> Finish<'a> {
    /// What is read at the place of each sum, if something is.
    fn beside(self) -> Option<&'a [f32]> {
        match self {
            Finish::Masked(beside) | Finish::Scaled(beside) => Some(beside),
            Finish::None | Finish::Rectified => None,
        }
    }
}

/// A product of matrices.
#[derive(Clone, Copy, Debug)]
pub(super) struct Product<'a> {
    pub(super) a: Matrix<'a>,
    pub(super) b: Matrix<'a>,
    /// Added to each row; empty for nothing.
    pub(super) bias: &'a [f32],
    pub(super) finish: Finish<'a>,
}

impl Product<'_> {
    /// Whether its parts fit together, and to a result of `length` elements.
    pub(super) fn fits(&self, length: usize) -> bool {
        let ([rows, inner], [other, columns]) = (self.a.size(), self.b.size());
        inner == other
            && rows * columns == length
            && (self.bias.is_empty() || self.bias.len() == columns)
            && self.finish.beside().is_none_or(|beside| beside.len() == length)
    }

    /// Writes the product to `c`, row by row.
    pub(super) fn write(&self, context: &ComputeContext, c: &mut [f32]) -> ort::Result<()> {
        let share = |count, elements, each: &(dyn Fn(usize) + Sync + Send)| {
            for_each(context, count, elements, each)
        };
        self.write_with(Onto::Zeros, c, share)
    }

    /// Writes the product to `c`, or adds it to what `c` holds, by this thread alone.
    pub(super) fn write_alone(&self, onto: Onto, c: &mut [f32]) {
        let alone = |count, _, each: &(dyn Fn(usize) + Sync + Send)| {
            (0..count).for_each(each);
            Ok(())
        };
        self.write_with(onto, c, alone).expect("nothing of it fails");
    }

    /// The same with any way to call a function for the numbers below a first number, worth it for
    /// so many elements as the second one says.
    fn write_with(
        &self,
        onto: Onto,
        c: &mut [f32],
        share: impl Fn(usize, usize, &(dyn Fn(usize) + Sync + Send)) -> ort::Result<()>,
    ) -> ort::Result<()> {
        assert!(self.fits(c.len()), "the parts of the product fit");
        let ([rows, inner], columns) = (self.a.size(), self.b.size()[1]);
        // A thread more costs some microseconds; the sums over 32 places cost what an element does that
        // is read or written.
        let work = rows * columns * inner.div_ceil(32);
        let panels = columns.div_ceil(tile_columns());
        let shares = if panels < FEW_PANELS { rows.div_ceil(SHARE) } else { 1 };
        let share_rows = if shares > 1 { SHARE } else { rows };
        let c = Parts::of(c);
        let longest = if self.a.transposed { LONGEST_COPIED } else { LONGEST };
        let mut first = 0;
        // Once at least, so that a sum of nothing is written too.
        while first == 0 || first < inner {
            let depth = longest.min(inner - first);
            let held = onto == Onto::Held || first > 0;
            let block = Block { product: self, first, depth, held };
            let multiply = |left: &[f32]| {
                share(panels * shares, work, &|number| {
                    let rows = (number / panels * share_rows)
                        ..rows.min((number / panels + 1) * share_rows);
                    PANEL.with(|memory| {
                        with_memory(memory, depth * tile_columns(), |panel| {
                            block.multiply_panel(left, number % panels, rows.clone(), panel, &c);
                        });
                    });
                })
            };
            if self.a.transposed {
                let blocks = rows.div_ceil(ROWS);
                LEFT.with(|memory| {
                    with_memory(memory, blocks * depth * ROWS, |left| {
                        let parts = Parts::of(left);
                        share(blocks, rows * depth / 4, &|number| {
                            // SAFETY: each number has its own part.
                            let part = unsafe {
                                parts.part(number * depth * ROWS..(number + 1) * depth * ROWS)
                            };
                            block.copy_left(number * ROWS, part);
                        })?;
                        multiply(left)
                    })
                })?;
            } else {
                multiply(&[])?;
            }
            first += depth.max(1);
        }
        Ok(())
    }
}

thread_local! {
    static PANEL: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
    static LEFT: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Calls `work` with `length` elements of any value, in memory that this thread has used before.
pub(super) fn with_memory<T>(
    memory: &Cell<Vec<f32>>,
    length: usize,
    work: impl FnOnce(&mut [f32]) -> T,
) -> T {
    let mut taken = memory.take();
    if taken.len() < length {
        taken.resize(length, 0.0);
    }
    let result = work(&mut taken[..length]);
    memory.set(taken);
    result
}

/// The part of a product that sums over `depth` places of the inner dimension, from `first` on.
#[derive(Clone, Copy)]
struct Block<'a> {
    product: &'a Product<'a>,
    first: usize,
    depth: usize,
    /// Whether it is added to what the result holds.
    held: bool,
}

impl Block<'_> {
    /// Copies up to [`ROWS`] rows of the left matrix, from `row` on, to `to`: those of each place
    /// of the inner dimension side by side.
    fn copy_left(&self, row: usize, to: &mut [f32]) {
        let a = self.product.a;
        let used = ROWS.min(a.rows - row);
        let (places, _) = to.as_chunks_mut::<ROWS>();
        for (place, to) in places.iter_mut().enumerate() {
            let from = &a.elements[(self.first + place) * a.rows + row..];
            match from.first_chunk::<ROWS>() {
                Some(from) if used == ROWS => *to = *from,
                _ => to[..used].copy_from_slice(&from[..used]),
            }
        }
    }

    /// Makes the columns of one panel for some rows; `left` is the copy of the left matrix, if
    /// there is one.
    fn multiply_panel(
        &self,
        left: &[f32],
        panel: usize,
        rows: std::ops::Range<usize>,
        memory: &mut [f32],
        c: &Parts<'_, f32>,
    ) {
        let block = *self;
        assert!(memory.len() >= self.depth * tile_columns());
        assert!(
            !self.product.a.transposed
                || left.len() >= self.product.a.rows.div_ceil(ROWS) * self.depth * ROWS
        );
        // SAFETY: the product fits its result, as `write_with` asserted, so that all accesses lie
        // within the slices; each call has other elements of the result.
        widest!(multiply_panel(
            block: Block<'_>,
            left: &[f32],
            panel: usize,
            rows: std::ops::Range<usize>,
            memory: &mut [f32],
            c: &Parts<'_, f32>,
        ));
    }
}

/// # Safety
///
/// The parts of the product fit together and to `c`; `memory` holds a panel, `left` the copy of the
/// left matrix if that is transposed. No other thread has these rows and columns of `c`.
#[inline(always)]
unsafe fn multiply_panel<V: Vector, const _R: usize>(
    block: Block<'_>,
    left: &[f32],
    panel: usize,
    rows: std::ops::Range<usize>,
    memory: &mut [f32],
    c: &Parts<'_, f32>,
) {
    let Block { product, first, depth, held } = block;
    let (a, columns) = (product.a, product.b.columns);
    let width = 2 * V::LANES;
    let column = panel * width;
    let used = width.min(columns - column);
    // SAFETY: as of the caller.
    unsafe {
        let (right, right_step) = right_panel::<V>(block, column, used, rows.len(), memory);
        let mut bias = [0.0; 32];
        if !product.bias.is_empty() {
            bias[..used].copy_from_slice(&product.bias[column..column + used]);
        }
        let is_last = first + depth >= a.columns;
        let beside = product.finish.beside().filter(|_| is_last);
        let beside = beside.map_or(std::ptr::null(), <[f32]>::as_ptr);
        let mut row = rows.start;
        while row < rows.end {
            let height = ROWS.min(rows.end - row);
            let (from, row_step, place_step) = if a.transposed {
                (left.as_ptr().add(row / ROWS * depth * ROWS), 1, ROWS)
            } else {
                (a.elements.as_ptr().add(row * a.columns + first), a.columns, 1)
            };
            let at = row * columns + column;
            let mut tile = Tile {
                depth,
                left: from,
                row_step,
                place_step,
                right,
                right_step,
                bias: (!held).then_some(&bias),
                rectified: is_last && matches!(product.finish, Finish::Rectified),
                beside: if beside.is_null() { beside } else { beside.add(at) },
                scaled: matches!(product.finish, Finish::Scaled(_)),
                c: c.first().add(at),
                columns,
                ahead: block.next_panel(column + width, width, (row - rows.start) / ROWS),
            };
            if used == width {
                multiply_rows::<V, 2>(&tile, height);
            } else {
                // Whole vectors, in memory of their own.
                let mut own = [0.0_f32; LARGEST_TILE];
                let mut own_beside = [0.0_f32; LARGEST_TILE];
                let (c, beside) = (tile.c, tile.beside);
                for row in 0..height {
                    if held {
                        let from = c.add(row * columns);
                        std::ptr::copy_nonoverlapping(
                            from,
                            own.as_mut_ptr().add(row * width),
                            used,
                        );
                    }
                    if !beside.is_null() {
                        let from = beside.add(row * columns);
                        let to = own_beside.as_mut_ptr().add(row * width);
                        std::ptr::copy_nonoverlapping(from, to, used);
                    }
                }
                tile.c = own.as_mut_ptr();
                tile.columns = width;
                tile.beside = if beside.is_null() { beside } else { own_beside.as_ptr() };
                if used <= V::LANES {
                    multiply_rows::<V, 1>(&tile, height);
                } else {
                    multiply_rows::<V, 2>(&tile, height);
                }
                for row in 0..height {
                    let from = own.as_ptr().add(row * width);
                    std::ptr::copy_nonoverlapping(from, c.add(row * columns), used);
                }
            }
            row += height;
        }
    }
}

mod panels;
mod right;
pub(super) mod strided;
#[cfg(test)]
mod tests;
mod tile;

pub(super) use panels::{Onto, Panels};
use right::right_panel;
use tile::{Ahead, Tile, multiply_rows};
