//! The job at hand: the model's builder, the data set, and the partitions in memory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use cerebro_core::data::{Dataset, Partition};
use cerebro_core::{ModelBuilder, PartitionId};

use super::Worker;
use super::disk::Loaded;
use crate::bulk::Source;
use crate::protocol::{self, Wanted, wanted};
use crate::security::DRIVER;
use crate::wire::{catalogue_digest, chain, nanoseconds};

/// The job of the last session; the next one most often wants the same.
#[derive(Default)]
pub(super) struct Jobs(Mutex<Option<Arc<Job>>>);

pub(super) struct Job {
    asked: protocol::Job,
    pub(super) builder: Arc<dyn ModelBuilder>,
    dataset: Arc<dyn Dataset>,
    partitions: Mutex<HashMap<PartitionId, Arc<dyn Partition>>>,
}

impl Jobs {
    pub(super) fn current(&self) -> Option<Arc<Job>> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Job>>> {
        // Nothing panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Job {
    /// The data set's URL, as the driver gave it.
    pub(super) fn data(&self) -> &str {
        &self.asked.data
    }

    pub(super) fn loaded(&self) -> Vec<PartitionId> {
        self.lock().keys().copied().collect()
    }

    /// How many partitions are in memory, and their bytes.
    pub(super) fn size(&self) -> (usize, usize) {
        let partitions = self.lock();
        (partitions.len(), partitions.values().map(|partition| partition.bytes()).sum())
    }

    pub(super) fn partition(&self, id: PartitionId) -> Option<Arc<dyn Partition>> {
        self.lock().get(&id).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PartitionId, Arc<dyn Partition>>> {
        // Nothing panics while it holds the lock.
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes ready for a job, unless it is the one at hand; says why it cannot.
pub(super) async fn prepare(worker: &Arc<Worker>, asked: protocol::Job) -> Result<(), String> {
    if worker.jobs.current().is_some_and(|job| job.asked == asked) {
        return Ok(());
    }
    // What the job before held is freed before this one needs the memory.
    worker.jobs.lock().take();
    if let Some(cache) = &worker.cache {
        cache.begin();
    }
    let source = Source { address: worker.options.driver.clone(), role: DRIVER };
    let wanted = Wanted { what: Some(wanted::What::Blueprint(asked.blueprint)) };
    let limit = worker.options.most_state_bytes;
    let blueprint = worker.fetcher.fetch([source], &wanted, limit).await;
    let blueprint = blueprint.map_err(|reason| format!("fetching the model: {reason}"))?.state;
    let preparing = Arc::clone(worker);
    let job = tokio::task::spawn_blocking(move || {
        let builder = preparing.registry.make(&asked.model, &blueprint.to_vec())?;
        let url = preparing.options.data.as_deref().unwrap_or(&asked.data);
        let dataset = preparing.registry.open(url)?;
        if catalogue_digest(dataset.partitions()) != asked.catalogue {
            return Err(format!(
                "the data set at `{url}` has other partitions than the driver's: it was prepared \
                 anew, or is another one"
            ));
        }
        Ok(Job { asked, builder, dataset, partitions: Mutex::default() })
    });
    let job = job.await.map_err(|panic| format!("the worker's registry panicked: {panic}"))??;
    *worker.jobs.lock() = Some(Arc::new(job));
    Ok(())
}

/// Reads a partition into memory, unless it is there.
pub(super) async fn load(
    worker: &Worker,
    id: PartitionId,
) -> Result<protocol::PartitionLoaded, String> {
    let job = worker.jobs.current().ok_or("there is no job")?;
    let begun = Instant::now();
    let (partition, trouble) = if let Some(partition) = job.partition(id) {
        (partition, None)
    } else {
        let (loading, cache) = (Arc::clone(&job), worker.cache.clone());
        let read = move || match cache {
            Some(cache) => cache.load(loading.data(), &*loading.dataset, id),
            None => loading.dataset.load(id).map(Loaded::without_cache),
        };
        let loaded = tokio::task::spawn_blocking(read).await;
        let loaded = loaded.map_err(|panic| format!("the data set panicked: {panic}"))?;
        let loaded = loaded.map_err(|error| chain(&error))?;
        if let Some(trouble) = &loaded.trouble {
            worker.metrics.cache_troubles.inc();
            tracing::warn!(partition = %id, trouble, "the cache on disk");
        }
        worker.metrics.partition(loaded.origin);
        tracing::debug!(partition = %id, origin = ?loaded.origin, "loaded");
        (loaded.partition, loaded.trouble)
    };
    job.lock().insert(id, Arc::clone(&partition));
    Ok(protocol::PartitionLoaded {
        partition: id.0,
        rows: partition.rows() as u64,
        bytes: partition.bytes() as u64,
        took_nanoseconds: nanoseconds(begun.elapsed()),
        trouble: trouble.unwrap_or_default(),
    })
}
