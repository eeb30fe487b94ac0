//! Finds the Gaussian error linear unit, the sigmoid linear unit and the softmax of scores that may all be
//! hidden where an exporter wrote them out.
//!
//! Before version 20 ONNX had no operator for the former, so files hold `x (1 + erf(x / sqrt 2)) / 2`
//! as five nodes; the latter, `x sigmoid(x)`, got one with version 24. As one node they are trained
//! with fewer passes over memory. Of the third, PyTorch's attention under a mask, what is written has
//! no gradient where a row is no number before it is made zeros.

use std::collections::HashMap;
use std::f64::consts::{FRAC_1_SQRT_2, SQRT_2};

use super::needed::for_each_input;
use super::structural::constant_of;
use crate::onnx::{Attribute, Graph, Node};
use crate::operators::GUARDED_SOFTMAX;

/// A node that is a part of such a unit.
#[derive(Clone, Copy, Debug)]
pub(super) struct UnitPart<'g> {
    /// The operator that the unit is.
    pub(super) op: &'static str,
    /// The unit's input.
    pub(super) x: &'g str,
    /// Whether the node's output is the unit's.
    pub(super) is_last: bool,
}

/// The nodes of `graph` that are parts of such units, by their place. `is_constant` tells of an
/// initializer whether it is one that never changes.
pub(super) fn find_units(
    graph: &Graph,
    is_constant: impl Fn(&str) -> bool,
) -> HashMap<usize, UnitPart<'_>> {
    let mut found = HashMap::new();
    if !graph.nodes.iter().any(|node| ["Erf", "Sigmoid", "IsNaN"].contains(&&*node.op)) {
        return found;
    }
    let search = Search::new(graph, is_constant);
    for (index, node) in graph.nodes.iter().enumerate() {
        let gelu = || search.gelu(node).map(|(x, parts)| ("Gelu", x, parts.to_vec()));
        let silu = || search.silu(node).map(|(x, part)| ("Swish", x, vec![part]));
        let softmax =
            || search.softmax(node).map(|(x, parts)| (GUARDED_SOFTMAX, x, parts.to_vec()));
        if let Some((op, x, parts)) = gelu().or_else(silu).or_else(softmax) {
            found.extend(parts.into_iter().map(|at| (at, UnitPart { op, x, is_last: false })));
            found.insert(index, UnitPart { op, x, is_last: true });
        }
    }
    found
}

struct Search<'g> {
    graph: &'g Graph,
    /// Which node gives a value.
    makers: HashMap<&'g str, usize>,
    /// How often a value is read.
    readers: HashMap<&'g str, usize>,
    constants: HashMap<&'g str, f64>,
}

impl<'g> Search<'g> {
    fn new(graph: &'g Graph, is_constant: impl Fn(&str) -> bool) -> Self {
        let (mut makers, mut readers) = (HashMap::new(), HashMap::new());
        let mut constants = HashMap::new();
        for (index, node) in graph.nodes.iter().enumerate() {
            makers.extend(node.outputs.iter().map(|output| (output.as_str(), index)));
            for_each_input(node, &mut |name| *readers.entry(name).or_default() += 1);
            if let (true, [output]) = (node.op == "Constant", node.outputs.as_slice()) {
                let value = constant_of(node).and_then(|tensor| scalar(&tensor.to_f64s()));
                constants.extend(value.map(|value| (output.as_str(), value)));
            }
        }
        for output in &graph.outputs {
            *readers.entry(output.name.as_str()).or_default() += 1;
        }
        for (name, tensor) in graph.initializers.iter().filter(|(name, _)| is_constant(name)) {
            if tensor.elements() == 1 {
                constants.extend(scalar(&tensor.to_f64s()).map(|value| (name.as_str(), value)));
            }
        }
        Self { graph, makers, readers, constants }
    }

