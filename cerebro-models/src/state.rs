//! [`TrainingState`]: the weights, optimizer state and statistics of a trial.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::iter;
use std::sync::{Arc, OnceLock};

use cerebro_core::{Device, ModelError, Parts, State, StateData};
use safetensors::tensor::{Metadata, TensorInfo};
use safetensors::{Dtype, SafeTensors};
use thiserror::Error;

use crate::onnx::DataType;
use crate::schedule::Progress;
use crate::step::{Buffer, Memory, StepError};
use crate::training::{Initial, Variable, VariableKind};

/// The metadata entry of the portable form that says how far the trial has trained. It is the only
/// one: entries have no order, and equal States are equal bytes.
const PROGRESS: &str = "cerebro.progress";

/// All that a trial of an ONNX model needs to go on: its weights, the optimizer's state, running
/// statistics and the number of steps that made them.
///
/// In a process it hops as a pointer. That of a trial on a GPU stays in the GPU's memory between
/// units, and is copied to the host when it leaves the process or is looked into. Its portable form is a safetensors file with one tensor per
/// variable, so that any tool which reads safetensors can read a checkpoint; the optimizer's state
/// stands beside each weight, as in `fc1.weight` and `fc1.weight/momentum`.
pub struct TrainingState {
    variables: Arc<[Variable]>,
    /// Variables that no step changes, shared by all versions.
    frozen: Arc<Vec<Buffer>>,
    /// Variables that each step changes.
    live: Vec<Buffer>,
    progress: Progress,
    /// The same in the host's memory, once it was asked for, of one that lives on a GPU.
    host: OnceLock<Box<TrainingState>>,
}

/// A safetensors file begins with the length of its header.
const LENGTH: usize = size_of::<u64>();

/// Why a State cannot be gone on from.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StateError {
    /// Bytes that are no safetensors file, or a damaged one.
    #[error("its {bytes} bytes are not a whole safetensors file: {source}")]
    NotSafetensors {
        /// The number of bytes.
        bytes: usize,
        /// What is wrong with them.
        source: safetensors::SafeTensorError,
    },
    /// No word on how far its trial has trained.
    #[error(
        "its metadata do not say how far its trial has trained (`{PROGRESS}`): it was not written \
         by a trial; to start from given weights, see `Trainer::pretrained`"
    )]
    NoProgress,
    /// A variable that is not there.
    #[error(
        "it has no tensor `{name}`, which the model and its optimizer need; a State goes on only \
         with the architecture and the kind of optimizer that made it"
    )]
    Missing {
        /// The variable.
        name: String,
    },
    /// A tensor that the model does not have.
    #[error(
        "it has a tensor `{name}`, which the model and its optimizer lack; a State goes on only \
         with the architecture and the kind of optimizer that made it"
    )]
    Unknown {
        /// The tensor.
        name: String,
    },
    /// A tensor of another type or shape.
    #[error("its tensor `{name}` is {found}, but the model's is {expected}")]
    Unlike {
        /// The variable.
        name: String,
        /// Type and shape that the State has.
        found: String,
        /// Type and shape that the model has.
        expected: String,
    },
    /// No memory.
    #[error(transparent)]
    Buffer(#[from] StepError),
}

impl From<StateError> for ModelError {
    fn from(error: StateError) -> Self {
        ModelError::State(error.to_string())
    }
}

impl TrainingState {
    /// The State before the first step, with `value` giving the initial values of a variable:
    /// those that it leaves as they are have the values that the model says.
    pub(crate) fn initial(
        variables: &Arc<[Variable]>,
        mut value: impl FnMut(&Variable, &mut Buffer) -> bool,
    ) -> Result<Self, StateError> {
        Self::build(variables, Progress::default(), |variable, buffer| {
            if !value(variable, buffer) {
                match &variable.initial {
                    Initial::Fill(0.0) => {}
                    Initial::Fill(fill) => fill_with(buffer, *fill),
                    Initial::Tensor(data) => buffer.bytes_mut().copy_from_slice(data.bytes()),
                }
            }
            Ok(())
        })
    }

