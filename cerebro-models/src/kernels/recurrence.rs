//! Recurrent cells over all time steps of one direction, and their gradients.
//!
//! Rows of a batch know nothing of each other, so that a thread takes some of them through all steps
//! and waits for no other. The products with the input and those that are gradients of weights are
//! not in here: they are one product each over all steps.
//!
//! What all cells have in common is here. The forward operators' inputs are what the input contributes
//! to the gates of all steps, `[steps * batch, gates * hidden]`; the recurrence's weights `[gates *
//! hidden, hidden]`; the first hidden state `[batch, hidden]`; and what a cell says. Outputs: the hidden
//! states `[steps, batch, hidden]` and what a cell keeps. The gradients' inputs are the gradient by the
//! hidden states, these, the weights, the first state and what a cell kept; their outputs the gradients
//! by what the input contributed, by the first hidden state, and one that a cell says. Attribute of all:
//! `reverse`, 1 to begin with the last step.

#![allow(
    clippy::inline_always,
    reason = "vector code comes of inlining into the function that enables the instructions"
)]

mod gru;
mod lstm;
mod plain;

use std::iter::Enumerate;
use std::ops::Range;
use std::slice::ChunksExact;

use ort::operator::{ComputeContext, Kernel, KernelContext, OperatorDomain};
use ort::value::TensorElementType::{self, Float32};
use ort::value::ValueRef;

use super::node::{self, Fused, Parts, dims, for_each, input, output, refused, size};
use super::product::{Matrix, Onto, Panels};

pub(super) use self::gru::Gru;
pub(crate) use self::gru::{GRU, GRU_GRADIENT};
pub(super) use self::lstm::Lstm;
pub(crate) use self::lstm::{LSTM, LSTM_GRADIENT};
pub(super) use self::plain::Plain;
pub(crate) use self::plain::{RNN, RNN_GRADIENT};

/// Rows that a thread takes at once.
const SHARE: usize = 16;

/// What becomes of some rows in one step, and back.
pub(super) trait Cell: Sized + Send + Sync + 'static {
    /// The names of the operators.
    const FORWARD: &'static str;
    const BACKWARD: &'static str;
    /// Elements for each hidden unit: of what the input contributes, and of what is kept.
    const GATES: usize;
    const KEPT: usize;
    /// Whether there is a second state, the cell state.
    const HAS_CELL: bool;

    fn new(node: &KernelContext<'_>) -> ort::Result<Self>;

    /// The gates whose parts of the recurrence's weights make a product.
    fn products(&self) -> &'static [usize];

    /// Whether the gradients by what the recurrence contributes differ from those by what the input does.
    fn is_apart(&self) -> bool {
        false
    }

    fn forward(&self, products: &[Panels], step: Step<'_>, memory: &mut Vec<f32>);

    fn backward(&self, products: &[Panels], step: StepBack<'_>, memory: &mut Vec<f32>);
}

/// One step of some rows. States have rows of `hidden` elements.
pub(super) struct Step<'a> {
    hidden: usize,
    projected: &'a [f32],
    /// The fourth input, where it is no cell state.
    extra: &'a [f32],
    /// The hidden states before, and the cell states.
    before: &'a [f32],
    old: &'a [f32],
    kept: &'a mut [f32],
    cells: &'a mut [f32],
    y: &'a mut [f32],
}

/// The same on the way back.
pub(super) struct StepBack<'a> {
    hidden: usize,
    by_hidden: &'a [f32],
    kept: &'a [f32],
    y: &'a [f32],
    /// The states before: of cells, where there are some.
    old: &'a [f32],
    cells: &'a [f32],
    by_projected: &'a mut [f32],
    by_recurrent: &'a mut [f32],
    by_cell: &'a mut [f32],
    /// What later steps give the hidden state that this one leaves; becomes what this step gives the one
    /// before. Rows are as far apart as those of products.
    later: &'a mut [f32],
}

/// Where things lie.
#[derive(Clone, Copy, Debug)]
struct Layout {
    steps: usize,
    batch: usize,
    hidden: usize,
    reverse: bool,
}

impl Layout {
    /// Of `states` elements of all steps, and one of the shape `state`.
    fn of(name: &str, states: usize, state: &[i64], reverse: bool) -> ort::Result<Self> {
        let &[batch, hidden] = dims(state).as_slice() else {
            return Err(refused(name, format!("a state {state:?} has not two axes")));
        };
        let of_step = batch * hidden;
        if of_step == 0 || states == 0 || !states.is_multiple_of(of_step) {
            return Err(refused(name, format!("{states} elements do not fit a state {state:?}")));
        }
        Ok(Self { steps: states / of_step, batch, hidden, reverse })
    }

