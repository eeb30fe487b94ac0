//! What is open, running and done, by dense numbers: the part of the scheduler's state on which its
//! choices rest, small enough to be copied for a look ahead.

use std::sync::Arc;

use super::job::{Done, Job, NONE, Orders, Phase, Seat};
use super::layout::Layout;
use super::ready::Ready;
use super::ring::Ring;
use crate::id::{Split, TrialId};

/// All jobs and seats.
#[derive(Clone, Debug)]
pub(super) struct Board {
    pub(super) layout: Arc<Layout>,
    /// The order in which all jobs go round the partitions, if it is fixed.
    ring: Option<Arc<Ring>>,
    pub(super) jobs: Vec<Job>,
    /// The jobs that have work, in order: of thousands that were ever there, most have none.
    pub(super) working: Vec<u32>,
    pub(super) seats: Vec<Seat>,
    /// For each job, the partitions of its epoch that are neither done nor running.
    open: Vec<u64>,
    /// Seconds of open work on each partition, later epochs included.
    pub(super) demand: Vec<f64>,
    /// Jobs of which a unit could start, by descending priority.
    pub(super) ready: Ready,
    /// The same for each partition that a fixed order wants next, and those that no order binds.
    /// Empty where no order is fixed.
    pub(super) waiting: Vec<Ready>,
    pub(super) unbound: Ready,
    /// Workers with free slots that take units.
    pub(super) free: Vec<u32>,
    /// Units not started, later epochs included, of active jobs.
    pub(super) units_left: u64,
    /// Units that failed on a worker, to be tried elsewhere: job, partition, worker.
    pub(super) blocked: Vec<(u32, u32, u32)>,
    /// Jobs and workers that became ready or free since the last choice.
    pub(super) fresh_jobs: Vec<u32>,
    pub(super) fresh_workers: Vec<u32>,
}

impl Board {
    /// A board without jobs.
    pub(super) fn new(layout: Layout, ring: Option<Ring>, orders: Orders) -> Self {
        let lists = if orders == Orders::Fixed { layout.partitions() } else { 0 };
        Self {
            demand: vec![0.0; layout.partitions()],
            layout: Arc::new(layout),
            ring: ring.map(Arc::new),
            jobs: Vec::new(),
            working: Vec::new(),
            seats: Vec::new(),
            open: Vec::new(),
            ready: Ready::default(),
            waiting: vec![Ready::default(); lists],
            unbound: Ready::default(),
            free: Vec::new(),
            units_left: 0,
            blocked: Vec::new(),
            fresh_jobs: Vec::new(),
            fresh_workers: Vec::new(),
        }
    }

    /// A board with only the jobs that have work, under new numbers, and their numbers here.
    pub(super) fn project(&self) -> (Board, Vec<u32>) {
        let numbers = self.working.clone();
        let words = self.layout.words();
        let mut board = Board {
            layout: Arc::clone(&self.layout),
            ring: self.ring.clone(),
            jobs: numbers.iter().map(|&job| self.jobs[job as usize]).collect(),
            working: (0..numbers.len() as u32).collect(),
            seats: self.seats.clone(),
            open: Vec::with_capacity(numbers.len() * words),
            demand: self.demand.clone(),
            ready: Ready::default(),
            waiting: vec![Ready::default(); self.waiting.len()],
            unbound: Ready::default(),
            free: self.free.clone(),
            units_left: self.units_left,
            blocked: Vec::new(),
            fresh_jobs: Vec::new(),
            fresh_workers: Vec::new(),
        };
        let renumbered = self.blocked.iter().filter_map(|&(job, partition, worker)| {
            Some((numbers.binary_search(&job).ok()? as u32, partition, worker))
        });
        board.blocked.extend(renumbered);
        for (new, &old) in numbers.iter().enumerate() {
            board.open.extend_from_slice(self.open(old as usize));
            board.jobs[new].ready = false;
            board.enqueue(new);
        }
        (board, numbers)
    }

