//! [`Model`]: a learner, and [`ModelBuilder`]: how one is made from a Config.

use std::error::Error;
use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::cancel::Cancellation;
use crate::config::{Config, ConfigError};
use crate::data::{Batches, DataError, Partition, Tensor};
use crate::id::{TrialId, Unit};
use crate::metric::Metrics;
use crate::seed::Seed;
use crate::state::State;

/// A learner in a worker's slot.
///
/// A slot builds a `Model` for a unit, gives it a State with [`initialize`](Model::initialize) (the
/// first unit of a trial) or [`restore`](Model::restore) (every other), lets it pass over the
/// partition once, and takes the State back. The methods block: backends call them off the async
/// threads.
///
/// Equal State, Config, seed and partition must give equal bits; so whatever is random in `train`
/// (the order of rows, dropout) comes from [`Pass::seed`].
pub trait Model: Send {
    /// Sets the weights to the initial values that `seed` determines.
    fn initialize(&mut self, seed: Seed) -> Result<(), ModelError>;

    /// Goes on from `state`, which this kind of model made: its own type or its written form.
    fn restore(&mut self, state: &State) -> Result<(), ModelError>;

    /// The State after what was done so far.
    fn state(&mut self) -> Result<State, ModelError>;

    /// Trains on every row of the partition once, in the order that [`Pass::row_order`] gives, and
    /// reports metrics; one of them is [`LOSS`](crate::metric::LOSS).
    ///
    /// Calls [`Pass::advance`] after each mini-batch.
    fn train(&mut self, partition: &dyn Partition, pass: &Pass<'_>) -> Result<Metrics, ModelError>;

    /// Measures the model on every row of the partition, changing nothing.
    fn evaluate(
        &mut self,
        partition: &dyn Partition,
        pass: &Pass<'_>,
    ) -> Result<Metrics, ModelError>;

    /// The model's output for every row of the partition, in row order, rows first.
    ///
    /// Needed by `transform` only; a model without it says so.
    fn predict(
        &mut self,
        partition: &dyn Partition,
        pass: &Pass<'_>,
    ) -> Result<Tensor, ModelError> {
        let _ = (partition, pass);
        Err(ModelError::Unsupported("predict"))
    }
}

/// Makes the [`Model`] of a Config; one builder serves all trials of an experiment.
///
/// Any `Fn(&Config, &Slot) -> Result<Box<dyn Model>, ModelError>` is a builder. A slot builds a
/// model for each unit, so building should be cheap: share what is costly (compiled graphs,
/// sessions) among the models of a slot.
pub trait ModelBuilder: Send + Sync {
    /// A model for `config`, to be run in `slot`; its weights are set by
    /// [`Model::initialize`] or [`Model::restore`] afterwards.
    fn build(&self, config: &Config, slot: &Slot) -> Result<Box<dyn Model>, ModelError>;

    /// A rough relative cost of training on one row: the scheduler's first guess, before it has
    /// measured any unit of the trial. Unknown by default.
    fn cost_per_row(&self, config: &Config) -> Option<f64> {
        let _ = config;
        None
    }

    /// The size of the State of a trial of `config`, in bytes, if that is known before it is trained: it
    /// bounds what checkpoints take of the store. Unknown by default.
    fn state_bytes(&self, config: &Config) -> Option<u64> {
        let _ = config;
        None
    }

    /// What workers in other processes need to make this builder again; none by default, for a
    /// builder that only its own process can have.
    fn blueprint(&self) -> Option<Blueprint> {
        None
    }

    /// Checks a Config on the driver, before its trial starts; must be cheap. The default accepts
    /// every Config: what is wrong shows when the trial's first unit builds its model.
    fn check(&self, config: &Config) -> Result<(), ModelError> {
        let _ = config;
        Ok(())
    }
}

impl<F> ModelBuilder for F
where
    F: Fn(&Config, &Slot) -> Result<Box<dyn Model>, ModelError> + Send + Sync,
{
    fn build(&self, config: &Config, slot: &Slot) -> Result<Box<dyn Model>, ModelError> {
        self(config, slot)
    }
}

/// What a [`ModelBuilder`] is made of, so that a worker in another process can make its equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blueprint {
    /// The name under which the worker's registry knows how to make the builder.
    pub name: String,
    /// What it is made from, such as an ONNX model; it goes to each worker once.
    pub bytes: Vec<u8>,
}

