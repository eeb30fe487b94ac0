//! [`Ledger`]: which version of each trial's State is where, and how a lost one is made again.
//!
//! Pure bookkeeping: no clock, no network. It keeps three promises:
//!
//! - A version that the driver has let go of is nevertheless held until a newer one is *safe*: held
//!   by two processes. So the loss of one worker costs at most the unit that made the newest.
//! - A version that is lost is made again by running the unit that made it, from the version before
//!   it, which gives the same bits; any number of versions back, if it must be.
//! - Bits are told apart by who made them ([`StateName::origin`]), not by their version alone, so a
//!   worker that comes back with a State that was made again meanwhile is not believed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use cerebro_core::backend::UnitOrder;
use cerebro_core::{Config, Seed, TrialId, Unit, WorkerId};

/// Names the bits of a State.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct StateName {
    pub(crate) trial: TrialId,
    pub(crate) version: u64,
    /// The number of the order that made it.
    pub(crate) origin: u64,
}

/// Who holds a State.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Holder {
    Driver,
    Worker(WorkerId),
}

/// How a version is made from the one before it.
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    pub(crate) unit: Unit,
    pub(crate) config: Arc<Config>,
    pub(crate) seed: Seed,
}

impl Recipe {
    pub(crate) fn of(order: &UnitOrder) -> Self {
        Self { unit: order.unit, config: Arc::clone(&order.config), seed: order.seed }
    }
}

/// What is known of a version that a unit is to start from.
#[derive(Clone, Debug)]
pub(crate) enum Found {
    /// Version 0: made from the seed, where the unit runs.
    Initial,
    /// Held by at least one process.
    Held { name: StateName, holders: Vec<Holder> },
    /// Held by nobody: to be made again, beginning with the unit that makes `version` from the
    /// version before it, which is held.
    Lost { version: u64, recipe: Recipe },
    /// Never made, let go, or lost beyond repair.
    Nowhere,
}

/// A State of which a copy is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AtRisk {
    pub(crate) name: StateName,
    pub(crate) holders: Vec<Holder>,
    /// Who holds it or what it can be made from by one unit.
    pub(crate) with: BTreeSet<Holder>,
}

/// The States of all trials.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    trials: HashMap<TrialId, Versions>,
}

#[derive(Debug, Default)]
struct Versions {
    made: BTreeMap<u64, Version>,
    /// By the version that they make.
    recipes: BTreeMap<u64, Recipe>,
    /// The driver has let go of versions below this one,
    released: u64,
    /// except these.
    kept: BTreeSet<u64>,
}

#[derive(Debug)]
struct Version {
    origin: u64,
    holders: BTreeSet<Holder>,
}

impl Versions {
    fn is_wanted(&self, version: u64) -> bool {
        version >= self.released || self.kept.contains(&version)
    }
}

impl Ledger {
    /// Takes in that a State was made: by a unit, or given by the driver (without a recipe). `false`
    /// if another attempt at the same unit has made it before: the first one's bits count.
    pub(crate) fn made(&mut self, name: StateName, holder: Holder, recipe: Option<Recipe>) -> bool {
        let trial = self.trials.entry(name.trial).or_default();
        let is_held = trial.made.get(&name.version).is_some_and(|first| !first.holders.is_empty());
        let before = trial.recipes.get(&name.version).map(|recipe| recipe.unit);
        if is_held && before.is_some() && before == recipe.as_ref().map(|recipe| recipe.unit) {
            return false;
        }
        match recipe {
            Some(recipe) => {
                trial.recipes.insert(name.version, recipe);
            }
            // Whatever was made before does not lead to this State.
            None => trial.recipes.clear(),
        }
        let holders = BTreeSet::from([holder]);
        let version = Version { origin: name.origin, holders };
        trial.made.insert(name.version, version);
        if name.version < trial.released {
            // A version that is made again is on the way to one that is wanted.
            trial.kept.insert(name.version);
        }
        true
    }

