//! [`Objects`]: the few things that are asked of an object store.

use std::fmt;
use std::path::Path as FilePath;
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutPayload};

use super::StoreError;
use crate::data::{DataError, Location, Target};

/// What became of an attempt to create an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Created {
    Yes,
    /// There is one of this name.
    Exists,
}

/// The objects of an experiment.
#[derive(Clone, Debug)]
pub(super) struct Objects {
    store: Arc<dyn ObjectStore>,
    root: Path,
    name: String,
}

impl Objects {
    /// The objects at `location`. Called where a tokio runtime is, since clients of stores need one.
    pub(super) fn at(location: &Location) -> Result<Self, StoreError> {
        let name = location.to_string();
        let target = location.target().map_err(|error| {
            let reason = match error {
                DataError::Location { reason, .. } => reason,
                error => error.to_string(),
            };
            StoreError::Location { location: name.clone(), reason }
        })?;
        match target {
            Target::File(path) => folder(&path, &name),
            Target::Object(store, root) => Ok(Self { store, root, name }),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    fn path(&self, path: &str) -> Path {
        self.root.parts().chain(Path::from(path).parts()).collect()
    }

    fn access(&self, action: &'static str, path: &str, error: Error) -> StoreError {
        access(action, path, &self.name, error)
    }

    /// Creates an object, unless there is one of this name.
    pub(super) async fn create(&self, path: &str, bytes: Bytes) -> Result<Created, StoreError> {
        let payload = PutPayload::from(bytes);
        match self.store.put_opts(&self.path(path), payload, PutMode::Create.into()).await {
            Ok(_) => Ok(Created::Yes),
            Err(Error::AlreadyExists { .. }) => Ok(Created::Exists),
            Err(error) => Err(self.access("create", path, error)),
        }
    }

    /// Creates or replaces an object.
    pub(super) async fn put(&self, path: &str, bytes: Bytes) -> Result<(), StoreError> {
        let put = self.store.put(&self.path(path), PutPayload::from(bytes)).await;
        put.map(|_| ()).map_err(|error| self.access("write", path, error))
    }

    /// The bytes of an object; none if it is not there.
    pub(super) async fn get(&self, path: &str) -> Result<Option<Bytes>, StoreError> {
        let read = async { self.store.get(&self.path(path)).await?.bytes().await };
        match read.await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.access("read", path, error)),
        }
    }

    pub(super) async fn exists(&self, path: &str) -> Result<bool, StoreError> {
        match self.store.head(&self.path(path)).await {
            Ok(_) => Ok(true),
            Err(Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(self.access("look at", path, error)),
        }
    }

    /// The names of the objects in a folder, sorted.
    pub(super) async fn list(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        let prefix = self.path(folder);
        let listed: Result<Vec<_>, Error> = self.store.list(Some(&prefix)).try_collect().await;
        let listed = match listed {
            Err(Error::NotFound { .. }) => Vec::new(),
            other => other.map_err(|error| self.access("list", folder, error))?,
        };
        let mut names: Vec<String> = listed
            .into_iter()
            .filter_map(|meta| {
                let parts = meta.location.prefix_match(&prefix)?;
                Some(parts.map(|part| part.as_ref().to_owned()).collect::<Vec<_>>().join("/"))
            })
            .collect();
        names.sort();
        Ok(names)
    }

    /// Deletes an object; one that is not there is fine.
    pub(super) async fn delete(&self, path: &str) -> Result<(), StoreError> {
        match self.store.delete(&self.path(path)).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.access("delete", path, error)),
        }
    }
}

fn folder(path: &FilePath, name: &str) -> Result<Objects, StoreError> {
    let made = std::fs::create_dir_all(path).and_then(|()| path.canonicalize());
    let path = made.map_err(|error| StoreError::Location {
        location: name.to_owned(),
        reason: format!("cannot make the folder: {error}; check the path and the permissions"),
    })?;
    // Synced, so that what was told to be durable outlives the machine and not the process alone.
    let store = LocalFileSystem::new_with_prefix(path).map(|store| store.with_fsync(true));
    let store = store.map_err(|error| access("open", "", name, error))?;
    Ok(Objects { store: Arc::new(store), root: Path::default(), name: name.to_owned() })
}

fn access(action: &'static str, path: &str, store: &str, error: Error) -> StoreError {
    let advice = match &error {
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
            "check the permissions, or the credentials in the environment"
        }
        _ => "check that there is space, that the place may be written, and the network",
    };
    let (path, store) = (path.to_owned(), store.to_owned());
    StoreError::Access { action, path, store, source: Box::new(Chained(error)), advice }
}

/// Object stores hide the reason (such as a full disk) in the sources of their errors: shown here.
#[derive(Debug)]
struct Chained(Error);

impl fmt::Display for Chained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.0.to_string();
        let mut cause = std::error::Error::source(&self.0);
        while let Some(error) = cause {
            let next = error.to_string();
            if !text.contains(&next) {
                text = format!("{text}: {next}");
            }
            cause = error.source();
        }
        f.write_str(&text)
    }
}

impl std::error::Error for Chained {}
