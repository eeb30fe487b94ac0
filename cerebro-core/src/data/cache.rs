//! [`PartitionCache`]: partitions in memory, as many as a budget allows.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::{DataError, Dataset, Partition, PartitionInfo, TensorSpec};
use crate::id::PartitionId;

/// A data set that keeps loaded partitions in memory, within a budget of bytes.
///
/// It is a [`Dataset`] itself, so whatever loads partitions can be given one. Threads may share it:
///
/// - A partition that several threads ask for at once is loaded once.
/// - A partition that someone still uses is never loaded again, nor evicted.
/// - To make room, whole partitions are evicted, the least recently asked for first, before
///   another is loaded.
/// - A partition that does not fit beside those in use (or is larger than the budget) is loaded all
///   the same, shared while it is used, and freed after that. So the cache by itself never holds
///   more than its budget, and a budget of 0 keeps nothing.
///
/// ```
/// use std::sync::Arc;
/// use cerebro_core::data::{Dataset, MemoryDataset, MemoryPartition, PartitionCache};
/// use cerebro_core::{PartitionId, Split};
/// use ndarray::Array1;
/// let rows = Array1::<f32>::zeros(1000).into_dyn();
/// let partition = MemoryPartition::new(PartitionId(0), [("x", rows.into())])?;
/// let dataset = MemoryDataset::new([(Split::Train, partition)])?;
/// let cache = PartitionCache::new(Arc::new(dataset), 1 << 20);
/// let first = cache.load(PartitionId(0))?;
/// let again = cache.load(PartitionId(0))?;
/// assert!(Arc::ptr_eq(&first, &again));
/// assert_eq!(cache.usage().loads, 1);
/// # Ok::<(), cerebro_core::data::DataError>(())
/// ```
#[derive(Debug)]
pub struct PartitionCache {
    dataset: Arc<dyn Dataset>,
    budget: u64,
    contents: Mutex<Contents>,
    loaded: Condvar,
}

/// What a cache holds and did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheUsage {
    /// The bytes of the partitions that it keeps, and of those that are being loaded to be kept.
    pub bytes: u64,
    /// The partitions that were loaded.
    pub loads: u64,
    /// The times that a partition was in memory when it was asked for.
    pub hits: u64,
    /// The partitions that were evicted.
    pub evictions: u64,
}

#[derive(Debug, Default)]
struct Contents {
    slots: HashMap<PartitionId, Slot>,
    /// Counts requests; the number of its last one says how recently a partition was used.
    requests: u64,
    usage: CacheUsage,
}

#[derive(Debug)]
enum Slot {
    Loading,
    Kept {
        partition: Arc<dyn Partition>,
        bytes: u64,
        last_request: u64,
    },
    /// Did not fit; there as long as someone uses it.
    Passing(Weak<dyn Partition>),
}

impl PartitionCache {
    /// A cache of at most `budget` bytes over `dataset`.
    pub fn new(dataset: Arc<dyn Dataset>, budget: u64) -> Self {
        Self { dataset, budget, contents: Mutex::default(), loaded: Condvar::new() }
    }

    /// What it holds and did so far.
    pub fn usage(&self) -> CacheUsage {
        self.lock().usage
    }

    /// The partition, and how long it took to load if it was not in memory.
    pub fn fetch(
        &self,
        id: PartitionId,
    ) -> Result<(Arc<dyn Partition>, Option<Duration>), DataError> {
        if let Some(partition) = self.find_or_reserve(id) {
            return Ok((partition, None));
        }
        let mut reservation = Reservation { cache: self, id, kept_bytes: None, partition: None };
        let info = self.partitions().iter().find(|info| info.id == id);
        let bytes = info.ok_or(DataError::NoSuchPartition { partition: id })?.bytes;
        let fits = self.lock().make_room(bytes, self.budget);
        reservation.kept_bytes = fits.then_some(bytes);
        let begun = Instant::now();
        let partition = self.dataset.load(id)?;
        self.lock().usage.loads += 1;
        reservation.partition = Some(Arc::clone(&partition));
        Ok((partition, Some(begun.elapsed())))
    }

    fn lock(&self) -> MutexGuard<'_, Contents> {
        // The contents are consistent between any two statements, so a panic elsewhere is no harm.
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The partition if it is in memory; otherwise the caller must load it, and has the slot.
    fn find_or_reserve(&self, id: PartitionId) -> Option<Arc<dyn Partition>> {
        let mut contents = self.lock();
        while let Some(Slot::Loading) = contents.slots.get(&id) {
            contents = self.loaded.wait(contents).unwrap_or_else(PoisonError::into_inner);
        }
        let found = contents.find(id);
        if found.is_none() {
            contents.slots.insert(id, Slot::Loading);
        }
        found
    }
}

