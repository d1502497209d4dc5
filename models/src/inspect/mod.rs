//! What kind of model a file is, and whether it is whole: for files from a technician's USB stick.
//!
//! ```text
//! "GGUF"       -> language model   header, chat template, every tensor inside the file
//! "lmgg"       -> Whisper          sizes, vocabulary, every tensor inside the file
//! NAME.onnx    -> Piper voice      protobuf whole, inputs as Piper's, NAME.onnx.json beside it
//! all else     -> refused, with what it seems to be
//! ```
//! Only headers are read and every length is checked before use, so no file can make this read or allocate much.

pub mod gguf;
pub mod piper;
mod source;
pub mod whisper;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

pub use source::Flaw;
use source::Source;

use crate::catalog::Kind;
use crate::error::ModelError;

/// A recognised, whole model.
#[derive(Debug)]
pub struct Inspected {
    /// What it is for.
    pub kind: Kind,
    /// One line for people: architecture, size, language.
    pub summary: String,
    /// Licence named inside the file.
    pub license: Option<String>,
    /// Languages named inside the file, as ISO 639 codes; empty if it does not say.
    pub languages: Vec<String>,
    /// The files that make it up, with the role each plays.
    pub files: Vec<(Role, PathBuf)>,
}

pub use crate::catalog::Role;

/// Recognises `path` and checks that it is whole.
///
/// # Errors
/// [`ModelError::NotAModel`] with what it is instead or where it breaks off; [`ModelError::Io`] if unreadable.
pub fn inspect(path: &Path) -> Result<Inspected, ModelError> {
    let path = onnx_of(path);
    let metadata = std::fs::metadata(&path).map_err(ModelError::io("read", &path))?;
    let refuse = |reason: String| ModelError::NotAModel {
        path: path.clone(),
        reason,
    };
    if metadata.is_dir() {
        return Err(refuse("it is a directory; name the model file in it".into()));
    }
    let mut file = File::open(&path).map_err(ModelError::io("read", &path))?;
    let mut start = Vec::new();
    file.by_ref()
        .take(512)
        .read_to_end(&mut start)
        .map_err(ModelError::io("read", &path))?;
    let source = Source::new(file, metadata.len()).map_err(ModelError::io("read", &path))?;
    let is_onnx = path
        .extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("onnx"));
    let inspected = match start.get(..4) {
        Some(b"GGUF") => gguf::parse(source).and_then(|model| language_model(&path, &model)),
        Some(b"lmgg") => whisper::parse_source(source).map(|model| speech_model(&path, &model)),
        _ if is_onnx => return voice(&path, source),
        _ => return Err(refuse(format!("{}. {ACCEPTED}", seems(&start)))),
    };
    inspected.map_err(|flaw| refuse(flaw.to_string()))
}

/// What `models add` takes.
const ACCEPTED: &str = "Accepted are a language model (.gguf), a whisper.cpp model (ggml-….bin) \
                        and a Piper voice (.onnx with its .onnx.json beside it)";

/// A voice named by its description stands for the voice.
fn onnx_of(path: &Path) -> PathBuf {
    match path.to_str().and_then(|text| text.strip_suffix(".onnx.json")) {
        Some(stem) => PathBuf::from(format!("{stem}.onnx")),
        None => path.to_path_buf(),
    }
}

fn language_model(path: &Path, model: &gguf::Gguf) -> Result<Inspected, Flaw> {
    if model.parts > 1 {
        return Err(Flaw::Wrong(format!(
            "it is one of {} parts of a split model; join them first with llama-gguf-split --merge",
            model.parts
        )));
    }
    if !model.chat_template {
        return Err(Flaw::Wrong(format!(
            "the {} model in it has no chat template, so it continues text instead of answering; \
             an 'instruct' or 'chat' model is needed",
            model.architecture
        )));
    }
    let name = model.name.as_deref().unwrap_or("no name");
    Ok(Inspected {
        kind: Kind::Llm,
        summary: format!(
            "{name}, {}, {:.1} billion weights, context {}",
            model.architecture,
            model.weights as f64 / 1e9,
            model
                .context
                .map_or("unknown".into(), |tokens| tokens.to_string()),
        ),
        license: model.license.clone(),
        languages: Vec::new(),
        files: vec![(Role::Model, path.to_path_buf())],
    })
}

