//! Opening a store: for a new experiment, or for one that goes on.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;

use super::archive::LocationArchive;
use super::journal::Journal;
use super::lease::Lease;
use super::objects::{Created, Objects};
use super::service::{self, Desk};
use super::{FORMAT, Open, Opened, Record, Specification, StoreError};
use crate::data::Location;

const SPECIFICATION: &str = "experiment.json";

/// The experiment's id, the records that were found, and what was amiss.
type Found = (String, Vec<Record>, Vec<String>);

/// What a store is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To begin an experiment there.
    Begin,
    /// To go on with the one that is there.
    GoOn,
}

/// Opens `location` when it is called, with a lease that expires after `expiry` without sign of life.
pub(crate) fn open(location: Location, purpose: Purpose, expiry: Duration) -> Open {
    Box::new(move |specification| {
        async move {
            let archive = Arc::new(LocationArchive { location: location.clone() });
            let opening = opening(location, purpose, expiry, specification);
            let (service, said, found) = service::start(opening).await?;
            let (id, records, warnings) = found;
            let keeper = Box::new(service);
            Ok(Opened { keeper, archive, said, id, records, warnings })
        }
        .boxed()
    })
}

async fn opening(
    location: Location,
    purpose: Purpose,
    expiry: Duration,
    specification: Specification,
) -> Result<(Desk, Found), StoreError> {
    let objects = Objects::at(&location)?;
    let recorded = recorded(&objects).await?;
    let store = || objects.name().to_owned();
    match (purpose, &recorded) {
        (Purpose::Begin, Some(there)) => {
            return Err(StoreError::Occupied { store: store(), name: there.name.clone() });
        }
        (Purpose::GoOn, None) => return Err(StoreError::Vacant { store: store() }),
        (Purpose::GoOn, Some(recorded)) => recorded.admits(&specification)?,
        (Purpose::Begin, None) => {}
    }
    let lease = Lease::acquire(objects.clone(), expiry).await?;
    let begun = match begin(&objects, purpose, &specification, &lease).await {
        Ok(begun) => begun,
        Err(error) => {
            // The error says what matters; a lease that could not be released expires.
            let _ = lease.release().await;
            return Err(error);
        }
    };
    let (journal, records, warnings) = begun;
    let desk = Desk { objects, lease, expiry, journal };
    let id = recorded.map_or(specification.id, |recorded| recorded.id);
    Ok((desk, (id, records, warnings)))
}

async fn begin(
    objects: &Objects,
    purpose: Purpose,
    specification: &Specification,
    lease: &Lease,
) -> Result<(Journal, Vec<Record>, Vec<String>), StoreError> {
    if purpose == Purpose::Begin {
        let json = serde_json::to_vec_pretty(specification).expect("text keys");
        if objects.create(SPECIFICATION, Bytes::from(json)).await? == Created::Exists {
            // Another driver was between its look and its lease when this one looked.
            let name = recorded(objects).await?.map_or_else(String::new, |there| there.name);
            return Err(StoreError::Occupied { store: objects.name().to_owned(), name });
        }
    }
    let mut warnings = Vec::new();
    let (journal, records) = Journal::read(objects.clone(), lease.driver, &mut warnings).await?;
    Ok((journal, records, warnings))
}

async fn recorded(objects: &Objects) -> Result<Option<Specification>, StoreError> {
    let Some(bytes) = objects.get(SPECIFICATION).await? else { return Ok(None) };
    let format = |reason: String| StoreError::Format { path: SPECIFICATION.to_owned(), reason };
    let value: serde_json::Value =
        serde_json::from_slice(&bytes).map_err(|error| format(error.to_string()))?;
    let found = value.get("format").and_then(serde_json::Value::as_u64);
    if found != Some(u64::from(FORMAT)) {
        return Err(format(format!(
            "it is of format {}, and this release of cerebro-core reads format {FORMAT}",
            found.map_or_else(|| "?".to_owned(), |found| found.to_string())
        )));
    }
    serde_json::from_value(value).map(Some).map_err(|error| format(error.to_string()))
}
