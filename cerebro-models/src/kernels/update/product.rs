//! Updates by gradients that are products of matrices, as those of the weights of linear layers are.
//!
//! The gradient is made some rows at a time, and is used while it is in the caches: it is never written
//! to memory. What the update reads is fetched from there while the rows are multiplied.

use std::cell::Cell;
use std::marker::PhantomData;

use ort::operator::{ComputeContext, Kernel, KernelContext};
use ort::value::TensorElementType;

use super::Settings;
use super::rules::{ByElement, MOST_SLOTS, Renewed, Rule, Tensors};
use crate::kernels::node::{Fused, dims, for_each, input, output, refused, size};
use crate::kernels::product::strided::Left;
use crate::kernels::product::{Matrix, Onto, Panels, with_memory};
use crate::kernels::sum::sum_rows;

/// Rows of the gradient that are made at a time: what their update reads and writes stays in the
/// second cache beside the right matrix.
const ROWS: usize = 12;

/// The input that is the parameter, before its slots.
pub(super) const FIRST_RENEWED: usize = 3;

/// The operator of a rule. Inputs: the packed hyperparameters, `a` and `b`, whose product with `a`
/// transposed is the gradient, the parameter, the slots; perhaps a last one that it waits for and does not
/// read. Outputs: the new parameter, the new slots, the
/// sums of the columns of one operand, which are the gradient by the bias. Attributes: those of the
/// rule's own operator, and `summed`, 0 for `a` and 1 for `b`.
pub(super) struct ProductUpdate<R> {
    settings: Settings,
    sums_b: bool,
    rule: PhantomData<fn() -> R>,
}

const TENSORS: &[TensorElementType] = &[TensorElementType::Float32; 5 + MOST_SLOTS];

impl<R: Rule> Fused for ProductUpdate<R> {
    const NAME: &'static str = R::OF_PRODUCT;
    const INPUTS: &'static [TensorElementType] = TENSORS.split_at(5 + R::SLOTS).0;
    const OPTIONAL_INPUTS: usize = 1;
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
        let (packed, a, b) = (input(0)?, input(1)?, input(2)?);
        let method: ByElement<R> = self.settings.with(packed.try_extract_tensor::<f32>()?.1)?;
        let (a_shape, a) = a.try_extract_tensor::<f32>()?;
        let (b_shape, b) = b.try_extract_tensor::<f32>()?;
        let [places, rows, columns] = match (dims(a_shape).as_slice(), dims(b_shape).as_slice()) {
            (&[places, rows], &[same_places, columns]) if places == same_places => {
                [places, rows, columns]
            }
            _ => {
                let message = format!("{a_shape:?} and {b_shape:?} are no matrices to multiply");
                return Err(refused(name, message));
            }
        };
        let length = rows * columns;
        let renewed = FIRST_RENEWED..=FIRST_RENEWED + R::SLOTS;
        let tensors = Tensors::of(context, name, &[rows, columns], renewed, 0)?;

        let (summed, sums) = if self.sums_b { (b, columns) } else { (a, rows) };
        let mut sums = output(context, name, 1 + R::SLOTS, &[sums])?;
        sum_rows(context, summed, sums.try_extract_tensor_mut::<f32>()?.1)?;

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
                            let next = unsafe { tensors.part(range) };
                            let [a, b, c] = next.slots.each_ref().map(Renewed::touched);
                            let next = [next.parameter.touched(), a, b, c];
                            panels.multiply_fetching(
                                left,
                                Onto::Zeros,
                                gradient,
                                next.as_flattened(),
                            );
                        });
                    });
                    let gradients = gradient.chunks_exact(panels.stride());
                    for (row, gradient) in rows_here.clone().zip(gradients) {
                        let range = row * columns..(row + 1) * columns;
                        // SAFETY: each row is another part.
                        method.update_all(unsafe { tensors.part(range) }, &gradient[..columns]);
                    }
                });
            });
        });
        PANELS.set(panels.into_memory());
        done
    }
}
