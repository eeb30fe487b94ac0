//! The board's sums: how much work is open, for whom.

use std::sync::Arc;

use super::board::Board;
use super::job::Seat;
use super::layout::Layout;
use crate::id::Split;

impl Board {
    /// Adds a job's open units, or takes them away, from the sums over all jobs.
    pub(super) fn count(&mut self, job: usize, sign: f64) {
        let state = self.jobs[job];
        if !state.active {
            return;
        }
        let later = state.later_epochs;
        let mut units = 0;
        for partition in 0..self.layout.partitions() {
            let times = later + u32::from(self.is_open(job, partition));
            if times > 0 {
                let rate = state.rate(self.layout.split(partition));
                let cost = rate * self.layout.rows(partition) * f64::from(times);
                self.add_demand(partition, sign * cost);
                units += u64::from(times);
            }
        }
        if sign > 0.0 {
            self.units_left += units;
        } else {
            self.units_left -= units;
        }
    }

    pub(super) fn add_demand(&mut self, partition: usize, cost: f64) {
        self.demand[partition] += cost;
        let holders = self.layout.holders(partition);
        let share = cost / holders.len().max(1) as f64;
        for &holder in holders {
            let holder = holder as usize;
            self.seats[holder].load += share * self.layout.slowness(holder);
        }
    }

    /// Takes in that workers came or went or have another speed.
    pub(super) fn relayout(&mut self, change: impl FnOnce(&mut Layout)) {
        change(Arc::make_mut(&mut self.layout));
        let workers = self.layout.workers();
        self.seats.resize(workers, Seat { free: 0, load: 0.0, bias: 1.0, measured: false });
        self.recount();
        let free = |worker: &u32| {
            self.seats[*worker as usize].free > 0 && self.layout.takes_units(*worker as usize)
        };
        self.free = (0..workers as u32).filter(free).collect();
        self.fresh_workers.clone_from(&self.free);
    }

    /// Computes all sums anew, which also rids them of rounding errors.
    pub(super) fn recount(&mut self) {
        self.demand.fill(0.0);
        self.units_left = 0;
        self.clear_ready();
        for seat in &mut self.seats {
            seat.load = 0.0;
        }
        let working = std::mem::take(&mut self.working);
        for &job in &working {
            let job = job as usize;
            self.weigh(job);
            self.count(job, 1.0);
            self.jobs[job].ready = false;
            self.enqueue(job);
        }
        self.working = working;
    }

    /// Computes the weight of a job's open training partitions anew.
    pub(super) fn weigh(&mut self, job: usize) {
        let open = self.layout.range(Split::Train).filter(|&p| self.is_open(job, p));
        self.jobs[job].open_weight = open.map(|p| self.layout.weight(p)).sum();
    }

    /// Seconds until the job is done at the earliest, from when its running units are: its
    /// training units one after the other, its validation units side by side.
    pub(super) fn remaining(&self, job: usize) -> f64 {
        let state = &self.jobs[job];
        let later = f64::from(state.later_epochs);
        let (epoch, _) = self.layout.epoch_weights();
        let validations = later + f64::from(u8::from(state.validation_left > 0));
        state.training_rate * (state.open_weight + later * epoch)
            + state.validation_rate * validations * self.layout.longest_validation()
    }
}
