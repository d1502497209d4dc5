//! Phrase book: every stock phrase, synthesised before the first call and kept on disk.
//!
//! With it a caller is greeted at once, and hears an apology while an engine is down.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use attendant_dialog::{Phrases, spoken};
use attendant_models::{
    client::{EngineError, Engines, Priority, SpeakRequest},
    protocol::{bytes_to_pcm, pcm_to_bytes},
};
use attendant_turn::Phrase;
use sha2::{Digest, Sha256};

/// Longest a phrase may take to be synthesised.
const DEADLINE: Duration = Duration::from_secs(20);

/// Text and 16 kHz mono audio of a phrase.
pub type Spoken = (String, Arc<Vec<i16>>);

/// Why the book could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PhraseError {
    /// The voice failed: no call can be answered.
    #[error("cannot synthesise the stock phrases: {0}")]
    Voice(#[from] EngineError),
    /// The cache cannot be written: disk full or rights.
    #[error("cannot keep the stock phrases in {path}: {source}")]
    Cache {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// All stock phrases as audio.
#[derive(Debug, Default)]
pub struct PhraseBook {
    spoken: HashMap<Phrase, Spoken>,
    /// Texts that are no stock phrases.
    texts: HashMap<String, Arc<Vec<i16>>>,
}

impl PhraseBook {
    /// Synthesises what is not in the cache `dir` yet; `voice` names the voice, so that another one makes new files.
    /// `more` are texts beside the stock phrases.
    ///
    /// # Errors
    /// [`PhraseError`].
    pub async fn make(
        engines: &Engines,
        phrases: &Phrases,
        warnings_s: &[u32],
        more: Vec<String>,
        voice: &str,
        dir: &Path,
    ) -> Result<Self, PhraseError> {
        fs::create_dir_all(dir).map_err(|source| PhraseError::Cache {
            path: dir.to_owned(),
            source,
        })?;
        let mut book = Self::default();
        for (phrase, text) in texts(phrases, warnings_s) {
            let pcm = Arc::new(speak(engines, &text, voice, dir).await?);
            book.spoken.insert(phrase, (text, pcm));
        }
        for text in more {
            let pcm = Arc::new(speak(engines, &text, voice, dir).await?);
            book.texts.insert(text, pcm);
        }
        Ok(book)
    }

    /// A text, if it is in the book.
    #[must_use]
    pub fn get_text(&self, text: &str) -> Option<Spoken> {
        let stock = || self.spoken.values().find(|(known, _)| known == text).cloned();
        let other = self.texts.get(text).map(|pcm| (text.to_owned(), pcm.clone()));
        other.or_else(stock)
    }

    /// A phrase, if it is in the book.
    #[must_use]
    pub fn get(&self, phrase: Phrase) -> Option<Spoken> {
        self.spoken.get(&phrase).cloned()
    }
}

/// The audio of a text, from the cache or from the voice.
async fn speak(engines: &Engines, text: &str, voice: &str, dir: &Path) -> Result<Vec<i16>, PhraseError> {
    let cache_error = |source| PhraseError::Cache {
        path: dir.to_owned(),
        source,
    };
    let name: String = Sha256::digest(format!("{voice}\n{text}"))
        .iter()
        .take(16)
        .map(|b| format!("{b:02x}"))
        .collect();
    let path = dir.join(format!("{name}.pcm"));
    if let Ok(bytes) = fs::read(&path)
        && !bytes.is_empty()
    {
        return Ok(bytes_to_pcm(&bytes));
    }
    let request = SpeakRequest {
        call: 0,
        turn: 0,
        deadline: DEADLINE,
        text: spoken(text),
        speed: 1.0,
        priority: Priority::Background,
    };
    let pcm = engines.speak(request).await?.pcm;
    let temporary = path.with_extension("new");
    fs::write(&temporary, pcm_to_bytes(&pcm)).map_err(cache_error)?;
    fs::rename(&temporary, &path).map_err(cache_error)?;
    Ok(pcm)
}

fn texts(phrases: &Phrases, warnings_s: &[u32]) -> Vec<(Phrase, String)> {
    let mut all = vec![
        (Phrase::Greeting, phrases.greeting.clone()),
        (Phrase::StillThere, phrases.still_there.clone()),
        (Phrase::Unclear, phrases.unclear.clone()),
        (Phrase::OneMoment, phrases.one_moment.clone()),
        (Phrase::Apology, phrases.apology.clone()),
        (Phrase::CannotAnswer, phrases.failed_turn.clone()),
        (Phrase::Trouble, phrases.unavailable.clone()),
        (Phrase::Goodbye, phrases.goodbye.clone()),
        (Phrase::GoodbyeSilence, phrases.silence_goodbye.clone()),
        (Phrase::MaxTurns, phrases.max_turns.clone()),
        (Phrase::TimeboxEnd, phrases.timebox_end.clone()),
    ];
    all.extend(warnings_s.iter().map(|&left_s| {
        let text = if left_s <= 90 {
            &phrases.timebox_last_warning
        } else {
            &phrases.timebox_warning
        };
        (Phrase::TimeboxWarning { left_s }, text.clone())
    }));
    all
}
