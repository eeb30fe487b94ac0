//! [`Session`]: the worker's end of what driver and worker say to each other.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cerebro_core::{Cancellation, PartitionId, State, WorkerId};
use futures::channel::mpsc;
use hyper_util::rt::TokioIo;
use tokio::sync::{mpsc as queue, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};
use tower::service_fn;
use tracing::Instrument;

use super::states::Taken;
use super::{Worker, asked, job, unit};
use crate::bulk::{Fetched, Source};
use crate::cluster::FROM_DRIVER;
use crate::ledger::StateName;
use crate::protocol::cluster_client::ClusterClient;
use crate::protocol::{self, FromDriver, FromWorker, Wanted, from_driver, from_worker, wanted};
use crate::security::{DRIVER, WORKER, explain};
use crate::transport::Connection;
use crate::wire::device_to_wire;

/// How long the driver may take to answer a registration.
const INTRODUCTION: Duration = Duration::from_secs(10);
/// Beats in the time of a lease: so many in a row must be lost before it runs out.
const BEATS: u32 = 4;

/// How a session ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// The run is over.
    Finished,
    /// The worker was asked to leave, and may.
    Left,
    /// It broke; the driver may come back.
    Lost(String),
    /// It did not even begin.
    Unreached(String),
    /// The driver will not have this worker.
    Refused(String),
}

/// A session with a driver.
pub(super) struct Session {
    worker: Arc<Worker>,
    id: WorkerId,
    /// Which of this process's sessions it is.
    number: u64,
    lease: Duration,
    to: mpsc::UnboundedSender<FromWorker>,
    running: Mutex<HashMap<u64, Cancellation>>,
    /// States on their way, so that none travels twice at once.
    arriving: Mutex<HashMap<StateName, Arc<tokio::sync::Mutex<()>>>>,
    /// States that arrived and that the driver does not know of yet.
    untold: Mutex<Vec<StateName>>,
}

/// A session that has begun, or why it has not.
pub(super) struct Opened(Result<(Arc<Session>, Streaming<FromDriver>), Ended>);

/// What is done one after the other: preparing comes before loading.
enum Chore {
    Prepare(protocol::Job),
    Load(Vec<PartitionId>),
}

impl Session {
    /// Registers with the driver at the other end of `connection`.
    pub(super) async fn open(worker: &Arc<Worker>, connection: Connection) -> Opened {
        let opening = timeout(INTRODUCTION, Self::introduce(worker, connection)).await;
        Opened(opening.unwrap_or_else(|_| {
            Err(Ended::Unreached("the driver does not answer a registration".to_owned()))
        }))
    }

    async fn introduce(
        worker: &Arc<Worker>,
        connection: Connection,
    ) -> Result<(Arc<Session>, Streaming<FromDriver>), Ended> {
        let register = register(worker, &connection)?;
        let channel = channel(connection).await?;
        let (to, outbound) = mpsc::unbounded();
        let attending = ClusterClient::new(channel).attend(outbound).await;
        let mut inbound = attending.map_err(|status| refusal(&status))?.into_inner();
        let greeting = heard(&mut inbound).await?;
        let from_driver::What::Greeting(protocol::Greeting { challenge }) = greeting else {
            return Err(Ended::Unreached("the driver does not begin with `Greeting`".to_owned()));
        };
        let register = protocol::Register { challenge, ..register };
        // The call is open, and takes in what is sent.
        let _ = to.unbounded_send(FromWorker { what: Some(from_worker::What::Register(register)) });
        let from_driver::What::Welcome(welcome) = heard(&mut inbound).await? else {
            return Err(Ended::Unreached("the driver does not say `Welcome`".to_owned()));
        };
        let keep: Vec<StateName> = welcome.states.iter().map(|&name| name.into()).collect();
        let number = worker.states.begin(welcome.run, &keep);
        let session = Session {
            worker: Arc::clone(worker),
            id: WorkerId(welcome.worker),
            number,
            lease: Duration::from_millis(welcome.lease_milliseconds.max(1)),
            to,
            running: Mutex::default(),
            arriving: Mutex::default(),
            untold: Mutex::default(),
        };
        tracing::info!(worker = %session.id, driver = worker.options.driver, "registered");
        Ok((Arc::new(session), inbound))
    }

    pub(super) fn worker(&self) -> &Worker {
        &self.worker
    }

