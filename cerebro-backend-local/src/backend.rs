//! [`LocalBackend`]: the driver's side of the worker threads.

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use async_trait::async_trait;
use cerebro_core::backend::{
    BackendError, Job, UnitError, UnitOrder, UnitReport, WorkerEvent, WorkerInfo,
};
use cerebro_core::data::{DataError, PartitionCache};
use cerebro_core::placement::place;
use cerebro_core::{
    Backend, Cancellation, Device, PartitionId, Slot, Split, State, TrialId, Unit, WorkerId,
};
use futures::StreamExt;
use futures::channel::{mpsc, oneshot};
use futures::future::try_join_all;
use futures::stream::BoxStream;

use crate::states::States;
use crate::worker::{Request, Worker};

const NAME: &str = "local";

/// Slots are numbered over all backends of the process, so that what models share per slot is never
/// shared by two threads.
static NEXT_SLOT: AtomicU32 = AtomicU32::new(0);

/// How many workers, and what each is given.
#[derive(Clone, Debug)]
pub struct LocalBackendBuilder {
    devices: Vec<Device>,
    threads: usize,
    replicas: usize,
    memory: u64,
}

impl LocalBackendBuilder {
    /// `count` workers that compute on the processor. The default is 1.
    pub fn workers(mut self, count: usize) -> Self {
        self.devices = vec![Device::Cpu; count];
        self
    }

    /// One worker per device, such as one per GPU.
    pub fn devices(mut self, devices: impl IntoIterator<Item = Device>) -> Self {
        self.devices = devices.into_iter().collect();
        self
    }

    /// The threads that the models of one worker may use. The default is 1: workers x threads
    /// should not exceed the cores.
    pub fn threads_per_worker(mut self, threads: usize) -> Self {
        self.threads = threads.max(1);
        self
    }

    /// On how many workers each partition is placed. The default is 1, pure model hopping; more
    /// replicas leave the scheduler more choice.
    pub fn replicas(mut self, replicas: usize) -> Self {
        self.replicas = replicas.max(1);
        self
    }

    /// The bytes of memory that partitions may take, in all workers together. Without a limit, they
    /// are all loaded before training begins; with one, as many as fit, and the others when a unit
    /// needs them, in place of those that were used least recently.
    pub fn partition_memory(mut self, bytes: u64) -> Self {
        self.memory = bytes;
        self
    }

    /// The backend; an error if it would have no workers.
    pub fn build(self) -> Result<LocalBackend, BackendError> {
        if self.devices.is_empty() {
            return Err(BackendError::NoWorkers { backend: NAME });
        }
        let (events, receiver) = mpsc::unbounded();
        Ok(LocalBackend {
            options: self,
            states: Arc::default(),
            events,
            receiver: Mutex::new(Some(receiver)),
            running: Mutex::default(),
        })
    }
}

/// Worker threads of this process: see the [crate's documentation](crate).
pub struct LocalBackend {
    options: LocalBackendBuilder,
    states: Arc<States>,
    events: mpsc::UnboundedSender<WorkerEvent>,
    receiver: Mutex<Option<mpsc::UnboundedReceiver<WorkerEvent>>>,
    running: Mutex<Running>,
}

/// The worker threads, from `start` to `shutdown`, and the units that they run.
#[derive(Default)]
struct Running {
    workers: Vec<(WorkerId, Sender<Request>, JoinHandle<()>)>,
    units: Vec<(Unit, WorkerId, Cancellation)>,
}

impl LocalBackend {
    /// One worker with one thread, unless told otherwise.
    pub fn builder() -> LocalBackendBuilder {
        LocalBackendBuilder {
            devices: vec![Device::Cpu],
            threads: 1,
            replicas: 1,
            memory: u64::MAX,
        }
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        // Nothing panics while it holds the lock, and the lists are valid between any two operations.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_partitions(&self, job: &Job) -> Result<(), BackendError> {
        let infos = job.dataset.partitions();
        let partitions = infos.iter().filter(|info| info.split == Split::Train).count();
        let workers = self.options.devices.len();
        // With replicas there is work for as many workers as there are copies.
        let busy = workers.min(partitions * self.options.replicas.min(workers));
        if busy < workers {
            let idle = workers - busy;
            return Err(BackendError::IdleWorkers { workers, partitions, idle });
        }
        Ok(())
    }

    /// As many partitions as fit into memory together.
    fn fitting(&self, job: &Job) -> HashSet<PartitionId> {
        let mut left = self.options.memory;
        let fitting = job.dataset.partitions().iter().filter(|info| {
            let fits = info.bytes <= left;
            left -= if fits { info.bytes } else { 0 };
            fits
        });
        fitting.map(|info| info.id).collect()
    }

