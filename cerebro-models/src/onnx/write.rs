//! From [`Model`] to protobuf messages.

use std::collections::BTreeMap;
use std::path::Path;

use prost::Message;

use super::proto::{
    AttributeProto, DimensionProto, DimensionValue, FunctionProto, GraphProto, ModelProto,
    NodeProto, OperatorSetIdProto, StringStringEntryProto, TensorProto, TensorShapeProto,
    TensorTypeProto, TypeProto, ValueInfoProto, attribute_type,
};
use super::{
    Attribute, Dimension, Function, Graph, Model, Node, OnnxError, TensorData, ValueInfo, ValueType,
};

/// Written into every file: the newest version of the format that ONNX Runtime 1.18 reads.
const IR_VERSION: i64 = 10;

/// Protobuf's own limit on a message.
pub(super) const PROTOBUF_LIMIT: usize = i32::MAX as usize;

impl Model {
    /// The model as an ONNX file in memory.
    pub fn to_bytes(&self) -> Result<Vec<u8>, OnnxError> {
        let proto = write_model(self);
        let bytes = proto.encoded_len();
        if bytes > PROTOBUF_LIMIT {
            return Err(OnnxError::TooLarge { bytes });
        }
        Ok(proto.encode_to_vec())
    }

    /// Writes the model to a file.
    pub fn to_file(&self, path: impl AsRef<Path>) -> Result<(), OnnxError> {
        let path = path.as_ref();
        std::fs::write(path, self.to_bytes()?)
            .map_err(|source| OnnxError::File { path: path.to_owned(), source })
    }
}

fn write_model(model: &Model) -> ModelProto {
    let entries = model.metadata.iter();
    ModelProto {
        ir_version: Some(IR_VERSION),
        producer_name: "cerebro".to_owned(),
        producer_version: env!("CARGO_PKG_VERSION").to_owned(),
        graph: Some(write_graph(&model.graph)),
        opset_import: write_opsets(&model.opsets),
        metadata_props: entries
            .map(|(key, value)| StringStringEntryProto { key: key.clone(), value: value.clone() })
            .collect(),
        functions: model.functions.iter().map(write_function).collect(),
    }
}

fn write_opsets(opsets: &BTreeMap<String, i64>) -> Vec<OperatorSetIdProto> {
    opsets
        .iter()
        .map(|(domain, &version)| OperatorSetIdProto { domain: domain.clone(), version })
        .collect()
}

fn write_function(function: &Function) -> FunctionProto {
    FunctionProto {
        name: function.name.clone(),
        domain: function.domain.clone(),
        input: function.inputs.clone(),
        output: function.outputs.clone(),
        attribute: Vec::new(),
        attribute_proto: write_attributes(&function.defaults),
        node: function.nodes.iter().map(write_node).collect(),
        opset_import: write_opsets(&function.opsets),
        overload: String::new(),
    }
}

fn write_graph(graph: &Graph) -> GraphProto {
    let initializers = graph.initializers.iter();
    GraphProto {
        node: graph.nodes.iter().map(write_node).collect(),
        name: if graph.name.is_empty() { "graph".to_owned() } else { graph.name.clone() },
        initializer: initializers.map(|(name, tensor)| write_tensor(name, tensor)).collect(),
        input: graph.inputs.iter().map(write_value).collect(),
        output: graph.outputs.iter().map(write_value).collect(),
        value_info: graph.value_info.iter().map(write_value).collect(),
        sparse_initializer: Vec::new(),
        metadata_props: Vec::new(),
    }
}

fn write_node(node: &Node) -> NodeProto {
    NodeProto {
        input: node.inputs.clone(),
        output: node.outputs.clone(),
        name: node.name.clone(),
        op_type: node.op.clone(),
        attribute: write_attributes(&node.attributes),
        domain: node.domain.clone(),
        overload: String::new(),
    }
}

fn write_attributes(attributes: &BTreeMap<String, Attribute>) -> Vec<AttributeProto> {
    attributes.iter().map(|(name, value)| write_attribute(name, value)).collect()
}

