//! Piper voices: an ONNX network and its JSON description.
//!
//! The network is a protobuf message; walking the fields of the outer message and of its graph is enough to see that
//! nothing is missing and that it takes Piper's inputs.
//! Sources: onnx.proto (ModelProto.graph = 7, GraphProto.input = 11, ValueInfoProto.name = 1); Piper's voice.py.

use std::io::{Read, Seek};

use serde::Deserialize;

use super::source::{Flaw, Source};

/// Descriptions have about 5 kB; a longer file is something else.
pub const MAX_DESCRIPTION_BYTES: u64 = 1 << 20;

const MODEL_GRAPH: u64 = 7;
const GRAPH_INPUT: u64 = 11;
/// Inputs every Piper voice has.
const INPUTS: [&str; 3] = ["input", "input_lengths", "scales"];

/// What a description says.
#[derive(Debug, PartialEq, Eq)]
pub struct Description {
    /// espeak-ng's name of the language that makes the phonemes, e.g. "en-us".
    pub voice: String,
    /// The voice's sampling rate [Hz].
    pub sample_rate_hz: u32,
}

#[derive(Deserialize)]
struct Raw {
    audio: RawAudio,
    espeak: RawEspeak,
    phoneme_id_map: serde_json::Map<String, serde_json::Value>,
    #[serde(default)]
    phoneme_type: Option<String>,
}

#[derive(Deserialize)]
struct RawAudio {
    sample_rate: u32,
}

#[derive(Deserialize)]
struct RawEspeak {
    voice: String,
}

/// Reads a description.
///
/// # Errors
/// [`Flaw::Wrong`] when it is not a Piper voice's, or asks for what the engine cannot do.
pub fn parse_description(text: &str) -> Result<Description, Flaw> {
    let raw: Raw = serde_json::from_str(text)
        .map_err(|error| Flaw::Wrong(format!("it is not a Piper voice's description: {error}")))?;
    if let Some(kind) = raw.phoneme_type.filter(|kind| kind != "espeak") {
        return Err(Flaw::Wrong(format!(
            "the voice wants phonemes of type '{kind}'; only 'espeak' is known"
        )));
    }
    if raw.phoneme_id_map.is_empty() {
        return Err(Flaw::Wrong("its phoneme_id_map is empty".into()));
    }
    if !(8_000..=48_000).contains(&raw.audio.sample_rate) {
        return Err(Flaw::Wrong(format!(
            "a sample rate of {} Hz is out of range",
            raw.audio.sample_rate
        )));
    }
    Ok(Description {
        voice: raw.espeak.voice,
        sample_rate_hz: raw.audio.sample_rate,
    })
}

/// Checks that the network is whole and takes Piper's inputs.
pub(super) fn check_onnx<R: Read + Seek>(mut source: Source<R>) -> Result<(), Flaw> {
    let mut inputs = Vec::new();
    let mut graphs = 0;
    while !source.at_end() {
        let (field, size) = field(&mut source)?;
        if field == MODEL_GRAPH {
            graphs += 1;
            graph(&mut source, size, &mut inputs)?;
        } else {
            source.skip(size)?;
        }
    }
    if graphs != 1 {
        return Err(Flaw::Wrong("it holds no ONNX network".into()));
    }
    match INPUTS
        .iter()
        .find(|name| !inputs.iter().any(|found| found == *name))
    {
        Some(missing) => Err(Flaw::Wrong(format!(
            "its network has no input '{missing}', so it is no Piper voice (inputs: {})",
            inputs.join(", ")
        ))),
        None => Ok(()),
    }
}

fn graph<R: Read + Seek>(source: &mut Source<R>, size: u64, inputs: &mut Vec<String>) -> Result<(), Flaw> {
    let end = source.position().saturating_add(size);
    if end > source.length() {
        return Err(Flaw::CutShort {
            length: source.length(),
            needed: end,
        });
    }
    while source.position() < end {
        let (number, size) = field(source)?;
        if number != GRAPH_INPUT || inputs.len() >= 16 {
            source.skip(size)?;
            continue;
        }
        let input_end = source.position().saturating_add(size);
        let (number, name_size) = field(source)?;
        if number == 1 {
            inputs.push(source.text(name_size, 256)?);
        }
        let rest = input_end.checked_sub(source.position());
        source.skip(rest.ok_or_else(|| Flaw::Wrong("its network is damaged".into()))?)?;
    }
    Ok(())
}

