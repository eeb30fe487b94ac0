//! Where queries, keys, values and results lie: matrices of rows, one for each head, within tensors
//! of any shape.

use ort::operator::KernelContext;

use crate::kernels::node::refused;

/// Matrices within a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct View {
    /// Where the first one begins.
    pub(crate) offset: usize,
    /// The rows of each, and how far apart they lie.
    pub(crate) rows: (usize, usize),
    /// The elements of a row, which follow each other.
    pub(crate) width: usize,
    /// How many there are along each axis of the heads, the last one fastest, and how far apart.
    pub(crate) heads: Vec<(usize, usize)>,
}

impl View {
    /// The view as integers.
    pub(crate) fn to_ints(&self) -> Vec<i64> {
        let head = [self.offset, self.rows.0, self.rows.1, self.width];
        let heads = self.heads.iter().flat_map(|&(size, step)| [size, step]);
        head.into_iter().chain(heads).map(|value| value as i64).collect()
    }

    /// The view that `ints` are.
    pub(crate) fn of_ints(ints: &[i64]) -> Option<Self> {
        let ints: Vec<usize> =
            ints.iter().map(|&value| usize::try_from(value).ok()).collect::<Option<_>>()?;
        let (&[offset, rows, step, width], heads) = ints.split_first_chunk()?;
        let (heads, []) = heads.as_chunks::<2>() else { return None };
        let heads = heads.iter().map(|&[size, step]| (size, step)).collect();
        Some(Self { offset, rows: (rows, step), width, heads })
    }

    /// The view in attribute `attribute` of a node.
    pub(super) fn read(node: &KernelContext<'_>, name: &str, attribute: &str) -> ort::Result<Self> {
        let ints = node.get::<Vec<i64>>(attribute).unwrap_or_default();
        let view = Self::of_ints(&ints).filter(|view| view.end().is_some());
        view.ok_or_else(|| refused(name, format!("attribute `{attribute}` is {ints:?}")))
    }

    /// How many heads there are.
    pub(crate) fn count(&self) -> usize {
        self.heads.iter().map(|&(size, _)| size).product()
    }

    /// The elements of a tensor that reaches as far as the last row. None if there is none, or if
    /// no tensor is so large.
    pub(crate) fn end(&self) -> Option<usize> {
        let steps = self.heads.iter().chain([&self.rows]);
        steps.into_iter().try_fold(self.offset.checked_add(self.width)?, |end, &(size, step)| {
            end.checked_add(size.checked_sub(1)?.checked_mul(step)?)
        })
    }

    /// Where the matrix of each head begins.
    pub(super) fn starts(&self) -> Vec<usize> {
        let mut starts = vec![self.offset];
        for &(size, step) in &self.heads {
            let along = |start: usize| (0..size).map(move |at| start + at * step);
            starts = starts.into_iter().flat_map(along).collect();
        }
        starts
    }
}

/// Whether each of `length` elements belongs to exactly one row of one of `views`, which are alike
/// but for their offsets.
pub(crate) fn cover(views: &[&View], length: usize) -> bool {
    let [first, others @ ..] = views else { return false };
    let alike = |view: &&View| View { offset: first.offset, ..(**view).clone() } == **first;
    let mut offsets: Vec<usize> = views.iter().map(|view| view.offset).collect();
    offsets.sort_unstable();
    let mut steps = first.heads.clone();
    steps.push(first.rows);
    if let [zero, one, ..] = offsets[..] {
        let step = one - zero;
        if !offsets.windows(2).all(|pair| pair[1] - pair[0] == step) {
            return false;
        }
        steps.push((views.len(), step));
    }
    steps.retain(|&(size, _)| size != 1);
    steps.sort_unstable_by_key(|&(_, step)| step);
    // Each axis goes on where the ones within it end.
    let nested = steps
        .iter()
        .try_fold(first.width, |within, &(size, step)| (step == within).then(|| within * size));
    offsets[0] == 0 && others.iter().all(alike) && nested == Some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_are_read_as_they_were_written() {
        let view = View { offset: 3, rows: (5, 70), width: 4, heads: vec![(2, 350), (6, 4)] };
        assert_eq!(View::of_ints(&view.to_ints()), Some(view.clone()));
        assert_eq!(view.starts()[..8], [3, 7, 11, 15, 19, 23, 353, 357]);
        assert_eq!((view.count(), view.end()), (12, Some(3 + 350 + 20 + 280 + 4)));
        for broken in [&[1, 2, 3][..], &[1, 2, 3, 4, 5], &[0, 1, 1, -1]] {
            assert_eq!(View::of_ints(broken), None);
        }
    }

    #[test]
    fn parts_of_one_tensor_cover_it_where_none_is_missing_or_twice_there() {
        // Rows of 2 batches of 3 heads of 4 elements, in 3 parts.
        let part = |offset| View { offset, rows: (5, 36), width: 4, heads: vec![(2, 180), (3, 4)] };
        let parts = [0, 12, 24].map(part);
        let of = |numbers: &[usize]| numbers.iter().map(|&n| &parts[n]).collect::<Vec<_>>();
        assert!(cover(&of(&[1, 0, 2]), 360));
        for (numbers, length) in
            [(&[0, 1][..], 360), (&[0, 1, 1], 360), (&[0, 1, 2], 361), (&[], 0), (&[0], 360)]
        {
            assert!(!cover(&of(numbers), length), "{numbers:?}");
        }
        let alone = View { offset: 0, rows: (5, 12), width: 4, heads: vec![(2, 60), (3, 4)] };
        assert!(cover(&[&alone], 120));
        assert!(!cover(&[&View { width: 3, ..alone }], 120));
    }
}