fn speech_model(path: &Path, model: &whisper::Whisper) -> Inspected {
    Inspected {
        kind: Kind::Stt,
        summary: format!("Whisper {}, {}", model.size_name(), model.storage_name()),
        license: None,
        languages: if model.is_multilingual() {
            Vec::new()
        } else {
            vec!["en".into()]
        },
        files: vec![(Role::Model, path.to_path_buf())],
    }
}

fn voice(path: &Path, source: Source<File>) -> Result<Inspected, ModelError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".json");
    let json = PathBuf::from(name);
    let refuse = |flaw: Flaw| ModelError::NotAModel {
        path: path.to_path_buf(),
        reason: flaw.to_string(),
    };
    piper::check_onnx(source).map_err(refuse)?;
    let text = match std::fs::metadata(&json) {
        Ok(metadata) if metadata.len() > piper::MAX_DESCRIPTION_BYTES => {
            return Err(refuse(Flaw::Wrong(format!(
                "{} is too large for a voice's description",
                json.display()
            ))));
        }
        Ok(_) => std::fs::read_to_string(&json).map_err(ModelError::io("read", &json))?,
        Err(_) => {
            return Err(refuse(Flaw::Wrong(format!(
                "a Piper voice needs its description beside it, and there is no {}",
                json.display()
            ))));
        }
    };
    let description = piper::parse_description(&text).map_err(|flaw| ModelError::NotAModel {
        path: json.clone(),
        reason: flaw.to_string(),
    })?;
    Ok(Inspected {
        kind: Kind::Voice,
        summary: format!(
            "Piper voice, {}, {} Hz",
            description.voice, description.sample_rate_hz
        ),
        license: None,
        languages: vec![
            description
                .voice
                .split('-')
                .next()
                .unwrap_or_default()
                .to_string(),
        ],
        files: vec![(Role::Onnx, path.to_path_buf()), (Role::Json, json)],
    })
}

