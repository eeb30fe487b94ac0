//! [`DiskCache`]: partitions on a worker's disk, as many as a budget allows.
//!
//! A worker that is started again, or that is given another job on the same data, reads its
//! partitions from its own disk and not from where the data set is. Each is a file in the format
//! `safetensors` whose name says what it is: the partition, a digest of what the data set says of it
//! (so that data prepared anew are not taken for the old), and a digest of the file's own bytes (so
//! that a damaged file is noticed, deleted, and the partition loaded anew). Files appear under their
//! names when they are whole, so several workers of one machine may share a folder.
//!
//! Nothing here stops a run: whatever goes wrong with the cache, the partition comes from the data
//! set, and the reason is told.

mod file;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use cerebro_core::PartitionId;
use cerebro_core::data::{DataError, Dataset, Partition};
use xxhash_rust::xxh3::{Xxh3Default, xxh3_64};

use file::{Name, NotKept};

/// The file in each data set's folder that says which data set it is.
const URL: &str = "url";
/// What a process that was killed was writing begins with this, and is nobody's after `STALE`.
const UNFINISHED: &str = ".tmp";
const STALE: Duration = Duration::from_hours(1);
/// More than the header of any partition's file takes.
const HEADER: u64 = 16 << 10;

/// Partitions on disk.
#[derive(Debug)]
pub(super) struct DiskCache {
    folder: PathBuf,
    /// The bytes that files may take.
    budget: u64,
    /// Files that the job at hand has read or written: they are not deleted for others of it.
    used: Mutex<Vec<PathBuf>>,
}

/// A partition, and what the cache had to do with it.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) partition: Arc<dyn Partition>,
    pub(super) origin: Origin,
    /// What was wrong with the cache, if anything.
    pub(super) trouble: Option<String>,
}

impl Loaded {
    /// A partition that came from the data set, where there is no cache.
    pub(super) fn without_cache(partition: Arc<dyn Partition>) -> Self {
        Self { partition, origin: Origin::Dataset, trouble: None }
    }
}

/// Where a partition came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Disk,
    Dataset,
}

