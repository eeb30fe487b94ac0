//! A worker: a process that holds partitions and States and runs units for a driver.
//!
//! A program that trains models of its own becomes a worker in a few lines:
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use cerebro_core::{Config, Model, ModelError, Slot};
//! # fn my_model(_: &Config, _: &Slot) -> Result<Box<dyn Model>, ModelError> { unimplemented!() }
//! # fn my_data(_: &str) -> Result<Arc<dyn cerebro_core::data::Dataset>, cerebro_core::data::DataError> { unimplemented!() }
//! use cerebro_backend_tcp::worker::{self, Options, Registry};
//!
//! fn main() -> Result<(), worker::WorkerError> {
//!     let registry = Registry::new()
//!         .model("mine", |_bytes: &[u8]| Ok(Arc::new(my_model) as _))
//!         .dataset("mydata", my_data);
//!     worker::serve(registry, Options::new("127.0.0.1:7700"))
//! }
//! ```

mod disk;
mod job;
mod metrics;
#[cfg(feature = "onnx")]
mod onnx;
mod options;
mod registry;
mod session;
mod slots;
mod states;
mod unit;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::{mpsc, watch};

use crate::builder::bind;
use crate::bulk::{self, Fetcher};
use crate::transport::{Listeners, Purpose, accept, dial};
use disk::DiskCache;
use metrics::Metrics;
pub use options::{AfterRun, Options};
pub use registry::Registry;
use session::{Ended, Session};
use slots::Slots;
use states::States;

/// The first wait before the driver is dialled again; each one is twice as long as the last, up to
/// `LONGEST_WAIT`.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// Peers and the driver that fetch States at once.
const MOST_FETCHES: usize = 256;

/// Why a worker ended.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WorkerError {
    /// It cannot be reached by others.
    #[error("listening for other workers on {address}: {source}")]
    Listen {
        /// Where.
        address: String,
        /// Why not.
        source: io::Error,
    },
    /// The driver will not have it, or may not be dialled, now or later.
    #[error("the driver at {driver} cannot be served: {reason}")]
    Refused {
        /// The driver.
        driver: String,
        /// Why.
        reason: String,
    },
    /// Its figures cannot be shown.
    #[error("showing metrics on {address}: {source}")]
    Metrics {
        /// Where.
        address: String,
        /// Why not.
        source: io::Error,
    },
    /// Its cache on disk cannot be used.
    #[error("keeping partitions in {}: {source}; give another folder, or none", folder.display())]
    Cache {
        /// The folder.
        folder: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// The runtime did not start.
    #[error("starting the worker's threads: {0}")]
    Threads(io::Error),
}

/// What a worker keeps from session to session.
struct Worker {
    registry: Registry,
    options: Options,
    /// Drawn when the process starts.
    instance: u64,
    listening: SocketAddr,
    states: Arc<States>,
    fetcher: Fetcher,
    slots: Arc<Slots>,
    jobs: job::Jobs,
    cache: Option<Arc<DiskCache>>,
    metrics: Metrics,
}

/// Serves drivers until the run is over (or for ever: [`Options::after_run`]), or until the process
/// is asked to terminate: then it finishes its units, hands its States over and leaves.
///
/// Where the driver is not there, or is lost, it is dialled again until it is.
pub fn serve(registry: Registry, options: Options) -> Result<(), WorkerError> {
    let runtime = runtime()?;
    let terminated = {
        let _context = runtime.enter();
        terminated().map_err(WorkerError::Threads)?
    };
    run(&runtime, registry, options, terminated)
}

/// [`serve`], but asked to leave by `leave` and not by a signal: for a program with signal handlers
/// of its own.
pub fn serve_until(
    registry: Registry,
    options: Options,
    leave: impl Future<Output = ()> + Send + 'static,
) -> Result<(), WorkerError> {
    run(&runtime()?, registry, options, leave)
}

fn runtime() -> Result<tokio::runtime::Runtime, WorkerError> {
    // Models compute on the threads of the slots; the one that serves only moves messages, and a
    // second one would be woken more often than it helps.
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(WorkerError::Threads)
}

fn run(
    runtime: &tokio::runtime::Runtime,
    registry: Registry,
    options: Options,
    leave: impl Future<Output = ()> + Send + 'static,
) -> Result<(), WorkerError> {
    let (leaving, asked) = watch::channel(false);
    runtime.spawn(async move {
        leave.await;
        // Kept open until the worker ends: nobody else sends.
        let _ = leaving.send(true);
        leaving.closed().await;
    });
    let slots = Arc::new(Slots::start(&options).map_err(WorkerError::Threads)?);
    let ended = runtime.block_on(work(registry, options, Arc::clone(&slots), asked));
    slots.end();
    ended
}

