//! The driver: the event loop of an experiment.

mod trials;
mod units;

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures::future::{BoxFuture, poll_fn};
use futures::stream::{BoxStream, FuturesUnordered};
use futures::{FutureExt, StreamExt};

use super::handle::Command;
use super::result::ExperimentResult;
use super::trial::TrialRecord;
use super::{Experiment, ExperimentError, Interruption};
use crate::backend::{Backend, BackendError, Job, UnitError, UnitReport, WorkerEvent, WorkerInfo};
use crate::cancel::Cancellation;
use crate::config::Config;
use crate::id::{PartitionId, TrialId, Unit, WorkerId};
use crate::metric::Metrics;
use crate::observe::{Event, Observer, Outcome, Summary, TrialStatus};
use crate::schedule::{PartitionSpec, Scheduler, WorkerSpec};

/// A unit that so many workers were lost with is taken for the cause: its trial is given up.
const LOSSES: u32 = 3;

/// What the driver waits for.
enum Happening {
    UnitEnded(Unit, WorkerId, Result<UnitReport, UnitError>),
    StateTaken {
        trial: TrialId,
        source: TrialId,
        version: u64,
        config: Config,
        taken: Result<(), BackendError>,
    },
    Released,
    HoldersAwaited(Result<(), BackendError>),
    Worker(WorkerEvent),
    Command(Command),
}

/// Where the event loop stands when nothing runs.
enum Standstill {
    /// Everything is done.
    End,
    /// Units wait for workers that the backend may yet give.
    Wait,
}

/// A unit on a worker.
struct Running {
    started: Duration,
    cancellation: Cancellation,
}

/// A trial under way: its record, and what only the driver needs.
struct Trial {
    record: TrialRecord,
    /// The version of the newest State.
    version: u64,
    /// Its size.
    state_bytes: u64,
    /// Versions that another trial is about to take over.
    pinned: Vec<u64>,
    /// Metrics of the current epoch's units.
    train: Vec<(PartitionId, Metrics)>,
    validation: Vec<(PartitionId, Metrics)>,
}

impl Trial {
    fn new(record: TrialRecord) -> Self {
        Self {
            record,
            version: 0,
            state_bytes: 0,
            pinned: Vec::new(),
            train: Vec::new(),
            validation: Vec::new(),
        }
    }
}

pub(super) struct Driver {
    experiment: Experiment,
    backend: Arc<dyn Backend>,
    scheduler: Scheduler,
    rows: HashMap<PartitionId, u64>,
    trials: BTreeMap<TrialId, Trial>,
    /// How many of them train or wait for a worker.
    active: usize,
    /// How many trials there are of each Config, by its digest.
    equal_configs: HashMap<u64, u64>,
    /// Ended trials whose States are kept, the best first.
    kept: Vec<TrialId>,
    running: HashMap<(Unit, WorkerId), Running>,
    pending: FuturesUnordered<BoxFuture<'static, Happening>>,
    worker_events: BoxStream<'static, WorkerEvent>,
    /// The workers that are there, and their slots.
    workers: HashMap<WorkerId, usize>,
    /// Set while nothing can run until the backend gives workers.
    awaiting_holders: Option<BoxFuture<'static, Happening>>,
    /// How often each unit was lost with its worker.
    losses: HashMap<Unit, u32>,
    /// Whether the search may have something to say; if not, only a result can change that.
    asking: bool,
    stopping: bool,
    begun: Instant,
    summary: Summary,
    /// Events that observers have not heard of yet.
    untold: Vec<(Duration, Event)>,
}

