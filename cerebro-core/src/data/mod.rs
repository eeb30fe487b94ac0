//! Data sets: named tensors in partitions that stay where they are.
//!
//! A [`Dataset`] is a catalogue of [`Partition`]s, each for training or for validation. A worker
//! loads the partitions that were placed on it and keeps them; models read mini-batches from them
//! in a row order that a seed determines.
#![cfg_attr(feature = "data", doc = "\n", doc = include_str!("guide.md"))]

mod cache;
mod dataset;
mod error;
mod partition;
#[cfg(feature = "data")]
mod prepare;
mod tensor;
#[cfg(feature = "data")]
mod transform;

#[cfg(feature = "data")]
mod catalogue;
#[cfg(feature = "data")]
mod columns;
#[cfg(feature = "data")]
mod decode;
#[cfg(feature = "data")]
mod location;
#[cfg(feature = "data")]
mod output;
#[cfg(feature = "data")]
mod parquet;

#[cfg(feature = "data")]
pub use self::parquet::ParquetDataset;
pub use cache::{CacheUsage, PartitionCache};
#[cfg(feature = "data")]
pub use catalogue::{Catalogue, PartitionEntry, Scaling, TensorEntry};
#[cfg(feature = "data")]
pub use columns::{Normalization, Scope, TensorColumns};
pub use dataset::{Dataset, MemoryDataset, PartitionInfo};
pub use error::DataError;
#[cfg(feature = "data")]
pub use location::Location;
#[cfg(feature = "store")]
pub(crate) use location::Target;
pub use partition::{Batch, Batches, MemoryPartition, Partition};
#[cfg(feature = "data")]
pub use prepare::{Compression, CsvFormat, Prepare, Source, Validation};
pub use tensor::{ElementType, Tensor, TensorSliceMut, TensorSpec};
#[cfg(feature = "data")]
pub use transform::Transform;
