//! Experiments with tallies, and what they must come to.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cerebro_core::backend::{UnitReport, WorkerInfo};
use cerebro_core::data::Dataset;
use cerebro_core::experiment::{Experiment, ExperimentBuilder, ExperimentResult, TrialRecord};
use cerebro_core::observe::{Event, ObserveError, Observer};
use cerebro_core::schedule::Policy;
use cerebro_core::search::Grid;
use cerebro_core::testing::{self, Tally};
use cerebro_core::{
    Cancellation, Config, Model, ModelError, Objective, Pass, Slot, Split, TrialId, Unit,
};
use futures::executor::block_on;

pub const EPOCHS: u32 = 3;
pub const TRAIN: u32 = 4;
pub const VALIDATION: u32 = 2;

pub fn rates(count: u32) -> Vec<Config> {
    (0..count).map(|n| Config::new().with("rate", f64::from(n) / 10.0)).collect()
}

pub fn experiment(configs: Vec<Config>) -> ExperimentBuilder {
    Experiment::builder()
        .dataset(testing::dataset(TRAIN, VALIDATION))
        .model(|config: &Config, _: &Slot| -> Result<Box<dyn Model>, ModelError> {
            Ok(Box::new(Tally::new(config)?))
        })
        .search(Grid::of(configs).unwrap())
        .objective(Objective::maximize("accuracy"))
        .policy(Policy::Seeded)
        .epochs(EPOCHS)
        .seed(5)
}

/// Keeps every event.
#[derive(Clone, Default, Debug)]
pub struct Recorder(pub Arc<Mutex<Vec<Event>>>);

impl Observer for Recorder {
    fn observe(&mut self, _: Duration, event: &Event) -> Result<(), ObserveError> {
        self.0.lock().unwrap().push(event.clone());
        Ok(())
    }
}

impl Recorder {
    pub fn units(&self) -> Vec<(Unit, UnitReport)> {
        let events = self.0.lock().unwrap();
        let units = events.iter().filter_map(|event| match event {
            Event::UnitCompleted { unit, report, .. } => Some((*unit, report.clone())),
            _ => None,
        });
        units.collect()
    }

    /// The workers that joined after the start.
    pub fn joined(&self) -> Vec<WorkerInfo> {
        let events = self.0.lock().unwrap();
        let joined = events.iter().filter_map(|event| match event {
            Event::WorkerJoined { worker } => Some(worker.clone()),
            _ => None,
        });
        joined.collect()
    }

    pub fn count(&self, wanted: impl Fn(&Event) -> bool) -> usize {
        self.0.lock().unwrap().iter().filter(|event| wanted(event)).count()
    }
}

/// The tally of `trial` after its best epoch, made in one thread in the recorded order.
pub fn trained_alone(trial: &TrialRecord) -> Vec<u8> {
    let dataset = testing::dataset(TRAIN, VALIDATION);
    let mut model = Tally::new(&trial.config).unwrap();
    model.initialize(trial.seed).unwrap();
    for (epoch, record) in trial.history.iter().take(trial.best.unwrap() + 1).enumerate() {
        for &partition in &record.visit_order {
            let unit =
                Unit { trial: trial.id, epoch: epoch as u32, split: Split::Train, partition };
            let cancellation = Cancellation::new();
            let pass = Pass::new(unit, trial.seed, &cancellation, &|_| ());
            model.train(&*dataset.load(partition).unwrap(), &pass).unwrap();
        }
    }
    model.state().unwrap().to_vec()
}

/// Every trial completed, every unit once and only once, and every bit is what it would be had
/// nothing gone wrong: the visit order is that of `undisturbed`, and the State what one thread makes
/// in that order.
pub fn is_as_if_undisturbed(result: &ExperimentResult, recorder: &Recorder) {
    let units = recorder.units();
    let distinct: BTreeSet<Unit> = units.iter().map(|(unit, _)| *unit).collect();
    let trials = result.trials().count();
    assert_eq!(distinct.len(), units.len(), "no unit completes twice");
    assert_eq!(units.len(), trials * (EPOCHS * (TRAIN + VALIDATION)) as usize);
    assert_eq!(result.summary().completed, trials);
    for trial in result.trials() {
        assert_eq!(trial.history.len(), EPOCHS as usize);
        let state = block_on(result.state(trial.id)).unwrap().to_vec();
        // A State may be padded to be larger than the tally.
        assert_eq!(state[..16], trained_alone(trial), "{}", trial.id);
    }
    let undisturbed = undisturbed(trials as u32);
    for trial in result.trials() {
        let orders = |record: &TrialRecord| -> Vec<_> {
            record.history.iter().map(|epoch| epoch.visit_order.clone()).collect()
        };
        let expected = undisturbed.trial(trial.id).unwrap();
        assert_eq!(orders(trial), orders(expected), "a seeded order depends on nothing else");
    }
}

/// What a person reads at the end says how many workers were lost, and what was run again for it.
pub fn tells_of_losses(result: &ExperimentResult) {
    let (summary, text) = (result.summary(), result.summary().to_string());
    let faults = text.lines().find(|line| line.starts_with("faults")).expect("a line of its own");
    let lost = match summary.lost_workers {
        1 => "1 worker lost".to_owned(),
        count => format!("{count} workers lost"),
    };
    let repeated = format!("{} repeated", summary.repeated_units);
    assert!(faults.ends_with(&lost) && faults.contains(&repeated), "{text}");
}

/// The same experiment on the local backend.
pub fn undisturbed(trials: u32) -> ExperimentResult {
    let local = cerebro_backend_local::LocalBackend::builder().workers(2).build().unwrap();
    experiment(rates(trials)).build().unwrap().run_blocking(Arc::new(local)).unwrap()
}

/// The States of the first `trials` trials after their best epochs.
pub fn states(result: &ExperimentResult, trials: u64) -> Vec<Vec<u8>> {
    (0..trials).map(|id| block_on(result.state(TrialId(id))).unwrap().to_vec()).collect()
}
