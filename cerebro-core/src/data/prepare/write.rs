//! The partitions' files, written side by side as the source is read through.

use std::collections::HashSet;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Int64Type};
use arrow_array::{Array, ArrayRef, RecordBatch, UInt32Array};
use arrow_schema::{ArrowError, DataType, SchemaRef};
use arrow_select::concat::concat_batches;
use arrow_select::take::take_record_batch;
use parquet::arrow::ArrowWriter;
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use super::Compression;
use crate::data::location::Location;
use crate::data::output::Output;
use crate::data::{DataError, PartitionEntry};
use crate::id::{PartitionId, Split};
use crate::seed::Seed;

/// A partition's Parquet file in the making.
///
/// Rows are gathered to a window, put into a random order and written as one row group. A window is
/// all of the partition where memory allows it.
pub(super) struct PartitionFile {
    id: PartitionId,
    split: Split,
    name: String,
    location: Location,
    schema: SchemaRef,
    writer: ArrowWriter<Output>,
    pending: Vec<RecordBatch>,
    pending_rows: usize,
    window_rows: usize,
    windows: u64,
    rows: u64,
    seed: Seed,
}

/// What the files of a data set have in common.
pub(super) struct Layout<'a> {
    pub(super) folder: &'a Location,
    pub(super) schema: SchemaRef,
    pub(super) properties: WriterProperties,
    /// The rows that may wait in memory for each partition.
    pub(super) window_rows: usize,
    /// What tells these files from those of another request in the same folder.
    pub(super) tag: &'a str,
    pub(super) seed: Seed,
}

impl PartitionFile {
    pub(super) fn create(
        layout: &Layout<'_>,
        id: PartitionId,
        split: Split,
    ) -> Result<Self, DataError> {
        let name = format!("{split}-{:05}-{}.parquet", id.0, layout.tag);
        let location = layout.folder.join(&name);
        let schema = Arc::clone(&layout.schema);
        let output = Output::create(&location)?;
        let writer =
            ArrowWriter::try_new(output, Arc::clone(&schema), Some(layout.properties.clone()))
                .map_err(|error| failed(&location, error))?;
        Ok(Self {
            id,
            split,
            name,
            location,
            schema,
            writer,
            pending: Vec::new(),
            pending_rows: 0,
            window_rows: layout.window_rows,
            windows: 0,
            rows: 0,
            seed: layout.seed.derive("prepare.window", &[u64::from(id.0)]),
        })
    }

    /// Adds some rows of a batch.
    pub(super) fn add(&mut self, batch: &RecordBatch, rows: Vec<u32>) -> Result<(), DataError> {
        let mut rows = rows;
        while !rows.is_empty() {
            let room = self.window_rows - self.pending_rows;
            let later = rows.split_off(room.min(rows.len()));
            self.pending_rows += rows.len();
            let taken = take_record_batch(batch, &UInt32Array::from(rows));
            self.pending.push(taken.map_err(|error| self.unwritable(&error))?);
            if self.pending_rows == self.window_rows {
                self.write_window()?;
            }
            rows = later;
        }
        Ok(())
    }

    fn write_window(&mut self) -> Result<(), DataError> {
        if self.pending_rows == 0 {
            return Ok(());
        }
        let window = concat_batches(&self.schema, &self.pending);
        self.pending.clear();
        let order = self.seed.derive("rows", &[self.windows]).permutation(self.pending_rows);
        let shuffled =
            window.and_then(|window| take_record_batch(&window, &UInt32Array::from(order)));
        let shuffled = shuffled.map_err(|error| self.unwritable(&error))?;
        let written = self.writer.write(&shuffled).and_then(|()| self.writer.flush());
        written.map_err(|error| failed(&self.location, error))?;
        self.rows += self.pending_rows as u64;
        self.pending_rows = 0;
        self.windows += 1;
        Ok(())
    }

    /// Completes the file and describes it.
    pub(super) fn finish(mut self) -> Result<PartitionEntry, DataError> {
        self.write_window()?;
        let finished = self.writer.into_inner();
        let written = finished.map_err(|error| failed(&self.location, error))?.finish()?;
        Ok(PartitionEntry {
            id: self.id,
            split: self.split,
            rows: self.rows,
            file: self.name,
            file_bytes: written.bytes,
            checksum: written.checksum,
        })
    }

    fn unwritable(&self, error: &ArrowError) -> DataError {
        DataError::Request(format!("rows for `{}` cannot be gathered: {error}", self.location))
    }
}

/// A failure to write a Parquet file; most often the disk's, which Parquet's writer wraps.
pub(in crate::data) fn failed(location: &Location, error: ParquetError) -> DataError {
    match error {
        ParquetError::External(source) => match source.downcast::<std::io::Error>() {
            Ok(error) => location.io("write", *error),
            Err(source) => location.io("write", std::io::Error::other(source)),
        },
        error => location.io("write", std::io::Error::other(error)),
    }
}

/// Settings by which the files are small where that is free, and quick to read.
///
/// Columns with few distinct values are written with a dictionary, which makes them small. On others
/// it would cost time for nothing: `sample` tells which is which.
pub(in crate::data) fn properties(
    compression: Compression,
    sample: &RecordBatch,
) -> WriterProperties {
    let mut properties = WriterProperties::builder()
        .set_compression(compression.into())
        .set_statistics_enabled(EnabledStatistics::Chunk)
        // Row groups end where the windows do.
        .set_max_row_group_row_count(None);
    let schema = sample.schema();
    for (field, array) in schema.fields().iter().zip(sample.columns()) {
        let path = match field.data_type() {
            DataType::FixedSizeList(item, _) => {
                vec![field.name().clone(), "list".to_owned(), item.name().clone()]
            }
            _ => vec![field.name().clone()],
        };
        if !repeats(array) {
            properties = properties.set_column_dictionary_enabled(ColumnPath::new(path), false);
        }
    }
    properties.build()
}

/// Whether the values of a column come again often; those that are not numbers are taken to.
fn repeats(array: &ArrayRef) -> bool {
    const SAMPLE: usize = 1 << 16;
    let elements = array.as_fixed_size_list_opt().map_or(array, |lists| lists.values());
    let distinct = if let Some(floats) = elements.as_primitive_opt::<Float32Type>() {
        let bits = floats.values().iter().take(SAMPLE).map(|value| u64::from(value.to_bits()));
        bits.collect::<HashSet<_>>().len()
    } else if let Some(integers) = elements.as_primitive_opt::<Int64Type>() {
        let bits = integers.values().iter().take(SAMPLE).map(|value| value.cast_unsigned());
        bits.collect::<HashSet<_>>().len()
    } else {
        return true;
    };
    distinct <= 256 || distinct < elements.len().min(SAMPLE) / 8
}
