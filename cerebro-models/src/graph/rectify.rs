//! Rectifiers and sigmoid linear units become part of the batch normalizations before them.
//!
//! An activation that is all that reads a normalization costs a pass over memory in the forward pass
//! and another one backwards; within the normalization's node it costs no pass.

use std::collections::HashMap;

use super::builder::{Builder, Node, Value};
use crate::kernels::{
    BATCH_NORM, BATCH_NORM_GRADIENT, RECTIFIED, RELU_GRADIENT, SILU, SILU_GRADIENT, SMOOTH,
};
use crate::onnx::Attribute;

/// An activation that reads a normalization.
struct Join {
    normalization: usize,
    activation: usize,
    /// The nodes of both gradients, if there are any.
    gradients: Option<[usize; 2]>,
    kind: i64,
}

impl Builder {
    /// Joins normalizations with their activations; `kept` are the graph's outputs.
    ///
    /// Nodes whose work was taken over stay and are left out by [`finish`](Self::finish), since
    /// nothing reads them.
    pub(super) fn join_activations(&mut self, kept: &[Value]) {
        self.empty_unread(kept);
        let readers = self.readers(kept);
        let joins: Vec<Join> =
            (0..self.nodes.len()).filter_map(|index| self.joined(index, &readers)).collect();
        for Join { normalization, activation, gradients, kind } in joins {
            // The activated value becomes the normalization's output.
            let activated = self.nodes[activation].outputs[0];
            let plain = std::mem::replace(&mut self.nodes[normalization].outputs[0], activated);
            self.nodes[activation].outputs[0] = plain;
            self.nodes[activation].inputs[0] = Some(activated);
            activate(&mut self.nodes[normalization], kind);
            if let Some([through, gradient]) = gradients {
                self.nodes[gradient].inputs[0] = self.nodes[through].inputs[0];
                activate(&mut self.nodes[gradient], kind);
            }
        }
    }

    /// What can be joined to the node at `index`.
    fn joined(&self, index: usize, readers: &HashMap<Value, Vec<Option<usize>>>) -> Option<Join> {
        let node = &self.nodes[index];
        if node.op != BATCH_NORM {
            return None;
        }
        let (plain, mean) = (node.outputs[0], node.outputs[1]);
        let of = |value: &Value| readers.get(value).map_or(&[][..], Vec::as_slice);
        let is_op = |at: &usize, op: &str| self.nodes[*at].op == op;
        let (activation, kind, derivative) = match *of(&plain) {
            [Some(at)] if is_op(&at, "Relu") => (at, RECTIFIED, RELU_GRADIENT),
            [Some(at)] | [Some(at), Some(_)] if is_op(&at, SILU) => (at, SMOOTH, SILU_GRADIENT),
            _ => return None,
        };
        // What the activation's gradient is read from: its result, or what went into it.
        let read = if kind == RECTIFIED { self.nodes[activation].outputs[0] } else { plain };
        let gradients = of(&read).iter().flatten().find_map(|through| {
            let node = &self.nodes[*through];
            if node.op != derivative || node.inputs[1] != Some(read) {
                return None;
            }
            let &[Some(gradient)] = of(&node.outputs[0]) else { return None };
            let reader = &self.nodes[gradient];
            let is_its = reader.op == BATCH_NORM_GRADIENT
                && reader.inputs[0] == Some(node.outputs[0])
                && reader.inputs.get(4) == Some(&Some(mean));
            is_its.then_some([*through, gradient])
        });
        // A unit's input is no longer there for a gradient by itself.
        let is_read_elsewhere = kind == SMOOTH && of(&plain).len() > 1 && gradients.is_none();
        (!is_read_elsewhere).then_some(Join { normalization: index, activation, gradients, kind })
    }

    /// Which nodes read each value; `None` for the graph's outputs.
    pub(super) fn readers(&self, kept: &[Value]) -> HashMap<Value, Vec<Option<usize>>> {
        let mut readers: HashMap<Value, Vec<Option<usize>>> = HashMap::new();
        for (index, node) in self.nodes.iter().enumerate() {
            for input in node.inputs.iter().flatten() {
                readers.entry(*input).or_default().push(Some(index));
            }
        }
        for value in kept {
            readers.entry(*value).or_default().push(None);
        }
        readers
    }
}

fn activate(node: &mut Node, kind: i64) {
    node.attributes.0.insert("activation".to_owned(), Attribute::Int(kind));
}
