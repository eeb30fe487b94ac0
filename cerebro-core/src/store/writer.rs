//! Writing that does not give up: on a full disk or a dead network the run waits, and goes on.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::channel::mpsc;
use tokio::sync::watch;

use super::{Said, StoreError};

/// How long it waits before it tries again, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Tries writes again until they succeed or are given up, and says so.
#[derive(Clone, Debug)]
pub(super) struct Persistence {
    said: mpsc::UnboundedSender<Said>,
    /// Writes that fail at present.
    failing: Arc<AtomicUsize>,
    given_up: watch::Receiver<bool>,
}

impl Persistence {
    pub(super) fn new(said: mpsc::UnboundedSender<Said>, given_up: watch::Receiver<bool>) -> Self {
        Self { said, failing: Arc::default(), given_up }
    }

    pub(super) fn say(&self, said: Said) {
        // Nobody listens once the driver is gone.
        let _ = self.said.unbounded_send(said);
    }

    /// The outcome of `write`, tried again while it fails.
    pub(super) async fn insist<T, F>(&self, write: impl Fn() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let mut given_up = self.given_up.clone();
        let mut pause = FIRST_PAUSE;
        let mut trouble = None;
        loop {
            match write().await {
                Err(error @ StoreError::Access { .. }) => {
                    if trouble.is_none() {
                        trouble = Some(Trouble::begin(self));
                        self.say(Said::Trouble(error.to_string()));
                    }
                    let giving_up = given_up.wait_for(|given_up| *given_up);
                    if tokio::time::timeout(pause, giving_up).await.is_ok() {
                        return Err(error);
                    }
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                other => return other,
            }
        }
    }
}

/// A write that fails; when the last one does no longer, that is said.
struct Trouble<'a>(&'a Persistence);

impl<'a> Trouble<'a> {
    fn begin(persistence: &'a Persistence) -> Self {
        persistence.failing.fetch_add(1, Ordering::Relaxed);
        Self(persistence)
    }
}

impl Drop for Trouble<'_> {
    fn drop(&mut self) {
        if self.0.failing.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.say(Said::Recovered);
        }
    }
}
