//! Whole experiments on a cluster: what runs on the local backend runs here, to the same bits.

mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use cerebro_backend_tcp::worker::Options;
use cerebro_core::observe::{Event, TrialStatus};
use cerebro_core::search::{Ask, Decision, EpochReport, Search, SearchError};
use cerebro_core::{Backend, Config, TrialId, WorkerId};
use futures::executor::block_on;
use support::experiments::{
    Recorder, experiment, is_as_if_undisturbed, rates, states, undisturbed,
};
use support::gate::Gate;
use support::{Worker, driver, workers};

#[test]
fn an_experiment_gives_the_bits_of_the_local_backend_whatever_the_cluster() {
    let expected = states(&undisturbed(5), 5);
    for (count, replicas, slots) in [(1, 1, 1), (2, 1, 1), (3, 2, 1), (2, 2, 3)] {
        let recorder = Recorder::default();
        let backend = driver().workers(count).replicas(replicas).build().unwrap();
        let start = |_| {
            let options = Options::new(backend.address().to_string()).slots(slots);
            Worker::with(support::registry(), options)
        };
        let _workers: Vec<Worker> = (0..count).map(start).collect();
        let builder = experiment(rates(5)).observer(recorder.clone());
        let result = builder.build().unwrap().run_blocking(Arc::new(backend)).unwrap();
        assert_eq!(states(&result, 5), expected, "{count} workers, {replicas} replicas");
        is_as_if_undisturbed(&result, &recorder);
        assert_eq!((result.summary().lost_workers, result.summary().repeated_units), (0, 0));
    }
}

#[test]
fn a_unit_that_errs_or_panics_fails_its_trial_with_the_message_from_the_worker() {
    for (misbehaviour, message, retried) in
        [("fail_on", "told to fail", 1), ("panic_on", "told to panic", 1), ("diverge_on", "NaN", 0)]
    {
        let mut configs = rates(3);
        configs.push(Config::new().with(misbehaviour, 1));
        let backend = driver().workers(2).build().unwrap();
        let _workers = workers(&backend, 2);
        let result = experiment(configs).build().unwrap().run_blocking(Arc::new(backend)).unwrap();
        assert_eq!((result.summary().completed, result.summary().failed), (3, 1));
        assert_eq!(result.summary().retried_units, retried);
        let TrialStatus::Failed { reason } = &result.trial(TrialId(3)).unwrap().status else {
            panic!("the trial is marked failed")
        };
        assert!(reason.contains(message), "{reason}");
    }
}

#[test]
fn an_unknown_hyperparameter_is_not_tried_twice() {
    let backend = driver().workers(1).build().unwrap();
    let _workers = workers(&backend, 1);
    let configs = vec![Config::new().with("rat", 0.1)];
    let result = experiment(configs).build().unwrap().run_blocking(Arc::new(backend)).unwrap();
    assert_eq!(result.summary().retried_units, 0);
    let error = result.best().unwrap_err().to_string();
    assert!(error.contains("unknown hyperparameter `rat`"), "{error}");
}

/// Pauses every trial after its first epoch, then lets the best go on and take over the weights of
/// another: a State goes through the driver.
#[derive(Debug)]
struct Fussy {
    configs: Vec<Config>,
    paused: Vec<(TrialId, f64)>,
    resumed: bool,
    exploited: bool,
}

impl Search for Fussy {
    fn ask(&mut self, _: TrialId) -> Ask {
        if let Some(config) = self.configs.pop() {
            return Ask::Start(config);
        }
        match self.paused.len() {
            4 if !self.resumed => {
                self.resumed = true;
                self.paused.sort_by(|a, b| b.1.total_cmp(&a.1));
                Ask::Resume(self.paused[0].0)
            }
            4 => Ask::Finished,
            _ => Ask::Wait,
        }
    }

    fn tell(&mut self, report: &EpochReport) -> Decision {
        match report.epoch {
            1 => {
                self.paused.push((report.trial, report.value));
                Decision::Pause
            }
            2 if !self.exploited => {
                self.exploited = true;
                let config = Config::new().with("rate", 0.31);
                Decision::Exploit { source: self.paused[1].0, config }
            }
            _ => Decision::Continue,
        }
    }

