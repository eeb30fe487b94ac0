//! How many decisions does the scheduler make in a second? One decision: a unit completes, its
//! slot is given another. From a quickstart to 10,000 trials on 1,000 workers. And how long is a whole
//! simulated run, per unit, as it grows from ten thousand units to a million?

use std::collections::VecDeque;
use std::time::Duration;

use cerebro_core::schedule::{Assignment, PartitionSpec, Policy, Scheduler, TrialSpec, WorkerSpec};
use cerebro_core::simulate::Uniform;
use cerebro_core::{PartitionId, Seed, Split, TrialId, WorkerId};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const SECOND: Duration = Duration::from_secs(1);

/// A cluster at work: `partitions` are dealt out to `workers`, every slot has a unit.
struct Cluster {
    scheduler: Scheduler,
    running: VecDeque<Assignment>,
    now: Duration,
}

impl Cluster {
    fn new(trials: u64, partitions: u32, workers: u32) -> Self {
        let specs: Vec<PartitionSpec> = (0..partitions)
            .map(|id| PartitionSpec { id: PartitionId(id), split: Split::Train, rows: 1000 })
            .collect();
        let mut scheduler = Scheduler::new(Policy::default(), Seed(1), &specs).expect("partitions");
        for id in 0..workers {
            let held = (0..partitions).filter(|partition| partition % workers == id);
            let partitions = held.map(PartitionId).collect();
            let spec = WorkerSpec { id: WorkerId(id), slots: 1, partitions };
            scheduler.worker_joined(&spec).expect("a new worker");
        }
        for id in 0..trials {
            // More epochs than any benchmark trains.
            let spec = TrialSpec::new(TrialId(id), u32::MAX);
            scheduler.add_trial(&spec).expect("a new trial");
        }
        let running = scheduler.assign(Duration::ZERO).into();
        Self { scheduler, running, now: Duration::ZERO }
    }

    fn decide(&mut self) {
        self.now += SECOND;
        let Assignment { unit, worker, .. } = self.running.pop_front().expect("units run");
        self.scheduler.completed(unit, worker, SECOND).expect("it ran");
        self.running.extend(self.scheduler.assign(self.now));
    }
}

fn decisions(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("scheduler decisions");
    group.throughput(Throughput::Elements(1)).sample_size(20);
    for (trials, partitions, workers) in [(24, 4, 2), (1000, 100, 100), (10_000, 1000, 1000)] {
        let mut cluster = Cluster::new(trials, partitions, workers);
        let size = format!("{trials} trials x {partitions} partitions x {workers} workers");
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter(|| cluster.decide());
        });
    }
    group.finish();
}

fn whole_runs(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("simulated runs");
    group.sample_size(10);
    for (trials, epochs) in [(100, 1), (1000, 1), (1000, 10), (10_000, 1)] {
        let job = Uniform { trials, partitions: 100, workers: 100, epochs, ..Uniform::default() };
        let plan = job.plan(Seed(1));
        let units = trials as u64 * 100 * u64::from(epochs);
        group.throughput(Throughput::Elements(units));
        let size = format!("{trials} trials x 100 partitions x {epochs} epochs");
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter(|| plan.run(|_| ()).expect("a plan that can be run"));
        });
    }
    group.finish();
}

criterion_group!(benches, decisions, whole_runs);
criterion_main!(benches);
