//! What an experiment began with, compared with what it is to be taken up with.

use xxhash_rust::xxh3::xxh3_64;

use super::{CodeVersion, PartitionDigest, SearchDigest, Specification, StoreError};
use crate::data::Dataset;
use crate::model::ModelBuilder;
use crate::search::Search;

/// The version of the store's format that this crate writes.
pub(crate) const FORMAT: u32 = 1;

impl SearchDigest {
    pub(crate) fn of(search: &dyn Search) -> Self {
        let snapshot = search.snapshot();
        let kind = snapshot.get("search").and_then(serde_json::Value::as_str);
        Self {
            kind: kind.unwrap_or("custom").to_owned(),
            digest: xxh3_64(snapshot.to_string().as_bytes()),
        }
    }
}

impl PartitionDigest {
    pub(crate) fn all(dataset: &dyn Dataset) -> Vec<Self> {
        let digest = |info: &crate::data::PartitionInfo| Self {
            id: info.id,
            split: info.split,
            rows: info.rows,
            checksum: dataset.checksum(info.id),
        };
        dataset.partitions().iter().map(digest).collect()
    }

    /// What differs between a partition and the one that was recorded.
    fn difference(&self, recorded: &Self) -> Option<String> {
        if self.split != recorded.split {
            return Some(format!("it was for {}, now for {}", recorded.split, self.split));
        }
        if self.rows != recorded.rows {
            return Some(format!("it had {} rows, now {}", recorded.rows, self.rows));
        }
        match (&recorded.checksum, &self.checksum) {
            (Some(before), Some(now)) if before != now => {
                Some(format!("its checksum was {before}, now {now}"))
            }
            _ => None,
        }
    }
}

impl CodeVersion {
    pub(crate) fn of(program: &str, model: &dyn ModelBuilder) -> Self {
        let model = model.blueprint().map(|blueprint| {
            let name = xxh3_64(blueprint.name.as_bytes());
            xxh3_64(&blueprint.bytes) ^ name
        });
        Self { cerebro: env!("CARGO_PKG_VERSION").to_owned(), program: program.to_owned(), model }
    }
}

impl Specification {
    /// Refuses to take up an experiment that began as `self` with what `now` says.
    pub(crate) fn admits(&self, now: &Specification) -> Result<(), StoreError> {
        self.admits_data(now)?;
        let same = |what: &'static str, recorded: String, found: String| {
            if recorded == found {
                Ok(())
            } else {
                Err(StoreError::Changed { what, recorded, found })
            }
        };
        same("the version of cerebro-core", self.code.cerebro.clone(), now.code.cerebro.clone())?;
        let program = |code: &CodeVersion| format!("`{}`", code.program);
        same("the program's code version", program(&self.code), program(&now.code))?;
        let model = |code: &CodeVersion| match code.model {
            Some(digest) => format!("the one with the digest {digest:016x}"),
            None => "one without a blueprint".to_owned(),
        };
        same("the model", model(&self.code), model(&now.code))?;
        same("the seed", self.seed.0.to_string(), now.seed.0.to_string())?;
        same("the objective", self.objective.to_string(), now.objective.to_string())?;
        if self.epochs != now.epochs {
            let (recorded, found) = (self.epochs, now.epochs);
            return Err(StoreError::ChangedEpochs { recorded, found });
        }
        let policy = |specification: &Self| format!("{:?}", specification.policy);
        same("the order of units", policy(self), policy(now))?;
        let room = |specification: &Self| match specification.concurrent_trials {
            Some(trials) => trials.to_string(),
            None => "the default".to_owned(),
        };
        same("the number of concurrent trials", room(self), room(now))?;
        let search = |digest: &SearchDigest| {
            format!("a search of the kind `{}` (digest {:016x})", digest.kind, digest.digest)
        };
        same(
            "the search with its space, seed and settings",
            search(&self.search),
            search(&now.search),
        )
    }

    fn admits_data(&self, now: &Specification) -> Result<(), StoreError> {
        if self.tensors != now.tensors {
            let list = |specification: &Self| {
                let tensors: Vec<String> =
                    specification.tensors.iter().map(ToString::to_string).collect();
                format!("({})", tensors.join(", "))
            };
            return Err(StoreError::Changed {
                what: "the list of the data set's tensors",
                recorded: list(self),
                found: list(now),
            });
        }
        for recorded in &self.partitions {
            let Some(found) = now.partitions.iter().find(|found| found.id == recorded.id) else {
                let reason = "the data set has it no more".to_owned();
                return Err(StoreError::ChangedPartition { partition: recorded.id, reason });
            };
            if let Some(reason) = found.difference(recorded) {
                return Err(StoreError::ChangedPartition { partition: recorded.id, reason });
            }
        }
        match now.partitions.iter().find(|new| self.partitions.iter().all(|old| old.id != new.id)) {
            None => Ok(()),
            Some(new) => {
                let reason = "the data set did not have it".to_owned();
                Err(StoreError::ChangedPartition { partition: new.id, reason })
            }
        }
    }
}
