//! Whole experiments on the local backend, with a model whose State records what it saw.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cerebro_backend_local::LocalBackend;
use cerebro_core::backend::{
    BackendError, Job, UnitError, UnitOrder, UnitReport, WorkerEvent, WorkerInfo,
};
use cerebro_core::data::{DataError, Dataset, MemoryDataset, Partition, PartitionInfo, TensorSpec};
use cerebro_core::experiment::{
    Experiment, ExperimentBuilder, ExperimentError, ExperimentResult, Interruption, TrialRecord,
};
use cerebro_core::observe::{Event, ObserveError, Observer, Outcome, TrialStatus};
use cerebro_core::schedule::Policy;
use cerebro_core::search::{Ask, Decision, EpochReport, Grid, Search, SearchError};
use cerebro_core::testing::{self, Tally};
use cerebro_core::{
    Backend, Cancellation, Config, Model, ModelError, Objective, PartitionId, Pass, Slot, Split,
    State, TrialId, Unit, WorkerId,
};
use futures::StreamExt;
use futures::channel::mpsc;
use futures::executor::block_on;
use futures::stream::BoxStream;

fn tally(config: &Config, _: &Slot) -> Result<Box<dyn Model>, ModelError> {
    Ok(Box::new(Tally::new(config)?))
}

fn rates(count: u32) -> Vec<Config> {
    (0..count).map(|n| Config::new().with("rate", f64::from(n) / 10.0)).collect()
}

fn experiment(configs: Vec<Config>) -> ExperimentBuilder {
    Experiment::builder()
        .dataset(testing::dataset(4, 2))
        .model(tally)
        .search(Grid::of(configs).unwrap())
        .objective(Objective::maximize("accuracy"))
        .epochs(3)
        .seed(5)
}

fn local(workers: usize) -> Arc<dyn Backend> {
    Arc::new(LocalBackend::builder().workers(workers).build().unwrap())
}

fn run(builder: ExperimentBuilder, workers: usize) -> ExperimentResult {
    builder.build().unwrap().run_blocking(local(workers)).unwrap()
}

/// Keeps every event.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Vec<Event>>>);

impl Observer for Recorder {
    fn observe(&mut self, _: Duration, event: &Event) -> Result<(), ObserveError> {
        self.0.lock().unwrap().push(event.clone());
        Ok(())
    }
}

impl Recorder {
    fn units(&self) -> Vec<(Unit, UnitReport)> {
        let events = self.0.lock().unwrap();
        let units = events.iter().filter_map(|event| match event {
            Event::UnitCompleted { unit, report, .. } => Some((*unit, report.clone())),
            _ => None,
        });
        units.collect()
    }
}

