//! [`Buffer`]: a tensor in memory of ONNX Runtime, with one owner.

use cerebro_core::Device;
use memmap2::MmapMut;
use ort::AsPointer;
use ort::memory::{Allocator, MemoryInfo};
use ort::value::{DynTensor, DynTensorRefMut, Shape, Tensor, TensorRefMut};

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
    storage: Storage,
}

/// Who holds the elements.
#[derive(Debug)]
enum Storage {
    /// ONNX Runtime.
    Runtime(DynTensor),
    /// A mapping of the buffer's own, which the tensor shows; it is unmapped after the tensor is gone.
    Mapping { tensor: DynTensorRefMut<'static>, memory: MmapMut },
}

/// The bytes of a huge page. Buffers that fill such pages are mappings of them, where the system has
/// these: steps read and write all of them, and with pages of 4 KiB wait for the table of pages, and for
/// memory that is not fetched beyond the end of a page.
const HUGE: usize = 1 << 21;
/// The part of a buffer by which the last of its huge pages may be larger than what is left for it.
const WASTE: usize = 8;

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

impl Storage {
    /// Zeros in a mapping of so many bytes; `None` where the system gives none.
    fn mapping(data_type: DataType, dims: &[usize], pages: usize) -> Option<Self> {
        // Whole huge pages, so that the system lets them begin where such a page may.
        let mut memory = MmapMut::map_anon(pages).ok()?;
        #[cfg(target_os = "linux")]
        if let Err(error) = memory.advise(memmap2::Advice::HugePage) {
            tracing::debug!(%error, "this system has no huge pages");
        }
        let first = memory.as_mut_ptr().cast();
        let shape = Shape::new(dims.iter().map(|&dim| dim as i64));
        let info = MemoryInfo::default();
        // SAFETY: the mapping has at least the bytes of the elements, all zero, which is a value of each of these types, and
        // begins at the start of a page. It is held beside the tensor and dropped after it, and
        // nobody else has it.
        let tensor = unsafe {
            match data_type {
                DataType::Float32 => {
                    TensorRefMut::<f32>::from_raw(info, first, shape).ok()?.into_dyn()
                }
                DataType::Float64 => {
                    TensorRefMut::<f64>::from_raw(info, first, shape).ok()?.into_dyn()
                }
                DataType::Int64 => {
                    TensorRefMut::<i64>::from_raw(info, first, shape).ok()?.into_dyn()
                }
                DataType::Int32 => {
                    TensorRefMut::<i32>::from_raw(info, first, shape).ok()?.into_dyn()
                }
                _ => return None,
            }
        };
        let tensor = tensor.downcast().ok()?;
        Some(Self::Mapping { tensor, memory })
    }
}

impl Buffer {
    /// A buffer in the host's memory whose elements are zero.
    pub(crate) fn zeros(data_type: DataType, dims: &[usize]) -> Result<Self, StepError> {
        let bytes = dims.iter().product::<usize>() * data_type.bytes();
        let pages = bytes.next_multiple_of(HUGE);
        if bytes > 0
            && pages - bytes <= bytes / WASTE
            && let Some(storage) = Storage::mapping(data_type, dims, pages)
        {
            return Ok(Self { data_type, device: Device::Cpu, storage });
        }
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
        Ok(Self { data_type, device, storage: Storage::Runtime(tensor) })
    }

    /// Takes the content of `other`, which has the same type and shape, on whatever device.
    pub(crate) fn copy_from(&mut self, other: &Buffer) -> Result<(), StepError> {
        if (self.device, other.device) == (Device::Cpu, Device::Cpu) {
            self.bytes_mut().copy_from_slice(other.bytes());
            return Ok(());
        }
        let (from, to) = (other.device, self.device);
        let failed = |error: ort::Error| StepError::Copy { from, to, message: error.to_string() };
        match &mut self.storage {
            Storage::Runtime(tensor) => other.tensor().copy_into(tensor).map_err(failed),
            // ONNX Runtime copies to memory of its own only.
            Storage::Mapping { .. } => {
                let (host, dims) = (Allocator::default(), other.dims());
                let mut between = Self::allocate(&host, Device::Cpu, self.data_type, &dims)?;
                between.copy_from(other)?;
                self.copy_from(&between)
            }
        }
    }

