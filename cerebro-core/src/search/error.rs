//! [`SearchError`]: what is wrong with a search.

use thiserror::Error;

use crate::space::SpaceError;

/// What is wrong with a search.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SearchError {
    /// The space does not fit the search.
    #[error(transparent)]
    Space(#[from] SpaceError),
    /// A search that would start no trial.
    #[error("the search has no trial to start; ask for at least one")]
    NoTrials,
    /// A setting out of its range.
    #[error("{search}: `{setting}` is {found}, but must be {expected}")]
    Setting {
        /// The search.
        search: &'static str,
        /// The setting.
        setting: &'static str,
        /// What it was set to.
        found: String,
        /// What it can be.
        expected: &'static str,
    },
    /// The search cannot start more trials, or not so many.
    #[error("this search cannot be extended: {reason}; {remedy}, or begin another experiment")]
    NotExtended {
        /// Why.
        reason: &'static str,
        /// What can be done.
        remedy: &'static str,
    },
    /// More trials than a search can start of a kind.
    #[error(
        "this search can be extended by {step} trials or a multiple of them, which is a whole round \
         of its brackets, not by {found}"
    )]
    NoWholeRound {
        /// What was asked for.
        found: u64,
        /// The trials of a round.
        step: u64,
    },
    /// The search cannot do that.
    #[error("this search cannot be {0}; start another experiment instead")]
    Unsupported(&'static str),
    /// The snapshot is that of another kind of search.
    #[error("cannot go on: the snapshot is of `{found}`, but the search is `{expected}`")]
    OtherSearch {
        /// The search that should go on.
        expected: String,
        /// The search that made the snapshot.
        found: String,
    },
    /// The snapshot cannot be read.
    #[error(
        "cannot read the snapshot of the search `{search}`; was it written by another release?"
    )]
    Snapshot {
        /// The search.
        search: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

impl SearchError {
    /// Makes the error that a snapshot of the search `search` cannot be read.
    pub fn snapshot(search: &str) -> impl Fn(serde_json::Error) -> Self {
        move |source| SearchError::Snapshot { search: search.to_owned(), source }
    }
}
