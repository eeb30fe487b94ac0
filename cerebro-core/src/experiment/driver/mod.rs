//! The driver: the event loop of an experiment.

mod alarm;
mod bound;
mod control;
mod durable;
mod epochs;
mod finish;
mod start;
mod trials;
mod units;
mod wall;
mod workers;

use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures::future::{BoxFuture, poll_fn};
use futures::stream::{BoxStream, FuturesUnordered};
use futures::{FutureExt, StreamExt};

use self::alarm::Alarm;
use self::durable::Durable;
use self::wall::WallTime;
use super::builder::Setup;
use super::handle::Request;
use super::ledger::Ledger;
use super::result::ExperimentResult;
use super::{ExperimentError, Interruption};
use crate::backend::{Backend, BackendError, UnitError, UnitReport, WorkerEvent};
use crate::cancel::Cancellation;
use crate::id::{PartitionId, TrialId, Unit, WorkerId};
use crate::observe::{Event, Observer, Summary};
use crate::schedule::Scheduler;
use crate::store::{Checkpoint, Record, Said};

/// What the driver waits for.
enum Happening {
    UnitEnded(Unit, WorkerId, Result<UnitReport, UnitError>),
    /// The State after an epoch is in the store, or cannot be put there.
    CheckpointWritten(TrialId, Result<Checkpoint, ExperimentError>),
    /// A trial has the State of another, or cannot have it.
    StateTaken(TrialId, u64, Result<Option<Checkpoint>, ExperimentError>),
    Released,
    HoldersAwaited(Result<(), BackendError>),
    Worker(WorkerEvent),
    Store(Said),
    /// The State that a trial goes on from is with the backend again, in so many bytes.
    StateBrought(TrialId, Result<u64, ExperimentError>),
    Request(Request),
    /// Nobody can control the experiment any more.
    HandlesGone,
    WallTimeOver,
    /// A unit may have taken too long.
    Alarm,
}

/// A unit on a worker.
struct Running {
    started: Duration,
    cancellation: Cancellation,
    /// Whether another attempt at the same unit was faster.
    superseded: bool,
}

pub(super) struct Driver {
    experiment: Setup,
    backend: Arc<dyn Backend>,
    scheduler: Scheduler,
    ledger: Ledger,
    durable: Durable,
    rows: HashMap<PartitionId, u64>,
    running: HashMap<(Unit, WorkerId), Running>,
    pending: FuturesUnordered<BoxFuture<'static, Happening>>,
    worker_events: BoxStream<'static, WorkerEvent>,
    /// The workers that are there, and their slots.
    workers: HashMap<WorkerId, usize>,
    /// Set while nothing can run until the backend gives workers.
    awaiting_holders: Option<BoxFuture<'static, Happening>>,
    /// How often each unit was lost with its worker.
    losses: HashMap<Unit, u32>,
    /// How many troubles workers have told of.
    troubles: usize,
    /// Whether somebody can control the experiment.
    controlled: bool,
    stopping: bool,
    /// The limit on the wall time, if there is one.
    wall: Option<WallTime>,
    /// Rings when a unit has taken too long.
    alarm: Alarm,
    /// Until when slot time without units was counted.
    counted: Duration,
    /// The paused trials that it was told all waits for.
    told_held: Vec<TrialId>,
    /// Whether it was told that there are fewer trials than slots.
    few_trials: bool,
    /// The size of the largest State that is known, in bytes.
    largest_state: u64,
    /// The bound of the store as it was told last: States, and bytes of each.
    told_bound: (u64, u64),
    begun: Instant,
    summary: Summary,
}

impl Driver {
    /// Runs until there is nothing more to do.
    pub(super) async fn run(mut self) -> Result<ExperimentResult, ExperimentError> {
        let ended = self.work().await;
        // Trials that the search left paused do not make an experiment unfinished.
        let finished = ended.is_ok() && !self.stopping;
        self.drain().await;
        let result = self.finish(finished);
        match ended {
            Ok(()) => Ok(result),
            Err(cause) => Err(ExperimentError::Interrupted { cause, result: Box::new(result) }),
        }
    }

