//! Layers: the nodes, weights and initial values that networks are made of.

use crate::init::{Initializer, Initializers};
use crate::onnx::{Attribute, DataType, Dimension, Graph, Model, Node, TensorData, ValueInfo};

use super::Network;

/// The operator set that networks are written in.
const OPSET: i64 = 20;

/// The symbol of the first axis of inputs and outputs.
const ROWS: &str = "rows";

/// A network under construction; values are known by their names.
#[derive(Debug, Default)]
pub(super) struct Layers {
    graph: Graph,
    initializers: Initializers,
}

impl Layers {
    pub(super) fn new(name: &str) -> Self {
        Self { graph: Graph { name: name.to_owned(), ..Graph::default() }, ..Self::default() }
    }

    /// An input of 32-bit floats, each row of shape `row`.
    pub(super) fn input(&mut self, name: &str, row: &[usize]) -> String {
        self.graph.inputs.push(rows_of(name, row));
        name.to_owned()
    }

    /// A weight with the given initial values.
    fn weight(&mut self, name: &str, dims: &[usize], initializer: Initializer) -> String {
        let zeros = vec![0; 4 * dims.iter().product::<usize>()];
        let data = TensorData::new(DataType::Float32, dims.to_vec(), zeros.into())
            .expect("the bytes were counted from the shape");
        self.graph.initializers.insert(name.to_owned(), data);
        self.initializers.insert(name.to_owned(), initializer);
        name.to_owned()
    }

    /// One node of ONNX's own operator `op`, whose output is called `output`.
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

    /// The network whose output is `output`, each row of shape `row`, under the name `name`.
    pub(super) fn finish(mut self, output: &str, row: &[usize], name: &str) -> Network {
        for node in self.graph.nodes.iter_mut().filter(|node| node.outputs[0] == output) {
            name.clone_into(&mut node.outputs[0]);
        }
        self.graph.outputs.push(rows_of(name, row));
        Network { model: Model::new(self.graph, OPSET), initializers: self.initializers }
    }
}

fn rows_of(name: &str, row: &[usize]) -> ValueInfo {
    let rows = Dimension::Symbol(ROWS.to_owned());
    let dims = std::iter::once(rows).chain(row.iter().map(|&size| Dimension::Size(size)));
    ValueInfo::tensor(name, DataType::Float32, dims.collect())
}
