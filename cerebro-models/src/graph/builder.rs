//! [`Builder`]: grows a typed graph node by node.

use std::collections::{BTreeSet, HashMap};
use std::fmt;

use super::call::{Attributes, Call};
use super::fold;
use crate::onnx::{self, DataType, TensorData, ValueInfo};
use crate::{kernels, operators};

/// The version of ONNX's operators in which graphs are built; ONNX Runtime has it since 1.18.
pub const OPSET: i64 = 21;

/// A value of a [`Builder`]'s graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value(u32);

impl Value {
    /// What a rule gets when its node was refused; the builder remembers why.
    pub(crate) const REFUSED: Value = Value(u32::MAX);
}

/// The type of a value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Type {
    /// The type of its elements.
    pub data_type: DataType,
    /// Its shape; `[]` for a scalar.
    pub dims: Vec<usize>,
}

impl Type {
    /// A tensor of `data_type` and `dims`.
    pub fn new(data_type: DataType, dims: impl Into<Vec<usize>>) -> Self {
        Self { data_type, dims: dims.into() }
    }

    /// The number of elements.
    pub fn elements(&self) -> usize {
        self.dims.iter().product()
    }
}

impl Type {
    /// Whether a tensor of this type could exist: all its sizes together are far from overflowing.
    pub(crate) fn is_possible(&self) -> bool {
        let product = |product: usize, &dim: &usize| product.checked_mul(dim.max(1));
        self.dims.iter().try_fold(1, product).is_some_and(|size| size <= LARGEST)
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.data_type, self.dims)
    }
}

#[derive(Debug)]
struct ValueData {
    value_type: Type,
    origin: Origin,
}

#[derive(Debug)]
enum Origin {
    Input(String),
    Constant(TensorData),
    /// The node of this number, as long as no nodes are joined.
    Node(usize),
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) op: String,
    name: String,
    pub(super) inputs: Vec<Option<Value>>,
    pub(super) outputs: Vec<Value>,
    pub(super) attributes: Attributes,
}

impl Node {
    /// The same results and name, of another operator.
    pub(super) fn replaced(
        &self,
        op: &str,
        inputs: Vec<Option<Value>>,
        attributes: Attributes,
    ) -> Self {
        let (name, outputs) = (self.name.clone(), self.outputs.clone());
        Self { op: op.to_owned(), name, inputs, outputs, attributes }
    }

    /// Leaves nothing that could be read.
    pub(super) fn empty(&mut self) {
        self.op.clear();
        self.inputs.clear();
        self.outputs.clear();
    }
}

/// Which operators a graph may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// Those of ONNX, and those that every build of ONNX Runtime has: for any device.
    #[default]
    Standard,
    /// Those of Cerebro's own domain `ai.cerebro` too, which do the work of several standard ones
    /// on the processor.
    Fused,
    /// The same, and Cerebro's own products of matrices, for processors where they are faster than
    /// those of ONNX Runtime.
    FusedProducts,
}

impl Dialect {
    /// Whether the graph may have operators of Cerebro's own domain.
    pub fn is_fused(self) -> bool {
        self != Dialect::Standard
    }
}

/// A graph in the making.
///
/// Nodes are emitted in topological order by construction. A node that does not fit is refused:
/// the builder keeps the first reason ([`take_error`](Self::take_error)) and hands out a value
/// that every later node refuses too, so that long formulas need no error handling at each step.
#[derive(Debug, Default)]
pub struct Builder {
    values: Vec<ValueData>,
    pub(super) nodes: Vec<Node>,
    inputs: Vec<Value>,
    /// Small constants by type and bytes, so that each is in the graph once.
    constants: HashMap<(Type, bytes::Bytes), Value>,
    dialect: Dialect,
    /// The name given to emitted nodes, for profiles and messages.
    place: String,
    /// Whether the graph is known to run on one thread.
    one_thread: bool,
    error: Option<String>,
}

/// No tensor has more elements than this, a thousand times what any machine holds; sums and
/// products of a few sizes do not overflow then.
pub(crate) const LARGEST: usize = 1 << 40;

/// Constants of more elements than this are not searched for duplicates.
const SMALL_CONSTANT: usize = 64;

static REFUSED_TYPE: Type = Type { data_type: DataType::Float32, dims: Vec::new() };

impl Builder {
    /// An empty graph.
    pub fn new() -> Self {
        Self::default()
    }

    /// Promises that the graph will run on one thread.
    pub fn promise_one_thread(&mut self) {
        self.one_thread = true;
    }

    /// Whether additions to the same place may be made from several threads at once.
    pub fn scatters_in_parallel(&self) -> bool {
        !self.one_thread
    }

