//! The model store: which models are installed, where their files are, and which the custom profile uses.
//!
//! ```text
//! DIR/index.json      what is installed (replaced whole)          DIR/.lock      held while anything changes
//! DIR/blobs/SHA256    the files (see `blobs`)                     DIR/downloads  packages until they are assembled
//! ```
//! Reading needs no lock: files never change, and the index is replaced by rename.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::blobs::{self, Blobs};
use crate::catalog::{Catalog, Kind, Model, Profile, Role, Slots};
use crate::error::ModelError;
use crate::listing::State;

/// Where models are kept: `$ATTENDANT_MODELS_DIR`, else the service's state directory, else `/var/lib/attendant/models`
/// if it exists, else the user's cache.
pub fn default_dir() -> PathBuf {
    let system = Path::new("/var/lib/attendant/models");
    default_dir_from(
        |name| std::env::var(name).ok().filter(|value| !value.is_empty()),
        system,
    )
}

fn default_dir_from(var: impl Fn(&str) -> Option<String>, system: &Path) -> PathBuf {
    if let Some(dir) = var("ATTENDANT_MODELS_DIR") {
        return dir.into();
    }
    // systemd separates several directories by colons; ours is the first.
    if let Some(dirs) = var("STATE_DIRECTORY") {
        return Path::new(dirs.split(':').next().unwrap_or(&dirs)).join("models");
    }
    if system.is_dir() {
        return system.to_path_buf();
    }
    let cache = var("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| var("HOME").map(|home| Path::new(&home).join(".cache")));
    cache.map_or_else(|| system.to_path_buf(), |cache| cache.join("attendant/models"))
}

/// The store; cheap to open.
#[derive(Debug)]
pub struct ModelStore {
    pub(crate) dir: PathBuf,
    pub(crate) catalog: Catalog,
    pub(crate) blobs: Blobs,
    pub(crate) index: Index,
}

/// `index.json`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Index {
    version: u32,
    /// Slots of the custom profile that were chosen.
    #[serde(default)]
    pub custom: BTreeMap<Kind, String>,
    #[serde(default)]
    pub models: BTreeMap<String, Installed>,
}

/// An installed model.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Installed {
    /// What it is for.
    pub kind: Kind,
    /// One line for people.
    pub title: String,
    /// SPDX, where known.
    pub license: Option<String>,
    /// ISO 639 codes, where known.
    pub languages: Vec<String>,
    /// How it came here.
    pub origin: Origin,
    /// When [s since 1970].
    pub installed_at: u64,
    /// Its files.
    pub files: Vec<StoredFile>,
}

/// A file of an installed model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredFile {
    /// What part it plays.
    pub role: Role,
    /// Its usual name.
    pub name: String,
    /// [hex]
    pub sha256: String,
    /// [bytes]
    pub size: u64,
}

/// How a model came into the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// Pinned by the catalog.
    Catalog,
    /// Given by a technician.
    Added,
}

/// The files a profile runs on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// Speech to text.
    pub stt: ModelFile,
    /// Language model.
    pub llm: ModelFile,
    /// Voice.
    pub voice: Voice,
    /// Library the voice runs on.
    pub onnxruntime: PathBuf,
}

/// A model of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFile {
    /// Its id.
    pub id: String,
    /// Its file.
    pub path: PathBuf,
}

/// A voice's two files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Voice {
    /// Its id.
    pub id: String,
    /// The network.
    pub onnx: PathBuf,
    /// The description.
    pub json: PathBuf,
}

