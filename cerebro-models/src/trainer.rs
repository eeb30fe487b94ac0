//! [`Trainer`]: the [`ModelBuilder`] of ONNX networks.

mod architecture;
mod blueprint;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use cerebro_core::data::{ElementType, MemoryPartition, Tensor, TensorSpec};
use cerebro_core::{
    Blueprint, Config, Model, ModelBuilder, ModelError, PartitionId, Slot, State, Value,
};
use ndarray::ArrayD;

use crate::bindings::Bindings;
use crate::export::Export;
use crate::hyperparameters::Hyperparameters;
use crate::loss::Loss;
use crate::metric::Metric;
use crate::model::OnnxModel;
use crate::optim::{Optimizer, OptimizerKind};
use crate::pretrained::{Pretrained, PretrainedReport};
use crate::program::Program;
use crate::state::{TrainingState, portable_bytes};
use crate::step::{Memory, SlotCaches, Task};
use crate::training::{ParameterGroup, TrainingSpec};

pub use architecture::Architecture;

/// Trains networks given as ONNX graphs: the [`ModelBuilder`] of this crate.
///
/// The networks are differentiated, and steps run in ONNX Runtime, which must be there (see
/// [`runtime`](crate::runtime)). One compiled step serves all trials of a slot that have the same
/// architecture, batch size and kind of optimizer.
///
/// # Hyperparameters
///
/// A Config must have those that are needed, may have the others, and must have no more than
/// these and the architecture's own; [`default`](Self::default) gives values to names that a
/// Config lacks.
///
/// | name | needed | meaning |
/// | --- | --- | --- |
/// | `learning_rate` | yes | the step size, at least 0 |
/// | `batch_size` | yes | rows per step, at most as many as the smallest partition has. The last, smaller batch of a partition is trained on too |
/// | `optimizer` | yes | `sgd`, `adam`, `adamw`, `rmsprop`, `adagrad`, `lamb` or `lion` |
/// | `weight_decay` | | at least 0; decoupled for `adamw`, `lamb` and `lion` |
/// | `momentum` | | for `sgd` and `rmsprop`; at least 0, below 1 |
/// | `nesterov`, `dampening` | | for `sgd` with momentum |
/// | `beta1`, `beta2` | | for `adam`, `adamw`, `lamb` and `lion`; at least 0, below 1 |
/// | `smoothing` | | for `rmsprop` (PyTorch's `alpha`); at least 0, below 1 |
/// | `epsilon` | | for `adam`, `adamw`, `rmsprop`, `adagrad` and `lamb`; at least 0 |
/// | `accumulate` | | the batches of an update, 1 by default: the update is that of one batch of so many times the rows, up to rounding, in the memory of one. The last update of a partition may have fewer. Batch normalization sees each batch alone |
/// | `clip_norm`, `clip_value` | | limits the gradients' norm or each element; one of the two |
///
/// The learning rate stays as it is unless there are some of these:
///
/// | name | meaning |
/// | --- | --- |
/// | `schedule` | `constant` (the default), `step`, `exponential`, `linear`, `cosine`, `one_cycle` or `plateau`, by PyTorch's formulas |
/// | `schedule_epochs` or `schedule_steps` | when `linear`, `cosine` and `one_cycle` end (a warm-up included); how often `step` and `exponential` multiply by the factor. After its end a schedule stays where it is |
/// | `schedule_factor` | for `step` and `plateau` (0.1 by default) and `exponential`; above 0, at most 1 |
/// | `schedule_minimum` | the rate at the end of `linear` and `cosine`, the least one of `plateau`; 0 by default |
/// | `schedule_rise` | the share of `one_cycle` in which the rate rises to `learning_rate`; 0.3 by default |
/// | `schedule_start_divisor`, `schedule_end_divisor` | `one_cycle` starts at `learning_rate` divided by the first (25) and ends at that divided by the second (10,000) |
/// | `schedule_patience`, `schedule_threshold`, `schedule_cooldown` | `plateau` multiplies after more than so many epochs (10) in which the training loss was not lower by this share (1e-4) than the best, and then waits so many epochs (0) |
/// | `warmup_epochs` or `warmup_steps` | the rate rises linearly before the schedule begins; with every schedule but `one_cycle` |
/// | `warmup_start` | the share of the rate that the warm-up starts from; 1/3 by default |
/// | `epoch_rows` | the rows of all training partitions together, for durations in epochs: see below |
///
/// Steps are updates of the weights, and their number in an epoch depends on the batch size and on
/// how the rows are partitioned (the last batch of a partition is smaller). To compare Configs
/// with other batch sizes, give durations in epochs. The rate then changes from epoch to epoch; if
/// `epoch_rows` is given ([`default`](Self::default) does it for all Configs) it changes at each
/// step, with the rows that the trial has trained on, and is the same whatever the sizes of the
/// partitions and the order of visits. A schedule goes on with the State: a trial that starts from
/// another one's State starts where that one was, but for durations in epochs without
/// `epoch_rows`, which count the trial's own. Trials with a schedule report the mean of their
/// `learning_rate` among the training metrics.
///
/// A name that has no effect with the Config's optimizer or schedule is refused like a misspelt
/// one: make it conditional in the search space.
///
/// ```
/// use cerebro_core::{Config, ModelBuilder};
/// use cerebro_models::loss::Loss;
/// use cerebro_models::metric::Metric;
/// use cerebro_models::{Architecture, Trainer, nn};
///
/// let network = Architecture::new(["hidden"], |config: &Config| {
///     Ok(nn::mlp(64, &config.sizes("hidden")?, 10))
/// });
/// let trainer = Trainer::new(network, Loss::cross_entropy())
///     .metric(Metric::Accuracy)
///     .input("features")
///     .target("label")
///     .default("optimizer", "adam");
/// let config = Config::new().with("hidden", [32]).with("learning_rate", 0.001).with("batch_size", 64);
/// assert!(trainer.check(&config).is_ok());
/// assert!(trainer.check(&config.with("learning_rat", 0.1)).is_err());
/// ```
#[derive(Debug)]
pub struct Trainer {
    architecture: Architecture,
    /// What is trained and how, but for the optimizer, which Configs say.
    spec: TrainingSpec,
    defaults: Config,
    bindings: Arc<Bindings>,
    pretrained: Option<Pretrained>,
    programs: Mutex<HashMap<ProgramKey, Arc<Program>>>,
    slots: SlotCaches,
}

