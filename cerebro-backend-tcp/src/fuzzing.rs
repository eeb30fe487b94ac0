//! What comes from elsewhere, given to what takes it in: for the fuzz targets in `fuzz/`, and for
//! the tests here that do the same a few thousand times.
//!
//! A driver hears a registered worker say anything at all; a process receives a State from a
//! holder that sends anything at all. Neither may panic, hang or take more memory than it is
//! allowed, and no worker may end what another one runs.

#![allow(missing_docs)]

use std::sync::Arc;

use cerebro_core::data::PartitionInfo;
use cerebro_core::{Config, PartitionId, Seed, Split, TrialId, Unit, WorkerId};
use futures::channel::mpsc;
use prost::Message;

use crate::builder::TcpBackendBuilder;
use crate::bulk;
use crate::cluster::{Cluster, Dispatch, Outbox, PreparedJob};
use crate::ledger::Recipe;
use crate::protocol::{FromWorker, Job, Register, Wanted};
use crate::security::Identity;
use crate::session::take_in;

const MOST_BYTES: usize = 1 << 20;

/// A driver of two workers, each of which runs a unit.
pub(crate) struct World {
    cluster: Cluster,
    liar: WorkerId,
    honest: WorkerId,
}

impl World {
    pub(crate) fn new() -> Self {
        let (events, _) = mpsc::unbounded();
        let (relays, _) = mpsc::unbounded();
        let cluster = Cluster::new(TcpBackendBuilder::default().terms().clone(), events, relays);
        let register = |instance| {
            let register = Register {
                version: crate::VERSION.to_owned(),
                slots: 1,
                instance,
                ..Register::default()
            };
            let (to, _outbound) = Outbox::new();
            cluster.register(register, Identity::Unknown, to).expect("there is room for two")
        };
        let (liar, honest) = (register(1), register(2));
        let info = |id| PartitionInfo {
            id: PartitionId(id),
            split: if id < 2 { Split::Train } else { Split::Validation },
            rows: 10,
            bytes: 100,
        };
        let partitions = (0..3).map(info).collect();
        let job = PreparedJob { partitions, message: Job::default(), blueprint: vec![].into() };
        let mut books = cluster.books();
        Cluster::tell_job(&mut books, job);
        cluster.load(&mut books);
        Cluster::begin(&mut books);
        drop(books);
        for (worker, trial) in [(liar, 0), (honest, 1)] {
            let (trial, partition) = (TrialId(trial), PartitionId(0));
            let unit = Unit { trial, epoch: 0, split: Split::Train, partition };
            let recipe = Recipe { unit, config: Arc::new(Config::new()), seed: Seed(1) };
            let (config, seed) = (b"{}".to_vec(), 1);
            let order = Dispatch { worker, unit, version: 0, recipe: Some(recipe), config, seed };
            // The other end of the reply is dropped, as that of an impatient caller is.
            drop(cluster.dispatch(order));
        }
        Self { cluster, liar, honest }
    }

    /// Whether the session goes on.
    pub(crate) fn hear(&self, message: FromWorker) -> bool {
        take_in(&self.cluster, self.liar, message).is_ok()
    }

    /// The honest worker is there, and runs its unit still.
    pub(crate) fn check(&self) {
        let books = self.cluster.books();
        assert!(books.workers.contains_key(&self.honest));
        assert_eq!(books.units_of(self.honest), 1, "no worker ends what another one runs");
    }
}

/// Messages of a worker to the driver, each with its length before it.
pub fn driver_hears(mut bytes: &[u8]) {
    let world = World::new();
    while let Ok(message) = FromWorker::decode_length_delimited(&mut bytes) {
        if !world.hear(message) {
            break;
        }
    }
    world.check();
}

