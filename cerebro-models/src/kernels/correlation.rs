//! Sums over sliding windows, the heart of convolutions and their gradients.
//!
//! Images are laid out with the channels of a pixel side by side and zeros around them. What a
//! window sees of one row is then one run of memory, so that sums over windows are products of
//! matrices whose operands need not be gathered first (as `im2col` does).

#![allow(
    clippy::inline_always,
    reason = "vector code comes of inlining into the function that enables the instructions"
)]
#![allow(
    clippy::needless_range_loop,
    reason = "loops over the registers of a tile index several arrays of a constant size"
)]

use std::cell::Cell;

use super::vector::{Vector, Width};

/// The most elements of an output tile: rows of two vectors, over all kinds of vectors.
const LARGEST_TILE: usize = 8 * 32;

/// The columns of a full tile on this processor: two vectors.
pub(super) fn tile_columns() -> usize {
    2 * match Width::of_processor() {
        Width::Portable => 4,
        #[cfg(target_arch = "x86_64")]
        Width::Avx2 => 8,
        #[cfg(target_arch = "x86_64")]
        Width::Avx512 => 16,
    }
}

/// The rows of a tile on this processor.
pub(super) fn tile_rows() -> usize {
    match Width::of_processor() {
        Width::Portable => 4,
        #[cfg(target_arch = "x86_64")]
        Width::Avx2 => 4,
        #[cfg(target_arch = "x86_64")]
        Width::Avx512 => 8,
    }
}

/// An image with its channels side by side and zeros around it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Image {
    pub(super) channels: usize,
    /// Elements per pixel, at least as many as channels; zeros fill the rest.
    pub(super) pixel: usize,
    /// Height and width.
    pub(super) size: [usize; 2],
    /// Rows above and columns to the left of it.
    pub(super) before: [usize; 2],
    /// Height and width with all that is around it.
    pub(super) padded: [usize; 2],
}

impl Image {
    /// Elements, and some more, since the last tile may read over the edge.
    pub(super) fn length(&self) -> usize {
        self.padded[0] * self.padded[1] * self.pixel + tile_columns()
    }

    /// Where the pixel is, counted with what is around the image.
    pub(super) fn offset(&self, row: usize, column: usize) -> usize {
        (row * self.padded[1] + column) * self.pixel
    }

    /// Lays out `planes`, one after the other for each channel; `out` holds zeros where there is
    /// no pixel.
    pub(super) fn lay_out(&self, planes: &[f32], out: &mut [f32]) {
        let [height, width] = self.size;
        assert!(planes.len() >= self.channels * height * width && out.len() >= self.length());
        let image = self;
        // SAFETY: as asserted, all pixels lie within both.
        widest!(lay_out(image: &Image, planes: &[f32], out: &mut [f32]));
    }
}

/// # Safety
///
/// `planes` has an element for each channel of each pixel, and so has `out`, laid out.
#[inline(always)]
unsafe fn lay_out<V: Vector, const _R: usize>(image: &Image, planes: &[f32], out: &mut [f32]) {
    const MOST_LANES: usize = 16;
    const { assert!(V::LANES <= MOST_LANES) };
    let ([height, width], pixel) = (image.size, image.pixel);
    let area = height * width;
    let whole = [image.channels, area].map(|size| size - size % V::LANES);
    // Squares of channels and of places, which may lie in several rows.
    let (mut starts, mut row, mut column) = ([0; MOST_LANES], 0, 0);
    let mut square = [0.0; MOST_LANES * MOST_LANES];
    for place in (0..whole[1]).step_by(V::LANES) {
        let is_row = column + V::LANES <= width;
        for start in &mut starts[..V::LANES] {
            *start = image.offset(row + image.before[0], column + image.before[1]);
            column += 1;
            if column == width {
                (row, column) = (row + 1, 0);
            }
        }
        for channel in (0..whole[0]).step_by(V::LANES) {
            // SAFETY: as of the caller: a square of channels and places that both are there.
            unsafe {
                let from = planes.as_ptr().add(channel * area + place);
                let to = out.as_mut_ptr().add(channel);
                if is_row {
                    V::transpose(from, area, to.add(starts[0]), pixel);
                    continue;
                }
                V::transpose(from, area, square.as_mut_ptr(), V::LANES);
                for (lane, start) in starts.iter().enumerate().take(V::LANES) {
                    V::store(V::load(square.as_ptr().add(lane * V::LANES)), to.add(*start));
                }
            }
        }
    }
    for row in 0..height {
        let start = image.offset(row + image.before[0], image.before[1]);
        let pixels = &mut out[start..start + width * pixel];
        let of_row = whole[1].saturating_sub(row * width).min(width);
        for channel in 0..image.channels {
            let done = if channel < whole[0] { of_row } else { 0 };
            let from = channel * area + row * width;
            let values = &planes[from + done..from + width];
            for (column, value) in values.iter().enumerate() {
                pixels[(done + column) * pixel + channel] = *value;
            }
        }
    }
}