/// What decides a program: the architecture's hyperparameters and the kind of optimizer.
type ProgramKey = (Config, OptimizerKind);

impl Trainer {
    /// The name of a trainer's [`Blueprint`].
    pub const BLUEPRINT: &'static str = "onnx-trainer";

    /// Trains `architecture` to minimise `loss`.
    pub fn new(architecture: impl Into<Architecture>, loss: Loss) -> Self {
        let bindings = Bindings {
            only_input: None,
            inputs: Vec::new(),
            target: "target".to_owned(),
            loss: loss.clone(),
        };
        Self {
            architecture: architecture.into(),
            spec: TrainingSpec::new(loss, Optimizer::sgd(0.0).kind()),
            defaults: Config::new(),
            bindings: Arc::new(bindings),
            pretrained: None,
            programs: Mutex::default(),
            slots: SlotCaches::default(),
        }
    }

    /// Measures `metric` too, in training and in validation.
    pub fn metric(mut self, metric: Metric) -> Self {
        self.spec.metrics.push(metric);
        self
    }

    /// Feeds the network's only input with the data set's tensor `tensor`.
    pub fn input(mut self, tensor: impl Into<String>) -> Self {
        Arc::make_mut(&mut self.bindings).only_input = Some(tensor.into());
        self
    }

