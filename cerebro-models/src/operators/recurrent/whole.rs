//! A direction of a recurrent network as one node over all time steps, and one back.

use super::{Direction, part};
use crate::autodiff::Forward;
use crate::graph::{Attributes, Builder, Call, Transposed, Type, Value};
use crate::kernels::{GRU, GRU_GRADIENT, LSTM, LSTM_GRADIENT, RNN, RNN_GRADIENT};
use crate::operators::fused::may_fuse;
use crate::operators::{Gradients, Node, Operator, Site};

pub(in crate::operators) const OPERATORS: &[Operator] = &[
    Operator::rule(LSTM, lstm_shape, lstm),
    Operator::rule(GRU, gru_shape, gru),
    Operator::rule(RNN, states_shape, rnn),
    Operator::opaque(LSTM_GRADIENT, lstm_gradient_shape),
    Operator::opaque(GRU_GRADIENT, gradient_shape),
    Operator::opaque(RNN_GRADIENT, gradient_shape),
];

/// Whether a node may be one over all steps: with the usual activations, and no peepholes.
pub(super) fn is_whole(forward: &Forward<'_>, node: &Node<'_>, op: &str) -> bool {
    let is_usual = |names: &[String]| match op {
        "LSTM" => names.chunks(3).all(|names| names == ["Sigmoid", "Tanh", "Tanh"]),
        "GRU" => names.chunks(2).all(|names| names == ["Sigmoid", "Tanh"]),
        _ => names.iter().all(|name| ["Tanh", "Relu"].contains(&name.as_str())),
    };
    let values: Vec<Value> = [0, 1, 2].into_iter().filter_map(|at| node.input(at)).collect();
    let elements = |&value: &Value| forward.graph.value_type(value).elements();
    node.input(7).is_none()
        && node.attributes.texts("activations").is_none_or(is_usual)
        && may_fuse(forward.graph, &values)
        && values.iter().all(|value| elements(value) > 0)
}

/// All steps in one node per direction.
pub(super) fn whole(
    forward: &mut Forward<'_>,
    node: &Node<'_>,
    op: &str,
    types: &[Type],
    direction: &str,
) -> Result<Vec<Value>, String> {
    let &[steps, directions, batch, hidden] = types[0].dims.as_slice() else {
        return Err("its output has no four axes".to_owned());
    };
    let (mut all, mut last_hidden, mut last_cell) = (Vec::new(), Vec::new(), Vec::new());
    for which in 0..directions {
        let reverse = direction == "reverse" || which == 1;
        let mut run = Direction { forward, node, op, which, steps, batch, hidden };
        let (states, cell) = run.whole(reverse)?;
        let last = part(forward, states, 0, if reverse { 0 } else { steps - 1 }, 1)?;
        last_hidden.push(Some(last));
        if let Some(cell) = cell {
            last_cell.push(Some(forward.reshape(cell, &[1, batch, hidden])?));
        }
        all.push(Some(forward.reshape(states, &[steps, 1, batch, hidden])?));
    }
    let mut results = Vec::with_capacity(3);
    for (parts, axis) in [(all, 1_i64), (last_hidden, 0), (last_cell, 0)] {
        match parts.as_slice() {
            &[] => {}
            &[Some(one)] => results.push(one),
            parts => {
                let along = Attributes::none().with("axis", axis);
                results.push(forward.apply("Concat", parts, along)?);
            }
        }
    }
    results.truncate(node.outputs);
    Ok(results)
}

impl Direction<'_, '_> {
    /// The hidden states of all steps, in their order, and the last cell state, by one node.
    fn whole(&mut self, reverse: bool) -> Result<(Value, Option<Value>), String> {
        let given = self.given()?;
        let mut inputs = vec![given.projected, given.recurrence, given.state];
        let attributes = Attributes::none().with("reverse", i64::from(reverse));
        let (op, attributes, outputs) = match self.op {
            "LSTM" => {
                inputs.push(self.first_state(6)?);
                (LSTM, attributes, 4)
            }
            "GRU" => {
                if given.late {
                    let bias = self.bias_or_zeros(given.late_bias, given.projected);
                    inputs.push(bias);
                }
                (GRU, attributes.with("late", i64::from(given.late)), 2)
            }
            _ => {
                let rectified = self.activations()?[0] == "Relu";
                (RNN, attributes.with("rectified", i64::from(rectified)), 1)
            }
        };
        let inputs: Vec<Option<Value>> = inputs.into_iter().map(Some).collect();
        let outputs = self.forward.apply_with_outputs(op, &inputs, attributes, outputs)?;
        Ok((outputs[0], outputs.get(3).copied()))
    }

    fn bias_or_zeros(&mut self, bias: Option<Value>, projected: Value) -> Value {
        let graph = &mut *self.forward.graph;
        bias.unwrap_or_else(|| {
            graph.fill(0.0, graph.data_type(projected), &[graph.dims(projected)[1]])
        })
    }
}

/// Projected inputs, weights and first states: hidden states.
fn states_shape(call: &Call<'_>) -> Result<Vec<Type>, String> {
    let (rows, state) = (call.dims(0)?[0], call.dims(2)?);
    let &[batch, hidden] = state else {
        return Err(format!("its state {state:?} should have two axes"));
    };
    let steps = rows.checked_div(batch).unwrap_or(0);
    Ok(vec![Type::new(call.data_type(0)?, [steps, batch, hidden])])
}

