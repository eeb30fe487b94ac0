//! Which partitions a worker is to load: as workers come and go.

use std::collections::{BTreeMap, BTreeSet};

use cerebro_core::data::PartitionInfo;
use cerebro_core::{PartitionId, Split, WorkerId};

/// A worker that partitions may be placed on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Place {
    /// What it holds or loads.
    pub(crate) holds: BTreeSet<PartitionId>,
    /// What it has on its disk from before, and so loads fastest.
    pub(crate) cached: BTreeSet<PartitionId>,
    /// What it could not load.
    pub(crate) failed: BTreeSet<PartitionId>,
}

/// What is to be loaded in addition, so that each partition is on `replicas` workers, or on all of
/// them where there are fewer, and no worker is without work.
///
/// As in [`cerebro_core::placement::place`], the largest partition goes first, to the worker that
/// has it on disk or else to the one with the fewest bytes, training and validation apart. What
/// is held stays where it is. A worker that this leaves without a training partition, because it
/// came late, is given its share of copies, those of the most loaded workers first.
pub(crate) fn additions(
    partitions: &[PartitionInfo],
    workers: &BTreeMap<WorkerId, Place>,
    replicas: usize,
) -> BTreeMap<WorkerId, BTreeSet<PartitionId>> {
    let mut planned = workers.clone();
    for split in [Split::Train, Split::Validation] {
        let mut infos: Vec<&PartitionInfo> =
            partitions.iter().filter(|info| info.split == split).collect();
        infos.sort_by_key(|info| (std::cmp::Reverse(info.bytes), info.id));
        for info in &infos {
            replicate(&mut planned, &infos, info, replicas);
        }
        if split == Split::Train {
            employ(&mut planned, &infos, replicas);
        }
    }
    let added = planned.into_iter().map(|(worker, place)| {
        let added = place.holds.difference(&workers[&worker].holds).copied().collect();
        (worker, added)
    });
    added.filter(|(_, added): &(_, BTreeSet<_>)| !added.is_empty()).collect()
}

/// The bytes and the number of those of `infos` that a place holds.
fn load(place: &Place, infos: &[&PartitionInfo]) -> (u64, usize) {
    let held = infos.iter().filter(|info| place.holds.contains(&info.id));
    held.fold((0, 0), |(bytes, count), info| (bytes + info.bytes, count + 1))
}

fn replicate(
    planned: &mut BTreeMap<WorkerId, Place>,
    infos: &[&PartitionInfo],
    info: &PartitionInfo,
    replicas: usize,
) {
    let holders = planned.values().filter(|place| place.holds.contains(&info.id)).count();
    for _ in holders..replicas {
        let able = planned.iter_mut().filter(|(_, place)| {
            !place.holds.contains(&info.id) && !place.failed.contains(&info.id)
        });
        let chosen = able.min_by_key(|(worker, place)| {
            (!place.cached.contains(&info.id), load(place, infos), **worker)
        });
        let Some((_, place)) = chosen else { return };
        place.holds.insert(info.id);
    }
}

