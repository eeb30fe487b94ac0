//! Trials: started when the search says so, ended, and their States kept or let go.

use std::sync::Arc;

use futures::FutureExt;

use super::{Driver, Happening, Trial, chain};
use crate::backend::BackendError;
use crate::config::Config;
use crate::experiment::Interruption;
use crate::experiment::result::best_first;
use crate::experiment::trial::{EpochRecord, TrialRecord};
use crate::id::{PartitionId, TrialId};
use crate::metric::Metrics;
use crate::observe::{Event, TrialStatus};
use crate::schedule::{Next, TrialSpec};
use crate::search::{Ask, Decision, Ending, EpochReport};

impl Driver {
    /// Asks the search for trials as long as there is room.
    pub(super) fn start_trials(&mut self) -> Result<(), Interruption> {
        let slots: usize = self.workers.values().sum();
        let room = self.experiment.concurrency.unwrap_or((4 * slots).max(16));
        while self.asking && self.active < room {
            let next = TrialId(self.trials.len() as u64);
            match self.experiment.search.ask(next) {
                Ask::Start(config) => self.add_trial(next, &config)?,
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
    pub(super) fn epochs(&self) -> u32 {
        let searched = self.experiment.search.max_epochs();
        searched.map_or(self.experiment.epochs, |epochs| epochs.min(self.experiment.epochs))
    }

    fn add_trial(&mut self, id: TrialId, config: &Config) -> Result<(), Interruption> {
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
        if let Err(error) = self.experiment.model.check(config) {
            self.experiment.search.ended(id, Ending::Failed);
            self.end_trial(id, TrialStatus::Failed { reason: chain(&error) });
            return Ok(());
        }
        let mut spec = TrialSpec::new(id, self.epochs(), seed);
        spec.cost_per_row = self.experiment.model.cost_per_row(config);
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
    pub(super) fn end_trial(&mut self, id: TrialId, status: TrialStatus) {
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
        let too_many = self.kept.len() > self.experiment.kept_models;
        let dropped = if too_many { self.kept.pop() } else { None };
        self.release(id);
        if let Some(dropped) = dropped.filter(|&dropped| dropped != id) {
            self.release(dropped);
        }
        self.tell(&Event::TrialStatus { trial: id, status });
    }

    /// Tells the backend which States of a trial are still needed.
    pub(super) fn release(&mut self, id: TrialId) {
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

    pub(super) fn state_taken(
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

    pub(super) fn epoch_completed(&mut self, id: TrialId, next: Next) -> Result<(), Interruption> {
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
                self.exploit(id, source, config)?;
            }
        }
        Ok(())
    }
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
