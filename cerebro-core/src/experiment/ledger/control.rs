//! What a person may ask, and what it does to the [`Ledger`].

use std::sync::Arc;

use super::{Ledger, Trial, TrialRecord};
use crate::config::Config;
use crate::experiment::command::{Command, ControlError, Start};
use crate::id::TrialId;
use crate::observe::TrialStatus;
use crate::search::SearchError;
use crate::space::Space;
use crate::store::Takeover;

impl Ledger {
    /// Whether the command can be carried out, as far as it is for the ledger to say.
    pub(in crate::experiment) fn check(&self, command: &Command) -> Result<(), ControlError> {
        if let Some(trial) = command.trial() {
            let unknown = || ControlError::UnknownTrial { trial, trials: self.trials.len() };
            let status = &self.trials.get(&trial).ok_or_else(unknown)?.record.status;
            if status.is_final() && !matches!(command, Command::CloneTrial { .. }) {
                return Err(ControlError::Ended { trial, status: status.clone() });
            }
        }
        match command {
            Command::CloneTrial { trial, start, .. } => {
                self.check_config(&self.new_config(command))?;
                self.start_version(*trial, *start).map(|_| ())
            }
            Command::AddTrial { config } => self.check_config(config),
            Command::ExtendEpochs { epochs } => self.check_epochs(*epochs),
            Command::Narrow { space } => self.check_space(space),
            _ => Ok(()),
        }
    }

    /// Has the search do what a command asks of it; an error if it cannot, and then it has not
    /// changed.
    pub(in crate::experiment) fn command_search(
        &mut self,
        command: &Command,
    ) -> Result<(), SearchError> {
        match command {
            Command::ExtendTrials { trials } => self.search.extend(*trials),
            Command::Narrow { space } => self.search.narrow(space),
            _ => Ok(()),
        }
    }

    /// The Config of the trial that a command starts.
    pub(in crate::experiment) fn new_config(&self, command: &Command) -> Config {
        match command {
            Command::AddTrial { config } => config.clone(),
            Command::CloneTrial { trial, changes, start } => {
                let config = |record: &TrialRecord| match (start, record.history.last()) {
                    (Start::Best, _) => Arc::clone(record.best_config()),
                    // That of the State, which may be of before the trial took over another's.
                    (Start::Latest, Some(last)) => Arc::clone(record.config_of(last.epoch)),
                    _ => Arc::clone(&record.config),
                };
                let source = self.trials.get(trial).map(|source| config(&source.record));
                self.changed(&source.unwrap_or_default(), changes)
            }
            _ => Config::new(),
        }
    }

    /// The id of the next trial.
    pub(in crate::experiment) fn next_id(&self) -> TrialId {
        TrialId(self.trials.len() as u64)
    }

    /// Trials that had ended and go on since this was last called.
    pub(in crate::experiment) fn revived(&mut self) -> Vec<TrialId> {
        std::mem::take(&mut self.revived)
    }

    /// The trials that wait since a person paused them.
    pub(in crate::experiment) fn held_trials(&self) -> Vec<TrialId> {
        let held =
            self.trials.values().filter(|trial| trial.held && !trial.record.status.is_final());
        held.map(|trial| trial.record.id).collect()
    }

    /// Takes in what a person asked for.
    pub(super) fn obey(&mut self, command: &Command) {
        match command {
            Command::PauseTrial { trial } => self.change_pause(*trial, |trial| trial.held = true),
            Command::ResumeTrial { trial } => self.resume(*trial),
            // Its end is a record of its own, as any other trial's.
            Command::StopTrial { .. } => {}
            Command::PauseAll => self.paused = true,
            Command::ResumeAll => self.paused = false,
            Command::CloneTrial { trial, start, .. } => {
                let (id, config) = (self.next_id(), self.new_config(command));
                let version = self.start_version(*trial, *start).ok().flatten();
                self.begin(id, &config);
                if let Some(new) = self.trials.get_mut(&id) {
                    new.record.parent = Some(*trial);
                }
                if let Some(version) = version {
                    self.take_over_from(
                        id,
                        Takeover { source: *trial, version, config: config.clone() },
                    );
                }
                self.search.added(id, &config);
                self.asking = !self.exhausted;
            }
            Command::AddTrial { config } => {
                let id = self.next_id();
                self.begin(id, config);
                self.search.added(id, config);
                self.asking = !self.exhausted;
            }
            Command::ExtendEpochs { epochs } => self.extend_epochs(*epochs),
            Command::ExtendTrials { .. } => {
                self.exhausted = false;
                self.asking = true;
            }
            Command::Narrow { .. } => self.asking = !self.exhausted,
            Command::SetPriority { trial, priority } => {
                if let Some(trial) = self.trials.get_mut(trial) {
                    trial.priority = *priority;
                }
            }
        }
    }

