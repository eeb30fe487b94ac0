//! [`Keeper`]: a store, as the driver sees it.

use std::fmt;
use std::sync::Arc;

use futures::channel::mpsc;
use futures::future::BoxFuture;

use super::{Checkpoint, Record, Specification, StoreError};
use crate::id::TrialId;
use crate::state::State;

/// Keeps what the driver hands it. No call blocks: what became of records is told as [`Said`].
pub(crate) trait Keeper: Send + Sync + fmt::Debug {
    /// Appends to the journal.
    fn append(&self, record: &Record);

    /// Writes the State of `trial` at `version`.
    fn write(
        &self,
        trial: TrialId,
        version: u64,
        state: State,
    ) -> BoxFuture<'static, Result<Checkpoint, StoreError>>;

    /// Deletes States, once all that was appended before is durable.
    fn delete(&self, checkpoints: Vec<Checkpoint>);

    /// Gives up what cannot be written at present, instead of trying again.
    fn give_up(&self);
}

/// Gives States back; needs no lease.
pub(crate) trait Archive: Send + Sync + fmt::Debug {
    /// Reads a State and verifies it.
    fn read(
        &self,
        trial: TrialId,
        checkpoint: &Checkpoint,
    ) -> BoxFuture<'static, Result<State, StoreError>>;
}

/// What a [`Keeper`] says on its own.
#[derive(Debug)]
pub(crate) enum Said {
    /// So many records, those before this start included, are durable.
    Durable(u64),
    /// Something cannot be written; it is tried again until it can.
    Trouble(String),
    /// All that could not be written was written.
    Recovered,
    /// The experiment is another driver's now.
    Ousted(StoreError),
}

/// An experiment's store, open for this driver alone.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) keeper: Box<dyn Keeper>,
    pub(crate) archive: Arc<dyn Archive>,
    pub(crate) said: mpsc::UnboundedReceiver<Said>,
    /// What tells the experiment from every other one.
    pub(crate) id: String,
    pub(crate) records: Vec<Record>,
    /// What was found amiss and put right.
    pub(crate) warnings: Vec<String>,
}

/// Opens the store of an experiment with this specification.
pub(crate) type Open =
    Box<dyn FnOnce(Specification) -> BoxFuture<'static, Result<Opened, StoreError>> + Send>;
