//! [`ParquetDataset`]: a data set of Parquet files, and its catalogue.

use std::io::Read;
use std::sync::Arc;

use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3Default;

use super::catalogue::{self, Catalogue, PartitionEntry};
use super::decode::{self, Source};
use super::location::{Input, Location};
use super::{DataError, Dataset, MemoryPartition, Partition, PartitionInfo, TensorSpec};
use crate::id::PartitionId;

/// A data set of Parquet files, a file per partition, described by the catalogue beside them.
///
/// [`Prepare`](super::Prepare) makes one. A folder is all there is to it: files on a disk, or
/// objects in a store, that every worker opens by its location.
///
/// Loading a partition checks the file's checksum, then decodes the columns that the tensors need,
/// page by page, straight into the tensors. A local file is never in memory as a whole: what a
/// load takes is the tensors and a few pages. An object of a remote store is fetched whole before it
/// is decoded, because only all of its bytes have a checksum.
///
/// ```no_run
/// use cerebro_core::PartitionId;
/// use cerebro_core::data::{Dataset, ParquetDataset, Partition};
/// let dataset = ParquetDataset::open("runs/digits")?;
/// dataset.verify()?;
/// let partition = dataset.load(PartitionId(0))?;
/// println!("{} rows of {}", partition.rows(), partition.tensors()[0]);
/// # Ok::<(), cerebro_core::data::DataError>(())
/// ```
#[derive(Clone, Debug)]
pub struct ParquetDataset {
    folder: Location,
    catalogue: Catalogue,
    infos: Vec<PartitionInfo>,
    specs: Vec<TensorSpec>,
}

impl ParquetDataset {
    /// Opens the data set in `folder` by reading its catalogue, and nothing else.
    pub fn open(folder: impl Into<Location>) -> Result<Self, DataError> {
        let folder = folder.into().resolve()?;
        let catalogue = Catalogue::read(&folder)?;
        Ok(Self::with_catalogue(folder, catalogue))
    }

    pub(super) fn with_catalogue(folder: Location, catalogue: Catalogue) -> Self {
        let infos = catalogue.infos();
        let specs = catalogue.tensors.iter().map(|tensor| tensor.spec.clone()).collect();
        Self { folder, catalogue, infos, specs }
    }

    /// Where the files are.
    pub fn folder(&self) -> &Location {
        &self.folder
    }

    /// What the catalogue says.
    pub fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// Reads every file whole and compares its bytes with the catalogue's checksum.
    pub fn verify(&self) -> Result<(), DataError> {
        self.catalogue.partitions.iter().try_for_each(|entry| self.verified(entry).map(drop))
    }

    /// Opens a partition's file, once its bytes are known to be those that were written.
    pub(super) fn verified(&self, entry: &PartitionEntry) -> Result<VerifiedFile, DataError> {
        let file = self.folder.join(&entry.file);
        let mut hash = Xxh3Default::new();
        let verified = match file.open()? {
            Input::File(handle) => {
                let input = Input::File(handle);
                let mut stream = input.stream(0, 0).map_err(|error| file.io("read", error))?;
                let mut buffer = vec![0; 256 << 10];
                loop {
                    match stream.read(&mut buffer).map_err(|error| file.io("read", error))? {
                        0 => break,
                        count => hash.update(&buffer[..count]),
                    }
                }
                VerifiedFile::OnDisk(input)
            }
            Input::Object { .. } => {
                let bytes = file.read()?;
                hash.update(&bytes);
                VerifiedFile::InMemory(bytes)
            }
        };
        let found = catalogue::checksum(&hash);
        if found != entry.checksum {
            let (file, expected) = (file.to_string(), entry.checksum.clone());
            return Err(DataError::Checksum { file, expected, found });
        }
        Ok(verified)
    }
}

/// A file whose checksum is right.
pub(super) enum VerifiedFile {
    OnDisk(Input),
    InMemory(Bytes),
}

impl Dataset for ParquetDataset {
    fn partitions(&self) -> &[PartitionInfo] {
        &self.infos
    }

    fn tensors(&self) -> &[TensorSpec] {
        &self.specs
    }

    /// The folder; none where this program has made the store that it is in.
    fn url(&self) -> Option<String> {
        self.folder.url()
    }

    /// Of the file and of what is made of it: the same columns scaled in another way are other rows.
    fn checksum(&self, id: PartitionId) -> Option<String> {
        let entry = self.catalogue.partition(id).ok()?;
        let mut hash = Xxh3Default::new();
        hash.update(entry.checksum.as_bytes());
        hash.update(&serde_json::to_vec(&self.catalogue.tensors).ok()?);
        Some(catalogue::checksum(&hash))
    }

    fn load(&self, id: PartitionId) -> Result<Arc<dyn Partition>, DataError> {
        let entry = self.catalogue.partition(id)?;
        let name = self.folder.join(&entry.file).to_string();
        let source = Source { file: &name, rows: entry.rows as usize };
        let tensors = match self.verified(entry)? {
            VerifiedFile::OnDisk(input) => decode::tensors(input, source, &self.catalogue.tensors),
            VerifiedFile::InMemory(bytes) => {
                decode::tensors(bytes, source, &self.catalogue.tensors)
            }
        }?;
        let names = self.specs.iter().map(|spec| spec.name.clone());
        Ok(Arc::new(MemoryPartition::new(id, names.zip(tensors))?))
    }
}
