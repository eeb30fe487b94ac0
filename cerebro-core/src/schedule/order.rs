//! Visit orders: the sequence of partitions that a trial saw, epoch by epoch.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::{PartitionId, TrialId};

/// The visit orders of a run: for each trial, epoch by epoch, the partitions in the order of their
/// training units. All that [`Policy::Replay`](super::Policy::Replay) needs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VisitOrders(pub BTreeMap<TrialId, Vec<Vec<PartitionId>>>);

/// The visit order of one trial, as dense partition numbers of the fewest bytes that hold them: a
/// long run's record grows by one byte per unit where there are at most 256 partitions.
#[derive(Clone, Debug)]
pub(super) struct OrderLog {
    bytes_per_visit: usize,
    visits_per_epoch: usize,
    visits: Vec<u8>,
}

impl OrderLog {
    pub(super) fn new(training_partitions: usize) -> Self {
        let bytes_per_visit = match training_partitions {
            0..=0x100 => 1,
            0x101..=0x1_0000 => 2,
            _ => 4,
        };
        Self { bytes_per_visit, visits_per_epoch: training_partitions, visits: Vec::new() }
    }

    pub(super) fn push(&mut self, partition: u32) {
        self.visits.extend_from_slice(&partition.to_le_bytes()[..self.bytes_per_visit]);
    }

    /// The dense partition numbers, epoch by epoch; the last epoch may be under way.
    pub(super) fn epochs(&self) -> impl Iterator<Item = impl Iterator<Item = u32>> {
        let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |n, &b| n << 8 | u32::from(b));
        let epochs = self.visits.chunks(self.visits_per_epoch * self.bytes_per_visit);
        epochs.map(move |epoch| epoch.chunks_exact(self.bytes_per_visit).map(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_of_any_number_of_partitions_are_given_back_as_they_were() {
        for partitions in [1, 2, 256, 257, 65_536, 65_537] {
            let mut log = OrderLog::new(partitions);
            let partitions = partitions as u32;
            let first: Vec<u32> = (0..partitions).rev().collect();
            let second = [partitions - 1];
            first.iter().chain(&second).for_each(|&partition| log.push(partition));
            let epochs: Vec<Vec<u32>> = log.epochs().map(Iterator::collect).collect();
            let expected =
                if partitions == 1 { vec![vec![0], vec![0]] } else { vec![first, second.to_vec()] };
            assert_eq!(epochs, expected);
        }
    }
}
