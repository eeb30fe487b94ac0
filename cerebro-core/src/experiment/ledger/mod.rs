//! [`Ledger`]: all that an experiment is, as a function of its records.
//!
//! Whatever changes an experiment is first a [`Record`]; applying the records in their order to a
//! fresh ledger with a fresh search gives the experiment as it was. The driver does so when it
//! resumes; while it runs, it applies each record, appends it to the journal, and sees to what
//! follows from it.

mod control;
mod states;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::command::Priority;
use super::result::best_first;
use super::retention::Retention;
use super::trial::{EpochRecord, InheritedState, TrialRecord};
use crate::config::Config;
use crate::id::{PartitionId, TrialId};
use crate::metric::{Metrics, Objective};
use crate::observe::TrialStatus;
use crate::search::{Ask, Decision, EpochReport, Search};
use crate::seed::Seed;
use crate::store::{Checkpoint, Record, StoreError, Takeover};

pub(super) use self::states::Needed;

/// In which order the search is told what comes out of trials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// As it comes.
    Arrival,
    /// By the epochs that trials have trained since the experiment began, had all of them taken
    /// equally long: it depends on no clock, so the search decides the same every time. What comes
    /// out early waits for its turn.
    Fixed,
}

/// A trial: its record, and what only the driver needs.
#[derive(Debug)]
pub(super) struct Trial {
    pub(super) record: TrialRecord,
    /// How many epochs it is to train.
    pub(super) epochs: u32,
    /// The version of the newest State.
    pub(super) version: u64,
    /// Of how many epochs the search has been told, and the version after the last of them.
    told: usize,
    told_version: u64,
    /// Why it cannot go on, until the search is told.
    pub(super) failed: Option<String>,
    /// The turn at which the search is told what comes out next.
    due: u64,
    /// What it is about to take over.
    pub(super) takeover: Option<Takeover>,
    /// Versions that another trial is about to take over.
    pinned: Vec<u64>,
    /// Its States in the store.
    pub(super) checkpoints: Vec<Checkpoint>,
    pub(super) current: CurrentEpoch,
    /// Whether the search paused it, and whether a person did.
    waits: bool,
    pub(super) held: bool,
    pub(super) priority: Priority,
}

/// What is known of an epoch that is under way, and of its State.
#[derive(Debug, Default)]
pub(super) struct CurrentEpoch {
    pub(super) state_bytes: u64,
    pub(super) train: Vec<(PartitionId, Metrics)>,
    pub(super) validation: Vec<(PartitionId, Metrics)>,
    /// The epoch's record, if all its units are done.
    pub(super) finished: Option<EpochRecord>,
    /// The State after the epoch, once it is in the store.
    pub(super) checkpoint: Option<Checkpoint>,
    /// Whether the State is on its way from the store.
    pub(super) awaits_state: bool,
}

impl Trial {
    pub(super) fn has_outcome(&self) -> bool {
        self.failed.is_some() || self.record.history.len() > self.told
    }

    /// Whether its next unit has to wait for something else than a worker.
    pub(super) fn rests(&self) -> bool {
        self.record.status != TrialStatus::Running
            || self.has_outcome()
            || self.takeover.is_some()
            || self.current.finished.is_some()
            || self.current.awaits_state
    }
}

#[derive(Debug)]
pub(super) struct Ledger {
    pub(super) search: Box<dyn Search>,
    pub(super) objective: Objective,
    /// How many epochs a trial trains at most.
    epochs: u32,
    seed: Seed,
    order: Order,
    kept_models: usize,
    retention: Retention,
    /// Boxed, since the nodes of the map are half empty: ids only grow.
    pub(super) trials: BTreeMap<TrialId, Box<Trial>>,
    /// Trials that train or wait for a worker, by turn.
    running: BTreeSet<(u64, TrialId)>,
    /// Trials with an outcome that the search was not told of yet, as they came.
    arrived: VecDeque<TrialId>,
    /// The turn of what the search was told last.
    now: u64,
    /// How many trials there are of each Config, by its digest.
    equal_configs: HashMap<u64, u64>,
    /// Ended trials whose States are kept, the best first.
    kept: Vec<TrialId>,
    /// Trials that may need fewer States than before.
    touched: Vec<TrialId>,
    /// Whether the search may have something to say; if not, only a result can change that.
    pub(super) asking: bool,
    /// Whether the search will start and resume nothing any more.
    pub(super) exhausted: bool,
    /// Whether a person paused everything.
    pub(super) paused: bool,
    /// How long the experiment had run when that was last recorded.
    pub(super) ran: Duration,
    /// Trials that had ended and go on, for the driver to see to.
    revived: Vec<TrialId>,
}