/// Everything that a holder sends to somebody who wants a State, and what a stranger asks for.
pub fn receiver_takes(bytes: &[u8]) {
    let _ = Wanted::decode(bytes);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.expect("a runtime");
    let taken = runtime.block_on(bulk::receive(bytes, MOST_BYTES));
    #[cfg(target_os = "linux")]
    let lent = {
        let stream = tokio::io::join(bytes, tokio::io::sink());
        runtime.block_on(bulk::borrow(
            stream,
            crate::here::Process::this(),
            MOST_BYTES,
            &bulk::Spare::default(),
        ))
    };
    #[cfg(not(target_os = "linux"))]
    let lent = Ok(Vec::new());
    for state in [taken, lent].into_iter().flatten() {
        assert!(state.len() <= MOST_BYTES);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::{
        Beat, Draining, Failure, Metric, PartitionFailed, PartitionLoaded, Progress, Refused,
        Report, StateHeld, StateMissed, StateName, Trouble, UnitEnded, from_worker::What,
        unit_ended::How,
    };

    fn number() -> impl Strategy<Value = u64> {
        prop_oneof![4 => 0..4_u64, 1 => any::<u64>()]
    }

    fn name() -> impl Strategy<Value = Option<StateName>> {
        let name = (number(), number(), number()).prop_map(|(trial, version, origin)| StateName {
            trial,
            version,
            origin,
        });
        proptest::option::weighted(0.9, name)
    }

    fn report() -> impl Strategy<Value = Report> {
        let text = "[a-z]{0,3}";
        let metric = (text, -1..6_i32, any::<f64>(), any::<f64>(), text)
            .prop_map(|(name, kind, sum, weight, json)| Metric { name, kind, sum, weight, json });
        (proptest::collection::vec(metric, 0..3), number(), number(), number()).prop_map(
            |(metrics, rows, version, nanoseconds)| Report {
                metrics,
                rows,
                version,
                state_bytes: rows,
                occupied_nanoseconds: nanoseconds,
                computed_nanoseconds: nanoseconds,
            },
        )
    }

    fn message() -> impl Strategy<Value = FromWorker> {
        let failure = (-1..9_i32, ".{0,5}", any::<f64>()).prop_map(|(kind, message, value)| {
            Failure { kind, message, value, ..Failure::default() }
        });
        let how = prop_oneof![report().prop_map(How::Report), failure.prop_map(How::Failure)];
        let what = prop_oneof![
            Just(What::Beat(Beat {})),
            Just(What::Draining(Draining {})),
            Just(What::Register(Register::default())),
            ".{0,5}".prop_map(|reason| What::Refused(Refused { reason })),
            ".{0,400}".prop_map(|what| What::Trouble(Trouble { what })),
            (number(), number()).prop_map(|(partition, rows)| {
                let partition = partition as u32;
                What::PartitionLoaded(PartitionLoaded { partition, rows, ..Default::default() })
            }),
            (number(), ".{0,5}").prop_map(|(partition, reason)| {
                What::PartitionFailed(PartitionFailed { partition: partition as u32, reason })
            }),
            (number(), number()).prop_map(|(order, rows)| What::Progress(Progress { order, rows })),
            (number(), proptest::option::weighted(0.9, how))
                .prop_map(|(order, how)| What::UnitEnded(UnitEnded { order, how })),
            name().prop_map(|state| What::StateHeld(StateHeld { state })),
            (name(), ".{0,5}")
                .prop_map(|(state, reason)| What::StateMissed(StateMissed { state, reason })),
        ];
        proptest::option::weighted(0.98, what).prop_map(|what| FromWorker { what })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..Default::default() })]

        #[test]
        fn whatever_a_worker_says_the_driver_stands_and_others_run(
            messages in proptest::collection::vec(message(), 0..20),
        ) {
            let world = World::new();
            for message in messages {
                if !world.hear(message) {
                    break;
                }
            }
            world.check();
        }

        #[test]
        fn messages_of_any_bytes_are_taken_or_refused(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            driver_hears(&bytes);
        }

        #[test]
        fn states_of_any_bytes_are_taken_or_refused(
            offer in proptest::collection::vec(any::<u8>(), 0..20),
            rest in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let frame = |bytes: &[u8]| [&(bytes.len() as u32).to_be_bytes(), bytes].concat();
            receiver_takes(&[frame(&offer), frame(&rest)].concat());
            receiver_takes(&[frame(&offer), rest.clone()].concat());
            receiver_takes(&rest);
        }
    }
}
