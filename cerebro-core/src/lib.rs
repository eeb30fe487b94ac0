//! Model selection for deep learning by Model Hopper Parallelism.
//!
//! You have one data set and a space of configurations: architectures, learning rates, batch sizes,
//! regularisers. Cerebro trains all the candidates and finds the best. The data stay where they
//! are, cut into partitions; the models hop from worker to worker, so that in one epoch every model
//! visits every partition exactly once, and each trains exactly as sequential SGD would. No worker
//! needs a copy of the whole data set, and nothing is exchanged at every mini-batch (Nakandala,
//! Zhang, Kumar: "Cerebro: A Data System for Optimized Deep Learning Model Selection",
//! PVLDB 13(11), 2020).
//!
//! This crate has the traits, the scheduler, the searches and the driver. It knows no network and
//! no deep-learning runtime: implement [`Model`] for a learner of your own, or take
//! `cerebro-models`, which trains any ONNX model; run it on `cerebro-backend-local`, or on a
//! [`Backend`] of your own.
//!
//! # A learner of your own
//!
//! A logistic regression, written by hand, is a [`Model`] when it can train on a partition, measure
//! itself on one, and give and take its State. Sixteen learning rates are tried on two workers:
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//!
//! use cerebro_backend_local::LocalBackend;
//! use cerebro_core::data::{MemoryDataset, MemoryPartition, Partition};
//! use cerebro_core::experiment::Experiment;
//! use cerebro_core::search::Random;
//! use cerebro_core::{
//!     Config, Metrics, Model, ModelError, Objective, PartitionId, Pass, Seed, Slot, Space, Split,
//!     State, Statistic,
//! };
//! use ndarray::{Array1, Array2, ArrayView1, Ix1, Ix2};
//!
//! struct LogisticRegression {
//!     rate: f32,
//!     weights: Array1<f32>, // one per feature, then the intercept
//! }
//!
//! impl LogisticRegression {
//!     fn probability(&self, x: &ArrayView1<f32>) -> f32 {
//!         let features = x.len();
//!         let score = x.dot(&self.weights.slice(ndarray::s![..features])) + self.weights[features];
//!         1.0 / (1.0 + (-score).exp())
//!     }
//!
//!     /// Passes over batches, calling `learn` with each row, its label and the probability.
//!     fn pass(
//!         &mut self,
//!         batches: cerebro_core::data::Batches<'_>,
//!         pass: &Pass<'_>,
//!         mut learn: impl FnMut(&mut Self, &ArrayView1<f32>, f32),
//!     ) -> Result<Metrics, ModelError> {
//!         let mut metrics = Metrics::new();
//!         for batch in batches {
//!             let batch = batch?;
//!             let x = batch.f32("x")?.view().into_dimensionality::<Ix2>().expect("a matrix");
//!             let y = batch.f32("y")?.view().into_dimensionality::<Ix1>().expect("a vector");
//!             for (x, &y) in x.rows().into_iter().zip(y) {
//!                 let p = self.probability(&x);
//!                 let loss = -(y * p.max(1e-7).ln() + (1.0 - y) * (1.0 - p).max(1e-7).ln());
//!                 metrics.record("loss", Statistic::mean(f64::from(loss), 1));
//!                 let hit = (p > 0.5) == (y > 0.5);
//!                 metrics.record("accuracy", Statistic::mean(f64::from(u8::from(hit)), 1));
//!                 learn(self, &x, y - p);
//!             }
//!             pass.advance(batch.rows())?; // progress, and the place where a unit may stop
//!         }
//!         Ok(metrics)
//!     }
//! }
//!
//! impl Model for LogisticRegression {
//!     fn initialize(&mut self, _: Seed) -> Result<(), ModelError> {
//!         self.weights.fill(0.0);
//!         Ok(())
//!     }
//!
//!     fn restore(&mut self, state: &State) -> Result<(), ModelError> {
//!         let bytes = state.to_vec();
//!         let weights = bytes.chunks_exact(4).map(|w| f32::from_le_bytes(w.try_into().unwrap()));
//!         self.weights = weights.collect();
//!         Ok(())
//!     }
//!
//!     fn state(&mut self) -> Result<State, ModelError> {
//!         Ok(self.weights.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<u8>>().into())
//!     }
//!
//!     fn train(&mut self, on: &dyn Partition, pass: &Pass<'_>) -> Result<Metrics, ModelError> {
//!         self.pass(pass.shuffled_batches(on, 8), pass, |model, x, error| {
//!             let features = x.len();
//!             model.weights.slice_mut(ndarray::s![..features]).scaled_add(model.rate * error, x);
//!             model.weights[features] += model.rate * error;
//!         })
//!     }
//!
//!     fn evaluate(&mut self, on: &dyn Partition, pass: &Pass<'_>) -> Result<Metrics, ModelError> {
//!         self.pass(pass.batches(on, 64), pass, |_, _, _| ())
//!     }
//! }
//!
//! // Points in the plane, labelled by the side of a line, in 4 + 1 partitions.
//! let points = |id: u32| {
//!     let mut rng = Seed(1).derive("points", &[u64::from(id)]).rng();
//!     let x = Array2::from_shape_fn((50, 2), |_| rng.normal() as f32);
//!     let y: Array1<f32> = x.rows().into_iter().map(|x| f32::from(x[0] > 2.0 * x[1])).collect();
//!     let tensors = [("x", x.into_dyn().into()), ("y", y.into_dyn().into())];
//!     let split = if id < 4 { Split::Train } else { Split::Validation };
//!     Ok::<_, cerebro_core::data::DataError>((split, MemoryPartition::new(PartitionId(id), tensors)?))
//! };
//! let dataset = MemoryDataset::new((0..5).map(points).collect::<Result<Vec<_>, _>>()?)?;
//! let space = Space::builder().loguniform("rate", 1e-4, 1.0).build()?;
//!
//! let result = Experiment::builder()
//!     .dataset(dataset)
//!     .model(|config: &Config, _: &Slot| {
//!         let rate = config.float("rate")? as f32;
//!         Ok(Box::new(LogisticRegression { rate, weights: Array1::zeros(3) }) as Box<dyn Model>)
//!     })
//!     .search(Random::new(&space, 16, Seed(7))?)
//!     .objective(Objective::maximize("accuracy"))
//!     .epochs(5)
//!     .build()?
//!     .run_blocking(Arc::new(LocalBackend::builder().workers(2).build()?))?;
//!
//! let best = result.best()?;
//! println!("{}: {:.3} with {}", best.id, best.best_value().unwrap(), best.config);
//! assert!(best.best_value().unwrap() > 0.9);
//! # Ok(())
//! # }
//! ```
//!
//! # What holds, whatever happens
//!
//! In an epoch a trial trains on each partition exactly once, and is never in two training units at
//! once. A unit completes and its new State is recorded, or it leaves no trace. A trial's weights
//! depend on its Config, the seed and its visit order only: not on the backend, the number of
//! workers, other trials, faults or timing. `ARCHITECTURE.md` names the test that guards each.
//!
//! # Features
//!
//! `data` (default): Parquet data sets over object stores, `prepare`, caches. `progress` (default):
//! progress in the terminal. `store` (default): keeps experiments in object stores and resumes them.
//! `tensorboard`: event files for TensorBoard. `mlflow`: runs on an MLflow server. `aws`, `gcp`, `azure`,
//! `http`: those object stores. `testing`: the conformance suite for backends.

#![forbid(unsafe_code)]

pub mod backend;
mod cancel;
pub mod config;
pub mod data;
pub mod execute;
pub mod experiment;
mod id;
pub mod metric;
pub mod model;
mod named;
pub mod observe;
pub mod placement;
mod real;
pub mod schedule;
pub mod search;
mod seconds;
mod seed;
pub mod simulate;
pub mod space;
mod state;
pub mod store;
#[cfg(feature = "testing")]
pub mod testing;
mod text;

pub use backend::Backend;
pub use cancel::Cancellation;
pub use config::{Config, ConfigError, Value};
pub use id::{PartitionId, Split, TrialId, Unit, WorkerId};
pub use metric::{Direction, Metrics, Objective, Statistic};
pub use model::{Blueprint, Device, Model, ModelBuilder, ModelError, Pass, Slot};
pub use search::Search;
pub use seed::{Seed, SeededRng};
pub use space::Space;
pub use state::{Parts, State, StateData};
