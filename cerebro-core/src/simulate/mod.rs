//! The simulator: a cluster and a job on a discrete-event clock, under the scheduler that real runs
//! have, so that a cluster can be planned before it is rented.
//!
//! ```
//! use cerebro_core::Seed;
//! use cerebro_core::simulate::Uniform;
//!
//! let plan = Uniform { trials: 16, workers: 8, partitions: 8, ..Uniform::default() }.plan(Seed(1));
//! let outcome = plan.run(|_| ())?;
//! assert_eq!(outcome.units, 16 * 8);
//! assert!(outcome.ratio() < 1.05);
//! # Ok::<(), cerebro_core::simulate::SimulationError>(())
//! ```

mod gantt;
mod plan;
mod run;
mod strategy;
mod uniform;

pub use gantt::gantt;
pub use plan::{
    KnownCosts, Plan, STRAGGLING, SimulatedPartition, SimulatedTrial, SimulatedWorker,
    SimulationError,
};
pub use run::{Ending, Outcome, Span};
pub use strategy::{Strategy, Traffic};
pub use uniform::Uniform;
