//! The start of an experiment: the store is opened, the data are loaded, what was is taken up.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use futures::future::poll_fn;
use futures::stream::{BoxStream, FuturesUnordered};
use futures::{FutureExt, StreamExt};

use super::alarm::Alarm;
use super::durable::Durable;
use super::wall::WallTime;
use super::workers::worker_spec;
use super::{Driver, chain, tell};
use crate::backend::{Backend, BackendError, Job, WorkerEvent, WorkerInfo};
use crate::experiment::builder::Setup;
use crate::experiment::ledger::{Ledger, Order};
use crate::experiment::{Command, Experiment, ExperimentError, TrialRecord};
use crate::id::TrialId;
use crate::observe::{Event, Summary};
use crate::schedule::{PartitionSpec, Policy, Scheduler, TrialProgress, TrialSpec};
use crate::search::Search;
use crate::store::{
    CodeVersion, FORMAT, Open, PartitionDigest, Record, SearchDigest, Specification, StoreError,
};

impl Driver {
    /// Opens the store, starts the backend, and takes up what there is of the experiment.
    pub(in crate::experiment) async fn start(
        experiment: Experiment,
        backend: Arc<dyn Backend>,
    ) -> Result<Self, ExperimentError> {
        let begun = Instant::now();
        // The driver keeps no handle: it is to know when nobody else has one.
        let Experiment { setup: mut experiment, search, open, .. } = experiment;
        let specs: Vec<PartitionSpec> = experiment
            .dataset
            .partitions()
            .iter()
            .map(|info| PartitionSpec { id: info.id, split: info.split, rows: info.rows })
            .collect();
        let mut scheduler = Scheduler::new(experiment.policy.clone(), experiment.seed, &specs)?;
        let mut summary = Summary::default();
        let mut ledger = ledger(&experiment, search);
        let opened = opened(&experiment, &*ledger.search, open, &mut summary).await?;
        let (durable, id, records) = opened;
        for (number, record) in records.iter().enumerate() {
            ledger.replay(number as u64, record)?;
        }
        let mut worker_events = backend.events();
        let (workers, early) =
            load(&mut experiment, &*backend, &mut worker_events, begun, &mut summary).await?;
        let loading = begun.elapsed();
        summary.loading = loading;
        summary.slots = workers.iter().map(|worker| worker.slots).sum();
        scheduler.set_speculation(experiment.speculation);
        let alarm = Alarm::start().map_err(|source| BackendError::Other {
            context: "starting the thread that watches for late units".to_owned(),
            source: source.into(),
        })?;
        let mut driver = Self {
            rows: specs.iter().map(|spec| (spec.id, spec.rows)).collect(),
            workers: HashMap::new(),
            awaiting_holders: None,
            losses: HashMap::new(),
            troubles: 0,
            experiment,
            backend,
            scheduler,
            ledger,
            durable,
            running: HashMap::new(),
            pending: FuturesUnordered::new(),
            worker_events,
            controlled: true,
            stopping: false,
            wall: None,
            alarm,
            counted: loading,
            told_held: Vec::new(),
            few_trials: false,
            largest_state: 0,
            told_bound: (0, 0),
            begun,
            summary,
        };
        for worker in &workers {
            driver.workers.insert(worker.id, worker.slots);
            driver.scheduler.worker_joined(&worker_spec(worker))?;
        }
        driver.tell(Event::ExperimentStarted {
            id,
            name: driver.experiment.name.clone(),
            seed: driver.experiment.seed,
            objective: driver.ledger.objective.clone(),
            epochs: driver.ledger.epochs(),
            trials: driver.ledger.search.planned(),
            planned_epochs: driver.ledger.search.planned_epochs(),
            workers,
            partitions: driver.experiment.dataset.partitions().to_vec(),
        });
        driver.foresee_store_bound();
        driver.take_up(records.len()).await?;
        driver.limit_wall_time()?;
        for event in early {
            // The only error is a defect of this crate, and shows again as soon as units run.
            let _ = driver.worker_event(event);
        }
        Ok(driver)
    }

    /// Starts the clock of an experiment whose wall time is limited.
    fn limit_wall_time(&mut self) -> Result<(), ExperimentError> {
        let Some(limit) = self.experiment.wall else { return Ok(()) };
        let before = self.ledger.ran;
        let started = WallTime::start(limit, before, self.begun.elapsed());
        let started = started.map_err(|source| BackendError::Other {
            context: "starting the thread that watches the wall time".to_owned(),
            source: source.into(),
        })?;
        self.wall = Some(started);
        if before >= limit {
            self.wall_time_over();
        }
        Ok(())
    }

    /// Gives the scheduler and the backend the trials of earlier runs.
    async fn take_up(&mut self, records: usize) -> Result<(), ExperimentError> {
        if records == 0 {
            return Ok(());
        }
        let held = self.ledger.trials.values().filter(|trial| trial.held);
        let held: Vec<String> = held.map(|trial| trial.record.id.to_string()).collect();
        if !held.is_empty() {
            let held = held.join(", ");
            self.summary.warnings.push(format!("{held}: paused by a person, and still so"));
        }
        let trials: Vec<TrialRecord> =
            self.ledger.trials.values().map(|trial| trial.record.clone()).collect();
        self.summary.resumed_epochs = trials.iter().map(|trial| trial.history.len() as u64).sum();
        let warnings = self.summary.warnings.clone();
        self.tell(Event::ExperimentResumed { trials, warnings });
        let unfinished: Vec<TrialId> = self
            .ledger
            .trials
            .iter()
            .filter(|(_, trial)| !trial.record.status.is_final())
            .map(|(&id, _)| id)
            .collect();
        // Those that went on after they had ended are among the unfinished ones.
        self.ledger.revived();
        for id in unfinished {
            self.take_up_trial(id).await?;
        }
        // Who resumes an experiment wants it to go on.
        if self.ledger.paused {
            self.commit(&Record::Commanded { command: Command::ResumeAll });
            self.tell(Event::Commanded { command: Command::ResumeAll });
        }
        Ok(())
    }