    /// The input of the Gaussian unit whose last node is `node`, and the places of the nodes before it: the
    /// product, in any order, of `x`, 1/2 and `1 + erf(x / sqrt 2)`.
    fn gelu(&self, node: &'g Node) -> Option<(&'g str, [usize; 4])> {
        let [a, b] = operands(node, "Mul")?;
        // Two of the three are multiplied first.
        [(a, b), (b, a)].into_iter().find_map(|(product, third)| {
            let (first, product) = self.only(product, "Mul")?;
            let [one, two] = operands(product, "Mul")?;
            let factors = [(one, two, third), (two, third, one), (third, one, two)];
            let (_, a, b) = factors.into_iter().find(|(half, _, _)| self.is(half, 0.5))?;
            [(a, b), (b, a)].into_iter().find_map(|(x, gate)| {
                let [add, erf, scale] = self.gate(gate, x)?;
                Some((x, [first, add, erf, scale]))
            })
        })
    }

    /// The input of the sigmoid unit whose last node is `node`, and the place of the node before it:
    /// the product of `x` and `sigmoid(x)`.
    fn silu(&self, node: &'g Node) -> Option<(&'g str, usize)> {
        let [a, b] = operands(node, "Mul")?;
        [(a, b), (b, a)].into_iter().find_map(|(x, gate)| {
            let (place, gate) = self.only(gate, "Sigmoid")?;
            (gate.inputs.first().map(String::as_str) == Some(x)).then_some((x, place))
        })
    }

    /// The input of the softmax whose last node is `node`, which puts zeros for what is no number, and the
    /// places of the nodes before it.
    fn softmax(&self, node: &'g Node) -> Option<(&'g str, [usize; 2])> {
        let [condition, zero, shares] = node.inputs.as_slice() else { return None };
        let (asking, is_none) = self.only(condition, "IsNaN")?;
        let softmax = *self.makers.get(shares.as_str())?;
        let made = &self.graph.nodes[softmax];
        let is_it = (&*node.op, &*made.op) == ("Where", "Softmax")
            && is_none.inputs == [shares.as_str()]
            && self.readers.get(shares.as_str()) == Some(&2)
            && made.attributes.get("axis") == Some(&Attribute::Int(-1))
            && self.is(zero, 0.0);
        is_it.then(|| Some((made.inputs.first()?.as_str(), [softmax, asking])))?
    }

    /// The places of the nodes that give `gate`, if it is `1 + erf(x / sqrt 2)`.
    fn gate(&self, gate: &str, x: &str) -> Option<[usize; 3]> {
        let (add, node) = self.only(gate, "Add")?;
        let (erf, node) = self.only(self.beside(node, 1.0)?, "Erf")?;
        let scaled = node.inputs.first()?;
        let (scale, from) = if let Some((scale, node)) = self.only(scaled, "Div") {
            let [from, by] = operands(node, "Div")?;
            (scale, self.is(by, SQRT_2).then_some(from)?)
        } else {
            let (scale, node) = self.only(scaled, "Mul")?;
            (scale, self.beside(node, FRAC_1_SQRT_2)?)
        };
        (from == x).then_some([add, erf, scale])
    }

    /// The node of operator `op` that gives `name`, if there is just one reader of it.
    fn only(&self, name: &str, op: &str) -> Option<(usize, &'g Node)> {
        let index = *self.makers.get(name)?;
        let node = &self.graph.nodes[index];
        let is_it = node.op == op && node.domain.is_empty() && self.readers.get(name) == Some(&1);
        is_it.then_some((index, node))
    }

    /// The operand of `node` whose other one is the constant `value`.
    fn beside(&self, node: &'g Node, value: f64) -> Option<&'g str> {
        match node.inputs.as_slice() {
            [a, b] if self.is(b, value) => Some(a),
            [a, b] if self.is(a, value) => Some(b),
            _ => None,
        }
    }

    /// Whether `name` is the constant `value`, as exactly as exporters write it.
    fn is(&self, name: &str, value: f64) -> bool {
        self.constants.get(name).is_some_and(|found| (found - value).abs() <= 1e-6 * value)
    }
}

fn operands<'g>(node: &'g Node, op: &str) -> Option<[&'g str; 2]> {
    match node.inputs.as_slice() {
        [a, b] if node.op == op && node.domain.is_empty() => Some([a, b]),
        _ => None,
    }
}

fn scalar(values: &[f64]) -> Option<f64> {
    match values {
        &[value] => Some(value),
        _ => None,
    }
}
