//! The store: everything of an experiment, under one place in an object store.
//!
//! ```text
//! experiment.json                  what the experiment began with
//! journal/000000000042.000003      records, from number 42 on, by the 3rd driver
//! checkpoints/trial-7/24.000003    the State of a trial after 24 units, as its model writes it
//! lease/000003                     who the 3rd driver is, and that it is alive
//! ```
//!
//! A folder, S3 or any other [`object_store`](https://docs.rs/object_store) serves, and nothing is
//! asked of it but to create an object unless it is there already, to read back what was written,
//! and to list.
//!
//! # What is durable when
//!
//! The journal holds what changed the experiment, in order: what the search was asked and answered,
//! each epoch that a trial completed, what the search was told and decided. Searches are
//! deterministic, so [resuming](crate::experiment::ExperimentBuilder::resume) asks and tells a fresh
//! search the same things again, refuses to go on if it answers one of them otherwise, and has it
//! in exactly the state that it was in.
//!
//! An epoch counts once its State is in a checkpoint and its record is in the journal; only then
//! do observers hear of it and does its trial go on. So no epoch that anybody has heard of is
//! ever trained again. Units of an epoch that was under way are.
//!
//! The cost: one State per trial and epoch goes through the driver to the store while the trial
//! waits and others train, and one small object is written for all the records that came up while the
//! one before was being written.
//!
//! What a driver spends on an event, and the memory that a trial takes, are measured by
//! `cargo run --release -p cerebro-backend-local --example driver_cost`; the process is killed and
//! resumed 50 times by `cargo test -p cerebro-backend-local --test crash -- 50`.
//!
//! # One driver
//!
//! A driver holds a lease with a number of its own, and shows that it is alive by writing it again
//! and again. A driver that finds another's lease refuses to run, unless that one has ended, its
//! process is gone (on the same machine), or its lease stays as it is for as long as it says (measured
//! by the clock of the one who waits, so that clocks need not agree). Then it creates the next
//! lease, which can be created only once. Should the former driver have been asleep and not dead, it
//! finds the new lease when it next records something, before it takes that for durable, and
//! ends: a lease that expires too early costs time and never a result.

#[cfg(feature = "store")]
mod archive;
mod error;
#[cfg(feature = "store")]
mod journal;
// Without a store nobody opens one, but the driver is written for both.
#[cfg_attr(not(feature = "store"), allow(dead_code))]
mod keeper;
#[cfg(feature = "store")]
mod lease;
#[cfg(feature = "store")]
mod objects;
#[cfg(feature = "store")]
mod open;
mod record;
#[cfg(feature = "store")]
mod service;
#[cfg_attr(not(feature = "store"), allow(dead_code))]
mod specification;
#[cfg(feature = "store")]
mod writer;

pub use error::StoreError;
pub(crate) use keeper::{Archive, Keeper, Open, Opened, Said};
#[cfg(feature = "store")]
pub(crate) use open::{Purpose, open};
pub(crate) use record::{
    Checkpoint, CodeVersion, PartitionDigest, Record, SearchDigest, Specification, Takeover,
};
pub(crate) use specification::FORMAT;
