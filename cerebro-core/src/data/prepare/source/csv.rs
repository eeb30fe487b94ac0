//! Comma-separated values as a source.

use std::io::Read;
use std::sync::Arc;

use arrow_array::builder::{BooleanBuilder, Float64Builder, Int64Builder, StringBuilder};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use csv::{Reader, ReaderBuilder, StringRecord, Trim};

use super::{CHUNK_ELEMENTS, CHUNK_ROWS, Chunk, Scan, Table, damaged, project};
use crate::data::{DataError, Location};

/// What a file of separated values looks like, where it is not commas under a line of names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CsvFormat {
    separator: u8,
    names: Option<Vec<String>>,
}

impl Default for CsvFormat {
    fn default() -> Self {
        Self { separator: b',', names: None }
    }
}

impl CsvFormat {
    /// The character between fields: `b';'`, `b'\t'`, ...
    pub fn separator(mut self, separator: u8) -> Self {
        self.separator = separator;
        self
    }

    /// The columns' names, for files whose first line is a row already.
    pub fn names<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.names = Some(names.into_iter().map(Into::into).collect());
        self
    }

    fn reader(&self, input: impl Read) -> Reader<impl Read> {
        ReaderBuilder::new()
            .delimiter(self.separator)
            .has_headers(self.names.is_none())
            .trim(Trim::All)
            // Rows of other lengths are refused here, by a message that names the line.
            .flexible(true)
            .from_reader(input)
    }
}

/// What all values of a column seen so far can be.
#[derive(Clone, Debug)]
struct Candidates {
    boolean: bool,
    integer: bool,
    float: bool,
    /// The place and the value that cannot be a number.
    text: Option<(String, String)>,
}

impl Candidates {
    fn see(&mut self, value: &str, place: impl Fn() -> String) {
        self.boolean &= boolean(value).is_some();
        self.integer &= value.parse::<i64>().is_ok();
        self.float &= value.parse::<f64>().is_ok();
        if self.text.is_none() && !(self.float || self.boolean) {
            self.text = Some((place(), value.to_owned()));
        }
    }

    fn data_type(&self) -> DataType {
        match self {
            Self { integer: true, .. } => DataType::Int64,
            Self { float: true, .. } => DataType::Float64,
            Self { boolean: true, .. } => DataType::Boolean,
            _ => DataType::Utf8,
        }
    }
}

