//! Finds rows of tables that lie side by side, as embeddings of several categories do.

use super::builder::{Builder, Value};
use super::call::Attributes;
use super::strided::Reach;
use super::values::normalize_axis;
use crate::onnx::DataType;

/// Fewer tables than this are as fast one by one.
const FEWEST: usize = 2;

/// What one node may compute.
#[derive(Debug)]
pub(crate) struct Lookups {
    /// The whole numbers, then the tables and matrices.
    pub(crate) inputs: Vec<Option<Value>>,
    pub(crate) attributes: Attributes,
}

/// Where in a value the numbers of the rows of a table are.
struct Picked {
    table: Value,
    numbers: Value,
    offset: usize,
    step: usize,
}

impl Builder {
    /// What the concatenation of `parts` computes, if rows of tables are among them.
    pub(crate) fn as_lookups(
        &self,
        parts: &[Option<Value>],
        attributes: &Attributes,
    ) -> Option<Lookups> {
        let parts: Vec<Value> = parts.iter().copied().collect::<Option<_>>()?;
        let is_matrix = |&part: &Value| {
            let of = self.value_type(part);
            of.data_type == DataType::Float32 && of.dims.len() == 2 && of.elements() > 0
        };
        let axis = normalize_axis(attributes.int("axis", 0), 2);
        if !self.dialect().is_fused() || axis != Ok(1) || !parts.iter().all(is_matrix) {
            return None;
        }
        let picked: Vec<Option<Picked>> = parts.iter().map(|&part| self.picked(part)).collect();
        let numbers = picked.iter().flatten().next()?.numbers;
        let tables = picked.iter().flatten().count();
        if tables < FEWEST || picked.iter().flatten().any(|picked| picked.numbers != numbers) {
            return None;
        }
        let mut inputs = vec![Some(numbers)];
        let [mut offsets, mut steps, mut heights] = [const { Vec::new() }; 3];
        for (part, picked) in parts.iter().zip(&picked) {
            let (input, [offset, step, height]) = match picked {
                Some(Picked { table, offset, step, .. }) => {
                    (*table, [*offset, *step, self.dims(*table)[0]])
                }
                None => (*part, [0, 0, 0]),
            };
            inputs.push(Some(input));
            offsets.push(offset as i64);
            steps.push(step as i64);
            heights.push(height as i64);
        }
        let attributes = Attributes::none()
            .with("rows", self.dims(parts[0])[0] as i64)
            .with("offsets", offsets)
            .with("steps", steps)
            .with("heights", heights);
        Some(Lookups { inputs, attributes })
    }

    /// The table whose rows `part` is, and where their numbers are.
    fn picked(&self, part: Value) -> Option<Picked> {
        let node = self.maker(part)?;
        let &[Some(table), Some(numbers)] = node.inputs.as_slice() else { return None };
        let is_rows = node.op == "Gather"
            && node.attributes.int("axis", 0) == 0
            && self.dims(table).len() == 2
            && self.dims(numbers).len() == 1
            && self.data_type(numbers) == DataType::Int64;
        if !is_rows {
            return None;
        }
        let found = self.strided(numbers, Reach::Part);
        let (_, step) = found.axis(0)?;
        let is_plain = found.scale == 1.0 && self.data_type(found.base) == DataType::Int64;
        is_plain.then_some(Picked { table, numbers: found.base, offset: found.offset, step })
    }
}
