//! [`Importer`]: applies a model's nodes, one after the other.

use std::collections::HashMap;

use super::needed::full_name;
use super::units::find_units;
use super::upgrade::upgrade;
use crate::autodiff::Forward;
use crate::error::GraphError;
use crate::graph::{Attributes, Value};
use crate::onnx::{DataType, Graph, Node};
use crate::operators;

/// What a name in a model stands for.
#[derive(Clone, Debug)]
pub(super) enum Entry {
    Tensor(Value),
    Sequence(Vec<Value>),
}

/// Applies a model's nodes to a forward pass.
#[derive(Debug)]
pub(crate) struct Importer<'f, 'g> {
    pub(super) forward: &'f mut Forward<'g>,
    /// The version of ONNX's operators that the model uses.
    opset: i64,
    /// Names in ONNX are unique across nested graphs, so one table serves all.
    names: HashMap<String, Entry>,
}

impl<'f, 'g> Importer<'f, 'g> {
    pub(crate) fn new(forward: &'f mut Forward<'g>, opset: i64) -> Self {
        Self { forward, opset, names: HashMap::new() }
    }

    /// `name` stands for `value`.
    pub(crate) fn define(&mut self, name: &str, value: Value) {
        self.bind(name, Entry::Tensor(value));
    }

    pub(super) fn bind(&mut self, name: &str, entry: Entry) {
        self.names.insert(name.to_owned(), entry);
    }

    pub(super) fn entry(&self, name: &str, node: &Node) -> Result<&Entry, GraphError> {
        self.names.get(name).ok_or_else(|| GraphError::NoSuchValue {
            node: node_name(node),
            value: name.to_owned(),
        })
    }

    /// The tensor called `name`, if there is one.
    pub(crate) fn tensor(&self, name: &str) -> Option<Value> {
        match self.names.get(name)? {
            Entry::Tensor(value) => Some(*value),
            Entry::Sequence(_) => None,
        }
    }

    /// Applies the nodes of `graph` that are `needed`, all of them if it is `None`.
    pub(crate) fn run(&mut self, graph: &Graph, needed: Option<&[bool]>) -> Result<(), GraphError> {
        let units = find_units(graph, |name| !self.names.contains_key(name));
        for (name, tensor) in &graph.initializers {
            if !self.names.contains_key(name) {
                let value = self.forward.graph.constant(tensor.clone());
                self.define(name, value);
            }
        }
        for (index, node) in graph.nodes.iter().enumerate() {
            if !needed.is_none_or(|needed| needed[index]) {
                continue;
            }
            let part = units.get(&index);
            match part.and_then(|part| Some((part.op, self.float32(part.x)?, part.is_last))) {
                Some((op, x, true)) => self.unit(op, x, node)?,
                Some((_, _, false)) => (),
                None => self.node(node)?,
            }
        }
        Ok(())
    }

    /// The tensor called `name`, if there is one, of 32-bit floats.
    fn float32(&self, name: &str) -> Option<Value> {
        self.tensor(name).filter(|&x| self.forward.graph.data_type(x) == DataType::Float32)
    }

    /// Applies a unit of which `node` is the last node.
    fn unit(&mut self, op: &str, x: Value, node: &Node) -> Result<(), GraphError> {
        self.forward.set_place(&node_name(node));
        let y = self.forward.apply(op, &[Some(x)], Attributes::none());
        let y = y.map_err(|reason| self.forward.refused(op, reason))?;
        self.define(&node.outputs[0], y);
        Ok(())
    }

    fn node(&mut self, node: &Node) -> Result<(), GraphError> {
        self.forward.set_place(&node_name(node));
        if self.structural(node)? {
            return Ok(());
        }
        let op = full_name(node);
        if operators::find(&op).is_none() {
            return Err(GraphError::unsupported(&op, &node_name(node)));
        }
        let mut inputs = Vec::with_capacity(node.inputs.len());
        for name in &node.inputs {
            inputs.push(if name.is_empty() { None } else { Some(self.operand(name, node)?) });
        }
        let attributes = Attributes(node.attributes.clone());
        let outputs = self
            .upgraded(&op, inputs, attributes, node.outputs.len())
            .map_err(|reason| self.forward.refused(&op, reason))?;
        for (name, value) in node.outputs.iter().zip(outputs) {
            if !name.is_empty() {
                self.define(name, value);
            }
        }
        Ok(())
    }

    /// The tensor called `name`, which `node` reads.
    pub(super) fn operand(&self, name: &str, node: &Node) -> Result<Value, GraphError> {
        match self.entry(name, node)? {
            Entry::Tensor(value) => Ok(*value),
            Entry::Sequence(_) => Err(GraphError::Refused {
                op: node.op.clone(),
                node: node_name(node),
                reason: format!("`{name}` is a sequence, and a tensor is needed"),
            }),
        }
    }

    fn upgraded(
        &mut self,
        op: &str,
        inputs: Vec<Option<Value>>,
        attributes: Attributes,
        outputs: usize,
    ) -> Result<Vec<Value>, String> {
        upgrade(self.forward, self.opset, op, inputs, attributes, outputs)
    }
}

/// What a node is called in messages.
pub(super) fn node_name(node: &Node) -> String {
    if node.name.is_empty() {
        node.outputs.first().cloned().unwrap_or_default()
    } else {
        node.name.clone()
    }
}
