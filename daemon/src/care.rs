//! Care of the record while the daemon runs: checkpoints, retention, backups, a disk that was full; and the commands for
//! backups and for the data of one person.

use std::{
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use attendant_store::{AuditEnd, AuditKind, Store, mask};
use clap::Subcommand;
use serde_json::json;

use crate::{
    audit::{DataDir, write_out},
    clock,
    config::{Config, StorageSection},
};

/// How often it is looked at what is due.
const TICK: Duration = Duration::from_secs(10);
/// Between two kept checkpoints, and two looks for recordings whose time is over.
const HOURLY: Duration = Duration::from_secs(3_600);
/// A record up to this size is checked for damage before the first call, which takes a second or two; a larger one while
/// calls are taken \[octets\].
pub const CHECK_BEFORE_CALLS: u64 = 256 << 20;
/// A session driven by another program ends without a sign of life for this long [ms].
const SILENCE_MS: i64 = 90_000;
/// Backups kept when nothing else is said.
const KEEP: usize = 7;

/// Looks after the record until dropped.
pub async fn run(store: Store, config: Arc<Config>) {
    if store.octets() > CHECK_BEFORE_CALLS
        && let Err(error) = on_disk(&store, Store::check_integrity).await
    {
        tracing::error!(%error, "the record is damaged: stop the daemon and restore a backup (attendant restore)");
    }
    let mut tick = tokio::time::interval(TICK);
    let (mut hourly, mut backed_up) = (None::<Instant>, Instant::now());
    loop {
        tick.tick().await;
        if !store.is_writable() {
            match on_disk(&store, |store| store.probe()).await {
                Ok(()) => tracing::info!("the record can be written again: calls are taken"),
                Err(error) => tracing::error!(%error, "the record cannot be written: calls are refused"),
            }
            continue;
        }
        match on_disk(&store, |store| store.reap(SILENCE_MS, clock::unix_ms())).await {
            Ok(expired) if expired.is_empty() => {}
            Ok(expired) => tracing::warn!(
                sessions = expired.len(),
                "sessions expired: their programs gave no sign of life"
            ),
            Err(error) => tracing::error!(%error, "silent sessions could not be ended"),
        }
        if hourly.is_none_or(|at| at.elapsed() >= HOURLY) {
            hourly = Some(Instant::now());
            if let Err(error) = on_disk(&store, |store| store.keep_checkpoint().map(drop)).await {
                tracing::error!(%error, "a checkpoint could not be kept");
            }
            if let Err(error) = on_disk(&store, |store| {
                store.erase_expired_recordings(clock::unix_ms()).map(drop)
            })
            .await
            {
                tracing::error!(%error, "recordings whose time is over could not be erased");
            }
        }
        let StorageSection {
            backup_dir: Some(dir),
            backup_every_h,
            backup_keep,
            ..
        } = &config.storage
        else {
            continue;
        };
        if backed_up.elapsed() >= HOURLY * *backup_every_h {
            backed_up = Instant::now();
            let (dir, keep) = (dir.clone(), *backup_keep);
            match on_disk(&store, move |store| store.backup(&dir, keep, clock::unix_ms())).await {
                Ok(made) => tracing::info!(
                    octets = made.octets,
                    entries = made.entries,
                    "backup made and verified"
                ),
                Err(error) => tracing::error!(%error, "no backup could be made"),
            }
        }
    }
}

async fn on_disk<T: Send + 'static>(
    store: &Store,
    work: impl FnOnce(&Store) -> Result<T, attendant_store::StoreError> + Send + 'static,
) -> anyhow::Result<T> {
    let store = store.clone();
    Ok(tokio::task::spawn_blocking(move || work(&store)).await??)
}

/// `attendant backup`.
#[derive(Debug, clap::Args)]
pub struct BackupArgs {
    /// Which record.
    #[command(flatten)]
    dir: DataDir,
    /// How many to keep in the directory.
    #[arg(long, default_value_t = KEEP)]
    keep: usize,
    /// Directory to write to: a USB stick, another disk.
    to: PathBuf,
}

