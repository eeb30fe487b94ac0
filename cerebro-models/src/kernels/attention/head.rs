//! One head: products of its small matrices, and what is done to the scores between them.
//!
//! Queries are taken block by block. A block's scores for all keys are made at once, so that a softmax
//! needs no second try; they are made again for the gradient, from what each row's softmax left
//! (Dao et al. 2022, "`FlashAttention`").

#![allow(
    clippy::inline_always,
    reason = "vector code comes of inlining into the function that enables the instructions"
)]

use std::cell::Cell;

use crate::kernels::exponential::{Arithmetic, exp_of_negative};
use crate::kernels::node::Parts;
use crate::kernels::product::strided::{Left, Right, lanes, multiply, turn, turned_length};
use crate::kernels::product::{Onto, with_memory};
use crate::kernels::sum::sums;

/// Queries of a block: whole tiles.
const BLOCK: usize = 96;

/// Elements of the vectors in which rows are gone through.
const LANES: usize = 32;

thread_local! {
    static MEMORY: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// The matrix of a head within a tensor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rows<'a> {
    pub(super) elements: &'a [f32],
    pub(super) start: usize,
    pub(super) step: usize,
}

impl Rows<'_> {
    fn row(&self, row: usize, width: usize) -> &[f32] {
        &self.elements[self.start + row * self.step..][..width]
    }

    /// Copies `rows` rows from `first` on, times `scale`, to `to`, which has rows `padded` apart; what no
    /// element fills becomes zero.
    fn copy(
        &self,
        (first, rows): (usize, usize),
        width: usize,
        scale: f32,
        to: &mut [f32],
        padded: usize,
    ) {
        let from = &self.elements[self.start + first * self.step..];
        let step = self.step;
        assert!(from.len() >= rows.saturating_sub(1) * step + width, "all rows are there");
        fastest!(copy_rows(
            from: &[f32],
            step: usize,
            rows: usize,
            width: usize,
            scale: f32,
            to: &mut [f32],
            padded: usize,
        ));
    }
}

#[inline(always)]
fn copy_rows(
    from: &[f32],
    step: usize,
    rows: usize,
    width: usize,
    scale: f32,
    to: &mut [f32],
    padded: usize,
) {
    let (used, rest) = to.split_at_mut(rows * padded);
    for (row, to) in used.chunks_exact_mut(padded).enumerate() {
        let (to, padding) = to.split_at_mut(width);
        for (to, from) in to.iter_mut().zip(&from[row * step..][..width]) {
            *to = from * scale;
        }
        padding.fill(0.0);
    }
    rest.fill(0.0);
}

/// Where a head's results go.
#[derive(Clone, Copy)]
pub(super) struct Target<'a, 'p> {
    pub(super) elements: &'a Parts<'p, f32>,
    pub(super) start: usize,
    pub(super) step: usize,
}

impl Target<'_, '_> {
    /// Takes `width` elements of each row of `from`, which lie `padded` apart, times what `scale` gives
    /// for a row; the first of them is the one called `first`.
    ///
    /// # Safety
    ///
    /// No other thread may have these rows.
    unsafe fn take(
        &self,
        first: usize,
        width: usize,
        from: &[f32],
        padded: usize,
        scale: impl Fn(usize) -> f32,
    ) {
        for (row, from) in from.chunks_exact(padded).enumerate() {
            let start = self.start + (first + row) * self.step;
            // SAFETY: as of the caller.
            let to = unsafe { self.elements.part(start..start + width) };
            let scale = scale(row);
            to.iter_mut().zip(from).for_each(|(to, from)| *to = from * scale);
        }
    }
}

/// The sizes of a head and what is added to its scores.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head<'a> {
    pub(super) queries: usize,
    pub(super) keys: usize,
    /// The elements of a query and of a key.
    pub(super) width: usize,
    /// The elements of a value.
    pub(super) value_width: usize,
    /// What products of queries and keys are multiplied by.
    pub(super) scale: f32,
    /// Added to the scores.
    pub(super) mask: Option<Rows<'a>>,
}

/// What a head is made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Operands<'a> {
    pub(super) query: Rows<'a>,
    pub(super) key: Rows<'a>,
    pub(super) value: Rows<'a>,
}

/// Calls `work` with parts of so many elements as `lengths` say, of any value, in this thread's memory.
fn with_parts<const N: usize>(lengths: [usize; N], work: impl FnOnce([&mut [f32]; N])) {
    MEMORY.with(|memory| {
        with_memory(memory, lengths.iter().sum(), |mut rest| {
            work(lengths.map(|length| {
                let (part, others) = std::mem::take(&mut rest).split_at_mut(length);
                rest = others;
                part
            }));
        });
    });
}

