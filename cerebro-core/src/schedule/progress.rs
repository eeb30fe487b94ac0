//! Orders and progress that are given from outside: recorded orders to follow, trials to resume.

use super::error::ScheduleError;
use super::job::Phase;
use super::policy::Policy;
use super::scheduler::Scheduler;
use super::spec::TrialSpec;
use crate::id::{PartitionId, Split, TrialId};

/// Progress to resume from, by dense numbers.
pub(super) struct Progress {
    pub(super) epochs: u32,
    /// The visits of completed epochs.
    pub(super) visited: Vec<u32>,
    pub(super) trained: Vec<u32>,
    pub(super) validated: Vec<u32>,
}

impl Scheduler {
    /// Sets up the order of a new epoch, if the policy fixes one.
    pub(super) fn plan_epoch(&mut self, number: usize) {
        let trial = &mut self.trials[number];
        if self.board.jobs[number].phase == Phase::Resting {
            trial.plan = Vec::new();
            return;
        }
        trial.plan = match &self.policy {
            Policy::Random | Policy::LongestRemainingFirst | Policy::Seeded => return,
            Policy::Replay(orders) => {
                let recorded =
                    orders.0.get(&trial.id).and_then(|all| all.get(trial.epoch as usize));
                let visits = recorded.into_iter().flatten();
                visits
                    .filter_map(|partition| self.partition_numbers.get(partition).copied())
                    .collect()
            }
        };
        self.refresh_fixed(number);
    }

    pub(super) fn refresh_fixed(&mut self, number: usize) {
        let plan = &self.trials[number].plan;
        if !plan.is_empty() {
            let next = plan.iter().copied().find(|&p| self.board.is_open(number, p as usize));
            self.board.bind(number, next);
        }
    }

    pub(super) fn checked_progress(&self, spec: &TrialSpec) -> Result<Progress, ScheduleError> {
        let given = spec.completed.clone().unwrap_or_default();
        let inconsistent =
            |reason: String| ScheduleError::InconsistentProgress { trial: spec.id, reason };
        let mut visited = Vec::new();
        let training = self.training();
        for (epoch, order) in given.epochs.iter().enumerate() {
            let visits = self.visits(spec.id, order, Split::Train)?;
            if visits.len() != training {
                let found = visits.len();
                return Err(inconsistent(format!(
                    "epoch {epoch} has {found} of {training} training partitions"
                )));
            }
            visited.extend(visits);
        }
        let epochs = given.epochs.len() as u32;
        let trained = self.visits(spec.id, &given.trained, Split::Train)?;
        let validated = self.visits(spec.id, &given.validated, Split::Validation)?;
        if !validated.is_empty() && trained.len() < training {
            let found = trained.len();
            return Err(inconsistent(format!(
                "it was validated in epoch {epochs} after {found} of {training} training partitions"
            )));
        }
        if let Policy::Replay(orders) = &self.policy {
            let recorded = orders.0.get(&spec.id).map_or(&[][..], Vec::as_slice);
            let current = recorded.get(epochs as usize).map_or(&[][..], Vec::as_slice);
            if !recorded.starts_with(&given.epochs) || !current.starts_with(&given.trained) {
                return Err(inconsistent("it differs from the orders to be replayed".to_owned()));
            }
        }
        Ok(Progress { epochs, visited, trained, validated })
    }

    /// The dense numbers of partitions that a trial has visited, each at most once.
    fn visits(
        &self,
        trial: TrialId,
        visited: &[PartitionId],
        split: Split,
    ) -> Result<Vec<u32>, ScheduleError> {
        let mut seen = vec![false; self.partitions.len()];
        let mut numbers = Vec::with_capacity(visited.len());
        for &partition in visited {
            let number = self.partition_number(partition, || format!("the record of {trial}"))?;
            let twice = std::mem::replace(&mut seen[number as usize], true);
            if twice || self.partitions[number as usize].split != split {
                let reason = format!("{partition} is listed twice, or is no {split} partition");
                return Err(ScheduleError::InconsistentProgress { trial, reason });
            }
            numbers.push(number);
        }
        Ok(numbers)
    }

    /// Refuses to train epochs that a replay has no order for.
    pub(super) fn check_record(&self, trial: TrialId, needed: u32) -> Result<(), ScheduleError> {
        let Policy::Replay(orders) = &self.policy else {
            return Ok(());
        };
        let recorded = orders.0.get(&trial).map_or(&[][..], Vec::as_slice);
        let mut complete = 0;
        for order in recorded.iter().take(needed as usize) {
            if self.visits(trial, order, Split::Train)?.len() == self.training() {
                complete += 1;
            }
        }
        if complete < needed as usize {
            return Err(ScheduleError::NotRecorded { trial, recorded: complete, needed });
        }
        Ok(())
    }
}
