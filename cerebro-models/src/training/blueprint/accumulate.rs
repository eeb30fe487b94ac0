//! The graphs of gradient accumulation: one adds the gradients of a batch to sums, the other
//! updates the parameters by their mean.

use std::collections::HashMap;

use super::given::{input_name, output_name};
use super::{Blueprint, empty_graph};
use crate::autodiff::Mode;
use crate::error::GraphError;
use crate::graph::{Builder, Dialect, Type, Value};
use crate::onnx::{DataType, Model};
use crate::training::{Accumulator, InputShapes, Threads, VariableKind};

/// The sum of the weights by which the loss is averaged. No initializer of a file that ends a
/// parameter's sum has this name.
const WEIGHT: &str = "cerebro.weight";

/// No weight that is not zero is below this one; for zero there is no gradient.
const LEAST_WEIGHT: f64 = 1e-30;

impl Blueprint {
    /// The sums that [`accumulation`](Self::accumulation) adds to, one per parameter with a
    /// gradient, and last the weight that they are divided by.
    pub(crate) fn accumulators(
        &self,
        shapes: &InputShapes,
    ) -> Result<Vec<Accumulator>, GraphError> {
        let mut graph = Builder::new();
        let sums = self.sums(&mut graph, shapes)?.accumulators;
        Ok(sums.into_iter().flatten().chain([weight()]).collect())
    }

    /// The graph that adds the gradients of a batch to the accumulators. It gives the packed
    /// statistics, the new sums, and the model's new running statistics.
    ///
    /// What is summed is the gradient of the loss before its division by the weight, so that the
    /// mean over several batches is that of one large batch: batches of other sizes, ignored
    /// targets and class weights count as they would there.
    pub(crate) fn accumulation(
        &self,
        dialect: Dialect,
        threads: Threads,
        shapes: &InputShapes,
    ) -> Result<Model, GraphError> {
        let mut graph = empty_graph(dialect, threads);
        let sums = self.sums(&mut graph, shapes)?;
        graph.set_place("accumulation");
        let mut outputs = sums.outputs;
        let read = |graph: &mut Builder, of: &Accumulator| {
            graph.input(&of.input, Type::new(of.data_type, of.dims.as_slice()))
        };
        for (accumulator, gradient) in sums.accumulators.iter().flatten().zip(sums.gradients) {
            let sum = read(&mut graph, accumulator);
            outputs.push((accumulator.output.clone(), graph.add(sum, gradient)));
        }
        let accumulator = weight();
        let sum = read(&mut graph, &accumulator);
        outputs.push((accumulator.output, graph.add(sum, sums.weight)));
        self.end(graph, &outputs)
    }

    /// The graph that updates parameters and slots by the mean of the sums: it reads
    /// hyperparameters, accumulators, parameters and slots.
    pub(crate) fn accumulated_update(
        &self,
        dialect: Dialect,
        threads: Threads,
        shapes: &InputShapes,
    ) -> Result<Model, GraphError> {
        let accumulators = self.sums(&mut Builder::new(), shapes)?.accumulators;
        let mut graph = empty_graph(dialect, threads);
        let mut variables = HashMap::new();
        for variable in self.variables.iter().filter(|v| v.kind == VariableKind::Parameter) {
            let value_type = Type::new(variable.data_type, variable.dims.as_slice());
            variables.insert(variable.name.clone(), graph.input(&variable.input, value_type));
        }
        graph.set_place("mean");
        let total = weight();
        let total = graph.input(total.input, Type::new(total.data_type, total.dims));
        let least = graph.scalar(LEAST_WEIGHT, total);
        let total = graph.binary("Max", total, least);
        let mut mean = |of: &Accumulator| {
            let sum = graph.input(&of.input, Type::new(of.data_type, of.dims.as_slice()));
            let total = graph.cast(total, of.data_type);
            let mean = graph.div(sum, total);
            graph.reshape(mean, &of.dims)
        };
        let gradients: Vec<Option<Value>> =
            accumulators.iter().map(|of| of.as_ref().map(&mut mean)).collect();
        let outputs = self.optimize(&mut graph, &variables, &gradients)?;
        self.end(graph, &outputs)
    }

    /// Draws everything up to the gradients of a batch, not divided by the batch's weight.
    fn sums(&self, graph: &mut Builder, shapes: &InputShapes) -> Result<Sums, GraphError> {
        let mut drawing = self.begin(graph, Mode::Training, shapes)?;
        let target = self.target(&mut drawing)?;
        let measured = self.measure(&mut drawing, target)?;
        let mut loss = measured.loss;
        let graph = &mut *drawing.graph;
        let weight = graph.cast(loss.weight, graph.data_type(loss.gradient));
        let dims = graph.dims(loss.gradient).to_vec();
        loss.gradient = graph.mul(loss.gradient, weight);
        loss.gradient = graph.reshape(loss.gradient, &dims);
        let gradients = self.gradients_of(&mut drawing, loss)?;
        let mut outputs = measured.outputs();
        outputs.extend(drawing.new_statistics());
        let graph = &mut *drawing.graph;
        let accumulator = |(name, gradient): (&String, &Option<Value>)| {
            gradient.map(|gradient| Accumulator {
                input: input_name(&format!("{name}/accumulated")),
                output: output_name(&format!("{name}/accumulated")),
                data_type: graph.data_type(gradient),
                dims: graph.dims(gradient).to_vec(),
            })
        };
        let accumulators = self.roles.parameters.iter().zip(&gradients).map(accumulator).collect();
        let weight = graph.cast(weight, DataType::Float32);
        Ok(Sums {
            outputs,
            accumulators,
            gradients: gradients.into_iter().flatten().collect(),
            weight: graph.reshape(weight, &[1]),
        })
    }
}

/// What a batch adds.
struct Sums {
    /// The loss, the packed statistics, the new running statistics.
    outputs: Vec<(String, Value)>,
    /// The accumulators of the parameters; none where the loss does not depend on one.
    accumulators: Vec<Option<Accumulator>>,
    /// The gradients of those that have one.
    gradients: Vec<Value>,
    weight: Value,
}

fn weight() -> Accumulator {
    Accumulator {
        input: input_name(WEIGHT),
        output: output_name(WEIGHT),
        data_type: DataType::Float32,
        dims: vec![1],
    }
}
