//! Memory of States that are needed no more, for those that come next: the system would have to clear
//! new pages for them, and they would be cleared once more before they are read into.

use std::collections::TryReserveError;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cerebro_core::State;

/// The memory that is kept, in bytes, and the most States that it is of.
const MOST_BYTES: usize = 1 << 26;
const MOST: usize = 8;

#[derive(Debug, Default)]
pub(crate) struct Spare(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    /// Whether anybody has asked yet: what nobody will use is not kept.
    used: bool,
    memory: Vec<Vec<u8>>,
}

impl Spare {
    /// At most `bytes` bytes of any content, with room for as many.
    pub(super) fn take(&self, bytes: usize) -> Result<Vec<u8>, TryReserveError> {
        let fits = |spare: &Vec<u8>| (bytes..=bytes.saturating_mul(2)).contains(&spare.capacity());
        let mut kept = self.lock();
        kept.used = true;
        let found = kept.memory.iter().position(fits).map(|at| kept.memory.swap_remove(at));
        drop(kept);
        let mut memory = found.unwrap_or_default();
        memory.truncate(bytes);
        memory.try_reserve_exact(bytes - memory.len())?;
        Ok(memory)
    }

    /// Takes the memory of `state`, if it was received and nobody else has it.
    pub(super) fn put(&self, state: State) {
        let Some(shared) = state.downcast::<Vec<u8>>() else { return };
        drop(state);
        let Ok(memory) = Arc::try_unwrap(shared) else { return };
        let mut kept = self.lock();
        let bytes: usize = kept.memory.iter().map(Vec::capacity).sum();
        let room = bytes.saturating_add(memory.capacity()) <= MOST_BYTES;
        if kept.used && room && kept.memory.len() < MOST {
            kept.memory.push(memory);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // Nothing panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_used_again_by_what_fits_in_it() {
        let spare = Spare::default();
        let state = || State::from(vec![7_u8; 100]);
        spare.put(state());
        assert!(spare.take(100).unwrap().is_empty(), "nobody had asked for any");
        let shared = state();
        spare.put(shared.clone());
        assert!(spare.take(100).unwrap().is_empty(), "somebody else has it");
        spare.put(state());
        for unfit in [101, 49] {
            assert!(spare.take(unfit).unwrap().is_empty());
        }
        let memory = spare.take(90).unwrap();
        assert_eq!((memory.len(), memory.capacity()), (90, 100));
        assert!(spare.take(90).unwrap().is_empty(), "it is taken once");
        drop(shared);
    }

    #[test]
    fn no_more_memory_is_kept_than_its_bound() {
        let spare = Spare::default();
        spare.take(0).unwrap();
        for bytes in [MOST_BYTES, 1, MOST_BYTES + 1] {
            spare.put(State::from(Vec::with_capacity(bytes)));
        }
        assert_eq!(spare.take(1).unwrap().capacity(), 1, "the first took all the room");
        assert_eq!(spare.take(MOST_BYTES).unwrap().capacity(), MOST_BYTES);
        for _ in 0..2 * MOST {
            spare.put(State::from(vec![0_u8]));
        }
        assert_eq!(spare.lock().memory.len(), MOST);
    }
}
