//! The long short-term memory over all time steps of one direction, and its gradient.
//!
//! Rows of a batch know nothing of each other, so that a thread takes some of them through all steps
//! and waits for no other. The products with the input and those that are gradients of weights are
//! not in here: they are one product each over all steps.

#![allow(
    clippy::inline_always,
    reason = "vector code comes of inlining into the function that enables the instructions"
)]

use std::ops::Range;

use ort::operator::{ComputeContext, Kernel, KernelContext};
use ort::value::TensorElementType::{self, Float32};
use ort::value::ValueRef;

use super::exponential::{Arithmetic, sigmoid, tanh};
use super::node::{Fused, Parts, dims, for_each, input, output, refused, size};
use super::product::{Matrix, Onto, Panels};

/// Inputs: what the input contributes to the gates of all steps, bias included, `[steps * batch, 4 *
/// hidden]` in the order input, output, forget, candidate; the recurrence's weights `[4 * hidden,
/// hidden]`; the first hidden and cell states, `[batch, hidden]`. Outputs: the hidden states `[steps,
/// batch, hidden]`, the gates after their activations, the cell states of all steps and the last one.
/// Attribute: `reverse`, 1 to begin with the last step.
pub(crate) const LSTM: &str = "ai.cerebro.Lstm";

/// Inputs: the gradients by the hidden states and by the last cell state; the gates, the cell states;
/// the recurrence's weights; the first cell state. Outputs: the gradients by what the input
/// contributed, by the first hidden and by the first cell state. Attribute as of [`LSTM`].
pub(crate) const LSTM_GRADIENT: &str = "ai.cerebro.LstmGradient";

/// Rows that a thread takes at once.
const SHARE: usize = 16;

/// Where things lie.
#[derive(Clone, Copy, Debug)]
struct Layout {
    steps: usize,
    batch: usize,
    hidden: usize,
    reverse: bool,
}

impl Layout {
    /// Of `gates` elements of gates and states of the shape `state`.
    fn of(name: &str, gates: usize, state: &[i64], reverse: bool) -> ort::Result<Self> {
        let &[batch, hidden] = dims(state).as_slice() else {
            return Err(refused(name, format!("a state {state:?} has not two axes")));
        };
        let of_step = 4 * batch * hidden;
        if of_step == 0 || gates == 0 || !gates.is_multiple_of(of_step) {
            return Err(refused(name, format!("{gates} gates do not fit a state {state:?}")));
        }
        Ok(Self { steps: gates / of_step, batch, hidden, reverse })
    }

    /// The step that is computed as number `turn`.
    fn step(&self, turn: usize) -> usize {
        if self.reverse { self.steps - 1 - turn } else { turn }
    }

    /// The elements of `rows` at the step of `turn`, among `wide` for each row.
    fn at(&self, turn: usize, rows: &Range<usize>, wide: usize) -> Range<usize> {
        let first = self.step(turn) * self.batch;
        (first + rows.start) * wide..(first + rows.end) * wide
    }

    /// Calls `each` for shares of the rows of a batch.
    fn for_each_share(
        &self,
        context: &ComputeContext,
        each: impl Fn(Range<usize>) + Sync + Send,
    ) -> ort::Result<()> {
        let work = self.steps * self.batch * 4 * self.hidden * self.hidden.div_ceil(32);
        for_each(context, self.batch.div_ceil(SHARE), work, |share| {
            each(share * SHARE..((share + 1) * SHARE).min(self.batch));
        })
    }
}

/// The elements of a value that must have `length` of them.
fn elements<'v>(name: &str, value: &'v ValueRef<'_>, length: usize) -> ort::Result<&'v [f32]> {
    let (shape, elements) = value.try_extract_tensor::<f32>()?;
    if elements.len() != length {
        return Err(refused(name, format!("an input {shape:?} should have {length} elements")));
    }
    Ok(elements)
}

pub(super) struct Lstm {
    reverse: bool,
}

impl Fused for Lstm {
    const NAME: &'static str = LSTM;
    const INPUTS: &'static [TensorElementType] = &[Float32; 4];
    const OUTPUTS: &'static [TensorElementType] = &[Float32; 4];

