//! Workers that leave: what only they hold goes to those who stay, and then they may go; and what is
//! held too seldom once workers have gone, however they went.
//!
//! A worker may be asked to leave while it takes over from another one, and whoever takes over may
//! be lost. So it is looked at anew, whenever something happens that it depends on, who leaves and
//! what only that worker holds; what is on its way already is not sent twice.

use std::collections::BTreeSet;

use cerebro_core::WorkerId;
use cerebro_core::backend::WorkerEvent;

use super::{Books, Cluster, Phase, Status};
use crate::ledger::{AtRisk, Holder, StateName};

impl Cluster {
    pub(crate) fn draining(&self, id: WorkerId) {
        let mut books = self.books();
        let Some(worker) = books.workers.get_mut(&id) else { return };
        if worker.status == Status::Draining {
            return;
        }
        tracing::info!(worker = %id, name = worker.name, "a worker wants to leave");
        let known = worker.status == Status::Serving;
        worker.status = Status::Draining;
        if known {
            self.say(WorkerEvent::Draining { worker: id });
        }
        self.place(&mut books);
        self.hand_over(&mut books);
        drop(books);
        self.changed();
    }

    /// Who is there has changed: has copies made of what one more loss would make costly, and lets
    /// those go who have handed everything over.
    pub(crate) fn resettle(&self, books: &mut Books) {
        if books.phase == Phase::Running {
            for state in books.ledger.at_risk(&draining(books)) {
                Self::back_up(books, state.name, &state.holders);
            }
        }
        self.hand_over(books);
    }

    /// Lets draining workers go that have nothing more to hand over, and has taken over what the
    /// others alone hold.
    pub(crate) fn hand_over(&self, books: &mut Books) {
        // Each one that goes may leave another as the only holder of a State.
        for id in leaving(books) {
            if books.ledger.only_with(id).is_empty() && !is_needed(books, id) {
                self.dismiss(books, id, "it was asked to leave");
            }
        }
        for id in leaving(books) {
            for name in books.ledger.only_with(id) {
                if books.relaying.contains(&name) {
                    continue;
                }
                if !Self::back_up(books, name, &[Holder::Worker(id)]) {
                    self.relay(books, name);
                }
            }
        }
    }

    /// A worker could not take over a State: if workers that leave wait for that, the driver does.
    pub(super) fn hand_over_by_relay(&self, books: &mut Books, name: StateName) {
        let leaving = leaving(books);
        let alone = leaving.iter().any(|&id| books.ledger.only_with(id).contains(&name));
        let at_risk = books.ledger.at_risk(&draining(books));
        let mut at_risk = at_risk.iter().filter(|state| state.name == name);
        let holds =
            |state: &AtRisk| leaving.iter().any(|&id| state.with.contains(&Holder::Worker(id)));
        if alone || at_risk.any(holds) {
            self.relay(books, name);
        }
    }

    /// What came of relaying a State is in the ledger.
    pub(crate) fn relayed(&self, name: StateName) {
        let mut books = self.books();
        books.relaying.remove(&name);
        self.hand_over(&mut books);
        drop(books);
        self.changed();
    }

    fn relay(&self, books: &mut Books, name: StateName) {
        if books.relaying.insert(name) {
            // The task that relays lives as long as the driver.
            let _ = self.relays.unbounded_send(name);
        }
    }
}

/// Whether a State would be at risk if `id`, which is leaving, were gone, and a copy is on its way.
fn is_needed(books: &mut Books, id: WorkerId) -> bool {
    let at_risk = books.ledger.at_risk(&draining(books));
    let held = at_risk.into_iter().filter(|state| state.with.contains(&Holder::Worker(id)));
    // Where nobody else stays, nothing is safer for its waiting.
    held.fold(false, |needed, state| {
        let relayed = books.relaying.contains(&state.name);
        relayed || Cluster::back_up(books, state.name, &state.holders) || needed
    })
}

