//! [`Blueprint`]: a model and a spec, from which training graphs are drawn.

mod accumulate;
mod given;

use std::collections::HashMap;

use cerebro_core::data::ElementType;
use given::{
    chosen_output, data_input, input_name, output_name, read_inputs, slot_name, variables,
};

use super::interface::{
    DataInput, Interface, StatisticKind, StatisticOutput, Variable, VariableKind,
};
use super::parameters::{Roles, roles, tie, untie};
use super::pattern::matches;
use super::signature::{Signature, merged_normalizations};
use super::spec::{InputShapes, Selection, TrainingSpec};
use super::{HYPERPARAMETERS, LOSS, STATISTICS};
use crate::autodiff::{Forward, Mode, Tape, differentiate};
use crate::error::GraphError;
use crate::graph::{Builder, Dialect, Type, Value};
use crate::import::{Importer, OPSETS, inline_functions, lower_linear_models, needed_nodes};
use crate::loss::EmittedLoss;
use crate::onnx::{DataType, Model, ValueInfo};
use crate::optim::Hyperparameters;

/// A model and a [`TrainingSpec`], from which training graphs are drawn for any number of rows.
///
/// ```
/// use cerebro_models::loss::Loss;
/// use cerebro_models::onnx::{DataType, Dimension, Graph, Model, Node, TensorData, ValueInfo};
/// use cerebro_models::optim::Optimizer;
/// use cerebro_models::training::{Blueprint, InputShapes, TrainingSpec};
/// let rows = || Dimension::Symbol("batch".to_owned());
/// let graph = Graph {
///     nodes: vec![Node::new("Gemm", ["x", "weight", "bias"], ["y"])],
///     inputs: vec![ValueInfo::tensor("x", DataType::Float32, vec![rows(), Dimension::Size(2)])],
///     outputs: vec![ValueInfo::tensor("y", DataType::Float32, vec![rows(), Dimension::Size(1)])],
///     initializers: [
///         ("weight".to_owned(), TensorData::from_f32(&[2, 1], &[0.1, -0.2])),
///         ("bias".to_owned(), TensorData::from_f32(&[1], &[0.0])),
///     ]
///     .into(),
///     ..Graph::default()
/// };
/// let optimizer = Optimizer::sgd(0.1).momentum(0.9);
/// let spec = TrainingSpec::new(Loss::MeanSquaredError, optimizer.kind());
/// let blueprint = Blueprint::new(Model::new(graph, 21), spec)?;
/// let names: Vec<_> = blueprint.variables().iter().map(|v| v.name.as_str()).collect();
/// assert_eq!(names, ["weight", "bias", "weight/momentum", "bias/momentum"]);
/// let step = blueprint.step(&InputShapes::rows(32))?;
/// # let _ = step.to_bytes()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Blueprint {
    model: Model,
    opset: i64,
    spec: TrainingSpec,
    output: String,
    roles: Roles,
    variables: Vec<Variable>,
    /// The model's inputs that its output depends on.
    inputs: Vec<ValueInfo>,
    threads: Threads,
}

/// How many threads run the graphs of a blueprint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Threads {
    /// One, inside a session: some gradients have faster forms then.
    One,
    /// Any number.
    #[default]
    Any,
}

