//! A unit that hangs on one worker is run by another one that holds its partition. The first result
//! counts, and the late one is refused, however late it comes.

mod support;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use cerebro_backend_tcp::TcpBackend;
use cerebro_backend_tcp::worker::{Options, Registry};
use cerebro_core::observe::{Event, TrialStatus};
use cerebro_core::testing::{self, Hang, Hanging};
use cerebro_core::{Backend, ModelBuilder, PartitionId, Split, TrialId, Unit, WorkerId};
use futures::executor::block_on;
use support::experiments::{
    EPOCHS, Recorder, TRAIN, VALIDATION, experiment, is_as_if_undisturbed, rates,
};
use support::{Worker, driver};

/// More than a machine ever needs, however busy it is.
const LONG: Duration = Duration::from_mins(2);

const TRIAL: TrialId = TrialId(1);

/// The unit that hangs the first time that it is run.
const HANGS: Unit = Unit { trial: TRIAL, epoch: 1, split: Split::Train, partition: PartitionId(2) };

/// Two workers that both hold everything.
fn cluster(opens: Receiver<()>) -> (Arc<TcpBackend>, Vec<Worker>) {
    let builder: Arc<dyn ModelBuilder> = Arc::new(Hanging::on(HANGS, Hang::Until(opens)));
    let backend = driver().model("hanging", []).workers(2).replicas(2).lease(LONG).build().unwrap();
    let workers = (0..2).map(|_| {
        let builder = Arc::clone(&builder);
        let registry = Registry::new()
            .model("hanging", move |_: &[u8]| Ok(Arc::clone(&builder)))
            .dataset("tally", |_| Ok(Arc::new(testing::dataset(TRAIN, VALIDATION)) as _));
        let options = Options::new(backend.address().to_string()).threads_per_slot(1);
        Worker::with(registry, options)
    });
    let workers = workers.collect();
    (Arc::new(backend), workers)
}

/// Where attempts at the unit began, in this order, and where one was superseded.
fn attempts(recorder: &Recorder) -> (Vec<WorkerId>, Vec<WorkerId>) {
    let (mut started, mut superseded) = (Vec::new(), Vec::new());
    for event in recorder.0.lock().unwrap().iter() {
        match event {
            Event::UnitStarted { unit: HANGS, worker, .. } => started.push(*worker),
            Event::UnitSuperseded { unit: HANGS, worker } => superseded.push(*worker),
            _ => {}
        }
    }
    (started, superseded)
}

/// The unit hangs until `opens` says so of an event; everything comes out as if it never had.
fn hangs_until(opens: impl Fn(&Event) -> bool + Send + 'static) {
    let (open, opened): (Sender<()>, Receiver<()>) = channel();
    let (backend, _workers) = cluster(opened);
    let recorder = Recorder::default();
    let builder = experiment(rates(3)).speculation(2.0).observer(recorder.clone()).observer(
        move |_: Duration, event: &Event| {
            if opens(event) {
                // Nobody waits any more once it is open.
                let _ = open.send(());
            }
        },
    );
    let backend_then: Arc<dyn Backend> = Arc::clone(&backend) as _;
    let result = builder.build().unwrap().run_blocking(backend_then).unwrap();

    is_as_if_undisturbed(&result, &recorder);
    let summary = result.summary();
    assert!(summary.second_attempts >= 1);
    assert_eq!((summary.lost_workers, summary.failed), (0, 0));
    let (started, superseded) = attempts(&recorder);
    assert_eq!(started.len(), 2, "{started:?}");
    assert_ne!(started[0], started[1], "the second attempt is elsewhere");
    assert_eq!(superseded.len(), 1, "the late result is refused");
    assert!(started.contains(&superseded[0]));
    // What the late attempt made is not kept either, but the States of the best and the last epoch.
    let trial = result.trial(TRIAL).unwrap();
    let kept = [trial.best_epoch().unwrap().version, trial.history.last().unwrap().version];
    for version in 1..=u64::from(EPOCHS * TRAIN) {
        let state = block_on(backend.state(TRIAL, version));
        assert_eq!(state.is_ok(), kept.contains(&version), "{version}: {state:?}");
    }
    block_on(backend.shutdown()).unwrap();
}

#[test]
fn a_unit_that_hangs_is_run_by_another_worker_and_its_own_result_comes_too_late() {
    hangs_until(|event| matches!(event, Event::UnitCompleted { unit: HANGS, .. }));
}

#[test]
fn a_result_that_comes_when_its_trial_is_epochs_ahead_is_refused() {
    let last = EPOCHS;
    hangs_until(
        move |event| matches!(event, Event::EpochCompleted { trial: TRIAL, epoch, .. } if *epoch == last),
    );
}

#[test]
fn a_result_that_comes_when_its_trial_has_ended_is_refused_and_not_kept() {
    hangs_until(|event| {
        let status = TrialStatus::Completed;
        matches!(event, Event::TrialStatus { trial: TRIAL, status: s } if *s == status)
    });
}