    async fn take_up_trial(&mut self, id: TrialId) -> Result<(), ExperimentError> {
        let spec = self.spec_of(id);
        let trial = &self.ledger.trials[&id];
        let (waits, priority) = (trial.rests(), trial.priority);
        let version = trial.version;
        let newest = trial.checkpoints.iter().find(|checkpoint| checkpoint.version == version);
        let archive = self.durable.archive();
        let state = match (version, newest, archive) {
            (0, ..) => None,
            (_, Some(newest), Some(archive)) => Some(archive.read(id, newest).await),
            // A record of an epoch always has its checkpoint, so the store was tampered with.
            _ => Some(Err(StoreError::Closed)),
        };
        let takes_over = trial.takeover.is_some();
        self.scheduler.add_trial(&spec)?;
        self.scheduler.set_priority(id, priority.level())?;
        if waits {
            self.scheduler.pause(id)?;
        }
        match state {
            None => {}
            Some(Ok(state)) => {
                if let Some(trial) = self.ledger.trials.get_mut(&id) {
                    trial.current.state_bytes = state.bytes() as u64;
                }
                self.state_sized(state.bytes() as u64);
                self.backend.install(id, version, state).await?;
            }
            Some(Err(error @ StoreError::DamagedCheckpoint { .. })) => {
                // The others are none the worse for it.
                self.scheduler.stop(id)?;
                self.ledger.fail(id, chain(&error));
                return Ok(());
            }
            Some(Err(error)) => return Err(error.into()),
        }
        if takes_over {
            self.take_over(id);
        }
        Ok(())
    }
}

impl Driver {
    /// A trial with what it has trained so far, for the scheduler.
    pub(super) fn spec_of(&self, id: TrialId) -> TrialSpec {
        let trial = &self.ledger.trials[&id];
        let mut spec = TrialSpec::new(id, trial.epochs);
        spec.cost_per_row = self.experiment.model.cost_per_row(&trial.record.config);
        let epochs = trial.record.history.iter().map(|epoch| epoch.visit_order.clone()).collect();
        spec.completed = Some(TrialProgress { epochs, ..TrialProgress::default() });
        spec
    }
}

/// A ledger without records.
fn ledger(setup: &Setup, search: Box<dyn Search>) -> Ledger {
    let order = match setup.policy {
        Policy::Seeded if !search.ignores_results() => Order::Fixed,
        _ => Order::Arrival,
    };
    let objective = setup.objective.clone();
    Ledger::new(search, objective, setup.epochs, setup.seed, order, setup.kept_models)
        .with_retention(setup.retention)
}

/// Opens the store, if there is one, and gives the experiment's id and what was recorded there.
async fn opened(
    setup: &Setup,
    search: &dyn Search,
    open: Option<Open>,
    summary: &mut Summary,
) -> Result<(Durable, Option<String>, Vec<Record>), ExperimentError> {
    let Some(open) = open else { return Ok((Durable::default(), None, Vec::new())) };
    let specification = Specification {
        format: FORMAT,
        id: format!("{:016x}", drawn()),
        name: setup.name.clone(),
        seed: setup.seed,
        objective: setup.objective.clone(),
        epochs: setup.epochs,
        policy: setup.policy.clone(),
        concurrent_trials: setup.concurrency,
        search: SearchDigest::of(search),
        tensors: setup.dataset.tensors().to_vec(),
        partitions: PartitionDigest::all(&*setup.dataset),
        code: CodeVersion::of(&setup.code_version, &*setup.model),
    };
    let mut opened = open(specification).await?;
    for warning in std::mem::take(&mut opened.warnings) {
        tracing::warn!("{warning}");
        summary.warnings.push(warning);
    }
    let (id, records) = (std::mem::take(&mut opened.id), std::mem::take(&mut opened.records));
    let id = Some(id).filter(|id| !id.is_empty());
    Ok((Durable::new(opened, records.len() as u64), id, records))
}

/// A number that no other experiment draws. It has no part in what is computed.
fn drawn() -> u64 {
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u32(std::process::id());
    hasher.finish()
}

/// Starts the backend and shows observers how it loads the data. Also gives what workers said of
/// other things meanwhile.
async fn load(
    setup: &mut Setup,
    backend: &dyn Backend,
    worker_events: &mut BoxStream<'static, WorkerEvent>,
    begun: Instant,
    summary: &mut Summary,
) -> Result<(Vec<WorkerInfo>, Vec<WorkerEvent>), ExperimentError> {
    let job = Job { dataset: Arc::clone(&setup.dataset), builder: Arc::clone(&setup.model) };
    let mut early = Vec::new();
    let mut starting = backend.start(job);
    loop {
        let next = poll_fn(|context| {
            if let Poll::Ready(Some(event)) = worker_events.poll_next_unpin(context) {
                return Poll::Ready(Ok(event));
            }
            starting.poll_unpin(context).map(Err)
        });
        match next.await {
            Ok(WorkerEvent::PartitionLoaded { worker, partition, rows, bytes, took }) => {
                let event = Event::PartitionLoaded { worker, partition, rows, bytes, took };
                tell(&mut setup.observers, begun.elapsed(), &event, summary);
            }
            Ok(event) => early.push(event),
            Err(workers) => return Ok((workers?, early)),
        }
    }
}
