//! [`OnnxModel`]: a trial's network in a worker's slot.

mod train;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cerebro_core::data::{Partition, Tensor};
use cerebro_core::metric::LOSS;
use cerebro_core::{ConfigError, Metrics, Model, ModelError, Pass, Seed, State, Statistic};
use ndarray::ArrayD;

use crate::bindings::Bindings;
use crate::optim::Optimizer;
use crate::program::Program;
use crate::runtime;
use crate::schedule::Schedule;
use crate::state::TrainingState;
use crate::step::{Feed, SlotCache, Task};
use crate::training::{InputShapes, Interface};

/// The rows of a batch in evaluation and prediction, unless batches in training have more: enough
/// that the matrix products are efficient, few enough that activations stay in the cache.
const EVALUATION_ROWS: usize = 256;

/// A trial's network in a worker's slot.
#[derive(Debug)]
pub(crate) struct OnnxModel {
    pub(crate) program: Arc<Program>,
    pub(crate) bindings: Arc<Bindings>,
    pub(crate) optimizer: Optimizer,
    pub(crate) schedule: Schedule,
    pub(crate) batch_size: usize,
    /// The batches of an update.
    pub(crate) accumulate: usize,
    pub(crate) slot: Arc<Mutex<SlotCache>>,
    pub(crate) state: Option<Arc<TrainingState>>,
}

impl OnnxModel {
    fn current(&self) -> Result<Arc<TrainingState>, ModelError> {
        self.state.clone().ok_or_else(|| {
            ModelError::State("there is none: call `initialize` or `restore` first".to_owned())
        })
    }

    /// Refuses a partition that has no full batch: its trial would silently train at another batch
    /// size than its Config says.
    fn check_batch_size(&self, partition: &dyn Partition) -> Result<(), ModelError> {
        let (rows, id) = (partition.rows(), partition.id());
        if self.batch_size <= rows {
            return Ok(());
        }
        Err(ConfigError::Invalid {
            name: "batch_size".to_owned(),
            value: self.batch_size.to_string(),
            found: "more than a partition's rows",
            expected: format!("at most {rows}, the rows of {id} (or prepare fewer partitions),"),
        }
        .into())
    }
}

impl Model for OnnxModel {
    fn initialize(&mut self, seed: Seed) -> Result<(), ModelError> {
        runtime::load()?;
        let (program, variables) = (&self.program, self.program.variables());
        let state = TrainingState::initial(variables, |variable, buffer| {
            if let Some(tensor) = program.pretrained().get(&variable.name) {
                buffer.bytes_mut().copy_from_slice(tensor.bytes());
                return true;
            }
            let Some(initializer) = program.initializers().get(&variable.name) else {
                return false;
            };
            let seed = seed.derive("initial value", &[]).derive(&variable.name, &[]);
            initializer.fill(seed, &variable.dims, buffer.slice_mut());
            true
        });
        self.state = Some(Arc::new(state?).moved(lock(&self.slot).memory()?)?);
        Ok(())
    }

    fn restore(&mut self, state: &State) -> Result<(), ModelError> {
        runtime::load()?;
        let restored = TrainingState::restore(self.program.variables(), state);
        self.state = Some(restored?.moved(lock(&self.slot).memory()?)?);
        Ok(())
    }

    fn state(&mut self) -> Result<State, ModelError> {
        self.current().map(State::from)
    }

    fn train(&mut self, partition: &dyn Partition, pass: &Pass<'_>) -> Result<Metrics, ModelError> {
        self.check_batch_size(partition)?;
        let (metrics, state) = self.updates(partition, pass)?;
        let before = self.state.replace(Arc::new(state));
        // What nobody else goes on from is memory for the steps to come.
        if let Some(before) = before.and_then(Arc::into_inner) {
            lock(&self.slot).keep_buffers(&self.program, before.into_live());
        }
        Ok(metrics)
    }

    fn evaluate(
        &mut self,
        partition: &dyn Partition,
        pass: &Pass<'_>,
    ) -> Result<Metrics, ModelError> {
        let mut measured = Measured::default();
        self.apply(partition, pass, Task::Evaluation, |packed, interface| {
            measured.add(packed, interface);
        })?;
        Ok(measured.metrics())
    }

