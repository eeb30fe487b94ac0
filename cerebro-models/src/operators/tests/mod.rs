//! Every gradient rule against finite differences, in float64 where ONNX Runtime's processor
//! kernels have it, else in float32 with wider steps.

#![allow(clippy::needless_pass_by_value, reason = "cases read better without borrows")]

mod activation;
mod arithmetic;
mod attention;
mod centering;
mod columns;
mod convolution;
mod deformable;
mod fourier;
mod hostile;
mod indexing;
mod loss;
mod matrix;
mod movement;
mod normalization;
mod pooling;
mod quantization;
mod random;
mod recurrent;
mod reduction;
mod region;
mod resize;
mod rotary;
mod sampling;
mod spectrogram;
mod table;

use std::collections::HashMap;

use cerebro_core::Seed;
use ort::session::{Session, SessionInputValue};
use ort::value::Tensor;

use crate::autodiff::{Forward, Mode, differentiate};
use crate::graph::{Attributes, Builder, Type, Value};
use crate::onnx::{DataType, Graph, Model, Node, TensorData, ValueInfo};
use crate::training::SEED;

/// An input of the operator under test.
#[derive(Clone, Debug)]
pub(super) enum Input {
    /// Varied: random numbers of this shape, in this range.
    Varied(Vec<usize>, (f64, f64)),
    /// Varied: these numbers.
    Given(Vec<usize>, Vec<f64>),
    /// Fixed.
    Constant(TensorData),
    /// Left out.
    None,
}

/// Random numbers from -2 to 2.
pub(super) fn x(dims: &[usize]) -> Input {
    within(dims, -2.0, 2.0)
}

/// Random numbers in a range.
pub(super) fn within(dims: &[usize], low: f64, high: f64) -> Input {
    Input::Varied(dims.to_vec(), (low, high))
}

/// Constant integers.
pub(super) fn ints(dims: &[usize], values: &[i64]) -> Input {
    Input::Constant(TensorData::from_i64(dims, values))
}

pub(super) fn none() -> Attributes {
    Attributes::none()
}

/// How exactly a gradient can be tested.
#[derive(Clone, Copy, Debug)]
pub(super) struct Precision {
    data_type: DataType,
    step: f64,
    tolerance: f64,
}

const DOUBLE: Precision = Precision { data_type: DataType::Float64, step: 1e-5, tolerance: 1e-6 };
/// For kernels that exist in 32 bits only. Truncation grows with the step, rounding shrinks.
const SINGLE: Precision = Precision { data_type: DataType::Float32, step: 1e-2, tolerance: 5e-3 };
/// For kernels that exist in 32 bits only and are linear in each input: any step is exact.
const LINEAR: Precision = Precision { data_type: DataType::Float32, step: 1.0, tolerance: 2e-4 };

/// Checks the gradients of `op` in 64 bits.
pub(super) fn check(op: &str, inputs: &[Input], attributes: Attributes) {
    check_outputs(op, inputs, attributes, 1, DOUBLE);
}

/// Checks the gradients of `op` in 32 bits.
pub(super) fn check_single(op: &str, inputs: &[Input], attributes: Attributes) {
    check_outputs(op, inputs, attributes, 1, SINGLE);
}

/// Checks the gradients of `op`, which is linear in each input, in 32 bits.
pub(super) fn check_linear(op: &str, inputs: &[Input], attributes: Attributes) {
    check_outputs(op, inputs, attributes, 1, LINEAR);
}

/// Checks the gradients of `op` by all its floating-point outputs.
pub(super) fn check_outputs(
    op: &str,
    inputs: &[Input],
    attributes: Attributes,
    outputs: usize,
    precision: Precision,
) {
    let label = format!("{op} {inputs:?} {attributes:?}");
    check_function(&label, inputs, precision, &mut |forward, values| {
        forward.apply_with_outputs(op, values, attributes.clone(), outputs)
    });
}

