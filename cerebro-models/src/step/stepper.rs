//! [`Stepper`]: one compiled graph with the buffers of a batch.

use std::sync::Arc;

use cerebro_core::data::ElementType;
use cerebro_core::{ModelError, Slot};

use super::accumulation::Sums;
use super::renewal::Plan;
use super::session::GraphSession;
use super::{Buffer, Feed, Renewal};
use crate::graph::Dialect;
use crate::onnx::DataType;
use crate::program::Program;
use crate::runtime::Runtime;
use crate::state::TrainingState;
use crate::training::{
    HYPERPARAMETERS, InputShapes, Interface, SEED, STATISTICS, StatisticKind, Threads, Variable,
    VariableKind,
};

/// What a graph is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Task {
    /// Forward, loss, gradients, update.
    Step,
    /// Forward, loss, gradients, which are added to sums.
    Accumulation,
    /// Forward, loss and metrics.
    Evaluation,
    /// Forward.
    Prediction,
}

impl Task {
    fn name(self) -> &'static str {
        match self {
            Task::Step => "training step",
            Task::Accumulation => "gradient accumulation",
            Task::Evaluation => "evaluation",
            Task::Prediction => "prediction",
        }
    }

    /// Whether the task's graph reads `variable`.
    fn reads(self, variable: &Variable) -> bool {
        self == Task::Step || variable.kind != VariableKind::Slot
    }
}

/// One compiled graph with the buffers of a batch.
#[derive(Debug)]
pub(crate) struct Stepper {
    task: Task,
    interface: Arc<Interface>,
    session: GraphSession,
    /// How a step reads and writes the variables.
    plan: Option<Plan>,
    /// The model's inputs, then the target if the task has one.
    data: Vec<Buffer>,
    hyperparameters: Option<Buffer>,
    seed: Option<Buffer>,
    /// The packed statistics, or the prediction.
    result: Buffer,
}

impl Stepper {
    /// Draws and compiles the graph of `task` in `dialect` for batches of the shapes `shapes`.
    pub(crate) fn new(
        runtime: &Runtime,
        slot: &Slot,
        program: &Program,
        task: Task,
        dialect: Dialect,
        shapes: &InputShapes,
    ) -> Result<Self, ModelError> {
        let interface = program.interface(shapes)?;
        let threads = if slot.threads == 1 { Threads::One } else { Threads::Any };
        let mut model = program.draw(task, dialect, threads, shapes)?;
        let target = interface.target.as_ref().filter(|_| task != Task::Prediction);
        let data_inputs: Vec<_> = interface.inputs.iter().chain(target).collect();
        let is_step = task == Task::Step;
        let is_training = is_step || task == Task::Accumulation;
        let has_seed = is_training && interface.random;
        let accumulators = match task {
            Task::Accumulation => program.accumulators(shapes)?,
            _ => Vec::new(),
        };

        let mut inputs: Vec<&str> = data_inputs.iter().map(|input| input.name.as_str()).collect();
        inputs.extend(is_step.then_some(HYPERPARAMETERS));
        inputs.extend(has_seed.then_some(SEED));
        let plan = is_step.then(|| Plan::new(&mut model, slot.device, program, |_| true));
        if let Some(plan) = &plan {
            inputs.extend(plan.inputs(program));
        } else {
            let read = program.variables().iter().filter(|variable| task.reads(variable));
            inputs.extend(read.map(|variable| variable.input.as_str()));
        }
        inputs.extend(accumulators.iter().map(|accumulator| accumulator.input.as_str()));

        let prediction = &interface.prediction;
        let (result_name, result_dims) = match task {
            Task::Prediction => (prediction.0.as_str(), prediction.1.clone()),
            Task::Step | Task::Accumulation | Task::Evaluation => {
                let kinds = interface.statistics.iter().map(|statistic| statistic.kind);
                (STATISTICS, vec![kinds.map(StatisticKind::length).sum()])
            }
        };
        let mut outputs = vec![result_name];
        if let Some(plan) = &plan {
            outputs.extend(plan.outputs(program));
        }
        if task == Task::Accumulation {
            outputs.extend(accumulators.iter().map(|accumulator| accumulator.output.as_str()));
            let statistics = program.variables().iter();
            let statistics = statistics.filter(|v| v.kind == VariableKind::Statistic);
            outputs.extend(statistics.filter_map(|variable| variable.output.as_deref()));
        }

        let session = GraphSession::compile(
            runtime,
            slot,
            task.name(),
            shapes.rows,
            &model,
            &inputs,
            &outputs,
        )?;
        let buffer = |input: &&crate::training::DataInput| {
            let data_type = match input.element {
                ElementType::I64 => DataType::Int64,
                _ => DataType::Float32,
            };
            Buffer::zeros(data_type, &input.dims)
        };
        let data = data_inputs.iter().map(buffer).collect::<Result<_, _>>()?;
        let hyperparameters = program.hyperparameters();
        let hyperparameters =
            is_step.then(|| Buffer::zeros(DataType::Float32, &[hyperparameters])).transpose()?;
        let seed = has_seed.then(|| Buffer::zeros(DataType::Int64, &[1])).transpose()?;
        let result = Buffer::zeros(DataType::Float32, &result_dims)?;
        Ok(Self {
            task,
            interface: Arc::new(interface),
            session,
            plan,
            data,
            hyperparameters,
            seed,
            result,
        })
    }