impl Driver {
    /// Starts the backend and shows observers how it loads the data.
    pub(super) async fn start(
        mut experiment: Experiment,
        backend: Arc<dyn Backend>,
    ) -> Result<Self, ExperimentError> {
        let begun = Instant::now();
        let specs: Vec<PartitionSpec> = experiment
            .dataset
            .partitions()
            .iter()
            .map(|info| PartitionSpec { id: info.id, split: info.split, rows: info.rows })
            .collect();
        let scheduler = Scheduler::new(experiment.policy.clone(), experiment.seed, &specs)?;
        let mut summary = Summary::default();
        let mut worker_events = backend.events();
        let job = Job {
            dataset: Arc::clone(&experiment.dataset),
            builder: Arc::clone(&experiment.model),
        };
        let mut early = Vec::new();
        let workers = {
            let mut starting = backend.start(job);
            loop {
                let next = poll_fn(|context| {
                    if let Poll::Ready(Some(event)) = worker_events.poll_next_unpin(context) {
                        return Poll::Ready(Ok(event));
                    }
                    starting.poll_unpin(context).map(Err)
                });
                match next.await {
                    Ok(event @ WorkerEvent::PartitionLoaded { .. }) => {
                        loading(&mut experiment.observers, begun, &event, &mut summary);
                    }
                    Ok(event) => early.push(event),
                    Err(workers) => break workers?,
                }
            }
        };
        summary.loading = begun.elapsed();
        summary.slots = workers.iter().map(|worker| worker.slots).sum();
        let mut driver = Self {
            rows: specs.iter().map(|spec| (spec.id, spec.rows)).collect(),
            workers: HashMap::new(),
            awaiting_holders: None,
            losses: HashMap::new(),
            experiment,
            backend,
            scheduler,
            trials: BTreeMap::new(),
            active: 0,
            equal_configs: HashMap::new(),
            kept: Vec::new(),
            running: HashMap::new(),
            pending: FuturesUnordered::new(),
            worker_events,
            asking: true,
            stopping: false,
            begun,
            summary,
            untold: Vec::new(),
        };
        for worker in &workers {
            driver.workers.insert(worker.id, worker.slots);
            driver.scheduler.worker_joined(&worker_spec(worker))?;
        }
        driver.tell(&Event::ExperimentStarted {
            name: driver.experiment.name.clone(),
            seed: driver.experiment.seed,
            objective: driver.experiment.objective.clone(),
            epochs: driver.epochs(),
            trials: driver.experiment.search.planned(),
            workers,
            partitions: driver.experiment.dataset.partitions().to_vec(),
        });
        for event in early {
            // The only error is a defect of this crate, and shows again as soon as units run.
            let _ = driver.worker_event(event);
        }
        Ok(driver)
    }

    /// Runs until there is nothing more to do.
    pub(super) async fn run(mut self) -> Result<ExperimentResult, ExperimentError> {
        let ended = self.work().await;
        self.drain().await;
        let result = self.finish();
        match ended {
            Ok(()) => Ok(result),
            Err(cause) => Err(ExperimentError::Interrupted { cause, result: Box::new(result) }),
        }
    }

    async fn work(&mut self) -> Result<(), Interruption> {
        loop {
            if !self.stopping {
                self.start_trials()?;
                self.start_units();
            }
            self.tell_observers();
            let idle = self.running.is_empty() && self.pending.is_empty();
            if idle
                && (self.stopping || self.awaiting_holders.is_none())
                && matches!(self.standstill()?, Standstill::End)
            {
                return Ok(());
            }
            let happening = self.next().await;
            self.handle(happening)?;
        }
    }

    /// Nothing runs: that is right if everything has ended, was told to, or waits for workers.
    fn standstill(&mut self) -> Result<Standstill, Interruption> {
        if self.stopping {
            return Ok(Standstill::End);
        }
        let stalls = self.scheduler.stalled();
        if !stalls.is_empty() {
            let partitions: Vec<PartitionId> = stalls.iter().map(|stall| stall.partition).collect();
            let backend = Arc::clone(&self.backend);
            let awaiting =
                async move { Happening::HoldersAwaited(backend.await_holders(&partitions).await) };
            self.awaiting_holders = Some(awaiting.boxed());
            return Ok(Standstill::Wait);
        }
        if self.asking { Ok(Standstill::End) } else { Err(Interruption::SearchWaits) }
    }

