//! The gradient of picking rows of a table: each row gets the sum of what comes back to it.

use ort::operator::{ComputeContext, Kernel, KernelContext};
use ort::value::TensorElementType::{self, Float32, Int64};

use super::node::{Fused, input, output, refused, size};

/// Inputs: gradients of shape `[picked, width]`, the numbers of the rows that were picked, of which
/// negative ones count from the end. Output: the gradient by the table, of shape `[height, width]`.
/// Attribute: `height`.
///
/// Rows are added in their order by one thread: the same bits every time, which ONNX Runtime's
/// `ScatterND` with several threads does not give.
pub(crate) const EMBEDDING_GRADIENT: &str = "ai.cerebro.EmbeddingGradient";

pub(super) struct EmbeddingGradient {
    height: usize,
}

impl Fused for EmbeddingGradient {
    const NAME: &'static str = EMBEDDING_GRADIENT;
    const INPUTS: &'static [TensorElementType] = &[Float32, Int64];
    const OUTPUTS: &'static [TensorElementType] = &[Float32];

    fn new(node: &KernelContext<'_>) -> ort::Result<Self> {
        Ok(Self { height: size(node, Self::NAME, "height")? })
    }
}

impl Kernel for EmbeddingGradient {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let name = Self::NAME;
        let (rows, picked) = (input(context, name, 0)?, input(context, name, 1)?);
        let (shape, rows) = rows.try_extract_tensor::<f32>()?;
        let (_, picked) = picked.try_extract_tensor::<i64>()?;
        let width = shape.last().and_then(|&width| usize::try_from(width).ok()).unwrap_or(0);
        if picked.len() * width != rows.len() {
            return Err(refused(name, format!("{} rows for {shape:?}", picked.len())));
        }
        let mut table = output(context, name, 0, &[self.height, width])?;
        let (_, table) = table.try_extract_tensor_mut::<f32>()?;
        table.fill(0.0);
        if width == 0 {
            return Ok(());
        }
        for (row, &number) in rows.chunks_exact(width).zip(picked) {
            add_row(table, row_number(name, number, self.height)?, row);
        }
        Ok(())
    }
}

/// The place of the row `number` of a table of `height` rows, as the operator `name` needs it.
pub(super) fn row_number(name: &str, number: i64, height: usize) -> ort::Result<usize> {
    let place = if number < 0 { number + height as i64 } else { number };
    let place = usize::try_from(place).ok().filter(|&place| place < height);
    place.ok_or_else(|| refused(name, format!("row {number} of a table of {height}")))
}

/// Adds `row` to the row at `place` of `table`.
pub(super) fn add_row(table: &mut [f32], place: usize, row: &[f32]) {
    let sums = &mut table[place * row.len()..(place + 1) * row.len()];
    sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
}
