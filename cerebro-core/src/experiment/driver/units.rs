//! Units: started when the scheduler says so, and what became of them.

use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, future};
use tracing::{Instrument, Span};

use super::{Driver, Happening, Running, chain};
use crate::backend::{UnitError, UnitOrder, UnitReport};
use crate::cancel::Cancellation;
use crate::experiment::Interruption;
use crate::id::{Split, Unit, WorkerId};
use crate::metric::LOSS;
use crate::observe::Event;
use crate::schedule::{Assignment, Completion, Failure, Prefetch, Straggler};

/// A unit is tried so often before its trial is given up.
const ATTEMPTS: u32 = 2;

impl Driver {
    /// Starts every unit that can start.
    pub(super) fn start_units(&mut self) {
        let schedule = tracing::debug_span!("schedule");
        let assigned = schedule.in_scope(|| self.scheduler.assign(self.begun.elapsed()));
        if !assigned.is_empty() {
            self.told_held.clear();
        }
        for Assignment { unit, worker, hop_from, speculative } in assigned {
            let trial = &self.ledger.trials[&unit.trial];
            let cancellation = Cancellation::new();
            let order = UnitOrder {
                unit,
                worker,
                config: Arc::clone(&trial.record.config),
                seed: trial.record.seed,
                version: trial.version,
                cancellation: cancellation.clone(),
            };
            let span = span(unit, worker);
            if speculative {
                self.summary.second_attempts += 1;
                tracing::info!(parent: &span, "it takes long elsewhere and runs a second time");
            }
            if let Some(from) = hop_from {
                let bytes = trial.current.state_bytes;
                self.summary.hops += 1;
                self.summary.hop_bytes += bytes;
                tracing::debug!(parent: &span, %from, to = %worker, bytes, "the State hops");
            }
            self.tell(Event::UnitStarted {
                unit,
                worker,
                rows: self.rows[&unit.partition],
                hop_from,
            });
            let started = self.begun.elapsed();
            self.running
                .insert((unit, worker), Running { started, cancellation, superseded: false });
            let backend = Arc::clone(&self.backend);
            let run = async move { Happening::UnitEnded(unit, worker, backend.run(order).await) };
            let mut run = run.instrument(span).boxed();
            // Futures do nothing until they are polled: now the order leaves, before anything else
            // is seen to.
            let ended = (&mut run).now_or_never();
            self.pending.push(ended.map_or(run, |ended| future::ready(ended).boxed()));
        }
        self.watch_for_late_units();
        self.tell_few_trials();
        for Prefetch { trial, to, .. } in self.scheduler.prefetches() {
            let version = self.ledger.trials[&trial].version;
            if version > 0 {
                self.backend.prefetch(trial, version, to);
            }
        }
    }

