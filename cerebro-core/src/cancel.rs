//! [`Cancellation`]: how work is asked to stop at its next batch boundary.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::channel::oneshot;

/// A flag that says that work should stop at its next batch boundary; clones share it.
///
/// Compute asks [`is_cancelled`](Self::is_cancelled) between batches; whoever must pass the word on,
/// such as a backend whose workers are elsewhere, awaits [`cancelled`](Self::cancelled).
#[derive(Clone, Debug, Default)]
pub struct Cancellation(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    cancelled: AtomicBool,
    waiting: Mutex<Vec<oneshot::Sender<()>>>,
}

impl Cancellation {
    /// Work that goes on.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks the work to stop. Cannot be taken back.
    pub fn cancel(&self) {
        let mut waiting = self.0.waiting();
        self.0.cancelled.store(true, Ordering::Release);
        for waiter in waiting.drain(..) {
            // One that waits no more is not told.
            let _ = waiter.send(());
        }
    }

    /// Whether the work was asked to stop.
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::Acquire)
    }

    /// Returns when the work is asked to stop.
    pub async fn cancelled(&self) {
        let told = {
            let mut waiting = self.0.waiting();
            if self.is_cancelled() {
                return;
            }
            waiting.retain(|waiter| !waiter.is_canceled());
            let (waiter, told) = oneshot::channel();
            waiting.push(waiter);
            told
        };
        // The sender lives in what `self` keeps alive, so it is not dropped before it has sent.
        let _ = told.await;
    }
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Vec<oneshot::Sender<()>>> {
        // Nothing panics while it holds the lock.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn whoever_waits_hears_of_it_whether_before_or_after() {
        let cancellation = Cancellation::new();
        let mut before = Box::pin(cancellation.cancelled());
        assert!((&mut before).now_or_never().is_none());
        assert!(!cancellation.is_cancelled());
        cancellation.clone().cancel();
        assert!(before.now_or_never().is_some());
        assert!(cancellation.cancelled().now_or_never().is_some());
        assert!(cancellation.is_cancelled());
    }
}
