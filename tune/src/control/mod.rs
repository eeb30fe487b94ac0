//! Control of a running experiment through a Unix socket.
//!
//! Whoever connects sends requests, a line of JSON each, and gets a line of JSON for each, in order.
//! A request is a [`Command`](cerebro_core::experiment::Command), such as
//! `{"command": "pause_trial", "trial": 3}`, or one of `{"command": "list"}`, `{"command": "watch"}` and
//! `{"command": "stop"}`. An answer is `{"ok": ...}` or `{"error": "..."}`; after `watch`, events follow
//! until either side ends the connection.
//!
//! The socket belongs to the user who runs the experiment, and nobody else can connect.

#[cfg(unix)]
mod client;
#[cfg(unix)]
mod server;
mod words;

#[cfg(unix)]
pub use client::{HELP, main};
#[cfg(unix)]
pub use server::Server;
pub use words::command;
