//! [`TcpBackend`]: the driver's side of a cluster.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use cerebro_core::backend::{
    BackendError, Job, UnitError, UnitOrder, UnitReport, WorkerEvent, WorkerInfo,
};
use cerebro_core::{Backend, Blueprint, PartitionId, Split, State, TrialId, WorkerId};
use futures::StreamExt;
use futures::channel::mpsc;
use futures::stream::BoxStream;
use tokio::runtime::Runtime;
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

use crate::builder::TcpBackendBuilder;
use crate::cluster::{Cluster, NAME, Phase, PreparedJob, Status, not_running};
use crate::ledger::{Holder, StateName};
use crate::protocol::{self};
use crate::wire::{Failed, catalogue_digest};
use crate::{relay, units};

/// How long the end waits for workers to hear of it.
const FAREWELL: Duration = Duration::from_secs(2);

/// A cluster, seen from its driver: see the [crate's documentation](crate).
pub struct TcpBackend {
    /// Taken when the backend is dropped.
    pub(crate) runtime: Option<Runtime>,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) address: SocketAddr,
    pub(crate) events: Mutex<Option<mpsc::UnboundedReceiver<WorkerEvent>>>,
    pub(crate) options: TcpBackendBuilder,
}

impl TcpBackend {
    /// A driver on this machine's loopback, unless told otherwise.
    pub fn builder() -> TcpBackendBuilder {
        TcpBackendBuilder::default()
    }

    /// Where workers dial.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Runs `work` on this backend's own threads, whatever runtime the caller has. It goes on when
    /// the caller loses interest.
    async fn on_runtime<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, BackendError> {
        let runtime = self.runtime.as_ref().ok_or_else(not_running)?;
        runtime.spawn(work).await.map_err(|error| BackendError::Other {
            context: "running a task of the driver".to_owned(),
            source: error.into(),
        })
    }

    fn prepare(&self, job: &Job) -> Result<PreparedJob, BackendError> {
        let missing = |context: &str, remedy: &str| BackendError::Other {
            context: context.to_owned(),
            source: remedy.into(),
        };
        let Blueprint { name, bytes } =
            self.options.blueprint.clone().or_else(|| job.builder.blueprint()).ok_or_else(
                || {
                    missing(
                        "the model exists in this process only, and workers must make it too",
                        "name it with `TcpBackendBuilder::model`, as the workers' registry does",
                    )
                },
            )?;
        let data = self.options.data.clone().or_else(|| job.dataset.url()).ok_or_else(|| {
            missing(
                "the data set is in this process only, and workers must read it too",
                "say where it is with `TcpBackendBuilder::data`",
            )
        })?;
        let partitions = job.dataset.partitions().to_vec();
        let message = protocol::Job {
            model: name,
            blueprint: xxh3_64(&bytes),
            data,
            catalogue: catalogue_digest(&partitions),
        };
        Ok(PreparedJob { partitions, message, blueprint: State::from(bytes) })
    }

    fn check_partitions(&self, job: &PreparedJob) -> Result<(), BackendError> {
        let training = job.partitions.iter().filter(|info| info.split == Split::Train).count();
        let workers = self.options.workers;
        let replicas = self.cluster.terms.replicas.min(workers);
        let busy = workers.min(training * replicas);
        if busy < workers {
            let idle = workers - busy;
            return Err(BackendError::IdleWorkers { workers, partitions: training, idle });
        }
        Ok(())
    }
}

#[async_trait]
impl Backend for TcpBackend {
    async fn start(&self, job: Job) -> Result<Vec<WorkerInfo>, BackendError> {
        let job = self.prepare(&job)?;
        self.check_partitions(&job)?;
        let (cluster, workers) = (Arc::clone(&self.cluster), self.options.workers);
        let (address, patience) = (self.address, self.cluster.terms.patience);
        self.on_runtime(start(cluster, job, workers, address, patience)).await?
    }

    async fn run(&self, order: UnitOrder) -> Result<UnitReport, UnitError> {
        let worker = order.worker;
        // Mostly a message goes out and one comes back: no thread need be woken but the caller's.
        match units::run_at_once(&self.cluster, &order).await {
            Ok(report) => return Ok(report),
            Err(Failed::Unit(error)) => return Err(error),
            Err(Failed::State(_)) => {}
        }
        let running = self.on_runtime(units::run(Arc::clone(&self.cluster), order)).await;
        running.unwrap_or_else(|error| {
            Err(UnitError::WorkerLost { worker, reason: error.to_string() })
        })
    }

    async fn state(&self, trial: TrialId, version: u64) -> Result<State, BackendError> {
        self.on_runtime(relay::state(Arc::clone(&self.cluster), trial, version)).await?
    }

    async fn install(
        &self,
        trial: TrialId,
        version: u64,
        state: State,
    ) -> Result<(), BackendError> {
        let name = StateName { trial, version, origin: self.cluster.next_order() };
        let mut books = self.cluster.books();
        if books.phase == Phase::Ended {
            return Err(not_running());
        }
        self.cluster.hold(name, state);
        books.ledger.made(name, Holder::Driver, None);
        self.cluster.collect(&mut books, trial);
        Ok(())
    }

