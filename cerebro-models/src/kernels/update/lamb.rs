//! LAMB (You et al. 2020, "Large batch optimization for deep learning: training BERT in 76 minutes").

#![allow(
    clippy::inline_always,
    reason = "vector code comes of inlining into the function that enables the instructions"
)]

use ort::operator::ComputeContext;

use super::rules::{Decay, Pull, Tensors, Whole};
use super::{LAMB, Method};
use crate::kernels::node::{PIECE, Parts, for_each_piece};
use crate::kernels::sum::sums;

/// Adam's direction, to which decoupled decay is added; the step is as long as the parameter.
///
/// The first pass makes the moments and the direction, which it leaves in the place of the new
/// parameter, and the sums of squares of each piece; the second steps.
#[derive(Clone, Copy)]
pub(super) struct Lamb {
    beta1: f32,
    rest1: f32,
    beta2: f32,
    rest2: f32,
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
        Self {
            beta1: h[0],
            rest1: h[1],
            beta2: h[2],
            rest2: h[3],
            first_scale: h[4],
            second_scale: h[5],
            epsilon: h[6],
            pull,
        }
    }

    fn update(
        &self,
        context: &ComputeContext,
        whole: &Whole<'_>,
        gradient: &[f32],
    ) -> ort::Result<()> {
        let (method, length) = (self, gradient.len());
        let mut squares = vec![[0.0_f64; 2]; length.div_ceil(PIECE)];
        let of_pieces = Parts::of(&mut squares);
        for_each_piece(context, length, PIECE, 7 * length, |range| {
            let piece = range.start / PIECE;
            // SAFETY: each piece is another part.
            let (tensors, squares) = unsafe {
                (whole.part(range.clone(), &gradient[range]), of_pieces.part(piece..piece + 1))
            };
            fastest!(direct(method: &Lamb, tensors: Tensors<'_>, squares: &mut [[f64; 2]]));
        })?;
        // In the order of the pieces, whichever thread had them.
        let add = |sum: [f64; 2], of: &[f64; 2]| [sum[0] + of[0], sum[1] + of[1]];
        let [weight, direction] = squares.iter().fold([0.0; 2], add).map(f64::sqrt);
        let trust = if weight * direction > 0.0 { (weight / direction) as f32 } else { 1.0 };
        let rates = [trust, self.pull.learning_rate];
        for_each_piece(context, length, PIECE, 3 * length, |range| {
            // SAFETY: each piece is another part.
            let tensors = unsafe { whole.part(range.clone(), &gradient[range]) };
            let Tensors { parameter, new_parameter, .. } = tensors;
            fastest!(step(rates: [f32; 2], parameter: &[f32], new_parameter: &mut [f32]));
        })
    }
}

#[inline(always)]
fn direct(lamb: &Lamb, mut tensors: Tensors<'_>, squares: &mut [[f64; 2]]) {
    let strength = lamb.pull.strength;
    // One loop per kind of decay, so that each is free of branches and becomes vector code.
    match lamb.pull.decay {
        Decay::None => direct_each(lamb, &mut tensors, |_, g| g, |_, d| d),
        Decay::Coupled => direct_each(lamb, &mut tensors, |p, g| g + p * strength, |_, d| d),
        Decay::Decoupled => direct_each(lamb, &mut tensors, |_, g| g, |p, d| d + p * strength),
    }
    let (weight, direction) = sums(tensors.parameter, tensors.new_parameter, |p, d| (p * p, d * d));
    squares.fill([f64::from(weight), f64::from(direction)]);
}

/// `coupled` makes a gradient of a parameter and its gradient, `decoupled` a direction of a parameter
/// and its direction.
#[inline(always)]
fn direct_each(
    lamb: &Lamb,
    tensors: &mut Tensors<'_>,
    coupled: impl Fn(f32, f32) -> f32,
    decoupled: impl Fn(f32, f32) -> f32,
) {
    let Tensors { parameter, gradient, slots, new_parameter, new_slots } = tensors;
    let length = parameter.len();
    // Slices cut to one length let the compiler drop the bounds checks.
    let (gradient, new_parameter) = (&gradient[..length], &mut new_parameter[..length]);
    let (first, second) = (&slots[0][..length], &slots[1][..length]);
    let [new_first, new_second, _] = new_slots;
    let (new_first, new_second) = (&mut new_first[..length], &mut new_second[..length]);
    for at in 0..length {
        let (p, g) = (parameter[at], coupled(parameter[at], gradient[at]));
        let one = first[at] * lamb.beta1 + g * lamb.rest1;
        let two = second[at] * lamb.beta2 + (g * g) * lamb.rest2;
        (new_first[at], new_second[at]) = (one, two);
        let denominator = two.sqrt() * lamb.second_scale + lamb.epsilon;
        new_parameter[at] = decoupled(p, (one * lamb.first_scale) / denominator);
    }
}

/// From the directions, in the place of the new parameter, to it.
#[inline(always)]
fn step([trust, learning_rate]: [f32; 2], parameter: &[f32], new_parameter: &mut [f32]) {
    for (new, parameter) in new_parameter.iter_mut().zip(parameter) {
        *new = parameter - (*new * trust) * learning_rate;
    }
}
