//! Which unit a free slot takes.

use serde::{Deserialize, Serialize};

use super::order::VisitOrders;

/// How the scheduler chooses among the units that could start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Policy {
    /// Any trial, any partition, drawn from the experiment's seed: the scheduler of the Cerebro
    /// paper (Nakandala, Zhang, Kumar: "Cerebro: A Data System for Optimized Deep Learning Model
    /// Selection", PVLDB 13(11), 2020, section 4). For comparison.
    Random,
    /// The trial with the most work left first, on the partition that is most in demand.
    #[default]
    LongestRemainingFirst,
    /// Each trial visits the partitions in an order that the experiment's seed and the trial's number
    /// fix, so that its weights are the same bits whatever the cluster, and whatever other trials are
    /// trained beside it, are added, or end early. All trials go round one circle of the partitions,
    /// drawn from the seed, each from a place of its own, in every epoch: so they spread over the
    /// workers, and little time is lost; least where there are two or three partitions for each worker. To
    /// train one trial alone again under another number, use
    /// [`Replay`](Self::Replay) with the order that it had. The search is told of
    /// results in an order that does not depend on timing either, so it decides the same every
    /// time; a trial that is ahead of the others waits until it is its turn to be judged, unless the
    /// search [ignores results](crate::search::Search::ignores_results).
    Seeded,
    /// Each trial visits the partitions in a recorded order, which makes the same bits again.
    Replay(VisitOrders),
}
