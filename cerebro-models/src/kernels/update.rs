//! Optimizer updates: a parameter, its gradient and its slots in, the new ones out.
//!
//! The standard form of Adam makes some fifteen passes over memory per parameter, this one reads
//! and writes each tensor once.
//!
//! One node may update several parameters. Inputs: the packed hyperparameters, then for each
//! parameter itself, its gradient, its slots. Outputs: for each the new parameter, the new slots.
//! Attributes: `decay` (0 none, 1 coupled, 2 decoupled; the strength is
//! hyperparameter 1), `rule`: the index of the rule's first hyperparameter, `nesterov`: 0 or 1.

#![allow(
    clippy::inline_always,
    reason = "vector code comes of inlining into the function that enables the instructions"
)]

use std::marker::PhantomData;

use ort::operator::{
    ComputeContext, Kernel, KernelContext, Operator, OperatorDomain, OperatorInput, OperatorOutput,
    ShapeInferenceContext,
};
use ort::value::{TensorElementType, ValueRef, ValueRefMut};

use super::in_domain;
use super::node::{PIECE, Parts, for_each_piece, input, refused};

/// Plain gradient descent: no slots, no hyperparameters of its own.
pub(crate) const SGD: &str = "ai.cerebro.Sgd";

/// Gradient descent with momentum. Slot: the buffer. Hyperparameters: momentum, the gradient's
/// share in the buffer.
pub(crate) const MOMENTUM: &str = "ai.cerebro.Momentum";

/// Adam. Slots: first and second moment. Hyperparameters: beta1, 1 - beta1, beta2, 1 - beta2, step
/// size, scale of the second moment's root, epsilon.
pub(crate) const ADAM: &str = "ai.cerebro.Adam";

/// `RMSprop` without momentum, not centered. Slot: the mean of squares. Hyperparameters: alpha,
/// 1 - alpha, epsilon.
pub(crate) const RMSPROP: &str = "ai.cerebro.RmsProp";

/// Adagrad. Slot: the sum of squares. Hyperparameters: step size, epsilon.
pub(crate) const ADAGRAD: &str = "ai.cerebro.Adagrad";

/// Lion. Slot: the momentum. Hyperparameters: beta1, 1 - beta1, beta2, 1 - beta2.
pub(crate) const LION: &str = "ai.cerebro.Lion";

/// Whether the operator `op` is an update.
pub(crate) fn is_update(op: &str) -> bool {
    matches!(op, SGD | MOMENTUM | ADAM | RMSPROP | ADAGRAD | LION)
}

pub(super) fn add_to(domain: OperatorDomain) -> ort::Result<OperatorDomain> {
    domain
        .add(Update::<Sgd>(PhantomData))?
        .add(Update::<Momentum>(PhantomData))?
        .add(Update::<Adam>(PhantomData))?
        .add(Update::<RmsProp>(PhantomData))?
        .add(Update::<Adagrad>(PhantomData))?
        .add(Update::<Lion>(PhantomData))
}

/// A rule that makes the update of one element.
trait Rule: Copy + Send + Sync + 'static {
    const NAME: &'static str;
    const SLOTS: usize;
    const HYPERPARAMETERS: usize;

    fn new(hyperparameters: &[f32], learning_rate: f32, nesterov: bool) -> Self;

    /// The new parameter, of the (decayed) parameter, the gradient and the slots, which become
    /// the new ones.
    fn update(self, parameter: f32, gradient: f32, slots: &mut [f32; 2]) -> f32;
}

#[derive(Clone, Copy)]
struct Sgd {
    learning_rate: f32,
}

impl Rule for Sgd {
    const NAME: &'static str = SGD;
    const SLOTS: usize = 0;
    const HYPERPARAMETERS: usize = 0;

    fn new(_: &[f32], learning_rate: f32, _: bool) -> Self {
        Self { learning_rate }
    }

