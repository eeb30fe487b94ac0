//! The conformance suite that every [`Backend`] runs (feature `testing`).
//!
//! ```
//! # // A backend's own tests do this with the backend in place of `make`.
//! # use std::sync::Arc;
//! # use cerebro_core::{Backend, testing};
//! async fn my_backend_conforms(make: impl Fn() -> Arc<dyn Backend>) {
//!     testing::backend_conforms(make).await;
//! }
//! ```

mod hanging;
mod tally;

pub use hanging::{Hang, Hanging};
pub use tally::{Tally, dataset};

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::future::join_all;

use crate::backend::{Backend, BackendError, Job, UnitError, UnitOrder, UnitReport, WorkerInfo};
use crate::cancel::Cancellation;
use crate::config::Config;
use crate::data::Dataset;
use crate::id::{PartitionId, Split, TrialId, Unit, WorkerId};
use crate::model::{Model, ModelError, Pass};
use crate::seed::Seed;
use crate::state::State;

const TRIAL: TrialId = TrialId(3);
const SEED: Seed = Seed(11);

/// Runs the whole suite against backends that `make` makes: each with 2 workers of one slot.
///
/// # Panics
///
/// Where the backend does not conform, with the behaviour that is missing.
pub async fn backend_conforms(make: impl Fn() -> Arc<dyn Backend>) {
    places_every_partition(&Bench::start(make()).await);
    trains_as_sequential_training_would(&Bench::start(make()).await).await;
    leaves_no_trace_of_a_unit_that_fails(&Bench::start(make()).await).await;
    leaves_no_trace_of_a_unit_that_is_cancelled(&Bench::start(make()).await).await;
    validates_in_parallel_and_changes_nothing(&Bench::start(make()).await).await;
    keeps_the_states_that_it_is_told_to(&Bench::start(make()).await).await;
    goes_on_from_an_installed_state(&Bench::start(make()).await).await;
    refuses_work_after_shutdown(&Bench::start(make()).await).await;
}

/// A started backend over a small data set.
struct Bench {
    backend: Arc<dyn Backend>,
    workers: Vec<WorkerInfo>,
    dataset: Arc<dyn Dataset>,
}

impl Bench {
    async fn start(backend: Arc<dyn Backend>) -> Self {
        let dataset: Arc<dyn Dataset> = Arc::new(dataset(4, 2));
        let job = Job { dataset: Arc::clone(&dataset), builder: Tally::builder() };
        let workers = backend.start(job).await.expect("a backend starts");
        Self { backend, workers, dataset }
    }

    fn holder(&self, partition: PartitionId) -> WorkerId {
        let found = self.workers.iter().find(|worker| worker.partitions.contains(&partition));
        found.unwrap_or_else(|| panic!("no worker holds {partition}")).id
    }

    fn order(&self, partition: u32, split: Split, version: u64, config: Config) -> UnitOrder {
        let partition = PartitionId(partition);
        UnitOrder {
            unit: Unit { trial: TRIAL, epoch: 0, split, partition },
            worker: self.holder(partition),
            config: Arc::new(config),
            seed: SEED,
            version,
            cancellation: Cancellation::new(),
        }
    }

    async fn train(&self, partition: u32, version: u64) -> Result<UnitReport, UnitError> {
        self.backend.run(self.order(partition, Split::Train, version, Config::new())).await
    }

    async fn state(&self, version: u64) -> Vec<u8> {
        let state = self.backend.state(TRIAL, version).await;
        state.unwrap_or_else(|error| panic!("version {version} is kept: {error}")).to_vec()
    }

    async fn has_no_state(&self, version: u64) {
        let state = self.backend.state(TRIAL, version).await;
        assert!(
            matches!(state, Err(BackendError::NoState { trial: TRIAL, .. })),
            "version {version} should not be there, but is {state:?}"
        );
    }

    /// What sequential training on `partitions`, in this order, gives.
    fn sequential(&self, partitions: &[u32]) -> Vec<u8> {
        let mut model = Tally::default();
        model.initialize(SEED).expect("a tally starts");
        for &partition in partitions {
            let unit = self.order(partition, Split::Train, 0, Config::new()).unit;
            let partition = self.dataset.load(unit.partition).expect("data is in memory");
            let cancellation = Cancellation::new();
            let pass = Pass::new(unit, SEED, &cancellation, &|_| ());
            model.train(&*partition, &pass).expect("a tally trains");
        }
        model.state().expect("a tally has a state").to_vec()
    }
}