/// A window at one place: where it starts in the laid-out image, and where the result goes within
/// the plane of each output channel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) start: usize,
    pub(super) target: usize,
}

/// Windows of one size and with the same weights.
#[derive(Debug)]
pub(super) struct Windows {
    /// Rows of the window.
    rows: usize,
    /// Elements of one row: columns times channels.
    span: usize,
    /// For each tile of output channels, the weights of a tile by row and element.
    weights: Vec<f32>,
    pub(super) places: Vec<Place>,
}

impl Windows {
    /// Windows of `rows` by `columns` pixels of `channels` for `outputs` output channels; `fill`
    /// writes the weights of one window element, given by row, column and channel, for outputs from
    /// a first one on.
    pub(super) fn new(
        [rows, columns]: [usize; 2],
        channels: usize,
        outputs: usize,
        places: Vec<Place>,
        fill: impl Fn([usize; 3], usize, &mut [f32]),
    ) -> Self {
        let span = columns * channels;
        let tile = tile_columns();
        let mut weights = take_memory(&PACKED, rows * span * outputs.next_multiple_of(tile / 2));
        let mut at = 0;
        let mut first = 0;
        while first < outputs {
            let width = if outputs - first <= tile / 2 { tile / 2 } else { tile };
            let used = width.min(outputs - first);
            for row in 0..rows {
                for column in 0..columns {
                    for channel in 0..channels {
                        fill([row, column, channel], first, &mut weights[at..at + used]);
                        at += width;
                    }
                }
            }
            first += width;
        }
        Self { rows, span, weights, places }
    }
}

impl Drop for Windows {
    fn drop(&mut self) {
        give_back(&PACKED, std::mem::take(&mut self.weights));
    }
}

