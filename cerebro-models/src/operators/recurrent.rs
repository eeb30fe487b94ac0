//! Recurrent networks: LSTM, GRU and the plain one.
//!
//! Training unrolls them over the time steps of their input, whose number is fixed, so that the
//! gradients of the operators that remain do the backpropagation through time. At inference the
//! operator runs as it is. With the usual activations they are one node over all steps where graphs
//! may have operators of Cerebro's own ([`whole`]).

pub(super) mod whole;

use super::{Node, Operator};
use crate::autodiff::{Forward, Mode};
use crate::graph::{Attributes, Call, Type, Value};
use crate::onnx::TensorData;

pub(super) const OPERATORS: &[Operator] = &[
    Operator::unrolled("LSTM", recurrent_shape, |forward, node| unroll(forward, node, "LSTM")),
    Operator::unrolled("GRU", recurrent_shape, |forward, node| unroll(forward, node, "GRU")),
    Operator::unrolled("RNN", recurrent_shape, |forward, node| unroll(forward, node, "RNN")),
];

/// The longest sequence that is unrolled.
const MOST_STEPS: usize = 10_000;

/// Hidden states of all steps, the last one, and for LSTM the last cell state.
fn recurrent_shape(call: &Call<'_>) -> Result<Vec<Type>, String> {
    let &[steps, batch, _] = call.dims(0)? else {
        return Err(format!("its input {:?} should be [steps, batch, features]", call.dims(0)?));
    };
    let &[directions, _, hidden] = call.dims(2)? else {
        return Err(format!("its recurrence weights {:?} should have 3 axes", call.dims(2)?));
    };
    if call.attributes.int("layout", 0) != 0 {
        return Err("layout 1 (batch first) is not supported by ONNX Runtime either".to_owned());
    }
    let data_type = call.data_type(0)?;
    let last = Type::new(data_type, [directions, batch, hidden]);
    Ok(vec![Type::new(data_type, [steps, directions, batch, hidden]), last.clone(), last])
}

/// Weights of one direction, and what is the same in every step.
struct Cell<'a, 'g> {
    forward: &'a mut Forward<'g>,
    recurrence: Value,
    /// The recurrence's bias of a GRU whose reset gate comes after it.
    late_bias: Option<Value>,
    peepholes: Option<[Value; 3]>,
    activations: Vec<String>,
    batch: usize,
    hidden: usize,
}

fn unroll(forward: &mut Forward<'_>, node: &Node<'_>, op: &str) -> Result<Vec<Value>, String> {
    let types = recurrent_shape(&node.call(forward.graph))?;
    if forward.mode == Mode::Inference {
        return Ok(forward.graph.emit(op, node.inputs, node.attributes.clone(), node.outputs));
    }
    let &[steps, directions, batch, hidden] = types[0].dims.as_slice() else {
        return Err("its output has no four axes".to_owned());
    };
    if steps == 0 || steps > MOST_STEPS {
        return Err(format!("{steps} steps cannot be unrolled; from 1 to {MOST_STEPS} can"));
    }
    check_settings(forward, node, steps)?;
    let direction = node.attributes.text("direction", "forward").to_owned();
    if whole::is_whole(forward, node, op) {
        return whole::whole(forward, node, op, &types, &direction);
    }
    let mut outputs: Vec<Vec<Value>> = Vec::new();
    let mut last_hidden = Vec::new();
    let mut last_cell = Vec::new();
    for which in 0..directions {
        let reverse = direction == "reverse" || which == 1;
        let mut run = Direction { forward, node, op, which, steps, batch, hidden };
        let (mut states, cell) = run.states(reverse)?;
        last_hidden.extend(states.last().copied());
        last_cell.extend(cell);
        if reverse {
            states.reverse();
        }
        outputs.push(states);
    }
    let mut all = Vec::with_capacity(steps * directions);
    for step in 0..steps {
        all.extend(outputs.iter().map(|states| Some(states[step])));
    }
    let along = |axis: i64| Attributes::none().with("axis", axis);
    let stacked = forward.apply("Concat", &all, along(0))?;
    let y = forward.reshape(stacked, &types[0].dims)?;
    let mut results = vec![y];
    for last in [last_hidden, last_cell] {
        if !last.is_empty() {
            let last: Vec<Option<Value>> = last.into_iter().map(Some).collect();
            let joined = forward.apply("Concat", &last, along(0))?;
            results.push(forward.reshape(joined, &types[1].dims)?);
        }
    }
    results.truncate(node.outputs);
    Ok(results)
}