    /// An empty graph in `dialect`.
    pub fn in_dialect(dialect: Dialect) -> Self {
        Self { dialect, ..Self::default() }
    }

    /// Which operators the graph may use.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Nodes emitted from now on are named after `place`.
    pub fn set_place(&mut self, place: &str) {
        place.clone_into(&mut self.place);
    }

    /// Why a node was refused, if one was since the last call.
    pub fn take_error(&mut self) -> Option<String> {
        self.error.take()
    }

    /// Refuses with `reason`, as if a node did not fit.
    pub fn refuse(&mut self, reason: String) -> Value {
        self.error.get_or_insert(reason);
        Value::REFUSED
    }

    /// The type of `value`.
    pub fn value_type(&self, value: Value) -> &Type {
        self.values.get(value.0 as usize).map_or(&REFUSED_TYPE, |data| &data.value_type)
    }

    /// The shape of `value`.
    pub fn dims(&self, value: Value) -> &[usize] {
        &self.value_type(value).dims
    }

    /// The element type of `value`.
    pub fn data_type(&self, value: Value) -> DataType {
        self.value_type(value).data_type
    }

    /// The tensor that `value` is, if it is a constant.
    pub fn constant_of(&self, value: Value) -> Option<&TensorData> {
        match &self.values.get(value.0 as usize)?.origin {
            Origin::Constant(tensor) => Some(tensor),
            _ => None,
        }
    }

    /// The node that gives `value`, while the graph grows.
    pub(super) fn maker(&self, value: Value) -> Option<&Node> {
        match self.values.get(value.0 as usize)?.origin {
            Origin::Node(number) => self.nodes.get(number),
            _ => None,
        }
    }

    fn push(&mut self, value_type: Type, origin: Origin) -> Value {
        let id = u32::try_from(self.values.len()).expect("a graph of fewer than 2^32 values");
        self.values.push(ValueData { value_type, origin });
        Value(id)
    }

    /// A new input of the graph.
    pub fn input(&mut self, name: impl Into<String>, value_type: Type) -> Value {
        let value = self.push(value_type, Origin::Input(name.into()));
        self.inputs.push(value);
        value
    }

    /// A constant.
    pub fn constant(&mut self, tensor: TensorData) -> Value {
        let value_type = Type::new(tensor.data_type(), tensor.dims());
        if tensor.elements() > SMALL_CONSTANT {
            return self.push(value_type, Origin::Constant(tensor));
        }
        let key = (value_type.clone(), tensor.bytes().clone());
        if let Some(&known) = self.constants.get(&key) {
            return known;
        }
        let value = self.push(value_type, Origin::Constant(tensor));
        self.constants.insert(key, value);
        value
    }

    /// Emits a node and gives its `outputs` outputs.
    pub fn emit(
        &mut self,
        op: &str,
        inputs: &[Option<Value>],
        attributes: Attributes,
        outputs: usize,
    ) -> Vec<Value> {
        match self.try_emit(op, inputs, attributes, outputs) {
            Ok(values) => values,
            Err(reason) => {
                let place = &self.place;
                self.error.get_or_insert(format!("{reason} (emitting {op} for `{place}`)"));
                vec![Value::REFUSED; outputs]
            }
        }
    }

    fn try_emit(
        &mut self,
        op: &str,
        inputs: &[Option<Value>],
        attributes: Attributes,
        outputs: usize,
    ) -> Result<Vec<Value>, String> {
        if inputs.contains(&Some(Value::REFUSED)) {
            return Err("an earlier node was refused".to_owned());
        }
        let operator = operators::find(op).ok_or("the operator is unknown")?;
        let call = Call { graph: self, inputs, attributes: &attributes, outputs };
        let types = operator.infer(&call)?;
        if let Some(large) = types.iter().find(|output| !output.is_possible()) {
            return Err(format!("its output would be of the shape {:?}", large.dims));
        }
        if types.len() < outputs {
            return Err(format!("{outputs} outputs are asked for, and it has {}", types.len()));
        }
        if let Some(tensors) = fold::fold(op, &call, &types) {
            return Ok(tensors.into_iter().map(|tensor| self.constant(tensor)).collect());
        }
        let outputs: Vec<Value> = types
            .into_iter()
            .take(outputs)
            .map(|value_type| self.push(value_type, Origin::Node(self.nodes.len())))
            .collect();
        self.nodes.push(Node {
            op: op.to_owned(),
            name: self.place.clone(),
            inputs: inputs.to_vec(),
            outputs: outputs.clone(),
            attributes,
        });
        Ok(outputs)
    }

