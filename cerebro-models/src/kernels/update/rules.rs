//! What optimizers do with one element: the rules, and the loops over elements.

#![allow(
    clippy::inline_always,
    reason = "vector code comes of inlining into the function that enables the instructions"
)]

use std::marker::PhantomData;
use std::ops::Range;
use std::{ptr, slice};

use ort::operator::ComputeContext;

use super::{ADAGRAD, ADAM, LION, MOMENTUM, Method, SGD, rmsprop};
use crate::kernels::node::{self, PIECE, for_each_piece, refused};

/// No method has more slots.
pub(super) const MOST_SLOTS: usize = 3;

/// A rule that makes the update of one element.
pub(super) trait Rule: Copy + Send + Sync + 'static {
    const NAME: &'static str;
    /// The name where the gradient is a product of matrices.
    const OF_PRODUCT: &'static str;
    const SLOTS: usize;
    const HYPERPARAMETERS: usize;

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

/// How the moments of Adam and of what was made of it change: means of gradients and of their squares.
#[derive(Clone, Copy)]
pub(super) struct Moments {
    beta1: f32,
    rest1: f32,
    beta2: f32,
    rest2: f32,
}

impl Moments {
    /// Those of hyperparameters that begin with them.
    pub(super) fn of(h: &[f32]) -> Self {
        Self { beta1: h[0], rest1: h[1], beta2: h[2], rest2: h[3] }
    }

    /// The moments after `gradient`.
    #[inline(always)]
    pub(super) fn after(self, [first, second]: [f32; 2], gradient: f32) -> [f32; 2] {
        [
            first * self.beta1 + gradient * self.rest1,
            second * self.beta2 + (gradient * gradient) * self.rest2,
        ]
    }
}

#[derive(Clone, Copy)]
pub(super) struct Adam {
    moments: Moments,
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
        Self { moments: Moments::of(h), step_size: h[4], scale: h[5], epsilon: h[6] }
    }

    #[inline(always)]
    fn update(self, parameter: f32, gradient: f32, slots: &mut [f32; MOST_SLOTS]) -> f32 {
        let [first, second] = self.moments.after([slots[0], slots[1]], gradient);
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
            // Of a gradient that stays the same it is 0, and rounding makes it less.
            variance = (variance - slots[1] * slots[1]).max(0.0);
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

/// Elements that are read before any of them is written: new values may lie where the old ones are.
pub(super) const LANES: usize = 16;

/// The places at which [`LANES`] elements begin, among `length`, and those of the rest.
pub(super) fn blocks(length: usize) -> (impl Iterator<Item = usize>, Range<usize>) {
    let rest = length - length % LANES;
    ((0..rest).step_by(LANES), rest..length)
}

/// `N` elements from `at` on.
#[inline(always)]
pub(super) fn block<const N: usize>(elements: &[f32], at: usize) -> [f32; N] {
    *elements[at..].first_chunk().expect("as many elements are left")
}

/// A tensor that is read and the memory of its new values, which may be the same; both may be shared by
/// threads. That of a slot which a method lacks is empty.
#[derive(Clone, Copy)]
pub(super) struct Renewed<'a> {
    old: *const f32,
    new: *mut f32,
    length: usize,
    lent: PhantomData<&'a mut [f32]>,
}

// SAFETY: `part` hands elements out, whose callers promise that no two threads have the same.
unsafe impl Sync for Renewed<'_> {}
// SAFETY: it stands for slices of floats.
unsafe impl Send for Renewed<'_> {}

impl<'a> Renewed<'a> {
    /// No elements.
    pub(super) fn empty() -> Self {
        Self { old: ptr::dangling(), new: ptr::dangling_mut(), length: 0, lent: PhantomData }
    }

    /// The tensor of the shape `dims` that is input number `input` of the operator `name`, whose output number
    /// `output` are the new values.
    fn of(
        context: &'a ComputeContext,
        name: &str,
        dims: &[usize],
        [input, output]: [usize; 2],
    ) -> ort::Result<Self> {
        let old = node::input(context, name, input)?;
        let (shape, old) = old.try_extract_tensor::<f32>()?;
        if node::dims(shape) != dims {
            let message = format!("its input {input} is of the shape {shape:?}, not {dims:?}");
            return Err(refused(name, message));
        }
        let (old, length) = (old.as_ptr(), old.len());
        let mut new = node::output(context, name, output, dims)?;
        let new = new.try_extract_tensor_mut::<f32>()?.1.as_mut_ptr();
        Ok(Self { old, new, length, lent: PhantomData })
    }

    /// The elements of `range`; none if it is empty.
    ///
    /// # Safety
    ///
    /// No two parts that are there at the same time overlap.
    unsafe fn part(&self, range: Range<usize>) -> Self {
        if self.length == 0 {
            return *self;
        }
        assert!(range.start <= range.end && range.end <= self.length, "a part lies within");
        // SAFETY: both lie within, as asserted.
        let (old, new) = unsafe { (self.old.add(range.start), self.new.add(range.start)) };
        Self { old, new, length: range.len(), lent: PhantomData }
    }

    /// The new values, once they are written, and where further ones go.
    pub(super) fn again(&self) -> Self {
        Self { old: self.new, ..*self }
    }

    /// Memory to be fetched for what follows: that of the old values, and of the new ones if it is another.
    pub(super) fn touched(&self) -> [&[f32]; 2] {
        let new = if self.old == self.new.cast_const() { 0 } else { self.length };
        // SAFETY: there are so many elements in both, which nobody else writes as long as this part is there.
        unsafe {
            [slice::from_raw_parts(self.old, self.length), slice::from_raw_parts(self.new, new)]
        }
    }

