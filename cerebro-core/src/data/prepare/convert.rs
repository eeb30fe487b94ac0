//! Columns of a source, checked and brought into the form in which they are stored.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Float32Type;
use arrow_array::{Array, ArrayRef, FixedSizeListArray, Float32Array, Int64Array};
use arrow_cast::{CastOptions, cast_with_options};
use arrow_schema::{DataType, Field};

use super::source::Chunk;
use crate::data::{DataError, ElementType};

/// How a column is stored.
#[derive(Clone, Copy, Debug)]
pub(super) enum Form {
    /// A number a row.
    Scalar,
    /// As many numbers a row.
    List(usize),
}

/// How a column of the source becomes (a part of) a tensor.
#[derive(Clone, Debug)]
pub(super) struct Conversion {
    pub(super) name: String,
    pub(super) element: ElementType,
    pub(super) form: Form,
    /// Where in a row of the tensor the column's elements begin.
    pub(super) position: usize,
    pub(super) classes: Option<u64>,
    pub(super) fill_missing: Option<f64>,
}

impl Conversion {
    /// The elements that a row has of this column.
    pub(super) fn width(&self) -> usize {
        match self.form {
            Form::Scalar => 1,
            Form::List(length) => length,
        }
    }

    /// The column as it is stored: nothing is missing in it.
    pub(super) fn field(&self) -> Field {
        match self.form {
            Form::Scalar => Field::new(&self.name, self.element_type(), false),
            Form::List(length) => {
                Field::new_fixed_size_list(&self.name, self.item(), length as i32, false)
            }
        }
    }

    fn item(&self) -> Arc<Field> {
        Arc::new(Field::new("item", self.element_type(), false))
    }

    fn element_type(&self) -> DataType {
        match self.element {
            ElementType::F32 => DataType::Float32,
            ElementType::I64 => DataType::Int64,
        }
    }

    /// Checks every value of column number `column` of the chunk, and converts it.
    pub(super) fn apply(&self, chunk: &Chunk, column: usize) -> Result<ArrayRef, DataError> {
        let array = chunk.batch.column(column);
        match self.form {
            Form::Scalar => self.elements(chunk, array),
            Form::List(length) => {
                let elements = self.elements(chunk, &self.flatten(chunk, array, length)?)?;
                FixedSizeListArray::try_new(self.item(), length as i32, elements, None)
                    .map(|list| Arc::new(list) as ArrayRef)
                    .map_err(|error| self.unusable(chunk, &error.to_string()))
            }
        }
    }

    /// The elements of all lists, each of which has `length`.
    fn flatten(
        &self,
        chunk: &Chunk,
        array: &ArrayRef,
        length: usize,
    ) -> Result<ArrayRef, DataError> {
        if let Some(row) = (0..array.len()).find(|&row| array.is_null(row)) {
            return Err(self.missing(chunk, row));
        }
        let (elements, lengths): (ArrayRef, Vec<usize>) = match array.data_type() {
            DataType::FixedSizeList(..) => {
                let lists = array.as_fixed_size_list();
                let size = lists.value_length() as usize;
                // The values of a sliced list array are those of the whole.
                let first = lists.value_offset_at(0);
                let elements = lists.values().slice(first, lists.len() * size);
                (elements, vec![size; lists.len()])
            }
            DataType::LargeList(_) => {
                let lists = array.as_list::<i64>();
                let (first, last) = ends(lists.value_offsets());
                let lengths = (0..lists.len()).map(|row| lists.value_length(row) as usize);
                (lists.values().slice(first as usize, (last - first) as usize), lengths.collect())
            }
            _ => {
                let lists = array.as_list::<i32>();
                let (first, last) = ends(lists.value_offsets());
                let lengths = (0..lists.len()).map(|row| lists.value_length(row) as usize);
                (lists.values().slice(first as usize, (last - first) as usize), lengths.collect())
            }
        };
        if let Some(row) = lengths.iter().position(|&found| found != length) {
            return Err(DataError::Ragged {
                column: self.name.clone(),
                place: chunk.place(row),
                found: lengths[row],
                expected: length,
            });
        }
        Ok(elements)
    }

