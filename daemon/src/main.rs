//! Parses, builds, runs, exits.

use std::process::ExitCode;

use attendant::{
    cli::{Cli, run},
    memory,
};
use clap::Parser;

fn main() -> ExitCode {
    memory::set_up();
    let cli = Cli::parse();
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("attendant: {error:#}");
            ExitCode::FAILURE
        }
    }
}
