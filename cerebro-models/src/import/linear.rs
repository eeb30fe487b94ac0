//! Linear models as scikit-learn's exporter writes them: operators of the domain `ai.onnx.ml`, whose
//! weights are attributes. They become standard nodes, and the weights initializers.
//!
//! Source of the formulas: `Operators-ml.md` of the ONNX project.

use crate::error::GraphError;
use crate::onnx::{Attribute, DataType, Graph, Model, Node, TensorData};

use super::nodes::node_name;

const DOMAIN: &str = "ai.onnx.ml";

/// Replaces the nodes of `model` that are linear models or their preparation. Others of the domain
/// stay, and are refused if an output that is trained depends on them.
pub(crate) fn lower_linear_models(model: &mut Model) -> Result<(), GraphError> {
    let nodes = std::mem::take(&mut model.graph.nodes);
    for node in nodes {
        match (node.domain.as_str(), node.op.as_str()) {
            (DOMAIN, "LinearRegressor") => {
                let scores = output(&node, 0)?.to_owned();
                linear(&mut model.graph, &node, &scores)?;
                transformed(&node, &scores, &scores)?;
            }
            (DOMAIN, "LinearClassifier") => classifier(&mut model.graph, &node)?,
            (DOMAIN, "Scaler") => scaler(&mut model.graph, &node)?,
            (DOMAIN, "Normalizer") => normalizer(&mut model.graph, &node)?,
            _ => model.graph.nodes.push(node),
        }
    }
    Ok(())
}

/// `scores = x coefficients^T + intercepts`, with the two as initializers named after the node.
fn linear(graph: &mut Graph, node: &Node, scores: &str) -> Result<(), GraphError> {
    let coefficients = floats(node, "coefficients");
    let mut intercepts = floats(node, "intercepts").to_vec();
    let rows = match (intercepts.len(), node.attributes.get("targets")) {
        (0, Some(Attribute::Int(targets))) => usize::try_from(*targets).unwrap_or(0),
        (0, _) => 1,
        (rows, _) => rows,
    };
    intercepts.resize(rows, 0.0);
    let columns = coefficients.len().checked_div(rows).unwrap_or(0);
    if columns == 0 || columns * rows != coefficients.len() {
        let count = coefficients.len();
        return Err(refused(node, format!("{count} coefficients for {rows} outputs")));
    }
    let name = node_name(node);
    let (weight, bias) = (format!("{name}.coefficients"), format!("{name}.intercepts"));
    let x = as_floats(graph, node)?;
    let product = Node::new("Gemm", [x.as_str(), &weight, &bias], [scores]).with("transB", 1);
    push(graph, node, product);
    graph.initializers.insert(weight, TensorData::from_f32(&[rows, columns], coefficients));
    graph.initializers.insert(bias, TensorData::from_f32(&[rows], &intercepts));
    Ok(())
}

/// Scores under the name `NODE.scores`, from which a loss of logits can be computed; then labels
/// and probabilities.
fn classifier(graph: &mut Graph, node: &Node) -> Result<(), GraphError> {
    let scores = format!("{}.scores", node_name(node));
    linear(graph, node, &scores)?;
    let classes = match node.attributes.get("classlabels_ints") {
        Some(Attribute::Ints(classes)) => classes.clone(),
        _ => Vec::new(),
    };
    if floats(node, "intercepts").len() == 1 {
        return Err(refused(node, "one score for two classes cannot be handled".to_owned()));
    }
    if let (Some(label), false) = (node.outputs.first(), classes.is_empty()) {
        let (place, labels) = (format!("{label}.place"), format!("{label}.labels"));
        let largest = Node::new("ArgMax", [scores.as_str()], [place.as_str()]);
        push(graph, node, largest.with("axis", 1).with("keepdims", 0));
        let tensor = TensorData::from_i64(&[classes.len()], &classes);
        graph.initializers.insert(labels.clone(), tensor);
        push(graph, node, Node::new("Gather", [labels.as_str(), &place], [label.as_str()]));
    }
    let output = output(node, 1)?;
    let last = transformed(node, &scores, output)?;
    let last = last.unwrap_or_else(|| Node::new("Identity", [scores.as_str()], [output]));
    push(graph, node, last);
    Ok(())
}