impl Blueprint {
    /// A blueprint of `model`, which is a forward pass, trained as `spec` says.
    pub fn new(mut model: Model, spec: TrainingSpec) -> Result<Self, GraphError> {
        let opset = model.opset().ok_or(GraphError::NoOpset)?;
        if !OPSETS.contains(&opset) {
            return Err(GraphError::Opset { found: opset });
        }
        inline_functions(&mut model)?;
        lower_linear_models(&mut model)?;
        let output = chosen_output(&model, spec.output.as_deref())?;
        let named: &[String] = match &spec.parameters {
            Selection::Named(names) => names,
            Selection::Automatic => &[],
        };
        untie(&mut model.graph, named);
        tie(&mut model.graph, named);
        crate::import::check_nodes(&model.graph, &output)?;
        let signature = Signature::of(&model);
        let merged = merged_normalizations(&model.graph, signature.as_ref());
        if merged > 0 {
            tracing::warn!(
                "the exporter has merged {merged} batch normalizations into the convolutions \
                 before them, so that the network trains without: export it in training mode, or \
                 with `optimize=False` (`do_constant_folding=False` where `dynamo=False`)"
            );
        }
        let roles = roles(&model.graph, signature.as_ref(), &spec, &output)?;
        let variables = variables(&model, &spec, &roles);
        let inputs = read_inputs(&model, &output);
        Ok(Self { model, opset, spec, output, roles, variables, inputs, threads: Threads::Any })
    }

    /// Draws graphs for sessions with this many threads. The numbers are the same.
    pub fn with_threads(mut self, threads: Threads) -> Self {
        self.threads = threads;
        self
    }

    /// What a trial owns: parameters, frozen parameters, running statistics, optimizer state, in
    /// this order.
    pub fn variables(&self) -> &[Variable] {
        &self.variables
    }

    /// The forward pass: the model that was given, its functions inlined and its initializers
    /// tied or untied, so that each variable but the slots is the initializer of its name.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The spec.
    pub fn spec(&self) -> &TrainingSpec {
        &self.spec
    }

    /// What graphs drawn for `shapes` read and give.
    pub fn interface(&self, shapes: &InputShapes) -> Result<Interface, GraphError> {
        let mut graph = Builder::new();
        let mut drawing = self.begin(&mut graph, Mode::Training, shapes)?;
        let random = drawing.random;
        let target = self.target(&mut drawing)?;
        let measured = self.measure(&mut drawing, target)?;
        let prediction = drawing.graph.dims(drawing.output).to_vec();
        let dims = |element, dims: &[usize], name: &str| DataInput {
            name: name.to_owned(),
            element,
            dims: dims.to_vec(),
        };
        Ok(Interface {
            rows: shapes.rows,
            inputs: drawing.inputs,
            target: self
                .spec
                .loss
                .target(&prediction)
                .map_err(|reason| self.loss_error(self.spec.loss.title(), reason))?
                .map(|(element, shape)| dims(element, &shape, super::TARGET)),
            random,
            statistics: measured.statistics,
            prediction: (self.output.clone(), prediction),
        })
    }

    /// The step graph: forward, loss, gradients, update.
    pub fn step(&self, shapes: &InputShapes) -> Result<Model, GraphError> {
        self.step_in(Dialect::Standard, self.threads, shapes)
    }

    /// The step graph in `dialect` for sessions with `threads`: the same computation.
    pub(crate) fn step_in(
        &self,
        dialect: Dialect,
        threads: Threads,
        shapes: &InputShapes,
    ) -> Result<Model, GraphError> {
        let mut graph = empty_graph(dialect, threads);
        let mut drawing = self.begin(&mut graph, Mode::Training, shapes)?;
        let target = self.target(&mut drawing)?;
        let measured = self.measure(&mut drawing, target)?;
        let gradients = self.gradients_of(&mut drawing, measured.loss)?;
        let mut outputs = measured.outputs_in(dialect);
        outputs.extend(self.update(&mut drawing, &gradients)?);
        self.end(graph, &outputs)
    }

    /// A graph that gives the loss and, for each parameter, the gradient under the name
    /// [`gradient_name`](super::gradient_name); running statistics are as after the step.
    pub fn gradients(&self, shapes: &InputShapes) -> Result<Model, GraphError> {
        let mut graph = Builder::new();
        let mut drawing = self.begin(&mut graph, Mode::Training, shapes)?;
        let target = self.target(&mut drawing)?;
        let measured = self.measure(&mut drawing, target)?;
        let gradients = self.gradients_of(&mut drawing, measured.loss)?;
        let mut outputs = measured.outputs();
        for (name, gradient) in self.roles.parameters.iter().zip(gradients) {
            let gradient = match gradient {
                Some(gradient) => gradient,
                None => drawing.graph.filled(0.0, drawing.variables[name]),
            };
            outputs.push((super::gradient_name(name), gradient));
        }
        outputs.extend(drawing.new_statistics());
        self.end(graph, &outputs)
    }

