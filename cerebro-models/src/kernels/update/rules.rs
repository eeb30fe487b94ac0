//! What optimizers do with one element: the rules, and the loops over elements.

#![allow(
    clippy::inline_always,
    reason = "vector code comes of inlining into the function that enables the instructions"
)]

use std::ops::Range;

use ort::operator::ComputeContext;

use super::{ADAGRAD, ADAM, LION, MOMENTUM, Method, SGD, rmsprop};
use crate::kernels::node::{PIECE, Parts, for_each_piece};

/// No method has more slots.
pub(super) const MOST_SLOTS: usize = 3;

/// A rule that makes the update of one element.
pub(super) trait Rule: Copy + Send + Sync + 'static {
    const NAME: &'static str;
    /// The name where the gradient is a product of matrices.
    const OF_PRODUCT: &'static str;
    const SLOTS: usize;
    const HYPERPARAMETERS: usize;

    /// The names of the rule's operators.
    fn names() -> [&'static str; 2] {
        [Self::NAME, Self::OF_PRODUCT]
    }

    fn new(hyperparameters: &[f32], learning_rate: f32, nesterov: bool) -> Self;

    /// The new parameter, of the (decayed) parameter, the gradient and the slots, which become
    /// the new ones.
    fn update(self, parameter: f32, gradient: f32, slots: &mut [f32; MOST_SLOTS]) -> f32;
}

#[derive(Clone, Copy)]
pub(super) struct Sgd {
    learning_rate: f32,
}

impl Rule for Sgd {
    const NAME: &'static str = SGD;
    const OF_PRODUCT: &'static str = "ai.cerebro.SgdOfProduct";
    const SLOTS: usize = 0;
    const HYPERPARAMETERS: usize = 0;

    fn new(_: &[f32], learning_rate: f32, _: bool) -> Self {
        Self { learning_rate }
    }

    #[inline(always)]
    fn update(self, parameter: f32, gradient: f32, _: &mut [f32; MOST_SLOTS]) -> f32 {
        parameter - gradient * self.learning_rate
    }
}

#[derive(Clone, Copy)]
pub(super) struct Momentum {
    learning_rate: f32,
    kept: f32,
    share: f32,
    nesterov: bool,
}

impl Rule for Momentum {
    const NAME: &'static str = MOMENTUM;
    const OF_PRODUCT: &'static str = "ai.cerebro.MomentumOfProduct";
    const SLOTS: usize = 1;
    const HYPERPARAMETERS: usize = 2;

    fn new(hyperparameters: &[f32], learning_rate: f32, nesterov: bool) -> Self {
        let [kept, share] = [hyperparameters[0], hyperparameters[1]];
        Self { learning_rate, kept, share, nesterov }
    }

    #[inline(always)]
    fn update(self, parameter: f32, gradient: f32, slots: &mut [f32; MOST_SLOTS]) -> f32 {
        let buffer = slots[0] * self.kept + gradient * self.share;
        slots[0] = buffer;
        let direction = if self.nesterov { gradient + buffer * self.kept } else { buffer };
        parameter - direction * self.learning_rate
    }
}

#[derive(Clone, Copy)]
pub(super) struct Adam {
    beta1: f32,
    rest1: f32,
    beta2: f32,
    rest2: f32,
    step_size: f32,
    scale: f32,
    epsilon: f32,
}

impl Rule for Adam {
    const NAME: &'static str = ADAM;
    const OF_PRODUCT: &'static str = "ai.cerebro.AdamOfProduct";
    const SLOTS: usize = 2;
    const HYPERPARAMETERS: usize = 7;

    fn new(h: &[f32], _: f32, _: bool) -> Self {
        Self {
            beta1: h[0],
            rest1: h[1],
            beta2: h[2],
            rest2: h[3],
            step_size: h[4],
            scale: h[5],
            epsilon: h[6],
        }
    }

    #[inline(always)]
    fn update(self, parameter: f32, gradient: f32, slots: &mut [f32; MOST_SLOTS]) -> f32 {
        let first = slots[0] * self.beta1 + gradient * self.rest1;
        let second = slots[1] * self.beta2 + (gradient * gradient) * self.rest2;
        (slots[0], slots[1]) = (first, second);
        let denominator = second.sqrt() * self.scale + self.epsilon;
        parameter - (first / denominator) * self.step_size
    }
}

#[derive(Clone, Copy)]
pub(super) struct RmsProp<const CENTERED: bool, const MOMENTUM: bool> {
    learning_rate: f32,
    alpha: f32,
    rest: f32,
    epsilon: f32,
    momentum: f32,
}

