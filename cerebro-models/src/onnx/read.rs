//! From protobuf messages to [`Model`].

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use indexmap::IndexMap;
use prost::Message;

use super::external::ExternalFiles;
use super::proto::{
    AttributeProto, DimensionValue, FunctionProto, GraphProto, ModelProto, NodeProto,
    OperatorSetIdProto, TensorProto, ValueInfoProto, attribute_type,
};
use super::write::PROTOBUF_LIMIT;
use super::{
    Attribute, DataType, Dimension, Function, Graph, Model, Node, OnnxError, TensorData,
    TensorType, ValueInfo, ValueType,
};

impl Model {
    /// Reads a model from its file, and external data from files beside it.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, OnnxError> {
        let path = path.as_ref();
        let bytes = read_file(path, PROTOBUF_LIMIT)?;
        let folder = path.parent().map(Path::to_path_buf);
        read_model(bytes.into(), ExternalFiles::new(folder))
    }

    /// Reads a model from memory. Its tensors are slices of `bytes`; it cannot have external data.
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Result<Self, OnnxError> {
        read_model(bytes.into(), ExternalFiles::new(None))
    }
}

/// The bytes of the file at `path`, if it is a file and has no more than `limit` of them.
pub(super) fn read_file(path: &Path, limit: usize) -> Result<Vec<u8>, OnnxError> {
    let cannot = |source| OnnxError::File { path: path.to_owned(), source };
    let about = std::fs::metadata(path).map_err(cannot)?;
    if !about.is_file() {
        // A directory, or a device that never ends.
        let kind = std::io::Error::new(std::io::ErrorKind::InvalidInput, "it is no file");
        return Err(cannot(kind));
    }
    if about.len() > limit as u64 {
        return Err(OnnxError::TooLong { path: path.to_owned(), bytes: about.len() });
    }
    std::fs::read(path).map_err(cannot)
}

fn read_model(bytes: Bytes, mut files: ExternalFiles) -> Result<Model, OnnxError> {
    if bytes.is_empty() {
        return Err(OnnxError::NotOnnx("the file is empty".to_owned()));
    }
    let proto = ModelProto::decode(bytes).map_err(|error| OnnxError::NotOnnx(error.to_string()))?;
    let mut graph = proto.graph.ok_or_else(|| OnnxError::NotOnnx("it has no graph".to_owned()))?;
    let of_graph = std::mem::take(&mut graph.metadata_props);
    let metadata = of_graph.into_iter().chain(proto.metadata_props);
    let metadata = metadata.map(|entry| (entry.key, entry.value)).collect();
    Ok(Model {
        graph: read_graph(graph, &mut files)?,
        opsets: read_opsets(proto.opset_import),
        functions: proto
            .functions
            .into_iter()
            .map(|function| read_function(function, &mut files))
            .collect::<Result<_, _>>()?,
        metadata,
    })
}

fn read_opsets(imports: Vec<OperatorSetIdProto>) -> BTreeMap<String, i64> {
    imports.into_iter().map(|import| (import.domain, import.version)).collect()
}

fn read_function(proto: FunctionProto, files: &mut ExternalFiles) -> Result<Function, OnnxError> {
    Ok(Function {
        nodes: read_nodes(proto.node, files)?,
        defaults: read_attributes(proto.attribute_proto, &proto.name, files)?,
        opsets: read_opsets(proto.opset_import),
        name: proto.name,
        domain: proto.domain,
        inputs: proto.input,
        outputs: proto.output,
    })
}

fn read_graph(proto: GraphProto, files: &mut ExternalFiles) -> Result<Graph, OnnxError> {
    if !proto.sparse_initializer.is_empty() {
        return Err(OnnxError::Unsupported {
            place: format!("graph `{}`", proto.name),
            what: "a sparse initializer".to_owned(),
        });
    }
    let mut initializers = IndexMap::with_capacity(proto.initializer.len());
    for tensor in proto.initializer {
        let data = read_tensor(&tensor, files)?;
        initializers.insert(tensor.name, data);
    }
    Ok(Graph {
        nodes: read_nodes(proto.node, files)?,
        inputs: proto.input.into_iter().map(read_value).collect(),
        outputs: proto.output.into_iter().map(read_value).collect(),
        initializers,
        value_info: Vec::new(),
        name: proto.name,
    })
}

fn read_nodes(nodes: Vec<NodeProto>, files: &mut ExternalFiles) -> Result<Vec<Node>, OnnxError> {
    nodes.into_iter().map(|node| read_node(node, files)).collect()
}

fn read_node(proto: NodeProto, files: &mut ExternalFiles) -> Result<Node, OnnxError> {
    let place = format!("node `{}` ({})", proto.name, proto.op_type);
    let domain = if proto.domain == "ai.onnx" { String::new() } else { proto.domain };
    Ok(Node {
        attributes: read_attributes(proto.attribute, &place, files)?,
        op: proto.op_type,
        domain,
        name: proto.name,
        inputs: proto.input,
        outputs: proto.output,
    })
}

