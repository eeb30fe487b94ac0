//! A [`Trainer`] as bytes, from which another process makes its equal.
//!
//! ```text
//! 15 bytes   "cerebro-trainer"
//! 1 byte     the version of this layout
//! 8 bytes    the length of the description, little-endian
//!            the description, in JSON
//!            for a network that is given as a graph:
//!            its ONNX model, without the tensors that follow
//!            the elements of large tensors, one after the other
//!            the elements of pretrained weights, one after the other
//! ```
//!
//! Large tensors are beside the model and not in it: so they are never copied into a protobuf
//! message, which could hold no more than 2 GiB of them. Tensors of zeros, which is what weights
//! are whose initial values are drawn, are not written at all.

use bytes::Bytes;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use cerebro_core::Config;

use super::Trainer;
use super::architecture::{Architecture, Source};
use crate::bindings::Bindings;
use crate::init::Initializers;
use crate::nn::{Network, NetworkSpec};
use crate::onnx::{DataType, Model, OnnxError, TensorData};
use crate::pretrained::Pretrained;
use crate::training::TrainingSpec;

const MAGIC: &[u8; 15] = b"cerebro-trainer";
const VERSION: u8 = 1;

/// Tensors of more bytes than this are beside the model.
const LARGE: usize = 1 << 10;

/// What a trainer is made of.
#[derive(Debug, Serialize, Deserialize)]
struct Description {
    network: DescribedNetwork,
    spec: TrainingSpec,
    defaults: Config,
    bindings: Bindings,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pretrained: Option<DescribedWeights>,
}

/// Pretrained weights, whose elements come last.
#[derive(Debug, Serialize, Deserialize)]
struct DescribedWeights {
    /// Names, ONNX's numbers of element types, shapes.
    tensors: Vec<(String, i64, Vec<usize>)>,
    excepted: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum DescribedNetwork {
    /// A builder by name.
    Declared(NetworkSpec),
    /// A graph, which follows the description.
    Onnx {
        /// The length of the model.
        bytes: usize,
        /// The tensors that are not in it.
        tensors: Vec<OutsideTensor>,
        initializers: Initializers,
    },
}

/// An initializer that is not in the model.
#[derive(Debug, Serialize, Deserialize)]
struct OutsideTensor {
    /// Its place among the graph's initializers.
    position: usize,
    name: String,
    /// ONNX's number of its element type.
    data_type: i64,
    dims: Vec<usize>,
    elements: Elements,
}

/// Where the elements of a tensor are that is not in the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Elements {
    /// All are 0.
    Zeros,
    /// They follow those of the tensor before.
    Follow,
}

