//! Whole experiments from TOML files: what the program `tune` does.
//!
//! `docs/experiment-file.md` describes the file. Reading is split by table (`[data]`, `[model]`,
//! `[space]`, ...), each in a module of its own; [`document`] knows where in the text everything is,
//! so that whatever is wrong is told with line and column.

pub mod arguments;
pub mod backend;
pub mod control;
pub mod data;
pub mod document;
pub mod model;
pub mod plan;
pub mod run;
pub mod search;
pub mod space;
pub mod tagged;

pub use document::{Fault, Misuse};
pub use plan::Plan;
