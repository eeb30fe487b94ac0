//! The driver: the event loop of an experiment.

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures::future::{BoxFuture, poll_fn};
use futures::stream::{BoxStream, FuturesUnordered};
use futures::{FutureExt, StreamExt};

use super::handle::Command;
use super::result::{ExperimentResult, best_first};
use super::trial::{EpochRecord, TrialRecord};
use super::{Experiment, ExperimentError, Interruption};
use crate::backend::{
    Backend, BackendError, Job, UnitError, UnitOrder, UnitReport, WorkerEvent, WorkerInfo,
};
use crate::cancel::Cancellation;
use crate::config::Config;
use crate::id::{PartitionId, Split, TrialId, Unit, WorkerId};
use crate::metric::{LOSS, Metrics};
use crate::observe::{Event, Observer, Outcome, Summary, TrialStatus};
use crate::schedule::{
    Assignment, Completion, Failure, Next, PartitionSpec, Scheduler, TrialSpec, WorkerSpec,
};
use crate::search::{Ask, Decision, Ending, EpochReport};

/// A unit is tried so often before its trial is given up.
const ATTEMPTS: u32 = 2;

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

    // Trials -----------------------------------------------------------------------------------

    /// Asks the search for trials as long as there is room.
    fn start_trials(&mut self) -> Result<(), Interruption> {
        let room = self.experiment.concurrency.unwrap_or((4 * self.slots).max(16));
        while self.asking && self.active < room {
            let next = TrialId(self.trials.len() as u64);
            match self.experiment.search.ask(next) {
                Ask::Start(config) => self.add_trial(next, config)?,
                Ask::Resume(trial) => self.resume(trial)?,
                Ask::Stop(trial) => self.give_up(trial)?,
                // Nothing more until a result changes the search's mind.
                Ask::Wait => self.asking = false,
                Ask::Finished => break,
            }
        }
        Ok(())
    }

    /// How many epochs a trial trains at most.
    fn epochs(&self) -> u32 {
        let searched = self.experiment.search.max_epochs();
        searched.map_or(self.experiment.epochs, |epochs| epochs.min(self.experiment.epochs))
    }

    fn add_trial(&mut self, id: TrialId, config: Config) -> Result<(), Interruption> {
        // The seed comes from the Config, not from the trial's number: so a trial's weights stay
        // the same when others are added or removed. Equal Configs are told apart by a count.
        let digest = config.digest();
        let same = self.equal_configs.entry(digest).or_default();
        let seed = self.experiment.seed.derive("trial", &[digest, *same]);
        *same += 1;
        let record = TrialRecord {
            id,
            config: Arc::new(config.clone()),
            seed,
            status: TrialStatus::Running,
            history: Vec::new(),
            best: None,
        };
        self.trials.insert(id, Trial::new(record));
        self.active += 1;
        self.tell(&Event::TrialStarted { trial: id, config: config.clone(), seed, parent: None });
        if let Err(error) = self.experiment.model.check(&config) {
            self.experiment.search.ended(id, Ending::Failed);
            self.end_trial(id, TrialStatus::Failed { reason: chain(&error) });
            return Ok(());
        }
        let mut spec = TrialSpec::new(id, self.epochs(), seed);
        spec.cost_per_row = self.experiment.model.cost_per_row(&config);
        self.scheduler.add_trial(&spec)?;
        Ok(())
    }

    fn resume(&mut self, id: TrialId) -> Result<(), Interruption> {
        let Some(trial) = self.trials.get_mut(&id) else { return Ok(()) };
        if trial.record.status == TrialStatus::Paused {
            trial.record.status = TrialStatus::Running;
            self.active += 1;
            self.scheduler.resume(id)?;
            self.tell(&Event::TrialStatus { trial: id, status: TrialStatus::Running });
        }
        Ok(())
    }

    fn give_up(&mut self, id: TrialId) -> Result<(), Interruption> {
        let paused = |trial: &Trial| trial.record.status == TrialStatus::Paused;
        if self.trials.get(&id).is_some_and(paused) {
            self.scheduler.stop(id)?;
            self.end_trial(id, TrialStatus::Stopped);
        }
        Ok(())
    }

    /// Sets a final status and lets go of the States that are not worth keeping.
    fn end_trial(&mut self, id: TrialId, status: TrialStatus) {
        let Some(trial) = self.trials.get_mut(&id) else { return };
        if trial.record.status == TrialStatus::Running {
            self.active -= 1;
        }
        trial.record.status = status.clone();
        trial.train = Vec::new();
        trial.validation = Vec::new();
        if trial.record.best.is_some() {
            let (trials, objective) = (&self.trials, &self.experiment.objective);
            let better = |other: &TrialId| {
                best_first(objective, &trials[other].record, &trials[&id].record).is_lt()
            };
            self.kept.insert(self.kept.partition_point(better), id);
        }
        let dropped = match self.kept.len() > self.experiment.kept_models {
            true => self.kept.pop(),
            false => None,
        };
        self.release(id);
        if let Some(dropped) = dropped.filter(|&dropped| dropped != id) {
            self.release(dropped);
        }
        self.tell(&Event::TrialStatus { trial: id, status });
    }

    /// Tells the backend which States of a trial are still needed.
    fn release(&mut self, id: TrialId) {
        let trial = &self.trials[&id];
        let mut keep = trial.pinned.clone();
        let ended = trial.record.status.is_final();
        if !ended || self.kept.contains(&id) {
            keep.extend(trial.record.best_epoch().map(|epoch| epoch.version));
        }
        let below = if ended { u64::MAX } else { trial.version };
        let backend = Arc::clone(&self.backend);
        let release = async move {
            backend.release(id, below, &keep).await;
            Happening::Released
        };
        self.pending.push(release.boxed());
    }

    fn exploit(
        &mut self,
        id: TrialId,
        source: TrialId,
        config: Config,
    ) -> Result<(), Interruption> {
        let Some(from) = self.trials.get_mut(&source) else { return Ok(()) };
        let from_version = from.version;
        from.pinned.push(from_version);
        self.scheduler.pause(id)?;
        let version = self.trials[&id].version;
        let backend = Arc::clone(&self.backend);
        let taking = async move {
            let taken = match backend.state(source, from_version).await {
                Ok(state) => backend.install(id, version, state).await,
                Err(error) => Err(error),
            };
            Happening::StateTaken { trial: id, source, version: from_version, config, taken }
        };
        self.pending.push(taking.boxed());
        Ok(())
    }

    fn state_taken(
        &mut self,
        id: TrialId,
        source: TrialId,
        version: u64,
        config: Config,
        taken: Result<(), BackendError>,
    ) -> Result<(), Interruption> {
        if let Some(from) = self.trials.get_mut(&source) {
            if let Some(index) = from.pinned.iter().position(|&pinned| pinned == version) {
                from.pinned.swap_remove(index);
            }
            self.release(source);
        }
        let Some(trial) = self.trials.get_mut(&id) else { return Ok(()) };
        match taken {
            Ok(()) => {
                trial.record.config = Arc::new(config.clone());
                self.tell(&Event::TrialExploited { trial: id, source, config });
                self.scheduler.resume(id)?;
            }
            Err(error) => {
                let reason = format!("taking over the State of {source}: {}", chain(&error));
                self.scheduler.stop(id)?;
                self.experiment.search.ended(id, Ending::Failed);
                self.end_trial(id, TrialStatus::Failed { reason });
                self.asking = true;
            }
        }
        Ok(())
    }

    // Units ------------------------------------------------------------------------------------

    /// Starts every unit that can start.
    fn start_units(&mut self) {
        for Assignment { unit, worker, hop_from } in self.scheduler.assign(self.begun.elapsed()) {
            let trial = &self.trials[&unit.trial];
            let cancellation = Cancellation::new();
            let order = UnitOrder {
                unit,
                worker,
                config: Arc::clone(&trial.record.config),
                seed: trial.record.seed,
                version: trial.version,
                cancellation: cancellation.clone(),
            };
            if hop_from.is_some() {
                self.summary.hops += 1;
                self.summary.hop_bytes += trial.state_bytes;
            }
            self.tell(&Event::UnitStarted {
                unit,
                worker,
                rows: self.rows[&unit.partition],
                hop_from,
            });
            let started = self.begun.elapsed();
            self.running.insert((unit, worker), Running { started, cancellation });
            let backend = Arc::clone(&self.backend);
            let run = async move { Happening::UnitEnded(unit, worker, backend.run(order).await) };
            self.pending.push(run.boxed());
        }
    }

    fn unit_ended(
        &mut self,
        unit: Unit,
        worker: WorkerId,
        ended: Result<UnitReport, UnitError>,
    ) -> Result<(), Interruption> {
        if let Err(UnitError::WorkerLost { worker, reason }) = &ended {
            self.worker_lost(*worker, reason);
        }
        // A unit whose worker was lost meanwhile is open again: its late report is refused.
        let Some(Running { started, .. }) = self.running.remove(&(unit, worker)) else {
            return Ok(());
        };
        match ended {
            Ok(report) => match diverged(&report) {
                None => self.unit_completed(unit, worker, started, report),
                Some(reason) => self.unit_failed(unit, worker, started, reason, false),
            },
            Err(error) if error.is_cancelled() => {
                self.scheduler.failed(unit, worker)?;
                Ok(())
            }
            Err(error) => {
                let retryable = error.is_retryable();
                self.unit_failed(unit, worker, started, chain(&error), retryable)
            }
        }
    }

    fn unit_completed(
        &mut self,
        unit: Unit,
        worker: WorkerId,
        started: Duration,
        report: UnitReport,
    ) -> Result<(), Interruption> {
        let completion = self.scheduler.completed(unit, worker, report.occupied)?;
        let (computed, counter) = match unit.split {
            Split::Train => (&mut self.summary.training, &mut self.summary.train_units),
            Split::Validation => (&mut self.summary.validating, &mut self.summary.validation_units),
        };
        *computed += report.computed;
        *counter += 1;
        let metrics = report.metrics.clone();
        let (version, bytes) = (report.version, report.state_bytes);
        self.tell(&Event::UnitCompleted { unit, worker, started, report });
        if completion == Completion::Discarded {
            return Ok(());
        }
        let Some(trial) = self.trials.get_mut(&unit.trial) else { return Ok(()) };
        match unit.split {
            Split::Train => {
                trial.version = version;
                trial.state_bytes = bytes;
                trial.train.push((unit.partition, metrics));
                self.release(unit.trial);
            }
            Split::Validation => {
                let metric = &self.experiment.objective.metric;
                if metrics.value(metric).is_none() {
                    let reported = metrics.values().map(|(name, _)| name.to_owned()).collect();
                    let metric = metric.clone();
                    return Err(Interruption::UnknownMetric { metric, reported });
                }
                trial.validation.push((unit.partition, metrics));
            }
        }
        match completion {
            Completion::EpochCompleted { next, .. } => self.epoch_completed(unit.trial, next),
            _ => Ok(()),
        }
    }

    fn unit_failed(
        &mut self,
        unit: Unit,
        worker: WorkerId,
        started: Duration,
        error: String,
        retryable: bool,
    ) -> Result<(), Interruption> {
        let failure = self.scheduler.failed(unit, worker)?;
        let open = match failure {
            Failure::Open { failures, .. } => Some(retryable && failures < ATTEMPTS),
            Failure::Discarded => None,
        };
        let retry = open == Some(true);
        self.tell(&Event::UnitFailed { unit, worker, started, error: error.clone(), retry });
        if retry {
            self.summary.retried_units += 1;
        } else if open.is_some() {
            self.scheduler.stop(unit.trial)?;
            self.experiment.search.ended(unit.trial, Ending::Failed);
            let reason = format!("{unit} on {worker}: {error}");
            self.end_trial(unit.trial, TrialStatus::Failed { reason });
            self.asking = true;
        }
        Ok(())
    }

    fn epoch_completed(&mut self, id: TrialId, next: Next) -> Result<(), Interruption> {
        let visit_order = self.scheduler.visit_order(id).and_then(|mut orders| orders.pop());
        let max_epochs = self.epochs();
        let Some(trial) = self.trials.get_mut(&id) else { return Ok(()) };
        let train = merged(&mut trial.train);
        let validation = merged(&mut trial.validation);
        let objective = &self.experiment.objective;
        let value = validation.value(&objective.metric).unwrap_or(f64::NAN);
        let record = &mut trial.record;
        let better = match record.best_value() {
            Some(best) => objective.best_first(value, best).is_lt(),
            None => value.is_finite(),
        };
        if better {
            record.best = Some(record.history.len());
        }
        let epoch = record.history.len() as u32 + 1;
        let visit_order = visit_order.unwrap_or_default();
        let report = EpochReport {
            trial: id,
            epoch,
            max_epochs,
            value,
            direction: objective.direction,
            metrics: validation.clone(),
        };
        let event = Event::EpochCompleted {
            trial: id,
            epoch,
            train: train.clone(),
            validation: validation.clone(),
            value,
            visit_order: visit_order.clone(),
        };
        let version = trial.version;
        record.history.push(EpochRecord { epoch, train, validation, value, version, visit_order });
        self.tell(&event);
        let decision = self.experiment.search.tell(&report);
        self.asking = true;
        match (next, decision) {
            (Next::Rest, _) => self.end_trial(id, TrialStatus::Completed),
            (Next::Epoch, Decision::Continue) => {}
            (Next::Epoch, Decision::Pause) => {
                self.scheduler.pause(id)?;
                if let Some(trial) = self.trials.get_mut(&id) {
                    trial.record.status = TrialStatus::Paused;
                    self.active -= 1;
                }
                self.tell(&Event::TrialStatus { trial: id, status: TrialStatus::Paused });
            }
            (Next::Epoch, Decision::Stop) => {
                self.scheduler.stop(id)?;
                self.end_trial(id, TrialStatus::Stopped);
            }
            (Next::Epoch, Decision::Exploit { source, config }) => {
                self.exploit(id, source, config)?
            }
        }
        Ok(())
    }

    // Workers ----------------------------------------------------------------------------------

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

    // The end ----------------------------------------------------------------------------------

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

/// Merges the metrics of an epoch's units in the order of the partitions' ids, so that the sums'
/// rounding does not depend on which worker was first.
fn merged(units: &mut Vec<(PartitionId, Metrics)>) -> Metrics {
    units.sort_by_key(|(partition, _)| *partition);
    let mut merged = Metrics::new();
    for (_, metrics) in units.drain(..) {
        merged.merge(&metrics);
    }
    merged
}

/// Why a completed unit is of no use: its training loss is no number.
fn diverged(report: &UnitReport) -> Option<String> {
    let loss = report.metrics.value(LOSS)?;
    (!loss.is_finite()).then(|| {
        format!("the loss became {loss}; a smaller learning rate or gradient clipping may help")
    })
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
