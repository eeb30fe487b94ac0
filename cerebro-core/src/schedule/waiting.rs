//! Who waits on the board: jobs of which a unit could start.

use super::board::Board;
use super::job::{NONE, Phase};
use super::ready::Ready;
use crate::id::Split;

/// A job with this part of the remaining work of another one is taken for equal to it.
const NEARLY: f64 = 0.98;

/// Jobs looked at for one whose State is near.
const LOOKS: usize = 32;

impl Board {
    /// The job with the most left of which a unit could start on a worker.
    pub(super) fn longest_fitting(&self, worker: usize) -> Option<u32> {
        let fits = |&(_, job): &(f64, u32)| self.fits(job as usize, worker);
        if self.waiting.is_empty() {
            return self.longest_nearby(worker);
        }
        let held = self.layout.held(worker).iter();
        let lists = held.map(|&partition| &self.waiting[partition as usize]);
        let longest = lists.chain([&self.unbound]).filter_map(|list| list.iter().find(fits));
        longest.reduce(|a, b| if b.0 > a.0 { b } else { a }).map(|(_, job)| job)
    }

    /// The same where any order will do: a job whose State is on the worker already goes before
    /// those that have hardly more left, since its State need not hop. But where the worker's speed is
    /// not known yet, it goes after one from another worker: if trials that need not hop never did,
    /// nobody could tell a slow worker from a long trial.
    fn longest_nearby(&self, worker: usize) -> Option<u32> {
        let fits = |&(_, job): &(f64, u32)| self.fits(job as usize, worker);
        let mut ready = self.ready.iter();
        let first = ready.find(fits)?;
        let is_here = |job: u32| self.jobs[job as usize].location == worker as u32;
        if !self.seats[worker].measured {
            let mut others = ready.take(LOOKS).filter(|&(_, job)| {
                is_here(first.1) && !is_here(job) && self.jobs[job as usize].location != NONE
            });
            return Some(others.find(fits).unwrap_or(first).1);
        }
        let equals = ready.take_while(|(priority, _)| *priority >= first.0 * NEARLY);
        let equals = [first].into_iter().chain(equals).take(LOOKS);
        let here = equals.filter(|&(_, job)| is_here(job)).find(fits);
        Some(here.unwrap_or(first).1)
    }

    /// Whether jobs want one partition after the other.
    pub(super) fn orders_are_fixed(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Binds a job to the partition that its order wants next.
    pub(super) fn bind(&mut self, job: usize, partition: Option<u32>) {
        self.dequeue(job);
        self.jobs[job].fixed = partition.unwrap_or(NONE);
        self.enqueue(job);
    }

    pub(super) fn enqueue(&mut self, job: usize) {
        let state = &self.jobs[job];
        let startable = match state.phase {
            Phase::Training => state.running == 0,
            Phase::Validating => self.layout.range(Split::Validation).any(|p| self.is_open(job, p)),
            Phase::Resting => false,
        };
        if !state.active || !startable {
            return;
        }
        let priority = self.remaining(job) * state.weight * state.bias;
        self.ready.insert(priority, job as u32);
        if let Some(waiting) = self.waiting_list(job) {
            waiting.insert(priority, job as u32);
        }
        self.fresh_jobs.push(job as u32);
        let state = &mut self.jobs[job];
        state.priority = priority;
        state.ready = true;
    }

    pub(super) fn dequeue(&mut self, job: usize) {
        let state = &mut self.jobs[job];
        if std::mem::take(&mut state.ready) {
            let priority = state.priority;
            let mut removed = self.ready.remove(priority, job as u32);
            if let Some(waiting) = self.waiting_list(job) {
                removed &= waiting.remove(priority, job as u32);
            }
            debug_assert!(removed, "what is ready is listed");
        }
    }

    /// Where a job waits beside the list of all, if orders are fixed.
    fn waiting_list(&mut self, job: usize) -> Option<&mut Ready> {
        let state = &self.jobs[job];
        if self.waiting.is_empty() {
            None
        } else if state.phase == Phase::Training && state.fixed != NONE {
            self.waiting.get_mut(state.fixed as usize)
        } else {
            Some(&mut self.unbound)
        }
    }

    pub(super) fn clear_ready(&mut self) {
        self.ready.clear();
        self.waiting.iter_mut().for_each(Ready::clear);
        self.unbound.clear();
    }
}
