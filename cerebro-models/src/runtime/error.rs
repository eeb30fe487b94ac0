//! What can go wrong before ONNX Runtime is there.

use std::fmt;
use std::io;
use std::path::PathBuf;

use cerebro_core::ModelError;
use thiserror::Error;

use super::{OLDEST_MINOR_VERSION, VERSION};

/// Why ONNX Runtime is not there.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// No place has a library that can be used.
    #[error(
        "ONNX Runtime was not found. Looked at:\n{}\
         Any one of these mends it:\n  \
         - call `cerebro_models::runtime::install()`, which downloads version {VERSION} with pip\n  \
         - `pip install onnxruntime=={VERSION}` for the `python3` on the PATH\n  \
         - set ORT_DYLIB_PATH to the file of a libonnxruntime of version 1.{OLDEST_MINOR_VERSION} or later",
        lines(looked)
    )]
    NotFound {
        /// The places, in the order of the search.
        looked: Vec<Looked>,
    },
    /// The library that was asked for cannot be used.
    #[error("ONNX Runtime cannot be loaded from {}: {reason}", library.display())]
    Unusable {
        /// The library.
        library: PathBuf,
        /// Why.
        reason: String,
    },
    /// There is no folder to install into.
    #[error(
        "ONNX Runtime cannot be installed: no cache folder is known, since none of CEREBRO_CACHE, \
         XDG_CACHE_HOME and HOME is set; set CEREBRO_CACHE to a folder"
    )]
    NoCacheFolder,
    /// The cache folder cannot be written to.
    #[error("ONNX Runtime cannot be installed into {}: {source}; set CEREBRO_CACHE to another folder", folder.display())]
    Cache {
        /// The folder.
        folder: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// `pip` could not be run, or refused.
    #[error(
        "ONNX Runtime {VERSION} could not be downloaded with pip: {reason}\n\
         Give it a Python with pip and a way to a package index, or set ORT_DYLIB_PATH to the file \
         of a libonnxruntime of version 1.{OLDEST_MINOR_VERSION} or later"
    )]
    Download {
        /// What was tried and what came out.
        reason: String,
    },
}

impl From<RuntimeError> for ModelError {
    fn from(error: RuntimeError) -> Self {
        ModelError::other("cannot use ONNX Runtime", error)
    }
}

/// A place where ONNX Runtime was looked for, and why it was not to be had there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Looked {
    /// The place.
    pub place: String,
    /// What was found there.
    pub found: String,
}

impl fmt::Display for Looked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.found)
    }
}

fn lines(looked: &[Looked]) -> String {
    looked.iter().fold(String::new(), |lines, looked| lines + "  - " + &looked.to_string() + "\n")
}