fn check_settings(forward: &Forward<'_>, node: &Node<'_>, steps: usize) -> Result<(), String> {
    if node.attributes.get("clip").is_some() || node.attributes.flag("input_forget") {
        return Err("`clip` and `input_forget` cannot be trained through".to_owned());
    }
    if let Some(lengths) = node.input(4) {
        let lengths = forward.graph.constant_of(lengths).and_then(TensorData::to_i64s);
        if !lengths.is_some_and(|lengths| lengths.iter().all(|&length| length == steps as i64)) {
            return Err("sequences of different lengths cannot be trained through".to_owned());
        }
    }
    Ok(())
}

/// `size` elements of `x` from `start` on, along `axis`.
fn part(
    forward: &mut Forward<'_>,
    x: Value,
    axis: usize,
    start: usize,
    size: usize,
) -> Result<Value, String> {
    let range = [start as i64, (start + size) as i64, axis as i64];
    let [start, end, axis] = range.map(|value| Some(forward.graph.ints(&[value])));
    forward.apply("Slice", &[Some(x), start, end, axis], Attributes::none())
}

/// One direction of a recurrent node.
struct Direction<'a, 'g> {
    forward: &'a mut Forward<'g>,
    node: &'a Node<'a>,
    op: &'a str,
    which: usize,
    steps: usize,
    batch: usize,
    hidden: usize,
}

/// What the steps of one direction have in common.
struct Given {
    projected: Value,
    recurrence: Value,
    /// Whether the reset gate of a GRU comes after the recurrence, which then has a bias of its own.
    late: bool,
    late_bias: Option<Value>,
    state: Value,
}

impl Direction<'_, '_> {
    /// This direction's part of input number `index`, in the shape `dims`.
    fn own(&mut self, index: usize, dims: &[usize]) -> Result<Option<Value>, String> {
        let Some(value) = self.node.input(index) else { return Ok(None) };
        let part = part(self.forward, value, 0, self.which, 1)?;
        self.forward.reshape(part, dims).map(Some)
    }

    /// The first state that input number `index` is, zeros if it is left out.
    fn first_state(&mut self, index: usize) -> Result<Value, String> {
        let dims = [self.batch, self.hidden];
        if let Some(state) = self.own(index, &dims)? {
            return Ok(state);
        }
        let data_type = self.forward.graph.data_type(self.node.required(0)?);
        Ok(self.forward.graph.fill(0.0, data_type, &dims))
    }

    /// What the input contributes to the gates of all steps, and what the recurrence begins with.
    fn given(&mut self) -> Result<Given, String> {
        let gates = match self.op {
            "LSTM" => 4,
            "GRU" => 3,
            _ => 1,
        };
        let (hidden, rows) = (self.hidden, gates * self.hidden);
        let x = self.node.required(0)?;
        let features = self.forward.graph.dims(x)[2];
        let weight = self.own(1, &[rows, features])?.ok_or("its weights are missing")?;
        let recurrence = self.own(2, &[rows, hidden])?.ok_or("its weights are missing")?;
        let late = self.op == "GRU" && self.node.attributes.flag("linear_before_reset");
        let (bias, late_bias) = self.biases(rows, late)?;
        let projected = self.project(x, weight, bias)?;
        let state = self.first_state(5)?;
        Ok(Given { projected, recurrence, late, late_bias, state })
    }