fn employ(planned: &mut BTreeMap<WorkerId, Place>, infos: &[&PartitionInfo], replicas: usize) {
    let total: u64 = infos.iter().map(|info| info.bytes).sum();
    let share = total * replicas.max(1) as u64 / planned.len().max(1) as u64;
    let idle: Vec<WorkerId> = planned
        .iter()
        .filter(|(_, place)| load(place, infos).1 == 0)
        .map(|(&worker, _)| worker)
        .collect();
    for worker in idle {
        // From the most loaded workers first, by what is left to each after what was taken.
        let mut left: Vec<((u64, usize), WorkerId)> =
            planned.iter().map(|(&other, place)| (load(place, infos), other)).collect();
        loop {
            left.sort_unstable();
            let place = &planned[&worker];
            let bytes = load(place, infos).0;
            let able = |info: &&&PartitionInfo| {
                !place.holds.contains(&info.id)
                    && !place.failed.contains(&info.id)
                    && (place.holds.is_empty() || bytes + info.bytes <= share)
            };
            let from = left.iter().rev().find_map(|&(_, other)| {
                let holds = &planned[&other].holds;
                let info = infos.iter().filter(|info| holds.contains(&info.id)).find(able)?;
                Some((other, info.id, info.bytes))
            });
            let Some((other, partition, taken)) = from else { break };
            if let Some(entry) = left.iter_mut().find(|(_, from)| *from == other) {
                entry.0 = (entry.0.0.saturating_sub(taken), entry.0.1.saturating_sub(1));
            }
            if let Some(place) = planned.get_mut(&worker) {
                place.holds.insert(partition);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn infos(train: u32, validation: u32) -> Vec<PartitionInfo> {
        let info = |id| PartitionInfo {
            id: PartitionId(id),
            split: if id < train { Split::Train } else { Split::Validation },
            rows: 1,
            bytes: 10,
        };
        (0..train + validation).map(info).collect()
    }

    fn workers(count: u32) -> BTreeMap<WorkerId, Place> {
        (0..count).map(|id| (WorkerId(id), Place::default())).collect()
    }

    fn ids(ids: impl IntoIterator<Item = u32>) -> BTreeSet<PartitionId> {
        ids.into_iter().map(PartitionId).collect()
    }

    /// Carries the additions out.
    fn settle(
        partitions: &[PartitionInfo],
        workers: &mut BTreeMap<WorkerId, Place>,
        replicas: usize,
    ) {
        for (worker, added) in additions(partitions, workers, replicas) {
            workers.get_mut(&worker).unwrap().holds.extend(added);
        }
    }

    #[test]
    fn partitions_are_spread_evenly_and_nothing_moves_afterwards() {
        for (count, replicas) in [(1, 1), (2, 1), (4, 1), (4, 2), (3, 5)] {
            let partitions = infos(8, 4);
            let mut workers = workers(count);
            settle(&partitions, &mut workers, replicas);
            let copies = replicas.min(count as usize);
            for info in &partitions {
                let holders = workers.values().filter(|place| place.holds.contains(&info.id));
                assert_eq!(holders.count(), copies);
            }
            let sizes: Vec<usize> = workers.values().map(|place| place.holds.len()).collect();
            let spread = sizes.iter().max().unwrap() - sizes.iter().min().unwrap();
            assert!(spread <= 2, "{sizes:?}");
            assert!(additions(&partitions, &workers, replicas).is_empty());
        }
    }

    #[test]
    fn what_a_worker_has_on_disk_goes_to_it() {
        let mut workers = workers(2);
        workers.get_mut(&WorkerId(1)).unwrap().cached = ids([0, 1]);
        let added = additions(&infos(4, 0), &workers, 1);
        assert_eq!(added[&WorkerId(1)], ids([0, 1]));
        assert_eq!(added[&WorkerId(0)], ids([2, 3]));
    }

    #[test]
    fn what_a_lost_worker_held_goes_to_the_others() {
        let partitions = infos(6, 3);
        let mut workers = workers(3);
        settle(&partitions, &mut workers, 1);
        let lost = workers.remove(&WorkerId(1)).unwrap();
        let added = additions(&partitions, &workers, 1);
        let all: BTreeSet<PartitionId> = added.values().flatten().copied().collect();
        assert_eq!(all, lost.holds);
        assert_eq!(added.len(), 2, "both take part of it");
    }

    #[test]
    fn a_worker_that_comes_late_is_given_work() {
        let partitions = infos(6, 2);
        let mut workers = workers(2);
        settle(&partitions, &mut workers, 1);
        workers.insert(WorkerId(2), Place::default());
        let added = additions(&partitions, &workers, 1);
        assert_eq!(added.keys().collect::<Vec<_>>(), [&WorkerId(2)]);
        assert_eq!(added[&WorkerId(2)].len(), 2, "a third of the training partitions");
        settle(&partitions, &mut workers, 1);
        assert!(additions(&partitions, &workers, 1).is_empty(), "and no more than that");
    }

    #[test]
    fn a_partition_that_a_worker_could_not_load_goes_elsewhere_or_nowhere() {
        let mut workers = workers(2);
        workers.get_mut(&WorkerId(0)).unwrap().failed = ids([0, 1]);
        workers.get_mut(&WorkerId(1)).unwrap().failed = ids([1]);
        let added = additions(&infos(2, 0), &workers, 2);
        assert_eq!(added[&WorkerId(1)], ids([0]));
        assert_eq!(added.len(), 1);
    }
}