    /// Ends the graph: nodes that no output needs are left out, constants become initializers.
    pub fn finish(mut self, outputs: &[(String, Value)]) -> onnx::Model {
        let kept: Vec<Value> = outputs.iter().map(|&(_, value)| value).collect();
        self.join_activations(&kept);
        if self.dialect == Dialect::FusedProducts {
            self.fuse_products(&kept);
            self.update_by_products(&kept);
        }
        self.join_updates();
        let mut needed: BTreeSet<Value> = outputs.iter().map(|&(_, value)| value).collect();
        let mut kept = vec![false; self.nodes.len()];
        for (node, keep) in self.nodes.iter().zip(&mut kept).rev() {
            if node.outputs.iter().any(|output| needed.contains(output)) {
                *keep = true;
                needed.extend(node.inputs.iter().flatten());
            }
        }
        let (names, copies) = self.names(outputs);
        let name = |value: &Value| names[value.0 as usize].clone();
        let is_output = |name: &str| outputs.iter().any(|(output, _)| output == name);
        let mut graph = onnx::Graph { name: "cerebro".to_owned(), ..onnx::Graph::default() };
        let info = |name: String, value: Value| {
            let value_type = self.value_type(value);
            ValueInfo::fixed(name, value_type.data_type, &value_type.dims)
        };
        let mut used = HashMap::new();
        for (node, _) in self.nodes.iter().zip(kept).filter(|(_, keep)| *keep) {
            let number: &mut usize = used.entry(format!("{}/{}", node.name, node.op)).or_default();
            *number += 1;
            let (domain, op) = node.op.rsplit_once('.').unwrap_or(("", &node.op));
            // Where its slope is not needed, below what is trained, the standard operator does.
            let is_plain = node.op == kernels::GELU && !needed.contains(&node.outputs[1]);
            let domain = if is_plain { "" } else { domain };
            let outputs = match op {
                // These have no optional outputs; a kernel that misses one crashes.
                "Split" | "TopK" => node.outputs.len(),
                _ if domain == kernels::DOMAIN => node.outputs.len(),
                _ => {
                    let last = node.outputs.iter().rposition(|output| needed.contains(output));
                    last.map_or(0, |index| index + 1)
                }
            };
            if domain == kernels::DOMAIN {
                let results = node.outputs.iter().map(|value| info(name(value), *value));
                graph.value_info.extend(results.filter(|result| !is_output(&result.name)));
            }
            graph.nodes.push(onnx::Node {
                op: op.to_owned(),
                domain: domain.to_owned(),
                name: format!("{}/{}_{number}", node.name, node.op),
                inputs: node
                    .inputs
                    .iter()
                    .map(|input| input.as_ref().map(name).unwrap_or_default())
                    .collect(),
                outputs: node.outputs.iter().take(outputs).map(name).collect(),
                attributes: node.attributes.0.clone(),
            });
        }
        for (output, value) in copies {
            graph.nodes.push(onnx::Node::new("Identity", [&*name(&value)], [&*output]));
        }
        graph.inputs = self.inputs.iter().map(|input| info(name(input), *input)).collect();
        graph.outputs = outputs.iter().map(|(name, value)| info(name.clone(), *value)).collect();
        for value in &needed {
            if let Some(tensor) = self.constant_of(*value) {
                graph.initializers.insert(name(value), tensor.clone());
            }
        }
        let mut model = onnx::Model::new(graph, OPSET);
        for domain in ["com.microsoft", kernels::DOMAIN] {
            if model.graph.nodes.iter().any(|node| node.domain == domain) {
                model.opsets.insert(domain.to_owned(), 1);
            }
        }
        model
    }

    /// The name of each value, and the outputs that must be copies: of inputs, of constants, of
    /// values that have another output's name.
    fn names(&self, outputs: &[(String, Value)]) -> (Vec<String>, Vec<(String, Value)>) {
        let mut names: Vec<String> = self
            .values
            .iter()
            .enumerate()
            .map(|(index, data)| match &data.origin {
                Origin::Input(name) => name.clone(),
                Origin::Constant(_) => format!("cerebro.constant.{index}"),
                Origin::Node(_) => format!("cerebro.value.{index}"),
            })
            .collect();
        let mut copies = Vec::new();
        let mut renamed = BTreeSet::new();
        for (name, value) in outputs {
            let from_node = matches!(self.values[value.0 as usize].origin, Origin::Node(_));
            if from_node && renamed.insert(*value) {
                names[value.0 as usize].clone_from(name);
            } else {
                copies.push((name.clone(), *value));
            }
        }
        (names, copies)
    }
}
