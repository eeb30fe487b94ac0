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

    #[cfg(any(test, fuzzing))]
    pub(crate) fn this() -> Self {
        Self(rustix::process::getpid().as_raw_nonzero().get())
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

    pub(crate) async fn accept(&self) -> io::Result<Caller> {
        let (socket, _) = self.0.accept().await?;
        Ok(Caller(socket))
    }
}

/// Somebody of this machine.
pub(crate) struct Caller(UnixStream);

impl Caller {
    /// Finds out who it is; an error if it is of another user.
    pub(crate) fn identify(self) -> io::Result<(Box<dyn Stream>, Process)> {
        let process = Process::behind(&self.0)?;
        Ok((Box::new(self.0), process))
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

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    use tokio::io::AsyncReadExt;

    use super::*;

    /// In a process of another user: the listener to call.
    const CALL: &str = "CEREBRO_TEST_CALLS_LISTENER";
    const NOBODY: u32 = 65534;

    #[test]
    fn a_process_of_another_user_is_refused_at_both_ends() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        if let Ok(address) = std::env::var(CALL) {
            let found = runtime.block_on(connect(address.parse().unwrap()));
            assert!(found.is_none(), "it is another user's");
            return;
        }
        if !geteuid().is_root() {
            eprintln!("skipped: another user's processes can be started by root only");
            return;
        }
        // No port of this machine: only the name counts.
        let address: SocketAddr =
            format!("127.0.0.1:{}", std::process::id() % 60_000 + 1024).parse().unwrap();
        let test = "here::linux::tests::a_process_of_another_user_is_refused_at_both_ends";
        runtime.block_on(async {
            let listener = Listener::bind(address).unwrap();
            // The program may lie where another user must not read.
            let copy = std::env::temp_dir().join(format!("cerebro-here-{}", std::process::id()));
            std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
            let mut stranger = Command::new(&copy);
            stranger.args(["--exact", test]).env(CALL, address.to_string()).uid(NOBODY);
            let mut stranger = stranger.spawn().unwrap();
            let caller = listener.accept().await.unwrap();
            let refused = caller.identify().map(|_| ()).unwrap_err().to_string();
            assert!(refused.contains("of user 65534 is not this user's"), "{refused}");
            assert!(stranger.wait().unwrap().success());
            std::fs::remove_file(copy).unwrap();
        });
    }

    #[test]
    fn processes_find_each_other_by_the_address_that_they_listen_on() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let free = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
            let everywhere = free.local_addr().unwrap();
            let told = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), everywhere.port());
            assert!(connect(told).await.is_none(), "nobody listens yet");
            let listener = Listener::bind(everywhere).unwrap();
            let (found, caller) = tokio::join!(connect(told), listener.accept());
            let ((mut stream, process), (_, back)) =
                (found.unwrap(), caller.unwrap().identify().unwrap());
            assert_eq!((process, back), (Process::this(), Process::this()));
            // The other end was dropped.
            assert!(stream.read_u8().await.is_err());
            let elsewhere = SocketAddr::new(Ipv4Addr::new(192, 0, 2, 1).into(), everywhere.port());
            assert!(connect(elsewhere).await.is_none(), "not an address of this machine");
        });
    }
}