/// Makes a backup, beside a running daemon or without one.
///
/// # Errors
/// In one sentence for people.
pub fn backup(args: &BackupArgs) -> anyhow::Result<ExitCode> {
    let store = Store::join(&args.dir.path()?)?;
    let made = store.backup(&args.to, args.keep, clock::unix_ms())?;
    println!(
        "{}: {} MiB, {} entries verified; {} older removed\n\
         Keys and recordings are no part of it: copy audit.key, recordings.key and recordings/ apart, to another place.",
        made.path.display(),
        made.octets.div_ceil(1 << 20),
        made.entries,
        made.removed
    );
    Ok(ExitCode::SUCCESS)
}

/// `attendant restore`.
#[derive(Debug, clap::Args)]
pub struct RestoreArgs {
    /// Which record.
    #[command(flatten)]
    dir: DataDir,
    /// The backup.
    file: PathBuf,
}

/// Puts a backup in the place of the record; the daemon must be stopped.
///
/// # Errors
/// In one sentence for people.
pub fn restore(args: &RestoreArgs) -> anyhow::Result<ExitCode> {
    let (aside, seen) = Store::restore(&args.dir.path()?, &args.file, clock::unix_ms())?;
    if let Some(head) = &seen.head {
        println!("the backup's chain ended so:\n{head}");
    }
    println!(
        "restored: {} calls, {} turns, {} entries verified",
        seen.sessions, seen.turns, seen.entries
    );
    if let Some(aside) = aside {
        println!("what was there before is kept as {}", aside.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// `attendant person …`.
#[derive(Debug, Subcommand)]
pub enum PersonCommand {
    /// Write everything that is kept of a caller, as JSON.
    Export {
        /// Which record.
        #[command(flatten)]
        dir: DataDir,
        /// Hide numbers and digits.
        #[arg(long)]
        masked: bool,
        /// The caller's number as it stands in the record.
        number: String,
        /// File to write; it must not exist. Without it to the screen.
        file: Option<PathBuf>,
    },
    /// Erase what is kept of a caller: numbers, texts, recordings. The audit chain goes on verifying.
    Erase {
        /// Which record.
        #[command(flatten)]
        dir: DataDir,
        /// The caller's number as it stands in the record.
        number: String,
    },
    /// Keep a call from being erased, or no longer.
    Hold {
        /// Which record.
        #[command(flatten)]
        dir: DataDir,
        /// Why; without it the hold ends.
        #[arg(long)]
        reason: Option<String>,
        /// The call's id.
        call: String,
    },
}

/// Does it.
///
/// # Errors
/// In one sentence for people.
pub fn person(command: PersonCommand) -> anyhow::Result<ExitCode> {
    match command {
        PersonCommand::Export {
            dir,
            masked,
            number,
            file,
        } => {
            let store = Store::join(&dir.path()?)?;
            let what = json!({ "what": "a caller's data", "masked": masked });
            let begun = store.audit_begin(AuditKind::Export, None, &what, clock::unix_ms())?;
            let written = store
                .personal_records(&number)
                .map_err(anyhow::Error::from)
                .and_then(|records| {
                    let mut value = serde_json::to_value(records)?;
                    if masked {
                        mask::json(&mut value);
                    }
                    write_out(file.as_ref(), |out| {
                        serde_json::to_writer_pretty(&mut *out, &value)?;
                        out.write_all(b"\n")
                    })
                });
            let end = if written.is_ok() {
                AuditEnd::Complete
            } else {
                AuditEnd::Fail
            };
            store.audit_end(begun, end, &json!({}), clock::unix_ms())?;
            written?;
        }
        PersonCommand::Erase { dir, number } => {
            ensure!(
                !number.trim().is_empty(),
                "whose data? Give the number as it stands in the record"
            );
            let store = Store::join(&dir.path()?)?;
            let done = store.erase_caller(&number, clock::unix_ms())?;
            println!(
                "{} calls and {} recordings erased; kept: {} on legal hold, {} in progress\n\
                 Backups made before still hold them until they are rotated away.",
                done.sessions, done.recordings, done.held, done.running
            );
        }
        PersonCommand::Hold { dir, reason, call } => {
            let store = Store::join(&dir.path()?)?;
            let session = store
                .session_by_uuid(&call)?
                .context("there is no call of this id")?;
            store.hold(session, reason.as_deref(), clock::unix_ms())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