    pub(super) fn worker_id(&self) -> WorkerId {
        self.id
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn say(&self, what: from_worker::What) {
        for state in std::mem::take(&mut *self.untold()) {
            self.send(held(state));
        }
        self.send(what);
    }

    fn send(&self, what: from_worker::What) {
        // Once the session is over, nobody wants to know.
        let _ = self.to.unbounded_send(FromWorker { what: Some(what) });
    }

    /// Says that a State is held here: at once, unless an order is under way. Then the driver is told
    /// of both when it ends, or at the next heartbeat, and woken once.
    fn say_held(&self, state: StateName) {
        if self.running().is_empty() {
            self.send(held(state));
        } else {
            self.untold().push(state);
        }
    }

    fn untold(&self) -> MutexGuard<'_, Vec<StateName>> {
        // Nothing panics while it holds the lock.
        self.untold.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn forget(&self, order: u64) {
        self.running().remove(&order);
    }

    fn running(&self) -> MutexGuard<'_, HashMap<u64, Cancellation>> {
        // Nothing panics while it holds the lock.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The State called `name`: held, or fetched from one of `sources` and held from then on.
    pub(super) async fn take_in(
        &self,
        name: StateName,
        sources: Vec<String>,
    ) -> Result<State, String> {
        let states = &self.worker.states;
        if let Some(state) = states.get(name) {
            return Ok(state);
        }
        let arriving = {
            let mut arriving = self.arriving.lock().unwrap_or_else(PoisonError::into_inner);
            arriving.retain(|_, lock| Arc::strong_count(lock) > 1);
            Arc::clone(arriving.entry(name).or_default())
        };
        let _arriving = arriving.lock().await;
        if let Some(state) = states.get(name) {
            return Ok(state);
        }
        let options = &self.worker.options;
        let sources = sources.into_iter().map(|address| match address.as_str() {
            FROM_DRIVER => Source { address: options.driver.clone(), role: DRIVER },
            _ => Source { address, role: WORKER },
        });
        let wanted = Wanted { what: Some(wanted::What::State(name.into())) };
        let limit = options.most_state_bytes;
        let hop = tracing::info_span!("hop", state = ?name);
        let fetch = self.worker.fetcher.fetch(sources, &wanted, limit);
        let Fetched { state, troubles } = fetch.instrument(hop).await?;
        for trouble in troubles {
            let (trial, version) = (name.trial, name.version);
            let what = format!("version {version} of {trial} was fetched again: {trouble}");
            self.say(from_worker::What::Trouble(protocol::Trouble { what }));
        }
        if states.put(self.number, name, state.clone()) == Taken::TooLate {
            return Err("the session is over".to_owned());
        }
        self.worker.metrics.states_received.inc();
        self.worker.metrics.state_bytes_received.inc_by(state.bytes() as u64);
        self.say_held(name);
        Ok(state)
    }

    /// Takes in a State that nobody waits for here: so that it is held twice.
    async fn keep(self: Arc<Self>, name: StateName, sources: Vec<String>) {
        let held = self.worker.states.get(name).is_some();
        match self.take_in(name, sources).await {
            // What was there already has been told of only if it was fetched just now.
            Ok(_) if held => self.say_held(name),
            Ok(_) => {}
            Err(reason) => {
                let missed = protocol::StateMissed { state: Some(name.into()), reason };
                self.say(from_worker::What::StateMissed(missed));
            }
        }
    }

    async fn chores(self: Arc<Self>, mut chores: queue::UnboundedReceiver<Chore>) {
        while let Some(chore) = chores.recv().await {
            match chore {
                Chore::Prepare(asked) => {
                    if let Err(reason) = job::prepare(&self.worker, asked).await {
                        self.say(from_worker::What::Refused(protocol::Refused { reason }));
                        return;
                    }
                }
                Chore::Load(partitions) => {
                    for id in partitions {
                        self.say(match job::load(&self.worker, id).await {
                            Ok(loaded) => from_worker::What::PartitionLoaded(loaded),
                            Err(reason) => {
                                let failed = protocol::PartitionFailed { partition: id.0, reason };
                                from_worker::What::PartitionFailed(failed)
                            }
                        });
                    }
                }
            }
        }
    }

    /// Does what the driver says; answers with how the session ends if this ends it.
    fn obey(
        self: &Arc<Self>,
        message: FromDriver,
        chores: &queue::UnboundedSender<Chore>,
    ) -> Option<Ended> {
        use from_driver::What;
        match message.what? {
            What::Beat(_) => {}
            // The task that does chores ends after a refusal; the driver will say goodbye.
            What::Job(job) => drop(chores.send(Chore::Prepare(job))),
            What::Load(load) => {
                let partitions = load.partitions.into_iter().map(PartitionId).collect();
                drop(chores.send(Chore::Load(partitions)));
            }
            What::Run(run) => {
                let cancellation = Cancellation::new();
                self.running().insert(run.order, cancellation.clone());
                tokio::spawn(unit::run(Arc::clone(self), run, cancellation));
            }
            What::Cancel(cancel) => {
                if let Some(cancellation) = self.running().get(&cancel.order) {
                    cancellation.cancel();
                }
            }
            What::Fetch(fetch) => {
                if let Some(name) = fetch.state {
                    tokio::spawn(Arc::clone(self).keep(name.into(), fetch.sources));
                }
            }
            What::Drop(dropped) => {
                let names = dropped.states.into_iter().map(Into::into);
                self.worker.fetcher.forget(self.worker.states.remove(names));
            }
            What::Leave(leave) => {
                tracing::info!(reason = leave.reason, "the driver has no more work");
                return Some(Ended::Finished);
            }
            What::Greeting(_) | What::Welcome(_) => {
                return Some(Ended::Lost("it welcomed this worker twice".to_owned()));
            }
        }
        None
    }

    async fn attend(
        self: &Arc<Self>,
        mut inbound: Streaming<FromDriver>,
        leaving: &mut watch::Receiver<bool>,
    ) -> Ended {
        let (chores, queued) = queue::unbounded_channel();
        tokio::spawn(Arc::clone(self).chores(queued));
        let mut beats = interval(self.lease / BEATS);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut draining = false;
        loop {
            let listening = async {
                let silent = timeout(self.lease, async {
                    loop {
                        tokio::select! {
                            message = inbound.message() => return message,
                            _ = beats.tick() => {
                                self.say(from_worker::What::Beat(protocol::Beat {}));
                            }
                        }
                    }
                });
                silent.await
            };
            let message = tokio::select! {
                message = listening => message,
                () = asked(leaving), if !draining => {
                    draining = true;
                    self.say(from_worker::What::Draining(protocol::Draining {}));
                    continue;
                }
            };
            let ended = match message {
                Ok(Ok(Some(message))) => self.obey(message, &chores),
                Ok(Ok(None)) => Some(Ended::Lost("it closed the connection".to_owned())),
                Ok(Err(status)) => Some(Ended::Lost(status.message().to_owned())),
                Err(_) => {
                    let silence = self.lease.as_secs_f64();
                    Some(Ended::Lost(format!("it was silent for {silence:.1} s")))
                }
            };
            match ended {
                Some(Ended::Finished | Ended::Lost(_)) if draining => return Ended::Left,
                Some(ended) => return ended,
                None => {}
            }
        }
    }
}

impl Opened {
    pub(super) fn is_open(&self) -> bool {
        self.0.is_ok()
    }

