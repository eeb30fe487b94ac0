//! Updates by gradients that are products of matrices, as those of the weights of linear layers are.
//!
//! The gradient is made some rows at a time, and is used while it is in the caches: it is never written
//! to memory. What the update reads is fetched from there while the rows are multiplied.

use std::cell::Cell;
use std::marker::PhantomData;

use ort::operator::{ComputeContext, Kernel, KernelContext};
use ort::value::TensorElementType;

use super::rules::{ByElement, MOST_SLOTS, Rule, Tensors, Whole};
use super::{Settings, elements, parts};
use crate::kernels::node::{Fused, Parts, dims, for_each, input, output, refused, size};
use crate::kernels::product::strided::Left;
use crate::kernels::product::{Matrix, Onto, Panels, with_memory};
use crate::kernels::sum::sum_rows;

/// Rows of the gradient that are made at a time: what their update reads and writes stays in the
/// second cache beside the right matrix.
const ROWS: usize = 12;

/// The operator of a rule. Inputs: the packed hyperparameters, `a` and `b`, whose product with `a`
/// transposed is the gradient, the parameter, the slots. Outputs: the new parameter, the new slots, the
/// sums of the columns of one operand, which are the gradient by the bias. Attributes: those of the
/// rule's own operator, and `summed`, 0 for `a` and 1 for `b`.
pub(super) struct ProductUpdate<R> {
    settings: Settings,
    sums_b: bool,
    rule: PhantomData<fn() -> R>,
}

const TENSORS: &[TensorElementType] = &[TensorElementType::Float32; 4 + MOST_SLOTS];

impl<R: Rule> Fused for ProductUpdate<R> {
    const NAME: &'static str = R::OF_PRODUCT;
    const INPUTS: &'static [TensorElementType] = TENSORS.split_at(4 + R::SLOTS).0;
    const OUTPUTS: &'static [TensorElementType] = TENSORS.split_at(2 + R::SLOTS).0;

    fn new(node: &KernelContext<'_>) -> ort::Result<Self> {
        let sums_b = size(node, Self::NAME, "summed")? != 0;
        Ok(Self { settings: Settings::of(node, Self::NAME)?, sums_b, rule: PhantomData })
    }
}

thread_local! {
    static PANELS: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
    static LEFT: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
    static GRADIENT: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

impl<R: Rule> Kernel for ProductUpdate<R> {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let name = Self::NAME;
        let input = |index: usize| input(context, name, index);
        let (packed, a, b, parameter) = (input(0)?, input(1)?, input(2)?, input(3)?);
        let slots = (0..R::SLOTS).map(|slot| input(4 + slot)).collect::<ort::Result<Vec<_>>>()?;
        let method: ByElement<R> = self.settings.with(packed.try_extract_tensor::<f32>()?.1)?;
        let (a_shape, a) = a.try_extract_tensor::<f32>()?;
        let (b_shape, b) = b.try_extract_tensor::<f32>()?;
        let (shape, parameter) = parameter.try_extract_tensor::<f32>()?;
        let slots = elements(&slots)?;
        let (&[places, rows], &[same_places, columns]) =
            (dims(a_shape).as_slice(), dims(b_shape).as_slice())
        else {
            return Err(refused(name, format!("{a_shape:?} and {b_shape:?} are no matrices")));
        };
        let length = rows * columns;
        let differs = |slot: &&[f32]| slot.len() != length;
        if places != same_places
            || parameter.len() != length
            || slots[..R::SLOTS].iter().any(differs)
        {
            let of = format!("{a_shape:?} and {b_shape:?}");
            return Err(refused(
                name,
                format!("the product of {of} is not of the shape {shape:?}"),
            ));
        }

        let (summed, sums) = if self.sums_b { (b, columns) } else { (a, rows) };
        let mut sums = output(context, name, 1 + R::SLOTS, &[sums])?;
        sum_rows(context, summed, sums.try_extract_tensor_mut::<f32>()?.1)?;
        let output = |index: usize| output(context, name, index, &dims(shape));
        let mut new_parameter = output(0)?;
        let mut new_slots = (1..=R::SLOTS).map(output).collect::<ort::Result<Vec<_>>>()?;
        let new_parameter = Parts::of(new_parameter.try_extract_tensor_mut::<f32>()?.1);
        let new_slots = parts(&mut new_slots)?;
        let whole = Whole { parameter, slots, new_parameter, new_slots };

        let right = Matrix::new(b, [places, columns], false);
        let right = right.ok_or_else(|| refused(name, "its second operand has other elements"))?;
        let panels = Panels::within(PANELS.take(), right);
        let work = length * (places.div_ceil(32) + 3 + 2 * R::SLOTS);
        let done = for_each(context, rows.div_ceil(ROWS), work, |number| {
            let rows_here = number * ROWS..rows.min((number + 1) * ROWS);
            let height = rows_here.len();
            GRADIENT.with(|memory| {
                with_memory(memory, height * panels.stride(), |gradient| {
                    LEFT.with(|memory| {
                        with_memory(memory, height * places, |left| {
                            for (to, a) in left.chunks_exact_mut(height).zip(a.chunks_exact(rows)) {
                                let from = &a[rows_here.clone()];
                                match (to.as_chunks_mut::<ROWS>(), from.as_chunks::<ROWS>()) {
                                    (([to], []), ([from], [])) => *to = *from,
                                    _ => to.copy_from_slice(from),
                                }
                            }
                            let left = (Left { elements: left, steps: [1, height] }, height);
                            let range = rows_here.start * columns..rows_here.end * columns;
                            // SAFETY: each number has rows of its own, and parts of single rows
                            // are made only when this one is gone.
                            let next = unsafe { whole.part(range, &[]) };
                            let Tensors { parameter, slots, new_parameter, new_slots, .. } = &next;
                            let [parameter, new_parameter] = [*parameter, &**new_parameter];
                            let [a, b, c] = *slots;
                            let [new_a, new_b, new_c] = new_slots.each_ref().map(|new| &**new);
                            let next = [parameter, a, b, c, new_parameter, new_a, new_b, new_c];
                            panels.multiply_fetching(left, Onto::Zeros, gradient, &next);
                        });
                    });
                    let gradients = gradient.chunks_exact(panels.stride());
                    for (row, gradient) in rows_here.clone().zip(gradients) {
                        let range = row * columns..(row + 1) * columns;
                        // SAFETY: each row is another part.
                        method.update_all(unsafe { whole.part(range, &gradient[..columns]) });
                    }
                });
            });
        });
        PANELS.set(panels.into_memory());
        done
    }
}
