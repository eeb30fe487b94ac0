//! Control: what people ask for, and how everything stands.

use std::sync::Arc;

use futures::FutureExt;

use super::epochs::found;
use super::{Driver, Happening, chain};
use crate::experiment::handle::Request;
use crate::experiment::{
    Answer, Command, ControlError, ExperimentError, ExperimentStatus, Interruption, TrialOverview,
};
use crate::id::TrialId;
use crate::observe::{Event, TrialStatus};
use crate::schedule::Policy;
use crate::search::Ending;
use crate::store::Record;

impl Driver {
    /// Sees to what was asked for already; whether there was anything.
    pub(super) fn take_requests(&mut self) -> Result<bool, Interruption> {
        let mut any = false;
        while let Ok(request) = self.experiment.requests.try_recv() {
            any = true;
            self.requested(request)?;
        }
        Ok(any)
    }

    pub(super) fn requested(&mut self, request: Request) -> Result<(), Interruption> {
        match request {
            Request::Stop => self.stop(),
            Request::Status(to) => {
                // Who asked may not care any more.
                let _ = to.send(self.status());
            }
            Request::Do(command, to) => {
                let answer = match self.admit(&command) {
                    Ok(()) => Ok(self.carry_out(&command)?),
                    Err(error) => Err(error),
                };
                self.durable.answer(to, answer);
            }
        }
        Ok(())
    }

    /// Whether a command can be carried out; if not, nothing has changed.
    fn admit(&mut self, command: &Command) -> Result<(), ControlError> {
        if self.stopping {
            return Err(ControlError::Over);
        }
        self.ledger.check(command)?;
        let starts = matches!(command, Command::AddTrial { .. } | Command::CloneTrial { .. });
        let extends =
            matches!(command, Command::ExtendEpochs { .. } | Command::ExtendTrials { .. });
        if (starts || extends) && matches!(self.experiment.policy, Policy::Replay(_)) {
            return Err(ControlError::Replay);
        }
        if starts {
            let config = self.ledger.new_config(command);
            let checked = self.experiment.model.check(&config);
            checked.map_err(|source| ControlError::Model { config, source })?;
        }
        Ok(self.ledger.command_search(command)?)
    }

    /// Records a command that was admitted, and sees to what follows from it.
    fn carry_out(&mut self, command: &Command) -> Result<Answer, Interruption> {
        tracing::info!("asked to {command}");
        let new = self.ledger.next_id();
        let before = command.trial().and_then(|id| self.status_of(id));
        self.commit(&Record::Commanded { command: command.clone() });
        self.tell(Event::Commanded { command: command.clone() });
        let answer = match *command {
            Command::PauseTrial { trial } => {
                self.scheduler.pause(trial)?;
                // Its place is free, and its States stay.
                self.tell_store_bound();
                self.changed(trial, before.as_ref())
            }
            Command::ResumeTrial { trial } => {
                self.let_go_on(trial)?;
                self.changed(trial, before.as_ref())
            }
            Command::StopTrial { trial } => {
                self.stop_trial(trial)?;
                self.changed(trial, before.as_ref())
            }
            Command::AddTrial { .. } | Command::CloneTrial { .. } => {
                let config = Arc::clone(&self.ledger.trials[&new].record.config);
                self.add_trial(new, &config)?;
                self.tell_store_bound();
                if self.ledger.trials[&new].takeover.is_some() {
                    self.take_over(new);
                }
                Answer::Started { trial: new }
            }
            Command::ExtendEpochs { .. } => {
                let continued = self.extend_epochs()?;
                self.tell_plan();
                Answer::Extended { continued }
            }
            Command::ExtendTrials { .. } | Command::Narrow { .. } => {
                self.tell_plan();
                Answer::Done
            }
            Command::SetPriority { trial, priority } => {
                self.scheduler.set_priority(trial, priority.level())?;
                Answer::Done
            }
            Command::PauseAll | Command::ResumeAll => Answer::Done,
        };
        Ok(answer)
    }

    fn status_of(&self, id: TrialId) -> Option<TrialStatus> {
        self.ledger.trials.get(&id).map(|trial| trial.record.status.clone())
    }

    /// How a trial stands after a command, which is told if it stood otherwise before.
    fn changed(&mut self, trial: TrialId, before: Option<&TrialStatus>) -> Answer {
        let status = self.ledger.trials[&trial].record.status.clone();
        if before != Some(&status) {
            self.tell(Event::TrialStatus { trial, status: status.clone() });
        }
        Answer::Trial { trial, status }
    }