    /// Makes this board equal to another one, in the memory that it has.
    pub(super) fn copy_from(&mut self, other: &Board) {
        self.layout = Arc::clone(&other.layout);
        self.ring.clone_from(&other.ring);
        self.jobs.clone_from(&other.jobs);
        self.working.clone_from(&other.working);
        self.seats.clone_from(&other.seats);
        self.open.clone_from(&other.open);
        self.demand.clone_from(&other.demand);
        self.ready.clone_from(&other.ready);
        self.waiting.clone_from(&other.waiting);
        self.unbound.clone_from(&other.unbound);
        self.free.clone_from(&other.free);
        self.units_left = other.units_left;
        self.blocked.clone_from(&other.blocked);
        self.fresh_jobs.clone_from(&other.fresh_jobs);
        self.fresh_workers.clone_from(&other.fresh_workers);
    }

    /// Multiplies the priorities by biases, which depend on the numbers of jobs, and of workers
    /// counted after the jobs.
    pub(super) fn set_biases(&mut self, bias: impl Fn(u32) -> f64) {
        for (worker, seat) in self.seats.iter_mut().enumerate() {
            seat.bias = bias((self.jobs.len() + worker) as u32);
        }
        self.clear_ready();
        for job in 0..self.jobs.len() {
            self.jobs[job].bias = bias(job as u32);
            self.jobs[job].ready = false;
            self.enqueue(job);
        }
    }

    /// Adds a job at the start of its first epoch; `epochs` may be 0. The trial's number says
    /// where on the ring it begins its epochs.
    pub(super) fn add_job(
        &mut self,
        epochs: u32,
        training_rate: f64,
        validation_rate: f64,
        trial: TrialId,
    ) -> usize {
        let job = self.jobs.len();
        self.open.resize(self.open.len() + self.layout.words(), 0);
        self.jobs.push(Job {
            phase: Phase::Resting,
            active: true,
            running: 0,
            training_left: 0,
            validation_left: 0,
            later_epochs: epochs,
            training_rate,
            validation_rate,
            open_weight: 0.0,
            location: NONE,
            fixed: NONE,
            first: self.ring.as_ref().map_or(NONE, |ring| ring.start(trial)),
            weight: 1.0,
            priority: 0.0,
            bias: 1.0,
            ready: false,
        });
        self.begin_epoch(job);
        self.list_if_working(job);
        self.count(job, 1.0);
        self.enqueue(job);
        job
    }

    /// Takes in that a job may have work now, or none any more.
    fn list_if_working(&mut self, job: usize) {
        let place = self.working.binary_search(&(job as u32));
        match (self.jobs[job].has_work(), place) {
            (true, Err(place)) => {
                self.working.insert(place, job as u32);
                // Weights may have changed while it was paused.
                self.weigh(job);
            }
            (false, Ok(place)) => {
                self.working.remove(place);
            }
            _ => {}
        }
    }

    pub(super) fn open(&self, job: usize) -> &[u64] {
        let words = self.layout.words();
        &self.open[job * words..(job + 1) * words]
    }

    pub(super) fn is_open(&self, job: usize, partition: usize) -> bool {
        self.open(job)[partition / 64] >> (partition % 64) & 1 == 1
    }

    /// Jobs of which a unit could start, with their priorities, in descending order.
    pub(super) fn ready(&self) -> &Ready {
        &self.ready
    }

    /// Workers with free slots that take units.
    pub(super) fn free(&self) -> &[u32] {
        &self.free
    }

    pub(super) fn demand(&self, partition: usize) -> f64 {
        self.demand[partition]
    }

    /// Seconds that a unit is expected to take.
    pub(super) fn estimate(&self, job: usize, partition: usize, worker: usize) -> f64 {
        let rate = self.jobs[job].rate(self.layout.split(partition));
        rate * self.layout.rows(partition) * self.layout.slowness(worker)
    }

    /// Whether a unit of the job could start on the worker if both were free.
    pub(super) fn fits(&self, job: usize, worker: usize) -> bool {
        let state = &self.jobs[job];
        let Some(split) = state.split() else {
            return false;
        };
        if split == Split::Train && state.fixed != NONE {
            let partition = state.fixed as usize;
            return self.layout.holds(worker, partition)
                && !self.is_blocked(job, partition, worker);
        }
        if self.blocked.is_empty() {
            return self.layout.any_open_here(self.open(job), worker, split);
        }
        let mut open = self.layout.open_here(self.open(job), worker, split);
        open.any(|partition| !self.is_blocked(job, partition, worker))
    }

