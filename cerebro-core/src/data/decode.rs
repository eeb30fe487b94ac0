//! Column chunks of a Parquet file, decoded straight into tensors.
//!
//! The pages of a column are decoded into the tensor's own memory where column and tensor agree
//! (one list or scalar column of the tensor's element type), and by way of a block of rows that
//! stays in the processor's cache where they do not. There is no copy of a partition as Arrow
//! arrays in between.

use std::panic::{AssertUnwindSafe, catch_unwind};

use ndarray::ArrayD;
use parquet::basic::{ConvertedType, LogicalType, Type as Physical};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{DataType, FloatType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, FileReader, RowGroupReader, SerializedFileReader};
use parquet::schema::types::{ColumnDescriptor, SchemaDescriptor};

use super::catalogue::{Scaling, TensorEntry};
use super::{DataError, ElementType, Tensor};

/// What is being decoded, for checks and for messages.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) file: &'a str,
    /// The rows that the catalogue promises.
    pub(super) rows: usize,
}

impl Source<'_> {
    fn corrupt(&self, reason: impl Into<String>) -> DataError {
        DataError::Corrupt { file: self.file.to_owned(), format: "Parquet", reason: reason.into() }
    }

    fn parquet(&self, error: &ParquetError) -> DataError {
        self.corrupt(error.to_string())
    }

    fn place(&self, row: usize) -> String {
        format!("row {row} of `{}` (rows count from 0)", self.file)
    }
}

/// Rows that are decoded at a time: a block of 100 columns stays in a second-level cache.
///
/// Not a power of two, or the columns of a block would begin 4 KiB apart and contend for the same
/// places of the first-level cache while they are transposed.
const BLOCK_ROWS: usize = 1000;

/// Scalar columns that are written to the matrix at a time: as many `f32` as a cache line holds.
const GROUP_COLUMNS: usize = 16;

/// The tensors of a Parquet file.
pub(super) fn tensors<R: ChunkReader + 'static>(
    input: R,
    source: Source<'_>,
    entries: &[TensorEntry],
) -> Result<Vec<Tensor>, DataError> {
    without_panic(source.file, || decode(input, source, entries))
}

/// Reads Parquet, on whose damaged files the reader of version 60 panics at times.
pub(super) fn without_panic<T>(
    file: &str,
    read: impl FnOnce() -> Result<T, DataError>,
) -> Result<T, DataError> {
    // What was being read is dropped with the closure, so nobody sees it half done.
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|panic| {
        let words = panic.downcast_ref::<String>().cloned();
        let words = words.or_else(|| panic.downcast_ref::<&str>().map(|&words| words.to_owned()));
        let reason = words.unwrap_or_else(|| "its reader failed".to_owned());
        Err(DataError::Corrupt { file: file.to_owned(), format: "Parquet", reason })
    })
}

fn decode<R: ChunkReader + 'static>(
    input: R,
    source: Source<'_>,
    entries: &[TensorEntry],
) -> Result<Vec<Tensor>, DataError> {
    let reader = SerializedFileReader::new(input).map_err(|error| source.parquet(&error))?;
    let rows = reader.metadata().file_metadata().num_rows();
    if rows != source.rows as i64 {
        let expected = source.rows;
        return Err(source.corrupt(format!("it has {rows} rows, the catalogue says {expected}")));
    }
    let one = |entry: &TensorEntry| match entry.spec.element {
        ElementType::F32 => Decoder::<f32>::new(source, entry, &reader)?.run(&reader),
        ElementType::I64 => Decoder::<i64>::new(source, entry, &reader)?.run(&reader),
    };
    entries.iter().map(one).collect()
}

/// A column of a tensor, found in the file's schema.
struct Column<'a> {
    name: &'a str,
    leaf: usize,
    /// The elements that a row of the tensor takes from it.
    width: usize,
    levels: Levels,
    unsigned: bool,
}

