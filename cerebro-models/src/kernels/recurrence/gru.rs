//! The gated recurrent unit (Cho et al. 2014).

use ort::operator::KernelContext;

use super::{Cell, Step, StepBack, of_row, sums};
use crate::kernels::exponential::{Arithmetic, sigmoid, tanh};
use crate::kernels::node::size;
use crate::kernels::product::{Onto, Panels};

/// Gates are in the order update, reset, candidate: `H = (1 - z) n + z H`. Attribute: `late`, 1 if the
/// reset gate multiplies the state's product with the recurrence, `n = tanh(a + r (H R^T + b))`, 0 if it
/// multiplies the state, `n = tanh(a + (r H) R^T)`. Where it is late the fourth input is the bias of the
/// recurrence, of all gates. Kept are the gates after their activations, and what is multiplied by the
/// reset gate or, where that is not late, their product.
pub(crate) const GRU: &str = "ai.cerebro.Gru";

/// Its last input is what was kept. Where the reset gate is late the third output is the gradient by what
/// the recurrence contributed to the gates. Attribute as of [`GRU`].
pub(crate) const GRU_GRADIENT: &str = "ai.cerebro.GruGradient";

pub(in crate::kernels) struct Gru {
    late: bool,
}

impl Cell for Gru {
    const FORWARD: &'static str = GRU;
    const BACKWARD: &'static str = GRU_GRADIENT;
    const GATES: usize = 3;
    const KEPT: usize = 4;
    const HAS_CELL: bool = false;

    fn new(node: &KernelContext<'_>) -> ort::Result<Self> {
        Ok(Self { late: size(node, GRU, "late")? != 0 })
    }

