//! Slow workers, as the scheduler finds them: said once, and again when another takes their place.

use std::time::Duration;

use cerebro_core::schedule::{
    Assignment, PartitionSpec, Policy, Scheduler, Straggler, TrialSpec, WorkerSpec,
};
use cerebro_core::{PartitionId, Seed, Split, TrialId, WorkerId};

const PARTITIONS: u32 = 6;
const SECOND: Duration = Duration::from_secs(1);

/// Workers that all hold everything and take a second for each unit, or a multiple of it.
struct Cluster {
    scheduler: Scheduler,
    slowness: Vec<(WorkerId, u32)>,
    running: Vec<(Duration, Assignment)>,
    now: Duration,
    units: Vec<WorkerId>,
}

impl Cluster {
    fn new(slowness: &[u32]) -> Self {
        let partition = |id| PartitionSpec { id: PartitionId(id), split: Split::Train, rows: 100 };
        let partitions: Vec<PartitionSpec> = (0..PARTITIONS).map(partition).collect();
        let scheduler = Scheduler::new(Policy::default(), Seed(1), &partitions).unwrap();
        let mut cluster = Self {
            scheduler,
            slowness: Vec::new(),
            running: Vec::new(),
            now: Duration::ZERO,
            units: Vec::new(),
        };
        for (id, &slowness) in (0..).zip(slowness) {
            cluster.join(WorkerId(id), slowness);
        }
        for id in 0..6 {
            cluster.scheduler.add_trial(&TrialSpec::new(TrialId(id), 1000)).unwrap();
        }
        cluster
    }

    fn join(&mut self, id: WorkerId, slowness: u32) {
        let partitions = (0..PARTITIONS).map(PartitionId).collect();
        let spec = WorkerSpec { id, slots: 1, partitions };
        self.scheduler.worker_joined(&spec).unwrap();
        self.slowness.push((id, slowness));
    }

    fn lose(&mut self, id: WorkerId) {
        self.scheduler.worker_lost(id);
        self.slowness.retain(|(other, _)| *other != id);
        self.running.retain(|(_, start)| start.worker != id);
    }

    /// Lets so many units complete; what is said of slow workers after each.
    fn run(&mut self, units: usize) -> Vec<Straggler> {
        let mut said = Vec::new();
        for _ in 0..units {
            for start in self.scheduler.assign(self.now) {
                let (_, slowness) =
                    self.slowness.iter().find(|(id, _)| *id == start.worker).unwrap();
                self.running.push((self.now + SECOND * *slowness, start));
            }
            let next = (0..self.running.len()).min_by_key(|&at| self.running[at].0).unwrap();
            let (end, Assignment { unit, worker, .. }) = self.running.remove(next);
            self.now = end;
            let (_, slowness) = self.slowness.iter().find(|(id, _)| *id == worker).unwrap();
            self.scheduler.completed(unit, worker, SECOND * *slowness).unwrap();
            self.units.push(worker);
            said.extend(self.scheduler.new_stragglers());
        }
        said
    }
}

fn workers(said: &[Straggler]) -> Vec<WorkerId> {
    said.iter().map(|straggler| straggler.worker).collect()
}

#[test]
fn a_slow_worker_is_said_once_and_gets_fewer_units() {
    let mut cluster = Cluster::new(&[1, 1, 4, 1]);
    let said = cluster.run(400);
    assert_eq!(workers(&said), [WorkerId(2)]);
    assert!(said[0].factor >= 2.0);
    let units = |id| cluster.units.iter().filter(|&&worker| worker == WorkerId(id)).count();
    assert!(units(2) * 3 < units(0), "{} and {}", units(2), units(0));
}

#[test]
fn workers_that_are_alike_are_never_said_to_be_slow() {
    assert_eq!(Cluster::new(&[1, 1, 1]).run(300), []);
    assert_eq!(Cluster::new(&[3]).run(100), [], "nobody to compare it with");
}

#[test]
fn a_slow_worker_that_is_lost_and_comes_back_is_measured_anew_and_said_again() {
    let mut cluster = Cluster::new(&[1, 4, 1]);
    assert_eq!(workers(&cluster.run(200)), [WorkerId(1)]);
    cluster.lose(WorkerId(1));
    assert_eq!(cluster.run(100), [], "the others are alike");
    // The same machine under a new name.
    cluster.join(WorkerId(7), 4);
    assert_eq!(workers(&cluster.run(200)), [WorkerId(7)]);
    // And one that was mended.
    cluster.lose(WorkerId(7));
    cluster.join(WorkerId(8), 1);
    assert_eq!(cluster.run(200), []);
}
