//! [`Tally`]: a model whose State is a record of everything that it saw.

use std::sync::Arc;

use ndarray::{Array1, Array2};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::config::Config;
use crate::data::{MemoryDataset, MemoryPartition, Partition};
use crate::id::{PartitionId, Split};
use crate::metric::{LOSS, Metrics, Statistic};
use crate::model::{Model, ModelBuilder, ModelError, Pass, Slot};
use crate::seed::Seed;
use crate::state::State;

/// A model that digests the rows that it trains on, in their order.
///
/// Its State differs as soon as one row is seen twice, not at all, or in another order: so equal
/// States mean equal histories, which is what the conformance suite compares. Its loss falls with
/// the number of rows seen and depends on the hyperparameter `rate`.
///
/// It misbehaves where its Config says so: `fail_on` and `panic_on` name partitions, by number,
/// on which training gives an error or panics, and `diverge_on` one on which the loss is NaN.
#[derive(Debug, Default)]
pub struct Tally {
    digest: u64,
    rows: u64,
    rate: f64,
    fail_on: Option<i64>,
    panic_on: Option<i64>,
    diverge_on: Option<i64>,
}

impl Tally {
    /// The model of `config`, before it is given a State.
    pub fn new(config: &Config) -> Result<Self, ModelError> {
        config.only(&["rate", "fail_on", "panic_on", "diverge_on"])?;
        let optional = |name| config.get(name).map(|_| config.int(name)).transpose();
        Ok(Self {
            rate: config.get("rate").map_or(Ok(0.0), |_| config.float("rate"))?,
            fail_on: optional("fail_on")?,
            panic_on: optional("panic_on")?,
            diverge_on: optional("diverge_on")?,
            ..Self::default()
        })
    }

    /// A builder of this model.
    pub fn builder() -> Arc<dyn ModelBuilder> {
        Arc::new(|config: &Config, _: &Slot| Ok(Box::new(Tally::new(config)?) as Box<dyn Model>))
    }

    fn loss(&self) -> f64 {
        (1.0 + (self.rate - 0.3).abs()) / (1.0 + self.rows as f64)
    }

    fn metrics(&self, rows: usize, diverged: bool) -> Metrics {
        let mut metrics = Metrics::new();
        let loss = if diverged { f64::NAN } else { self.loss() };
        metrics.record(LOSS, Statistic::mean(loss, rows));
        metrics.record("accuracy", Statistic::mean(1.0 - self.loss(), rows));
        metrics
    }
}

impl Model for Tally {
    fn initialize(&mut self, seed: Seed) -> Result<(), ModelError> {
        self.digest = seed.derive("tally", &[]).0;
        self.rows = 0;
        Ok(())
    }

    fn restore(&mut self, state: &State) -> Result<(), ModelError> {
        let bytes: [u8; 16] = state
            .to_vec()
            .try_into()
            .map_err(|_| ModelError::State("a tally has 16 bytes".to_owned()))?;
        let (digest, rows) = bytes.split_at(8);
        self.digest = u64::from_le_bytes(digest.try_into().expect("the first 8 of 16 bytes"));
        self.rows = u64::from_le_bytes(rows.try_into().expect("the last 8 of 16 bytes"));
        Ok(())
    }

    fn state(&mut self) -> Result<State, ModelError> {
        Ok([self.digest.to_le_bytes(), self.rows.to_le_bytes()].concat().into())
    }

    fn train(&mut self, partition: &dyn Partition, pass: &Pass<'_>) -> Result<Metrics, ModelError> {
        let number = Some(i64::from(partition.id().0));
        for batch in pass.shuffled_batches(partition, 4) {
            let batch = batch?;
            for row in batch.i64("row")? {
                self.digest = xxh3_64_with_seed(&row.to_le_bytes(), self.digest);
                self.rows += 1;
            }
            pass.advance(batch.rows())?;
            if number == self.fail_on {
                return Err(ModelError::other("training on a bad partition", "told to fail"));
            }
            assert_ne!(number, self.panic_on, "told to panic");
        }
        Ok(self.metrics(partition.rows(), number == self.diverge_on))
    }

    fn evaluate(
        &mut self,
        partition: &dyn Partition,
        pass: &Pass<'_>,
    ) -> Result<Metrics, ModelError> {
        pass.advance(partition.rows())?;
        Ok(self.metrics(partition.rows(), false))
    }
}

/// A small data set: `train` training partitions and `validation` validation partitions with
/// consecutive ids, of 10 to 14 rows each; every row has a number of its own.
pub fn dataset(train: u32, validation: u32) -> MemoryDataset {
    let splits = (0..train + validation)
        .map(|id| (id, if id < train { Split::Train } else { Split::Validation }));
    MemoryDataset::new(splits.map(|(id, split)| (split, partition(id))))
        .expect("ids are distinct and tensors agree")
}

fn partition(id: u32) -> MemoryPartition {
    let rows = 10 + (id as usize % 5);
    let numbers = Array1::from_iter((0..rows as i64).map(|row| i64::from(id) * 1000 + row));
    let x = Array2::from_shape_fn((rows, 2), |(row, column)| (row * 2 + column) as f32);
    let tensors = [("row", numbers.into_dyn().into()), ("x", x.into_dyn().into())];
    MemoryPartition::new(PartitionId(id), tensors).expect("rows agree")
}