    fn products(&self) -> &'static [usize] {
        if self.late { &[3] } else { &[2, 1] }
    }

    fn is_apart(&self) -> bool {
        self.late
    }

    fn forward(&self, products: &[Panels], step: Step<'_>, memory: &mut Vec<f32>) {
        let Step { hidden, projected, extra, before, kept, y, .. } = step;
        let rows = y.len() / hidden;
        let projected = || projected.chunks_exact(3 * hidden);
        if let [all] = products {
            let biases = std::iter::repeat(extra);
            let sums = sums(all, biases, before, rows, memory);
            for ((row, sums), projected) in sums.zip(projected()) {
                let (kept, of_row) = (&mut kept[of_row(row, 4 * hidden)], of_row(row, hidden));
                let (before, y) = (&before[of_row.clone()], &mut y[of_row]);
                contracted!(step_late(
                    sums: &[f32],
                    projected: &[f32],
                    before: &[f32],
                    kept: &mut [f32],
                    y: &mut [f32],
                ));
            }
            return;
        }
        let addends = projected().map(|row| &row[..2 * hidden]);
        for (row, sums) in sums(&products[0], addends, before, rows, memory) {
            let (kept, of_row) = (&mut kept[of_row(row, 4 * hidden)], of_row(row, hidden));
            let (before, remembered) = (&before[of_row.clone()], &mut y[of_row]);
            contracted!(reset(
                sums: &[f32],
                before: &[f32],
                kept: &mut [f32],
                remembered: &mut [f32],
            ));
        }
        let addends = projected().map(|row| &row[2 * hidden..]);
        for (row, sums) in sums(&products[1], addends, y, rows, memory) {
            let (kept, of_row) = (&mut kept[of_row(row, 4 * hidden)], of_row(row, hidden));
            let (before, y) = (&before[of_row.clone()], &mut y[of_row]);
            contracted!(renew(sums: &[f32], before: &[f32], kept: &mut [f32], y: &mut [f32]));
        }
    }

    fn backward(&self, products: &[Panels], step: StepBack<'_>, memory: &mut Vec<f32>) {
        let StepBack { hidden, by_hidden, kept, old, by_projected, by_recurrent, later, .. } = step;
        let stride = products[0].stride();
        let rows = by_hidden.len() / hidden;
        if let [all] = products {
            for row in 0..rows {
                let (of_gates, of_row) = (of_row(row, 3 * hidden), of_row(row, hidden));
                let (kept, later) =
                    (&kept[super::of_row(row, 4 * hidden)], &mut later[row * stride..]);
                let (by_hidden, old) = (&by_hidden[of_row.clone()], &old[of_row]);
                let by_projected = &mut by_projected[of_gates.clone()];
                let by_recurrent = &mut by_recurrent[of_gates];
                fastest!(late_back(
                    by_hidden: &[f32],
                    old: &[f32],
                    kept: &[f32],
                    by_projected: &mut [f32],
                    by_recurrent: &mut [f32],
                    later: &mut [f32],
                ));
            }
            all.multiply(by_recurrent, Onto::Held, later);
            return;
        }
        let of_product = products[1].stride();
        memory.resize(rows * (3 * hidden + of_product), 0.0);
        let (by_gates, rest) = memory.split_at_mut(rows * 2 * hidden);
        let (by_candidates, by_remembered) = rest.split_at_mut(rows * hidden);
        for row in 0..rows {
            let of_row = of_row(row, hidden);
            let (kept, later) = (&kept[super::of_row(row, 4 * hidden)], &mut later[row * stride..]);
            let (by_hidden, old) = (&by_hidden[of_row.clone()], &old[of_row.clone()]);
            let by_gates = &mut by_gates[super::of_row(row, 2 * hidden)];
            let by_candidate = &mut by_candidates[of_row];
            fastest!(renew_back(
                by_hidden: &[f32],
                old: &[f32],
                kept: &[f32],
                by_gates: &mut [f32],
                by_candidate: &mut [f32],
                later: &mut [f32],
            ));
        }
        products[1].multiply(by_candidates, Onto::Zeros, by_remembered);
        for (row, by_projected) in by_projected.chunks_exact_mut(3 * hidden).enumerate() {
            let of_row = of_row(row, hidden);
            let (kept, later) = (&kept[super::of_row(row, 4 * hidden)], &mut later[row * stride..]);
            let (old, by_candidate) = (&old[of_row.clone()], &by_candidates[of_row]);
            let by_remembered = &by_remembered[row * of_product..];
            let by_gates = &mut by_gates[super::of_row(row, 2 * hidden)];
            fastest!(reset_back(
                by_remembered: &[f32],
                old: &[f32],
                kept: &[f32],
                by_gates: &mut [f32],
                later: &mut [f32],
            ));
            let (of_gates, of_candidate) = by_projected.split_at_mut(2 * hidden);
            of_gates.copy_from_slice(by_gates);
            of_candidate.copy_from_slice(by_candidate);
        }
        products[0].multiply(by_gates, Onto::Held, later);
    }
}

/// One step of one row whose reset gate comes late.
#[inline(always)]
fn step_late<A: Arithmetic>(
    sums: &[f32],
    projected: &[f32],
    before: &[f32],
    kept: &mut [f32],
    y: &mut [f32],
) {
    let width = before.len();
    let (sums, projected) = (&sums[..3 * width], &projected[..3 * width]);
    let (gates, rest) = kept[..4 * width].split_at_mut(2 * width);
    for (gate, (sum, projected)) in gates.iter_mut().zip(sums.iter().zip(projected)) {
        *gate = sigmoid::<A>(sum + projected);
    }
    let (update, reset) = gates.split_at(width);
    let (candidates, recurrent) = rest.split_at_mut(width);
    recurrent.copy_from_slice(&sums[2 * width..]);
    let (projected, y) = (&projected[2 * width..], &mut y[..width]);
    for at in 0..width {
        let candidate = tanh::<A>(projected[at] + reset[at] * recurrent[at]);
        candidates[at] = candidate;
        y[at] = candidate + update[at] * (before[at] - candidate);
    }
}

