//! [`SpaceError`]: what is wrong with a space, or with a Config that should be in it.

use thiserror::Error;

/// What is wrong with a [`Space`](super::Space), or with a Config that should be in it.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum SpaceError {
    /// A space without hyperparameters has nothing to search.
    #[error("the search space has no hyperparameter; add at least one")]
    Empty,
    /// Two hyperparameters of one name.
    #[error("hyperparameter `{name}` is declared twice; remove or rename one")]
    Duplicate {
        /// The name.
        name: String,
    },
    /// A distribution that cannot be.
    #[error("hyperparameter `{name}`: {domain}: {reason}")]
    Domain {
        /// The hyperparameter.
        name: String,
        /// Its distribution, printed.
        domain: String,
        /// What is wrong and what to do.
        reason: String,
    },
    /// A condition on a parent that is not declared before the hyperparameter.
    #[error(
        "hyperparameter `{name}` depends on `{parent}`, which is not declared before it{}",
        did_you_mean(nearest.as_deref())
    )]
    UnknownParent {
        /// The conditional hyperparameter.
        name: String,
        /// The parent that is not known.
        parent: String,
        /// The most similar name declared before it.
        nearest: Option<String>,
    },
    /// A condition that can never hold, or that cannot be tested.
    #[error("hyperparameter `{name}` depends on `{parent}`: {reason}")]
    Condition {
        /// The conditional hyperparameter.
        name: String,
        /// The parent.
        parent: String,
        /// What is wrong and what to do.
        reason: String,
    },
    /// `when` or `points` before any hyperparameter.
    #[error("`{call}` describes the hyperparameter before it, but there is none yet")]
    NothingToDescribe {
        /// The builder's method.
        call: &'static str,
    },
    /// A continuous hyperparameter has no finite grid.
    #[error(
        "hyperparameter `{name}` is continuous ({domain}): a grid needs `.points(n)` after it, or a `choice` instead"
    )]
    ContinuousGrid {
        /// The hyperparameter.
        name: String,
        /// Its distribution, printed.
        domain: String,
    },
    /// More points than anybody can train.
    #[error("the grid has more than {limit} points; take fewer `.points(n)` or search at random")]
    GridTooLarge {
        /// The most points that a grid may have.
        limit: usize,
    },
    /// The Config has a hyperparameter that the space has not.
    #[error("the space has no hyperparameter `{name}`{}", did_you_mean(nearest.as_deref()))]
    Unknown {
        /// The name.
        name: String,
        /// The most similar name of the space.
        nearest: Option<String>,
    },
    /// The Config lacks a hyperparameter.
    #[error("the Config ({config}) has no `{name}`; give it a value of {domain}")]
    Missing {
        /// The hyperparameter.
        name: String,
        /// Its distribution, printed.
        domain: String,
        /// The Config, printed.
        config: String,
    },
    /// The Config gives a value to a hyperparameter whose condition does not hold.
    #[error("hyperparameter `{name}` = {value} has no effect here: it is active only {condition}")]
    Inactive {
        /// The hyperparameter.
        name: String,
        /// Its value, printed.
        value: String,
        /// The condition, printed.
        condition: String,
    },
    /// A value outside its distribution.
    #[error("hyperparameter `{name}` = {value} is outside {domain}")]
    Outside {
        /// The hyperparameter.
        name: String,
        /// Its value, printed.
        value: String,
        /// Its distribution, printed.
        domain: String,
    },
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!("; did you mean `{name}`?"))
}

/// The most similar of `known`, if it is similar enough to be what was meant.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    known
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(similarity, _)| *similarity > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate.to_owned())
}