/// The weights of `trial` after its best epoch, trained in one thread in the recorded order.
fn trained_alone(trial: &TrialRecord, dataset: &MemoryDataset) -> Vec<u8> {
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

#[test]
fn every_trial_visits_every_partition_once_per_epoch() {
    let recorder = Recorder::default();
    let result = run(experiment(rates(6)).observer(recorder.clone()), 2);
    let units = recorder.units();
    let distinct: BTreeSet<Unit> = units.iter().map(|(unit, _)| *unit).collect();
    assert_eq!(distinct.len(), units.len(), "no unit completes twice");
    assert_eq!(units.len(), 6 * 3 * (4 + 2), "every unit completes");
    let summary = result.summary();
    assert_eq!((summary.train_units, summary.validation_units), (72, 36));
    assert_eq!((summary.completed, summary.failed, summary.outcome), (6, 0, Outcome::Finished));
    assert!(summary.hops > 0, "with partitions on two workers, States hop");
    for trial in result.trials() {
        assert_eq!(trial.history.len(), 3);
        for epoch in &trial.history {
            let visited: BTreeSet<_> = epoch.visit_order.iter().collect();
            assert_eq!((visited.len(), epoch.visit_order.len()), (4, 4));
        }
    }
}

#[test]
fn weights_are_those_of_sequential_training_in_the_recorded_order() {
    let dataset = testing::dataset(4, 2);
    let result = run(experiment(rates(5)), 2);
    for trial in result.trials() {
        let state = block_on(result.state(trial.id)).unwrap().to_vec();
        assert_eq!(state, trained_alone(trial, &dataset), "{}", trial.id);
    }
}

#[test]
fn with_seeded_order_the_number_of_workers_and_of_trials_changes_no_bit() {
    let states = |trials: u32, workers| -> Vec<Vec<u8>> {
        let result = run(experiment(rates(trials)).policy(Policy::Seeded), workers);
        (0..3).map(|id| block_on(result.state(TrialId(id))).unwrap().to_vec()).collect()
    };
    let alone = states(3, 1);
    for (trials, workers) in [(3, 2), (3, 4), (8, 2), (8, 4)] {
        assert_eq!(states(trials, workers), alone, "{trials} trials on {workers} workers");
    }
}

#[test]
fn the_best_trial_has_the_highest_accuracy_or_the_lowest_loss() {
    let best = |objective| {
        let result = run(experiment(rates(6)).objective(objective), 2);
        let values: Vec<f64> =
            result.leaderboard().iter().map(|trial| trial.best_value().unwrap()).collect();
        (result.best().unwrap().config.clone(), values)
    };
    // The tally's loss is lowest at rate 0.3, whatever the metric.
    let (config, values) = best(Objective::maximize("accuracy"));
    assert_eq!(*config, Config::new().with("rate", 0.3));
    assert!(values.is_sorted_by(|a, b| a >= b), "{values:?}");
    let (config, values) = best(Objective::minimize("loss"));
    assert_eq!(*config, Config::new().with("rate", 0.3));
    assert!(values.is_sorted(), "{values:?}");
}

#[test]
fn a_trial_that_diverges_fails_with_the_reason_and_the_others_go_on() {
    let mut configs = rates(3);
    configs.push(Config::new().with("diverge_on", 2));
    let result = run(experiment(configs), 2);
    assert_eq!((result.summary().completed, result.summary().failed), (3, 1));
    assert_eq!(result.summary().retried_units, 0, "divergence is no accident: no retry");
    let TrialStatus::Failed { reason } = &result.trial(TrialId(3)).unwrap().status else {
        panic!("the diverged trial is marked failed")
    };
    assert!(reason.contains("NaN") && reason.contains("partition-2"), "{reason}");
}

#[test]
fn a_unit_that_errs_or_panics_is_retried_once_and_then_its_trial_fails() {
    for (misbehaviour, message) in [("fail_on", "told to fail"), ("panic_on", "told to panic")] {
        let mut configs = rates(3);
        configs.push(Config::new().with(misbehaviour, 1));
        let recorder = Recorder::default();
        let result = run(experiment(configs).observer(recorder.clone()), 2);
        assert_eq!((result.summary().completed, result.summary().failed), (3, 1));
        assert_eq!(result.summary().retried_units, 1);
        let TrialStatus::Failed { reason } = &result.trial(TrialId(3)).unwrap().status else {
            panic!("the trial is marked failed")
        };
        assert!(reason.contains(message), "{reason}");
        let events = recorder.0.lock().unwrap();
        let failures = events.iter().filter(|event| matches!(event, Event::UnitFailed { .. }));
        assert_eq!(failures.count(), 2);
    }
}

#[test]
fn with_replicas_the_retry_is_on_the_other_worker() {
    let recorder = Recorder::default();
    let backend = LocalBackend::builder().workers(2).replicas(2).build().unwrap();
    let configs = vec![Config::new().with("fail_on", 1), Config::new()];
    let builder = experiment(configs).observer(recorder.clone());
    builder.build().unwrap().run_blocking(Arc::new(backend)).unwrap();
    let events = recorder.0.lock().unwrap();
    let failed_on: BTreeSet<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::UnitFailed { worker, .. } => Some(*worker),
            _ => None,
        })
        .collect();
    assert_eq!(failed_on.len(), 2);
}

#[test]
fn an_unknown_hyperparameter_fails_its_trial_by_name() {
    let result = run(experiment(vec![Config::new().with("rat", 0.1)]), 1);
    let error = result.best().unwrap_err().to_string();
    assert!(error.contains("unknown hyperparameter `rat`"), "{error}");
}

