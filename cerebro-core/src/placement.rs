//! [`place`]: which worker holds which partitions.

use crate::data::PartitionInfo;
use crate::id::{PartitionId, Split};

/// Places each partition on `replicas` of `workers` workers so that bytes are balanced.
///
/// Training and validation partitions are balanced separately, because they are passed over at
/// different times. The largest partition goes first, each time to the worker with the fewest
/// bytes (Graham 1969, "Bounds on multiprocessing timing anomalies": within 4/3 of the best).
/// Replicas of a partition are on distinct workers; there are at most as many as workers.
///
/// Returns the partitions of each worker, in the order of their ids.
pub fn place(
    partitions: &[PartitionInfo],
    workers: usize,
    replicas: usize,
) -> Vec<Vec<PartitionId>> {
    let mut placed = vec![Vec::new(); workers];
    for split in [Split::Train, Split::Validation] {
        let mut largest_first: Vec<&PartitionInfo> =
            partitions.iter().filter(|info| info.split == split).collect();
        largest_first.sort_by_key(|info| (std::cmp::Reverse(info.bytes), info.id));
        let mut load = vec![(0u64, 0usize); workers];
        for info in largest_first {
            let mut lightest: Vec<usize> = (0..workers).collect();
            lightest.sort_by_key(|&worker| (load[worker], worker));
            for &worker in lightest.iter().take(replicas.max(1)) {
                load[worker].0 += info.bytes;
                load[worker].1 += 1;
                placed[worker].push(info.id);
            }
        }
    }
    for partitions in &mut placed {
        partitions.sort_unstable();
    }
    placed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(id: u32, split: Split, bytes: u64) -> PartitionInfo {
        PartitionInfo { id: PartitionId(id), split, rows: 1, bytes }
    }

    #[test]
    fn bytes_are_balanced_and_each_partition_is_placed_once() {
        let partitions: Vec<_> = [5, 4, 3, 3, 3]
            .iter()
            .zip(0..)
            .map(|(&bytes, id)| info(id, Split::Train, bytes))
            .collect();
        let placed = place(&partitions, 2, 1);
        let bytes = |ids: &[PartitionId]| -> u64 {
            ids.iter().map(|id| partitions[id.0 as usize].bytes).sum()
        };
        assert_eq!(placed.iter().map(Vec::len).sum::<usize>(), 5);
        assert!(placed.iter().all(|ids| bytes(ids) <= 10), "{placed:?}");
    }

    #[test]
    fn replicas_are_on_distinct_workers() {
        let partitions: Vec<_> = (0..4).map(|id| info(id, Split::Train, 1)).collect();
        for ids in place(&partitions, 4, 2) {
            let mut distinct = ids.clone();
            distinct.dedup();
            assert_eq!((ids.len(), distinct.len()), (2, 2));
        }
        assert!(place(&partitions, 2, 5).iter().all(|ids| ids.len() == 4));
    }

    #[test]
    fn validation_is_balanced_on_its_own() {
        let mut partitions: Vec<_> = (0..2).map(|id| info(id, Split::Train, 100)).collect();
        partitions.extend((2..4).map(|id| info(id, Split::Validation, 1)));
        for ids in place(&partitions, 2, 1) {
            assert_eq!(ids.iter().filter(|id| id.0 >= 2).count(), 1);
        }
    }
}
