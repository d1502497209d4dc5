//! Turn: one exchange of a session, with how long each stage of it took.

use std::{fmt, str::FromStr};

use rusqlite::{
    Row, ToSql,
    types::{FromSql, FromSqlError, FromSqlResult, ToSqlOutput, ValueRef},
};
use serde::{Deserialize, Serialize};

use crate::session::{UnknownWord, stored_as_word};

/// A turn's number in its session: 1, 2, 3 … without gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TurnNumber(pub(crate) u32);

impl TurnNumber {
    /// The number, from 1.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for TurnNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a turn's transcript comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Heard live, during the call.
    Realtime,
    /// Made afterwards from the recording.
    Recording,
}

impl Source {
    /// As stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Source::Realtime => "realtime",
            Source::Recording => "recording",
        }
    }
}

impl FromStr for Source {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Source, UnknownWord> {
        [Source::Realtime, Source::Recording]
            .into_iter()
            .find(|source| source.as_str() == word)
            .ok_or_else(|| UnknownWord::new(word))
    }
}

stored_as_word!(Source);

/// How long each stage of a turn took [ms]; `None` where the stage did not run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TurnLatencies {
    /// Length of the caller's utterance.
    pub utterance_ms: Option<u32>,
    /// Last voiced sample to end of turn decided.
    pub endpoint_ms: Option<u32>,
    /// Final transcription, asked to text.
    pub stt_ms: Option<u32>,
    /// Language model, asked to first token.
    pub llm_first_token_ms: Option<u32>,
    /// Language model, asked to first speakable clause.
    pub llm_first_clause_ms: Option<u32>,
    /// Language model, asked to last token.
    pub llm_total_ms: Option<u32>,
    /// First clause's synthesis, asked to audio.
    pub tts_first_ms: Option<u32>,
    /// What the caller waited: last voiced sample in to first voiced sample out.
    pub response_ms: Option<u32>,
    /// Length of the reply as played.
    pub reply_ms: Option<u32>,
    /// Caller's voice to our silence, when they interrupted.
    pub barge_in_stop_ms: Option<u32>,
}

/// A turn to record. Texts longer than 16,000 characters are cut, never refused.
#[derive(Clone, Default)]
pub struct NewTurn {
    /// End of the caller's speech [Unix ms].
    pub at_ms: i64,
    /// What the caller said; empty for silence or when it was not understood.
    pub caller_text: String,
    /// The whole reply as generated.
    pub reply_text: String,
    /// Of an interrupted reply: what the caller heard of it.
    pub heard_text: Option<String>,
    /// Where the transcript comes from; `None` means [`Source::Realtime`].
    pub source: Option<Source>,
    /// The caller cut the reply off.
    pub interrupted: bool,
    /// SHA-256 of the prompt, 64 hexadecimal digits; anything else is stored as none.
    pub prompt_sha256: Option<String>,
    /// Stage latencies.
    pub latencies: TurnLatencies,
}

/// A turn as stored.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct Turn {
    /// Its number.
    pub number: TurnNumber,
    /// End of the caller's speech [Unix ms].
    pub at_ms: i64,
    /// What the caller said.
    pub caller_text: String,
    /// The whole reply as generated.
    pub reply_text: String,
    /// Of an interrupted reply: what the caller heard of it.
    pub heard_text: Option<String>,
    /// Where the transcript comes from.
    pub source: Source,
    /// The caller cut the reply off.
    pub interrupted: bool,
    /// SHA-256 of the prompt, hexadecimal.
    pub prompt_sha256: Option<String>,
    /// Stage latencies.
    pub latencies: TurnLatencies,
}

impl Turn {
    /// Columns in the order that [`Turn::from_row`] reads them.
    pub(crate) const COLUMNS: &'static str = "t.number, t.at_ms, t.caller_text, t.reply_text, t.heard_text, t.source, \
         t.interrupted, t.prompt_sha256, l.utterance_ms, l.endpoint_ms, l.stt_ms, l.llm_first_token_ms, \
         l.llm_first_clause_ms, l.llm_total_ms, l.tts_first_ms, l.response_ms, l.reply_ms, l.barge_in_stop_ms";

    pub(crate) fn from_row(row: &Row<'_>) -> rusqlite::Result<Turn> {
        Ok(Turn {
            number: TurnNumber(row.get(0)?),
            at_ms: row.get(1)?,
            caller_text: row.get(2)?,
            reply_text: row.get(3)?,
            heard_text: row.get(4)?,
            source: row.get(5)?,
            interrupted: row.get(6)?,
            prompt_sha256: row.get(7)?,
            latencies: TurnLatencies {
                utterance_ms: row.get(8)?,
                endpoint_ms: row.get(9)?,
                stt_ms: row.get(10)?,
                llm_first_token_ms: row.get(11)?,
                llm_first_clause_ms: row.get(12)?,
                llm_total_ms: row.get(13)?,
                tts_first_ms: row.get(14)?,
                response_ms: row.get(15)?,
                reply_ms: row.get(16)?,
                barge_in_stop_ms: row.get(17)?,
            },
        })
    }
}

/// Hides what was said: a turn may end up in a log by accident.
impl fmt::Debug for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turn")
            .field("number", &self.number)
            .field("interrupted", &self.interrupted)
            .field("latencies", &self.latencies)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for NewTurn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewTurn")
            .field("interrupted", &self.interrupted)
            .field("latencies", &self.latencies)
            .finish_non_exhaustive()
    }
}
