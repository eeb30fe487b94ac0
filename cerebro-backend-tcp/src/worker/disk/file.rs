//! The files of the cache: their names, how they are written and read.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use bytemuck::{Pod, Zeroable};
use cerebro_core::PartitionId;
use cerebro_core::data::{DataError, ElementType, MemoryPartition, Partition, Tensor, TensorSpec};
use ndarray::{ArrayD, IxDyn};
use safetensors::SafeTensorError;
use safetensors::tensor::{Dtype, Metadata, View, serialize_to_file};
use thiserror::Error;
use xxhash_rust::xxh3::Xxh3Default;

const EXTENSION: &str = "safetensors";
const READ_AHEAD: usize = 1 << 20;

/// Why a file of the cache is of no use.
#[derive(Debug, Error)]
pub(super) enum Unusable {
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("it is damaged: {0}")]
    Damaged(String),
}

/// Why a partition is not kept.
#[derive(Debug, Error)]
pub(super) enum NotKept {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("it takes {needed} bytes, and {budget} may be used, {taken} of them by files in use")]
    NoRoom { needed: u64, budget: u64, taken: u64 },
    #[error("{0}")]
    Other(String),
}

/// A file of the cache, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) partition: PartitionId,
    /// Of what the data set says of the partition.
    pub(super) content: u64,
    /// Of the file's bytes.
    pub(super) digest: u64,
}

impl Name {
    pub(super) fn parse(path: &Path) -> Option<Self> {
        if path.extension()? != EXTENSION {
            return None;
        }
        let mut parts = path.file_stem()?.to_str()?.split('-');
        let partition = PartitionId(parts.next()?.parse().ok()?);
        let mut digest = || u64::from_str_radix(parts.next()?, 16).ok();
        let name = Self { partition, content: digest()?, digest: digest()? };
        parts.next().is_none().then_some(name)
    }

    pub(super) fn file(self) -> String {
        let Name { partition, content, digest } = self;
        format!("{:06}-{content:016x}-{digest:016x}.{EXTENSION}", partition.0)
    }
}

/// One tensor of a partition, gathered when it is written, so that there is never a second copy of
/// more than one.
struct Column<'a> {
    partition: &'a dyn Partition,
    spec: &'a TensorSpec,
    shape: Vec<usize>,
    dtype: Dtype,
    failed: &'a RefCell<Option<DataError>>,
}

impl View for Column<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let bytes = match self.partition.read(&self.spec.name) {
            Ok(Tensor::F32(array)) => {
                array.as_slice().map(|all| bytemuck::cast_slice(all).to_vec())
            }
            Ok(Tensor::I64(array)) => {
                array.as_slice().map(|all| bytemuck::cast_slice(all).to_vec())
            }
            // `dtype` was found for it.
            Ok(_) => None,
            Err(error) => {
                self.failed.replace(Some(error));
                None
            }
        };
        bytes.unwrap_or_default().into()
    }

    fn data_len(&self) -> usize {
        self.partition.rows() * self.spec.row_bytes()
    }
}

pub(super) fn write(partition: &dyn Partition, file: &Path) -> Result<(), NotKept> {
    let failed = RefCell::new(None);
    let mut columns = Vec::new();
    for spec in partition.tensors() {
        let dtype = dtype(spec.element)
            .ok_or_else(|| NotKept::Other(format!("the file's format has no {}", spec.element)))?;
        let shape = std::iter::once(partition.rows()).chain(spec.shape.iter().copied()).collect();
        columns.push((&spec.name, Column { partition, spec, shape, dtype, failed: &failed }));
    }
    serialize_to_file(columns, None, file).map_err(|error| match error {
        SafeTensorError::IoError(error) => NotKept::Io(error),
        other => NotKept::Other(other.to_string()),
    })?;
    match failed.into_inner() {
        Some(error) => Err(NotKept::Other(error.to_string())),
        None => Ok(()),
    }
}

fn dtype(element: ElementType) -> Option<Dtype> {
    match element {
        ElementType::F32 => Some(Dtype::F32),
        ElementType::I64 => Some(Dtype::I64),
        _ => None,
    }
}

/// The digest of a file's bytes.
pub(super) fn digest(file: &Path) -> io::Result<u64> {
    let mut input = Hashing::open(file)?;
    let mut buffer = vec![0; READ_AHEAD];
    while input.read(&mut buffer)? > 0 {}
    Ok(input.hash.digest())
}

/// A file, and the digest of what was read of it.
struct Hashing {
    file: BufReader<File>,
    hash: Xxh3Default,
}

impl Hashing {
    fn open(path: &Path) -> io::Result<Self> {
        let file = BufReader::with_capacity(READ_AHEAD, File::open(path)?);
        Ok(Self { file, hash: Xxh3Default::new() })
    }
}

impl Read for Hashing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.hash.update(&buffer[..count]);
        Ok(count)
    }
}

/// Reads a file, straight into the tensors. What it claims of itself is believed only as far as it
/// fits its length, until all of it is known to be what was written.
pub(super) fn read(
    path: &Path,
    name: Name,
    specs: &[TensorSpec],
) -> Result<MemoryPartition, Unusable> {
    let damaged = |reason: String| Unusable::Damaged(reason);
    let mut input = Hashing::open(path)?;
    let length = input.file.get_ref().metadata()?.len();
    let mut header = [0; 8];
    input.read_exact(&mut header)?;
    let header_bytes = u64::from_le_bytes(header);
    if header_bytes > length.saturating_sub(8) {
        return Err(damaged("its header is longer than the file".to_owned()));
    }
    let mut header = vec![0; header_bytes as usize];
    input.read_exact(&mut header)?;
    let metadata: Metadata =
        serde_json::from_slice(&header).map_err(|error| damaged(error.to_string()))?;
    if metadata.data_len() as u64 != length - 8 - header_bytes {
        return Err(damaged("it is shorter or longer than its header says".to_owned()));
    }
    let mut tensors = BTreeMap::new();
    for key in metadata.offset_keys() {
        let Some(info) = metadata.info(&key) else { continue };
        let tensor: Tensor = match info.dtype {
            Dtype::F32 => values::<f32>(&mut input, &info.shape)?.into(),
            Dtype::I64 => values::<i64>(&mut input, &info.shape)?.into(),
            other => return Err(damaged(format!("tensor `{key}` is of the type {other:?}"))),
        };
        tensors.insert(key, tensor);
    }
    if input.hash.digest() != name.digest {
        return Err(damaged("its checksum is wrong".to_owned()));
    }
    let mut columns = Vec::new();
    for spec in specs {
        let tensor = tensors.remove(&spec.name).filter(|tensor| tensor.spec(&spec.name) == *spec);
        let tensor = tensor.ok_or_else(|| damaged(format!("it has no {spec}")))?;
        columns.push((spec.name.clone(), tensor));
    }
    MemoryPartition::new(name.partition, columns).map_err(|error| damaged(error.to_string()))
}

/// Reads as many elements as the shape has.
fn values<T: Pod + Zeroable>(input: &mut Hashing, shape: &[usize]) -> Result<ArrayD<T>, Unusable> {
    let mut values = vec![T::zeroed(); shape.iter().product()];
    input.read_exact(bytemuck::cast_slice_mut(&mut values))?;
    ArrayD::from_shape_vec(IxDyn(shape), values)
        .map_err(|error| Unusable::Damaged(error.to_string()))
}