thread_local! {
    static PACKED: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
    static IMAGES: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

type Memory = std::thread::LocalKey<Cell<Vec<f32>>>;

/// Zeros, in memory that this thread has used before: asking the system anew for each node would
/// cost more than some nodes do.
fn take_memory(memory: &'static Memory, length: usize) -> Vec<f32> {
    let mut taken = memory.take();
    taken.clear();
    taken.resize(length, 0.0);
    taken
}

fn give_back(memory: &'static Memory, taken: Vec<f32>) {
    memory.set(taken);
}

/// Calls `work` with zeros for laid-out images.
pub(super) fn with_images<T>(length: usize, work: impl FnOnce(&mut [f32]) -> T) -> T {
    let mut images = take_memory(&IMAGES, length);
    let result = work(&mut images);
    give_back(&IMAGES, images);
    result
}

/// What every window sees, weighted, for one image: `y[o][target] = sum w x + bias[o]`.
#[derive(Debug)]
pub(super) struct Correlation {
    pub(super) source: Image,
    /// Output channels.
    pub(super) outputs: usize,
    /// Elements of the plane of an output channel.
    pub(super) plane: usize,
    pub(super) windows: Vec<Windows>,
}

impl Correlation {
    /// `laid_out` is the source; `bias` has an element per output channel, or none.
    pub(super) fn apply(&self, laid_out: &[f32], bias: &[f32], y: &mut [f32]) {
        assert!(laid_out.len() >= self.source.length() && y.len() == self.outputs * self.plane);
        assert!(bias.is_empty() || bias.len() == self.outputs);
        let row = self.source.padded[1] * self.source.pixel;
        let job = self;
        for windows in &self.windows {
            let reach = windows.rows.saturating_sub(1) * row + windows.span;
            let fits =
                |place: &Place| place.start + reach <= laid_out.len() && place.target < self.plane;
            assert!(windows.places.iter().all(fits));
            // SAFETY: the assertions keep every access within the slices; tiles of weights are
            // whole, as `Windows::new` made them.
            widest!(correlate(job: &Correlation, windows: &Windows, laid_out: &[f32], bias: &[f32], y: &mut [f32]));
        }
    }
}

#[inline(always)]
unsafe fn correlate<V: Vector, const R: usize>(
    job: &Correlation,
    windows: &Windows,
    laid_out: &[f32],
    bias: &[f32],
    y: &mut [f32],
) {
    let mut first = 0;
    let mut weights = windows.weights.as_ptr();
    let steps = windows.rows * windows.span;
    while first < job.outputs {
        // SAFETY: as of the caller.
        unsafe {
            if job.outputs - first <= V::LANES {
                correlate_tile::<V, R, 1>(job, windows, laid_out, bias, y, first, weights);
                weights = weights.add(steps * V::LANES);
                first += V::LANES;
            } else {
                correlate_tile::<V, R, 2>(job, windows, laid_out, bias, y, first, weights);
                weights = weights.add(steps * 2 * V::LANES);
                first += 2 * V::LANES;
            }
        }
    }
}

/// All places for the output channels of one tile, `W` vectors from `first` on.
#[inline(always)]
unsafe fn correlate_tile<V: Vector, const R: usize, const W: usize>(
    job: &Correlation,
    windows: &Windows,
    laid_out: &[f32],
    bias: &[f32],
    y: &mut [f32],
    first: usize,
    weights: *const f32,
) {
    let tile = W * V::LANES;
    let used = tile.min(job.outputs - first);
    let row = job.source.padded[1] * job.source.pixel;
    let mut initial = [0.0_f32; LARGEST_TILE];
    if !bias.is_empty() {
        initial[..used].copy_from_slice(&bias[first..first + used]);
    }
    let mut buffer = [0.0_f32; LARGEST_TILE];
    for places in windows.places.chunks(R) {
        // SAFETY: places lie within the image, as `apply` asserted; `weights` has `rows * span`
        // tiles; the buffers hold the largest tile.
        unsafe {
            let starts: [*const f32; R] = std::array::from_fn(|at| {
                laid_out.as_ptr().add(places[at.min(places.len() - 1)].start)
            });
            let start: [V::Value; W] =
                std::array::from_fn(|column| V::load(initial.as_ptr().add(column * V::LANES)));
            let mut sums = [start; R];
            let mut weight = weights;
            for window_row in 0..windows.rows {
                let offset = window_row * row;
                for element in 0..windows.span {
                    let w: [V::Value; W] =
                        std::array::from_fn(|column| V::load(weight.add(column * V::LANES)));
                    for at in 0..R {
                        let x = V::splat(*starts[at].add(offset + element));
                        for column in 0..W {
                            sums[at][column] = V::multiply_add(x, w[column], sums[at][column]);
                        }
                    }
                    weight = weight.add(tile);
                }
            }
            for at in 0..R {
                for column in 0..W {
                    let to = buffer.as_mut_ptr().add(at * tile + column * V::LANES);
                    V::store(sums[at][column], to);
                }
            }
        }
        for output in 0..used {
            let plane = &mut y[(first + output) * job.plane..(first + output + 1) * job.plane];
            for (at, place) in places.iter().enumerate() {
                plane[place.target] = buffer[at * tile + output];
            }
        }
    }
}

/// The sum over places of what stands at a place in one image times what a window sees there in
/// another: the gradient of a window's weights.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outer {
    /// What windows slide over.
    pub(super) x: Image,
    /// What stands at the places; nothing is around it.
    pub(super) dy: Image,
    /// Rows and columns of a window.
    pub(super) window: [usize; 2],
    pub(super) strides: [usize; 2],
}

impl Outer {
    /// Elements of a row of the window.
    fn span(&self) -> usize {
        self.window[1] * self.x.channels
    }

    /// Elements of a row of sums: whole vectors.
    pub(super) fn columns(&self) -> usize {
        self.span().next_multiple_of(tile_columns() / 2)
    }

    /// The number of sums: by row of the window, pixel element of `dy` and column.
    pub(super) fn length(&self) -> usize {
        self.window[0] * self.dy.pixel * self.columns()
    }

