//! Operators within small networks: the same weights after some steps in both dialects, and the
//! same bits with any number of threads.

mod attention;
mod lookups;
mod sequences;

use cerebro_core::data::{MemoryPartition, Tensor};
use cerebro_core::{PartitionId, Seed, Slot};
use ndarray::{ArrayD, IxDyn};

use super::train_on;
use crate::graph::Dialect;
use crate::kernels::{
    BATCH_NORM, BATCH_NORM_GRADIENT, CONV, CONV_INPUT_GRADIENT, CONV_WEIGHT_GRADIENT, DEPTHWISE,
    DEPTHWISE_INPUT_GRADIENT, DEPTHWISE_WEIGHT_GRADIENT, MAX_POOL_GRADIENT, RELU_GRADIENT, SILU,
    SILU_GRADIENT, in_domain,
};
use crate::loss::Loss;
use crate::nn::Network;
use crate::onnx::{Attribute, DataType, Graph, Model, Node, TensorData, ValueInfo};
use crate::optim::Optimizer;
use crate::program::Program;
use crate::step::Task;
use crate::training::{InputShapes, Threads, TrainingSpec};

/// A network in the making, whose newest value is `h`.
pub(super) struct Small {
    graph: Graph,
    pub(super) shape: Vec<usize>,
    count: usize,
    frozen: Vec<String>,
}

impl Small {
    pub(super) fn new(shape: &[usize]) -> Self {
        let inputs = vec![ValueInfo::fixed("x", DataType::Float32, shape)];
        let graph = Graph { inputs, ..Graph::default() };
        Self { graph, shape: shape.to_vec(), count: 0, frozen: Vec::new() }
    }

    pub(super) fn value(&self) -> String {
        if self.count == 0 { "x".to_owned() } else { format!("h{}", self.count) }
    }

    pub(super) fn weight(&mut self, dims: &[usize], around: f64) -> String {
        let name = format!("w{}", self.graph.initializers.len());
        let mut rng = Seed(7).derive(&name, &[]).rng();
        let values: Vec<f32> = (0..dims.iter().product::<usize>())
            .map(|_| (around + 0.3 * rng.normal()) as f32)
            .collect();
        self.graph.initializers.insert(name.clone(), TensorData::from_f32(dims, &values));
        name
    }

    pub(super) fn node(
        mut self,
        op: &str,
        weights: &[String],
        attributes: &[(&str, Attribute)],
        shape: &[usize],
    ) -> Self {
        let before = self.value();
        self.count += 1;
        let inputs: Vec<&str> =
            [before.as_str()].into_iter().chain(weights.iter().map(String::as_str)).collect();
        let after = self.value();
        let node = Node::new(op, inputs, [after.as_str()]);
        let node =
            attributes.iter().fold(node, |node, (name, value)| node.with(name, value.clone()));
        self.graph.nodes.push(node);
        self.shape = shape.to_vec();
        self
    }

    /// A node that reads `inputs` and gives a new value.
    pub(super) fn of(
        &mut self,
        op: &str,
        inputs: &[&str],
        attributes: &[(&str, Attribute)],
        shape: &[usize],
    ) -> String {
        self.count += 1;
        let name = self.value();
        let node = Node::new(op, inputs.iter().copied(), [name.as_str()]);
        let with = |node: Node, (name, value): &(&str, Attribute)| node.with(name, value.clone());
        self.graph.nodes.push(attributes.iter().fold(node, with));
        self.shape = shape.to_vec();
        name
    }

    fn constant(&mut self, tensor: TensorData) -> String {
        self.of("Constant", &[], &[("value", Attribute::Tensor(tensor))], &[])
    }

