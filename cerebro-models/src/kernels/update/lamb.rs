//! LAMB (You et al. 2020, "Large batch optimization for deep learning: training BERT in 76 minutes").

#![allow(
    clippy::inline_always,
    reason = "vector code comes of inlining into the function that enables the instructions"
)]

use ort::operator::ComputeContext;

use super::rules::{Decay, LANES, Moments, Pull, Tensors, block, blocks};
use super::{LAMB, Method};
use crate::kernels::node::{PIECE, Parts, for_each_piece};

/// Adam's direction, to which decoupled decay is added; the step is as long as the parameter.
///
/// The first pass makes the moments and the sums of squares of each piece; the second makes the direction
/// once more, and steps.
#[derive(Clone, Copy)]
pub(super) struct Lamb {
    moments: Moments,
    first_scale: f32,
    second_scale: f32,
    epsilon: f32,
    pull: Pull,
}

impl Method for Lamb {
    const NAME: &'static str = LAMB;
    const SLOTS: usize = 2;
    const HYPERPARAMETERS: usize = 7;

    fn new(h: &[f32], pull: Pull, _: bool) -> Self {
        Self { moments: Moments::of(h), first_scale: h[4], second_scale: h[5], epsilon: h[6], pull }
    }

    fn update(
        &self,
        context: &ComputeContext,
        tensors: Tensors<'_>,
        gradient: &[f32],
    ) -> ort::Result<()> {
        let (method, length) = (self, gradient.len());
        let mut squares = vec![[0.0_f64; 2]; length.div_ceil(PIECE)];
        let of_pieces = Parts::of(&mut squares);
        for_each_piece(context, length, PIECE, 6 * length, |range| {
            let piece = range.start / PIECE;
            // SAFETY: each piece is another part.
            let (tensors, squares) =
                unsafe { (tensors.part(range.clone()), of_pieces.part(piece..piece + 1)) };
            let gradient = &gradient[range];
            fastest!(moments(
                method: &Lamb,
                tensors: Tensors<'_>,
                gradient: &[f32],
                squares: &mut [[f64; 2]],
            ));
        })?;
        // In the order of the pieces, whichever thread had them.
        let add = |sum: [f64; 2], of: &[f64; 2]| [sum[0] + of[0], sum[1] + of[1]];
        let [weight, direction] = squares.iter().fold([0.0; 2], add).map(f64::sqrt);
        let trust = if weight * direction > 0.0 { (weight / direction) as f32 } else { 1.0 };
        for_each_piece(context, length, PIECE, 4 * length, |range| {
            let length = range.len();
            // SAFETY: each piece is another part.
            let tensors = unsafe { tensors.part(range) };
            fastest!(step(method: &Lamb, tensors: Tensors<'_>, length: usize, trust: f32));
        })
    }
}

impl Lamb {
    /// The direction of a parameter with new moments.
    #[inline(always)]
    fn direction(&self, parameter: f32, first: f32, second: f32) -> f32 {
        let strength = if self.pull.decay == Decay::Decoupled { self.pull.strength } else { 0.0 };
        let denominator = second.sqrt() * self.second_scale + self.epsilon;
        (first * self.first_scale) / denominator + parameter * strength
    }
}

/// Makes the new moments, and the sums of squares of parameters and directions.
#[inline(always)]
fn moments(lamb: &Lamb, tensors: Tensors<'_>, gradient: &[f32], squares: &mut [[f64; 2]]) {
    let mut partial = [[0.0; LANES]; 2];
    let (blocks, rest) = blocks(gradient.len());
    for at in blocks {
        moments_of::<LANES>(lamb, &tensors, gradient, at, &mut partial);
    }
    for at in rest {
        moments_of::<1>(lamb, &tensors, gradient, at, &mut partial);
    }
    squares.fill(partial.map(|lanes| f64::from(lanes.iter().sum::<f32>())));
}

#[inline(always)]
fn moments_of<const N: usize>(
    lamb: &Lamb,
    tensors: &Tensors<'_>,
    gradient: &[f32],
    at: usize,
    partial: &mut [[f32; LANES]; 2],
) {
    let coupled = if lamb.pull.decay == Decay::Coupled { lamb.pull.strength } else { 0.0 };
    let Tensors { parameter, slots: [first, second, _] } = tensors;
    let (p, g) = (parameter.read::<N>(at), block::<N>(gradient, at));
    let (mut m, mut v) = (first.read::<N>(at), second.read::<N>(at));
    for lane in 0..N {
        let g = g[lane] + p[lane] * coupled;
        [m[lane], v[lane]] = lamb.moments.after([m[lane], v[lane]], g);
        let d = lamb.direction(p[lane], m[lane], v[lane]);
        partial[0][lane] += p[lane] * p[lane];
        partial[1][lane] += d * d;
    }
    first.write(at, m);
    second.write(at, v);
}

/// Makes `length` new parameters.
#[inline(always)]
fn step(lamb: &Lamb, tensors: Tensors<'_>, length: usize, trust: f32) {
    let (blocks, rest) = blocks(length);
    for at in blocks {
        step_of::<LANES>(lamb, &tensors, at, trust);
    }
    for at in rest {
        step_of::<1>(lamb, &tensors, at, trust);
    }
}

#[inline(always)]
fn step_of<const N: usize>(lamb: &Lamb, tensors: &Tensors<'_>, at: usize, trust: f32) {
    let Tensors { parameter, slots: [first, second, _] } = tensors;
    let mut p = parameter.read::<N>(at);
    let (m, v) = (first.again().read::<N>(at), second.again().read::<N>(at));
    for lane in 0..N {
        let d = lamb.direction(p[lane], m[lane], v[lane]);
        p[lane] -= (d * trust) * lamb.pull.learning_rate;
    }
    parameter.write(at, p);
}
