//! Clusters in one process: a driver, and workers on threads of their own that talk to it over
//! loopback as others would from other machines.

#![allow(dead_code, unreachable_pub)]

pub mod experiments;
pub mod faulty;
pub mod proxy;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use cerebro_backend_tcp::worker::{Options, Registry, WorkerError, serve_until};
use cerebro_backend_tcp::{TcpBackend, TcpBackendBuilder};
use cerebro_core::testing::{self, Tally};

/// An address that nobody listens on, for a process that is to listen on it later.
///
/// It is none of those that the system hands out by itself, so that no connection of another test
/// takes it in between; and no two calls give the same.
pub fn free_address() -> SocketAddr {
    /// From here on, up to where Linux begins to hand out ports.
    const PORTS: std::ops::Range<u16> = 12_000..32_000;
    static CALLS: AtomicU16 = AtomicU16::new(0);
    let free = |_: u16| {
        // Test programs that run at the same time begin far from each other.
        let process = (std::process::id() % 400 * 50) as u16;
        let call = CALLS.fetch_add(1, Ordering::Relaxed);
        let port = PORTS.start + (process + call) % PORTS.len() as u16;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        TcpListener::bind(address).is_ok().then_some(address)
    };
    PORTS.into_iter().find_map(free).expect("not every port is taken")
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
