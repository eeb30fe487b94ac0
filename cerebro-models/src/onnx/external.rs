//! Tensors whose bytes are in files beside the model's.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;

use super::OnnxError;
use super::proto::TensorProto;
use super::read::read_file;

/// The files with external data of one model, each read once.
#[derive(Debug)]
pub(super) struct ExternalFiles {
    folder: Option<PathBuf>,
    files: HashMap<String, Bytes>,
}

impl ExternalFiles {
    /// Files in `folder`; none can be read when there is no folder, as for a model in memory.
    pub(super) fn new(folder: Option<PathBuf>) -> Self {
        Self { folder, files: HashMap::new() }
    }

    /// The bytes of `tensor`, which says where they are (`docs/ExternalData.md` of ONNX).
    pub(super) fn bytes(&mut self, tensor: &TensorProto) -> Result<Bytes, OnnxError> {
        let bad = |reason: String| OnnxError::Tensor { name: tensor.name.clone(), reason };
        let entry = |key: &str| {
            tensor.external_data.iter().find(|entry| entry.key == key).map(|e| e.value.as_str())
        };
        let number = |key: &str| match entry(key) {
            None => Ok(None),
            Some(text) => text.parse::<usize>().map(Some).map_err(|_| {
                bad(format!("the `{key}` of its external data is `{text}`, which is no number"))
            }),
        };
        let location =
            entry("location").ok_or_else(|| bad("its external data have no location".into()))?;
        let file = self.file(location, &tensor.name)?;
        let offset = number("offset")?.unwrap_or(0);
        let length = match number("length")? {
            Some(length) => length,
            None => file.len().saturating_sub(offset),
        };
        let end = offset.checked_add(length).filter(|&end| end <= file.len());
        let end = end.ok_or_else(|| {
            bad(format!(
                "its data are bytes {offset} to {offset} + {length} of `{location}`, which has {} bytes",
                file.len()
            ))
        })?;
        Ok(file.slice(offset..end))
    }

    fn file(&mut self, location: &str, tensor: &str) -> Result<Bytes, OnnxError> {
        if let Some(bytes) = self.files.get(location) {
            return Ok(bytes.clone());
        }
        let bad = |reason: String| OnnxError::Tensor { name: tensor.to_owned(), reason };
        let folder = self.folder.as_ref().ok_or_else(|| {
            bad(format!("its data are in the file `{location}`: read the model from its file"))
        })?;
        // A model is input that may come from anywhere: it may name files beside itself only.
        if !Path::new(location).components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(bad(format!("its data are in `{location}`, outside the model's folder")));
        }
        let path = folder.join(location);
        let bytes: Bytes = read_file(&path, usize::MAX)?.into();
        self.files.insert(location.to_owned(), bytes.clone());
        Ok(bytes)
    }
}
