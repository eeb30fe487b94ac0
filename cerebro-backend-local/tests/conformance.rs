//! The local backend passes the suite that every backend passes.

use std::sync::Arc;

use cerebro_backend_local::LocalBackend;
use cerebro_core::Backend;
use cerebro_core::backend::{BackendError, Job};
use cerebro_core::testing::{self, Tally};
use futures::executor::block_on;

#[test]
fn the_local_backend_conforms() {
    block_on(testing::backend_conforms(|| {
        Arc::new(LocalBackend::builder().workers(2).build().unwrap())
    }));
}

#[test]
fn the_local_backend_conforms_with_every_partition_on_every_worker() {
    block_on(testing::backend_conforms(|| {
        Arc::new(LocalBackend::builder().workers(2).replicas(2).build().unwrap())
    }));
}

#[test]
fn no_workers_are_refused() {
    let refused = LocalBackend::builder().workers(0).build().unwrap_err();
    assert!(refused.to_string().contains("at least 1"), "{refused}");
}

#[test]
fn more_workers_than_partitions_are_refused_at_once() {
    let backend = LocalBackend::builder().workers(5).build().unwrap();
    let job = Job { dataset: Arc::new(testing::dataset(4, 1)), builder: Tally::builder() };
    let refused = block_on(backend.start(job)).unwrap_err();
    assert!(
        matches!(refused, BackendError::IdleWorkers { workers: 5, partitions: 4, idle: 1 }),
        "{refused:?}"
    );
    assert!(refused.to_string().contains("Use at most 4 workers"), "{refused}");
}
