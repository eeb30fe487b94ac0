//! A driver without models, for the tests of searches.

use std::collections::BTreeMap;

use super::{Ask, Decision, Ending, EpochReport, Search};
use crate::config::Config;
use crate::id::TrialId;
use crate::seed::{Seed, SeededRng};

pub(super) fn report(trial: u64, epoch: u32, loss: f64) -> EpochReport {
    EpochReport::minimized(TrialId(trial), epoch, 81, loss)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Running,
    Paused,
    Over,
}

#[derive(Clone, Debug)]
struct Trial {
    config: Config,
    epoch: u32,
    status: Status,
}

/// Runs the trials of a search in a random order, and checks that it keeps its promises.
#[derive(Clone, Debug)]
pub(super) struct Simulation {
    places: usize,
    max_epochs: u32,
    /// How many of a hundred epochs end in a failure of the trial, or in a user's act.
    mishaps: u64,
    rng: SeededRng,
    loss: fn(&Config, TrialId, u32) -> f64,
    trials: BTreeMap<TrialId, Trial>,
    finished: bool,
    pub(super) log: Vec<String>,
}

impl Simulation {
    pub(super) fn new(
        places: usize,
        max_epochs: u32,
        loss: fn(&Config, TrialId, u32) -> f64,
    ) -> Self {
        Self {
            places,
            max_epochs,
            mishaps: 0,
            rng: Seed(places as u64).rng(),
            loss,
            trials: BTreeMap::new(),
            finished: false,
            log: Vec::new(),
        }
    }

    pub(super) fn in_order_of(mut self, seed: u64) -> Self {
        self.rng = Seed(seed).rng();
        self
    }

    pub(super) fn with_mishaps(mut self, percent: u64) -> Self {
        self.mishaps = percent;
        self
    }

    /// How many epochs each trial has completed, in the order of their start.
    pub(super) fn epochs(&self) -> Vec<u32> {
        self.trials.values().map(|trial| trial.epoch).collect()
    }

    pub(super) fn run(&mut self, search: &mut dyn Search) {
        for _ in 0..1_000_000 {
            if !self.step(search) {
                return;
            }
        }
        panic!("the search does not end");
    }

    /// One ask or one epoch; `false` if there is nothing left to do.
    pub(super) fn step(&mut self, search: &mut dyn Search) -> bool {
        let running = self.with_status(Status::Running);
        let room = running.len() < self.places && !self.finished;
        if room && !self.ask(search, running.is_empty()) {
            return true;
        }
        let running = self.with_status(Status::Running);
        if running.is_empty() {
            return false;
        }
        if room && self.rng.below(2) == 0 {
            // The next place is filled before or after the next result, as it comes.
            return true;
        }
        let trial = running[self.rng.below(running.len() as u64) as usize];
        if self.rng.below(100) < self.mishaps {
            self.mishap(search, trial);
        } else {
            self.epoch(search, trial);
        }
        true
    }

    fn with_status(&self, status: Status) -> Vec<TrialId> {
        let with = self.trials.iter().filter(|(_, trial)| trial.status == status);
        with.map(|(id, _)| *id).collect()
    }

    /// `true` if the place may stay empty.
    fn ask(&mut self, search: &mut dyn Search, idle: bool) -> bool {
        let next = TrialId(self.trials.len() as u64);
        match search.ask(next) {
            Ask::Start(config) => {
                self.log.push(format!("start {} {config}", next.0));
                self.trials.insert(next, Trial { config, epoch: 0, status: Status::Running });
            }
            Ask::Resume(trial) => {
                self.log.push(format!("resume {}", trial.0));
                self.change(trial, Status::Paused, Status::Running);
            }
            Ask::Stop(trial) => {
                self.log.push(format!("drop {}", trial.0));
                self.change(trial, Status::Paused, Status::Over);
                return false;
            }
            Ask::Wait => assert!(!idle, "the search waits for nothing"),
            Ask::Finished => self.finished = true,
        }
        true
    }

    fn change(&mut self, trial: TrialId, from: Status, to: Status) {
        let known = self.trials.get_mut(&trial).expect("a trial that was started");
        assert_eq!(known.status, from, "{trial}");
        known.status = to;
    }

    fn epoch(&mut self, search: &mut dyn Search, id: TrialId) {
        let trial = self.trials.get_mut(&id).unwrap();
        trial.epoch += 1;
        let (epoch, max_epochs) = (trial.epoch, self.max_epochs);
        let value = (self.loss)(&trial.config, id, epoch);
        let decision = search.tell(&EpochReport::minimized(id, epoch, max_epochs, value));
        self.log.push(format!("{id} epoch {epoch}: {decision:?}"));
        let trial = self.trials.get_mut(&id).unwrap();
        match decision {
            _ if epoch == max_epochs => trial.status = Status::Over,
            Decision::Continue => {}
            Decision::Pause => trial.status = Status::Paused,
            Decision::Stop => trial.status = Status::Over,
            Decision::Exploit { source, config } => {
                assert_ne!(source, id, "a trial takes over from another");
                trial.config = config;
                assert!(self.trials[&source].epoch > 0, "{source} has a State");
            }
        }
    }

    fn mishap(&mut self, search: &mut dyn Search, trial: TrialId) {
        let paused = self.with_status(Status::Paused);
        let kind = self.rng.below(4);
        self.log.push(format!("mishap {kind} {trial}"));
        match (kind, paused.first()) {
            (0, _) => {
                self.change(trial, Status::Running, Status::Over);
                search.ended(trial, Ending::Failed);
            }
            (1, Some(&paused)) => {
                self.change(paused, Status::Paused, Status::Over);
                search.ended(paused, Ending::Stopped);
            }
            // A user resumes a trial that the search paused.
            (2, Some(&paused)) => {
                self.change(paused, Status::Paused, Status::Running);
                search.resumed(paused);
            }
            _ => {
                let id = TrialId(self.trials.len() as u64);
                let config = self.trials[&trial].config.clone();
                search.added(id, &config);
                self.trials.insert(id, Trial { config, epoch: 0, status: Status::Running });
            }
        }
    }
}
