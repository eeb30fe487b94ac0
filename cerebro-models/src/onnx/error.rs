//! [`OnnxError`].

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why an ONNX file could not be read or written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OnnxError {
    /// A file could not be read or written.
    #[error("cannot access {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The bytes are no protobuf message of the expected kind.
    #[error("this is no ONNX model, or it was cut short: {0}")]
    NotOnnx(String),
    /// A tensor's description and its data disagree.
    #[error("tensor `{name}`: {reason}")]
    Tensor {
        /// The tensor.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A part of the format that Cerebro does not handle.
    #[error("{place}: {what} cannot be handled")]
    Unsupported {
        /// Where it occurs.
        place: String,
        /// What it is.
        what: String,
    },
    /// A file that is longer than a protobuf message can be.
    #[error(
        "{path} has {bytes} bytes, and a protobuf message holds less than 2 GiB: export the model with its tensors as external data, in files beside it"
    )]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
    },
    /// A protobuf message cannot hold 2 GiB or more.
    #[error(
        "the model would take {bytes} bytes, and a protobuf message holds less than 2 GiB: write its tensors to safetensors instead"
    )]
    TooLarge {
        /// The size that it would have.
        bytes: usize,
    },
}
