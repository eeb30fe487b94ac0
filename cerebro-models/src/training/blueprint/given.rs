//! What a model and a spec say of the graphs before any is drawn: the output, the variables, the
//! inputs.

use std::collections::HashSet;

use cerebro_core::data::ElementType;

use crate::error::GraphError;
use crate::graph::Type;
use crate::import::needed_nodes;
use crate::onnx::{DataType, Dimension, Model, ValueInfo, ValueType};
use crate::training::interface::{DataInput, Initial, Variable, VariableKind};
use crate::training::parameters::Roles;
use crate::training::spec::{InputShapes, TrainingSpec};

pub(super) fn input_name(variable: &str) -> String {
    variable.to_owned()
}

pub(super) fn output_name(variable: &str) -> String {
    format!("{variable}/new")
}

pub(super) fn slot_name(parameter: &str, slot: &str) -> String {
    format!("{parameter}/{slot}")
}

pub(super) fn chosen_output(model: &Model, name: Option<&str>) -> Result<String, GraphError> {
    let outputs = &model.graph.outputs;
    if outputs.is_empty() {
        return Err(GraphError::NoOutput);
    }
    let is_float = |output: &&ValueInfo| match &output.value_type {
        ValueType::Tensor(tensor) => tensor.data_type.is_float(),
        ValueType::Other => false,
    };
    let found = match name {
        Some(name) if outputs.iter().all(|output| output.name != name) => {
            // A value inside: logits before the softmax with which a model ends, say.
            let mut made = model.graph.nodes.iter().flat_map(|node| &node.outputs);
            made.find(|made| *made == name && !name.is_empty())
        }
        Some(name) => outputs.iter().map(|output| &output.name).find(|known| *known == name),
        // Classifiers often give labels first, from which no loss can be computed.
        None => outputs.iter().find(is_float).or(outputs.first()).map(|output| &output.name),
    };
    found.cloned().ok_or_else(|| GraphError::NoSuchOutput {
        name: name.unwrap_or_default().to_owned(),
        known: outputs.iter().map(|output| output.name.clone()).collect(),
    })
}

pub(super) fn variables(model: &Model, spec: &TrainingSpec, roles: &Roles) -> Vec<Variable> {
    let of_model = |name: &String, kind: VariableKind| {
        let tensor = &model.graph.initializers[name];
        Variable {
            name: name.clone(),
            kind,
            data_type: tensor.data_type(),
            dims: tensor.dims().to_vec(),
            initial: Initial::Tensor(tensor.clone()),
            input: input_name(name),
            output: (kind != VariableKind::Frozen).then(|| output_name(name)),
        }
    };
    let mut variables: Vec<Variable> = Vec::new();
    variables.extend(roles.parameters.iter().map(|n| of_model(n, VariableKind::Parameter)));
    variables.extend(roles.frozen.iter().map(|n| of_model(n, VariableKind::Frozen)));
    variables.extend(roles.statistics.iter().map(|n| of_model(n, VariableKind::Statistic)));
    for name in &roles.parameters {
        let tensor = &model.graph.initializers[name];
        for slot in spec.optimizer.slots() {
            let name = slot_name(name, slot.name);
            variables.push(Variable {
                kind: VariableKind::Slot,
                data_type: tensor.data_type(),
                dims: tensor.dims().to_vec(),
                initial: Initial::Fill(slot.initial),
                input: input_name(&name),
                output: Some(output_name(&name)),
                name,
            });
        }
    }
    variables
}

/// The model's inputs that `output` depends on.
pub(super) fn read_inputs(model: &Model, output: &str) -> Vec<ValueInfo> {
    let needed = needed_nodes(&model.graph, &[output]);
    let mut read = HashSet::new();
    for (node, _) in model.graph.nodes.iter().zip(needed).filter(|(_, needed)| *needed) {
        crate::import::for_each_input(node, &mut |name| {
            read.insert(name);
        });
    }
    model.graph.data_inputs().filter(|input| read.contains(input.name.as_str())).cloned().collect()
}

/// The input as it is fed, and the element type that the model wants.
pub(super) fn data_input(
    info: &ValueInfo,
    shapes: &InputShapes,
) -> Result<(DataInput, DataType), GraphError> {
    let ValueType::Tensor(tensor) = &info.value_type else {
        return Err(GraphError::OpenShape {
            name: info.name.clone(),
            declared: "that of no tensor".to_owned(),
        });
    };
    let declared = tensor.dims.as_ref().map_or("any shape".to_owned(), |dims| {
        let sizes: Vec<String> = dims
            .iter()
            .map(|dim| match dim {
                Dimension::Size(size) => size.to_string(),
                Dimension::Symbol(name) => name.clone(),
                Dimension::Unknown => "?".to_owned(),
            })
            .collect();
        format!("[{}]", sizes.join(", "))
    });
    let given = shapes.row_shapes.get(&info.name);
    let dims: Vec<usize> = match (given, &tensor.dims) {
        (Some(row), _) => std::iter::once(shapes.rows).chain(row.iter().copied()).collect(),
        (None, None) => return Err(GraphError::OpenShape { name: info.name.clone(), declared }),
        (None, Some(declared_dims)) => declared_dims
            .iter()
            .enumerate()
            .map(|(axis, dim)| match dim {
                Dimension::Size(size) => Ok(*size),
                _ if axis == 0 => Ok(shapes.rows),
                _ => Err(GraphError::OpenShape {
                    name: info.name.clone(),
                    declared: declared.clone(),
                }),
            })
            .collect::<Result<_, _>>()?,
    };
    let fits = tensor.dims.as_ref().is_none_or(|declared| {
        declared.len() == dims.len()
            && declared.iter().zip(&dims).all(|(declared, size)| match declared {
                Dimension::Size(fixed) => fixed == size,
                _ => true,
            })
    });
    let fits = fits && Type::new(DataType::Bool, dims.as_slice()).is_possible();
    if !fits || dims.first().is_some_and(|&rows| rows != shapes.rows) {
        return Err(GraphError::InputShape { name: info.name.clone(), declared, given: dims });
    }
    let element = if tensor.data_type.is_float() { ElementType::F32 } else { ElementType::I64 };
    Ok((DataInput { name: info.name.clone(), element, dims }, tensor.data_type))
}