impl Contents {
    fn find(&mut self, id: PartitionId) -> Option<Arc<dyn Partition>> {
        self.requests += 1;
        let found = match self.slots.get_mut(&id)? {
            Slot::Loading => None,
            Slot::Kept { partition, last_request, .. } => {
                *last_request = self.requests;
                Some(Arc::clone(partition))
            }
            Slot::Passing(partition) => partition.upgrade(),
        };
        self.usage.hits += u64::from(found.is_some());
        found
    }

    /// Evicts what is not in use until `bytes` more fit; says whether they do, and counts them in.
    fn make_room(&mut self, bytes: u64, budget: u64) -> bool {
        // Evicting for what can never fit would only empty the cache.
        if bytes > budget {
            return false;
        }
        while self.usage.bytes + bytes > budget {
            let unused = self.slots.iter().filter_map(|(&id, slot)| match slot {
                Slot::Kept { partition, last_request, bytes } => {
                    // Others get theirs from this one, under the lock that is held now.
                    (Arc::strong_count(partition) == 1).then_some((*last_request, id, *bytes))
                }
                Slot::Loading | Slot::Passing(_) => None,
            });
            let Some((_, id, freed)) = unused.min() else { return false };
            self.slots.remove(&id);
            self.usage.bytes -= freed;
            self.usage.evictions += 1;
        }
        self.usage.bytes += bytes;
        true
    }
}

/// A slot that is being loaded. Dropped without a partition (by an error or a panic), it is free
/// again, and one of those who wait loads in turn.
struct Reservation<'a> {
    cache: &'a PartitionCache,
    id: PartitionId,
    /// The bytes that were counted in, if the partition is to be kept.
    kept_bytes: Option<u64>,
    partition: Option<Arc<dyn Partition>>,
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        let mut contents = self.cache.lock();
        let slot = match (self.partition.take(), self.kept_bytes) {
            (Some(partition), Some(bytes)) => {
                Some(Slot::Kept { partition, bytes, last_request: contents.requests })
            }
            (Some(partition), None) => Some(Slot::Passing(Arc::downgrade(&partition))),
            (None, kept_bytes) => {
                contents.usage.bytes -= kept_bytes.unwrap_or(0);
                None
            }
        };
        match slot {
            Some(slot) => contents.slots.insert(self.id, slot),
            None => contents.slots.remove(&self.id),
        };
        self.cache.loaded.notify_all();
    }
}

impl Dataset for PartitionCache {
    fn partitions(&self) -> &[PartitionInfo] {
        self.dataset.partitions()
    }

    fn tensors(&self) -> &[TensorSpec] {
        self.dataset.tensors()
    }

    fn checksum(&self, id: PartitionId) -> Option<String> {
        self.dataset.checksum(id)
    }

    fn load(&self, id: PartitionId) -> Result<Arc<dyn Partition>, DataError> {
        self.fetch(id).map(|(partition, _)| partition)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicU32, Ordering};

    use ndarray::ArrayD;

    use super::*;
    use crate::data::{MemoryDataset, MemoryPartition};
    use crate::id::Split;

    const BYTES: u64 = 400;

    /// Four partitions of 400 bytes, made anew on each load, and a count of the loads.
    #[derive(Debug)]
    struct Counted {
        dataset: MemoryDataset,
        loads: [AtomicU32; 4],
        failures_left: AtomicU32,
        /// Lets a load wait for another thread.
        meeting: Option<Barrier>,
    }

    impl Counted {
        fn new() -> Self {
            let partition = |id| {
                let rows = ArrayD::<f32>::zeros(vec![100]);
                let partition = MemoryPartition::new(PartitionId(id), [("x", rows.into())]);
                (Split::Train, partition.unwrap())
            };
            Self {
                dataset: MemoryDataset::new((0..4).map(partition)).unwrap(),
                loads: Default::default(),
                failures_left: AtomicU32::new(0),
                meeting: None,
            }
        }

        fn loads(&self) -> [u32; 4] {
            [0, 1, 2, 3].map(|id: usize| self.loads[id].load(Ordering::SeqCst))
        }
    }

    impl Dataset for Counted {
        fn partitions(&self) -> &[PartitionInfo] {
            self.dataset.partitions()
        }

        fn tensors(&self) -> &[TensorSpec] {
            self.dataset.tensors()
        }

