//! What the journal and the specification hold.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::data::TensorSpec;
use crate::experiment::{Command, EpochRecord};
use crate::id::{PartitionId, Split, TrialId};
use crate::metric::Objective;
use crate::observe::TrialStatus;
use crate::schedule::Policy;
use crate::search::{Ask, Decision, Ending};
use crate::seed::Seed;

/// One thing that changed what an experiment is. The records, applied in their order to an
/// experiment that has just begun, give the experiment as it was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub(crate) enum Record {
    /// The search was asked for a trial.
    Asked { next: TrialId, answer: Ask },
    /// A trial completed an epoch, and the State after it is in the checkpoint.
    Epoch { trial: TrialId, epoch: EpochRecord, checkpoint: Option<Checkpoint> },
    /// The search was told of the trial's first epoch that it had not heard of.
    Told { trial: TrialId, max_epochs: u32, decision: Decision },
    /// A trial took over the State that the search had decided on.
    TookOver { trial: TrialId, version: u64, checkpoint: Option<Checkpoint> },
    /// A trial will train no more.
    Ended { trial: TrialId, status: TrialStatus, ending: Ending },
    /// The experiment has run for so long, all its processes together; told where its wall time is
    /// limited.
    Ran {
        #[serde(with = "crate::seconds")]
        wall: Duration,
    },
    /// The driver let go of the store; whatever the records before supersede may be gone.
    Closed,
    /// A person asked for something, and it was done.
    Commanded { command: Command },
}

/// A State in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Checkpoint {
    pub(crate) version: u64,
    /// The object's path under the experiment's.
    pub(crate) path: String,
    pub(crate) bytes: u64,
    /// XXH3 of the bytes.
    pub(crate) digest: u64,
}

/// What an experiment began with, and must be taken up with again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Specification {
    pub(crate) format: u32,
    /// What tells the experiment from every other one; drawn as it begins.
    #[serde(default)]
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) seed: Seed,
    pub(crate) objective: Objective,
    pub(crate) epochs: u32,
    pub(crate) policy: Policy,
    pub(crate) concurrent_trials: Option<usize>,
    pub(crate) search: SearchDigest,
    pub(crate) tensors: Vec<TensorSpec>,
    pub(crate) partitions: Vec<PartitionDigest>,
    pub(crate) code: CodeVersion,
}

/// The kind of a search, and a digest of all that it knew at the start: its space, its seed, its
/// settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SearchDigest {
    pub(crate) kind: String,
    pub(crate) digest: u64,
}

/// A partition, told apart from others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PartitionDigest {
    pub(crate) id: PartitionId,
    pub(crate) split: Split,
    pub(crate) rows: u64,
    pub(crate) checksum: Option<String>,
}

/// The code that makes the weights.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CodeVersion {
    /// Of this crate.
    pub(crate) cerebro: String,
    /// Of the program, as it says.
    pub(crate) program: String,
    /// A digest of what the models are made from, where they are made from a blueprint.
    pub(crate) model: Option<u64>,
}

/// What `trial` is about to take over.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Takeover {
    pub(crate) source: TrialId,
    pub(crate) version: u64,
    pub(crate) config: Config,
}
