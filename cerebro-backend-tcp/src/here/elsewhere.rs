//! Systems whose processes do not read each other's memory.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use super::Piece;
use crate::transport::Stream;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Process {}

impl Process {
    pub(crate) fn admit(self) {
        match self {}
    }

    pub(crate) fn read(self, _: &[Piece], _: &mut [u8]) -> io::Result<()> {
        match self {}
    }
}

impl fmt::Display for Process {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {}
    }
}

#[derive(Debug)]
pub(crate) enum Listener {}

impl Listener {
    pub(crate) fn bind(_: SocketAddr) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    #[allow(clippy::unused_async)] // As on Linux.
    pub(crate) async fn accept(&self) -> io::Result<Caller> {
        match *self {}
    }
}

pub(crate) enum Caller {}

impl Caller {
    pub(crate) fn identify(self) -> io::Result<(Box<dyn Stream>, Process)> {
        match self {}
    }
}

#[allow(clippy::unused_async)] // As on Linux.
pub(crate) async fn connect(_: SocketAddr) -> Option<(Box<dyn Stream>, Process)> {
    None
}
