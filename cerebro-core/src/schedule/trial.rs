//! One trial's way through its epochs: which units are open, running and done.

use std::ops::Range;

use super::bits::Bits;
use super::order::OrderLog;
use crate::id::TrialId;

/// Whether units of a trial may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Active,
    Paused,
    Stopped,
}

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

/// A trial, with partitions by their dense numbers: training partitions first, then validation.
#[derive(Clone, Debug)]
pub(super) struct Trial {
    pub(super) id: TrialId,
    pub(super) status: Status,
    pub(super) phase: Phase,
    /// The current epoch, or, when resting, the next one.
    pub(super) epoch: u32,
    /// The number of epochs that were asked for.
    pub(super) epochs: u32,
    /// Partitions of the current epoch that are neither done nor running.
    pub(super) open: Bits,
    /// Training units of the current epoch that are not done.
    pub(super) training_left: usize,
    /// Validation units of the current epoch that are not done.
    pub(super) validation_left: usize,
    /// Units that run, a unit that runs twice counted once.
    pub(super) running: usize,
    /// The worker that made the current State.
    pub(super) location: Option<usize>,
    pub(super) state_bytes: Option<u64>,
    pub(super) order: OrderLog,
    /// Where units of the current epoch failed: partition and worker.
    pub(super) failures: Vec<(usize, usize)>,
    training: usize,
    partitions: usize,
}

impl Trial {
    /// A trial that has done `epochs_done` epochs and nothing of the next.
    pub(super) fn new(
        id: TrialId,
        epochs: u32,
        epochs_done: u32,
        training: usize,
        partitions: usize,
    ) -> Self {
        let mut trial = Self {
            id,
            status: Status::Active,
            phase: Phase::Resting,
            epoch: epochs_done,
            epochs,
            open: Bits::new(partitions),
            training_left: 0,
            validation_left: 0,
            running: 0,
            location: None,
            state_bytes: None,
            order: OrderLog::new(training),
            failures: Vec::new(),
            training,
            partitions,
        };
        trial.begin_epoch_if_wanted();
        trial
    }

    /// Whether the current epoch has units done or running.
    fn epoch_has_begun(&self) -> bool {
        let all = self.training + self.validation_partitions();
        self.phase != Phase::Resting
            && (self.running > 0 || self.training_left + self.validation_left < all)
    }

    fn validation_partitions(&self) -> usize {
        self.partitions - self.training
    }

    fn begin_epoch_if_wanted(&mut self) {
        self.failures.clear();
        if self.epoch < self.epochs {
            self.phase = Phase::Training;
            self.open.insert_range(0..self.partitions);
            self.training_left = self.training;
            self.validation_left = self.validation_partitions();
        } else {
            self.phase = Phase::Resting;
            self.open.clear();
            self.training_left = 0;
            self.validation_left = 0;
        }
    }

    /// Changes the number of epochs that were asked for. An epoch that has begun is finished.
    pub(super) fn set_epochs(&mut self, epochs: u32) {
        self.epochs = epochs;
        if !self.epoch_has_begun() && (self.phase == Phase::Resting) == (self.epoch < epochs) {
            self.begin_epoch_if_wanted();
        }
    }

    /// The epochs that will be trained if nothing is changed.
    pub(super) fn epochs_to_train(&self) -> u32 {
        self.epochs.max(self.epoch + u32::from(self.epoch_has_begun()))
    }

    /// The partitions that the present phase may start on.
    pub(super) fn startable(&self) -> Range<usize> {
        match (self.status, self.phase) {
            (Status::Active, Phase::Training) if self.running == 0 => 0..self.training,
            (Status::Active, Phase::Validating) => self.training..self.partitions,
            _ => 0..0,
        }
    }

    /// Whether units remain that the trial is to do, now or later.
    pub(super) fn has_work(&self) -> bool {
        self.status == Status::Active && self.phase != Phase::Resting
    }

    pub(super) fn start(&mut self, partition: usize) {
        self.open.remove(partition);
        self.running += 1;
    }

    pub(super) fn reopen(&mut self, partition: usize) {
        self.open.insert(partition);
        self.running -= 1;
    }

    /// Takes in that a running unit is done; whether it was the epoch's last.
    pub(super) fn complete(&mut self, partition: usize) -> Done {
        self.running -= 1;
        self.record(partition)
    }

    /// Takes in that a unit was done before a resume.
    pub(super) fn restore(&mut self, partition: usize) -> Done {
        self.open.remove(partition);
        self.record(partition)
    }

    fn record(&mut self, partition: usize) -> Done {
        if partition < self.training {
            self.order.push(partition);
            self.training_left -= 1;
            if self.training_left == 0 {
                self.phase = Phase::Validating;
            }
        } else {
            self.validation_left -= 1;
        }
        if self.training_left + self.validation_left == 0 {
            self.epoch += 1;
            self.begin_epoch_if_wanted();
            Done::Epoch
        } else if self.training_left == 0 && partition < self.training {
            Done::Training
        } else {
            Done::Unit
        }
    }

    /// Ends the trial for good; the visit order remains.
    pub(super) fn stop(&mut self) {
        self.status = Status::Stopped;
        self.phase = Phase::Resting;
        self.open.free();
        self.failures = Vec::new();
        self.training_left = 0;
        self.validation_left = 0;
    }
}

/// What a unit was the last of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Done {
    Unit,
    Training,
    Epoch,
}
