//! Epochs: completed, made durable, counted, and what becomes of their trials.

use std::sync::Arc;

use futures::FutureExt;

use super::{Driver, Happening, chain};
use crate::backend::Backend;
use crate::experiment::trial::EpochRecord;
use crate::experiment::{ExperimentError, Interruption};
use crate::id::{PartitionId, TrialId};
use crate::metric::Metrics;
use crate::observe::{Event, TrialStatus};
use crate::search::Ending;
use crate::state::State;
use crate::store::{Archive, Checkpoint, Record, StoreError, Takeover};

impl Driver {
    /// All training units of the epoch are done: its State is final, and goes to the store while
    /// the trial is validated.
    pub(super) fn epoch_trained(&mut self, id: TrialId) {
        let Some(keeper) = self.durable.keeper() else { return };
        let version = self.ledger.trials[&id].version;
        let backend = Arc::clone(&self.backend);
        let writing = async move {
            let written = match backend.state(id, version).await {
                Ok(state) => keeper.write(id, version, state).await.map_err(Into::into),
                Err(error) => Err(error.into()),
            };
            Happening::CheckpointWritten(id, written)
        };
        self.pending.push(writing.boxed());
    }

    pub(super) fn checkpoint_written(
        &mut self,
        id: TrialId,
        written: Result<Checkpoint, ExperimentError>,
    ) -> Result<(), Interruption> {
        match written {
            Ok(checkpoint) => {
                self.state_sized(checkpoint.bytes);
                if let Some(trial) = self.ledger.trials.get_mut(&id) {
                    trial.current.checkpoint = Some(checkpoint);
                }
                self.count_epoch(id);
                Ok(())
            }
            Err(ExperimentError::Store(error)) => {
                // A store that closes has said why.
                while let Some(said) = self.durable.said() {
                    self.store_said(said)?;
                }
                Err(Interruption::Store(error))
            }
            // The State is gone from the backend, so the trial cannot go on either.
            Err(error) => self.fail_trial(id, format!("writing its State: {}", chain(&error))),
        }
    }

    /// All units of the epoch are done. The trial rests until the search was told.
    pub(super) fn epoch_completed(&mut self, id: TrialId) -> Result<(), Interruption> {
        self.scheduler.pause(id)?;
        // A trial that was taken up again has the orders of earlier epochs with the scheduler too.
        let orders = self.scheduler.visit_order(id).unwrap_or_default();
        let objective = &self.ledger.objective.metric;
        let Some(trial) = self.ledger.trials.get_mut(&id) else { return Ok(()) };
        let train = merged(&mut trial.current.train);
        let validation = merged(&mut trial.current.validation);
        let value = validation.value(objective).unwrap_or(f64::NAN);
        let epoch = trial.record.history.len() as u32 + 1;
        let visit_order = orders.into_iter().nth(epoch as usize - 1).unwrap_or_default();
        let version = trial.version;
        trial.current.finished =
            Some(EpochRecord { epoch, train, validation, value, version, visit_order });
        self.count_epoch(id);
        Ok(())
    }

    /// Records the epoch if it is completed and its State is durable.
    fn count_epoch(&mut self, id: TrialId) {
        let needs_checkpoint = self.durable.keeper().is_some();
        let Some(trial) = self.ledger.trials.get_mut(&id) else { return };
        if trial.record.status.is_final() || needs_checkpoint && trial.current.checkpoint.is_none()
        {
            return;
        }
        let Some(epoch) = trial.current.finished.take() else { return };
        let checkpoint = trial.current.checkpoint.take();
        let event = Event::EpochCompleted {
            trial: id,
            epoch: epoch.epoch,
            train: epoch.train.clone(),
            validation: epoch.validation.clone(),
            value: epoch.value,
            visit_order: epoch.visit_order.clone(),
        };
        self.commit(&Record::Epoch { trial: id, epoch, checkpoint });
        self.record_wall_time();
        self.tell(event);
    }

    /// Tells the search what came out, and asks it for more, until nothing is left to be said.
    pub(super) fn settle(&mut self) -> Result<(), Interruption> {
        loop {
            self.start_trials()?;
            match self.ledger.next_outcome() {
                Some(trial) => self.settle_outcome(trial)?,
                None => return Ok(()),
            }
        }
    }

    /// Tells the search what came out before the experiment was stopped; where the order is fixed,
    /// that is left to the next start, since between two outcomes the search is to be asked.
    pub(super) fn settle_last(&mut self) -> Result<(), Interruption> {
        if self.ledger.order_is_fixed() {
            return Ok(());
        }
        while let Some(trial) = self.ledger.next_outcome() {
            self.settle_outcome(trial)?;
        }
        Ok(())
    }

