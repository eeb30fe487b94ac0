//! States that come to the driver: because it asks for them, or to be given to others.

use std::sync::Arc;

use cerebro_core::backend::{BackendError, UnitError};
use cerebro_core::{Cancellation, State, TrialId};
use futures::StreamExt;
use futures::channel::mpsc;

use crate::bulk::Source;
use crate::cluster::{Cluster, FROM_DRIVER, Phase, not_running};
use crate::ledger::{Found, Holder, StateName};
use crate::protocol::{Wanted, wanted};
use crate::security::WORKER;
use crate::units::{ATTEMPTS, bring_back};
use crate::wire::chain;

/// Whoever should have given a State did not: the driver fetches it and gives it itself, or takes
/// it for lost.
pub(crate) async fn relay(cluster: &Cluster, trial: TrialId, version: u64) {
    let Some((name, holders)) = cluster.books().ledger.base(trial, version) else { return };
    if holders.contains(&Holder::Driver) {
        return;
    }
    match fetch(cluster, name, &holders).await {
        Ok(state) => {
            let mut books = cluster.books();
            if books.ledger.held(name, Holder::Driver) {
                cluster.hold(name, state);
                cluster.collect(&mut books, trial);
            }
        }
        Err(reason) => {
            tracing::warn!(%trial, version, reason, "a State is taken for lost");
            for &holder in &holders {
                if let Holder::Worker(id) = holder {
                    let what =
                        format!("version {version} of {trial} cannot be had from it: {reason}");
                    cluster.trouble(id, what);
                }
                cluster.books().missed(name, holder);
            }
        }
    }
}

/// Fetches States that only workers about to leave hold, when no other worker can take them.
pub(crate) async fn take_over(
    cluster: Arc<Cluster>,
    mut names: mpsc::UnboundedReceiver<StateName>,
) {
    while let Some(name) = names.next().await {
        relay(&cluster, name.trial, name.version).await;
        cluster.relayed(name);
    }
}

async fn fetch(cluster: &Cluster, name: StateName, holders: &[Holder]) -> Result<State, String> {
    if let Some(state) = cluster.held().get(&name) {
        return Ok(state.clone());
    }
    let sources = Cluster::sources(&cluster.books(), holders.iter().copied(), None);
    let sources = sources.into_iter().filter(|source| source != FROM_DRIVER);
    let sources = sources.map(|address| Source { address, role: WORKER });
    let wanted = Wanted { what: Some(wanted::What::State(name.into())) };
    let fetched = cluster.fetcher.fetch(sources, &wanted, cluster.terms.most_state_bytes);
    Ok(fetched.await?.state)
}

/// The State of `trial` at `version`, made again if it was lost.
pub(crate) async fn state(
    cluster: Arc<Cluster>,
    trial: TrialId,
    version: u64,
) -> Result<State, BackendError> {
    let failed = |reason: String| BackendError::Other {
        context: format!("fetching version {version} of the State of {trial}"),
        source: reason.into(),
    };
    let mut last = "it could not be made again".to_owned();
    for _ in 0..ATTEMPTS {
        if cluster.books().phase == Phase::Ended {
            return Err(not_running());
        }
        let found = bring_back(&cluster, trial, version, None, &Cancellation::new()).await;
        match found {
            Ok(()) => {}
            Err(UnitError::NoState { .. }) => return Err(BackendError::NoState { trial, version }),
            Err(error) => return Err(failed(chain(&error))),
        }
        let found = cluster.books().ledger.find(trial, version);
        let Found::Held { name, holders, .. } = found else {
            return Err(BackendError::NoState { trial, version });
        };
        match fetch(&cluster, name, &holders).await {
            Ok(state) => return Ok(state),
            Err(reason) => last = reason,
        }
        relay(&cluster, trial, version).await;
    }
    Err(failed(last))
}