    /// Whether the job's unit on an open partition could start on the worker.
    pub(super) fn fits_on(&self, job: usize, partition: usize, worker: usize) -> bool {
        self.layout.holds(worker, partition) && !self.is_blocked(job, partition, worker)
    }

    /// Whether a unit of the job could start if there were a worker for it.
    pub(super) fn is_ready(&self, job: usize) -> bool {
        self.jobs[job].ready
    }

    /// The partition on which a job that [fits](Self::fits) a worker should start there: the one
    /// that presses most on those who hold it, so that what only few can do is done first.
    pub(super) fn partition_for(&self, job: usize, worker: usize) -> Option<usize> {
        let state = &self.jobs[job];
        let split = state.split()?;
        if split == Split::Train && state.fixed != NONE {
            return self.fits(job, worker).then_some(state.fixed as usize);
        }
        let open = self.layout.open_here(self.open(job), worker, split);
        let fitting = open.filter(|&partition| !self.is_blocked(job, partition, worker));
        let pressure = |p: usize| self.demand[p] / self.layout.holders(p).len().max(1) as f64;
        fitting
            .map(|p| (pressure(p), p))
            .reduce(|a, b| if b.0 > a.0 { b } else { a })
            .map(|(_, p)| p)
    }

    fn is_blocked(&self, job: usize, partition: usize, worker: usize) -> bool {
        !self.blocked.is_empty()
            && self.blocked.contains(&(job as u32, partition as u32, worker as u32))
            && self
                .layout
                .holders(partition)
                .iter()
                .any(|&holder| !self.blocked.contains(&(job as u32, partition as u32, holder)))
    }

    /// Starts a unit in a free slot.
    pub(super) fn start(&mut self, job: usize, partition: usize, worker: usize) {
        self.occupy(worker);
        self.take(job, partition);
    }

    /// Takes in that a unit was done before the job came onto the board.
    pub(super) fn restore(&mut self, job: usize, partition: usize) -> Done {
        self.take(job, partition);
        self.complete(job, partition)
    }

    fn take(&mut self, job: usize, partition: usize) {
        self.dequeue(job);
        let words = self.layout.words();
        self.open[job * words + partition / 64] &= !(1 << (partition % 64));
        let split = self.layout.split(partition);
        let state = &mut self.jobs[job];
        state.running += 1;
        if split == Split::Train {
            state.open_weight -= self.layout.weight(partition);
            if let Some(ring) = &self.ring {
                let open = &self.open[job * words..(job + 1) * words];
                state.fixed = ring.next_open(partition as u32, open).unwrap_or(NONE);
            }
        }
        let cost = -state.rate(split) * self.layout.rows(partition);
        self.add_demand(partition, cost);
        self.units_left -= 1;
        self.enqueue(job);
    }

    /// The unit that ran is done; the slot was freed by [`release`](Self::release).
    pub(super) fn complete(&mut self, job: usize, partition: usize) -> Done {
        self.dequeue(job);
        let split = self.layout.split(partition);
        let state = &mut self.jobs[job];
        state.running -= 1;
        match split {
            Split::Train => state.training_left -= 1,
            Split::Validation => state.validation_left -= 1,
        }
        let done = if state.training_left + state.validation_left == 0 {
            self.blocked.retain(|&(blocked, _, _)| blocked as usize != job);
            self.begin_epoch(job);
            self.list_if_working(job);
            Done::Epoch
        } else if split == Split::Train && state.training_left == 0 {
            state.phase = Phase::Validating;
            Done::Training
        } else {
            Done::Unit
        };
        self.enqueue(job);
        done
    }

