//! Recordings of calls: begun with the call, sealed at its end, repaired after a power cut, exported by command.
//!
//! A call never waits for its recording and never ends because of it: what goes wrong is logged and stands in the record.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, ensure};
use attendant_record::{End, MasterKey, RecordError, Recorded, Recording, Sum, Track, free_octets};
use attendant_rt::RxFrame;
use attendant_store::{AuditEnd, AuditKind, RecordingKey, RecordingSeal, SessionId, Store, StoreError};
use clap::Subcommand;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::{
    audit::{DataDir, write_out},
    clock,
    config::RecordingSection,
};

/// `attendant recording …`.
#[derive(Debug, Subcommand)]
pub enum RecordingCommand {
    /// Decrypt a recording into a FLAC file: left the caller, right the attendant.
    Export {
        /// Which record.
        #[command(flatten)]
        dir: DataDir,
        /// Its id, or the call's: `attendant recording list`.
        id: String,
        /// File to write; it must not exist.
        file: PathBuf,
    },
    /// List the recordings of a call.
    List {
        /// Which record.
        #[command(flatten)]
        dir: DataDir,
        /// The call's id.
        call: String,
    },
}

/// Does it.
///
/// # Errors
/// In one sentence for people.
pub fn run(command: RecordingCommand) -> anyhow::Result<ExitCode> {
    match command {
        RecordingCommand::Export { dir, id, file } => export(&dir, &id, &file),
        RecordingCommand::List { dir, call } => {
            let store = Store::open_read_only(&dir.path()?)?;
            let session = store
                .session_by_uuid(&call)?
                .context("there is no call of this id")?;
            for recording in store.recordings(session)? {
                let seconds = recording.samples.unwrap_or(0) / 16_000;
                println!("{}  {}  {seconds} s", recording.uuid, recording.state);
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn export(dir: &DataDir, id: &str, file: &PathBuf) -> anyhow::Result<ExitCode> {
    let store = Store::join(&dir.path()?)?;
    let by_call = store
        .session_by_uuid(id)?
        .map(|session| store.recordings(session))
        .transpose()?;
    let uuid = by_call
        .and_then(|all| all.into_iter().next_back())
        .map_or_else(|| id.to_owned(), |recording| recording.uuid);
    let (recording, path) = store
        .recording(&uuid)?
        .context("there is no recording of this id")?;
    ensure!(recording.state != "erased", "this recording was erased");
    ensure!(recording.state == "sealed", "this call is still being recorded");
    let key = MasterKey::new(store.recordings_key()?);
    let what = json!({ "what": "recording", "recording": uuid });
    let begun = store.audit_begin(
        AuditKind::Export,
        Some(recording.session),
        &what,
        clock::unix_ms(),
    )?;
    let mut exported = Err(anyhow::anyhow!("nothing was written"));
    let written = write_out(Some(file), |out| {
        let result = attendant_record::export(&path, &key, out);
        let failed = result.is_err();
        exported = result.map_err(Into::into);
        if failed {
            Err(std::io::Error::other("not exported"))
        } else {
            Ok(())
        }
    });
    let done = match (exported, written) {
        (Ok(done), Ok(())) => Ok(done),
        (Err(error), Err(_)) | (Ok(_), Err(error)) | (Err(error), Ok(())) => Err(error),
    };
    let end = if done.is_ok() {
        AuditEnd::Complete
    } else {
        AuditEnd::Fail
    };
    store.audit_end(begun, end, &json!({}), clock::unix_ms())?;
    let (figures, end) = done?;
    let note = if end == End::Whole {
        ""
    } else {
        "; its end is missing: it was cut off"
    };
    println!(
        "{} s, left the caller, right the attendant{note}",
        figures.length_ms() / 1_000
    );
    Ok(ExitCode::SUCCESS)
}

/// Why a call is not recorded.
#[derive(Debug, thiserror::Error)]
pub enum NotRecorded {
    /// The record.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// No room: make some, or keep recordings for fewer days.
    #[error(
        "recordings take {used_mb} MiB and the disk has {free_mb} MiB left; see [recording] in the configuration"
    )]
    NoRoom {
        /// What they take.
        used_mb: u64,
        /// What is left.
        free_mb: u64,
    },
}

/// The recording of one call.
pub struct CallRecording {
    recording: Recording<i64, NotRecorded>,
    store: Store,
}

impl CallRecording {
    /// Begins it, if that is wanted.
    #[must_use]
    pub fn start(store: &Store, session: SessionId, config: &RecordingSection) -> Option<Self> {
        if !config.enabled {
            return None;
        }
        let (its_store, its_config) = (store.clone(), config.clone());
        let open = move || open(&its_store, session, &its_config);
        match Recording::spawn_with(open, config.max_call_mb << 20) {
            Ok(recording) => Some(Self {
                recording,
                store: store.clone(),
            }),
            Err(error) => {
                tracing::error!(%error, "a call is not recorded");
                None
            }
        }
    }

    /// Takes a frame of both sides; never waits.
    pub fn frame(&self, rx: &RxFrame) {
        self.recording.try_push(rx.at, &rx.frame, &rx.sent);
    }

    /// Ends and seals it. Waits for the disk.
    pub fn finish(self) {
        match self.recording.finish() {
            Some(Ok(recorded)) => seal(&self.store, &recorded),
            Some(Err(error)) => tracing::error!(%error, "a call was not recorded"),
            None => tracing::error!("a recording's thread panicked; the next start repairs its file"),
        }
    }
}

/// Whether there is room for one more.
///
/// # Errors
/// [`NotRecorded`].
pub fn has_room(store: &Store, config: &RecordingSection) -> Result<(), NotRecorded> {
    let used_mb = store.recordings_octets()? >> 20;
    let free_mb = free_octets(store.directory()).map_or(u64::MAX, |octets| octets >> 20);
    if used_mb >= config.max_disk_mb || free_mb < config.min_free_mb {
        return Err(NotRecorded::NoRoom { used_mb, free_mb });
    }
    Ok(())
}

fn open(store: &Store, session: SessionId, config: &RecordingSection) -> Result<(Track, i64), NotRecorded> {
    has_room(store, config)?;
    let now = clock::unix_ms();
    let keep_until = config.keep_days.map(|days| now + i64::from(days) * 86_400_000);
    let master = MasterKey::new(store.recordings_key()?);
    let begun = store.begin_recording(session, keep_until, now)?;
    match Track::create(&begun.path, &master) {
        Ok(track) => Ok((track, begun.id)),
        Err(error) => {
            repair_one(store, &begun, &master)?;
            Err(error.into())
        }
    }
}

fn seal(store: &Store, recorded: &Recorded<i64>) {
    if let Some(error) = &recorded.failed {
        tracing::error!(%error, "a recording ended before its call");
    }
    if recorded.overruns > 0 {
        tracing::error!(
            frames = recorded.overruns,
            "a recording has gaps: the disk was too slow, or it reached its bound"
        );
    }
    let seal = RecordingSeal {
        sha256: recorded.sum.sha256,
        octets: recorded.sum.octets,
        samples: recorded.figures.samples,
        missing: recorded.figures.missing,
        whole: recorded.failed.is_none(),
    };
    if let Err(error) = store.seal_recording(recorded.opened, &seal, clock::unix_ms()) {
        tracing::error!(%error, "a recording could not be sealed; the next start does it");
    }
}

/// Repairs and seals what a stop cut off. Returns how many.
///
/// # Errors
/// [`StoreError`]: the record must be whole before calls are taken.
pub fn recover(store: &Store) -> Result<usize, StoreError> {
    let open = store.open_recordings()?;
    if open.is_empty() {
        return Ok(0);
    }
    let master = MasterKey::new(store.recordings_key()?);
    for begun in &open {
        repair_one(store, begun, &master)?;
    }
    Ok(open.len())
}

fn repair_one(store: &Store, begun: &RecordingKey, master: &MasterKey) -> Result<(), StoreError> {
    let repaired = attendant_record::repair(&begun.path, master)
        // Not even its header: sealed as it is.
        .or_else(|_| attendant_record::sum(&begun.path).map(|sum| (End::Cut { sound: 0 }, sum)));
    let samples = attendant_record::length(&begun.path, master).map_or(0, |(samples, _)| samples);
    // No file at all.
    let (end, sum) = repaired.unwrap_or_else(|_| {
        let nothing = Sum {
            sha256: Sha256::digest([]).into(),
            octets: 0,
        };
        (End::Cut { sound: 0 }, nothing)
    });
    let seal = RecordingSeal {
        sha256: sum.sha256,
        octets: sum.octets,
        samples,
        missing: 0,
        whole: end == End::Whole,
    };
    store.seal_recording(begun.id, &seal, clock::unix_ms())
}
