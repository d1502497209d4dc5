//! Parses, builds, runs, exits.

use std::process::ExitCode;

use attendant::cli::{Cli, run};
use clap::Parser;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("attendant: {error:#}");
            ExitCode::FAILURE
        }
    }
}