impl Head<'_> {
    /// Rows of queries and keys, of values, of scores: whole vectors.
    fn padded(&self) -> [usize; 3] {
        [self.width, self.value_width, self.keys].map(|size| size.next_multiple_of(lanes()))
    }

    fn blocks(&self) -> impl Iterator<Item = (usize, usize)> {
        let queries = self.queries;
        (0..queries).step_by(BLOCK).map(move |first| (first, BLOCK.min(queries - first)))
    }

    /// The scores of a block of queries, which are scaled already.
    fn scores(
        &self,
        (first, rows): (usize, usize),
        queries: &[f32],
        keys: Right<'_>,
        scores: &mut [f32],
    ) {
        let [wide, _, deep] = self.padded();
        let left = Left { elements: queries, steps: [wide, 1] };
        multiply([rows, self.width, self.keys], left, keys, Onto::Zeros, scores, deep);
        if let Some(mask) = self.mask {
            for (row, scores) in scores.chunks_exact_mut(deep).take(rows).enumerate() {
                let mask = mask.row(first + row, self.keys);
                scores.iter_mut().zip(mask).for_each(|(score, mask)| *score += mask);
            }
        }
    }

    /// Writes the values mixed by the softmax of the scores, and for each query the largest of its scores
    /// and one over the sum of their exponentials.
    ///
    /// # Safety
    ///
    /// No other thread may have these rows of `mixed`.
    pub(super) unsafe fn forward(
        &self,
        of: Operands<'_>,
        mixed: Target<'_, '_>,
        statistics: &mut [f32],
    ) {
        let [wide, value_wide, deep] = self.padded();
        let block = BLOCK.min(self.queries);
        let lengths = [
            deep * wide,
            turned_length(deep, wide),
            deep * value_wide,
            block * wide,
            block * deep,
            block * value_wide,
        ];
        with_parts(lengths, |[keys, turned, values, queries, scores, sums]| {
            of.key.copy((0, self.keys), self.width, 1.0, keys, wide);
            turn(keys, wide, turned);
            of.value.copy((0, self.keys), self.value_width, 1.0, values, value_wide);
            for (first, rows) in self.blocks() {
                of.query.copy((first, rows), self.width, self.scale, queries, wide);
                let keys = Right::turned(turned, wide);
                self.scores((first, rows), queries, keys, scores);
                let statistics = &mut statistics[2 * first..2 * (first + rows)];
                let (width, exponentials) = (self.keys, &mut *scores);
                contracted!(softmax(
                    width: usize,
                    deep: usize,
                    exponentials: &mut [f32],
                    statistics: &mut [f32],
                ));
                let left = Left { elements: scores, steps: [deep, 1] };
                let right = Right::rows(values, value_wide);
                let size = [rows, self.keys, self.value_width];
                multiply(size, left, right, Onto::Zeros, sums, value_wide);
                let sums = &sums[..rows * value_wide];
                // SAFETY: as of the caller.
                unsafe {
                    mixed.take(first, self.value_width, sums, value_wide, |row| {
                        statistics[2 * row + 1]
                    });
                }
            }
        });
    }

    /// Writes the gradients by queries, keys and values.
    ///
    /// # Safety
    ///
    /// No other thread may have these rows of the gradients.
    pub(super) unsafe fn backward(
        &self,
        of: Operands<'_>,
        [gradient, mixed]: [Rows<'_>; 2],
        statistics: &[f32],
        [by_query, by_key, by_value]: [Target<'_, '_>; 3],
    ) {
        let [wide, value_wide, deep] = self.padded();
        let block = BLOCK.min(self.queries);
        let lengths = [
            deep * wide,
            deep * value_wide,
            turned_length(deep, wide),
            turned_length(deep, value_wide),
            deep * wide,
            deep * value_wide,
            block * wide,
            block * wide,
            block * value_wide,
            block * deep,
            block * deep,
            block,
        ];
        with_parts(lengths, |parts| {
            let [keys, values, turned_keys, turned_values, key_sums, value_sums, parts @ ..] =
                parts;
            let [queries, query_sums, gradients, scores, slopes, means] = parts;
            of.key.copy((0, self.keys), self.width, 1.0, keys, wide);
            turn(keys, wide, turned_keys);
            of.value.copy((0, self.keys), self.value_width, 1.0, values, value_wide);
            turn(values, value_wide, turned_values);
            for (first, rows) in self.blocks() {
                let onto = if first == 0 { Onto::Zeros } else { Onto::Held };
                of.query.copy((first, rows), self.width, self.scale, queries, wide);
                self.scores((first, rows), queries, Right::turned(turned_keys, wide), scores);
                let gradients = &mut gradients[..rows * value_wide];
                gradient.copy((first, rows), self.value_width, 1.0, gradients, value_wide);
                let size = [rows, self.value_width, self.keys];
                let left = Left { elements: gradients, steps: [value_wide, 1] };
                let right = Right::turned(turned_values, value_wide);
                multiply(size, left, right, Onto::Zeros, slopes, deep);
                // The sum of all slopes by the shares of a row is that of its result's gradient.
                let rows_of = gradients.chunks_exact(value_wide);
                for (row, (mean, gradient)) in means.iter_mut().zip(rows_of).enumerate() {
                    let mixed = mixed.row(first + row, self.value_width);
                    let gradient = &gradient[..self.value_width];
                    *mean = sums(gradient, mixed, |a, b| (a * b, 0.0)).0;
                }
                let statistics = &statistics[2 * first..2 * (first + rows)];
                let (width, means) = (self.keys, &means[..rows]);
                let (shares, by_scores) = (&mut *scores, &mut *slopes);
                contracted!(softmax_gradient(
                    width: usize,
                    deep: usize,
                    statistics: &[f32],
                    means: &[f32],
                    shares: &mut [f32],
                    by_scores: &mut [f32],
                ));
                let turned = [1, deep];
                let shares = Left { elements: scores, steps: turned };
                let right = Right::rows(gradients, value_wide);
                let size = [self.keys, rows, self.value_width];
                multiply(size, shares, right, onto, value_sums, value_wide);
                let by_scores = Left { elements: slopes, steps: turned };
                let right = Right::rows(queries, wide);
                let size = [self.keys, rows, self.width];
                multiply(size, by_scores, right, onto, key_sums, wide);
                let by_scores = Left { elements: slopes, steps: [deep, 1] };
                let size = [rows, self.keys, self.width];
                let right = Right::rows(keys, wide);
                multiply(size, by_scores, right, Onto::Zeros, query_sums, wide);
                // SAFETY: as of the caller.
                unsafe {
                    let sums = &query_sums[..rows * wide];
                    by_query.take(first, self.width, sums, wide, |_| self.scale);
                }
            }
            // SAFETY: as of the caller. Queries were scaled, so that the sums for keys are.
            unsafe {
                let sums = &key_sums[..self.keys * wide];
                by_key.take(0, self.width, sums, wide, |_| 1.0);
                let sums = &value_sums[..self.keys * value_wide];
                by_value.take(0, self.value_width, sums, value_wide, |_| 1.0);
            }
        });
    }
}

