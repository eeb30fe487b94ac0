//! Which of the units that could start do start: a matching of jobs and workers.
//!
//! Makespan is bounded from below by the job and by the worker with the most work left, and it
//! grows by whatever time these *critical* ones spend waiting. So jobs and workers are taken in
//! descending order of the work that each has left, and each is given a partner along an augmenting
//! path, which never takes the partner of one that came before. At equal unit times this is the
//! edge colouring of a bipartite graph by matchings that cover all vertices of greatest degree
//! (König 1916; for open shops Gonzalez and Sahni 1976, "Open shop scheduling to minimize finish
//! time", JACM 23(4)), and it makes a Latin square: nobody ever waits. Where one worker is free it
//! is the longest-remaining-first rule.

use super::board::Board;
use super::job::{NONE, Phase};
use crate::id::Split;

/// A unit to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) job: u32,
    pub(super) partition: u32,
    pub(super) worker: u32,
}

/// A unit that will end soon: its job and its worker may be promised to each other's like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Soon {
    /// Seconds from now.
    pub(super) wait: f64,
    pub(super) job: u32,
    pub(super) worker: u32,
}

/// Pairs that may be looked at for each job or worker that is new among those waiting; beyond it,
/// only what is new is considered, each by itself.
const PAIRS_PER_NEWCOMER: usize = 4096;

/// Steps of the search for augmenting paths in one choice.
const SEARCH_STEPS: usize = 1 << 16;

#[derive(Clone, Copy, Debug)]
struct JobNode {
    job: u32,
    /// The validation partition; `NONE` where the job trains.
    partition: u32,
    urgency: f64,
    can_start: bool,
}

#[derive(Clone, Copy, Debug)]
struct WorkerNode {
    worker: u32,
    urgency: f64,
    can_start: bool,
}

/// Makes choices; keeps its memory from one to the next.
#[derive(Debug, Default)]
pub(super) struct Dispatcher {
    jobs: Vec<JobNode>,
    workers: Vec<WorkerNode>,
    /// For each job node its worker node, and the reverse; `NONE` where alone.
    worker_of: Vec<u32>,
    job_of: Vec<u32>,
    seen: Vec<bool>,
    steps_left: usize,
    /// Pairs looked at, over all choices: what choosing costs.
    pub(super) looks: u64,
}

impl Dispatcher {
    /// Chooses units to start on `board`, none twice. To be called again after they were started,
    /// until it chooses none; with `soon`, once.
    pub(super) fn choose(&mut self, board: &mut Board, soon: &[Soon], choices: &mut Vec<Choice>) {
        choices.clear();
        let (free, ready) = (board.free().len(), board.ready().len());
        if free > 0 && ready > 0 {
            let newcomers = board.fresh_jobs.len() + board.fresh_workers.len();
            if soon.is_empty() && free == 1 && board.seats[board.free()[0] as usize].free == 1 {
                let worker = board.free()[0];
                choices.extend(longest_fitting(board, worker));
                self.looks += 8;
            } else if board.orders_are_fixed() && soon.is_empty() {
                newcomers_first(board, choices);
            } else if !soon.is_empty() || free * ready <= PAIRS_PER_NEWCOMER * newcomers {
                self.matching(board, soon, choices);
            } else {
                newcomers_first(board, choices);
            }
        }
        if choices.is_empty() {
            board.fresh_jobs.clear();
            board.fresh_workers.clear();
        }
    }

    fn matching(&mut self, board: &Board, soon: &[Soon], choices: &mut Vec<Choice>) {
        self.list_workers(board, soon);
        self.list_jobs(board, soon);
        // Sorting them costs as much as looking at a few pairs of each.
        self.looks += 8 * (self.workers.len() + self.jobs.len()) as u64;
        self.cover(board);
        for (worker, &node) in self.workers.iter().zip(&self.job_of) {
            if node == NONE || !worker.can_start {
                continue;
            }
            let job = self.jobs[node as usize];
            if !job.can_start {
                continue;
            }
            let partition = match job.partition {
                NONE => board.partition_for(job.job as usize, worker.worker as usize),
                partition => Some(partition as usize),
            };
            choices.extend(partition.map(|partition| Choice {
                job: job.job,
                partition: partition as u32,
                worker: worker.worker,
            }));
        }
    }

