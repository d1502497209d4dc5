//! Audit: what the daemon notes about itself, and the commands for whoever checks the record.

use std::{
    fs,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Instant,
};

use anyhow::Context;
use attendant_store::{AuditEnd, AuditKind, AuditSeq, Checkpoint, Store, StoreError};
use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::{clock, config::Config};

/// Refusals are noted at most this often; those in between are counted [ms].
const REFUSAL_EVERY_MS: i64 = 1_000;
/// Entries read at once.
const PAGE: u32 = 1_000;

/// The data directory a command works on.
#[derive(Debug, Args)]
pub struct DataDir {
    /// Data directory; without it the configuration's.
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// Configuration file; without it /etc/attendant/attendant.toml if it exists, else the defaults.
    #[arg(short, long, env = "ATTENDANT_CONFIG")]
    config: Option<PathBuf>,
}

impl DataDir {
    /// The directory.
    ///
    /// # Errors
    /// When the configuration is wrong.
    pub fn path(&self) -> anyhow::Result<PathBuf> {
        match &self.data_dir {
            Some(dir) => Ok(dir.clone()),
            None => Ok(Config::load(self.config.as_deref())?.data_dir()),
        }
    }
}

/// `attendant audit …`.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Check that nothing was changed, removed or put elsewhere; names the first that was. Works beside a running daemon.
    Verify {
        /// Which record.
        #[command(flatten)]
        dir: DataDir,
        /// A checkpoint that was kept elsewhere; `-` reads it from the keyboard.
        #[arg(long)]
        checkpoint: Option<PathBuf>,
        /// For machines.
        #[arg(long)]
        json: bool,
    },
    /// Print where the chain stands, signed: to be kept on paper or on a USB stick.
    Checkpoint {
        /// Which record.
        #[command(flatten)]
        dir: DataDir,
        /// File to write; without it to the screen.
        file: Option<PathBuf>,
    },
    /// Write all entries, one JSON object a line.
    Export {
        /// Which record.
        #[command(flatten)]
        dir: DataDir,
        /// First entry wanted.
        #[arg(long, default_value_t = 1)]
        from: i64,
        /// File to write; without it to the screen.
        file: Option<PathBuf>,
    },
}

/// Does it.
///
/// # Errors
/// In one sentence for people.
pub fn run(command: AuditCommand) -> anyhow::Result<ExitCode> {
    match command {
        AuditCommand::Verify {
            dir,
            checkpoint,
            json,
        } => verify(&dir, checkpoint, json),
        AuditCommand::Checkpoint { dir, file } => {
            let store = Store::open_read_only(&dir.path()?)?;
            let checkpoint = store
                .checkpoint()?
                .context("the chain has no entry yet; it begins when the daemon first runs")?;
            write_out(file.as_ref(), |out| write!(out, "{checkpoint}"))?;
            Ok(ExitCode::SUCCESS)
        }
        AuditCommand::Export { dir, from, file } => export(&dir, from, file.as_ref()),
    }
}