impl Ledger {
    pub(super) fn new(
        search: Box<dyn Search>,
        objective: Objective,
        epochs: u32,
        seed: Seed,
        order: Order,
        kept_models: usize,
    ) -> Self {
        Self {
            search,
            objective,
            epochs,
            seed,
            order,
            kept_models,
            retention: Retention::default(),
            trials: BTreeMap::new(),
            running: BTreeSet::new(),
            arrived: VecDeque::new(),
            now: 0,
            equal_configs: HashMap::new(),
            kept: Vec::new(),
            touched: Vec::new(),
            asking: true,
            exhausted: false,
            paused: false,
            ran: Duration::ZERO,
            revived: Vec::new(),
        }
    }

    pub(super) fn with_retention(mut self, retention: Retention) -> Self {
        self.retention = retention;
        self
    }

    /// How many trials train or wait for a worker.
    pub(super) fn active(&self) -> usize {
        self.running.len()
    }

    /// How many epochs a trial trains at most.
    pub(super) fn epochs(&self) -> u32 {
        self.search.max_epochs().map_or(self.epochs, |epochs| epochs.min(self.epochs))
    }

    pub(super) fn order_is_fixed(&self) -> bool {
        self.order == Order::Fixed
    }

    /// The trial whose outcome the search is to be told of now.
    pub(super) fn next_outcome(&self) -> Option<TrialId> {
        match self.order {
            Order::Arrival => self.arrived.front().copied(),
            Order::Fixed => {
                let (_, next) = self.running.first()?;
                self.trials[next].has_outcome().then_some(*next)
            }
        }
    }

    /// What the search is told of an outcome that is an epoch.
    pub(super) fn report(&self, id: TrialId) -> Option<EpochReport> {
        let trial = self.trials.get(&id)?;
        let epoch = trial.record.history.get(trial.told)?;
        Some(EpochReport {
            trial: id,
            epoch: epoch.epoch,
            max_epochs: self.epochs(),
            value: epoch.value,
            direction: self.objective.direction,
            metrics: epoch.validation.clone(),
        })
    }

    /// A trial cannot go on; the search is told in its turn.
    pub(super) fn fail(&mut self, id: TrialId, reason: String) {
        let Some(trial) = self.trials.get_mut(&id) else { return };
        if trial.failed.is_none() && !trial.record.status.is_final() {
            trial.failed = Some(reason);
            self.arrived.push_back(id);
        }
    }

    /// Takes in a record of an earlier run: asks and tells the search what it says.
    pub(super) fn replay(&mut self, number: u64, record: &Record) -> Result<(), StoreError> {
        let differs = |recorded: String, found: String| {
            Err(StoreError::SearchDiffers { record: number, recorded, found })
        };
        match record {
            Record::Asked { next, answer } => {
                let found = self.search.ask(*next);
                if found != *answer {
                    return differs(format!("{answer:?}"), format!("{found:?}"));
                }
            }
            Record::Told { trial, max_epochs, decision } => {
                let Some(report) = self.report(*trial) else {
                    return differs(format!("{decision:?}"), format!("nothing, of {trial}"));
                };
                let found = self.search.tell(&EpochReport { max_epochs: *max_epochs, ..report });
                if found != *decision {
                    return differs(format!("{decision:?}"), format!("{found:?}"));
                }
            }
            Record::Commanded { command } => {
                if let Err(error) = self.command_search(command) {
                    return differs(format!("that it could {command}"), format!("{error}"));
                }
            }
            _ => {}
        }
        self.apply(record);
        Ok(())
    }

