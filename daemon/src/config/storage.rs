//! What is kept on the disk: sections `[recording]` and `[storage]`.

use std::path::PathBuf;

use serde::Deserialize;

/// `[recording]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RecordingSection {
    /// Record calls.
    pub enabled: bool,
    /// Said before the greeting while calls are recorded; empty: nothing.
    pub announce: String,
    /// Days that recordings are kept; `None`: for ever.
    pub keep_days: Option<u32>,
    /// A recording ends at this size [MiB].
    pub max_call_mb: u64,
    /// With this much taken by recordings, no more are begun [MiB].
    pub max_disk_mb: u64,
    /// With less than this left on the disk, none are begun [MiB].
    pub min_free_mb: u64,
}

impl Default for RecordingSection {
    fn default() -> Self {
        Self {
            enabled: false,
            announce: "This call is recorded.".into(),
            keep_days: Some(90),
            max_call_mb: 200,
            max_disk_mb: 20_000,
            min_free_mb: 500,
        }
    }
}

/// `[storage]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StorageSection {
    /// Largest database [MiB]; `None`: as large as the disk.
    pub max_database_mb: Option<u64>,
    /// Directory for backups; `None`: none are made.
    pub backup_dir: Option<PathBuf>,
    /// Hours between two backups.
    pub backup_every_h: u32,
    /// Backups kept.
    pub backup_keep: usize,
    /// Days after which the texts of a call are moved to cold files; `None`: never.
    pub archive_after_days: Option<u32>,
}

impl Default for StorageSection {
    fn default() -> Self {
        Self {
            max_database_mb: None,
            backup_dir: None,
            backup_every_h: 24,
            backup_keep: 7,
            archive_after_days: None,
        }
    }
}
