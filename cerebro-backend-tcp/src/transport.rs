//! Connections: accepted within bounds, dialled, in plain text or TLS.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, timeout};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tonic::transport::server::Connected;

use crate::here::{self, Process};
use crate::security::{BULK, CALLS, Identity, Security, explain, server_name};

/// How long the other end may take to connect and to show who it is.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How often it is said that connections are refused because there are too many.
const SAY_AGAIN: Duration = Duration::from_secs(1);

pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection, and who is at its other end.
pub(crate) struct Connection {
    stream: Box<dyn Stream>,
    peer: Peer,
    local: SocketAddr,
    /// Counts the connection against the listener's bound for as long as it lives.
    #[allow(dead_code)] // It is for its drop.
    permit: Option<OwnedSemaphorePermit>,
}

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    address: SocketAddr,
    /// Known where the connection does not leave this machine.
    pub(crate) process: Option<Process>,
    pub(crate) identity: Identity,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.process {
            Some(process) => write!(f, "{process} ({})", self.identity),
            None => write!(f, "{} ({})", self.address, self.identity),
        }
    }
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Calls,
    Bulk,
}

impl Connection {
    fn network(socket: TcpStream, address: SocketAddr) -> io::Result<Self> {
        socket.set_nodelay(true)?;
        let local = socket.local_addr()?;
        let peer = Peer { address, process: None, identity: Identity::Unknown };
        Ok(Self { stream: Box::new(socket), peer, local, permit: None })
    }

    /// A connection within this machine, to or from whoever listens on `address`.
    fn here(stream: Box<dyn Stream>, process: Process, address: SocketAddr) -> Self {
        let peer = Peer { address, process: Some(process), identity: Identity::Unknown };
        Self { stream, peer, local: address, permit: None }
    }

    /// Shows who this is to the other end, and has it show that it is `name`.
    async fn introduce(
        mut self,
        name: &'static str,
        purpose: Purpose,
        security: &Security,
    ) -> io::Result<Self> {
        let Security::MutualTls(certificates) = security else { return Ok(self) };
        let mut config = (*certificates.client).clone();
        config.alpn_protocols = vec![protocol(purpose).to_vec()];
        let connector = TlsConnector::from(Arc::new(config));
        let stream = connector.connect(server_name(name), self.stream).await?;
        self.peer.identity = Identity::of(stream.get_ref().1.peer_certificates());
        self.stream = Box::new(stream);
        Ok(self)
    }

    pub(crate) fn peer(&self) -> &Peer {
        &self.peer
    }

    /// This end's address.
    pub(crate) fn local(&self) -> SocketAddr {
        self.local
    }
}

/// Connects to `address`, whose certificate must have the name `name`.
pub(crate) async fn dial(
    address: &str,
    name: &'static str,
    purpose: Purpose,
    security: &Security,
) -> io::Result<Connection> {
    let connecting = async {
        let (socket, address) = connect(address, security).await?;
        Connection::network(socket, address)?.introduce(name, purpose, security).await
    };
    let connected = timeout(HANDSHAKE, connecting).await.unwrap_or_else(|_| {
        Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no answer for {} s", HANDSHAKE.as_secs()),
        ))
    });
    connected.map_err(|error| match explain(&error) {
        Some(reason) => io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("connecting to {address}: {reason}"),
        ),
        None => io::Error::new(error.kind(), format!("connecting to {address}: {error}")),
    })
}

/// Connects to the process of this machine that listens on `address` for States, if there is one.
pub(crate) async fn dial_here(
    address: &str,
    name: &'static str,
    security: &Security,
) -> Option<Connection> {
    for address in lookup_host(address).await.ok()? {
        let Some((socket, process)) = here::connect(address).await else { continue };
        let connection = Connection::here(socket, process, address);
        let introduced = connection.introduce(name, Purpose::Bulk, security);
        match timeout(HANDSHAKE, introduced).await {
            Ok(Ok(connection)) => return Some(connection),
            // It will be seen again, and said, by whoever dials the address.
            Ok(Err(error)) => tracing::debug!(%address, %error, "not reached by a local socket"),
            Err(_) => tracing::debug!(%address, "no answer by a local socket"),
        }
    }
    None
}

