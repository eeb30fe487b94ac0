//! [`Durable`]: the store, if the experiment has one, and what waits until it has written.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::StreamExt;
use futures::channel::{mpsc, oneshot};

use super::{Driver, chain, tell};
use crate::experiment::{Answer, ControlError, Interruption};
use crate::observe::Event;
use crate::store::{Archive, Keeper, Opened, Record, Said, StoreError};

/// Keeps records in the store, and events back until the records before them are durable.
#[derive(Default)]
pub(super) struct Durable {
    store: Option<Store>,
    archive: Option<Arc<dyn Archive>>,
    /// How many records there are, and how many of them are durable.
    appended: u64,
    confirmed: u64,
    held: VecDeque<(u64, Duration, Event)>,
    /// What came of commands, for those who gave them.
    answers: VecDeque<(u64, oneshot::Sender<Answered>, Answered)>,
    trouble: Option<String>,
}

type Answered = Result<Answer, ControlError>;

struct Store {
    keeper: Arc<dyn Keeper>,
    said: mpsc::UnboundedReceiver<Said>,
}

impl Durable {
    /// A store that holds so many records.
    pub(super) fn new(opened: Opened, records: u64) -> Self {
        let Opened { keeper, archive, said, .. } = opened;
        let store = Some(Store { keeper: Arc::from(keeper), said });
        Self {
            store,
            archive: Some(archive),
            appended: records,
            confirmed: records,
            ..Self::default()
        }
    }

    pub(super) fn keeper(&self) -> Option<Arc<dyn Keeper>> {
        self.store.as_ref().map(|store| Arc::clone(&store.keeper))
    }

    pub(super) fn archive(&self) -> Option<Arc<dyn Archive>> {
        self.archive.clone()
    }

    pub(super) fn append(&mut self, record: &Record) {
        if let Some(store) = &self.store {
            store.keeper.append(record);
            self.appended += 1;
        }
    }

    /// Keeps an event until everything that was appended before is durable.
    pub(super) fn hold(&mut self, at: Duration, event: Event) {
        self.held.push_back((self.appended, at, event));
    }

    /// An event that may be told now.
    fn released(&mut self) -> Option<(Duration, Event)> {
        let (after, ..) = self.held.front()?;
        if *after > self.confirmed {
            return None;
        }
        self.held.pop_front().map(|(_, at, event)| (at, event))
    }

    /// Keeps an answer until everything that was appended before is durable.
    pub(super) fn answer(&mut self, to: oneshot::Sender<Answered>, answer: Answered) {
        self.answers.push_back((self.appended, to, answer));
    }

    /// Gives the answers that may be given now.
    fn give_answers(&mut self) {
        while self.answers.front().is_some_and(|(after, ..)| *after <= self.confirmed) {
            let Some((_, to, answer)) = self.answers.pop_front() else { return };
            // Who asked may not care any more.
            let _ = to.send(answer);
        }
    }

    /// Why nothing is taken in at present.
    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.clone()
    }

    /// Whether everything is durable, as far as there is a store.
    pub(super) fn is_settled(&self) -> bool {
        self.confirmed == self.appended && self.trouble.is_none()
    }

    pub(super) fn is_in_trouble(&self) -> bool {
        self.trouble.is_some()
    }

    pub(super) fn give_up(&self) {
        if let Some(store) = &self.store {
            store.keeper.give_up();
        }
    }

    /// What the store has said that was not heard yet.
    pub(super) fn said(&mut self) -> Option<Said> {
        match self.poll_said(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(said) => Some(said),
            Poll::Pending => None,
        }
    }

    pub(super) fn poll_said(&mut self, context: &mut Context<'_>) -> Poll<Said> {
        let Some(store) = &mut self.store else { return Poll::Pending };
        match store.said.poll_next_unpin(context) {
            Poll::Ready(Some(said)) => Poll::Ready(said),
            Poll::Ready(None) => {
                self.store = None;
                Poll::Ready(Said::Ousted(StoreError::Closed))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Driver {
    pub(super) fn store_said(&mut self, said: Said) -> Result<(), Interruption> {
        match said {
            Said::Durable(records) => self.durable.confirmed = records,
            Said::Trouble(reason) => {
                tracing::warn!("the run waits, since the store cannot take anything in: {reason}");
                self.durable.trouble = Some(reason.clone());
                self.tell_now(&Event::StoreFailing { reason });
            }
            Said::Recovered => {
                self.durable.trouble = None;
                self.tell_now(&Event::StoreRecovered);
            }
            Said::Ousted(error) => {
                self.durable.give_answers();
                for (_, to, answer) in self.durable.answers.drain(..) {
                    let reason = error.to_string();
                    // What was refused has changed nothing, durable or not.
                    let _ = to.send(answer.and(Err(ControlError::NotDurable { reason })));
                }
                let lost = self.durable.appended - self.durable.confirmed;
                self.durable.confirmed = self.durable.appended;
                self.durable.trouble = None;
                self.durable.store = None;
                if lost > 0 {
                    self.summary.warnings.push(format!(
                        "the last {lost} records are not in the store, and what they say will be \
                         done again when the experiment is resumed: {}",
                        chain(&error)
                    ));
                }
                return Err(Interruption::Store(error));
            }
        }
        Ok(())
    }

    /// Tells observers what they may hear by now.
    pub(super) fn tell_observers(&mut self) {
        while let Some((at, event)) = self.durable.released() {
            tell(&mut self.experiment.observers, at, &event, &mut self.summary);
        }
        self.durable.give_answers();
    }
}
