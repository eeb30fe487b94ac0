//! Units that take too long run a second time elsewhere, and the first result counts.

use std::collections::BTreeSet;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cerebro_backend_local::LocalBackend;
use cerebro_core::experiment::{Experiment, ExperimentBuilder, ExperimentResult};
use cerebro_core::observe::{Event, TrialStatus};
use cerebro_core::schedule::Policy;
use cerebro_core::search::Grid;
use cerebro_core::testing::{self, Hang, Hanging, Tally};
use cerebro_core::{Backend, Config, Objective, PartitionId, Split, TrialId, Unit};
use futures::executor::block_on;

/// The unit that hangs the first time that it is run.
const HANGS: Unit =
    Unit { trial: TrialId(1), epoch: 1, split: Split::Train, partition: PartitionId(2) };

fn experiment() -> ExperimentBuilder {
    let configs = (0..3).map(|n| Config::new().with("rate", f64::from(n) / 10.0));
    Experiment::builder()
        .dataset(testing::dataset(4, 2))
        .shared_model(Tally::builder())
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
    let undisturbed = bits(&run(experiment(), &local()));
    let (completed, superseded) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(0)));
    let (units, losers) = (Arc::clone(&completed), Arc::clone(&superseded));
    let backend = local();
    let builder = experiment().model(Hanging::on(HANGS, how)).speculation(2.0);
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
    hangs(Hang::Until(opens), move |event| {
        let status = TrialStatus::Completed;
        if matches!(event, Event::TrialStatus { trial, status: s } if (*trial, s) == (HANGS.trial, &status))
        {
            // Nobody waits any more once it is open.
            let _ = open.send(());
        }
    });
}
