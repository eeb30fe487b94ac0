//! The limit on an experiment's wall time.

use std::sync::mpsc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt;
use futures::channel::oneshot;

use super::Driver;
use crate::observe::Event;
use crate::store::Record;

/// A limit on the wall time of all the processes of an experiment together.
pub(super) struct WallTime {
    limit: Duration,
    /// What earlier processes took of it.
    before: Duration,
    over: Option<oneshot::Receiver<()>>,
    /// The thread that waits ends with this.
    _wanted: mpsc::Sender<()>,
}

impl WallTime {
    /// A limit of which earlier processes took `before`, and this one has taken `elapsed` so far.
    pub(super) fn start(
        limit: Duration,
        before: Duration,
        elapsed: Duration,
    ) -> std::io::Result<Self> {
        let left = limit.saturating_sub(before + elapsed);
        let (time, over) = oneshot::channel();
        let (alive, wanted) = mpsc::channel::<()>();
        // A thread, since the driver needs no async runtime that has timers.
        std::thread::Builder::new().name("cerebro-wall-time".to_owned()).spawn(move || {
            if wanted.recv_timeout(left) == Err(mpsc::RecvTimeoutError::Timeout) {
                // Nobody waits for it any more if the experiment has just ended.
                let _ = time.send(());
            }
        })?;
        Ok(Self { limit, before, over: Some(over), _wanted: alive })
    }

    /// Ready once, when the time is over.
    pub(super) fn poll_over(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(over) = &mut self.over else { return Poll::Pending };
        match over.poll_unpin(context) {
            Poll::Ready(Ok(())) => {
                self.over = None;
                Poll::Ready(())
            }
            // The thread is there as long as this is.
            _ => Poll::Pending,
        }
    }
}

impl Driver {
    /// Records how long the experiment has run, if that is limited.
    pub(super) fn record_wall_time(&mut self) {
        if let Some(WallTime { before, .. }) = &self.wall {
            let wall = *before + self.begun.elapsed();
            self.commit(&Record::Ran { wall });
        }
    }

    pub(super) fn wall_time_over(&mut self) {
        if let Some(WallTime { limit, over, .. }) = &mut self.wall {
            let limit = *limit;
            *over = None;
            tracing::info!("the wall time of {limit:?} is over");
            self.tell(Event::WallTimeOver { limit });
            self.stop();
        }
    }
}