#[test]
fn an_objective_that_the_model_does_not_report_ends_the_run_and_loses_nothing() {
    let builder = experiment(rates(2)).objective(Objective::maximize("acuracy"));
    let ended = builder.build().unwrap().run_blocking(local(2)).unwrap_err();
    let text = ended.to_string();
    assert!(text.contains("`acuracy`") && text.contains("accuracy, loss"), "{text}");
    let ExperimentError::Interrupted { cause, result } = ended else { panic!("{text}") };
    assert!(matches!(cause, Interruption::UnknownMetric { .. }));
    assert!(result.summary().train_units >= 4, "what was done until then is there");
}

#[test]
fn a_stopped_experiment_returns_what_there_is() {
    let builder = experiment(rates(4)).epochs(1_000_000);
    let handle = Arc::new(Mutex::new(None::<cerebro_core::experiment::ExperimentHandle>));
    let stop = Arc::clone(&handle);
    let builder = builder.observer(move |_: Duration, event: &Event| {
        if matches!(event, Event::EpochCompleted { epoch: 3, .. })
            && let Some(handle) = &*stop.lock().unwrap()
        {
            handle.stop();
        }
    });
    let experiment = builder.build().unwrap();
    *handle.lock().unwrap() = Some(experiment.handle());
    let result = experiment.run_blocking(local(2)).unwrap();
    assert_eq!((result.summary().outcome, result.summary().stopped), (Outcome::Stopped, 4));
    assert!(result.best().unwrap().history.len() >= 3);
}

#[test]
fn an_observer_that_errs_is_named_in_the_summary_and_the_run_goes_on() {
    struct Full;
    impl Observer for Full {
        fn observe(&mut self, _: Duration, _: &Event) -> Result<(), ObserveError> {
            Err("events.jsonl: no space left on device".into())
        }
    }
    let result = run(experiment(rates(2)).observer(Full), 2);
    assert_eq!(result.summary().completed, 2);
    assert_eq!(result.summary().warnings.len(), 1, "it is told once");
    assert!(result.summary().warnings[0].contains("no space left"));
}

/// A data set that is on a disk, so to speak: every load makes the partition anew.
#[derive(Debug)]
struct OnDisk(MemoryDataset);

impl Dataset for OnDisk {
    fn partitions(&self) -> &[PartitionInfo] {
        self.0.partitions()
    }

    fn tensors(&self) -> &[TensorSpec] {
        self.0.tensors()
    }

    fn load(&self, id: PartitionId) -> Result<Arc<dyn Partition>, DataError> {
        testing::dataset(4, 2).load(id)
    }
}

#[test]
fn data_larger_than_memory_gives_the_same_weights_and_is_loaded_again() {
    let states = |memory| -> (Vec<Vec<u8>>, usize) {
        let recorder = Recorder::default();
        let backend = LocalBackend::builder().workers(2).partition_memory(memory).build().unwrap();
        let builder = experiment(rates(3)).dataset(OnDisk(testing::dataset(4, 2)));
        let builder = builder.policy(Policy::Seeded).observer(recorder.clone());
        let result = builder.build().unwrap().run_blocking(Arc::new(backend)).unwrap();
        let states = (0..3).map(|id| block_on(result.state(TrialId(id))).unwrap().to_vec());
        let events = recorder.0.lock().unwrap();
        let loads = events.iter().filter(|event| matches!(event, Event::PartitionLoaded { .. }));
        (states.collect(), loads.count())
    };
    let (all, loads) = states(u64::MAX);
    assert_eq!(loads, 6, "each partition is loaded once");
    let (some, loads) = states(500);
    assert!(loads > 6, "what does not fit is loaded when a unit needs it: {loads}");
    assert_eq!(some, all);
}

#[test]
fn only_the_best_models_are_kept() {
    let result = run(experiment(rates(6)).keep_models(2), 2);
    let kept: Vec<bool> =
        result.leaderboard().iter().map(|trial| block_on(result.state(trial.id)).is_ok()).collect();
    assert_eq!(kept, [true, true, false, false, false, false]);
    let lost = block_on(result.state(result.leaderboard()[5].id)).unwrap_err();
    assert!(lost.to_string().contains("keep_models"), "{lost}");
}

