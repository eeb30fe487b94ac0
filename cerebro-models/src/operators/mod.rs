//! The table of operators: for each one, the types of its outputs and its gradient.
//!
//! An operator is one row in the table of its family's file. Its shape rule infers output types
//! from fixed input types; its gradient rule writes the gradients of its inputs as nodes. The
//! rules take `x`, `y` and `dy` from a `Site`: the inputs, the outputs and the gradients of the
//! loss by the outputs. They may write more than is needed: nodes without use are dropped.
//!
//! Sources: the operators' definitions are those of the ONNX project (`Operators.md`, version 25;
//! older versions are brought up to it first); a rule whose formula is no schoolbook derivative
//! names its source.

#![allow(clippy::unnecessary_wraps, reason = "all rules share one signature")]

mod activation;
mod arithmetic;
mod attention;
mod centering;
mod columns;
mod convolution;
mod deformable;
mod einsum;
mod fourier;
mod fused;
mod indexing;
mod logic;
mod lookup;
mod loss;
mod matrix;
mod movement;
mod normalization;
mod page;
mod pooling;
mod quantization;
mod random;
mod recurrent;
mod reduction;
mod region;
mod resize;
mod rotary;
mod sampling;
mod shapes;
mod spectrogram;
#[cfg(test)]
pub(crate) mod tests;
mod trigonometry;
mod window;

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::autodiff::Forward;
use crate::graph::{Attributes, Builder, Call, Type, Value};

pub(crate) use attention::GUARDED_SOFTMAX;
pub(crate) use fused::may_fuse_classes;
pub use page::page;

/// Infers the types of a node's outputs.
pub(crate) type ShapeRule = fn(&Call<'_>) -> Result<Vec<Type>, String>;

/// Writes the gradients of a node's inputs, in their order.
pub(crate) type GradientRule = fn(&mut Builder, &Site<'_>) -> Gradients;

/// The gradients of a node's inputs; `None` for those that have none.
pub(crate) type Gradients = Result<Vec<Option<Value>>, String>;

/// Writes a forward node as other nodes.
pub(crate) type Lowering = fn(&mut Forward<'_>, &Node<'_>) -> Result<Lowered, String>;

/// Writes a forward node as other operators of the table, which have gradients of their own.
pub(crate) type Composition = fn(&mut Forward<'_>, &Node<'_>) -> Result<Vec<Value>, String>;

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Operator {
    /// The operator's name.
    pub name: &'static str,
    shape: ShapeRule,
    pub(crate) kind: Kind,
}

/// How an operator takes part in training.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// Emitted as it is; has a gradient rule.
    Rule(GradientRule),
    /// Emitted in another form, which keeps values for its gradient rule.
    Lowered(Lowering, GradientRule),
    /// Written with other operators.
    Composed(Composition),
    /// Written with other operators, which do not depend on its inputs' values or are constant
    /// almost everywhere.
    Made(Composition),
    /// Constant almost everywhere, so that its gradient is zero.
    Flat,
    /// Emitted by gradient rules only, or on integers and booleans: never differentiated.
    Opaque,
}

/// Whether an operator can be trained through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Differentiable {
    /// It has a gradient.
    Yes,
    /// Its gradient is zero wherever it exists, or its results are integers or booleans.
    Zero,
}

/// What a lowering gives.
#[derive(Debug)]
pub(crate) struct Lowered {
    /// The node's outputs.
    pub(crate) outputs: Vec<Value>,
    /// Values that the gradient rule finds in [`Site::saved`].
    pub(crate) saved: Vec<Value>,
}

/// A forward node, before it is emitted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Node<'a> {
    pub(crate) inputs: &'a [Option<Value>],
    pub(crate) attributes: &'a Attributes,
    /// How many outputs are wanted.
    pub(crate) outputs: usize,
}

impl Node<'_> {
    /// Input number `index`, if it was given.
    pub(crate) fn input(&self, index: usize) -> Option<Value> {
        self.inputs.get(index).copied().flatten()
    }

    /// Input number `index`, which must have been given.
    pub(crate) fn required(&self, index: usize) -> Result<Value, String> {
        self.input(index).ok_or_else(|| format!("input {index} is missing"))
    }

    /// The node as a [`Call`] in `graph`.
    pub(crate) fn call<'b>(&'b self, graph: &'b Builder) -> Call<'b> {
        Call { graph, inputs: self.inputs, attributes: self.attributes, outputs: self.outputs }
    }
}

/// What a gradient rule sees: a node of the forward pass, and the gradients of its outputs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Site<'a> {
    pub(crate) inputs: &'a [Option<Value>],
    pub(crate) outputs: &'a [Value],
    /// What the lowering kept.
    pub(crate) saved: &'a [Value],
    pub(crate) attributes: &'a Attributes,
    pub(crate) output_gradients: &'a [Option<Value>],
}

