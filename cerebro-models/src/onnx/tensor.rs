//! [`TensorData`]: a constant tensor as it is in a file.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// The type of a tensor's elements; the discriminants are those of `TensorProto.DataType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the names say it")]
#[repr(i32)]
pub enum DataType {
    Float32 = 1,
    Uint8 = 2,
    Int8 = 3,
    Uint16 = 4,
    Int16 = 5,
    Int32 = 6,
    Int64 = 7,
    Bool = 9,
    Float16 = 10,
    Float64 = 11,
    Uint32 = 12,
    Uint64 = 13,
    Bfloat16 = 16,
}

impl DataType {
    const ALL: [DataType; 13] = [
        DataType::Float32,
        DataType::Uint8,
        DataType::Int8,
        DataType::Uint16,
        DataType::Int16,
        DataType::Int32,
        DataType::Int64,
        DataType::Bool,
        DataType::Float16,
        DataType::Float64,
        DataType::Uint32,
        DataType::Uint64,
        DataType::Bfloat16,
    ];

    /// The type with the number `code` in `TensorProto.DataType`; strings, complex numbers and
    /// types of less than 8 bits are not among those that models are trained with.
    pub fn from_code(code: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.code() == code)
    }

    /// The number in `TensorProto.DataType`.
    pub fn code(self) -> i64 {
        i64::from(self as i32)
    }

    /// The size of one element in bytes.
    pub fn bytes(self) -> usize {
        match self {
            DataType::Uint8 | DataType::Int8 | DataType::Bool => 1,
            DataType::Uint16 | DataType::Int16 | DataType::Float16 | DataType::Bfloat16 => 2,
            DataType::Float32 | DataType::Int32 | DataType::Uint32 => 4,
            DataType::Float64 | DataType::Int64 | DataType::Uint64 => 8,
        }
    }

    /// Whether it is a floating-point type: the only ones that have gradients.
    pub fn is_float(self) -> bool {
        matches!(
            self,
            DataType::Float16 | DataType::Bfloat16 | DataType::Float32 | DataType::Float64
        )
    }
}

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            DataType::Float32 => "float32",
            DataType::Uint8 => "uint8",
            DataType::Int8 => "int8",
            DataType::Uint16 => "uint16",
            DataType::Int16 => "int16",
            DataType::Int32 => "int32",
            DataType::Int64 => "int64",
            DataType::Bool => "bool",
            DataType::Float16 => "float16",
            DataType::Float64 => "float64",
            DataType::Uint32 => "uint32",
            DataType::Uint64 => "uint64",
            DataType::Bfloat16 => "bfloat16",
        })
    }
}

/// A constant tensor: little-endian elements in row-major order.
///
/// The bytes are a slice of the file that they were read from, so cloning copies nothing. They
/// need not be aligned; [`f32s`](Self::f32s) and its like decode them.
///
/// ```
/// use cerebro_models::onnx::{DataType, TensorData};
/// let weight = TensorData::from_f32(&[2, 2], &[1.0, 2.0, 3.0, 4.0]);
/// assert_eq!(weight.data_type(), DataType::Float32);
/// assert_eq!(weight.f32s().unwrap(), [1.0, 2.0, 3.0, 4.0]);
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct TensorData {
    data_type: DataType,
    dims: Vec<usize>,
    bytes: Bytes,
}

impl TensorData {
    /// A tensor over `bytes`; `None` if their number is not that of `dims`.
    pub fn new(data_type: DataType, dims: Vec<usize>, bytes: Bytes) -> Option<Self> {
        // Sizes of 0 do not hide others that would overflow.
        let largest =
            dims.iter().try_fold(1usize, |product, &dim| product.checked_mul(dim.max(1)))?;
        let elements = if dims.contains(&0) { 0 } else { largest };
        let expected = elements.checked_mul(data_type.bytes())?;
        (expected == bytes.len()).then_some(Self { data_type, dims, bytes })
    }

    fn from_elements(data_type: DataType, dims: &[usize], bytes: Vec<u8>) -> Self {
        debug_assert_eq!(dims.iter().product::<usize>() * data_type.bytes(), bytes.len());
        Self { data_type, dims: dims.to_vec(), bytes: bytes.into() }
    }

    /// A tensor of 32-bit floats.
    pub fn from_f32(dims: &[usize], values: &[f32]) -> Self {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self::from_elements(DataType::Float32, dims, bytes)
    }

    /// A tensor of 64-bit integers.
    pub fn from_i64(dims: &[usize], values: &[i64]) -> Self {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self::from_elements(DataType::Int64, dims, bytes)
    }

    /// A tensor of `data_type` with the given values, rounded to it; integers saturate, and
    /// booleans are true where the value is not zero.
    pub fn from_f64(data_type: DataType, dims: &[usize], values: &[f64]) -> Self {
        use half::{bf16, f16};
        fn each<const N: usize>(values: &[f64], convert: impl Fn(f64) -> [u8; N]) -> Vec<u8> {
            values.iter().flat_map(|&value| convert(value)).collect()
        }
        let bytes = match data_type {
            DataType::Float32 => each(values, |v| (v as f32).to_le_bytes()),
            DataType::Float64 => each(values, f64::to_le_bytes),
            DataType::Float16 => each(values, |v| f16::from_f64(v).to_le_bytes()),
            DataType::Bfloat16 => each(values, |v| bf16::from_f64(v).to_le_bytes()),
            DataType::Uint8 => each(values, |v| (v as u8).to_le_bytes()),
            DataType::Int8 => each(values, |v| (v as i8).to_le_bytes()),
            DataType::Uint16 => each(values, |v| (v as u16).to_le_bytes()),
            DataType::Int16 => each(values, |v| (v as i16).to_le_bytes()),
            DataType::Int32 => each(values, |v| (v as i32).to_le_bytes()),
            DataType::Int64 => each(values, |v| (v as i64).to_le_bytes()),
            DataType::Uint32 => each(values, |v| (v as u32).to_le_bytes()),
            DataType::Uint64 => each(values, |v| (v as u64).to_le_bytes()),
            DataType::Bool => each(values, |v| [u8::from(v != 0.0)]),
        };
        Self::from_elements(data_type, dims, bytes)
    }