impl<const CENTERED: bool, const MOMENTUM: bool> Rule for RmsProp<CENTERED, MOMENTUM> {
    const NAME: &'static str = rmsprop(CENTERED, MOMENTUM);
    const OF_PRODUCT: &'static str = match (CENTERED, MOMENTUM) {
        (false, false) => "ai.cerebro.RmsPropOfProduct",
        (false, true) => "ai.cerebro.RmsPropMomentumOfProduct",
        (true, false) => "ai.cerebro.RmsPropCenteredOfProduct",
        (true, true) => "ai.cerebro.RmsPropCenteredMomentumOfProduct",
    };
    const SLOTS: usize = 1 + CENTERED as usize + MOMENTUM as usize;
    const HYPERPARAMETERS: usize = 3 + MOMENTUM as usize;

    fn new(h: &[f32], learning_rate: f32, _: bool) -> Self {
        let momentum = if MOMENTUM { h[3] } else { 0.0 };
        Self { learning_rate, alpha: h[0], rest: h[1], epsilon: h[2], momentum }
    }

    #[inline(always)]
    fn update(self, parameter: f32, gradient: f32, slots: &mut [f32; MOST_SLOTS]) -> f32 {
        slots[0] = slots[0] * self.alpha + (gradient * gradient) * self.rest;
        let mut variance = slots[0];
        if CENTERED {
            slots[1] = slots[1] * self.alpha + gradient * self.rest;
            variance -= slots[1] * slots[1];
        }
        let mut direction = gradient / (variance.sqrt() + self.epsilon);
        if MOMENTUM {
            let buffer = &mut slots[1 + usize::from(CENTERED)];
            direction += *buffer * self.momentum;
            *buffer = direction;
        }
        parameter - direction * self.learning_rate
    }
}

#[derive(Clone, Copy)]
pub(super) struct Adagrad {
    step_size: f32,
    epsilon: f32,
}

impl Rule for Adagrad {
    const NAME: &'static str = ADAGRAD;
    const OF_PRODUCT: &'static str = "ai.cerebro.AdagradOfProduct";
    const SLOTS: usize = 1;
    const HYPERPARAMETERS: usize = 2;

    fn new(h: &[f32], _: f32, _: bool) -> Self {
        Self { step_size: h[0], epsilon: h[1] }
    }

    #[inline(always)]
    fn update(self, parameter: f32, gradient: f32, slots: &mut [f32; MOST_SLOTS]) -> f32 {
        slots[0] += gradient * gradient;
        let direction = gradient / (slots[0].sqrt() + self.epsilon);
        parameter - direction * self.step_size
    }
}

#[derive(Clone, Copy)]
pub(super) struct Lion {
    learning_rate: f32,
    beta1: f32,
    rest1: f32,
    beta2: f32,
    rest2: f32,
}

impl Rule for Lion {
    const NAME: &'static str = LION;
    const OF_PRODUCT: &'static str = "ai.cerebro.LionOfProduct";
    const SLOTS: usize = 1;
    const HYPERPARAMETERS: usize = 4;

    fn new(h: &[f32], learning_rate: f32, _: bool) -> Self {
        Self { learning_rate, beta1: h[0], rest1: h[1], beta2: h[2], rest2: h[3] }
    }

    #[inline(always)]
    fn update(self, parameter: f32, gradient: f32, slots: &mut [f32; MOST_SLOTS]) -> f32 {
        let blended = slots[0] * self.beta1 + gradient * self.rest1;
        slots[0] = slots[0] * self.beta2 + gradient * self.rest2;
        let step = if blended == 0.0 { 0.0 } else { self.learning_rate.copysign(blended) };
        parameter - step
    }
}

/// How the pull towards zero enters the update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decay {
    None,
    Coupled,
    Decoupled,
}

