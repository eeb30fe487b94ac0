//! What is kept comes back bit by bit; what is damaged, old or too much does no harm.

use std::sync::atomic::{AtomicUsize, Ordering};

use cerebro_core::Split;
use cerebro_core::data::{MemoryDataset, MemoryPartition, PartitionInfo, TensorSpec};
use ndarray::{Array1, Array2};

use super::*;

const URL: &str = "tally:somewhere";
const ROWS: usize = 1000;
const BYTES: u64 = 1000 * (3 * 4 + 8);

/// Three partitions of two tensors, and a count of how often one was loaded.
#[derive(Debug)]
struct Counted {
    dataset: MemoryDataset,
    loads: AtomicUsize,
    has_checksums: bool,
}

impl Counted {
    fn new(offset: f32) -> Self {
        let partition = |id: u32| {
            let x = Array2::from_shape_fn((ROWS, 3), |(row, column)| {
                offset + (row * 3 + column) as f32 * 0.1 + id as f32
            });
            let label = Array1::from_shape_fn(ROWS, |row| (row % 7) as i64 - 3);
            let tensors = [("x", x.into_dyn().into()), ("label", label.into_dyn().into())];
            (Split::Train, MemoryPartition::new(PartitionId(id), tensors).unwrap())
        };
        let dataset = MemoryDataset::new((0..3).map(partition)).unwrap();
        Self { dataset, loads: AtomicUsize::new(0), has_checksums: true }
    }

    fn loads(&self) -> usize {
        self.loads.load(Ordering::SeqCst)
    }
}

impl Dataset for Counted {
    fn partitions(&self) -> &[PartitionInfo] {
        self.dataset.partitions()
    }

    fn tensors(&self) -> &[TensorSpec] {
        self.dataset.tensors()
    }

    fn checksum(&self, id: PartitionId) -> Option<String> {
        self.has_checksums.then(|| self.dataset.checksum(id)).flatten()
    }

    fn load(&self, id: PartitionId) -> Result<Arc<dyn Partition>, DataError> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        self.dataset.load(id)
    }
}

fn cache(folder: &Path) -> DiskCache {
    DiskCache::open(folder, 10 * BYTES).unwrap()
}

fn load(cache: &DiskCache, dataset: &Counted, id: u32) -> Loaded {
    let loaded = cache.load(URL, dataset, PartitionId(id)).unwrap();
    let expected = dataset.dataset.load(PartitionId(id)).unwrap();
    for spec in dataset.tensors() {
        let found = loaded.partition.read(&spec.name).unwrap();
        assert_eq!(found, expected.read(&spec.name).unwrap());
    }
    assert_eq!(loaded.partition.tensors(), expected.tensors());
    loaded
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let inner = entries(folder).filter(|path| path.is_dir()).flat_map(|inner| entries(&inner));
    let mut files: Vec<PathBuf> = inner.filter(|path| Name::parse(path).is_some()).collect();
    files.sort();
    files
}

fn bytes(folder: &Path) -> u64 {
    files(folder).iter().map(|file| file.metadata().unwrap().len()).sum()
}

#[test]
fn a_worker_that_is_started_again_has_its_partitions_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = Counted::new(0.0);
    for id in 0..2 {
        assert_eq!(load(&cache(folder.path()), &dataset, id).origin, Origin::Dataset);
    }
    let again = cache(folder.path());
    let expected = BTreeMap::from([(URL.to_owned(), vec![PartitionId(0), PartitionId(1)])]);
    let mut holdings = again.holdings();
    for partitions in holdings.values_mut() {
        partitions.sort();
    }
    assert_eq!(holdings, expected);
    for id in 0..2 {
        assert_eq!(load(&again, &dataset, id).origin, Origin::Disk);
    }
    assert_eq!(dataset.loads(), 2);
}

