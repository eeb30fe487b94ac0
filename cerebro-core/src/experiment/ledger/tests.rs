//! Random histories: the States that a resume or a takeover needs are in the store, always.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::experiment::{Command, Retention, Start};
use crate::search::{Ending, Population};
use crate::seed::SeededRng;
use crate::space::Space;

/// A ledger that is driven at random, and the checkpoints that are in its store.
struct History {
    ledger: Ledger,
    store: BTreeMap<TrialId, BTreeSet<u64>>,
    retention: Retention,
    most: usize,
    /// The most epochs that a trial has had before it ended.
    longest: usize,
    rng: SeededRng,
}

fn checkpoint(version: u64) -> Checkpoint {
    Checkpoint { version, path: version.to_string(), bytes: 1, digest: 0 }
}

impl History {
    fn new(seed: u64, retention: Retention, kept_models: usize) -> Self {
        let space = Space::builder().uniform("rate", 0.0, 1.0).build().unwrap();
        let search = Box::new(Population::new(&space, 6, ["rate"], Seed(seed)).unwrap());
        let objective = Objective::minimize("loss");
        let ledger = Ledger::new(search, objective, 5, Seed(seed), Order::Arrival, kept_models)
            .with_retention(retention);
        let rng = Seed(seed).derive("history", &[]).rng();
        Self { ledger, store: BTreeMap::new(), retention, most: 0, longest: 0, rng }
    }

    fn commit(&mut self, record: &Record) {
        self.ledger.apply(record);
        let written = match record {
            Record::Epoch { trial, checkpoint: Some(checkpoint), .. }
            | Record::TookOver { trial, checkpoint: Some(checkpoint), .. } => {
                Some((*trial, checkpoint.version))
            }
            _ => None,
        };
        if let Some((trial, version)) = written {
            self.store.entry(trial).or_default().insert(version);
        }
        for id in self.ledger.touched() {
            for gone in self.ledger.superseded(id) {
                let deleted = self.store.get_mut(&id).is_some_and(|all| all.remove(&gone.version));
                assert!(deleted, "a checkpoint is deleted once");
            }
        }
        self.check();
    }

    /// What a driver that is killed now needs when the experiment is resumed.
    fn check(&mut self) {
        let none = BTreeSet::new();
        for (id, trial) in &self.ledger.trials {
            let stored = self.store.get(id).unwrap_or(&none);
            let goes_on = !trial.record.status.is_final() && trial.version > 0;
            assert!(!goes_on || stored.contains(&trial.version), "{id} cannot go on");
            if let Some(takeover) = &trial.takeover {
                let source = self.store.get(&takeover.source).unwrap_or(&none);
                assert!(source.contains(&takeover.version), "{id} cannot take over");
            }
            let result = !trial.record.status.is_final() || self.ledger.kept.contains(id);
            if let Some(best) = trial.record.best_epoch().filter(|_| result) {
                assert!(stored.contains(&best.version), "the best State of {id} is gone");
            }
            let bound = self.retention.most_states(trial.epochs);
            assert!(stored.len() as u64 <= bound + trial.pinned.len() as u64, "{id}: {stored:?}");
            self.most = self.most.max(stored.len());
            if !trial.record.status.is_final() {
                self.longest = self.longest.max(trial.record.history.len());
            }
        }
    }

    fn pick(&mut self, wanted: impl Fn(&Trial) -> bool) -> Option<TrialId> {
        let fitting = self.ledger.trials.values().filter(|trial| wanted(trial));
        let ids: Vec<TrialId> = fitting.map(|trial| trial.record.id).collect();
        if ids.is_empty() { None } else { Some(ids[self.rng.below(ids.len() as u64) as usize]) }
    }

    fn step(&mut self) {
        match self.rng.below(12) {
            0..=2 if self.ledger.asking => {
                let next = self.ledger.next_id();
                let answer = self.ledger.search.ask(next);
                self.commit(&Record::Asked { next, answer });
            }
            3..=6 => self.complete_epoch(),
            7 | 8 => self.tell(),
            9 => self.take_over(),
            10 => self.command(),
            _ => {
                let running = |trial: &Trial| !trial.record.status.is_final();
                if let Some(trial) = self.pick(running).filter(|_| self.rng.below(4) == 0) {
                    let status = TrialStatus::Stopped;
                    self.commit(&Record::Ended { trial, status, ending: Ending::Stopped });
                }
            }
        }
    }

    fn complete_epoch(&mut self) {
        let trains = |trial: &Trial| {
            trial.record.status == TrialStatus::Running
                && !trial.has_outcome()
                && trial.takeover.is_none()
        };
        let Some(id) = self.pick(trains) else { return };
        let trial = &self.ledger.trials[&id];
        let version = trial.version + 4;
        let epoch = EpochRecord {
            epoch: trial.record.history.len() as u32 + 1,
            train: Metrics::new(),
            validation: Metrics::new(),
            value: self.rng.unit(),
            version,
            visit_order: Vec::new(),
        };
        self.commit(&Record::Epoch { trial: id, epoch, checkpoint: Some(checkpoint(version)) });
    }

    fn tell(&mut self) {
        let Some(trial) = self.ledger.next_outcome() else { return };
        let Some(report) = self.ledger.report(trial) else { return };
        let decision = self.ledger.search.tell(&report);
        self.commit(&Record::Told { trial, max_epochs: report.max_epochs, decision });
    }

    fn take_over(&mut self) {
        let Some(trial) = self.pick(|trial| trial.takeover.is_some()) else { return };
        let version = self.ledger.trials[&trial].version + 1;
        let checkpoint = Some(checkpoint(version));
        self.commit(&Record::TookOver { trial, version, checkpoint });
    }

    fn command(&mut self) {
        let Some(trial) = self.pick(|_| true) else { return };
        let start = [Start::Cold, Start::Latest, Start::Best][self.rng.below(3) as usize];
        let command = match self.rng.below(5) {
            0 => Command::PauseTrial { trial },
            1 | 2 => Command::ResumeTrial { trial },
            3 => Command::CloneTrial { trial, changes: Config::new(), start },
            _ => Command::ExtendEpochs { epochs: self.ledger.epochs() + 1 },
        };
        if self.ledger.check(&command).is_ok() {
            self.commit(&Record::Commanded { command });
        }
    }
}

proptest! {
    #[test]
    fn no_state_is_deleted_that_a_resume_a_takeover_or_the_result_needs(
        seed in any::<u64>(),
        (last, best, every) in (1_usize..4, 1_usize..4, 1_u32..6),
        kept_models in 0_usize..4,
    ) {
        let retention = Retention::new().last(last).best(best).every(every);
        let mut history = History::new(seed, retention, kept_models);
        for _ in 0..400 {
            history.step();
        }
        prop_assert!(history.ledger.trials.len() >= 6);
        // In a few histories every trial ends early.
        let expected = last.min(2).min(history.longest);
        prop_assert!(history.most >= expected, "States stay as they are told to");
    }
}
