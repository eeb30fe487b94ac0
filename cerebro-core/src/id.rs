//! Names of the things that a run is made of: trials, partitions, workers, units.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty), $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&format!(concat!($prefix, "{}"), self.0))
            }
        }
    };
}

id!(
    /// One [`Config`](crate::config::Config) being trained, with its State, history and status.
    TrialId(u64),
    "trial-"
);
id!(
    /// A horizontal slice of a data set, resident on one or more workers.
    PartitionId(u32),
    "partition-"
);
id!(
    /// A process or thread that holds partitions and runs units in its slots.
    WorkerId(u32),
    "worker-"
);

/// What a partition is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// Trials learn from it, once per epoch.
    Train,
    /// Trials are measured on it, once per epoch, in any order.
    Validation,
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Split::Train => "train",
            Split::Validation => "validation",
        })
    }
}

/// The atom of scheduling: one trial, one partition, one pass over it.
///
/// The papers on Model Hopper Parallelism call the training unit a "sub-epoch". Whether a unit
/// trains or validates is told by the [`Split`] of its partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Unit {
    /// The trial whose State the unit starts from.
    pub trial: TrialId,
    /// The trial's epoch, counted from 0.
    pub epoch: u32,
    /// Train or validate.
    pub split: Split,
    /// The partition that is passed over.
    pub partition: PartitionId,
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = match self.split {
            Split::Train => "training",
            Split::Validation => "validation",
        };
        write!(f, "{verb} of {} on {} in epoch {}", self.trial, self.partition, self.epoch + 1)
    }
}
