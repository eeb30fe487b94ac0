//! The TCP backend passes the suite that every backend passes.

mod support;

use std::sync::Arc;

use cerebro_core::Backend;
use cerebro_core::backend::{BackendError, Job};
use cerebro_core::testing::{self, Tally};
use futures::executor::block_on;
use std::sync::Mutex;

fn conforms(replicas: usize) {
    let workers = Mutex::new(Vec::new());
    block_on(testing::backend_conforms(|| {
        let backend = support::driver().workers(2).replicas(replicas).build().unwrap();
        workers.lock().unwrap().extend(support::workers(&backend, 2));
        Arc::new(backend)
    }));
    for worker in workers.into_inner().unwrap() {
        worker.end().unwrap();
    }
}

#[test]
fn the_tcp_backend_conforms() {
    conforms(1);
}

#[test]
fn the_tcp_backend_conforms_with_every_partition_on_every_worker() {
    conforms(2);
}

#[test]
fn more_workers_than_partitions_are_refused_at_once() {
    let backend = support::driver().workers(5).build().unwrap();
    let job = Job { dataset: Arc::new(testing::dataset(4, 1)), builder: Tally::builder() };
    let refused = block_on(backend.start(job)).unwrap_err();
    assert!(
        matches!(refused, BackendError::IdleWorkers { workers: 5, partitions: 4, idle: 1 }),
        "{refused:?}"
    );
}