impl Site<'_> {
    /// Input number `index`.
    pub(crate) fn x(&self, index: usize) -> Value {
        self.input(index).unwrap_or(Value::REFUSED)
    }

    /// Input number `index`, if it was given.
    pub(crate) fn input(&self, index: usize) -> Option<Value> {
        self.inputs.get(index).copied().flatten()
    }

    /// Output number `index`.
    pub(crate) fn y(&self, index: usize) -> Value {
        self.outputs.get(index).copied().unwrap_or(Value::REFUSED)
    }

    /// The gradient of the first output: there whenever a rule of an operator with one output runs.
    pub(crate) fn dy(&self) -> Value {
        self.output_gradients.first().copied().flatten().unwrap_or(Value::REFUSED)
    }

    /// The gradient of output number `index`; zeros if the loss does not depend on it.
    pub(crate) fn dy_or_zeros(&self, graph: &mut Builder, index: usize) -> Value {
        match self.output_gradients.get(index).copied().flatten() {
            Some(gradient) => gradient,
            None => graph.filled(0.0, self.y(index)),
        }
    }

    /// The node as a [`Call`], to read attributes and constants from.
    pub(crate) fn call<'b>(&'b self, graph: &'b Builder) -> Call<'b> {
        Call {
            graph,
            inputs: self.inputs,
            attributes: self.attributes,
            outputs: self.outputs.len(),
        }
    }
}

/// The node as one of Cerebro's own, which does the work of nodes before it too, if it may be one.
pub(crate) fn in_one_node(
    forward: &mut Forward<'_>,
    op: &str,
    node: &Node<'_>,
) -> Option<Result<Vec<Value>, String>> {
    match (op, node.inputs) {
        ("MatMul", &[Some(shares), Some(value)]) => attention::attend(forward, shares, value),
        ("Concat", parts) => lookup::look_up(forward, parts, node.attributes),
        _ => None,
    }
}

/// The most elements of a constant that a composition makes.
const LARGEST_CONSTANT: usize = 1 << 26;

/// The elements of a constant of `dims` that a composition is about to make, if they are not too many.
fn elements_to_make(dims: &[usize]) -> Result<usize, String> {
    let elements = dims.iter().try_fold(1_usize, |product, &size| product.checked_mul(size));
    elements
        .filter(|&elements| elements <= LARGEST_CONSTANT)
        .ok_or_else(|| format!("it needs a constant of {dims:?}, which is too large"))
}

/// The gradient of the only input that has one: the first.
pub(crate) fn only(gradient: Value) -> Gradients {
    Ok(vec![Some(gradient)])
}

impl Operator {
    pub(crate) const fn rule(name: &'static str, shape: ShapeRule, rule: GradientRule) -> Self {
        Self { name, shape, kind: Kind::Rule(rule) }
    }

    pub(crate) const fn lowered(
        name: &'static str,
        shape: ShapeRule,
        lowering: Lowering,
        rule: GradientRule,
    ) -> Self {
        Self { name, shape, kind: Kind::Lowered(lowering, rule) }
    }

    pub(crate) const fn composed(name: &'static str, composition: Composition) -> Self {
        Self { name, shape: shapes::never_emitted, kind: Kind::Composed(composition) }
    }

    /// Written with other operators in training, emitted as it is at inference.
    pub(crate) const fn unrolled(
        name: &'static str,
        shape: ShapeRule,
        composition: Composition,
    ) -> Self {
        Self { name, shape, kind: Kind::Composed(composition) }
    }

    pub(crate) const fn made(name: &'static str, composition: Composition) -> Self {
        Self { name, shape: shapes::never_emitted, kind: Kind::Made(composition) }
    }

    pub(crate) const fn flat(name: &'static str, shape: ShapeRule) -> Self {
        Self { name, shape, kind: Kind::Flat }
    }

    pub(crate) const fn opaque(name: &'static str, shape: ShapeRule) -> Self {
        Self { name, shape, kind: Kind::Opaque }
    }

    /// The types of the outputs of `call`.
    pub(crate) fn infer(&self, call: &Call<'_>) -> Result<Vec<Type>, String> {
        (self.shape)(call)
    }

    /// Whether it can be trained through.
    pub fn differentiable(&self) -> Differentiable {
        match self.kind {
            Kind::Rule(_) | Kind::Lowered(..) | Kind::Composed(_) => Differentiable::Yes,
            Kind::Made(_) | Kind::Flat | Kind::Opaque => Differentiable::Zero,
        }
    }
}

const FAMILIES: &[&[Operator]] = &[
    activation::OPERATORS,
    arithmetic::OPERATORS,
    attention::OPERATORS,
    centering::OPERATORS,
    columns::OPERATORS,
    convolution::OPERATORS,
    deformable::OPERATORS,
    einsum::OPERATORS,
    fourier::OPERATORS,
    fused::OPERATORS,
    indexing::OPERATORS,
    logic::OPERATORS,
    lookup::OPERATORS,
    loss::OPERATORS,
    matrix::OPERATORS,
    movement::OPERATORS,
    normalization::OPERATORS,
    pooling::OPERATORS,
    quantization::OPERATORS,
    random::OPERATORS,
    recurrent::OPERATORS,
    recurrent::whole::OPERATORS,
    reduction::OPERATORS,
    region::OPERATORS,
    resize::OPERATORS,
    rotary::OPERATORS,
    sampling::OPERATORS,
    spectrogram::OPERATORS,
    trigonometry::OPERATORS,
];

static TABLE: LazyLock<HashMap<&'static str, &'static Operator>> =
    LazyLock::new(|| operators().map(|operator| (operator.name, operator)).collect());

/// All operators of the table, by family.
pub fn operators() -> impl Iterator<Item = &'static Operator> {
    FAMILIES.iter().copied().flatten()
}

/// The operator called `name`; those of other domains than ONNX's are called `domain.name`.
pub fn find(name: &str) -> Option<&'static Operator> {
    TABLE.get(name).copied()
}
