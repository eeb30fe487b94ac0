//! Where the partitions are: which workers hold which, and how much work each is.

use std::ops::Range;

use crate::id::Split;

/// Partitions and their holders, by dense numbers: training partitions first, then validation.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    training: usize,
    words: usize,
    rows: Vec<f64>,
    workers: Vec<Holder>,
    /// The available workers that hold each partition, in ascending order.
    holders: Vec<Vec<u32>>,
    /// Rows of each partition times the slowness of its fastest holder.
    weights: Vec<f64>,
    epoch_training: f64,
    epoch_validation: f64,
    longest_validation: f64,
}

/// A worker as far as the data are concerned.
#[derive(Clone, Debug)]
struct Holder {
    /// Whether units may start here, now or when a slot is free.
    takes_units: bool,
    slowness: f64,
    held: Vec<u32>,
    held_bits: Vec<u64>,
}

impl Layout {
    pub(super) fn new(training: usize, rows: Vec<f64>) -> Self {
        let partitions = rows.len();
        let mut layout = Self {
            training,
            words: partitions.div_ceil(64),
            workers: Vec::new(),
            holders: vec![Vec::new(); partitions],
            weights: rows.clone(),
            rows,
            epoch_training: 0.0,
            epoch_validation: 0.0,
            longest_validation: 0.0,
        };
        layout.weigh();
        layout
    }

    pub(super) fn add_worker(&mut self) {
        let (held, held_bits) = (Vec::new(), vec![0; self.words]);
        self.workers.push(Holder { takes_units: false, slowness: 1.0, held, held_bits });
    }

    /// Sets what a worker holds; without partitions it takes no units.
    pub(super) fn set_held(&mut self, worker: usize, held: Vec<u32>) {
        let holder = &mut self.workers[worker];
        holder.takes_units = !held.is_empty();
        holder.held_bits.fill(0);
        for &partition in &held {
            holder.held_bits[partition as usize / 64] |= 1 << (partition % 64);
        }
        holder.held = held;
        for holders in &mut self.holders {
            holders.retain(|&other| other as usize != worker);
        }
        for &partition in &self.workers[worker].held {
            let holders = &mut self.holders[partition as usize];
            let at = holders.partition_point(|&other| (other as usize) < worker);
            holders.insert(at, worker as u32);
        }
        self.weigh();
    }

    pub(super) fn set_slowness(&mut self, workers: impl Iterator<Item = (usize, f64)>) {
        for (worker, slowness) in workers {
            self.workers[worker].slowness = slowness;
        }
        self.weigh();
    }

    fn weigh(&mut self) {
        for partition in 0..self.rows.len() {
            let slowness = self.holders[partition].iter().map(|&w| self.slowness(w as usize));
            let fastest = slowness.fold(f64::INFINITY, f64::min);
            let fastest = if fastest.is_finite() { fastest } else { 1.0 };
            self.weights[partition] = self.rows[partition] * fastest;
        }
        self.epoch_training = self.weights[..self.training].iter().sum();
        self.epoch_validation = self.weights[self.training..].iter().sum();
        self.longest_validation = self.weights[self.training..].iter().copied().fold(0.0, f64::max);
    }

    pub(super) fn training(&self) -> usize {
        self.training
    }

    pub(super) fn partitions(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn validation(&self) -> usize {
        self.partitions() - self.training
    }

    pub(super) fn workers(&self) -> usize {
        self.workers.len()
    }

    /// Words of a set of partitions.
    pub(super) fn words(&self) -> usize {
        self.words
    }

    pub(super) fn split(&self, partition: usize) -> Split {
        if partition < self.training { Split::Train } else { Split::Validation }
    }

    pub(super) fn range(&self, split: Split) -> Range<usize> {
        match split {
            Split::Train => 0..self.training,
            Split::Validation => self.training..self.partitions(),
        }
    }

    pub(super) fn rows(&self, partition: usize) -> f64 {
        self.rows[partition]
    }

    /// Rows of a partition, as if on a worker of usual speed, on its fastest holder.
    pub(super) fn weight(&self, partition: usize) -> f64 {
        self.weights[partition]
    }

    /// The weights of all training partitions, and of all validation partitions.
    pub(super) fn epoch_weights(&self) -> (f64, f64) {
        (self.epoch_training, self.epoch_validation)
    }

    /// The weight of the heaviest validation partition.
    pub(super) fn longest_validation(&self) -> f64 {
        self.longest_validation
    }

    pub(super) fn slowness(&self, worker: usize) -> f64 {
        self.workers[worker].slowness
    }

    pub(super) fn takes_units(&self, worker: usize) -> bool {
        self.workers[worker].takes_units
    }

    /// The workers that may run units on a partition, now or when a slot is free.
    pub(super) fn holders(&self, partition: usize) -> &[u32] {
        &self.holders[partition]
    }

    pub(super) fn held(&self, worker: usize) -> &[u32] {
        &self.workers[worker].held
    }

    pub(super) fn holds(&self, worker: usize, partition: usize) -> bool {
        self.workers[worker].held_bits[partition / 64] >> (partition % 64) & 1 == 1
    }

    /// The partitions of a split that are in `open` and on the worker, in ascending order.
    pub(super) fn open_here<'a>(
        &'a self,
        open: &'a [u64],
        worker: usize,
        split: Split,
    ) -> impl Iterator<Item = usize> + 'a {
        let range = self.range(split);
        let words = range.start / 64..range.end.div_ceil(64);
        let held = &self.workers[worker].held_bits;
        words.flat_map(move |index| {
            let mut word = open[index] & held[index] & within(&range, index);
            std::iter::from_fn(move || {
                (word != 0).then(|| {
                    let bit = word.trailing_zeros() as usize;
                    word &= word - 1;
                    index * 64 + bit
                })
            })
        })
    }

    /// Whether some partition of a split is in `open` and on the worker.
    pub(super) fn any_open_here(&self, open: &[u64], worker: usize, split: Split) -> bool {
        let holder = &self.workers[worker];
        let range = self.range(split);
        if let &[partition] = &holder.held[..] {
            let partition = partition as usize;
            return range.contains(&partition) && open[partition / 64] >> (partition % 64) & 1 == 1;
        }
        let words = range.start / 64..range.end.div_ceil(64);
        words
            .into_iter()
            .any(|index| open[index] & holder.held_bits[index] & within(&range, index) != 0)
    }
}

/// The bits of word number `index` that lie within a range of numbers.
fn within(range: &Range<usize>, index: usize) -> u64 {
    let start = range.start.saturating_sub(index * 64);
    let end = range.end.saturating_sub(index * 64).min(64);
    let below = |bits: usize| if bits >= 64 { u64::MAX } else { (1 << bits) - 1 };
    below(end) & !below(start)
}