#[cfg(unix)]
fn terminated() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut signal = signal(SignalKind::terminate())?;
    Ok(async move {
        signal.recv().await;
    })
}

#[cfg(not(unix))]
fn terminated() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    Ok(std::future::pending())
}

async fn work(
    registry: Registry,
    options: Options,
    slots: Arc<Slots>,
    mut leaving: watch::Receiver<bool>,
) -> Result<(), WorkerError> {
    let open = |(folder, budget): &(PathBuf, u64)| {
        let failed = |source| WorkerError::Cache { folder: folder.clone(), source };
        DiskCache::open(folder, *budget).map(Arc::new).map_err(failed)
    };
    let cache = options.cache.as_ref().map(open).transpose()?;
    let failed = |source| WorkerError::Listen { address: options.listen.clone(), source };
    let listener = bind(&options.listen, &options.security).map_err(failed)?;
    let listener = tokio::net::TcpListener::from_std(listener).map_err(failed)?;
    let listening = listener.local_addr().map_err(failed)?;
    let states = Arc::new(States::default());
    // Nobody calls a worker: such connections are closed.
    let (calls, _) = mpsc::channel(1);
    let (bulk, fetches) = mpsc::channel(16);
    let listeners = Listeners::new(listener, options.lending).map_err(failed)?;
    tokio::spawn(accept(listeners, options.security.clone(), MOST_FETCHES, calls, bulk));
    tokio::spawn(bulk::serve(fetches, Arc::clone(&states) as _));
    let worker = Arc::new(Worker {
        slots,
        registry,
        instance: crate::drawn(),
        listening,
        states,
        fetcher: Fetcher::new(options.security.clone()),
        jobs: job::Jobs::default(),
        cache,
        metrics: Metrics::default(),
        options,
    });
    if let Some(address) = &worker.options.metrics {
        let failed = |source| WorkerError::Metrics { address: address.clone(), source };
        let listener = tokio::net::TcpListener::bind(address).await.map_err(failed)?;
        let at = listener.local_addr().map_err(failed)?;
        tracing::info!(%at, "metrics are shown");
        tokio::spawn(metrics::serve(listener, Arc::clone(&worker)));
    }
    let mut wait = FIRST_WAIT;
    loop {
        let ended = attend(&worker, &mut leaving).await;
        let reason = match ended {
            Ended::Finished if worker.options.after_run == AfterRun::Leave => return Ok(()),
            Ended::Left => return Ok(()),
            Ended::Refused(reason) => {
                return Err(WorkerError::Refused { driver: worker.options.driver.clone(), reason });
            }
            Ended::Finished => {
                wait = FIRST_WAIT;
                "the run is over".to_owned()
            }
            Ended::Lost(reason) => {
                wait = FIRST_WAIT;
                reason
            }
            Ended::Unreached(reason) => reason,
        };
        tracing::info!(reason, driver = worker.options.driver, "the driver is dialled again");
        tokio::select! {
            () = tokio::time::sleep(wait) => wait = (wait * 2).min(LONGEST_WAIT),
            // Without a session there is nothing to hand over.
            () = asked(&mut leaving) => return Ok(()),
        }
    }
}

/// Dials the driver and serves it until the session ends.
async fn attend(worker: &Arc<Worker>, leaving: &mut watch::Receiver<bool>) -> Ended {
    let options = &worker.options;
    let dialled =
        dial(&options.driver, crate::security::DRIVER, Purpose::Calls, &options.security).await;
    match dialled {
        Ok(connection) => {
            let opened = Session::open(worker, connection).await;
            if opened.is_open() {
                worker.metrics.sessions.inc();
                worker.metrics.connected.set(1);
            }
            let ended = opened.run(leaving).await;
            worker.metrics.connected.set(0);
            ended
        }
        // Another certificate than this one will have to be there.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Ended::Refused(error.to_string())
        }
        Err(error) => Ended::Unreached(error.to_string()),
    }
}

/// Returns when the worker is asked to leave.
async fn asked(leaving: &mut watch::Receiver<bool>) {
    if leaving.wait_for(|asked| *asked).await.is_err() {
        std::future::pending::<()>().await;
    }
}