    fn new(node: &KernelContext<'_>) -> ort::Result<Self> {
        Ok(Self { reverse: size(node, Self::NAME, "reverse")? != 0 })
    }
}

struct Forward<'a> {
    layout: Layout,
    recurrence: Panels,
    projected: &'a [f32],
    first: [&'a [f32]; 2],
    hidden: Parts<'a, f32>,
    gates: Parts<'a, f32>,
    cells: Parts<'a, f32>,
    last: Parts<'a, f32>,
}

impl Kernel for Lstm {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let name = Self::NAME;
        let values: Vec<_> =
            (0..4).map(|index| input(context, name, index)).collect::<ort::Result<_>>()?;
        let (shape, projected) = values[0].try_extract_tensor::<f32>()?;
        let (state_shape, first_hidden) = values[2].try_extract_tensor::<f32>()?;
        let layout = Layout::of(name, projected.len(), state_shape, self.reverse)?;
        let Layout { steps, batch, hidden, .. } = layout;
        let weights = elements(name, &values[1], 4 * hidden * hidden)?;
        let first_cell = elements(name, &values[3], batch * hidden)?;
        let all = [steps, batch, hidden];
        let mut y = output(context, name, 0, &all)?;
        let mut gates = output(context, name, 1, &dims(shape))?;
        let mut cells = output(context, name, 2, &all)?;
        let mut last = output(context, name, 3, &all[1..])?;
        let job = &Forward {
            layout,
            recurrence: Panels::of(recurrence(name, weights, hidden, true)?),
            projected,
            first: [first_hidden, first_cell],
            hidden: Parts::of(y.try_extract_tensor_mut::<f32>()?.1),
            gates: Parts::of(gates.try_extract_tensor_mut::<f32>()?.1),
            cells: Parts::of(cells.try_extract_tensor_mut::<f32>()?.1),
            last: Parts::of(last.try_extract_tensor_mut::<f32>()?.1),
        };
        layout.for_each_share(context, |rows| forward(job, &rows))
    }
}

/// The recurrence's weights, or what is multiplied by states: the transposed ones.
fn recurrence<'w>(
    name: &str,
    weights: &'w [f32],
    hidden: usize,
    transposed: bool,
) -> ort::Result<Matrix<'w>> {
    let matrix = Matrix::new(weights, [4 * hidden, hidden], transposed);
    matrix.ok_or_else(|| refused(name, "the recurrence's weights do not fit"))
}

/// Takes some rows through all steps.
fn forward(job: &Forward<'_>, rows: &Range<usize>) {
    let Layout { steps, hidden, .. } = job.layout;
    let stride = job.recurrence.stride();
    let mut sums = vec![0.0; rows.len() * stride];
    for turn in 0..steps {
        let of_states = job.layout.at(turn, rows, hidden);
        let of_gates = job.layout.at(turn, rows, 4 * hidden);
        // SAFETY: other threads have other rows, and a step's parts are no other step's.
        let (y, cells, gates) = unsafe {
            (
                job.hidden.part(of_states.clone()),
                job.cells.part(of_states),
                job.gates.part(of_gates.clone()),
            )
        };
        let [before, old] = if turn == 0 {
            job.first.map(|state| &state[rows.start * hidden..rows.end * hidden])
        } else {
            let earlier = job.layout.at(turn - 1, rows, hidden);
            // SAFETY: the same, and the earlier step is written.
            unsafe { [&*job.hidden.part(earlier.clone()), &*job.cells.part(earlier)] }
        };
        let projected = job.projected[of_gates].chunks_exact(4 * hidden);
        for (sums, projected) in sums.chunks_exact_mut(stride).zip(projected) {
            sums[..4 * hidden].copy_from_slice(projected);
        }
        job.recurrence.multiply(before, Onto::Held, &mut sums);
        for row in 0..rows.len() {
            let of_row = row * hidden..(row + 1) * hidden;
            let sums = &sums[row * stride..];
            let gates = &mut gates[4 * row * hidden..][..4 * hidden];
            let (old, cells) = (&old[of_row.clone()], &mut cells[of_row.clone()]);
            let y = &mut y[of_row];
            contracted!(step(
                sums: &[f32],
                gates: &mut [f32],
                old: &[f32],
                cells: &mut [f32],
                y: &mut [f32],
            ));
        }
        if turn + 1 == steps {
            // SAFETY: the same.
            unsafe { job.last.part(rows.start * hidden..rows.end * hidden) }.copy_from_slice(cells);
        }
    }
}

