//! Running training graphs: sessions, buffers, and variables that steps renew.
//!
//! A [`Stepper`] holds what one architecture and one number of rows need in one
//! slot: the compiled graph and the buffers of a batch. The weights are not in it. The first step of a
//! unit reads them from the State that the unit starts from and writes the new ones to [`Buffer`]s of
//! the unit's own, which later steps renew, most of them in place ([`Renewal`]). So that State stays as it
//! was, shared and unread by others' writes, and a hop within a process is the handing over of a pointer.

mod accumulation;
mod buffer;
mod cache;
mod error;
mod feed;
mod memory;
mod renewal;
mod session;
mod stepper;

pub use error::StepError;

pub(crate) use accumulation::Updater;
pub(crate) use buffer::Buffer;
pub(crate) use cache::{SlotCache, SlotCaches};
pub(crate) use feed::{Feed, Labels};
pub(crate) use memory::Memory;
pub(crate) use renewal::Renewal;
pub(crate) use session::compile_session;
pub(crate) use stepper::{Scalars, Stepper, Task};
