//! [`Pretrained`]: weights of another training, by name.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use cerebro_core::ModelError;
use safetensors::{Dtype, SafeTensors};
use thiserror::Error;

use crate::onnx::{DataType, Model, OnnxError, TensorData};
use crate::training::{Variable, VariableKind, matches};

/// Weights that another training made, from which trials start instead of from drawn ones.
///
/// Weights and running statistics are found by name. A weight of the network that is not among them
/// starts as it would without, such as the new last layer of a network that is to tell other
/// classes apart. One of another shape is an error, unless it is [`except`](Self::except)ed: a
/// network that silently starts from random weights is the commonest mistake of transfer learning.
/// [`Trainer::pretrained_report`](crate::Trainer::pretrained_report) says what was found.
///
/// ```
/// use cerebro_core::Config;
/// use cerebro_models::loss::Loss;
/// use cerebro_models::onnx::TensorData;
/// use cerebro_models::{Pretrained, Trainer, nn};
///
/// // What `Pretrained::from_file` reads of a safetensors or ONNX file.
/// let weights = Pretrained::new([
///     ("encoder.hidden1.weight".to_owned(), TensorData::from_f32(&[8, 4], &[0.1; 32])),
///     ("encoder.hidden1.bias".to_owned(), TensorData::from_f32(&[8], &[0.0; 8])),
///     ("encoder.last.weight".to_owned(), TensorData::from_f32(&[1000, 8], &[0.1; 8000])),
/// ]);
/// let trainer = Trainer::new(nn::mlp(4, &[8], 3), Loss::cross_entropy())
///     .pretrained(weights.strip_prefix("encoder.").except("last.*"))
///     .freeze("hidden1.*")
///     .default("optimizer", "sgd");
/// let config = Config::new().with("learning_rate", 0.1).with("batch_size", 32);
/// let report = trainer.pretrained_report(&config)?;
/// assert_eq!(report.loaded, ["hidden1.weight", "hidden1.bias"]);
/// assert_eq!(report.missing, ["last.weight", "last.bias"]);
/// # Ok::<(), cerebro_core::ModelError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pretrained {
    pub(crate) tensors: BTreeMap<String, TensorData>,
    pub(crate) excepted: Vec<String>,
}

/// What became of pretrained weights in a network; names are the network's, but for `unused`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PretrainedReport {
    /// Weights and running statistics that start from pretrained ones.
    pub loaded: Vec<String>,
    /// Those that no pretrained weight has the name of, or that are excepted: they start as they
    /// would without.
    pub missing: Vec<String>,
    /// Those whose pretrained namesake has another shape.
    pub unlike: Vec<Unlike>,
    /// Pretrained weights that the network has no place for.
    pub unused: Vec<String>,
}

/// A weight whose pretrained namesake does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unlike {
    /// The weight.
    pub name: String,
    /// The shape of the pretrained one.
    pub found: Vec<usize>,
    /// The shape that the network needs.
    pub expected: Vec<usize>,
}

/// Why pretrained weights cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PretrainedError {
    /// The file cannot be read.
    #[error("cannot read the weights in {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A safetensors file that is damaged.
    #[error("these {bytes} bytes are no safetensors file, or a damaged one: {source}")]
    NotSafetensors {
        /// The number of bytes.
        bytes: usize,
        /// What is wrong with them.
        source: safetensors::SafeTensorError,
    },
    /// An ONNX file that cannot be read.
    #[error(transparent)]
    Onnx(#[from] OnnxError),
    /// A file of another kind.
    #[error("{path} is neither `.safetensors` nor `.onnx`: convert the weights to one of these")]
    Kind {
        /// The file.
        path: PathBuf,
    },
    /// Weights that the network has under the same names, with other shapes.
    #[error(
        "{} do not fit the network: {}; if they are not to be loaded, leave them out with `except`",
        if unlike.len() == 1 { "a weight".to_owned() } else { format!("{} weights", unlike.len()) },
        list(unlike)
    )]
    Unlike {
        /// The weights.
        unlike: Vec<Unlike>,
    },
    /// No name is known to both sides.
    #[error(
        "none of the {} pretrained weights has the name of one of the network's: the first is \
         `{}`, and the network's first is `{}`; see `strip_prefix` and `rename`",
        found.len(),
        found.first().map_or("", String::as_str),
        expected.first().map_or("", String::as_str)
    )]
    NothingLoaded {
        /// The pretrained names.
        found: Vec<String>,
        /// The network's names.
        expected: Vec<String>,
    },
    /// A weight that is no number.
    #[error("the pretrained weight `{name}` holds {value}: it cannot be trained from there")]
    NotFinite {
        /// The weight.
        name: String,
        /// NaN or an infinity.
        value: f64,
    },
}

impl From<PretrainedError> for ModelError {
    fn from(error: PretrainedError) -> Self {
        ModelError::other("cannot start from the pretrained weights", error)
    }
}

impl Pretrained {
    /// The given tensors.
    pub fn new(tensors: impl IntoIterator<Item = (String, TensorData)>) -> Self {
        Self { tensors: tensors.into_iter().collect(), excepted: Vec::new() }
    }