    /// How many elements there are of all steps, of `wide` for each hidden unit.
    fn all(&self, wide: usize) -> usize {
        self.steps * self.batch * self.hidden * wide
    }

    /// The elements of `rows` at the step that is computed as number `turn`, of `wide` for each hidden unit.
    fn at(&self, turn: usize, rows: &Range<usize>, wide: usize) -> Range<usize> {
        let step = if self.reverse { self.steps - 1 - turn } else { turn };
        let (first, wide) = (step * self.batch, wide * self.hidden);
        (first + rows.start) * wide..(first + rows.end) * wide
    }

    /// The elements of `rows` within one state.
    fn within(&self, rows: &Range<usize>) -> Range<usize> {
        rows.start * self.hidden..rows.end * self.hidden
    }

    /// Calls `each` for shares of the rows of a batch, where there are `gates`.
    fn for_each_share(
        &self,
        context: &ComputeContext,
        gates: usize,
        each: impl Fn(Range<usize>) + Sync + Send,
    ) -> ort::Result<()> {
        let work = self.all(gates) * self.hidden.div_ceil(32);
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

/// An input that is there if `length` is above zero.
fn optional<'c>(
    context: &'c ComputeContext,
    name: &str,
    index: usize,
    length: usize,
) -> ort::Result<Option<ValueRef<'c>>> {
    (length > 0).then(|| input(context, name, index)).transpose()
}

/// The elements of an optional input.
fn optional_elements<'v>(
    name: &str,
    value: Option<&'v ValueRef<'_>>,
    length: usize,
) -> ort::Result<&'v [f32]> {
    value.map_or(Ok(&[]), |value| elements(name, value, length))
}

/// What is multiplied by states, which are the transposed weights, or by gradients.
fn panels<C: Cell>(
    cell: &C,
    name: &str,
    weights: &[f32],
    hidden: usize,
    transposed: bool,
) -> ort::Result<Vec<Panels>> {
    let mut rest = weights;
    let mut panels = Vec::new();
    for gates in cell.products() {
        let rows = gates * hidden;
        let part = rest.split_at_checked(rows * hidden);
        let (part, others) = part.ok_or_else(|| refused(name, "its weights do not fit"))?;
        let matrix = Matrix::new(part, [rows, hidden], transposed);
        panels.push(Panels::of(matrix.ok_or_else(|| refused(name, "its weights do not fit"))?));
        rest = others;
    }
    Ok(panels)
}

/// For each row of `left`, by its number, the row of `addends` and its product.
fn sums<'m, 'a>(
    panels: &Panels,
    addends: impl Iterator<Item = &'a [f32]>,
    left: &[f32],
    rows: usize,
    memory: &'m mut Vec<f32>,
) -> Enumerate<ChunksExact<'m, f32>> {
    let stride = panels.stride();
    memory.resize(rows * stride, 0.0);
    for (sums, addend) in memory.chunks_exact_mut(stride).zip(addends) {
        sums[..addend.len()].copy_from_slice(addend);
    }
    panels.multiply(left, Onto::Held, memory);
    memory.chunks_exact(stride).enumerate()
}

/// The elements of row number `row`, of `width` each.
fn of_row(row: usize, width: usize) -> Range<usize> {
    row * width..(row + 1) * width
}

/// Adds a cell's operators to the domain.
pub(super) fn add<C: Cell>(domain: OperatorDomain) -> ort::Result<OperatorDomain> {
    node::add::<Backward<C>>(node::add::<Forward<C>>(domain)?)
}

struct Forward<C> {
    cell: C,
    reverse: bool,
}

impl<C: Cell> Fused for Forward<C> {
    const NAME: &'static str = C::FORWARD;
    const INPUTS: &'static [TensorElementType] = &[Float32; 4];
    const OPTIONAL_INPUTS: usize = 1;
    const OUTPUTS: &'static [TensorElementType] = &[Float32; 4];
    const OPTIONAL_OUTPUTS: usize = 3;

    fn new(node: &KernelContext<'_>) -> ort::Result<Self> {
        Ok(Self { cell: C::new(node)?, reverse: size(node, Self::NAME, "reverse")? != 0 })
    }
}

/// What all shares of rows have in common.
struct Ahead<'a, C> {
    cell: &'a C,
    layout: Layout,
    products: Vec<Panels>,
    projected: &'a [f32],
    first_hidden: &'a [f32],
    fourth: &'a [f32],
    y: Parts<'a, f32>,
    kept: Parts<'a, f32>,
    cells: Parts<'a, f32>,
    last: Parts<'a, f32>,
}