    /// Serves the driver until the session ends. Units that still run then are cancelled: the
    /// driver has given them up.
    pub(super) async fn run(self, leaving: &mut watch::Receiver<bool>) -> Ended {
        let (session, inbound) = match self.0 {
            Ok(opened) => opened,
            Err(ended) => return ended,
        };
        let ended = session.attend(inbound, leaving).await;
        for cancellation in session.running().values() {
            cancellation.cancel();
        }
        ended
    }
}

fn held(state: StateName) -> from_worker::What {
    from_worker::What::StateHeld(protocol::StateHeld { state: Some(state.into()) })
}

fn register(worker: &Worker, connection: &Connection) -> Result<protocol::Register, Ended> {
    let options = &worker.options;
    let mut listening = worker.listening;
    if listening.ip().is_unspecified() {
        listening.set_ip(connection.local().ip());
    }
    let address = options.advertise.clone().unwrap_or_else(|| listening.to_string());
    let device = device_to_wire(options.device);
    let device = device.map_err(|nonsense| Ended::Refused(nonsense.to_string()))?;
    let mut held = worker.cache.as_ref().map_or_else(BTreeMap::new, |cache| cache.holdings());
    if let Some(job) = worker.jobs.current() {
        held.entry(job.data().to_owned()).or_default().extend(job.loaded());
    }
    let holdings = held.into_iter().map(|(data, partitions)| {
        let partitions = partitions.into_iter().map(|partition| partition.0).collect();
        protocol::Holding { data, partitions }
    });
    Ok(protocol::Register {
        version: crate::VERSION.to_owned(),
        instance: worker.instance,
        name: options.name.clone().unwrap_or_else(|| address.clone()),
        slots: options.slots as u32,
        device: Some(device),
        address,
        run: worker.states.run(),
        states: worker.states.names().into_iter().map(Into::into).collect(),
        holdings: holdings.collect(),
        // Not known before the driver has greeted.
        challenge: 0,
    })
}

/// What the driver says next, before the session has begun.
async fn heard(inbound: &mut Streaming<FromDriver>) -> Result<from_driver::What, Ended> {
    let message = inbound.message().await.map_err(|status| refusal(&status))?;
    let what = message.and_then(|message| message.what);
    what.ok_or_else(|| Ended::Unreached("the driver says nothing to a registration".to_owned()))
}

/// gRPC over a connection that is there already.
async fn channel(connection: Connection) -> Result<Channel, Ended> {
    let connection = Mutex::new(Some(connection));
    let connector = service_fn(move |_| {
        let taken = connection.lock().unwrap_or_else(PoisonError::into_inner).take();
        async move {
            // A session lasts as long as its connection; the next one has its own.
            taken
                .map(TokioIo::new)
                .ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotConnected))
        }
    });
    let endpoint = Endpoint::from_static("http://driver.cerebro");
    endpoint.connect_with_connector(connector).await.map_err(|error| match explain(&error) {
        Some(reason) => Ended::Refused(reason.to_owned()),
        None => Ended::Unreached(crate::wire::chain(&error)),
    })
}

/// Whether a driver that does not take this worker might do so later.
fn refusal(status: &Status) -> Ended {
    // In TLS 1.3 the driver looks at the certificate when the worker has sent its first call.
    if let Some(reason) = explain(status) {
        return Ended::Refused(reason.to_owned());
    }
    let reason = status.message().to_owned();
    match status.code() {
        Code::FailedPrecondition | Code::InvalidArgument | Code::PermissionDenied => {
            Ended::Refused(reason)
        }
        _ => Ended::Unreached(format!("it does not take this worker now: {reason}")),
    }
}
