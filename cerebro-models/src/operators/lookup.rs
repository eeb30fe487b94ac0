//! Rows of several tables side by side in one node, where a graph may have it.

use super::{Gradients, Operator, Site};
use crate::autodiff::Forward;
use crate::graph::{Attributes, Builder, Call, Type, Value};
use crate::kernels::{LOOKUPS, LOOKUPS_GRADIENT};

pub(super) const OPERATORS: &[Operator] = &[
    Operator::rule(LOOKUPS, lookups_shape, lookups),
    Operator::opaque(LOOKUPS_GRADIENT, lookups_gradient_shape),
];

/// The concatenation of `parts` as one node that picks their rows too, if it may be one.
pub(super) fn look_up(
    forward: &mut Forward<'_>,
    parts: &[Option<Value>],
    attributes: &Attributes,
) -> Option<Result<Vec<Value>, String>> {
    let found = forward.graph.as_lookups(parts, attributes)?;
    Some(forward.apply_with_outputs(LOOKUPS, &found.inputs, found.attributes, 1))
}

fn sizes(attributes: &Attributes, name: &str) -> Result<Vec<usize>, String> {
    let ints = attributes.ints(name).ok_or_else(|| format!("it has no `{name}`"))?;
    Ok(ints.iter().map(|&size| usize::try_from(size).unwrap_or(0)).collect())
}

fn rows(attributes: &Attributes) -> usize {
    usize::try_from(attributes.int("rows", 0)).unwrap_or(0)
}

fn width(call: &Call<'_>, input: usize) -> Result<usize, String> {
    match call.dims(input)? {
        &[_, width] => Ok(width),
        other => Err(format!("input {input} of the shape {other:?} is no table")),
    }
}

fn lookups_shape(call: &Call<'_>) -> Result<Vec<Type>, String> {
    let widths = (1..call.inputs.len()).map(|input| width(call, input));
    let wide = widths.sum::<Result<usize, String>>()?;
    Ok(vec![Type::new(call.data_type(1)?, [rows(call.attributes), wide])])
}

/// Whole numbers and the gradient by the rows: the gradients of tables and matrices.
fn lookups_gradient_shape(call: &Call<'_>) -> Result<Vec<Type>, String> {
    let element = call.data_type(1)?;
    let heights = sizes(call.attributes, "heights")?.into_iter();
    let heights = heights.map(|height| if height == 0 { rows(call.attributes) } else { height });
    let widths = sizes(call.attributes, "widths")?;
    Ok(heights.zip(widths).map(|(height, width)| Type::new(element, [height, width])).collect())
}

/// Rows that were picked several times get the sum of their gradients, rows that were not get 0.
fn lookups(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let call = at.call(g);
    let count = at.inputs.len() - 1;
    let widths: Result<Vec<usize>, String> = (1..=count).map(|input| width(&call, input)).collect();
    let widths: Vec<i64> = widths?.into_iter().map(|width| width as i64).collect();
    let attributes = at.attributes.clone().with("widths", widths);
    let gradients = g.emit(LOOKUPS_GRADIENT, &[Some(at.x(0)), Some(at.dy())], attributes, count);
    Ok([None].into_iter().chain(gradients.into_iter().map(Some)).collect())
}
