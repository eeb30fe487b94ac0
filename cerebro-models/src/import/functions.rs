//! Functions: their bodies take the place of the nodes that call them.

use std::collections::HashMap;

use crate::error::GraphError;
use crate::onnx::{Attribute, Function, Graph, Model, Node};

/// How deep functions may call functions.
const DEPTH_LIMIT: usize = 64;

/// The bytes of all bodies together. Functions that call functions twice at each of several levels
/// make a small file a huge graph.
const SIZE_LIMIT: usize = 1 << 28;

/// Names of inlined nodes are for messages, and are cut to so many characters.
const NAME_LIMIT: usize = 200;

/// Replaces every node that calls a function of the model by the function's body.
pub(crate) fn inline_functions(model: &mut Model) -> Result<(), GraphError> {
    if model.functions.is_empty() {
        return Ok(());
    }
    let functions: HashMap<(&str, &str), &Function> = model
        .functions
        .iter()
        .map(|function| ((function.domain.as_str(), function.name.as_str()), function))
        .collect();
    let mut inliner = Inliner { functions, calls: 0, bytes: 0 };
    let nodes = inliner.inline(&model.graph.nodes, 0)?;
    model.graph.nodes = nodes;
    model.functions.clear();
    Ok(())
}

struct Inliner<'m> {
    functions: HashMap<(&'m str, &'m str), &'m Function>,
    calls: usize,
    /// The size of all bodies that were inlined.
    bytes: usize,
}

impl Inliner<'_> {
    fn inline(&mut self, nodes: &[Node], depth: usize) -> Result<Vec<Node>, GraphError> {
        let mut inlined = Vec::with_capacity(nodes.len());
        for node in nodes {
            match self.functions.get(&(node.domain.as_str(), node.op.as_str())).copied() {
                None => inlined.push(self.with_inlined_subgraphs(node, depth)?),
                Some(_) if depth >= DEPTH_LIMIT => {
                    return Err(GraphError::Refused {
                        op: node.op.clone(),
                        node: node.name.clone(),
                        reason: format!("functions call each other more than {DEPTH_LIMIT} deep"),
                    });
                }
                Some(function) => {
                    self.calls += 1;
                    self.bytes = self.bytes.saturating_add(size(&function.nodes));
                    if self.bytes > SIZE_LIMIT {
                        return Err(GraphError::Refused {
                            op: node.op.clone(),
                            node: node.name.clone(),
                            reason: format!(
                                "the bodies of all functions take more than {SIZE_LIMIT} bytes"
                            ),
                        });
                    }
                    let body = instantiate(function, node, self.calls);
                    inlined.extend(self.inline(&body, depth + 1)?);
                }
            }
        }
        Ok(inlined)
    }

    fn with_inlined_subgraphs(&mut self, node: &Node, depth: usize) -> Result<Node, GraphError> {
        let mut node = node.clone();
        for attribute in node.attributes.values_mut() {
            if let Attribute::Graph(graph) = attribute {
                graph.nodes = self.inline(&graph.nodes, depth)?;
            }
        }
        Ok(node)
    }
}

/// The body of `function` as called by `call`: parameters become the caller's values, values of
/// the body get names of their own, references to attributes their values.
fn instantiate(function: &Function, call: &Node, number: usize) -> Vec<Node> {
    let mut names: HashMap<&str, String> = HashMap::new();
    for (index, parameter) in function.inputs.iter().enumerate() {
        names.insert(parameter, call.inputs.get(index).cloned().unwrap_or_default());
    }
    for (index, result) in function.outputs.iter().enumerate() {
        let output = call.outputs.get(index).filter(|output| !output.is_empty());
        if let Some(output) = output.filter(|_| !function.inputs.contains(result)) {
            names.insert(result, output.clone());
        }
    }
    let prefix = format!("{}#{number}", cut(&function.name));
    let resolve = |name: &str| -> Option<Attribute> {
        call.attributes.get(name).or_else(|| function.defaults.get(name)).cloned()
    };
    let scope = Scope { prefix: &prefix, names: &names, resolve: &resolve };
    let mut body: Vec<Node> = function.nodes.iter().map(|node| scope.node(node)).collect();
    // A result that is a parameter handed through has no node that could make it.
    for (index, result) in function.outputs.iter().enumerate() {
        let parameter = function.inputs.iter().position(|input| input == result);
        if let (Some(parameter), Some(output)) = (parameter, call.outputs.get(index)) {
            let input = call.inputs.get(parameter).map_or("", String::as_str);
            body.push(Node::new("Identity", [input], [output.as_str()]));
        }
    }
    for node in &mut body {
        let path = format!("{}/{}", call.name, node.name);
        cut(&path).clone_into(&mut node.name);
    }
    body
}

fn cut(name: &str) -> &str {
    name.char_indices().nth(NAME_LIMIT).map_or(name, |(end, _)| &name[..end])
}

/// About how many bytes nodes take.
fn size(nodes: &[Node]) -> usize {
    let of_names = |names: &[String]| names.iter().map(|name| 24 + name.len()).sum::<usize>();
    let of_attribute = |attribute: &Attribute| match attribute {
        Attribute::String(text) | Attribute::Reference(text) => text.len(),
        Attribute::Floats(values) => 4 * values.len(),
        Attribute::Ints(values) => 8 * values.len(),
        Attribute::Strings(texts) => of_names(texts),
        Attribute::Graph(graph) => {
            let initializers = graph.initializers.keys().map(|name| 100 + name.len());
            size(&graph.nodes) + initializers.sum::<usize>()
        }
        _ => 0,
    };
    let of_node = |node: &Node| {
        let attributes = node.attributes.iter();
        let attributes = attributes.map(|(name, value)| 100 + name.len() + of_attribute(value));
        200 + NAME_LIMIT
            + node.op.len()
            + of_names(&node.inputs)
            + of_names(&node.outputs)
            + attributes.sum::<usize>()
    };
    nodes.iter().map(of_node).sum()
}

struct Scope<'a> {
    prefix: &'a str,
    names: &'a HashMap<&'a str, String>,
    resolve: &'a dyn Fn(&str) -> Option<Attribute>,
}

impl Scope<'_> {
    fn name(&self, name: &str) -> String {
        match self.names.get(name) {
            Some(known) => known.clone(),
            None if name.is_empty() => String::new(),
            None => format!("{}/{name}", self.prefix),
        }
    }

    fn node(&self, node: &Node) -> Node {
        let attributes = node.attributes.iter().filter_map(|(name, value)| {
            let value = match value {
                Attribute::Reference(of) => (self.resolve)(of)?,
                Attribute::Graph(graph) => Attribute::Graph(Box::new(self.graph(graph))),
                other => other.clone(),
            };
            Some((name.clone(), value))
        });
        Node {
            op: node.op.clone(),
            domain: node.domain.clone(),
            name: node.name.clone(),
            inputs: node.inputs.iter().map(|name| self.name(name)).collect(),
            outputs: node.outputs.iter().map(|name| self.name(name)).collect(),
            attributes: attributes.collect(),
        }
    }

    fn graph(&self, graph: &Graph) -> Graph {
        let mut copy = graph.clone();
        copy.nodes = graph.nodes.iter().map(|node| self.node(node)).collect();
        for value in copy.inputs.iter_mut().chain(&mut copy.outputs) {
            value.name = self.name(&value.name);
        }
        copy.initializers = graph
            .initializers
            .iter()
            .map(|(name, tensor)| (self.name(name), tensor.clone()))
            .collect();
        copy
    }
}
