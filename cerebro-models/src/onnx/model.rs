//! [`Model`], [`Graph`], [`Node`]: an ONNX model as it is in a file.

use std::collections::BTreeMap;

use indexmap::IndexMap;

use super::{DataType, TensorData};

/// An ONNX model: a graph, and the versions of the operator sets that it uses.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// The graph.
    pub graph: Graph,
    /// The version of each operator set by its domain; that of ONNX itself is `""`.
    pub opsets: BTreeMap<String, i64>,
    /// Functions that nodes of the graph may call as operators.
    pub functions: Vec<Function>,
    /// Free text about the model, by key.
    pub metadata: BTreeMap<String, String>,
}

impl Model {
    /// A model of `graph` with version `opset` of ONNX's own operators.
    pub fn new(graph: Graph, opset: i64) -> Self {
        Self {
            graph,
            opsets: [(String::new(), opset)].into(),
            functions: Vec::new(),
            metadata: BTreeMap::new(),
        }
    }

    /// The version of ONNX's own operator set, if the model says it.
    pub fn opset(&self) -> Option<i64> {
        self.opsets.get("").or_else(|| self.opsets.get("ai.onnx")).copied()
    }
}

/// A dataflow graph: nodes in an order in which each one's inputs are there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Graph {
    /// A name, for people.
    pub name: String,
    /// The nodes, sorted topologically.
    pub nodes: Vec<Node>,
    /// What is fed. Older files list the initializers here too.
    pub inputs: Vec<ValueInfo>,
    /// What is computed.
    pub outputs: Vec<ValueInfo>,
    /// Constant tensors by name: the weights among them.
    pub initializers: IndexMap<String, TensorData>,
    /// Types of values inside the graph that a runtime may not be able to infer, such as results of
    /// custom operators. Written to files, but not read: reading infers all types anew.
    pub value_info: Vec<ValueInfo>,
}

impl Graph {
    /// The inputs that must be fed: those that are no initializers.
    pub fn data_inputs(&self) -> impl Iterator<Item = &ValueInfo> {
        self.inputs.iter().filter(|input| !self.initializers.contains_key(&input.name))
    }
}

/// One application of an operator.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Node {
    /// The operator, such as `Gemm`.
    pub op: String,
    /// The operator's domain; `""` for ONNX's own.
    pub domain: String,
    /// A name, for people; may be empty.
    pub name: String,
    /// The names of the values it reads; `""` where an optional input is left out.
    pub inputs: Vec<String>,
    /// The names of the values it makes; `""` where an optional output is left out.
    pub outputs: Vec<String>,
    /// Its attributes by name.
    pub attributes: BTreeMap<String, Attribute>,
}

impl Node {
    /// A node of ONNX's own operator `op`.
    pub fn new<'a>(
        op: impl Into<String>,
        inputs: impl IntoIterator<Item = &'a str>,
        outputs: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        Self {
            op: op.into(),
            inputs: inputs.into_iter().map(str::to_owned).collect(),
            outputs: outputs.into_iter().map(str::to_owned).collect(),
            ..Self::default()
        }
    }

    /// The node with one more attribute.
    pub fn with(mut self, name: &str, value: impl Into<Attribute>) -> Self {
        self.attributes.insert(name.to_owned(), value.into());
        self
    }
}

/// The value of a node's attribute.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Attribute {
    Float(f32),
    Int(i64),
    String(String),
    Tensor(TensorData),
    Graph(Box<Graph>),
    Floats(Vec<f32>),
    Ints(Vec<i64>),
    Strings(Vec<String>),
    /// Inside a function: the attribute of that name of the node that calls the function.
    Reference(String),
}

impl From<i64> for Attribute {
    fn from(value: i64) -> Self {
        Attribute::Int(value)
    }
}

impl From<f32> for Attribute {
    fn from(value: f32) -> Self {
        Attribute::Float(value)
    }
}

impl From<&str> for Attribute {
    fn from(value: &str) -> Self {
        Attribute::String(value.to_owned())
    }
}

impl From<Vec<i64>> for Attribute {
    fn from(value: Vec<i64>) -> Self {
        Attribute::Ints(value)
    }
}

impl From<Vec<f32>> for Attribute {
    fn from(value: Vec<f32>) -> Self {
        Attribute::Floats(value)
    }
}

impl From<TensorData> for Attribute {
    fn from(value: TensorData) -> Self {
        Attribute::Tensor(value)
    }
}

/// The name and the type of an input or an output.
#[derive(Clone, Debug, PartialEq)]
pub struct ValueInfo {
    /// The name.
    pub name: String,
    /// The type.
    pub value_type: ValueType,
}

impl ValueInfo {
    /// A tensor of a fixed shape.
    pub fn fixed(name: impl Into<String>, data_type: DataType, dims: &[usize]) -> Self {
        let dims = dims.iter().map(|&dim| Dimension::Size(dim)).collect();
        Self::tensor(name, data_type, dims)
    }

    /// A tensor.
    pub fn tensor(name: impl Into<String>, data_type: DataType, dims: Vec<Dimension>) -> Self {
        let value_type = ValueType::Tensor(TensorType { data_type, dims: Some(dims) });
        Self { name: name.into(), value_type }
    }
}

/// The type of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueType {
    /// A tensor.
    Tensor(TensorType),
    /// A sequence, a map, an optional, a tensor of strings, or nothing was said.
    Other,
}

/// The type of a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorType {
    /// The type of its elements.
    pub data_type: DataType,
    /// Its shape; `None` when not even the number of axes is known.
    pub dims: Option<Vec<Dimension>>,
}

/// The size of one axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dimension {
    /// Fixed.
    Size(usize),
    /// Known when the model runs; axes of the same symbol have the same size.
    Symbol(String),
    /// Known when the model runs.
    Unknown,
}

/// A function: a subgraph that nodes call as if it were an operator.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Function {
    /// The operator name under which it is called.
    pub name: String,
    /// The domain under which it is called.
    pub domain: String,
    /// The names of its parameters.
    pub inputs: Vec<String>,
    /// The names of its results.
    pub outputs: Vec<String>,
    /// Attributes that a caller may leave out, with their values then.
    pub defaults: BTreeMap<String, Attribute>,
    /// The body.
    pub nodes: Vec<Node>,
    /// The version of each operator set that the body uses, by domain.
    pub opsets: BTreeMap<String, i64>,
}