fn write_attribute(name: &str, value: &Attribute) -> AttributeProto {
    let mut proto = AttributeProto { name: name.to_owned(), ..AttributeProto::default() };
    proto.kind = match value {
        Attribute::Float(value) => {
            proto.f = Some(*value);
            attribute_type::FLOAT
        }
        Attribute::Int(value) => {
            proto.i = Some(*value);
            attribute_type::INT
        }
        Attribute::String(value) => {
            proto.s = Some(value.clone().into_bytes());
            attribute_type::STRING
        }
        Attribute::Tensor(value) => {
            proto.t = Some(write_tensor("", value));
            attribute_type::TENSOR
        }
        Attribute::Graph(value) => {
            proto.g = Some(write_graph(value));
            attribute_type::GRAPH
        }
        Attribute::Floats(values) => {
            proto.floats.clone_from(values);
            attribute_type::FLOATS
        }
        Attribute::Ints(values) => {
            proto.ints.clone_from(values);
            attribute_type::INTS
        }
        Attribute::Strings(values) => {
            proto.strings = values.iter().map(|value| value.clone().into_bytes()).collect();
            attribute_type::STRINGS
        }
        Attribute::Reference(of) => {
            proto.ref_attr_name.clone_from(of);
            0
        }
    };
    proto
}

fn write_tensor(name: &str, tensor: &TensorData) -> TensorProto {
    TensorProto {
        dims: tensor.dims().iter().map(|&dim| dim as i64).collect(),
        data_type: tensor.data_type() as i32,
        name: name.to_owned(),
        raw_data: Some(tensor.bytes().clone()),
        ..TensorProto::default()
    }
}

fn write_value(value: &ValueInfo) -> ValueInfoProto {
    let value_type = match &value.value_type {
        ValueType::Other => None,
        ValueType::Tensor(tensor) => {
            let shape = tensor.dims.as_ref().map(|dims| TensorShapeProto {
                dim: dims
                    .iter()
                    .map(|dim| DimensionProto { value: write_dimension(dim) })
                    .collect(),
            });
            let elem_type = tensor.data_type as i32;
            Some(TypeProto { tensor_type: Some(TensorTypeProto { elem_type, shape }) })
        }
    };
    ValueInfoProto { name: value.name.clone(), value_type }
}

fn write_dimension(dimension: &Dimension) -> Option<DimensionValue> {
    match dimension {
        Dimension::Size(size) => Some(DimensionValue::Size(*size as i64)),
        Dimension::Symbol(name) => Some(DimensionValue::Symbol(name.clone())),
        Dimension::Unknown => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::DataType;

    #[test]
    fn a_model_reads_back_as_it_was_written() {
        let branch = Graph {
            name: "branch".to_owned(),
            nodes: vec![Node::new("Relu", ["x"], ["then"])],
            outputs: vec![ValueInfo::fixed("then", DataType::Float32, &[2])],
            ..Graph::default()
        };
        let node = Node::new("If", ["condition"], ["y"])
            .with("then_branch", Attribute::Graph(Box::new(branch)))
            .with("int", -1)
            .with("float", 0.5)
            .with("text", "text")
            .with("ints", vec![1, -2])
            .with("floats", vec![1.0f32, 2.0])
            .with("strings", Attribute::Strings(vec!["a".to_owned()]))
            .with("tensor", TensorData::from_i64(&[1], &[7]));
        let rows = Dimension::Symbol("batch".to_owned());
        let graph = Graph {
            name: "main".to_owned(),
            nodes: vec![node],
            inputs: vec![ValueInfo::tensor(
                "x",
                DataType::Float32,
                vec![rows, Dimension::Size(3), Dimension::Unknown],
            )],
            outputs: vec![ValueInfo { name: "y".to_owned(), value_type: ValueType::Other }],
            initializers: [("w".to_owned(), TensorData::from_f32(&[2], &[1.0, 2.0]))].into(),
            value_info: Vec::new(),
        };
        let function = Function {
            name: "f".to_owned(),
            domain: "local".to_owned(),
            inputs: vec!["a".to_owned()],
            outputs: vec!["b".to_owned()],
            nodes: vec![
                Node::new("Elu", ["a"], ["b"])
                    .with("alpha", Attribute::Reference("slope".to_owned())),
            ],
            defaults: [("slope".to_owned(), Attribute::Float(1.0))].into(),
            opsets: [(String::new(), 18)].into(),
        };
        let mut model = Model::new(graph, 21);
        model.functions.push(function);
        model.metadata.insert("key".to_owned(), "value".to_owned());
        let bytes = model.to_bytes().unwrap();
        assert_eq!(Model::from_bytes(bytes).unwrap(), model);
    }

    #[test]
    fn bytes_that_are_no_model_are_refused() {
        for bytes in [&b""[..], b"hello", b"PAR1\0\0\0\0", &[8, 10]] {
            let error = Model::from_bytes(bytes.to_vec()).unwrap_err();
            assert!(matches!(error, OnnxError::NotOnnx(_)), "{error}");
        }
    }
}