    /// Takes in that `holder` holds a State; `false` if these are not the bits that count.
    pub(crate) fn held(&mut self, name: StateName, holder: Holder) -> bool {
        let version = self.trials.get_mut(&name.trial).and_then(|t| t.made.get_mut(&name.version));
        match version {
            Some(version) if version.origin == name.origin => {
                version.holders.insert(holder);
                true
            }
            _ => false,
        }
    }

    /// Takes in that `holder` does not hold a State, or cannot be reached for it.
    pub(crate) fn missed(&mut self, name: StateName, holder: Holder) {
        let version = self.trials.get_mut(&name.trial).and_then(|t| t.made.get_mut(&name.version));
        if let Some(version) = version.filter(|version| version.origin == name.origin) {
            version.holders.remove(&holder);
        }
    }

    /// Takes in that a worker is gone.
    pub(crate) fn lost(&mut self, worker: WorkerId) {
        for trial in self.trials.values_mut() {
            for version in trial.made.values_mut() {
                version.holders.remove(&Holder::Worker(worker));
            }
        }
    }

    /// What is known of `version` of `trial`.
    pub(crate) fn find(&self, trial: TrialId, version: u64) -> Found {
        let Some(versions) = self.trials.get(&trial) else {
            return if version == 0 { Found::Initial } else { Found::Nowhere };
        };
        if !versions.is_wanted(version) {
            return Found::Nowhere;
        }
        let mut at = version;
        loop {
            if let Some(known) = versions.made.get(&at).filter(|v| !v.holders.is_empty()) {
                if at == version {
                    let name = StateName { trial, version, origin: known.origin };
                    let holders = known.holders.iter().copied().collect();
                    return Found::Held { name, holders };
                }
                break;
            }
            if at == 0 {
                if version == 0 {
                    return Found::Initial;
                }
                break;
            }
            if !versions.recipes.contains_key(&at) {
                return Found::Nowhere;
            }
            at -= 1;
        }
        let version = at + 1;
        Found::Lost { version, recipe: versions.recipes[&version].clone() }
    }

    /// The held version from which [`Found::Lost`] versions are made again.
    pub(crate) fn base(&self, trial: TrialId, version: u64) -> Option<(StateName, Vec<Holder>)> {
        let known = self.trials.get(&trial)?.made.get(&version)?;
        let name = StateName { trial, version, origin: known.origin };
        (!known.holders.is_empty()).then(|| (name, known.holders.iter().copied().collect()))
    }

    /// The driver lets go of the versions of `trial` below `below`, except `keep`.
    pub(crate) fn release(&mut self, trial: TrialId, below: u64, keep: &[u64]) {
        if let Some(trial) = self.trials.get_mut(&trial) {
            trial.released = trial.released.max(below);
            trial.kept = keep.iter().copied().collect();
        }
    }

    /// What can be forgotten, by whom. `places` is the number of processes that could hold States:
    /// where there is only one, no State is safer for being kept longer.
    pub(crate) fn collect(&mut self, trial: TrialId, places: usize) -> Vec<(Holder, StateName)> {
        let Some(versions) = self.trials.get_mut(&trial) else { return Vec::new() };
        let ended = versions.released == u64::MAX;
        let safe = |version: &Version| {
            version.holders.len() >= 2.min(places).max(1)
                || version.holders.contains(&Holder::Driver)
        };
        // Everything from the newest safe version on stays; so does the newest of all, if none is.
        let floor = versions.made.iter().rev().find(|(_, version)| safe(version));
        let floor =
            floor.or_else(|| versions.made.iter().find(|(_, version)| !version.holders.is_empty()));
        let floor = if ended { u64::MAX } else { floor.map_or(0, |(&floor, _)| floor) };
        let mut dropped = Vec::new();
        let unneeded: Vec<u64> = versions
            .made
            .keys()
            .copied()
            .filter(|&version| version < floor && !versions.is_wanted(version))
            .collect();
        for version in unneeded {
            if let Some(known) = versions.made.remove(&version) {
                let name = StateName { trial, version, origin: known.origin };
                dropped.extend(known.holders.into_iter().map(|holder| (holder, name)));
            }
        }
        if ended {
            let last = versions.kept.last().copied().unwrap_or(0);
            versions.recipes.retain(|&version, _| version <= last);
            // The entry stays, so that what a unit makes late is let go of at once.
        } else if versions.made.contains_key(&floor) && !versions.is_wanted(floor) {
            // A version that is kept for the case of a loss need not be held by more than two.
            if let Some(spare) = versions.made.get_mut(&floor) {
                let name = StateName { trial, version: floor, origin: spare.origin };
                while spare.holders.len() > 2 {
                    if let Some(holder) = spare.holders.pop_last() {
                        dropped.push((holder, name));
                    }
                }
            }
        }
        dropped
    }

