//! Takes a technician's files into the store: `models add`.

use std::fs::{self, File};
use std::path::Path;

use crate::blobs::{self, Blob};
use crate::catalog::{Kind, Model, Role};
use crate::error::ModelError;
use crate::files::{Installed, ModelStore, Origin, StoredFile, now};
use crate::inspect::{self, Inspected};

impl ModelStore {
    /// Copies a technician's file into the store after checking that an engine here can run it. A file that the
    /// catalog knows gets the catalog's id. Returns the id.
    ///
    /// # Errors
    /// [`ModelError::NotAModel`] with what it is instead; [`ModelError::DiskFull`]; [`ModelError::Io`].
    pub fn add(&mut self, path: &Path) -> Result<String, ModelError> {
        let found = match inspect::inspect(path) {
            Err(refusal @ ModelError::NotAModel { .. }) => match self.pinned_library(path)? {
                Some(model) => Inspected {
                    kind: model.kind,
                    summary: model.title,
                    license: None,
                    languages: Vec::new(),
                    files: vec![(Role::Library, path.to_path_buf())],
                },
                None => return Err(refusal),
            },
            found => found?,
        };
        let _lock = self.lock(|| {})?;
        let size = found
            .files
            .iter()
            .map(|(_, path)| fs::metadata(path).map_or(0, |metadata| metadata.len()))
            .sum();
        self.check_room(size)?;
        let mut files = Vec::new();
        for (role, path) in &found.files {
            let Blob { sha256, size } = self.copy_in(path)?;
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            files.push(StoredFile {
                role: *role,
                name,
                sha256,
                size,
            });
        }
        if let Some(model) = self.catalog_model(&files).cloned() {
            self.register_catalog(&model)?;
            return Ok(model.id);
        }
        if let Some((id, _)) = self
            .index
            .models
            .iter()
            .find(|(_, model)| same_files(&model.files, &files))
        {
            return Ok(id.clone());
        }
        let id = self.free_id(path);
        let installed = Installed {
            kind: found.kind,
            title: found.summary,
            license: found.license,
            languages: found.languages,
            origin: Origin::Added,
            installed_at: now(),
            files,
        };
        self.index.models.insert(id.clone(), installed);
        self.save()?;
        Ok(id)
    }

    fn copy_in(&self, path: &Path) -> Result<Blob, ModelError> {
        let mut from = File::open(path).map_err(ModelError::io("read", path))?;
        let size = from.metadata().map_err(ModelError::io("read", path))?.len();
        let blob = self.blobs.install(&path.display().to_string(), None, |out| {
            std::io::copy(&mut from, &mut &mut *out)
                .map_err(ModelError::io("copy", path))
                .map(drop)
        })?;
        if blob.size != size {
            self.blobs.remove(&blob.sha256)?;
            let reason = format!(
                "only {} of its {size} bytes could be read; is the stick still in?",
                blob.size
            );
            return Err(ModelError::NotAModel {
                path: path.to_path_buf(),
                reason,
            });
        }
        Ok(blob)
    }

    /// The catalog's library that `path` is a copy of; read only if the size fits.
    fn pinned_library(&self, path: &Path) -> Result<Option<Model>, ModelError> {
        let size = fs::metadata(path).map_err(ModelError::io("read", path))?.len();
        let fits = |model: &&Model| model.kind == Kind::Runtime && model.size() == size;
        if !self.catalog.models().iter().any(|model| fits(&model)) {
            return Ok(None);
        }
        let sha256 = blobs::sha256_of(path)?;
        Ok(self.catalog.by_sha256(&sha256).map(|(model, _)| model.clone()))
    }

    /// The catalog's model that consists of exactly these files.
    fn catalog_model(&self, files: &[StoredFile]) -> Option<&Model> {
        self.catalog.models().iter().find(|model| {
            model.files.len() == files.len()
                && model
                    .files
                    .iter()
                    .zip(files)
                    .all(|(want, have)| want.sha256 == have.sha256)
        })
    }

    /// An id made of the file's name that nobody has.
    fn free_id(&self, path: &Path) -> String {
        let stem = path.file_name().unwrap_or_default().to_string_lossy();
        let stem = [".onnx.json", ".onnx", ".gguf", ".bin"]
            .iter()
            .find_map(|extension| stem.strip_suffix(extension))
            .unwrap_or(&stem);
        let plain = |c: char| {
            if c.is_ascii_alphanumeric() || "-_.".contains(c) {
                c
            } else {
                '-'
            }
        };
        let base: String = stem.chars().map(plain).collect();
        let base = base.trim_matches(['.', '-']);
        let base = if base.is_empty() { "model" } else { base };
        let taken = |id: &str| self.index.models.contains_key(id) || self.catalog.get(id).is_some();
        if !taken(base) {
            return base.to_string();
        }
        (2u32..)
            .map(|n| format!("{base}-{n}"))
            .find(|id| !taken(id))
            .unwrap_or_else(|| base.to_string())
    }
}

fn same_files(one: &[StoredFile], other: &[StoredFile]) -> bool {
    one.iter()
        .map(|file| &file.sha256)
        .eq(other.iter().map(|file| &file.sha256))
}