    fn stop_trial(&mut self, trial: TrialId) -> Result<(), Interruption> {
        let (status, ending) = (TrialStatus::Stopped, Ending::Stopped);
        self.commit(&Record::Ended { trial, status, ending });
        self.scheduler.stop(trial)?;
        let running = self.running.iter().filter(|((unit, _), _)| unit.trial == trial);
        for (_, running) in running {
            running.cancellation.cancel();
        }
        Ok(())
    }

    /// Tells the scheduler that trials train longer, and has those go on that had ended.
    fn extend_epochs(&mut self) -> Result<Vec<TrialId>, Interruption> {
        let revived = self.ledger.revived();
        let trials = self.ledger.trials.values();
        let unfinished: Vec<(TrialId, u32)> = trials
            .filter(|trial| !trial.record.status.is_final())
            .map(|trial| (trial.record.id, trial.epochs))
            .collect();
        for (id, epochs) in unfinished {
            if self.scheduler.visit_order(id).is_some() {
                self.scheduler.set_epochs(id, epochs)?;
            } else {
                // It had ended in an earlier process.
                let spec = self.spec_of(id);
                self.scheduler.add_trial(&spec)?;
            }
        }
        for &id in &revived {
            self.scheduler.pause(id)?;
            self.bring_state(id);
            self.tell(Event::TrialStatus { trial: id, status: TrialStatus::Running });
        }
        Ok(revived)
    }

    /// Has the backend hold the State that a trial goes on from.
    fn bring_state(&mut self, id: TrialId) {
        let Some(trial) = self.ledger.trials.get_mut(&id) else { return };
        trial.current.awaits_state = true;
        let version = trial.version;
        let written = trial.checkpoints.iter().find(|written| written.version == version).cloned();
        let written = written.zip(self.durable.archive());
        let backend = Arc::clone(&self.backend);
        let bringing = async move {
            let brought = async {
                let state = found(&*backend, id, version, written).await?;
                let bytes = state.bytes() as u64;
                backend.install(id, version, state).await?;
                Ok(bytes)
            };
            Happening::StateBrought(id, brought.await)
        };
        self.pending.push(bringing.boxed());
    }

    pub(super) fn state_brought(
        &mut self,
        id: TrialId,
        brought: Result<u64, ExperimentError>,
    ) -> Result<(), Interruption> {
        let Some(trial) = self.ledger.trials.get_mut(&id) else { return Ok(()) };
        if trial.record.status.is_final() {
            return Ok(()); // Stopped meanwhile.
        }
        trial.current.awaits_state = false;
        match brought {
            Ok(bytes) => {
                trial.current.state_bytes = bytes;
                self.let_go_on(id)
            }
            Err(error) => {
                self.fail_trial(id, format!("taking its last State up again: {}", chain(&error)))
            }
        }
    }

    fn tell_plan(&mut self) {
        let (epochs, search) = (self.ledger.epochs(), &self.ledger.search);
        let (trials, planned_epochs) = (search.planned(), search.planned_epochs());
        self.tell(Event::PlanChanged { epochs, trials, planned_epochs });
        self.tell_store_bound();
    }

    fn status(&self) -> ExperimentStatus {
        let overview = |trial: &crate::experiment::ledger::Trial| {
            let record = &trial.record;
            let last = record.history.last().map(|epoch| epoch.value);
            TrialOverview {
                id: record.id,
                config: Arc::clone(&record.config),
                parent: record.parent,
                status: record.status.clone(),
                held: trial.held,
                priority: trial.priority,
                completed_epochs: record.history.len() as u32,
                epochs: trial.epochs,
                latest: last.filter(|value| value.is_finite()),
                best: record.best_epoch().map(|epoch| (epoch.value, epoch.epoch)),
            }
        };
        ExperimentStatus {
            name: self.experiment.name.clone(),
            objective: self.ledger.objective.clone(),
            at: self.begun.elapsed(),
            epochs: self.ledger.epochs(),
            planned: self.ledger.search.planned(),
            paused: self.ledger.paused,
            store_trouble: self.durable.trouble(),
            workers: self.workers.len(),
            slots: self.workers.values().sum(),
            running_units: self.running.len(),
            trials: self.ledger.trials.values().map(|trial| overview(trial)).collect(),
        }
    }
}
