//! LibSVM's text format as a source.
//!
//! The format is that of the README of LIBSVM (Chang and Lin): a row per line, a label, then
//! `index:value` pairs with ascending indices from 1; `#` begins a comment.

use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;

use arrow_array::{ArrayRef, FixedSizeListArray, Float32Array, Float64Array, Int64Array};
use arrow_schema::{DataType, Field, Schema, SchemaRef};

use super::{CHUNK_ELEMENTS, CHUNK_ROWS, Chunk, Scan, Table, damaged};
use crate::data::{DataError, Location};

pub(super) struct LibSvmTable {
    location: Location,
    schema: SchemaRef,
    rows: u64,
    features: usize,
}

/// One line, taken apart.
struct Row<'a> {
    label: f64,
    pairs: Vec<(usize, &'a str)>,
}

impl LibSvmTable {
    /// Reads through the file to learn the largest index and the number of rows.
    pub(super) fn open(location: &Location) -> Result<Self, DataError> {
        let (mut rows, mut features, mut integers) = (0, 0, true);
        let mut lines = Lines::open(location)?;
        while lines.advance()? {
            let row = lines.row()?;
            // Past 2^53 a float no longer tells integers apart.
            integers &= row.label.fract() == 0.0 && row.label.abs() < 9e15;
            features = features.max(row.pairs.last().map_or(0, |pair| pair.0));
            rows += 1;
        }
        if features == 0 {
            return Err(DataError::NoRows { location: location.to_string() });
        }
        let label = if integers { DataType::Int64 } else { DataType::Float64 };
        let schema = Schema::new(vec![
            Field::new("label", label, false),
            Field::new("features", list(features), false),
        ]);
        Ok(Self { location: location.clone(), schema: Arc::new(schema), rows, features })
    }

    fn chunk(&self, lines: &mut Lines, columns: &[usize]) -> Result<Option<Chunk>, DataError> {
        let first_row = lines.row;
        let (mut labels, mut features) = (Vec::new(), Vec::new());
        let limit = (CHUNK_ELEMENTS / self.features).clamp(1, CHUNK_ROWS);
        while labels.len() < limit && lines.advance()? {
            let row = lines.row()?;
            labels.push(row.label);
            let start = features.len();
            features.resize(start + self.features, 0.0);
            for (index, value) in &row.pairs {
                let value = value.parse().map_err(|_| lines.not_a_number(value))?;
                match features.get_mut(start + index - 1) {
                    Some(place) => *place = value,
                    None => return Err(damaged(&lines.file, "LibSVM", &"it changed while read")),
                }
            }
        }
        if labels.is_empty() {
            return Ok(None);
        }
        let rows = labels.len();
        let labels: ArrayRef = match self.schema.field(0).data_type() {
            DataType::Int64 => {
                Arc::new(Int64Array::from_iter_values(labels.into_iter().map(|label| label as i64)))
            }
            _ => Arc::new(Float64Array::from(labels)),
        };
        let values = Arc::new(Float32Array::from(features));
        let features = FixedSizeListArray::try_new(item(), self.features as i32, values, None)
            .map_err(|error| damaged(&lines.file, "LibSVM", &error))?;
        let arrays: [ArrayRef; 2] = [labels, Arc::new(features)];
        let arrays = columns.iter().map(|&column| Arc::clone(&arrays[column])).collect();
        let schema = super::project(&self.schema, columns)
            .map_err(|error| damaged(&lines.file, "LibSVM", &error))?;
        Chunk::new(&schema, arrays, rows, &lines.file, first_row).map(Some)
    }
}

fn item() -> Arc<Field> {
    Arc::new(Field::new("item", DataType::Float32, false))
}

fn list(length: usize) -> DataType {
    DataType::FixedSizeList(item(), length as i32)
}

impl Table for LibSvmTable {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn rows(&self) -> u64 {
        self.rows
    }

    fn scan(&self, columns: &[usize]) -> Result<Scan<'_>, DataError> {
        let mut lines = Some(Lines::open(&self.location)?);
        let columns = columns.to_vec();
        Ok(Box::new(std::iter::from_fn(move || {
            let next = self.chunk(lines.as_mut()?, &columns).transpose();
            if matches!(next, Some(Err(_))) {
                lines = None;
            }
            next
        })))
    }
}

/// The lines of a file that hold rows.
struct Lines {
    input: BufReader<Box<dyn Read + Send>>,
    location: Location,
    file: Arc<str>,
    text: String,
    line: u64,
    row: u64,
}

impl Lines {
    fn open(location: &Location) -> Result<Self, DataError> {
        let input = location.open()?.into_read().map_err(|error| location.io("read", error))?;
        let file = location.to_string().into();
        let (input, text) = (BufReader::new(input), String::new());
        Ok(Self { input, location: location.clone(), file, text, line: 0, row: 0 })
    }

    /// Goes to the next line that holds a row.
    fn advance(&mut self) -> Result<bool, DataError> {
        loop {
            self.text.clear();
            let read = self.input.read_line(&mut self.text);
            if read.map_err(|error| self.location.io("read", error))? == 0 {
                return Ok(false);
            }
            self.line += 1;
            if let Some(comment) = self.text.find('#') {
                self.text.truncate(comment);
            }
            if !self.text.trim().is_empty() {
                self.row += 1;
                return Ok(true);
            }
        }
    }

    fn row(&self) -> Result<Row<'_>, DataError> {
        let mut words = self.text.split_whitespace();
        let label = words.next().unwrap_or_default();
        let label = label.parse().map_err(|_| self.not_a_number(label))?;
        let mut pairs = Vec::new();
        let mut before = 0;
        for word in words {
            let pair = word.split_once(':').filter(|(index, _)| *index != "qid");
            let Some((index, value)) = pair else {
                return Err(self.wrong(&format!("`{word}` is no pair `index:value`")));
            };
            let index: usize =
                index.parse().map_err(|_| self.wrong(&format!("`{index}` is no index")))?;
            if index <= before {
                return Err(self.wrong(&format!(
                    "index {index} follows {before}; indices begin at 1 and ascend"
                )));
            }
            if i32::try_from(index).is_err() {
                return Err(self.wrong(&format!("index {index} is beyond 2^31")));
            }
            before = index;
            pairs.push((index, value));
        }
        Ok(Row { label, pairs })
    }

    fn wrong(&self, what: &str) -> DataError {
        damaged(&self.file, "LibSVM", &format!("in line {}, {what}", self.line))
    }

    fn not_a_number(&self, found: &str) -> DataError {
        DataError::NotANumber {
            column: "label or features".to_owned(),
            place: format!("line {} of `{}`", self.line, self.file),
            found: found.to_owned(),
            expected: "a number",
        }
    }
}
