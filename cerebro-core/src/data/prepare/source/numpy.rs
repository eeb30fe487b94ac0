//! NumPy's `.npy` and `.npz` files as a source.

use std::io::{Cursor, Read};
use std::sync::Arc;

use arrow_array::{
    Array, ArrayRef, BooleanArray, FixedSizeListArray, Float32Array, Float64Array, Int64Array,
    UInt64Array,
};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use npyz::npz::NpzArchive;
use npyz::{DType, NpyFile, NpyHeader, Order, TypeChar};

use super::{CHUNK_ELEMENTS, CHUNK_ROWS, Chunk, Scan, Table, damaged, project};
use crate::data::{DataError, Location};

/// What the header of an array says.
#[derive(Clone, Debug)]
struct Layout {
    rows: u64,
    row_shape: Vec<usize>,
    number: Number,
}

/// The element types that are read.
#[derive(Clone, Copy, Debug)]
enum Number {
    Bool,
    I8,
    I16,
    I32,
    I64,
    U8,
    U16,
    U32,
    U64,
    F32,
    F64,
}

impl Number {
    fn data_type(self) -> DataType {
        match self {
            Self::Bool => DataType::Boolean,
            Self::F32 => DataType::Float32,
            Self::F64 => DataType::Float64,
            Self::U64 => DataType::UInt64,
            _ => DataType::Int64,
        }
    }
}

impl Layout {
    fn new(file: &str, column: &str, header: &NpyHeader) -> Result<Self, DataError> {
        let wrong_type = |found: String| DataError::WrongType {
            file: file.to_owned(),
            column: column.to_owned(),
            found,
            expected: "an array of booleans, integers or floats of 32 or 64 bits".to_owned(),
        };
        let found = header.dtype();
        let DType::Plain(dtype) = &found else { return Err(wrong_type(found.descr())) };
        let number = match (dtype.type_char(), dtype.size_field()) {
            (TypeChar::Bool, _) => Number::Bool,
            (TypeChar::Int, 1) => Number::I8,
            (TypeChar::Int, 2) => Number::I16,
            (TypeChar::Int, 4) => Number::I32,
            (TypeChar::Int, 8) => Number::I64,
            (TypeChar::Uint, 1) => Number::U8,
            (TypeChar::Uint, 2) => Number::U16,
            (TypeChar::Uint, 4) => Number::U32,
            (TypeChar::Uint, 8) => Number::U64,
            (TypeChar::Float, 4) => Number::F32,
            (TypeChar::Float, 8) => Number::F64,
            _ => return Err(wrong_type(found.descr())),
        };
        let [rows, row_shape @ ..] = header.shape() else {
            return Err(wrong_type("a single number".to_owned()));
        };
        if header.order() == Order::Fortran && !row_shape.is_empty() {
            return Err(damaged(
                file,
                "row-major NumPy",
                &format!("`{column}` is in Fortran order; save numpy.ascontiguousarray of it"),
            ));
        }
        let row_shape: Vec<usize> = row_shape.iter().map(|&size| size as usize).collect();
        let length = row_shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size));
        if length.is_none_or(|length| i32::try_from(length).is_err()) {
            return Err(wrong_type(format!("an array with rows of shape {row_shape:?}")));
        }
        Ok(Self { rows: *rows, row_shape, number })
    }

    fn row_len(&self) -> usize {
        self.row_shape.iter().product()
    }

    fn field(&self, name: &str) -> Field {
        let data_type = if self.row_shape.is_empty() {
            self.number.data_type()
        } else {
            DataType::FixedSizeList(self.item(), self.row_len() as i32)
        };
        Field::new(name, data_type, false)
    }

    fn item(&self) -> Arc<Field> {
        Arc::new(Field::new("item", self.number.data_type(), false))
    }

    /// Elements as the column that the field describes.
    fn column(&self, elements: ArrayRef, file: &str) -> Result<ArrayRef, DataError> {
        if self.row_shape.is_empty() {
            return Ok(elements);
        }
        FixedSizeListArray::try_new(self.item(), self.row_len() as i32, elements, None)
            .map(|list| Arc::new(list) as ArrayRef)
            .map_err(|error| damaged(file, "NumPy", &error))
    }

    fn stream<'r>(&self, file: NpyFile<impl Read + 'r>) -> std::io::Result<Stream<'r>> {
        fn typed<'r, T, A>(file: NpyFile<impl Read + 'r>) -> std::io::Result<Stream<'r>>
        where
            T: npyz::Deserialize + 'r,
            A: Array + From<Vec<T>> + 'static,
        {
            let mut values = file.data::<T>().map_err(std::io::Error::other)?;
            Ok(Box::new(move |count| {
                let values = values.by_ref().take(count).collect::<Result<Vec<T>, _>>()?;
                Ok(Arc::new(A::from(values)) as ArrayRef)
            }))
        }
        fn widened<'r, T>(file: NpyFile<impl Read + 'r>) -> std::io::Result<Stream<'r>>
        where
            T: npyz::Deserialize + Into<i64> + 'r,
        {
            let mut values = file.data::<T>().map_err(std::io::Error::other)?;
            Ok(Box::new(move |count| {
                let values = values.by_ref().take(count).map(|value| value.map(Into::into));
                Ok(Arc::new(Int64Array::from(values.collect::<Result<Vec<i64>, _>>()?)) as ArrayRef)
            }))
        }
        match self.number {
            Number::Bool => typed::<bool, BooleanArray>(file),
            Number::I8 => widened::<i8>(file),
            Number::I16 => widened::<i16>(file),
            Number::I32 => widened::<i32>(file),
            Number::I64 => typed::<i64, Int64Array>(file),
            Number::U8 => widened::<u8>(file),
            Number::U16 => widened::<u16>(file),
            Number::U32 => widened::<u32>(file),
            Number::U64 => typed::<u64, UInt64Array>(file),
            Number::F32 => typed::<f32, Float32Array>(file),
            Number::F64 => typed::<f64, Float64Array>(file),
        }
    }
}

