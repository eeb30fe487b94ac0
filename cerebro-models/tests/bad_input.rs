//! Files and data that cannot be trained on: each is refused with what was found and what to do.

use std::error::Error;
use std::fs::{self, File};
use std::path::Path;

use cerebro_core::data::{MemoryPartition, Tensor};
use cerebro_core::{
    Cancellation, Config, ModelBuilder, PartitionId, Pass, Seed, Slot, Split, TrialId, Unit,
};
use cerebro_models::loss::Loss;
use cerebro_models::onnx::{
    Attribute, DataType, Dimension, Function, Graph, Model, Node, OnnxError, TensorData, ValueInfo,
};
use cerebro_models::{Trainer, runtime};
use ndarray::Array2;

/// `x [batch, 3]` to `y [batch, 2]`.
fn linear() -> Model {
    let rows = |name: &str, width| {
        let dims = vec![Dimension::Symbol("batch".to_owned()), Dimension::Size(width)];
        ValueInfo::tensor(name, DataType::Float32, dims)
    };
    let mut node = Node::new("Gemm", ["x", "weight", "bias"], ["y"]);
    node.name.push_str("/layer/gemm");
    let graph = Graph {
        nodes: vec![node],
        inputs: vec![rows("x", 3)],
        outputs: vec![rows("y", 2)],
        initializers: [
            ("weight".to_owned(), TensorData::from_f32(&[3, 2], &[0.1; 6])),
            ("bias".to_owned(), TensorData::from_f32(&[2], &[0.0; 2])),
        ]
        .into(),
        ..Graph::default()
    };
    Model::new(graph, 18)
}

fn trainer(model: Model) -> Trainer {
    Trainer::new(model, Loss::MeanSquaredError).input("x").target("y")
}

fn config() -> Config {
    Config::new().with("optimizer", "sgd").with("learning_rate", 0.1).with("batch_size", 2)
}

/// An error with all its causes.
fn whole(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn assert_says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
}

/// What the check of a Config says, which an experiment does before its first unit.
fn refusal(model: Model) -> String {
    whole(&trainer(model).check(&config()).unwrap_err())
}

/// What training on `x` and `y` says.
fn refusal_of_data(model: Model, tensors: Vec<(&str, Tensor)>) -> String {
    runtime::install().unwrap();
    let partition = MemoryPartition::new(PartitionId(0), tensors).unwrap();
    let mut model = trainer(model).build(&config(), &Slot::default()).unwrap();
    model.initialize(Seed(1)).unwrap();
    let cancellation = Cancellation::new();
    let split = Split::Train;
    let unit = Unit { trial: TrialId(0), epoch: 0, split, partition: PartitionId(0) };
    let pass = Pass::new(unit, Seed(1), &cancellation, &|_| ());
    whole(&model.train(&partition, &pass).unwrap_err())
}

fn floats(rows: usize, width: usize) -> Tensor {
    Array2::<f32>::zeros((rows, width)).into_dyn().into()
}

#[test]
fn what_is_no_onnx_file() {
    let folder = tempfile::tempdir().unwrap();
    let read = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        whole(&Model::from_file(path).unwrap_err())
    };
    assert_says(&read("empty.onnx", b""), &["no ONNX model", "the file is empty"]);
    assert_says(&read("text.onnx", b"import torch\n"), &["no ONNX model"]);
    assert_says(&read("archive.onnx", b"PK\x03\x04\0\0\0\0model.pkl"), &["no ONNX model"]);
    let missing = Model::from_file(folder.path().join("none.onnx")).unwrap_err();
    assert_says(&whole(&missing), &["none.onnx", "No such file"]);
    let directory = Model::from_file(folder.path()).unwrap_err();
    assert_says(&whole(&directory), &["it is no file"]);
}

#[test]
fn a_file_that_was_cut_short_anywhere() {
    let bytes = linear().to_bytes().unwrap();
    for end in 0..bytes.len() {
        let Ok(model) = Model::from_bytes(bytes[..end].to_vec()) else { continue };
        // What is left can be read where the cut is between two fields: something is missing then.
        let message = refusal(model);
        assert_says(&message, &["cannot train this network"]);
    }
}

