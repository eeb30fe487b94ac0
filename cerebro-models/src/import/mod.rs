//! From a model as it is in a file to a typed forward pass.
//!
//! Files hold symbolic shapes, operators of many versions, functions, branches and the shape
//! arithmetic of exporters. Importing a model for fixed input shapes resolves all of that: what
//! remains is applied, node by node, to a [`Forward`](crate::autodiff::Forward) pass.

mod functions;
mod linear;
mod loops;
mod needed;
mod nodes;
mod structural;
mod units;
mod upgrade;

pub(crate) use functions::inline_functions;
pub(crate) use linear::lower_linear_models;
pub(crate) use needed::{check_nodes, for_each_input, needed_nodes};
pub(crate) use nodes::Importer;
pub(crate) use structural::STRUCTURAL;

/// The versions of ONNX's operators that are understood.
pub(crate) const OPSETS: std::ops::RangeInclusive<i64> = 11..=25;