    /// The hidden state after each step, in the order of computation, and the last cell state.
    fn states(&mut self, reverse: bool) -> Result<(Vec<Value>, Option<Value>), String> {
        let Given { projected, recurrence, late, late_bias, state } = self.given()?;
        let (hidden, batch) = (self.hidden, self.batch);
        let mut memory = None;
        let mut peepholes = None;
        if self.op == "LSTM" {
            memory = Some(self.first_state(6)?);
            if let Some(all) = self.own(7, &[3 * hidden])? {
                let mut parts = [all; 3];
                for (index, slot) in parts.iter_mut().enumerate() {
                    *slot = part(self.forward, all, 0, index * hidden, hidden)?;
                }
                peepholes = Some(parts);
            }
        }
        let projected = self.steps_of(projected)?;
        let activations = self.activations()?;
        let mut cell = Cell {
            forward: self.forward,
            recurrence,
            late_bias,
            peepholes,
            activations,
            batch,
            hidden,
        };
        let mut state = state;
        let mut states = Vec::with_capacity(projected.len());
        let order: Vec<Value> =
            if reverse { projected.into_iter().rev().collect() } else { projected };
        for input in order {
            match (self.op, memory) {
                ("LSTM", Some(old)) => {
                    let (new_state, new_memory) = cell.lstm(input, state, old)?;
                    (state, memory) = (new_state, Some(new_memory));
                }
                ("GRU", _) => state = cell.gru(input, state, late)?,
                _ => state = cell.plain(input, state)?,
            }
            states.push(state);
        }
        Ok((states, memory))
    }

    /// The bias of the input's projection, and that of the recurrence where it comes later.
    fn biases(
        &mut self,
        rows: usize,
        late: bool,
    ) -> Result<(Option<Value>, Option<Value>), String> {
        let Some(both) = self.own(3, &[2 * rows])? else { return Ok((None, None)) };
        let input = part(self.forward, both, 0, 0, rows)?;
        let recurrent = part(self.forward, both, 0, rows, rows)?;
        if late {
            return Ok((Some(input), Some(recurrent)));
        }
        let inputs = [Some(input), Some(recurrent)];
        Ok((Some(self.forward.apply("Add", &inputs, Attributes::none())?), None))
    }

    /// `x W^T + b` of all steps in one product.
    fn project(&mut self, x: Value, weight: Value, bias: Option<Value>) -> Result<Value, String> {
        let features = self.forward.graph.dims(x)[2];
        let flat = self.forward.reshape(x, &[self.steps * self.batch, features])?;
        let turned = Attributes::none().with("transB", 1);
        self.forward.apply("Gemm", &[Some(flat), Some(weight), bias], turned)
    }

    /// `product` cut into steps.
    fn steps_of(&mut self, product: Value) -> Result<Vec<Value>, String> {
        if self.steps == 1 {
            return Ok(vec![product]);
        }
        let sizes = vec![self.batch as i64; self.steps];
        let sizes = self.forward.graph.ints(&sizes);
        let attributes = Attributes::none().with("axis", 0);
        let inputs = [Some(product), Some(sizes)];
        self.forward.apply_with_outputs("Split", &inputs, attributes, self.steps)
    }

    /// The activation functions of this direction's gates.
    fn activations(&self) -> Result<Vec<String>, String> {
        let defaults: &[&str] = match self.op {
            "LSTM" => &["Sigmoid", "Tanh", "Tanh"],
            "GRU" => &["Sigmoid", "Tanh"],
            _ => &["Tanh"],
        };
        let count = defaults.len();
        let names: Vec<String> = match self.node.attributes.texts("activations") {
            Some(names) => names.iter().skip(self.which * count).take(count).cloned().collect(),
            None => defaults.iter().map(|&name| name.to_owned()).collect(),
        };
        let known = ["Sigmoid", "Tanh", "Relu", "Softsign", "Softplus"];
        match names.iter().find(|name| !known.contains(&name.as_str())) {
            Some(name) => Err(format!("activation `{name}` is not supported")),
            None if names.len() < count => Err("there are too few activations".to_owned()),
            None => Ok(names),
        }
    }
}

impl Cell<'_, '_> {
    fn activate(&mut self, which: usize, x: Value) -> Result<Value, String> {
        let name = self.activations[which].clone();
        self.forward.apply(&name, &[Some(x)], Attributes::none())
    }

    /// `a + state R^T`, with the rows of `R` that `recurrence` has.
    fn recur(
        &mut self,
        addend: Option<Value>,
        state: Value,
        recurrence: Value,
    ) -> Result<Value, String> {
        let turned = Attributes::none().with("transB", 1);
        self.forward.apply("Gemm", &[Some(state), Some(recurrence), addend], turned)
    }

