//! Gradients summed over several batches, and the update that their mean makes.

use cerebro_core::{ModelError, Slot};

use super::session::GraphSession;
use super::{Buffer, Memory, StepError};
use crate::graph::Dialect;
use crate::onnx::DataType;
use crate::program::Program;
use crate::runtime::Runtime;
use crate::state::TrainingState;
use crate::training::{Accumulator, HYPERPARAMETERS, InputShapes, Threads, Variable, VariableKind};

/// The graph that updates the weights from accumulated gradients, with the memory of the sums. It
/// depends on no batch, so a slot has one for a program.
#[derive(Debug)]
pub(crate) struct Updater {
    session: GraphSession,
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
        let model = program.draw_update(dialect, threads, shapes)?;
        let accumulators = program.accumulators(shapes)?;
        let read = program.variables().iter().filter(|variable| reads(variable));
        let mut inputs: Vec<&str> = vec![HYPERPARAMETERS];
        inputs.extend(accumulators.iter().map(|accumulator| accumulator.input.as_str()));
        inputs.extend(read.clone().map(|variable| variable.input.as_str()));
        let outputs: Vec<&str> = read.filter_map(|variable| variable.output.as_deref()).collect();
        let session =
            GraphSession::compile(runtime, slot, "update", shapes.rows, &model, &inputs, &outputs)?;
        let hyperparameters = Buffer::zeros(DataType::Float32, &[program.hyperparameters()])?;
        Ok(Self { session, hyperparameters, sums: Sums::new(memory, program, &accumulators)? })
    }

    /// The sums, to be added to by batches.
    pub(crate) fn sums(&mut self) -> &mut Sums {
        &mut self.sums
    }

    /// Updates the variables `live` by the mean gradient and writes their new values to `next`.
    pub(crate) fn update(
        &mut self,
        hyperparameters: &[f32],
        state: &TrainingState,
        live: &[Buffer],
        next: &mut [Buffer],
    ) -> Result<(), ModelError> {
        self.hyperparameters.slice_mut().copy_from_slice(hyperparameters);
        let Sums { gradients, statistics, read, .. } = &self.sums;
        let mut inputs = vec![&self.hyperparameters];
        inputs.extend(&gradients[*read]);
        inputs.extend(state.read_with(live, reads));
        let mut outputs = Vec::with_capacity(next.len());
        let mut counted = statistics[*read].iter();
        for (variable, buffer) in state.live_variables().zip(next) {
            if variable.kind == VariableKind::Statistic {
                let value = counted.next().expect("there is one buffer per statistic");
                buffer.copy_from(value)?;
            } else {
                outputs.push(buffer);
            }
        }
        Ok(self.session.run(&inputs, &mut outputs)?)
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
