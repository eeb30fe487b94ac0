//! [`Dataset`]: the catalogue of partitions, and how a worker loads one.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{DataError, MemoryPartition, Partition, TensorSpec};
use crate::id::{PartitionId, Split};

/// What the catalogue says about a partition: enough to place it and to cost its units.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionInfo {
    /// Which partition.
    pub id: PartitionId,
    /// Whether trials train on it or are validated on it.
    pub split: Split,
    /// The number of rows.
    pub rows: u64,
    /// The memory that it takes when loaded, in bytes.
    pub bytes: u64,
}

/// A partitioned data set: what partitions there are, and how to load one into memory.
///
/// Loading blocks; backends call it on a worker's own thread, once per partition and worker.
pub trait Dataset: Send + Sync + fmt::Debug {
    /// The partitions, training and validation, with distinct ids.
    fn partitions(&self) -> &[PartitionInfo];

    /// The tensors that every partition has.
    fn tensors(&self) -> &[TensorSpec];

    /// Where workers in other processes find this data set; nowhere by default, for data that only
    /// this process has.
    fn url(&self) -> Option<String> {
        None
    }

    /// A digest of a partition's rows, by which a resumed experiment knows that the data are the
    /// same; none by default, for data that cannot tell without being read.
    fn checksum(&self, id: PartitionId) -> Option<String> {
        let _ = id;
        None
    }

    /// Reads a partition into memory.
    fn load(&self, id: PartitionId) -> Result<Arc<dyn Partition>, DataError>;
}

/// A data set whose partitions are in memory already: for tests and for data made by a program.
#[derive(Clone, Debug, Default)]
pub struct MemoryDataset {
    infos: Vec<PartitionInfo>,
    partitions: Vec<Arc<MemoryPartition>>,
}

impl MemoryDataset {
    /// A data set of the given partitions.
    pub fn new(
        partitions: impl IntoIterator<Item = (Split, MemoryPartition)>,
    ) -> Result<Self, DataError> {
        let mut dataset = Self::default();
        for (split, partition) in partitions {
            dataset.add(split, partition)?;
        }
        Ok(dataset)
    }

    fn add(&mut self, split: Split, partition: MemoryPartition) -> Result<(), DataError> {
        let id = partition.id();
        if self.infos.iter().any(|info| info.id == id) {
            return Err(DataError::DuplicatePartition { partition: id });
        }
        if let Some(first) = self.partitions.first()
            && first.tensors() != partition.tensors()
        {
            return Err(DataError::UnequalTensors { first: first.id(), other: id });
        }
        let (rows, bytes) = (partition.rows() as u64, partition.bytes() as u64);
        self.infos.push(PartitionInfo { id, split, rows, bytes });
        self.partitions.push(Arc::new(partition));
        Ok(())
    }
}

impl Dataset for MemoryDataset {
    fn partitions(&self) -> &[PartitionInfo] {
        &self.infos
    }

    fn tensors(&self) -> &[TensorSpec] {
        self.partitions.first().map_or(&[], |partition| partition.tensors())
    }

    fn checksum(&self, id: PartitionId) -> Option<String> {
        let found = self.partitions.iter().find(|partition| partition.id() == id)?;
        Some(found.checksum())
    }

    fn load(&self, id: PartitionId) -> Result<Arc<dyn Partition>, DataError> {
        let found = self.partitions.iter().find(|partition| partition.id() == id);
        let partition = found.ok_or(DataError::NoSuchPartition { partition: id })?;
        Ok(Arc::clone(partition) as Arc<dyn Partition>)
    }
}
