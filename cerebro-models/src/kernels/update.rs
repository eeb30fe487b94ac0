//! Optimizer updates: a parameter, its gradient and its slots in, the new ones out.
//!
//! The standard form of Adam makes some fifteen passes over memory per parameter, this one reads
//! and writes each tensor once.
//!
//! One node may update several parameters. Inputs: the packed hyperparameters, then for each
//! parameter itself, its gradient, its slots; perhaps a last one that it waits for and does not read. Outputs:
//! for each the new parameter, the new slots, which may lie in the memory of the old ones.
//! Attributes: `decay` (0 none, 1 coupled, 2 decoupled; the strength is
//! hyperparameter 1), `rule`: the index of the rule's first hyperparameter, `nesterov`: 0 or 1.

mod lamb;
mod product;
mod rules;

use std::iter;
use std::marker::PhantomData;

use ort::operator::{
    ComputeContext, Kernel, KernelContext, Operator, OperatorDomain, OperatorInput, OperatorOutput,
    ShapeInferenceContext,
};
use ort::value::TensorElementType;

use self::lamb::Lamb;
use self::product::ProductUpdate;
use self::rules::{
    Adagrad, Adam, ByElement, Decay, Lion, Momentum, Pull, RmsProp, Rule, Sgd, Tensors,
};
use super::in_domain;
use super::node::{self, input, refused, size};

/// Plain gradient descent: no slots, no hyperparameters of its own.
pub(crate) const SGD: &str = "ai.cerebro.Sgd";

/// Gradient descent with momentum. Slot: the buffer. Hyperparameters: momentum, the gradient's
/// share in the buffer.
pub(crate) const MOMENTUM: &str = "ai.cerebro.Momentum";

/// Adam. Slots: first and second moment. Hyperparameters: beta1, 1 - beta1, beta2, 1 - beta2, step
/// size, scale of the second moment's root, epsilon.
pub(crate) const ADAM: &str = "ai.cerebro.Adam";

/// `RMSprop`. Slots: the mean of squares, the mean if it is centered, the momentum if it has one.
/// Hyperparameters: alpha, 1 - alpha, epsilon, the momentum if it has one.
pub(crate) const fn rmsprop(is_centered: bool, has_momentum: bool) -> &'static str {
    match (is_centered, has_momentum) {
        (false, false) => "ai.cerebro.RmsProp",
        (false, true) => "ai.cerebro.RmsPropMomentum",
        (true, false) => "ai.cerebro.RmsPropCentered",
        (true, true) => "ai.cerebro.RmsPropCenteredMomentum",
    }
}

/// Adagrad. Slot: the sum of squares. Hyperparameters: step size, epsilon.
pub(crate) const ADAGRAD: &str = "ai.cerebro.Adagrad";

/// LAMB. Slots: first and second moment. Hyperparameters: beta1, 1 - beta1, beta2, 1 - beta2, scale
/// of the first moment, scale of the second moment's root, epsilon.
pub(crate) const LAMB: &str = "ai.cerebro.Lamb";

/// Lion. Slot: the momentum. Hyperparameters: beta1, 1 - beta1, beta2, 1 - beta2.
pub(crate) const LION: &str = "ai.cerebro.Lion";

/// Whether the operator `op` is an update.
pub(crate) fn is_update(op: &str) -> bool {
    op == LAMB || of_product(op).is_some()
}

/// The operator that updates as `op` does, by a gradient that is a product of matrices.
pub(crate) fn of_product(op: &str) -> Option<&'static str> {
    rules().into_iter().find_map(|([name, of_product], _)| (name == op).then_some(of_product))
}

