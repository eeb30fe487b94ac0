//! Workers: taken in, given partitions, lost, dismissed.

use std::collections::{BTreeMap, BTreeSet};

use cerebro_core::backend::{UnitError, WorkerEvent, WorkerInfo};
use cerebro_core::{PartitionId, WorkerId};

use super::{Books, Cluster, Outbox, Phase, PreparedJob, Status, Worker};
use crate::ledger::Holder;
use crate::placement::{Place, additions};
use crate::protocol::{self, from_driver};
use crate::security::Identity;
use crate::wire::Failed;

impl Cluster {
    /// Takes a worker in and tells it what there is to do.
    pub(crate) fn register(
        &self,
        register: protocol::Register,
        identity: Identity,
        to: Outbox,
    ) -> Result<WorkerId, tonic::Status> {
        let mut books = self.books();
        if books.phase == Phase::Ended {
            return Err(tonic::Status::unavailable("the run is over"));
        }
        let same = |worker: &&Worker| worker.instance == register.instance;
        let before = books.workers.iter().find(|(_, worker)| same(worker)).map(|(&id, _)| id);
        if let Some(before) = before {
            if books.workers[&before].identity != identity {
                return Err(tonic::Status::permission_denied(
                    "another worker has registered as this process, with another certificate",
                ));
            }
            self.lose(&mut books, before, "it has registered again");
            self.resettle(&mut books);
        }
        if books.workers.len() >= self.terms.most_workers {
            return Err(tonic::Status::resource_exhausted(format!(
                "{} workers are registered, which is as many as this driver takes",
                books.workers.len()
            )));
        }
        let id = WorkerId(books.next_worker);
        books.next_worker += 1;
        let mut states = Vec::new();
        if register.run == self.run {
            for name in register.states {
                if books.ledger.held(name.into(), Holder::Worker(id)) {
                    states.push(name);
                }
            }
        }
        let ids = |partitions: Vec<u32>| partitions.into_iter().map(PartitionId).collect();
        let holdings = register.holdings.into_iter().map(|held| (held.data, ids(held.partitions)));
        let holdings: BTreeMap<String, BTreeSet<PartitionId>> = holdings.collect();
        let cached = books.job.as_ref().and_then(|job| holdings.get(&job.message.data));
        let place = Place { cached: cached.cloned().unwrap_or_default(), ..Place::default() };
        let worker = Worker {
            name: register.name,
            slots: register.slots as usize,
            device: register.device.unwrap_or_default().into(),
            address: register.address,
            place,
            holdings,
            loading: BTreeSet::new(),
            status: Status::New,
            missed: 0,
            instance: register.instance,
            identity,
            to,
        };
        tracing::info!(worker = %id, name = worker.name, slots = worker.slots, "a worker registered");
        worker.send(from_driver::What::Welcome(protocol::Welcome {
            worker: id.0,
            run: self.run,
            lease_milliseconds: self.terms.lease.as_millis() as u64,
            states,
        }));
        if let Some(job) = &books.job {
            worker.send(from_driver::What::Job(job.message.clone()));
        }
        books.workers.insert(id, worker);
        books.sessions += 1;
        self.place(&mut books);
        drop(books);
        self.changed();
        Ok(id)
    }

    /// Tells all workers, those that are there and those that come, what there is to do.
    pub(crate) fn tell_job(books: &mut Books, job: PreparedJob) {
        for worker in books.workers.values_mut() {
            let cached = worker.holdings.get(&job.message.data);
            worker.place.cached = cached.cloned().unwrap_or_default();
            worker.send(from_driver::What::Job(job.message.clone()));
        }
        books.job = Some(job);
    }

    /// Has the partitions loaded.
    pub(crate) fn load(&self, books: &mut Books) {
        books.phase = Phase::Loading;
        self.place(books);
    }