    fn list_workers(&mut self, board: &Board, soon: &[Soon]) {
        self.workers.clear();
        let urgency = |worker: u32| {
            let seat = &board.seats[worker as usize];
            seat.load * seat.bias
        };
        for &worker in board.free() {
            let node = WorkerNode { worker, urgency: urgency(worker), can_start: true };
            let slots = (board.seats[worker as usize].free as usize).min(board.ready().len());
            self.workers.extend(std::iter::repeat_n(node, slots));
        }
        for unit in soon.iter().filter(|unit| board.layout.takes_units(unit.worker as usize)) {
            let urgency = urgency(unit.worker) + unit.wait;
            self.workers.push(WorkerNode { worker: unit.worker, urgency, can_start: false });
        }
        self.workers.sort_by(|a, b| b.urgency.total_cmp(&a.urgency).then(a.worker.cmp(&b.worker)));
    }

    fn list_jobs(&mut self, board: &Board, soon: &[Soon]) {
        self.jobs.clear();
        for (urgency, job) in board.ready().iter() {
            let node = JobNode { job, partition: NONE, urgency, can_start: true };
            if board.jobs[job as usize].phase == Phase::Training {
                self.jobs.push(node);
                continue;
            }
            // One for each slot, of those that its worker holds.
            let mut open = board.open(job as usize).to_vec();
            for node in &self.workers {
                let worker = node.worker as usize;
                let mut here = board.layout.open_here(&open, worker, Split::Validation);
                let Some(p) = here.find(|&p| board.fits_on(job as usize, p, worker)) else {
                    continue;
                };
                drop(here);
                open[p / 64] &= !(1 << (p % 64));
                self.jobs.push(JobNode { job, partition: p as u32, urgency, can_start: true });
            }
        }
        let ready = self.jobs.len();
        for unit in soon {
            let Some(job) = board.jobs.get(unit.job as usize) else { continue };
            if job.has_work() && job.phase == Phase::Training && job.training_left > 1 {
                let remaining = board.remaining(unit.job as usize);
                let urgency = remaining * job.weight * job.bias + unit.wait;
                let node = JobNode { job: unit.job, partition: NONE, urgency, can_start: false };
                self.jobs.push(node);
            }
        }
        if self.jobs.len() > ready {
            self.jobs.sort_by(|a, b| b.urgency.total_cmp(&a.urgency).then(a.job.cmp(&b.job)));
        }
    }

    /// Matches the nodes, the most urgent first.
    fn cover(&mut self, board: &Board) {
        self.worker_of.clear();
        self.worker_of.resize(self.jobs.len(), NONE);
        self.job_of.clear();
        self.job_of.resize(self.workers.len(), NONE);
        self.steps_left = SEARCH_STEPS;
        let (mut job, mut worker) = (0, 0);
        let mut alone = self.jobs.len().min(self.workers.len());
        while alone > 0 && (job < self.jobs.len() || worker < self.workers.len()) {
            let jobs_turn = worker == self.workers.len()
                || self.jobs.get(job).is_some_and(|j| j.urgency >= self.workers[worker].urgency);
            let covered = if jobs_turn {
                job += 1;
                self.worker_of[job - 1] == NONE && {
                    self.forget(self.workers.len());
                    self.cover_job(board, job - 1)
                }
            } else {
                worker += 1;
                self.job_of[worker - 1] == NONE && {
                    self.forget(self.jobs.len());
                    self.cover_worker(board, worker - 1)
                }
            };
            alone -= usize::from(covered);
        }
    }

    fn forget(&mut self, nodes: usize) {
        self.seen.clear();
        self.seen.resize(nodes, false);
    }

    fn fits(&self, board: &Board, job: usize, worker: usize) -> bool {
        let (job, worker) = (&self.jobs[job], self.workers[worker].worker as usize);
        match job.partition {
            NONE => board.fits(job.job as usize, worker),
            partition => board.fits_on(job.job as usize, partition as usize, worker),
        }
    }

    fn pair(&mut self, job: usize, worker: usize) -> bool {
        self.worker_of[job] = worker as u32;
        self.job_of[worker] = job as u32;
        true
    }

