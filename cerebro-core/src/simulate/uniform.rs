//! Plans from a few numbers.

use std::time::Duration;

use super::plan::{KnownCosts, Plan, SimulatedPartition, SimulatedTrial, SimulatedWorker};
use crate::id::Split;
use crate::schedule::Policy;
use crate::seed::Seed;

/// Rows of an average partition.
const ROWS: f64 = 1000.0;

/// A plan by its numbers alone: trials with lognormal unit times on a cluster of like workers.
#[derive(Clone, Debug)]
pub struct Uniform {
    /// Trials.
    pub trials: usize,
    /// Training partitions.
    pub partitions: usize,
    /// Validation partitions.
    pub validation_partitions: usize,
    /// Workers.
    pub workers: usize,
    /// Slots of each worker.
    pub slots: usize,
    /// Workers that hold each partition: those after its first holder, in a ring.
    pub replicas: usize,
    /// Epochs of each trial.
    pub epochs: u32,
    /// Median time of one training unit.
    pub unit: Duration,
    /// Standard deviation of the logarithm of the trials' unit times.
    pub sigma: f64,
    /// Standard deviation of the logarithm of the partitions' rows.
    pub size_sigma: f64,
    /// Standard deviation of the logarithm of the workers' slowness.
    pub slowness_sigma: f64,
    /// What the workers' slowness is multiplied by, in turn; 1 where there is nothing.
    pub slowness: Vec<f64>,
    /// Standard deviation of the logarithm of a unit's time about its mean.
    pub jitter: f64,
    /// The chance that a unit takes [`STRAGGLING`](super::STRAGGLING) times as long as it should.
    pub straggler_rate: f64,
    /// A unit that takes so many times as long as expected runs a second time, on an idle worker.
    pub speculation: Option<f64>,
    /// The chance that a unit fails.
    pub failure_rate: f64,
    /// Bytes of a State.
    pub state_bytes: u64,
    /// Bytes per second at which a State hops; hops take no time if there is none.
    pub bandwidth: Option<f64>,
    /// What the scheduler knows of costs before it has measured any.
    pub costs: KnownCosts,
    /// How the scheduler chooses.
    pub policy: Policy,
}

impl Default for Uniform {
    fn default() -> Self {
        Self {
            trials: 16,
            partitions: 8,
            validation_partitions: 0,
            workers: 8,
            slots: 1,
            replicas: 1,
            epochs: 1,
            unit: Duration::from_secs(1),
            sigma: 0.3,
            size_sigma: 0.0,
            slowness_sigma: 0.0,
            slowness: Vec::new(),
            jitter: 0.0,
            straggler_rate: 0.0,
            speculation: None,
            failure_rate: 0.0,
            state_bytes: 0,
            bandwidth: None,
            costs: KnownCosts::Ratios,
            policy: Policy::default(),
        }
    }
}

impl Uniform {
    /// The plan; `seed` draws the trials, the partitions and the workers.
    ///
    /// Partitions are dealt out to the workers in turn, validation after training.
    pub fn plan(&self, seed: Seed) -> Plan {
        let lognormal = |sigma: f64, name: &str| {
            let mut rng = seed.derive(name, &[]).rng();
            move || (sigma * rng.normal()).exp()
        };
        let mut size = lognormal(self.size_sigma, "partition sizes");
        let mut slowness = lognormal(self.slowness_sigma, "worker slowness");
        let mut cost = lognormal(self.sigma, "trial costs");

        let partitions: Vec<SimulatedPartition> = (0..self.partitions + self.validation_partitions)
            .map(|number| SimulatedPartition {
                split: if number < self.partitions { Split::Train } else { Split::Validation },
                rows: (ROWS * size()).round().max(1.0) as u64,
            })
            .collect();
        let turns = self.slowness.len().max(1);
        let mut workers: Vec<SimulatedWorker> = (0..self.workers)
            .map(|worker| SimulatedWorker {
                slots: self.slots,
                slowness: slowness() * self.slowness.get(worker % turns).unwrap_or(&1.0),
                partitions: Vec::new(),
            })
            .collect();
        for partition in 0..partitions.len() {
            for replica in 0..self.replicas.clamp(1, self.workers.max(1)) {
                let holder = (partition + replica) % self.workers.max(1);
                if let Some(worker) = workers.get_mut(holder) {
                    worker.partitions.push(partition as u32);
                }
            }
        }
        let trials = (0..self.trials)
            .map(|_| SimulatedTrial {
                per_row: self.unit.mul_f64(cost() / ROWS),
                state_bytes: self.state_bytes,
            })
            .collect();
        Plan {
            workers,
            partitions,
            trials,
            epochs: self.epochs,
            policy: self.policy.clone(),
            seed,
            jitter: self.jitter,
            straggler_rate: self.straggler_rate,
            speculation: self.speculation,
            failure_rate: self.failure_rate,
            bandwidth: self.bandwidth,
            costs: self.costs,
        }
    }
}
