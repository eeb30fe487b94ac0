//! Checks training against reference cases that were computed with PyTorch.
//!
//! A case is a folder with a network (`model.onnx`, and maybe other exports of it), twelve batches
//! of data (`data.safetensors`), and the numbers that PyTorch got when it trained the network on
//! them (`case.json`): gradient norms, losses, norms of the final parameters.

mod case;
mod check;
mod session;

pub use case::Case;
pub use check::{Check, Report, check_case};

/// What goes wrong while a case is read or run.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