type Function<'f> =
    dyn FnMut(&mut Forward<'_>, &[Option<Value>]) -> Result<Vec<Value>, String> + 'f;

/// Why `op` is refused for float inputs of `dims` and the constants after them.
pub(super) fn refusal(
    op: &str,
    dims: &[&[usize]],
    constants: Vec<TensorData>,
    attributes: Attributes,
) -> String {
    let mut graph = Builder::new();
    let data = dims.iter().enumerate().map(|(index, &dims)| {
        Some(graph.input(format!("x{index}"), Type::new(DataType::Float32, dims)))
    });
    let mut inputs: Vec<_> = data.collect();
    inputs.extend(constants.into_iter().map(|constant| Some(graph.constant(constant))));
    Forward::new(&mut graph, Mode::Training).apply(op, &inputs, attributes).unwrap_err()
}

/// Compares what training composes of `op` with what ONNX Runtime's own operator gives, of random numbers
/// of the shape `dims` and the constants after them, in 32 bits.
pub(super) fn composed_and_native(
    op: &str,
    dims: &[usize],
    constants: &[TensorData],
    attributes: &Attributes,
) {
    let mut graph = Builder::new();
    let x = graph.input("x", Type::new(DataType::Float32, dims));
    let mut forward = Forward::new(&mut graph, Mode::Training);
    let more = constants.iter().map(|constant| Some(forward.graph.constant(constant.clone())));
    let inputs: Vec<_> = [Some(x)].into_iter().chain(more).collect();
    let y = forward.apply(op, &inputs, attributes.clone()).unwrap();
    let output = graph.dims(y).to_vec();
    let composed = graph.finish(&[("y".to_owned(), y)]);
    let names: Vec<String> = (0..constants.len()).map(|number| format!("c{number}")).collect();
    let inputs = ["x"].into_iter().chain(names.iter().map(String::as_str));
    let native = Graph {
        initializers: names.iter().cloned().zip(constants.iter().cloned()).collect(),
        inputs: vec![ValueInfo::fixed("x", DataType::Float32, dims)],
        outputs: vec![ValueInfo::fixed("y", DataType::Float32, &output)],
        nodes: vec![Node { attributes: attributes.0.clone(), ..Node::new(op, inputs, ["y"]) }],
        ..Graph::default()
    };
    let mut rng = Seed(5).rng();
    let numbers = (0..dims.iter().product()).map(|_| 4.0 * rng.unit() - 2.0).collect();
    let fed = [("x".to_owned(), dims.to_vec(), numbers)];
    let [composed, native] = [composed, Model::new(native, crate::graph::OPSET)]
        .map(|model| Runner::new(&model, op).run(DataType::Float32, &fed).remove("y").unwrap());
    assert_eq!(composed.len(), native.len());
    for (a, b) in composed.iter().zip(&native) {
        assert!((a - b).abs() <= 1e-5, "{op} {attributes:?}: {a} and {b}");
    }
}

/// Checks the gradients of a function: random weights make one number of its outputs.
pub(super) fn check_function(
    label: &str,
    inputs: &[Input],
    precision: Precision,
    function: &mut Function<'_>,
) {
    let Precision { data_type, step, tolerance } = precision;
    let mut rng = Seed(label.len() as u64).derive(label, &[]).rng();
    let mut graph = Builder::new();
    let mut values = Vec::new();
    let mut fed: Vec<(String, Vec<usize>, Vec<f64>)> = Vec::new();
    for (index, input) in inputs.iter().enumerate() {
        let (dims, numbers) = match input {
            Input::None => {
                values.push(None);
                continue;
            }
            Input::Constant(tensor) => {
                let tensor = if tensor.data_type().is_float() {
                    TensorData::from_f64(data_type, tensor.dims(), &tensor.to_f64s())
                } else {
                    tensor.clone()
                };
                values.push(Some(graph.constant(tensor)));
                continue;
            }
            Input::Given(dims, numbers) => (dims.clone(), numbers.clone()),
            Input::Varied(dims, (low, high)) => {
                let count = dims.iter().product();
                (dims.clone(), (0..count).map(|_| low + (high - low) * rng.unit()).collect())
            }
        };
        let name = format!("x{index}");
        values.push(Some(graph.input(&name, Type::new(data_type, dims.clone()))));
        fed.push((name, dims, numbers));
    }
    let wanted: Vec<Value> = inputs
        .iter()
        .zip(&values)
        .filter(|(input, _)| matches!(input, Input::Varied(..) | Input::Given(..)))
        .filter_map(|(_, value)| *value)
        .collect();

    let mut forward = Forward::new(&mut graph, Mode::Training);
    forward.set_place("tested");
    let outputs = function(&mut forward, &values).unwrap_or_else(|e| panic!("{label}: {e}"));
    let tape = std::mem::take(&mut forward.tape);
    let mut seeds = Vec::new();
    let mut parts = Vec::new();
    for output in outputs {
        let output_type = graph.value_type(output).clone();
        if output_type.data_type != data_type {
            continue;
        }
        let weights: Vec<f64> = (0..output_type.elements()).map(|_| rng.unit() - 0.3).collect();
        let weights = graph.constant(TensorData::from_f64(data_type, &output_type.dims, &weights));
        let product = graph.mul(output, weights);
        parts.push(graph.total(product));
        seeds.push((output, weights));
    }
    let loss = graph.sum(&parts).expect("a floating-point output");
    let found = differentiate(&mut graph, &tape, &seeds, &wanted)
        .unwrap_or_else(|error| panic!("{label}: {error}"));
    let mut named = vec![("loss".to_owned(), loss)];
    for (value, (name, ..)) in wanted.iter().zip(&fed) {
        let gradient = found.get(value).copied();
        let gradient = gradient.unwrap_or_else(|| graph.filled(0.0, *value));
        named.push((format!("d{name}"), gradient));
    }
    assert_eq!(graph.take_error(), None, "{label}");
    let mut session = Runner::new(&graph.finish(&named), label);
    let analytic = session.run(data_type, &fed);

    for (which, (name, _, numbers)) in fed.iter().enumerate() {
        for place in 0..numbers.len() {
            let mut moved = fed.clone();
            moved[which].2[place] = numbers[place] + step;
            let above = session.run(data_type, &moved)["loss"][0];
            moved[which].2[place] = numbers[place] - step;
            let below = session.run(data_type, &moved)["loss"][0];
            let numeric = (above - below) / (2.0 * step);
            let gradient = analytic[&format!("d{name}")][place];
            let scale = 1.0 + numeric.abs();
            assert!(
                (gradient - numeric).abs() <= tolerance * scale,
                "{label}: d{name}[{place}] is {gradient}, and should be {numeric}"
            );
        }
    }
}

/// A session that feeds and reads numbers.
pub(crate) struct Runner {
    session: Session,
    outputs: Vec<String>,
}

impl Runner {
    pub(crate) fn new(model: &Model, label: &str) -> Self {
        let environment = crate::runtime::install().unwrap().environment();
        let session = Session::builder(environment)
            .unwrap()
            .with_intra_threads(1)
            .unwrap()
            .commit_from_memory(&model.to_bytes().unwrap())
            .unwrap_or_else(|error| panic!("{label}: {error}"));
        let outputs = session.outputs().iter().map(|output| output.name().to_owned()).collect();
        Self { session, outputs }
    }

    pub(crate) fn run(
        &mut self,
        data_type: DataType,
        fed: &[(String, Vec<usize>, Vec<f64>)],
    ) -> HashMap<String, Vec<f64>> {
        let seed = Tensor::from_array(([1_usize], vec![7_i64])).unwrap().into_dyn();
        let is_random = self.session.inputs().iter().any(|input| input.name() == SEED);
        let seed = is_random.then(|| (SEED.to_owned(), seed.into()));
        let inputs: Vec<(String, SessionInputValue<'_>)> = fed
            .iter()
            .map(|(name, dims, numbers)| {
                let value = if data_type == DataType::Float64 {
                    Tensor::from_array((dims.clone(), numbers.clone())).unwrap().into_dyn()
                } else {
                    let numbers: Vec<f32> = numbers.iter().map(|&number| number as f32).collect();
                    Tensor::from_array((dims.clone(), numbers)).unwrap().into_dyn()
                };
                (name.clone(), value.into())
            })
            .chain(seed)
            .collect();
        let outputs = self.session.run(inputs).unwrap();
        let read = |name: &String| {
            let value = &outputs[name.as_str()];
            if data_type == DataType::Float64 {
                value.try_extract_tensor::<f64>().unwrap().1.to_vec()
            } else {
                let values = value.try_extract_tensor::<f32>().unwrap().1;
                values.iter().map(|&value| f64::from(value)).collect()
            }
        };
        self.outputs.iter().map(|name| (name.clone(), read(name))).collect()
    }
}