/// Gives the next elements of an array, as many as asked for while there are.
type Stream<'r> = Box<dyn FnMut(usize) -> std::io::Result<ArrayRef> + 'r>;

fn schema(columns: &[(String, Layout)]) -> SchemaRef {
    let fields = columns.iter().map(|(name, layout)| layout.field(name));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// The number of rows, on which all arrays must agree.
fn rows(source: &str, columns: &[(String, Layout)]) -> Result<u64, DataError> {
    let Some((first, layout)) = columns.first() else {
        return Err(DataError::NoRows { location: source.to_owned() });
    };
    match columns.iter().find(|(_, other)| other.rows != layout.rows) {
        Some((name, other)) => Err(DataError::Request(format!(
            "arrays must have a first axis of the same length, but `{first}` has {} rows and `{name}` has {}",
            layout.rows, other.rows
        ))),
        None => Ok(layout.rows),
    }
}

fn chunk_rows(columns: &[(String, Layout)]) -> usize {
    let row: usize = columns.iter().map(|(_, layout)| layout.row_len()).sum();
    (CHUNK_ELEMENTS / row.max(1)).clamp(1, CHUNK_ROWS)
}

pub(super) struct NpyTable {
    files: Vec<Location>,
    columns: Vec<(String, Layout)>,
    schema: SchemaRef,
    rows: u64,
}

impl NpyTable {
    pub(super) fn open(named: &[(String, Location)]) -> Result<Self, DataError> {
        let mut columns = Vec::new();
        for (name, location) in named {
            if columns.iter().any(|(other, _)| other == name) {
                let reason = format!("two arrays are called `{name}`");
                return Err(DataError::Request(reason));
            }
            let file = open_npy(location)?;
            columns.push((name.clone(), Layout::new(&location.to_string(), name, file.header())?));
        }
        let files: Vec<Location> = named.iter().map(|(_, location)| location.clone()).collect();
        let rows = rows("the list of arrays", &columns)?;
        Ok(Self { files, schema: schema(&columns), columns, rows })
    }
}

fn open_npy(location: &Location) -> Result<NpyFile<Box<dyn Read + Send>>, DataError> {
    let input = location.open()?.into_read().map_err(|error| location.io("read", error))?;
    NpyFile::new(input).map_err(|error| damaged(&location.to_string(), "NumPy", &error))
}

impl Table for NpyTable {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn rows(&self) -> u64 {
        self.rows
    }

    fn row_shape(&self, column: usize) -> Option<Vec<usize>> {
        Some(self.columns[column].1.row_shape.clone())
    }

    fn scan(&self, columns: &[usize]) -> Result<Scan<'_>, DataError> {
        let mut streams = Vec::new();
        for &column in columns {
            let file: Arc<str> = self.files[column].to_string().into();
            let layout = &self.columns[column].1;
            let stream = layout.stream(open_npy(&self.files[column])?);
            let stream = stream.map_err(|error| damaged(&file, "NumPy", &error))?;
            streams.push((file, layout, stream));
        }
        let first: Arc<str> = self.files[0].to_string().into();
        let schema =
            project(&self.schema, columns).map_err(|error| damaged(&first, "NumPy", &error))?;
        let limit = chunk_rows(&self.columns) as u64;
        let starts = (0..self.rows).step_by(limit as usize);
        Ok(Box::new(starts.map(move |row| {
            let rows = limit.min(self.rows - row) as usize;
            let mut arrays = Vec::with_capacity(streams.len());
            for (file, layout, stream) in &mut streams {
                let wanted = rows * layout.row_len();
                let elements = stream(wanted).map_err(|error| damaged(file, "NumPy", &error))?;
                if elements.len() < wanted {
                    return Err(damaged(file, "NumPy", &"it ends before its last row"));
                }
                arrays.push(layout.column(elements, file)?);
            }
            let file = streams.first().map_or(&first, |(file, ..)| file);
            Chunk::new(&schema, arrays, rows, file, row)
        })))
    }
}

