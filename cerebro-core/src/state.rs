//! [`State`]: all that a trial needs to go on, and what hops between workers.

use std::any::Any;
use std::borrow::Cow;
use std::fmt;
use std::io;
use std::iter;
use std::sync::Arc;

/// The portable form of a State, piece by piece.
pub type Parts<'a> = Box<dyn Iterator<Item = io::Result<Cow<'a, [u8]>>> + Send + 'a>;

/// What a learner keeps in a [`State`]: weights, optimizer state, statistics, step count.
///
/// A learner may keep its own type here, so that a hop inside a process is the handing over of a
/// pointer; it is written out only when the State leaves the process. `Vec<u8>` is a `StateData`
/// too, for learners that are small enough to write themselves out after every unit.
pub trait StateData: Any + Send + Sync {
    /// The size in memory, in bytes.
    fn bytes(&self) -> usize;

    /// A portable form, which the learner's `restore` must understand: pieces of any size, to be
    /// laid one after the other.
    ///
    /// Memory that the State has anyway is best lent, so that it is sent without another copy; what
    /// must be made is made when its turn comes.
    fn parts(&self) -> Parts<'_>;
}

impl StateData for Vec<u8> {
    fn bytes(&self) -> usize {
        self.len()
    }

    fn parts(&self) -> Parts<'_> {
        Box::new(iter::once(Ok(Cow::Borrowed(&**self))))
    }
}

/// All that a trial needs to go on: weights, optimizer state, statistics, step count.
///
/// A State never changes once it is made, so it is shared, not copied: a unit starts from one
/// version and gives another, and the one before remains until the driver lets it go. That is
/// what makes a unit atomic: one that fails leaves no trace.
#[derive(Clone)]
pub struct State {
    data: Arc<dyn StateData>,
}

impl State {
    /// A State that holds `data`.
    pub fn new(data: impl StateData) -> Self {
        Self { data: Arc::new(data) }
    }

    /// The size in memory, in bytes.
    pub fn bytes(&self) -> usize {
        self.data.bytes()
    }

    /// The learner's own type, if that is what the State holds.
    ///
    /// It is not where the State came from another process: then it is a `Vec<u8>` with what
    /// [`StateData::parts`] gave.
    pub fn downcast_ref<T: StateData>(&self) -> Option<&T> {
        let any: &dyn Any = &*self.data;
        any.downcast_ref()
    }

    /// The learner's own type, shared, if that is what the State holds.
    pub fn downcast<T: StateData>(&self) -> Option<Arc<T>> {
        let any: Arc<dyn Any + Send + Sync> = Arc::clone(&self.data) as _;
        any.downcast().ok()
    }

    /// The portable form, piece by piece: see [`StateData::parts`].
    pub fn parts(&self) -> Parts<'_> {
        self.data.parts()
    }

    /// Writes the portable form to `out`.
    pub fn write_to(&self, out: &mut dyn io::Write) -> io::Result<()> {
        self.parts().try_for_each(|part| out.write_all(&part?))
    }

    /// The portable form.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.bytes());
        self.write_to(&mut bytes).expect("writing to memory does not fail");
        bytes
    }
}

impl<T: StateData> From<Arc<T>> for State {
    /// A State that shares `data`: the counterpart of [`State::downcast`].
    fn from(data: Arc<T>) -> Self {
        Self { data }
    }
}

impl From<Vec<u8>> for State {
    fn from(bytes: Vec<u8>) -> Self {
        Self::new(bytes)
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("bytes", &self.bytes()).finish_non_exhaustive()
    }
}