    /// The versions that the driver wants kept, however old, and that one worker alone holds.
    pub(crate) fn kept_with_one(&self, trial: TrialId) -> Vec<(StateName, WorkerId)> {
        let Some(versions) = self.trials.get(&trial) else { return Vec::new() };
        let known = versions.kept.iter().filter_map(|v| Some((*v, versions.made.get(v)?)));
        let with_one = known.filter_map(|(version, known)| match known.holders.first() {
            Some(&Holder::Worker(worker)) if known.holders.len() == 1 => {
                Some((StateName { trial, version, origin: known.origin }, worker))
            }
            _ => None,
        });
        with_one.collect()
    }

    /// The States of which a copy is missing, where the workers `leaving` are not counted: the loss of
    /// one of the others would cost their trial more than the unit that made the newest version.
    ///
    /// That is so where one worker alone holds both the newest version and the one before it, or a
    /// version that the driver wants kept.
    pub(crate) fn at_risk(&self, leaving: &BTreeSet<WorkerId>) -> Vec<AtRisk> {
        let stays = |holder: &Holder| match holder {
            Holder::Driver => true,
            Holder::Worker(worker) => !leaving.contains(worker),
        };
        let safe = |with: &BTreeSet<Holder>| {
            with.contains(&Holder::Driver) || with.iter().filter(|holder| stays(holder)).count() > 1
        };
        let mut at_risk = Vec::new();
        for (&trial, versions) in &self.trials {
            let held = |(_, known): &(&u64, &Version)| !known.holders.is_empty();
            let newest = versions.made.iter().rev().find(held).map(|(&version, _)| version);
            for (&version, known) in &versions.made {
                let is_newest = newest == Some(version) && versions.is_wanted(version);
                let is_kept = versions.kept.contains(&version);
                if !is_newest && !is_kept {
                    continue;
                }
                let mut with = known.holders.clone();
                if !is_kept && versions.recipes.contains_key(&version) {
                    if version == 1 {
                        // The seed is with everybody.
                        continue;
                    }
                    let before = version.checked_sub(1).and_then(|at| versions.made.get(&at));
                    with.extend(before.iter().flat_map(|known| &known.holders));
                }
                // What is with nobody who stays has to be handed over first.
                if known.holders.iter().any(stays) && !safe(&with) {
                    let name = StateName { trial, version, origin: known.origin };
                    let holders = known.holders.iter().copied().collect();
                    at_risk.push(AtRisk { name, holders, with });
                }
            }
        }
        at_risk.sort_unstable_by_key(|state| state.name);
        at_risk
    }

    /// The States that are wanted and that only `worker` holds.
    pub(crate) fn only_with(&self, worker: WorkerId) -> Vec<StateName> {
        let only = BTreeSet::from([Holder::Worker(worker)]);
        let mut names = Vec::new();
        for (&trial, versions) in &self.trials {
            for (&version, known) in &versions.made {
                if known.holders == only && versions.is_wanted(version) {
                    names.push(StateName { trial, version, origin: known.origin });
                }
            }
        }
        names.sort_unstable();
        names
    }
}

#[cfg(test)]
mod tests {
    use cerebro_core::{PartitionId, Split};

    use super::*;