    fn elements(&self, chunk: &Chunk, array: &ArrayRef) -> Result<ArrayRef, DataError> {
        let strict = CastOptions { safe: false, ..CastOptions::default() };
        let cast = cast_with_options(array, &self.element_type(), &strict)
            .map_err(|error| self.unusable(chunk, &error.to_string()))?;
        match self.element {
            ElementType::F32 => self.floats(chunk, cast.as_primitive()),
            ElementType::I64 => self.integers(chunk, cast.as_primitive()),
        }
    }

    fn floats(&self, chunk: &Chunk, array: &Float32Array) -> Result<ArrayRef, DataError> {
        let values = array.values();
        if array.null_count() == 0 && values.iter().all(|value| value.is_finite()) {
            return Ok(Arc::new(array.clone()));
        }
        let value = |at: usize| {
            let value = array.is_valid(at).then(|| array.value(at));
            match (value.filter(|value| !value.is_nan()), self.fill_missing) {
                (Some(value), _) if value.is_finite() => Ok(value),
                (None, Some(fill)) => Ok(fill as f32),
                (None, None) if value.is_none() => Err(self.missing(chunk, self.row(at))),
                _ => Err(DataError::NotFinite {
                    column: self.name.clone(),
                    place: chunk.place(self.row(at)),
                    value: f64::from(array.value(at)),
                }),
            }
        };
        let values: Vec<f32> = (0..array.len()).map(value).collect::<Result<_, _>>()?;
        Ok(Arc::new(Float32Array::from(values)))
    }

    fn integers(&self, chunk: &Chunk, array: &Int64Array) -> Result<ArrayRef, DataError> {
        let value = |at: usize| match (array.is_valid(at), self.fill_missing) {
            (true, _) => Ok(array.value(at)),
            (false, Some(fill)) => Ok(fill as i64),
            (false, None) => Err(self.missing(chunk, self.row(at))),
        };
        let filled = if array.null_count() == 0 {
            array.clone()
        } else {
            let values = (0..array.len()).map(value).collect::<Result<Vec<i64>, _>>()?;
            Int64Array::from(values)
        };
        if let Some(classes) = self.classes {
            let outside =
                |&value: &i64| u64::try_from(value).map_or(true, |value| value >= classes);
            if let Some(at) = filled.values().iter().position(outside) {
                return Err(DataError::LabelOutOfRange {
                    column: self.name.clone(),
                    place: chunk.place(self.row(at)),
                    value: filled.value(at),
                    classes,
                });
            }
        }
        Ok(Arc::new(filled))
    }

    fn row(&self, element: usize) -> usize {
        element / self.width()
    }

    fn missing(&self, chunk: &Chunk, row: usize) -> DataError {
        DataError::Missing { column: self.name.clone(), place: chunk.place(row) }
    }

    fn unusable(&self, chunk: &Chunk, reason: &str) -> DataError {
        DataError::NotANumber {
            column: self.name.clone(),
            place: format!("or after {}", chunk.place(0)),
            found: reason.to_owned(),
            expected: match self.element {
                ElementType::F32 => "a number",
                ElementType::I64 => "an integer of 64 bits",
            },
        }
    }

    /// The elements of a converted column.
    pub(super) fn converted_floats<'a>(&self, array: &'a ArrayRef) -> &'a [f32] {
        let elements = match self.form {
            Form::Scalar => array,
            Form::List(_) => array.as_fixed_size_list().values(),
        };
        elements.as_primitive_opt::<Float32Type>().map_or(&[], |floats| floats.values())
    }
}

/// The first and the last of the offsets of lists.
fn ends<O: Copy + Default>(offsets: &[O]) -> (O, O) {
    let default = O::default();
    (*offsets.first().unwrap_or(&default), *offsets.last().unwrap_or(&default))
}

/// The values of a column as text, by which rows are grouped or held out.
pub(super) fn as_text(chunk: &Chunk, column: usize) -> Result<arrow_array::StringArray, DataError> {
    let name = chunk.batch.schema().field(column).name().clone();
    let array = chunk.batch.column(column);
    if let Some(row) = (0..array.len()).find(|&row| array.is_null(row)) {
        return Err(DataError::Missing { column: name, place: chunk.place(row) });
    }
    let cast = cast_with_options(array, &DataType::Utf8, &CastOptions::default());
    let found = array.data_type().to_string();
    cast.map(|text| text.as_string::<i32>().clone()).map_err(|_| DataError::WrongType {
        file: chunk.file.to_string(),
        column: name,
        found,
        expected: "text, a number or a boolean".to_owned(),
    })
}