    /// The evaluation graph: forward as at inference, loss and metrics.
    pub fn evaluation(&self, shapes: &InputShapes) -> Result<Model, GraphError> {
        self.evaluation_in(Dialect::Standard, shapes)
    }

    /// The evaluation graph in `dialect`: the same computation.
    pub(crate) fn evaluation_in(
        &self,
        dialect: Dialect,
        shapes: &InputShapes,
    ) -> Result<Model, GraphError> {
        let mut graph = Builder::in_dialect(dialect);
        let mut drawing = self.begin(&mut graph, Mode::Inference, shapes)?;
        let target = self.target(&mut drawing)?;
        let measured = self.measure(&mut drawing, target)?;
        let outputs = measured.outputs_in(dialect);
        self.end(graph, &outputs)
    }

    /// The prediction graph: forward as at inference. Its output has the model's name for it.
    pub fn prediction(&self, shapes: &InputShapes) -> Result<Model, GraphError> {
        let mut graph = Builder::new();
        let drawing = self.begin(&mut graph, Mode::Inference, shapes)?;
        let outputs = [(self.output.clone(), drawing.output)];
        self.end(graph, &outputs)
    }

    fn end(&self, mut graph: Builder, outputs: &[(String, Value)]) -> Result<Model, GraphError> {
        match graph.take_error() {
            Some(reason) => Err(self.loss_error("the training graph", reason)),
            None => Ok(graph.finish(outputs)),
        }
    }

    fn loss_error(&self, what: &str, reason: String) -> GraphError {
        GraphError::Loss { what: what.to_owned(), output: self.output.clone(), reason }
    }

