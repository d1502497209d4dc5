//! `attendant-stt`: the engine worker that turns speech into text by whisper.cpp.
//!
//! Started by the daemon's supervisor with a socket on descriptor 3 (`attendant_models::protocol`). Threads: the main
//! thread reads the socket, `engine` computes.

mod engine;
mod guard;
mod model_file;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use attendant_models::protocol::{PCM_RATE_HZ, PROTOCOL_VERSION, Response};
use attendant_models::worker::{self, EXIT_BAD_MODEL, EXIT_PROTOCOL, EXIT_USAGE, WorkerError, millis};
use clap::Parser;

/// Rounds that a thread spins at a barrier before it sleeps: long enough for the gaps between two matrices, short
/// enough not to hold a core that somebody else needs.
const SPIN_ROUNDS: (&str, &str) = ("GOMP_SPINCOUNT", "20000");
/// Sample rate of the model and of the protocol [Hz].
const SAMPLE_RATE_HZ: usize = PCM_RATE_HZ as usize;

/// Speech to text worker; started by `attendant serve`.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Whisper model in ggml format
    #[arg(long, value_name = "FILE")]
    model: PathBuf,
    /// Compute threads
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    threads: u32,
    /// Load the model, run it once, say how long it took, and exit
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    worker::restart_with_env(SPIN_ROUNDS.0, SPIN_ROUNDS.1);
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false)
        .without_time()
        .finish();
    // Not `init`, which would also take `log` records in: with `log-always` they are these very events again.
    if tracing::subscriber::set_global_default(subscriber).is_err() {
        eprintln!("logging had started already");
    }
    ExitCode::from(match run(&args) {
        Ok(code) => code,
        Err(message) => {
            eprintln!("attendant-stt: {message}");
            EXIT_BAD_MODEL
        }
    })
}

fn run(args: &Args) -> Result<u8, String> {
    let begun = Instant::now();
    model_file::check(&args.model).map_err(|e| format!("{}: {e}", args.model.display()))?;
    let mut whisper = engine::Whisper::load(&args.model)?;
    let first_ms = whisper.warm_up(args.threads).map_err(|e| e.to_string())?;
    let load_ms = millis(begun.elapsed());
    let engine = format!("whisper.cpp {}", whisper_rs::WHISPER_CPP_VERSION);
    let model = whisper.describe();
    if args.check {
        println!(
            "ok {engine}, {model}: loaded in {load_ms} ms, first pass {first_ms} ms on {} threads",
            args.threads
        );
        return Ok(0);
    }
    let socket = match worker::socket() {
        Ok(socket) => socket,
        Err(error) => {
            eprintln!("attendant-stt: {error}");
            return Ok(EXIT_USAGE);
        }
    };
    tracing::info!("{engine}, {model}: ready in {load_ms} ms");
    let ready = Response::Ready {
        protocol: PROTOCOL_VERSION,
        engine,
        model,
        load_ms,
        sequences: 1,
    };
    match worker::serve(socket, &ready, args.threads, whisper) {
        Ok(()) => worker::exit_now(0),
        Err(error @ (WorkerError::Broken(_) | WorkerError::NoSocket)) => {
            eprintln!("attendant-stt: {error}");
            worker::exit_now(EXIT_PROTOCOL)
        }
    }
}