    #[inline(always)]
    fn update(self, parameter: f32, gradient: f32, _: &mut [f32; 2]) -> f32 {
        parameter - gradient * self.learning_rate
    }
}

#[derive(Clone, Copy)]
struct Momentum {
    learning_rate: f32,
    kept: f32,
    share: f32,
    nesterov: bool,
}

impl Rule for Momentum {
    const NAME: &'static str = MOMENTUM;
    const SLOTS: usize = 1;
    const HYPERPARAMETERS: usize = 2;

    fn new(hyperparameters: &[f32], learning_rate: f32, nesterov: bool) -> Self {
        let [kept, share] = [hyperparameters[0], hyperparameters[1]];
        Self { learning_rate, kept, share, nesterov }
    }

    #[inline(always)]
    fn update(self, parameter: f32, gradient: f32, slots: &mut [f32; 2]) -> f32 {
        let buffer = slots[0] * self.kept + gradient * self.share;
        slots[0] = buffer;
        let direction = if self.nesterov { gradient + buffer * self.kept } else { buffer };
        parameter - direction * self.learning_rate
    }
}

#[derive(Clone, Copy)]
struct Adam {
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
    fn update(self, parameter: f32, gradient: f32, slots: &mut [f32; 2]) -> f32 {
        let first = slots[0] * self.beta1 + gradient * self.rest1;
        let second = slots[1] * self.beta2 + (gradient * gradient) * self.rest2;
        *slots = [first, second];
        let denominator = second.sqrt() * self.scale + self.epsilon;
        parameter - (first / denominator) * self.step_size
    }
}

#[derive(Clone, Copy)]
struct RmsProp {
    learning_rate: f32,
    alpha: f32,
    rest: f32,
    epsilon: f32,
}

impl Rule for RmsProp {
    const NAME: &'static str = RMSPROP;
    const SLOTS: usize = 1;
    const HYPERPARAMETERS: usize = 3;

    fn new(h: &[f32], learning_rate: f32, _: bool) -> Self {
        Self { learning_rate, alpha: h[0], rest: h[1], epsilon: h[2] }
    }

    #[inline(always)]
    fn update(self, parameter: f32, gradient: f32, slots: &mut [f32; 2]) -> f32 {
        slots[0] = slots[0] * self.alpha + (gradient * gradient) * self.rest;
        let direction = gradient / (slots[0].sqrt() + self.epsilon);
        parameter - direction * self.learning_rate
    }
}

#[derive(Clone, Copy)]
struct Adagrad {
    step_size: f32,
    epsilon: f32,
}

impl Rule for Adagrad {
    const NAME: &'static str = ADAGRAD;
    const SLOTS: usize = 1;
    const HYPERPARAMETERS: usize = 2;

    fn new(h: &[f32], _: f32, _: bool) -> Self {
        Self { step_size: h[0], epsilon: h[1] }
    }

    #[inline(always)]
    fn update(self, parameter: f32, gradient: f32, slots: &mut [f32; 2]) -> f32 {
        slots[0] += gradient * gradient;
        let direction = gradient / (slots[0].sqrt() + self.epsilon);
        parameter - direction * self.step_size
    }
}

#[derive(Clone, Copy)]
struct Lion {
    learning_rate: f32,
    beta1: f32,
    rest1: f32,
    beta2: f32,
    rest2: f32,
}

impl Rule for Lion {
    const NAME: &'static str = LION;
    const SLOTS: usize = 1;
    const HYPERPARAMETERS: usize = 4;

    fn new(h: &[f32], learning_rate: f32, _: bool) -> Self {
        Self { learning_rate, beta1: h[0], rest1: h[1], beta2: h[2], rest2: h[3] }
    }

    #[inline(always)]
    fn update(self, parameter: f32, gradient: f32, slots: &mut [f32; 2]) -> f32 {
        let blended = slots[0] * self.beta1 + gradient * self.rest1;
        slots[0] = slots[0] * self.beta2 + gradient * self.rest2;
        let step = if blended == 0.0 { 0.0 } else { self.learning_rate.copysign(blended) };
        parameter - step
    }
}

