//! A cluster for Cerebro: the same experiment, on many machines.
//!
//! The driver is a [`TcpBackend`]; every other machine runs a [`worker`], which dials the driver and
//! says what it can do. Partitions are read by the workers, each its own, from where the data set
//! is; the driver never carries data. States hop from worker to worker; the driver only says which
//! goes where.
//!
//! Anything may die at any time. A worker that is silent for the time of its lease is taken for
//! lost: its units are open again, its partitions are loaded elsewhere, and States that only it held
//! are made again, by the unit that made them, from the version before, which is held until its
//! successor is held twice. So the loss of a worker costs at most one more unit per trial, and no
//! bit of the result. Workers that come late, or come back, are given work at once. When the driver
//! dies, the workers wait for it.

#![forbid(unsafe_code)]

mod authority;
mod backend;
mod builder;
mod bulk;
mod cluster;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod here;
mod ledger;
mod placement;
mod relay;
mod security;
mod session;
mod transport;
mod units;
mod wire;
pub mod worker;

pub use authority::{Authority, AuthorityError};
pub use backend::TcpBackend;
pub use builder::TcpBackendBuilder;
pub use security::{Certificates, Security, SecurityError};

/// The messages of `proto/cluster.proto`.
mod protocol {
    #![allow(missing_docs, missing_debug_implementations, unreachable_pub)]
    #![allow(clippy::pedantic)]
    tonic::include_proto!("cerebro.v1");
}

/// Driver and workers must have the same.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A number that no other process draws.
fn drawn() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u32(std::process::id());
    hasher.finish().max(1)
}
