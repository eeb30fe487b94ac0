//! [`Experiment`]: search, scheduler and backend together.
//!
//! The driver is one event loop. It asks the [search](crate::search) for Configs, makes each a
//! trial, lets the [scheduler](crate::schedule) assign units to workers, has the
//! [backend](crate::backend) run them, tells the search what came out after each epoch, and tells
//! [observers](crate::observe) everything. It waits for whatever happens first and never polls.

mod builder;
mod command;
mod driver;
mod error;
mod handle;
mod ledger;
mod result;
mod retention;
mod status;
mod trial;
mod watch;

pub use builder::{Experiment, ExperimentBuilder};
pub use command::{Answer, Command, ControlError, Priority, Start};
pub use error::{ExperimentError, Interruption};
pub use handle::{ExperimentHandle, Reply};
pub use result::ExperimentResult;
pub use retention::Retention;
pub use status::{ExperimentStatus, TrialOverview};
pub use trial::{EpochRecord, InheritedState, TrialRecord};
pub use watch::EventStream;
