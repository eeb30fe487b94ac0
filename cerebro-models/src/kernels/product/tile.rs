//! A tile of a result, summed in registers.

#![allow(
    clippy::inline_always,
    reason = "vector code comes of inlining into the function that enables the instructions"
)]
#![allow(
    clippy::needless_range_loop,
    reason = "loops over the registers of a tile index several arrays of a constant size"
)]

use super::ROWS;
use crate::kernels::vector::Vector;

/// What one tile is made of.
pub(super) struct Tile<'a> {
    pub(super) depth: usize,
    pub(super) left: *const f32,
    pub(super) row_step: usize,
    pub(super) place_step: usize,
    pub(super) right: *const f32,
    pub(super) right_step: usize,
    /// What sums start from; none to go on from what `c` holds.
    pub(super) bias: Option<&'a [f32; 32]>,
    pub(super) rectified: bool,
    /// What masks the sums, or what they are multiplied by. Null for none.
    pub(super) beside: *const f32,
    pub(super) scaled: bool,
    pub(super) c: *mut f32,
    /// How far apart the rows of `c` and of what lies beside it are.
    pub(super) columns: usize,
    pub(super) ahead: Ahead,
}

/// Memory that will be read next, fetched while a tile is summed: a line for each place of the inner
/// dimension. A step of 0 is for none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ahead {
    pub(super) from: *const f32,
    pub(super) step: usize,
}

impl Ahead {
    pub(super) const NOTHING: Self = Self { from: std::ptr::null(), step: 0 };
}

#[inline(always)]
pub(super) unsafe fn multiply_rows<V: Vector, const W: usize>(tile: &Tile<'_>, height: usize) {
    // SAFETY: as of the caller.
    unsafe {
        match height {
            1 => multiply_tile::<V, 1, W>(tile),
            2 => multiply_tile::<V, 2, W>(tile),
            3 => multiply_tile::<V, 3, W>(tile),
            4 => multiply_tile::<V, 4, W>(tile),
            5 => multiply_tile::<V, 5, W>(tile),
            _ => multiply_tile::<V, ROWS, W>(tile),
        }
    }
}

#[inline(always)]
unsafe fn multiply_tile<V: Vector, const R: usize, const W: usize>(tile: &Tile<'_>) {
    // SAFETY: as of the caller.
    unsafe {
        let mut sums: [[V::Value; W]; R] = match tile.bias {
            Some(bias) => [std::array::from_fn(|w| V::load(bias.as_ptr().add(w * V::LANES))); R],
            None => std::array::from_fn(|r| {
                std::array::from_fn(|w| V::load(tile.c.add(r * tile.columns + w * V::LANES)))
            }),
        };
        if !tile.beside.is_null() {
            for r in 0..R {
                for w in 0..W {
                    V::prefetch(tile.beside.add(r * tile.columns + w * V::LANES));
                }
            }
        }
        let (mut left, mut right) = (tile.left, tile.right);
        let (row_step, place_step, right_step) = (tile.row_step, tile.place_step, tile.right_step);
        let Ahead { from: mut ahead, step } = tile.ahead;
        for _ in 0..tile.depth {
            V::prefetch(ahead);
            ahead = ahead.wrapping_add(step);
            let b: [V::Value; W] = std::array::from_fn(|w| V::load(right.add(w * V::LANES)));
            for r in 0..R {
                let a = V::splat(*left.add(r * row_step));
                for w in 0..W {
                    sums[r][w] = V::multiply_add(a, b[w], sums[r][w]);
                }
            }
            left = left.add(place_step);
            right = right.add(right_step);
        }
        if tile.rectified {
            for r in 0..R {
                for w in 0..W {
                    sums[r][w] = V::rectify(sums[r][w]);
                }
            }
        }
        if !tile.beside.is_null() {
            for r in 0..R {
                for w in 0..W {
                    let beside = V::load(tile.beside.add(r * tile.columns + w * V::LANES));
                    sums[r][w] = if tile.scaled {
                        V::multiply_add(sums[r][w], beside, V::splat(-0.0))
                    } else {
                        V::where_not_zero(sums[r][w], beside)
                    };
                }
            }
        }
        for r in 0..R {
            for w in 0..W {
                V::store(sums[r][w], tile.c.add(r * tile.columns + w * V::LANES));
            }
        }
    }
}
