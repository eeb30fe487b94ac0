//! [`Export`]: a trained network as files that other tools read.

use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use cerebro_core::ModelError;

use crate::onnx::{Model, TensorData};
use crate::program::Program;
use crate::state::TrainingState;
use crate::training::{Variable, VariableKind};

/// A trained network: the forward pass with the trial's weights in it, and the weights alone.
///
/// It is an ONNX model like any other, without optimizer state and without a trace of training:
/// it runs wherever ONNX runs, and [`Inference`](crate::Inference) runs it here.
#[derive(Debug)]
pub struct Export {
    model: Model,
    state: Arc<TrainingState>,
}

impl Export {
    pub(crate) fn new(program: &Program, state: Arc<TrainingState>) -> Self {
        let mut model = program.blueprint().model().clone();
        for (variable, buffer) in state.entries().filter(|(variable, _)| is_weight(variable)) {
            let bytes = Bytes::copy_from_slice(buffer.bytes());
            let data = TensorData::new(variable.data_type, variable.dims.clone(), bytes);
            let data = data.expect("a buffer has the bytes of its shape");
            model.graph.initializers.insert(variable.name.clone(), data);
        }
        Self { model, state }
    }

    /// The model: its initializers are the trial's weights.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Writes `NAME.onnx`, the model, and `NAME.safetensors`, its weights and running statistics,
    /// into `folder`, which is made if it is not there. Each file is whole or not there at all.
    ///
    /// Gives the path of the ONNX file.
    pub fn save(&self, folder: impl AsRef<Path>, name: &str) -> Result<PathBuf, ModelError> {
        let folder = folder.as_ref();
        let cannot = |path: &Path, error: Box<dyn std::error::Error + Send + Sync>| {
            ModelError::other(format!("cannot write {}", path.display()), error)
        };
        fs::create_dir_all(folder).map_err(|error| cannot(folder, error.into()))?;
        let onnx = folder.join(format!("{name}.onnx"));
        let bytes = self.model.to_bytes().map_err(|error| cannot(&onnx, error.into()))?;
        write_whole(&onnx, |out| out.write_all(&bytes)).map_err(|e| cannot(&onnx, e.into()))?;
        let weights = folder.join(format!("{name}.safetensors"));
        write_whole(&weights, |out| {
            self.state.safetensors(None, is_weight).try_for_each(|part| out.write_all(&part?))
        })
        .map_err(|error| cannot(&weights, error.into()))?;
        Ok(onnx)
    }
}

fn is_weight(variable: &Variable) -> bool {
    variable.kind != VariableKind::Slot
}

/// Writes to a temporary name and then renames, so that no reader meets half a file.
fn write_whole(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    // Temporary files are private by default; a result is as readable as any other new file.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.prefix(".").tempfile_in(folder)?;
    {
        let mut out = BufWriter::with_capacity(1 << 20, file.as_file_mut());
        write(&mut out)?;
        out.flush()?;
    }
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}