    fn settle_outcome(&mut self, id: TrialId) -> Result<(), Interruption> {
        let Some(report) = self.ledger.report(id) else {
            let failed = self.ledger.trials.get_mut(&id).and_then(|trial| trial.failed.take());
            let reason = failed.unwrap_or_else(|| "it gave no reason".to_owned());
            let status = TrialStatus::Failed { reason };
            let (ended, ending) = (status.clone(), Ending::Failed);
            self.commit(&Record::Ended { trial: id, status: ended, ending });
            self.tell(Event::TrialStatus { trial: id, status });
            return Ok(());
        };
        let decision = self.ledger.search.tell(&report);
        let max_epochs = report.max_epochs;
        let before = self.ledger.trials[&id].record.status.clone();
        self.commit(&Record::Told { trial: id, max_epochs, decision });
        let trial = &self.ledger.trials[&id];
        let status = trial.record.status.clone();
        if status == TrialStatus::Stopped {
            self.scheduler.stop(id)?;
        } else if !status.is_final() && trial.failed.is_none() && trial.takeover.is_some() {
            self.take_over(id);
        } else {
            self.let_go_on(id)?;
        }
        if status != before {
            self.tell(Event::TrialStatus { trial: id, status });
        }
        Ok(())
    }

    /// Gives the trial the State that the search decided on.
    pub(super) fn take_over(&mut self, id: TrialId) {
        let trial = &self.ledger.trials[&id];
        let Some(Takeover { source, version: from, .. }) = trial.takeover.clone() else { return };
        // A version of its own, since the trial's State of the present one may be its best.
        let version = trial.version + 1;
        let source_trial = self.ledger.trials.get(&source);
        let written = source_trial.and_then(|source| {
            source.checkpoints.iter().find(|checkpoint| checkpoint.version == from).cloned()
        });
        let written = written.zip(self.durable.archive());
        let (backend, keeper) = (Arc::clone(&self.backend), self.durable.keeper());
        let taking = async move {
            let taken = async {
                let state = found(&*backend, source, from, written).await?;
                backend.install(id, version, state.clone()).await?;
                Ok(match keeper {
                    Some(keeper) => Some(keeper.write(id, version, state).await?),
                    None => None,
                })
            };
            Happening::StateTaken(id, version, taken.await)
        };
        self.pending.push(taking.boxed());
    }

    pub(super) fn state_taken(
        &mut self,
        id: TrialId,
        version: u64,
        taken: Result<Option<Checkpoint>, ExperimentError>,
    ) -> Result<(), Interruption> {
        let takeover = self.ledger.trials.get(&id).and_then(|trial| trial.takeover.clone());
        let Some(Takeover { source, config, .. }) = takeover else { return Ok(()) };
        match taken {
            Ok(checkpoint) => {
                self.commit(&Record::TookOver { trial: id, version, checkpoint });
                // A clone has told where its weights are from when it started.
                if !self.ledger.trials[&id].record.history.is_empty() {
                    self.tell(Event::TrialExploited { trial: id, source, config });
                }
                self.let_go_on(id)
            }
            Err(ExperimentError::Store(
                error @ (StoreError::TakenOver { .. } | StoreError::Closed),
            )) => Err(Interruption::Store(error)),
            Err(error) => {
                let reason = format!("taking over the State of {source}: {}", chain(&error));
                self.fail_trial(id, reason)
            }
        }
    }
}

/// The State of a trial, from the backend or else from the store.
pub(super) async fn found(
    backend: &dyn Backend,
    trial: TrialId,
    version: u64,
    written: Option<(Checkpoint, Arc<dyn Archive>)>,
) -> Result<State, ExperimentError> {
    match (backend.state(trial, version).await, written) {
        (Ok(state), _) => Ok(state),
        (Err(_), Some((checkpoint, archive))) => Ok(archive.read(trial, &checkpoint).await?),
        (Err(error), None) => Err(error.into()),
    }
}

/// Merges the metrics of an epoch's units in the order of the partitions' ids, so that the sums'
/// rounding does not depend on which worker was first.
fn merged(units: &mut Vec<(PartitionId, Metrics)>) -> Metrics {
    // Taken with its memory, which a trial that waits does not need.
    let mut units = std::mem::take(units);
    units.sort_by_key(|(partition, _)| *partition);
    let mut merged = Metrics::new();
    for (_, metrics) in units {
        merged.merge(&metrics);
    }
    merged.settled()
}