fn boolean(value: &str) -> Option<bool> {
    match value {
        "true" | "True" | "TRUE" => Some(true),
        "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

pub(super) struct CsvTable {
    files: Vec<Location>,
    format: CsvFormat,
    schema: SchemaRef,
    candidates: Vec<Candidates>,
    rows: u64,
}

impl CsvTable {
    /// Reads through the files to learn the columns' types and the number of rows.
    pub(super) fn open(location: &Location, format: &CsvFormat) -> Result<Self, DataError> {
        let files = location.files("csv")?;
        let mut names: Option<(Location, Vec<String>)> = None;
        let mut candidates = Vec::new();
        let mut rows = 0;
        for location in &files {
            let file = location.to_string();
            let corrupt = |error: csv::Error| damaged(&file, "CSV", &error);
            let mut reader = format.reader(input(location)?);
            let header = if let Some(names) = &format.names {
                names.clone()
            } else {
                let header = reader.headers().map_err(corrupt)?;
                header.iter().map(str::to_owned).collect()
            };
            match &names {
                None => {
                    check_names(&file, &header)?;
                    let all = Candidates { boolean: true, integer: true, float: true, text: None };
                    candidates = vec![all; header.len()];
                    names = Some((location.clone(), header));
                }
                Some((first, known)) if *known != header => {
                    let difference = format!("its header is {}", header.join(", "));
                    return Err(DataError::UnequalFiles {
                        first: first.to_string(),
                        file,
                        difference,
                    });
                }
                Some(_) => {}
            }
            let mut record = StringRecord::new();
            while reader.read_record(&mut record).map_err(corrupt)? {
                let line = record.position().map_or(0, csv::Position::line);
                if record.len() != candidates.len() {
                    let (found, wanted) = (record.len(), candidates.len());
                    return Err(damaged(
                        &file,
                        "CSV",
                        &format!("line {line} has {found} fields, but there are {wanted} columns"),
                    ));
                }
                for (candidates, value) in candidates.iter_mut().zip(&record) {
                    if !value.is_empty() {
                        candidates.see(value, || format!("line {line} of `{file}`"));
                    }
                }
                rows += 1;
            }
        }
        let (_, names) = names.unwrap_or_else(|| (location.clone(), Vec::new()));
        let fields = names.iter().zip(&candidates);
        let fields = fields.map(|(name, known)| Field::new(name, known.data_type(), true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        Ok(Self { files, format: format.clone(), schema, candidates, rows })
    }
}

fn input(location: &Location) -> Result<Box<dyn Read + Send>, DataError> {
    location.open()?.into_read().map_err(|error| location.io("read", error))
}

fn check_names(file: &str, names: &[String]) -> Result<(), DataError> {
    for (at, name) in names.iter().enumerate() {
        if names[..at].contains(name) {
            return Err(damaged(file, "CSV", &format!("it has two columns `{name}`")));
        }
    }
    Ok(())
}

impl Table for CsvTable {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn rows(&self) -> u64 {
        self.rows
    }

    fn scan(&self, columns: &[usize]) -> Result<Scan<'_>, DataError> {
        let schema = project(&self.schema, columns)
            .map_err(|error| damaged(&self.files[0].to_string(), "CSV", &error))?;
        let columns = columns.to_vec();
        let rows = (CHUNK_ELEMENTS / self.candidates.len().max(1)).clamp(1, CHUNK_ROWS);
        let scan_file = move |location: &Location| {
            let file: Arc<str> = location.to_string().into();
            let (columns, schema) = (columns.clone(), Arc::clone(&schema));
            let mut row = 0;
            let mut reader = Some(input(location).map(|input| self.format.reader(input)));
            std::iter::from_fn(move || {
                let next = match reader.as_mut()? {
                    Ok(reader) => chunk(reader, &schema, &columns, &file, rows),
                    Err(_) => match reader.take()? {
                        Err(error) => Err(error),
                        Ok(_) => return None,
                    },
                };
                match next {
                    Ok(batch) if batch.num_rows() == 0 => None,
                    Ok(batch) => {
                        let chunk = Chunk { file: Arc::clone(&file), first_row: row, batch };
                        row += chunk.batch.num_rows() as u64;
                        Some(Ok(chunk))
                    }
                    Err(error) => {
                        reader = None;
                        Some(Err(error))
                    }
                }
            })
        };
        Ok(Box::new(self.files.iter().flat_map(scan_file)))
    }

    fn first_text(&self, column: usize) -> Option<DataError> {
        let (place, found) = self.candidates[column].text.clone()?;
        let column = self.schema.field(column).name().clone();
        Some(DataError::NotANumber { column, place, found, expected: "a number" })
    }
}

enum Builder {
    Boolean(BooleanBuilder),
    Integer(Int64Builder),
    Float(Float64Builder),
    Text(StringBuilder),
}

impl Builder {
    fn new(data_type: &DataType) -> Self {
        match data_type {
            DataType::Boolean => Self::Boolean(BooleanBuilder::new()),
            DataType::Int64 => Self::Integer(Int64Builder::new()),
            DataType::Float64 => Self::Float(Float64Builder::new()),
            _ => Self::Text(StringBuilder::new()),
        }
    }

    /// What does not parse any more was changed since the first pass: it is missing then.
    fn push(&mut self, value: &str) {
        match self {
            Self::Boolean(builder) => builder.append_option(boolean(value)),
            Self::Integer(builder) => builder.append_option(value.parse().ok()),
            Self::Float(builder) => builder.append_option(value.parse().ok()),
            Self::Text(builder) => builder.append_option((!value.is_empty()).then_some(value)),
        }
    }

    fn finish(self) -> ArrayRef {
        match self {
            Self::Boolean(mut builder) => Arc::new(builder.finish()),
            Self::Integer(mut builder) => Arc::new(builder.finish()),
            Self::Float(mut builder) => Arc::new(builder.finish()),
            Self::Text(mut builder) => Arc::new(builder.finish()),
        }
    }
}

fn chunk(
    reader: &mut Reader<impl Read>,
    schema: &SchemaRef,
    columns: &[usize],
    file: &str,
    rows: usize,
) -> Result<RecordBatch, DataError> {
    let fields = schema.fields().iter();
    let mut builders: Vec<_> = fields.map(|field| Builder::new(field.data_type())).collect();
    let mut record = StringRecord::new();
    let mut read = 0;
    while read < rows
        && reader.read_record(&mut record).map_err(|error| damaged(file, "CSV", &error))?
    {
        for (builder, &column) in builders.iter_mut().zip(columns) {
            builder.push(record.get(column).unwrap_or(""));
        }
        read += 1;
    }
    let arrays = builders.into_iter().map(Builder::finish).collect();
    let options = arrow_array::RecordBatchOptions::new().with_row_count(Some(read));
    RecordBatch::try_new_with_options(Arc::clone(schema), arrays, &options)
        .map_err(|error| damaged(file, "CSV", &error))
}
