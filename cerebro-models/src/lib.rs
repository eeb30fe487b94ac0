//! Training of ONNX models through stock ONNX Runtime, by differentiation of the graph.
//!
//! Give a [`Trainer`] a network, a loss and the names of the data set's tensors, and it is a
//! [`ModelBuilder`](cerebro_core::ModelBuilder): every trial of an experiment trains through it.
//!
//! ```
//! use cerebro_core::data::{MemoryPartition, Tensor};
//! use cerebro_core::{
//!     Cancellation, Config, ModelBuilder, PartitionId, Pass, Seed, Slot, Split, TrialId, Unit,
//! };
//! use cerebro_models::loss::Loss;
//! use cerebro_models::{Trainer, nn, runtime};
//! use ndarray::{Array1, Array2};
//!
//! runtime::install()?;
//! let trainer = Trainer::new(nn::mlp(2, &[16], 2), Loss::cross_entropy())
//!     .input("point")
//!     .target("side")
//!     .default("optimizer", "adam");
//!
//! // Points on either side of a line.
//! let points = Array2::from_shape_fn((256, 2), |(row, axis)| ((row * (axis + 3)) % 17) as f32 / 8.0 - 1.0);
//! let sides = Array1::from_iter(points.rows().into_iter().map(|p| i64::from(p[0] > p[1])));
//! let rows = MemoryPartition::new(
//!     PartitionId(0),
//!     [("point", Tensor::from(points.into_dyn())), ("side", Tensor::from(sides.into_dyn()))],
//! )?;
//!
//! // What a worker does with a unit; an `Experiment` does it for all trials and partitions.
//! let config = Config::new().with("learning_rate", 0.01).with("batch_size", 32);
//! let mut model = trainer.build(&config, &Slot::default())?;
//! model.initialize(Seed(1))?;
//! let cancellation = Cancellation::new();
//! let mut losses = Vec::new();
//! for epoch in 0..10 {
//!     let unit = Unit { trial: TrialId(0), epoch, split: Split::Train, partition: PartitionId(0) };
//!     let metrics = model.train(&rows, &Pass::new(unit, Seed(1), &cancellation, &|_| ()))?;
//!     losses.extend(metrics.value("loss"));
//! }
//! assert!(losses[9] < 0.5 * losses[0], "{losses:?}");
//!
//! // The trial's State becomes an inference-only ONNX model.
//! let export = trainer.export(&config, &model.state()?)?;
//! assert_eq!(export.model().graph.inputs.len(), 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Why graphs, and why this way
//!
//! The packages for training with ONNX Runtime ended with its version 1.19. But a training step is
//! itself a dataflow graph, and gradients of ONNX operators can be written with ONNX operators: so
//! a stock runtime trains, with every execution provider that runs the forward pass, and no
//! Python. Three decisions follow from model hopping:
//!
//! * **Weights, optimizer state and hyperparameters are inputs of the step**, not part of it. One
//!   compiled graph per architecture, batch size and kind of optimizer serves all trials of a slot.
//! * **A step reads one set of buffers and writes another.** The State that a unit starts from
//!   stays as it was, whatever happens to the unit; a hop within a process is a pointer.
//! * **Everything random is a function of the trial's seed**, and nothing lives in a session: what
//!   ran before in a slot changes no bit of what runs next.
//!
//! # Map
//!
//! | module | what it does |
//! | --- | --- |
//! | [`runtime`] | finds, installs and loads `libonnxruntime` |
//! | [`onnx`] | reads and writes ONNX files |
//! | [`graph`], [`operators`] | typed graphs; each operator's shapes and gradient |
//! | [`loss`], [`metric`], [`optim`] | what a step minimises, measures, and does with gradients |
//! | [`training`] | draws the step, evaluation and prediction graphs of a model |
//! | [`nn`], [`init`] | networks built without Python; initial weights |
//! | [`Pretrained`] | weights of another training that trials start from |
//! | [`Trainer`], [`TrainingState`], [`Export`], [`Inference`] | trials, their States, and what becomes of them |

mod autodiff;
mod bindings;
mod error;
mod export;
pub mod graph;
mod hyperparameters;
mod import;
mod inference;
pub mod init;
mod kernels;
pub mod loss;
pub mod metric;
mod model;
pub mod nn;
pub mod onnx;
pub mod operators;
pub mod optim;
mod pretrained;
mod program;
pub mod runtime;
mod schedule;
mod state;
mod step;
mod trainer;
pub mod training;

pub use error::GraphError;
pub use export::Export;
pub use inference::Inference;
pub use pretrained::{Pretrained, PretrainedError, PretrainedReport, Unlike};
pub use state::{StateError, TrainingState};
pub use step::StepError;
pub use trainer::{Architecture, Trainer};
