//! What can be wrong with data.

use std::error::Error;

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
    /// A file or an object that could not be read or written.
    #[error("could not {action} `{location}`: {source}; {advice}")]
    Store {
        /// What was attempted.
        action: &'static str,
        /// The path or URL.
        location: String,
        /// What the system said.
        source: Box<dyn Error + Send + Sync>,
        /// What to do.
        advice: &'static str,
    },
    /// A location that names no store of this build.
    #[error("`{location}` is no place for data: {reason}")]
    Location {
        /// The path or URL.
        location: String,
        /// What is wrong with it and what to do.
        reason: String,
    },
    /// A file that is not what its format says, most often cut short or damaged.
    #[error("`{file}` is damaged or no {format} file: {reason}; write or fetch it again")]
    Corrupt {
        /// The file.
        file: String,
        /// The format that was expected.
        format: &'static str,
        /// What the format's reader said.
        reason: String,
    },
    /// A file whose bytes are not those that were written.
    #[error(
        "`{file}` has changed since it was written: its checksum is {found}, the catalogue says {expected}; prepare the data set again"
    )]
    Checksum {
        /// The file.
        file: String,
        /// The checksum in the catalogue.
        expected: String,
        /// The checksum of the bytes that are there.
        found: String,
    },
    /// A column that the file does not have.
    #[error("`{file}` has no column `{column}`; it has {}", listed(known))]
    NoSuchColumn {
        /// The file.
        file: String,
        /// The column that was asked for.
        column: String,
        /// The columns that there are.
        known: Vec<String>,
    },
    /// A column of a type that cannot become the tensor.
    #[error("column `{column}` of `{file}` is {found}, but {expected} is needed")]
    WrongType {
        /// The file.
        file: String,
        /// The column.
        column: String,
        /// The type that it has.
        found: String,
        /// What the tensor needs.
        expected: String,
    },
    /// A value that is missing.
    #[error(
        "column `{column}` has no value in {place}; drop the row, or give a value with `fill_missing`"
    )]
    Missing {
        /// The column.
        column: String,
        /// The row and the file.
        place: String,
    },
    /// A list of another length than the tensor's row.
    #[error(
        "column `{column}` has a list of {found} elements in {place}, but every row of the tensor has {expected}; pad or cut the lists first"
    )]
    Ragged {
        /// The column.
        column: String,
        /// The row and the file.
        place: String,
        /// The elements of that list.
        found: usize,
        /// The elements of a row of the tensor.
        expected: usize,
    },
    /// NaN or an infinity.
    #[error(
        "column `{column}` holds {value} in {place}; training on it would make every weight NaN, so mend or drop the row"
    )]
    NotFinite {
        /// The column.
        column: String,
        /// The row and the file.
        place: String,
        /// NaN or an infinity.
        value: f64,
    },
    /// Text, or a number that does not fit, where a number is needed.
    #[error("column `{column}` holds `{found}` in {place}, but {expected} is needed")]
    NotANumber {
        /// The column.
        column: String,
        /// The row and the file.
        place: String,
        /// What is there.
        found: String,
        /// What the tensor needs.
        expected: &'static str,
    },
    /// A class label that is negative or too large.
    #[error(
        "column `{column}` holds the class {value} in {place}, but there are {classes} classes, 0 to {}; relabel the rows or raise `classes`",
        classes.saturating_sub(1)
    )]
    LabelOutOfRange {
        /// The column.
        column: String,
        /// The row and the file.
        place: String,
        /// The label.
        value: i64,
        /// The number of classes.
        classes: u64,
    },
    /// More partitions than rows to fill them.
    #[error(
        "{rows} {split} rows cannot fill {partitions} partitions; ask for at most as many partitions as rows"
    )]
    TooManyPartitions {
        /// Training or validation.
        split: crate::id::Split,
        /// The rows that there are.
        rows: u64,
        /// The partitions that were asked for.
        partitions: u32,
    },
    /// A source without rows.
    #[error("`{location}` has no rows")]
    NoRows {
        /// The source.
        location: String,
    },
    /// A request that contradicts itself or the data.
    #[error("the request cannot be met: {0}")]
    Request(String),
    /// Files of one source with other columns.
    #[error(
        "`{file}` has other columns than `{first}`: {difference}; files of one source must agree"
    )]
    UnequalFiles {
        /// The first file.
        first: String,
        /// The file that differs.
        file: String,
        /// How.
        difference: String,
    },
}

/// The first names of a list that may be long.
fn listed(names: &[String]) -> String {
    const SHOWN: usize = 20;
    let shown = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN { format!("{shown} and {} more", names.len() - SHOWN) } else { shown }
}