/// The node of `post_transform`; none where there is nothing to do.
fn transformed(node: &Node, from: &str, to: &str) -> Result<Option<Node>, GraphError> {
    match node.attributes.get("post_transform") {
        None => Ok(None),
        Some(Attribute::String(name)) => match name.as_str() {
            "NONE" => Ok(None),
            "SOFTMAX" if from != to => Ok(Some(Node::new("Softmax", [from], [to]).with("axis", 1))),
            "LOGISTIC" if from != to => Ok(Some(Node::new("Sigmoid", [from], [to]))),
            other => Err(refused(node, format!("post_transform `{other}` cannot be handled"))),
        },
        Some(_) => Err(refused(node, "its post_transform is no text".to_owned())),
    }
}

/// `(x - offset) * scale`: statistics of the data, which are not trained.
fn scaler(graph: &mut Graph, node: &Node) -> Result<(), GraphError> {
    let output = output(node, 0)?;
    let mut x = as_floats(graph, node)?;
    for (attribute, op, name) in
        [("offset", "Sub", format!("{output}.centred")), ("scale", "Mul", output.to_owned())]
    {
        let values = floats(node, attribute);
        let constant = format!("{output}.{attribute}");
        let neutral = [if op == "Sub" { 0.0 } else { 1.0 }];
        let values = if values.is_empty() { &neutral } else { values };
        let tensor = TensorData::from_f32(&[values.len()], values);
        let value = Node::new("Constant", [], [constant.as_str()]);
        push(graph, node, value.with("value", Attribute::Tensor(tensor)));
        push(graph, node, Node::new(op, [x.as_str(), &constant], [name.as_str()]));
        x = name;
    }
    Ok(())
}

fn normalizer(graph: &mut Graph, node: &Node) -> Result<(), GraphError> {
    let order = match node.attributes.get("norm") {
        Some(Attribute::String(norm)) if norm == "L1" => 1,
        Some(Attribute::String(norm)) if norm == "L2" => 2,
        _ => return Err(refused(node, "its norm is neither L1 nor L2".to_owned())),
    };
    let x = as_floats(graph, node)?;
    let norm = Node::new("LpNormalization", [x.as_str()], [output(node, 0)?]);
    push(graph, node, norm.with("axis", 1).with("p", order));
    Ok(())
}

/// The name of the node's input as 32-bit floats.
fn as_floats(graph: &mut Graph, node: &Node) -> Result<String, GraphError> {
    let input = node.inputs.first().filter(|name| !name.is_empty());
    let input = input.ok_or_else(|| refused(node, "input 0 is missing".to_owned()))?;
    let name = format!("{}.floats", output(node, 0)?);
    let cast = Node::new("Cast", [input.as_str()], [name.as_str()]);
    push(graph, node, cast.with("to", DataType::Float32.code()));
    Ok(name)
}

fn push(graph: &mut Graph, of: &Node, mut node: Node) {
    node.name = node_name(of);
    graph.nodes.push(node);
}

fn floats<'n>(node: &'n Node, name: &str) -> &'n [f32] {
    match node.attributes.get(name) {
        Some(Attribute::Floats(values)) => values,
        _ => &[],
    }
}

fn output(node: &Node, index: usize) -> Result<&str, GraphError> {
    let name = node.outputs.get(index).map(String::as_str).filter(|name| !name.is_empty());
    name.ok_or_else(|| refused(node, format!("output {index} is missing")))
}

fn refused(node: &Node, reason: String) -> GraphError {
    let op = format!("{}.{}", node.domain, node.op);
    GraphError::Refused { op, node: node_name(node), reason }
}
