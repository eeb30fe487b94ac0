//! What is to start now.

use std::time::Duration;

use super::dispatch::Choice;
use super::job::NONE;
use super::policy::Policy;
use super::report::Assignment;
use super::scheduler::{Attempt, Scheduler};
use super::underway::Underway;
use crate::id::Unit;

impl Scheduler {
    /// The units that should start now; they count as running from here on.
    ///
    /// `now` is the time since any fixed instant. To be called after every other call that can have
    /// freed a slot or opened a unit. A unit that could start may be held back for one that is
    /// about to become free, but never while nothing runs, and not after
    /// [`look_again_at`](Self::look_again_at).
    pub fn assign(&mut self, now: Duration) -> Vec<Assignment> {
        self.now = self.now.max(now);
        let mut choices = Vec::new();
        let mut assignments = Vec::new();
        if self.policy == Policy::LongestRemainingFirst && self.running == 0 {
            let bound = self.bound_seconds().makespan();
            let (lookahead, costs) = (&mut self.lookahead, &self.costs);
            let known = |job| costs.is_known(job);
            lookahead.consider_rotation(&mut self.dispatcher, &self.board, bound, known);
        }
        let looks_ahead = matches!(self.policy, Policy::LongestRemainingFirst | Policy::Seeded);
        if looks_ahead && self.doubles.is_empty() && self.lookahead.is_wanted(&self.board) {
            let running = self.running_units();
            self.lookahead.heed(&running);
            let questions = self.lookahead.questions(&self.board);
            let bound = questions.then(|| self.bound_seconds().makespan());
            let lookahead = &mut self.lookahead;
            lookahead.choose(&mut self.dispatcher, &self.board, &running, bound, &mut choices);
            assignments.extend(choices.drain(..).map(|choice| self.start(choice)));
            self.speculate(&mut assignments);
            return assignments;
        }
        loop {
            if self.policy == Policy::Random {
                choices.clear();
                choices.extend(self.draw());
            } else {
                self.dispatcher.choose(&mut self.board, &[], &mut choices);
            }
            if choices.is_empty() {
                self.speculate(&mut assignments);
                return assignments;
            }
            assignments.extend(choices.drain(..).map(|choice| self.start(choice)));
        }
    }

    fn start(&mut self, choice: Choice) -> Assignment {
        let (number, partition, worker) =
            (choice.job as usize, choice.partition as usize, choice.worker as usize);
        let spec = self.partitions[partition];
        let trial = &self.trials[number];
        let (split, epoch) = (spec.split, trial.epoch);
        let unit = Unit { trial: trial.id, epoch, split, partition: spec.id };
        self.board.start(number, partition, worker);
        self.begin(unit, choice)
    }

    /// Starts a second attempt at a unit that runs.
    pub(super) fn start_again(&mut self, attempt: Attempt, worker: usize) -> Assignment {
        let (job, partition) = (attempt.trial as u32, attempt.partition as u32);
        self.board.occupy(worker);
        let choice = Choice { job, partition, worker: worker as u32 };
        Assignment { speculative: true, ..self.begin(attempt.unit, choice) }
    }

    fn begin(&mut self, unit: Unit, choice: Choice) -> Assignment {
        let (trial, partition, worker) =
            (choice.job as usize, choice.partition as usize, choice.worker as usize);
        self.guesses.started(trial, worker);
        let underway = Underway::default();
        let attempt = Attempt { unit, trial, partition, started: self.now, underway };
        self.workers[worker].running.push(attempt);
        self.running += 1;
        let maker = self.board.jobs[trial].location;
        let hops = maker != NONE && maker as usize != worker;
        Assignment {
            unit,
            worker: self.workers[worker].id,
            hop_from: hops.then(|| self.workers[maker as usize].id),
            speculative: false,
        }
    }

    /// Any unit that could start, all with the same chance.
    fn draw(&mut self) -> Option<Choice> {
        let mut pairs = Vec::new();
        for &worker in self.board.free() {
            let jobs = self.board.ready().iter().map(|(_, job)| job);
            let fitting = jobs.filter(|&job| self.board.fits(job as usize, worker as usize));
            pairs.extend(fitting.map(|job| (job, worker)));
        }
        pairs.sort_unstable();
        let &(job, worker) = pairs.get(self.rng.below(pairs.len() as u64) as usize)?;
        let layout = &self.board.layout;
        let split = self.board.jobs[job as usize].split()?;
        let open = layout.open_here(self.board.open(job as usize), worker as usize, split);
        let fitting = open.filter(|&p| self.board.fits_on(job as usize, p, worker as usize));
        let partitions: Vec<usize> = fitting.collect();
        let drawn = self.rng.below(partitions.len() as u64) as usize;
        Some(Choice { job, partition: *partitions.get(drawn)? as u32, worker })
    }
}