    /// A convolution with a bias, with `pads` before and after each axis.
    fn conv(mut self, filters: usize, kernel: &[usize], stride: usize, pads: [usize; 2]) -> Self {
        let axes = kernel.len();
        let ints = |values: Vec<usize>| Attribute::Ints(values.iter().map(|&v| v as i64).collect());
        let weight = self.weight(&[&[filters, self.shape[1]], kernel].concat(), 0.0);
        let bias = self.weight(&[filters], 0.0);
        let mut shape = vec![self.shape[0], filters];
        shape
            .extend((0..axes).map(|axis| {
                (self.shape[axis + 2] + pads[0] + pads[1] - kernel[axis]) / stride + 1
            }));
        let attributes = [
            ("kernel_shape", ints(kernel.to_vec())),
            ("strides", ints(vec![stride; axes])),
            ("pads", ints([vec![pads[0]; axes], vec![pads[1]; axes]].concat())),
        ];
        self.node("Conv", &[weight, bias], &attributes, &shape)
    }

    fn batch_norm(mut self) -> Self {
        let channels = self.shape[1];
        let [scale, bias] = [1.0, 0.1].map(|around| self.weight(&[channels], around));
        let (mean, variance) = ("mean".to_owned(), "variance".to_owned());
        for (name, value) in [(&mean, 0.0), (&variance, 1.0)] {
            let data = TensorData::from_f32(&[channels], &vec![value; channels]);
            self.graph.initializers.insert(name.clone(), data);
        }
        let shape = self.shape.clone();
        self.node("BatchNormalization", &[scale, bias, mean, variance], &[], &shape)
    }

    pub(super) fn plain(self, op: &str) -> Self {
        let shape = self.shape.clone();
        self.node(op, &[], &[], &shape)
    }

    fn program(mut self, optimizer: &Optimizer) -> Program {
        let name = self.value();
        self.graph.outputs.push(ValueInfo::fixed(name, DataType::Float32, &self.shape));
        let mut spec = TrainingSpec::new(Loss::MeanSquaredError, optimizer.kind());
        spec.frozen = self.frozen;
        let network = Network::from(Model::new(self.graph, 20));
        let length = optimizer.hyperparameters(1, optimizer.learning_rate).len();
        Program::new(network, spec, None, length).unwrap()
    }
}

/// The variables after two steps in `dialect` with `threads`.
fn trained(network: impl Fn() -> Small, dialect: Dialect, threads: usize) -> Vec<f32> {
    let optimizer = Optimizer::sgd(0.1);
    let small = network();
    let (input, target) = (small.graph.inputs[0].clone(), small.shape.clone());
    let program = small.program(&optimizer);
    let dims: Vec<usize> = match &input.value_type {
        crate::onnx::ValueType::Tensor(tensor) => tensor.dims.clone().unwrap(),
        crate::onnx::ValueType::Other => unreachable!("inputs are tensors"),
    }
    .iter()
    .map(|dim| match dim {
        crate::onnx::Dimension::Size(size) => *size,
        _ => unreachable!("shapes are fixed"),
    })
    .collect();
    let mut rng = Seed(3).rng();
    let mut normal = |dims: &[usize]| {
        Tensor::from(ArrayD::from_shape_simple_fn(IxDyn(dims), || rng.normal() as f32))
    };
    let tensors = [("x", normal(&dims)), ("y", normal(&target))];
    let partition = MemoryPartition::new(PartitionId(0), tensors).unwrap();
    let slot = Slot { threads, ..Slot::default() };
    train_on(&program, &optimizer, &partition, &slot, dialect, 2)
}

pub(super) fn operators(network: impl Fn() -> Small, dialect: Dialect) -> Vec<String> {
    let small = network();
    let rows = small.shape[0];
    let program = small.program(&Optimizer::sgd(0.1));
    let model = program.draw(Task::Step, dialect, Threads::Any, &InputShapes::rows(rows)).unwrap();
    model.graph.nodes.into_iter().map(|node| node.op).collect()
}

