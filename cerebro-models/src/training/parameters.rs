//! Which constant tensors of a model are its parameters, and which its running statistics.

use std::collections::{HashMap, HashSet};

use super::pattern::matches;
use super::signature::Signature;
use super::spec::{Selection, TrainingSpec};
use crate::error::GraphError;
use crate::import::{for_each_input, needed_nodes};
use crate::onnx::{Graph, Node, TensorData};

/// The initializers of a model that trials own.
#[derive(Clone, Debug, Default)]
pub(super) struct Roles {
    /// The weights that are trained.
    pub(super) parameters: Vec<String>,
    /// The weights that stay as they are.
    pub(super) frozen: Vec<String>,
    /// Running statistics.
    pub(super) statistics: Vec<String>,
}

/// Finds the roles of the initializers of `graph` on which `output` depends.
pub(super) fn roles(
    graph: &Graph,
    signature: Option<&Signature>,
    spec: &TrainingSpec,
    output: &str,
) -> Result<Roles, GraphError> {
    let needed = needed_nodes(graph, &[output]);
    let mut statistics = HashSet::new();
    let mut weights = HashSet::new();
    for (node, _) in graph.nodes.iter().zip(&needed).filter(|(_, needed)| **needed) {
        let mut index = 0;
        for_each_input(node, &mut |name| {
            let position = node.inputs.iter().position(|input| input == name);
            match (node.op.as_str(), position) {
                ("BatchNormalization", Some(3 | 4)) => statistics.insert(name),
                (op, Some(position)) if is_setting(op, position) => false,
                _ => weights.insert(name),
            };
            index += 1;
        });
    }
    let names = |wanted: &dyn Fn(&str, &TensorData) -> bool| -> Vec<String> {
        let all = graph.initializers.iter();
        all.filter(|(name, tensor)| wanted(name, tensor)).map(|(name, _)| name.clone()).collect()
    };
    let trainable = |name: &str, tensor: &TensorData| {
        tensor.data_type().is_float()
            && weights.contains(name)
            && !statistics.contains(name)
            && tensor.elements() > 0
    };
    let selected = match &spec.parameters {
        Selection::Automatic => {
            let kept = names(&|name, tensor| trainable(name, tensor) && is_called_statistic(name));
            for name in kept {
                tracing::warn!(
                    "`{name}` is a running statistic, but no batch normalization's own: it stays as \
                     it is, and normalizes in training too. PyTorch's exporters write an instance \
                     normalization with `track_running_stats=True` so, and that is not what PyTorch \
                     trains: export it without"
                );
            }
            names(&|name, tensor| {
                trainable(name, tensor)
                    && !tensor.dims().is_empty()
                    && !is_called_statistic(name)
                    && signature.is_none_or(|own| own.is_parameter(graph, name, tensor))
                    && !tensor.to_f64s().contains(&f64::NEG_INFINITY)
            })
        }
        Selection::Named(wanted) => {
            for name in wanted {
                let found = graph.initializers.get(name);
                if !found.is_some_and(|tensor| tensor.data_type().is_float()) {
                    return Err(GraphError::NoSuchParameter {
                        name: name.clone(),
                        known: names(&|name, tensor| trainable(name, tensor)),
                    });
                }
            }
            let mut seen = HashSet::new();
            wanted.iter().filter(|name| seen.insert(*name)).cloned().collect()
        }
    };
    if selected.is_empty() {
        return Err(GraphError::NoParameter { output: output.to_owned() });
    }
    for pattern in &spec.frozen {
        if !selected.iter().any(|name| matches(pattern, name)) {
            let (pattern, known) = (pattern.clone(), selected);
            return Err(GraphError::NothingToFreeze { pattern, known });
        }
    }
    let is_frozen = |name: &String| spec.frozen.iter().any(|pattern| matches(pattern, name));
    let (frozen, parameters): (Vec<_>, Vec<_>) = selected.into_iter().partition(is_frozen);
    if parameters.is_empty() {
        return Err(GraphError::AllFrozen { patterns: spec.frozen.clone() });
    }
    for name in &parameters {
        let values = graph.initializers[name].to_f64s();
        if let Some(&value) = values.iter().find(|value| !value.is_finite()) {
            return Err(GraphError::NotFinite { name: name.clone(), value });
        }
    }
    let statistics = names(&|name, _| statistics.contains(name));
    Ok(Roles { parameters, frozen, statistics })
}

/// Whether `name` is what PyTorch calls running statistics.
fn is_called_statistic(name: &str) -> bool {
    ["running_mean", "running_var"].iter().any(|end| name.ends_with(end))
}

/// Whether input number `position` of operator `op` is a setting rather than data: bounds, ratios,
/// scales of an image or of a quantization, regions, what is filled in.
fn is_setting(op: &str, position: usize) -> bool {
    match op {
        "Clip" | "Dropout" | "Pad" | "Resize" | "Upsample" | "OneHot" | "QuantizeLinear"
        | "DequantizeLinear" | "RoiAlign" => position > 0,
        "Range" | "Shape" | "Size" | "ConstantOfShape" => true,
        "CastLike" => position == 1,
        _ => false,
    }
}

