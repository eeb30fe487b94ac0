//! Which State each busy worker will probably want next, so that it can be there in time.
//!
//! A guess, not a promise: a trial that becomes free meanwhile may be more urgent. It is made when a
//! worker is given a unit, and again when the trial that was guessed starts elsewhere.

use super::job::NONE;
use super::report::Prefetch;
use super::scheduler::Scheduler;

/// Trials looked at for one worker; beyond, no guess is made.
const LOOKS: usize = 256;

/// What was guessed.
#[derive(Debug, Default)]
pub(super) struct Guesses {
    /// For each worker, the job that is expected there next, or `NONE`.
    job_of: Vec<u32>,
    /// For each job, the worker that it is expected on, or `NONE`.
    worker_of: Vec<u32>,
    /// Workers for which a guess is due, and for each worker whether it is among them.
    due: Vec<u32>,
    is_due: Vec<bool>,
}

impl Guesses {
    /// A job starts on a worker: what was guessed of either is settled.
    pub(super) fn started(&mut self, job: usize, worker: usize) {
        grow(&mut self.worker_of, job);
        grow(&mut self.job_of, worker);
        let elsewhere = std::mem::replace(&mut self.worker_of[job], NONE);
        if elsewhere != NONE {
            self.job_of[elsewhere as usize] = NONE;
            if elsewhere as usize != worker {
                self.want(elsewhere);
            }
        }
        let expected = std::mem::replace(&mut self.job_of[worker], NONE);
        if expected != NONE {
            self.worker_of[expected as usize] = NONE;
        }
        self.want(worker as u32);
    }

    fn want(&mut self, worker: u32) {
        if self.is_due.len() <= worker as usize {
            self.is_due.resize(worker as usize + 1, false);
        }
        if !std::mem::replace(&mut self.is_due[worker as usize], true) {
            self.due.push(worker);
        }
    }

    /// A worker is gone: what was expected there may be expected elsewhere.
    pub(super) fn lost(&mut self, worker: usize) {
        if let Some(expected) = self.job_of.get_mut(worker) {
            let expected = std::mem::replace(expected, NONE);
            if expected != NONE {
                self.worker_of[expected as usize] = NONE;
            }
        }
    }
}

fn grow(list: &mut Vec<u32>, index: usize) {
    if list.len() <= index {
        list.resize(index + 1, NONE);
    }
}

impl Scheduler {
    /// The States that will probably be wanted elsewhere than where they are, as far as that was not
    /// said before. To be called after [`assign`](Self::assign), as long as States are large enough
    /// for it to matter; what it says binds nobody.
    ///
    /// Nothing is said of a trial that is in training, since its State is not made yet, nor of a
    /// worker with a free slot, which waits for no State.
    pub fn prefetches(&mut self) -> Vec<Prefetch> {
        let mut due = std::mem::take(&mut self.guesses.due);
        let mut prefetches = Vec::new();
        due.sort_unstable();
        for worker in due {
            self.guesses.is_due[worker as usize] = false;
            if let Some(job) = self.guess(worker as usize) {
                grow(&mut self.guesses.worker_of, job as usize);
                self.guesses.worker_of[job as usize] = worker;
                self.guesses.job_of[worker as usize] = job;
                let maker = self.board.jobs[job as usize].location;
                if maker != NONE && maker != worker {
                    prefetches.push(Prefetch {
                        trial: self.trials[job as usize].id,
                        from: self.workers[maker as usize].id,
                        to: self.workers[worker as usize].id,
                    });
                }
            }
        }
        prefetches
    }

    /// The job with the most left that could start on a busy worker and is not expected elsewhere.
    fn guess(&self, worker: usize) -> Option<u32> {
        let board = &self.board;
        if board.seats[worker].free > 0 || !board.layout.takes_units(worker) {
            return None;
        }
        let expected = |job: u32| {
            self.guesses.worker_of.get(job as usize).is_some_and(|&worker| worker != NONE)
        };
        let ready = board.ready().iter().map(|(_, job)| job).take(LOOKS);
        let mut fitting = ready.filter(|&job| board.fits(job as usize, worker));
        fitting.find(|&job| !expected(job))
    }
}
