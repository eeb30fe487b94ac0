//! [`Program`]: a network with its loss and its kind of optimizer, analysed once and shared.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cerebro_core::ModelError;

use crate::error::GraphError;
use crate::graph::Dialect;
use crate::init::Initializers;
use crate::nn::Network;
use crate::onnx::{Model, TensorData, ValueInfo};
use crate::pretrained::Pretrained;
use crate::step::Task;
use crate::training::{
    Accumulator, Blueprint, InputShapes, Interface, Threads, TrainingSpec, Variable, VariableKind,
};

/// Which program of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ProgramId(u64);

/// A network with its loss and its kind of optimizer: all that trials which share compiled graphs
/// have in common, but for the batch size.
#[derive(Debug)]
pub(crate) struct Program {
    id: ProgramId,
    inputs: Vec<ValueInfo>,
    initializers: Initializers,
    blueprint: Blueprint,
    variables: Arc<[Variable]>,
    /// Initial values that are neither drawn nor those of the model's file.
    pretrained: BTreeMap<String, TensorData>,
    hyperparameters: usize,
}

impl Program {
    /// Analyses `network`, to start from `pretrained` weights if there are some; `hyperparameters` is the number of those that its steps take.
    pub(crate) fn new(
        network: Network,
        spec: TrainingSpec,
        pretrained: Option<&Pretrained>,
        hyperparameters: usize,
    ) -> Result<Self, ModelError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let Network { model, initializers } = network;
        let inputs = model.graph.data_inputs().cloned().collect();
        let blueprint = Blueprint::new(model, spec).map_err(untrainable)?;
        let variables = blueprint.variables();
        let pretrained = pretrained.map(|weights| weights.values(variables)).transpose()?;
        Ok(Self {
            id: ProgramId(NEXT.fetch_add(1, Ordering::Relaxed)),
            inputs,
            initializers,
            variables: blueprint.variables().into(),
            blueprint,
            pretrained: pretrained.unwrap_or_default(),
            hyperparameters,
        })
    }

    pub(crate) fn id(&self) -> ProgramId {
        self.id
    }

    pub(crate) fn blueprint(&self) -> &Blueprint {
        &self.blueprint
    }

    /// The inputs of the forward pass that data are fed to.
    pub(crate) fn inputs(&self) -> &[ValueInfo] {
        &self.inputs
    }

    pub(crate) fn variables(&self) -> &Arc<[Variable]> {
        &self.variables
    }

    /// The variables that each step changes.
    pub(crate) fn live_variables(&self) -> impl Iterator<Item = &Variable> {
        self.variables.iter().filter(|variable| variable.output.is_some())
    }

    pub(crate) fn initializers(&self) -> &Initializers {
        &self.initializers
    }

    pub(crate) fn pretrained(&self) -> &BTreeMap<String, TensorData> {
        &self.pretrained
    }

    /// The length of the packed hyperparameters.
    pub(crate) fn hyperparameters(&self) -> usize {
        self.hyperparameters
    }

    /// The number of elements of all weights.
    pub(crate) fn parameters(&self) -> usize {
        let is_weight =
            |v: &&Variable| matches!(v.kind, VariableKind::Parameter | VariableKind::Frozen);
        self.variables.iter().filter(is_weight).map(Variable::elements).sum()
    }

    /// What the host feeds and reads for batches of `shapes`. Costs about as much as drawing the
    /// forward pass.
    pub(crate) fn interface(&self, shapes: &InputShapes) -> Result<Interface, ModelError> {
        self.blueprint.interface(shapes).map_err(untrainable)
    }

    /// The graph of `task` for batches of `shapes`, for sessions with `threads`; all but that of
    /// predictions in `dialect`.
    pub(crate) fn draw(
        &self,
        task: Task,
        dialect: Dialect,
        threads: Threads,
        shapes: &InputShapes,
    ) -> Result<Model, ModelError> {
        let drawn = match task {
            Task::Step => self.blueprint.step_in(dialect, threads, shapes),
            Task::Accumulation => self.blueprint.accumulation(dialect, threads, shapes),
            Task::Evaluation => self.blueprint.evaluation_in(dialect, shapes),
            Task::Prediction => self.blueprint.prediction(shapes),
        };
        drawn.map_err(untrainable)
    }
}

impl Program {
    /// The sums that batches are added to between updates.
    pub(crate) fn accumulators(
        &self,
        shapes: &InputShapes,
    ) -> Result<Vec<Accumulator>, ModelError> {
        self.blueprint.accumulators(shapes).map_err(untrainable)
    }

    /// The graph that updates by accumulated gradients.
    pub(crate) fn draw_update(
        &self,
        dialect: Dialect,
        threads: Threads,
        shapes: &InputShapes,
    ) -> Result<Model, ModelError> {
        self.blueprint.accumulated_update(dialect, threads, shapes).map_err(untrainable)
    }
}

fn untrainable(error: GraphError) -> ModelError {
    ModelError::other("cannot train this network", error)
}
