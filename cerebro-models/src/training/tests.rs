//! Training graphs drawn from small models: updates, imports of older files, and refusals.

mod errors;
mod hostile;
mod imports;
mod metrics;
mod updates;

use std::collections::BTreeMap;

use ort::session::{Session, SessionInputValue};
use ort::value::Tensor;

use super::{Blueprint, InputShapes, TrainingSpec};
use crate::loss::Loss;
use crate::onnx::{DataType, Dimension, Graph, Model, Node, TensorData, ValueInfo};
use crate::optim::Optimizer;

/// `rows` rows of an input or an output.
fn rows(name: &str, row: &[usize]) -> ValueInfo {
    let mut dims = vec![Dimension::Symbol("batch".to_owned())];
    dims.extend(row.iter().map(|&size| Dimension::Size(size)));
    ValueInfo::tensor(name, DataType::Float32, dims)
}

/// A model of the input `x` and the output `y`.
fn model(
    x: &[usize],
    y: &[usize],
    nodes: Vec<Node>,
    initializers: Vec<(&str, TensorData)>,
) -> Model {
    let graph = Graph {
        nodes,
        inputs: vec![rows("x", x)],
        outputs: vec![rows("y", y)],
        initializers: initializers.into_iter().map(|(n, t)| (n.to_owned(), t)).collect(),
        ..Graph::default()
    };
    Model::new(graph, 18)
}

/// One linear layer from three features to two outputs.
fn linear() -> Model {
    let weight = TensorData::from_f32(&[2, 3], &[0.5, -0.3, 0.8, -0.6, 0.1, 0.4]);
    let bias = TensorData::from_f32(&[2], &[0.2, -0.1]);
    let node = Node::new("Gemm", ["x", "weight", "bias"], ["y"]).with("transB", 1);
    model(&[3], &[2], vec![node], vec![("weight", weight), ("bias", bias)])
}

fn spec() -> TrainingSpec {
    TrainingSpec::new(Loss::MeanSquaredError, Optimizer::sgd(0.1).kind())
}

type Fed = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// Runs a graph on those of `fed` that it reads; labels are fed as integers.
fn run(graph: &Model, fed: &Fed) -> BTreeMap<String, Vec<f32>> {
    let environment = crate::runtime::install().unwrap().environment();
    let mut session = Session::builder(environment)
        .unwrap()
        .with_intra_threads(1)
        .unwrap()
        .commit_from_memory(&graph.to_bytes().unwrap())
        .unwrap();
    let inputs: Vec<(String, SessionInputValue<'_>)> = graph
        .graph
        .inputs
        .iter()
        .map(|input| {
            let (dims, values) = fed[&input.name].clone();
            let integers = ValueInfo::fixed(&input.name, DataType::Int64, &dims) == *input;
            let value = if integers {
                let values: Vec<i64> = values.iter().map(|&value| value as i64).collect();
                Tensor::from_array((dims, values)).unwrap().into_dyn()
            } else {
                Tensor::from_array((dims, values)).unwrap().into_dyn()
            };
            (input.name.clone(), value.into())
        })
        .collect();
    let outputs = session.run(inputs).unwrap();
    let names = graph.graph.outputs.iter().map(|output| output.name.clone());
    names
        .map(|name| {
            let values = outputs[name.as_str()].try_extract_tensor::<f32>().unwrap().1.to_vec();
            (name, values)
        })
        .collect()
}

/// What `model` predicts for `x`, through the graphs that are drawn of it.
fn predict(model: Model, x: &[f32], count: usize) -> Vec<f32> {
    let blueprint = Blueprint::new(model, spec()).unwrap();
    let graph = blueprint.prediction(&InputShapes::rows(count)).unwrap();
    let mut fed = initial(&blueprint);
    let mut dims = vec![count];
    if let crate::onnx::ValueType::Tensor(tensor) = &graph.graph.inputs[0].value_type {
        dims = tensor
            .dims
            .iter()
            .flatten()
            .map(|dim| match dim {
                Dimension::Size(size) => *size,
                _ => panic!("drawn graphs have fixed shapes"),
            })
            .collect();
    }
    fed.insert("x".to_owned(), (dims, x.to_vec()));
    run(&graph, &fed)["y"].clone()
}

/// The variables before the first step.
fn initial(blueprint: &Blueprint) -> Fed {
    let variables = blueprint.variables().iter();
    variables
        .map(|variable| {
            let values = match &variable.initial {
                super::Initial::Tensor(tensor) => tensor.f32s().unwrap(),
                super::Initial::Fill(value) => vec![*value; variable.elements()],
            };
            (variable.input.clone(), (variable.dims.clone(), values))
        })
        .collect()
}
