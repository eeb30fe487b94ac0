//! Which row goes to which partition.

use crate::data::DataError;
use crate::id::Split;
use crate::seed::Seed;

/// How the rows of a source are divided.
#[derive(Debug)]
pub(super) struct Division<'a> {
    pub(super) rows: usize,
    /// A class number for each row, if classes are spread evenly.
    pub(super) strata: Option<&'a [u32]>,
    pub(super) held_out: HeldOut<'a>,
    pub(super) train_partitions: u32,
    /// As many as there are for training, where rows suffice, if nothing is asked for.
    pub(super) validation_partitions: Option<u32>,
    pub(super) seed: Seed,
}

#[derive(Debug)]
pub(super) enum HeldOut<'a> {
    Nothing,
    Fraction(f64),
    Rows(&'a [bool]),
}

/// The partition of each row: training partitions first, then those for validation.
#[derive(Debug)]
pub(super) struct Assignment {
    pub(super) partition_of: Vec<u32>,
    pub(super) train_partitions: u32,
    pub(super) validation_partitions: u32,
}

impl Division<'_> {
    /// Deals the rows out like cards, in a random order, class after class.
    ///
    /// So partitions differ by one row at most, in all and in each class; and every class has its
    /// share of held-out rows, to within one row.
    pub(super) fn assign(&self) -> Result<Assignment, DataError> {
        let mut order = self.seed.derive("prepare.rows", &[]).permutation(self.rows);
        if let Some(strata) = self.strata {
            order.sort_by_key(|&row| strata[row as usize]);
        }
        let held_out: Vec<bool> = match self.held_out {
            HeldOut::Nothing => vec![false; self.rows],
            HeldOut::Fraction(fraction) => {
                // Row i of the order is held out where i * fraction passes a whole number.
                let passed = |i: usize| (i as f64 * fraction + 0.5).floor();
                (0..self.rows).map(|i| passed(i + 1) > passed(i)).collect()
            }
            HeldOut::Rows(rows) => order.iter().map(|&row| rows[row as usize]).collect(),
        };
        let validation_rows = held_out.iter().filter(|&&held_out| held_out).count();
        let train_rows = self.rows - validation_rows;
        let (train, validation) = self.partitions(train_rows, validation_rows)?;

        let mut partition_of = vec![0; self.rows];
        let (mut trained, mut validated) = (0, 0);
        for (&row, held_out) in order.iter().zip(held_out) {
            partition_of[row as usize] = if held_out {
                validated += 1;
                train + (validated - 1) % validation
            } else {
                trained += 1;
                (trained - 1) % train
            };
        }
        Ok(Assignment { partition_of, train_partitions: train, validation_partitions: validation })
    }

    fn partitions(&self, train: usize, validation: usize) -> Result<(u32, u32), DataError> {
        let fits = |split, rows: usize, partitions: u32| {
            if rows < partitions as usize {
                return Err(DataError::TooManyPartitions { split, rows: rows as u64, partitions });
            }
            Ok(())
        };
        fits(Split::Train, train, self.train_partitions)?;
        if matches!(self.held_out, HeldOut::Nothing) {
            return Ok((self.train_partitions, 0));
        }
        let by_default = (validation as u32).clamp(1, self.train_partitions);
        let validation_partitions = self.validation_partitions.unwrap_or(by_default);
        fits(Split::Validation, validation, validation_partitions)?;
        Ok((self.train_partitions, validation_partitions))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counts(numbers: impl Iterator<Item = u32>, partitions: u32) -> Vec<usize> {
        let mut counts = vec![0; partitions as usize];
        numbers.for_each(|number| counts[number as usize] += 1);
        counts
    }

    fn spread(counts: &[usize]) -> usize {
        counts.iter().max().unwrap_or(&0) - counts.iter().min().unwrap_or(&0)
    }

    proptest! {
        #[test]
        fn partitions_differ_by_one_row_at_most_in_all_and_in_each_class(
            strata in prop::collection::vec(0u32..4, 60..300),
            train_partitions in 1u32..7,
            validation_partitions in 1u32..5,
            fraction in 0.1f64..0.6,
            seed: u64,
        ) {
            let division = Division {
                rows: strata.len(),
                strata: Some(&strata),
                held_out: HeldOut::Fraction(fraction),
                train_partitions,
                validation_partitions: Some(validation_partitions),
                seed: Seed(seed),
            };
            let assignment = division.assign().unwrap();
            let partitions = train_partitions + validation_partitions;
            let all = counts(assignment.partition_of.iter().copied(), partitions);
            let (train, validation) = all.split_at(train_partitions as usize);
            prop_assert!(spread(train) <= 1 && spread(validation) <= 1);
            let expected = (strata.len() as f64 * fraction).round();
            prop_assert!((validation.iter().sum::<usize>() as f64 - expected).abs() <= 1.0);
            for class in 0..4 {
                let of_class = strata.iter().zip(&assignment.partition_of);
                let of_class = of_class.filter(|(other, _)| **other == class).map(|(_, at)| *at);
                let counted = counts(of_class, partitions);
                let (train, validation) = counted.split_at(train_partitions as usize);
                prop_assert!(spread(train) <= 1 && spread(validation) <= 1);
                let held_out = validation.iter().sum::<usize>() as f64;
                let share = counted.iter().sum::<usize>() as f64 * fraction;
                prop_assert!((held_out - share).abs() <= 1.0);
            }
        }
    }

    fn plain(rows: usize, seed: u64) -> Assignment {
        let division = Division {
            rows,
            strata: None,
            held_out: HeldOut::Nothing,
            train_partitions: 4,
            validation_partitions: None,
            seed: Seed(seed),
        };
        division.assign().unwrap()
    }

    #[test]
    fn the_seed_alone_decides_which_row_goes_where() {
        assert_eq!(plain(100, 1).partition_of, plain(100, 1).partition_of);
        assert_ne!(plain(100, 1).partition_of, plain(100, 2).partition_of);
    }

    #[test]
    fn rows_that_a_column_holds_out_are_the_validation_rows() {
        let rows: Vec<bool> = (0..50).map(|row| row % 5 == 0).collect();
        let division = Division {
            rows: 50,
            strata: None,
            held_out: HeldOut::Rows(&rows),
            train_partitions: 3,
            validation_partitions: None,
            seed: Seed(0),
        };
        let assignment = division.assign().unwrap();
        for (held_out, partition) in rows.iter().zip(&assignment.partition_of) {
            assert_eq!(*held_out, *partition >= 3);
        }
        assert_eq!(assignment.validation_partitions, 3);
    }

    #[test]
    fn more_partitions_than_rows_are_refused() {
        let division = Division {
            rows: 3,
            strata: None,
            held_out: HeldOut::Nothing,
            train_partitions: 4,
            validation_partitions: None,
            seed: Seed(0),
        };
        let error = division.assign().unwrap_err();
        assert!(matches!(error, DataError::TooManyPartitions { rows: 3, partitions: 4, .. }));
    }
}
