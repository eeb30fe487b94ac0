//! Where ONNX Runtime comes from: finding, installing and loading `libonnxruntime`.
//!
//! Cerebro trains through a stock build of ONNX Runtime, loaded when the first model needs it, so
//! building Cerebro needs no C++ library. [`load`] looks, in this order, at
//!
//! 1. the file named by the environment variable `ORT_DYLIB_PATH`, and then nowhere else;
//! 2. the [cache folder](cache_folder), where [`install_cuda`] and [`install`] put it: a build for
//!    GPUs, which runs on CPUs too, before one for CPUs alone;
//! 3. the `onnxruntime` package of the Python installation on the `PATH` (nothing of Python is
//!    run or loaded but the question where the package lies);
//! 4. the system's library path.
//!
//! A library that is too old or does not load is passed over, and the error at the end says why.
//! Only [`install`] and [`install_cuda`] ever download anything; programs call them, this library
//! does not.
//!
//! ONNX Runtime allows one environment per process, ever; it lives in this module. A program that
//! uses the crate `ort` for itself too calls [`load`] first and must not build its own.

mod build;
mod download;
mod error;
mod search;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use ort::environment::Environment;
use ort::logging::LogLevel;

pub use error::{Looked, RuntimeError};
pub use search::cache_folder;

use build::Build;
use search::Surroundings;

/// The version that [`install`] downloads, and that every number in the documentation was
/// measured with.
pub const VERSION: &str = "1.31.1";

/// The oldest minor version (1.x) that has the interface Cerebro is written for.
pub const OLDEST_MINOR_VERSION: u32 = ort::MINOR_VERSION;

/// ONNX Runtime, loaded into this process.
#[derive(Debug)]
pub struct Runtime {
    library: PathBuf,
    environment: Environment,
}

impl Runtime {
    /// The file that was loaded; a bare name if the system's library path had it.
    pub fn library(&self) -> &Path {
        &self.library
    }

    /// The process's environment, for sessions of one's own with the crate `ort`.
    pub fn environment(&self) -> &Environment {
        &self.environment
    }
}

static RUNTIME: OnceLock<Runtime> = OnceLock::new();
static LOADING: Mutex<()> = Mutex::new(());

/// ONNX Runtime: loaded at the first call, the same one ever after.
///
/// An error is not final: after the cause is mended (by [`install`], say) a later call may succeed.
///
/// ```no_run
/// let runtime = cerebro_models::runtime::load()?;
/// println!("using {}", runtime.library().display());
/// # Ok::<(), cerebro_models::runtime::RuntimeError>(())
/// ```
pub fn load() -> Result<&'static Runtime, RuntimeError> {
    if let Some(runtime) = RUNTIME.get() {
        return Ok(runtime);
    }
    let _loading = LOADING.lock().unwrap_or_else(PoisonError::into_inner);
    // Another thread may have loaded it meanwhile.
    match RUNTIME.get() {
        Some(runtime) => Ok(runtime),
        None => search::search(&Surroundings::of_this_process(), Build::Cpu, load_library),
    }
}

/// ONNX Runtime as by [`load`]; where there is none, version [`VERSION`] is downloaded first.
///
/// The download is the wheel of the Python package `onnxruntime`, fetched with `pip` (24 MB, no
/// dependencies, nothing is compiled or run) and unpacked into the [cache folder](cache_folder).
/// A line on standard error says so. Processes may do this at the same time and may be killed
/// half-way: what is in the cache is always whole.
///
/// ```no_run
/// cerebro_models::runtime::install()?;
/// # Ok::<(), cerebro_models::runtime::RuntimeError>(())
/// ```
pub fn install() -> Result<&'static Runtime, RuntimeError> {
    install_build(Build::Cpu)
}

/// ONNX Runtime for NVIDIA's GPUs (and for CPUs): loaded as by [`load`] where a build for them is
/// found, downloaded first where none is.
///
/// The download is the wheel of the Python package `onnxruntime-gpu` (256 MB), as in [`install`].
/// It wants the NVIDIA driver, and the libraries of CUDA 13 and cuDNN 9 where the system's loader
/// finds them: neither is fetched. They are looked for when the first model is made on a GPU, and
/// the error then names what is missing.
///
/// A process loads ONNX Runtime once: call this before anything else that loads it.
///
/// ```no_run
/// cerebro_models::runtime::install_cuda()?;
/// # Ok::<(), cerebro_models::runtime::RuntimeError>(())
/// ```
pub fn install_cuda() -> Result<&'static Runtime, RuntimeError> {
    install_build(Build::Cuda)
}

fn install_build(build: Build) -> Result<&'static Runtime, RuntimeError> {
    let _loading = LOADING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(runtime) = RUNTIME.get() {
        return Ok(runtime);
    }
    let surroundings = Surroundings::of_this_process();
    match search::search(&surroundings, build, load_library) {
        Err(RuntimeError::NotFound { .. }) => {
            let library = download::download(&surroundings, build)?;
            load_library(&library).map_err(|reason| RuntimeError::Unusable { library, reason })
        }
        result => result,
    }
}

/// Loads `library` and makes the process's environment; the reason if it cannot be used.
fn load_library(library: &Path) -> Result<&'static Runtime, String> {
    let builder = ort::init_from(library).map_err(|error| describe(&error))?;
    let environment = builder
        .with_name("cerebro")
        .with_telemetry(false)
        .with_logger(Arc::new(log))
        .build()
        .map_err(|error| error.to_string())?;
    environment.set_log_level(LogLevel::Warning);
    Ok(RUNTIME.get_or_init(|| Runtime { library: library.to_owned(), environment }))
}

fn describe(error: &ort::LoadDynamicError) -> String {
    match error {
        ort::LoadDynamicError::BadVersion { version_str, .. } => {
            format!("its version is {version_str}, but 1.{OLDEST_MINOR_VERSION} or later is needed")
        }
        ort::LoadDynamicError::MissingApi { .. } => {
            "it is not ONNX Runtime (it has no function `OrtGetApiBase`)".to_owned()
        }
        ort::LoadDynamicError::Dlopen { error, .. } => error.to_string(),
        other @ ort::LoadDynamicError::InvalidVersionString => other.to_string(),
    }
}

/// Hands ONNX Runtime's own messages to whoever listens through `tracing`.
fn log(level: LogLevel, category: &str, _id: &str, location: &str, message: &str) {
    match level {
        LogLevel::Verbose => tracing::trace!(target: "onnxruntime", category, location, message),
        LogLevel::Info => tracing::debug!(target: "onnxruntime", category, location, message),
        // Warnings are about how the graph was written, nothing a user could act on.
        LogLevel::Warning => tracing::debug!(target: "onnxruntime", category, location, message),
        LogLevel::Error | LogLevel::Fatal => {
            tracing::warn!(target: "onnxruntime", category, location, message);
        }
    }
}
