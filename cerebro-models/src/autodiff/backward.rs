//! [`differentiate`]: from the gradients of outputs to those of inputs.

use std::collections::{HashMap, HashSet};

use super::forward::{Record, Tape};
use crate::error::GraphError;
use crate::graph::{Builder, Value};
use crate::operators::{self, GradientRule, Kind, Site};

/// Emits the gradients by `wanted`, given those by the values of `seeds`. A wanted value on which
/// no seed depends has none.
///
/// Work is done only between `wanted` and `seeds`: nothing below frozen parameters.
pub(crate) fn differentiate(
    graph: &mut Builder,
    tape: &Tape,
    seeds: &[(Value, Value)],
    wanted: &[Value],
) -> Result<HashMap<Value, Value>, GraphError> {
    let dependent = dependent_on(graph, tape, wanted);
    let mut pending: HashMap<Value, Vec<Value>> = HashMap::new();
    for &(value, gradient) in seeds {
        pending.entry(value).or_default().push(gradient);
    }
    for record in tape.iter().rev() {
        let Some(rule) = rule_of(record) else { continue };
        if !record.outputs.iter().any(|output| dependent.contains(output)) {
            continue;
        }
        graph.set_place(&format!("{}/gradient", record.place));
        let output_gradients: Vec<Option<Value>> =
            record.outputs.iter().map(|output| total(graph, &mut pending, *output)).collect();
        if output_gradients.iter().all(Option::is_none) {
            continue;
        }
        for (input, gradient) in apply(graph, rule, record, &output_gradients)? {
            if dependent.contains(&input) {
                pending.entry(input).or_default().push(gradient);
            }
        }
    }
    graph.set_place("gradient");
    Ok(wanted
        .iter()
        .filter_map(|&value| Some((value, total(graph, &mut pending, value)?)))
        .collect())
}

fn rule_of(record: &Record) -> Option<GradientRule> {
    match operators::find(&record.op)?.kind {
        Kind::Rule(rule) | Kind::Lowered(_, rule) => Some(rule),
        Kind::Composed(_) | Kind::Made(_) | Kind::Flat | Kind::Opaque => None,
    }
}

/// The floating-point values that depend differentiably on one of `wanted`.
fn dependent_on(graph: &Builder, tape: &Tape, wanted: &[Value]) -> HashSet<Value> {
    let mut dependent: HashSet<Value> = wanted.iter().copied().collect();
    for record in tape {
        let reached = record.inputs.iter().flatten().any(|input| dependent.contains(input));
        if reached && rule_of(record).is_some() {
            let floats = record.outputs.iter().filter(|o| graph.data_type(**o).is_float());
            dependent.extend(floats);
        }
    }
    dependent
}

/// The sum of what has come in for `value`; kept, since a wanted value may be an output too.
fn total(
    graph: &mut Builder,
    pending: &mut HashMap<Value, Vec<Value>>,
    value: Value,
) -> Option<Value> {
    let parts = pending.get_mut(&value)?;
    let sum = graph.sum(parts)?;
    *parts = vec![sum];
    Some(sum)
}

fn apply(
    graph: &mut Builder,
    rule: GradientRule,
    record: &Record,
    output_gradients: &[Option<Value>],
) -> Result<Vec<(Value, Value)>, GraphError> {
    let refused = |reason: String| GraphError::Refused {
        op: record.op.clone(),
        node: record.place.clone(),
        reason: format!("its gradient cannot be written: {reason}"),
    };
    let site = Site {
        inputs: &record.inputs,
        outputs: &record.outputs,
        saved: &record.saved,
        attributes: &record.attributes,
        output_gradients,
    };
    let gradients = rule(graph, &site).map_err(refused)?;
    if let Some(reason) = graph.take_error() {
        return Err(refused(reason));
    }
    let mut found = Vec::with_capacity(gradients.len());
    for (input, gradient) in record.inputs.iter().zip(gradients) {
        let (Some(input), Some(gradient)) = (*input, gradient) else { continue };
        if graph.value_type(input) != graph.value_type(gradient) {
            let (expected, got) = (graph.value_type(input), graph.value_type(gradient));
            return Err(refused(format!("it is {got} for an input of {expected}")));
        }
        found.push((input, gradient));
    }
    Ok(found)
}
