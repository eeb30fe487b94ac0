//! [`Tensor`]: a typed n-dimensional array, and the description of one.

use std::fmt;

use ndarray::ArrayD;
use serde::{Deserialize, Serialize};

/// The type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ElementType {
    /// 32-bit floats: features, regression targets.
    F32,
    /// 64-bit integers: categories, tokens, class labels.
    I64,
}

impl ElementType {
    /// The size of one element in bytes.
    pub fn bytes(self) -> usize {
        match self {
            ElementType::F32 => 4,
            ElementType::I64 => 8,
        }
    }
}

impl fmt::Display for ElementType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            ElementType::F32 => "float32",
            ElementType::I64 => "int64",
        })
    }
}

/// A tensor of a data set: its name, the type of its elements and the shape of one row.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TensorSpec {
    /// The name by which a model finds it.
    pub name: String,
    /// The type of its elements.
    pub element: ElementType,
    /// The shape of one row: `[]` for a scalar, `[64]` for a vector, `[3, 32, 32]` for an image.
    pub shape: Vec<usize>,
    /// The number of classes, if the elements are known to be class labels: they count from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<u64>,
}

impl TensorSpec {
    /// A tensor of `element`s, each row of `shape`.
    pub fn new(
        name: impl Into<String>,
        element: ElementType,
        shape: impl Into<Vec<usize>>,
    ) -> Self {
        Self { name: name.into(), element, shape: shape.into(), classes: None }
    }

    /// The number of elements in one row.
    pub fn row_len(&self) -> usize {
        self.shape.iter().product()
    }

    /// The size of one row in bytes.
    pub fn row_bytes(&self) -> usize {
        self.row_len() * self.element.bytes()
    }
}

impl fmt::Display for TensorSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} [rows", self.name, self.element)?;
        for size in &self.shape {
            write!(f, ", {size}")?;
        }
        f.write_str("]")
    }
}

/// A typed array whose first axis counts rows, in standard (row-major) layout.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Tensor {
    /// 32-bit floats.
    F32(ArrayD<f32>),
    /// 64-bit integers.
    I64(ArrayD<i64>),
}

impl Tensor {
    /// Zeros: `rows` rows as `spec` describes them.
    pub fn zeros(spec: &TensorSpec, rows: usize) -> Self {
        let shape: Vec<usize> = std::iter::once(rows).chain(spec.shape.iter().copied()).collect();
        match spec.element {
            ElementType::F32 => Tensor::F32(ArrayD::zeros(shape)),
            ElementType::I64 => Tensor::I64(ArrayD::zeros(shape)),
        }
    }

    /// The type of the elements.
    pub fn element(&self) -> ElementType {
        match self {
            Tensor::F32(_) => ElementType::F32,
            Tensor::I64(_) => ElementType::I64,
        }
    }

    /// The shape, rows first.
    pub fn shape(&self) -> &[usize] {
        match self {
            Tensor::F32(array) => array.shape(),
            Tensor::I64(array) => array.shape(),
        }
    }

    /// The number of rows: the first axis; 0 for a tensor without axes.
    pub fn rows(&self) -> usize {
        self.shape().first().copied().unwrap_or(0)
    }

    /// The array, if its elements are 32-bit floats.
    pub fn as_f32(&self) -> Option<&ArrayD<f32>> {
        match self {
            Tensor::F32(array) => Some(array),
            Tensor::I64(_) => None,
        }
    }

    /// The array, if its elements are 64-bit integers.
    pub fn as_i64(&self) -> Option<&ArrayD<i64>> {
        match self {
            Tensor::I64(array) => Some(array),
            Tensor::F32(_) => None,
        }
    }

    /// The description of one row under the name `name`.
    pub fn spec(&self, name: impl Into<String>) -> TensorSpec {
        TensorSpec::new(name, self.element(), self.shape().get(1..).unwrap_or_default())
    }
}

impl From<ArrayD<f32>> for Tensor {
    fn from(array: ArrayD<f32>) -> Self {
        Tensor::F32(array)
    }
}

impl From<ArrayD<i64>> for Tensor {
    fn from(array: ArrayD<i64>) -> Self {
        Tensor::I64(array)
    }
}

/// Where gathered elements go: memory that the caller owns, such as a runtime's input buffer.
#[derive(Debug)]
#[non_exhaustive]
pub enum TensorSliceMut<'a> {
    /// 32-bit floats.
    F32(&'a mut [f32]),
    /// 64-bit integers.
    I64(&'a mut [i64]),
}

impl TensorSliceMut<'_> {
    /// The type of the elements.
    pub fn element(&self) -> ElementType {
        match self {
            TensorSliceMut::F32(_) => ElementType::F32,
            TensorSliceMut::I64(_) => ElementType::I64,
        }
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        match self {
            TensorSliceMut::F32(slice) => slice.len(),
            TensorSliceMut::I64(slice) => slice.len(),
        }
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