    /// Draws inputs, variables and the forward pass.
    fn begin<'g>(
        &self,
        graph: &'g mut Builder,
        mode: Mode,
        shapes: &InputShapes,
    ) -> Result<Drawing<'g>, GraphError> {
        let mut inputs = Vec::new();
        let mut bound = Vec::new();
        for info in &self.inputs {
            let (input, data_type) = data_input(info, shapes)?;
            let fed = match input.element {
                ElementType::I64 => DataType::Int64,
                _ => DataType::Float32,
            };
            let value = graph.input(&input.name, Type::new(fed, input.dims.clone()));
            bound.push((input.name.clone(), graph.cast(value, data_type)));
            inputs.push(input);
        }
        let mut variables = HashMap::new();
        for variable in &self.variables {
            if variable.kind == VariableKind::Slot {
                continue;
            }
            let value_type = Type::new(variable.data_type, variable.dims.clone());
            variables.insert(variable.name.clone(), graph.input(&variable.input, value_type));
        }
        let needed = needed_nodes(&self.model.graph, &[&self.output]);
        if self.threads == Threads::One {
            graph.promise_one_thread();
        }
        let mut forward = Forward::new(graph, mode);
        for name in &self.roles.statistics {
            forward.declare_statistic(variables[name]);
        }
        let mut importer = Importer::new(&mut forward, self.opset);
        for (name, value) in &bound {
            importer.define(name, *value);
        }
        for (name, value) in &variables {
            importer.define(name, *value);
        }
        importer.run(&self.model.graph, Some(&needed))?;
        let output = importer.tensor(&self.output).ok_or_else(|| GraphError::NoSuchOutput {
            name: self.output.clone(),
            known: self.model.graph.outputs.iter().map(|output| output.name.clone()).collect(),
        })?;
        let statistics = self.roles.statistics.iter();
        let statistics =
            statistics.map(|name| (name.clone(), forward.statistic(variables[name]))).collect();
        let random = forward.is_random();
        let tape = std::mem::take(&mut forward.tape);
        graph.set_place("loss");
        Ok(Drawing { graph, tape, inputs, variables, statistics, output, random })
    }

    fn target(&self, drawing: &mut Drawing<'_>) -> Result<Option<Value>, GraphError> {
        let output = drawing.graph.value_type(drawing.output).clone();
        let target = self.spec.loss.target(&output.dims);
        let target = target.map_err(|reason| self.loss_error(self.spec.loss.title(), reason))?;
        Ok(target.map(|(element, dims)| {
            let integers = element == ElementType::I64;
            let fed = if integers { DataType::Int64 } else { DataType::Float32 };
            let value = drawing.graph.input(super::TARGET, Type::new(fed, dims));
            if integers { value } else { drawing.graph.cast(value, output.data_type) }
        }))
    }

    /// Draws loss and metrics.
    fn measure(
        &self,
        drawing: &mut Drawing<'_>,
        target: Option<Value>,
    ) -> Result<Measured, GraphError> {
        let (graph, output) = (&mut *drawing.graph, drawing.output);
        let loss = self
            .spec
            .loss
            .emit(graph, output, target)
            .map_err(|reason| self.loss_error(self.spec.loss.title(), reason))?;
        let mut statistics = vec![StatisticOutput {
            name: cerebro_core::metric::LOSS.to_owned(),
            kind: StatisticKind::Mean,
        }];
        let mut packed = vec![loss.sum, loss.weight];
        for metric in &self.spec.metrics {
            let target = target.ok_or_else(|| "there is no target".to_owned());
            let emitted = target
                .and_then(|target| metric.emit(graph, &self.spec.loss, output, target))
                .map_err(|reason| self.loss_error(&metric.name(), reason))?;
            statistics.push(StatisticOutput { name: metric.name(), kind: emitted.kind });
            packed.extend(emitted.values);
        }
        let packed: Vec<Value> = packed
            .into_iter()
            .map(|value| {
                let value = graph.cast(value, DataType::Float32);
                let elements = graph.value_type(value).elements();
                graph.reshape(value, &[elements])
            })
            .collect();
        let packed = graph.concat(&packed, 0);
        let value = graph.cast(loss.loss, DataType::Float32);
        Ok(Measured { loss, value, packed, statistics })
    }

    /// The gradient of each parameter, in their order; `None` where the loss does not depend on it.
    fn gradients_of(
        &self,
        drawing: &mut Drawing<'_>,
        loss: EmittedLoss,
    ) -> Result<Vec<Option<Value>>, GraphError> {
        let parameters: Vec<Value> =
            self.roles.parameters.iter().map(|name| drawing.variables[name]).collect();
        let seeds = [(drawing.output, loss.gradient)];
        let found = differentiate(drawing.graph, &drawing.tape, &seeds, &parameters)?;
        if found.is_empty() {
            return Err(GraphError::NoParameter { output: self.output.clone() });
        }
        Ok(parameters.iter().map(|parameter| found.get(parameter).copied()).collect())
    }

    /// Draws the optimizer: the new values of all variables.
    fn update(
        &self,
        drawing: &mut Drawing<'_>,
        gradients: &[Option<Value>],
    ) -> Result<Vec<(String, Value)>, GraphError> {
        let mut outputs = self.optimize(drawing.graph, &drawing.variables, gradients)?;
        outputs.extend(drawing.new_statistics());
        Ok(outputs)
    }

    /// Draws the optimizer: the new values of parameters and slots.
    fn optimize(
        &self,
        graph: &mut Builder,
        variables: &HashMap<String, Value>,
        gradients: &[Option<Value>],
    ) -> Result<Vec<(String, Value)>, GraphError> {
        let kind = self.spec.optimizer;
        graph.set_place("optimizer");
        let size = kind.hyperparameters().len();
        let packed = graph.input(HYPERPARAMETERS, Type::new(DataType::Float32, [size]));
        let hyper = Hyperparameters::unpack(graph, kind, packed);
        let mut scaled: HashMap<usize, Hyperparameters> = HashMap::new();
        for (index, group) in self.spec.groups.iter().enumerate() {
            scaled.insert(index, hyper.scaled(graph, group.learning_rate, group.weight_decay));
        }
        let mut present: Vec<Value> = gradients.iter().copied().flatten().collect();
        kind.clip(graph, &hyper, &mut present);
        let mut present = present.into_iter();
        let mut outputs = Vec::new();
        for (name, gradient) in self.roles.parameters.iter().zip(gradients) {
            graph.set_place(&format!("optimizer/{name}"));
            let parameter = variables[name];
            let data_type = graph.data_type(parameter);
            let slots: Vec<(String, Value)> = kind
                .slots()
                .into_iter()
                .map(|slot| {
                    let name = slot_name(name, slot.name);
                    let value_type = Type::new(data_type, graph.dims(parameter));
                    let value = graph.input(input_name(&name), value_type);
                    (name, value)
                })
                .collect();
            let values: Vec<Value> = slots.iter().map(|(_, value)| *value).collect();
            // A parameter without gradient stays as it is, as in PyTorch.
            let gradient = gradient.and_then(|_| present.next());
            let (new_parameter, new_slots) = match gradient {
                None => (parameter, values),
                Some(gradient) => {
                    let groups = self.spec.groups.iter();
                    let group = groups.enumerate().find(|(_, g)| matches(&g.pattern, name));
                    let hyper = group.and_then(|(index, _)| scaled.get(&index)).unwrap_or(&hyper);
                    let hyper = hyper.cast(graph, data_type);
                    let updated = kind.emit(graph, &hyper, parameter, gradient, &values);
                    (updated.parameter, updated.slots)
                }
            };
            outputs.push((output_name(name), new_parameter));
            let names = slots.iter().map(|(name, _)| output_name(name));
            outputs.extend(names.zip(new_slots));
        }
        if let Some(reason) = graph.take_error() {
            return Err(self.loss_error("the optimizer's update", reason));
        }
        Ok(outputs)
    }
}