fn places_every_partition(bench: &Bench) {
    assert_eq!(bench.workers.len(), 2, "the suite is for backends with 2 workers");
    let ids: BTreeSet<WorkerId> = bench.workers.iter().map(|worker| worker.id).collect();
    assert_eq!(ids.len(), 2, "workers have distinct ids");
    for info in bench.dataset.partitions() {
        bench.holder(info.id);
    }
}

async fn trains_as_sequential_training_would(bench: &Bench) {
    for (version, &partition) in [2, 0, 3, 1].iter().enumerate() {
        let report = bench.train(partition, version as u64).await.expect("a unit completes");
        assert_eq!(report.version, version as u64 + 1, "a training unit makes the next version");
        assert_eq!(report.rows, 10 + u64::from(partition), "a unit passes over every row");
        assert_eq!(report.state_bytes, 16);
        assert!(report.metrics.value("loss").is_some(), "metrics come back");
        assert!(report.computed <= report.occupied);
    }
    assert_eq!(bench.state(4).await, bench.sequential(&[2, 0, 3, 1]), "hops change nothing");
}

async fn leaves_no_trace_of_a_unit_that_fails(bench: &Bench) {
    bench.train(0, 0).await.expect("a unit completes");
    let before = bench.state(1).await;
    for misbehaviour in ["fail_on", "panic_on"] {
        let config = Config::new().with(misbehaviour, 1);
        let failed = bench.backend.run(bench.order(1, Split::Train, 1, config)).await;
        let error = failed.expect_err("the model misbehaves");
        match misbehaviour {
            "panic_on" => assert!(
                matches!(&error, UnitError::Panicked { message } if message.contains("told to panic")),
                "a panic is reported with its message, not as {error:?}"
            ),
            _ => assert!(error.to_string().contains("training on a bad partition"), "{error}"),
        }
        assert_eq!(bench.state(1).await, before, "the State before is unchanged");
        bench.has_no_state(2).await;
    }
    bench.train(1, 1).await.expect("the worker still works");
    assert_eq!(
        bench.state(2).await,
        bench.sequential(&[0, 1]),
        "a retry starts from the version before"
    );
}

async fn leaves_no_trace_of_a_unit_that_is_cancelled(bench: &Bench) {
    let order = bench.order(0, Split::Train, 0, Config::new());
    order.cancellation.cancel();
    let cancelled = bench.backend.run(order).await;
    let error = cancelled.expect_err("the unit was cancelled");
    assert!(error.is_cancelled(), "a cancelled unit says so, not {error:?}");
    bench.has_no_state(1).await;
}

async fn validates_in_parallel_and_changes_nothing(bench: &Bench) {
    bench.train(0, 0).await.expect("a unit completes");
    let before = bench.state(1).await;
    let validations = [4, 5].map(|partition| {
        bench.backend.run(bench.order(partition, Split::Validation, 1, Config::new()))
    });
    for report in join_all(validations).await {
        let report = report.expect("validation completes");
        assert_eq!(report.version, 1, "validation makes no version");
        assert!(report.metrics.value("accuracy").is_some());
    }
    assert_eq!(bench.state(1).await, before);
    bench.has_no_state(2).await;
}

async fn keeps_the_states_that_it_is_told_to(bench: &Bench) {
    for version in 0..3 {
        bench.train(version, u64::from(version)).await.expect("a unit completes");
    }
    bench.backend.release(TRIAL, 3, &[1]).await;
    assert_eq!(bench.state(1).await, bench.sequential(&[0]));
    assert_eq!(bench.state(3).await, bench.sequential(&[0, 1, 2]));
    bench.has_no_state(2).await;
    let missing = bench.train(3, 2).await.expect_err("version 2 was let go");
    assert!(matches!(missing, UnitError::NoState { trial: TRIAL, version: 2, .. }), "{missing:?}");
}

async fn goes_on_from_an_installed_state(bench: &Bench) {
    let state = State::from(bench.sequential(&[3, 1]));
    bench.backend.install(TRIAL, 2, state).await.expect("a State is taken in");
    bench.train(0, 2).await.expect("a unit completes");
    assert_eq!(bench.state(3).await, bench.sequential(&[3, 1, 0]));
}

async fn refuses_work_after_shutdown(bench: &Bench) {
    bench.backend.shutdown().await.expect("a backend shuts down");
    let refused = bench.train(0, 0).await;
    assert!(
        matches!(
            refused,
            Err(UnitError::WorkerLost { .. } | UnitError::Model(ModelError::Cancelled))
        ),
        "{refused:?}"
    );
}
