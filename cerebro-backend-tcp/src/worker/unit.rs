//! Units: their State, their slot, their end.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cerebro_core::backend::{UnitError, UnitOrder, UnitReport};
use cerebro_core::execute::{Executed, execute};
use cerebro_core::{Cancellation, Config, ModelError, Seed, Slot, State, Unit, WorkerId};
use prometheus_client::metrics::gauge::Gauge;

use super::metrics::Outcome;
use super::session::Session;
use super::states::Taken;
use crate::ledger::StateName;
use crate::protocol::{self, Run, from_worker, unit_ended};
use crate::wire::{failure_to_wire, report_to_wire};

/// How often a running unit says how far it is: often enough for a person to see it move.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// One more in a gauge, for as long as this lives.
struct Counted<'a>(&'a Gauge);

impl<'a> Counted<'a> {
    fn up(gauge: &'a Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Runs a unit and says what became of it.
pub(super) async fn run(session: Arc<Session>, run: Run, cancellation: Cancellation) {
    let number = run.order;
    let validation = run.unit.is_some_and(|unit| unit.validation);
    let metrics = &session.worker().metrics;
    let (how, outcome) = match attempt(&session, run, &cancellation).await {
        Ok(report) => {
            metrics.rows.inc_by(report.rows);
            metrics.compute.inc_by(Duration::from_nanos(report.computed_nanoseconds).as_secs_f64());
            (unit_ended::How::Report(report), Outcome::Completed)
        }
        Err(error) => {
            let outcome = if error.is_cancelled() { Outcome::Cancelled } else { Outcome::Failed };
            (unit_ended::How::Failure(failure_to_wire(&error)), outcome)
        }
    };
    metrics.unit(validation, outcome);
    session.forget(number);
    session
        .say(from_worker::What::UnitEnded(protocol::UnitEnded { order: number, how: Some(how) }));
}

async fn attempt(
    session: &Arc<Session>,
    run: Run,
    cancellation: &Cancellation,
) -> Result<protocol::Report, UnitError> {
    let number = run.order;
    let order = order(&run, session.worker_id(), cancellation)?;
    let Some(taking) = session.worker().slots.take().await else {
        return Err(ModelError::Cancelled.into());
    };
    let _running = Counted::up(&session.worker().metrics.units_running);
    let begun = Instant::now();
    let start = match run.state {
        None => None,
        Some(name) => Some(start_state(session, name.into(), run.sources, cancellation).await?),
    };
    let start_bytes = start.as_ref().map_or(0, |state: &State| state.bytes() as u64);
    let worker = Arc::clone(session);
    let (trial, version) = (order.unit.trial, order.version);
    let computed =
        taking.compute(move |slot| compute(&worker, number, &order, slot, start.as_ref())).await;
    let silent = || ModelError::other("running a unit", "its thread panicked outside the model");
    let (executed, rows) = computed.ok_or_else(silent)??;
    drop(taking);
    let mut report = UnitReport {
        metrics: executed.metrics,
        rows,
        version,
        state_bytes: start_bytes,
        occupied: begun.elapsed(),
        computed: executed.computed,
    };
    if let Some(state) = executed.state {
        report.version += 1;
        report.state_bytes = state.bytes() as u64;
        let name = StateName { trial, version: report.version, origin: number };
        if session.worker().states.put(session.number(), name, state) == Taken::TooLate {
            return Err(ModelError::Cancelled.into());
        }
    }
    report_to_wire(&report)
        .map_err(|nonsense| ModelError::other("reporting a unit", nonsense).into())
}

fn order(
    run: &Run,
    worker: WorkerId,
    cancellation: &Cancellation,
) -> Result<UnitOrder, ModelError> {
    let unit: Unit =
        run.unit.ok_or_else(|| ModelError::other("reading an order", "it names no unit"))?.into();
    let config: Config = serde_json::from_slice(&run.config)
        .map_err(|error| ModelError::other("reading the Config of an order", error))?;
    Ok(UnitOrder {
        unit,
        worker,
        config: Arc::new(config),
        seed: Seed(run.seed),
        version: run.version,
        cancellation: cancellation.clone(),
    })
}

async fn start_state(
    session: &Session,
    name: StateName,
    sources: Vec<String>,
    cancellation: &Cancellation,
) -> Result<State, UnitError> {
    let fetched = tokio::select! {
        fetched = session.take_in(name, sources) => fetched,
        () = cancellation.cancelled() => return Err(ModelError::Cancelled.into()),
    };
    let (trial, version) = (name.trial, name.version);
    fetched.map_err(|reason| UnitError::NoState { trial, version, reason })
}

fn compute(
    session: &Session,
    number: u64,
    order: &UnitOrder,
    slot: &Slot,
    start: Option<&State>,
) -> Result<(Executed, u64), UnitError> {
    let partition = order.unit.partition;
    let loaded = session.worker().jobs.current().and_then(|job| {
        let partition = job.partition(partition)?;
        Some((job, partition))
    });
    let (job, partition) = loaded.ok_or_else(|| {
        let reason = format!("{partition} is not in this worker's memory");
        ModelError::other("running a unit", reason)
    })?;
    let progress =
        Progress { session, number, rows: Cell::new(0), said: Cell::new(Instant::now()) };
    let report = |rows| progress.add(rows);
    let executed = execute(&*job.builder, slot, order, start, &*partition, &report)?;
    Ok((executed, partition.rows() as u64))
}

/// Counts a unit's rows and says so from time to time.
struct Progress<'a> {
    session: &'a Session,
    number: u64,
    rows: Cell<u64>,
    said: Cell<Instant>,
}

impl Progress<'_> {
    fn add(&self, rows: usize) {
        self.rows.set(self.rows.get() + rows as u64);
        let now = Instant::now();
        if now.duration_since(self.said.get()) >= PROGRESS_INTERVAL {
            self.said.set(now);
            let progress = protocol::Progress { order: self.number, rows: self.rows.get() };
            self.session.say(from_worker::What::Progress(progress));
        }
    }
}