#[test]
fn data_sets_that_cannot_serve_are_refused() {
    for (dataset, missing) in
        [(testing::dataset(0, 1), "train"), (testing::dataset(2, 0), "validation")]
    {
        let refused = experiment(rates(1)).dataset(dataset).build().unwrap_err().to_string();
        assert!(refused.contains(&format!("no {missing} partitions")), "{refused}");
    }
    let refused = experiment(rates(1)).epochs(0).build().unwrap_err();
    assert!(matches!(refused, ExperimentError::NoEpochs));
    let refused = Experiment::builder().build().unwrap_err();
    assert!(refused.to_string().contains("ExperimentBuilder::dataset"), "{refused}");
}

/// Pauses every trial after its first epoch, then lets the best go on and take over the better
/// half's weights: every answer that a search can give.
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
fn a_search_can_pause_resume_and_let_a_trial_take_over_a_better_state() {
    let search = Fussy { configs: rates(4), paused: Vec::new(), resumed: false, exploited: false };
    let recorder = Recorder::default();
    let result = run(experiment(vec![Config::new()]).search(search).observer(recorder.clone()), 2);
    let lengths: Vec<usize> = result.trials().map(|trial| trial.history.len()).collect();
    assert_eq!(lengths.iter().filter(|&&epochs| epochs == 1).count(), 3, "{lengths:?}");
    assert_eq!(lengths.iter().filter(|&&epochs| epochs == 3).count(), 1, "{lengths:?}");
    let completed = result.trials().find(|trial| trial.status == TrialStatus::Completed).unwrap();
    assert_eq!(*completed.config, Config::new().with("rate", 0.31));
    let events = recorder.0.lock().unwrap();
    assert!(events.iter().any(|event| matches!(event, Event::TrialExploited { .. })));
}

/// The local backend, except that the last unit to start takes a worker with it now and then, and
/// that workers come back only when somebody waits for them.
#[derive(Debug)]
struct Flaky {
    inner: LocalBackend,
    workers: Mutex<Vec<WorkerInfo>>,
    poisonous: Option<Unit>,
    every: usize,
    started: AtomicUsize,
    events: mpsc::UnboundedSender<WorkerEvent>,
    receiver: Mutex<Option<mpsc::UnboundedReceiver<WorkerEvent>>>,
    lost: Mutex<Vec<WorkerId>>,
}

impl Flaky {
    fn new(every: usize, poisonous: Option<Unit>) -> Self {
        let (events, receiver) = mpsc::unbounded();
        Self {
            inner: LocalBackend::builder().workers(2).build().unwrap(),
            workers: Mutex::default(),
            poisonous,
            every,
            started: AtomicUsize::new(0),
            events,
            receiver: Mutex::new(Some(receiver)),
            lost: Mutex::default(),
        }
    }
}

#[async_trait::async_trait]
impl Backend for Flaky {
    async fn start(&self, job: Job) -> Result<Vec<WorkerInfo>, BackendError> {
        let workers = self.inner.start(job).await?;
        self.workers.lock().unwrap().clone_from(&workers);
        Ok(workers)
    }

    async fn run(&self, order: UnitOrder) -> Result<UnitReport, UnitError> {
        let (worker, reason) = (order.worker, "the power failed".to_owned());
        let number = self.started.fetch_add(1, Ordering::Relaxed) + 1;
        if number.is_multiple_of(self.every) || Some(order.unit) == self.poisonous {
            self.lost.lock().unwrap().push(worker);
            return Err(UnitError::WorkerLost { worker, reason });
        }
        self.inner.run(order).await
    }

    async fn state(&self, trial: TrialId, version: u64) -> Result<State, BackendError> {
        self.inner.state(trial, version).await
    }

    async fn install(
        &self,
        trial: TrialId,
        version: u64,
        state: State,
    ) -> Result<(), BackendError> {
        self.inner.install(trial, version, state).await
    }

