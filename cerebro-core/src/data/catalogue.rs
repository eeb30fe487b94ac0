//! [`Catalogue`]: what is written in a data set's `dataset.json`.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3Default;

use super::location::Location;
use super::output::Output;
use super::{DataError, ElementType, Normalization, PartitionInfo, Scope, TensorSpec};
use crate::id::{PartitionId, Split};

/// The name of the catalogue in a data set's folder. It is written last, so a folder that has it
/// has everything that it names.
pub(super) const FILE: &str = "dataset.json";

/// The version of the catalogue's format that this crate writes.
const VERSION: u32 = 1;

/// All that is known of a prepared data set: its tensors, the columns they come from, the
/// partitions, their files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Catalogue {
    version: u32,
    /// A digest of the source and of the options, by which `prepare` knows its own work again.
    pub request: String,
    /// The tensors, in the order in which partitions have them.
    pub tensors: Vec<TensorEntry>,
    /// The partitions.
    pub partitions: Vec<PartitionEntry>,
}

/// A tensor and the columns that it is made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TensorEntry {
    /// Name, element type, shape of a row, and number of classes.
    #[serde(flatten)]
    pub spec: TensorSpec,
    /// The columns: one list column, or scalar columns in their order.
    pub columns: Vec<String>,
    /// What was put where a value was missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fill_missing: Option<f64>,
    /// How loaded values are scaled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub normalization: Option<Scaling>,
}

/// Statistics of the training partitions, by which values are scaled: `(x - shift) * scale`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scaling {
    /// Which statistics these are.
    pub kind: Normalization,
    /// What each number stands for.
    pub scope: Scope,
    /// What is subtracted: one number per element of a row, or one for all.
    pub shift: Vec<f32>,
    /// What is multiplied with then; as many numbers.
    pub scale: Vec<f32>,
}

/// A partition and its file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionEntry {
    /// Which partition.
    pub id: PartitionId,
    /// Whether trials train on it or are validated on it.
    pub split: Split,
    /// The number of rows.
    pub rows: u64,
    /// The file's name in the data set's folder.
    pub file: String,
    /// The file's size in bytes.
    pub file_bytes: u64,
    /// The XXH3-64 digest of the file's bytes: `xxh3:` and 16 hexadecimal digits.
    pub checksum: String,
}

impl Catalogue {
    pub(super) fn new(
        request: String,
        tensors: Vec<TensorEntry>,
        partitions: Vec<PartitionEntry>,
    ) -> Self {
        Self { version: VERSION, request, tensors, partitions }
    }

    /// Reads the catalogue of the data set in `folder`.
    pub(super) fn read(folder: &Location) -> Result<Self, DataError> {
        let file = folder.join(FILE);
        let bytes = file.read()?;
        let corrupt = |reason: String| DataError::Corrupt {
            file: file.to_string(),
            format: "catalogue",
            reason,
        };
        let catalogue: Self =
            serde_json::from_slice(&bytes).map_err(|error| corrupt(error.to_string()))?;
        if catalogue.version != VERSION {
            let version = catalogue.version;
            return Err(corrupt(format!(
                "it has version {version}, and this release of the crate reads version {VERSION}"
            )));
        }
        for tensor in &catalogue.tensors {
            tensor.check().map_err(corrupt)?;
        }
        for (at, partition) in catalogue.partitions.iter().enumerate() {
            if catalogue.partitions[..at].iter().any(|other| other.id == partition.id) {
                return Err(DataError::DuplicatePartition { partition: partition.id });
            }
            if partition.rows == 0 {
                return Err(DataError::EmptyPartition { partition: partition.id });
            }
            let rows = partition.rows as usize;
            if u32::try_from(rows).is_err() {
                return Err(DataError::TooManyRows { partition: partition.id, rows });
            }
        }
        Ok(catalogue)
    }

    /// Makes this the catalogue of `folder`, whose partitions' files are there already, and deletes
    /// the files of the data set that was there before.
    pub(super) fn publish(&self, folder: &Location) -> Result<(), DataError> {
        let location = folder.join(FILE);
        // The files of a catalogue that cannot be read are nobody's, and stay.
        let before = location.stat()?.and_then(|_| Self::read(folder).ok());
        let text = serde_json::to_vec_pretty(self)
            .map_err(|error| location.io("write", std::io::Error::other(error)))?;
        Output::put(&location, &text)?;
        for old in before.iter().flat_map(|before| &before.partitions) {
            let kept = self.partitions.iter().any(|new| new.file == old.file);
            if !kept && let Err(error) = folder.join(&old.file).delete() {
                tracing::warn!(%error, "a file of the data set that was here before stays behind");
            }
        }
        Ok(())
    }

    /// What the trait [`Dataset`](super::Dataset) tells of the partitions.
    pub(super) fn infos(&self) -> Vec<PartitionInfo> {
        let row_bytes: usize = self.tensors.iter().map(|tensor| tensor.spec.row_bytes()).sum();
        let info = |entry: &PartitionEntry| PartitionInfo {
            id: entry.id,
            split: entry.split,
            rows: entry.rows,
            bytes: entry.rows * row_bytes as u64,
        };
        self.partitions.iter().map(info).collect()
    }

    /// The partition with this id.
    pub(super) fn partition(&self, id: PartitionId) -> Result<&PartitionEntry, DataError> {
        let found = self.partitions.iter().find(|entry| entry.id == id);
        found.ok_or(DataError::NoSuchPartition { partition: id })
    }
}

impl TensorEntry {
    fn check(&self) -> Result<(), String> {
        let (name, elements) = (&self.spec.name, self.spec.row_len());
        let columns = self.columns.len();
        if columns == 0 || (columns > 1 && columns != elements) {
            return Err(format!(
                "tensor `{name}` has {elements} elements a row, made of {columns} columns"
            ));
        }
        if let Some(scaling) = &self.normalization {
            let wanted = match scaling.scope {
                Scope::Element => elements,
                Scope::Tensor => 1,
            };
            let found = (scaling.shift.len(), scaling.scale.len());
            if self.spec.element != ElementType::F32 || found != (wanted, wanted) {
                return Err(format!("tensor `{name}` does not fit its normalisation"));
            }
        }
        Ok(())
    }
}

/// The digest of a file, written as the catalogue writes it.
pub(super) fn checksum(hash: &Xxh3Default) -> String {
    format!("xxh3:{:016x}", hash.digest())
}
