//! A trial's and a worker's place on the board.

use crate::id::Split;

/// What a trial does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// It trains, one unit at a time.
    Training,
    /// It has trained on all partitions of the epoch and is measured.
    Validating,
    /// It has all the epochs that were asked for.
    Resting,
}

/// What a unit was the last of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Done {
    Unit,
    Training,
    Epoch,
}

/// No partition, worker or trial.
pub(super) const NONE: u32 = u32::MAX;

/// Whether jobs may visit the partitions in any order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Orders {
    Free,
    /// By the ring, or as [`Board::bind`](super::board::Board::bind) says.
    Fixed,
}

/// A trial's place on the board.
#[derive(Clone, Copy, Debug)]
pub(super) struct Job {
    pub(super) phase: Phase,
    /// Whether units may start.
    pub(super) active: bool,
    /// Units that run; one that runs twice counts once.
    pub(super) running: u32,
    /// Units of the current epoch that are not done.
    pub(super) training_left: u32,
    pub(super) validation_left: u32,
    /// Epochs to train after the current one.
    pub(super) later_epochs: u32,
    /// Seconds per row, on a worker of usual speed.
    pub(super) training_rate: f64,
    pub(super) validation_rate: f64,
    /// Weight of the training partitions that are open.
    pub(super) open_weight: f64,
    /// The worker that made the State, or `NONE`.
    pub(super) location: u32,
    /// The partition that a fixed visit order wants next, or `NONE` where any will do.
    pub(super) fixed: u32,
    /// Where on the ring its epochs begin, if there is a ring.
    pub(super) first: u32,
    /// What a user multiplies its place in the order by; 1 unless told otherwise.
    pub(super) weight: f64,
    /// The place in the order of those ready: seconds of remaining work, times weight and bias.
    pub(super) priority: f64,
    /// What a look ahead multiplies the priority by; 1 on the real board.
    pub(super) bias: f64,
    pub(super) ready: bool,
}

impl Job {
    pub(super) fn split(&self) -> Option<Split> {
        match self.phase {
            Phase::Training => Some(Split::Train),
            Phase::Validating => Some(Split::Validation),
            Phase::Resting => None,
        }
    }

    pub(super) fn rate(&self, split: Split) -> f64 {
        match split {
            Split::Train => self.training_rate,
            Split::Validation => self.validation_rate,
        }
    }

    pub(super) fn has_work(&self) -> bool {
        self.active && self.phase != Phase::Resting
    }
}

/// A worker's place on the board.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seat {
    /// Slots that run nothing.
    pub(super) free: u32,
    /// Seconds of open work that fall to this worker, replicas sharing it evenly.
    pub(super) load: f64,
    /// What a look ahead multiplies the load by; 1 on the real board.
    pub(super) bias: f64,
    /// Whether its speed is known, by units of trials that ran elsewhere too.
    pub(super) measured: bool,
}