/// How the pull towards zero enters the update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decay {
    None,
    Coupled,
    Decoupled,
}

/// The tensors of one update, all of the same length; slots that a rule lacks are empty.
struct Tensors<'a> {
    parameter: &'a [f32],
    gradient: &'a [f32],
    slots: [&'a [f32]; 2],
    new_parameter: &'a mut [f32],
    new_slots: [&'a mut [f32]; 2],
}

/// Weight decay, and the learning rate that decoupled decay goes with.
#[derive(Clone, Copy)]
struct Pull {
    decay: Decay,
    strength: f32,
    learning_rate: f32,
}

#[inline(always)]
fn update_all<R: Rule>(rule: R, pull: Pull, tensors: Tensors<'_>) {
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
    let Tensors { parameter, gradient, slots, new_parameter, new_slots } = tensors;
    let [new_first, new_second] = new_slots;
    let length = parameter.len();
    // Slices cut to one length let the compiler drop the bounds checks.
    let slot_length = |slot| if slot < R::SLOTS { length } else { 0 };
    let (gradient, new_parameter) = (&gradient[..length], &mut new_parameter[..length]);
    let (first, new_first) = (&slots[0][..slot_length(0)], &mut new_first[..slot_length(0)]);
    let (second, new_second) = (&slots[1][..slot_length(1)], &mut new_second[..slot_length(1)]);
    for at in 0..length {
        let (p, g) = pull(parameter[at], gradient[at]);
        let mut values = [0.0; 2];
        if R::SLOTS > 0 {
            values[0] = first[at];
        }
        if R::SLOTS > 1 {
            values[1] = second[at];
        }
        new_parameter[at] = rule.update(p, g, &mut values);
        if R::SLOTS > 0 {
            new_first[at] = values[0];
        }
        if R::SLOTS > 1 {
            new_second[at] = values[1];
        }
    }
}

/// The operator of a rule.
struct Update<R>(PhantomData<R>);

impl<R: Rule> Operator for Update<R> {
    type Kernel<'attr> = UpdateKernel<R>;

    fn name(&self) -> &str {
        in_domain(R::NAME)
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        let float = TensorElementType::Float32;
        [OperatorInput::required(float), OperatorInput::variadic(2).homogenous(float)]
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::variadic(1).homogenous(TensorElementType::Float32)]
    }

    fn infer_shape(&self, context: &mut ShapeInferenceContext) -> ort::Result<()> {
        let inputs = context.inputs();
        for (parameter, of) in inputs[1..].chunks(2 + R::SLOTS).enumerate() {
            for tensor in 0..=R::SLOTS {
                context.set_output(parameter * (1 + R::SLOTS) + tensor, &of[0])?;
            }
        }
        Ok(())
    }

    fn create_kernel(&self, node: &KernelContext<'_>) -> ort::Result<UpdateKernel<R>> {
        let attribute = |name: &str| {
            let value = node.get::<i64>(name);
            value
                .ok_or_else(|| ort::Error::new(format!("{} lacks its attribute `{name}`", R::NAME)))
        };
        let decay = match attribute("decay")? {
            0 => Decay::None,
            1 => Decay::Coupled,
            2 => Decay::Decoupled,
            other => return Err(ort::Error::new(format!("`decay` is {other}, not 0, 1 or 2"))),
        };
        let rule_at = usize::try_from(attribute("rule")?).map_err(ort::Error::wrap)?;
        Ok(UpdateKernel {
            decay,
            rule_at,
            nesterov: attribute("nesterov")? != 0,
            rule: PhantomData,
        })
    }
}

/// The operator in one node.
struct UpdateKernel<R> {
    decay: Decay,
    rule_at: usize,
    nesterov: bool,
    rule: PhantomData<R>,
}

