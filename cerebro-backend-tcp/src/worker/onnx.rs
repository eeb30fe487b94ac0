//! What the program `cerebro-worker` can make and read.

use std::sync::Arc;

use cerebro_core::data::{DataError, Dataset, ParquetDataset};
use cerebro_models::Trainer;

use super::Registry;

/// The schemes of data sets; for which of them there is a client is a matter of features.
const SCHEMES: [&str; 10] = ["", "file", "s3", "s3a", "gs", "az", "abfs", "abfss", "http", "https"];

impl Registry {
    /// Networks that are trained through ONNX Runtime, by their
    /// [`Trainer`], on data sets of Parquet files: on this machine, and in the object stores that
    /// this crate's features (`aws`, `gcp`, `azure`, `http`) name. Feature `onnx`.
    ///
    /// The program `cerebro-worker` has just these; a program of one's own may add to them.
    ///
    /// ```no_run
    /// use cerebro_backend_tcp::worker::{self, Options, Registry};
    /// worker::serve(Registry::onnx(), Options::new("127.0.0.1:7700"))?;
    /// # Ok::<(), worker::WorkerError>(())
    /// ```
    pub fn onnx() -> Self {
        let registry = Self::new()
            .model(Trainer::BLUEPRINT, |bytes| Ok(Arc::new(Trainer::from_blueprint(bytes)?)));
        SCHEMES.into_iter().fold(registry, |registry, scheme| registry.dataset(scheme, open))
    }
}

fn open(url: &str) -> Result<Arc<dyn Dataset>, DataError> {
    Ok(Arc::new(ParquetDataset::open(url)?))
}
