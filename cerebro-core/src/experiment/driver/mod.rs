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
    Worker(WorkerEvent),
    Command(Command),
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
    slots: usize,
    /// Whether the search may have something to say; if not, only a result can change that.
    asking: bool,
    stopping: bool,
    begun: Instant,
    summary: Summary,
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
        let mut summary = empty_summary();
        let mut worker_events = backend.events();
        let job = Job {
            dataset: Arc::clone(&experiment.dataset),
            builder: Arc::clone(&experiment.model),
        };
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
                    Ok(event) => loading(&mut experiment.observers, begun, &event, &mut summary),
                    Err(workers) => break workers?,
                }
            }
        };
        summary.loading = begun.elapsed();
        summary.slots = workers.iter().map(|worker| worker.slots).sum();
        let mut driver = Self {
            rows: specs.iter().map(|spec| (spec.id, spec.rows)).collect(),
            slots: summary.slots,
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
        };
        for worker in &workers {
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
            if self.running.is_empty() && self.pending.is_empty() {
                return self.check_end();
            }
            let happening = self.next().await;
            self.handle(happening)?;
        }
    }

    /// Nothing runs: that is right if everything has ended or was told to.
    fn check_end(&self) -> Result<(), Interruption> {
        if self.stopping {
            return Ok(());
        }
        let stalls = self.scheduler.stalled();
        if !stalls.is_empty() {
            return Err(Interruption::Stalled(stalls));
        }
        if self.asking { Ok(()) } else { Err(Interruption::SearchWaits) }
    }

    /// Lets what still runs come to its end, at batch boundaries, and takes its results.
    async fn drain(&mut self) {
        self.stopping = true;
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
                self.scheduler.worker_joined(&worker_spec(&worker))?;
                self.tell(&Event::WorkerJoined { worker });
            }
            WorkerEvent::Lost { worker, reason } => self.worker_lost(worker, &reason),
            WorkerEvent::Draining { worker } => {
                self.scheduler.drain(worker);
                self.tell(&Event::WorkerDraining { worker });
            }
            WorkerEvent::PartitionLoaded { worker, partition, rows, bytes, took } => {
                self.tell(&Event::PartitionLoaded { worker, partition, rows, bytes, took });
            }
            WorkerEvent::Progress { worker, unit, rows } => {
                self.tell(&Event::UnitProgress { unit, worker, rows });
            }
        }
        Ok(())
    }

    fn worker_lost(&mut self, worker: WorkerId, reason: &str) {
        let units = self.scheduler.worker_lost(worker);
        let before = self.running.len();
        self.running.retain(|(_, on), _| *on != worker);
        if units.is_empty() && self.running.len() == before {
            return; // It was said already.
        }
        self.tell(&Event::WorkerLost { worker, reason: reason.to_owned(), units });
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

    fn tell(&mut self, event: &Event) {
        let at = self.begun.elapsed();
        tell(&mut self.experiment.observers, at, event, &mut self.summary);
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

fn empty_summary() -> Summary {
    Summary {
        outcome: Outcome::Finished,
        wall: Duration::ZERO,
        loading: Duration::ZERO,
        slots: 0,
        training: Duration::ZERO,
        validating: Duration::ZERO,
        completed: 0,
        stopped: 0,
        failed: 0,
        train_units: 0,
        validation_units: 0,
        retried_units: 0,
        hops: 0,
        hop_bytes: 0,
        best: None,
        warnings: Vec::new(),
    }
}
