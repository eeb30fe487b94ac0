//! Stores that take nothing in.

use cerebro_core::data::Location;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path as ObjectPath;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult,
};

use super::*;

/// A store whose disk is full for a while.
#[derive(Debug)]
struct Disk {
    inner: InMemory,
    full: Arc<AtomicBool>,
    refused: AtomicUsize,
    /// After so many refusals somebody makes room; never if 0.
    patience: usize,
    /// Whether nobody may write.
    forbidden: bool,
}

impl Disk {
    fn new(patience: usize) -> Self {
        let (full, refused) = (Arc::default(), AtomicUsize::new(0));
        Self { inner: InMemory::new(), full, refused, patience, forbidden: false }
    }
}

impl std::fmt::Display for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("disk")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Disk {
    async fn put_opts(
        &self,
        location: &ObjectPath,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        if self.forbidden {
            let (path, source) = (location.to_string(), "you may only read".into());
            return Err(object_store::Error::PermissionDenied { path, source });
        }
        if self.full.load(Ordering::SeqCst) {
            let refused = self.refused.fetch_add(1, Ordering::SeqCst) + 1;
            if refused == self.patience {
                self.full.store(false, Ordering::SeqCst);
            }
            let source = std::io::Error::from(std::io::ErrorKind::StorageFull);
            return Err(object_store::Error::Generic { store: "disk", source: source.into() });
        }
        self.inner.put_opts(location, payload, options).await
    }
    async fn put_multipart_opts(
        &self,
        location: &ObjectPath,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }
    async fn get_opts(
        &self,
        location: &ObjectPath,
        options: GetOptions,
    ) -> object_store::Result<GetResult> {
        self.inner.get_opts(location, options).await
    }
    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<ObjectPath>>,
    ) -> BoxStream<'static, object_store::Result<ObjectPath>> {
        self.inner.delete_stream(locations)
    }
    fn list(
        &self,
        prefix: Option<&ObjectPath>,
    ) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.inner.list(prefix)
    }
    async fn list_with_delimiter(
        &self,
        prefix: Option<&ObjectPath>,
    ) -> object_store::Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }
    async fn copy_opts(
        &self,
        from: &ObjectPath,
        to: &ObjectPath,
        options: CopyOptions,
    ) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// A place that says no to every write, as an object store without permission does.
#[test]
fn a_store_without_permission_to_write_is_refused_before_anything_is_trained() {
    let disk = Disk { forbidden: true, ..Disk::new(0) };
    let location = Location::in_store(Arc::new(disk) as Arc<dyn ObjectStore>, "runs/1");
    let (error, text) = refusal(experiment().store(location));
    assert!(matches!(error, StoreError::Access { .. }), "{text}");
    assert!(text.contains("check the permissions, or the credentials"), "{text}");
}

/// A disk that is full from the second epoch on, and what was told of it.
fn filling(
    patience: usize,
) -> (Arc<Disk>, Location, impl Fn(ExperimentBuilder) -> ExperimentBuilder) {
    let disk = Arc::new(Disk::new(patience));
    let full = Arc::clone(&disk.full);
    let location = Location::in_store(Arc::clone(&disk) as Arc<dyn ObjectStore>, "runs/1");
    let fill = move |builder: ExperimentBuilder| {
        let (full, filled) = (Arc::clone(&full), AtomicBool::new(false));
        builder.observer(move |_: Duration, event: &Event| {
            if matches!(event, Event::EpochCompleted { .. }) && !filled.swap(true, Ordering::SeqCst)
            {
                full.store(true, Ordering::SeqCst);
            }
        })
    };
    (disk, location, fill)
}

#[test]
fn on_a_full_disk_the_run_waits_and_goes_on_when_there_is_room() {
    let (disk, location, fill) = filling(3);
    let told: Arc<Mutex<Vec<String>>> = Arc::default();
    let tell = Arc::clone(&told);
    let builder =
        experiment().store(location).observer(move |_: Duration, event: &Event| match event {
            Event::StoreFailing { reason } => tell.lock().unwrap().push(reason.clone()),
            Event::StoreRecovered => tell.lock().unwrap().push("recovered".to_owned()),
            _ => {}
        });
    let result = run(fill(builder)).unwrap();
    assert!(disk.refused.load(Ordering::SeqCst) >= 3);
    let told = told.lock().unwrap();
    assert!(told[0].contains("no storage space") && told[0].contains("disk"), "{told:?}");
    assert_eq!(told.last().map(String::as_str), Some("recovered"));
    assert_eq!(described(&result), described(&run(experiment()).unwrap()));
}

/// A file system of 1 MiB in memory; unmounted when this is dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// None where it is not allowed, as to users other than root.
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(folder.path());
        mount.output().is_ok_and(|mounted| mounted.status.success()).then_some(Self(folder))
    }

    /// Writes until nothing more fits.
    fn fill(&self) {
        use std::io::Write as _;
        let mut file = std::fs::File::create(self.0.path().join("filler")).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
        let full = file.write_all(&[0; 4096]).unwrap_err();
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    }

    fn make_room(&self) {
        // Each of the writes that are under way may fail, and be told.
        let _ = std::fs::remove_file(self.0.path().join("filler"));
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = std::process::Command::new("umount").arg("-l").arg(self.0.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

#[test]
fn on_a_file_system_that_is_full_nothing_is_lost() {
    let Some(disk) = SmallDisk::mount().map(Arc::new) else {
        println!("skipped: a file system of its own size cannot be mounted here");
        return;
    };
    let undisturbed = described(&run(experiment()).unwrap());
    let (observed, told) = (Arc::clone(&disk), Arc::<Mutex<Vec<String>>>::default());
    let (said, mut epochs) = (Arc::clone(&told), 0);
    let location = disk.0.path().join("store");
    let builder = experiment().store(location.as_path());
    let result = run(builder.observer(move |_: Duration, event: &Event| match event {
        Event::EpochCompleted { .. } => {
            epochs += 1;
            if epochs == 4 {
                observed.fill();
            }
        }
        Event::StoreFailing { reason } => {
            said.lock().unwrap().push(reason.clone());
            observed.make_room();
        }
        Event::StoreRecovered => said.lock().unwrap().push("recovered".to_owned()),
        _ => {}
    }));
    assert_eq!(described(&result.unwrap()), undisturbed);
    let told = told.lock().unwrap();
    assert!(told[0].contains("No space left"), "{told:?}");
    assert_eq!(told.last().map(String::as_str), Some("recovered"));
    let resumed = run(experiment().resume(location.as_path())).unwrap();
    assert_eq!((described(&resumed), resumed.summary().train_units), (undisturbed, 0));
}

#[test]
fn stopped_on_a_full_disk_an_experiment_is_resumed_from_what_was_written() {
    let (disk, location, fill) = filling(0);
    let handle: Arc<Mutex<Option<ExperimentHandle>>> = Arc::default();
    let stop = Arc::clone(&handle);
    let builder =
        fill(experiment().store(location.clone())).observer(move |_: Duration, event: &Event| {
            if let (Event::StoreFailing { .. }, Some(handle)) = (event, &*stop.lock().unwrap()) {
                handle.stop();
            }
        });
    let stopped = builder.build().unwrap();
    *handle.lock().unwrap() = Some(stopped.handle());
    let result = stopped.run_blocking(local()).unwrap();
    assert_eq!(result.summary().outcome, Outcome::Stopped);
    disk.full.store(false, Ordering::SeqCst);
    let result = run(experiment().resume(location)).unwrap();
    assert_eq!(described(&result), described(&run(experiment()).unwrap()));
}
