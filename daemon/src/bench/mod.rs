//! Bench: what callers hear, measured on this machine.
//!
//! ```text
//! corpus ─> calls ─> lanes (N at once) ─> caller ══SIP, RTP══> a daemon of our own
//!                                            │                        │
//!                     packets, reply times ──┤   transcripts, stages ─┤ (its record)   CPU, memory (/proc)
//!                                            └──────> report <────────┘
//! ```
//!
//! Starts what it needs: a daemon of its own as a child, on ports of the system's choice, with a fresh record unless
//! `--data-dir` names one. Times come from the caller's packets; the daemon's record only adds what a caller cannot
//! know: what was understood, and how long each stage took.

pub mod compare;
pub mod corpus;
pub mod process;
pub mod report;
pub mod run;
pub mod wer;

use std::{io::Write, path::PathBuf, process::ExitCode};

use attendant_models::Profile;
use clap::Args;

use crate::caller::{line::EchoPath, weather::Weather};

/// Arguments of `attendant bench`.
#[derive(Debug, Clone, Args)]
pub struct BenchArgs {
    /// Utterances spoken in all; 40 take about eight minutes
    #[arg(long, value_name = "N", default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub turns: u32,
    /// Calls at once
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=32))]
    pub calls: u32,
    /// Models: small, standard or custom [default: by cores and memory, as the daemon chooses]
    #[arg(long, value_name = "PROFILE")]
    pub profile: Option<Profile>,
    /// Keep the daemon's record here [default: a temporary directory]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// The same number gives the same calls
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Utterances in one call
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=60))]
    pub turns_per_call: u32,
    /// Only play this many recorded human prompts and report what was understood of them
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=500))]
    pub wer_prompts: Option<u32>,
    /// Noise of the caller's room [dBov]; 0 for none
    #[arg(long, value_name = "DBOV", default_value_t = -65.0, allow_negative_numbers = true)]
    pub noise: f64,
    /// Only these kinds of utterances, separated by commas; most need questions beside them
    #[arg(long, value_enum, value_name = "KIND", value_delimiter = ',')]
    pub only: Vec<corpus::Kind>,
    /// The caller's telephone sends back what it plays: level and delay, e.g. -12:120 [dB:ms]
    #[arg(long, value_name = "DB:MS", allow_hyphen_values = true)]
    pub echo: Option<EchoPath>,
    /// Share of packets that are lost, each way [%]
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0)]
    pub loss: f64,
    /// Losses come in bursts of so many packets, on average
    #[arg(long, value_name = "PACKETS", default_value_t = 1.0)]
    pub burst: f64,
    /// Packets are delayed by up to so much, each way [ms]
    #[arg(long, value_name = "MS", default_value_t = 0.0)]
    pub jitter: f64,
    /// Share of packets that are overtaken by the next two [%]
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0)]
    pub reorder: f64,
    /// Share of packets that come twice [%]
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0)]
    pub duplicate: f64,
    /// Switch a technique off, to see its share; may be repeated
    #[arg(long, value_enum, value_name = "TECHNIQUE")]
    pub without: Vec<Technique>,
    /// Another bound of turn-taking than the configuration's own, e.g. hangover_unknown_ms=950; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_bound)]
    pub bound: Vec<(String, String)>,
    /// Compare with the JSON of an earlier run and say what got worse
    #[arg(long, value_name = "FILE")]
    pub against: Option<PathBuf>,
    /// Save each call here: its sound as a WAV file, its turn-taking as a trace for `attendant replay`
    #[arg(long, value_name = "DIR")]
    pub record: Option<PathBuf>,
    /// Also list every turn
    #[arg(long)]
    pub list: bool,
    /// One JSON object instead of text
    #[arg(long)]
    pub json: bool,
}

impl BenchArgs {
    fn weather(&self) -> Weather {
        Weather {
            loss_percent: self.loss,
            burst_packets: self.burst,
            jitter_ms: self.jitter,
            reorder_percent: self.reorder,
            duplicate_percent: self.duplicate,
        }
    }
}

/// What can be switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Technique {
    /// Preparing the reply before the turn has ended
    Speculation,
    /// Transcribing and reading while the caller speaks
    Partials,
    /// Asking the language model whether the caller sounds finished
    Meaning,
    /// Taking our own voice out of what comes back
    EchoCancelling,
}

impl Technique {
    /// The line of configuration that switches it off, in its table.
    fn off(self) -> (&'static str, &'static str) {
        match self {
            Self::Speculation => ("turn", "speculation = false"),
            Self::Partials => ("turn", "partials = false"),
            Self::Meaning => ("turn", "meaning = false"),
            Self::EchoCancelling => ("audio", "echo_cancelling = false"),
        }
    }
}

/// A key of `[turn]` and its value; the daemon judges both.
fn parse_bound(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && !value.is_empty() => Ok((key.into(), value.into())),
        _ => Err("a bound is KEY=VALUE, for instance hangover_unknown_ms=950".into()),
    }
}

/// Runs `attendant bench` to its end. Starts its own runtime: call it from a plain thread.
///
/// # Errors
/// When the daemon does not start, no voice can be had, or no call at all succeeds.
pub fn run(args: BenchArgs) -> anyhow::Result<ExitCode> {
    let earlier = args.against.as_deref().map(compare::read).transpose()?;
    let report = run::measure(&args)?;
    let mut out = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &report)?;
        writeln!(out)?;
    } else {
        report.print(&mut out)?;
    }
    drop(out);
    let Some(earlier) = earlier else {
        return Ok(ExitCode::SUCCESS);
    };
    let changes = compare::changes(&earlier, &serde_json::to_value(&report)?);
    compare::print(&changes, &mut std::io::stderr().lock())?;
    Ok(if changes.iter().any(|change| change.worse) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}
