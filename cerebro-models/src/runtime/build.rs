//! [`Build`]: which build of ONNX Runtime.

use std::env::consts::{ARCH, DLL_PREFIX, DLL_SUFFIX, OS};
use std::path::Path;

use super::VERSION;

/// A build of ONNX Runtime that is published as a Python package.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Build {
    /// For CPUs.
    Cpu,
    /// For NVIDIA's GPUs; it runs on CPUs too.
    Cuda,
}

impl Build {
    /// The Python package.
    pub(super) fn package(self) -> &'static str {
        match self {
            Build::Cpu => "onnxruntime",
            Build::Cuda => "onnxruntime-gpu",
        }
    }

    /// The size of its wheel in megabytes.
    pub(super) fn megabytes(self) -> u32 {
        match self {
            Build::Cpu => 24,
            Build::Cuda => 256,
        }
    }

    /// The name of the folder that it is installed in.
    pub(super) fn folder(self) -> String {
        format!("{}-{VERSION}-{OS}-{ARCH}", self.package())
    }

    /// The libraries that must lie beside ONNX Runtime's own.
    pub(super) fn providers(self) -> Vec<String> {
        let library = |name: &str| format!("{DLL_PREFIX}onnxruntime_providers_{name}{DLL_SUFFIX}");
        match self {
            Build::Cpu => Vec::new(),
            Build::Cuda => ["shared", "cuda"].map(library).into(),
        }
    }

    /// Whether all that it needs beside ONNX Runtime's own library is in `folder`.
    pub(super) fn is_whole_in(self, folder: &Path) -> bool {
        self.providers().iter().all(|provider| folder.join(provider).is_file())
    }
}
