//! [`GraphError`]: why no training graph could be made of a model.

use thiserror::Error;

use crate::onnx::OnnxError;

/// Why no training graph could be made of a model.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum GraphError {
    /// The file could not be read or written.
    #[error(transparent)]
    Onnx(#[from] OnnxError),
    /// An operator that is not in the table.
    #[error(
        "operator {op} of node `{node}` is not supported: there is no gradient for it. Supported are: {}",
        supported.join(", ")
    )]
    UnsupportedOperator {
        /// The operator, with its domain if it is not ONNX's own.
        op: String,
        /// The node.
        node: String,
        /// The operators that are supported.
        supported: Vec<&'static str>,
    },
    /// A node does not fit its inputs.
    #[error("operator {op} of node `{node}`: {reason}")]
    Refused {
        /// The operator.
        op: String,
        /// The node.
        node: String,
        /// What does not fit.
        reason: String,
    },
    /// A model that does not say which version of the operators it uses.
    #[error(
        "the model does not say which version of the ONNX operators it uses: the file is damaged or was cut short"
    )]
    NoOpset,
    /// A model of another version of the operators.
    #[error(
        "the model uses version {found} of the ONNX operators; versions 11 to 25 are supported: export it with one of them"
    )]
    Opset {
        /// The version that it uses.
        found: i64,
    },
    /// A node reads a value that nothing makes.
    #[error(
        "node `{node}` reads `{value}`, which is neither an input, nor an initializer, nor the output of a node before it"
    )]
    NoSuchValue {
        /// The node.
        node: String,
        /// The value.
        value: String,
    },
    /// The model has no output at all.
    #[error("the model has no output: the file is damaged, or its export went wrong")]
    NoOutput,
    /// The model has no such output.
    #[error("the model has no output `{name}`; it has: {}", known.join(", "))]
    NoSuchOutput {
        /// The name asked for.
        name: String,
        /// The outputs that it has.
        known: Vec<String>,
    },
    /// The model has no such initializer.
    #[error("the model has no floating-point initializer `{name}` to train; it has: {}", known.join(", "))]
    NoSuchParameter {
        /// The name asked for.
        name: String,
        /// The initializers that it has.
        known: Vec<String>,
    },
    /// There is nothing to train.
    #[error(
        "the model has no trainable parameter: no floating-point initializer with an axis influences `{output}`"
    )]
    NoParameter {
        /// The output that the loss is computed from.
        output: String,
    },
    /// A pattern of parameters to freeze that fits none.
    #[error(
        "no parameter is called `{pattern}`, which is to be frozen; the model has: {}", known.join(", ")
    )]
    NothingToFreeze {
        /// The pattern.
        pattern: String,
        /// The parameters that there are.
        known: Vec<String>,
    },
    /// Every parameter is frozen.
    #[error(
        "the patterns {} freeze every parameter of the model, so nothing is left to train",
        patterns.iter().map(|pattern| format!("`{pattern}`")).collect::<Vec<_>>().join(", ")
    )]
    AllFrozen {
        /// The patterns.
        patterns: Vec<String>,
    },
    /// Weights that are not finite.
    #[error("parameter `{name}` holds {value}: it cannot be trained from there")]
    NotFinite {
        /// The parameter.
        name: String,
        /// NaN or an infinity.
        value: f64,
    },
    /// An input whose shape the model leaves open.
    #[error("the model's input `{name}` has the shape {declared}: give the shape of one row")]
    OpenShape {
        /// The input.
        name: String,
        /// The shape that the model says.
        declared: String,
    },
    /// A shape that the model's input cannot have.
    #[error(
        "the model's input `{name}` has the shape {declared}; data of shape {given:?} do not fit"
    )]
    InputShape {
        /// The input.
        name: String,
        /// The shape that the model says.
        declared: String,
        /// The shape that was asked for.
        given: Vec<usize>,
    },
    /// The loss or a metric does not fit the output.
    #[error("{what} cannot be computed from the output `{output}`: {reason}")]
    Loss {
        /// The loss or the metric.
        what: String,
        /// The output.
        output: String,
        /// What does not fit.
        reason: String,
    },
}

impl GraphError {
    /// The error for an operator that is not in the table.
    pub(crate) fn unsupported(op: &str, node: &str) -> Self {
        let mut supported: Vec<&'static str> =
            crate::operators::operators().map(|operator| operator.name).collect();
        supported.extend(crate::import::STRUCTURAL);
        supported.sort_unstable();
        GraphError::UnsupportedOperator { op: op.to_owned(), node: node.to_owned(), supported }
    }
}