    /// Adds the sums for `images` laid-out pairs of images.
    pub(super) fn add(&self, images: usize, x: &[f32], dy: &[f32], sums: &mut [f32]) {
        let places = self.dy.size;
        let last = |axis: usize| (places[axis].max(1) - 1) * self.strides[axis] + self.window[axis];
        assert!(last(0) <= self.x.padded[0] && last(1) <= self.x.padded[1]);
        assert!(x.len() >= images * self.x.length() && dy.len() >= images * self.dy.length());
        assert!(sums.len() == self.length() && self.dy.pixel.is_multiple_of(tile_rows()));
        let job = self;
        // SAFETY: the assertions keep every access within the slices: tiles of `dy` are whole, and
        // what tiles of `x` read over the edge is the room that `Image::length` leaves.
        widest!(outer(job: &Outer, images: usize, x: &[f32], dy: &[f32], sums: &mut [f32]));
    }
}

#[inline(always)]
unsafe fn outer<V: Vector, const R: usize>(
    job: &Outer,
    images: usize,
    x: &[f32],
    dy: &[f32],
    sums: &mut [f32],
) {
    let columns = job.columns();
    for row in 0..job.window[0] {
        for first in (0..job.dy.pixel).step_by(R) {
            let sums = &mut sums[(row * job.dy.pixel + first) * columns..][..R * columns];
            let mut column = 0;
            while column < columns {
                // SAFETY: as of the caller.
                unsafe {
                    if columns - column <= V::LANES {
                        outer_tile::<V, R, 1>(job, images, x, dy, sums, [row, first, column]);
                        column += V::LANES;
                    } else {
                        outer_tile::<V, R, 2>(job, images, x, dy, sums, [row, first, column]);
                        column += 2 * V::LANES;
                    }
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn outer_tile<V: Vector, const R: usize, const W: usize>(
    job: &Outer,
    images: usize,
    x: &[f32],
    dy: &[f32],
    sums: &mut [f32],
    [row, first, column]: [usize; 3],
) {
    let columns = job.columns();
    let [height, width] = job.dy.size;
    let pixel = job.strides[1] * job.x.pixel;
    // SAFETY: as of the caller.
    unsafe {
        let at = |sums: *mut f32, r: usize, w: usize| sums.add(r * columns + column + w * V::LANES);
        let start = sums.as_mut_ptr();
        let mut tile: [[V::Value; W]; R] =
            std::array::from_fn(|r| std::array::from_fn(|w| V::load(at(start, r, w))));
        for image in 0..images {
            let x = x.as_ptr().add(image * job.x.length() + column);
            let mut place = dy.as_ptr().add(image * job.dy.length() + first);
            for y in 0..height {
                let mut window = x.add(job.x.offset(y * job.strides[0] + row, 0));
                for _ in 0..width {
                    let seen: [V::Value; W] =
                        std::array::from_fn(|w| V::load(window.add(w * V::LANES)));
                    for r in 0..R {
                        let value = V::splat(*place.add(r));
                        for w in 0..W {
                            tile[r][w] = V::multiply_add(value, seen[w], tile[r][w]);
                        }
                    }
                    window = window.add(pixel);
                    place = place.add(job.dy.pixel);
                }
            }
        }
        for r in 0..R {
            for w in 0..W {
                V::store(tile[r][w], at(start, r, w));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::vector::Portable;

    /// Each element is at the place of its pixel and channel, and zeros are around.
    fn check(image: &Image, lay_out: impl Fn(&[f32], &mut [f32])) {
        let [height, width] = image.size;
        let planes: Vec<f32> = (1..=image.channels * height * width).map(|at| at as f32).collect();
        let mut expected = vec![0.0; image.length()];
        for (at, value) in planes.iter().enumerate() {
            let (channel, place) = (at / (height * width), at % (height * width));
            let (row, column) = (place / width, place % width);
            let pixel = image.offset(row + image.before[0], column + image.before[1]);
            expected[pixel + channel] = *value;
        }
        let mut found = vec![0.0; image.length()];
        lay_out(&planes, &mut found);
        assert!(found == expected, "{image:?}");
    }

    #[test]
    fn images_of_any_size_are_laid_out() {
        for channels in [1, 3, 16, 37] {
            // Rows that are shorter than a vector, whole vectors, and others.
            for size in [[1, 1], [4, 4], [8, 8], [5, 7], [3, 16], [2, 37]] {
                let padded = [size[0] + 3, size[1] + 2];
                let image = Image {
                    channels,
                    pixel: channels.next_multiple_of(4),
                    size,
                    before: [1, 2],
                    padded,
                };
                check(&image, |planes, out| image.lay_out(planes, out));
                // SAFETY: there is an element for each channel of each pixel on both sides.
                check(&image, |planes, out| unsafe {
                    lay_out::<Portable, 4>(&image, planes, out);
                });
            }
        }
    }
}
