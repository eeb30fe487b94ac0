//! What no schedule can beat.

use std::collections::HashMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::scheduler::Scheduler;

/// Lower bounds of the time that remains. No schedule is shorter than the greater of the two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// The trial with the most left: its training units one after the other.
    pub longest_trial: Duration,
    /// The worker with the most left: what it alone can do, or its share of all where every
    /// partition has replicas.
    pub busiest_worker: Duration,
}

impl Bound {
    /// The greater of the two.
    pub fn makespan(&self) -> Duration {
        self.longest_trial.max(self.busiest_worker)
    }
}

/// The same in seconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seconds {
    pub(super) longest_trial: f64,
    pub(super) busiest_worker: f64,
}

impl Seconds {
    pub(super) fn makespan(self) -> f64 {
        self.longest_trial.max(self.busiest_worker)
    }
}

impl Scheduler {
    /// Lower bounds of the time that remains, by the present estimates.
    pub(super) fn bound_seconds(&self) -> Seconds {
        let board = &self.board;
        let layout = &board.layout;
        let mut job_waits: HashMap<usize, f64> = HashMap::new();
        let mut worker_waits = vec![0.0_f64; self.workers.len()];
        for (worker, state) in self.workers.iter().enumerate() {
            for attempt in &state.running {
                let left = self.still_takes(attempt, worker);
                worker_waits[worker] += left;
                let wait = job_waits.entry(attempt.trial).or_default();
                *wait = wait.max(left);
            }
        }
        let wait = |job: usize| job_waits.get(&job).copied().unwrap_or_default();
        let longest = board.working.iter().map(|&job| job as usize);
        let longest = longest.map(|job| wait(job) + board.remaining(job));
        let longest = longest.fold(0.0, f64::max);

        // What a worker alone holds it must do; all of it together must be done by all.
        let mut alone = worker_waits.clone();
        let mut total = 0.0;
        for partition in 0..layout.partitions() {
            total += board.demand(partition);
            if let &[holder] = layout.holders(partition) {
                let holder = holder as usize;
                alone[holder] += board.demand(partition) * layout.slowness(holder);
            }
        }
        let mut speed = 0.0;
        let mut busiest = 0.0_f64;
        for (worker, state) in self.workers.iter().enumerate() {
            let slots = state.slots.max(1) as f64;
            busiest = busiest.max(alone[worker] / slots);
            if layout.takes_units(worker) {
                speed += slots / layout.slowness(worker);
                total += worker_waits[worker] / layout.slowness(worker);
            }
        }
        if speed > 0.0 {
            busiest = busiest.max(total / speed);
        }
        Seconds { longest_trial: longest, busiest_worker: busiest }
    }
}
