//! What was asked for, made precise by what the source holds.

use std::collections::BTreeMap;

use arrow_schema::{DataType, Schema};

use super::convert::{Conversion, Form};
use super::source::Table;
use crate::data::columns::Selection;
use crate::data::{DataError, ElementType, TensorColumns, TensorEntry, TensorSpec};

/// A tensor that was found possible.
pub(super) struct Resolved {
    /// The entry for the catalogue; its normalisation is known once the rows were seen.
    pub(super) entry: TensorEntry,
    /// How each of its columns is converted, by the column's number in the source.
    pub(super) conversions: BTreeMap<usize, Conversion>,
}

/// Finds the columns of a tensor in the source and settles element type and shape.
pub(super) fn resolve(
    source: &str,
    table: &dyn Table,
    wanted: &TensorColumns,
) -> Result<Resolved, DataError> {
    let schema = table.schema();
    let columns = select(source, schema, &wanted.columns)?;
    let name = &wanted.name;
    if columns.is_empty() {
        return Err(DataError::Request(format!("tensor `{name}` is made of no column")));
    }
    let kinds = columns
        .iter()
        .map(|&column| kind(source, table, name, column))
        .collect::<Result<Vec<_>, _>>()?;
    let element = element(source, schema, wanted, &columns, &kinds)?;
    let (shape, form) = shape(source, table, wanted, &columns, &kinds)?;
    if wanted.classes.is_some() && element != ElementType::I64 {
        return Err(DataError::Request(format!(
            "tensor `{name}` has `classes`, so it must be of integers that are not normalised"
        )));
    }
    let conversion = |(position, &column): (usize, &usize)| {
        let conversion = Conversion {
            name: schema.field(column).name().clone(),
            element,
            form,
            position,
            classes: wanted.classes,
            fill_missing: wanted.fill_missing,
        };
        (column, conversion)
    };
    let conversions = columns.iter().enumerate().map(conversion).collect();
    let entry = TensorEntry {
        spec: TensorSpec { classes: wanted.classes, ..TensorSpec::new(name, element, shape) },
        columns: columns.iter().map(|&column| schema.field(column).name().clone()).collect(),
        fill_missing: wanted.fill_missing,
        normalization: None,
    };
    Ok(Resolved { entry, conversions })
}

/// The number of the column called `name`.
pub(super) fn find(source: &str, schema: &Schema, name: &str) -> Result<usize, DataError> {
    schema.index_of(name).map_err(|_| DataError::NoSuchColumn {
        file: source.to_owned(),
        column: name.to_owned(),
        known: schema.fields().iter().map(|field| field.name().clone()).collect(),
    })
}

fn select(source: &str, schema: &Schema, columns: &Selection) -> Result<Vec<usize>, DataError> {
    let (Selection::These(names) | Selection::AllExcept(names)) = columns;
    let named = names.iter().map(|name| find(source, schema, name));
    let named = named.collect::<Result<Vec<_>, _>>()?;
    Ok(match columns {
        Selection::These(_) => named,
        Selection::AllExcept(_) => {
            (0..schema.fields().len()).filter(|column| !named.contains(column)).collect()
        }
    })
}

/// What a column can give to a tensor.
#[derive(Clone, Copy, PartialEq)]
struct Kind {
    floats: bool,
    list: bool,
}

fn kind(source: &str, table: &dyn Table, tensor: &str, column: usize) -> Result<Kind, DataError> {
    let field = table.schema().field(column);
    let (item, list) = match field.data_type() {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            (item.data_type(), true)
        }
        data_type => (data_type, false),
    };
    if item.is_integer() || *item == DataType::Boolean {
        return Ok(Kind { floats: false, list });
    }
    if item.is_floating() || matches!(item, DataType::Decimal128(..) | DataType::Decimal256(..)) {
        return Ok(Kind { floats: true, list });
    }
    Err(table.first_text(column).unwrap_or_else(|| DataError::WrongType {
        file: source.to_owned(),
        column: field.name().clone(),
        found: format!("of type {}", field.data_type()),
        expected: format!("a number or a list of numbers (for tensor `{tensor}`)"),
    }))
}

