//! [`Inference`]: any ONNX model, run over a partition.

use std::path::Path;

use cerebro_core::data::{Batches, Partition, Tensor};
use cerebro_core::{ModelError, Slot};
use ndarray::{ArrayD, Axis, concatenate};
use ort::session::{Session, SessionInputValue};
use ort::value::{Outlet, Tensor as OrtTensor, ValueType};

use crate::runtime;
use crate::step::compile_session;

/// The rows that are run at once.
const ROWS: usize = 256;

/// An ONNX model that is run as it is: to check an exported model, or to use one.
///
/// ```no_run
/// use cerebro_core::data::Partition;
/// use cerebro_models::Inference;
/// # fn check(partition: &dyn Partition) -> Result<(), cerebro_core::ModelError> {
/// let mut model = Inference::from_file("results/best.onnx")?;
/// let logits = model.predict(partition, &[("input", "features")])?;
/// assert_eq!(logits.rows(), partition.rows());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Inference {
    session: Session,
}

impl Inference {
    /// The model in the file at `path`, to be run on one thread.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, ModelError> {
        let path = path.as_ref();
        let cannot = |error: Box<dyn std::error::Error + Send + Sync>| {
            ModelError::other(format!("cannot load {}", path.display()), error)
        };
        let runtime = runtime::load().map_err(|error| cannot(error.into()))?;
        let session =
            compile_session(runtime, &Slot::default(), |options| options.commit_from_file(path))
                .map_err(|error| cannot(error.to_string().into()))?;
        Ok(Self { session })
    }

    /// The model's first output for every row of the partition, in row order, rows first.
    ///
    /// `inputs` pairs each of the model's inputs with a tensor of the partition.
    pub fn predict(
        &mut self,
        partition: &dyn Partition,
        inputs: &[(&str, &str)],
    ) -> Result<Tensor, ModelError> {
        let order = (0..partition.rows() as u32).collect();
        let mut outputs = Vec::new();
        for batch in Batches::new(partition, order, ROWS) {
            let batch = batch?;
            let values = self.session.inputs().iter().map(|input| {
                let of_input = |(name, _): &&(&str, &str)| *name == input.name();
                let (_, tensor) = inputs.iter().find(of_input).ok_or_else(|| {
                    ModelError::other("cannot run the model", missing(input, inputs))
                })?;
                Ok((input.name().to_owned(), input_value(input, batch.tensor(tensor)?)?))
            });
            let values: Vec<(String, SessionInputValue<'static>)> =
                values.collect::<Result<_, ModelError>>()?;
            outputs.push(self.run(values)?);
        }
        let views: Vec<_> = outputs.iter().map(|output| output.view()).collect();
        let all = concatenate(Axis(0), &views)
            .map_err(|error| ModelError::other("the model's batches do not fit together", error))?;
        Ok(Tensor::F32(all))
    }

    fn run(
        &mut self,
        values: Vec<(String, SessionInputValue<'static>)>,
    ) -> Result<ArrayD<f32>, ModelError> {
        let cannot = |error: ort::Error| ModelError::other("cannot run the model", error);
        let outputs = self.session.run(values).map_err(cannot)?;
        let (shape, values) = outputs[0].try_extract_tensor::<f32>().map_err(cannot)?;
        let shape: Vec<usize> = shape.iter().map(|&size| size as usize).collect();
        ArrayD::from_shape_vec(shape, values.to_vec())
            .map_err(|error| ModelError::other("cannot read the model's output", error))
    }
}

fn missing(input: &Outlet, inputs: &[(&str, &str)]) -> String {
    let named: Vec<_> = inputs.iter().map(|(name, _)| *name).collect();
    let name = input.name();
    format!("it has an input `{name}` that no tensor was named for; named were {named:?}")
}

/// `tensor` as ONNX Runtime takes it, in the shape that the model declares.
fn input_value(input: &Outlet, tensor: &Tensor) -> Result<SessionInputValue<'static>, ModelError> {
    let cannot =
        |error| ModelError::other(format!("cannot feed the input `{}`", input.name()), error);
    let shape = declared_shape(input, tensor);
    match tensor {
        Tensor::F32(array) => {
            let values: Vec<f32> = array.iter().copied().collect();
            Ok(OrtTensor::from_array((shape, values)).map_err(cannot)?.into())
        }
        Tensor::I64(array) => {
            let values: Vec<i64> = array.iter().copied().collect();
            Ok(OrtTensor::from_array((shape, values)).map_err(cannot)?.into())
        }
        _ => Err(ModelError::Unsupported("tensors of this type as input")),
    }
}

/// The shape of `tensor`, with the axes of a row as the model declares them if it declares all.
fn declared_shape(input: &Outlet, tensor: &Tensor) -> Vec<usize> {
    let own = tensor.shape().to_vec();
    let ValueType::Tensor { shape, .. } = input.dtype() else { return own };
    let row: Option<Vec<usize>> =
        shape.iter().skip(1).map(|&size| usize::try_from(size).ok()).collect();
    match row {
        Some(row) if row.iter().product::<usize>() == own[1..].iter().product::<usize>() => {
            std::iter::once(own[0]).chain(row).collect()
        }
        _ => own,
    }
}
