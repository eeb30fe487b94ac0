//! placeholder
#![forbid(unsafe_code)]

pub mod backend;
mod cancel;
pub mod config;
pub mod data;
pub mod experiment;
mod id;
pub mod metric;
pub mod model;
pub mod observe;
pub mod placement;
pub mod schedule;
pub mod search;
mod seconds;
mod seed;
pub mod space;
mod state;
#[cfg(feature = "testing")]
pub mod testing;

pub use backend::Backend;
pub use cancel::Cancellation;
pub use config::{Config, ConfigError, Value};
pub use id::{PartitionId, Split, TrialId, Unit, WorkerId};
pub use metric::{Direction, Metrics, Objective, Statistic};
pub use model::{Device, Model, ModelBuilder, ModelError, Pass, Slot};
pub use search::Search;
pub use seed::{Seed, SeededRng};
pub use space::Space;
pub use state::{State, StateData};
