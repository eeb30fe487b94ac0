//! Data sets: named tensors in partitions that stay where they are.
//!
//! A [`Dataset`] is a catalogue of [`Partition`]s, each for training or for validation. A worker
//! loads the partitions that were placed on it and keeps them; models read mini-batches from them
//! in a row order that a seed determines.

mod dataset;
mod error;
mod partition;
mod tensor;

pub use dataset::{Dataset, MemoryDataset, PartitionInfo};
pub use error::DataError;
pub use partition::{Batch, Batches, MemoryPartition, Partition};
pub use tensor::{ElementType, Tensor, TensorSliceMut, TensorSpec};