#[test]
fn a_file_of_more_than_two_gigabytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("huge.onnx");
    // A hole: the length without the bytes.
    File::create(&path).unwrap().set_len(1 << 31).unwrap();
    let error = Model::from_file(&path).unwrap_err();
    assert!(matches!(error, OnnxError::TooLong { bytes: 0x8000_0000, .. }), "{error}");
    assert_says(&whole(&error), &["huge.onnx", "2 GiB", "external data"]);
}

#[test]
fn an_operator_or_a_domain_that_is_unknown() {
    let mut model = linear();
    model.graph.nodes[0].op = "Frobnicate".to_owned();
    // The whole list of what is supported.
    let message = refusal(model);
    assert_says(&message, &["operator Frobnicate", "`/layer/gemm`", "no gradient"]);
    let listed = message.split("Supported are: ").nth(1).unwrap().split(", ").count();
    assert!(listed > 130, "{listed} operators are listed");

    let mut model = linear();
    model.graph.nodes[0].domain = "com.microsoft".to_owned();
    assert_says(&refusal(model), &["com.microsoft.Gemm", "`/layer/gemm`"]);

    let mut model = linear();
    model.graph.nodes[0].op = "Scan".to_owned();
    model.graph.nodes[0].attributes =
        [("body".to_owned(), Attribute::Graph(Box::default()))].into();
    assert_says(&refusal(model), &["operator Scan", "`/layer/gemm`"]);
}

#[test]
fn versions_of_the_operators_that_are_too_new_too_old_or_not_said() {
    for (opset, parts) in [
        (Some(26), ["version 26", "11 to 25", "export it"]),
        (Some(9), ["version 9", "11 to 25", "export it"]),
        (None, ["does not say which version", "cut short", ""]),
    ] {
        let mut model = linear();
        model.opsets.clear();
        model.opsets.extend(opset.map(|opset| (String::new(), opset)));
        assert_says(&refusal(model), &parts);
    }
}

#[test]
fn outputs_and_parameters_that_are_missing() {
    let mut model = linear();
    model.graph.outputs.clear();
    assert_says(&refusal(model), &["no output"]);

    let error = trainer(linear()).output("logits").check(&config()).unwrap_err();
    assert_says(&whole(&error), &["no output `logits`", "it has: y"]);

    let mut model = linear();
    model.graph.nodes[0] = Node::new("Relu", ["x"], ["y"]);
    assert_says(&refusal(model), &["no trainable parameter", "`y`"]);
    let error = trainer(linear()).freeze("*").check(&config()).unwrap_err();
    assert_says(&whole(&error), &["freeze every parameter"]);

    let mut model = linear();
    model.graph.nodes[0].inputs[1] = "ghost".to_owned();
    assert_says(&refusal(model), &["`/layer/gemm`", "`ghost`"]);
}

#[test]
fn weights_that_are_no_numbers() {
    for (value, shown) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf")] {
        let mut model = linear();
        let broken = TensorData::from_f32(&[2], &[0.0, value]);
        model.graph.initializers.insert("bias".to_owned(), broken);
        assert_says(&refusal(model), &["parameter `bias`", shown]);
    }
}

#[test]
fn data_of_another_shape_type_or_name() {
    let wide = refusal_of_data(linear(), vec![("x", floats(4, 5)), ("y", floats(4, 2))]);
    assert_says(&wide, &["`x` in rows of shape [3]", "has rows of shape [5]"]);
    let target = refusal_of_data(linear(), vec![("x", floats(4, 3)), ("y", floats(4, 3))]);
    assert_says(&target, &["tensor `y` has rows of shape [3]", "[2]"]);
    let missing = refusal_of_data(linear(), vec![("x", floats(4, 3)), ("label", floats(4, 2))]);
    assert_says(&missing, &["`y`", "label"]);

    // A network of whole numbers, fed with floats.
    let mut model = linear();
    model.graph.inputs[0] =
        ValueInfo::tensor("x", DataType::Int64, vec![Dimension::Unknown, Dimension::Size(3)]);
    model.graph.nodes.insert(0, Node::new("Cast", ["x"], ["floats"]).with("to", 1));
    model.graph.nodes[1].inputs[0] = "floats".to_owned();
    let element = refusal_of_data(model, vec![("x", floats(4, 3)), ("y", floats(4, 2))]);
    assert_says(&element, &["takes `x` as", "int64", "holds float32"]);
}

