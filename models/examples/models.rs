//! `attendant models …` alone, to try the commands without building the daemon:
//! `cargo run -p attendant-models --example models -- list`

use clap::Parser;

/// Commands for model files
#[derive(Debug, Parser)]
struct CommandLine {
    /// Directory of the models
    #[arg(long, default_value_os_t = attendant_models::default_dir())]
    dir: std::path::PathBuf,
    #[command(subcommand)]
    command: attendant_models::cli::ModelsCommand,
}

fn main() -> std::process::ExitCode {
    let line = CommandLine::parse();
    match attendant_models::cli::run(line.command, &line.dir) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}
