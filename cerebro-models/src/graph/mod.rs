//! Typed graphs: every value has an element type and a fixed shape.
//!
//! A [`Builder`] grows a graph node by node. Emitting a node infers the types of its outputs from
//! the [operator table](crate::operators), and computes them at once where all inputs are small
//! constants: so the shape arithmetic that exporters leave in a graph is gone once a graph has
//! been built, and gradient rules can rely on shapes.

mod attention;
mod builder;
mod call;
mod fold;
mod in_place;
mod lookups;
mod products;
mod rectify;
mod strided;
mod tiling;
mod updates;
mod values;
mod vocabulary;

pub(crate) use builder::LARGEST;
pub use builder::{Builder, Dialect, OPSET, Type, Value};
pub use call::{Attributes, Call};
pub(crate) use in_place::write_in_place;
pub(crate) use values::{broadcast, normalize_axis};
pub use vocabulary::Transposed;