    /// The State that `state` holds, if `variables` are what it holds.
    pub(crate) fn restore(
        variables: &Arc<[Variable]>,
        state: &State,
    ) -> Result<Arc<Self>, StateError> {
        if let Some(state) = state.downcast::<Self>() {
            state.fits(variables)?;
            return Ok(state);
        }
        match state.downcast_ref::<Vec<u8>>() {
            Some(bytes) => Self::from_bytes(variables, bytes).map(Arc::new),
            None => Self::from_bytes(variables, &state.to_vec()).map(Arc::new),
        }
    }

    fn fits(&self, variables: &Arc<[Variable]>) -> Result<(), StateError> {
        if Arc::ptr_eq(&self.variables, variables) {
            return Ok(());
        }
        let described = |variable: &Variable| described(variable.data_type, &variable.dims);
        for variable in variables.iter() {
            let own = self.variables.iter().find(|own| own.name == variable.name);
            let own = own.ok_or_else(|| StateError::Missing { name: variable.name.clone() })?;
            if described(own) != described(variable) || own.kind != variable.kind {
                let name = variable.name.clone();
                let (found, expected) = (described(own), described(variable));
                return Err(StateError::Unlike { name, found, expected });
            }
        }
        let unknown = |own: &&Variable| !variables.iter().any(|other| other.name == own.name);
        match self.variables.iter().find(unknown) {
            Some(own) => Err(StateError::Unknown { name: own.name.clone() }),
            None => Ok(()),
        }
    }

    fn from_bytes(variables: &Arc<[Variable]>, bytes: &[u8]) -> Result<Self, StateError> {
        let damaged = |source| StateError::NotSafetensors { bytes: bytes.len(), source };
        let (header, metadata) = SafeTensors::read_metadata(bytes).map_err(damaged)?;
        let values = &bytes[LENGTH + header..];
        let tensors = metadata.tensors();
        let progress = metadata.metadata().as_ref().and_then(|entries| entries.get(PROGRESS));
        let progress = progress.and_then(|progress| serde_json::from_str(progress).ok());
        let progress = progress.ok_or(StateError::NoProgress)?;
        let known = |name: &String| variables.iter().any(|variable| variable.name == *name);
        if let Some(name) = tensors.keys().find(|name| !known(name)) {
            return Err(StateError::Unknown { name: name.clone() });
        }
        Self::build(variables, progress, |variable, buffer| {
            let tensor = tensors.get(&variable.name);
            let tensor =
                tensor.ok_or_else(|| StateError::Missing { name: variable.name.clone() })?;
            if dtype(variable.data_type) != Some(tensor.dtype) || tensor.shape != variable.dims {
                return Err(StateError::Unlike {
                    name: variable.name.clone(),
                    found: format!("{:?} {:?}", tensor.dtype, tensor.shape),
                    expected: described(variable.data_type, &variable.dims),
                });
            }
            let (start, end) = tensor.data_offsets;
            buffer.bytes_mut().copy_from_slice(&values[start..end]);
            Ok(())
        })
    }

    fn build(
        variables: &Arc<[Variable]>,
        progress: Progress,
        mut fill: impl FnMut(&Variable, &mut Buffer) -> Result<(), StateError>,
    ) -> Result<Self, StateError> {
        let (mut frozen, mut live) = (Vec::new(), Vec::new());
        for variable in variables.iter() {
            let mut buffer = Buffer::zeros(variable.data_type, &variable.dims)?;
            fill(variable, &mut buffer)?;
            if variable.output.is_some() { live.push(buffer) } else { frozen.push(buffer) }
        }
        Ok(Self::new(Arc::clone(variables), Arc::new(frozen), live, progress))
    }

    fn new(
        variables: Arc<[Variable]>,
        frozen: Arc<Vec<Buffer>>,
        live: Vec<Buffer>,
        progress: Progress,
    ) -> Self {
        Self { variables, frozen, live, progress, host: OnceLock::new() }
    }

    /// The same State in `memory`.
    pub(crate) fn moved(self: Arc<Self>, memory: &Memory) -> Result<Arc<Self>, StepError> {
        if self.device() == memory.device() {
            return Ok(self);
        }
        // A GPU may not reach another's memory.
        let from = if memory.device() == Device::Cpu { &self } else { self.host()? };
        from.copied(memory).map(Arc::new)
    }