fn element(
    source: &str,
    schema: &Schema,
    wanted: &TensorColumns,
    columns: &[usize],
    kinds: &[Kind],
) -> Result<ElementType, DataError> {
    let floats = kinds.iter().position(|kind| kind.floats);
    let name = &wanted.name;
    match (wanted.element, floats) {
        (Some(ElementType::I64), Some(at)) => {
            let field = schema.field(columns[at]);
            Err(DataError::WrongType {
                file: source.to_owned(),
                column: field.name().clone(),
                found: format!("of type {}", field.data_type()),
                expected: format!("an integer (for tensor `{name}` of int64)"),
            })
        }
        (Some(ElementType::I64), None) if wanted.normalization.is_some() => {
            Err(DataError::Request(format!(
                "tensor `{name}` cannot be int64 and normalised; normalised values are float32"
            )))
        }
        (Some(element), _) => Ok(element),
        (None, None) if wanted.normalization.is_none() => Ok(ElementType::I64),
        (None, _) => Ok(ElementType::F32),
    }
}

fn shape(
    source: &str,
    table: &dyn Table,
    wanted: &TensorColumns,
    columns: &[usize],
    kinds: &[Kind],
) -> Result<(Vec<usize>, Form), DataError> {
    let name = &wanted.name;
    let schema = table.schema();
    let (natural, form) = match (kinds, columns) {
        ([kind], &[column]) if kind.list => {
            let natural = match table.row_shape(column) {
                Some(shape) => shape,
                None => vec![list_length(source, table, wanted, column)?],
            };
            let length = natural.iter().product();
            (natural, Form::List(length))
        }
        (_, [_]) => (Vec::new(), Form::Scalar),
        _ => {
            if let Some(at) = kinds.iter().position(|kind| kind.list) {
                let field = schema.field(columns[at]);
                return Err(DataError::WrongType {
                    file: source.to_owned(),
                    column: field.name().clone(),
                    found: format!("of type {}", field.data_type()),
                    expected: format!(
                        "a number beside the other columns of tensor `{name}` (a list makes a tensor of its own)"
                    ),
                });
            }
            (vec![columns.len()], Form::Scalar)
        }
    };
    let elements: usize = natural.iter().product();
    if elements == 0 {
        return Err(DataError::Request(format!("rows of tensor `{name}` have no elements")));
    }
    let shape = wanted.shape.clone().unwrap_or(natural);
    if shape.iter().product::<usize>() != elements {
        return Err(DataError::Request(format!(
            "rows of tensor `{name}` have {elements} elements, which do not fill the shape {shape:?}"
        )));
    }
    Ok((shape, form))
}

/// The length of a list column: declared by its type or by the tensor's shape, or else that of the
/// first list, with which all others are compared as they are read.
fn list_length(
    source: &str,
    table: &dyn Table,
    wanted: &TensorColumns,
    column: usize,
) -> Result<usize, DataError> {
    use arrow_array::Array;
    use arrow_array::cast::AsArray;
    let field = table.schema().field(column);
    if let DataType::FixedSizeList(_, length) = field.data_type() {
        return Ok(*length as usize);
    }
    if let Some(shape) = &wanted.shape {
        return Ok(shape.iter().product());
    }
    let Some(chunk) = table.scan(&[column])?.next().transpose()? else {
        return Err(DataError::NoRows { location: source.to_owned() });
    };
    let array = chunk.batch.column(0);
    let first = (0..array.len()).find(|&row| array.is_valid(row)).unwrap_or(0);
    let length = match field.data_type() {
        DataType::LargeList(_) => array.as_list::<i64>().value_length(first) as usize,
        _ => array.as_list::<i32>().value_length(first) as usize,
    };
    if length == 0 {
        let (column, place) = (field.name().clone(), chunk.place(first));
        return Err(DataError::Ragged { column, place, found: 0, expected: 1 });
    }
    Ok(length)
}
