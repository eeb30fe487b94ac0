//! Operators of older versions, applied as those of the current one.
//!
//! Source: the "changelog" of operator versions of the ONNX project (`Changelog.md`).

use crate::autodiff::Forward;
use crate::graph::{Attributes, Value, normalize_axis};

/// Applies a node of the operator set `opset`.
pub(super) fn upgrade(
    forward: &mut Forward<'_>,
    opset: i64,
    op: &str,
    mut inputs: Vec<Option<Value>>,
    mut attributes: Attributes,
    outputs: usize,
) -> Result<Vec<Value>, String> {
    match op {
        // Axes, and sizes of parts, became inputs with version 13, for most reductions with 18.
        "Squeeze" | "Unsqueeze" | "ReduceSum" if opset < 13 => {
            ints_to_input(forward, "axes", &mut inputs, &mut attributes);
        }
        "Split" if opset < 13 => ints_to_input(forward, "split", &mut inputs, &mut attributes),
        _ if op.starts_with("Reduce") && opset < 18 => {
            ints_to_input(forward, "axes", &mut inputs, &mut attributes);
        }
        // Before version 13 the input was seen as a matrix, all axes from `axis` on being columns.
        "Softmax" | "LogSoftmax" | "Hardmax" if opset < 13 => {
            return softmax_of_matrix(forward, op, &inputs, &attributes);
        }
        "Dropout" if opset < 12 => {
            let ratio = attributes.float("ratio", 0.5);
            let x = inputs.first().copied().flatten().ok_or("input 0 is missing")?;
            inputs.truncate(1);
            inputs.push(Some(forward.graph.scalar(ratio, x)));
            attributes = attributes.without("ratio");
        }
        // The axis became an input with version 20; it was the first one after the batch's.
        "DFT" if opset < 20 => {
            inputs.resize(2, None);
            inputs.push(Some(forward.graph.ints(&[attributes.int("axis", 1)])));
            attributes = attributes.without("axis");
        }
        // What was quantized is of the type that it came of, and so are its bounds.
        "Clip" => {
            let Some(&Some(x)) = inputs.first() else { return Err("input 0 is missing".into()) };
            let data_type = forward.graph.data_type(x);
            for bound in inputs.iter_mut().skip(1).flatten() {
                *bound = forward.graph.cast(*bound, data_type);
            }
        }
        // Of version 24: how to round to 8 bits, which are refused.
        "Cast" => attributes = attributes.without("round_mode"),
        // Before version 21 scale and bias had one value per group.
        "GroupNormalization" if opset < 21 => {
            widen_group_parameters(forward, &mut inputs, &attributes)?;
        }
        _ => {}
    }
    if op == "Split" && inputs.get(1).copied().flatten().is_none() {
        attributes = attributes.with("num_outputs", outputs as i64);
    }
    forward.apply_with_outputs(op, &inputs, attributes, outputs)
}

/// The attribute `name`, a list of integers, as input number 1.
fn ints_to_input(
    forward: &mut Forward<'_>,
    name: &str,
    inputs: &mut Vec<Option<Value>>,
    attributes: &mut Attributes,
) {
    if let Some(values) = attributes.ints(name).map(<[i64]>::to_vec) {
        inputs.truncate(1);
        inputs.push(Some(forward.graph.ints(&values)));
        *attributes = std::mem::take(attributes).without(name);
    }
}

fn softmax_of_matrix(
    forward: &mut Forward<'_>,
    op: &str,
    inputs: &[Option<Value>],
    attributes: &Attributes,
) -> Result<Vec<Value>, String> {
    let x = inputs.first().copied().flatten().ok_or("input 0 is missing")?;
    let dims = forward.graph.dims(x).to_vec();
    let axis = normalize_axis(attributes.int("axis", 1), dims.len())?;
    let last = Attributes::none().with("axis", -1);
    if axis + 1 == dims.len() {
        return forward.apply_with_outputs(op, &[Some(x)], last, 1);
    }
    let (outer, inner) = dims.split_at(axis);
    let matrix = [outer.iter().product(), inner.iter().product()];
    let matrix = forward.graph.sizes(&matrix);
    let flat = forward.apply("Reshape", &[Some(x), Some(matrix)], Attributes::none())?;
    let y = forward.apply(op, &[Some(flat)], last)?;
    let sizes = forward.graph.sizes(&dims);
    Ok(vec![forward.apply("Reshape", &[Some(y), Some(sizes)], Attributes::none())?])
}

fn widen_group_parameters(
    forward: &mut Forward<'_>,
    inputs: &mut [Option<Value>],
    attributes: &Attributes,
) -> Result<(), String> {
    let x = inputs.first().copied().flatten().ok_or("input 0 is missing")?;
    let channels = *forward.graph.dims(x).get(1).ok_or("its input has no channels")?;
    let groups = usize::try_from(attributes.int("num_groups", 0)).unwrap_or(0);
    if groups == 0 || channels % groups != 0 {
        return Err(format!("{channels} channels do not divide into {groups} groups"));
    }
    for parameter in inputs.iter_mut().skip(1) {
        let value = parameter.ok_or("scale or bias is missing")?;
        if forward.graph.dims(value) != [groups] {
            continue;
        }
        let column = forward.graph.sizes(&[groups, 1]);
        let wide = forward.graph.sizes(&[groups, channels / groups]);
        let flat = forward.graph.sizes(&[channels]);
        let mut value = value;
        for (op, sizes) in [("Reshape", column), ("Expand", wide), ("Reshape", flat)] {
            value = forward.apply(op, &[Some(value), Some(sizes)], Attributes::none())?;
        }
        *parameter = Some(value);
    }
    Ok(())
}