    fn resume(&mut self, id: TrialId) {
        let Some(trial) = self.trials.get(&id) else { return };
        if trial.held {
            self.change_pause(id, |trial| trial.held = false);
        } else if trial.waits {
            self.search.resumed(id);
            self.change_pause(id, |trial| trial.waits = false);
            self.asking = !self.exhausted;
        }
    }

    fn extend_epochs(&mut self, epochs: u32) {
        self.epochs = epochs;
        let epochs = self.epochs();
        let due = self.now + 1;
        let goes_on = |trial: &Trial| {
            let has_ended = trial.record.status == TrialStatus::Completed && trial.epochs < epochs;
            (has_ended && self.can_go_on(trial.record.id)).then_some(trial.record.id)
        };
        let revived: Vec<TrialId> =
            self.trials.values().filter_map(|trial| goes_on(trial)).collect();
        for id in &revived {
            self.kept.retain(|other| other != id);
            self.running.insert((due, *id));
            if let Some(trial) = self.trials.get_mut(id) {
                trial.record.status = TrialStatus::Running;
                trial.due = due;
            }
        }
        for trial in self.trials.values_mut().filter(|trial| !trial.record.status.is_final()) {
            trial.epochs = epochs;
        }
        self.revived = revived;
        self.asking = !self.exhausted;
    }

    /// Whether the States are kept that a trial needs to go on: its last one and its best.
    fn can_go_on(&self, id: TrialId) -> bool {
        let record = &self.trials[&id].record;
        let needed = self.needed(id);
        let best = record.best_epoch().is_none_or(|epoch| needed.contains(epoch.version));
        best && record.history.last().is_some_and(|epoch| needed.contains(epoch.version))
    }

    /// The version of the State that a clone starts from, if it starts from one.
    fn start_version(&self, id: TrialId, start: Start) -> Result<Option<u64>, ControlError> {
        let refused = |reason, remedy| Err(ControlError::NoState { trial: id, reason, remedy });
        let record = &self.trials[&id].record;
        let epoch = match start {
            Start::Cold => return Ok(None),
            Start::Latest => record.history.last(),
            Start::Best => record.best_epoch(),
        };
        match epoch {
            None if record.status.is_final() => {
                refused("it has completed no epoch with a finite value", "clone a trial that has")
            }
            None => refused(
                "it has not completed an epoch with a finite value yet",
                "wait until it has",
            ),
            Some(epoch) if self.needed(id).contains(epoch.version) => Ok(Some(epoch.version)),
            Some(_) => refused(
                "the State after that epoch was not kept",
                "have those of more trials kept from the beginning: `ExperimentBuilder::keep_models`, \
                 `keep_models` in an experiment's file",
            ),
        }
    }

    /// A Config with changes, without what has no effect any more.
    fn changed(&self, config: &Config, changes: &Config) -> Config {
        let mut changed = config.clone();
        for (name, value) in changes.iter() {
            changed.set(name, value.clone());
        }
        let Some(space) = self.search.space() else { return changed };
        let mut active = Config::new();
        for (name, value) in changed.iter() {
            let inactive = space.parameter(name).is_some_and(|known| !known.is_active(&changed));
            if !inactive || changes.get(name).is_some() {
                active.set(name, value.clone());
            }
        }
        active
    }

    fn check_config(&self, config: &Config) -> Result<(), ControlError> {
        match self.search.space().map(|space| space.check(config)) {
            Some(Err(source)) => Err(ControlError::Outside { config: config.clone(), source }),
            _ => Ok(()),
        }
    }

    fn check_epochs(&self, asked: u32) -> Result<(), ControlError> {
        let present = self.epochs;
        if asked < present {
            return Err(ControlError::FewerEpochs { asked, present });
        }
        match self.search.max_epochs() {
            Some(limit) if limit <= present && asked > present => {
                Err(ControlError::LimitedBySearch { asked, limit })
            }
            _ => Ok(()),
        }
    }

    /// The model needs the hyperparameters that it had, and knows no others.
    fn check_space(&self, space: &Space) -> Result<(), ControlError> {
        let Some(present) = self.search.space() else { return Ok(()) };
        let lacks = |a: &Space, b: &Space| {
            let mut names = a.parameters().iter().map(|parameter| parameter.name.clone());
            names.find(|name| b.parameter(name).is_none())
        };
        let difference = match (lacks(space, present), lacks(present, space)) {
            (Some(new), _) => format!("`{new}` is new"),
            (None, Some(missing)) => format!("`{missing}` is missing"),
            (None, None) => return Ok(()),
        };
        Err(ControlError::OtherSpace { difference })
    }
}
