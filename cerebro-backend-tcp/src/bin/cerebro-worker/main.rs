//! A worker for networks that are trained through ONNX Runtime: `cerebro-worker --help` says how it
//! is used.
//!
//! ```text
//! cargo run --release -p cerebro-backend-tcp --features onnx --bin cerebro-worker -- --driver HOST:PORT
//! ```
//!
//! Models of other kinds need a program of their own, of five lines: see
//! `cerebro_backend_tcp::worker`.

mod arguments;
mod certificates;

use std::process::ExitCode;

use cerebro_backend_tcp::worker::{self, Registry};
use cerebro_core::Device;
use cerebro_models::runtime;

use arguments::{Command, HELP, Serve};

/// As shells expect it of programs that were asked for what they cannot do.
const WRONG_USAGE: u8 = 2;

fn main() -> ExitCode {
    let done = match arguments::parse(lexopt::Parser::from_env()) {
        Err(wrong) => {
            eprintln!("cerebro-worker: {wrong}\nTry `cerebro-worker --help`.");
            return WRONG_USAGE.into();
        }
        Ok(Command::Help) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Ok(Command::Version) => {
            println!("cerebro-worker {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        Ok(Command::Certificates(wanted)) => certificates::issue(&wanted),
        Ok(Command::Serve(serve)) => self::serve(*serve),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cerebro-worker: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(Serve { options, device, level }: Serve) -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).init();
    let runtime = match device {
        Device::Cpu => runtime::install()?,
        device if !cfg!(feature = "cuda") => {
            let remedy =
                "this program was built without GPUs; build it with `--features onnx,cuda`";
            return Err(format!("--device {device}: {remedy}").into());
        }
        _ => runtime::install_cuda()?,
    };
    tracing::info!(library = %runtime.library().display(), "ONNX Runtime is loaded");
    Ok(worker::serve(Registry::onnx(), options)?)
}