    /// Finds a worker for a job, moving others if need be.
    fn cover_job(&mut self, board: &Board, job: usize) -> bool {
        self.looks += self.workers.len() as u64;
        for worker in 0..self.workers.len() {
            if self.job_of[worker] == NONE && self.fits(board, job, worker) {
                return self.pair(job, worker);
            }
        }
        for worker in 0..self.workers.len() {
            let other = self.job_of[worker];
            if other == NONE || self.seen[worker] || !self.fits(board, job, worker) {
                continue;
            }
            self.seen[worker] = true;
            if self.steps_left == 0 {
                return false;
            }
            self.steps_left -= 1;
            if self.cover_job(board, other as usize) {
                return self.pair(job, worker);
            }
        }
        false
    }

    /// Finds a job for a worker, moving others if need be.
    fn cover_worker(&mut self, board: &Board, worker: usize) -> bool {
        self.looks += self.jobs.len() as u64;
        for job in 0..self.jobs.len() {
            if self.worker_of[job] == NONE && self.fits(board, job, worker) {
                return self.pair(job, worker);
            }
        }
        for job in 0..self.jobs.len() {
            let other = self.worker_of[job];
            if other == NONE || self.seen[job] || !self.fits(board, job, worker) {
                continue;
            }
            self.seen[job] = true;
            if self.steps_left == 0 {
                return false;
            }
            self.steps_left -= 1;
            if self.cover_worker(board, other as usize) {
                return self.pair(job, worker);
            }
        }
        false
    }
}

/// The unit of the job with the most left among those that fit the worker.
fn longest_fitting(board: &Board, worker: u32) -> Option<Choice> {
    let job = board.longest_fitting(worker as usize)?;
    let partition = board.partition_for(job as usize, worker as usize)?;
    Some(Choice { job, partition: partition as u32, worker })
}

/// One unit for a job or a worker that is new among those waiting. The others found nothing for
/// each other before, so only what is new needs a look.
fn newcomers_first(board: &mut Board, choices: &mut Vec<Choice>) {
    while let Some(&worker) = board.fresh_workers.last() {
        let free =
            board.seats[worker as usize].free > 0 && board.layout.takes_units(worker as usize);
        if let Some(choice) = free.then(|| longest_fitting(board, worker)).flatten() {
            choices.push(choice);
            return;
        }
        board.fresh_workers.pop();
    }
    while let Some(job) = board.fresh_jobs.pop() {
        if !board.is_ready(job as usize) {
            continue;
        }
        let fitting =
            board.free().iter().copied().filter(|&w| board.fits(job as usize, w as usize));
        let load = |worker: u32| board.seats[worker as usize].load;
        let busiest = fitting.reduce(|a, b| if load(b) > load(a) { b } else { a });
        let choice = busiest.and_then(|worker| {
            let partition = board.partition_for(job as usize, worker as usize)? as u32;
            Some(Choice { job, partition, worker })
        });
        if let Some(choice) = choice {
            choices.push(choice);
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::id::{PartitionId, TrialId, WorkerId};
    use crate::schedule::{PartitionSpec, Policy, Scheduler, TrialSpec, WorkerSpec};
    use crate::seed::Seed;

    #[test]
    fn a_trial_is_validated_where_it_can_be_though_the_first_partition_has_no_holder() {
        use crate::id::Split::{Train, Validation};
        let specs = [(0, Train), (1, Validation), (2, Validation)];
        let specs = specs.map(|(id, split)| PartitionSpec { id: PartitionId(id), split, rows: 10 });
        let mut scheduler = Scheduler::new(Policy::default(), Seed(1), &specs).unwrap();
        let partitions = vec![PartitionId(0), PartitionId(2)];
        scheduler.worker_joined(&WorkerSpec { id: WorkerId(0), slots: 2, partitions }).unwrap();
        scheduler.add_trial(&TrialSpec::new(TrialId(0), 1)).unwrap();
        for expected in [0, 2] {
            let started = scheduler.assign(Duration::ZERO);
            assert_eq!(started.len(), 1);
            assert_eq!(started[0].unit.partition, PartitionId(expected));
            let second = Duration::from_secs(1);
            scheduler.completed(started[0].unit, started[0].worker, second).unwrap();
        }
    }
}
