//! Jobs of which a unit could start, in the order of their priorities.

/// The most entries of one piece: small enough to be moved in memory in no time.
const PIECE: usize = 256;

/// Jobs and their priorities, by descending priority, then by number: a list in pieces, so that an
/// entry among ten thousand is put in or taken out without moving the others.
#[derive(Debug, Default)]
pub(super) struct Ready {
    /// None of them is empty.
    pieces: Vec<Vec<(f64, u32)>>,
    len: usize,
}

impl Ready {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Priorities and jobs, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (f64, u32)> {
        self.pieces.iter().flatten().copied()
    }

    pub(super) fn clear(&mut self) {
        self.pieces.clear();
        self.len = 0;
    }

    pub(super) fn insert(&mut self, priority: f64, job: u32) {
        self.len += 1;
        let at = self.piece(priority, job).min(self.pieces.len().saturating_sub(1));
        let Some(piece) = self.pieces.get_mut(at) else {
            self.pieces.push(vec![(priority, job)]);
            return;
        };
        let place = place(piece, priority, job);
        piece.insert(place, (priority, job));
        if piece.len() > PIECE {
            let rest = piece.split_off(PIECE / 2);
            self.pieces.insert(at + 1, rest);
        }
    }

    /// Takes an entry out; whether it was there.
    pub(super) fn remove(&mut self, priority: f64, job: u32) -> bool {
        let at = self.piece(priority, job);
        let Some(piece) = self.pieces.get_mut(at) else {
            return false;
        };
        let place = place(piece, priority, job);
        if piece.get(place).is_none_or(|&(_, other)| other != job) {
            return false;
        }
        piece.remove(place);
        if piece.is_empty() {
            self.pieces.remove(at);
        }
        self.len -= 1;
        true
    }

    /// The piece in which an entry is or belongs; the number of pieces if it is behind all of them.
    fn piece(&self, priority: f64, job: u32) -> usize {
        let is_before = |piece: &Vec<(f64, u32)>| {
            piece.last().is_some_and(|&last| precedes(last, priority, job))
        };
        self.pieces.partition_point(is_before)
    }
}

impl Clone for Ready {
    fn clone(&self) -> Self {
        Self { pieces: self.pieces.clone(), len: self.len }
    }

    /// In the memory that is there.
    fn clone_from(&mut self, other: &Self) {
        self.pieces.clone_from(&other.pieces);
        self.len = other.len;
    }
}

fn place(piece: &[(f64, u32)], priority: f64, job: u32) -> usize {
    piece.partition_point(|&entry| precedes(entry, priority, job))
}

fn precedes(entry: (f64, u32), priority: f64, job: u32) -> bool {
    entry.0 > priority || (entry.0 == priority && entry.1 < job)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Seed;

    #[test]
    fn a_list_of_any_length_stays_in_order_while_entries_come_and_go() {
        let mut rng = Seed(1).rng();
        let (mut ready, mut expected) = (Ready::default(), Vec::new());
        for step in 0..20_000_u32 {
            if rng.below(5) < 3 {
                let priority = rng.below(50) as f64;
                ready.insert(priority, step);
                expected.push((priority, step));
            } else if !expected.is_empty() {
                let at = rng.below(expected.len() as u64) as usize;
                let (priority, job) = expected.swap_remove(at);
                assert!(ready.remove(priority, job));
                assert!(!ready.remove(priority, job));
            }
            assert_eq!(ready.len(), expected.len());
        }
        expected.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        assert!(ready.iter().eq(expected));
    }
}
