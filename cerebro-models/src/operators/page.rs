//! [`page`]: the table of operators for people.

use std::fmt::Write;

use super::{Differentiable, operators};
use crate::import::STRUCTURAL;

/// The table of operators as a page of Markdown.
pub fn page() -> String {
    let mut text = String::from(
        "# Operators that Cerebro trains through\n\n\
         Versions 11 to 25 of ONNX's operators are read. \"Gradient\" says whether a loss can be \
         differentiated through the operator; where it is \"zero\", the results are integers, \
         booleans or constant almost everywhere, and pass through. \"resolved\" means that the \
         operator is gone once a graph has been built for fixed shapes: conditions and numbers of \
         rounds must not depend on the data. Of the domain `ai.onnx.ml` LinearClassifier, \
         LinearRegressor, Normalizer and Scaler are read, as scikit-learn's exporter writes \
         them.\n\n\
         | Operator | Gradient |\n| --- | --- |\n",
    );
    let mut rows: Vec<(&str, &str)> = operators()
        .filter(|operator| !operator.name.contains('.'))
        .map(|operator| match operator.differentiable() {
            Differentiable::Yes => (operator.name, "yes"),
            Differentiable::Zero => (operator.name, "zero"),
        })
        .chain(STRUCTURAL.into_iter().map(|name| (name, "resolved")))
        .collect();
    rows.sort_unstable();
    for (name, gradient) in rows {
        writeln!(text, "| {name} | {gradient} |").expect("writing to a string does not fail");
    }
    text
}
