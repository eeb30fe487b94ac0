//! [`Buffer`]: a tensor in memory of ONNX Runtime, with one owner.

use cerebro_core::Device;
use ort::AsPointer;
use ort::memory::Allocator;
use ort::value::{DynTensor, Tensor};

use super::{Memory, StepError};
use crate::onnx::DataType;

/// A tensor in memory of ONNX Runtime.
///
/// No two buffers share memory: each is allocated here and hands out borrows only. So a graph may
/// read any `&Buffer` while it writes any `&mut Buffer`.
#[derive(Debug)]
pub(crate) struct Buffer {
    data_type: DataType,
    device: Device,
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
    /// A buffer in the host's memory whose elements are zero.
    pub(crate) fn zeros(data_type: DataType, dims: &[usize]) -> Result<Self, StepError> {
        // ONNX Runtime clears the memory that it gives on the host.
        Self::allocate(&Allocator::default(), Device::Cpu, data_type, dims)
    }

    /// A buffer in `memory`, with any content.
    pub(crate) fn within(
        memory: &Memory,
        data_type: DataType,
        dims: &[usize],
    ) -> Result<Self, StepError> {
        match memory {
            Memory::Host => Self::zeros(data_type, dims),
            #[cfg(feature = "cuda")]
            Memory::Cuda(gpu) => Self::allocate(&gpu.allocator, memory.device(), data_type, dims),
        }
    }

    fn allocate(
        allocator: &Allocator,
        device: Device,
        data_type: DataType,
        dims: &[usize],
    ) -> Result<Self, StepError> {
        let shape = dims.to_vec();
        let tensor = match data_type {
            DataType::Float32 => Tensor::<f32>::new(allocator, shape).map(Tensor::upcast),
            DataType::Float64 => Tensor::<f64>::new(allocator, shape).map(Tensor::upcast),
            DataType::Int64 => Tensor::<i64>::new(allocator, shape).map(Tensor::upcast),
            DataType::Int32 => Tensor::<i32>::new(allocator, shape).map(Tensor::upcast),
            other => return Err(StepError::ElementType(other)),
        };
        let tensor =
            tensor.map_err(|source| StepError::Allocation { dims: dims.into(), source })?;
        Ok(Self { data_type, device, tensor })
    }

    /// Takes the content of `other`, which has the same type and shape, on whatever device.
    pub(crate) fn copy_from(&mut self, other: &Buffer) -> Result<(), StepError> {
        if (self.device, other.device) == (Device::Cpu, Device::Cpu) {
            self.bytes_mut().copy_from_slice(other.bytes());
            return Ok(());
        }
        let (from, to) = (other.device, self.device);
        other.tensor.copy_into(&mut self.tensor).map_err(|error| StepError::Copy {
            from,
            to,
            message: error.to_string(),
        })
    }

    /// Sets every element to zero.
    pub(crate) fn clear(&mut self) -> Result<(), StepError> {
        if self.device == Device::Cpu {
            self.bytes_mut().fill(0);
            return Ok(());
        }
        let dims: Vec<usize> = self.tensor.shape().iter().map(|&size| size as usize).collect();
        self.copy_from(&Self::zeros(self.data_type, &dims)?)
    }

    /// The device that has it in its memory.
    pub(crate) fn device(&self) -> Device {
        self.device
    }

    /// The number of bytes of its elements.
    pub(crate) fn len(&self) -> usize {
        self.tensor.shape().num_elements() * self.data_type.bytes()
    }

    pub(crate) fn data_type(&self) -> DataType {
        self.data_type
    }

    /// The elements, which are of type `T` and in the host's memory.
    pub(crate) fn slice<T: Element>(&self) -> &[T] {
        self.tensor.try_extract_tensor().expect("the caller knows type and device").1
    }

    /// The elements, which are of type `T` and in the host's memory.
    pub(crate) fn slice_mut<T: Element>(&mut self) -> &mut [T] {
        self.tensor.try_extract_tensor_mut().expect("the caller knows type and device").1
    }

    /// The bytes of the elements, which are in the host's memory, in the machine's order.
    pub(crate) fn bytes(&self) -> &[u8] {
        with_element!(self.data_type, T => bytemuck::cast_slice(self.slice::<T>()))
    }

    /// The bytes of the elements, which are in the host's memory, in the machine's order.
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