impl<C: Cell> Kernel for Forward<C> {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let (name, cell) = (Self::NAME, &self.cell);
        let [projected, weights, first] = [0, 1, 2].map(|index| input(context, name, index));
        let (projected, weights, first) = (projected?, weights?, first?);
        let (_, projected) = projected.try_extract_tensor::<f32>()?;
        let (state, first_hidden) = first.try_extract_tensor::<f32>()?;
        let layout = Layout::of(name, projected.len() / C::GATES, state, self.reverse)?;
        let Layout { steps, batch, hidden, .. } = layout;
        let weights = elements(name, &weights, C::GATES * hidden * hidden)?;
        let length = if cell.is_apart() {
            C::GATES * hidden
        } else {
            usize::from(C::HAS_CELL) * batch * hidden
        };
        let fourth = optional(context, name, 3, length)?;
        let fourth = optional_elements(name, fourth.as_ref(), length)?;
        let mut y = output(context, name, 0, &[steps, batch, hidden])?;
        let mut outputs = Vec::new();
        if C::KEPT > 0 {
            outputs.push(output(context, name, 1, &[steps * batch, C::KEPT * hidden])?);
        }
        if C::HAS_CELL {
            outputs.push(output(context, name, 2, &[steps, batch, hidden])?);
            outputs.push(output(context, name, 3, &[batch, hidden])?);
        }
        let mut outputs = outputs.iter_mut();
        let mut next = || match outputs.next() {
            Some(output) => output.try_extract_tensor_mut::<f32>().map(|(_, elements)| elements),
            None => Ok(&mut [][..]),
        };
        let ahead = &Ahead {
            cell,
            layout,
            products: panels(cell, name, weights, hidden, true)?,
            projected,
            first_hidden,
            fourth,
            y: Parts::of(y.try_extract_tensor_mut::<f32>()?.1),
            kept: Parts::of(next()?),
            cells: Parts::of(next()?),
            last: Parts::of(next()?),
        };
        layout.for_each_share(context, C::GATES, |rows| forward(ahead, &rows))
    }
}

/// Takes some rows through all steps.
fn forward<C: Cell>(ahead: &Ahead<'_, C>, rows: &Range<usize>) {
    let layout = ahead.layout;
    let of_cells = usize::from(C::HAS_CELL);
    let mut memory = Vec::new();
    for turn in 0..layout.steps {
        // SAFETY: other threads have other rows, and a step's parts are no other step's.
        let (y, kept, cells) = unsafe {
            (
                ahead.y.part(layout.at(turn, rows, 1)),
                ahead.kept.part(layout.at(turn, rows, C::KEPT)),
                ahead.cells.part(layout.at(turn, rows, of_cells)),
            )
        };
        let first = [ahead.first_hidden, ahead.fourth];
        let [before, old] = match turn.checked_sub(1).map(|turn| layout.at(turn, rows, 1)) {
            // SAFETY: the same, and the earlier step is written.
            Some(earlier) => unsafe {
                [&*ahead.y.part(earlier.clone()), &*ahead.cells.part(earlier)]
            },
            None if C::HAS_CELL => first.map(|state| &state[layout.within(rows)]),
            None => [&ahead.first_hidden[layout.within(rows)], &[]],
        };
        let step = Step {
            hidden: layout.hidden,
            projected: &ahead.projected[layout.at(turn, rows, C::GATES)],
            extra: ahead.fourth,
            before,
            old,
            kept,
            cells,
            y,
        };
        ahead.cell.forward(&ahead.products, step, &mut memory);
    }
    if C::HAS_CELL {
        // SAFETY: the same.
        unsafe {
            let cells = ahead.cells.part(layout.at(layout.steps - 1, rows, 1));
            ahead.last.part(layout.within(rows)).copy_from_slice(cells);
        }
    }
}

struct Backward<C> {
    cell: C,
    reverse: bool,
}

impl<C: Cell> Fused for Backward<C> {
    const NAME: &'static str = C::BACKWARD;
    const INPUTS: &'static [TensorElementType] = &[Float32; 7];
    const OPTIONAL_INPUTS: usize = 3;
    const OUTPUTS: &'static [TensorElementType] = &[Float32; 3];
    const OPTIONAL_OUTPUTS: usize = 1;

    fn new(node: &KernelContext<'_>) -> ort::Result<Self> {
        Ok(Self { cell: C::new(node)?, reverse: size(node, Self::NAME, "reverse")? != 0 })
    }
}

/// What all shares of rows have in common.
struct Back<'a, C> {
    cell: &'a C,
    layout: Layout,
    products: Vec<Panels>,
    by_hidden: &'a [f32],
    y: &'a [f32],
    first: &'a [f32],
    kept: &'a [f32],
    cells: &'a [f32],
    by_last: &'a [f32],
    by_projected: Parts<'a, f32>,
    by_first: Parts<'a, f32>,
    by_recurrent: Parts<'a, f32>,
    by_cell: Parts<'a, f32>,
}