    const TRIAL: TrialId = TrialId(1);
    const A: Holder = Holder::Worker(WorkerId(0));
    const B: Holder = Holder::Worker(WorkerId(1));
    const C: Holder = Holder::Worker(WorkerId(2));

    fn name(version: u64, origin: u64) -> StateName {
        StateName { trial: TRIAL, version, origin }
    }

    fn recipe(version: u64) -> Recipe {
        let partition = PartitionId(version as u32);
        let unit = Unit { trial: TRIAL, epoch: 0, split: Split::Train, partition };
        Recipe { unit, config: Arc::default(), seed: Seed(0) }
    }

    /// Version 1 by A, then each next one by the holder given, which fetched the one before it.
    fn trained(makers: &[Holder]) -> Ledger {
        let mut ledger = Ledger::default();
        for (before, &maker) in makers.iter().enumerate() {
            let before = before as u64;
            if before > 0 {
                assert!(ledger.held(name(before, before), maker));
            }
            ledger.made(name(before + 1, before + 1), maker, Some(recipe(before + 1)));
            ledger.release(TRIAL, before + 1, &[]);
        }
        ledger
    }

    fn holders(ledger: &Ledger, version: u64) -> Vec<Holder> {
        ledger.base(TRIAL, version).map_or(Vec::new(), |(_, holders)| holders)
    }

    #[test]
    fn a_version_is_held_until_the_next_one_is_held_twice() {
        let mut ledger = trained(&[A, B]);
        assert!(matches!(ledger.find(TRIAL, 1), Found::Nowhere), "the driver let go of it");
        assert_eq!(ledger.collect(TRIAL, 3), []);
        assert_eq!(holders(&ledger, 1), [A, B], "but version 2 is held once only");
        ledger.held(name(2, 2), C);
        let dropped = ledger.collect(TRIAL, 3);
        assert_eq!(dropped, [(A, name(1, 1)), (B, name(1, 1))]);
        assert_eq!(holders(&ledger, 2), [B, C]);
    }

    #[test]
    fn a_lost_version_is_made_again_from_the_one_before_it() {
        let mut ledger = trained(&[A, B]);
        ledger.collect(TRIAL, 3);
        ledger.lost(WorkerId(1));
        let Found::Lost { version: 2, recipe } = ledger.find(TRIAL, 2) else {
            panic!("{:?}", ledger.find(TRIAL, 2))
        };
        assert_eq!(recipe.unit.partition, PartitionId(2));
        assert_eq!(holders(&ledger, 1), [A]);
        ledger.made(name(2, 77), C, Some(recipe));
        assert!(matches!(ledger.find(TRIAL, 2), Found::Held { name: n, .. } if n == name(2, 77)));
        assert!(!ledger.held(name(2, 2), B), "B comes back with other bits than those that count");
    }

    #[test]
    fn of_two_attempts_at_a_unit_the_first_counts_and_another_unit_takes_its_place() {
        let mut ledger = trained(&[A]);
        assert!(!ledger.made(name(1, 50), B, Some(recipe(1))));
        assert!(matches!(ledger.find(TRIAL, 1), Found::Held { name: n, .. } if n == name(1, 1)));
        assert_eq!(holders(&ledger, 1), [A]);
        assert!(ledger.made(name(1, 51), B, Some(recipe(7))));
        assert!(matches!(ledger.find(TRIAL, 1), Found::Held { name: n, .. } if n == name(1, 51)));
    }

    #[test]
    fn whatever_is_lost_the_way_back_leads_to_the_seed() {
        let mut ledger = trained(&[A, B, A, B]);
        ledger.collect(TRIAL, 2);
        for worker in 0..2 {
            ledger.lost(WorkerId(worker));
        }
        for version in 1..=4 {
            let Found::Lost { version: first, recipe } = ledger.find(TRIAL, 4) else {
                panic!("{:?}", ledger.find(TRIAL, 4))
            };
            assert_eq!(first, version);
            ledger.made(name(version, 90 + version), C, Some(recipe));
            ledger.collect(TRIAL, 1);
        }
        assert!(matches!(ledger.find(TRIAL, 4), Found::Held { .. }));
    }

