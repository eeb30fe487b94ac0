//! Reverse-mode differentiation of graphs.
//!
//! A [`Forward`] pass emits nodes into a [`Builder`](crate::graph::Builder) and notes each on a
//! [`Tape`]; [`differentiate`] walks the tape backwards and emits the gradients into the same
//! graph, by the rules in the [operator table](crate::operators) (the chain rule in reverse order:
//! Griewank and Walther 2008, "Evaluating Derivatives", chapter 3).

mod backward;
mod forward;

pub(crate) use backward::differentiate;

pub(crate) use forward::{Forward, Mode, Tape};
