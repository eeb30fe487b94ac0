//! Loops whose number of rounds is known once shapes are: their bodies are applied so many times.

use super::nodes::{Entry, Importer, node_name};
use crate::error::GraphError;
use crate::graph::{Attributes, Value};
use crate::onnx::{Attribute, DataType, Graph, Node, TensorData};

/// The most nodes that the rounds of a loop may make together.
const MOST_NODES: i64 = 1 << 16;

impl Importer<'_, '_> {
    /// Applies the body of a `Loop` once per round. The number of rounds and the condition must not
    /// depend on the data.
    pub(super) fn unroll(&mut self, node: &Node) -> Result<(), GraphError> {
        let Some(Attribute::Graph(body)) = node.attributes.get("body") else {
            return Err(refused(node, "it has no `body`".to_owned()));
        };
        let body: &Graph = body;
        let given = |index: usize| node.inputs.get(index).filter(|name| !name.is_empty());
        let most = MOST_NODES / (body.nodes.len() as i64).max(1);
        let rounds = match given(0) {
            Some(name) => self.integer(name, node)?,
            None => i64::MAX,
        };
        let mut goes_on = match given(1) {
            Some(name) => self.integer(name, node)? != 0,
            None => true,
        };
        let carried: Vec<&String> = node.inputs.iter().skip(2).collect();
        let mut state: Vec<Entry> = Vec::with_capacity(carried.len());
        for name in &carried {
            state.push(self.entry(name, node)?.clone());
        }
        let scanned =
            body.outputs.len().checked_sub(1 + carried.len()).ok_or_else(|| {
                refused(node, format!("its body has {} outputs", body.outputs.len()))
            })?;
        if body.inputs.len() < 2 + carried.len() {
            return Err(refused(node, format!("its body has {} inputs", body.inputs.len())));
        }
        let mut scans: Vec<Vec<Value>> = vec![Vec::new(); scanned];
        let mut round = 0;
        while round < rounds && goes_on {
            if round >= most {
                return Err(refused(
                    node,
                    format!("it cannot be unrolled: more than {most} rounds"),
                ));
            }
            let number = self.forward.graph.constant(TensorData::from_i64(&[], &[round]));
            self.define(&body.inputs[0].name, number);
            let condition = TensorData::from_integers(DataType::Bool, &[], &[1]);
            let condition = self.forward.graph.constant(condition);
            self.define(&body.inputs[1].name, condition);
            for (input, entry) in body.inputs[2..].iter().zip(state.drain(..)) {
                self.bind(&input.name, entry);
            }
            self.run(body, None)?;
            goes_on = self.integer(&body.outputs[0].name, node)? != 0;
            for output in &body.outputs[1..=carried.len()] {
                state.push(self.entry(&output.name, node)?.clone());
            }
            for (scan, output) in scans.iter_mut().zip(&body.outputs[1 + carried.len()..]) {
                scan.push(self.operand(&output.name, node)?);
            }
            round += 1;
        }
        for (name, entry) in node.outputs.iter().zip(&state) {
            self.bind(name, entry.clone());
        }
        for (name, scan) in node.outputs.iter().skip(carried.len()).zip(scans) {
            let stacked = self.stacked(&scan).map_err(|reason| refused(node, reason))?;
            self.define(name, stacked);
        }
        Ok(())
    }

    /// The values along a new first axis.
    fn stacked(&mut self, values: &[Value]) -> Result<Value, String> {
        if values.is_empty() {
            return Err("it has no rounds, and its outputs no shape".to_owned());
        }
        let axes = self.forward.graph.ints(&[0]);
        let mut parts = Vec::with_capacity(values.len());
        for value in values {
            let inputs = [Some(*value), Some(axes)];
            parts.push(Some(self.forward.apply("Unsqueeze", &inputs, Attributes::none())?));
        }
        self.forward.apply("Concat", &parts, Attributes::none().with("axis", 0))
    }
}

fn refused(node: &Node, reason: String) -> GraphError {
    GraphError::Refused { op: node.op.clone(), node: node_name(node), reason }
}
