//! States: who is told to hold which, and who to forget it.

use std::collections::HashMap;
use std::sync::{Arc, MutexGuard, PoisonError};

use cerebro_core::{State, TrialId, WorkerId};

use super::{Books, Cluster, FROM_DRIVER, Status};
use crate::bulk::Holdings;
use crate::ledger::{Found, Holder, StateName};
use crate::protocol::{self, from_driver, wanted};

impl Cluster {
    pub(crate) fn held(&self) -> MutexGuard<'_, HashMap<StateName, State>> {
        // Nothing panics while it holds the lock.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a State that the driver was given, or one that it relays.
    pub(crate) fn hold(&self, name: StateName, state: State) {
        self.held().insert(name, state);
    }

    pub(crate) fn next_order(&self) -> u64 {
        let mut books = self.books();
        books.next_order += 1;
        books.next_order - 1
    }

    /// Forgets what is needed no more.
    pub(crate) fn collect(&self, books: &mut Books, trial: TrialId) {
        let dropped = books.ledger.collect(trial, books.workers.len());
        self.drop_states(books, dropped);
    }

    pub(super) fn drop_states(
        &self,
        books: &Books,
        dropped: impl IntoIterator<Item = (Holder, StateName)>,
    ) {
        let mut freed = Vec::new();
        for (holder, name) in dropped {
            match holder {
                Holder::Driver => freed.extend(self.held().remove(&name)),
                Holder::Worker(id) => {
                    if let Some(worker) = books.workers.get(&id) {
                        worker.let_go(name);
                    }
                }
            }
        }
    }

    /// The addresses of holders, the driver's as [`FROM_DRIVER`].
    pub(crate) fn sources(
        books: &Books,
        holders: impl IntoIterator<Item = Holder>,
        except: Option<WorkerId>,
    ) -> Vec<String> {
        let address = |holder| match holder {
            Holder::Driver => Some(FROM_DRIVER.to_owned()),
            Holder::Worker(id) if Some(id) == except => None,
            Holder::Worker(id) => books.workers.get(&id).map(|worker| worker.address.clone()),
        };
        holders.into_iter().filter_map(address).collect()
    }

    /// Has one more worker take in a State that `holders` hold. `false` if there is no other worker.
    pub(crate) fn back_up(books: &mut Books, name: StateName, holders: &[Holder]) -> bool {
        let others: Vec<WorkerId> = books
            .workers
            .iter()
            .filter(|(_, worker)| worker.status == Status::Serving)
            .map(|(&id, _)| id)
            .filter(|&id| !holders.contains(&Holder::Worker(id)))
            .collect();
        if others.iter().any(|&id| books.copying.contains(&(name, id))) {
            return true;
        }
        // Spread over the workers, and for one State always to the same one.
        let Some(at) = (name.trial.0 + name.version).checked_rem(others.len() as u64) else {
            return false;
        };
        Self::copy(books, name, holders, others[at as usize]);
        true
    }

    /// Has `worker` take in a State that a unit will probably start from there, while it runs others.
    ///
    /// A unit that comes before the State has arrived waits for the rest of it, and not for another
    /// transfer.
    pub(crate) fn send_ahead(books: &mut Books, trial: TrialId, version: u64, worker: WorkerId) {
        let stays = books.workers.get(&worker).is_some_and(|w| w.status == Status::Serving);
        // Nobody knows yet whether a State that is lost will be wanted there.
        let Found::Held { name, holders } = books.ledger.find(trial, version) else { return };
        if stays && !holders.contains(&Holder::Worker(worker)) {
            Self::copy(books, name, &holders, worker);
        }
    }

    /// Has worker `to` take in a State.
    fn copy(books: &mut Books, name: StateName, holders: &[Holder], to: WorkerId) {
        let sources = Self::sources(books, holders.iter().copied(), Some(to));
        let Some(worker) = books.workers.get(&to) else { return };
        if books.copying.insert((name, to)) {
            let fetch = protocol::Fetch { state: Some(name.into()), sources };
            worker.send(from_driver::What::Fetch(fetch));
        }
    }

    /// The lock that is held while States of `trial` are made again.
    pub(crate) fn repair(&self, trial: TrialId) -> Arc<tokio::sync::Mutex<()>> {
        let mut repairs = self.repairs.lock().unwrap_or_else(PoisonError::into_inner);
        repairs.retain(|_, repair| Arc::strong_count(repair) > 1);
        Arc::clone(repairs.entry(trial).or_default())
    }
}

impl Holdings for Cluster {
    fn find(&self, wanted: &protocol::Wanted) -> Option<State> {
        match wanted.what? {
            wanted::What::State(name) => self.held().get(&name.into()).cloned(),
            wanted::What::Blueprint(digest) => {
                let books = self.books();
                let job = books.job.as_ref().filter(|job| job.message.blueprint == digest)?;
                Some(job.blueprint.clone())
            }
        }
    }
}
