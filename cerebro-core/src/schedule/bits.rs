//! Sets of small numbers, as the bits of words.

/// A set of numbers below a bound that is fixed when the set is made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Bits {
    words: Vec<u64>,
}

impl Bits {
    pub(super) fn new(bound: usize) -> Self {
        Self { words: vec![0; bound.div_ceil(64)] }
    }

    pub(super) fn insert(&mut self, at: usize) {
        self.words[at / 64] |= 1 << (at % 64);
    }

    pub(super) fn remove(&mut self, at: usize) {
        self.words[at / 64] &= !(1 << (at % 64));
    }

    pub(super) fn contains(&self, at: usize) -> bool {
        self.words.get(at / 64).is_some_and(|word| word >> (at % 64) & 1 == 1)
    }

    pub(super) fn insert_range(&mut self, range: std::ops::Range<usize>) {
        for at in range {
            self.insert(at);
        }
    }

    pub(super) fn clear(&mut self) {
        self.words.fill(0);
    }

    /// Frees the memory; the set is empty and takes no number afterwards.
    pub(super) fn free(&mut self) {
        self.words = Vec::new();
    }

    /// The numbers in this set and in `other`, in ascending order.
    pub(super) fn intersection<'a>(&'a self, other: &'a Bits) -> impl Iterator<Item = usize> + 'a {
        self.words.iter().zip(&other.words).enumerate().flat_map(|(index, (&a, &b))| {
            let mut word = a & b;
            std::iter::from_fn(move || {
                (word != 0).then(|| {
                    let bit = word.trailing_zeros() as usize;
                    word &= word - 1;
                    index * 64 + bit
                })
            })
        })
    }
}