    /// What the graph reads and gives.
    pub(crate) fn interface(&self) -> Arc<Interface> {
        Arc::clone(&self.interface)
    }

    /// Makes a training step on `rows`, which renews the variables. Gives the packed statistics.
    pub(crate) fn step(
        &mut self,
        feed: &mut Feed<'_>,
        rows: &[u32],
        scalars: &Scalars<'_>,
        renewal: &mut Renewal<'_>,
    ) -> Result<&[f32], ModelError> {
        feed.gather(rows, &mut self.data)?;
        if let Some(hyperparameters) = &mut self.hyperparameters {
            hyperparameters.slice_mut().copy_from_slice(scalars.hyperparameters);
        }
        if let Some(seed) = &mut self.seed {
            seed.slice_mut()[0] = scalars.seed;
        }
        let inputs = self.data.iter().chain(&self.hyperparameters).chain(&self.seed).collect();
        let plan = self.plan.as_ref().expect("a step's graph has a plan");
        renewal.run(&mut self.session, plan, inputs, vec![&mut self.result])?;
        Ok(self.result.slice())
    }

    /// Adds the gradients of `rows` by the latest variables to `sums`. Gives the packed statistics.
    pub(crate) fn accumulate(
        &mut self,
        feed: &mut Feed<'_>,
        rows: &[u32],
        seed: i64,
        renewal: &Renewal<'_>,
        sums: &mut Sums,
    ) -> Result<&[f32], ModelError> {
        feed.gather(rows, &mut self.data)?;
        if let Some(buffer) = &mut self.seed {
            buffer.slice_mut()[0] = seed;
        }
        let Self { task, session, data, seed, result, .. } = self;
        sums.add(|gradients, statistics, new_gradients, new_statistics| {
            let mut inputs: Vec<&Buffer> = data.iter().chain(seed.as_ref()).collect();
            let mut statistics = statistics.into_iter().flatten();
            for (variable, buffer) in renewal.entries().filter(|(v, _)| task.reads(v)) {
                // Those of the batch before, where there is one.
                let newer = (variable.kind == VariableKind::Statistic).then(|| statistics.next());
                inputs.push(newer.flatten().unwrap_or(buffer));
            }
            inputs.extend(gradients);
            let mut outputs = vec![result];
            outputs.extend(new_gradients);
            outputs.extend(new_statistics);
            session.run(&inputs, &mut outputs)
        })?;
        Ok(self.result.slice())
    }

    /// Applies the weights of `state` to `rows`: gives the packed statistics, or the prediction.
    pub(crate) fn apply(
        &mut self,
        feed: &mut Feed<'_>,
        rows: &[u32],
        state: &TrainingState,
    ) -> Result<&[f32], ModelError> {
        feed.gather(rows, &mut self.data)?;
        let mut inputs: Vec<&Buffer> = self.data.iter().collect();
        inputs.extend(state.read_with(state.live(), |variable| self.task.reads(variable)));
        self.session.run(&inputs, &mut [&mut self.result])?;
        Ok(self.result.slice())
    }
}

/// What the host feeds to a step besides data and variables.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scalars<'a> {
    pub(crate) hyperparameters: &'a [f32],
    pub(crate) seed: i64,
}