    /// Has partitions loaded where they are missing.
    pub(crate) fn place(&self, books: &mut Books) {
        if !matches!(books.phase, Phase::Loading | Phase::Running) {
            return;
        }
        let Some(job) = &books.job else { return };
        let places = books
            .workers
            .iter()
            .filter(|(_, worker)| worker.status != Status::Draining)
            .map(|(&id, worker)| (id, worker.place.clone()))
            .collect();
        for (id, partitions) in additions(&job.partitions, &places, self.terms.replicas) {
            if let Some(worker) = books.workers.get_mut(&id) {
                worker.place.holds.extend(&partitions);
                worker.loading.extend(&partitions);
                let partitions = partitions.iter().map(|partition| partition.0).collect();
                worker.send(from_driver::What::Load(protocol::Load { partitions }));
            }
        }
    }

    /// Tells everybody of a worker that has loaded what it was asked to.
    pub(super) fn announce(&self, books: &mut Books, id: WorkerId) {
        if books.phase != Phase::Running {
            return;
        }
        if let Some(worker) = books.workers.get_mut(&id)
            && worker.loading.is_empty()
            && worker.status != Status::Draining
        {
            worker.status = Status::Serving;
            self.say(WorkerEvent::Joined(worker.info(id)));
            self.resettle(books);
        }
    }

    /// Ends the loading: from here on units run. Answers with the workers that there are.
    pub(crate) fn begin(books: &mut Books) -> Vec<WorkerInfo> {
        books.phase = Phase::Running;
        let loaded = books.workers.iter_mut().filter(|(_, worker)| worker.loading.is_empty());
        let infos = loaded.map(|(&id, worker)| {
            worker.status = Status::Serving;
            worker.info(id)
        });
        infos.collect()
    }

    /// Whether a worker is registered: it has neither been lost nor told to leave.
    pub(crate) fn knows(&self, id: WorkerId) -> bool {
        self.books().workers.contains_key(&id)
    }

    /// Takes in that a worker's session has ended.
    pub(crate) fn session_ended(&self, id: WorkerId, reason: &str) {
        let mut books = self.books();
        books.sessions -= 1;
        self.lose(&mut books, id, reason);
        self.resettle(&mut books);
        drop(books);
        self.changed();
    }

    pub(super) fn lose(&self, books: &mut Books, id: WorkerId, reason: &str) {
        let Some(worker) = books.workers.remove(&id) else { return };
        if books.phase == Phase::Ended || worker.status == Status::Draining {
            tracing::info!(worker = %id, name = worker.name, reason, "a worker left");
        } else {
            tracing::warn!(worker = %id, name = worker.name, reason, "a worker is lost");
        }
        books.ledger.lost(id);
        books.copying.retain(|&(_, to)| to != id);
        let gone: Vec<u64> = books
            .orders
            .iter()
            .filter(|(_, pending)| pending.worker == id)
            .map(|(&number, _)| number)
            .collect();
        for number in gone {
            if let Some(pending) = books.orders.remove(&number) {
                let lost = UnitError::WorkerLost { worker: id, reason: reason.to_owned() };
                let _ = pending.reply.send(Err(Failed::Unit(lost)));
            }
        }
        if worker.status != Status::New {
            self.say(WorkerEvent::Lost { worker: id, reason: reason.to_owned() });
        }
        self.place(books);
    }

    /// Ends the run and every session.
    pub(crate) fn end(&self, reason: &str) {
        let mut books = self.books();
        books.phase = Phase::Ended;
        let ids: Vec<WorkerId> = books.workers.keys().copied().collect();
        for id in ids {
            self.dismiss(&mut books, id, reason);
        }
        drop(books);
        self.held().clear();
        self.changed();
    }

    pub(super) fn dismiss(&self, books: &mut Books, id: WorkerId, reason: &str) {
        if let Some(worker) = books.workers.get(&id) {
            let reason = reason.to_owned();
            worker.send(from_driver::What::Leave(protocol::Leave { reason, finished: true }));
        }
        self.lose(books, id, reason);
    }
}