impl<C: Cell> Kernel for Backward<C> {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let (name, cell) = (Self::NAME, &self.cell);
        let [by_hidden, y, weights, first] = [0, 1, 2, 3].map(|index| input(context, name, index));
        let (by_hidden, y, weights, first) = (by_hidden?, y?, weights?, first?);
        let (_, y) = y.try_extract_tensor::<f32>()?;
        let (state, first) = first.try_extract_tensor::<f32>()?;
        let layout = Layout::of(name, y.len(), state, self.reverse)?;
        let Layout { steps, batch, hidden, .. } = layout;
        let weights = elements(name, &weights, C::GATES * hidden * hidden)?;
        let of_cells = usize::from(C::HAS_CELL);
        let lengths = [layout.all(C::KEPT), layout.all(of_cells), of_cells * batch * hidden];
        let [kept, cells, by_last] =
            [0, 1, 2].map(|at| optional(context, name, 4 + at, lengths[at]));
        let (kept, cells, by_last) = (kept?, cells?, by_last?);
        let of_gates = [steps * batch, C::GATES * hidden];
        let mut by_projected = output(context, name, 0, &of_gates)?;
        let mut by_first = output(context, name, 1, &[batch, hidden])?;
        let mut third = match (cell.is_apart(), C::HAS_CELL) {
            (true, _) => Some(output(context, name, 2, &of_gates)?),
            (_, true) => Some(output(context, name, 2, &[batch, hidden])?),
            _ => None,
        };
        let third = match &mut third {
            Some(third) => third.try_extract_tensor_mut::<f32>()?.1,
            None => &mut [],
        };
        let (by_recurrent, by_cell): (&mut [f32], &mut [f32]) =
            if cell.is_apart() { (third, &mut []) } else { (&mut [], third) };
        let back = &Back {
            cell,
            layout,
            products: panels(cell, name, weights, hidden, false)?,
            by_hidden: elements(name, &by_hidden, layout.all(1))?,
            y,
            first,
            kept: optional_elements(name, kept.as_ref(), lengths[0])?,
            cells: optional_elements(name, cells.as_ref(), lengths[1])?,
            by_last: optional_elements(name, by_last.as_ref(), lengths[2])?,
            by_projected: Parts::of(by_projected.try_extract_tensor_mut::<f32>()?.1),
            by_first: Parts::of(by_first.try_extract_tensor_mut::<f32>()?.1),
            by_recurrent: Parts::of(by_recurrent),
            by_cell: Parts::of(by_cell),
        };
        layout.for_each_share(context, C::GATES, |rows| backward(back, &rows))
    }
}

/// Takes the gradients of some rows back through all steps.
fn backward<C: Cell>(back: &Back<'_, C>, rows: &Range<usize>) {
    let (layout, hidden) = (back.layout, back.layout.hidden);
    let stride = back.products[0].stride();
    let mut later = vec![0.0; rows.len() * stride];
    let mut memory = Vec::new();
    // SAFETY: other threads have other rows.
    let by_cell = unsafe { back.by_cell.part(layout.within(rows)) };
    if C::HAS_CELL {
        by_cell.copy_from_slice(&back.by_last[layout.within(rows)]);
    }
    let states = if C::HAS_CELL { back.cells } else { back.y };
    for turn in (0..layout.steps).rev() {
        let (of_states, of_gates) = (layout.at(turn, rows, 1), layout.at(turn, rows, C::GATES));
        // SAFETY: the same, and a step's parts are no other step's.
        let (by_projected, by_recurrent) =
            unsafe { (back.by_projected.part(of_gates.clone()), back.by_recurrent.part(of_gates)) };
        let step = StepBack {
            hidden,
            by_hidden: &back.by_hidden[of_states.clone()],
            kept: &back.kept[layout.at(turn, rows, C::KEPT)],
            y: &back.y[of_states.clone()],
            old: match turn.checked_sub(1) {
                Some(earlier) => &states[layout.at(earlier, rows, 1)],
                None => &back.first[layout.within(rows)],
            },
            cells: &states[of_states],
            by_projected,
            by_recurrent,
            by_cell: &mut *by_cell,
            later: &mut later,
        };
        back.cell.backward(&back.products, step, &mut memory);
    }
    // SAFETY: the same.
    let by_first = unsafe { back.by_first.part(layout.within(rows)) };
    for (to, from) in by_first.chunks_exact_mut(hidden).zip(later.chunks_exact(stride)) {
        to.copy_from_slice(&from[..hidden]);
    }
}