/// Gives weights and statistics of their own to places that an exporter made share one tensor
/// because the values were equal.
///
/// PyTorch's older exporter replaces an initializer whose values equal another's by an `Identity`
/// node over that other one, which keeps the parameter's name. Random values are never equal by
/// accident: a tensor whose elements differ is shared because the weights are tied, and stays
/// shared. One filled with a single number (the ones and zeros of a fresh normalization) is not
/// tied: each place gets its own, as do places that `named` asks for.
pub(super) fn untie(graph: &mut Graph, named: &[String]) {
    let initializers = &graph.initializers;
    let mut separate: HashMap<String, TensorData> = HashMap::new();
    graph.nodes.retain(|node| {
        let copy = match (node.op.as_str(), node.inputs.first(), node.outputs.first()) {
            ("Identity", Some(input), Some(output)) => initializers
                .get(input)
                .filter(|tensor| is_uniform(tensor) || named.contains(output))
                .filter(|tensor| tensor.data_type().is_float() && !tensor.dims().is_empty())
                .map(|tensor| (output, tensor)),
            _ => None,
        };
        if let Some((output, tensor)) = copy {
            separate.insert(output.clone(), tensor.clone());
        }
        copy.is_none()
    });
    let mut separate: Vec<_> = separate.into_iter().collect();
    separate.sort_by(|a, b| a.0.cmp(&b.0));
    graph.initializers.extend(separate);
    untie_normalizations(graph);
}

/// Optimizers of graphs merge equal initializers without an `Identity`: scales, biases and
/// statistics of several normalizations that are one uniform tensor.
fn untie_normalizations(graph: &mut Graph) {
    let mut used: HashSet<String> = HashSet::new();
    for node in &mut graph.nodes {
        if !node.op.ends_with("Normalization") {
            continue;
        }
        let place = if node.name.is_empty() { node.outputs.first() } else { Some(&node.name) };
        let place = place.cloned().unwrap_or_default();
        for (index, input) in node.inputs.iter_mut().enumerate().skip(1) {
            let Some(tensor) = graph.initializers.get(input).filter(|t| is_uniform(t)) else {
                continue;
            };
            if used.insert(input.clone()) {
                continue;
            }
            let role = ["input", "scale", "bias", "mean", "variance"].get(index);
            let name = format!("{place}.{}", role.copied().unwrap_or("input"));
            let tensor = tensor.clone();
            graph.initializers.insert(name.clone(), tensor);
            *input = name;
        }
    }
}

/// Ties matrices of which one is the other transposed.
///
/// Exporters that fold constants turn the weight of a last layer once and for all, also where it is
/// the table of embeddings too, which is read as it is: the file then holds both. They become one
/// parameter and a `Transpose`, unless both are `named`. Symmetric matrices, such as identities, may be
/// equal without being tied.
pub(super) fn tie(graph: &mut Graph, named: &[String]) {
    let may_be_tied = |tensor: &TensorData| {
        tensor.data_type().is_float()
            && matches!(tensor.dims(), &[rows, columns] if rows > 1 && columns > 1)
            && !is_uniform(tensor)
            && !is_transposed(tensor, tensor)
    };
    let all = graph.initializers.iter().filter(|(_, tensor)| may_be_tied(tensor));
    let all: Vec<(&String, &TensorData)> = all.collect();
    let looked_up: HashSet<&String> = graph
        .nodes
        .iter()
        .filter(|node| node.op == "Gather")
        .filter_map(|node| node.inputs.first())
        .collect();
    // Of two the parameter is the one that was asked for, or else the table of embeddings.
    let is_parameter = |name: &String| {
        if named.is_empty() { looked_up.contains(name) } else { named.contains(name) }
    };
    let mut turned: Vec<(String, String)> = Vec::new();
    for (name, tensor) in all.iter().filter(|(name, _)| is_parameter(name)) {
        let others =
            all.iter().filter(|(other, copy)| !is_parameter(other) && is_transposed(tensor, copy));
        turned.extend(others.map(|(other, _)| ((*name).clone(), (*other).clone())));
    }
    for (name, other) in turned {
        if graph.initializers.shift_remove(&other).is_some() {
            let transpose = Node::new("Transpose", [name.as_str()], [other.as_str()]);
            graph.nodes.insert(0, transpose.with("perm", vec![1, 0]));
        }
    }
}

/// Whether `other` is the matrix `tensor` transposed.
fn is_transposed(tensor: &TensorData, other: &TensorData) -> bool {
    let (&[rows, columns], data_type) = (tensor.dims(), tensor.data_type()) else { return false };
    if other.dims() != [columns, rows] || other.data_type() != data_type {
        return false;
    }
    let width = data_type.bytes();
    let equal = |row: usize, column: usize| {
        let (here, there) = (width * (row * columns + column), width * (column * rows + row));
        tensor.bytes()[here..here + width] == other.bytes()[there..there + width]
    };
    (0..rows).all(|row| (0..columns).all(|column| equal(row, column)))
}

fn is_uniform(tensor: &TensorData) -> bool {
    let width = tensor.data_type().bytes();
    let mut elements = tensor.bytes().chunks_exact(width);
    let first = elements.next();
    elements.all(|element| Some(element) == first)
}
