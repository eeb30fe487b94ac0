//! A whole experiment from a TOML file, without a line of Rust.
//!
//! ```text
//! cargo run --release --example tune -- examples/digits.toml
//! ```
//!
//! `docs/experiment-file.md` describes the file, `--help` the options.

use std::process::ExitCode;

use cerebro_tune::arguments::{self, Arguments, USAGE};
use cerebro_tune::{Fault, Misuse, run};

/// What is wrong with the command line or the experiment's file.
const USAGE_ERROR: u8 = 2;

fn main() -> ExitCode {
    let arguments = match arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("{error}; `tune --help` shows how it is called");
            return ExitCode::from(USAGE_ERROR);
        }
    };
    let outcome = match arguments {
        Arguments::Help => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        #[cfg(unix)]
        Arguments::Control(words) => cerebro_tune::control::main(&words),
        #[cfg(not(unix))]
        Arguments::Control(_) => Err("control needs Unix sockets, which are not here".into()),
        Arguments::Run(options) => run::run(&options, |handle| {
            // Ctrl-C: units stop at their next batch, and what was done until then is shown.
            if let Err(error) = ctrlc::set_handler(move || handle.stop()) {
                eprintln!("Ctrl-C will end the program at once: {error}");
            }
        }),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            if error.is::<Fault>() || error.is::<Misuse>() {
                ExitCode::from(USAGE_ERROR)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}