/// Held while the store changes; released when dropped, also by a crash.
#[derive(Debug)]
pub(crate) struct StoreLock(#[expect(dead_code, reason = "the open file is the lock")] File);

impl ModelStore {
    /// Opens the store in `dir`, which need not exist yet.
    ///
    /// # Errors
    /// [`ModelError::Index`] or [`ModelError::Io`] when its index cannot be read.
    pub fn open(dir: impl Into<PathBuf>) -> Result<ModelStore, ModelError> {
        ModelStore::with_catalog(dir.into(), Catalog::built_in()?)
    }

    pub(crate) fn with_catalog(dir: PathBuf, catalog: Catalog) -> Result<ModelStore, ModelError> {
        let index = read_index(&dir.join("index.json"))?;
        Ok(ModelStore {
            blobs: Blobs::new(&dir),
            dir,
            catalog,
            index,
        })
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What can be fetched.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// The models of `profile`: for [`Profile::Custom`] what was chosen, and for the rest what the standard profile
    /// uses, or the small one while that is not installed.
    ///
    /// # Errors
    /// [`ModelError::Catalog`], never with the built-in one.
    pub fn slots(&self, profile: Profile) -> Result<Slots, ModelError> {
        let ready = |profile| {
            let missing = || ModelError::Catalog(format!("profile {profile} is missing"));
            self.catalog.slots(profile).cloned().ok_or_else(missing)
        };
        if profile != Profile::Custom {
            return ready(profile);
        }
        let standard = ready(Profile::Standard)?;
        let complete = [&standard.stt, &standard.llm, &standard.voice]
            .iter()
            .all(|id| self.state_of(id) == State::Installed);
        let base = if complete {
            standard
        } else {
            ready(Profile::Small)?
        };
        let chosen = |kind, base: String| self.index.custom.get(&kind).cloned().unwrap_or(base);
        Ok(Slots {
            stt: chosen(Kind::Stt, base.stt),
            llm: chosen(Kind::Llm, base.llm),
            voice: chosen(Kind::Voice, base.voice),
        })
    }

    /// The files `profile` runs on; quick, checks presence and size only.
    ///
    /// # Errors
    /// [`ModelError::NotInstalled`] with the command that installs what is missing; [`ModelError::Damaged`].
    pub fn resolve(&self, profile: Profile) -> Result<Resolved, ModelError> {
        let slots = self.slots(profile)?;
        let runtime = self.runtime_id();
        let ids = [&slots.stt, &slots.llm, &slots.voice, &runtime];
        let missing: Vec<&str> = ids
            .iter()
            .map(|id| id.as_str())
            .filter(|id| !self.index.models.contains_key(*id))
            .collect();
        if !missing.is_empty() {
            return Err(self.not_installed(profile, &missing));
        }
        let file = |id: &str| -> Result<ModelFile, ModelError> {
            Ok(ModelFile {
                id: id.to_string(),
                path: self.file(id, Role::Model)?,
            })
        };
        Ok(Resolved {
            stt: file(&slots.stt)?,
            llm: file(&slots.llm)?,
            voice: Voice {
                onnx: self.file(&slots.voice, Role::Onnx)?,
                json: self.file(&slots.voice, Role::Json)?,
                id: slots.voice,
            },
            onnxruntime: self.file(&runtime, Role::Library)?,
        })
    }

    /// Ids that `profile` needs, with the library for processor `arch`.
    ///
    /// # Errors
    /// [`ModelError::Catalog`], never with the built-in one.
    pub fn ids_of(&self, profile: Profile, arch: &str) -> Result<Vec<String>, ModelError> {
        let slots = self.slots(profile)?;
        let runtime = self.catalog.runtime(arch).map(|model| model.id.clone());
        Ok([slots.voice, slots.stt, slots.llm]
            .into_iter()
            .chain(runtime)
            .collect())
    }

    /// Makes the custom profile use `id` in the slot of its kind.
    ///
    /// # Errors
    /// [`ModelError::NotHere`], [`ModelError::UnknownModel`] or [`ModelError::NotSelectable`].
    pub fn use_(&mut self, id: &str) -> Result<Kind, ModelError> {
        let _lock = self.lock(|| {})?;
        let kind = self.installed(id)?.kind;
        if kind == Kind::Runtime {
            return Err(ModelError::NotSelectable {
                id: id.into(),
                kind: kind.to_string(),
            });
        }
        self.index.custom.insert(kind, id.to_string());
        self.save()?;
        Ok(kind)
    }

    /// Deletes a model; files that another model shares stay. Returns the bytes freed.
    ///
    /// # Errors
    /// [`ModelError::NotHere`], or [`ModelError::InUse`] by the custom profile.
    pub fn remove(&mut self, id: &str) -> Result<u64, ModelError> {
        let _lock = self.lock(|| {})?;
        let files = self.installed(id)?.files.clone();
        if self.index.custom.values().any(|used| used == id) {
            return Err(ModelError::InUse { id: id.into() });
        }
        self.index.models.remove(id);
        // The index first: a crash in between leaves a file too many, never a model without its file.
        self.save()?;
        let kept: HashSet<&String> = self
            .index
            .models
            .values()
            .flat_map(|model| &model.files)
            .map(|file| &file.sha256)
            .collect();
        let mut freed = 0;
        for file in files.iter().filter(|file| !kept.contains(&file.sha256)) {
            self.blobs.remove(&file.sha256)?;
            freed += file.size;
        }
        Ok(freed)
    }

    /// The installed model of that id.
    ///
    /// # Errors
    /// [`ModelError::NotHere`] if it could be fetched, [`ModelError::UnknownModel`] if nobody knows it.
    pub fn installed(&self, id: &str) -> Result<&Installed, ModelError> {
        match self.index.models.get(id) {
            Some(installed) => Ok(installed),
            None if self.catalog.get(id).is_some() => {
                let command = self.command(&format!("fetch {id}"));
                Err(ModelError::NotHere {
                    id: id.into(),
                    command,
                })
            }
            None => Err(self.unknown(id)),
        }
    }

    /// Records a catalog model whose files are all in place.
    pub(crate) fn register_catalog(&mut self, model: &Model) -> Result<(), ModelError> {
        let files = model.files.iter().map(|file| StoredFile {
            role: file.role,
            name: file.name.clone(),
            sha256: file.sha256.clone(),
            size: file.size,
        });
        let installed = Installed {
            kind: model.kind,
            title: model.title.clone(),
            license: Some(model.license.clone()),
            languages: model.languages.clone(),
            origin: Origin::Catalog,
            installed_at: now(),
            files: files.collect(),
        };
        self.index.models.insert(model.id.clone(), installed);
        self.save()
    }

    /// Takes the store's lock and reads the index again; calls `waiting` once if somebody else holds it.
    pub(crate) fn lock(&mut self, waiting: impl FnOnce()) -> Result<StoreLock, ModelError> {
        fs::create_dir_all(&self.dir).map_err(ModelError::io("create", &self.dir))?;
        let path = self.dir.join(".lock");
        let file = File::create(&path).map_err(ModelError::io("create", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                waiting();
                file.lock().map_err(ModelError::io("lock", &path))?;
            }
            Err(TryLockError::Error(error)) => return Err(ModelError::io("lock", &path)(error)),
        }
        self.index = read_index(&self.dir.join("index.json"))?;
        self.blobs.sweep();
        Ok(StoreLock(file))
    }

    pub(crate) fn unknown(&self, id: &str) -> ModelError {
        let added = self
            .index
            .models
            .keys()
            .filter(|id| self.catalog.get(id).is_none());
        let known = added.fold(self.catalog.known(), |known, id| known + ", " + id);
        ModelError::UnknownModel { id: id.into(), known }
    }

    pub(crate) fn state_of(&self, id: &str) -> State {
        match self.index.models.get(id) {
            None => State::Available,
            Some(model)
                if model
                    .files
                    .iter()
                    .all(|file| self.blobs.has(&file.sha256, file.size)) =>
            {
                State::Installed
            }
            Some(_) => State::Damaged,
        }
    }

    /// Refuses when fewer than `needed` bytes and a little are free.
    pub(crate) fn check_room(&self, needed: u64) -> Result<(), ModelError> {
        /// Left for the system: logs and the record of calls.
        const RESERVE_BYTES: u64 = 64 << 20;
        let Ok(stat) = rustix::fs::statvfs(&self.dir) else {
            return Ok(()); // a file system that does not say; writing will tell
        };
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        if needed.saturating_add(RESERVE_BYTES) > free {
            let (needed, free) = (crate::progress::bytes(needed), crate::progress::bytes(free));
            return Err(ModelError::DiskFull {
                dir: self.dir.clone(),
                needed,
                free,
            });
        }
        Ok(())
    }

    fn file(&self, id: &str, role: Role) -> Result<PathBuf, ModelError> {
        let installed = self.installed(id)?;
        let damaged = |path: PathBuf, reason: &str| ModelError::Damaged {
            id: id.into(),
            path,
            reason: reason.into(),
        };
        let Some(file) = installed.files.iter().find(|file| file.role == role) else {
            return Err(damaged(self.dir.join("index.json"), "names no file for it"));
        };
        let path = self.blobs.path(&file.sha256);
        if !path.is_file() {
            return Err(damaged(path, "is gone"));
        }
        if !self.blobs.has(&file.sha256, file.size) {
            return Err(damaged(path, "has the wrong size"));
        }
        Ok(path)
    }

    pub(crate) fn runtime_id(&self) -> String {
        let arch = std::env::consts::ARCH;
        self.catalog
            .runtime(arch)
            .map_or_else(|| format!("onnxruntime-{arch}"), |model| model.id.clone())
    }

    fn not_installed(&self, profile: Profile, missing: &[&str]) -> ModelError {
        let by_hand = missing.iter().any(|id| self.catalog.get(id).is_none());
        let what = match profile {
            _ if by_hand => "add FILE".to_string(),
            Profile::Custom => format!("fetch {}", missing.join(" ")),
            Profile::Small | Profile::Standard => format!("fetch --profile {profile}"),
        };
        ModelError::NotInstalled {
            profile: profile.to_string(),
            dir: self.dir.clone(),
            missing: missing.join(", "),
            command: self.command(&what),
        }
    }

    /// The command line for `what`, with the directory where it is not the usual one.
    fn command(&self, what: &str) -> String {
        if self.dir == default_dir() && std::env::var_os("ATTENDANT_MODELS_DIR").is_none() {
            format!("attendant models {what}")
        } else {
            format!(
                "ATTENDANT_MODELS_DIR={} attendant models {what}",
                self.dir.display()
            )
        }
    }

    pub(crate) fn save(&mut self) -> Result<(), ModelError> {
        self.index.version = INDEX_VERSION;
        let path = self.dir.join("index.json");
        let mut text = serde_json::to_vec_pretty(&self.index).map_err(|error| ModelError::Index {
            path: path.clone(),
            reason: error.to_string(),
        })?;
        text.push(b'\n');
        blobs::replace(&path, &text)
    }
}

const INDEX_VERSION: u32 = 1;

fn read_index(path: &Path) -> Result<Index, ModelError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Index::default()),
        Err(error) => return Err(ModelError::io("read", path)(error)),
    };
    let fail = |reason: String| ModelError::Index {
        path: path.to_path_buf(),
        reason,
    };
    let index: Index = serde_json::from_slice(&text).map_err(|error| fail(error.to_string()))?;
    if index.version > INDEX_VERSION {
        return Err(fail(format!(
            "version {} is newer than this program",
            index.version
        )));
    }
    Ok(index)
}

pub(crate) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
