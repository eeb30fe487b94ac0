//! [`Memory`]: where the variables of a slot's trials live.

use cerebro_core::{Device, Slot};

use super::StepError;

/// Where the variables of a slot's trials live: the host's memory, or that of the slot's GPU.
///
/// Batches, hyperparameters and results stay in the host's memory: ONNX Runtime copies them at
/// each run. Variables on a GPU are read and written there by every step and every unit, and are
/// copied only when a State leaves for another device or for a file.
#[derive(Debug)]
pub(crate) enum Memory {
    /// The host's.
    Host,
    /// That of a GPU.
    #[cfg(feature = "cuda")]
    Cuda(cuda::GpuMemory),
}

impl Memory {
    /// The memory of the device of `slot`: an error if ONNX Runtime cannot use the device.
    pub(crate) fn of(slot: &Slot) -> Result<Self, StepError> {
        match slot.device {
            Device::Cpu => Ok(Memory::Host),
            #[cfg(feature = "cuda")]
            Device::Cuda(number) => cuda::GpuMemory::new(slot, number).map(Memory::Cuda),
            other => Err(StepError::Device(other)),
        }
    }

    /// The device that it belongs to.
    pub(crate) fn device(&self) -> Device {
        match self {
            Memory::Host => Device::Cpu,
            #[cfg(feature = "cuda")]
            Memory::Cuda(memory) => memory.device(),
        }
    }
}

#[cfg(feature = "cuda")]
pub(crate) mod cuda {
    //! NVIDIA's GPUs.

    use cerebro_core::{Device, Slot};
    use ort::ep::cuda::ConvAlgorithmSearch;
    use ort::ep::{self, ExecutionProviderDispatch};
    use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
    use ort::session::Session;

    use super::super::StepError;
    use super::super::session::compile_session;
    use crate::graph::{Builder, Type};
    use crate::onnx::DataType;
    use crate::runtime;

    /// The memory of a GPU.
    #[derive(Debug)]
    pub(crate) struct GpuMemory {
        device: Device,
        pub(in super::super) allocator: Allocator,
        /// The allocator is that of a session.
        _session: Session,
    }

    impl GpuMemory {
        pub(super) fn new(slot: &Slot, number: u32) -> Result<Self, StepError> {
            let device = slot.device;
            let runtime = runtime::load().map_err(|error| StepError::Provider {
                device,
                library: "no library".into(),
                message: error.to_string(),
            })?;
            let cannot = |error: ort::Error| StepError::Provider {
                device,
                library: runtime.library().display().to_string(),
                message: error.to_string(),
            };
            let mut builder = Builder::new();
            let input = builder.input("input", Type::new(DataType::Float32, [1]));
            let model = builder.finish(&[("output".to_owned(), input)]);
            let model = model.to_bytes().expect("a graph that copies a number can be written");
            let session = compile_session(runtime, slot, |o| o.commit_from_memory(&model));
            let session = session.map_err(cannot)?;
            let kind = (AllocatorType::Device, MemoryType::Default);
            let info = MemoryInfo::new(AllocationDevice::CUDA, number as i32, kind.0, kind.1);
            let allocator = info.and_then(|info| Allocator::new(&session, info)).map_err(cannot)?;
            Ok(Self { device, allocator, _session: session })
        }

        pub(super) fn device(&self) -> Device {
            self.device
        }
    }

    /// The execution provider of GPU `number`: one that cannot be loaded is an error, and the CPU
    /// never takes its place unasked.
    pub(in super::super) fn provider(number: u32) -> ExecutionProviderDispatch {
        ep::CUDA::default()
            .with_device_id(number as i32)
            // Products of 32-bit floats keep all their bits, as on the CPU.
            .with_tf32(false)
            // Trying all algorithms out would make the choice, and so the bits, depend on timing.
            .with_conv_algorithm_search(ConvAlgorithmSearch::Heuristic)
            .build()
            .error_on_failure()
    }
}
