//! Parquet files as a source.

use std::sync::Arc;

use arrow_schema::{DataType, SchemaRef};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader,
    ParquetRecordBatchReaderBuilder,
};

use super::{CHUNK_ELEMENTS, CHUNK_ROWS, Chunk, Scan, Table, damaged};
use crate::data::decode::without_panic;
use crate::data::{DataError, Location};

pub(super) struct ParquetTable {
    files: Vec<(Location, ArrowReaderMetadata)>,
    schema: SchemaRef,
    rows: u64,
}

impl ParquetTable {
    pub(super) fn open(location: &Location) -> Result<Self, DataError> {
        let mut files: Vec<(Location, ArrowReaderMetadata)> = Vec::new();
        for file in location.files("parquet")? {
            let input = file.open()?;
            let name = file.to_string();
            let metadata = without_panic(&name, || {
                ArrowReaderMetadata::load(&input, ArrowReaderOptions::default())
                    .map_err(|error| damaged(&name, "Parquet", &error))
            })?;
            if let Some((first, known)) = files.first() {
                let difference = difference(known.schema(), metadata.schema());
                if let Some(difference) = difference {
                    let (first, file) = (first.to_string(), file.to_string());
                    return Err(DataError::UnequalFiles { first, file, difference });
                }
            }
            files.push((file, metadata));
        }
        let Some((_, first)) = files.first() else {
            return Err(DataError::NoRows { location: location.to_string() });
        };
        let schema = Arc::clone(first.schema());
        let rows = |metadata: &ArrowReaderMetadata| metadata.metadata().file_metadata().num_rows();
        let rows = files.iter().map(|(_, metadata)| rows(metadata).max(0) as u64).sum();
        Ok(Self { files, schema, rows })
    }
}

fn difference(first: &SchemaRef, other: &SchemaRef) -> Option<String> {
    for field in first.fields() {
        match other.field_with_name(field.name()) {
            Ok(same) if same.data_type() == field.data_type() => {}
            Ok(same) => {
                let (was, is) = (field.data_type(), same.data_type());
                return Some(format!("`{}` is {is} there and {was} before", field.name()));
            }
            Err(_) => return Some(format!("it has no `{}`", field.name())),
        }
    }
    let moved = first.fields().iter().zip(other.fields()).any(|(a, b)| a.name() != b.name());
    (moved || first.fields().len() != other.fields().len())
        .then(|| "it has more columns, or another order".to_owned())
}

/// The rows that make a chunk of reasonable size.
fn chunk_rows(schema: &SchemaRef) -> usize {
    let elements = |data_type: &DataType| match data_type {
        DataType::FixedSizeList(_, length) => *length as usize,
        // Of lists nothing is known yet; most are short, and long ones come in few rows.
        DataType::List(_) | DataType::LargeList(_) => 1024,
        _ => 1,
    };
    let row: usize = schema.fields().iter().map(|field| elements(field.data_type())).sum();
    (CHUNK_ELEMENTS / row.max(1)).clamp(1, CHUNK_ROWS)
}

impl Table for ParquetTable {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn rows(&self) -> u64 {
        self.rows
    }

    fn scan(&self, columns: &[usize]) -> Result<Scan<'_>, DataError> {
        let columns = columns.to_vec();
        let batch_rows = chunk_rows(&self.schema);
        let scan_file =
            move |(location, metadata): &(Location, ArrowReaderMetadata)| match FileScan::open(
                location, metadata, &columns, batch_rows,
            ) {
                Ok(scan) => Box::new(scan) as Scan<'_>,
                Err(error) => Box::new(std::iter::once(Err(error))),
            };
        Ok(Box::new(self.files.iter().flat_map(scan_file)))
    }
}

/// The chunks of one file.
struct FileScan {
    /// Nothing once it failed.
    reader: Option<ParquetRecordBatchReader>,
    /// Where in the file's order the columns are that were asked for.
    order: Vec<usize>,
    file: Arc<str>,
    row: u64,
}

impl FileScan {
    fn open(
        location: &Location,
        metadata: &ArrowReaderMetadata,
        columns: &[usize],
        batch_rows: usize,
    ) -> Result<Self, DataError> {
        let file: Arc<str> = location.to_string().into();
        let input = location.open()?;
        let reader = without_panic(&file, || {
            let builder =
                ParquetRecordBatchReaderBuilder::new_with_metadata(input, metadata.clone());
            let mask = ProjectionMask::roots(builder.parquet_schema(), columns.iter().copied());
            let reader = builder.with_projection(mask).with_batch_size(batch_rows).build();
            reader.map_err(|error| damaged(&file, "Parquet", &error))
        })?;
        let before = |column| columns.iter().filter(|&other| other < column).count();
        let order = columns.iter().map(before).collect();
        Ok(Self { reader: Some(reader), order, file, row: 0 })
    }

    fn chunk(&mut self) -> Result<Option<Chunk>, DataError> {
        let Some(reader) = &mut self.reader else { return Ok(None) };
        let damaged = |error| damaged(&self.file, "Parquet", &error);
        let batch = without_panic(&self.file, || reader.next().transpose().map_err(damaged))?;
        let Some(batch) = batch else { return Ok(None) };
        let batch = batch.project(&self.order).map_err(damaged)?;
        let chunk = Chunk { file: Arc::clone(&self.file), first_row: self.row, batch };
        self.row += chunk.batch.num_rows() as u64;
        Ok(Some(chunk))
    }
}

impl Iterator for FileScan {
    type Item = Result<Chunk, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.chunk();
        if next.is_err() {
            self.reader = None;
        }
        next.transpose()
    }
}