    /// Feeds the network's input `input` with the data set's tensor `tensor`. Inputs that are not
    /// named are fed with the tensor of their own name.
    pub fn bind(mut self, input: impl Into<String>, tensor: impl Into<String>) -> Self {
        Arc::make_mut(&mut self.bindings).inputs.push((input.into(), tensor.into()));
        self
    }

    /// Compares the network's output with the data set's tensor `tensor`; `target` by default.
    ///
    /// Whole numbers are taken where a loss compares with floats. For a cross-entropy they are
    /// class labels, counted from 0.
    pub fn target(mut self, tensor: impl Into<String>) -> Self {
        Arc::make_mut(&mut self.bindings).target = tensor.into();
        self
    }

    /// Compares the network's output `output` with the target; by default the first one of
    /// floating-point numbers.
    ///
    /// It may be a value inside the network too: a model that ends with a softmax, as classifiers
    /// of Keras and scikit-learn do, is trained by the cross-entropy of the logits before it. They
    /// are the input of the last `Softmax` node; those of a linear classifier of scikit-learn are
    /// called `NODE.scores`.
    pub fn output(mut self, output: impl Into<String>) -> Self {
        self.spec.output = Some(output.into());
        self
    }

    /// Leaves the weights whose names match `pattern` as they are (`*` stands for any characters):
    /// transfer learning.
    pub fn freeze(mut self, pattern: impl Into<String>) -> Self {
        self.spec.frozen.push(pattern.into());
        self
    }

    /// Starts from `weights` where the network has a weight of the same name: transfer learning, or
    /// a training that goes on.
    pub fn pretrained(mut self, weights: Pretrained) -> Self {
        self.pretrained = Some(weights);
        self
    }

    /// What becomes of the [`pretrained`](Self::pretrained) weights in the network of `config`.
    pub fn pretrained_report(&self, config: &Config) -> Result<PretrainedReport, ModelError> {
        let (program, _) = self.prepare(config)?;
        let weights = self.pretrained.as_ref();
        Ok(weights.map(|weights| weights.report(program.variables())).unwrap_or_default())
    }

    /// Trains the weights of `group` with other learning rates or weight decay: none on biases,
    /// say. The first group that matches a weight holds.
    pub fn group(mut self, group: ParameterGroup) -> Self {
        self.spec.groups.push(group);
        self
    }

    /// Gives the hyperparameter `name` the value `value` in Configs that do not have it.
    pub fn default(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.defaults.set(name, value);
        self
    }

    /// Makes the trainer that another process described by [`ModelBuilder::blueprint`]. It trains
    /// to the same bits.
    ///
    /// ```
    /// use cerebro_core::ModelBuilder;
    /// use cerebro_models::loss::Loss;
    /// use cerebro_models::nn::NetworkSpec;
    /// use cerebro_models::Trainer;
    ///
    /// let network = NetworkSpec::Mlp {
    ///     inputs: 64.into(),
    ///     hidden: "hidden".into(),
    ///     outputs: 10.into(),
    /// };
    /// let blueprint = Trainer::new(network, Loss::cross_entropy()).blueprint().unwrap();
    /// assert_eq!(blueprint.name, Trainer::BLUEPRINT);
    /// let equal = Trainer::from_blueprint(&blueprint.bytes)?;
    /// assert_eq!(equal.blueprint(), Some(blueprint));
    /// # Ok::<(), cerebro_core::ModelError>(())
    /// ```
    pub fn from_blueprint(bytes: &[u8]) -> Result<Self, ModelError> {
        blueprint::read(bytes)
            .map_err(|error| ModelError::other("cannot make a trainer of this blueprint", error))
    }