    pub(super) fn unit_ended(
        &mut self,
        unit: Unit,
        worker: WorkerId,
        ended: Result<UnitReport, UnitError>,
    ) -> Result<(), Interruption> {
        if let Err(UnitError::WorkerLost { worker, reason }) = &ended {
            self.worker_lost(*worker, reason)?;
        }
        // A unit whose worker was lost meanwhile is open again: its late report is refused.
        let Some(Running { started, superseded, .. }) = self.running.remove(&(unit, worker)) else {
            return Ok(());
        };
        match ended {
            Ok(report) => match diverged(&report) {
                None => self.unit_completed(unit, worker, started, report),
                Some(reason) => self.unit_failed(unit, worker, started, &reason, false),
            },
            Err(error) if error.is_cancelled() => {
                self.scheduler.failed(unit, worker)?;
                if superseded {
                    self.tell(Event::UnitSuperseded { unit, worker });
                }
                Ok(())
            }
            Err(error) => {
                let retryable = error.is_retryable();
                self.unit_failed(unit, worker, started, &chain(&error), retryable)
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
        self.tell_stragglers();
        if completion == Completion::Superseded {
            self.tell(Event::UnitSuperseded { unit, worker });
            self.release_late(unit);
            return Ok(());
        }
        self.cancel_other_attempts(unit);
        let (computed, counter) = match unit.split {
            Split::Train => (&mut self.summary.training, &mut self.summary.train_units),
            Split::Validation => (&mut self.summary.validating, &mut self.summary.validation_units),
        };
        *computed += report.computed;
        *counter += 1;
        let metrics = report.metrics.clone();
        let (version, bytes) = (report.version, report.state_bytes);
        self.tell(Event::UnitCompleted { unit, worker, started, report });
        if completion == Completion::Discarded {
            self.release_late(unit);
            return Ok(());
        }
        let Some(trial) = self.ledger.trials.get_mut(&unit.trial) else { return Ok(()) };
        match unit.split {
            Split::Train => {
                trial.version = version;
                trial.current.state_bytes = bytes;
                trial.current.train.push((unit.partition, metrics));
                self.release(unit.trial);
            }
            Split::Validation => {
                let metric = &self.ledger.objective.metric;
                if metrics.value(metric).is_none() {
                    let reported = metrics.values().map(|(name, _)| name.to_owned()).collect();
                    let metric = metric.clone();
                    return Err(Interruption::UnknownMetric { metric, reported });
                }
                trial.current.validation.push((unit.partition, metrics));
            }
        }
        match completion {
            Completion::EpochTrained { .. } => {
                self.epoch_trained(unit.trial);
                Ok(())
            }
            Completion::EpochCompleted { .. } => self.epoch_completed(unit.trial),
            _ => Ok(()),
        }
    }

    /// Lets go of a State that was made too late to be wanted: its trial may make none after it that
    /// would be a reason to.
    fn release_late(&mut self, unit: Unit) {
        if unit.split == Split::Train {
            self.release(unit.trial);
        }
    }

    /// What a second attempt at a unit that is done would make is not wanted any more.
    fn cancel_other_attempts(&mut self, unit: Unit) {
        if self.experiment.speculation.is_some() {
            let others = self.running.iter_mut().filter(|((other, _), _)| *other == unit);
            for (_, running) in others {
                running.superseded = true;
                running.cancellation.cancel();
            }
        }
    }

    /// Tells of workers that turned out to be slower than the others.
    fn tell_stragglers(&mut self) {
        for Straggler { worker, factor } in self.scheduler.new_stragglers() {
            self.summary.slow_workers += 1;
            tracing::warn!(%worker, factor, "it is slower than the other workers");
            self.tell(Event::WorkerSlow { worker, factor });
        }
    }

    fn unit_failed(
        &mut self,
        unit: Unit,
        worker: WorkerId,
        started: Duration,
        error: &str,
        retryable: bool,
    ) -> Result<(), Interruption> {
        let failure = self.scheduler.failed(unit, worker)?;
        let open = match failure {
            Failure::Open { failures, .. } => Some(retryable && failures < ATTEMPTS),
            Failure::Discarded => None,
        };
        let retry = open == Some(true);
        self.tell(Event::UnitFailed { unit, worker, started, error: error.to_owned(), retry });
        if retry {
            self.summary.retried_units += 1;
        } else if open.is_some() {
            self.fail_trial(unit.trial, format!("{unit} on {worker}: {error}"))?;
        }
        Ok(())
    }
}

/// The span of a unit, from its order to its report.
fn span(unit: Unit, worker: WorkerId) -> Span {
    let Unit { trial, epoch, split, partition } = unit;
    tracing::info_span!("unit", %trial, epoch, %split, %partition, %worker)
}

/// Why a completed unit is of no use: its training loss is no number.
fn diverged(report: &UnitReport) -> Option<String> {
    let loss = report.metrics.value(LOSS)?;
    (!loss.is_finite()).then(|| {
        format!("the loss became {loss}; a smaller learning rate or gradient clipping may help")
    })
}