/// How a column marks what is missing and where lists begin (Dremel's definition and repetition
/// levels; Melnik et al., "Dremel: Interactive Analysis of Web-Scale Datasets", 2010).
#[derive(Clone, Copy)]
struct Levels {
    present: i16,
    list: bool,
    /// The definition level of a list without elements.
    empty: i16,
}

impl<'a> Column<'a> {
    fn find(
        source: Source<'_>,
        schema: &SchemaDescriptor,
        entry: &TensorEntry,
        name: &'a str,
    ) -> Result<Self, DataError> {
        let root = |leaf: &usize| schema.get_column_root(*leaf).name() == name;
        let leaves: Vec<usize> = (0..schema.num_columns()).filter(root).collect();
        let fields = schema.root_schema().get_fields();
        let [leaf] = leaves[..] else {
            let file = source.file.to_owned();
            let column = name.to_owned();
            if leaves.is_empty() {
                let known = fields.iter().map(|field| field.name().to_owned()).collect();
                return Err(DataError::NoSuchColumn { file, column, known });
            }
            let (found, expected) = ("a structure".to_owned(), "a number or a list".to_owned());
            return Err(DataError::WrongType { file, column, found, expected });
        };
        let descriptor = schema.column(leaf);
        let list = descriptor.max_rep_level() == 1;
        let single = entry.columns.len() == 1;
        let width = if list { entry.spec.row_len() } else { 1 };
        let fits_shape = if list { single } else { !single || entry.spec.row_len() == 1 };
        if !is_number(&descriptor, entry.spec.element)
            || !fits_shape
            || descriptor.max_rep_level() > 1
        {
            return Err(DataError::WrongType {
                file: source.file.to_owned(),
                column: name.to_owned(),
                found: described(&descriptor),
                expected: format!("{} for tensor {}", entry.spec.element, entry.spec),
            });
        }
        let optional = i16::from(schema.get_column_root(leaf).is_optional());
        let levels = Levels { present: descriptor.max_def_level(), list, empty: optional };
        Ok(Self { name, leaf, width, levels, unsigned: is_unsigned(&descriptor) })
    }
}

fn is_number(column: &ColumnDescriptor, element: ElementType) -> bool {
    let integers = matches!(
        column.converted_type(),
        ConvertedType::NONE
            | ConvertedType::INT_8
            | ConvertedType::INT_16
            | ConvertedType::INT_32
            | ConvertedType::INT_64
            | ConvertedType::UINT_8
            | ConvertedType::UINT_16
            | ConvertedType::UINT_32
            | ConvertedType::UINT_64
    ) && matches!(column.logical_type_ref(), None | Some(LogicalType::Integer(_)));
    match column.physical_type() {
        Physical::BOOLEAN => true,
        Physical::INT32 | Physical::INT64 => integers,
        Physical::FLOAT | Physical::DOUBLE => element == ElementType::F32,
        _ => false,
    }
}

fn is_unsigned(column: &ColumnDescriptor) -> bool {
    matches!(column.converted_type(), ConvertedType::UINT_32 | ConvertedType::UINT_64)
}

fn described(column: &ColumnDescriptor) -> String {
    let list = match column.max_rep_level() {
        0 => "",
        1 => "a list of ",
        _ => "nested lists of ",
    };
    match column.converted_type() {
        ConvertedType::NONE => format!("{list}{}", column.physical_type()),
        converted => format!("{list}{} ({converted})", column.physical_type()),
    }
}

/// An element type of tensors, and how the file's numbers become it.
trait Element: Copy + Default + PartialOrd + 'static {
    /// The Parquet type that is decoded without conversion.
    type Stored: DataType<T = Self>;

    fn direct(reader: &mut ColumnReader) -> Option<&mut ColumnReaderImpl<Self::Stored>>;
    fn from_bool(value: bool) -> Self;
    fn from_i64(value: i64) -> Self;
    fn from_f64(value: f64) -> Self;
    fn scale(values: &mut [Self], scaling: &Scaling);
    fn tensor(array: ArrayD<Self>) -> Tensor;
}

