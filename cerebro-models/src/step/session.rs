//! [`GraphSession`]: a graph compiled by ONNX Runtime, run on buffers that the caller owns.

use std::ffi::CString;
use std::ptr;
use std::sync::{Mutex, PoisonError};

#[cfg(feature = "cuda")]
use cerebro_core::Device;
use cerebro_core::Slot;
use ort::AsPointer;
use ort::session::Session;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};

use super::{Buffer, StepError};
use crate::runtime::Runtime;
use crate::{kernels, onnx};

/// A graph compiled for a slot.
///
/// Runs read and write memory that the caller owns, so that nothing is copied or allocated around
/// a step: one call of ONNX Runtime's `Run` with every output preallocated. It costs the same as
/// a run with I/O binding and needs no binding per set of buffers (20 us for a small network).
#[derive(Debug)]
pub(crate) struct GraphSession {
    graph: &'static str,
    session: Session,
    inputs: Vec<CString>,
    outputs: Vec<CString>,
}

impl GraphSession {
    /// Compiles `model` to be run with the named inputs and outputs, in this order.
    pub(crate) fn compile(
        runtime: &Runtime,
        slot: &Slot,
        graph: &'static str,
        rows: usize,
        model: &onnx::Model,
        inputs: &[&str],
        outputs: &[&str],
    ) -> Result<Self, StepError> {
        let refused = |message: String| StepError::Compile { graph, rows, message };
        let bytes = model.to_bytes().map_err(|error| refused(error.to_string()))?;
        let session = compile_session(runtime, slot, |options| options.commit_from_memory(&bytes))
            .map_err(|error| refused(error.to_string()))?;
        let missing = |direction, name: &str| StepError::Interface {
            graph,
            direction,
            name: name.to_owned(),
        };
        let known = |of: &[ort::value::Outlet], name: &str| of.iter().any(|o| o.name() == name);
        if let Some(name) = inputs.iter().find(|name| !known(session.inputs(), name)) {
            return Err(missing("input", name));
        }
        if let Some(input) = session.inputs().iter().find(|o| !inputs.contains(&o.name())) {
            return Err(missing("feed for its input", input.name()));
        }
        if let Some(name) = outputs.iter().find(|name| !known(session.outputs(), name)) {
            return Err(missing("output", name));
        }
        Ok(Self { graph, session, inputs: c_strings(inputs), outputs: c_strings(outputs) })
    }

    /// Runs the graph on `inputs`, in the order of `compile`, and writes all of `outputs`.
    pub(crate) fn run(
        &mut self,
        inputs: &[&Buffer],
        outputs: &mut [&mut Buffer],
    ) -> Result<(), StepError> {
        self.run_in_place(inputs, outputs, &mut [])
    }

    /// The same for a graph whose last inputs and outputs are the old and the new values of `renewed`,
    /// which the graph may write where it reads them.
    pub(crate) fn run_in_place(
        &mut self,
        inputs: &[&Buffer],
        outputs: &mut [&mut Buffer],
        renewed: &mut [&mut Buffer],
    ) -> Result<(), StepError> {
        let names = |names: &[CString]| names.iter().map(|name| name.as_ptr()).collect::<Vec<_>>();
        let (input_names, output_names) = (names(&self.inputs), names(&self.outputs));
        let renewed: Vec<_> = renewed.iter_mut().map(|buffer| buffer.value_mut()).collect();
        let inputs = inputs.iter().map(|buffer| buffer.value());
        let inputs: Vec<_> = inputs.chain(renewed.iter().map(|value| value.cast_const())).collect();
        let outputs = outputs.iter_mut().map(|buffer| buffer.value_mut());
        let mut outputs: Vec<_> = outputs.chain(renewed).collect();
        assert_eq!(inputs.len(), self.inputs.len(), "one buffer per input");
        assert_eq!(outputs.len(), self.outputs.len(), "one buffer per output");
        // SAFETY: the session pointer is live and `&mut self` keeps other runs out. Names and
        // values are arrays of the asserted lengths, of NUL-terminated strings that `self` owns
        // and of live values that the caller lends for the call. Outputs are lent exclusively and
        // no two `Buffer`s share memory, so nothing is read while it is written, but for what the
        // graph may write where it reads.
        let result = unsafe {
            let status = (ort::api().Run)(
                self.session.ptr().cast_mut(),
                ptr::null(),
                input_names.as_ptr(),
                inputs.as_ptr(),
                inputs.len(),
                output_names.as_ptr(),
                outputs.len(),
                outputs.as_mut_ptr(),
            );
            ort::Error::result_from_status(status)
        };
        result.map_err(|error| StepError::Run { graph: self.graph, message: error.to_string() })
    }
}

/// Makes a session for a slot from what `load` does with its options.
///
/// ONNX Runtime registers the domain of custom operators for the whole process when a session is
/// made, and two threads that do so at once fail; so sessions are made one after the other.
pub(crate) fn compile_session(
    runtime: &Runtime,
    slot: &Slot,
    load: impl FnOnce(&mut SessionBuilder) -> ort::Result<Session>,
) -> ort::Result<Session> {
    static COMPILING: Mutex<()> = Mutex::new(());
    let _compiling = COMPILING.lock().unwrap_or_else(PoisonError::into_inner);
    let mut options = Session::builder(runtime.environment())?
        .with_optimization_level(GraphOptimizationLevel::All)?
        .with_intra_threads(slot.threads)?
        .with_inter_threads(1)?
        // Spinning helps only where no other worker wants the core.
        .with_intra_op_spinning(false)?
        .with_inter_op_spinning(false)?
        .with_deterministic_compute(true)?
        // A pattern would be one block beside the memory of the first run, which is kept: twice the
        // memory, and no less time.
        .with_memory_pattern(false)?
        .with_operators(kernels::domain()?)?;
    #[cfg(feature = "cuda")]
    if let Device::Cuda(number) = slot.device {
        options = options.with_execution_providers([super::memory::cuda::provider(number)])?;
    }
    load(&mut options)
}

fn c_strings(names: &[&str]) -> Vec<CString> {
    let c_string =
        |&name: &&str| CString::new(name).expect("ONNX Runtime knows the name, so it has no NUL");
    names.iter().map(c_string).collect()
}