    fn spawn(
        &self,
        id: WorkerId,
        device: Device,
        job: &Job,
        partitions: &Arc<PartitionCache>,
    ) -> Result<Sender<Request>, BackendError> {
        let number = NEXT_SLOT.fetch_add(1, Ordering::Relaxed);
        let worker = Worker {
            id,
            slot: Slot { number, device, threads: self.options.threads },
            job: job.clone(),
            partitions: Arc::clone(partitions),
            states: Arc::clone(&self.states),
            events: self.events.clone(),
        };
        let (requests, receiver) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new()
            .name(format!("cerebro-{id}"))
            .spawn(move || worker.serve(&receiver))
            .map_err(|error| BackendError::Other {
                context: format!("starting the thread of {id}"),
                source: error.into(),
            })?;
        self.running().workers.push((id, requests.clone(), thread));
        Ok(requests)
    }

    fn send(&self, worker: WorkerId, request: Request) -> bool {
        let running = self.running();
        let found = running.workers.iter().find(|(id, ..)| *id == worker);
        found.is_some_and(|(_, requests, _)| requests.send(request).is_ok())
    }
}

#[async_trait]
impl Backend for LocalBackend {
    async fn start(&self, job: Job) -> Result<Vec<WorkerInfo>, BackendError> {
        self.check_partitions(&job)?;
        let devices = &self.options.devices;
        let placed = place(job.dataset.partitions(), devices.len(), self.options.replicas);
        let cache = Arc::new(PartitionCache::new(Arc::clone(&job.dataset), self.options.memory));
        let mut resident = self.fitting(&job);
        let mut infos = Vec::with_capacity(devices.len());
        let mut loading = Vec::with_capacity(devices.len());
        for (number, (&device, partitions)) in devices.iter().zip(placed).enumerate() {
            let id = WorkerId(number as u32);
            let requests = self.spawn(id, device, &job, &cache)?;
            let (done, loaded) = oneshot::channel();
            let now = partitions.iter().copied().filter(|id| resident.remove(id)).collect();
            let request = Request::Load { partitions: now, done };
            requests.send(request).map_err(|_| BackendError::NotRunning { backend: NAME })?;
            loading.push(loaded);
            infos.push(WorkerInfo {
                id,
                name: format!("thread {number}"),
                slots: 1,
                device,
                partitions,
            });
        }
        let loaded = try_join_all(loading).await;
        let loaded = loaded.map_err(|_| BackendError::NotRunning { backend: NAME })?;
        loaded.into_iter().collect::<Result<(), DataError>>()?;
        Ok(infos)
    }

    async fn run(&self, order: UnitOrder) -> Result<UnitReport, UnitError> {
        let (unit, worker) = (order.unit, order.worker);
        let lost = |reason: &str| UnitError::WorkerLost { worker, reason: reason.to_owned() };
        let (done, report) = oneshot::channel();
        self.running().units.push((unit, worker, order.cancellation.clone()));
        let sent = self.send(worker, Request::Run { order, done });
        let report = if sent {
            report.await.map_err(|_| lost("its thread ended"))
        } else {
            Err(lost("it is not running"))
        };
        self.running().units.retain(|(other, on, _)| (*other, *on) != (unit, worker));
        report?
    }

    async fn state(&self, trial: TrialId, version: u64) -> Result<State, BackendError> {
        self.states.get(trial, version).ok_or(BackendError::NoState { trial, version })
    }

    async fn install(
        &self,
        trial: TrialId,
        version: u64,
        state: State,
    ) -> Result<(), BackendError> {
        self.states.install(trial, version, state);
        Ok(())
    }

    async fn release(&self, trial: TrialId, below: u64, keep: &[u64]) {
        self.states.release(trial, below, keep);
    }

    fn events(&self) -> BoxStream<'static, WorkerEvent> {
        let receiver = self.receiver.lock().unwrap_or_else(PoisonError::into_inner).take();
        match receiver {
            Some(receiver) => receiver.boxed(),
            None => futures::stream::empty().boxed(),
        }
    }

    async fn shutdown(&self) -> Result<(), BackendError> {
        let Running { workers, units } = std::mem::take(&mut *self.running());
        for (.., cancellation) in units {
            cancellation.cancel();
        }
        for (id, requests, thread) in workers {
            drop(requests);
            if thread.join().is_err() {
                tracing::error!(worker = %id, "a worker thread panicked outside a model");
            }
        }
        self.states.clear();
        Ok(())
    }
}

impl fmt::Debug for LocalBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalBackend").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Drop for LocalBackend {
    fn drop(&mut self) {
        // Threads end when their channels close; a backend that is dropped without `shutdown` asks
        // its units to stop and does not wait for them.
        for (.., cancellation) in &self.running().units {
            cancellation.cancel();
        }
    }
}
