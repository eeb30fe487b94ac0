//! Panels of the right matrix: made just before they are used, and fetched from memory before that.

#![allow(
    clippy::inline_always,
    reason = "vector code comes of inlining into the function that enables the instructions"
)]

use super::{Ahead, Block, LINE, ROWS};
use crate::kernels::vector::Vector;

/// With fewer rows than this on the left, making panels of the right matrix costs more than it
/// gains.
const FEWEST_FOR_PANELS: usize = 2 * ROWS + 1;

impl Block<'_> {
    /// What the tile number `tile` of a panel may fetch of the panel after it, which begins at `column`
    /// and is `width` elements wide: all tiles together fetch all of it once.
    pub(super) fn next_panel(&self, column: usize, width: usize, tile: usize) -> Ahead {
        let b = self.product.b;
        let [down, across] = b.strides();
        let lines = width / LINE;
        let (start, step) = if b.transposed && self.depth == b.rows && tile < lines {
            // Whole columns, which follow each other.
            (column * across + tile * self.depth * LINE, LINE)
        } else if !b.transposed && tile <= lines {
            // The rows of a panel begin anywhere in a line, so that there is one more.
            (self.first * down + column + (tile * LINE).min(width - 1), down)
        } else {
            return Ahead::NOTHING;
        };
        if column < b.columns {
            Ahead { from: b.elements.as_ptr().wrapping_add(start), step }
        } else {
            Ahead::NOTHING
        }
    }
}

/// The columns of the right matrix from `column` on, as wide as a tile for each place of the inner
/// dimension, and how far apart these lie.
#[inline(always)]
pub(super) unsafe fn right_panel<V: Vector>(
    block: Block<'_>,
    column: usize,
    used: usize,
    rows: usize,
    memory: &mut [f32],
) -> (*const f32, usize) {
    let b = block.product.b;
    let width = 2 * V::LANES;
    let [down, across] = b.strides();
    // SAFETY: as of the caller.
    unsafe {
        let from = b.elements.as_ptr().add(block.first * down + column * across);
        let to = memory.as_mut_ptr();
        if !b.transposed && used == width && rows < FEWEST_FOR_PANELS {
            return (from, down);
        }
        // What no column fills must be no slow number, since it is multiplied too.
        if used < width {
            for place in 0..block.depth {
                memory[place * width + used..(place + 1) * width].fill(0.0);
            }
        }
        if !b.transposed {
            for place in 0..block.depth {
                let (from, to) = (from.add(place * down), to.add(place * width));
                if used == width {
                    V::store(V::load(from), to);
                    V::store(V::load(from.add(V::LANES)), to.add(V::LANES));
                } else {
                    std::ptr::copy_nonoverlapping(from, to, used);
                }
            }
            return (to, width);
        }
        let whole = block.depth - block.depth % V::LANES;
        let mut done = 0;
        while done + V::LANES <= used {
            for place in (0..whole).step_by(V::LANES) {
                V::transpose(
                    from.add(done * across + place),
                    across,
                    to.add(place * width + done),
                    width,
                );
            }
            done += V::LANES;
        }
        for at in 0..used {
            let begun = if at < done { whole } else { 0 };
            for place in begun..block.depth {
                *to.add(place * width + at) = *from.add(at * across + place);
            }
        }
        (to, width)
    }
}
