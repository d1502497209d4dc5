//! Replay: runs the turn-taking of a recorded call again.
//!
//! A call writes its trace ([`write`]) where `[debug] traces` says: bounds, frames' voicing, transcripts by what they
//! amount to, progress of replies, and every action that followed. `attendant replay` lets the same happen again: with the
//! same bounds every action must come again, with others it shows where the call would have gone another way.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, BufWriter, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use anyhow::{Context, bail};
use attendant_turn::{Step, Timed, TurnConfig, trace};
use clap::Args;

use crate::config::Config;

/// Traces kept in a directory; the oldest go.
const MOST_TRACES: usize = 200;

/// Arguments of `attendant replay`.
#[derive(Debug, Clone, Args)]
pub struct ReplayArgs {
    /// Traces of calls, as `[debug] traces` keeps them
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Use the bounds of this configuration instead of the call's own
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Also list what the attendant did, and when
    #[arg(long)]
    pub actions: bool,
}

/// Writes a call's trace into `dir`, with the bounds first and a line for every step.
///
/// # Errors
/// The file system's own.
pub fn write(dir: &Path, name: &str, config: &TurnConfig, steps: &[Timed]) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    forget_oldest(dir)?;
    let mut out = BufWriter::new(File::create(dir.join(format!("{name}.trace")))?);
    serde_json::to_writer(&mut out, config)?;
    for step in steps {
        out.write_all(b"\n")?;
        serde_json::to_writer(&mut out, step)?;
    }
    out.write_all(b"\n")?;
    out.flush()
}

fn forget_oldest(dir: &Path) -> io::Result<()> {
    let mut traces = Vec::new();
    for entry in fs::read_dir(dir)?.flatten() {
        if entry.path().extension().is_some_and(|e| e == "trace") {
            traces.push((entry.metadata()?.modified()?, entry.path()));
        }
    }
    traces.sort();
    let over = (traces.len() + 1).saturating_sub(MOST_TRACES);
    traces
        .iter()
        .take(over)
        .try_for_each(|(_, path)| fs::remove_file(path))
}

/// Reads a trace.
///
/// # Errors
/// What is wrong, and where.
pub fn read(path: &Path) -> anyhow::Result<(TurnConfig, Vec<Timed>)> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut lines = BufReader::new(file).lines();
    let Some(first) = lines.next() else {
        bail!(
            "{} is empty: a trace begins with the bounds of the call",
            path.display()
        );
    };
    let config = serde_json::from_str(&first?)
        .with_context(|| format!("{}: line 1 holds no bounds of turn-taking", path.display()))?;
    let step = |(number, line): (usize, io::Result<String>)| {
        serde_json::from_str(&line?)
            .with_context(|| format!("{}: line {} is no step of a call", path.display(), number + 2))
    };
    Ok((
        config,
        lines.enumerate().map(step).collect::<anyhow::Result<_>>()?,
    ))
}

/// Runs `attendant replay` to its end.
///
/// # Errors
/// When a file cannot be read.
pub fn run(args: &ReplayArgs) -> anyhow::Result<ExitCode> {
    let bounds = args
        .config
        .as_deref()
        .map(|path| Config::load(Some(path)))
        .transpose()?;
    let mut out = io::stdout().lock();
    let mut same = true;
    for path in &args.files {
        let (recorded, steps) = read(path)?;
        if args.actions {
            for Timed { ns, step } in &steps {
                if let Step::Action(action) = step {
                    writeln!(out, "{:9.3} s  {action:?}", seconds(*ns))?;
                }
            }
        }
        let config = bounds.as_ref().map_or(recorded, |config| config.turn.clone());
        let length = seconds(steps.last().map_or(0, |step| step.ns));
        match trace::replay(config, &steps, Instant::now()) {
            Ok(()) => writeln!(
                out,
                "{}: {} steps in {length:.1} s, every action as recorded",
                path.display(),
                steps.len()
            )?,
            Err(difference) => {
                same = false;
                writeln!(
                    out,
                    "{}: differs after {:.3} s: recorded {}, now {}",
                    path.display(),
                    seconds(difference.ns),
                    named(difference.recorded.as_ref()),
                    named(difference.replayed.as_ref())
                )?;
            }
        }
    }
    Ok(if same {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

fn named(action: Option<&attendant_turn::Action>) -> String {
    action.map_or_else(|| "nothing".to_owned(), |action| format!("{action:?}"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use attendant_turn::{FrameVoice, TurnMachine};

    use super::*;

    /// A caller who says nothing for half a minute.
    fn silent_call() -> Vec<Timed> {
        let start = Instant::now();
        let mut machine = TurnMachine::new(TurnConfig::default(), start);
        machine.keep_trace();
        for tick in 1..1_500 {
            let now = start + Duration::from_millis(20 * tick);
            while machine.poll_action().is_some() {}
            machine.handle_playout(tick < 100, now);
            let voice = FrameVoice {
                speech_prob: 0.013,
                level_dbov: -71.3,
            };
            machine.handle_frame(voice, now);
        }
        machine.take_trace()
    }

    #[test]
    fn a_trace_is_written_read_and_runs_again() {
        let dir = tempfile::tempdir().unwrap();
        let steps = silent_call();
        write(dir.path(), "call", &TurnConfig::default(), &steps).unwrap();
        let path = dir.path().join("call.trace");
        let (config, read_steps) = read(&path).unwrap();
        assert_eq!((config.clone(), &read_steps), (TurnConfig::default(), &steps));
        assert_eq!(trace::replay(config, &read_steps, Instant::now()), Ok(()));

        fs::write(&path, "{}\nnonsense\n").unwrap();
        let error = format!("{:#}", read(&path).unwrap_err());
        assert!(error.contains("line 2"), "{error}");
    }

    #[test]
    fn old_traces_give_way() {
        let dir = tempfile::tempdir().unwrap();
        for n in 0..MOST_TRACES + 5 {
            write(dir.path(), &format!("call-{n:03}"), &TurnConfig::default(), &[]).unwrap();
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), MOST_TRACES);
    }
}
