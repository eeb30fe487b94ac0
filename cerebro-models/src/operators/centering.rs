//! What is cut off or filled in evenly on both sides.

use super::{Composition, Operator};
use crate::graph::{Attributes, normalize_axis};

pub(super) const OPERATORS: &[Operator] = &[Operator::composed("CenterCropPad", CENTER_CROP_PAD)];

/// Larger axes lose at both ends, smaller ones get zeros; the odd one of them is the last.
const CENTER_CROP_PAD: Composition = |forward, node| {
    let x = node.required(0)?;
    let dims = forward.graph.dims(x).to_vec();
    let sizes = node.call(forward.graph).sizes(1)?;
    let axes: Vec<usize> = match node.attributes.ints("axes") {
        Some(axes) => {
            let axes = axes.iter().map(|&axis| normalize_axis(axis, dims.len()));
            axes.collect::<Result<_, _>>()?
        }
        None => (0..dims.len()).collect(),
    };
    if axes.len() != sizes.len() {
        return Err(format!("{} axes and sizes {sizes:?}", axes.len()));
    }
    let rank = dims.len();
    let mut ends: Vec<i64> = dims.iter().map(|&size| size as i64).collect();
    let (mut starts, mut pads) = (vec![0; rank], vec![0; 2 * rank]);
    for (&axis, &size) in axes.iter().zip(&sizes) {
        let (cut, added) = (dims[axis].saturating_sub(size), size.saturating_sub(dims[axis]));
        starts[axis] = (cut / 2) as i64;
        ends[axis] = starts[axis] + dims[axis].min(size) as i64;
        (pads[axis], pads[rank + axis]) = ((added / 2) as i64, added.div_ceil(2) as i64);
    }
    let [starts, ends, pads] = [&starts, &ends, &pads].map(|values| forward.graph.ints(values));
    let inputs = [x, starts, ends].map(Some);
    let cropped = forward.apply("Slice", &inputs, Attributes::none())?;
    let padded = forward.apply("Pad", &[Some(cropped), Some(pads)], Attributes::none())?;
    Ok(vec![padded])
};
