//! `attendant-tts`: the engine worker that turns text into speech by a Piper voice.
//!
//! Started by the daemon's supervisor with a socket on descriptor 3 (`attendant_models::protocol`). Threads: the main
//! thread reads the socket, `engine` computes (espeak-ng has global state and lives there alone).

mod engine;
mod parts;
mod resample;
mod runtime;
mod shape;
mod voice;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use attendant_models::protocol::{PROTOCOL_VERSION, Response};
use attendant_models::worker::{self, EXIT_BAD_MODEL, EXIT_PROTOCOL, EXIT_USAGE, WorkerError, millis};
use clap::Parser;

/// Text to speech worker; started by `attendant serve`.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Piper voice model
    #[arg(long, value_name = "FILE.onnx")]
    voice: PathBuf,
    /// The voice's description
    #[arg(long, value_name = "FILE.json")]
    config: PathBuf,
    /// ONNX Runtime library
    #[arg(long, value_name = "FILE.so")]
    runtime: PathBuf,
    /// Compute threads
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    threads: u32,
    /// Load the voice, speak once, say how long it took, and exit
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    runtime::use_one_heap();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,ort=error"));
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
            eprintln!("attendant-tts: {message}");
            EXIT_BAD_MODEL
        }
    })
}

fn run(args: &Args) -> Result<u8, String> {
    let begun = Instant::now();
    let version = runtime::load(&args.runtime)?;
    let voice = voice::Voice::load(&args.voice, &args.config, args.threads).map_err(|e| e.to_string())?;
    let model = format!("Piper voice {}, {} Hz", voice.language, voice.rate_hz);
    let mut speaker = engine::Speaker::new(voice)?;
    let sentence_ms = speaker.warm_up(args.threads)?;
    let load_ms = millis(begun.elapsed());
    let engine = format!("ONNX Runtime {version}");
    if args.check {
        println!(
            "ok {engine}, {model}: loaded in {load_ms} ms, twelve words in {sentence_ms} ms on {} threads",
            args.threads
        );
        return Ok(0);
    }
    let socket = match worker::socket() {
        Ok(socket) => socket,
        Err(error) => {
            eprintln!("attendant-tts: {error}");
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
    match worker::serve(socket, &ready, args.threads, speaker) {
        Ok(()) => worker::exit_now(0),
        Err(error @ (WorkerError::Broken(_) | WorkerError::NoSocket)) => {
            eprintln!("attendant-tts: {error}");
            worker::exit_now(EXIT_PROTOCOL)
        }
    }
}
