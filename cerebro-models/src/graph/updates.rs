//! Updates of small parameters become one node: starting a node costs more than they do.

use std::collections::HashMap;

use super::builder::Builder;
use crate::kernels::is_update;

/// Parameters of at most so many elements are updated together. Their gradients are kept until the
/// last of them is there, which for larger ones would cost memory.
const LARGEST: usize = 1 << 15;

impl Builder {
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