    /// An error if the tensors of a data set cannot feed the network of `config`: if one that it takes
    /// is not there, or is of another shape or type, or if the target is known to have more classes
    /// than the network. What they hold is not looked at.
    pub fn check_data(&self, config: &Config, tensors: &[TensorSpec]) -> Result<(), ModelError> {
        let row = tensors.iter().map(|spec| {
            let shape = [&[1], &spec.shape[..]].concat();
            let tensor = if spec.element == ElementType::F32 {
                Tensor::from(ArrayD::<f32>::zeros(shape))
            } else {
                Tensor::from(ArrayD::<i64>::zeros(shape))
            };
            (spec.name.clone(), tensor)
        });
        let row = MemoryPartition::new(PartitionId(0), row)?;
        let (program, read) = self.prepare(config)?;
        let shapes = self.bindings.shapes(&program, &row, read.batch_size)?;
        let interface = program.interface(&shapes)?;
        self.bindings.feed(&row, &interface, Task::Step)?;
        self.bindings.check_classes(&interface, tensors)
    }

    /// The inference-only model of a trial: its network with the weights of `state`.
    pub fn export(&self, config: &Config, state: &State) -> Result<Export, ModelError> {
        crate::runtime::load()?;
        let (program, _) = self.prepare(config)?;
        let state = TrainingState::restore(program.variables(), state)?.moved(&Memory::Host)?;
        Ok(Export::new(&program, state))
    }

    /// The program of `config`, drawn if this is the first trial that has it.
    fn prepare(&self, config: &Config) -> Result<(Arc<Program>, Hyperparameters), ModelError> {
        let mut complete = self.defaults.clone();
        config.iter().for_each(|(name, value)| complete.set(name, value.clone()));
        let own = self.architecture.hyperparameters();
        let read = Hyperparameters::read(&complete, own)?;
        let architecture: Config = complete
            .iter()
            .filter(|(name, _)| own.iter().any(|own| own == name))
            .map(|(name, value)| (name, value.clone()))
            .collect();

        let key = (architecture, read.optimizer.kind());
        let mut programs = self.programs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(program) = programs.get(&key) {
            return Ok((Arc::clone(program), read));
        }
        let program = Arc::new(self.draw(&key.0, &read)?);
        programs.insert(key, Arc::clone(&program));
        Ok((program, read))
    }

    fn draw(&self, architecture: &Config, read: &Hyperparameters) -> Result<Program, ModelError> {
        let network = self.architecture.network(architecture)?;
        let spec = TrainingSpec { optimizer: read.optimizer.kind(), ..self.spec.clone() };
        let length = read.optimizer.hyperparameters(1, read.optimizer.learning_rate).len();
        Program::new(network, spec, self.pretrained.as_ref(), length)
    }
}

impl ModelBuilder for Trainer {
    fn build(&self, config: &Config, slot: &Slot) -> Result<Box<dyn Model>, ModelError> {
        let (program, read) = self.prepare(config)?;
        Ok(Box::new(OnnxModel {
            program,
            bindings: Arc::clone(&self.bindings),
            optimizer: read.optimizer,
            schedule: read.schedule,
            batch_size: read.batch_size,
            accumulate: read.accumulate,
            slot: self.slots.of(slot),
            state: None,
        }))
    }

    /// Grows with the number of weights: each takes part in three products per row.
    fn cost_per_row(&self, config: &Config) -> Option<f64> {
        let (program, _) = self.prepare(config).ok()?;
        Some(program.parameters() as f64)
    }

    /// That of its portable form, which is what a checkpoint holds: weights, statistics and the
    /// optimizer's state.
    fn state_bytes(&self, config: &Config) -> Option<u64> {
        let (program, _) = self.prepare(config).ok()?;
        Some(portable_bytes(program.variables()))
    }

    /// See [`from_blueprint`](Trainer::from_blueprint); none for an architecture that is a
    /// program's own function.
    fn blueprint(&self) -> Option<Blueprint> {
        let bytes = blueprint::write(self)?;
        Some(Blueprint { name: Self::BLUEPRINT.to_owned(), bytes })
    }

    fn check(&self, config: &Config) -> Result<(), ModelError> {
        self.prepare(config).map(drop)
    }
}
