//! [`Registry`]: what a worker can make and read.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use cerebro_core::data::{DataError, Dataset};
use cerebro_core::{ModelBuilder, ModelError};

type Make = Box<dyn Fn(&[u8]) -> Result<Arc<dyn ModelBuilder>, ModelError> + Send + Sync>;
type Open = Box<dyn Fn(&str) -> Result<Arc<dyn Dataset>, DataError> + Send + Sync>;

/// The models that a worker can make and the data sets that it can read, by name. A driver can ask
/// for these and for nothing else.
#[derive(Default)]
pub struct Registry {
    models: BTreeMap<String, Make>,
    datasets: BTreeMap<String, Open>,
}

impl Registry {
    /// Nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a kind of model: `make` makes the builder from the bytes of its
    /// [`Blueprint`](cerebro_core::Blueprint).
    pub fn model(
        mut self,
        name: impl Into<String>,
        make: impl Fn(&[u8]) -> Result<Arc<dyn ModelBuilder>, ModelError> + Send + Sync + 'static,
    ) -> Self {
        self.models.insert(name.into(), Box::new(make));
        self
    }

    /// Adds a kind of data set: `open` opens those whose URL begins with `scheme` and a colon.
    pub fn dataset(
        mut self,
        scheme: impl Into<String>,
        open: impl Fn(&str) -> Result<Arc<dyn Dataset>, DataError> + Send + Sync + 'static,
    ) -> Self {
        self.datasets.insert(scheme.into(), Box::new(open));
        self
    }

    pub(super) fn make(&self, name: &str, bytes: &[u8]) -> Result<Arc<dyn ModelBuilder>, String> {
        let make = self.models.get(name).ok_or_else(|| {
            format!(
                "this worker has no model `{name}`; it has {}. Register it with `Registry::model`",
                names(&self.models)
            )
        })?;
        make(bytes)
            .map_err(|error| format!("making the model `{name}`: {}", crate::wire::chain(&error)))
    }

    pub(super) fn open(&self, url: &str) -> Result<Arc<dyn Dataset>, String> {
        let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme);
        let open = self.datasets.get(scheme).ok_or_else(|| {
            format!(
                "this worker cannot read `{url}`; it reads URLs of the schemes {}. \
                 Register others with `Registry::dataset`",
                names(&self.datasets)
            )
        })?;
        open(url).map_err(|error| format!("opening `{url}`: {}", crate::wire::chain(&error)))
    }
}

fn names<T>(map: &BTreeMap<String, T>) -> String {
    if map.is_empty() {
        return "(none)".to_owned();
    }
    map.keys().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("models", &self.models.keys())
            .field("datasets", &self.datasets.keys())
            .finish()
    }
}
