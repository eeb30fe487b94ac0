//! The slots of a worker: each is a thread of its own.
//!
//! A unit is computed where the one before it was, so that what models keep by thread, what the
//! allocator does and what the processor's caches hold stays useful.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle};

use cerebro_core::Slot;
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};

use super::Options;

/// Slots are numbered over all workers of the process, so that what models share per slot is never
/// shared by two threads.
static NEXT_SLOT: AtomicU32 = AtomicU32::new(0);

/// What a thread is to compute; nothing: it is to end.
type Work = Option<Box<dyn FnOnce() + Send>>;

/// The slots that no unit is in, and the threads of all.
pub(super) struct Slots {
    free: Mutex<Vec<Free>>,
    permits: Semaphore,
    threads: Mutex<Vec<(mpsc::Sender<Work>, JoinHandle<()>)>>,
}

struct Free {
    slot: Slot,
    thread: mpsc::Sender<Work>,
}

/// A slot that is in use.
pub(super) struct Taking<'a> {
    slots: &'a Slots,
    /// Some until this is dropped.
    taken: Option<Free>,
    /// Given back after the slot: fields are dropped after what `drop` does.
    _permit: SemaphorePermit<'a>,
}

impl Slots {
    pub(super) fn start(options: &Options) -> io::Result<Self> {
        let (mut free, mut threads) = (Vec::new(), Vec::new());
        for _ in 0..options.slots {
            let number = NEXT_SLOT.fetch_add(1, Ordering::Relaxed);
            let (thread, work) = mpsc::channel::<Work>();
            let compute = move || {
                while let Ok(Some(unit)) = work.recv() {
                    // A panic outside a model: whoever waits for the unit is told by its silence.
                    let _ = catch_unwind(AssertUnwindSafe(unit));
                }
            };
            let named = thread::Builder::new().name(format!("cerebro-slot-{number}"));
            threads.push((thread.clone(), named.spawn(compute)?));
            let slot = Slot { number, device: options.device, threads: options.threads() };
            free.push(Free { slot, thread });
        }
        let permits = Semaphore::new(options.slots);
        Ok(Self { free: Mutex::new(free), permits, threads: Mutex::new(threads) })
    }

    /// Waits for a slot; `None` when there will be none any more.
    pub(super) async fn take(&self) -> Option<Taking<'_>> {
        let permit = self.permits.acquire().await.ok()?;
        // There are as many permits as slots.
        let taken = lock(&self.free).pop()?;
        Some(Taking { slots: self, taken: Some(taken), _permit: permit })
    }

    /// Waits until what is being computed has ended. Blocks.
    pub(super) fn end(&self) {
        self.permits.close();
        for (work, thread) in lock(&self.threads).drain(..) {
            // Neither fails: the thread waits for this, and what it runs cannot make it panic.
            let _ = work.send(None);
            let _ = thread.join();
        }
    }
}

impl Taking<'_> {
    /// Computes on the slot's thread. `None`: it panicked outside of the model.
    pub(super) async fn compute<T: Send + 'static>(
        &self,
        compute: impl FnOnce(&Slot) -> T + Send + 'static,
    ) -> Option<T> {
        let Free { slot, thread } = self.taken.as_ref()?;
        let (slot, (say, result)) = (*slot, oneshot::channel());
        let work = move || {
            // Nobody waits any more where the session is over.
            let _ = say.send(compute(&slot));
        };
        thread.send(Some(Box::new(work))).ok()?;
        result.await.ok()
    }
}

impl Drop for Taking<'_> {
    fn drop(&mut self) {
        lock(&self.slots.free).extend(self.taken.take());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it holds such a lock.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