    async fn release(&self, trial: TrialId, below: u64, keep: &[u64]) {
        self.inner.release(trial, below, keep).await;
    }

    async fn await_holders(&self, partitions: &[PartitionId]) -> Result<(), BackendError> {
        assert!(!partitions.is_empty());
        for lost in self.lost.lock().unwrap().drain(..) {
            let workers = self.workers.lock().unwrap();
            let back = workers.iter().find(|worker| worker.id == lost).unwrap().clone();
            self.events.unbounded_send(WorkerEvent::Joined(back)).unwrap();
        }
        Ok(())
    }

    fn events(&self) -> BoxStream<'static, WorkerEvent> {
        self.receiver.lock().unwrap().take().unwrap().boxed()
    }

    async fn shutdown(&self) -> Result<(), BackendError> {
        self.inner.shutdown().await
    }
}

#[test]
fn lost_workers_that_come_back_cost_no_unit_and_change_no_bit() {
    let dataset = testing::dataset(4, 2);
    let recorder = Recorder::default();
    let builder = experiment(rates(4)).observer(recorder.clone());
    let result = builder.build().unwrap().run_blocking(Arc::new(Flaky::new(7, None))).unwrap();
    assert_eq!(recorder.units().len(), 4 * 3 * (4 + 2), "every unit completes once");
    assert_eq!((result.summary().completed, result.summary().retried_units), (4, 0));
    assert!(result.summary().lost_workers >= 5, "{:?}", result.summary());
    for trial in result.trials() {
        let state = block_on(result.state(trial.id)).unwrap().to_vec();
        assert_eq!(state, trained_alone(trial, &dataset), "{}", trial.id);
    }
}

#[test]
fn a_unit_that_takes_every_worker_with_it_ends_its_trial_and_not_the_cluster() {
    let partition = PartitionId(2);
    let poisonous = Unit { trial: TrialId(1), epoch: 1, split: Split::Train, partition };
    let backend = Flaky::new(usize::MAX, Some(poisonous));
    let result = experiment(rates(4)).build().unwrap().run_blocking(Arc::new(backend)).unwrap();
    assert_eq!((result.summary().completed, result.summary().failed), (3, 1));
    assert_eq!(result.summary().lost_workers, 3);
    let TrialStatus::Failed { reason } = &result.trial(TrialId(1)).unwrap().status else {
        panic!("the trial is marked failed")
    };
    assert!(reason.contains("3 workers were lost") && reason.contains("partition-2"), "{reason}");
}

#[test]
fn where_no_worker_will_hold_a_partition_the_run_ends_and_says_which() {
    #[derive(Debug)]
    struct Gone(Flaky);
    #[async_trait::async_trait]
    impl Backend for Gone {
        async fn start(&self, job: Job) -> Result<Vec<WorkerInfo>, BackendError> {
            self.0.start(job).await
        }
        async fn run(&self, order: UnitOrder) -> Result<UnitReport, UnitError> {
            self.0.run(order).await
        }
        async fn state(&self, trial: TrialId, version: u64) -> Result<State, BackendError> {
            self.0.state(trial, version).await
        }
        async fn install(&self, t: TrialId, v: u64, state: State) -> Result<(), BackendError> {
            self.0.install(t, v, state).await
        }
        async fn release(&self, trial: TrialId, below: u64, keep: &[u64]) {
            self.0.release(trial, below, keep).await;
        }
        fn events(&self) -> BoxStream<'static, WorkerEvent> {
            self.0.events()
        }
        async fn shutdown(&self) -> Result<(), BackendError> {
            self.0.shutdown().await
        }
    }
    let backend = Gone(Flaky::new(9, None));
    let ended = experiment(rates(2)).build().unwrap().run_blocking(Arc::new(backend)).unwrap_err();
    let text = ended.to_string();
    assert!(text.contains("no worker holds partition-"), "{text}");
    let ExperimentError::Interrupted { cause, result } = ended else { panic!("{text}") };
    assert!(matches!(cause, Interruption::Stalled { .. }));
    assert!(result.summary().train_units > 0, "what was done until then is there");
}
