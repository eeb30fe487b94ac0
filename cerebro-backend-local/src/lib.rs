//! In-process workers for Cerebro.
//!
//! [`LocalBackend`] runs units on threads of this process: one thread, one slot and one share of the
//! partitions per worker. Partitions stay in the worker's memory; States hop by pointer. A panic in
//! a model is that unit's error, and nothing else's.
//!
//! It is the backend for one machine, and the measure for all others: they must give the same bits.
//!
//! ```
//! use cerebro_backend_local::LocalBackend;
//! let backend = LocalBackend::builder().workers(2).threads_per_worker(1).build()?;
//! # Ok::<(), cerebro_core::backend::BackendError>(())
//! ```

#![forbid(unsafe_code)]

mod backend;
mod states;
mod worker;

pub use backend::{LocalBackend, LocalBackendBuilder};