    /// Takes in what happened.
    pub(super) fn apply(&mut self, record: &Record) {
        match record {
            Record::Asked { next, answer } => match answer {
                Ask::Start(config) => self.begin(*next, config),
                Ask::Resume(trial) => self.change_pause(*trial, |trial| trial.waits = false),
                Ask::Stop(trial) => self.end(*trial, TrialStatus::Stopped),
                Ask::Wait => self.asking = false,
                Ask::Finished => {
                    self.asking = false;
                    self.exhausted = true;
                }
            },
            Record::Epoch { trial, epoch, checkpoint } => {
                self.completed(*trial, epoch, checkpoint.as_ref());
            }
            Record::Told { trial, decision, .. } => self.told(*trial, decision),
            Record::TookOver { trial, version, checkpoint } => {
                self.took_over(*trial, *version, checkpoint.as_ref());
            }
            Record::Ended { trial, status, ending } => {
                self.search.ended(*trial, *ending);
                self.take_turn(*trial);
                self.end(*trial, status.clone());
            }
            Record::Ran { wall } => self.ran = *wall,
            Record::Closed => {}
            Record::Commanded { command } => self.obey(command),
        }
    }

    fn begin(&mut self, id: TrialId, config: &Config) {
        // The seed comes from the Config, not from the trial's number: so a trial's weights stay
        // the same when others are added or removed. Equal Configs are told apart by a count.
        let digest = config.digest();
        let same = self.equal_configs.entry(digest).or_default();
        let seed = self.seed.derive("trial", &[digest, *same]);
        *same += 1;
        let record = TrialRecord {
            id,
            config: Arc::new(config.clone()),
            seed,
            status: TrialStatus::Running,
            history: Vec::new(),
            best: None,
            parent: None,
            inherited: Vec::new(),
        };
        let due = self.now + 1;
        let trial = Trial {
            record,
            epochs: self.epochs(),
            version: 0,
            told: 0,
            told_version: 0,
            failed: None,
            due,
            takeover: None,
            pinned: Vec::new(),
            checkpoints: Vec::new(),
            current: CurrentEpoch::default(),
            waits: false,
            held: false,
            priority: Priority::default(),
        };
        self.trials.insert(id, Box::new(trial));
        self.running.insert((due, id));
    }

    /// Changes who lets a trial wait. It has a place among those that run, a new one when it goes
    /// on, while nobody does.
    fn change_pause(&mut self, id: TrialId, change: impl FnOnce(&mut Trial)) {
        let due = self.now + 1;
        let Some(trial) = self.trials.get_mut(&id) else { return };
        if trial.record.status.is_final() {
            return;
        }
        let waited = trial.waits || trial.held;
        change(trial);
        let waits = trial.waits || trial.held;
        if waits && !waited {
            trial.record.status = TrialStatus::Paused;
            self.running.remove(&(trial.due, id));
        } else if waited && !waits {
            trial.record.status = TrialStatus::Running;
            trial.due = due;
            self.running.insert((due, id));
        }
    }

    fn completed(&mut self, id: TrialId, epoch: &EpochRecord, checkpoint: Option<&Checkpoint>) {
        let Some(trial) = self.trials.get_mut(&id) else { return };
        let better = match trial.record.best_value() {
            Some(best) => self.objective.best_first(epoch.value, best).is_lt(),
            None => epoch.value.is_finite(),
        };
        if better {
            trial.record.best = Some(trial.record.history.len());
        }
        trial.version = epoch.version;
        push(&mut trial.record.history, epoch.clone());
        if let Some(checkpoint) = checkpoint {
            push(&mut trial.checkpoints, checkpoint.clone());
        }
        self.arrived.push_back(id);
        self.touched.push(id);
    }

    /// The search was told of an outcome of the trial.
    fn take_turn(&mut self, id: TrialId) {
        self.arrived.retain(|&other| other != id);
        self.asking = !self.exhausted;
        if let Some(trial) = self.trials.get_mut(&id) {
            self.now = self.now.max(trial.due);
            if self.running.remove(&(trial.due, id)) {
                trial.due = self.now + 1;
                self.running.insert((trial.due, id));
            }
        }
    }

