//! [`StoreError`]: why an experiment could not be kept or taken up again.

use std::error::Error;

use thiserror::Error;

use crate::id::{PartitionId, TrialId};
use crate::text::count;

/// Why an experiment could not be kept in its store, or not be taken up again.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A location that names no store.
    #[error("`{location}` is no place for an experiment: {reason}")]
    Location {
        /// The location.
        location: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The store refuses or fails.
    #[error("could not {action} `{path}` in {store}: {source}; {advice}")]
    Access {
        /// What was attempted.
        action: &'static str,
        /// The object.
        path: String,
        /// The store.
        store: String,
        /// What the store says.
        source: Box<dyn Error + Send + Sync>,
        /// What to do.
        advice: &'static str,
    },
    /// There is an experiment already.
    #[error(
        "{store} holds the experiment \"{name}\" already; go on with it by \
         `ExperimentBuilder::resume`, or choose another place"
    )]
    Occupied {
        /// The store.
        store: String,
        /// The experiment that is there.
        name: String,
    },
    /// There is no experiment to go on with.
    #[error(
        "{store} holds no experiment to go on with; check the place, or begin one there by \
         `ExperimentBuilder::store`"
    )]
    Vacant {
        /// The store.
        store: String,
    },
    /// Another driver runs the experiment.
    #[error(
        "the experiment in {store} is being run by {owner}; two drivers would undo each other's \
         work: stop that one first"
    )]
    InUse {
        /// The store.
        store: String,
        /// Who runs it.
        owner: String,
    },
    /// Another driver took the experiment over, since this one seemed to be dead.
    #[error(
        "another driver has taken over the experiment in {store}, since this one gave no sign of \
         life; what it had recorded until then is not lost"
    )]
    TakenOver {
        /// The store.
        store: String,
    },
    /// A part of the journal cannot be read, and others come after it.
    #[error(
        "the journal is damaged at record {record} (`{path}`: {reason}), and later records, up to \
         {last}, depend on it; restore the object from a copy, or delete the objects under \
         `journal/` that begin after it to go on from there"
    )]
    Damaged {
        /// The object.
        path: String,
        /// The first record that cannot be read.
        record: u64,
        /// The last record that there is.
        last: u64,
        /// What is wrong.
        reason: String,
    },
    /// An object is not what this release writes.
    #[error("`{path}` cannot be understood: {reason}")]
    Format {
        /// The object.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// A State that is not what was written.
    #[error("the checkpoint `{path}` of {trial} is damaged: {reason}")]
    DamagedCheckpoint {
        /// The object.
        path: String,
        /// The trial.
        trial: TrialId,
        /// What differs.
        reason: String,
    },
    /// The experiment is not the one that was begun.
    #[error(
        "the experiment cannot go on: {what} was {recorded} when it began and is {found} now; \
         use what it began with, or begin another experiment"
    )]
    Changed {
        /// What differs.
        what: &'static str,
        /// What it was.
        recorded: String,
        /// What it is.
        found: String,
    },
    /// The experiment is asked for other epochs than it began with.
    #[error(
        "the experiment cannot go on: its trials had {} when it began, and have {found} now; resume it \
         with {recorded}, and then extend it by `ExperimentHandle::extend_epochs`",
        count((*recorded).into(), "epoch")
    )]
    ChangedEpochs {
        /// What it began with.
        recorded: u32,
        /// What is asked for.
        found: u32,
    },
    /// The data are not the same.
    #[error(
        "the experiment cannot go on: {partition} is not what it was when the experiment began \
         ({reason}); its trials have learned from other rows"
    )]
    ChangedPartition {
        /// The partition.
        partition: PartitionId,
        /// What differs.
        reason: String,
    },
    /// The search does not decide as it did.
    #[error(
        "the experiment cannot go on: at record {record} the search had answered {recorded}, and \
         now answers {found}; give it the space, the seed and the settings that it began with"
    )]
    SearchDiffers {
        /// The record.
        record: u64,
        /// What it answered.
        recorded: String,
        /// What it answers.
        found: String,
    },
    /// The thread that writes is gone.
    #[error("the store was closed before this was written")]
    Closed,
}
