//! What may happen to a scheduler, and where.

use cerebro_core::schedule::Policy;
use proptest::prelude::*;

#[derive(Clone, Debug)]
pub(crate) enum Act {
    Complete { running: usize, took: u32 },
    Fail { running: usize },
    Report { running: usize, rows: u64 },
    Lose { worker: usize },
    Join { slots: usize, held: u64 },
    Drain { worker: usize },
    Regrow { worker: usize, slots: usize, held: u64 },
    Add { epochs: u32, guess: Option<u16> },
    Pause { trial: usize },
    Resume { trial: usize },
    Stop { trial: usize },
    SetEpochs { trial: usize, epochs: u32 },
    // Until nothing is to be looked at again.
    Wait,
}

fn act() -> impl Strategy<Value = Act> {
    let index = 0_usize..64;
    prop_oneof![
        20 => (index.clone(), 0_u32..16).prop_map(|(running, took)| Act::Complete { running, took }),
        3 => index.clone().prop_map(|running| Act::Fail { running }),
        5 => (index.clone(), 0_u64..200).prop_map(|(running, rows)| Act::Report { running, rows }),
        2 => Just(Act::Wait),
        1 => index.clone().prop_map(|worker| Act::Lose { worker }),
        1 => (0_usize..3, any::<u64>()).prop_map(|(slots, held)| Act::Join { slots, held }),
        1 => index.clone().prop_map(|worker| Act::Drain { worker }),
        1 => (index.clone(), 0_usize..3, any::<u64>())
            .prop_map(|(worker, slots, held)| Act::Regrow { worker, slots, held }),
        1 => (0_u32..3, any::<Option<u16>>()).prop_map(|(epochs, guess)| Act::Add { epochs, guess }),
        1 => index.clone().prop_map(|trial| Act::Pause { trial }),
        1 => index.clone().prop_map(|trial| Act::Resume { trial }),
        1 => index.clone().prop_map(|trial| Act::Stop { trial }),
        1 => (index, 0_u32..4).prop_map(|(trial, epochs)| Act::SetEpochs { trial, epochs }),
    ]
}

#[derive(Clone, Debug)]
pub(crate) struct Setting {
    pub(crate) policy: Policy,
    pub(crate) speculation: Option<f64>,
    pub(crate) seed: u64,
    pub(crate) training: u32,
    pub(crate) validation: u32,
    pub(crate) workers: Vec<(usize, u64)>,
    pub(crate) trials: Vec<(u32, Option<u16>)>,
    pub(crate) acts: Vec<Act>,
}

impl Setting {
    /// The acts of workers alone: no trial is added, paused or changed.
    pub(crate) fn acts_of_workers(&self) -> Vec<Act> {
        let of_worker = |act: &&Act| {
            matches!(
                act,
                Act::Complete { .. }
                    | Act::Fail { .. }
                    | Act::Report { .. }
                    | Act::Lose { .. }
                    | Act::Wait
            )
        };
        self.acts.iter().filter(of_worker).cloned().collect()
    }
}

pub(crate) fn setting() -> impl Strategy<Value = Setting> {
    let policy = prop_oneof![
        2 => Just(Policy::LongestRemainingFirst),
        1 => Just(Policy::Random),
        1 => Just(Policy::Seeded),
    ];
    let worker = (1_usize..3, any::<u64>());
    let trial = (0_u32..3, any::<Option<u16>>());
    (
        (policy, prop::option::of(1.0..3.0)),
        any::<u64>(),
        1_u32..6,
        0_u32..3,
        prop::collection::vec(worker, 1..5),
        prop::collection::vec(trial, 1..6),
        prop::collection::vec(act(), 0..60),
    )
        .prop_map(
            |((policy, speculation), seed, training, validation, workers, trials, acts)| Setting {
                policy,
                speculation,
                seed,
                training,
                validation,
                workers,
                trials,
                acts,
            },
        )
}
