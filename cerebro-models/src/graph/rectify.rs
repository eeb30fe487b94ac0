//! Rectifiers become part of the batch normalizations before them.
//!
//! A rectifier that is all that reads a normalization costs a pass over memory in the forward pass
//! and another one backwards; within the normalization's node it costs nothing.

use std::collections::HashMap;

use super::builder::{Builder, Node, Value};
use crate::kernels::{BATCH_NORM, BATCH_NORM_GRADIENT, RELU_GRADIENT};
use crate::onnx::Attribute;

impl Builder {
    /// Joins normalizations with their rectifiers; `kept` are the graph's outputs.
    ///
    /// Nodes whose work was taken over stay and are left out by [`finish`](Self::finish), since
    /// nothing reads them.
    pub(super) fn join_rectifiers(&mut self, kept: &[Value]) {
        let readers = self.readers(kept);
        let only_reader = |value: Value| match readers.get(&value).map(Vec::as_slice) {
            Some(&[Some(reader)]) => Some(reader),
            _ => None,
        };
        let mut joined = Vec::new();
        for (index, node) in self.nodes.iter().enumerate() {
            if node.op != BATCH_NORM {
                continue;
            }
            let rectifier = only_reader(node.outputs[0]).filter(|&at| self.nodes[at].op == "Relu");
            joined.extend(rectifier.map(|rectifier| (index, rectifier)));
        }
        for (normalization, rectifier) in joined {
            // The rectified value becomes the normalization's output.
            let rectified = self.nodes[rectifier].outputs[0];
            let mean = self.nodes[normalization].outputs[1];
            let plain = std::mem::replace(&mut self.nodes[normalization].outputs[0], rectified);
            self.nodes[rectifier].outputs[0] = plain;
            self.nodes[rectifier].inputs[0] = Some(rectified);
            rectify(&mut self.nodes[normalization]);
            for index in 0..self.nodes.len() {
                let node = &self.nodes[index];
                let is_its_gradient =
                    node.op == BATCH_NORM_GRADIENT && node.inputs.get(4) == Some(&Some(mean));
                let Some(incoming) = node.inputs[0].filter(|_| is_its_gradient) else { continue };
                let masking = self.nodes.iter().position(|masking| {
                    masking.op == RELU_GRADIENT
                        && masking.outputs[0] == incoming
                        && masking.inputs[1] == Some(rectified)
                });
                let Some(masking) = masking.filter(|_| only_reader(incoming) == Some(index)) else {
                    continue;
                };
                self.nodes[index].inputs[0] = self.nodes[masking].inputs[0];
                rectify(&mut self.nodes[index]);
            }
        }
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

fn rectify(node: &mut Node) {
    node.attributes.0.insert("rectified".to_owned(), Attribute::Int(1));
}