    /// `N` elements from `at` on.
    #[inline(always)]
    pub(super) fn read<const N: usize>(&self, at: usize) -> [f32; N] {
        // SAFETY: there are so many elements; whoever writes them has another part or has done so.
        block(unsafe { slice::from_raw_parts(self.old, self.length) }, at)
    }

    /// Writes the elements from `at` on.
    #[inline(always)]
    pub(super) fn write<const N: usize>(&self, at: usize, values: [f32; N]) {
        assert!(at + N <= self.length, "as many elements are left");
        // SAFETY: there are so many elements, and nobody else has this part.
        unsafe { self.new.add(at).cast::<[f32; N]>().write_unaligned(values) };
    }
}

/// The tensors of one update, all of the same length but for slots that a method lacks.
#[derive(Clone, Copy)]
pub(super) struct Tensors<'a> {
    pub(super) parameter: Renewed<'a>,
    pub(super) slots: [Renewed<'a>; MOST_SLOTS],
}

impl<'a> Tensors<'a> {
    /// Those of a parameter of the shape `dims` and its slots: the inputs `inputs` of the operator `name`, and as
    /// many outputs from `output` on.
    pub(super) fn of(
        context: &'a ComputeContext,
        name: &str,
        dims: &[usize],
        mut inputs: impl Iterator<Item = usize>,
        output: usize,
    ) -> ort::Result<Self> {
        let parameter = inputs.next().expect("there is a parameter");
        let parameter = Renewed::of(context, name, dims, [parameter, output])?;
        let mut slots = [Renewed::empty(); MOST_SLOTS];
        for ((slot, input), output) in slots.iter_mut().zip(inputs).zip(output + 1..) {
            *slot = Renewed::of(context, name, dims, [input, output])?;
        }
        Ok(Self { parameter, slots })
    }

    /// The elements of `range`.
    ///
    /// # Safety
    ///
    /// No two parts that are there at the same time overlap.
    pub(super) unsafe fn part(&self, range: Range<usize>) -> Self {
        // SAFETY: as of the caller.
        let part = |tensor: Renewed<'a>| unsafe { tensor.part(range.clone()) };
        Self { parameter: part(self.parameter), slots: self.slots.map(part) }
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
        tensors: Tensors<'_>,
        gradient: &[f32],
    ) -> ort::Result<()> {
        let touched = gradient.len() * (3 + 2 * R::SLOTS);
        for_each_piece(context, gradient.len(), PIECE, touched, |range| {
            // SAFETY: each piece is another part.
            self.update_all(unsafe { tensors.part(range.clone()) }, &gradient[range]);
        })
    }
}

impl<R: Rule> ByElement<R> {
    /// Updates all elements.
    pub(super) fn update_all(self, tensors: Tensors<'_>, gradient: &[f32]) {
        let method = self;
        fastest!(update_in::<R: Rule>(
            method: ByElement<R>,
            tensors: Tensors<'_>,
            gradient: &[f32],
        ));
    }
}

#[inline(always)]
fn update_in<R: Rule>(method: ByElement<R>, tensors: Tensors<'_>, gradient: &[f32]) {
    let ByElement { rule, pull } = method;
    let strength = pull.strength;
    // One loop per kind of decay, so that each is free of branches and becomes vector code.
    match pull.decay {
        Decay::None => update_each(rule, tensors, gradient, |p, g| (p, g)),
        Decay::Coupled => update_each(rule, tensors, gradient, |p, g| (p, g + p * strength)),
        Decay::Decoupled => {
            let kept = 1.0 - pull.learning_rate * strength;
            update_each(rule, tensors, gradient, |p, g| (p * kept, g));
        }
    }
}

#[inline(always)]
fn update_each<R: Rule>(
    rule: R,
    tensors: Tensors<'_>,
    gradient: &[f32],
    pull: impl Fn(f32, f32) -> (f32, f32),
) {
    let (blocks, rest) = blocks(gradient.len());
    for at in blocks {
        update_block::<R, LANES>(rule, &tensors, gradient, at, &pull);
    }
    for at in rest {
        update_block::<R, 1>(rule, &tensors, gradient, at, &pull);
    }
}

#[inline(always)]
fn update_block<R: Rule, const N: usize>(
    rule: R,
    Tensors { parameter, slots }: &Tensors<'_>,
    gradient: &[f32],
    at: usize,
    pull: impl Fn(f32, f32) -> (f32, f32),
) {
    let (mut parameters, gradients) = (parameter.read::<N>(at), block::<N>(gradient, at));
    let mut values = [[0.0; N]; MOST_SLOTS];
    for slot in 0..R::SLOTS {
        values[slot] = slots[slot].read(at);
    }
    for lane in 0..N {
        let (p, g) = pull(parameters[lane], gradients[lane]);
        let mut own = [values[0][lane], values[1][lane], values[2][lane]];
        parameters[lane] = rule.update(p, g, &mut own);
        [values[0][lane], values[1][lane], values[2][lane]] = own;
    }
    parameter.write(at, parameters);
    for slot in 0..R::SLOTS {
        slots[slot].write(at, values[slot]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With these numbers rounding makes the variance negative after some 1200 steps.
    #[test]
    fn a_gradient_that_stays_the_same_has_no_negative_variance() {
        let rule = RmsProp::<true, false>::new(&[0.99, 1.0 - 0.99, 1e-8], 1e-3, false);
        let (mut parameter, mut slots) = (1.0, [0.0; MOST_SLOTS]);
        for _ in 0..2000 {
            parameter = rule.update(parameter, 0.1, &mut slots);
        }
        assert!(parameter.is_finite(), "{parameter}");
    }
}