    fn snapshot(&self) -> serde_json::Value {
        serde_json::Value::Null
    }

    fn restore(&mut self, _: &serde_json::Value) -> Result<(), SearchError> {
        Err(SearchError::Unsupported("restored"))
    }
}

#[test]
fn a_trial_can_take_over_a_state_from_another_worker() {
    let search = || Fussy { configs: rates(4), paused: vec![], resumed: false, exploited: false };
    let run = |backend: Arc<dyn Backend>| {
        let builder = experiment(vec![Config::new()]).search(search());
        let result = builder.build().unwrap().run_blocking(backend).unwrap();
        let done = result.trials().find(|trial| trial.status == TrialStatus::Completed).unwrap();
        assert_eq!(*done.config, Config::new().with("rate", 0.31));
        block_on(result.state(done.id)).unwrap().to_vec()
    };
    let backend = driver().workers(2).build().unwrap();
    let _workers = workers(&backend, 2);
    let local = cerebro_backend_local::LocalBackend::builder().workers(2).build().unwrap();
    assert_eq!(run(Arc::new(backend)), run(Arc::new(local)));
}

#[test]
fn a_worker_that_comes_late_is_given_partitions_and_units() {
    let backend = driver().workers(1).build().unwrap();
    let address = backend.address();
    let gate = Gate::default();
    let first = Options::new(address.to_string()).threads_per_slot(1);
    let crew = Arc::new(Mutex::new(vec![Worker::with(gate.registry(), first)]));
    let recorder = Recorder::default();
    let builder = experiment(rates(8)).observer(recorder.clone());
    let called = Arc::clone(&crew);
    let builder = builder.observer(move |_: Duration, event: &Event| {
        let mut crew = called.lock().unwrap();
        match event {
            // The first one waits for the newcomer, so that there is something left to do.
            Event::EpochCompleted { .. } if crew.len() == 1 => {
                gate.close();
                crew.push(Worker::start(address));
            }
            Event::UnitStarted { worker, .. } if *worker != WorkerId(0) => gate.open(),
            _ => {}
        }
    });
    let result = builder.build().unwrap().run_blocking(Arc::new(backend)).unwrap();
    let newcomer = recorder.joined().pop().expect("a worker joined");
    assert!(newcomer.partitions.len() >= 2, "{newcomer:?}");
    let ran = |event: &Event| matches!(event, Event::UnitCompleted { worker, .. } if *worker == newcomer.id);
    assert!(recorder.count(ran) > 0, "it ran units");
    assert_eq!(result.summary().completed, 8);
}

#[test]
fn when_the_last_worker_leaves_the_driver_takes_its_states() {
    let backend = driver().workers(2).build().unwrap();
    let crew = workers(&backend, 2);
    let recorder = Recorder::default();
    let builder = experiment(rates(3)).observer(recorder.clone());
    let result = builder.build().unwrap().run_blocking(Arc::new(backend)).unwrap();
    for mut worker in crew {
        worker.leave();
        worker.end().unwrap();
    }
    is_as_if_undisturbed(&result, &recorder);
}

#[test]
fn workers_may_leave_one_after_the_other_and_nothing_is_lost() {
    let backend = driver().workers(3).build().unwrap();
    let mut crew = workers(&backend, 3);
    let mut leaving = vec![crew.pop().unwrap(), crew.pop().unwrap()];
    let recorder = Recorder::default();
    let builder = experiment(rates(6)).observer(recorder.clone()).observer(
        move |_: Duration, event: &Event| {
            if matches!(event, Event::EpochCompleted { .. })
                && let Some(mut worker) = leaving.pop()
            {
                worker.leave();
            }
        },
    );
    let result = builder.build().unwrap().run_blocking(Arc::new(backend)).unwrap();
    is_as_if_undisturbed(&result, &recorder);
    assert_eq!(recorder.count(|event| matches!(event, Event::WorkerDraining { .. })), 2);
    assert_eq!(result.summary().repeated_units, 0, "States were handed over before");
}