/// The gates of one row, and what the reset gate leaves of its state.
#[inline(always)]
fn reset<A: Arithmetic>(sums: &[f32], before: &[f32], kept: &mut [f32], remembered: &mut [f32]) {
    let width = before.len();
    let (gates, rest) = kept[..4 * width].split_at_mut(2 * width);
    for (gate, sum) in gates.iter_mut().zip(sums) {
        *gate = sigmoid::<A>(*sum);
    }
    let (reset, remembered) = (&gates[width..], &mut remembered[..width]);
    for at in 0..width {
        remembered[at] = reset[at] * before[at];
    }
    rest[width..].copy_from_slice(remembered);
}

/// The new state of one row.
#[inline(always)]
fn renew<A: Arithmetic>(sums: &[f32], before: &[f32], kept: &mut [f32], y: &mut [f32]) {
    let width = before.len();
    let (sums, y) = (&sums[..width], &mut y[..width]);
    let (update, rest) = kept[..4 * width].split_at_mut(width);
    let candidates = &mut rest[width..2 * width];
    for at in 0..width {
        let candidate = tanh::<A>(sums[at]);
        candidates[at] = candidate;
        y[at] = candidate + update[at] * (before[at] - candidate);
    }
}

/// The chain rule through one step of one row whose reset gate comes late; `later` as in [`renew_back`].
#[inline(always)]
fn late_back(
    by_hidden: &[f32],
    old: &[f32],
    kept: &[f32],
    by_projected: &mut [f32],
    by_recurrent: &mut [f32],
    later: &mut [f32],
) {
    let width = old.len();
    let (by_gates, by_candidate) = by_projected[..3 * width].split_at_mut(2 * width);
    renew_back(by_hidden, old, kept, by_gates, by_candidate, later);
    let (reset, recurrent) = (&kept[width..2 * width], &kept[3 * width..4 * width]);
    let by_reset = &mut by_gates[width..];
    for at in 0..width {
        let r = reset[at];
        by_reset[at] = by_candidate[at] * recurrent[at] * (r * (1.0 - r));
    }
    let (gates, of_candidate) = by_recurrent[..3 * width].split_at_mut(2 * width);
    gates.copy_from_slice(by_gates);
    for at in 0..width {
        of_candidate[at] = by_candidate[at] * reset[at];
    }
}

/// The chain rule through [`renew`], by the sums of update gate and candidate; `later` becomes what
/// reaches the state before by the update gate alone.
#[inline(always)]
fn renew_back(
    by_hidden: &[f32],
    old: &[f32],
    kept: &[f32],
    by_gates: &mut [f32],
    by_candidate: &mut [f32],
    later: &mut [f32],
) {
    let width = old.len();
    let (by_hidden, later) = (&by_hidden[..width], &mut later[..width]);
    let (update, candidates) = (&kept[..width], &kept[2 * width..3 * width]);
    let (by_update, by_candidate) = (&mut by_gates[..width], &mut by_candidate[..width]);
    for at in 0..width {
        let (z, n) = (update[at], candidates[at]);
        let by_y = by_hidden[at] + later[at];
        by_update[at] = by_y * (old[at] - n) * (z * (1.0 - z));
        by_candidate[at] = by_y * (1.0 - z) * (1.0 - n * n);
        later[at] = by_y * z;
    }
}

/// The chain rule through [`reset`], by the sum of the reset gate; `later` takes in what reaches the
/// state before.
#[inline(always)]
fn reset_back(
    by_remembered: &[f32],
    old: &[f32],
    kept: &[f32],
    by_gates: &mut [f32],
    later: &mut [f32],
) {
    let width = old.len();
    let (by_remembered, later) = (&by_remembered[..width], &mut later[..width]);
    let (reset, by_reset) = (&kept[width..2 * width], &mut by_gates[width..2 * width]);
    for at in 0..width {
        let r = reset[at];
        by_reset[at] = by_remembered[at] * old[at] * (r * (1.0 - r));
        later[at] += by_remembered[at] * r;
    }
}
