//! What can be wrong with data.

use thiserror::Error;

use super::ElementType;
use crate::id::PartitionId;

/// What is wrong with a data set, a partition or a file, and where.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DataError {
    /// A partition without rows.
    #[error("{partition} has no rows; drop it or cut the data set into fewer partitions")]
    EmptyPartition {
        /// The partition.
        partition: PartitionId,
    },
    /// More rows than a row number can count.
    #[error(
        "{partition} has {rows} rows, more than the 4,294,967,295 that one partition may hold; use more partitions"
    )]
    TooManyRows {
        /// The partition.
        partition: PartitionId,
        /// Its rows.
        rows: usize,
    },
    /// Tensors of one partition that differ in rows.
    #[error("tensors of {partition} differ in rows: `{}` has {}, `{}` has {}", first.0, first.1, other.0, other.1)]
    UnequalRows {
        /// The partition.
        partition: PartitionId,
        /// Name and rows of its first tensor.
        first: (String, usize),
        /// Name and rows of the tensor that differs.
        other: (String, usize),
    },
    /// Two partitions with other tensors.
    #[error(
        "{first} and {other} of one data set have different tensors; names, types and row shapes must agree"
    )]
    UnequalTensors {
        /// The first partition.
        first: PartitionId,
        /// The one that differs.
        other: PartitionId,
    },
    /// Two partitions under one id.
    #[error("the data set has two partitions with the id {partition}")]
    DuplicatePartition {
        /// The id.
        partition: PartitionId,
    },
    /// A partition that the data set does not have.
    #[error("the data set has no {partition}")]
    NoSuchPartition {
        /// The partition that was asked for.
        partition: PartitionId,
    },
    /// A tensor that the partition does not have.
    #[error("{partition} has no tensor `{name}`; it has {}", known.join(", "))]
    NoSuchTensor {
        /// The tensor that was asked for.
        name: String,
        /// The partition.
        partition: PartitionId,
        /// The tensors that there are.
        known: Vec<String>,
    },
    /// A tensor that the batch does not have.
    #[error("the batch has no tensor `{name}`; it has {}", known.join(", "))]
    NotInBatch {
        /// The tensor that was asked for.
        name: String,
        /// The tensors that there are.
        known: Vec<String>,
    },
    /// A tensor of another element type.
    #[error("tensor `{name}` holds {found}, but {expected} is needed")]
    WrongElement {
        /// The tensor.
        name: String,
        /// The type that was asked for.
        expected: ElementType,
        /// The type that it has.
        found: ElementType,
    },
    /// A row that the partition does not have.
    #[error("{partition} has {rows} rows, so there is no row {row}")]
    NoSuchRow {
        /// The partition.
        partition: PartitionId,
        /// The row that was asked for.
        row: u32,
        /// The rows that there are.
        rows: usize,
    },
    /// A buffer that does not fit what is to be gathered.
    #[error("{rows} rows of {tensor} do not fit a buffer of {} {} elements", found.1, found.0)]
    WrongBuffer {
        /// The tensor.
        tensor: String,
        /// The rows to be gathered.
        rows: usize,
        /// The buffer's element type and length.
        found: (ElementType, usize),
    },
}
