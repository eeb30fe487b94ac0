//! The long short-term memory (Hochreiter and Schmidhuber 1997).

use ort::operator::KernelContext;

use super::{Cell, Step, StepBack, of_row, sums};
use crate::kernels::exponential::{Arithmetic, sigmoid, tanh};
use crate::kernels::product::{Onto, Panels};

/// Gates are in the order input, output, forget, candidate. Its fourth input is the first cell state.
/// Kept are the gates after their activations, then there are the cell states of all steps and the last
/// one.
pub(crate) const LSTM: &str = "ai.cerebro.Lstm";

/// The first state that it reads is the cell state, and its last inputs are the gates, the cell states
/// and the gradient by the last one. Its third output is the gradient by the first cell state.
pub(crate) const LSTM_GRADIENT: &str = "ai.cerebro.LstmGradient";

pub(in crate::kernels) struct Lstm;

impl Cell for Lstm {
    const FORWARD: &'static str = LSTM;
    const BACKWARD: &'static str = LSTM_GRADIENT;
    const GATES: usize = 4;
    const KEPT: usize = 4;
    const HAS_CELL: bool = true;

    fn new(_: &KernelContext<'_>) -> ort::Result<Self> {
        Ok(Self)
    }

    fn products(&self) -> &'static [usize] {
        &[4]
    }

    fn forward(&self, products: &[Panels], step: Step<'_>, memory: &mut Vec<f32>) {
        let Step { hidden, projected, before, old, kept, cells, y, .. } = step;
        let rows = y.len() / hidden;
        let addends = projected.chunks_exact(4 * hidden);
        for (row, sums) in sums(&products[0], addends, before, rows, memory) {
            let (gates, of_row) = (&mut kept[of_row(row, 4 * hidden)], of_row(row, hidden));
            let (old, cells) = (&old[of_row.clone()], &mut cells[of_row.clone()]);
            let y = &mut y[of_row];
            contracted!(step_on(
                sums: &[f32],
                gates: &mut [f32],
                old: &[f32],
                cells: &mut [f32],
                y: &mut [f32],
            ));
        }
    }

    fn backward(&self, products: &[Panels], step: StepBack<'_>, _: &mut Vec<f32>) {
        let StepBack { hidden, by_hidden, kept, old, cells, by_projected, by_cell, later, .. } =
            step;
        let stride = products[0].stride();
        for (row, by_gates) in by_projected.chunks_exact_mut(4 * hidden).enumerate() {
            let (gates, of_row) = (&kept[of_row(row, 4 * hidden)], of_row(row, hidden));
            let (later, by_hidden) = (&later[row * stride..], &by_hidden[of_row.clone()]);
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
        products[0].multiply(by_projected, Onto::Zeros, later);
    }
}

/// One step of one row: `C = f C + i c`, `H = o tanh(C)` (Hochreiter and Schmidhuber 1997).
#[inline(always)]
fn step_on<A: Arithmetic>(
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