async fn connect(address: &str, security: &Security) -> io::Result<(TcpStream, SocketAddr)> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in lookup_host(address).await? {
        if let Err(error) = security.check(address) {
            last = error;
            continue;
        }
        match TcpStream::connect(address).await {
            Ok(socket) => return Ok((socket, address)),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn protocol(purpose: Purpose) -> &'static [u8] {
    match purpose {
        Purpose::Calls => CALLS,
        Purpose::Bulk => BULK,
    }
}

/// Accepts connections, at most `bound` at once, and hands each to `calls` or `bulk`.
///
/// More than that are closed at once: a flood costs neither memory nor handshakes.
pub(crate) async fn accept(
    listeners: Listeners,
    security: Security,
    bound: usize,
    calls: mpsc::Sender<io::Result<Connection>>,
    bulk: mpsc::Sender<Connection>,
) {
    let permits = Arc::new(Semaphore::new(bound));
    let mut turned_away = TurnedAway::default();
    loop {
        let socket = match listeners.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: wait for some to be closed.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let address = socket.address();
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
            if let Some(count) = turned_away.another(Instant::now()) {
                tracing::warn!(%address, bound, count, "too many connections are refused");
            }
            continue;
        };
        let (security, calls, bulk) = (security.clone(), calls.clone(), bulk.clone());
        tokio::spawn(async move {
            match timeout(HANDSHAKE, greet(socket, &security, permit)).await {
                // A receiver that is gone means that this process is about to end.
                Ok(Ok((Purpose::Calls, connection))) => drop(calls.send(Ok(connection)).await),
                Ok(Ok((Purpose::Bulk, connection))) => drop(bulk.send(connection).await),
                Ok(Err(error)) => {
                    let reason = explain(&error).map_or_else(|| error.to_string(), str::to_owned);
                    tracing::warn!(%address, reason, "a connection was refused");
                }
                Err(_) => tracing::warn!(%address, "a connection said nothing and was closed"),
            }
        });
    }
}

/// Where a process can be reached: by everybody, and by those of its machine beside that.
#[derive(Debug)]
pub(crate) struct Listeners {
    network: TcpListener,
    here: Option<(here::Listener, SocketAddr)>,
}

/// What was accepted.
enum Socket {
    Network(TcpStream, SocketAddr),
    Here(here::Caller, SocketAddr),
}

impl Listeners {
    /// Takes connections from `network`; and those of this machine's processes, which ask for
    /// States, if this process is to lend them its memory.
    pub(crate) fn new(network: TcpListener, lending: bool) -> io::Result<Self> {
        let address = network.local_addr()?;
        let here = lending.then(|| here::Listener::bind(address));
        let here = here.and_then(|bound| {
            let failed = |error: &io::Error| {
                tracing::debug!(%error, "States are not lent to processes of this machine");
            };
            bound.inspect_err(failed).ok()
        });
        Ok(Self { network, here: here.map(|listener| (listener, address)) })
    }

    async fn accept(&self) -> io::Result<Socket> {
        let network = async {
            let (socket, address) = self.network.accept().await?;
            Ok(Socket::Network(socket, address))
        };
        let Some((listener, address)) = &self.here else { return network.await };
        tokio::select! {
            accepted = network => accepted,
            caller = listener.accept() => Ok(Socket::Here(caller?, *address)),
        }
    }
}

impl Socket {
    fn address(&self) -> SocketAddr {
        match self {
            Socket::Network(_, address) | Socket::Here(_, address) => *address,
        }
    }
}

/// Connections that were refused because there are too many: a flood must not fill the log.
#[derive(Debug, Default)]
struct TurnedAway {
    unsaid: u64,
    said: Option<Instant>,
}

impl TurnedAway {
    /// Another one; how many there were since the last time that this was to be said, if it is now.
    fn another(&mut self, now: Instant) -> Option<u64> {
        self.unsaid += 1;
        if self.said.is_some_and(|said| now < said + SAY_AGAIN) {
            return None;
        }
        self.said = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}

/// Has the other end of `socket` show who it is, and finds out what it wants.
async fn greet(
    socket: Socket,
    security: &Security,
    permit: OwnedSemaphorePermit,
) -> io::Result<(Purpose, Connection)> {
    let secure = matches!(security, Security::MutualTls(_));
    let (mut connection, purpose) = match socket {
        Socket::Network(socket, address) => {
            // In TLS it is said in the handshake.
            let purpose = if secure { Purpose::Bulk } else { purpose(&socket).await? };
            (Connection::network(socket, address)?, purpose)
        }
        Socket::Here(caller, address) => {
            let (stream, process) = caller.identify()?;
            (Connection::here(stream, process, address), Purpose::Bulk)
        }
    };
    connection.permit = Some(permit);
    let Security::MutualTls(certificates) = security else { return Ok((purpose, connection)) };
    let acceptor = TlsAcceptor::from(Arc::clone(&certificates.server));
    let stream = acceptor.accept(connection.stream).await?;
    let session = stream.get_ref().1;
    let calls = session.alpn_protocol() == Some(CALLS);
    connection.peer.identity = Identity::of(session.peer_certificates());
    connection.stream = Box::new(stream);
    Ok((if calls { Purpose::Calls } else { Purpose::Bulk }, connection))
}

/// What a connection in plain text is for: a gRPC client begins with "PRI * HTTP/2.0"; a bulk frame
/// with the highest byte of its length, which is 0.
async fn purpose(socket: &TcpStream) -> io::Result<Purpose> {
    let mut first = [0];
    if socket.peek(&mut first).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(if first[0] == b'P' { Purpose::Calls } else { Purpose::Bulk })
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_told_of_once_in_a_while_and_none_is_left_out() {
        let (mut turned_away, begun) = (TurnedAway::default(), Instant::now());
        let said = (0..3000).filter_map(|n| turned_away.another(begun + Duration::from_millis(n)));
        assert_eq!(said.collect::<Vec<_>>(), [1, 1000, 1000]);
    }
}