    fn copied(&self, memory: &Memory) -> Result<Self, StepError> {
        let (mut frozen, mut live) = (Vec::new(), Vec::new());
        for (variable, value) in self.entries() {
            let mut buffer = Buffer::within(memory, variable.data_type, &variable.dims)?;
            buffer.copy_from(value)?;
            if variable.output.is_some() { live.push(buffer) } else { frozen.push(buffer) }
        }
        let (variables, progress) = (Arc::clone(&self.variables), self.progress.clone());
        Ok(Self::new(variables, Arc::new(frozen), live, progress))
    }

    /// The device whose memory it is in.
    pub fn device(&self) -> Device {
        self.entries().next().map_or(Device::Cpu, |(_, buffer)| buffer.device())
    }

    /// The same State in the host's memory, whatever device has it: a copy is made at the first
    /// call and kept.
    pub fn host(&self) -> Result<&Self, StepError> {
        if self.device() == Device::Cpu {
            return Ok(self);
        }
        if let Some(host) = self.host.get() {
            return Ok(host);
        }
        let copy = Box::new(self.copied(&Memory::Host)?);
        Ok(self.host.get_or_init(|| copy))
    }

    /// The State of a trial that has trained as far as `progress` says, which gave the variables
    /// that change the values `live`.
    pub(crate) fn after(&self, progress: Progress, live: Vec<Buffer>) -> Self {
        let (variables, frozen) = (Arc::clone(&self.variables), Arc::clone(&self.frozen));
        Self::new(variables, frozen, live, progress)
    }

    /// The number of updates that made it.
    pub fn steps(&self) -> u64 {
        self.progress.steps
    }

    /// How far its trial has trained.
    pub(crate) fn progress(&self) -> &Progress {
        &self.progress
    }

    /// The names of the weights and statistics, without the optimizer's state.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries().filter(|(v, _)| v.kind != VariableKind::Slot).map(|(v, _)| v.name.as_str())
    }

    /// The values of the 32-bit floating-point variable `name`, row-major: `None` if there is none
    /// of that name and type in the host's memory (see [`host`](Self::host)).
    pub fn values(&self, name: &str) -> Option<&[f32]> {
        let (_, buffer) = self.entries().find(|(variable, _)| variable.name == name)?;
        let is_readable = buffer.data_type() == DataType::Float32 && buffer.device() == Device::Cpu;
        is_readable.then(|| buffer.slice())
    }

    /// The variables that each step changes, in the order of the variables.
    pub(crate) fn live(&self) -> &[Buffer] {
        &self.live
    }

    /// The values of the variables that no step changes, in the order of the variables.
    pub(crate) fn frozen(&self) -> &[Buffer] {
        &self.frozen
    }

    /// The values of the variables that each step changes, of a State that is needed no more.
    pub(crate) fn into_live(self) -> Vec<Buffer> {
        self.live
    }

    /// The values of the variables that `wanted` names, in the order of the variables, where
    /// `live` are those of the variables that each step changes.
    pub(crate) fn read_with<'a>(
        &'a self,
        live: &'a [Buffer],
        wanted: impl Fn(&Variable) -> bool + 'a,
    ) -> impl Iterator<Item = &'a Buffer> {
        let (mut frozen, mut live) = (self.frozen.iter(), live.iter());
        self.variables.iter().filter_map(move |variable| {
            let buffers = if variable.output.is_some() { &mut live } else { &mut frozen };
            let buffer = buffers.next().expect("there is one buffer per variable");
            wanted(variable).then_some(buffer)
        })
    }

    /// Every variable with its value, in the order of the variables.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&Variable, &Buffer)> {
        self.entries_with(&self.live)
    }

    /// Every variable with its value, where `live` are the values of those that each step changes.
    pub(crate) fn entries_with<'a>(
        &'a self,
        live: &'a [Buffer],
    ) -> impl Iterator<Item = (&'a Variable, &'a Buffer)> {
        self.variables.iter().zip(self.read_with(live, |_| true))
    }

    /// The variables that each step changes.
    pub(crate) fn live_variables(&self) -> impl Iterator<Item = &Variable> {
        self.variables.iter().filter(|variable| variable.output.is_some())
    }

    /// The variables that `wanted` names as safetensors.
    pub(crate) fn safetensors(
        &self,
        metadata: Option<HashMap<String, String>>,
        wanted: impl Fn(&Variable) -> bool,
    ) -> Parts<'_> {
        let host = match self.host() {
            Ok(host) => host,
            Err(error) => return Box::new(iter::once(Err(io::Error::other(error)))),
        };
        let mut entries: Vec<_> = host.entries().filter(|(v, _)| wanted(v)).collect();
        // Wider elements first keeps every tensor aligned in the file.
        entries.sort_by_key(|(variable, _)| Reverse(variable.data_type.bytes()));
        let header = header(entries.iter().map(|(variable, _)| *variable), metadata);
        let values = entries.into_iter().map(|(_, buffer)| Ok(Cow::Borrowed(buffer.bytes())));
        Box::new(iter::once(header.map(Cow::Owned)).chain(values))
    }
}