fn read_attributes(
    attributes: Vec<AttributeProto>,
    place: &str,
    files: &mut ExternalFiles,
) -> Result<BTreeMap<String, Attribute>, OnnxError> {
    attributes
        .into_iter()
        .map(|mut attribute| {
            let name = std::mem::take(&mut attribute.name);
            let value = read_attribute(attribute, &name, place, files)?;
            Ok((name, value))
        })
        .collect()
}

fn read_attribute(
    proto: AttributeProto,
    name: &str,
    place: &str,
    files: &mut ExternalFiles,
) -> Result<Attribute, OnnxError> {
    if !proto.ref_attr_name.is_empty() {
        return Ok(Attribute::Reference(proto.ref_attr_name));
    }
    let unsupported = || OnnxError::Unsupported {
        place: place.to_owned(),
        what: format!("attribute `{name}` of type {}", proto.kind),
    };
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    // Protobuf leaves out a field that has its default value, hence the defaults.
    Ok(match proto.kind {
        attribute_type::FLOAT => Attribute::Float(proto.f.unwrap_or_default()),
        attribute_type::INT => Attribute::Int(proto.i.unwrap_or_default()),
        attribute_type::STRING => Attribute::String(text(proto.s.unwrap_or_default())),
        attribute_type::TENSOR => {
            Attribute::Tensor(read_tensor(&proto.t.ok_or_else(unsupported)?, files)?)
        }
        attribute_type::GRAPH => {
            Attribute::Graph(Box::new(read_graph(proto.g.ok_or_else(unsupported)?, files)?))
        }
        attribute_type::FLOATS => Attribute::Floats(proto.floats),
        attribute_type::INTS => Attribute::Ints(proto.ints),
        attribute_type::STRINGS => {
            Attribute::Strings(proto.strings.into_iter().map(text).collect())
        }
        _ => return Err(unsupported()),
    })
}

fn read_value(proto: ValueInfoProto) -> ValueInfo {
    let tensor = proto.value_type.and_then(|value_type| value_type.tensor_type);
    let value_type = tensor.and_then(|tensor| {
        let data_type = DataType::from_code(i64::from(tensor.elem_type))?;
        let dims = tensor.shape.map(|shape| {
            let read = |value| match value {
                Some(DimensionValue::Size(size)) => {
                    usize::try_from(size).map_or(Dimension::Unknown, Dimension::Size)
                }
                Some(DimensionValue::Symbol(name)) if !name.is_empty() => Dimension::Symbol(name),
                _ => Dimension::Unknown,
            };
            shape.dim.into_iter().map(|dim| read(dim.value)).collect()
        });
        Some(ValueType::Tensor(TensorType { data_type, dims }))
    });
    ValueInfo { name: proto.name, value_type: value_type.unwrap_or(ValueType::Other) }
}

fn read_tensor(proto: &TensorProto, files: &mut ExternalFiles) -> Result<TensorData, OnnxError> {
    let bad = |reason: String| OnnxError::Tensor { name: proto.name.clone(), reason };
    let data_type = DataType::from_code(i64::from(proto.data_type)).ok_or_else(|| {
        bad(format!(
            "elements of type {} (TensorProto.DataType) cannot be handled",
            proto.data_type
        ))
    })?;
    let dims = proto
        .dims
        .iter()
        .map(|&dim| usize::try_from(dim))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| bad(format!("its shape {:?} has a negative size", proto.dims)))?;
    let bytes = if proto.data_location == 1 {
        files.bytes(proto)?
    } else if let Some(raw) = &proto.raw_data {
        raw.clone()
    } else {
        typed_bytes(proto, data_type)
    };
    let found = bytes.len();
    TensorData::new(data_type, dims, bytes).ok_or_else(|| {
        bad(format!("its shape {:?} of {data_type} does not fit its {found} bytes", proto.dims))
    })
}

/// The elements of a tensor that is not written as raw bytes. Which field holds which type, and
/// that narrow types are widened to `int32`, is said in `onnx.proto`.
fn typed_bytes(proto: &TensorProto, data_type: DataType) -> Bytes {
    let narrow = |width: usize| -> Vec<u8> {
        proto.int32_data.iter().flat_map(|v| v.to_le_bytes().into_iter().take(width)).collect()
    };
    let bytes = match data_type {
        DataType::Float32 => proto.float_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DataType::Float64 => proto.double_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DataType::Int64 => proto.int64_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DataType::Uint64 => proto.uint64_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DataType::Uint32 => {
            proto.uint64_data.iter().flat_map(|v| (*v as u32).to_le_bytes()).collect()
        }
        _ => narrow(data_type.bytes()),
    };
    Bytes::from(bytes)
}