    fn predict(
        &mut self,
        partition: &dyn Partition,
        pass: &Pass<'_>,
    ) -> Result<Tensor, ModelError> {
        let mut values = Vec::new();
        let interface = self.apply(partition, pass, Task::Prediction, |prediction, _| {
            values.extend_from_slice(prediction);
        })?;
        let mut shape = interface.prediction.1.clone();
        shape[0] = partition.rows();
        let array = ArrayD::from_shape_vec(shape, values).map_err(|error| {
            ModelError::other("a prediction does not have one entry per row", error)
        })?;
        Ok(Tensor::F32(array))
    }
}

impl OnnxModel {
    /// Runs a graph that changes nothing over all rows in order, and hands each batch's result to
    /// `each`.
    fn apply(
        &self,
        partition: &dyn Partition,
        pass: &Pass<'_>,
        task: Task,
        mut each: impl FnMut(&[f32], &Interface),
    ) -> Result<Arc<Interface>, ModelError> {
        let state = self.current()?;
        let rows: Vec<u32> = (0..partition.rows() as u32).collect();
        let batch_size = self.batch_size.max(EVALUATION_ROWS).min(rows.len());
        let mut slot = lock(&self.slot);
        let mut unit = PassOver::new(self, &mut slot, partition, task, batch_size)?;
        for (batch, rows) in rows.chunks(batch_size).enumerate() {
            let shapes = unit.shapes(rows.len());
            let stepper = slot.stepper(&self.program, task, shapes)?;
            let interface = stepper.interface();
            let result = stepper.apply(&mut unit.feed, rows, &state)?;
            if task == Task::Evaluation {
                unit.check_loss(result, batch as u64)?;
            }
            each(result, &interface);
            pass.advance(rows.len())?;
        }
        Ok(unit.interface)
    }
}

/// One pass over one partition: how its rows are fed, in batches of one size and a smaller last
/// one.
struct PassOver<'p> {
    full: InputShapes,
    last: InputShapes,
    interface: Arc<Interface>,
    feed: Feed<'p>,
}

impl<'p> PassOver<'p> {
    fn new(
        model: &OnnxModel,
        slot: &mut SlotCache,
        partition: &'p dyn Partition,
        task: Task,
        batch_size: usize,
    ) -> Result<Self, ModelError> {
        let full = model.bindings.shapes(&model.program, partition, batch_size)?;
        let last = InputShapes { rows: partition.rows() % batch_size, ..full.clone() };
        let interface = slot.stepper(&model.program, task, &full)?.interface();
        let feed = model.bindings.feed(partition, &interface, task)?;
        Ok(Self { full, last, interface, feed })
    }

    fn shapes(&self, rows: usize) -> &InputShapes {
        if rows == self.full.rows { &self.full } else { &self.last }
    }

    /// An error if the loss in `packed` is no number: with the reason in the data, if there is one.
    fn check_loss(&self, packed: &[f32], step: u64) -> Result<(), ModelError> {
        let [sum, weight, ..] = *packed else { return Ok(()) };
        if sum.is_finite() && weight.is_finite() {
            return Ok(());
        }
        if let Some(error) = self.feed.not_finite()? {
            return Err(error.into());
        }
        Err(ModelError::Diverged {
            metric: LOSS.to_owned(),
            value: f64::from(sum) / f64::from(weight),
            step: step as usize,
        })
    }
}

/// Statistics, merged over batches in double precision.
#[derive(Debug, Default)]
struct Measured(Vec<(String, Statistic)>);

impl Measured {
    /// Adds those of a batch, packed as `interface` says.
    fn add(&mut self, packed: &[f32], interface: &Interface) {
        let mut rest = packed;
        for (index, output) in interface.statistics.iter().enumerate() {
            let (own, others) = rest.split_at(output.kind.length());
            rest = others;
            let statistic = output.kind.statistic(own);
            match self.0.get_mut(index) {
                Some((_, known)) => {
                    assert!(known.merge(&statistic), "batches of a pass have equal statistics");
                }
                None => self.0.push((output.name.clone(), statistic)),
            }
        }
    }

    fn metrics(self) -> Metrics {
        let mut metrics = Metrics::new();
        self.0.into_iter().for_each(|(name, statistic)| metrics.record(&name, statistic));
        metrics
    }
}

/// The seed of everything random in step number `step` of a pass, as graphs take it.
fn step_seed(pass: Seed, step: u64) -> i64 {
    (pass.derive("step", &[step]).0 >> 33) as i64
}

fn lock(slot: &Mutex<SlotCache>) -> MutexGuard<'_, SlotCache> {
    // A panic in a step leaves nothing half-done behind: buffers are written before they are read.
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}
