//! Units that take too long run a second time elsewhere, and the first result counts.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cerebro_backend_local::LocalBackend;
use cerebro_core::data::Partition;
use cerebro_core::experiment::{Experiment, ExperimentBuilder, ExperimentResult};
use cerebro_core::observe::{Event, TrialStatus};
use cerebro_core::schedule::Policy;
use cerebro_core::search::Grid;
use cerebro_core::testing::{self, Tally};
use cerebro_core::{
    Backend, Config, Metrics, Model, ModelError, Objective, PartitionId, Pass, Seed, Slot, Split,
    State, TrialId, Unit,
};
use futures::executor::block_on;

/// The unit that hangs the first time that it is run.
const HANGS: Unit =
    Unit { trial: TrialId(1), epoch: 1, split: Split::Train, partition: PartitionId(2) };

/// More than a machine ever needs, however busy it is.
const LONG: Duration = Duration::from_mins(2);

/// How the unit hangs.
#[derive(Clone)]
enum Hang {
    /// Until it is cancelled, with an error.
    UntilCancelled,
    /// Its work done, until it is told to go on, whether it was cancelled or not.
    Until(Arc<Mutex<Receiver<()>>>),
}

/// A tally that hangs in one unit, the first time.
struct Hanging {
    tally: Tally,
    hangs: Arc<AtomicBool>,
    how: Hang,
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
        let hangs = pass.unit() == HANGS && self.hangs.swap(false, Ordering::SeqCst);
        match &self.how {
            Hang::UntilCancelled if hangs => loop {
                // An error as soon as it is cancelled.
                pass.advance(0)?;
                std::thread::yield_now();
            },
            Hang::Until(opens) if hangs => {
                let metrics = self.tally.train(partition, pass)?;
                opens.lock().unwrap().recv_timeout(LONG).expect("it is let go on");
                Ok(metrics)
            }
            _ => self.tally.train(partition, pass),
        }
    }

    fn evaluate(
        &mut self,
        partition: &dyn Partition,
        pass: &Pass<'_>,
    ) -> Result<Metrics, ModelError> {
        self.tally.evaluate(partition, pass)
    }
}

fn experiment(how: Option<Hang>) -> ExperimentBuilder {
    let hangs = Arc::new(AtomicBool::new(how.is_some()));
    let how = how.unwrap_or(Hang::UntilCancelled);
    let configs = (0..3).map(|n| Config::new().with("rate", f64::from(n) / 10.0));
    Experiment::builder()
        .dataset(testing::dataset(4, 2))
        .model(move |config: &Config, _: &Slot| -> Result<Box<dyn Model>, ModelError> {
            let (hangs, how) = (Arc::clone(&hangs), how.clone());
            Ok(Box::new(Hanging { tally: Tally::new(config)?, hangs, how }))
        })
        .search(Grid::of(configs).unwrap())
        .objective(Objective::maximize("accuracy"))
        .policy(Policy::Seeded)
        .epochs(3)
        .seed(5)
}

fn local() -> Arc<LocalBackend> {
    Arc::new(LocalBackend::builder().workers(2).replicas(2).build().unwrap())
}

fn run(builder: ExperimentBuilder, backend: &Arc<LocalBackend>) -> ExperimentResult {
    let backend: Arc<dyn Backend> = Arc::clone(backend) as _;
    builder.build().unwrap().run_blocking(backend).unwrap()
}

fn bits(result: &ExperimentResult) -> Vec<Vec<u8>> {
    (0..3).map(|id| block_on(result.state(TrialId(id))).unwrap().to_vec()).collect()
}

/// Runs an experiment of which a unit hangs, and checks that nothing else comes of it.
fn hangs(how: Hang, mut observe: impl FnMut(&Event) + Send + 'static) {
    let undisturbed = bits(&run(experiment(None), &local()));
    let (completed, superseded) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(0)));
    let (units, losers) = (Arc::clone(&completed), Arc::clone(&superseded));
    let backend = local();
    let builder = experiment(Some(how)).speculation(2.0);
    let builder = builder.observer(move |_: Duration, event: &Event| {
        observe(event);
        match event {
            Event::UnitCompleted { unit, .. } => units.lock().unwrap().push(*unit),
            Event::UnitSuperseded { unit: HANGS, .. } => *losers.lock().unwrap() += 1,
            _ => {}
        }
    });
    let result = run(builder, &backend);
    assert_eq!(bits(&result), undisturbed);
    assert!(result.summary().second_attempts >= 1);
    assert_eq!(*superseded.lock().unwrap(), 1, "the one that hung");
    let completed = completed.lock().unwrap();
    let distinct: BTreeSet<Unit> = completed.iter().copied().collect();
    assert_eq!(completed.len(), distinct.len(), "no unit completes twice");
    assert_eq!(completed.len(), 3 * 3 * (4 + 2));
    let trained = completed.iter().filter(|unit| unit.split == Split::Train).count() as u64;
    assert_eq!(result.summary().train_units, trained);
    // What was made late is not kept.
    let trial = result.trial(HANGS.trial).unwrap();
    let kept = [trial.best_epoch().unwrap().version, trial.history.last().unwrap().version];
    for version in 1..=12 {
        let state = block_on(backend.state(HANGS.trial, version));
        assert_eq!(state.is_ok(), kept.contains(&version), "{version}: {state:?}");
    }
}

#[test]
fn a_unit_that_hangs_is_run_by_another_worker_and_counts_once() {
    hangs(Hang::UntilCancelled, |_| ());
}

#[test]
fn a_result_that_comes_when_its_trial_has_ended_is_refused_and_not_kept() {
    let (open, opens) = channel();
    hangs(Hang::Until(Arc::new(Mutex::new(opens))), move |event| {
        let status = TrialStatus::Completed;
        if matches!(event, Event::TrialStatus { trial, status: s } if (*trial, s) == (HANGS.trial, &status))
        {
            // Nobody waits any more once it is open.
            let _ = open.send(());
        }
    });
}
