//! [`Case`]: a reference case as it is on disk.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use cerebro_models::loss::Loss;
use cerebro_models::onnx::Model;
use cerebro_models::optim::{Decay, Optimizer, Update};
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

use super::Error;
use super::session::Data;

/// A reference case: what was trained, how, and what came out.
#[derive(Debug, Deserialize)]
pub struct Case {
    /// The case's name.
    pub name: String,
    pub(super) inputs: Vec<String>,
    pub(super) output: String,
    loss: String,
    class_axis: Option<i64>,
    huber_delta: Option<f64>,
    pub(super) trainable: Vec<String>,
    tied: BTreeMap<String, String>,
    alt_models: Vec<AltModel>,
    pub(super) eval_loss_before: f64,
    pub(super) grad_l2_step0: BTreeMap<String, f64>,
    pub(super) runs: Vec<Run>,
    #[serde(skip)]
    pub(super) folder: PathBuf,
}

#[derive(Debug, Deserialize)]
struct AltModel {
    file: String,
    #[serde(default)]
    renamed: BTreeMap<String, String>,
}

/// One export of the network.
#[derive(Clone, Debug)]
pub(super) struct File {
    pub(super) name: String,
    /// The names of parameters in this file, where they differ.
    renamed: BTreeMap<String, String>,
}

/// One training run.
#[derive(Debug, Deserialize)]
pub(super) struct Run {
    pub(super) optimizer: String,
    pub(super) lr: f64,
    #[serde(default)]
    momentum: f64,
    #[serde(default)]
    dampening: f64,
    #[serde(default)]
    nesterov: bool,
    #[serde(default)]
    weight_decay: f64,
    betas: Option<(f64, f64)>,
    eps: Option<f64>,
    pub(super) losses: Vec<f64>,
    pub(super) eval_loss_after: f64,
    pub(super) final_param_l2: BTreeMap<String, f64>,
    #[serde(default)]
    pub(super) final_buffer_l2: BTreeMap<String, f64>,
    fp64_check: Option<Reproducibility>,
    pub(super) suggested_rtol: Tolerances,
}

#[derive(Debug, Deserialize)]
struct Reproducibility {
    #[serde(default)]
    params_not_reproducible: Vec<String>,
    #[serde(default)]
    buffers_not_reproducible: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Tolerances {
    pub(super) losses: f64,
    pub(super) eval_loss_after: f64,
}

impl Run {
    /// The optimizer as Cerebro has it.
    pub(super) fn optimizer(&self) -> Result<Optimizer, Error> {
        let mut optimizer = match self.optimizer.as_str() {
            "sgd" => Optimizer::sgd(self.lr),
            "adam" => Optimizer::adam(self.lr),
            "adamw" => Optimizer::adamw(self.lr),
            other => return Err(format!("optimizer `{other}` is unknown").into()),
        };
        match &mut optimizer.update {
            Update::Sgd { momentum, dampening, nesterov } => {
                (*momentum, *dampening, *nesterov) = (self.momentum, self.dampening, self.nesterov);
            }
            Update::Adam { betas, epsilon } => {
                *betas = self.betas.unwrap_or(*betas);
                *epsilon = self.eps.unwrap_or(*epsilon);
            }
            _ => {}
        }
        debug_assert_eq!(self.optimizer == "adamw", optimizer.decay == Decay::Decoupled);
        Ok(optimizer.weight_decay(self.weight_decay))
    }

    /// Whether PyTorch's own runs agree on the final norm of `name`.
    pub(super) fn is_reproducible(&self, name: &str) -> bool {
        self.fp64_check.as_ref().is_none_or(|check| {
            let excluded = check.params_not_reproducible.iter();
            !excluded.chain(&check.buffers_not_reproducible).any(|excluded| excluded == name)
        })
    }
}

impl Case {
    /// Reads the case in `folder`.
    pub fn read(folder: &Path) -> Result<Self, Error> {
        let path = folder.join("case.json");
        let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let case = serde_json::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(Self { folder: folder.to_owned(), ..case })
    }

    /// What `file`, which holds `model`, calls the parameter or statistic `name`. Of a parameter
    /// with several names in PyTorch, an exporter keeps any one.
    pub(super) fn name_in<'a>(&'a self, file: &'a File, model: &Model, name: &'a str) -> &'a str {
        let main = self.tied.get(name).map_or(name, String::as_str);
        let others =
            self.tied.iter().filter(|(_, of)| *of == main).map(|(other, _)| other.as_str());
        let renamed =
            |name: &'a str| -> &'a str { file.renamed.get(name).map_or(name, String::as_str) };
        let mut known = [name, main].into_iter().chain(others).map(renamed);
        known
            .find(|name| model.graph.initializers.contains_key(*name))
            .unwrap_or_else(|| renamed(name))
    }

    /// The exports of the network.
    pub(super) fn files(&self) -> Vec<File> {
        let first = File { name: "model.onnx".to_owned(), renamed: BTreeMap::new() };
        let others = self.alt_models.iter();
        let others =
            others.map(|alt| File { name: alt.file.clone(), renamed: alt.renamed.clone() });
        std::iter::once(first).chain(others).collect()
    }

    /// The loss as Cerebro has it.
    pub(super) fn loss(&self) -> Result<Loss, Error> {
        Ok(match self.loss.as_str() {
            "cross_entropy" => Loss::CrossEntropy {
                class_axis: self.class_axis.unwrap_or(1),
                label_smoothing: 0.0,
                ignore_index: None,
                class_weights: None,
            },
            "bce_with_logits" => Loss::binary_cross_entropy_with_logits(),
            "mse" => Loss::MeanSquaredError,
            "mae" => Loss::MeanAbsoluteError,
            "huber" => Loss::Huber { delta: self.huber_delta.unwrap_or(1.0) },
            other => return Err(format!("loss `{other}` is unknown").into()),
        })
    }

    /// The tensors `names` of `data.safetensors`, cut into batches.
    pub(super) fn data(&self, names: &[&str]) -> Result<Vec<BTreeMap<String, Data>>, Error> {
        let path = self.folder.join("data.safetensors");
        let bytes = fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let tensors = SafeTensors::deserialize(&bytes)?;
        let mut batches: Vec<BTreeMap<String, Data>> = Vec::new();
        for name in names {
            let tensor = tensors.tensor(name)?;
            let (steps, dims) = tensor.shape().split_first().ok_or("a tensor has no steps")?;
            batches.resize_with(*steps, BTreeMap::new);
            let chunks = tensor.data().chunks_exact(tensor.data().len() / steps);
            for (batch, chunk) in batches.iter_mut().zip(chunks) {
                let data = match tensor.dtype() {
                    Dtype::F32 => Data::F32(
                        dims.to_vec(),
                        chunk.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
                    ),
                    Dtype::I64 => Data::I64(
                        dims.to_vec(),
                        chunk.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b)).collect(),
                    ),
                    other => return Err(format!("`{name}` is of type {other:?}").into()),
                };
                batch.insert((*name).to_owned(), data);
            }
        }
        Ok(batches)
    }
}
