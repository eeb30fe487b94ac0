//! [`Buffer`]: a tensor in memory of ONNX Runtime, with one owner.

use ort::AsPointer;
use ort::memory::Allocator;
use ort::value::{DynTensor, Tensor};

use super::StepError;
use crate::onnx::DataType;

/// A tensor in memory of ONNX Runtime.
///
/// No two buffers share memory: each is allocated here and hands out borrows only. So a graph may
/// read any `&Buffer` while it writes any `&mut Buffer`.
#[derive(Debug)]
pub(crate) struct Buffer {
    data_type: DataType,
    tensor: DynTensor,
}

/// Calls `$body` with the element type of `$data_type` as `$element`.
macro_rules! with_element {
    ($data_type:expr, $element:ident => $body:expr) => {
        match $data_type {
            DataType::Float32 => {
                type $element = f32;
                $body
            }
            DataType::Float64 => {
                type $element = f64;
                $body
            }
            DataType::Int64 => {
                type $element = i64;
                $body
            }
            DataType::Int32 => {
                type $element = i32;
                $body
            }
            _ => unreachable!("`zeros` makes no buffers of other types"),
        }
    };
}

impl Buffer {
    /// A buffer whose elements are zero.
    pub(crate) fn zeros(data_type: DataType, dims: &[usize]) -> Result<Self, StepError> {
        let allocator = Allocator::default();
        let shape = dims.to_vec();
        // `Tensor::new` clears the memory that it allocates.
        let tensor = match data_type {
            DataType::Float32 => Tensor::<f32>::new(&allocator, shape).map(Tensor::upcast),
            DataType::Float64 => Tensor::<f64>::new(&allocator, shape).map(Tensor::upcast),
            DataType::Int64 => Tensor::<i64>::new(&allocator, shape).map(Tensor::upcast),
            DataType::Int32 => Tensor::<i32>::new(&allocator, shape).map(Tensor::upcast),
            other => return Err(StepError::ElementType(other)),
        };
        let tensor =
            tensor.map_err(|source| StepError::Allocation { dims: dims.into(), source })?;
        Ok(Self { data_type, tensor })
    }

    pub(crate) fn data_type(&self) -> DataType {
        self.data_type
    }

    /// The elements, which are of type `T`.
    pub(crate) fn slice<T: Element>(&self) -> &[T] {
        self.tensor.try_extract_tensor().expect("the caller knows the element type").1
    }

    /// The elements, which are of type `T`.
    pub(crate) fn slice_mut<T: Element>(&mut self) -> &mut [T] {
        self.tensor.try_extract_tensor_mut().expect("the caller knows the element type").1
    }

    /// The elements' bytes, in the machine's order.
    pub(crate) fn bytes(&self) -> &[u8] {
        with_element!(self.data_type, T => bytemuck::cast_slice(self.slice::<T>()))
    }

    /// The elements' bytes, in the machine's order.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        with_element!(self.data_type, T => bytemuck::cast_slice_mut(self.slice_mut::<T>()))
    }

    pub(super) fn value(&self) -> *const ort::sys::OrtValue {
        self.tensor.ptr()
    }

    pub(super) fn value_mut(&mut self) -> *mut ort::sys::OrtValue {
        self.tensor.ptr_mut()
    }
}

/// A type that elements of a buffer may have.
pub(crate) trait Element: ort::value::PrimitiveTensorElementType + bytemuck::Pod {}
impl Element for f32 {}
impl Element for f64 {}
impl Element for i64 {}
impl Element for i32 {}
