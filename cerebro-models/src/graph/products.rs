//! Products of matrices become nodes that do what follows them too: bias, rectifier, the gradient of an
//! activation, the sums that are a bias' gradient.

use std::collections::{HashMap, HashSet};

use super::builder::{Builder, Node, Value};
use super::call::Attributes;
use crate::kernels::{
    LINEAR, LINEAR_INPUT_GRADIENT, LINEAR_WEIGHT_GRADIENT, PRODUCT, RELU_GRADIENT,
};
use crate::onnx::{DataType, TensorData};

/// Who reads and who gives each value, by the places of nodes, before anything is fused.
pub(super) struct Uses {
    /// `None` for the graph's outputs.
    pub(super) readers: HashMap<Value, Vec<Option<usize>>>,
    producers: HashMap<Value, usize>,
    /// The nodes that sum the rows of a value, as products with ones.
    sums: HashMap<Value, usize>,
}

impl Uses {
    pub(super) fn only_reader(&self, value: Value) -> Option<usize> {
        match self.readers.get(&value).map(Vec::as_slice) {
            Some(&[Some(reader)]) => Some(reader),
            _ => None,
        }
    }

    /// Whether `value` is there before the node at `index`.
    pub(super) fn is_before(&self, value: Value, index: usize) -> bool {
        self.producers.get(&value).is_none_or(|&producer| producer < index)
    }
}

impl Builder {
    /// Makes products of matrices nodes of Cerebro's own; `kept` are the graph's outputs.
    ///
    /// Nodes whose work was taken over become empty; [`finish`](Self::finish) leaves them out,
    /// since nothing reads them.
    pub(super) fn fuse_products(&mut self, kept: &[Value]) {
        self.empty_unread(kept);
        let uses = self.uses(kept);
        for index in 0..self.nodes.len() {
            let Some(product) = self.as_product(&self.nodes[index], &uses) else { continue };
            self.nodes[index] = product;
            if self.nodes[index].op == PRODUCT {
                let _ = self.add_bias(index, &uses)
                    || self.mask_product(index, &uses)
                    || self.sum_columns(index, &uses);
            }
            if self.nodes[index].op == LINEAR {
                self.rectify_linear(index, &uses);
            }
        }
    }

    /// Empties the nodes whose results nothing needs.
    pub(super) fn empty_unread(&mut self, kept: &[Value]) {
        let mut needed: HashSet<Value> = kept.iter().copied().collect();
        for node in self.nodes.iter_mut().rev() {
            if node.outputs.iter().any(|output| needed.contains(output)) {
                needed.extend(node.inputs.iter().flatten());
            } else {
                node.empty();
            }
        }
    }

    pub(super) fn uses(&self, kept: &[Value]) -> Uses {
        let nodes = || self.nodes.iter().enumerate();
        let producers: HashMap<Value, usize> = nodes()
            .flat_map(|(index, node)| node.outputs.iter().map(move |&output| (output, index)))
            .collect();
        let uses = Uses { readers: self.readers(kept), producers, sums: HashMap::new() };
        let sums = nodes().filter_map(|(index, node)| {
            let &[Some(ones), Some(table)] = node.inputs.as_slice() else { return None };
            let all_ones = |ones: &TensorData| ones.to_f64s().iter().all(|&one| one == 1.0);
            let sums_rows = node.op == "MatMul"
                && self.dims(ones).len() == 1
                && self.constant_of(ones).is_some_and(all_ones);
            sums_rows.then(|| (self.unshaped(table, &uses), index))
        });
        let sums = sums.collect();
        Uses { sums, ..uses }
    }

    /// The node as a product of Cerebro's own, perhaps with a bias, if it is one.
    fn as_product(&self, node: &Node, uses: &Uses) -> Option<Node> {
        let &[Some(a), Some(b), ref rest @ ..] = node.inputs.as_slice() else { return None };
        let is_float = |value: Value| self.data_type(value) == DataType::Float32;
        let columns = *self.dims(node.outputs[0]).last()?;
        // One column fills no vector.
        if !is_float(a) || !is_float(b) || columns < 2 || self.dims(b).len() != 2 {
            return None;
        }
        let given = &node.attributes;
        let mut turned = [given.flag("transA"), given.flag("transB")];
        let mut inputs = vec![Some(a), Some(b)];
        let mut op = PRODUCT;
        match node.op.as_str() {
            "Gemm" if given.float("alpha", 1.0) == 1.0 => {
                if let &[Some(addend)] = rest {
                    let is_row =
                        matches!(*self.dims(addend), [size] | [1, size] if size == columns);
                    if !is_row || given.float("beta", 1.0) != 1.0 {
                        return None;
                    }
                    inputs.push(Some(addend));
                    op = LINEAR;
                }
            }
            "MatMul" if self.dims(a).len() >= 2 => turned = [false, false],
            _ => return None,
        }
        // A transposed weight is read as it lies.
        let transposing = uses.producers.get(&b).map(|&at| &self.nodes[at]);
        if let Some(transposing) = transposing.filter(|node| node.op == "Transpose") {
            inputs[1] = transposing.inputs[0];
            turned[1] = !turned[1];
        }
        let attributes = Attributes::none()
            .with("transA", i64::from(turned[0]))
            .with("transB", i64::from(turned[1]));
        let attributes = if op == LINEAR { attributes.with("rectified", 0) } else { attributes };
        Some(node.replaced(op, inputs, attributes))
    }

