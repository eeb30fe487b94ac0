//! Units, from the order to the report; and lost States, made again by running units again.

use std::sync::Arc;

use cerebro_core::backend::{UnitError, UnitOrder, UnitReport, WorkerEvent};
use cerebro_core::{Cancellation, ModelError, PartitionId, Split, TrialId, WorkerId};
use tokio::time::Instant;

use crate::cluster::{Cluster, Dispatch, Status};
use crate::ledger::{Found, Recipe};
use crate::relay::relay;
use crate::wire::Failed;

/// How often a State is sought anew when whoever should hold it does not give it.
pub(crate) const ATTEMPTS: usize = 4;

/// Runs a unit, wherever the State is that it starts from.
pub(crate) async fn run(cluster: Arc<Cluster>, order: UnitOrder) -> Result<UnitReport, UnitError> {
    let (trial, version) = (order.unit.trial, order.version);
    let mut reason = String::new();
    for _ in 0..ATTEMPTS {
        bring_back(&cluster, trial, version, Some(order.worker), &order.cancellation).await?;
        match dispatch(&cluster, &order).await {
            Ok(report) => return Ok(report),
            Err(Failed::Unit(error)) => return Err(error),
            Err(Failed::State(why)) => reason = why,
        }
        relay(&cluster, trial, version).await;
    }
    Err(UnitError::NoState { trial, version, reason })
}

/// Runs a unit if its State is held somewhere.
pub(crate) async fn run_at_once(
    cluster: &Cluster,
    order: &UnitOrder,
) -> Result<UnitReport, Failed> {
    match cluster.books().ledger.find(order.unit.trial, order.version) {
        Found::Initial | Found::Held { .. } => {}
        Found::Lost { .. } | Found::Nowhere => {
            return Err(Failed::State("nobody holds it".to_owned()));
        }
    }
    dispatch(cluster, order).await
}

/// Runs a unit whose State is held somewhere.
async fn dispatch(cluster: &Cluster, order: &UnitOrder) -> Result<UnitReport, Failed> {
    // A worker may be through before it hears that it should not have begun.
    if order.cancellation.is_cancelled() {
        return Err(Failed::Unit(ModelError::Cancelled.into()));
    }
    let config = serde_json::to_vec(&*order.config);
    let config =
        config.map_err(|error| Failed::Unit(ModelError::other("a Config", error).into()))?;
    let dispatch = Dispatch {
        worker: order.worker,
        unit: order.unit,
        version: order.version,
        recipe: (order.unit.split == Split::Train).then(|| Recipe::of(order)),
        config,
        seed: order.seed.0,
    };
    let (number, mut ended) = cluster.dispatch(dispatch)?;
    let ended = tokio::select! {
        ended = &mut ended => ended,
        () = order.cancellation.cancelled() => {
            cluster.cancel(order.worker, number);
            ended.await
        }
    };
    let worker = order.worker;
    let dropped = |_| UnitError::WorkerLost { worker, reason: "the driver ended".to_owned() };
    ended.map_err(|canceled| Failed::Unit(dropped(canceled)))?
}

/// Makes a lost State again, unit by unit, from the newest version before it that is held.
///
/// `preferred` is the worker that is to run a unit from it: its slot is free for this too.
pub(crate) async fn bring_back(
    cluster: &Cluster,
    trial: TrialId,
    version: u64,
    preferred: Option<WorkerId>,
    cancellation: &Cancellation,
) -> Result<(), UnitError> {
    let nowhere = || UnitError::NoState {
        trial,
        version,
        reason: "no unit of this backend has made it, or it was let go".to_owned(),
    };
    let lost = |found: Found| match found {
        Found::Initial | Found::Held { .. } => Ok(None),
        Found::Lost { version, recipe } => Ok(Some((version, recipe))),
        Found::Nowhere => Err(nowhere()),
    };
    let find = || lost(cluster.books().ledger.find(trial, version));
    if find()?.is_none() {
        return Ok(());
    }
    // Units that validate the same State at once wait for one of them to bring it back.
    let repair = cluster.repair(trial);
    let _repairing = repair.lock().await;
    while let Some((version, recipe)) = find()? {
        let worker = holder(cluster, recipe.unit.partition, preferred, cancellation).await?;
        let unit = recipe.unit;
        tracing::warn!(%unit, %worker, "a lost State is made again");
        cluster.say(WorkerEvent::UnitRepeated { worker, unit });
        let order = UnitOrder {
            unit,
            worker,
            config: recipe.config,
            seed: recipe.seed,
            version: version - 1,
            cancellation: cancellation.clone(),
        };
        match dispatch(cluster, &order).await {
            // A worker other than the unit's own may be lost meanwhile; then another does it.
            Ok(_) => {}
            Err(Failed::Unit(UnitError::WorkerLost { worker, .. }))
                if Some(worker) != preferred => {}
            Err(Failed::Unit(error)) => return Err(error),
            Err(Failed::State(_)) => relay(cluster, trial, version - 1).await,
        }
    }
    Ok(())
}

/// A worker that holds `partition`, the preferred one if it does, else the one from which States can
/// best be had; waits for one if need be.
async fn holder(
    cluster: &Cluster,
    partition: PartitionId,
    preferred: Option<WorkerId>,
    cancellation: &Cancellation,
) -> Result<WorkerId, UnitError> {
    let patience = cluster.terms.patience;
    let found = cluster.until(Some(Instant::now() + patience), |books| {
        if let Some(preferred) = preferred
            && !books.workers.contains_key(&preferred)
        {
            let reason = "it left while a State was made again".to_owned();
            return Some(Err(UnitError::WorkerLost { worker: preferred, reason }));
        }
        let holders = books
            .workers
            .iter()
            .filter(|(_, worker)| worker.status == Status::Serving && worker.holds(partition));
        let best = holders.min_by_key(|(id, worker)| (Some(**id) != preferred, worker.missed));
        best.map(|(&id, _)| Ok(id))
    });
    tokio::select! {
        found = found => found.unwrap_or_else(|| {
            let waited = patience.as_secs();
            let reason = format!("no worker holds {partition} since {waited} s");
            Err(ModelError::other("making a lost State again", reason).into())
        }),
        () = cancellation.cancelled() => Err(ModelError::Cancelled.into()),
    }
}
