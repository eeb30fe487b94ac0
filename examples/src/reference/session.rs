//! Runs a graph: tensors by name in, tensors by name out.

use std::collections::BTreeMap;

use cerebro_models::onnx::Model;
use cerebro_models::runtime;
use ort::session::{Session, SessionInputValue};
use ort::value::Tensor;

use super::Error;

/// A tensor that is fed or read.
#[derive(Clone, Debug)]
pub(super) enum Data {
    F32(Vec<usize>, Vec<f32>),
    I64(Vec<usize>, Vec<i64>),
}

impl Data {
    /// The same elements in the shape `dims`.
    pub(super) fn reshaped(&self, dims: &[usize]) -> Self {
        match self {
            Data::F32(_, values) => Data::F32(dims.to_vec(), values.clone()),
            Data::I64(_, values) => Data::I64(dims.to_vec(), values.clone()),
        }
    }

    fn value(&self) -> Result<SessionInputValue<'static>, Error> {
        Ok(match self {
            Data::F32(dims, values) => {
                Tensor::from_array((dims.clone(), values.clone()))?.into_dyn().into()
            }
            Data::I64(dims, values) => {
                Tensor::from_array((dims.clone(), values.clone()))?.into_dyn().into()
            }
        })
    }
}

/// A graph that is ready to run.
#[derive(Debug)]
pub(super) struct Graph {
    session: Session,
    inputs: Vec<String>,
    outputs: Vec<String>,
}

impl Graph {
    pub(super) fn new(model: &Model) -> Result<Self, Error> {
        let environment = runtime::load()?.environment();
        let session = Session::builder(environment)?
            .with_intra_threads(1)
            .map_err(|error| error.to_string())?
            .commit_from_memory(&model.to_bytes()?)?;
        let names = |outlets: &[ort::value::Outlet]| {
            outlets.iter().map(|outlet| outlet.name().to_owned()).collect()
        };
        let (inputs, outputs) = (names(session.inputs()), names(session.outputs()));
        Ok(Self { session, inputs, outputs })
    }

    /// Runs the graph on those of `fed` that it reads.
    pub(super) fn run(
        &mut self,
        fed: &[&BTreeMap<String, Data>],
    ) -> Result<BTreeMap<String, Vec<f32>>, Error> {
        let mut inputs = Vec::with_capacity(self.inputs.len());
        for name in &self.inputs {
            let data = fed.iter().find_map(|fed| fed.get(name));
            let data = data.ok_or_else(|| format!("nothing is fed to `{name}`"))?;
            inputs.push((name.clone(), data.value()?));
        }
        let outputs = self.session.run(inputs)?;
        self.outputs
            .iter()
            .map(|name| {
                let (_, values) = outputs[name.as_str()].try_extract_tensor::<f32>()?;
                Ok((name.clone(), values.to_vec()))
            })
            .collect()
    }
}
