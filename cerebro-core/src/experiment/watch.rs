//! [`EventStream`]: events for those who control an experiment.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::channel::mpsc;
use futures::{Stream, StreamExt};

use crate::observe::{Event, ObserveError, Observer, TimedEvent};

/// So many events wait for a watcher that is slow; it misses those that come while it has so many.
const WAITING: usize = 4096;

/// Everybody who watches an experiment through its handle.
#[derive(Clone, Debug, Default)]
pub(super) struct Watchers(Arc<Mutex<Watching>>);

#[derive(Debug, Default)]
struct Watching {
    watchers: Vec<Watcher>,
    /// Whether the experiment has ended.
    over: bool,
}

#[derive(Debug)]
struct Watcher {
    events: mpsc::Sender<TimedEvent>,
    missed: Arc<AtomicU64>,
}

impl Watchers {
    pub(super) fn watch(&self) -> EventStream {
        let (events, receiver) = mpsc::channel(WAITING);
        let missed = Arc::new(AtomicU64::new(0));
        let stream = EventStream { events: receiver, missed: Arc::clone(&missed) };
        let mut watching = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !watching.over {
            watching.watchers.push(Watcher { events, missed });
        }
        stream
    }

    /// Ends the streams, once the experiment has.
    fn end(&self) {
        let mut watching = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        watching.over = true;
        watching.watchers.clear();
    }
}

/// Ends the streams when the experiment is gone, however it came to its end.
#[derive(Debug)]
pub(super) struct EndsWatch(pub(super) Watchers);

impl Drop for EndsWatch {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Observer for Watchers {
    fn observe(&mut self, at: Duration, event: &Event) -> Result<(), ObserveError> {
        let mut watching = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        watching.watchers.retain_mut(|watcher| {
            let event = TimedEvent { at, event: event.clone() };
            match watcher.events.try_send(event) {
                Ok(()) => true,
                Err(error) if error.is_full() => {
                    watcher.missed.fetch_add(1, Ordering::Relaxed);
                    true
                }
                Err(_) => false,
            }
        });
        Ok(())
    }
}

/// What happens in an experiment, from [`ExperimentHandle::events`](super::ExperimentHandle::events).
///
/// A watcher that does not keep up misses events, and never delays the experiment or fills its
/// memory: [`missed`](Self::missed) says how many.
#[derive(Debug)]
pub struct EventStream {
    events: mpsc::Receiver<TimedEvent>,
    missed: Arc<AtomicU64>,
}

impl EventStream {
    /// The events for a `for` loop, outside of async code: each step waits for the next one.
    pub fn into_blocking_iter(self) -> impl Iterator<Item = TimedEvent> {
        futures::executor::block_on_stream(self)
    }

    /// How many events this watcher has missed so far, because it had not taken those before.
    pub fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }
}

impl Stream for EventStream {
    type Item = TimedEvent;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<TimedEvent>> {
        self.events.poll_next_unpin(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::WorkerId;
    use futures::executor::block_on;

    #[test]
    fn a_watcher_that_is_slow_misses_events_and_knows_how_many() {
        let mut watchers = Watchers::default();
        let mut slow = watchers.watch();
        let gone = watchers.watch();
        drop(gone);
        let event = |worker: u32| Event::WorkerDraining { worker: WorkerId(worker) };
        let told = WAITING as u32 + 100;
        for worker in 0..told {
            watchers.observe(Duration::ZERO, &event(worker)).unwrap();
        }
        let first = block_on(slow.next()).unwrap();
        assert_eq!(first.event, event(0));
        watchers.end();
        let rest = block_on(slow.by_ref().collect::<Vec<_>>()).len() as u64;
        assert!(slow.missed() > 0);
        assert_eq!(1 + rest + slow.missed(), u64::from(told));
        assert_eq!(block_on(watchers.watch().next()), None, "it is over");
    }
}
