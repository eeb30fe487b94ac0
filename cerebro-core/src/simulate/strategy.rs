//! What other ways of training the same trials move over the network: the cost model of the Cerebro
//! paper (Nakandala, Zhang, Kumar: "Cerebro: A Data System for Optimized Deep Learning Model
//! Selection", PVLDB 13(11), 2020, section 3 and table 2).

use std::fmt;

/// A model selection job, as far as the network is concerned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Traffic {
    /// Configurations.
    pub trials: u64,
    /// Epochs of each.
    pub epochs: u64,
    /// Workers, each with one partition of the data.
    pub workers: u64,
    /// Bytes of one model.
    pub model_bytes: u64,
    /// Bytes of the whole data set.
    pub data_bytes: u64,
    /// Mini-batches of one epoch.
    pub batches_per_epoch: u64,
}

/// A way to train many trials on many workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// Model Hopper Parallelism.
    ModelHopper,
    /// Task parallelism; every worker has a copy of the data.
    FullCopies,
    /// Task parallelism; every epoch reads the data over the network.
    RemoteReads,
    /// Data parallelism that averages the models once per epoch.
    ModelAveraging,
    /// Data parallelism that adds up gradients in every mini-batch.
    AllReduce,
}

impl Strategy {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::ModelHopper,
        Self::FullCopies,
        Self::RemoteReads,
        Self::ModelAveraging,
        Self::AllReduce,
    ];
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::ModelHopper => "model hopper",
            Self::FullCopies => "full copies",
            Self::RemoteReads => "remote reads",
            Self::ModelAveraging => "model averaging",
            Self::AllReduce => "all-reduce",
        })
    }
}

impl Traffic {
    /// Bytes over the network, in all.
    ///
    /// With k epochs, |S| trials, p workers, models of m bytes, data of D bytes and b mini-batches
    /// per epoch:
    ///
    /// | strategy | bytes |
    /// | --- | --- |
    /// | model hopper | k p \|S\| m |
    /// | full copies | p D |
    /// | remote reads | k \|S\| D |
    /// | model averaging | 2 k p \|S\| m |
    /// | all-reduce | 2 k (p - 1) \|S\| m ⌈b / p⌉ |
    ///
    /// The paper counts a hop after every unit, so the traffic of model hopping is an upper bound;
    /// its full copies are one for each worker, the worker's own share included. Model averaging
    /// sends each model to a server and back. A ring all-reduce sends 2 (p - 1) / p of a model from
    /// each of p workers (Patarasuk, Yuan 2009, "Bandwidth optimal all-reduce algorithms for
    /// clusters of workstations"), and in each of its steps every worker takes one mini-batch.
    pub fn bytes(&self, strategy: Strategy) -> u128 {
        let [trials, epochs, workers, model, data, batches] = [
            self.trials,
            self.epochs,
            self.workers,
            self.model_bytes,
            self.data_bytes,
            self.batches_per_epoch,
        ]
        .map(u128::from);
        match strategy {
            Strategy::ModelHopper => epochs * workers * trials * model,
            Strategy::FullCopies => workers * data,
            Strategy::RemoteReads => epochs * trials * data,
            Strategy::ModelAveraging => 2 * epochs * workers * trials * model,
            Strategy::AllReduce => {
                2 * epochs
                    * workers.saturating_sub(1)
                    * trials
                    * model
                    * batches.div_ceil(workers.max(1))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_papers_table_2_comes_out() {
        const GB: u64 = 1_000_000_000;
        let traffic = Traffic {
            trials: 20,
            epochs: 20,
            workers: 10,
            model_bytes: GB,
            data_bytes: 1000 * GB,
            batches_per_epoch: 100_000,
        };
        let terabytes = Strategy::ALL.map(|strategy| traffic.bytes(strategy) / 1_000_000_000_000);
        assert_eq!(terabytes, [4, 10, 400, 8, 72_000]);
    }
}
