//! [`Source`]: the tables that data sets are prepared from.

mod csv;
mod libsvm;
mod numpy;
mod parquet;

use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{ArrowError, SchemaRef};

use crate::data::{DataError, Location};

pub use csv::CsvFormat;

/// Rows that a source gives at a time, at most.
const CHUNK_ROWS: usize = 8192;

/// The elements of a chunk, at most: 8192 rows of long lists would be a lot of memory.
const CHUNK_ELEMENTS: usize = 4 << 20;

/// Where [`Prepare`](super::Prepare) reads from.
///
/// A location may be a path, a URL, or a path in an object store; see [`Location`].
#[derive(Clone, Debug)]
pub struct Source(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Parquet(Location),
    Csv(Location, CsvFormat),
    LibSvm(Location),
    Npy(Vec<(String, Location)>),
    Npz(Location),
}

impl Source {
    /// A Parquet file, or a folder whose `.parquet` files, in the order of their names, are one
    /// table.
    pub fn parquet(location: impl Into<Location>) -> Self {
        Self(Kind::Parquet(location.into()))
    }

    /// A file of comma-separated values whose first line names the columns, or a folder of `.csv`
    /// files that do. An empty field is a missing value.
    ///
    /// A column is of booleans, integers or floats if all its values are, otherwise of text, which
    /// no tensor can be made of, but by which rows may be stratified or held out.
    pub fn csv(location: impl Into<Location>) -> Self {
        Self::csv_with(location, CsvFormat::default())
    }

    /// As [`csv`](Self::csv), for other separators and for files that name no columns.
    pub fn csv_with(location: impl Into<Location>, format: CsvFormat) -> Self {
        Self(Kind::Csv(location.into(), format))
    }

    /// A file in LibSVM's format, `label index:value ...` with indices from 1: a column `label`,
    /// and a list column `features` as long as the largest index. The lists are dense.
    pub fn libsvm(location: impl Into<Location>) -> Self {
        Self(Kind::LibSvm(location.into()))
    }

    /// `.npy` files of NumPy, each a column; the first axis counts rows, and an array of more axes
    /// is a list column that keeps the shape of a row. Arrays are read as a stream.
    pub fn npy<N: Into<String>, L: Into<Location>>(
        columns: impl IntoIterator<Item = (N, L)>,
    ) -> Self {
        let columns = columns.into_iter();
        Self(Kind::Npy(columns.map(|(name, file)| (name.into(), file.into())).collect()))
    }

    /// An `.npz` archive of NumPy, each array a column as with [`npy`](Self::npy). The archive and
    /// its arrays are held in memory; take `.npy` files for data that are larger.
    pub fn npz(location: impl Into<Location>) -> Self {
        Self(Kind::Npz(location.into()))
    }

    /// Looks at the source: its columns and the number of its rows.
    pub(super) fn table(&self) -> Result<Box<dyn Table>, DataError> {
        Ok(match &self.0 {
            Kind::Parquet(location) => Box::new(parquet::ParquetTable::open(location)?),
            Kind::Csv(location, format) => Box::new(csv::CsvTable::open(location, format)?),
            Kind::LibSvm(location) => Box::new(libsvm::LibSvmTable::open(location)?),
            Kind::Npy(columns) => Box::new(numpy::NpyTable::open(columns)?),
            Kind::Npz(location) => Box::new(numpy::NpzTable::open(location)?),
        })
    }

    /// What must be the same for the source to be the same: its files, with sizes and versions.
    pub(super) fn identity(&self) -> Result<Vec<String>, DataError> {
        let (kind, files) = match &self.0 {
            Kind::Parquet(location) => ("parquet".to_owned(), location.files("parquet")?),
            Kind::Csv(location, format) => (format!("csv {format:?}"), location.files("csv")?),
            Kind::LibSvm(location) => ("libsvm".to_owned(), vec![location.clone()]),
            Kind::Npy(columns) => {
                let names: Vec<_> = columns.iter().map(|(name, _)| name).collect();
                let files = columns.iter().map(|(_, file)| file.clone()).collect();
                (format!("npy {names:?}"), files)
            }
            Kind::Npz(location) => ("npz".to_owned(), vec![location.clone()]),
        };
        let mut identity = vec![kind];
        for file in files {
            // A file that is not there is reported when it is opened.
            if let Some(stat) = file.stat()? {
                identity.push(format!("{file} {} {}", stat.bytes, stat.version));
            }
        }
        Ok(identity)
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Kind::Parquet(location)
            | Kind::Csv(location, _)
            | Kind::LibSvm(location)
            | Kind::Npz(location) => location.fmt(f),
            Kind::Npy(columns) => {
                let files: Vec<_> = columns.iter().map(|(_, file)| file.to_string()).collect();
                f.write_str(&files.join(", "))
            }
        }
    }
}

/// A source that was looked at: what it holds, and how to read through it, more than once.
pub(super) trait Table {
    fn schema(&self) -> &SchemaRef;

    fn rows(&self) -> u64;

    /// Reads the given columns, in the order of the source's rows.
    fn scan(&self, columns: &[usize]) -> Result<Scan<'_>, DataError>;

    /// The shape of a row, where the source knows more than the length of a list.
    fn row_shape(&self, column: usize) -> Option<Vec<usize>> {
        let _ = column;
        None
    }

    /// The first value that made a column one of text.
    fn first_text(&self, column: usize) -> Option<DataError> {
        let _ = column;
        None
    }
}

pub(super) type Scan<'a> = Box<dyn Iterator<Item = Result<Chunk, DataError>> + 'a>;

/// Rows of a source.
pub(super) struct Chunk {
    pub(super) batch: RecordBatch,
    pub(super) file: Arc<str>,
    /// The number of the first of these rows in its file.
    pub(super) first_row: u64,
}

impl Chunk {
    fn new(
        schema: &SchemaRef,
        arrays: Vec<ArrayRef>,
        rows: usize,
        file: &Arc<str>,
        first_row: u64,
    ) -> Result<Self, DataError> {
        let options = arrow_array::RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(Arc::clone(schema), arrays, &options);
        let batch = batch.map_err(|error| damaged(file, "table", &error))?;
        Ok(Self { batch, file: Arc::clone(file), first_row })
    }

    /// Names a row of this chunk for a message.
    pub(super) fn place(&self, row: usize) -> String {
        place(&self.file, self.first_row + row as u64)
    }
}

fn place(file: &str, row: u64) -> String {
    format!("row {row} of `{file}` (rows count from 0)")
}

fn damaged(file: &str, format: &'static str, reason: &impl ToString) -> DataError {
    DataError::Corrupt { file: file.to_owned(), format, reason: reason.to_string() }
}

fn project(schema: &SchemaRef, columns: &[usize]) -> Result<SchemaRef, ArrowError> {
    schema.project(columns).map(Arc::new)
}