/// A forward pass that was drawn.
struct Drawing<'g> {
    graph: &'g mut Builder,
    tape: Tape,
    inputs: Vec<DataInput>,
    /// Parameters, frozen ones, statistics.
    variables: HashMap<String, Value>,
    /// The new values of the statistics.
    statistics: Vec<(String, Value)>,
    output: Value,
    random: bool,
}

impl Drawing<'_> {
    fn new_statistics(&self) -> Vec<(String, Value)> {
        let statistics = self.statistics.iter();
        statistics.map(|(name, value)| (output_name(name), *value)).collect()
    }
}

/// Loss and metrics that were drawn.
struct Measured {
    loss: EmittedLoss,
    value: Value,
    packed: Value,
    statistics: Vec<StatisticOutput>,
}

impl Measured {
    fn outputs(&self) -> Vec<(String, Value)> {
        vec![(LOSS.to_owned(), self.value), (STATISTICS.to_owned(), self.packed)]
    }

    /// In fused graphs, which Cerebro alone runs, without the loss: it is the quotient of the
    /// first two statistics.
    fn outputs_in(&self, dialect: Dialect) -> Vec<(String, Value)> {
        let first = usize::from(dialect.is_fused());
        self.outputs().split_off(first)
    }
}

/// A graph in `dialect` that nothing is drawn in yet, for sessions with `threads`.
fn empty_graph(dialect: Dialect, threads: Threads) -> Builder {
    let mut graph = Builder::in_dialect(dialect);
    if threads == Threads::One {
        graph.promise_one_thread();
    }
    graph
}