    #[test]
    fn a_worker_that_comes_back_with_the_bits_that_count_is_believed() {
        let mut ledger = trained(&[A, B]);
        ledger.lost(WorkerId(1));
        assert!(ledger.held(name(2, 2), C), "the same process under its new name");
        assert!(matches!(ledger.find(TRIAL, 2), Found::Held { .. }));
    }

    #[test]
    fn a_state_that_was_given_cannot_be_made_again_but_is_safe_with_the_driver() {
        let mut ledger = trained(&[A, B]);
        ledger.made(name(2, 50), Holder::Driver, None);
        assert_eq!(ledger.collect(TRIAL, 3).len(), 2, "what was before counts no more");
        ledger.held(name(2, 50), A);
        ledger.made(name(3, 51), A, Some(recipe(3)));
        ledger.release(TRIAL, 3, &[]);
        ledger.collect(TRIAL, 3);
        ledger.lost(WorkerId(0));
        assert!(matches!(ledger.find(TRIAL, 3), Found::Lost { version: 3, .. }));
    }

    #[test]
    fn what_the_driver_keeps_stays_and_everything_else_goes_when_the_trial_ends() {
        let mut ledger = trained(&[A, B, A]);
        ledger.release(TRIAL, u64::MAX, &[2]);
        ledger.collect(TRIAL, 2);
        assert!(matches!(ledger.find(TRIAL, 2), Found::Held { .. }));
        assert!(matches!(ledger.find(TRIAL, 3), Found::Nowhere));
        assert_eq!(ledger.only_with(WorkerId(0)), []);
        ledger.release(TRIAL, u64::MAX, &[]);
        assert_eq!(ledger.collect(TRIAL, 2), [(A, name(2, 2)), (B, name(2, 2))]);
        assert!(matches!(ledger.find(TRIAL, 2), Found::Nowhere));
    }

    fn at_risk(ledger: &Ledger, leaving: &[u32]) -> Vec<StateName> {
        let leaving = leaving.iter().copied().map(WorkerId).collect();
        ledger.at_risk(&leaving).into_iter().map(|state| state.name).collect()
    }

    #[test]
    fn the_newest_version_and_the_one_before_it_are_not_left_with_one_worker() {
        let mut ledger = trained(&[A]);
        assert_eq!(at_risk(&ledger, &[]), [], "one unit makes version 1 again from the seed");
        ledger = trained(&[A, B]);
        ledger.collect(TRIAL, 3);
        assert_eq!(at_risk(&ledger, &[]), [], "A holds what version 2 was made from");
        assert_eq!(at_risk(&ledger, &[0]), [name(2, 2)], "but not when it has left");
        ledger.lost(WorkerId(0));
        assert_eq!(at_risk(&ledger, &[]), [name(2, 2)]);
        ledger.held(name(2, 2), C);
        assert_eq!(at_risk(&ledger, &[]), []);
        assert_eq!(at_risk(&ledger, &[2]), [name(2, 2)]);
        ledger.held(name(2, 2), Holder::Driver);
        assert_eq!(at_risk(&ledger, &[2]), []);
    }

    #[test]
    fn what_the_driver_keeps_is_not_left_with_one_worker() {
        let mut ledger = trained(&[A, B, A]);
        ledger.release(TRIAL, u64::MAX, &[2]);
        ledger.collect(TRIAL, 3);
        assert_eq!(at_risk(&ledger, &[]), []);
        assert_eq!(at_risk(&ledger, &[0]), [name(2, 2)]);
        ledger.release(TRIAL, u64::MAX, &[]);
        ledger.collect(TRIAL, 3);
        assert_eq!(at_risk(&ledger, &[0]), []);
    }

    #[test]
    fn where_there_is_one_worker_nothing_is_kept_twice() {
        let mut ledger = trained(&[A, A]);
        assert_eq!(ledger.collect(TRIAL, 1), [(A, name(1, 1))]);
    }
}