/// What a file that is no model looks like, for the message.
fn seems(start: &[u8]) -> &'static str {
    let text = start.trim_ascii_start();
    let old_llama = [b"tjgg", b"fmgg", b"algg"]
        .iter()
        .any(|magic| start.starts_with(*magic));
    match start {
        [] => "it is empty",
        _ if start.starts_with(b"version https://git-lfs") => {
            "it is a Git LFS pointer, not the file itself; fetch the real file"
        }
        _ if text.starts_with(b"<!") || text.starts_with(b"<html") => {
            "it is a web page, probably saved instead of the file"
        }
        _ if start.starts_with(b"PK") => "it is a zip archive or a PyTorch model",
        _ if start.starts_with(&[0x1f, 0x8b]) => "it is a gzip archive; unpack it first",
        _ if start.starts_with(&[0xfd, b'7', b'z']) => "it is an xz archive; unpack it first",
        _ if start.starts_with(b"\x7fELF") => "it is a program or library",
        _ if old_llama => "it is in llama.cpp's old format; a GGUF file is needed",
        _ if start.get(8..10) == Some(b"{\"") => "it is a safetensors model; a GGUF file is needed",
        _ if text.starts_with(b"{") => "it is a JSON file",
        _ => "it is no kind of model known here",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert;

    fn write(dir: &Path, name: &str, bytes: &[u8]) -> PathBuf {
        let path = dir.join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    #[test]
    fn recognises_each_kind() {
        let dir = tempfile::tempdir().unwrap();
        let llm = inspect(&write(dir.path(), "a.gguf", &gguf::fixture::chat())).unwrap();
        assert_eq!(llm.kind, Kind::Llm);
        assert!(llm.summary.contains("Little"), "{}", llm.summary);
        let ggml = convert::whisper_to_ggml(&convert::tests::tiny_ct2(), convert::tests::VOCABULARY).unwrap();
        assert_eq!(
            inspect(&write(dir.path(), "b.bin", &ggml)).unwrap().kind,
            Kind::Stt
        );
        let onnx = write(dir.path(), "c.onnx", &piper::fixture::onnx());
        let json = write(dir.path(), "c.onnx.json", piper::fixture::DESCRIPTION.as_bytes());
        for path in [&onnx, &json] {
            let voice = inspect(path).unwrap();
            assert_eq!(voice.kind, Kind::Voice);
            assert_eq!(voice.languages, ["en"]);
            assert_eq!(
                voice.files,
                [(Role::Onnx, onnx.clone()), (Role::Json, json.clone())]
            );
        }
    }

    #[test]
    fn refuses_every_truncation() {
        let dir = tempfile::tempdir().unwrap();
        let ggml = convert::whisper_to_ggml(&convert::tests::tiny_ct2(), convert::tests::VOCABULARY).unwrap();
        write(
            dir.path(),
            "cut.onnx.json",
            piper::fixture::DESCRIPTION.as_bytes(),
        );
        for (name, bytes) in [
            ("cut.gguf", gguf::fixture::chat()),
            ("cut.bin", ggml),
            ("cut.onnx", piper::fixture::onnx()),
        ] {
            let step = (bytes.len() / 97).max(1);
            for length in (0..bytes.len()).step_by(step).chain([bytes.len() - 1]) {
                let path = write(dir.path(), name, &bytes[..length]);
                let error = inspect(&path).expect_err(&format!("{name} cut to {length}"));
                assert!(matches!(error, ModelError::NotAModel { .. }), "{error}");
            }
        }
    }

    #[test]
    fn no_changed_byte_makes_it_panic() {
        let dir = tempfile::tempdir().unwrap();
        let ggml = convert::whisper_to_ggml(&convert::tests::tiny_ct2(), convert::tests::VOCABULARY).unwrap();
        write(
            dir.path(),
            "odd.onnx.json",
            piper::fixture::DESCRIPTION.as_bytes(),
        );
        for (name, bytes) in [
            ("odd.gguf", gguf::fixture::chat()),
            ("odd.bin", ggml),
            ("odd.onnx", piper::fixture::onnx()),
        ] {
            for at in (4..bytes.len().min(500)).step_by(5) {
                for value in [0x00, 0x7f, 0xff] {
                    let mut odd = bytes.clone();
                    odd[at] = value;
                    // Whether it is still a model does not matter here.
                    let _ = inspect(&write(dir.path(), name, &odd));
                }
            }
        }
    }

    #[test]
    fn says_what_a_wrong_file_is() {
        let dir = tempfile::tempdir().unwrap();
        let cases: &[(&str, &[u8], &str)] = &[
            ("empty.gguf", b"", "empty"),
            ("page.gguf", b"<!DOCTYPE html><html>", "web page"),
            ("weights.pt", b"PK\x03\x04....", "zip archive"),
            (
                "pointer.gguf",
                b"version https://git-lfs.github.com/spec/v1",
                "Git LFS",
            ),
            (
                "x.safetensors",
                b"\x10\0\0\0\0\0\0\0{\"__metadata__\"",
                "safetensors",
            ),
            ("lib.so", b"\x7fELF\x02\x01", "program or library"),
            ("noise.bin", &[0x55; 300], "no kind of model"),
        ];
        for (name, bytes, want) in cases {
            let message = inspect(&write(dir.path(), name, bytes)).unwrap_err().to_string();
            assert!(message.contains(want), "{name}: {message}");
        }
        assert!(inspect(dir.path()).unwrap_err().to_string().contains("directory"));
        assert!(matches!(
            inspect(&dir.path().join("none")),
            Err(ModelError::Io { .. })
        ));
    }

    #[test]
    fn a_voice_without_its_description_says_which_file_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let path = write(dir.path(), "joe.onnx", &piper::fixture::onnx());
        assert!(inspect(&path).unwrap_err().to_string().contains("joe.onnx.json"));
    }

    #[test]
    fn a_base_model_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = write(dir.path(), "base.gguf", &gguf::fixture::base());
        assert!(inspect(&path).unwrap_err().to_string().contains("chat template"));
    }
}