impl StateData for TrainingState {
    fn bytes(&self) -> usize {
        self.entries().map(|(_, buffer)| buffer.len()).sum()
    }

    fn parts(&self) -> Parts<'_> {
        match serde_json::to_string(&self.progress) {
            Ok(progress) => {
                let metadata = HashMap::from([(PROGRESS.to_owned(), progress)]);
                self.safetensors(Some(metadata), |_| true)
            }
            Err(error) => Box::new(iter::once(Err(error.into()))),
        }
    }
}

impl fmt::Debug for TrainingState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrainingState")
            .field("variables", &self.variables.len())
            .field("bytes", &self.bytes())
            .field("progress", &self.progress)
            .finish_non_exhaustive()
    }
}

/// The size of the portable form of a State of `variables`, in bytes: no less than that of any State of
/// a trial, and but for the digits of its progress no more.
pub(crate) fn portable_bytes(variables: &[Variable]) -> u64 {
    let progress = "0".repeat(Progress::LONGEST);
    let metadata = HashMap::from([(PROGRESS.to_owned(), progress)]);
    let header = header(variables.iter(), Some(metadata)).map_or(0, |header| header.len());
    let values: usize = variables.iter().map(bytes).sum();
    (header + values) as u64
}

/// What a safetensors file with the values of `variables` in this order begins with: the length of
/// its header, and the header.
fn header<'v>(
    variables: impl Iterator<Item = &'v Variable>,
    metadata: Option<HashMap<String, String>>,
) -> io::Result<Vec<u8>> {
    let mut offset = 0;
    let infos = variables.map(|variable| {
        let start = offset;
        offset += bytes(variable);
        let info = TensorInfo {
            dtype: dtype(variable.data_type).expect("`Buffer` holds these types only"),
            shape: variable.dims.clone(),
            data_offsets: (start, offset),
        };
        (variable.name.clone(), info)
    });
    let header = Metadata::new(metadata, infos.collect()).map_err(io::Error::other)?;
    let mut start = vec![0; LENGTH];
    serde_json::to_writer(&mut start, &header)?;
    // The format wants the data to start at a multiple of 8 bytes.
    start.resize(start.len().next_multiple_of(8), b' ');
    let length = (start.len() - LENGTH) as u64;
    start[..LENGTH].copy_from_slice(&length.to_le_bytes());
    Ok(start)
}

/// The size of a variable's value.
fn bytes(variable: &Variable) -> usize {
    variable.elements() * variable.data_type.bytes()
}

fn fill_with(buffer: &mut Buffer, value: f32) {
    match buffer.data_type() {
        DataType::Float64 => buffer.slice_mut::<f64>().fill(value.into()),
        DataType::Int64 => buffer.slice_mut::<i64>().fill(value as i64),
        DataType::Int32 => buffer.slice_mut::<i32>().fill(value as i32),
        _ => buffer.slice_mut::<f32>().fill(value),
    }
}

fn dtype(data_type: DataType) -> Option<Dtype> {
    match data_type {
        DataType::Float32 => Some(Dtype::F32),
        DataType::Float64 => Some(Dtype::F64),
        DataType::Int64 => Some(Dtype::I64),
        DataType::Int32 => Some(Dtype::I32),
        _ => None,
    }
}

fn described(data_type: DataType, dims: &[usize]) -> String {
    format!("{:?} {dims:?}", dtype(data_type))
}
