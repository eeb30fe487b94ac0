//! [`Partition`]: rows in a worker's memory, and the mini-batches that are gathered from them.

use std::fmt;

use ndarray::ArrayD;
use xxhash_rust::xxh3::Xxh3Default;

use super::{DataError, ElementType, Tensor, TensorSliceMut, TensorSpec};
use crate::id::PartitionId;

/// A horizontal slice of a data set, ready to be read in any row order.
///
/// A partition is a set of named tensors with the same number of rows. Models read it through
/// [`gather`](Partition::gather), straight into memory of their own, or more conveniently through
/// [`Batches`].
pub trait Partition: Send + Sync + fmt::Debug {
    /// Which partition of its data set this is.
    fn id(&self) -> PartitionId;

    /// The number of rows; at least 1.
    fn rows(&self) -> usize;

    /// The tensors, in the data set's order.
    fn tensors(&self) -> &[TensorSpec];

    /// Copies the given rows of tensor number `tensor` to `out`, one after the other.
    ///
    /// `out` must have the tensor's element type and `rows.len() * row_len` elements.
    fn gather(&self, tensor: usize, rows: &[u32], out: TensorSliceMut<'_>)
    -> Result<(), DataError>;

    /// The memory that the partition takes, in bytes.
    fn bytes(&self) -> usize {
        self.rows() * self.tensors().iter().map(TensorSpec::row_bytes).sum::<usize>()
    }
}

impl dyn Partition + '_ {
    /// The number of the tensor called `name`.
    pub fn tensor_index(&self, name: &str) -> Result<usize, DataError> {
        let tensors = self.tensors();
        tensors.iter().position(|spec| spec.name == name).ok_or_else(|| DataError::NoSuchTensor {
            name: name.to_owned(),
            partition: self.id(),
            known: tensors.iter().map(|spec| spec.name.clone()).collect(),
        })
    }

    /// The tensor called `name`, whole, in row order.
    pub fn read(&self, name: &str) -> Result<Tensor, DataError> {
        let index = self.tensor_index(name)?;
        let rows: Vec<u32> = (0..self.rows() as u32).collect();
        gathered(self, index, &rows)
    }
}

/// The given rows of tensor number `index`, as a tensor of their own.
fn gathered(partition: &dyn Partition, index: usize, rows: &[u32]) -> Result<Tensor, DataError> {
    let mut tensor = Tensor::zeros(&partition.tensors()[index], rows.len());
    let out = match &mut tensor {
        Tensor::F32(array) => array.as_slice_mut().map(TensorSliceMut::F32),
        Tensor::I64(array) => array.as_slice_mut().map(TensorSliceMut::I64),
    };
    partition.gather(index, rows, out.expect("zeros are in standard layout"))?;
    Ok(tensor)
}

/// A partition whose tensors are arrays in memory.
///
/// ```
/// use cerebro_core::PartitionId;
/// use cerebro_core::data::{MemoryPartition, Partition};
/// use ndarray::{Array1, Array2};
/// let x = Array2::<f32>::zeros((10, 3)).into_dyn();
/// let y = Array1::<i64>::zeros(10).into_dyn();
/// let partition = MemoryPartition::new(PartitionId(0), [("x", x.into()), ("y", y.into())])?;
/// assert_eq!(partition.rows(), 10);
/// # Ok::<(), cerebro_core::data::DataError>(())
/// ```
#[derive(Clone, Debug)]
pub struct MemoryPartition {
    id: PartitionId,
    rows: usize,
    specs: Vec<TensorSpec>,
    tensors: Vec<Tensor>,
}

impl MemoryPartition {
    /// A partition of named tensors, which must have the same number of rows, at least 1.
    pub fn new<N: Into<String>>(
        id: PartitionId,
        tensors: impl IntoIterator<Item = (N, Tensor)>,
    ) -> Result<Self, DataError> {
        let (specs, tensors): (Vec<_>, Vec<_>) = tensors
            .into_iter()
            .map(|(name, tensor)| (tensor.spec(name), standard_layout(tensor)))
            .unzip();
        let rows = tensors.first().map_or(0, Tensor::rows);
        if rows == 0 {
            return Err(DataError::EmptyPartition { partition: id });
        }
        if u32::try_from(rows).is_err() {
            return Err(DataError::TooManyRows { partition: id, rows });
        }
        if let Some(at) = tensors.iter().position(|tensor| tensor.rows() != rows) {
            return Err(DataError::UnequalRows {
                partition: id,
                first: (specs[0].name.clone(), rows),
                other: (specs[at].name.clone(), tensors[at].rows()),
            });
        }
        Ok(Self { id, rows, specs, tensors })
    }

    /// The named tensor, whole.
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.specs.iter().position(|spec| spec.name == name).map(|index| &self.tensors[index])
    }

    /// The XXH3-64 digest of all elements, in the order of tensors and rows.
    pub(super) fn checksum(&self) -> String {
        let mut hash = Xxh3Default::new();
        for tensor in &self.tensors {
            match tensor {
                Tensor::F32(array) => array.iter().for_each(|x| hash.update(&x.to_le_bytes())),
                Tensor::I64(array) => array.iter().for_each(|x| hash.update(&x.to_le_bytes())),
            }
        }
        format!("xxh3:{:016x}", hash.digest())
    }
}

