//! A Piper voice: IPA in, samples out.
//!
//! Two sessions of the model are kept, one for a single thread and one for all threads of this worker, since ONNX
//! Runtime cannot change the number later and a thread that is not wanted costs the other engines their core.

use std::path::Path;

use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;
use piper_rs::{ModelConfig, Piper};
use unicode_normalization::UnicodeNormalization;

/// Largest voice description read [bytes].
const LARGEST_CONFIG: u64 = 4 << 20;

/// Piper's pause symbol. The voices learnt one between the start mark and the first sound, and `piper-rs` leaves it
/// out: the first consonant is swallowed ("Peter is here" is heard as "Eater is here").
const LEAD_IN: &str = "_";

/// Why a voice cannot speak.
#[derive(Debug, thiserror::Error)]
pub enum VoiceError {
    /// Missing or unreadable file.
    #[error("{file}: {source}")]
    Io { file: String, source: std::io::Error },
    /// The description is not that of a Piper voice that we can speak with.
    #[error("{file}: {reason}")]
    Config { file: String, reason: String },
    /// The model cannot be loaded.
    #[error("{file}: not a voice model that ONNX Runtime can load ({reason})")]
    Model { file: String, reason: String },
    /// The model failed while it spoke.
    #[error("voice: {0}")]
    Inference(String),
}

/// A loaded voice.
pub struct Voice {
    single: Piper,
    many: Option<(u32, Piper)>,
    length_scale: f32,
    /// espeak's name of the language.
    pub language: String,
    /// Sample rate of what it speaks [Hz].
    pub rate_hz: u32,
}

impl Voice {
    /// Loads the model and its description for 1 and for `threads` threads.
    ///
    /// # Errors
    /// [`VoiceError`].
    pub fn load(model: &Path, config: &Path, threads: u32) -> Result<Self, VoiceError> {
        let file = config.display().to_string();
        let text = read_config(config).map_err(|source| VoiceError::Io {
            file: file.clone(),
            source,
        })?;
        let parse = || -> Result<ModelConfig, VoiceError> {
            serde_json::from_str(&text).map_err(|e| VoiceError::Config {
                file: file.clone(),
                reason: format!("not the description of a Piper voice ({e})"),
            })
        };
        let description = parse()?;
        if !speaks_ipa(&text) {
            let reason = "its phonemes are not espeak's".to_owned();
            return Err(VoiceError::Config { file, reason });
        }
        let inference = &description.inference;
        if !(inference.length_scale.is_finite() && inference.length_scale > 0.0) {
            let reason = "length_scale must be above 0".to_owned();
            return Err(VoiceError::Config { file, reason });
        }
        let (length_scale, language) = (inference.length_scale, description.espeak.voice.clone());
        let rate_hz = description.audio.sample_rate;
        let many = match threads {
            0 | 1 => None,
            n => Some((n, Piper::from_session(session(model, n)?, parse()?))),
        };
        let single = Piper::from_session(session(model, 1)?, description);
        Ok(Self {
            single,
            many,
            length_scale,
            language,
            rate_hz,
        })
    }

    /// Speaks IPA with punctuation; at most `threads` threads compute.
    ///
    /// # Errors
    /// [`VoiceError::Inference`].
    pub fn speak(&mut self, phonemes: &str, speed: f32, threads: u32) -> Result<Vec<f32>, VoiceError> {
        let piper = match &mut self.many {
            Some((n, many)) if *n <= threads => many,
            _ => &mut self.single,
        };
        // The voices know accents as characters of their own ("ç" as "c" and a cedilla), as Piper itself feeds them.
        let phonemes: String = LEAD_IN.chars().chain(phonemes.nfd()).collect();
        let (samples, _) = piper
            .create(&phonemes, true, None, Some(self.length_scale / speed), None, None)
            .map_err(|e| VoiceError::Inference(e.to_string()))?;
        Ok(samples)
    }
}

fn read_config(path: &Path) -> std::io::Result<String> {
    if std::fs::metadata(path)?.len() > LARGEST_CONFIG {
        return Err(std::io::Error::other("too large for the description of a voice"));
    }
    std::fs::read_to_string(path)
}

/// Piper also has voices that read letters; theirs say so.
fn speaks_ipa(config: &str) -> bool {
    let value: serde_json::Value = serde_json::from_str(config).unwrap_or_default();
    value.get("phoneme_type").is_none_or(|kind| kind == "espeak")
}

fn session(model: &Path, threads: u32) -> Result<Session, VoiceError> {
    build(model, threads).map_err(|e| VoiceError::Model {
        file: model.display().to_string(),
        reason: e.to_string().lines().next().unwrap_or_default().to_owned(),
    })
}

fn build(model: &Path, threads: u32) -> ort::Result<Session> {
    // The runtime's own arena keeps the peak of each session for ever (400 MB for the two instead of 250) and gains 6 %.
    let cpu = ort::ep::CPU::default().with_arena_allocator(false).build();
    Session::builder()?
        .with_execution_providers([cpu])?
        .with_optimization_level(GraphOptimizationLevel::All)?
        .with_intra_threads(threads as usize)?
        .with_inter_threads(1)?
        // A spinning thread takes the core that another engine waits for.
        .with_intra_op_spinning(false)?
        .with_inter_op_spinning(false)?
        // Every part has another length, so a remembered memory plan never fits.
        .with_memory_pattern(false)?
        .commit_from_file(model)
}