/// Both dialects give the same, the fused one has each of `expected`, and its bits do not depend on
/// the number of threads.
fn agree(what: &str, expected: &[&'static str], network: impl Fn() -> Small) {
    agree_in(Dialect::Fused, what, expected, network);
}

/// The same in `dialect`.
pub(super) fn agree_in(
    dialect: Dialect,
    what: &str,
    expected: &[&'static str],
    network: impl Fn() -> Small,
) {
    let nodes = operators(&network, dialect);
    for name in expected {
        assert!(nodes.iter().any(|op| op == in_domain(name)), "{what}: no {name} in {nodes:?}");
    }
    let standard = trained(&network, Dialect::Standard, 1);
    let fused = trained(&network, dialect, 1);
    assert_eq!(fused.len(), standard.len());
    for (index, (fused, standard)) in fused.iter().zip(&standard).enumerate() {
        let close = (fused - standard).abs() <= 2e-5 + 2e-4 * standard.abs();
        assert!(close, "{what}: variable element {index} is {fused}, should be {standard}");
    }
    assert!(standard.iter().all(|value| value.is_finite()), "{what}");
    for _ in 0..3 {
        assert_eq!(trained(&network, dialect, 2), fused, "{what}: with two threads");
    }
}

#[test]
fn convolutions_of_any_geometry_train_as_the_standard_operators_do() {
    let convolutions = [CONV, CONV_INPUT_GRADIENT, CONV_WEIGHT_GRADIENT];
    // Kernel, stride, paddings: shorter than the stride, longer, uneven, none.
    let geometries: [(&[usize], usize, [usize; 2]); 10] = [
        (&[3, 3], 1, [1, 1]),
        (&[3, 3], 2, [1, 1]),
        (&[1, 1], 1, [0, 0]),
        (&[1, 1], 2, [0, 0]),
        (&[5, 2], 1, [0, 1]),
        (&[4, 4], 3, [2, 0]),
        (&[2, 2], 3, [1, 0]),
        (&[7, 7], 2, [3, 3]),
        (&[5], 1, [2, 2]),
        (&[4], 2, [1, 2]),
    ];
    for (kernel, stride, pads) in geometries {
        // Channel counts that are no multiples of a vector, and one that is more than a tile.
        for (inner, filters) in [(3, 5), (16, 37), (40, 8)] {
            let input = [&[5, 2], &[11, 9][..kernel.len()]].concat();
            let network = || {
                let small = Small::new(&input).conv(inner, &vec![1; kernel.len()], 1, [0, 0]);
                small.plain("Tanh").conv(filters, kernel, stride, pads)
            };
            agree(
                &format!("{kernel:?} {stride} {pads:?} {inner} {filters}"),
                &convolutions,
                network,
            );
        }
    }
}

/// A convolution of each channel by itself after one of all, with an entry per axis of everything.
fn depthwise_network(
    input: &[usize],
    kernel: &[usize],
    strides: &[usize],
    dilations: &[usize],
    pads: [usize; 2],
) -> Small {
    let ints = |values: &[usize]| Attribute::Ints(values.iter().map(|&v| v as i64).collect());
    let channels = 5;
    let mut small =
        Small::new(input).conv(channels, &vec![1; kernel.len()], 1, [0, 0]).plain("Tanh");
    let weight = small.weight(&[&[channels, 1], kernel].concat(), 0.0);
    let bias = small.weight(&[channels], 0.0);
    let mut shape = vec![input[0], channels];
    shape.extend((0..kernel.len()).map(|axis| {
        let reach = (kernel[axis] - 1) * dilations[axis] + 1;
        (input[axis + 2] + pads[0] + pads[1] - reach) / strides[axis] + 1
    }));
    let all = [vec![pads[0]; kernel.len()], vec![pads[1]; kernel.len()]].concat();
    let attributes = [
        ("kernel_shape", ints(kernel)),
        ("strides", ints(strides)),
        ("dilations", ints(dilations)),
        ("pads", ints(&all)),
        ("group", Attribute::Int(channels as i64)),
    ];
    small.node("Conv", &[weight, bias], &attributes, &shape)
}

/// Kernel, strides, dilations, paddings.
type Case = (&'static [usize], &'static [usize], &'static [usize], [usize; 2]);

#[test]
fn convolutions_of_each_channel_train_as_the_standard_operators_do() {
    let own = [DEPTHWISE, DEPTHWISE_INPUT_GRADIENT, DEPTHWISE_WEIGHT_GRADIENT];
    // Shorter than the stride, as long, longer; more places than fit registers; uneven
    // paddings, wide ones, none; rows of more than a vector.
    let cases: [Case; 12] = [
        (&[3, 3], &[1, 1], &[1, 1], [1, 1]),
        (&[3, 3], &[2, 2], &[1, 1], [1, 1]),
        (&[5, 5], &[1, 1], &[1, 1], [2, 2]),
        (&[5, 5], &[2, 3], &[1, 1], [2, 1]),
        (&[1, 1], &[1, 1], &[1, 1], [0, 0]),
        (&[1, 1], &[2, 2], &[1, 1], [0, 0]),
        (&[2, 2], &[3, 3], &[1, 1], [1, 0]),
        (&[3, 3], &[1, 1], &[2, 3], [0, 4]),
        (&[3, 2], &[2, 2], &[3, 2], [3, 0]),
        (&[4, 3], &[1, 2], &[1, 1], [5, 5]),
        (&[5], &[1], &[1], [2, 2]),
        (&[3], &[2], &[2], [1, 2]),
    ];
    for (kernel, strides, dilations, pads) in cases {
        for size in [[9, 7], [8, 37]] {
            let input = [&[3, 2], &size[..kernel.len()]].concat();
            let network = || depthwise_network(&input, kernel, strides, dilations, pads);
            agree(
                &format!("{kernel:?} {strides:?} {dilations:?} {pads:?} {size:?}"),
                &own,
                network,
            );
        }
    }
}

/// `x sigmoid(x)` as exporters write it.
fn silu(mut small: Small) -> Small {
    let (x, shape) = (small.value(), small.shape.clone());
    small = small.plain("Sigmoid");
    small.node("Mul", &[x], &[], &shape)
}

#[test]
fn sigmoid_linear_units_train_as_the_standard_operators_do() {
    let network = || silu(Small::new(&[4, 3, 6, 5]).conv(4, &[3, 3], 1, [1, 1]));
    agree("alone", &[SILU, SILU_GRADIENT], network);
    let nodes = operators(network, Dialect::Fused);
    assert!(!nodes.iter().any(|op| op == "Sigmoid"), "{nodes:?}");
}

#[test]
fn a_sigmoid_linear_unit_that_alone_reads_a_normalization_becomes_part_of_it() {
    let network = || {
        let small = Small::new(&[4, 3, 6, 5]).conv(4, &[3, 3], 1, [1, 1]).batch_norm();
        silu(small).conv(2, &[3, 3], 1, [1, 1])
    };
    agree("joined", &[BATCH_NORM, BATCH_NORM_GRADIENT], network);
    let nodes = operators(network, Dialect::Fused);
    for absent in [SILU, SILU_GRADIENT].map(in_domain) {
        assert!(!nodes.iter().any(|op| op == absent), "{absent} in {nodes:?}");
    }
}

#[test]
fn a_sigmoid_linear_unit_beside_another_reader_of_a_normalization_stays() {
    let network = || {
        let mut small = Small::new(&[4, 3, 6, 5]).batch_norm();
        let normalized = small.value();
        small = silu(small);
        let shape = small.shape.clone();
        small.node("Add", &[normalized], &[], &shape).conv(2, &[1, 1], 1, [0, 0])
    };
    agree("apart", &[BATCH_NORM, BATCH_NORM_GRADIENT, SILU, SILU_GRADIENT], network);
}

#[test]
fn a_sigmoid_linear_unit_above_frozen_weights_trains_too() {
    let network = || {
        let mut small = Small::new(&[4, 3, 6, 5]).batch_norm();
        small.frozen = ["w0", "w1"].map(str::to_owned).to_vec();
        silu(small).conv(2, &[3, 3], 1, [1, 1])
    };
    agree("frozen below", &[BATCH_NORM, CONV_WEIGHT_GRADIENT], network);
}

#[test]
fn batch_normalization_trains_as_the_standard_operators_do() {
    for size in [[4, 3, 5, 7], [2, 20, 1, 4], [64, 2, 33, 1]] {
        let network = || Small::new(&size).conv(6, &[1, 1], 1, [0, 0]).batch_norm().plain("Tanh");
        agree(&format!("{size:?}"), &[BATCH_NORM, BATCH_NORM_GRADIENT], network);
    }
}

#[test]
fn a_rectifier_that_alone_reads_a_normalization_becomes_part_of_it() {
    let network = || {
        let small = Small::new(&[4, 3, 6, 5]).conv(4, &[3, 3], 1, [1, 1]);
        small.batch_norm().plain("Relu").conv(2, &[3, 3], 1, [1, 1])
    };
    agree("joined", &[BATCH_NORM, BATCH_NORM_GRADIENT], network);
    let nodes = operators(network, Dialect::Fused);
    for absent in ["Relu", in_domain(RELU_GRADIENT)] {
        assert!(!nodes.iter().any(|op| op == absent), "{absent} in {nodes:?}");
    }
}

#[test]
fn a_rectifier_beside_another_reader_of_a_normalization_stays() {
    let network = || {
        let mut small = Small::new(&[4, 3, 6, 5]).batch_norm();
        let normalized = small.value();
        small = small.plain("Relu");
        let shape = small.shape.clone();
        small.node("Add", &[normalized], &[], &shape).conv(2, &[1, 1], 1, [0, 0])
    };
    agree("apart", &[BATCH_NORM, BATCH_NORM_GRADIENT, RELU_GRADIENT], network);
}

#[test]
fn the_weights_of_a_normalization_may_be_frozen() {
    let network = || {
        let mut small = Small::new(&[4, 3, 6, 5]).conv(4, &[3, 3], 1, [1, 1]).batch_norm();
        // The convolution's weights are w0 and w1.
        small.frozen = ["w2", "w3"].map(str::to_owned).to_vec();
        small.plain("Relu")
    };
    agree("frozen", &[BATCH_NORM, BATCH_NORM_GRADIENT, CONV_WEIGHT_GRADIENT], network);
}

#[test]
fn rectifiers_before_a_pool_over_series_train_as_the_standard_operators_do() {
    let network = || {
        let small = Small::new(&[4, 3, 10]).conv(5, &[3], 1, [1, 1]).plain("Relu");
        let attributes = ["kernel_shape", "strides"].map(|name| (name, Attribute::Ints(vec![2])));
        small.node("MaxPool", &[], &attributes, &[4, 5, 5])
    };
    agree("series", &[CONV_WEIGHT_GRADIENT, MAX_POOL_GRADIENT, RELU_GRADIENT], network);
}

#[test]
fn windows_that_tile_wide_images_train_as_the_standard_operators_do() {
    // Whole vectors of windows and some more, behind a rectifier with many equal elements.
    let network = || {
        let small = Small::new(&[3, 2, 4, 38]).conv(4, &[3, 3], 1, [1, 1]).plain("Relu");
        let attributes =
            ["kernel_shape", "strides"].map(|name| (name, Attribute::Ints(vec![2; 2])));
        small.node("MaxPool", &[], &attributes, &[3, 4, 2, 19]).conv(2, &[1, 1], 1, [0, 0])
    };
    agree("wide", &[MAX_POOL_GRADIENT], network);
}

#[test]
fn max_pooling_trains_as_the_standard_operators_do() {
    let ints = |values: &[i64]| Attribute::Ints(values.to_vec());
    // Windows that tile, overlap, are padded, are dilated.
    let pools = [
        ([2, 2], [2, 2], [1, 1], [0_i64; 4], [4_usize, 3]),
        ([3, 3], [2, 2], [1, 1], [1, 1, 1, 1], [4, 3]),
        ([3, 2], [1, 1], [1, 1], [0; 4], [6, 5]),
        ([2, 2], [1, 1], [2, 3], [0; 4], [6, 3]),
        ([2, 3], [2, 1], [1, 1], [0, 1, 0, 1], [4, 6]),
    ];
    for (kernel, strides, dilations, pads, places) in pools {
        let network = || {
            let small = Small::new(&[3, 2, 8, 6]).conv(4, &[3, 3], 1, [1, 1]);
            let attributes = [
                ("kernel_shape", ints(&kernel)),
                ("strides", ints(&strides)),
                ("dilations", ints(&dilations)),
                ("pads", ints(&pads)),
            ];
            small.node("MaxPool", &[], &attributes, &[3, 4, places[0], places[1]])
        };
        agree(&format!("{kernel:?} {strides:?} {dilations:?}"), &[MAX_POOL_GRADIENT], network);
    }
}