    /// The weights in a `.safetensors` file, or the initializers of an `.onnx` file.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, PretrainedError> {
        let path = path.as_ref();
        let extension = path.extension().and_then(|extension| extension.to_str());
        match extension.map(str::to_ascii_lowercase).as_deref() {
            Some("safetensors") => {
                let bytes = std::fs::read(path);
                let bytes = bytes
                    .map_err(|source| PretrainedError::File { path: path.to_owned(), source })?;
                Self::from_safetensors(bytes)
            }
            Some("onnx") => Ok(Self::from_model(&Model::from_file(path)?)),
            _ => Err(PretrainedError::Kind { path: path.to_owned() }),
        }
    }

    /// The weights in the bytes of a safetensors file. Tensors of types that weights cannot have
    /// are left out.
    pub fn from_safetensors(bytes: impl Into<Bytes>) -> Result<Self, PretrainedError> {
        let bytes: Bytes = bytes.into();
        let damaged = |source| PretrainedError::NotSafetensors { bytes: bytes.len(), source };
        let parsed = SafeTensors::deserialize(&bytes).map_err(damaged)?;
        let tensors = parsed.iter().filter_map(|(name, tensor)| {
            let data_type = data_type(tensor.dtype())?;
            let elements = bytes.slice_ref(tensor.data());
            Some((name.to_owned(), TensorData::new(data_type, tensor.shape().to_vec(), elements)?))
        });
        Ok(Self::new(tensors))
    }

    /// The initializers of a model.
    pub fn from_model(model: &Model) -> Self {
        let initializers = model.graph.initializers.iter();
        Self::new(initializers.map(|(name, tensor)| (name.clone(), tensor.clone())))
    }

    /// Leaves the network's weights whose names match `pattern` (`*` stands for any characters) as
    /// they would be without.
    pub fn except(mut self, pattern: impl Into<String>) -> Self {
        self.excepted.push(pattern.into());
        self
    }

    /// Gives the weights whose names begin with `prefix` the names without it.
    pub fn strip_prefix(self, prefix: &str) -> Self {
        self.rename(|name| name.strip_prefix(prefix).map(str::to_owned))
    }

    /// Gives weights other names: those that the network has. `None` keeps a name.
    pub fn rename(mut self, name_of: impl Fn(&str) -> Option<String>) -> Self {
        let tensors = std::mem::take(&mut self.tensors).into_iter();
        self.tensors =
            tensors.map(|(name, tensor)| (name_of(&name).unwrap_or(name), tensor)).collect();
        self
    }

    /// The names of the weights.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// What becomes of the weights in a network of `variables`.
    pub(crate) fn report(&self, variables: &[Variable]) -> PretrainedReport {
        let mut report = PretrainedReport::default();
        let weights = variables.iter().filter(|variable| variable.kind != VariableKind::Slot);
        for variable in weights.clone() {
            let name = variable.name.clone();
            let is_excepted = self.excepted.iter().any(|pattern| matches(pattern, &name));
            match self.tensors.get(&name).filter(|_| !is_excepted) {
                None => report.missing.push(name),
                Some(tensor) if tensor.dims() == variable.dims && tensor.data_type().is_float() => {
                    report.loaded.push(name);
                }
                Some(tensor) => report.unlike.push(Unlike {
                    name,
                    found: tensor.dims().to_vec(),
                    expected: variable.dims.clone(),
                }),
            }
        }
        let is_known = |name: &String| weights.clone().any(|variable| variable.name == *name);
        report.unused = self.tensors.keys().filter(|name| !is_known(name)).cloned().collect();
        report
    }

    /// The initial values of those of `variables` that start from pretrained weights, in the types
    /// of the variables.
    pub(crate) fn values(
        &self,
        variables: &[Variable],
    ) -> Result<BTreeMap<String, TensorData>, PretrainedError> {
        let report = self.report(variables);
        if !report.unlike.is_empty() {
            return Err(PretrainedError::Unlike { unlike: report.unlike });
        }
        if report.loaded.is_empty() {
            let found = self.tensors.keys().cloned().collect();
            return Err(PretrainedError::NothingLoaded { found, expected: report.missing });
        }
        tracing::info!(%report, "starting from pretrained weights");
        let loaded = variables.iter().filter(|variable| report.loaded.contains(&variable.name));
        let value = |variable: &Variable| {
            let (name, tensor) = (&variable.name, &self.tensors[&variable.name]);
            let values = tensor.to_f64s();
            if let Some(&value) = values.iter().find(|value| !value.is_finite()) {
                return Err(PretrainedError::NotFinite { name: name.clone(), value });
            }
            if tensor.data_type() == variable.data_type {
                return Ok((name.clone(), tensor.clone()));
            }
            let converted = TensorData::from_f64(variable.data_type, &variable.dims, &values);
            Ok((name.clone(), converted))
        };
        loaded.map(value).collect()
    }
}

impl fmt::Display for PretrainedReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} weights loaded", self.loaded.len())?;
        for (what, names) in [("start as without", &self.missing), ("not used", &self.unused)] {
            if !names.is_empty() {
                write!(f, "; {what}: {}", names.join(", "))?;
            }
        }
        if !self.unlike.is_empty() {
            write!(f, "; of another shape: {}", list(&self.unlike))?;
        }
        Ok(())
    }
}

fn list(unlike: &[Unlike]) -> String {
    let each = |Unlike { name, found, expected }: &Unlike| {
        format!("`{name}` has the shape {found:?} and should have {expected:?}")
    };
    unlike.iter().map(each).collect::<Vec<_>>().join(", ")
}

fn data_type(dtype: Dtype) -> Option<DataType> {
    Some(match dtype {
        Dtype::F32 => DataType::Float32,
        Dtype::F64 => DataType::Float64,
        Dtype::F16 => DataType::Float16,
        Dtype::BF16 => DataType::Bfloat16,
        Dtype::I64 => DataType::Int64,
        Dtype::I32 => DataType::Int32,
        Dtype::I16 => DataType::Int16,
        Dtype::I8 => DataType::Int8,
        Dtype::U8 => DataType::Uint8,
        Dtype::BOOL => DataType::Bool,
        _ => return None,
    })
}
