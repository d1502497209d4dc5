//! Speech: where a caller's utterances come from: a voice of this machine, or a recording.
//!
//! | Voice | From |
//! |---|---|
//! | `piper` | the attendant's own voice, through a TTS worker of ours |
//! | `flite[:NAME]` | the distribution's flite, e.g. `flite:rms` |
//! | `espeak[:NAME]` | the distribution's espeak-ng, e.g. `espeak:en-gb` |

use std::{
    fmt, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    str::FromStr,
};

use attendant_media::{MediaError, wav};

use super::{
    engine::{Engine, EngineError},
    measure::level_dbov,
    workers::{Models, ModelsError},
};

/// Level that spoken utterances are brought to [dBov]: a clear voice on a good line.
const SPEECH_DBOV: f64 = -19.0;
/// Longest text of one utterance [bytes].
const MAX_TEXT: usize = 2_000;
/// flite's voice when none is named.
const FLITE_VOICE: &str = "slt";
/// espeak-ng's voice when none is named.
const ESPEAK_VOICE: &str = "en-us";

/// Why there is no speech.
#[derive(Debug, thiserror::Error)]
pub enum SpeechError {
    /// Not a voice: show what is.
    #[error("'{0}' is no voice. Accepted: piper, flite, flite:NAME, espeak, espeak:NAME")]
    UnknownVoice(String),
    /// The program of a voice is missing or refuses.
    #[error("cannot speak with {voice}: {message}. {hint}")]
    Program {
        /// The voice.
        voice: Voice,
        /// What went wrong.
        message: String,
        /// What to do.
        hint: String,
    },
    /// Nothing is left of the text, or it is too long.
    #[error("cannot speak {0}")]
    Text(&'static str),
    /// The Piper worker.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Models for the Piper worker.
    #[error(transparent)]
    Models(#[from] ModelsError),
    /// A recording that cannot be read.
    #[error("{path}: {source}")]
    Recording {
        /// The file.
        path: PathBuf,
        /// Why.
        source: MediaError,
    },
}

/// A voice to speak with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Voice {
    /// The attendant's own.
    Piper,
    /// flite, with the name of one of its voices.
    Flite(String),
    /// espeak-ng, with the name of one of its voices.
    Espeak(String),
}

impl FromStr for Voice {
    type Err = SpeechError;

    fn from_str(text: &str) -> Result<Self, SpeechError> {
        let (kind, name) = text
            .split_once(':')
            .map_or((text, None), |(kind, name)| (kind, Some(name)));
        // Names become arguments of programs.
        let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '+');
        let bad = name.is_some_and(|n| n.is_empty() || n.starts_with('-') || !n.chars().all(fine));
        match (kind, name) {
            ("piper", None) => Ok(Self::Piper),
            ("flite", name) if !bad => Ok(Self::Flite(name.unwrap_or(FLITE_VOICE).to_owned())),
            ("espeak" | "espeak-ng", name) if !bad => {
                Ok(Self::Espeak(name.unwrap_or(ESPEAK_VOICE).to_owned()))
            }
            _ => Err(SpeechError::UnknownVoice(text.to_owned())),
        }
    }
}

impl fmt::Display for Voice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Piper => f.write_str("piper"),
            Self::Flite(name) => write!(f, "flite:{name}"),
            Self::Espeak(name) => write!(f, "espeak:{name}"),
        }
    }
}

impl Voice {
    /// Whether its program is installed; Piper is taken to be.
    #[must_use]
    pub fn is_installed(&self) -> bool {
        let program = match self {
            Self::Piper => return true,
            Self::Flite(_) => "flite",
            Self::Espeak(_) => "espeak-ng",
        };
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
    }

    /// A caller's voice on this machine: rather another one than the attendant's own.
    #[must_use]
    pub fn preferred() -> Self {
        let others = [
            Self::Flite(FLITE_VOICE.to_owned()),
            Self::Espeak(ESPEAK_VOICE.to_owned()),
        ];
        others.into_iter().find(Self::is_installed).unwrap_or(Self::Piper)
    }
}

/// Speaks with any voice; starts a Piper worker when it is first asked for.
#[derive(Debug)]
pub struct Speaker<'a> {
    models: &'a Models,
    piper: Option<Engine>,
}

impl<'a> Speaker<'a> {
    /// A speaker whose Piper voice comes from `models`.
    #[must_use]
    pub fn new(models: &'a Models) -> Self {
        Self { models, piper: None }
    }