impl Element for f32 {
    type Stored = FloatType;

    fn direct(reader: &mut ColumnReader) -> Option<&mut ColumnReaderImpl<FloatType>> {
        match reader {
            ColumnReader::FloatColumnReader(reader) => Some(reader),
            _ => None,
        }
    }

    fn from_bool(value: bool) -> Self {
        f32::from(u8::from(value))
    }

    fn from_i64(value: i64) -> Self {
        value as f32
    }

    fn from_f64(value: f64) -> Self {
        value as f32
    }

    fn scale(values: &mut [Self], scaling: &Scaling) {
        if let ([shift], [scale]) = (&scaling.shift[..], &scaling.scale[..]) {
            for value in values {
                *value = (*value - shift) * scale;
            }
            return;
        }
        for row in values.chunks_exact_mut(scaling.shift.len()) {
            for ((value, shift), scale) in row.iter_mut().zip(&scaling.shift).zip(&scaling.scale) {
                *value = (*value - shift) * scale;
            }
        }
    }

    fn tensor(array: ArrayD<f32>) -> Tensor {
        Tensor::F32(array)
    }
}

impl Element for i64 {
    type Stored = Int64Type;

    fn direct(reader: &mut ColumnReader) -> Option<&mut ColumnReaderImpl<Int64Type>> {
        match reader {
            ColumnReader::Int64ColumnReader(reader) => Some(reader),
            _ => None,
        }
    }

    fn from_bool(value: bool) -> Self {
        i64::from(value)
    }

    fn from_i64(value: i64) -> Self {
        value
    }

    fn from_f64(value: f64) -> Self {
        // `Column::find` refuses floats for this type.
        value as i64
    }

    fn scale(_: &mut [Self], _: &Scaling) {}

    fn tensor(array: ArrayD<i64>) -> Tensor {
        Tensor::I64(array)
    }
}

/// Decodes one tensor.
struct Decoder<'a, T> {
    source: Source<'a>,
    entry: &'a TensorEntry,
    columns: Vec<Column<'a>>,
    /// The tensor's elements so far, row by row.
    values: Vec<T>,
    scratch: Scratch,
    block: Vec<T>,
}

#[derive(Default)]
struct Scratch {
    definitions: Vec<i16>,
    repetitions: Vec<i16>,
}

