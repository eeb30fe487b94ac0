//! Operators of Cerebro's own domain, which gradient rules and optimizers emit in fused graphs.

use super::Operator;
use super::shapes::same;
use crate::graph::{Call, Type};
use crate::kernels;

pub(super) const OPERATORS: &[Operator] = &[
    Operator::opaque(kernels::RELU_GRADIENT, same),
    Operator::opaque(kernels::SGD, update_shape),
    Operator::opaque(kernels::MOMENTUM, update_shape),
    Operator::opaque(kernels::ADAM, update_shape),
];

/// Packed hyperparameters, parameter, gradient, slots: the new parameter and slots.
fn update_shape(call: &Call<'_>) -> Result<Vec<Type>, String> {
    let parameter = call.value_type(1)?;
    for index in 2..call.inputs.len() {
        if call.value_type(index)? != parameter {
            return Err(format!("input {index} is not of the parameter's type {parameter}"));
        }
    }
    Ok(vec![parameter.clone(); call.inputs.len() - 2])
}
