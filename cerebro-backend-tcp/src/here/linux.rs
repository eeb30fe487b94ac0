//! Local sockets and memory as Linux has them.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;
use rustix::process::{PTracer, geteuid, set_ptracer};
use tokio::net::{UnixListener, UnixStream};

use super::Piece;
use crate::transport::Stream;

/// Another process of this machine and of this user, as the kernel says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process(i32);

impl Process {
    /// The process at the other end of `socket`, if it is this user's: of another one it could not
    /// be read, and could be anybody's.
    fn behind(socket: &UnixStream) -> io::Result<Self> {
        let peer = socket.peer_cred()?;
        // A process of a container that cannot be seen from here has the number 0.
        let number = peer.pid().filter(|&number| number > 0);
        if let Some(number) = number.filter(|_| peer.uid() == geteuid().as_raw()) {
            return Ok(Self(number));
        }
        let whose = format!("process {:?} of user {} is not this user's", number, peer.uid());
        Err(io::Error::new(io::ErrorKind::PermissionDenied, whose))
    }

    /// Lets it read this process's memory where the system lets only parents do so otherwise (Yama).
    /// It forgets whom it was asked for before; where there is no such rule it fails, to no harm.
    pub(crate) fn admit(self) {
        if let Some(process) = rustix::process::Pid::from_raw(self.0) {
            let _ = set_ptracer(PTracer::ProcessID(process));
        }
    }

    /// Reads `pieces` of its memory into `into`, which is as long as they are together.
    pub(crate) fn read(self, pieces: &[Piece], into: &mut [u8]) -> io::Result<()> {
        let remote = |piece: &Piece| {
            let base = usize::try_from(piece.address).map_err(|_| io::ErrorKind::InvalidData)?;
            Ok(RemoteIoVec { base, len: piece.bytes })
        };
        let pieces = pieces.iter().map(remote).collect::<io::Result<Vec<_>>>()?;
        let length = into.len();
        let read = process_vm_readv(Pid::from_raw(self.0), &mut [IoSliceMut::new(into)], &pieces)?;
        if read != length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} of this machine", self.0)
    }
}

/// Takes connections from processes of this machine.
#[derive(Debug)]
pub(crate) struct Listener(UnixListener);

impl Listener {
    /// Listens beside `address`, on which this process listens for everybody.
    pub(crate) fn bind(address: SocketAddr) -> io::Result<Self> {
        UnixListener::bind(name(address)).map(Self)
    }

    pub(crate) async fn accept(&self) -> io::Result<(Box<dyn Stream>, Process)> {
        let (socket, _) = self.0.accept().await?;
        let process = Process::behind(&socket)?;
        Ok((Box::new(socket), process))
    }
}

/// Connects to whoever listens on `address`, if that is a process of this machine and user.
pub(crate) async fn connect(address: SocketAddr) -> Option<(Box<dyn Stream>, Process)> {
    let ip = address.ip();
    // Only an address of this machine can be bound.
    if !ip.is_loopback() && UdpSocket::bind((ip, 0)).is_err() {
        return None;
    }
    // It may listen on that address, or on all of the machine.
    let all = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    for ip in [ip].into_iter().chain(all) {
        let Ok(socket) = UnixStream::connect(name(SocketAddr::new(ip, address.port()))).await
        else {
            continue;
        };
        match Process::behind(&socket) {
            Ok(process) => return Some((Box::new(socket), process)),
            Err(error) => tracing::debug!(%address, %error, "a local socket is not used"),
        }
    }
    None
}

/// The name of the local socket beside `address`. It begins with a zero, so it is no file's: it is
/// gone when its process is, and there is one of it in each network namespace, as there is of the
/// address.
fn name(address: SocketAddr) -> String {
    format!("\0cerebro-bulk {address}")
}