    /// `text` as 16 kHz mono, at a telephone's usual level.
    ///
    /// # Errors
    /// [`SpeechError`].
    pub fn say(&mut self, voice: &Voice, text: &str) -> Result<Vec<i16>, SpeechError> {
        let text = text.trim();
        match text.len() {
            0 => return Err(SpeechError::Text("an empty text")),
            1..=MAX_TEXT => {}
            _ => return Err(SpeechError::Text("more than 2000 bytes at once")),
        }
        let mut pcm = match voice {
            Voice::Piper => self.piper()?.speak(text)?,
            Voice::Flite(name) => {
                let args = ["-voice", name, "-t", text, "-o", "/dev/stdout"];
                run(
                    voice,
                    "flite",
                    &args,
                    "Install it (apt-get install flite) or choose --voice espeak or piper",
                )?
            }
            Voice::Espeak(name) => {
                let args = ["-v", name, "-s", "155", "--stdout", "--", text];
                run(
                    voice,
                    "espeak-ng",
                    &args,
                    "Install it (apt-get install espeak-ng) or choose --voice piper",
                )?
            }
        };
        bring_to_level(&mut pcm);
        Ok(pcm)
    }

    fn piper(&mut self) -> Result<&mut Engine, SpeechError> {
        match &mut self.piper {
            Some(engine) => Ok(engine),
            empty => Ok(empty.insert(self.models.tts()?)),
        }
    }
}

/// A recording as 16 kHz mono, at its own level.
///
/// # Errors
/// [`SpeechError::Recording`].
pub fn recording(path: &Path) -> Result<Vec<i16>, SpeechError> {
    let wav = wav::read(path).map_err(|source| SpeechError::Recording {
        path: path.to_owned(),
        source,
    })?;
    Ok(wav.to_16k())
}

fn run(voice: &Voice, program: &str, args: &[&str], hint: &str) -> Result<Vec<i16>, SpeechError> {
    let failed = |message: String| SpeechError::Program {
        voice: voice.clone(),
        message,
        hint: hint.to_owned(),
    };
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| failed(explain(&e, program)))?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr);
        return Err(failed(
            message
                .lines()
                .next()
                .unwrap_or("it failed without a word")
                .to_owned(),
        ));
    }
    let wav = wav::parse(&output.stdout).map_err(|e| failed(e.to_string()))?;
    Ok(wav.to_16k())
}

fn explain(error: &io::Error, program: &str) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => format!("{program} is not installed"),
        _ => error.to_string(),
    }
}

/// Scales speech so that its loud parts reach [`SPEECH_DBOV`].
fn bring_to_level(pcm: &mut [i16]) {
    let mut levels: Vec<f64> = pcm.chunks(160).map(level_dbov).collect();
    levels.sort_by(f64::total_cmp);
    let Some(loud) = levels
        .get(levels.len() * 85 / 100)
        .filter(|level| **level > -80.0)
    else {
        return;
    };
    let gain = 10f64.powf((SPEECH_DBOV - loud) / 20.0);
    for sample in pcm {
        *sample = (f64::from(*sample) * gain).clamp(-32_768.0, 32_767.0) as i16;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn voices_have_names() {
        for (text, want) in [
            ("piper", Some("piper")),
            ("flite", Some("flite:slt")),
            ("flite:rms", Some("flite:rms")),
            ("espeak-ng:en-gb", Some("espeak:en-gb")),
            ("espeak:en-us+f3", Some("espeak:en-us+f3")),
            ("espeak:", None),
            ("flite:-o", None),
            ("flite:../x", None),
            ("piper:joe", None),
            ("alexa", None),
        ] {
            let got = text.parse::<Voice>().ok().map(|voice| voice.to_string());
            assert_eq!(got.as_deref(), want, "{text}");
        }
    }

    #[test]
    fn speech_is_brought_to_a_level() {
        let mut pcm: Vec<i16> = (0..16_000)
            .map(|i| ((f64::from(i) * 0.3).sin() * 500.0) as i16)
            .collect();
        bring_to_level(&mut pcm);
        assert!(
            (level_dbov(&pcm) - SPEECH_DBOV).abs() < 1.0,
            "{}",
            level_dbov(&pcm)
        );
        let mut silence = vec![0; 100];
        bring_to_level(&mut silence);
        assert_eq!(silence, [0; 100]);
    }

    #[test]
    fn installed_voices_speak() {
        let models = Models::default();
        let mut speaker = Speaker::new(&models);
        for voice in ["flite:slt", "espeak:en-us"] {
            let voice: Voice = voice.parse().unwrap();
            if voice.is_installed() {
                let pcm = speaker.say(&voice, "Good morning.").unwrap();
                assert!((8_000..40_000).contains(&pcm.len()), "{voice}: {}", pcm.len());
            }
        }
        assert!(speaker.say(&Voice::Piper, " ").is_err());
    }
}
