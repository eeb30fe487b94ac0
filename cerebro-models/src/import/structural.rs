//! Nodes that are resolved while importing: constants, names, branches, sequences.

use super::nodes::{Entry, Importer, node_name};
use crate::error::GraphError;
use crate::graph::{Attributes, Value, normalize_axis};
use crate::onnx::{Attribute, DataType, Graph, Node, TensorData};

/// The operators that importing resolves: supported without being in the table.
pub(crate) const STRUCTURAL: [&str; 13] = [
    "Constant",
    "If",
    "Loop",
    "NonZero",
    "Optional",
    "OptionalGetElement",
    "SequenceConstruct",
    "SequenceEmpty",
    "SequenceAt",
    "SequenceInsert",
    "SequenceLength",
    "SplitToSequence",
    "ConcatFromSequence",
];

/// The longest axis that is cut into a sequence.
const MOST_PARTS: usize = 1 << 16;

impl Importer<'_, '_> {
    /// Resolves `node` if it is one of [`STRUCTURAL`] or an `Identity`.
    pub(super) fn structural(&mut self, node: &Node) -> Result<bool, GraphError> {
        if !node.domain.is_empty() {
            return Ok(false);
        }
        match node.op.as_str() {
            "Constant" => {
                let tensor = constant_of(node).ok_or_else(|| {
                    refused(node, "its value is of a kind that cannot be handled".to_owned())
                })?;
                let value = self.forward.graph.constant(tensor);
                self.define(output(node, 0)?, value);
            }
            "Identity" | "Optional" | "OptionalGetElement" => {
                let entry = self.entry(input(node, 0)?, node)?.clone();
                self.bind(output(node, 0)?, entry);
            }
            "If" => self.branch(node)?,
            "Loop" => self.unroll(node)?,
            "NonZero" => self.non_zero(node)?,
            "SequenceEmpty" => self.bind(output(node, 0)?, Entry::Sequence(Vec::new())),
            "SequenceConstruct" => {
                let values = node.inputs.iter().map(|name| self.operand(name, node));
                let values = values.collect::<Result<_, _>>()?;
                self.bind(output(node, 0)?, Entry::Sequence(values));
            }
            "SequenceAt" => {
                let values = self.sequence(node)?;
                let index = self.integer(input(node, 1)?, node)?;
                let index = normalize_axis(index, values.len()).map_err(|_| {
                    refused(node, format!("place {index} of {} tensors", values.len()))
                })?;
                self.define(output(node, 0)?, values[index]);
            }
            "SequenceInsert" => {
                let mut values = self.sequence(node)?;
                let value = self.operand(input(node, 1)?, node)?;
                let index = match node.inputs.get(2).filter(|name| !name.is_empty()) {
                    None => values.len(),
                    Some(name) => {
                        let index = self.integer(name, node)?;
                        normalize_axis(index, values.len() + 1)
                            .map_err(|reason| refused(node, reason))?
                    }
                };
                values.insert(index, value);
                self.bind(output(node, 0)?, Entry::Sequence(values));
            }
            "SequenceLength" => {
                let length = self.sequence(node)?.len() as i64;
                let value = self.forward.graph.constant(TensorData::from_i64(&[], &[length]));
                self.define(output(node, 0)?, value);
            }
            "SplitToSequence" => self.split_to_sequence(node)?,
            "ConcatFromSequence" => self.concat_from_sequence(node)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn sequence(&self, node: &Node) -> Result<Vec<Value>, GraphError> {
        match self.entry(input(node, 0)?, node)? {
            Entry::Sequence(values) => Ok(values.clone()),
            Entry::Tensor(_) => Err(refused(node, "its input is no sequence".to_owned())),
        }
    }

    /// The constant integer called `name`.
    pub(super) fn integer(&self, name: &str, node: &Node) -> Result<i64, GraphError> {
        let value = self.operand(name, node)?;
        let constant = self.forward.graph.constant_of(value).and_then(TensorData::to_i64s);
        constant.and_then(|values| values.first().copied()).ok_or_else(|| {
            refused(node, format!("`{name}` should be a constant integer, and depends on the data"))
        })
    }

    /// Takes the branch that the condition, which must be constant, selects.
    fn branch(&mut self, node: &Node) -> Result<(), GraphError> {
        let condition = self.integer(input(node, 0)?, node)?;
        let name = if condition != 0 { "then_branch" } else { "else_branch" };
        let Some(Attribute::Graph(branch)) = node.attributes.get(name) else {
            return Err(refused(node, format!("it has no `{name}`")));
        };
        let branch: &Graph = branch;
        self.run(branch, None)?;
        for (from, to) in branch.outputs.iter().zip(&node.outputs) {
            let entry = self.entry(&from.name, node)?.clone();
            self.bind(to, entry);
        }
        Ok(())
    }

    /// The places of the elements that are not zero, a row of indices per axis.
    fn non_zero(&mut self, node: &Node) -> Result<(), GraphError> {
        let name = input(node, 0)?;
        let value = self.operand(name, node)?;
        let constant = self.forward.graph.constant_of(value).ok_or_else(|| {
            let found = format!("how many elements of `{name}` are not zero depends on the data");
            refused(node, format!("{found}, and shapes must not: use a mask instead of indices"))
        })?;
        let (dims, values) = (constant.dims().to_vec(), constant.to_f64s());
        let places = (0..values.len()).filter(|&place| values[place] != 0.0);
        let places: Vec<usize> = places.collect();
        let indices: Vec<i64> = (0..dims.len())
            .flat_map(|axis| {
                let stride: usize = dims[axis + 1..].iter().product();
                places.iter().map(move |place| (place / stride, axis))
            })
            .map(|(index, axis)| (index % dims[axis]) as i64)
            .collect();
        let indices = TensorData::from_i64(&[dims.len(), places.len()], &indices);
        let indices = self.forward.graph.constant(indices);
        self.define(output(node, 0)?, indices);
        Ok(())
    }

    fn split_to_sequence(&mut self, node: &Node) -> Result<(), GraphError> {
        let x = self.operand(input(node, 0)?, node)?;
        let dims = self.forward.graph.dims(x).to_vec();
        let attributes = Attributes(node.attributes.clone());
        let axis = normalize_axis(attributes.int("axis", 0), dims.len())
            .map_err(|reason| refused(node, reason))?;
        let split = node.inputs.get(1).filter(|name| !name.is_empty());
        if dims[axis] > MOST_PARTS {
            return Err(refused(node, format!("{} parts are too many", dims[axis])));
        }
        let sizes: Vec<i64> = match split {
            None => vec![1; dims[axis]],
            Some(name) => {
                let value = self.operand(name, node)?;
                let constant = self.forward.graph.constant_of(value).cloned();
                let given = constant
                    .ok_or_else(|| refused(node, format!("`{name}` should be constant")))?;
                let sizes = given.to_i64s().unwrap_or_default();
                match (given.dims().len(), sizes.first()) {
                    (0, Some(&size)) if size > 0 => chunks(dims[axis] as i64, size),
                    (0, _) => return Err(refused(node, "the size of its parts is 0".to_owned())),
                    _ => sizes,
                }
            }
        };
        let count = sizes.len();
        let sizes = self.forward.graph.ints(&sizes);
        let parts = Attributes::none().with("axis", axis as i64);
        let mut parts = self
            .forward
            .apply_with_outputs("Split", &[Some(x), Some(sizes)], parts, count)
            .map_err(|reason| refused(node, reason))?;
        if split.is_none() && attributes.int("keepdims", 1) == 0 {
            let axes = self.forward.graph.ints(&[axis as i64]);
            for part in &mut parts {
                *part = self
                    .forward
                    .apply("Squeeze", &[Some(*part), Some(axes)], Attributes::none())
                    .map_err(|reason| refused(node, reason))?;
            }
        }
        self.bind(output(node, 0)?, Entry::Sequence(parts));
        Ok(())
    }

    fn concat_from_sequence(&mut self, node: &Node) -> Result<(), GraphError> {
        let mut values: Vec<Option<Value>> = self.sequence(node)?.into_iter().map(Some).collect();
        let attributes = Attributes(node.attributes.clone());
        let axis = attributes.int("axis", 0);
        let applied = (|| {
            if attributes.flag("new_axis") {
                let axes = self.forward.graph.ints(&[axis]);
                for value in &mut values {
                    let inputs = [*value, Some(axes)];
                    *value = Some(self.forward.apply("Unsqueeze", &inputs, Attributes::none())?);
                }
            }
            self.forward.apply("Concat", &values, Attributes::none().with("axis", axis))
        })();
        let value = applied.map_err(|reason| refused(node, reason))?;
        self.define(output(node, 0)?, value);
        Ok(())
    }
}

/// Parts of `size` of an axis of `total`, the last one smaller if need be.
fn chunks(total: i64, size: i64) -> Vec<i64> {
    (0..total).step_by(size as usize).map(|start| size.min(total - start)).collect()
}

fn refused(node: &Node, reason: String) -> GraphError {
    GraphError::Refused { op: node.op.clone(), node: node_name(node), reason }
}

fn input(node: &Node, index: usize) -> Result<&str, GraphError> {
    let name = node.inputs.get(index).map(String::as_str).filter(|name| !name.is_empty());
    name.ok_or_else(|| refused(node, format!("input {index} is missing")))
}

fn output(node: &Node, index: usize) -> Result<&str, GraphError> {
    let name = node.outputs.get(index).map(String::as_str);
    name.ok_or_else(|| refused(node, format!("output {index} is missing")))
}

/// The tensor that a `Constant` node holds, in one of its attributes.
pub(super) fn constant_of(node: &Node) -> Option<TensorData> {
    match node.attributes.iter().next()? {
        (_, Attribute::Tensor(tensor)) => Some(tensor.clone()),
        (_, Attribute::Float(value)) => Some(TensorData::from_f32(&[], &[*value])),
        (_, Attribute::Int(value)) => Some(TensorData::from_i64(&[], &[*value])),
        (_, Attribute::Floats(values)) => Some(TensorData::from_f32(&[values.len()], values)),
        (_, Attribute::Ints(values)) => {
            Some(TensorData::from_integers(DataType::Int64, &[values.len()], values))
        }
        _ => None,
    }
}