/// One step of one row: `C = f C + i c`, `H = o tanh(C)` (Hochreiter and Schmidhuber 1997).
#[inline(always)]
fn step<A: Arithmetic>(
    sums: &[f32],
    gates: &mut [f32],
    old: &[f32],
    cells: &mut [f32],
    y: &mut [f32],
) {
    let width = old.len();
    let (sums, cells, y) = (&sums[..4 * width], &mut cells[..width], &mut y[..width]);
    let (smooth, candidates) = gates.split_at_mut(3 * width);
    for (gate, sum) in smooth.iter_mut().zip(sums) {
        *gate = sigmoid::<A>(*sum);
    }
    for (candidate, sum) in candidates.iter_mut().zip(&sums[3 * width..]) {
        *candidate = tanh::<A>(*sum);
    }
    let (input, rest) = smooth.split_at(width);
    let (output, forget) = rest.split_at(width);
    let (input, candidates) = (&input[..width], &candidates[..width]);
    let (output, forget) = (&output[..width], &forget[..width]);
    for at in 0..width {
        let cell = forget[at] * old[at] + input[at] * candidates[at];
        cells[at] = cell;
        y[at] = output[at] * tanh::<A>(cell);
    }
}

pub(super) struct LstmGradient {
    reverse: bool,
}

impl Fused for LstmGradient {
    const NAME: &'static str = LSTM_GRADIENT;
    const INPUTS: &'static [TensorElementType] = &[Float32; 6];
    const OUTPUTS: &'static [TensorElementType] = &[Float32; 3];

    fn new(node: &KernelContext<'_>) -> ort::Result<Self> {
        Ok(Self { reverse: size(node, Self::NAME, "reverse")? != 0 })
    }
}

struct Backward<'a> {
    layout: Layout,
    recurrence: Panels,
    by_hidden: &'a [f32],
    by_last: &'a [f32],
    gates: &'a [f32],
    cells: &'a [f32],
    first_cell: &'a [f32],
    by_gates: Parts<'a, f32>,
    by_first_hidden: Parts<'a, f32>,
    by_first_cell: Parts<'a, f32>,
}

impl Kernel for LstmGradient {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let name = Self::NAME;
        let values: Vec<_> =
            (0..6).map(|index| input(context, name, index)).collect::<ort::Result<_>>()?;
        let (shape, gates) = values[2].try_extract_tensor::<f32>()?;
        let (state_shape, first_cell) = values[5].try_extract_tensor::<f32>()?;
        let layout = Layout::of(name, gates.len(), state_shape, self.reverse)?;
        let Layout { steps, batch, hidden, .. } = layout;
        let state = [batch, hidden];
        let weights = elements(name, &values[4], 4 * hidden * hidden)?;
        let mut by_gates = output(context, name, 0, &dims(shape))?;
        let mut by_first_hidden = output(context, name, 1, &state)?;
        let mut by_first_cell = output(context, name, 2, &state)?;
        let job = &Backward {
            layout,
            recurrence: Panels::of(recurrence(name, weights, hidden, false)?),
            by_hidden: elements(name, &values[0], steps * batch * hidden)?,
            by_last: elements(name, &values[1], batch * hidden)?,
            gates,
            cells: elements(name, &values[3], steps * batch * hidden)?,
            first_cell,
            by_gates: Parts::of(by_gates.try_extract_tensor_mut::<f32>()?.1),
            by_first_hidden: Parts::of(by_first_hidden.try_extract_tensor_mut::<f32>()?.1),
            by_first_cell: Parts::of(by_first_cell.try_extract_tensor_mut::<f32>()?.1),
        };
        layout.for_each_share(context, |rows| backward(job, &rows))
    }
}

