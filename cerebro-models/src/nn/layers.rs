//! Layers: the nodes, weights and initial values that networks are made of.

use crate::init::{Initializer, Initializers};
use crate::onnx::{Attribute, DataType, Dimension, Graph, Model, Node, TensorData, ValueInfo};

use super::Network;

/// The operator set that networks are written in.
const OPSET: i64 = 20;

/// The symbol of the first axis of inputs and outputs.
const ROWS: &str = "rows";

/// In a `Reshape`: whatever size is left over, which is the rows.
pub(super) const REST: i64 = -1;

/// A network under construction; values are known by their names, and a layer's output has the
/// layer's name.
#[derive(Debug, Default)]
pub(super) struct Layers {
    graph: Graph,
    initializers: Initializers,
}

/// Whether a layer adds a bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bias {
    With,
    Without,
}

/// A convolution's shape; one entry per spatial axis in `kernel`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Convolution<'a> {
    pub(super) channels: (usize, usize),
    pub(super) kernel: &'a [usize],
    pub(super) stride: usize,
    pub(super) padding: usize,
    pub(super) bias: Bias,
}

impl Layers {
    pub(super) fn new(name: &str) -> Self {
        Self { graph: Graph { name: name.to_owned(), ..Graph::default() }, ..Self::default() }
    }

    /// An input of `data_type`, each row of shape `row`.
    pub(super) fn input(&mut self, name: &str, data_type: DataType, row: &[usize]) -> String {
        self.graph.inputs.push(rows_of(name, data_type, row));
        name.to_owned()
    }

    /// A weight with the given initial values.
    pub(super) fn weight(
        &mut self,
        name: &str,
        dims: &[usize],
        initializer: Initializer,
    ) -> String {
        let zeros = vec![0; 4 * dims.iter().product::<usize>()];
        let data = TensorData::new(DataType::Float32, dims.to_vec(), zeros.into())
            .expect("the bytes were counted from the shape");
        self.graph.initializers.insert(name.to_owned(), data);
        self.initializers.insert(name.to_owned(), initializer);
        name.to_owned()
    }

    /// Gives the weight `name` other initial values.
    pub(super) fn initialize(&mut self, name: &str, initializer: Initializer) {
        self.initializers.insert(name.to_owned(), initializer);
    }

    /// A constant of the computation: a node, so that nobody takes it for a weight.
    fn constant(&mut self, name: &str, tensor: TensorData) -> String {
        let value = [("value", Attribute::Tensor(tensor))];
        self.node("Constant", &[], name, value)
    }

    /// One node of ONNX's own operator `op`, whose only output is called `output`.
    pub(super) fn node<'n>(
        &mut self,
        op: &str,
        inputs: &[&str],
        output: &str,
        attributes: impl IntoIterator<Item = (&'n str, Attribute)>,
    ) -> String {
        let node = Node::new(op, inputs.iter().copied(), [output]);
        let node = attributes.into_iter().fold(node, |node, (name, value)| node.with(name, value));
        self.graph.nodes.push(Node { name: output.to_owned(), ..node });
        output.to_owned()
    }

    /// A node whose outputs are `outputs`, where `""` stands for one that is not needed.
    pub(super) fn node_with_outputs<'n>(
        &mut self,
        op: &str,
        inputs: &[&str],
        outputs: &[&str],
        attributes: impl IntoIterator<Item = (&'n str, Attribute)>,
    ) {
        let node = Node::new(op, inputs.iter().copied(), outputs.iter().copied());
        let node = attributes.into_iter().fold(node, |node, (name, value)| node.with(name, value));
        self.graph.nodes.push(node);
    }

    /// `max(input, 0)`.
    pub(super) fn relu(&mut self, input: &str) -> String {
        self.node("Relu", &[input], &format!("{input}.relu"), [])
    }

