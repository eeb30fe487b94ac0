//! The plain recurrent cell (Elman 1990).

use ort::operator::KernelContext;

use super::{Cell, Step, StepBack, of_row, sums};
use crate::kernels::exponential::{Arithmetic, tanh};
use crate::kernels::node::size;
use crate::kernels::product::{Onto, Panels};

/// `H = f(a + H R^T)`. Attribute: `rectified`, 1 for a rectifier, 0 for the hyperbolic tangent. It keeps
/// nothing but the hidden states.
pub(crate) const RNN: &str = "ai.cerebro.Rnn";

/// Attribute as of [`RNN`].
pub(crate) const RNN_GRADIENT: &str = "ai.cerebro.RnnGradient";

pub(in crate::kernels) struct Plain {
    rectified: bool,
}

impl Cell for Plain {
    const FORWARD: &'static str = RNN;
    const BACKWARD: &'static str = RNN_GRADIENT;
    const GATES: usize = 1;
    const KEPT: usize = 0;
    const HAS_CELL: bool = false;

    fn new(node: &KernelContext<'_>) -> ort::Result<Self> {
        Ok(Self { rectified: size(node, RNN, "rectified")? != 0 })
    }

    fn products(&self) -> &'static [usize] {
        &[1]
    }

    fn forward(&self, products: &[Panels], step: Step<'_>, memory: &mut Vec<f32>) {
        let Step { hidden, projected, before, y, .. } = step;
        let (rows, rectified) = (y.len() / hidden, self.rectified);
        let addends = projected.chunks_exact(hidden);
        for (row, sums) in sums(&products[0], addends, before, rows, memory) {
            let y = &mut y[of_row(row, hidden)];
            contracted!(activate(rectified: bool, sums: &[f32], y: &mut [f32]));
        }
    }

    fn backward(&self, products: &[Panels], step: StepBack<'_>, _: &mut Vec<f32>) {
        let StepBack { hidden, by_hidden, y, by_projected, later, .. } = step;
        let (stride, rectified) = (products[0].stride(), self.rectified);
        for (row, by_sums) in by_projected.chunks_exact_mut(hidden).enumerate() {
            let (later, of_row) = (&later[row * stride..], of_row(row, hidden));
            let (by_hidden, y) = (&by_hidden[of_row.clone()], &y[of_row]);
            fastest!(slopes(
                rectified: bool,
                later: &[f32],
                by_hidden: &[f32],
                y: &[f32],
                by_sums: &mut [f32],
            ));
        }
        products[0].multiply(by_projected, Onto::Zeros, later);
    }
}

#[inline(always)]
fn activate<A: Arithmetic>(rectified: bool, sums: &[f32], y: &mut [f32]) {
    let with = y.iter_mut().zip(sums);
    if rectified {
        with.for_each(|(y, &sum)| *y = if sum < 0.0 { 0.0 } else { sum });
    } else {
        with.for_each(|(y, &sum)| *y = tanh::<A>(sum));
    }
}

#[inline(always)]
fn slopes(rectified: bool, later: &[f32], by_hidden: &[f32], y: &[f32], by_sums: &mut [f32]) {
    let gradients = later.iter().zip(by_hidden).map(|(later, by_hidden)| later + by_hidden);
    let with = by_sums.iter_mut().zip(gradients.zip(y));
    if rectified {
        with.for_each(|(by_sum, (by_y, &y))| *by_sum = if y > 0.0 { by_y } else { 0.0 });
    } else {
        with.for_each(|(by_sum, (by_y, &y))| *by_sum = by_y * (1.0 - y * y));
    }
}