/// The workers that were asked to leave.
fn draining(books: &Books) -> BTreeSet<WorkerId> {
    let draining = books.workers.iter().filter(|(_, worker)| worker.status == Status::Draining);
    draining.map(|(&id, _)| id).collect()
}

/// Those of them that run nothing.
fn leaving(books: &Books) -> Vec<WorkerId> {
    let busy = |id| books.orders.values().any(|pending| pending.worker == id);
    draining(books).into_iter().filter(|&id| !busy(id)).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use cerebro_core::backend::UnitError;
    use cerebro_core::{PartitionId, Seed, Split, TrialId, Unit};
    use futures::channel::mpsc;
    use futures::stream::BoxStream;
    use futures::{FutureExt, StreamExt};

    use super::*;
    use crate::builder::TcpBackendBuilder;
    use crate::cluster::{Dispatch, Outbox, PreparedJob};
    use crate::ledger::{Found, Recipe};
    use crate::protocol::{
        self, FromDriver, Job, Register, UnitEnded, from_driver::What, unit_ended,
    };
    use crate::security::Identity;
    use crate::wire::failure_to_wire;

    const A: WorkerId = WorkerId(0);
    const B: WorkerId = WorkerId(1);
    const C: WorkerId = WorkerId(2);
    /// Of two workers, the second is asked to take it over.
    const NAME: StateName = StateName { trial: TrialId(0), version: 1, origin: 9 };

    /// Workers that serve, and what they are told.
    struct Crew {
        cluster: Cluster,
        told: Vec<BoxStream<'static, FromDriver>>,
        relays: mpsc::UnboundedReceiver<StateName>,
    }

    impl Crew {
        fn of(count: u64) -> Self {
            let (events, _) = mpsc::unbounded();
            let (to_relay, relays) = mpsc::unbounded();
            let terms = TcpBackendBuilder::default().terms().clone();
            let cluster = Cluster::new(terms, events, to_relay);
            let join = |instance| {
                let register = Register { slots: 1, instance, ..Register::default() };
                let (to, told) = Outbox::new();
                cluster.register(register, Identity::Unknown, to).unwrap();
                told.boxed()
            };
            let told = (0..count).map(join).collect();
            let job = PreparedJob {
                partitions: vec![],
                message: Job::default(),
                blueprint: vec![].into(),
            };
            let mut books = cluster.books();
            Cluster::tell_job(&mut books, job);
            cluster.load(&mut books);
            Cluster::begin(&mut books);
            drop(books);
            Self { cluster, told, relays }
        }

        fn holds(&self, worker: WorkerId, name: StateName) {
            self.cluster.books().ledger.made(name, Holder::Worker(worker), None);
        }

        /// The States that `worker` was told to take in, and whether it was told to leave.
        fn told(&mut self, worker: WorkerId) -> (Vec<StateName>, bool) {
            let (mut states, mut leave) = (Vec::new(), false);
            while let Some(Some(message)) = self.told[worker.0 as usize].next().now_or_never() {
                match message.what {
                    Some(What::Fetch(fetch)) => states.extend(fetch.state.map(StateName::from)),
                    Some(What::Leave(_)) => leave = true,
                    _ => {}
                }
            }
            (states, leave)
        }

        fn held_by(&self, name: StateName) -> Vec<Holder> {
            match self.cluster.books().ledger.find(name.trial, name.version) {
                Found::Held { holders, .. } => holders,
                other => panic!("{other:?}"),
            }
        }

        /// Gives `worker` a unit to run.
        fn busy(&self, worker: WorkerId) -> u64 {
            let unit = Unit {
                trial: TrialId(7),
                epoch: 0,
                split: Split::Validation,
                partition: PartitionId(0),
            };
            let (config, seed) = (b"{}".to_vec(), 1);
            let order = Dispatch { worker, unit, version: 0, recipe: None, config, seed };
            self.cluster.dispatch(order).unwrap().0
        }

        fn ends(&self, worker: WorkerId, order: u64) {
            let failure = UnitError::WorkerLost { worker, reason: String::new() };
            let how = Some(unit_ended::How::Failure(failure_to_wire(&failure)));
            self.cluster.unit_ended(worker, UnitEnded { order, how }).unwrap();
        }
    }

    #[test]
    fn what_a_worker_that_has_left_says_late_counts_for_nothing() {
        let mut crew = Crew::of(3);
        crew.holds(C, NAME);
        crew.cluster.draining(C);
        assert_eq!(crew.told(B), (vec![NAME], false));
        // B is asked to leave before it has taken the State in, and has nothing to hand over.
        crew.cluster.draining(B);
        assert_eq!(crew.told(B), (vec![], true));
        assert_eq!(crew.told(A), (vec![NAME], false), "somebody else has to take it in");
        crew.cluster.state_held(B, NAME);
        assert_eq!(crew.held_by(NAME), [Holder::Worker(C)], "B has gone with its copy");
        assert_eq!(crew.told(C), (vec![], false));
        crew.cluster.state_held(A, NAME);
        assert_eq!(crew.told(C), (vec![], true));
        assert_eq!(crew.held_by(NAME), [Holder::Worker(A)]);
    }

    #[test]
    fn a_worker_that_takes_a_state_over_and_is_asked_to_leave_hands_it_on() {
        let mut crew = Crew::of(3);
        crew.holds(C, NAME);
        crew.cluster.draining(C);
        assert_eq!(crew.told(B), (vec![NAME], false));
        let order = crew.busy(B);
        crew.cluster.draining(B);
        // B does not stay, so A is asked too; B is faster.
        assert_eq!(crew.told(A), (vec![NAME], false));
        crew.cluster.state_held(B, NAME);
        assert_eq!(crew.told(C), (vec![], true), "C has handed over what it had");
        crew.ends(B, order);
        assert_eq!(crew.told(B), (vec![], false), "B alone has it now");
        assert_eq!(crew.told(A), (vec![], false), "it is on its way, and not sent twice");
        crew.cluster.state_held(A, NAME);
        assert_eq!(crew.told(B), (vec![], true));
        assert_eq!(crew.held_by(NAME), [Holder::Worker(A)]);
    }

    #[test]
    fn of_two_that_leave_with_the_same_state_one_stays_until_another_has_it() {
        let mut crew = Crew::of(3);
        crew.holds(C, NAME);
        crew.cluster.state_held(B, NAME);
        let orders = [crew.busy(B), crew.busy(C)];
        crew.cluster.draining(B);
        crew.cluster.draining(C);
        crew.ends(B, orders[0]);
        crew.ends(C, orders[1]);
        assert_eq!((crew.told(B).1, crew.told(C).1), (true, false));
        assert_eq!(crew.told(A), (vec![NAME], false));
        crew.cluster.state_held(A, NAME);
        assert!(crew.told(C).1);
    }

    /// Version 1 with A and B, and version 2, which B has made of it: A holds a spare only.
    fn with_a_spare(crew: &Crew) -> StateName {
        let name = |version| StateName { trial: TrialId(0), version, origin: version };
        let recipe = |version: u64| {
            let (trial, partition) = (TrialId(0), PartitionId(version as u32));
            let unit = Unit { trial, epoch: 0, split: Split::Train, partition };
            Some(Recipe { unit, config: Arc::default(), seed: Seed(0) })
        };
        let mut books = crew.cluster.books();
        books.ledger.made(name(1), Holder::Worker(A), recipe(1));
        books.ledger.held(name(1), Holder::Worker(B));
        books.ledger.made(name(2), Holder::Worker(B), recipe(2));
        books.ledger.release(TrialId(0), 2, &[]);
        crew.cluster.collect(&mut books, TrialId(0));
        name(2)
    }

    #[test]
    fn a_worker_that_holds_a_spare_leaves_when_two_others_hold_what_came_of_it() {
        let mut crew = Crew::of(3);
        let newest = with_a_spare(&crew);
        crew.cluster.draining(A);
        assert_eq!(crew.told(C), (vec![newest], false));
        assert_eq!(crew.told(A), (vec![], false), "B alone would hold all that there is");
        crew.cluster.state_held(C, newest);
        assert_eq!(crew.told(A), (vec![], true));
        assert_eq!(crew.held_by(newest), [Holder::Worker(B), Holder::Worker(C)]);
    }

    #[test]
    fn where_nobody_can_take_a_copy_a_worker_with_a_spare_does_not_wait_for_one() {
        let mut crew = Crew::of(2);
        with_a_spare(&crew);
        crew.cluster.draining(A);
        assert_eq!(crew.told(A), (vec![], true), "B is the only one who stays");
        let mut crew = Crew::of(3);
        let newest = with_a_spare(&crew);
        crew.cluster.draining(A);
        crew.cluster.state_missed(C, newest, "the peer cannot be reached");
        assert_eq!(crew.relays.next().now_or_never(), Some(Some(newest)), "the driver takes it");
        assert_eq!(crew.told(A), (vec![], false));
        crew.cluster.books().ledger.held(newest, Holder::Driver);
        crew.cluster.relayed(newest);
        assert_eq!(crew.told(A), (vec![], true));
    }

    #[test]
    fn what_a_loss_leaves_with_one_worker_is_copied_at_once_or_when_another_worker_comes() {
        let mut crew = Crew::of(3);
        let newest = with_a_spare(&crew);
        crew.cluster.session_ended(A, "the machine is gone");
        assert_eq!(crew.told(C), (vec![newest], false));
        let mut crew = Crew::of(2);
        with_a_spare(&crew);
        crew.cluster.session_ended(A, "the machine is gone");
        let register = Register { slots: 1, instance: 3, ..Register::default() };
        let (to, told) = Outbox::new();
        let id = crew.cluster.register(register, Identity::Unknown, to).unwrap();
        crew.told.push(told.boxed());
        crew.cluster.announce(&mut crew.cluster.books(), id);
        assert_eq!(crew.told(C), (vec![newest], false));
    }

    #[test]
    fn whoever_was_to_take_a_state_over_and_is_lost_is_replaced() {
        let mut crew = Crew::of(3);
        crew.holds(C, NAME);
        crew.cluster.draining(C);
        assert_eq!(crew.told(B), (vec![NAME], false));
        crew.cluster.session_ended(B, "the machine is gone");
        assert_eq!(crew.told(A), (vec![NAME], false));
        assert!(!crew.told(C).1);
    }

    #[test]
    fn what_no_worker_takes_over_goes_to_the_driver() {
        for others in [0, 1] {
            let mut crew = Crew::of(others + 1);
            let leaving = WorkerId(others as u32);
            crew.holds(leaving, NAME);
            crew.cluster.draining(leaving);
            if others == 1 {
                assert_eq!(crew.told(A), (vec![NAME], false));
                crew.cluster.state_missed(A, NAME, "the peer cannot be reached");
                crew.cluster.state_missed(A, NAME, "said twice, it counts once");
            }
            assert_eq!(crew.relays.next().now_or_never(), Some(Some(NAME)));
            assert_eq!(crew.relays.next().now_or_never(), None, "once");
            crew.cluster.books().ledger.held(NAME, Holder::Driver);
            crew.cluster.relayed(NAME);
            assert!(crew.told(leaving).1);
        }
    }

    #[test]
    fn a_report_on_a_unit_that_a_worker_does_not_have_ends_its_session() {
        let crew = Crew::of(2);
        let order = crew.busy(A);
        let nonsense = |worker, order| {
            let ended = UnitEnded { order, how: None };
            crew.cluster.unit_ended(worker, ended).is_err()
        };
        assert!(nonsense(B, order), "another worker's");
        assert!(nonsense(B, 99), "nobody's");
        let loaded = protocol::PartitionLoaded::default();
        assert!(crew.cluster.partition_loaded(B, &loaded).is_err());
        assert!(crew.cluster.partition_failed(B, &protocol::PartitionFailed::default()).is_err());
        crew.cluster.session_ended(B, "what it says does not make sense");
        assert!(!nonsense(B, order), "of a worker that is gone it is merely late");
    }
}
