//! What the store holds, for people: `models list` and `models verify`.

use serde::Serialize;

use crate::catalog::{Kind, Model, Profile, Slots};
use crate::error::ModelError;
use crate::files::{ModelStore, Origin};

/// A line of `models list`.
#[derive(Debug, Clone, Serialize)]
pub struct Listing {
    /// Short name.
    pub id: String,
    /// What it is for.
    pub kind: Kind,
    /// One line for people.
    pub title: String,
    /// All its files [bytes].
    pub size: u64,
    /// SPDX, where known.
    pub license: Option<String>,
    /// What a careful reader should know about that licence.
    pub license_note: Option<String>,
    /// ISO 639 codes, where known.
    pub languages: Vec<String>,
    /// When to choose it; only for models of the catalog.
    pub good_for: Option<String>,
    /// Memory of its engine [MiB]; only for models of the catalog.
    pub memory_mb: Option<u32>,
    /// Whether it is here.
    pub state: State,
    /// Profiles that use it.
    pub profiles: Vec<String>,
}

/// Whether a model is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// All its files are here.
    Installed,
    /// Can be fetched.
    Available,
    /// A file is gone or has another size.
    Damaged,
}

/// What `verify` found about one model.
#[derive(Debug, Clone, Serialize)]
pub struct Verified {
    /// The model.
    pub id: String,
    /// How it came here, which decides how to repair it.
    pub origin: Origin,
    /// What is wrong; nothing if it is sound.
    pub problem: Option<String>,
}

impl ModelStore {
    /// All models: installed ones and those that can be fetched for this processor.
    ///
    /// # Errors
    /// [`ModelError::Catalog`], never with the built-in one.
    pub fn list(&self) -> Result<Vec<Listing>, ModelError> {
        let mut slots = Vec::new();
        for profile in [Profile::Small, Profile::Standard, Profile::Custom] {
            if profile != Profile::Custom || !self.index.custom.is_empty() {
                slots.push((profile.to_string(), self.slots(profile)?));
            }
        }
        let runtime = self.runtime_id();
        let profiles_of = |id: &str| -> Vec<String> {
            let uses = |slots: &Slots| {
                [&slots.stt, &slots.llm, &slots.voice, &runtime]
                    .iter()
                    .any(|used| *used == id)
            };
            slots
                .iter()
                .filter(|(_, slots)| uses(slots))
                .map(|(name, _)| name.clone())
                .collect()
        };
        let here = |model: &&Model| {
            model
                .arch
                .as_deref()
                .is_none_or(|arch| arch == std::env::consts::ARCH)
                || self.index.models.contains_key(&model.id)
        };
        let mut lines: Vec<Listing> = self
            .catalog
            .models()
            .iter()
            .filter(here)
            .map(|model| Listing {
                id: model.id.clone(),
                kind: model.kind,
                title: model.title.clone(),
                size: model.size(),
                license: Some(model.license.clone()),
                license_note: model.license_note.clone(),
                languages: model.languages.clone(),
                good_for: Some(model.good_for.clone()),
                memory_mb: Some(model.memory_mb),
                state: self.state_of(&model.id),
                profiles: profiles_of(&model.id),
            })
            .collect();
        for (id, installed) in &self.index.models {
            if self.catalog.get(id).is_none() {
                lines.push(Listing {
                    id: id.clone(),
                    kind: installed.kind,
                    title: installed.title.clone(),
                    size: installed.files.iter().map(|file| file.size).sum(),
                    license: installed.license.clone(),
                    license_note: None,
                    languages: installed.languages.clone(),
                    good_for: None,
                    memory_mb: None,
                    state: self.state_of(id),
                    profiles: profiles_of(id),
                });
            }
        }
        lines.sort_by_key(|line| line.kind);
        Ok(lines)
    }

    /// Reads every installed file and compares checksums; `begin` is told each model first.
    ///
    /// # Errors
    /// [`ModelError::Io`] when a file that is there cannot be read.
    pub fn verify(&self, mut begin: impl FnMut(&str, u64)) -> Result<Vec<Verified>, ModelError> {
        let mut results = Vec::new();
        for (id, installed) in &self.index.models {
            begin(id, installed.files.iter().map(|file| file.size).sum());
            let mut problem = None;
            for file in &installed.files {
                let path = self.blobs.path(&file.sha256);
                if !path.exists() {
                    problem = Some(format!("{} is gone", file.name));
                } else if !self.blobs.is_intact(&file.sha256, file.size)? {
                    problem = Some(format!("{} ({}) has changed", file.name, path.display()));
                }
            }
            results.push(Verified {
                id: id.clone(),
                origin: installed.origin,
                problem,
            });
        }
        Ok(results)
    }
}
