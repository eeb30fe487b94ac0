//! Workers keep partitions on their disks, from one process to the next.

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cerebro_backend_tcp::worker::{Options, Registry, WorkerError, serve_until};
use cerebro_core::backend::Job;
use cerebro_core::data::{DataError, Dataset, MemoryDataset, Partition, PartitionInfo, TensorSpec};
use cerebro_core::testing::{self, Tally};
use cerebro_core::{Backend, PartitionId};
use futures::executor::block_on;
use support::experiments::{Recorder, TRAIN, VALIDATION, experiment, is_as_if_undisturbed, rates};
use support::{Worker, driver, log, registry};

const MEBIBYTE: u64 = 1 << 20;

/// The tallies' data set, which counts how often a partition is loaded from it.
#[derive(Debug)]
struct Counted(MemoryDataset, Arc<AtomicUsize>);

impl Dataset for Counted {
    fn partitions(&self) -> &[PartitionInfo] {
        self.0.partitions()
    }

    fn tensors(&self) -> &[TensorSpec] {
        self.0.tensors()
    }

    fn checksum(&self, id: PartitionId) -> Option<String> {
        self.0.checksum(id)
    }

    fn load(&self, id: PartitionId) -> Result<Arc<dyn Partition>, DataError> {
        self.1.fetch_add(1, Ordering::SeqCst);
        self.0.load(id)
    }
}

/// A driver and the workers called `names`, new processes as far as anyone can tell, each with its
/// folder below `folder`; the partitions that each is given.
fn placed(folder: &Path, names: &[&str], loads: &Arc<AtomicUsize>) -> BTreeMap<String, Vec<u32>> {
    let backend = driver().workers(names.len()).build().unwrap();
    let start = |name: &&str| {
        let loads = Arc::clone(loads);
        let registry = Registry::new().model("tally", |_: &[u8]| Ok(Tally::builder())).dataset(
            "tally",
            move |_| {
                let dataset = testing::dataset(TRAIN, VALIDATION);
                Ok(Arc::new(Counted(dataset, Arc::clone(&loads))))
            },
        );
        let options = Options::new(backend.address().to_string()).name(*name);
        Worker::with(registry, options.cache(folder.join(name), MEBIBYTE))
    };
    let _workers: Vec<Worker> = names.iter().map(start).collect();
    let dataset = Arc::new(testing::dataset(TRAIN, VALIDATION));
    let infos = block_on(backend.start(Job { dataset, builder: Tally::builder() })).unwrap();
    let placed = infos.into_iter().map(|info| {
        let mut partitions: Vec<u32> = info.partitions.iter().map(|id| id.0).collect();
        partitions.sort_unstable();
        (info.name, partitions)
    });
    let placed = placed.collect();
    // Before workers leave: of those that leave one after another, the rest would be given what the
    // others had.
    block_on(backend.shutdown()).unwrap();
    placed
}

#[test]
fn workers_that_are_started_again_are_given_the_partitions_that_they_have_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let loads = Arc::new(AtomicUsize::new(0));
    let first = placed(folder.path(), &["a", "b", "c"], &loads);
    assert_eq!(loads.load(Ordering::SeqCst), (TRAIN + VALIDATION) as usize);
    // In another order, so that they would be given others.
    let again = placed(folder.path(), &["c", "b", "a"], &loads);
    assert_eq!(again, first);
    assert_eq!(
        loads.load(Ordering::SeqCst),
        (TRAIN + VALIDATION) as usize,
        "none was loaded again"
    );
}

/// A file system of one page, for as long as this lives.
struct Tiny<'a>(&'a Path);

impl<'a> Tiny<'a> {
    fn mount(folder: &'a Path) -> Option<Self> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=4k", "tmpfs"]).arg(folder);
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        mounted.then_some(Self(folder))
    }
}

impl Drop for Tiny<'_> {
    fn drop(&mut self) {
        // It may only stay behind, in a folder of its own.
        let _ = Command::new("umount").arg(self.0).status();
    }
}

#[test]
fn a_disk_that_is_full_does_not_stop_the_run_and_the_driver_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let Some(_tiny) = Tiny::mount(folder.path()) else {
        println!("skipped: only root can mount a file system that is soon full");
        return;
    };
    log::start();
    let backend = driver().workers(1).build().unwrap();
    let options = Options::new(backend.address().to_string()).threads_per_slot(1);
    let _worker = Worker::with(registry(), options.cache(folder.path(), MEBIBYTE));
    let recorder = Recorder::default();
    let builder = experiment(rates(2)).observer(recorder.clone());
    let result = builder.build().unwrap().run_blocking(Arc::new(backend)).unwrap();
    is_as_if_undisturbed(&result, &recorder);
    let folder = folder.path().to_str().unwrap();
    assert!(log::says(&["worker-0", "cannot be kept", folder, "space"]), "{}", log::all());
    let summary = result.summary().to_string();
    assert!(summary.contains("cannot be kept") && summary.contains("space"), "{summary}");
}

#[test]
fn a_folder_that_cannot_be_used_is_an_error_at_the_start() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let options = Options::new("127.0.0.1:1").cache(file.path(), MEBIBYTE);
    let refused = serve_until(registry(), options, std::future::pending()).unwrap_err();
    assert!(matches!(&refused, WorkerError::Cache { .. }), "{refused}");
    assert!(refused.to_string().contains("give another folder"), "{refused}");
}