    /// A tensor of an integer or boolean type with the given values, cut to its width; for a
    /// floating-point type the values are rounded.
    pub fn from_integers(data_type: DataType, dims: &[usize], values: &[i64]) -> Self {
        let width = match data_type {
            DataType::Bool => {
                let bytes = values.iter().map(|&value| u8::from(value != 0)).collect();
                return Self::from_elements(data_type, dims, bytes);
            }
            float if float.is_float() => {
                let floats: Vec<f64> = values.iter().map(|&value| value as f64).collect();
                return Self::from_f64(data_type, dims, &floats);
            }
            integer => integer.bytes(),
        };
        let bytes =
            values.iter().flat_map(|value| value.to_le_bytes().into_iter().take(width)).collect();
        Self::from_elements(data_type, dims, bytes)
    }

    /// The type of the elements.
    pub fn data_type(&self) -> DataType {
        self.data_type
    }

    /// The shape; `[]` for a scalar.
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// The number of elements.
    pub fn elements(&self) -> usize {
        self.dims.iter().product()
    }

    /// The elements' bytes, little-endian, row-major.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The same elements in another shape; `None` if that has another number of elements.
    pub fn reshaped(&self, dims: &[usize]) -> Option<Self> {
        Self::new(self.data_type, dims.to_vec(), self.bytes.clone())
    }

    fn decode<const N: usize, T>(&self, convert: impl Fn([u8; N]) -> T) -> Vec<T> {
        self.bytes.as_chunks::<N>().0.iter().map(|&chunk| convert(chunk)).collect()
    }

    /// The elements, if they are 32-bit floats.
    pub fn f32s(&self) -> Option<Vec<f32>> {
        (self.data_type == DataType::Float32).then(|| self.decode(f32::from_le_bytes))
    }

    /// The elements of any type as 64-bit floats, exactly but for large 64-bit integers.
    pub fn to_f64s(&self) -> Vec<f64> {
        match self.data_type {
            DataType::Float32 => self.decode(|b| f64::from(f32::from_le_bytes(b))),
            DataType::Float64 => self.decode(f64::from_le_bytes),
            DataType::Float16 => self.decode(|b| half::f16::from_le_bytes(b).to_f64()),
            DataType::Bfloat16 => self.decode(|b| half::bf16::from_le_bytes(b).to_f64()),
            DataType::Uint64 => self.decode(|b| u64::from_le_bytes(b) as f64),
            _ => self.to_i64s().unwrap_or_default().into_iter().map(|v| v as f64).collect(),
        }
    }

    /// The elements as 64-bit integers, if they are integers or booleans that fit.
    pub fn to_i64s(&self) -> Option<Vec<i64>> {
        Some(match self.data_type {
            DataType::Int64 => self.decode(i64::from_le_bytes),
            DataType::Int32 => self.decode(|b| i64::from(i32::from_le_bytes(b))),
            DataType::Int16 => self.decode(|b| i64::from(i16::from_le_bytes(b))),
            DataType::Int8 => self.decode(|b| i64::from(i8::from_le_bytes(b))),
            DataType::Uint8 => self.decode(|[b]: [u8; 1]| i64::from(b)),
            DataType::Uint16 => self.decode(|b| i64::from(u16::from_le_bytes(b))),
            DataType::Uint32 => self.decode(|b| i64::from(u32::from_le_bytes(b))),
            DataType::Bool => self.decode(|[b]: [u8; 1]| i64::from(b != 0)),
            DataType::Uint64 => {
                let values = self.decode(|b| i64::try_from(u64::from_le_bytes(b)));
                return values.into_iter().collect::<Result<_, _>>().ok();
            }
            DataType::Float16 | DataType::Bfloat16 | DataType::Float32 | DataType::Float64 => {
                return None;
            }
        })
    }
}

impl fmt::Debug for TensorData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.data_type, self.dims)?;
        if self.elements() <= 8 { write!(f, " {:?}", self.to_f64s()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive_every_type() {
        for data_type in DataType::ALL {
            let tensor = TensorData::from_f64(data_type, &[3], &[0.0, 1.0, 1.0]);
            assert_eq!(tensor.to_f64s(), [0.0, 1.0, 1.0], "{data_type}");
            let tensor = TensorData::from_integers(data_type, &[3], &[0, 1, 1]);
            assert_eq!(tensor.to_f64s(), [0.0, 1.0, 1.0], "{data_type}");
            assert_eq!(DataType::from_code(data_type.code()), Some(data_type));
        }
        let negative = TensorData::from_integers(DataType::Int16, &[1], &[-3]);
        assert_eq!(negative.to_i64s(), Some(vec![-3]));
    }

    #[test]
    fn bytes_that_do_not_fit_the_shape_are_refused() {
        let bytes = Bytes::from_static(&[0; 12]);
        assert!(TensorData::new(DataType::Float32, vec![3], bytes.clone()).is_some());
        assert!(TensorData::new(DataType::Float32, vec![4], bytes.clone()).is_none());
        assert!(TensorData::new(DataType::Float32, vec![usize::MAX, 8], bytes).is_none());
    }
}
