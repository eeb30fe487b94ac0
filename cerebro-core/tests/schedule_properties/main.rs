//! Random histories against the scheduler: trials, partitions, replica maps, speeds, failures,
//! losses, joins, pauses, stops and reports of progress.

mod acts;
mod world;

use std::collections::BTreeMap;
use std::time::Duration;

use cerebro_core::TrialId;
use cerebro_core::schedule::{Policy, TrialProgress, TrialSpec};
use proptest::prelude::*;
use proptest::test_runner::RngAlgorithm;

use self::acts::{Setting, setting};
use self::world::{TrialRecord, World};

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 10_000,
        // Without optimisation the default generator takes a fifth of the time.
        rng_algorithm: RngAlgorithm::XorShift,
        failure_persistence: None,
        max_shrink_iters: 2_000,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_history_keeps_the_invariants_and_ends(setting in setting()) {
        let mut world = World::new(&setting);
        world.assign();
        for act in &setting.acts {
            world.act(act);
        }
        world.finish();
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 500,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_replay_repeats_the_visit_orders_on_another_cluster(setting in setting()) {
        let acts = setting.acts_of_workers();
        let mut first = World::new(&setting);
        first.assign();
        for act in &acts {
            first.act(act);
        }
        first.finish();

        let policy = Policy::Replay(first.orders());
        let workers = vec![(2, u64::MAX), (1, u64::MAX)];
        let mut second = World::new(&Setting { policy, workers, ..setting });
        second.assign();
        acts.iter().rev().for_each(|act| second.act(act));
        second.finish();
        prop_assert_eq!(first.orders(), second.orders());
    }

    #[test]
    fn seeded_orders_depend_on_neither_the_cluster_nor_the_other_trials(setting in setting()) {
        let setting = Setting { policy: Policy::Seeded, ..setting };
        let acts = setting.acts_of_workers();
        let mut all = World::new(&setting);
        all.assign();
        for act in &acts {
            all.act(act);
        }
        all.finish();

        let workers = vec![(1, u64::MAX)];
        let mut alone = World::new(&Setting { workers, trials: setting.trials[..1].to_vec(), ..setting });
        alone.assign();
        alone.finish();
        prop_assert_eq!(&all.orders().0[&TrialId(0)], &alone.orders().0[&TrialId(0)]);
    }

    #[test]
    fn a_resumed_trial_goes_on_where_it_was(setting in setting(), units in 0_usize..30) {
        let workers = vec![(1, u64::MAX)];
        let setting = Setting { workers, policy: Policy::Seeded, ..setting };
        let mut whole = World::new(&setting);
        whole.assign();
        whole.finish();

        let mut first = World::new(&setting);
        first.assign();
        for _ in 0..units {
            if !first.running.is_empty() {
                first.complete(0, Duration::from_micros(500));
                first.assign();
            }
        }
        let mut second = World::new(&Setting { trials: Vec::new(), ..setting });
        for (&id, trial) in &first.trials {
            let done = first.epochs_done(trial) as usize;
            let completed = TrialProgress {
                epochs: trial.trained[..done].to_vec(),
                trained: trial.trained.get(done).cloned().unwrap_or_default(),
                validated: trial.validated.get(done).into_iter().flatten().copied().collect(),
            };
            let spec = TrialSpec {
                completed: Some(completed),
                ..TrialSpec::new(id, trial.epochs)
            };
            second.scheduler.add_trial(&spec).unwrap();
            second.trials.insert(id, TrialRecord { failures: BTreeMap::new(), ..trial.clone() });
        }
        second.assign();
        second.finish();
        prop_assert_eq!(whole.orders(), second.orders());
    }
}