    /// The backend has given the workers that units waited for, or cannot.
    fn holders_awaited(&mut self, awaited: Result<(), BackendError>) -> Result<(), Interruption> {
        self.awaiting_holders = None;
        let stalls = self.scheduler.stalled();
        match awaited {
            Err(error) if !stalls.is_empty() => {
                Err(Interruption::Stalled { stalls, reason: chain(&error) })
            }
            _ => Ok(()),
        }
    }

    /// Lets what still runs come to its end, at batch boundaries, and takes its results.
    async fn drain(&mut self) {
        self.stopping = true;
        self.awaiting_holders = None;
        for running in self.running.values() {
            running.cancellation.cancel();
        }
        while !self.pending.is_empty() {
            let happening = self.next().await;
            // What is wrong was said already; the rest of the results still counts.
            let _ = self.handle(happening);
        }
    }

    async fn next(&mut self) -> Happening {
        poll_fn(|context| {
            if let Poll::Ready(Some(command)) = self.experiment.commands.poll_next_unpin(context) {
                return Poll::Ready(Happening::Command(command));
            }
            if let Poll::Ready(Some(event)) = self.worker_events.poll_next_unpin(context) {
                return Poll::Ready(Happening::Worker(event));
            }
            if let Some(awaiting) = &mut self.awaiting_holders
                && let Poll::Ready(happening) = awaiting.poll_unpin(context)
            {
                return Poll::Ready(happening);
            }
            match self.pending.poll_next_unpin(context) {
                Poll::Ready(Some(happening)) => Poll::Ready(happening),
                // Empty or not ready: whatever comes next wakes this task.
                Poll::Ready(None) | Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    fn handle(&mut self, happening: Happening) -> Result<(), Interruption> {
        match happening {
            Happening::UnitEnded(unit, worker, ended) => self.unit_ended(unit, worker, ended)?,
            Happening::StateTaken { trial, source, version, config, taken } => {
                self.state_taken(trial, source, version, config, taken)?;
            }
            Happening::Released => {}
            Happening::HoldersAwaited(awaited) => self.holders_awaited(awaited)?,
            Happening::Worker(event) => self.worker_event(event)?,
            Happening::Command(Command::Stop) => {
                self.stopping = true;
                for running in self.running.values() {
                    running.cancellation.cancel();
                }
            }
        }
        Ok(())
    }

    fn worker_event(&mut self, event: WorkerEvent) -> Result<(), Interruption> {
        match event {
            WorkerEvent::Joined(worker) => {
                self.workers.insert(worker.id, worker.slots);
                self.summary.slots = self.summary.slots.max(self.workers.values().sum());
                self.scheduler.worker_joined(&worker_spec(&worker))?;
                self.tell(&Event::WorkerJoined { worker });
            }
            WorkerEvent::Lost { worker, reason } => self.worker_lost(worker, &reason)?,
            WorkerEvent::Draining { worker } => {
                self.scheduler.drain(worker);
                self.tell(&Event::WorkerDraining { worker });
            }
            WorkerEvent::PartitionLoaded { worker, partition, rows, bytes, took } => {
                self.tell(&Event::PartitionLoaded { worker, partition, rows, bytes, took });
            }
            WorkerEvent::UnitRepeated { worker, unit } => {
                self.summary.repeated_units += 1;
                self.tell(&Event::UnitRepeated { unit, worker });
            }
            WorkerEvent::Progress { worker, unit, rows } => {
                self.tell(&Event::UnitProgress { unit, worker, rows });
            }
        }
        Ok(())
    }

    fn worker_lost(&mut self, worker: WorkerId, reason: &str) -> Result<(), Interruption> {
        if self.workers.remove(&worker).is_none() {
            return Ok(()); // It was said already.
        }
        let units = self.scheduler.worker_lost(worker);
        self.running.retain(|(_, on), _| *on != worker);
        self.summary.lost_workers += 1;
        self.tell(&Event::WorkerLost { worker, reason: reason.to_owned(), units: units.clone() });
        for unit in units {
            let losses = self.losses.entry(unit).or_default();
            *losses += 1;
            if *losses >= LOSSES {
                let losses = *losses;
                self.fail_trial(unit.trial, format!(
                    "{unit}: {losses} workers were lost while they ran it, {worker} last: {reason}; \
                     perhaps it takes more memory than they have"
                ))?;
            }
        }
        Ok(())
    }

    fn finish(mut self) -> ExperimentResult {
        let unfinished: Vec<TrialId> = self
            .trials
            .values()
            .filter(|trial| !trial.record.status.is_final())
            .map(|trial| trial.record.id)
            .collect();
        self.summary.outcome = if self.stopping && !unfinished.is_empty() {
            Outcome::Stopped
        } else {
            Outcome::Finished
        };
        for id in unfinished {
            if let Some(trial) = self.trials.get_mut(&id) {
                trial.record.status = TrialStatus::Stopped;
            }
            self.tell(&Event::TrialStatus { trial: id, status: TrialStatus::Stopped });
        }
        self.tell_observers();
        self.summary.wall = self.begun.elapsed().saturating_sub(self.summary.loading);
        for trial in self.trials.values() {
            match trial.record.status {
                TrialStatus::Completed => self.summary.completed += 1,
                TrialStatus::Failed { .. } => self.summary.failed += 1,
                _ => self.summary.stopped += 1,
            }
        }
        let trials = self.trials.into_iter().map(|(id, trial)| (id, trial.record)).collect();
        let mut result = ExperimentResult {
            objective: self.experiment.objective,
            trials,
            summary: self.summary,
            backend: self.backend,
        };
        result.summary.best = result
            .best()
            .ok()
            .and_then(|trial| trial.best_epoch().map(|epoch| (trial.id, epoch.value, epoch.epoch)));
        let event = Event::ExperimentEnded { summary: result.summary.clone() };
        tell(&mut self.experiment.observers, self.begun.elapsed(), &event, &mut result.summary);
        result
    }

    /// Notes an event for the observers. They hear of it once workers have their next units:
    /// nothing that an observer does keeps a worker waiting.
    fn tell(&mut self, event: &Event) {
        self.untold.push((self.begun.elapsed(), event.clone()));
    }

    fn tell_observers(&mut self) {
        for (at, event) in self.untold.drain(..) {
            tell(&mut self.experiment.observers, at, &event, &mut self.summary);
        }
    }
}

/// Tells every observer; one that errs is heard of in the summary and told no more.
fn tell(
    observers: &mut Vec<Box<dyn Observer>>,
    at: Duration,
    event: &Event,
    summary: &mut Summary,
) {
    observers.retain_mut(|observer| match observer.observe(at, event) {
        Ok(()) => true,
        Err(error) => {
            let warning = format!("an observer gave up: {}", chain(&*error));
            tracing::warn!("{warning}");
            summary.warnings.push(warning);
            false
        }
    });
}

/// What a worker says while the data is loaded.
fn loading(
    observers: &mut Vec<Box<dyn Observer>>,
    begun: Instant,
    event: &WorkerEvent,
    summary: &mut Summary,
) {
    if let WorkerEvent::PartitionLoaded { worker, partition, rows, bytes, took } = *event {
        let event = Event::PartitionLoaded { worker, partition, rows, bytes, took };
        tell(observers, begun.elapsed(), &event, summary);
    }
}

fn worker_spec(worker: &WorkerInfo) -> WorkerSpec {
    WorkerSpec { id: worker.id, slots: worker.slots, partitions: worker.partitions.clone() }
}

/// An error and its causes, in one line.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // Errors that print their source already are not repeated.
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}
