//! Gradients summed over several batches, and the update that their mean makes.

use std::iter;

use cerebro_core::{ModelError, Slot};

use super::renewal::Plan;
use super::session::GraphSession;
use super::{Buffer, Memory, Renewal, StepError};
use crate::graph::Dialect;
use crate::onnx::DataType;
use crate::program::Program;
use crate::runtime::Runtime;
use crate::training::{Accumulator, HYPERPARAMETERS, InputShapes, Threads, Variable, VariableKind};

/// The graph that updates the weights from accumulated gradients, with the memory of the sums. It
/// depends on no batch, so a slot has one for a program.
#[derive(Debug)]
pub(crate) struct Updater {
    session: GraphSession,
    plan: Plan,
    hyperparameters: Buffer,
    sums: Sums,
}

/// What the batches since the last update add up to: two sets of buffers, of which one is read
/// and the other written.
#[derive(Debug)]
pub(crate) struct Sums {
    /// The gradients' sums and, last, that of the weights by which the loss is averaged.
    gradients: [Vec<Buffer>; 2],
    /// The model's running statistics, which change with each batch.
    statistics: [Vec<Buffer>; 2],
    /// Which set is read.
    read: usize,
    batches: usize,
}

impl Updater {
    /// Draws and compiles the graph in `dialect`; `shapes` are those of any batch.
    pub(crate) fn new(
        runtime: &Runtime,
        slot: &Slot,
        memory: &Memory,
        program: &Program,
        dialect: Dialect,
        shapes: &InputShapes,
    ) -> Result<Self, ModelError> {
        let threads = if slot.threads == 1 { Threads::One } else { Threads::Any };
        let mut model = program.draw_update(dialect, threads, shapes)?;
        let plan = Plan::new(&mut model, slot.device, program, reads);
        let accumulators = program.accumulators(shapes)?;
        let mut inputs: Vec<&str> = vec![HYPERPARAMETERS];
        inputs.extend(accumulators.iter().map(|accumulator| accumulator.input.as_str()));
        inputs.extend(plan.inputs(program));
        let outputs: Vec<&str> = plan.outputs(program).collect();
        let session =
            GraphSession::compile(runtime, slot, "update", shapes.rows, &model, &inputs, &outputs)?;
        let hyperparameters = Buffer::zeros(DataType::Float32, &[program.hyperparameters()])?;
        let sums = Sums::new(memory, program, &accumulators)?;
        Ok(Self { session, plan, hyperparameters, sums })
    }

    /// The sums, to be added to by batches.
    pub(crate) fn sums(&mut self) -> &mut Sums {
        &mut self.sums
    }

    /// Renews the variables by the mean gradient.
    pub(crate) fn update(
        &mut self,
        hyperparameters: &[f32],
        renewal: &mut Renewal<'_>,
    ) -> Result<(), ModelError> {
        self.hyperparameters.slice_mut().copy_from_slice(hyperparameters);
        let Sums { gradients, statistics, read, .. } = &self.sums;
        let inputs = iter::once(&self.hyperparameters).chain(&gradients[*read]).collect();
        renewal.run(&mut self.session, &self.plan, inputs, Vec::new())?;
        let renewed = renewal.own_mut().filter(|(of, _)| of.kind == VariableKind::Statistic);
        for ((_, buffer), value) in renewed.zip(&statistics[*read]) {
            buffer.copy_from(value)?;
        }
        Ok(())
    }
}

/// Whether an update reads `variable`.
fn reads(variable: &Variable) -> bool {
    matches!(variable.kind, VariableKind::Parameter | VariableKind::Slot)
}

impl Sums {
    fn new(
        memory: &Memory,
        program: &Program,
        accumulators: &[Accumulator],
    ) -> Result<Self, StepError> {
        let buffer = |data_type, dims: &[usize]| Buffer::within(memory, data_type, dims);
        let gradients = || {
            let buffers = accumulators.iter().map(|of| buffer(of.data_type, &of.dims));
            buffers.collect::<Result<Vec<_>, _>>()
        };
        let statistics = || {
            let variables = program.variables().iter();
            let variables = variables.filter(|variable| variable.kind == VariableKind::Statistic);
            let buffers = variables.map(|of| buffer(of.data_type, &of.dims));
            buffers.collect::<Result<Vec<_>, _>>()
        };
        Ok(Self {
            gradients: [gradients()?, gradients()?],
            statistics: [statistics()?, statistics()?],
            read: 0,
            batches: 0,
        })
    }

    /// Begins at zero.
    pub(crate) fn begin(&mut self) -> Result<(), StepError> {
        self.batches = 0;
        self.gradients[self.read].iter_mut().try_for_each(Buffer::clear)
    }

    /// Adds a batch: `run` reads the first buffers, and writes the last. Statistics are `None`
    /// before the first batch, when they are those of the State.
    pub(super) fn add<T>(
        &mut self,
        run: impl FnOnce(
            &[Buffer],
            Option<&[Buffer]>,
            &mut [Buffer],
            &mut [Buffer],
        ) -> Result<T, StepError>,
    ) -> Result<T, StepError> {
        let ([g0, g1], [s0, s1]) = (&mut self.gradients, &mut self.statistics);
        let (read, written) =
            if self.read == 0 { ((g0, s0), (g1, s1)) } else { ((g1, s1), (g0, s0)) };
        let statistics = (self.batches > 0).then_some(&read.1[..]);
        self.read = 1 - self.read;
        self.batches += 1;
        run(read.0, statistics, written.0, written.1)
    }
}