/// Why bytes are no trainer.
#[derive(Debug, Error)]
pub(super) enum BlueprintError {
    #[error("these {bytes} bytes are no trainer's blueprint")]
    NoBlueprint { bytes: usize },
    #[error(
        "it is written in version {found} of the format, and this program reads version {VERSION}: \
         run the same release of cerebro-models on both sides"
    )]
    Version { found: u8 },
    #[error("it was cut short: {what} should have {expected} bytes, and {found} are left")]
    Short { what: &'static str, expected: usize, found: usize },
    #[error("it has {bytes} bytes more than it should")]
    Long { bytes: usize },
    #[error("its description cannot be read: {0}")]
    Description(#[from] serde_json::Error),
    #[error("its network cannot be read: {0}")]
    Network(#[from] OnnxError),
    #[error("its tensor `{name}` is described wrongly: {reason}")]
    Tensor { name: String, reason: &'static str },
}

/// The blueprint of `trainer`; none if its architecture is a function.
pub(super) fn write(trainer: &Trainer) -> Option<Vec<u8>> {
    // Whoever adds a field has to say here whether it is part of the blueprint.
    let Trainer { architecture, spec, defaults, bindings, pretrained, programs: _, slots: _ } =
        trainer;
    let (network, model, mut tensors) = match architecture.source() {
        Source::Function(_) => return None,
        Source::Declared(spec) => {
            (DescribedNetwork::Declared(spec.clone()), Vec::new(), Vec::new())
        }
        Source::Fixed(network) => {
            let (model, outside, elements) = take_out(&network.model)?;
            let initializers = network.initializers.clone();
            let bytes = model.len();
            (DescribedNetwork::Onnx { bytes, tensors: outside, initializers }, model, elements)
        }
    };
    let described = pretrained.as_ref().map(|Pretrained { tensors, excepted }| {
        let describe = |(name, tensor): (&String, &TensorData)| {
            (name.clone(), tensor.data_type().code(), tensor.dims().to_vec())
        };
        let tensors = tensors.iter().map(describe).collect();
        DescribedWeights { tensors, excepted: excepted.clone() }
    });
    tensors.extend(
        pretrained.iter().flat_map(|weights| weights.tensors.values().map(|t| t.bytes().clone())),
    );
    let description = Description {
        network,
        spec: spec.clone(),
        defaults: defaults.clone(),
        bindings: bindings.as_ref().clone(),
        pretrained: described,
    };
    let description = serde_json::to_vec(&description).expect("names and numbers are valid JSON");

    let beside: usize = tensors.iter().map(Bytes::len).sum();
    let mut bytes = Vec::with_capacity(24 + description.len() + model.len() + beside);
    bytes.extend_from_slice(MAGIC);
    bytes.push(VERSION);
    bytes.extend_from_slice(&(description.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&description);
    bytes.extend_from_slice(&model);
    for tensor in &tensors {
        bytes.extend_from_slice(tensor);
    }
    Some(bytes)
}

/// The model without its large tensors, and these; nothing if the rest is too large for a file.
fn take_out(model: &Model) -> Option<(Vec<u8>, Vec<OutsideTensor>, Vec<Bytes>)> {
    let mut rest = model.clone();
    let (mut outside, mut elements) = (Vec::new(), Vec::new());
    let mut inside = IndexMap::new();
    for (position, (name, tensor)) in
        std::mem::take(&mut rest.graph.initializers).into_iter().enumerate()
    {
        if tensor.bytes().len() <= LARGE {
            inside.insert(name, tensor);
            continue;
        }
        let zeros = tensor.bytes().iter().all(|&byte| byte == 0);
        if !zeros {
            elements.push(tensor.bytes().clone());
        }
        outside.push(OutsideTensor {
            position,
            name,
            data_type: tensor.data_type().code(),
            dims: tensor.dims().to_vec(),
            elements: if zeros { Elements::Zeros } else { Elements::Follow },
        });
    }
    rest.graph.initializers = inside;
    match rest.to_bytes() {
        Ok(bytes) => Some((bytes, outside, elements)),
        Err(error) => {
            tracing::warn!(%error, "this network cannot go to workers in other processes");
            None
        }
    }
}

/// The trainer whose blueprint is `bytes`.
pub(super) fn read(bytes: &[u8]) -> Result<Trainer, BlueprintError> {
    let no_blueprint = BlueprintError::NoBlueprint { bytes: bytes.len() };
    let rest = bytes.strip_prefix(MAGIC).ok_or(no_blueprint)?;
    let mut rest = Bytes::copy_from_slice(rest);
    let version = cut(&mut rest, 1, "the version")?[0];
    if version != VERSION {
        return Err(BlueprintError::Version { found: version });
    }
    let length = cut(&mut rest, 8, "the length of the description")?;
    let length = u64::from_le_bytes(length.as_ref().try_into().expect("8 bytes were cut"));
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let description = cut(&mut rest, length, "the description")?;
    let Description { network, spec, defaults, bindings, pretrained } =
        serde_json::from_slice(&description)?;

    let architecture = match network {
        DescribedNetwork::Declared(spec) => Architecture::from(spec),
        DescribedNetwork::Onnx { bytes, tensors, initializers } => {
            let mut model = Model::from_bytes(cut(&mut rest, bytes, "the network")?)?;
            put_back(&mut model, tensors, &mut rest)?;
            Architecture::from(Network { model, initializers })
        }
    };
    let pretrained = pretrained.map(|weights| read_weights(weights, &mut rest)).transpose()?;
    if !rest.is_empty() {
        return Err(BlueprintError::Long { bytes: rest.len() });
    }
    let mut trainer = Trainer::new(architecture, spec.loss.clone());
    trainer.spec = spec;
    trainer.defaults = defaults;
    trainer.bindings = bindings.into();
    trainer.pretrained = pretrained;
    Ok(trainer)
}

fn read_weights(
    DescribedWeights { tensors, excepted }: DescribedWeights,
    rest: &mut Bytes,
) -> Result<Pretrained, BlueprintError> {
    let mut weights = Pretrained { excepted, ..Pretrained::default() };
    for (name, data_type, dims) in tensors {
        let wrong = |reason| BlueprintError::Tensor { name: name.clone(), reason };
        let data_type = DataType::from_code(data_type).ok_or_else(|| wrong("it has no type"))?;
        let product = dims.iter().try_fold(data_type.bytes(), |size, &dim| size.checked_mul(dim));
        let length = product.ok_or_else(|| wrong("it has too many elements"))?;
        let bytes = cut(rest, length, "the elements of a pretrained weight")?;
        let data = TensorData::new(data_type, dims, bytes).ok_or_else(|| wrong("its shape"))?;
        weights.tensors.insert(name, data);
    }
    Ok(weights)
}

/// Takes `length` bytes off the front of `rest`, where `what` is.
fn cut(rest: &mut Bytes, length: usize, what: &'static str) -> Result<Bytes, BlueprintError> {
    if rest.len() < length {
        return Err(BlueprintError::Short { what, expected: length, found: rest.len() });
    }
    Ok(rest.split_to(length))
}

/// Gives `model` the tensors back that are not in its file, in their old order.
fn put_back(
    model: &mut Model,
    tensors: Vec<OutsideTensor>,
    rest: &mut Bytes,
) -> Result<(), BlueprintError> {
    let mut inside = std::mem::take(&mut model.graph.initializers).into_iter();
    let all = &mut model.graph.initializers;
    for tensor in tensors {
        let OutsideTensor { position, name, data_type, dims, elements } = tensor;
        let wrong = |reason| BlueprintError::Tensor { name: name.clone(), reason };
        let Some(before) = position.checked_sub(all.len()) else {
            return Err(wrong("it comes before the one before it"));
        };
        all.extend(inside.by_ref().take(before));
        let data_type = DataType::from_code(data_type).ok_or_else(|| wrong("it has no type"))?;
        let product = dims.iter().try_fold(data_type.bytes(), |size, &dim| size.checked_mul(dim));
        let length = product.ok_or_else(|| wrong("it has too many elements"))?;
        let bytes = match elements {
            Elements::Follow => cut(rest, length, "the elements of a tensor")?,
            Elements::Zeros => zeros(length).ok_or_else(|| wrong("it does not fit in memory"))?,
        };
        let data = TensorData::new(data_type, dims, bytes).ok_or_else(|| wrong("its shape"))?;
        all.insert(name, data);
    }
    all.extend(inside);
    Ok(())
}

fn zeros(length: usize) -> Option<Bytes> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(length).ok()?;
    bytes.resize(length, 0);
    Some(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::Loss;
    use crate::metric::Metric;
    use crate::nn;
    use crate::training::ParameterGroup;

    fn trainer(architecture: impl Into<Architecture>) -> Trainer {
        Trainer::new(architecture, Loss::cross_entropy())
            .metric(Metric::Accuracy)
            .metric(Metric::TopK { k: 2 })
            .input("x")
            .bind("input", "x")
            .target("y")
            .output("output")
            .freeze("hidden1.*")
            .group(ParameterGroup {
                pattern: "*.bias".to_owned(),
                learning_rate: 0.1,
                weight_decay: 0.0,
            })
            .default("optimizer", "sgd")
            .default("momentum", 0.1 + 0.2)
    }

    /// A network with tensors of all kinds: small, large and drawn, large and given.
    fn pretrained() -> Network {
        let mut network = nn::mlp(20, &[30, 40], 3);
        let weight = &mut network.model.graph.initializers["hidden2.weight"];
        let values: Vec<f32> = (0..weight.elements()).map(|index| index as f32).collect();
        *weight = TensorData::from_f32(&[40, 30], &values);
        network.initializers.remove("hidden2.weight");
        network
    }

    #[test]
    fn a_trainer_is_the_same_after_the_way_through_bytes() {
        let spec =
            NetworkSpec::Mlp { inputs: 20.into(), hidden: "hidden".into(), outputs: 3.into() };
        for written in [trainer(spec), trainer(pretrained())] {
            let bytes = write(&written).unwrap();
            let back = read(&bytes).unwrap();
            assert_eq!(back.spec, written.spec);
            assert_eq!(back.defaults, written.defaults);
            assert_eq!(back.bindings, written.bindings);
            let config = Config::new().with("hidden", [30]);
            let network = |trainer: &Trainer| trainer.architecture.network(&config).unwrap();
            assert_eq!(network(&back), network(&written));
            let order = |trainer: &Trainer| -> Vec<String> {
                network(trainer).model.graph.initializers.keys().cloned().collect()
            };
            assert_eq!(order(&back), order(&written));
            assert_eq!(write(&back).unwrap(), bytes);
        }
    }

    #[test]
    fn weights_that_are_drawn_take_no_bytes() {
        let bytes = write(&trainer(nn::mlp(1000, &[1000], 10))).unwrap().len();
        assert!(bytes < 10_000, "{bytes}");
        let bytes = write(&trainer(pretrained())).unwrap().len();
        assert!((4800..12_000).contains(&bytes), "{bytes}");
    }

    #[test]
    fn a_function_of_the_program_has_no_blueprint() {
        let network =
            Architecture::new(["n"], |config: &Config| Ok(nn::mlp(4, &config.sizes("n")?, 2)));
        assert!(write(&trainer(network)).is_none());
    }

    #[test]
    fn bytes_that_were_damaged_are_refused_and_never_panic() {
        let whole = write(&trainer(pretrained())).unwrap();
        for end in (0..whole.len()).step_by(11) {
            assert!(read(&whole[..end]).is_err(), "cut at {end}");
        }
        let mut longer = whole.clone();
        longer.push(0);
        let text = read(&longer).unwrap_err().to_string();
        assert!(text.contains("1 bytes more"), "{text}");
        let mut newer = whole.clone();
        newer[15] = 9;
        let text = read(&newer).unwrap_err().to_string();
        assert!(text.contains("version 9") && text.contains("version 1"), "{text}");
        for at in (0..whole.len().min(6000)).step_by(5) {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x15;
            let _ = read(&flipped);
        }
    }
}