/// The names of each rule's operators, and the number of its slots.
fn rules() -> [([&'static str; 2], usize); 9] {
    [
        rule::<Sgd>(),
        rule::<Momentum>(),
        rule::<Adam>(),
        rule::<RmsProp<false, false>>(),
        rule::<RmsProp<false, true>>(),
        rule::<RmsProp<true, false>>(),
        rule::<RmsProp<true, true>>(),
        rule::<Adagrad>(),
        rule::<Lion>(),
    ]
}

fn rule<R: Rule>() -> ([&'static str; 2], usize) {
    ([R::NAME, R::OF_PRODUCT], R::SLOTS)
}

/// The input of the operator `op` whose new values are its output number `output`, which may lie in the
/// same memory: no element is read after it was written.
pub(crate) fn renewed_input(op: &str, output: usize) -> Option<usize> {
    let of_several = |slots: usize| match (output / (1 + slots), output % (1 + slots)) {
        (parameter, 0) => 1 + parameter * (2 + slots),
        (parameter, slot) => 1 + parameter * (2 + slots) + 1 + slot,
    };
    if op == LAMB {
        return Some(of_several(Lamb::SLOTS));
    }
    rules().into_iter().find_map(|([name, of_product], slots)| match op {
        _ if op == name => Some(of_several(slots)),
        _ if op == of_product && output <= slots => Some(product::FIRST_RENEWED + output),
        _ => None,
    })
}

pub(super) fn add_to(domain: OperatorDomain) -> ort::Result<OperatorDomain> {
    let domain = add::<Sgd>(domain)?;
    let domain = add::<Momentum>(domain)?;
    let domain = add::<Adam>(domain)?;
    let domain = add::<RmsProp<false, false>>(domain)?;
    let domain = add::<RmsProp<false, true>>(domain)?;
    let domain = add::<RmsProp<true, false>>(domain)?;
    let domain = add::<RmsProp<true, true>>(domain)?;
    let domain = add::<Adagrad>(domain)?;
    add::<Lion>(domain)?.add(Update::<Lamb>(PhantomData))
}

fn add<R: Rule>(domain: OperatorDomain) -> ort::Result<OperatorDomain> {
    node::add::<ProductUpdate<R>>(domain.add(Update::<ByElement<R>>(PhantomData))?)
}

/// What updates one parameter, with the hyperparameters of a step.
trait Method: Sized + 'static {
    const NAME: &'static str;
    const SLOTS: usize;
    const HYPERPARAMETERS: usize;

    /// `hyperparameters` begin with those of its own.
    fn new(hyperparameters: &[f32], pull: Pull, nesterov: bool) -> Self;

    fn update(
        &self,
        context: &ComputeContext,
        tensors: Tensors<'_>,
        gradient: &[f32],
    ) -> ort::Result<()>;
}

/// The operator of a method.
struct Update<M>(PhantomData<fn() -> M>);

impl<M: Method> Operator for Update<M> {
    type Kernel<'attr> = UpdateKernel<M>;

    fn name(&self) -> &str {
        in_domain(M::NAME)
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
        for (parameter, of) in inputs[1..].chunks_exact(2 + M::SLOTS).enumerate() {
            for tensor in 0..=M::SLOTS {
                context.set_output(parameter * (1 + M::SLOTS) + tensor, &of[0])?;
            }
        }
        Ok(())
    }

    fn create_kernel(&self, node: &KernelContext<'_>) -> ort::Result<UpdateKernel<M>> {
        Settings::of(node, M::NAME).map(|settings| UpdateKernel { settings, method: PhantomData })
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

    /// The method with the hyperparameters of a step.
    fn with<M: Method>(&self, packed: &[f32]) -> ort::Result<M> {
        if packed.is_empty()
            || packed.len() < self.rule_at + M::HYPERPARAMETERS
            || (self.decay != Decay::None && packed.len() < 2)
        {
            return Err(refused(M::NAME, format!("{} hyperparameters", packed.len())));
        }
        let pull = Pull {
            decay: self.decay,
            strength: if self.decay == Decay::None { 0.0 } else { packed[1] },
            learning_rate: packed[0],
        };
        Ok(M::new(&packed[self.rule_at..], pull, self.nesterov))
    }
}

/// The operator in one node.
struct UpdateKernel<M> {
    settings: Settings,
    method: PhantomData<fn() -> M>,
}

impl<M: Method> Kernel for UpdateKernel<M> {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let hyperparameters = input(context, M::NAME, 0)?;
        let (_, packed) = hyperparameters.try_extract_tensor::<f32>()?;
        let tensors = context.num_inputs()? - 1;
        let method: M = self.settings.with(packed)?;
        if tensors % (2 + M::SLOTS) > 1 {
            return Err(refused(M::NAME, format!("{tensors} tensors")));
        }
        (0..tensors / (2 + M::SLOTS)).try_for_each(|number| one(context, &method, number))
    }
}

/// Updates parameter number `number` of a node.
fn one<M: Method>(context: &ComputeContext, method: &M, number: usize) -> ort::Result<()> {
    let [first, output] = [1 + number * (2 + M::SLOTS), number * (1 + M::SLOTS)];
    let gradient = input(context, M::NAME, first + 1)?;
    let (shape, gradient) = gradient.try_extract_tensor::<f32>()?;
    let inputs = iter::once(first).chain(first + 2..first + 2 + M::SLOTS);
    let tensors = Tensors::of(context, M::NAME, &node::dims(shape), inputs, output)?;
    method.update(context, tensors, gradient)
}
