//! What workers say, and what follows from it.

use std::time::Duration;

use cerebro_core::backend::WorkerEvent;
use cerebro_core::{PartitionId, WorkerId};

use super::{Cluster, Phase};
use crate::ledger::{Holder, StateName};
use crate::protocol::{self, from_driver, unit_ended};
use crate::wire::{failure_from_wire, report_from_wire};

/// The characters of a trouble that are kept.
const LONGEST_TROUBLE: usize = 300;

impl Cluster {
    pub(crate) fn beat(&self, id: WorkerId) {
        if let Some(worker) = self.books().workers.get(&id) {
            worker.send(from_driver::What::Beat(protocol::Beat {}));
        }
    }

    /// A partition's end; an error if nobody asked for it.
    pub(crate) fn partition_loaded(
        &self,
        id: WorkerId,
        loaded: &protocol::PartitionLoaded,
    ) -> Result<(), String> {
        let partition = PartitionId(loaded.partition);
        let mut books = self.books();
        let Some(worker) = books.workers.get_mut(&id) else { return Ok(()) };
        if !worker.loading.remove(&partition) {
            return Err(format!("it loaded {partition} without having been asked to"));
        }
        if !loaded.trouble.is_empty() {
            let trouble = format!("{partition} and the cache on disk: {}", loaded.trouble);
            self.trouble(id, trouble);
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
        Ok(())
    }

    /// A partition's other end; an error if nobody asked for it.
    pub(crate) fn partition_failed(
        &self,
        id: WorkerId,
        failed: &protocol::PartitionFailed,
    ) -> Result<(), String> {
        let partition = PartitionId(failed.partition);
        let mut books = self.books();
        let Some(worker) = books.workers.get_mut(&id) else { return Ok(()) };
        if !worker.loading.remove(&partition) {
            return Err(format!("it failed to load {partition}, which it was not asked to"));
        }
        tracing::warn!(worker = %id, %partition, reason = failed.reason, "not loaded");
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
        Ok(())
    }

    /// Something that stops nothing, for people.
    pub(crate) fn trouble(&self, id: WorkerId, mut what: String) {
        // It comes from elsewhere, and people read lines.
        if what.chars().count() > LONGEST_TROUBLE {
            what = what.chars().take(LONGEST_TROUBLE).chain("...".chars()).collect();
        }
        tracing::warn!(worker = %id, what, "a worker met with trouble");
        self.say(WorkerEvent::Trouble { worker: id, what });
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
        if !books.workers.contains_key(&id) {
            // The order was given up with its worker.
            tracing::debug!(worker = %id, order = number, "a late report is refused");
            return Ok(());
        }
        if books.orders.get(&number).is_none_or(|pending| pending.worker != id) {
            return Err(format!("it reports on order {number}, which it does not have"));
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
                    if !books.ledger.made(name, holder, pending.recipe) {
                        self.drop_states(&books, [(holder, name)]);
                    }
                }
                Ok(report)
            }
            Some(unit_ended::How::Failure(failure)) => Err(failure_from_wire(failure, id)),
            None => return Err(format!("{} ended in no way", pending.unit)),
        };
        // The future that waits may have been dropped; the State counts all the same.
        let _ = pending.reply.send(result);
        self.collect(&mut books, trial);
        self.hand_over(&mut books);
        Ok(())
    }

    pub(crate) fn state_held(&self, id: WorkerId, name: StateName) {
        let mut books = self.books();
        if !books.workers.contains_key(&id) {
            // It is gone, and what it holds with it, however long ago it said this.
            return;
        }
        books.copying.remove(&(name, id));
        if books.ledger.held(name, Holder::Worker(id)) {
            self.collect(&mut books, name.trial);
        } else {
            // It was let go, or made again, while it travelled.
            self.drop_states(&books, [(Holder::Worker(id), name)]);
        }
        self.hand_over(&mut books);
    }

    pub(crate) fn state_missed(&self, id: WorkerId, name: StateName, reason: &str) {
        let mut books = self.books();
        if !books.copying.remove(&(name, id)) {
            return;
        }
        // Another copy is made when the next unit starts; meanwhile the one before is kept.
        if books.ledger.base(name.trial, name.version).is_some_and(|(held, _)| held == name) {
            tracing::warn!(worker = %id, ?name, reason, "a State was not copied");
        }
        self.hand_over_by_relay(&mut books, name);
        self.hand_over(&mut books);
    }
}
