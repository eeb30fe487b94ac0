//! The MOP scheduler: which trial trains on which partition, where and when.
//!
//! [`Scheduler`] is a pure state machine: it is told what happened and answers what is to start.
//!
//! ```
//! use std::time::Duration;
//! use cerebro_core::schedule::{PartitionSpec, Policy, Scheduler, TrialSpec, WorkerSpec};
//! use cerebro_core::{PartitionId, Seed, Split, TrialId, WorkerId};
//!
//! let partitions = [0, 1].map(|n| PartitionSpec { id: PartitionId(n), split: Split::Train, rows: 100 });
//! let mut scheduler = Scheduler::new(Policy::default(), Seed(1), &partitions)?;
//! for n in 0..2 {
//!     scheduler.worker_joined(&WorkerSpec { id: WorkerId(n), slots: 1, partitions: vec![PartitionId(n)] })?;
//!     scheduler.add_trial(&TrialSpec::new(TrialId(n.into()), 3))?;
//! }
//! let mut units = 0;
//! while !scheduler.is_idle() {
//!     for start in scheduler.assign(Duration::from_secs(units)) {
//!         scheduler.completed(start.unit, start.worker, Duration::from_secs(1))?;
//!         units += 1;
//!     }
//! }
//! assert_eq!(units, 2 * 2 * 3);
//! # Ok::<(), cerebro_core::schedule::ScheduleError>(())
//! ```

mod assign;
mod board;
mod bound;
mod cost;
mod dispatch;
mod error;
mod fit;
mod held;
mod job;
mod layout;
mod lookahead;
mod order;
mod outcome;
mod policy;
mod prefetch;
mod progress;
mod ready;
mod report;
mod ring;
mod rotation;
mod scheduler;
mod spec;
mod speculation;
mod sums;
mod underway;
mod waiting;

pub use bound::Bound;
pub use error::ScheduleError;
pub use order::VisitOrders;
pub use policy::Policy;
pub use report::{Assignment, Completion, Failure, Next, Prefetch, Stall, Straggler};
pub use scheduler::Scheduler;
pub use spec::{PartitionSpec, TrialProgress, TrialSpec, WorkerSpec};