fn standard_layout(tensor: Tensor) -> Tensor {
    fn standard<T: Clone>(array: ArrayD<T>) -> ArrayD<T> {
        if array.is_standard_layout() { array } else { array.as_standard_layout().into_owned() }
    }
    match tensor {
        Tensor::F32(array) => Tensor::F32(standard(array)),
        Tensor::I64(array) => Tensor::I64(standard(array)),
    }
}

impl Partition for MemoryPartition {
    fn id(&self) -> PartitionId {
        self.id
    }

    fn rows(&self) -> usize {
        self.rows
    }

    fn tensors(&self) -> &[TensorSpec] {
        &self.specs
    }

    fn gather(
        &self,
        tensor: usize,
        rows: &[u32],
        out: TensorSliceMut<'_>,
    ) -> Result<(), DataError> {
        let spec = self.specs.get(tensor).ok_or_else(|| DataError::NoSuchTensor {
            name: format!("number {tensor}"),
            partition: self.id,
            known: self.specs.iter().map(|spec| spec.name.clone()).collect(),
        })?;
        let row_len = spec.row_len();
        if out.element() != spec.element || out.len() != rows.len() * row_len {
            return Err(DataError::WrongBuffer {
                tensor: spec.to_string(),
                rows: rows.len(),
                found: (out.element(), out.len()),
            });
        }
        if let Some(&row) = rows.iter().find(|&&row| row as usize >= self.rows) {
            return Err(DataError::NoSuchRow { partition: self.id, row, rows: self.rows });
        }
        match (&self.tensors[tensor], out) {
            (Tensor::F32(array), TensorSliceMut::F32(out)) => {
                gather_rows(array, rows, row_len, out);
            }
            (Tensor::I64(array), TensorSliceMut::I64(out)) => {
                gather_rows(array, rows, row_len, out);
            }
            _ => unreachable!("the element types were compared above"),
        }
        Ok(())
    }
}

fn gather_rows<T: Copy>(array: &ArrayD<T>, rows: &[u32], row_len: usize, out: &mut [T]) {
    let all = array.as_slice().expect("`new` keeps arrays in standard layout");
    if row_len == 0 {
        return;
    }
    for (to, &row) in out.chunks_exact_mut(row_len).zip(rows) {
        let start = row as usize * row_len;
        to.copy_from_slice(&all[start..start + row_len]);
    }
}

/// A mini-batch: some rows of every tensor of a partition.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    rows: usize,
    names: Vec<String>,
    tensors: Vec<Tensor>,
}

impl Batch {
    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The named tensor, rows first.
    pub fn tensor(&self, name: &str) -> Result<&Tensor, DataError> {
        let index = self.names.iter().position(|known| known == name);
        index.map(|index| &self.tensors[index]).ok_or_else(|| DataError::NotInBatch {
            name: name.to_owned(),
            known: self.names.clone(),
        })
    }

    /// The named tensor's array of 32-bit floats.
    pub fn f32(&self, name: &str) -> Result<&ArrayD<f32>, DataError> {
        let tensor = self.tensor(name)?;
        tensor.as_f32().ok_or_else(|| wrong_element(name, ElementType::F32, tensor))
    }

    /// The named tensor's array of 64-bit integers.
    pub fn i64(&self, name: &str) -> Result<&ArrayD<i64>, DataError> {
        let tensor = self.tensor(name)?;
        tensor.as_i64().ok_or_else(|| wrong_element(name, ElementType::I64, tensor))
    }
}

fn wrong_element(name: &str, expected: ElementType, tensor: &Tensor) -> DataError {
    DataError::WrongElement { name: name.to_owned(), expected, found: tensor.element() }
}

/// Mini-batches of a partition in a given row order; the last one may be smaller.
///
/// The batches own their arrays, which suits learners written on `ndarray`. A runtime with input
/// buffers of its own calls [`Partition::gather`] instead and saves the copy.
#[derive(Debug)]
pub struct Batches<'a> {
    partition: &'a dyn Partition,
    order: Vec<u32>,
    at: usize,
    batch_size: usize,
}

impl<'a> Batches<'a> {
    /// Batches of `batch_size` rows (at least 1) in the order of `order`.
    pub fn new(partition: &'a dyn Partition, order: Vec<u32>, batch_size: usize) -> Self {
        Self { partition, order, at: 0, batch_size: batch_size.max(1) }
    }

    fn read(&self, rows: &[u32]) -> Result<Batch, DataError> {
        let specs = self.partition.tensors();
        let tensors = (0..specs.len()).map(|index| gathered(self.partition, index, rows));
        let tensors = tensors.collect::<Result<Vec<_>, _>>()?;
        let names = specs.iter().map(|spec| spec.name.clone()).collect();
        Ok(Batch { rows: rows.len(), names, tensors })
    }
}

impl Iterator for Batches<'_> {
    type Item = Result<Batch, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        let end = (self.at + self.batch_size).min(self.order.len());
        let rows = self.order.get(self.at..end).filter(|rows| !rows.is_empty())?;
        let batch = self.read(rows);
        self.at = end;
        Some(batch)
    }
}