    async fn work(&mut self) -> Result<(), Interruption> {
        loop {
            self.take_requests()?;
            // While the store cannot take anything in, nothing new begins.
            if !self.stopping && !self.ledger.paused && !self.durable.is_in_trouble() {
                self.settle()?;
                self.start_units();
            }
            self.tell_observers();
            if self.stopping && self.durable.is_in_trouble() {
                return Ok(());
            }
            let idle =
                self.running.is_empty() && self.pending.is_empty() && self.durable.is_settled();
            if idle
                && (self.stopping || self.awaiting_holders.is_none())
                && matches!(self.standstill()?, workers::Standstill::End)
            {
                // Whoever heard just now that all is done may want more.
                if !self.stopping && self.take_requests()? {
                    continue;
                }
                return Ok(());
            }
            let happening = self.next().await;
            self.count_idle_slots();
            self.handle(happening)?;
        }
    }

    /// Lets nothing new begin, and what runs end at its next batch boundary.
    fn stop(&mut self) {
        self.stopping = true;
        for running in self.running.values() {
            running.cancellation.cancel();
        }
    }

    /// Lets what still runs come to its end, at batch boundaries, and takes its results.
    async fn drain(&mut self) {
        self.stop();
        self.awaiting_holders = None;
        self.record_wall_time();
        loop {
            if self.durable.is_in_trouble() {
                self.durable.give_up();
            }
            if self.pending.is_empty() && self.durable.is_settled() {
                return;
            }
            let happening = self.next().await;
            // What is wrong was said already; the rest of the results still counts.
            let _ = self.handle(happening);
            let _ = self.settle_last();
            self.tell_observers();
        }
    }

    async fn next(&mut self) -> Happening {
        poll_fn(|context| {
            if self.controlled
                && let Poll::Ready(request) = self.experiment.requests.poll_next_unpin(context)
            {
                return Poll::Ready(request.map_or(Happening::HandlesGone, Happening::Request));
            }
            if let Some(wall) = &mut self.wall
                && wall.poll_over(context).is_ready()
            {
                return Poll::Ready(Happening::WallTimeOver);
            }
            if self.alarm.poll_ring(context).is_ready() {
                return Poll::Ready(Happening::Alarm);
            }
            if let Poll::Ready(said) = self.durable.poll_said(context) {
                return Poll::Ready(Happening::Store(said));
            }
            if let Poll::Ready(Some(event)) = self.worker_events.poll_next_unpin(context) {
                return Poll::Ready(Happening::Worker(event));
            }
            if let Poll::Ready(Some(happening)) = self.pending.poll_next_unpin(context) {
                return Poll::Ready(happening);
            }
            // Last: a worker must not come back before it is known to be lost.
            match &mut self.awaiting_holders {
                Some(awaiting) => awaiting.poll_unpin(context),
                // Whatever comes next wakes this task.
                None => Poll::Pending,
            }
        })
        .await
    }

    fn handle(&mut self, happening: Happening) -> Result<(), Interruption> {
        match happening {
            Happening::UnitEnded(unit, worker, ended) => self.unit_ended(unit, worker, ended)?,
            Happening::CheckpointWritten(trial, written) => {
                self.checkpoint_written(trial, written)?;
            }
            Happening::StateTaken(trial, version, taken) => {
                self.state_taken(trial, version, taken)?;
            }
            // After an alarm the loop starts what is to start.
            Happening::Released | Happening::Alarm => {}
            Happening::HoldersAwaited(awaited) => self.holders_awaited(awaited)?,
            Happening::Worker(event) => self.worker_event(event)?,
            Happening::Store(said) => self.store_said(said)?,
            Happening::StateBrought(trial, brought) => self.state_brought(trial, brought)?,
            Happening::Request(request) => self.requested(request)?,
            Happening::HandlesGone => self.controlled = false,
            Happening::WallTimeOver => self.wall_time_over(),
        }
        Ok(())
    }

    /// Takes in a record and keeps it. What follows from it is for the caller to see to, but for the
    /// States that are not needed any more.
    fn commit(&mut self, record: &Record) {
        self.ledger.apply(record);
        self.durable.append(record);
        for id in self.ledger.touched() {
            self.release(id);
        }
    }

    /// Notes an event for the observers. They hear of it once workers have their next units, so that
    /// nothing that an observer does keeps a worker waiting, and once everything that was committed
    /// before is durable.
    fn tell(&mut self, event: Event) {
        self.durable.hold(self.begun.elapsed(), event);
    }

    /// Tells every observer at once.
    fn tell_now(&mut self, event: &Event) {
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
