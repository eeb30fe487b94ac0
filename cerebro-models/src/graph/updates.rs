//! Updates of small parameters become one node: starting a node costs more than they do. Updates of
//! large ones take in the product of matrices that their gradient is: reading it costs more than
//! making it.

use std::collections::HashMap;

use super::builder::{Builder, Value};
use crate::kernels::{LINEAR_WEIGHT_GRADIENT, is_update, of_product};

/// Parameters of at most so many elements are updated together. Their gradients are kept until the
/// last of them is there, which for larger ones would cost memory.
const LARGEST: usize = 1 << 15;

/// Products over at most so many places are taken into updates: with more, making the gradient takes
/// so much longer than reading it that nothing is gained.
const MOST_PLACES: usize = 256;

impl Builder {
    /// Makes updates of large parameters, and the products that give their gradients and those of
    /// biases, one node; `kept` are the graph's outputs.
    ///
    /// Nodes whose work was taken over become empty.
    pub(super) fn update_by_products(&mut self, kept: &[Value]) {
        let uses = self.uses(kept);
        for product in 0..self.nodes.len() {
            let node = &self.nodes[product];
            let (true, &[gradient, sums], &[a, b]) = (
                node.op == LINEAR_WEIGHT_GRADIENT,
                node.outputs.as_slice(),
                node.inputs.as_slice(),
            ) else {
                continue;
            };
            let places = a.map_or(0, |a| self.dims(a)[0]);
            let is_small = self.value_type(gradient).elements() <= LARGEST;
            let Some(update) = uses.only_reader(gradient) else { continue };
            let reader = &self.nodes[update];
            let Some(op) = of_product(&reader.op) else { continue };
            if is_small || places > MOST_PLACES || reader.inputs.get(2) != Some(&Some(gradient)) {
                continue;
            }
            let mut inputs = vec![reader.inputs[0], a, b, reader.inputs[1]];
            inputs.extend_from_slice(&reader.inputs[3..]);
            // Where all that it reads is there, and what reads its sums comes later.
            let is_there = inputs.iter().flatten().all(|&input| uses.is_before(input, product));
            let is_later = |reader: &usize| *reader > update;
            let readers = uses.readers.get(&sums).map_or(&[][..], Vec::as_slice);
            let place = if is_there {
                product
            } else if readers.iter().flatten().all(is_later) {
                update
            } else {
                continue;
            };
            let summed = node.attributes.int("summed", 0);
            let attributes = reader.attributes.clone().with("summed", summed);
            let mut outputs = reader.outputs.clone();
            outputs.push(sums);
            let mut fused = reader.replaced(op, inputs, attributes);
            fused.outputs = outputs;
            self.nodes[product].empty();
            self.nodes[update].empty();
            self.nodes[place] = fused;
        }
    }

    /// Joins the updates of small parameters by the same rule and hyperparameters.
    ///
    /// Joined nodes become empty; [`finish`](Self::finish) leaves them out.
    pub(super) fn join_updates(&mut self) {
        let mut groups: HashMap<String, Vec<usize>> = HashMap::new();
        for (index, node) in self.nodes.iter().enumerate() {
            let Some(&parameter) = node.inputs.get(1) else { continue };
            let is_small = parameter.is_some_and(|p| self.value_type(p).elements() <= LARGEST);
            if is_small && is_update(&node.op) {
                let key = format!("{} {:?} {:?}", node.op, node.inputs[0], node.attributes);
                groups.entry(key).or_default().push(index);
            }
        }
        for group in groups.into_values() {
            // The last one comes after all gradients.
            let Some((&last, others)) = group.split_last() else { continue };
            let (mut inputs, mut outputs) = (vec![self.nodes[last].inputs[0]], Vec::new());
            for &index in others {
                inputs.extend_from_slice(&self.nodes[index].inputs[1..]);
                outputs.extend_from_slice(&self.nodes[index].outputs);
                self.nodes[index].empty();
            }
            inputs.extend_from_slice(&self.nodes[last].inputs[1..]);
            outputs.extend_from_slice(&self.nodes[last].outputs);
            (self.nodes[last].inputs, self.nodes[last].outputs) = (inputs, outputs);
        }
    }
}