    /// Sets every element to zero.
    pub(crate) fn clear(&mut self) -> Result<(), StepError> {
        if self.device == Device::Cpu {
            self.bytes_mut().fill(0);
            return Ok(());
        }
        self.copy_from(&Self::zeros(self.data_type, &self.dims())?)
    }

    fn tensor(&self) -> &DynTensor {
        match &self.storage {
            Storage::Runtime(tensor) => tensor,
            Storage::Mapping { tensor, .. } => tensor,
        }
    }

    /// The device that has it in its memory.
    pub(crate) fn device(&self) -> Device {
        self.device
    }

    /// Its shape.
    pub(crate) fn dims(&self) -> Vec<usize> {
        self.tensor().shape().iter().map(|&size| size as usize).collect()
    }

    /// The number of bytes of its elements.
    pub(crate) fn len(&self) -> usize {
        self.tensor().shape().num_elements() * self.data_type.bytes()
    }

    pub(crate) fn data_type(&self) -> DataType {
        self.data_type
    }

    /// The elements, which are of type `T` and in the host's memory.
    pub(crate) fn slice<T: Element>(&self) -> &[T] {
        self.tensor().try_extract_tensor().expect("the caller knows type and device").1
    }

    /// The elements, which are of type `T` and in the host's memory.
    pub(crate) fn slice_mut<T: Element>(&mut self) -> &mut [T] {
        let length = self.len();
        match &mut self.storage {
            Storage::Runtime(tensor) => {
                tensor.try_extract_tensor_mut().expect("the caller knows type and device").1
            }
            Storage::Mapping { memory, .. } => bytemuck::cast_slice_mut(&mut memory[..length]),
        }
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
        self.tensor().ptr()
    }

    pub(super) fn value_mut(&mut self) -> *mut ort::sys::OrtValue {
        self.tensor().ptr().cast_mut()
    }
}

/// A type that elements of a buffer may have.
pub(crate) trait Element: ort::value::PrimitiveTensorElementType + bytemuck::Pod {}
impl Element for f32 {}
impl Element for f64 {}
impl Element for i64 {}
impl Element for i32 {}

#[cfg(test)]
mod tests {
    use super::*;

    /// Floats in a huge page.
    const PAGE: usize = HUGE / size_of::<f32>();

    #[test]
    fn buffers_of_every_size_begin_as_zeros_and_keep_what_is_written() {
        crate::runtime::load().unwrap();
        for (elements, is_mapped) in [
            (0, false),
            (1, false),
            (PAGE - PAGE / 16, true),
            (PAGE, true),
            (PAGE + 1, false),
            (3 * PAGE - 7, true),
        ] {
            let mut first = Buffer::zeros(DataType::Float32, &[elements]).unwrap();
            let mapped = matches!(first.storage, Storage::Mapping { .. });
            assert!(!mapped || is_mapped, "{elements} elements would waste memory");
            assert_eq!((first.len(), first.slice::<f32>().len()), (4 * elements, elements));
            assert!(first.slice::<f32>().iter().all(|&value| value == 0.0));
            for (at, value) in first.slice_mut::<f32>().iter_mut().enumerate() {
                *value = at as f32;
            }
            let mut second = Buffer::zeros(DataType::Float32, &[elements]).unwrap();
            second.copy_from(&first).unwrap();
            first.clear().unwrap();
            assert!(first.slice::<f32>().iter().all(|&value| value == 0.0));
            drop(first);
            let kept = second.slice::<f32>().iter().enumerate();
            assert!({ kept }.all(|(at, &value)| value == at as f32));
        }
    }
}
