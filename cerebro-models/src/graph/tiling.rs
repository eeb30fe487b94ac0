//! Sums of parts that lie side by side become concatenations.
//!
//! The gradient of a slice is its part with zeros around it. Where all slices of a value are used, as
//! where queries, keys and values are cut out of one product, their sum adds zeros only: putting the parts side by side gives the same in one pass.

use super::builder::{Builder, Value};

/// A part with zeros before and after it along one axis.
struct Part {
    value: Value,
    axis: usize,
    before: i64,
    after: i64,
}

impl Builder {
    /// The sum of `values` if they are the parts of one value along an axis, each with zeros in the
    /// place of the others.
    pub(super) fn side_by_side(&mut self, values: &[Value]) -> Option<Value> {
        let mut parts: Vec<Part> =
            values.iter().map(|&value| self.padded(value)).collect::<Option<_>>()?;
        parts.sort_by_key(|part| part.before);
        let axis = parts.first()?.axis;
        let whole = *self.dims(*values.first()?).get(axis)? as i64;
        let mut end = 0;
        for part in &parts {
            if part.axis != axis || part.before != end {
                return None;
            }
            end = whole - part.after;
        }
        let parts: Vec<Value> = parts.iter().map(|part| part.value).collect();
        (end == whole).then(|| self.concat(&parts, axis))
    }

    /// What was padded with zeros along one axis to give `value`.
    fn padded(&self, value: Value) -> Option<Part> {
        let node = self.nodes.iter().rfind(|node| node.outputs.contains(&value))?;
        let &[Some(inner), Some(pads)] = node.inputs.as_slice() else { return None };
        if node.op != "Pad" || node.attributes.text("mode", "constant") != "constant" {
            return None;
        }
        let pads = self.constant_of(pads)?.to_i64s()?;
        let (before, after) = pads.split_at_checked(self.dims(value).len())?;
        let is_padded = |axis: &usize| before[*axis] != 0 || after[*axis] != 0;
        let mut padded = (0..before.len()).filter(is_padded);
        let (axis, None) = (padded.next()?, padded.next()) else { return None };
        let (before, after) = (before[axis], *after.get(axis)?);
        (before >= 0 && after >= 0).then_some(Part { value: inner, axis, before, after })
    }
}