/// Of as many rows as there are `statistics` for: their exponentials over the largest element, and
/// that one with one over their sum. Rows of `width` elements lie `stride` apart.
#[inline(always)]
fn softmax<A: Arithmetic>(width: usize, stride: usize, rows: &mut [f32], statistics: &mut [f32]) {
    let (statistics, _) = statistics.as_chunks_mut::<2>();
    for (row, statistics) in rows.chunks_exact_mut(stride).zip(statistics) {
        let row = &mut row[..width];
        let most = largest(row);
        let mut partial = [0.0_f32; LANES];
        let (chunks, rest) = row.as_chunks_mut::<LANES>();
        for chunk in chunks {
            for lane in 0..LANES {
                chunk[lane] = exp_of_negative::<A>(chunk[lane] - most);
                partial[lane] += chunk[lane];
            }
        }
        for (lane, element) in rest.iter_mut().enumerate() {
            *element = exp_of_negative::<A>(*element - most);
            partial[lane] += *element;
        }
        *statistics = [most, 1.0 / sums(&partial, &partial, |a, _| (a, 0.0)).0];
    }
}

#[inline(always)]
fn largest(row: &[f32]) -> f32 {
    let mut most = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = row.as_chunks::<LANES>();
    let more = |most: f32, element: f32| if element > most { element } else { most };
    for chunk in chunks {
        for lane in 0..LANES {
            most[lane] = more(most[lane], chunk[lane]);
        }
    }
    for (lane, element) in rest.iter().enumerate() {
        most[lane] = more(most[lane], *element);
    }
    most.into_iter().fold(f32::NEG_INFINITY, more)
}

/// Makes scores shares, and the gradients by shares those by scores.
#[inline(always)]
fn softmax_gradient<A: Arithmetic>(
    width: usize,
    stride: usize,
    statistics: &[f32],
    means: &[f32],
    scores: &mut [f32],
    slopes: &mut [f32],
) {
    let (statistics, _) = statistics.as_chunks::<2>();
    let rows = scores.chunks_exact_mut(stride).zip(slopes.chunks_exact_mut(stride));
    for ((scores, slopes), (&[most, share], mean)) in rows.zip(statistics.iter().zip(means)) {
        for (score, slope) in scores[..width].iter_mut().zip(&mut slopes[..width]) {
            *score = exp_of_negative::<A>(*score - most) * share;
            *slope = *score * (*slope - mean);
        }
    }
}
