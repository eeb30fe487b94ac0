//! Shape rules that operators of several families share.

use crate::graph::{Call, Type, broadcast};
use crate::onnx::DataType;

/// The operator is written with others.
pub(super) fn never_emitted(_: &Call<'_>) -> Result<Vec<Type>, String> {
    Err("it is written with other operators and never emitted itself".to_owned())
}

/// One output, of the type of the first input.
pub(super) fn same(call: &Call<'_>) -> Result<Vec<Type>, String> {
    Ok(vec![call.value_type(0)?.clone()])
}

/// One boolean output, of the shape of the first input.
pub(super) fn same_bool(call: &Call<'_>) -> Result<Vec<Type>, String> {
    Ok(vec![Type::new(DataType::Bool, call.dims(0)?)])
}

/// All inputs broadcast together; elements of the type of the first.
pub(super) fn broadcast_all(call: &Call<'_>) -> Result<Vec<Type>, String> {
    let mut dims = Vec::new();
    for index in 0..call.inputs.len() {
        dims = broadcast(&dims, call.dims(index)?)?;
    }
    Ok(vec![Type::new(call.data_type(0)?, dims)])
}

/// Two inputs broadcast together; booleans.
pub(super) fn compare(call: &Call<'_>) -> Result<Vec<Type>, String> {
    let dims = broadcast(call.dims(0)?, call.dims(1)?)?;
    Ok(vec![Type::new(DataType::Bool, dims)])
}
