//! Which nodes an output depends on.

use std::collections::HashSet;

use super::STRUCTURAL;
use super::nodes::node_name;
use crate::error::GraphError;
use crate::onnx::{Attribute, Graph, Node};
use crate::operators;

/// For each node of `graph`, whether one of `outputs` depends on it.
pub(crate) fn needed_nodes(graph: &Graph, outputs: &[&str]) -> Vec<bool> {
    let mut needed: HashSet<&str> = outputs.iter().copied().collect();
    let mut kept = vec![false; graph.nodes.len()];
    for (node, keep) in graph.nodes.iter().zip(&mut kept).rev() {
        if node.outputs.iter().any(|output| needed.contains(output.as_str())) {
            *keep = true;
            for_each_input(node, &mut |name| {
                needed.insert(name);
            });
        }
    }
    kept
}

/// Calls `visit` with the name of every value that `node` reads, in subgraphs too.
pub(crate) fn for_each_input<'n>(node: &'n Node, visit: &mut impl FnMut(&'n str)) {
    for input in node.inputs.iter().filter(|input| !input.is_empty()) {
        visit(input);
    }
    for attribute in node.attributes.values() {
        if let Attribute::Graph(graph) = attribute {
            for output in &graph.outputs {
                visit(&output.name);
            }
            for inner in &graph.nodes {
                for_each_input(inner, visit);
            }
        }
    }
}

/// Checks that every node on which `output` depends has a known operator and reads what there is,
/// before any shape is known; branches are checked when one is taken.
pub(crate) fn check_nodes(graph: &Graph, output: &str) -> Result<(), GraphError> {
    let inputs = graph.inputs.iter().map(|input| input.name.as_str());
    let initializers = graph.initializers.keys().map(String::as_str);
    let mut known: HashSet<&str> = inputs.chain(initializers).collect();
    let needed = needed_nodes(graph, &[output]);
    for (node, needed) in graph.nodes.iter().zip(needed) {
        known.extend(node.outputs.iter().map(String::as_str));
        if !needed {
            continue;
        }
        let missing = |name: &&String| !name.is_empty() && !known.contains(name.as_str());
        if let Some(value) = node.inputs.iter().find(missing) {
            let node = node_name(node);
            return Err(GraphError::NoSuchValue { node, value: value.clone() });
        }
        let op = full_name(node);
        if !STRUCTURAL.contains(&op.as_str()) && operators::find(&op).is_none() {
            return Err(GraphError::unsupported(&op, &node_name(node)));
        }
    }
    Ok(())
}

/// The operator's name, with its domain if it is not ONNX's own.
pub(super) fn full_name(node: &Node) -> String {
    if node.domain.is_empty() { node.op.clone() } else { format!("{}.{}", node.domain, node.op) }
}