    /// Takes the addition of a row into the product at `index`.
    fn add_bias(&mut self, index: usize, uses: &Uses) -> bool {
        let product = self.nodes[index].outputs[0];
        let Some(adding) = uses.only_reader(product) else { return false };
        let node = &self.nodes[adding];
        if node.op != "Add" || self.dims(node.outputs[0]) != self.dims(product) {
            return false;
        }
        let other = node.inputs.iter().flatten().find(|&&input| input != product);
        let Some(&bias) = other else { return false };
        let columns = self.dims(product).last();
        let is_row = self.dims(bias).len() == 1 && self.dims(bias).last() == columns;
        if !is_row || !uses.is_before(bias, index) {
            return false;
        }
        let mut inputs = self.nodes[index].inputs.clone();
        inputs.push(Some(bias));
        let attributes = self.nodes[index].attributes.clone().with("rectified", 0);
        self.nodes[index] = self.nodes[index].replaced(LINEAR, inputs, attributes);
        self.take_over(index, adding);
        true
    }

    /// Takes a rectifier into the linear layer at `index`.
    fn rectify_linear(&mut self, index: usize, uses: &Uses) {
        let rectifier = uses.only_reader(self.nodes[index].outputs[0]);
        if let Some(rectifier) = rectifier.filter(|&at| self.nodes[at].op == "Relu") {
            let attributes = self.nodes[index].attributes.clone().with("rectified", 1);
            self.nodes[index].attributes = attributes;
            self.take_over(index, rectifier);
        }
    }

    /// Takes the gradient of a rectifier, or a product with as many slopes, into the product at `index`;
    /// in between its result may get another shape.
    fn mask_product(&mut self, index: usize, uses: &Uses) -> bool {
        let product = self.nodes[index].outputs[0];
        let Some(mut masking) = uses.only_reader(product) else { return false };
        let mut result = index;
        if self.nodes[masking].op == "Reshape" {
            result = masking;
            let Some(next) = uses.only_reader(self.nodes[result].outputs[0]) else {
                return false;
            };
            masking = next;
        }
        let node = &self.nodes[masking];
        let (masked, &[Some(a), Some(b)]) = (self.nodes[result].outputs[0], &node.inputs[..])
        else {
            return false;
        };
        let (scaled, y) = match node.op.as_str() {
            RELU_GRADIENT if a == masked => (0, b),
            "Mul" if a == masked => (1, b),
            "Mul" => (1, a),
            _ => return false,
        };
        let is_alike = self.value_type(y) == self.value_type(masked);
        if !is_alike || !uses.is_before(y, index) {
            return false;
        }
        let mut inputs = self.nodes[index].inputs.clone();
        inputs.push(Some(y));
        let attributes = self.nodes[index].attributes.clone().with("scaled", scaled);
        self.nodes[index] = self.nodes[index].replaced(LINEAR_INPUT_GRADIENT, inputs, attributes);
        self.take_over(result, masking);
        true
    }

    /// Takes the sums of the columns of an operand into the product at `index`.
    fn sum_columns(&mut self, index: usize, uses: &Uses) -> bool {
        let node = &self.nodes[index];
        if !node.attributes.flag("transA") || node.attributes.flag("transB") {
            return false;
        }
        let found = [0, 1].into_iter().find_map(|operand| {
            let table = node.inputs[operand]?;
            let &summing = uses.sums.get(&self.unshaped(table, uses))?;
            let &[_, Some(summed)] = self.nodes[summing].inputs.as_slice() else { return None };
            (self.dims(summed) == self.dims(table)).then_some((operand, summing))
        });
        let Some((summed, summing)) = found else { return false };
        let sums = self.nodes[summing].outputs[0];
        let is_later = |reader: &usize| *reader > index;
        let readers = uses.readers.get(&sums);
        if !readers.is_some_and(|readers| readers.iter().flatten().all(is_later)) {
            return false;
        }
        let inputs = self.nodes[index].inputs.clone();
        let attributes = self.nodes[index].attributes.clone().with("summed", summed as i64);
        let mut node = self.nodes[index].replaced(LINEAR_WEIGHT_GRADIENT, inputs, attributes);
        node.outputs.push(sums);
        self.nodes[index] = node;
        self.nodes[summing].empty();
        true
    }

    /// The value that `value` is another shape of, or itself.
    fn unshaped(&self, value: Value, uses: &Uses) -> Value {
        let node = uses.producers.get(&value).map(|&at| &self.nodes[at]);
        let reshape = node.filter(|node| node.op == "Reshape");
        reshape.and_then(|node| *node.inputs.first()?).unwrap_or(value)
    }

    /// The node at `index` gives what the one at `later` gave, which becomes empty.
    fn take_over(&mut self, index: usize, later: usize) {
        self.nodes[index].outputs[0] = self.nodes[later].outputs[0];
        self.nodes[later].empty();
    }
}