    fn gates(&mut self, x: Value, count: usize) -> Result<Vec<Value>, String> {
        let sizes = vec![self.hidden as i64; count];
        let sizes = self.forward.graph.ints(&sizes);
        let attributes = Attributes::none().with("axis", 1);
        self.forward.apply_with_outputs("Split", &[Some(x), Some(sizes)], attributes, count)
    }

    /// `H = f(a + H R^T)`.
    fn plain(&mut self, input: Value, state: Value) -> Result<Value, String> {
        let sum = self.recur(Some(input), state, self.recurrence)?;
        debug_assert_eq!(self.forward.graph.dims(sum)[0], self.batch);
        self.activate(0, sum)
    }

    /// `i, o, f` through `f`, the candidate `c` through `g`: `C = f C + i c`, `H = o h(C)`
    /// (Hochreiter and Schmidhuber 1997; peepholes: Gers and Schmidhuber 2000).
    fn lstm(
        &mut self,
        input: Value,
        state: Value,
        memory: Value,
    ) -> Result<(Value, Value), String> {
        let sums = self.recur(Some(input), state, self.recurrence)?;
        let gates = self.gates(sums, 4)?;
        let &[mut input_gate, mut output_gate, mut forget_gate, candidate] = gates.as_slice()
        else {
            return Err("it has no four gates".to_owned());
        };
        if let Some([of_input, _, of_forget]) = self.peepholes {
            input_gate = self.peep(input_gate, of_input, memory)?;
            forget_gate = self.peep(forget_gate, of_forget, memory)?;
        }
        let input_gate = self.activate(0, input_gate)?;
        let forget_gate = self.activate(0, forget_gate)?;
        let candidate = self.activate(1, candidate)?;
        let kept = self.forward.binary("Mul", forget_gate, memory)?;
        let added = self.forward.binary("Mul", input_gate, candidate)?;
        let memory = self.forward.binary("Add", kept, added)?;
        if let Some([_, of_output, _]) = self.peepholes {
            output_gate = self.peep(output_gate, of_output, memory)?;
        }
        let output_gate = self.activate(0, output_gate)?;
        let shown = self.activate(2, memory)?;
        Ok((self.forward.binary("Mul", output_gate, shown)?, memory))
    }

    fn peep(&mut self, gate: Value, weight: Value, memory: Value) -> Result<Value, String> {
        let seen = self.forward.binary("Mul", weight, memory)?;
        self.forward.binary("Add", gate, seen)
    }

    /// `z, r` through `f`, the candidate `h` through `g`: `H = (1 - z) h + z H` (Cho et al. 2014).
    /// The reset gate multiplies the state before its product with the recurrence, or, as in
    /// PyTorch, after it (`linear_before_reset`).
    fn gru(&mut self, input: Value, state: Value, late: bool) -> Result<Value, String> {
        let (hidden, recurrence) = (self.hidden, self.recurrence);
        let inputs = self.gates(input, 3)?;
        let first_two = part(self.forward, recurrence, 0, 0, 2 * hidden)?;
        let third = part(self.forward, recurrence, 0, 2 * hidden, hidden)?;
        let (early_bias, late_bias) = match self.late_bias {
            None => (None, None),
            Some(bias) => (
                Some(part(self.forward, bias, 0, 0, 2 * hidden)?),
                Some(part(self.forward, bias, 0, 2 * hidden, hidden)?),
            ),
        };
        let sums = self.recur(early_bias, state, first_two)?;
        let sums = self.gates(sums, 2)?;
        let update = self.forward.binary("Add", inputs[0], sums[0])?;
        let update = self.activate(0, update)?;
        let reset = self.forward.binary("Add", inputs[1], sums[1])?;
        let reset = self.activate(0, reset)?;
        let candidate = if late {
            let recurrent = self.recur(late_bias, state, third)?;
            let recurrent = self.forward.binary("Mul", reset, recurrent)?;
            self.forward.binary("Add", inputs[2], recurrent)?
        } else {
            let kept = self.forward.binary("Mul", reset, state)?;
            self.recur(Some(inputs[2]), kept, third)?
        };
        let candidate = self.activate(1, candidate)?;
        // (1 - z) h + z H = h + z (H - h)
        let difference = self.forward.binary("Sub", state, candidate)?;
        let step = self.forward.binary("Mul", update, difference)?;
        self.forward.binary("Add", candidate, step)
    }
}