/// Takes the gradients of some rows back through all steps.
fn backward(job: &Backward<'_>, rows: &Range<usize>) {
    let Layout { steps, hidden, .. } = job.layout;
    let stride = job.recurrence.stride();
    let of_rows = rows.start * hidden..rows.end * hidden;
    // What later steps give the state that this one leaves.
    let mut later = vec![0.0; rows.len() * stride];
    // SAFETY: other threads have other rows.
    let by_cell = unsafe { job.by_first_cell.part(of_rows.clone()) };
    by_cell.copy_from_slice(&job.by_last[of_rows.clone()]);
    for turn in (0..steps).rev() {
        let of_states = job.layout.at(turn, rows, hidden);
        let of_gates = job.layout.at(turn, rows, 4 * hidden);
        // SAFETY: the same.
        let by_gates = unsafe { job.by_gates.part(of_gates.clone()) };
        let old = match turn {
            0 => &job.first_cell[of_rows.clone()],
            _ => &job.cells[job.layout.at(turn - 1, rows, hidden)],
        };
        let (by_hidden, cells) = (&job.by_hidden[of_states.clone()], &job.cells[of_states]);
        let gates = &job.gates[of_gates];
        for row in 0..rows.len() {
            let of_row = row * hidden..(row + 1) * hidden;
            let of_gates = 4 * row * hidden..4 * (row + 1) * hidden;
            let (later, by_hidden) = (&later[row * stride..], &by_hidden[of_row.clone()]);
            let (gates, by_gates) = (&gates[of_gates.clone()], &mut by_gates[of_gates]);
            let (old, cells) = (&old[of_row.clone()], &cells[of_row.clone()]);
            let by_cell = &mut by_cell[of_row];
            contracted!(step_back(
                later: &[f32],
                by_hidden: &[f32],
                gates: &[f32],
                by_gates: &mut [f32],
                old: &[f32],
                cells: &[f32],
                by_cell: &mut [f32],
            ));
        }
        job.recurrence.multiply(by_gates, Onto::Zeros, &mut later);
    }
    // SAFETY: the same.
    let by_first_hidden = unsafe { job.by_first_hidden.part(of_rows) };
    for (to, from) in by_first_hidden.chunks_exact_mut(hidden).zip(later.chunks_exact(stride)) {
        to.copy_from_slice(&from[..hidden]);
    }
}

/// The chain rule through one step of one row, by the gates before their activations.
#[inline(always)]
fn step_back<A: Arithmetic>(
    later: &[f32],
    by_hidden: &[f32],
    gates: &[f32],
    by_gates: &mut [f32],
    old: &[f32],
    cells: &[f32],
    by_cell: &mut [f32],
) {
    let width = old.len();
    let (later, by_hidden) = (&later[..width], &by_hidden[..width]);
    let (cells, by_cell) = (&cells[..width], &mut by_cell[..width]);
    let (input, rest) = gates[..4 * width].split_at(width);
    let (output, rest) = rest.split_at(width);
    let (forget, candidates) = rest.split_at(width);
    let (by_input, rest) = by_gates[..4 * width].split_at_mut(width);
    let (by_output, rest) = rest.split_at_mut(width);
    let (by_forget, by_candidate) = rest.split_at_mut(width);
    for at in 0..width {
        let (i, o, f, c) = (input[at], output[at], forget[at], candidates[at]);
        let by_y = by_hidden[at] + later[at];
        let shown = tanh::<A>(cells[at]);
        let by_new = by_cell[at] + by_y * o * (1.0 - shown * shown);
        by_input[at] = by_new * c * (i * (1.0 - i));
        by_output[at] = by_y * shown * (o * (1.0 - o));
        by_forget[at] = by_new * old[at] * (f * (1.0 - f));
        by_candidate[at] = by_new * i * (1.0 - c * c);
        by_cell[at] = by_new * f;
    }
}
