//! GGUF: header, metadata and tensor table of a language model.
//!
//! ```text
//! "GGUF" | u32 version | u64 tensors | u64 pairs | pairs × (str key, u32 type, value)
//!        | tensors × (str name, u32 rank, rank × u64 extent, u32 type, u64 offset) | padding | data
//! ```
//! Source: ggml's docs/gguf.md, versions 2 and 3.

use std::io::{Read, Seek};

use super::source::{Flaw, Source};

/// More than any model has; bounds what a damaged count can make us do.
const MAX_TENSORS: u64 = 100_000;
const MAX_PAIRS: u64 = 100_000;
const MAX_ITEMS: u64 = 16_000_000;
const MAX_NAME_BYTES: u64 = 64 * 1024;

/// What the header says.
#[derive(Debug, Default)]
pub struct Gguf {
    /// `general.architecture`, e.g. "qwen2".
    pub architecture: String,
    /// `general.name`.
    pub name: Option<String>,
    /// `general.license`.
    pub license: Option<String>,
    /// Trained context [tokens].
    pub context: Option<u64>,
    /// Whether it knows how a conversation is written down.
    pub chat_template: bool,
    /// Files the model was split into.
    pub parts: u64,
    /// Number of weights.
    pub weights: u64,
    alignment: u64,
}

/// Reads the header and checks that every tensor lies inside the file.
///
/// # Errors
/// [`Flaw`]: cut short, another version, or damaged.
pub fn parse<R: Read + Seek>(mut source: Source<R>) -> Result<Gguf, Flaw> {
    source.skip(4)?;
    let version = source.u32()?;
    if !(2..=3).contains(&version) {
        return Err(Flaw::Wrong(format!(
            "it is GGUF version {version}; versions 2 and 3 can be read"
        )));
    }
    let tensors = bounded(source.u64()?, MAX_TENSORS, "tensors")?;
    let pairs = bounded(source.u64()?, MAX_PAIRS, "metadata entries")?;
    let mut model = Gguf {
        parts: 1,
        alignment: 32,
        ..Gguf::default()
    };
    for _ in 0..pairs {
        let length = source.u64()?;
        let key = source.text(length, MAX_NAME_BYTES)?;
        let value = value(&mut source)?;
        model.note(&key, value);
    }
    if model.architecture.is_empty() {
        return Err(Flaw::Wrong(
            "it names no architecture: it holds no language model".into(),
        ));
    }
    let end = tensor_table(&mut source, tensors, &mut model)?;
    let data = source
        .position()
        .next_multiple_of(model.alignment.clamp(1, 1 << 20));
    let needed = data.saturating_add(end);
    if needed > source.length() {
        return Err(Flaw::CutShort {
            length: source.length(),
            needed,
        });
    }
    if tensors == 0 {
        return Err(Flaw::Wrong("it has no weights in it".into()));
    }
    Ok(model)
}

impl Gguf {
    fn note(&mut self, key: &str, value: Value) {
        match (key, value) {
            ("general.architecture", Value::Text(text)) => self.architecture = text,
            ("general.name", Value::Text(text)) => self.name = Some(text),
            ("general.license", Value::Text(text)) => self.license = Some(text),
            ("general.alignment", Value::Number(number)) => self.alignment = number,
            ("split.count", Value::Number(number)) => self.parts = number,
            ("tokenizer.chat_template", Value::Text(text)) => self.chat_template = !text.is_empty(),
            (key, Value::Number(number)) if key.ends_with(".context_length") => self.context = Some(number),
            _ => {}
        }
    }
}

enum Value {
    Text(String),
    Number(u64),
    Other,
}

fn value<R: Read + Seek>(source: &mut Source<R>) -> Result<Value, Flaw> {
    let kind = source.u32()?;
    match kind {
        4 => Ok(Value::Number(u64::from(source.u32()?))),
        10 => Ok(Value::Number(source.u64()?)),
        2 => Ok(Value::Number(u64::from(u16::from_le_bytes(source.array()?)))),
        8 => {
            let length = source.u64()?;
            // Only chat templates are long; of those the first part is enough.
            let kept = length.min(MAX_NAME_BYTES);
            let text = source.text(kept, MAX_NAME_BYTES)?;
            source.skip(length - kept)?;
            Ok(Value::Text(text))
        }
        9 => {
            let item = source.u32()?;
            let count = bounded(source.u64()?, MAX_ITEMS, "list items")?;
            if item == 8 {
                for _ in 0..count {
                    let length = source.u64()?;
                    source.skip(length)?;
                }
            } else {
                source.skip(count.saturating_mul(width(item)?))?;
            }
            Ok(Value::Other)
        }
        _ => source.skip(width(kind)?).map(|()| Value::Other),
    }
}

fn width(kind: u32) -> Result<u64, Flaw> {
    match kind {
        0 | 1 | 7 => Ok(1),
        2 | 3 => Ok(2),
        4..=6 => Ok(4),
        10..=12 => Ok(8),
        _ => Err(Flaw::Wrong(format!(
            "it is damaged: metadata type {kind} does not exist"
        ))),
    }
}

