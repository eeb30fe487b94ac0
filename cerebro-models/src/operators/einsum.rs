//! Einstein's summation convention.

use super::{Gradients, Operator, Site};
use crate::graph::{Attributes, Builder, Call, Type, Value, broadcast};

pub(super) const OPERATORS: &[Operator] = &[Operator::rule("Einsum", einsum_shape, einsum)];

/// An equation with a label for every axis: the ellipsis is written out.
#[derive(Debug)]
struct Equation {
    operands: Vec<Vec<char>>,
    output: Vec<char>,
}

/// The labels that stand for the axes of an ellipsis, counted from the last one.
const ELLIPSIS_LABELS: &str = "\u{3b1}\u{3b2}\u{3b3}\u{3b4}\u{3b5}\u{3b6}\u{3b7}\u{3b8}";

impl Equation {
    fn parse(call: &Call<'_>) -> Result<Self, String> {
        let text: String =
            call.attributes.text("equation", "").chars().filter(|c| !c.is_whitespace()).collect();
        let (left, right) = match text.split_once("->") {
            Some((left, right)) => (left, Some(right)),
            None => (text.as_str(), None),
        };
        let terms: Vec<&str> = left.split(',').collect();
        if terms.len() != call.inputs.len() {
            return Err(format!(
                "`{text}` has {} terms for {} inputs",
                terms.len(),
                call.inputs.len()
            ));
        }
        let mut operands = Vec::new();
        let mut widest = 0;
        for (index, term) in terms.iter().enumerate() {
            let rank = call.dims(index)?.len();
            let named = term.chars().filter(|c| *c != '.').count();
            let hidden = rank.checked_sub(named).ok_or_else(|| {
                format!("term `{term}` has more labels than the input has axes ({rank})")
            })?;
            widest = widest.max(hidden);
            let labels = written_out(term, hidden)?;
            if labels.len() != rank {
                return Err(format!("term `{term}` does not fit an input of {rank} axes"));
            }
            let repeated = (1..labels.len()).any(|at| labels[..at].contains(&labels[at]));
            if repeated {
                return Err(format!("term `{term}` repeats a label: diagonals are not supported"));
            }
            operands.push(labels);
        }
        let output = match right {
            Some(right) => written_out(right, widest)?,
            None => implicit_output(&operands, widest)?,
        };
        Ok(Self { operands, output })
    }
}

fn written_out(term: &str, hidden: usize) -> Result<Vec<char>, String> {
    let labels: Vec<char> = ELLIPSIS_LABELS.chars().take(hidden).collect();
    if labels.len() < hidden {
        return Err("an ellipsis stands for too many axes".to_owned());
    }
    let ellipsis: String = labels.into_iter().rev().collect();
    Ok(term.replace("...", &ellipsis).chars().collect())
}

/// Without `->` the output has the ellipsis, then every label that occurs once, in order.
fn implicit_output(operands: &[Vec<char>], hidden: usize) -> Result<Vec<char>, String> {
    let mut once: Vec<char> = operands
        .iter()
        .flatten()
        .copied()
        .filter(|label| !ELLIPSIS_LABELS.contains(*label))
        .filter(|label| operands.iter().flatten().filter(|other| *other == label).count() == 1)
        .collect();
    once.sort_unstable();
    let mut output = written_out("...", hidden)?;
    output.extend(once);
    Ok(output)
}

fn einsum_shape(call: &Call<'_>) -> Result<Vec<Type>, String> {
    let equation = Equation::parse(call)?;
    let size = |label: char| -> Result<usize, String> {
        let mut size = vec![1];
        for (index, labels) in equation.operands.iter().enumerate() {
            if let Some(axis) = labels.iter().position(|other| *other == label) {
                size = broadcast(&size, &[call.dims(index)?[axis]])?;
            }
        }
        Ok(size[0])
    };
    let dims = equation.output.iter().map(|&label| size(label)).collect::<Result<Vec<_>, _>>()?;
    Ok(vec![Type::new(call.data_type(0)?, dims)])
}

/// The gradient by one operand is the sum over the others and the output's gradient; along labels
/// that only this operand has, all elements have the same gradient.
fn einsum(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let equation = Equation::parse(&at.call(g))?;
    (0..at.inputs.len())
        .map(|which| {
            let own = &equation.operands[which];
            let mut terms = vec![(at.dy(), equation.output.clone())];
            for (other, labels) in equation.operands.iter().enumerate() {
                if other != which {
                    terms.push((at.x(other), labels.clone()));
                }
            }
            let kept: Vec<char> = own
                .iter()
                .copied()
                .filter(|label| terms.iter().any(|(_, labels)| labels.contains(label)))
                .collect();
            let partial = contract(g, &terms, &kept);
            let dims = g.dims(at.x(which)).to_vec();
            let missing: Vec<usize> =
                (0..own.len()).filter(|&axis| !kept.contains(&own[axis])).collect();
            let placed = g.unsqueeze(partial, &missing);
            let mut full = g.dims(placed).to_vec();
            for axis in missing {
                full[axis] = dims[axis];
            }
            let expanded = g.expand(placed, &full);
            Ok(Some(g.sum_to(expanded, &dims)))
        })
        .collect()
}

/// Emits an `Einsum` with labels that ONNX allows: letters.
fn contract(g: &mut Builder, terms: &[(Value, Vec<char>)], output: &[char]) -> Value {
    let mut seen: Vec<char> = Vec::new();
    for label in terms.iter().flat_map(|(_, labels)| labels).chain(output) {
        if !seen.contains(label) {
            seen.push(*label);
        }
    }
    let letters: Vec<char> = ('a'..='z').chain('A'..='Z').collect();
    let name = |labels: &[char]| -> String {
        let place = |label: &char| seen.iter().position(|other| other == label);
        labels.iter().filter_map(|label| letters.get(place(label)?)).collect()
    };
    let left: Vec<String> = terms.iter().map(|(_, labels)| name(labels)).collect();
    let equation = format!("{}->{}", left.join(","), name(output));
    let values: Vec<Value> = terms.iter().map(|(value, _)| *value).collect();
    g.op("Einsum", &values, Attributes::none().with("equation", equation.as_str()))
}