        fn load(&self, id: PartitionId) -> Result<Arc<dyn Partition>, DataError> {
            self.loads[id.0 as usize].fetch_add(1, Ordering::SeqCst);
            if let Some(meeting) = &self.meeting {
                meeting.wait();
            }
            let fails = |left: u32| left.checked_sub(1);
            if self.failures_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fails).is_ok() {
                return Err(DataError::EmptyPartition { partition: id });
            }
            let rows = ArrayD::<f32>::zeros(vec![100]);
            Ok(Arc::new(MemoryPartition::new(id, [("x", rows.into())])?))
        }
    }

    fn cached(counted: Counted, budget: u64) -> (Arc<Counted>, PartitionCache) {
        let counted = Arc::new(counted);
        (Arc::clone(&counted), PartitionCache::new(counted, budget))
    }

    fn load(cache: &PartitionCache, id: u32) -> Arc<dyn Partition> {
        cache.load(PartitionId(id)).unwrap()
    }

    #[test]
    fn the_least_recently_used_partition_makes_room() {
        let (counted, cache) = cached(Counted::new(), 2 * BYTES);
        for id in [0, 1, 0, 2, 0, 1] {
            load(&cache, id);
            assert!(cache.usage().bytes <= 2 * BYTES);
        }
        // 2 replaced 1, which had to be loaded again; 0 was used in between each time.
        assert_eq!(counted.loads(), [1, 2, 1, 0]);
        let usage = CacheUsage { bytes: 2 * BYTES, loads: 4, hits: 2, evictions: 2 };
        assert_eq!(cache.usage(), usage);
    }

    #[test]
    fn a_partition_in_use_is_neither_evicted_nor_loaded_again() {
        let (counted, cache) = cached(Counted::new(), BYTES);
        let used = load(&cache, 0);
        let passing = load(&cache, 1);
        assert!(Arc::ptr_eq(&used, &load(&cache, 0)));
        assert!(Arc::ptr_eq(&passing, &load(&cache, 1)));
        assert_eq!(counted.loads(), [1, 1, 0, 0]);
        drop((used, passing));
        load(&cache, 1);
        assert_eq!(counted.loads(), [1, 2, 0, 0], "1 did not fit beside 0, so it was not kept");
        load(&cache, 1);
        assert_eq!(counted.loads(), [1, 2, 0, 0], "but it is, once 0 can be evicted");
    }

    #[test]
    fn a_partition_larger_than_the_budget_is_shared_but_not_kept() {
        let (counted, cache) = cached(Counted::new(), BYTES - 1);
        let used = load(&cache, 0);
        assert!(Arc::ptr_eq(&used, &load(&cache, 0)));
        assert_eq!(cache.usage().bytes, 0);
        drop(used);
        load(&cache, 0);
        assert_eq!(counted.loads(), [2, 0, 0, 0]);
    }

    #[test]
    fn threads_that_ask_for_one_partition_at_once_share_one_load() {
        // Of five threads that start together one loads, while this one meets it in the load.
        let counted = Counted { meeting: Some(Barrier::new(2)), ..Counted::new() };
        let (counted, cache) = cached(counted, 0);
        let start = Barrier::new(5);
        let partitions: Vec<_> = std::thread::scope(|scope| {
            let ask = || {
                start.wait();
                load(&cache, 0)
            };
            let threads: Vec<_> = (0..5).map(|_| scope.spawn(ask)).collect();
            counted.meeting.as_ref().unwrap().wait();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(counted.loads(), [1, 0, 0, 0]);
        assert!(partitions.iter().all(|partition| Arc::ptr_eq(partition, &partitions[0])));
    }

    #[test]
    fn different_partitions_load_at_the_same_time() {
        // Both loads must be under way before either can end.
        let counted = Counted { meeting: Some(Barrier::new(2)), ..Counted::new() };
        let (counted, cache) = cached(counted, 4 * BYTES);
        std::thread::scope(|scope| {
            scope.spawn(|| load(&cache, 0));
            scope.spawn(|| load(&cache, 1));
        });
        assert_eq!(counted.loads(), [1, 1, 0, 0]);
    }

    #[test]
    fn after_a_failed_load_the_next_request_tries_again() {
        let counted = Counted { failures_left: AtomicU32::new(1), ..Counted::new() };
        let (counted, cache) = cached(counted, BYTES);
        cache.load(PartitionId(0)).unwrap_err();
        assert_eq!(cache.usage().bytes, 0);
        load(&cache, 0);
        load(&cache, 0);
        assert_eq!(counted.loads(), [2, 0, 0, 0]);
    }

    #[test]
    fn a_partition_that_does_not_exist_is_an_error_each_time() {
        let (_, cache) = cached(Counted::new(), BYTES);
        for _ in 0..2 {
            let error = cache.load(PartitionId(9)).unwrap_err();
            assert!(matches!(error, DataError::NoSuchPartition { partition: PartitionId(9) }));
        }
    }
}