#[test]
fn a_file_with_any_bit_flipped_or_cut_short_is_noticed_and_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = Counted::new(0.0);
    let cache = cache(folder.path());
    load(&cache, &dataset, 0);
    let file = files(folder.path()).pop().unwrap();
    let whole = fs::read(&file).unwrap();
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    };
    let longer = [&whole[..], &[0]].concat();
    let every = (0..64).chain((64..whole.len()).step_by(997)).map(flipped);
    let cut = [0, 7, 8, 100, whole.len() - 1].map(|length| whole[..length].to_vec());
    for (case, damaged) in every.chain(cut).chain([longer]).enumerate() {
        fs::write(&file, &damaged).unwrap();
        let loads = dataset.loads();
        let loaded = load(&cache, &dataset, 0);
        assert_eq!((loaded.origin, dataset.loads()), (Origin::Dataset, loads + 1), "case {case}");
        assert!(loaded.trouble.unwrap().contains("loaded anew"));
        assert_eq!(fs::read(&file).unwrap(), whole, "case {case}");
    }
    assert_eq!(load(&cache, &dataset, 0).origin, Origin::Disk);
}

#[test]
fn the_files_take_no_more_than_the_budget_and_the_oldest_make_room() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = Counted::new(0.0);
    let budget = 2 * (BYTES + HEADER);
    let open = || DiskCache::open(folder.path(), budget).unwrap();
    for (id, age) in [(0, 200), (1, 100)] {
        load(&open(), &dataset, id);
        let newest = files(folder.path())
            .into_iter()
            .find(|file| Name::parse(file).unwrap().partition == PartitionId(id));
        let then = SystemTime::now() - Duration::from_secs(age);
        let file = File::options().append(true).open(newest.unwrap()).unwrap();
        file.set_modified(then).unwrap();
    }
    let third = open();
    assert_eq!(load(&third, &dataset, 2).trouble, None);
    let kept: Vec<u32> =
        files(folder.path()).iter().map(|file| Name::parse(file).unwrap().partition.0).collect();
    assert_eq!(kept, [1, 2]);
    assert!(bytes(folder.path()) <= budget);
    // What this job has used stays, so that it does not push out its own partitions in turn.
    load(&third, &dataset, 1);
    let trouble = load(&third, &dataset, 0).trouble.unwrap();
    assert!(trouble.contains("may be used"), "{trouble}");
    assert_eq!(files(folder.path()).len(), 2);
    third.begin();
    assert_eq!(load(&third, &dataset, 0).trouble, None, "another job may");
}

#[test]
fn data_that_were_prepared_anew_are_not_taken_for_the_old() {
    let folder = tempfile::tempdir().unwrap();
    let cache = cache(folder.path());
    load(&cache, &Counted::new(0.0), 0);
    assert_eq!(load(&cache, &Counted::new(1.0), 0).origin, Origin::Dataset);
    assert_eq!(load(&cache, &Counted::new(0.0), 0).origin, Origin::Disk);
}

#[test]
fn data_that_do_not_tell_when_they_change_are_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    let cache = cache(folder.path());
    let dataset = Counted { has_checksums: false, ..Counted::new(0.0) };
    for _ in 0..2 {
        assert_eq!(load(&cache, &dataset, 0).origin, Origin::Dataset);
    }
    assert_eq!(files(folder.path()).len(), 0);
}

#[test]
fn a_disk_that_takes_nothing_more_stops_nothing_and_is_told_of() {
    let folder = tempfile::tempdir().unwrap();
    let cache = cache(folder.path());
    // The cache's folder becomes a file while the worker runs.
    fs::remove_dir(folder.path()).unwrap();
    fs::write(folder.path(), "").unwrap();
    let loaded = load(&cache, &Counted::new(0.0), 0);
    assert_eq!(loaded.origin, Origin::Dataset);
    assert!(loaded.trouble.unwrap().contains("cannot be kept"));
    fs::remove_file(folder.path()).unwrap();
    fs::create_dir(folder.path()).unwrap();
}

#[test]
fn a_folder_that_cannot_be_used_is_refused_at_the_start() {
    let file = tempfile::NamedTempFile::new().unwrap();
    DiskCache::open(&file.path().join("below"), BYTES).unwrap_err();
}

#[test]
fn what_a_killed_process_left_unfinished_is_swept_away_but_not_what_is_being_written() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("0123456789abcdef");
    fs::create_dir(&inner).unwrap();
    let (old, new) = (inner.join(".tmpold"), inner.join(".tmpnew"));
    for path in [&old, &new] {
        fs::write(path, "half of a partition").unwrap();
    }
    let file = File::options().append(true).open(&old).unwrap();
    file.set_modified(SystemTime::now() - 2 * STALE).unwrap();
    cache(folder.path());
    assert!(!old.exists() && new.exists());
}