/// The next field's number and how many bytes of it follow; numbers are read on the way (0 bytes follow).
fn field<R: Read + Seek>(source: &mut Source<R>) -> Result<(u64, u64), Flaw> {
    let key = varint(source)?;
    let number = key >> 3;
    match (number, key & 7) {
        (0, _) => Err(Flaw::Wrong("it is no ONNX file, or damaged".into())),
        (_, 0) => varint(source).map(|_| (number, 0)),
        (_, 1) => Ok((number, 8)),
        (_, 2) => varint(source).map(|size| (number, size)),
        (_, 5) => Ok((number, 4)),
        _ => Err(Flaw::Wrong("it is no ONNX file, or damaged".into())),
    }
}

fn varint<R: Read + Seek>(source: &mut Source<R>) -> Result<u64, Flaw> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let [byte] = source.array()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Flaw::Wrong("it is no ONNX file, or damaged".into()))
}

#[cfg(test)]
pub(crate) mod fixture {
    //! A small voice.

    pub const DESCRIPTION: &str = r#"{"audio": {"sample_rate": 22050, "quality": "medium"},
        "espeak": {"voice": "en-us"}, "phoneme_type": "espeak", "phoneme_id_map": {"_": [0]}}"#;

    /// A network with Piper's inputs and some weights.
    pub fn onnx() -> Vec<u8> {
        let mut graph = Vec::new();
        for name in super::INPUTS {
            let mut input = Vec::new();
            message(&mut input, 1, name.as_bytes());
            message(&mut input, 2, &[8, 1]);
            message(&mut graph, 11, &input);
        }
        message(&mut graph, 5, &[0; 300]);
        let mut model = vec![8, 8]; // ir_version
        message(&mut model, 2, b"pytorch");
        message(&mut model, 7, &graph);
        model
    }

    pub fn message(out: &mut Vec<u8>, number: u8, body: &[u8]) {
        out.push(number << 3 | 2);
        let mut size = body.len();
        while size >= 0x80 {
            out.push(size as u8 | 0x80);
            size >>= 7;
        }
        out.push(size as u8);
        out.extend(body);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn check(bytes: &[u8]) -> Result<(), Flaw> {
        check_onnx(Source::new(Cursor::new(bytes), bytes.len() as u64).unwrap())
    }

    #[test]
    fn a_whole_voice_passes() {
        check(&fixture::onnx()).unwrap();
        let description = parse_description(fixture::DESCRIPTION).unwrap();
        assert_eq!(
            description,
            Description {
                voice: "en-us".into(),
                sample_rate_hz: 22_050
            }
        );
    }

    #[test]
    fn another_network_is_refused() {
        let mut graph = Vec::new();
        fixture::message(&mut graph, 11, &[0x0a, 1, b'x']);
        let mut model = Vec::new();
        fixture::message(&mut model, 7, &graph);
        assert!(
            check(&model)
                .unwrap_err()
                .to_string()
                .contains("no input 'input'")
        );
        assert!(check(&[0xff; 40]).is_err());
    }

    #[test]
    fn descriptions_are_checked() {
        for (text, want) in [
            ("{}", "description"),
            ("not json", "description"),
            (
                &*fixture::DESCRIPTION
                    .replace("\"phoneme_type\": \"espeak\"", "\"phoneme_type\": \"pinyin\""),
                "pinyin",
            ),
            (&*fixture::DESCRIPTION.replace("22050", "7"), "7 Hz"),
        ] {
            assert!(
                parse_description(text).unwrap_err().to_string().contains(want),
                "{text}"
            );
        }
    }
}
