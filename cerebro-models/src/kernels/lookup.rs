//! Rows of several tables side by side, as embeddings of categories are, and their gradient.
//!
//! A node for each table costs more than picking its rows. Attributes of both operators: `rows`, how
//! many there are, and an element for each part: `offsets` and `steps` say where in the whole numbers
//! those of its rows are, `heights` how many rows its table has; 0 where the part is no table, but a
//! matrix whose rows are taken as they come.

use ort::operator::{
    ComputeContext, Kernel, KernelContext, Operator, OperatorInput, OperatorOutput,
};
use ort::value::TensorElementType::{Float32, Int64};

use super::embedding::{add_row, row_number};
use super::in_domain;
use super::node::{Parts, dims, for_each, input, output, refused, size, sizes};

/// Inputs: whole numbers, then the tables and matrices, of two axes each. Output: their rows side by
/// side.
pub(crate) const LOOKUPS: &str = "ai.cerebro.Lookups";

/// Inputs: the whole numbers, the gradient by the rows. Outputs: a gradient for each table and matrix.
/// Attribute: `widths`, of their rows. Rows are added in their order.
pub(crate) const LOOKUPS_GRADIENT: &str = "ai.cerebro.LookupsGradient";

/// A part of the rows.
#[derive(Clone, Copy, Debug)]
struct Part {
    offset: usize,
    step: usize,
    height: usize,
}

impl Part {
    fn all(node: &KernelContext<'_>, name: &str) -> ort::Result<Vec<Self>> {
        let [offsets, steps, heights] =
            ["offsets", "steps", "heights"].map(|attribute| sizes(node, name, attribute));
        let (offsets, steps, heights) = (offsets?, steps?, heights?);
        if offsets.len() != steps.len() || steps.len() != heights.len() {
            return Err(refused(name, "its attributes differ in length"));
        }
        let parts = offsets.into_iter().zip(steps).zip(heights);
        Ok(parts.map(|((offset, step), height)| Self { offset, step, height }).collect())
    }

    /// The number of the row that belongs to row `row` of the result.
    fn place(&self, name: &str, numbers: &[i64], row: usize) -> ort::Result<usize> {
        if self.height == 0 {
            return Ok(row);
        }
        let number = numbers.get(self.offset + row * self.step);
        let number = *number.ok_or_else(|| refused(name, format!("{} numbers", numbers.len())))?;
        row_number(name, number, self.height)
    }
}

pub(super) struct Lookups;

impl Operator for Lookups {
    type Kernel<'attr> = LookupsKernel;

    fn name(&self) -> &str {
        in_domain(LOOKUPS)
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        [OperatorInput::required(Int64), OperatorInput::variadic(1).homogenous(Float32)]
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(Float32)]
    }

    fn create_kernel(&self, node: &KernelContext<'_>) -> ort::Result<LookupsKernel> {
        let rows = size(node, LOOKUPS, "rows")?;
        Ok(LookupsKernel { rows, parts: Part::all(node, LOOKUPS)? })
    }
}

pub(super) struct LookupsKernel {
    rows: usize,
    parts: Vec<Part>,
}

impl Kernel for LookupsKernel {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let name = LOOKUPS;
        let numbers = input(context, name, 0)?;
        let (_, numbers) = numbers.try_extract_tensor::<i64>()?;
        let tables: Vec<_> = (0..self.parts.len())
            .map(|part| input(context, name, 1 + part))
            .collect::<ort::Result<_>>()?;
        let mut matrices = Vec::with_capacity(tables.len());
        for table in &tables {
            let (shape, elements) = table.try_extract_tensor::<f32>()?;
            let &[height, width] = dims(shape).as_slice() else {
                return Err(refused(name, format!("an input {shape:?} is no table")));
            };
            matrices.push((height, width, elements));
        }
        let (rows, parts) = (self.rows, self.parts.iter().zip(&matrices));
        let wide = matrices.iter().map(|(_, width, _)| width).sum();
        let mut joined = output(context, name, 0, &[rows, wide])?;
        let (_, joined) = joined.try_extract_tensor_mut::<f32>()?;
        if wide == 0 {
            return Ok(());
        }
        for (row, mut to) in joined.chunks_exact_mut(wide).enumerate() {
            for (part, &(height, width, elements)) in parts.clone() {
                let place = part.place(name, numbers, row)?;
                if place >= height {
                    return Err(refused(name, format!("row {place} of {height}")));
                }
                let (here, rest) = to.split_at_mut(width);
                here.copy_from_slice(&elements[place * width..(place + 1) * width]);
                to = rest;
            }
        }
        Ok(())
    }
}

pub(super) struct LookupsGradient;

impl Operator for LookupsGradient {
    type Kernel<'attr> = LookupsGradientKernel;

    fn name(&self) -> &str {
        in_domain(LOOKUPS_GRADIENT)
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        [OperatorInput::required(Int64), OperatorInput::required(Float32)]
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::variadic(1).homogenous(Float32)]
    }

    fn create_kernel(&self, node: &KernelContext<'_>) -> ort::Result<LookupsGradientKernel> {
        let parts = Part::all(node, LOOKUPS_GRADIENT)?;
        let widths = sizes(node, LOOKUPS_GRADIENT, "widths")?;
        if widths.len() != parts.len() {
            return Err(refused(LOOKUPS_GRADIENT, "its attributes differ in length"));
        }
        Ok(LookupsGradientKernel { parts, widths })
    }
}

pub(super) struct LookupsGradientKernel {
    parts: Vec<Part>,
    widths: Vec<usize>,
}

impl Kernel for LookupsGradientKernel {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let name = LOOKUPS_GRADIENT;
        let (numbers, gradient) = (input(context, name, 0)?, input(context, name, 1)?);
        let (_, numbers) = numbers.try_extract_tensor::<i64>()?;
        let (shape, gradient) = gradient.try_extract_tensor::<f32>()?;
        let &[rows, wide] = dims(shape).as_slice() else {
            return Err(refused(name, format!("a gradient {shape:?} has not two axes")));
        };
        if self.widths.iter().sum::<usize>() != wide {
            return Err(refused(name, format!("{:?} columns, not {wide}", self.widths)));
        }
        let mut places = Vec::with_capacity(rows * self.parts.len());
        let mut outputs = Vec::with_capacity(self.parts.len());
        for (index, (part, &width)) in self.parts.iter().zip(&self.widths).enumerate() {
            for row in 0..rows {
                places.push(part.place(name, numbers, row)?);
            }
            let height = if part.height == 0 { rows } else { part.height };
            outputs.push(output(context, name, index, &[height, width])?);
        }
        let mut tables = Vec::with_capacity(outputs.len());
        let mut elements = rows * wide;
        for output in &mut outputs {
            let (_, table) = output.try_extract_tensor_mut::<f32>()?;
            elements += table.len();
            tables.push(Parts::of(table));
        }
        for_each(context, tables.len(), elements, |index| {
            let width = self.widths[index];
            let first = self.widths[..index].iter().sum::<usize>();
            // SAFETY: each number has a table of its own.
            let table = unsafe { tables[index].part(0..usize::MAX) };
            table.fill(0.0);
            let places = &places[index * rows..(index + 1) * rows];
            for (gradient, &place) in gradient.chunks_exact(wide.max(1)).zip(places) {
                add_row(table, place, &gradient[first..first + width]);
            }
        })
    }
}
