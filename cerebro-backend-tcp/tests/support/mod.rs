//! Clusters in one process: a driver, and workers on threads of their own that talk to it over
//! loopback as others would from other machines.

#![allow(dead_code, unreachable_pub)]

pub mod experiments;
pub mod faulty;
pub mod gate;
pub mod log;
pub mod namespaces;
pub mod proxy;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use cerebro_backend_tcp::worker::{Options, Registry, WorkerError, serve_until};
use cerebro_backend_tcp::{TcpBackend, TcpBackendBuilder};
use cerebro_core::testing::{self, Tally};
use tokio::net::TcpSocket;

/// An address that nobody listens on, for somebody to listen on later.
///
/// It is kept for them: as long as this lives, the system hands the port out to nobody who does not
/// ask for it by its number, in any process.
pub struct Reserved {
    address: SocketAddr,
    /// Bound, and not listening: that leaves the port free for whoever does listen.
    _socket: TcpSocket,
}

impl Reserved {
    pub fn new() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_reuseaddr(true).expect("it can be said of any socket");
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a free port");
        Self { address: socket.local_addr().expect("it is bound"), _socket: socket }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// The data set of [`testing::dataset`], by its numbers of partitions.
pub fn url(train: u32, validation: u32) -> String {
    format!("tally:{train},{validation}")
}

/// What test workers can make and read.
pub fn registry() -> Registry {
    Registry::new().model("tally", |_: &[u8]| Ok(Tally::builder())).dataset("tally", |url| {
        let (_, numbers) = url.split_once(':').expect("the registry looked at the scheme");
        let (train, validation) = numbers.split_once(',').expect("two numbers");
        let parse = |text: &str| text.parse().expect("a number");
        Ok(Arc::new(testing::dataset(parse(train), parse(validation))))
    })
}

/// A driver for tallies. Its lease is long, so that a busy machine loses no worker that a test does
/// not want it to lose.
pub fn driver() -> TcpBackendBuilder {
    TcpBackend::builder()
        .listen("127.0.0.1:0")
        .model("tally", [])
        .data(url(4, 2))
        .lease(Duration::from_secs(10))
        .patience(Duration::from_mins(1))
}

/// A worker on threads of this process; it is asked to leave when this is dropped.
pub struct Worker {
    leave: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<(), WorkerError>>>,
}

impl Worker {
    pub fn start(driver: SocketAddr) -> Self {
        Self::with(registry(), Options::new(driver.to_string()).threads_per_slot(1))
    }

    pub fn with(registry: Registry, options: Options) -> Self {
        let (leave, left) = tokio::sync::oneshot::channel();
        let leaving = async move {
            // A dropped sender asks to leave too.
            let _ = left.await;
        };
        let thread = std::thread::spawn(move || serve_until(registry, options, leaving));
        Self { leave: Some(leave), thread: Some(thread) }
    }

    /// Asks the worker to leave.
    pub fn leave(&mut self) {
        self.leave.take();
    }

    /// Waits for its end.
    pub fn end(mut self) -> Result<(), WorkerError> {
        self.thread.take().expect("it ends once").join().expect("a worker does not panic")
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").finish_non_exhaustive()
    }
}

/// Workers for a driver that was just built.
pub fn workers(backend: &TcpBackend, count: usize) -> Vec<Worker> {
    (0..count).map(|_| Worker::start(backend.address())).collect()
}