pub(super) struct NpzTable {
    file: Arc<str>,
    columns: Vec<(String, Layout)>,
    arrays: Vec<ArrayRef>,
    schema: SchemaRef,
    rows: u64,
}

impl NpzTable {
    pub(super) fn open(location: &Location) -> Result<Self, DataError> {
        let file: Arc<str> = location.to_string().into();
        let corrupt = |error: std::io::Error| damaged(&file, "NumPy", &error);
        let mut archive = NpzArchive::new(Cursor::new(location.read()?)).map_err(corrupt)?;
        let mut names: Vec<String> = archive.array_names().map(str::to_owned).collect();
        names.sort();
        let (mut columns, mut arrays) = (Vec::new(), Vec::new());
        for name in names {
            let Some(member) = archive.by_name(&name).map_err(corrupt)? else { continue };
            let layout = Layout::new(&file, &name, member.header())?;
            let elements = layout.rows as usize * layout.row_len();
            let mut stream = layout.stream(member).map_err(corrupt)?;
            arrays.push(layout.column(stream(elements).map_err(corrupt)?, &file)?);
            drop(stream);
            columns.push((name, layout));
        }
        let rows = rows(&file, &columns)?;
        let schema = schema(&columns);
        Ok(Self { file, columns, arrays, schema, rows })
    }
}

impl Table for NpzTable {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn rows(&self) -> u64 {
        self.rows
    }

    fn row_shape(&self, column: usize) -> Option<Vec<usize>> {
        Some(self.columns[column].1.row_shape.clone())
    }

    fn scan(&self, columns: &[usize]) -> Result<Scan<'_>, DataError> {
        let schema =
            project(&self.schema, columns).map_err(|error| damaged(&self.file, "NumPy", &error))?;
        let columns = columns.to_vec();
        let limit = chunk_rows(&self.columns);
        let starts = (0..self.rows as usize).step_by(limit);
        Ok(Box::new(starts.map(move |row| {
            let rows = limit.min(self.rows as usize - row);
            let slice = |&column: &usize| self.arrays[column].slice(row, rows);
            let arrays = columns.iter().map(slice).collect();
            Chunk::new(&schema, arrays, rows, &self.file, row as u64)
        })))
    }
}
