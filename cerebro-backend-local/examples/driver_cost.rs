//! What the driver itself costs, per event and per trial, with thousands of trials.
//!
//! `cargo run --release -p cerebro-backend-local --example driver_cost -- 10000` runs so many trials
//! of one to three epochs by asynchronous halving, in a store, on workers that do nothing: all the time is the
//! driver's, the scheduler's, the search's and the journal's. It is to stay under 1 ms per event,
//! and to need less than 4 KiB of memory per trial. With `memory` behind the number there is no store.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use cerebro_core::backend::{
    BackendError, Job, UnitError, UnitOrder, UnitReport, WorkerEvent, WorkerInfo,
};
use cerebro_core::experiment::Experiment;
use cerebro_core::observe::Event;
use cerebro_core::search::{Asha, Random, Rungs};
use cerebro_core::testing::{self, Tally};
use cerebro_core::{
    Backend, Config, Device, Metrics, Model, Objective, PartitionId, Seed, Slot, Space, Split,
    State, Statistic, TrialId, WorkerId,
};
use futures::StreamExt;
use futures::stream::{self, BoxStream};

/// Workers that have done everything as soon as they are asked.
#[derive(Debug)]
struct Idle;

#[async_trait]
impl Backend for Idle {
    async fn start(&self, job: Job) -> Result<Vec<WorkerInfo>, BackendError> {
        let partitions: Vec<PartitionId> =
            job.dataset.partitions().iter().map(|info| info.id).collect();
        let worker = |id| WorkerInfo {
            id: WorkerId(id),
            name: format!("idle {id}"),
            slots: 1,
            device: Device::Cpu,
            partitions: partitions.clone(),
        };
        Ok((0..8).map(worker).collect())
    }

    async fn run(&self, order: UnitOrder) -> Result<UnitReport, UnitError> {
        let mut metrics = Metrics::new();
        let rate = order.config.float("rate").unwrap_or_default();
        metrics.record("loss", Statistic::mean(rate, 1));
        let trains = order.unit.split == Split::Train;
        Ok(UnitReport {
            metrics,
            rows: 1,
            version: order.version + u64::from(trains),
            state_bytes: 8,
            occupied: Duration::from_millis(1),
            computed: Duration::from_millis(1),
        })
    }

    async fn state(&self, _: TrialId, version: u64) -> Result<State, BackendError> {
        Ok(version.to_le_bytes().to_vec().into())
    }

    async fn install(&self, _: TrialId, _: u64, _: State) -> Result<(), BackendError> {
        Ok(())
    }

    async fn release(&self, _: TrialId, _: u64, _: &[u64]) {}

    fn events(&self) -> BoxStream<'static, WorkerEvent> {
        stream::pending().boxed()
    }

    async fn shutdown(&self) -> Result<(), BackendError> {
        Ok(())
    }
}

/// The memory that the process has, in bytes, where the system says so.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let trials: u64 = arguments.next().map_or(Ok(10_000), |text| text.parse())?;
    let stored = arguments.next().is_none_or(|text| text != "memory");
    let space = Space::builder().uniform("rate", 0.0, 1.0).build()?;
    let folder = tempfile::tempdir()?;
    let events = Arc::new(AtomicU64::new(0));
    let (counted, begun) = (Arc::clone(&events), Instant::now());
    let mut started = 0;
    let mut last = (0, begun.elapsed());
    let quarter = (trials / 4).max(1);
    let before = resident();
    let mut builder = Experiment::builder()
        .dataset(testing::dataset(4, 1))
        .model(|config: &Config, _: &Slot| Ok(Box::new(Tally::new(config)?) as Box<dyn Model>))
        .search(Asha::new(Random::new(&space, trials, Seed(1))?, Rungs::new(1, 3, 3)?))
        .objective(Objective::minimize("loss"))
        .epochs(3)
        .observer(move |_: Duration, event: &Event| {
            let events = counted.fetch_add(1, Ordering::Relaxed) + 1;
            if let Event::TrialStarted { .. } = event {
                started += 1;
                if started % quarter == 0 {
                    let now = begun.elapsed();
                    let each = now.saturating_sub(last.1).as_secs_f64() / (events - last.0) as f64;
                    println!("{started} trials: {:.1} us per event lately", each * 1e6);
                    last = (events, now);
                }
            }
        });
    if stored {
        builder = builder.store(folder.path().join("store"));
    }
    let result = builder.build()?.run_blocking(Arc::new(Idle))?;
    let (took, events) = (begun.elapsed(), events.load(Ordering::Relaxed));
    println!(
        "{events} events in {:.1} s: {:.1} us per event",
        took.as_secs_f64(),
        took.as_secs_f64() * 1e6 / events as f64
    );
    if let (Some(before), Some(after)) = (before, resident()) {
        let grown = after.saturating_sub(before);
        println!("{grown} bytes more memory: {} per trial", grown / trials);
    }
    assert_eq!(result.trials().count() as u64, trials);
    Ok(())
}