    fn told(&mut self, id: TrialId, decision: &Decision) {
        self.decided(id, decision);
        // That it cannot go on, as with a damaged checkpoint, is an outcome of its own.
        if let Some(trial) = self.trials.get(&id)
            && trial.failed.is_some()
        {
            self.arrived.push_back(id);
        }
    }

    fn decided(&mut self, id: TrialId, decision: &Decision) {
        self.take_turn(id);
        let Some(trial) = self.trials.get_mut(&id) else { return };
        if let Some(epoch) = trial.record.history.get(trial.told) {
            trial.told_version = epoch.version;
            trial.told += 1;
        }
        self.touched.push(id);
        if trial.told as u32 >= trial.epochs {
            return self.end(id, TrialStatus::Completed);
        }
        match decision {
            Decision::Continue => {}
            Decision::Pause => self.change_pause(id, |trial| trial.waits = true),
            Decision::Stop => self.end(id, TrialStatus::Stopped),
            Decision::Exploit { source, config } => {
                let (source, config) = (*source, config.clone());
                let Some(from) = self.trials.get(&source) else { return };
                let version = from.told_version;
                self.take_over_from(id, Takeover { source, version, config });
            }
        }
    }

    /// The trial is about to take a State over, which is kept until it has it.
    fn take_over_from(&mut self, id: TrialId, takeover: Takeover) {
        let Some(from) = self.trials.get_mut(&takeover.source) else { return };
        from.pinned.push(takeover.version);
        if let Some(trial) = self.trials.get_mut(&id) {
            trial.takeover = Some(takeover);
        }
    }

    fn took_over(&mut self, id: TrialId, version: u64, checkpoint: Option<&Checkpoint>) {
        let source = self.trials.get(&id).and_then(|trial| trial.takeover.as_ref());
        let source_epoch = source.and_then(|takeover| {
            let history = &self.trials.get(&takeover.source)?.record.history;
            Some(history.iter().find(|epoch| epoch.version == takeover.version)?.epoch)
        });
        let Some(trial) = self.trials.get_mut(&id) else { return };
        let Some(takeover) = trial.takeover.take() else { return };
        let config = Arc::new(takeover.config.clone());
        let config_before = std::mem::replace(&mut trial.record.config, config);
        trial.record.inherited.push(InheritedState {
            epoch: trial.record.history.len() as u32,
            source: takeover.source,
            source_epoch,
            config_before,
        });
        trial.version = version;
        trial.told_version = version;
        trial.checkpoints.extend(checkpoint.cloned());
        self.touched.push(id);
        self.unpin(&takeover);
    }

    fn unpin(&mut self, takeover: &Takeover) {
        let Some(from) = self.trials.get_mut(&takeover.source) else { return };
        if let Some(index) = from.pinned.iter().position(|&pinned| pinned == takeover.version) {
            from.pinned.swap_remove(index);
        }
        self.touched.push(takeover.source);
    }

    /// Sets a final status and lets go of what is not worth keeping.
    fn end(&mut self, id: TrialId, status: TrialStatus) {
        let Some(trial) = self.trials.get_mut(&id) else { return };
        if trial.record.status.is_final() {
            return;
        }
        self.running.remove(&(trial.due, id));
        trial.record.status = status;
        trial.failed = None;
        trial.current = CurrentEpoch::default();
        let takeover = trial.takeover.take();
        if trial.record.best.is_some() {
            let (trials, objective) = (&self.trials, &self.objective);
            let better = |other: &TrialId| {
                best_first(objective, &trials[other].record, &trials[&id].record).is_lt()
            };
            self.kept.insert(self.kept.partition_point(better), id);
        }
        if self.kept.len() > self.kept_models {
            self.touched.extend(self.kept.pop());
        }
        self.touched.push(id);
        if let Some(takeover) = takeover {
            self.unpin(&takeover);
        }
    }
}

/// Pushes without room for more than a quarter that is not needed: most trials of a large experiment
/// have few epochs.
fn push<T>(values: &mut Vec<T>, value: T) {
    if values.len() == values.capacity() {
        values.reserve_exact(1 + values.len() / 4);
    }
    values.push(value);
}

#[cfg(test)]
mod tests;