    /// The unit that ran left no trace; it is open again.
    pub(super) fn reopen(&mut self, job: usize, partition: usize) {
        self.dequeue(job);
        let words = self.layout.words();
        self.open[job * words + partition / 64] |= 1 << (partition % 64);
        let split = self.layout.split(partition);
        let state = &mut self.jobs[job];
        state.running -= 1;
        if split == Split::Train {
            state.open_weight += self.layout.weight(partition);
            if self.ring.is_some() {
                state.fixed = partition as u32;
            }
        }
        if state.active {
            let cost = state.rate(split) * self.layout.rows(partition);
            self.add_demand(partition, cost);
            self.units_left += 1;
        }
        self.enqueue(job);
    }

    /// Takes a slot of a worker.
    pub(super) fn occupy(&mut self, worker: usize) {
        self.seats[worker].free -= 1;
        if self.seats[worker].free == 0 {
            self.free.retain(|&other| other as usize != worker);
        }
    }

    /// Frees a slot of a worker.
    pub(super) fn release(&mut self, worker: usize) {
        self.seats[worker].free += 1;
        self.list_if_free(worker);
    }

    /// Sets how many slots of a worker run nothing.
    pub(super) fn set_free(&mut self, worker: usize, free: u32) {
        if self.seats.len() <= worker {
            self.seats.resize(worker + 1, Seat { free: 0, load: 0.0, bias: 1.0, measured: false });
        }
        self.seats[worker].free = free;
        self.free.retain(|&other| other as usize != worker);
        self.list_if_free(worker);
    }

    fn list_if_free(&mut self, worker: usize) {
        if self.seats[worker].free > 0 && self.layout.takes_units(worker) {
            if !self.free.contains(&(worker as u32)) {
                self.free.push(worker as u32);
            }
            self.fresh_workers.push(worker as u32);
        }
    }

    /// Changes a job in any way.
    pub(super) fn change(&mut self, job: usize, change: impl FnOnce(&mut Job)) {
        self.dequeue(job);
        self.count(job, -1.0);
        change(&mut self.jobs[job]);
        self.list_if_working(job);
        self.count(job, 1.0);
        self.enqueue(job);
    }

    /// Begins an epoch of a resting job whose later epochs were raised.
    pub(super) fn wake(&mut self, job: usize) {
        if self.jobs[job].phase == Phase::Resting {
            self.dequeue(job);
            self.begin_epoch(job);
            self.list_if_working(job);
            self.enqueue(job);
        }
    }

    /// Gives up an epoch of which nothing is done or running.
    pub(super) fn give_up_epoch(&mut self, job: usize) {
        self.dequeue(job);
        self.count(job, -1.0);
        self.end(job);
        self.list_if_working(job);
        self.count(job, 1.0);
    }

    /// Ends a job for good.
    pub(super) fn stop(&mut self, job: usize) {
        self.give_up_epoch(job);
        self.jobs[job].active = false;
        self.list_if_working(job);
        self.blocked.retain(|&(blocked, _, _)| blocked as usize != job);
    }

    fn end(&mut self, job: usize) {
        let words = self.layout.words();
        self.open[job * words..(job + 1) * words].fill(0);
        let state = &mut self.jobs[job];
        state.phase = Phase::Resting;
        state.later_epochs = 0;
        state.training_left = 0;
        state.validation_left = 0;
        state.open_weight = 0.0;
        state.fixed = NONE;
    }

    /// Turns a later epoch into the current one, or rests if there is none.
    fn begin_epoch(&mut self, job: usize) {
        if self.jobs[job].later_epochs == 0 {
            self.end(job);
            return;
        }
        let words = self.layout.words();
        let partitions = self.layout.partitions();
        for (index, word) in self.open[job * words..(job + 1) * words].iter_mut().enumerate() {
            let bits = (partitions - index * 64).min(64);
            *word = if bits == 64 { u64::MAX } else { (1 << bits) - 1 };
        }
        let state = &mut self.jobs[job];
        state.phase = Phase::Training;
        state.fixed = state.first;
        state.later_epochs -= 1;
        state.training_left = self.layout.training() as u32;
        state.validation_left = self.layout.validation() as u32;
        state.open_weight = self.layout.epoch_weights().0;
    }
}
