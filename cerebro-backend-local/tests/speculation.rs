//! Units that take too long run a second time elsewhere, and the first result counts.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cerebro_backend_local::LocalBackend;
use cerebro_core::data::Partition;
use cerebro_core::experiment::{Experiment, ExperimentBuilder, ExperimentResult};
use cerebro_core::observe::Event;
use cerebro_core::schedule::Policy;
use cerebro_core::search::Grid;
use cerebro_core::testing::{self, Tally};
use cerebro_core::{
    Config, Metrics, Model, ModelError, Objective, PartitionId, Pass, Seed, Slot, Split, State,
    TrialId, Unit,
};
use futures::executor::block_on;

/// A tally that comes to no end in one unit, the first time.
struct Hanging {
    tally: Tally,
    hangs: Arc<AtomicBool>,
}

impl Model for Hanging {
    fn initialize(&mut self, seed: Seed) -> Result<(), ModelError> {
        self.tally.initialize(seed)
    }

    fn restore(&mut self, state: &State) -> Result<(), ModelError> {
        self.tally.restore(state)
    }

    fn state(&mut self) -> Result<State, ModelError> {
        self.tally.state()
    }

    fn train(&mut self, partition: &dyn Partition, pass: &Pass<'_>) -> Result<Metrics, ModelError> {
        let unit = pass.unit();
        let meant = (unit.trial, unit.epoch, unit.partition) == (TrialId(1), 1, PartitionId(2));
        if meant && self.hangs.swap(false, Ordering::Relaxed) {
            loop {
                // An error as soon as it is cancelled.
                pass.advance(0)?;
                std::thread::yield_now();
            }
        }
        self.tally.train(partition, pass)
    }

    fn evaluate(
        &mut self,
        partition: &dyn Partition,
        pass: &Pass<'_>,
    ) -> Result<Metrics, ModelError> {
        self.tally.evaluate(partition, pass)
    }
}

fn experiment(hangs: bool) -> ExperimentBuilder {
    let hangs = Arc::new(AtomicBool::new(hangs));
    let configs = (0..3).map(|n| Config::new().with("rate", f64::from(n) / 10.0));
    Experiment::builder()
        .dataset(testing::dataset(4, 2))
        .model(move |config: &Config, _: &Slot| -> Result<Box<dyn Model>, ModelError> {
            Ok(Box::new(Hanging { tally: Tally::new(config)?, hangs: Arc::clone(&hangs) }))
        })
        .search(Grid::of(configs).unwrap())
        .objective(Objective::maximize("accuracy"))
        .policy(Policy::Seeded)
        .epochs(3)
        .seed(5)
}

fn run(builder: ExperimentBuilder) -> ExperimentResult {
    let backend = LocalBackend::builder().workers(2).replicas(2).build().unwrap();
    builder.build().unwrap().run_blocking(Arc::new(backend)).unwrap()
}

fn bits(result: &ExperimentResult) -> Vec<Vec<u8>> {
    (0..3).map(|id| block_on(result.state(TrialId(id))).unwrap().to_vec()).collect()
}

#[test]
fn a_unit_that_hangs_is_run_by_another_worker_and_counts_once() {
    let undisturbed = bits(&run(experiment(false)));
    let (completed, superseded) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(0)));
    let (units, losers) = (Arc::clone(&completed), Arc::clone(&superseded));
    let builder = experiment(true).speculation(2.0);
    let result = run(builder.observer(move |_: Duration, event: &Event| match event {
        Event::UnitCompleted { unit, .. } => units.lock().unwrap().push(*unit),
        Event::UnitSuperseded { .. } => *losers.lock().unwrap() += 1,
        _ => {}
    }));
    assert_eq!(bits(&result), undisturbed);
    assert!(result.summary().second_attempts >= 1);
    assert!(*superseded.lock().unwrap() >= 1, "the one that hung");
    let completed = completed.lock().unwrap();
    let distinct: BTreeSet<Unit> = completed.iter().copied().collect();
    assert_eq!(completed.len(), distinct.len(), "no unit completes twice");
    assert_eq!(completed.len(), 3 * 3 * (4 + 2));
    let trained = completed.iter().filter(|unit| unit.split == Split::Train).count() as u64;
    assert_eq!(result.summary().train_units, trained);
}
