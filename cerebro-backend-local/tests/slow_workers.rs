//! Workers that are slower than the others are told of.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use cerebro_backend_local::LocalBackend;
use cerebro_core::backend::{
    BackendError, Job, UnitError, UnitOrder, UnitReport, WorkerEvent, WorkerInfo,
};
use cerebro_core::experiment::{Experiment, ExperimentResult};
use cerebro_core::observe::Event;
use cerebro_core::search::Grid;
use cerebro_core::testing::{self, Tally};
use cerebro_core::{Backend, Config, Model, ModelError, Objective, Slot, State, TrialId, WorkerId};
use futures::stream::BoxStream;

/// Threads whose reports say how long units took on a clock of their own: a second for each row, and
/// on one worker so many times as long.
#[derive(Debug)]
struct Clocked {
    backend: LocalBackend,
    slow: WorkerId,
    factor: u32,
}

#[async_trait]
impl Backend for Clocked {
    async fn start(&self, job: Job) -> Result<Vec<WorkerInfo>, BackendError> {
        self.backend.start(job).await
    }

    async fn run(&self, order: UnitOrder) -> Result<UnitReport, UnitError> {
        let factor = if order.worker == self.slow { self.factor } else { 1 };
        let report = self.backend.run(order).await?;
        let occupied = Duration::from_secs(report.rows) * factor;
        Ok(UnitReport { occupied, ..report })
    }

    async fn state(&self, trial: TrialId, version: u64) -> Result<State, BackendError> {
        self.backend.state(trial, version).await
    }

    async fn install(&self, trial: TrialId, at: u64, state: State) -> Result<(), BackendError> {
        self.backend.install(trial, at, state).await
    }

    async fn release(&self, trial: TrialId, below: u64, keep: &[u64]) {
        self.backend.release(trial, below, keep).await;
    }

    fn events(&self) -> BoxStream<'static, WorkerEvent> {
        self.backend.events()
    }

    async fn shutdown(&self) -> Result<(), BackendError> {
        self.backend.shutdown().await
    }
}

/// One trial after the other on three workers, of which the second is slow by a factor; and what was
/// told of slow workers.
fn run(factor: u32) -> (ExperimentResult, Vec<(WorkerId, f64)>) {
    let told: Arc<Mutex<Vec<(WorkerId, f64)>>> = Arc::default();
    let heard = Arc::clone(&told);
    let configs = (0..4).map(|n| Config::new().with("rate", f64::from(n) / 10.0));
    let experiment = Experiment::builder()
        .dataset(testing::dataset(6, 3))
        .model(|config: &Config, _: &Slot| -> Result<Box<dyn Model>, ModelError> {
            Ok(Box::new(Tally::new(config)?))
        })
        .search(Grid::of(configs).unwrap())
        .objective(Objective::maximize("accuracy"))
        .epochs(4)
        .concurrent_trials(1)
        .observer(move |_: Duration, event: &Event| {
            if let Event::WorkerSlow { worker, factor } = event {
                heard.lock().unwrap().push((*worker, *factor));
            }
        });
    let backend = LocalBackend::builder().workers(3).build().unwrap();
    let backend = Arc::new(Clocked { backend, slow: WorkerId(1), factor });
    let result = experiment.build().unwrap().run_blocking(backend).unwrap();
    let told = told.lock().unwrap().clone();
    (result, told)
}

#[test]
fn a_worker_that_takes_three_times_as_long_is_told_of_once_and_is_in_the_summary() {
    let (result, told) = run(3);
    assert_eq!(told.len(), 1, "{told:?}");
    let (worker, factor) = told[0];
    assert_eq!(worker, WorkerId(1));
    assert!((2.0..4.0).contains(&factor), "{factor}");
    let summary = result.summary();
    assert_eq!(summary.slow_workers, 1);
    assert!(summary.to_string().contains("stragglers   1 slow worker, 0 units"), "{summary}");
}

#[test]
fn workers_that_are_alike_are_not_told_of() {
    let (result, told) = run(1);
    assert_eq!(told, []);
    assert!(!result.summary().to_string().contains("stragglers"));
}
