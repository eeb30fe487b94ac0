//! When a unit has taken too long: nobody should wait for it any more, or it should run a second time.

use std::sync::mpsc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::channel::mpsc as notices;

use super::Driver;

/// Rings once at the time that it was set to last.
pub(super) struct Alarm {
    /// The thread that waits ends with this.
    times: mpsc::Sender<Instant>,
    rings: notices::UnboundedReceiver<()>,
    set: Option<Duration>,
}

impl Alarm {
    pub(super) fn start() -> std::io::Result<Self> {
        let (times, set) = mpsc::channel::<Instant>();
        let (ring, rings) = notices::unbounded();
        // A thread, since the driver needs no async runtime that has timers.
        std::thread::Builder::new().name("cerebro-alarm".to_owned()).spawn(move || {
            while let Ok(mut time) = set.recv() {
                loop {
                    match set.recv_timeout(time.saturating_duration_since(Instant::now())) {
                        Ok(other) => time = other,
                        Err(mpsc::RecvTimeoutError::Timeout) => break,
                        Err(mpsc::RecvTimeoutError::Disconnected) => return,
                    }
                }
                if ring.unbounded_send(()).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { times, rings, set: None })
    }

    fn set(&mut self, begun: Instant, at: Duration) {
        if self.set.replace(at) != Some(at)
            && let Some(time) = begun.checked_add(at)
        {
            // The thread is there as long as this is.
            let _ = self.times.send(time);
        }
    }

    /// Ready when it rings.
    pub(super) fn poll_ring(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match self.rings.poll_next_unpin(context) {
            Poll::Ready(Some(())) => {
                self.set = None;
                Poll::Ready(())
            }
            _ => Poll::Pending,
        }
    }
}

impl Driver {
    /// Sees to it that units are looked at again once one of them takes too long.
    pub(super) fn watch_for_late_units(&mut self) {
        if let Some(at) = self.scheduler.look_again_at() {
            // A little later, so that it is past when the clock is read.
            self.alarm.set(self.begun, at.saturating_add(Duration::from_millis(1)));
        }
    }
}