impl<'a, T: Element> Decoder<'a, T> {
    fn new<R: ChunkReader + 'static>(
        source: Source<'a>,
        entry: &'a TensorEntry,
        reader: &SerializedFileReader<R>,
    ) -> Result<Self, DataError> {
        let schema = reader.metadata().file_metadata().schema_descr();
        let find = |name: &'a String| Column::find(source, schema, entry, name);
        let columns = entry.columns.iter().map(find).collect::<Result<_, _>>()?;
        let values = Vec::with_capacity(source.rows * entry.spec.row_len());
        Ok(Self { source, entry, columns, values, scratch: Scratch::default(), block: Vec::new() })
    }

    fn run<R: ChunkReader + 'static>(
        mut self,
        reader: &SerializedFileReader<R>,
    ) -> Result<Tensor, DataError> {
        for group in 0..reader.num_row_groups() {
            let group = reader.get_row_group(group).map_err(|error| self.source.parquet(&error))?;
            self.row_group(&*group)?;
        }
        let rows = self.source.rows;
        let shape: Vec<usize> =
            std::iter::once(rows).chain(self.entry.spec.shape.iter().copied()).collect();
        let array = ArrayD::from_shape_vec(shape, self.values);
        array.map(T::tensor).map_err(|error| self.source.corrupt(error.to_string()))
    }

    fn row_group(&mut self, group: &dyn RowGroupReader) -> Result<(), DataError> {
        let open = |column: &Column<'_>| group.get_column_reader(column.leaf);
        let readers = self.columns.iter().map(open).collect::<Result<Vec<_>, _>>();
        let mut readers = readers.map_err(|error| self.source.parquet(&error))?;
        let mut left = usize::try_from(group.metadata().num_rows())
            .map_err(|_| self.source.corrupt("it has a row group with a negative row count"))?;
        while left > 0 {
            let rows = left.min(BLOCK_ROWS);
            let start = self.values.len();
            self.rows(&mut readers, rows)?;
            if let Some(scaling) = &self.entry.normalization {
                T::scale(&mut self.values[start..], scaling);
            }
            left -= rows;
        }
        Ok(())
    }

    /// Decodes the next `rows` rows of all columns.
    fn rows(&mut self, readers: &mut [ColumnReader], rows: usize) -> Result<(), DataError> {
        let row_len = self.entry.spec.row_len();
        let (source, scratch) = (self.source, &mut self.scratch);
        let first = self.values.len() / row_len.max(1);
        if let ([column], [reader]) = (&self.columns[..], &mut readers[..]) {
            let block = Block { source, column, first, rows };
            return read_column(reader, block, scratch, &mut self.values);
        }
        let start = self.values.len();
        self.values.resize(start + rows * row_len, T::default());
        let out = &mut self.values[start..];
        let groups = self.columns.chunks(GROUP_COLUMNS).zip(readers.chunks_mut(GROUP_COLUMNS));
        for (number, (columns, readers)) in groups.enumerate() {
            self.block.clear();
            for (column, reader) in columns.iter().zip(readers) {
                let block = Block { source, column, first, rows };
                read_column(reader, block, scratch, &mut self.block)?;
            }
            transpose(&self.block, rows, &mut out[number * GROUP_COLUMNS..], row_len);
        }
        Ok(())
    }
}

/// Writes columns of `rows` values each, one after the other in `block`, to adjacent places of the
/// rows of `out`.
fn transpose<T: Copy>(block: &[T], rows: usize, out: &mut [T], row_len: usize) {
    let columns = block.len() / rows;
    for (row, out) in out.chunks_mut(row_len).enumerate() {
        for (column, to) in out[..columns].iter_mut().enumerate() {
            *to = block[column * rows + row];
        }
    }
}

/// Rows of a column that are decoded at once.
#[derive(Clone, Copy)]
struct Block<'a> {
    source: Source<'a>,
    column: &'a Column<'a>,
    first: usize,
    rows: usize,
}

/// Appends the block's elements to `out`.
fn read_column<T: Element>(
    reader: &mut ColumnReader,
    block: Block<'_>,
    scratch: &mut Scratch,
    out: &mut Vec<T>,
) -> Result<(), DataError> {
    let unsigned = block.column.unsigned;
    if !unsigned && let Some(reader) = T::direct(reader) {
        return read_values(reader, block, scratch, out);
    }
    match reader {
        ColumnReader::BoolColumnReader(reader) => {
            converted(reader, block, scratch, out, |value| Some(T::from_bool(value)))
        }
        ColumnReader::Int32ColumnReader(reader) if unsigned => {
            converted(reader, block, scratch, out, |value| {
                Some(T::from_i64(i64::from(value.cast_unsigned())))
            })
        }
        ColumnReader::Int32ColumnReader(reader) => {
            converted(reader, block, scratch, out, |value| Some(T::from_i64(i64::from(value))))
        }
        ColumnReader::Int64ColumnReader(reader) => {
            // A negative number here is an unsigned one beyond what 63 bits hold.
            converted(reader, block, scratch, out, |value| {
                (!unsigned || value >= 0).then(|| T::from_i64(value))
            })
        }
        ColumnReader::FloatColumnReader(reader) => {
            converted(reader, block, scratch, out, |value| Some(T::from_f64(f64::from(value))))
        }
        ColumnReader::DoubleColumnReader(reader) => {
            converted(reader, block, scratch, out, |value| Some(T::from_f64(value)))
        }
        _ => Err(block.source.corrupt(format!(
            "column `{}` is not of the type that its schema says",
            block.column.name
        ))),
    }
}