/// Where a model computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Device {
    /// The processor.
    #[default]
    Cpu,
    /// A CUDA device, by number.
    Cuda(u32),
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Cpu => f.write_str("cpu"),
            Device::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

/// A place in a worker that runs one unit at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Slot {
    /// The slot's number, unique in its process: models of one slot never run at once, so they
    /// may share what one slot owns.
    pub number: u32,
    /// Where models of this slot compute.
    pub device: Device,
    /// The threads that a model of this slot may use.
    pub threads: usize,
}

impl Default for Slot {
    fn default() -> Self {
        Self { number: 0, device: Device::Cpu, threads: 1 }
    }
}

/// What a model is told about the pass that it makes over a partition.
pub struct Pass<'a> {
    unit: Unit,
    seed: Seed,
    cancellation: &'a Cancellation,
    progress: &'a dyn Fn(usize),
}

impl<'a> Pass<'a> {
    /// The pass of `unit`, of a trial with the seed `trial_seed`. `progress` is told of the rows of
    /// each batch that is done.
    pub fn new(
        unit: Unit,
        trial_seed: Seed,
        cancellation: &'a Cancellation,
        progress: &'a dyn Fn(usize),
    ) -> Self {
        let indices = [u64::from(unit.epoch), u64::from(unit.partition.0)];
        Self { unit, seed: trial_seed.derive("pass", &indices), cancellation, progress }
    }

    /// The unit that this pass belongs to.
    pub fn unit(&self) -> Unit {
        self.unit
    }

    /// The trial that this pass belongs to.
    pub fn trial(&self) -> TrialId {
        self.unit.trial
    }

    /// The seed of everything random in this pass, from (seed, trial, epoch, partition) alone.
    pub fn seed(&self) -> Seed {
        self.seed
    }

    /// The order in which to train on the partition's rows: a shuffle that the seed determines.
    pub fn row_order(&self, partition: &dyn Partition) -> Vec<u32> {
        self.seed.derive("rows", &[]).permutation(partition.rows())
    }

    /// Mini-batches in [`row_order`](Self::row_order).
    pub fn shuffled_batches<'p>(
        &self,
        partition: &'p dyn Partition,
        batch_size: usize,
    ) -> Batches<'p> {
        Batches::new(partition, self.row_order(partition), batch_size)
    }

    /// Mini-batches in the order of the rows, for evaluation.
    pub fn batches<'p>(&self, partition: &'p dyn Partition, batch_size: usize) -> Batches<'p> {
        Batches::new(partition, (0..partition.rows() as u32).collect(), batch_size)
    }

    /// Reports that a batch of `rows` rows is done; an error if the unit was cancelled, to be
    /// returned at once.
    pub fn advance(&self, rows: usize) -> Result<(), ModelError> {
        (self.progress)(rows);
        if self.cancellation.is_cancelled() { Err(ModelError::Cancelled) } else { Ok(()) }
    }
}

impl fmt::Debug for Pass<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pass")
            .field("unit", &self.unit)
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}

/// Why a model could not be built, trained, measured or restored.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The Config does not fit the model.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data does not fit the model.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The unit was cancelled; not a fault.
    #[error("cancelled at a batch boundary")]
    Cancelled,
    /// The training diverged.
    #[error(
        "the {metric} became {value} at step {step}; a smaller learning rate or gradient clipping may help"
    )]
    Diverged {
        /// The metric, most often the loss.
        metric: String,
        /// NaN or an infinity.
        value: f64,
        /// The step of this pass, counted from 0.
        step: usize,
    },
    /// The State is not one that this model can go on from.
    #[error("cannot go on from this State: {0}")]
    State(String),
    /// The model does not have this ability.
    #[error("this model does not support `{0}`")]
    Unsupported(&'static str),
    /// What the learner itself reports.
    #[error("{context}: {source}")]
    Other {
        /// What was attempted.
        context: String,
        /// What went wrong.
        source: Box<dyn Error + Send + Sync>,
    },
}

impl ModelError {
    /// An error of the learner's own, with what was attempted.
    pub fn other(
        context: impl Into<String>,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        ModelError::Other { context: context.into(), source: source.into() }
    }
}
