//! Orders: units on their way to workers.

use cerebro_core::WorkerId;
use cerebro_core::backend::{UnitError, UnitReport};
use futures::channel::oneshot;

use super::{Cluster, Dispatch, Pending};
use crate::ledger::Holder;
use crate::protocol::{self, from_driver};
use crate::wire::Failed;

#[cfg(any(test, fuzzing))]
impl super::Books {
    /// How many units a worker runs, as far as the driver knows.
    pub(crate) fn units_of(&self, worker: WorkerId) -> usize {
        self.orders.values().filter(|pending| pending.worker == worker).count()
    }
}

impl Cluster {
    /// Sends a unit to its worker. Answers with its number and its end, or with why it could not be
    /// sent.
    pub(crate) fn dispatch(
        &self,
        dispatch: Dispatch,
    ) -> Result<(u64, oneshot::Receiver<Result<UnitReport, Failed>>), Failed> {
        let Dispatch { worker: id, unit, version, recipe, config, seed } = dispatch;
        let mut books = self.books();
        let books = &mut *books;
        let Some(worker) = books.workers.get(&id) else {
            let reason = "it is not registered".to_owned();
            return Err(Failed::Unit(UnitError::WorkerLost { worker: id, reason }));
        };
        let base = books.ledger.base(unit.trial, version);
        let (state, holders) = match base {
            Some((name, holders)) => (Some(name), holders),
            None if version == 0 => (None, Vec::new()),
            None => return Err(Failed::State("it was lost meanwhile".to_owned())),
        };
        let number = books.next_order;
        books.next_order += 1;
        let sources = Self::sources(books, holders.iter().copied(), Some(id));
        worker.send(from_driver::What::Run(protocol::Run {
            order: number,
            unit: Some(unit.into()),
            config: config.into(),
            seed,
            version,
            state: state.map(Into::into),
            sources,
        }));
        if let Some(name) = state
            && recipe.is_some()
            && holders == [Holder::Worker(id)]
        {
            Self::back_up(books, name, &holders);
        }
        let (reply, ended) = oneshot::channel();
        books.orders.insert(number, Pending { worker: id, unit, version, recipe, reply });
        Ok((number, ended))
    }

    pub(crate) fn cancel(&self, id: WorkerId, order: u64) {
        if let Some(worker) = self.books().workers.get(&id) {
            worker.send(from_driver::What::Cancel(protocol::Cancel { order }));
        }
    }
}