/// A model file whose tensor `weight` is said to be elsewhere.
fn external(folder: &Path, location: &str, length: usize) -> String {
    // The fields of `TensorProto` that say so, in place of `raw_data`; see `onnx.proto`.
    let entry = |key: &str, value: &str| {
        let inner = [
            &[0x0a, key.len() as u8],
            key.as_bytes(),
            &[0x12, value.len() as u8],
            value.as_bytes(),
        ]
        .concat();
        [&[0x6a, inner.len() as u8], &inner[..]].concat()
    };
    let name = b"weight";
    let tensor = [
        &[0x08, 3, 0x08, 2, 0x10, 1, 0x42, name.len() as u8][..],
        name,
        &entry("location", location),
        &entry("length", &length.to_string()),
        &[0x70, 1],
    ]
    .concat();
    let graph = [&[0x2a, tensor.len() as u8], &tensor[..]].concat();
    let model = [&[0x3a, graph.len() as u8], &graph[..], &[0x42, 2, 0x10, 18]].concat();
    let path = folder.join("external.onnx");
    fs::write(&path, model).unwrap();
    match Model::from_file(path) {
        Ok(model) => format!("{:?}", model.graph.initializers["weight"].dims()),
        Err(error) => whole(&error),
    }
}

#[test]
fn external_data_that_are_not_there_too_short_or_outside() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("weights.bin"), [0; 24]).unwrap();
    fs::create_dir(folder.path().join("folder")).unwrap();
    let read = |location: &str, length| external(folder.path(), location, length);
    assert_eq!(read("weights.bin", 24), "[3, 2]");
    assert_says(&read("none.bin", 24), &["none.bin", "No such file"]);
    assert_says(&read("weights.bin", 48), &["`weight`", "24 bytes"]);
    assert_says(&read("weights.bin", 20), &["`weight`", "does not fit its 20 bytes"]);
    assert_says(&read("../weights.bin", 24), &["`weight`", "outside the model's folder"]);
    assert_says(&read("/etc/passwd", 24), &["outside the model's folder"]);
    assert_says(&read("folder", 24), &["it is no file"]);
}

#[test]
fn functions_that_would_make_a_small_file_a_huge_graph() {
    let level = |number: usize| {
        let inner = format!("f{}", number + 1);
        let call = |from: &str, to: &str| {
            let mut node = Node::new(inner.as_str(), [from], [to]);
            node.domain = "local".to_owned();
            node
        };
        Function {
            domain: "local".to_owned(),
            name: format!("f{number}"),
            inputs: vec!["a".to_owned()],
            outputs: vec!["c".to_owned()],
            nodes: vec![call("a", "b"), call("b", "c")],
            defaults: [].into(),
            opsets: [(String::new(), 18)].into(),
        }
    };
    let mut model = linear();
    model.functions = (0..40).map(level).collect();
    let mut call = Node::new("f0", ["x"], ["z"]);
    call.domain = "local".to_owned();
    model.graph.nodes.insert(0, call);
    model.graph.nodes[1].inputs[0] = "z".to_owned();
    assert_says(&refusal(model), &["functions", "bytes"]);

    // One that calls itself.
    let mut model = linear();
    let mut recursive = level(0);
    recursive.nodes.truncate(1);
    recursive.nodes[0].op = "f0".to_owned();
    model.functions = vec![recursive];
    let mut call = Node::new("f0", ["x"], ["z"]);
    call.domain = "local".to_owned();
    model.graph.nodes.insert(0, call);
    assert_says(&refusal(model), &["f0", "deep"]);
}
