//! Comparisons, booleans, types, and tensors made from sizes: what has no gradient but passes
//! through.

use super::shapes::{broadcast_all, compare, same, same_bool};
use super::{Composition, Gradients, Operator, Site, only};
use crate::graph::{Attributes, Builder, Call, Type, broadcast, normalize_axis};
use crate::onnx::DataType;

pub(super) const OPERATORS: &[Operator] = &[
    Operator::opaque("Equal", compare),
    Operator::opaque("Greater", compare),
    Operator::opaque("GreaterOrEqual", compare),
    Operator::opaque("Less", compare),
    Operator::opaque("LessOrEqual", compare),
    Operator::opaque("And", compare),
    Operator::opaque("Or", compare),
    Operator::opaque("Xor", compare),
    Operator::opaque("Not", same),
    Operator::opaque("IsNaN", same_bool),
    Operator::opaque("IsInf", same_bool),
    Operator::opaque("BitShift", broadcast_all),
    Operator::opaque("BitwiseAnd", broadcast_all),
    Operator::opaque("BitwiseOr", broadcast_all),
    Operator::opaque("BitwiseXor", broadcast_all),
    Operator::opaque("BitwiseNot", same),
    Operator::rule("Where", where_shape, select),
    Operator::rule("Cast", cast_shape, cast),
    Operator::composed("CastLike", CAST_LIKE),
    Operator::opaque("Shape", shape_shape),
    Operator::opaque("Size", size_shape),
    Operator::opaque("ConstantOfShape", constant_of_shape),
    Operator::opaque("Range", range_shape),
    Operator::opaque("EyeLike", eye_like_shape),
    Operator::opaque("OneHot", one_hot_shape),
    Operator::opaque("ArgMax", arg_shape),
    Operator::opaque("ArgMin", arg_shape),
];

fn where_shape(call: &Call<'_>) -> Result<Vec<Type>, String> {
    let dims = broadcast(call.dims(0)?, call.dims(1)?)?;
    Ok(vec![Type::new(call.data_type(1)?, broadcast(&dims, call.dims(2)?)?)])
}

fn select(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let (condition, dy) = (at.x(0), at.dy());
    let zero = g.scalar(0.0, dy);
    let (da, db) = (g.select(condition, dy, zero), g.select(condition, zero, dy));
    let (a, b) = (g.dims(at.x(1)).to_vec(), g.dims(at.x(2)).to_vec());
    Ok(vec![None, Some(g.sum_to(da, &a)), Some(g.sum_to(db, &b))])
}

fn cast_shape(call: &Call<'_>) -> Result<Vec<Type>, String> {
    let code = call.attributes.int("to", 0);
    let to = DataType::from_code(code).ok_or_else(|| format!("type {code} is not supported"))?;
    Ok(vec![Type::new(to, call.dims(0)?)])
}

const CAST_LIKE: Composition = |forward, node| {
    let to = forward.graph.data_type(node.required(1)?);
    let attributes = Attributes::none().with("to", to.code());
    Ok(vec![forward.apply("Cast", &node.inputs[..1], attributes)?])
};

/// A gradient goes back in the type that its input has; none goes to integers.
fn cast(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let from = g.data_type(at.x(0));
    if from.is_float() { only(g.cast(at.dy(), from)) } else { Ok(vec![None]) }
}

fn shape_shape(call: &Call<'_>) -> Result<Vec<Type>, String> {
    // Always folded, so the number of sizes that `start` and `end` leave does not matter here.
    Ok(vec![Type::new(DataType::Int64, [call.dims(0)?.len()])])
}

fn size_shape(_: &Call<'_>) -> Result<Vec<Type>, String> {
    Ok(vec![Type::new(DataType::Int64, [])])
}

fn constant_of_shape(call: &Call<'_>) -> Result<Vec<Type>, String> {
    let data_type = call
        .attributes
        .tensor("value")
        .map_or(DataType::Float32, crate::onnx::TensorData::data_type);
    Ok(vec![Type::new(data_type, call.sizes(0)?)])
}

fn range_shape(call: &Call<'_>) -> Result<Vec<Type>, String> {
    let number = |index: usize| -> Result<f64, String> {
        call.constant(index)?.to_f64s().first().copied().ok_or_else(|| "it is empty".to_owned())
    };
    let (start, limit, step) = (number(0)?, number(1)?, number(2)?);
    if step == 0.0 {
        return Err("the step is 0".to_owned());
    }
    let count = ((limit - start) / step).ceil().max(0.0) as usize;
    Ok(vec![Type::new(call.data_type(0)?, [count])])
}

fn eye_like_shape(call: &Call<'_>) -> Result<Vec<Type>, String> {
    let own = call.data_type(0)?;
    let code = call.attributes.int("dtype", own.code());
    Ok(vec![Type::new(DataType::from_code(code).unwrap_or(own), call.dims(0)?)])
}

fn one_hot_shape(call: &Call<'_>) -> Result<Vec<Type>, String> {
    let mut dims = call.dims(0)?.to_vec();
    let axis = normalize_axis(call.attributes.int("axis", -1), dims.len() + 1)?;
    let depth = call.constant(1)?.to_f64s().first().copied().unwrap_or(0.0);
    dims.insert(axis, depth as usize);
    Ok(vec![Type::new(call.data_type(2)?, dims)])
}

fn arg_shape(call: &Call<'_>) -> Result<Vec<Type>, String> {
    let mut dims = call.dims(0)?.to_vec();
    let axis = call.axis("axis", 0, dims.len())?;
    if call.attributes.int("keepdims", 1) == 0 {
        dims.remove(axis);
    } else {
        dims[axis] = 1;
    }
    Ok(vec![Type::new(DataType::Int64, dims)])
}