fn elements<'v>(slot: Option<&'v ValueRef<'_>>) -> ort::Result<&'v [f32]> {
    slot.map_or(Ok(&[]), |slot| Ok(slot.try_extract_tensor()?.1))
}

fn elements_mut<'v>(slot: Option<&'v mut ValueRefMut<'_>>) -> ort::Result<&'v mut [f32]> {
    slot.map_or(Ok(&mut []), |slot| Ok(slot.try_extract_tensor_mut()?.1))
}

impl<R: Rule> Kernel for UpdateKernel<R> {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let hyperparameters = input(context, R::NAME, 0)?;
        let (_, packed) = hyperparameters.try_extract_tensor::<f32>()?;
        let tensors = context.num_inputs()? - 1;
        if packed.is_empty()
            || packed.len() < self.rule_at + R::HYPERPARAMETERS
            || (self.decay != Decay::None && packed.len() < 2)
        {
            return Err(refused(R::NAME, format!("{} hyperparameters", packed.len())));
        }
        let pull = Pull {
            decay: self.decay,
            strength: if self.decay == Decay::None { 0.0 } else { packed[1] },
            learning_rate: packed[0],
        };
        let rule = R::new(&packed[self.rule_at..], packed[0], self.nesterov);
        if !tensors.is_multiple_of(2 + R::SLOTS) {
            return Err(refused(R::NAME, format!("{tensors} tensors")));
        }
        (0..tensors / (2 + R::SLOTS)).try_for_each(|number| one(context, rule, pull, number))
    }
}

/// Updates parameter number `number` of a node.
fn one<R: Rule>(context: &ComputeContext, rule: R, pull: Pull, number: usize) -> ort::Result<()> {
    let first_input = 1 + number * (2 + R::SLOTS);
    let input = |index: usize| input(context, R::NAME, first_input + index);
    let (parameter, gradient) = (input(0)?, input(1)?);
    let first = if R::SLOTS > 0 { Some(input(2)?) } else { None };
    let second = if R::SLOTS > 1 { Some(input(3)?) } else { None };
    let (shape, parameter) = parameter.try_extract_tensor::<f32>()?;
    let (_, gradient) = gradient.try_extract_tensor::<f32>()?;
    let slots = [elements(first.as_ref())?, elements(second.as_ref())?];
    let length = parameter.len();
    if gradient.len() != length || slots.iter().take(R::SLOTS).any(|slot| slot.len() != length) {
        return Err(refused(R::NAME, "its inputs differ in size"));
    }

    let first_output = number * (1 + R::SLOTS);
    let output = |index: usize| {
        let output = context.output(first_output + index, shape.clone())?;
        output.ok_or_else(|| refused(R::NAME, format!("output {index} is missing")))
    };
    let mut new_parameter = output(0)?;
    let mut new_first = if R::SLOTS > 0 { Some(output(1)?) } else { None };
    let mut new_second = if R::SLOTS > 1 { Some(output(2)?) } else { None };
    let new_parameter = Parts::of(new_parameter.try_extract_tensor_mut::<f32>()?.1);
    let new_slots = [elements_mut(new_first.as_mut())?, elements_mut(new_second.as_mut())?];
    let new_slots = new_slots.map(Parts::of);
    let touched = length * (3 + 2 * R::SLOTS);
    for_each_piece(context, length, PIECE, touched, |range| {
        let within = |slot: &'_ [f32]| range.start.min(slot.len())..range.end.min(slot.len());
        // SAFETY: each piece is another part.
        let (new_parameter, new_slots) = unsafe {
            (new_parameter.part(range.clone()), new_slots.each_ref().map(|s| s.part(range.clone())))
        };
        let tensors = Tensors {
            parameter: &parameter[range.clone()],
            gradient: &gradient[range.clone()],
            slots: slots.map(|slot| &slot[within(slot)]),
            new_parameter,
            new_slots,
        };
        fastest!(update_all::<R: Rule>(rule: R, pull: Pull, tensors: Tensors<'_>));
    })
}
