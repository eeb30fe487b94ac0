//! Running training graphs: sessions, buffers, and the alternation of weights between two sets.
//!
//! A [`Stepper`] holds what one architecture and one number of rows need in one
//! slot: the compiled graph and the buffers of a batch. The weights are not in it. A step reads
//! them from one set of [`Buffer`]s and writes the new ones to another, so the State that a unit
//! starts from stays as it was, shared and unread by others' writes, and a hop within a process
//! is the handing over of a pointer.

mod accumulation;
mod buffer;
mod cache;
mod error;
mod feed;
mod memory;
mod session;
mod stepper;

pub use error::StepError;

pub(crate) use accumulation::Updater;
pub(crate) use buffer::Buffer;
pub(crate) use cache::{SlotCache, SlotCaches};
pub(crate) use feed::{Feed, Labels};
pub(crate) use memory::Memory;
pub(crate) use session::compile_session;
pub(crate) use stepper::{Scalars, Stepper, Task};