    /// The sum of two values.
    pub(super) fn add(&mut self, name: &str, a: &str, b: &str) -> String {
        self.node("Add", &[a, b], name, [])
    }

    /// `input` in the shape `dims`, in which [`REST`] stands for the rows.
    pub(super) fn reshape(&mut self, name: &str, input: &str, dims: &[i64]) -> String {
        let shape = TensorData::from_i64(&[dims.len()], dims);
        let shape = self.constant(&format!("{name}.shape"), shape);
        self.node("Reshape", &[input, &shape], name, [])
    }

    /// `input` with its axes in the order `order`.
    pub(super) fn transpose(&mut self, name: &str, input: &str, order: &[i64]) -> String {
        self.node("Transpose", &[input], name, [("perm", Attribute::Ints(order.to_vec()))])
    }

    /// The mean over `axes`, which go away.
    pub(super) fn mean(&mut self, name: &str, input: &str, axes: &[i64]) -> String {
        let tensor = TensorData::from_i64(&[axes.len()], axes);
        let axes = self.constant(&format!("{name}.axes"), tensor);
        self.node("ReduceMean", &[input, &axes], name, [("keepdims", Attribute::Int(0))])
    }

    /// `input` times a constant.
    pub(super) fn scale(&mut self, name: &str, input: &str, factor: f64) -> String {
        let tensor = TensorData::from_f32(&[], &[factor as f32]);
        let factor = self.constant(&format!("{name}.factor"), tensor);
        self.node("Mul", &[input, &factor], name, [])
    }

    /// `input W^T + b` for `input` of shape `[rows, inputs]`; weights `NAME.weight`, `NAME.bias`.
    pub(super) fn linear(
        &mut self,
        name: &str,
        input: &str,
        (inputs, outputs): (usize, usize),
    ) -> String {
        // PyTorch's default, `kaiming_uniform_(a=sqrt(5))`, for weight and bias alike.
        let initializer = Initializer::Uniform { bound: 1.0 / (inputs.max(1) as f64).sqrt() };
        let weight = self.weight(&format!("{name}.weight"), &[outputs, inputs], initializer);
        let bias = self.weight(&format!("{name}.bias"), &[outputs], initializer);
        self.node("Gemm", &[input, &weight, &bias], name, [("transB", Attribute::Int(1))])
    }

    /// [`linear`](Self::linear) with initial values of one's own: of the weight and of the bias.
    pub(super) fn linear_with(
        &mut self,
        name: &str,
        input: &str,
        sizes: (usize, usize),
        weight: Option<Initializer>,
        bias: Initializer,
    ) -> String {
        let output = self.linear(name, input, sizes);
        if let Some(weight) = weight {
            self.initialize(&format!("{name}.weight"), weight);
        }
        self.initialize(&format!("{name}.bias"), bias);
        output
    }

    /// A convolution of `[rows, channels, ...]`; weights `NAME.weight`, `NAME.bias`.
    pub(super) fn convolution(&mut self, name: &str, input: &str, of: Convolution<'_>) -> String {
        let (inputs, outputs) = of.channels;
        let fan_in = inputs * of.kernel.iter().product::<usize>();
        let initializer = Initializer::Uniform { bound: 1.0 / (fan_in.max(1) as f64).sqrt() };
        let dims: Vec<usize> = [outputs, inputs].iter().chain(of.kernel).copied().collect();
        let weight = self.weight(&format!("{name}.weight"), &dims, initializer);
        let bias = (of.bias == Bias::With)
            .then(|| self.weight(&format!("{name}.bias"), &[outputs], initializer));
        let inputs: Vec<&str> =
            [input, weight.as_str()].into_iter().chain(bias.as_deref()).collect();
        let axes = of.kernel.len();
        let ints = |value: usize, count: usize| Attribute::Ints(vec![value as i64; count]);
        let kernel = of.kernel.iter().map(|&size| size as i64).collect();
        let attributes = [
            ("kernel_shape", Attribute::Ints(kernel)),
            ("strides", ints(of.stride, axes)),
            ("pads", ints(of.padding, 2 * axes)),
        ];
        self.node("Conv", &inputs, name, attributes)
    }