/// The same; gates, cell states and the last one.
fn lstm_shape(call: &Call<'_>) -> Result<Vec<Type>, String> {
    let states = states_shape(call)?.remove(0);
    let (gates, state) = (call.value_type(0)?.clone(), call.value_type(2)?.clone());
    Ok(vec![states.clone(), gates, states, state])
}

/// The same; gates and what belongs to the reset gate.
fn gru_shape(call: &Call<'_>) -> Result<Vec<Type>, String> {
    let states = states_shape(call)?.remove(0);
    let kept = Type::new(states.data_type, [call.dims(0)?[0], 4 * states.dims[2]]);
    Ok(vec![states, kept])
}

/// Gradient of the hidden states, these, weights, a first state: the gradients of what the input
/// contributed, of the first state, of what the recurrence contributed.
fn gradient_shape(call: &Call<'_>) -> Result<Vec<Type>, String> {
    let (&[steps, batch, _], &[gates, _]) = (call.dims(1)?, call.dims(2)?) else {
        return Err("its states or weights have other axes".to_owned());
    };
    let by_gates = Type::new(call.data_type(1)?, [steps * batch, gates]);
    Ok(vec![by_gates.clone(), call.value_type(3)?.clone(), by_gates])
}

/// The same; the third one is that of the first cell state.
fn lstm_gradient_shape(call: &Call<'_>) -> Result<Vec<Type>, String> {
    let state = call.value_type(3)?.clone();
    Ok(vec![gradient_shape(call)?.remove(0), state.clone(), state])
}

/// Gradients through all steps, of a node whose first state is `first` and which kept `kept`.
fn back(
    g: &mut Builder,
    at: &Site<'_>,
    op: &str,
    first: Value,
    kept: &[Value],
    outputs: usize,
) -> Vec<Value> {
    let mut inputs = vec![at.dy_or_zeros(g, 0), at.y(0), at.x(1), first];
    inputs.extend(kept);
    let inputs: Vec<Option<Value>> = inputs.into_iter().map(Some).collect();
    g.emit(op, &inputs, at.attributes.clone(), outputs)
}

/// The hidden states before all steps, a row for each step and row of a batch.
fn before(g: &mut Builder, at: &Site<'_>) -> Result<Value, String> {
    let &[steps, batch, hidden] = g.dims(at.y(0)) else {
        return Err("its states have no three axes".to_owned());
    };
    let first = g.reshape(at.x(2), &[1, batch, hidden]);
    let length = steps as i64;
    let before = if steps == 1 {
        first
    } else if at.attributes.flag("reverse") {
        let later = g.slice(at.y(0), 0, 1, length, 1);
        g.concat(&[later, first], 0)
    } else {
        let earlier = g.slice(at.y(0), 0, 0, length - 1, 1);
        g.concat(&[first, earlier], 0)
    };
    Ok(g.reshape(before, &[steps * batch, hidden]))
}

/// The gradient by the weights is one product over all steps.
fn by_weights(g: &mut Builder, by_gates: Value, states: Value) -> Value {
    g.gemm((by_gates, Transposed::Yes), (states, Transposed::No))
}

fn lstm(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let kept = [at.y(1), at.y(2), at.dy_or_zeros(g, 3)];
    let outputs = back(g, at, LSTM_GRADIENT, at.x(3), &kept, 3);
    let before = before(g, at)?;
    let by_recurrence = by_weights(g, outputs[0], before);
    Ok([outputs[0], by_recurrence, outputs[1], outputs[2]].map(Some).to_vec())
}

fn rnn(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let outputs = back(g, at, RNN_GRADIENT, at.x(2), &[], 2);
    let before = before(g, at)?;
    let by_recurrence = by_weights(g, outputs[0], before);
    Ok([outputs[0], by_recurrence, outputs[1]].map(Some).to_vec())
}

fn gru(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let (kept, late) = (at.y(1), at.attributes.flag("late"));
    let outputs = back(g, at, GRU_GRADIENT, at.x(2), &[kept], if late { 3 } else { 2 });
    let before = before(g, at)?;
    if late {
        let by_recurrence = by_weights(g, outputs[2], before);
        let dims = g.dims(at.x(3)).to_vec();
        let by_bias = g.sum_to(outputs[2], &dims);
        return Ok([outputs[0], by_recurrence, outputs[1], by_bias].map(Some).to_vec());
    }
    // The candidate's weights multiply what the reset gate leaves of the states.
    let hidden = g.dims(at.x(2))[1] as i64;
    let remembered = g.slice(kept, 1, 3 * hidden, 4 * hidden, 1);
    let by_gates = g.slice(outputs[0], 1, 0, 2 * hidden, 1);
    let by_candidate = g.slice(outputs[0], 1, 2 * hidden, 3 * hidden, 1);
    let parts = [by_weights(g, by_gates, before), by_weights(g, by_candidate, remembered)];
    let by_recurrence = g.concat(&parts, 0);
    Ok([outputs[0], by_recurrence, outputs[1]].map(Some).to_vec())
}