fn converted<D: DataType, T: Element>(
    reader: &mut ColumnReaderImpl<D>,
    block: Block<'_>,
    scratch: &mut Scratch,
    out: &mut Vec<T>,
    convert: impl Fn(D::T) -> Option<T>,
) -> Result<(), DataError>
where
    D::T: Copy,
{
    let mut values = Vec::with_capacity(block.rows * block.column.width);
    read_values(reader, block, scratch, &mut values)?;
    for (at, &value) in values.iter().enumerate() {
        out.push(convert(value).ok_or_else(|| DataError::NotANumber {
            column: block.column.name.to_owned(),
            place: block.source.place(block.first + at / block.column.width),
            found: "an unsigned integer".to_owned(),
            expected: "a number below 2^63",
        })?);
    }
    Ok(())
}

/// Appends the block's values as they are stored, and checks that none is missing and that every
/// list has the length of the tensor's rows.
fn read_values<D: DataType>(
    reader: &mut ColumnReaderImpl<D>,
    block: Block<'_>,
    scratch: &mut Scratch,
    out: &mut Vec<D::T>,
) -> Result<(), DataError> {
    let Block { source, column, rows, .. } = block;
    let levels = column.levels;
    scratch.definitions.clear();
    scratch.repetitions.clear();
    let mut records = 0;
    let mut values = 0;
    while records < rows {
        let definitions = (levels.present > 0).then_some(&mut scratch.definitions);
        let repetitions = levels.list.then_some(&mut scratch.repetitions);
        let read = reader.read_records(rows - records, definitions, repetitions, out);
        let read = read.map_err(|error| source.parquet(&error))?;
        if read.0 == 0 {
            let name = column.name;
            return Err(source.corrupt(format!("column `{name}` ends before its row group does")));
        }
        records += read.0;
        values += read.1;
    }
    if levels.list {
        check_lists(block, scratch)?;
    } else if let Some(at) = scratch.definitions.iter().position(|&level| level != levels.present) {
        return Err(missing(block, at));
    }
    if values != rows * column.width {
        let name = column.name;
        return Err(source.corrupt(format!("column `{name}` has {values} values in {rows} rows")));
    }
    Ok(())
}

fn check_lists(block: Block<'_>, scratch: &Scratch) -> Result<(), DataError> {
    let Block { column, rows, source, first } = block;
    let present = column.levels.present;
    let all_present = scratch.definitions.iter().all(|&level| level == present);
    let starts_right = scratch.repetitions.len() == rows * column.width
        && scratch.repetitions.iter().step_by(column.width.max(1)).all(|&level| level == 0);
    if all_present && starts_right {
        return Ok(());
    }
    let mut row = 0;
    let mut length = 0;
    let ragged = |row: usize, found: usize| DataError::Ragged {
        column: column.name.to_owned(),
        place: source.place(first + row),
        found,
        expected: column.width,
    };
    for (at, (&repetition, &definition)) in
        scratch.repetitions.iter().zip(&scratch.definitions).enumerate()
    {
        if repetition == 0 && at > 0 {
            if length != column.width {
                return Err(ragged(row, length));
            }
            row += 1;
            length = 0;
        }
        if definition == column.levels.empty && definition != present {
            return Err(ragged(row, 0));
        }
        if definition != present {
            return Err(missing(block, row));
        }
        length += 1;
    }
    if length == column.width { Ok(()) } else { Err(ragged(row, length)) }
}

fn missing(block: Block<'_>, row: usize) -> DataError {
    DataError::Missing {
        column: block.column.name.to_owned(),
        place: block.source.place(block.first + row),
    }
}