impl DiskCache {
    /// The cache in `folder`, which is made if it is not there; an error if nothing can be written
    /// there.
    pub(super) fn open(folder: &Path, budget: u64) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        tempfile::NamedTempFile::with_prefix_in(UNFINISHED, folder)?.close()?;
        let cache = Self { folder: folder.to_owned(), budget, used: Mutex::default() };
        cache.sweep();
        Ok(cache)
    }

    /// The partitions that are here, by the URL of their data set.
    pub(super) fn holdings(&self) -> BTreeMap<String, Vec<PartitionId>> {
        let folders = entries(&self.folder).filter(|path| path.is_dir());
        let holdings = folders.filter_map(|folder| {
            let url = fs::read_to_string(folder.join(URL)).ok()?;
            let names = entries(&folder).filter_map(|path| Name::parse(&path));
            Some((url, names.map(|name| name.partition).collect()))
        });
        holdings.collect()
    }

    /// The partition `id` of the data set that the driver calls `url`: from here if it is here,
    /// otherwise from the data set, and kept here if it can be.
    pub(super) fn load(
        &self,
        url: &str,
        dataset: &dyn Dataset,
        id: PartitionId,
    ) -> Result<Loaded, DataError> {
        let Some(content) = content(dataset, id) else {
            // Nobody could tell when it has changed.
            return dataset.load(id).map(Loaded::without_cache);
        };
        let folder = self.folder.join(format!("{:016x}", xxh3_64(url.as_bytes())));
        let mut trouble = None;
        let is_it = |name: &Name| name.partition == id && name.content == content;
        for path in entries(&folder) {
            let Some(name) = Name::parse(&path).filter(is_it) else { continue };
            match file::read(&path, name, dataset.tensors()) {
                Ok(partition) => {
                    self.use_now(&path);
                    let partition = Arc::new(partition);
                    return Ok(Loaded { partition, origin: Origin::Disk, trouble });
                }
                Err(unusable) => {
                    trouble = Some(format!("{}: {unusable}; it is loaded anew", path.display()));
                    // Otherwise it would take room for nothing; if that fails, it does.
                    let _ = fs::remove_file(&path);
                }
            }
        }
        let partition = dataset.load(id)?;
        if let Err(reason) = self.keep(url, &folder, &*partition, content) {
            trouble = Some(format!("{id} cannot be kept in {}: {reason}", folder.display()));
        }
        Ok(Loaded { partition, origin: Origin::Dataset, trouble })
    }

    fn keep(
        &self,
        url: &str,
        folder: &Path,
        partition: &dyn Partition,
        content: u64,
    ) -> Result<(), NotKept> {
        self.make_room(partition.bytes() as u64 + HEADER)?;
        fs::create_dir_all(folder)?;
        let marker = folder.join(URL);
        if !marker.exists() {
            fs::write(&marker, url)?;
        }
        let file = tempfile::NamedTempFile::with_prefix_in(UNFINISHED, folder)?.into_temp_path();
        file::write(partition, &file)?;
        let name = Name { partition: partition.id(), content, digest: file::digest(&file)? };
        let path = folder.join(name.file());
        file.persist(&path).map_err(|error| NotKept::Io(error.error))?;
        self.use_now(&path);
        Ok(())
    }

    /// Deletes the files that were not used for longest until `needed` more bytes fit.
    fn make_room(&self, needed: u64) -> Result<(), NotKept> {
        let used = self.used().clone();
        let mut files: Vec<(SystemTime, PathBuf, u64)> = entries(&self.folder)
            .filter(|path| path.is_dir())
            .flat_map(|folder| entries(&folder).collect::<Vec<_>>())
            .filter(|path| Name::parse(path).is_some())
            .filter_map(|path| {
                let about = path.metadata().ok()?;
                Some((about.modified().ok()?, path, about.len()))
            })
            .collect();
        let mut taken: u64 = files.iter().map(|(_, _, bytes)| bytes).sum();
        files.retain(|(_, path, _)| !used.contains(path));
        files.sort();
        for (_, path, bytes) in files {
            if taken + needed <= self.budget {
                break;
            }
            if fs::remove_file(&path).is_ok() {
                taken -= bytes;
            }
        }
        if taken + needed > self.budget {
            return Err(NotKept::NoRoom { needed, budget: self.budget, taken });
        }
        Ok(())
    }

    /// Notes that a file was used, for this process and for those that come after it.
    fn use_now(&self, path: &Path) {
        let mut used = self.used();
        if !used.iter().any(|known| known == path) {
            used.push(path.to_owned());
        }
        drop(used);
        // Where it fails, the file only seems older than it is.
        let _ =
            File::options().append(true).open(path).and_then(|f| f.set_modified(SystemTime::now()));
    }

    /// From here on the files of the job before may be deleted.
    pub(super) fn begin(&self) {
        self.used().clear();
    }

    fn used(&self) -> MutexGuard<'_, Vec<PathBuf>> {
        // Nothing panics while it holds the lock.
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Deletes what processes that were killed have left behind.
    fn sweep(&self) {
        let folders = entries(&self.folder).filter(|path| path.is_dir());
        let left = folders.chain([self.folder.clone()]).flat_map(|folder| entries(&folder)).filter(
            |path| {
                let name = path.file_name().and_then(|name| name.to_str());
                let age = path.metadata().and_then(|about| about.modified());
                name.is_some_and(|name| name.starts_with(UNFINISHED))
                    && age.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > STALE))
            },
        );
        for path in left {
            let _ = fs::remove_file(path);
        }
    }
}

/// What is in a folder; nothing if it cannot be read.
fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    fs::read_dir(folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()))
}

/// A digest of what the data set says of the partition's rows, if it says anything.
fn content(dataset: &dyn Dataset, id: PartitionId) -> Option<u64> {
    let mut hash = Xxh3Default::new();
    hash.update(dataset.checksum(id)?.as_bytes());
    for spec in dataset.tensors() {
        hash.update(spec.to_string().as_bytes());
    }
    Some(hash.digest())
}

#[cfg(test)]
mod tests;