/// Reads the tensor table; returns where the last tensor ends, counted from the start of the data.
fn tensor_table<R: Read + Seek>(source: &mut Source<R>, tensors: u64, model: &mut Gguf) -> Result<u64, Flaw> {
    let mut end = 0u64;
    for _ in 0..tensors {
        let length = source.u64()?;
        let name = source.text(length, MAX_NAME_BYTES)?;
        let rank = source.u32()?;
        if rank > 4 {
            return Err(Flaw::Wrong(format!(
                "it is damaged: tensor '{name}' has {rank} dimensions"
            )));
        }
        let mut weights = 1u64;
        for _ in 0..rank {
            weights = weights.saturating_mul(source.u64()?);
        }
        let kind = source.u32()?;
        let offset = source.u64()?;
        // A type newer than this table cannot be measured: at least its start must be inside.
        let (block, bytes) = block_of(kind).unwrap_or((u64::MAX, 0));
        end = end.max(offset.saturating_add((weights / block).saturating_mul(bytes)));
        model.weights = model.weights.saturating_add(weights);
    }
    Ok(end)
}

/// Weights and bytes per block of a ggml type. Source: ggml.h `ggml_type`, ggml-common.h.
fn block_of(kind: u32) -> Option<(u64, u64)> {
    Some(match kind {
        0 | 26 => (1, 4),
        1 | 25 | 30 => (1, 2),
        2 | 20 => (32, 18),
        3 => (32, 20),
        6 => (32, 22),
        7 => (32, 24),
        8 => (32, 34),
        9 => (32, 36),
        10 => (256, 84),
        11 | 21 => (256, 110),
        12 => (256, 144),
        13 => (256, 176),
        14 => (256, 210),
        15 => (256, 292),
        16 | 35 => (256, 66),
        17 => (256, 74),
        18 => (256, 98),
        19 => (256, 50),
        22 => (256, 82),
        23 => (256, 136),
        24 => (1, 1),
        27 | 28 => (1, 8),
        29 => (256, 56),
        34 => (256, 54),
        39 => (32, 17),
        _ => return None,
    })
}

fn bounded(count: u64, limit: u64, what: &str) -> Result<u64, Flaw> {
    if count > limit {
        return Err(Flaw::Wrong(format!(
            "it is damaged: {count} {what} are impossible"
        )));
    }
    Ok(count)
}

#[cfg(test)]
pub(crate) mod fixture {
    //! Small GGUF files.

    /// A chat model with one tensor of 64 q8_0 weights.
    pub fn chat() -> Vec<u8> {
        file(true, 3)
    }

    /// The same without a chat template.
    pub fn base() -> Vec<u8> {
        file(false, 3)
    }

    pub fn file(template: bool, version: u32) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(version.to_le_bytes());
        out.extend(1u64.to_le_bytes());
        out.extend((4 + u64::from(template)).to_le_bytes());
        text_pair(&mut out, "general.architecture", "qwen2");
        text_pair(&mut out, "general.name", "Little");
        text(&mut out, "qwen2.context_length");
        out.extend(4u32.to_le_bytes());
        out.extend(4096u32.to_le_bytes());
        text(&mut out, "tokenizer.ggml.tokens");
        out.extend(9u32.to_le_bytes());
        out.extend(8u32.to_le_bytes());
        out.extend(2u64.to_le_bytes());
        text(&mut out, "a");
        text(&mut out, "bc");
        if template {
            text_pair(&mut out, "tokenizer.chat_template", "{{ messages }}");
        }
        text(&mut out, "token_embd.weight");
        out.extend(2u32.to_le_bytes());
        out.extend(32u64.to_le_bytes());
        out.extend(2u64.to_le_bytes());
        out.extend(8u32.to_le_bytes());
        out.extend(0u64.to_le_bytes());
        out.resize(out.len().next_multiple_of(32) + 68, 7);
        out
    }

    fn text_pair(out: &mut Vec<u8>, key: &str, value: &str) {
        text(out, key);
        out.extend(8u32.to_le_bytes());
        text(out, value);
    }

    fn text(out: &mut Vec<u8>, text: &str) {
        out.extend((text.len() as u64).to_le_bytes());
        out.extend(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn parse_bytes(bytes: &[u8]) -> Result<Gguf, Flaw> {
        parse(Source::new(Cursor::new(bytes), bytes.len() as u64).unwrap())
    }

    #[test]
    fn reads_what_a_technician_wants_to_know() {
        let model = parse_bytes(&fixture::chat()).unwrap();
        assert_eq!(model.architecture, "qwen2");
        assert_eq!(model.name.as_deref(), Some("Little"));
        assert_eq!(model.context, Some(4096));
        assert_eq!(model.weights, 64);
        assert!(model.chat_template);
        assert!(!parse_bytes(&fixture::base()).unwrap().chat_template);
    }

    #[test]
    fn a_missing_last_byte_is_noticed() {
        let bytes = fixture::chat();
        assert!(matches!(
            parse_bytes(&bytes[..bytes.len() - 1]),
            Err(Flaw::CutShort { .. })
        ));
    }

    #[test]
    fn wild_counts_are_refused_at_once() {
        let mut bytes = fixture::chat();
        bytes[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(matches!(parse_bytes(&bytes), Err(Flaw::Wrong(_))));
        assert!(matches!(
            parse_bytes(&fixture::file(true, 1)),
            Err(Flaw::Wrong(_))
        ));
    }
}