    /// The largest value in windows of `kernel` along each of `axes` spatial axes.
    pub(super) fn max_pool(
        &mut self,
        name: &str,
        input: &str,
        axes: usize,
        (kernel, stride, padding): (usize, usize, usize),
    ) -> String {
        let ints = |value: usize, count: usize| Attribute::Ints(vec![value as i64; count]);
        let attributes = [
            ("kernel_shape", ints(kernel, axes)),
            ("strides", ints(stride, axes)),
            ("pads", ints(padding, 2 * axes)),
        ];
        self.node("MaxPool", &[input], name, attributes)
    }

    /// Batch normalization of `[rows, channels, ...]`: trained with the batch's statistics, used
    /// with running ones.
    pub(super) fn batch_norm(&mut self, name: &str, input: &str, channels: usize) -> String {
        let mut weight = |part: &str, value: f32| {
            self.weight(&format!("{name}.{part}"), &[channels], Initializer::Constant(value))
        };
        let (scale, bias) = (weight("weight", 1.0), weight("bias", 0.0));
        let (mean, variance) = (weight("running_mean", 0.0), weight("running_var", 1.0));
        let inputs = [input, &scale, &bias, &mean, &variance];
        let attributes = [("epsilon", Attribute::Float(1e-5)), ("momentum", Attribute::Float(0.9))];
        self.node("BatchNormalization", &inputs, name, attributes)
    }

    /// Layer normalization over the last axis, of `width`.
    pub(super) fn layer_norm(&mut self, name: &str, input: &str, width: usize) -> String {
        let mut weight = |part: &str, value: f32| {
            self.weight(&format!("{name}.{part}"), &[width], Initializer::Constant(value))
        };
        let (scale, bias) = (weight("weight", 1.0), weight("bias", 0.0));
        let attributes = [("axis", Attribute::Int(-1)), ("epsilon", Attribute::Float(1e-5))];
        self.node("LayerNormalization", &[input, &scale, &bias], name, attributes)
    }

    /// A row of the table `NAME.weight`, of shape `[entries, width]`, for each index.
    pub(super) fn embedding(
        &mut self,
        name: &str,
        indices: &str,
        (entries, width): (usize, usize),
    ) -> String {
        let initializer = Initializer::Normal { deviation: 1.0 };
        let table = self.weight(&format!("{name}.weight"), &[entries, width], initializer);
        self.node("Gather", &[&table, indices], name, [("axis", Attribute::Int(0))])
    }

    /// Entry `index` along axis 1, which goes away.
    pub(super) fn column(&mut self, name: &str, input: &str, index: usize) -> String {
        let tensor = TensorData::from_i64(&[], &[index as i64]);
        let index = self.constant(&format!("{name}.index"), tensor);
        self.node("Gather", &[input, &index], name, [("axis", Attribute::Int(1))])
    }

    /// The network whose output is `output`, each row of shape `row`, under the name `name`.
    pub(super) fn finish(mut self, output: &str, row: &[usize], name: &str) -> Network {
        for node in self.graph.nodes.iter_mut().filter(|node| node.outputs[0] == output) {
            name.clone_into(&mut node.outputs[0]);
        }
        self.graph.outputs.push(rows_of(name, DataType::Float32, row));
        Network { model: Model::new(self.graph, OPSET), initializers: self.initializers }
    }
}

fn rows_of(name: &str, data_type: DataType, row: &[usize]) -> ValueInfo {
    let rows = Dimension::Symbol(ROWS.to_owned());
    let dims = std::iter::once(rows).chain(row.iter().map(|&size| Dimension::Size(size)));
    ValueInfo::tensor(name, data_type, dims.collect())
}