    async fn release(&self, trial: TrialId, below: u64, keep: &[u64]) {
        let mut books = self.cluster.books();
        books.ledger.release(trial, below, keep);
        self.cluster.collect(&mut books, trial);
        for (name, holder) in books.ledger.kept_with_one(trial) {
            Cluster::back_up(&mut books, name, &[Holder::Worker(holder)]);
        }
    }

    fn prefetch(&self, trial: TrialId, version: u64, worker: WorkerId) {
        Cluster::send_ahead(&mut self.cluster.books(), trial, version, worker);
    }

    async fn await_holders(&self, partitions: &[PartitionId]) -> Result<(), BackendError> {
        let (cluster, partitions) = (Arc::clone(&self.cluster), partitions.to_vec());
        let deadline = Instant::now() + self.cluster.terms.patience;
        self.on_runtime(await_holders(cluster, partitions, deadline)).await?
    }

    fn events(&self) -> BoxStream<'static, WorkerEvent> {
        match self.events.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(receiver) => receiver.boxed(),
            None => futures::stream::empty().boxed(),
        }
    }

    async fn shutdown(&self) -> Result<(), BackendError> {
        self.cluster.end("the run is over");
        let cluster = Arc::clone(&self.cluster);
        self.on_runtime(async move { farewell(&cluster).await }).await
    }
}

async fn start(
    cluster: Arc<Cluster>,
    job: PreparedJob,
    workers: usize,
    address: SocketAddr,
    patience: Duration,
) -> Result<Vec<WorkerInfo>, BackendError> {
    let deadline = Instant::now() + patience;
    let failed =
        |context: String, reason: String| BackendError::Other { context, source: reason.into() };
    {
        let mut books = cluster.books();
        if books.phase != Phase::Gathering || books.job.is_some() {
            return Err(not_running());
        }
        Cluster::tell_job(&mut books, job.clone());
    }
    let gathered = cluster.until(Some(deadline), |books| {
        if let Some(refusal) = books.refusal.take() {
            return Some(Err(refusal));
        }
        (books.workers.len() >= workers).then(|| {
            cluster.load(books);
            Ok(())
        })
    });
    match gathered.await {
        None => {
            let came = cluster.books().workers.len();
            return Err(failed(
                format!("waiting for workers on {address}"),
                format!(
                    "{came} of {workers} came within {patience:?}; start more with `--driver {address}`, \
                     or wait for fewer"
                ),
            ));
        }
        Some(Err(refusal)) => return Err(failed("starting the cluster".to_owned(), refusal)),
        Some(Ok(())) => {}
    }
    let loaded = cluster.until(None, |books| {
        if let Some(refusal) = books.refusal.take() {
            return Some(Err(refusal));
        }
        let holders = |info: &cerebro_core::data::PartitionInfo| {
            books.workers.values().any(|worker| worker.holds(info.id))
        };
        let all = job.partitions.iter().all(holders)
            && books.workers.values().all(|worker| worker.loading.is_empty());
        all.then(|| Ok(Cluster::begin(books)))
    });
    let loaded = loaded.await.ok_or_else(not_running)?;
    loaded.map_err(|refusal| failed("starting the cluster".to_owned(), refusal))
}

async fn await_holders(
    cluster: Arc<Cluster>,
    partitions: Vec<PartitionId>,
    deadline: Instant,
) -> Result<(), BackendError> {
    let served = cluster.until(Some(deadline), |books| {
        let served = partitions.iter().all(|&partition| {
            let mut workers = books.workers.values();
            workers.any(|worker| worker.status == Status::Serving && worker.holds(partition))
        });
        (served || books.phase == Phase::Ended).then_some(served)
    });
    match served.await {
        Some(true) => Ok(()),
        _ => Err(BackendError::NoHolders { partitions }),
    }
}

/// Waits until all workers have heard that the run is over, as far as they listen.
async fn farewell(cluster: &Cluster) {
    let deadline = Instant::now() + FAREWELL;
    let heard = cluster.until(Some(deadline), |books| (books.sessions == 0).then_some(()));
    if heard.await.is_none() {
        tracing::warn!("not all workers have heard that the run is over");
    }
}

impl fmt::Debug for TcpBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(NAME).field("address", &self.address).finish_non_exhaustive()
    }
}

impl Drop for TcpBackend {
    fn drop(&mut self) {
        self.cluster.end("the driver has dropped its backend");
        if let Some(runtime) = self.runtime.take() {
            // A runtime may not be waited for on a thread of another one.
            let cluster = Arc::clone(&self.cluster);
            let ending = std::thread::spawn(move || {
                runtime.block_on(farewell(&cluster));
                runtime.shutdown_background();
            });
            let _ = ending.join();
        }
    }
}