fn verify(dir: &DataDir, checkpoint: Option<PathBuf>, as_json: bool) -> anyhow::Result<ExitCode> {
    let given = match checkpoint {
        Some(path) if path.as_os_str() == "-" => Some(Checkpoint::parse(&io::read_to_string(io::stdin())?)?),
        Some(path) => {
            let text = fs::read_to_string(&path)
                .with_context(|| format!("the checkpoint {} cannot be read", path.display()))?;
            Some(Checkpoint::parse(&text)?)
        }
        None => None,
    };
    let store = Store::open_read_only(&dir.path()?)?;
    let started = Instant::now();
    let seen = store.verify(given.as_ref())?;
    let elapsed_ms = started.elapsed().as_millis();
    let findings: Vec<String> = seen.findings.iter().map(ToString::to_string).collect();
    if as_json {
        println!(
            "{}",
            json!({
                "sound": seen.is_sound(), "entries": seen.entries, "sessions": seen.sessions, "turns": seen.turns, "recordings": seen.recordings,
                "erased": seen.erased, "open": seen.open, "checkpoints": seen.checkpoints, "elapsed_ms": elapsed_ms,
                "findings": findings, "more": seen.more,
            })
        );
    } else {
        for finding in &findings {
            println!("FAILED  {finding}");
        }
        if seen.more > 0 {
            println!("FAILED  and {} more", seen.more);
        }
        println!(
            "{}  {} entries, {} sessions, {} turns, {} recordings, {} checkpoints compared in {elapsed_ms} ms; {} begun and not ended, \
             {} erased",
            if seen.is_sound() { "ok    " } else { "      " },
            seen.entries,
            seen.sessions,
            seen.turns,
            seen.recordings,
            seen.checkpoints,
            seen.open,
            seen.erased,
        );
        if seen.is_sound() && given.is_none() {
            println!(
                "        Nobody with this box's key could hide a change from a checkpoint kept elsewhere: \
                 `attendant audit checkpoint`"
            );
        }
    }
    Ok(if seen.is_sound() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn export(dir: &DataDir, from: i64, file: Option<&PathBuf>) -> anyhow::Result<ExitCode> {
    let store = Store::join(&dir.path()?)?;
    let what = json!({ "what": "audit", "from": from.max(1) });
    let begun = store.audit_begin(AuditKind::Export, None, &what, clock::unix_ms())?;
    let written = write_out(file, |out| {
        let mut after = AuditSeq::new(from.max(1) - 1);
        loop {
            let page = store.audit_entries(after, PAGE).map_err(io::Error::other)?;
            let Some(last) = page.last() else {
                return Ok(());
            };
            after = last.seq;
            for entry in &page {
                serde_json::to_writer(&mut *out, entry)?;
                out.write_all(b"\n")?;
            }
        }
    });
    let end = if written.is_ok() {
        AuditEnd::Complete
    } else {
        AuditEnd::Fail
    };
    store.audit_end(begun, end, &json!({}), clock::unix_ms())?;
    written?;
    Ok(ExitCode::SUCCESS)
}

/// Writes to a new file, made for this user alone, or to the screen. An existing file is left alone.
///
/// # Errors
/// In one sentence for people.
pub fn write_out(
    file: Option<&PathBuf>,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> anyhow::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let Some(path) = file else {
        let mut out = io::BufWriter::new(io::stdout().lock());
        return Ok(write(&mut out).and_then(|()| out.flush())?);
    };
    let cannot = || format!("{} cannot be written; it must not exist yet", path.display());
    let file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(cannot)?;
    let mut out = io::BufWriter::new(file);
    write(&mut out).with_context(cannot)?;
    let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all().with_context(cannot)?;
    Ok(())
}

/// What the daemon notes about itself.
#[derive(Clone)]
pub struct Notes {
    store: Store,
    refusals: Arc<Refusals>,
}

#[derive(Default)]
struct Refusals {
    noted_ms: AtomicI64,
    since: AtomicU64,
}

impl Notes {
    /// Notes go to `store`.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self {
            store,
            refusals: Arc::default(),
        }
    }

    /// The daemon starts, with these settings.
    ///
    /// # Errors
    /// [`StoreError`]: a record that cannot be written is no record.
    pub fn started(&self, config: &Config) -> Result<(), StoreError> {
        let now = clock::unix_ms();
        let version = env!("CARGO_PKG_VERSION");
        self.store.audit_note(
            AuditKind::Daemon,
            None,
            &json!({ "event": "started", "version": version }),
            now,
        )?;
        // Secrets are not in it: their `Debug` hides them.
        let sha256 = format!("{:x}", Sha256::digest(format!("{config:?}")));
        let settings = json!({ "profile": config.profile().to_string(), "sha256": sha256 });
        self.store.audit_note(AuditKind::Settings, None, &settings, now)?;
        Ok(())
    }

    /// The daemon stops, as it should.
    pub async fn stopped(&self) {
        self.note(AuditKind::Daemon, json!({ "event": "stopped" })).await;
        let store = self.store.clone();
        let _ = tokio::task::spawn_blocking(move || store.keep_checkpoint()).await;
    }

    /// A call was refused. A flood of them must not fill the disk: they are counted between two notes.
    pub async fn refused(&self, reason: &'static str) {
        let now = clock::unix_ms();
        let noted = self.refusals.noted_ms.load(Ordering::Relaxed);
        let due = now.saturating_sub(noted) >= REFUSAL_EVERY_MS || now < noted;
        let mine = due
            && self
                .refusals
                .noted_ms
                .compare_exchange(noted, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if !mine {
            self.refusals.since.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let others = self.refusals.since.swap(0, Ordering::Relaxed);
        let payload = json!({ "reason": reason, "others_since": others });
        self.note(AuditKind::Refusal, payload).await;
    }

    async fn note(&self, kind: AuditKind, payload: impl Serialize + Send + 'static) {
        let store = self.store.clone();
        let noted =
            tokio::task::spawn_blocking(move || store.audit_note(kind, None, &payload, clock::unix_ms()))
                .await;
        match noted {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::error!(%error, "the audit chain could not be written"),
            Err(error) => tracing::error!(%error, "the audit chain could not be written"),
        }
    }
}
