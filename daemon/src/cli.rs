//! Command line: what there is to type, and who does it.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

use crate::{
    api::token::{self, TokenCommand},
    audit::{self, AuditCommand},
    bench::{self, BenchArgs},
    caller::command::{self as call_command, CallArgs},
    care::{self, BackupArgs, PersonCommand, RestoreArgs},
    config::{self, Config},
    demo, doctor, logging,
    recording::{self, RecordingCommand},
    replay::{self, ReplayArgs},
    serve,
};

/// Offline telephone attendant: answers calls over SIP, hears, thinks and speaks on this machine alone.
#[derive(Debug, Parser)]
#[command(version, about, after_help = EXAMPLES)]
pub struct Cli {
    /// More to read: -v debug, -vv trace.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  attendant models fetch --profile small       get the models, once
  attendant serve --config attendant.toml      answer calls
  attendant call sip:attendant@127.0.0.1 --say \"What are your opening hours?\"
  attendant doctor                             is all well? what to do if not
  attendant bench --turns 20 --json            what callers hear, measured on this machine
  attendant config default > attendant.toml    a commented configuration to start from";

#[derive(Debug, Subcommand)]
enum Command {
    /// Answer calls until stopped.
    Serve(ConfigArg),
    /// Be the caller: dial, speak, listen; prints what was heard and how long it took.
    Call(CallArgs),
    /// Measure what callers hear: response time, cut-offs, word errors, packet spacing.
    Bench(BenchArgs),
    /// Run the turn-taking of a recorded call again, and say where it would go another way.
    Replay(ReplayArgs),
    /// Check models, engines, line, disk and sound with a call to itself; says what to do.
    Doctor(DoctorArgs),
    /// Start, call itself once with a spoken question, and stay up to be dialled.
    Demo(DemoArgs),
    /// Get, add, list and check models.
    Models {
        /// Where models are kept.
        #[arg(long, env = "ATTENDANT_MODELS_DIR")]
        models_dir: Option<PathBuf>,
        #[command(subcommand)]
        command: attendant_models::cli::ModelsCommand,
    },
    /// Check the record's chain, export it, or take a signed checkpoint of it.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// List and export recordings.
    #[command(subcommand)]
    Recording(RecordingCommand),
    /// Copy the record to another disk, compressed and verified, while calls go on.
    Backup(BackupArgs),
    /// Put a backup in the place of the record; the daemon must be stopped.
    Restore(RestoreArgs),
    /// Give, erase or hold what is kept of a caller.
    #[command(subcommand)]
    Person(PersonCommand),
    /// Make, list and revoke the tokens of programs that use the API.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Look at the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
}

#[derive(Debug, Args)]
struct ConfigArg {
    /// Configuration file; without it /etc/attendant/attendant.toml if it exists, else the defaults.
    #[arg(short, long, env = "ATTENDANT_CONFIG")]
    config: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct DoctorArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// For machines.
    #[arg(long)]
    json: bool,
    /// Leave out the call to itself (which takes about half a minute).
    #[arg(long)]
    no_call: bool,
}

#[derive(Debug, Args)]
struct DemoArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// Models to use when no configuration says so: small, standard or custom.
    #[arg(long)]
    profile: Option<String>,
    /// End after the first call instead of staying up.
    #[arg(long)]
    once: bool,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Print the commented default.
    Default,
    /// Check a file.
    Check(ConfigArg),
}

/// Does what was asked.
///
/// # Errors
/// In one sentence for people.
pub fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    logging::start(cli.verbose);
    match cli.command {
        Command::Serve(arg) => {
            let config = Config::load(arg.config.as_deref())?;
            runtime()?.block_on(serve::serve(config))?;
        }
        Command::Call(args) => return call_command::run(args),
        Command::Bench(args) => return bench::run(args),
        Command::Replay(args) => return replay::run(&args),
        Command::Doctor(args) => {
            let config = Config::load(args.config.config.as_deref())?;
            let report = runtime()?.block_on(doctor::examine(&config, !args.no_call));
            report.print(args.json);
            return Ok(if report.healthy() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            });
        }
        Command::Demo(args) => return demo::run(args.config.config.as_deref(), args.profile, args.once),
        Command::Models { models_dir, command } => {
            let dir = models_dir.unwrap_or_else(attendant_models::default_dir);
            attendant_models::cli::run(command, &dir)?;
        }
        Command::Audit(command) => return audit::run(command),
        Command::Recording(command) => return recording::run(command),
        Command::Backup(args) => return care::backup(&args),
        Command::Restore(args) => return care::restore(&args),
        Command::Person(command) => return care::person(command),
        Command::Token(command) => return token::run(command),
        Command::Config(ConfigCommand::Default) => print!("{}", config::COMMENTED_DEFAULT),
        Command::Config(ConfigCommand::Check(arg)) => {
            let config = Config::load(arg.config.as_deref())?;
            println!(
                "ok: profile {}, data in {}",
                config.profile(),
                config.data_dir().display()
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The daemon's runtime.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
}
