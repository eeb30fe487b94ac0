//! What workers say, and what follows from it.

use std::time::Duration;

use cerebro_core::backend::WorkerEvent;
use cerebro_core::{PartitionId, WorkerId};

use super::{Books, Cluster, Phase, Status};
use crate::ledger::{Holder, StateName};
use crate::protocol::{self, from_driver, unit_ended};
use crate::wire::{failure_from_wire, report_from_wire};

impl Cluster {
    pub(crate) fn beat(&self, id: WorkerId) {
        if let Some(worker) = self.books().workers.get(&id) {
            worker.send(from_driver::What::Beat(protocol::Beat {}));
        }
    }

    pub(crate) fn partition_loaded(&self, id: WorkerId, loaded: &protocol::PartitionLoaded) {
        let partition = PartitionId(loaded.partition);
        if !loaded.trouble.is_empty() {
            tracing::warn!(worker = %id, %partition, trouble = loaded.trouble, "the cache on disk");
        }
        let mut books = self.books();
        let Some(worker) = books.workers.get_mut(&id) else { return };
        if !worker.loading.remove(&partition) {
            tracing::warn!(worker = %id, %partition, "loaded without having been asked to");
            return;
        }
        self.say(WorkerEvent::PartitionLoaded {
            worker: id,
            partition,
            rows: loaded.rows,
            bytes: loaded.bytes,
            took: Duration::from_nanos(loaded.took_nanoseconds),
        });
        if worker.loading.is_empty() {
            self.announce(&mut books, id);
        }
        drop(books);
        self.changed();
    }

    pub(crate) fn partition_failed(&self, id: WorkerId, failed: &protocol::PartitionFailed) {
        let partition = PartitionId(failed.partition);
        tracing::warn!(worker = %id, %partition, reason = failed.reason, "not loaded");
        let mut books = self.books();
        let Some(worker) = books.workers.get_mut(&id) else { return };
        worker.loading.remove(&partition);
        worker.place.holds.remove(&partition);
        worker.place.failed.insert(partition);
        if worker.loading.is_empty() {
            self.announce(&mut books, id);
        }
        self.place(&mut books);
        let nobody = !books.workers.values().any(|worker| worker.place.holds.contains(&partition));
        if books.phase == Phase::Loading && nobody {
            books.refusal = Some(format!("loading {partition} on {id}: {}", failed.reason));
        }
        drop(books);
        self.changed();
    }

    /// A worker that cannot do the job is of no use to it.
    pub(crate) fn refused(&self, id: WorkerId, reason: &str) {
        let mut books = self.books();
        let Some(worker) = books.workers.get(&id) else { return };
        let refusal = format!("preparing {id} ({}): {reason}", worker.name);
        if matches!(books.phase, Phase::Gathering | Phase::Loading) {
            books.refusal = Some(refusal);
        }
        self.dismiss(&mut books, id, &format!("it cannot do the job: {reason}"));
        drop(books);
        self.changed();
    }

    pub(crate) fn progress(&self, id: WorkerId, progress: &protocol::Progress) {
        let books = self.books();
        if let Some(pending) = books.orders.get(&progress.order).filter(|p| p.worker == id) {
            let (unit, rows) = (pending.unit, progress.rows);
            self.say(WorkerEvent::Progress { worker: id, unit, rows });
        }
    }

    /// A unit's end; an error if the message does not make sense.
    pub(crate) fn unit_ended(
        &self,
        id: WorkerId,
        ended: protocol::UnitEnded,
    ) -> Result<(), String> {
        let number = ended.order;
        let mut books = self.books();
        if books.orders.get(&number).is_none_or(|pending| pending.worker != id) {
            // The order was given up: its worker had been taken for lost.
            tracing::warn!(worker = %id, order = number, "a late report is refused");
            return Ok(());
        }
        let Some(pending) = books.orders.remove(&number) else { return Ok(()) };
        let trial = pending.unit.trial;
        let result = match ended.how {
            Some(unit_ended::How::Report(report)) => {
                let report = report_from_wire(&report).map_err(|nonsense| nonsense.to_string())?;
                let version = pending.version + u64::from(pending.recipe.is_some());
                if report.version != version {
                    return Err(format!("{} made version {}", pending.unit, report.version));
                }
                if pending.recipe.is_some() {
                    let name = StateName { trial, version, origin: number };
                    let holder = Holder::Worker(id);
                    books.ledger.made(name, holder, pending.recipe);
                }
                Ok(report)
            }
            Some(unit_ended::How::Failure(failure)) => Err(failure_from_wire(failure, id)),
            None => return Err(format!("{} ended in no way", pending.unit)),
        };
        // The future that waits may have been dropped; the State counts all the same.
        let _ = pending.reply.send(result);
        self.collect(&mut books, trial);
        self.hand_over(&mut books, id);
        Ok(())
    }

    pub(crate) fn state_held(&self, id: WorkerId, name: StateName) {
        let mut books = self.books();
        if !books.ledger.held(name, Holder::Worker(id)) {
            // It was let go, or made again, while it travelled.
            self.drop_states(&books, [(Holder::Worker(id), name)]);
            return;
        }
        self.collect(&mut books, name.trial);
        self.let_go(&mut books);
    }

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
        self.hand_over(&mut books, id);
        drop(books);
        self.changed();
    }

    /// Has what only a draining worker holds taken over by others, and lets it go when there is
    /// nothing left.
    pub(super) fn hand_over(&self, books: &mut Books, id: WorkerId) {
        let draining = books.workers.get(&id).is_some_and(|w| w.status == Status::Draining);
        if !draining || books.orders.values().any(|pending| pending.worker == id) {
            return;
        }
        let names = books.ledger.only_with(id);
        if names.is_empty() {
            self.dismiss(books, id, "it was asked to leave");
            return;
        }
        let others = books.workers.values().any(|worker| worker.status == Status::Serving);
        for name in names {
            if others {
                Self::back_up(books, name, id);
            } else {
                // The task that relays lives as long as the driver.
                let _ = self.relays.unbounded_send(name);
            }
        }
    }

    /// Lets draining workers go that have nothing more to hand over.
    pub(crate) fn let_go(&self, books: &mut Books) {
        let draining = books.workers.iter().filter(|(_, w)| w.status == Status::Draining);
        let draining: Vec<WorkerId> = draining.map(|(&id, _)| id).collect();
        for worker in draining {
            let busy = books.orders.values().any(|pending| pending.worker == worker);
            if !busy && books.ledger.only_with(worker).is_empty() {
                self.dismiss(books, worker, "it was asked to leave");
            }
        }
    }
}
