//! Processes of this machine: they reach each other by local sockets, whose ends the kernel vouches
//! for, and read States where they lie in each other's memory instead of sending them.
//!
//! Whoever listens on an address for States listens on a local socket too, whose name is made of
//! that address. So nobody needs to be told the name; and processes that do not share a network,
//! such as those of two containers, do not find each other and use TCP as everybody else does.
//!
//! On systems other than Linux there are no such processes.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
pub(crate) use linux::{Caller, Listener, Process, connect};

#[cfg(not(target_os = "linux"))]
mod elsewhere;
#[cfg(not(target_os = "linux"))]
pub(crate) use elsewhere::{Caller, Listener, Process, connect};

/// A piece of another process's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) address: u64,
    pub(crate) bytes: usize,
}