/// The tensors of one update, all of the same length; slots that a rule lacks are empty.
pub(super) struct Tensors<'a> {
    pub(super) parameter: &'a [f32],
    pub(super) gradient: &'a [f32],
    pub(super) slots: [&'a [f32]; MOST_SLOTS],
    pub(super) new_parameter: &'a mut [f32],
    pub(super) new_slots: [&'a mut [f32]; MOST_SLOTS],
}

/// All that an update reads and writes, but for the gradient, to be shared by threads. Slots that the rule
/// lacks are empty.
pub(super) struct Whole<'a> {
    pub(super) parameter: &'a [f32],
    pub(super) slots: [&'a [f32]; MOST_SLOTS],
    pub(super) new_parameter: Parts<'a, f32>,
    pub(super) new_slots: [Parts<'a, f32>; MOST_SLOTS],
}

impl Whole<'_> {
    /// The elements of `range`, with their gradient.
    ///
    /// # Safety
    ///
    /// No two parts that are there at the same time overlap.
    pub(super) unsafe fn part<'p>(
        &'p self,
        range: Range<usize>,
        gradient: &'p [f32],
    ) -> Tensors<'p> {
        let within = |slot: &[f32]| range.start.min(slot.len())..range.end.min(slot.len());
        let slots = self.slots.map(|slot| &slot[within(slot)]);
        // SAFETY: as of the caller.
        let (new_parameter, new_slots) = unsafe {
            let new_slots = self.new_slots.each_ref().map(|slot| slot.part(range.clone()));
            (self.new_parameter.part(range.clone()), new_slots)
        };
        let parameter = &self.parameter[range];
        Tensors { parameter, gradient, slots, new_parameter, new_slots }
    }
}

/// Weight decay, and the learning rate that decoupled decay goes with.
#[derive(Clone, Copy)]
pub(super) struct Pull {
    pub(super) decay: Decay,
    pub(super) strength: f32,
    pub(super) learning_rate: f32,
}

/// Updates each element by itself.
#[derive(Clone, Copy)]
pub(super) struct ByElement<R> {
    rule: R,
    pull: Pull,
}

impl<R: Rule> Method for ByElement<R> {
    const NAME: &'static str = R::NAME;
    const SLOTS: usize = R::SLOTS;
    const HYPERPARAMETERS: usize = R::HYPERPARAMETERS;

    fn new(hyperparameters: &[f32], pull: Pull, nesterov: bool) -> Self {
        Self { rule: R::new(hyperparameters, pull.learning_rate, nesterov), pull }
    }

    fn update(
        &self,
        context: &ComputeContext,
        whole: &Whole<'_>,
        gradient: &[f32],
    ) -> ort::Result<()> {
        let touched = gradient.len() * (3 + 2 * R::SLOTS);
        for_each_piece(context, gradient.len(), PIECE, touched, |range| {
            // SAFETY: each piece is another part.
            self.update_all(unsafe { whole.part(range.clone(), &gradient[range]) });
        })
    }
}

impl<R: Rule> ByElement<R> {
    /// Updates all elements.
    pub(super) fn update_all(self, tensors: Tensors<'_>) {
        let Self { rule, pull } = self;
        fastest!(update_in::<R: Rule>(rule: R, pull: Pull, tensors: Tensors<'_>));
    }
}

#[inline(always)]
fn update_in<R: Rule>(rule: R, pull: Pull, tensors: Tensors<'_>) {
    let strength = pull.strength;
    // One loop per kind of decay, so that each is free of branches and becomes vector code.
    match pull.decay {
        Decay::None => update_each(rule, tensors, |p, g| (p, g)),
        Decay::Coupled => update_each(rule, tensors, |p, g| (p, g + p * strength)),
        Decay::Decoupled => {
            let kept = 1.0 - pull.learning_rate * strength;
            update_each(rule, tensors, |p, g| (p * kept, g));
        }
    }
}

#[inline(always)]
fn update_each<R: Rule>(rule: R, tensors: Tensors<'_>, pull: impl Fn(f32, f32) -> (f32, f32)) {
    let Tensors { parameter, gradient, slots, new_parameter, mut new_slots } = tensors;
    let length = parameter.len();
    // Slices cut to one length let the compiler drop the bounds checks.
    let slot_length = |slot| if slot < R::SLOTS { length } else { 0 };
    let (gradient, new_parameter) = (&gradient[..length], &mut new_parameter[..length]);
    let slots: [&[f32]; MOST_SLOTS] = std::array::from_fn(|slot| &slots[slot][..slot_length(slot)]);
    for (slot, new) in new_slots.iter_mut().enumerate() {
        *new = &mut std::mem::take(new)[..slot_length(slot)];
    }
    for at in 0..length {
        let (p, g) = pull(parameter[at], gradient[at]);
        let mut values = [0.0; MOST_SLOTS];
        for slot in 0..R::SLOTS {
            values[slot] = slots[slot][at];
        }
        new_parameter[at] = rule.update(p, g, &mut values);
        for slot in 0..R::SLOTS {
            new_slots[slot][at] = values[slot];
        }
    }
}
