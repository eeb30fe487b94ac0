//! Optimizer updates: a parameter, its gradient and its slots in, the new ones out.
//!
//! The standard form of Adam makes some fifteen passes over memory per parameter, this one reads
//! and writes each tensor once.
//!
//! One node may update several parameters. Inputs: the packed hyperparameters, then for each
//! parameter itself, its gradient, its slots. Outputs: for each the new parameter, the new slots.
//! Attributes: `decay` (0 none, 1 coupled, 2 decoupled; the strength is
//! hyperparameter 1), `rule`: the index of the rule's first hyperparameter, `nesterov`: 0 or 1.

mod product;
mod rules;

use std::marker::PhantomData;

use ort::operator::{
    ComputeContext, Kernel, KernelContext, Operator, OperatorDomain, OperatorInput, OperatorOutput,
    ShapeInferenceContext,
};
use ort::value::{TensorElementType, ValueRef, ValueRefMut};

use self::product::ProductUpdate;
use self::rules::{
    Adagrad, Adam, Decay, Lion, Momentum, Pull, RmsProp, Rule, Sgd, Whole, update_all,
};
use super::in_domain;
use super::node::{self, PIECE, Parts, for_each_piece, input, refused, size};

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

/// The operator that updates as `op` does, by a gradient that is a product of matrices.
pub(crate) fn of_product(op: &str) -> Option<&'static str> {
    [
        Sgd::names(),
        Momentum::names(),
        Adam::names(),
        RmsProp::names(),
        Adagrad::names(),
        Lion::names(),
    ]
    .into_iter()
    .find_map(|[name, of_product]| (name == op).then_some(of_product))
}

pub(super) fn add_to(domain: OperatorDomain) -> ort::Result<OperatorDomain> {
    let domain = add::<Sgd>(domain)?;
    let domain = add::<Momentum>(domain)?;
    let domain = add::<Adam>(domain)?;
    let domain = add::<RmsProp>(domain)?;
    let domain = add::<Adagrad>(domain)?;
    add::<Lion>(domain)
}

fn add<R: Rule>(domain: OperatorDomain) -> ort::Result<OperatorDomain> {
    node::add::<ProductUpdate<R>>(domain.add(Update::<R>(PhantomData))?)
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
        Settings::of(node, R::NAME).map(|settings| UpdateKernel { settings, rule: PhantomData })
    }
}

/// What the attributes of a node say.
struct Settings {
    decay: Decay,
    rule_at: usize,
    nesterov: bool,
}

impl Settings {
    fn of(node: &KernelContext<'_>, name: &str) -> ort::Result<Self> {
        let decay = match size(node, name, "decay")? {
            0 => Decay::None,
            1 => Decay::Coupled,
            2 => Decay::Decoupled,
            other => return Err(refused(name, format!("`decay` is {other}, not 0, 1 or 2"))),
        };
        let rule_at = size(node, name, "rule")?;
        Ok(Self { decay, rule_at, nesterov: size(node, name, "nesterov")? != 0 })
    }

    /// The rule, and the pull towards zero, with the hyperparameters of a step.
    fn with<R: Rule>(&self, packed: &[f32]) -> ort::Result<(R, Pull)> {
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
        Ok((R::new(&packed[self.rule_at..], packed[0], self.nesterov), pull))
    }
}

/// The operator in one node.
struct UpdateKernel<R> {
    settings: Settings,
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
        let (rule, pull) = self.settings.with::<R>(packed)?;
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
    let whole = Whole { parameter, slots, new_parameter, new_slots };
    let touched = length * (3 + 2 * R::SLOTS);
    for_each_piece(context, length, PIECE, touched, |range| {
        // SAFETY: each piece is another part.
        let tensors = unsafe { whole.part(range.clone(), &gradient[range]) };
        update_all(rule, pull, tensors);
    })
}
