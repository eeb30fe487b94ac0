//! The one cyclic order of the partitions in which seeded trials go round.
//!
//! Each trial begins at a place of its own, so that trials of equal times form a Latin square and never
//! meet. Others that follow each other round one ring disperse: whoever waited once is behind the other
//! from then on, in this epoch and in all later ones, so that waiting ends. Orders that are drawn for
//! each trial, or anew for each epoch, make trials meet again and again (docs/schedule.md has the
//! figures).
//!
//! The ring steps through the partitions by a stride that has no divisor with their number in common.
//! Where partitions are dealt out to the workers in turn, such a ring meets each worker in turn as
//! well, for any number of workers that divides the number of partitions.

use crate::id::TrialId;
use crate::seed::Seed;

/// The partitions in a circle, by dense numbers.
#[derive(Clone, Debug)]
pub(super) struct Ring {
    order: Vec<u32>,
    /// Where each partition is in the order.
    place: Vec<u32>,
}

impl Ring {
    /// The ring of an experiment over its training partitions.
    pub(super) fn new(experiment: Seed, partitions: usize) -> Self {
        let length = partitions as u64;
        let coprime = |stride: &u64| common_divisor(*stride, length) == 1;
        let strides: Vec<u64> = (1..=length).filter(coprime).collect();
        let mut rng = experiment.derive("visit order", &[]).rng();
        let stride = strides[rng.below(strides.len() as u64) as usize];
        let order: Vec<u32> = (0..length).map(|at| (at * stride % length) as u32).collect();
        let mut place = vec![0; partitions];
        for (at, &partition) in (0..).zip(&order) {
            place[partition as usize] = at;
        }
        Self { order, place }
    }

    /// The partition with which a trial begins each of its epochs: any so many trials in a row begin
    /// each with another one.
    pub(super) fn start(&self, trial: TrialId) -> u32 {
        self.order[(trial.0 % self.order.len() as u64) as usize]
    }

    /// The first partition in `open` that comes after another one on the ring.
    pub(super) fn next_open(&self, after: u32, open: &[u64]) -> Option<u32> {
        let at = self.place[after as usize] as usize + 1;
        let (before, behind) = self.order.split_at(at);
        let is_open = |&&p: &&u32| open[p as usize / 64] >> (p % 64) & 1 == 1;
        behind.iter().chain(before).find(is_open).copied()
    }
}

fn common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_visits_every_partition_and_in_turn_the_workers_that_they_were_dealt_to() {
        for partitions in [1, 2, 3, 8, 12, 100] {
            for seed in 0..20 {
                let ring = Ring::new(Seed(seed), partitions);
                let mut open = [u64::MAX; 2];
                let mut visited = vec![false; partitions];
                let mut at = ring.start(TrialId(seed));
                for _ in 0..partitions {
                    assert!(!std::mem::replace(&mut visited[at as usize], true));
                    open[at as usize / 64] &= !(1 << (at % 64));
                    at = ring.next_open(at, &open).unwrap_or(at);
                }
                for workers in (1..=partitions).filter(|workers| partitions % workers == 0) {
                    for round in ring.order.chunks(workers) {
                        let mut met: Vec<usize> =
                            round.iter().map(|&p| p as usize % workers).collect();
                        met.sort_unstable();
                        assert!(met.into_iter().eq(0..workers), "{partitions} on {workers}");
                    }
                }
            }
        }
    }
}
