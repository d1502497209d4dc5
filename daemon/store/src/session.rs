//! Session: one stored conversation and its life cycle.
//!
//! ```text
//! created --ready--> ready --answer--> in_progress --> completed
//!    |                 |                   |
//!    `-----------------`-------------------`--> terminated | failed | expired
//! ```
//! The machine is held twice on purpose: here, for typed refusals, and by triggers in the schema.

use std::{fmt, str::FromStr};

use rusqlite::{
    Row, ToSql,
    types::{FromSql, FromSqlError, FromSqlResult, ToSqlOutput, ValueRef},
};
use serde::{Deserialize, Serialize};

/// Row number of a session; small, ordered by creation, never reused. The public name is its UUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionId(i64);

impl SessionId {
    /// From a number that came from [`SessionId::get`] (a URL, say). Any number is safe: unknown ones are not
    /// found.
    pub const fn new(id: i64) -> SessionId {
        SessionId(id)
    }

    /// The number.
    pub const fn get(self) -> i64 {
        self.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl ToSql for SessionId {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        self.0.to_sql()
    }
}

impl FromSql for SessionId {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        i64::column_result(value).map(SessionId)
    }
}

/// Where a session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Known, nothing prepared.
    Created,
    /// Prepared; the line may be answered.
    Ready,
    /// Answered; turns are taken.
    InProgress,
    /// Ended as it should: goodbye, or hung up by the caller.
    Completed,
    /// Ended before its time: cancelled, restarted, timebox.
    Terminated,
    /// Ended by a fault of ours.
    Failed,
    /// Never came to anything in its time.
    Expired,
}

impl State {
    /// All of them, in the order of life.
    pub const ALL: [State; 7] = [
        State::Created,
        State::Ready,
        State::InProgress,
        State::Completed,
        State::Terminated,
        State::Failed,
        State::Expired,
    ];

    /// As stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            State::Created => "created",
            State::Ready => "ready",
            State::InProgress => "in_progress",
            State::Completed => "completed",
            State::Terminated => "terminated",
            State::Failed => "failed",
            State::Expired => "expired",
        }
    }

    /// Whether nothing can follow.
    pub const fn is_terminal(self) -> bool {
        matches!(
            self,
            State::Completed | State::Terminated | State::Failed | State::Expired
        )
    }

    /// Whether the life cycle has a step from here to `next`.
    pub const fn may_become(self, next: State) -> bool {
        matches!(
            (self, next),
            (State::Created, State::Ready)
                | (State::Ready, State::InProgress)
                | (State::InProgress, State::Completed)
                | (
                    State::Created | State::Ready | State::InProgress,
                    State::Terminated | State::Failed | State::Expired
                )
        )
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that is no [`State`], [`Direction`] or [`Source`](crate::Source).
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a word of this column")]
pub struct UnknownWord(String);

impl UnknownWord {
    pub(crate) fn new(word: &str) -> UnknownWord {
        UnknownWord(word.to_owned())
    }
}

impl FromStr for State {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<State, UnknownWord> {
        State::ALL
            .into_iter()
            .find(|state| state.as_str() == word)
            .ok_or_else(|| UnknownWord::new(word))
    }
}

/// Who called whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// They called us.
    Inbound,
    /// We called them.
    Outbound,
}

impl Direction {
    /// As stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Direction::Inbound => "inbound",
            Direction::Outbound => "outbound",
        }
    }
}

impl FromStr for Direction {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Direction, UnknownWord> {
        [Direction::Inbound, Direction::Outbound]
            .into_iter()
            .find(|direction| direction.as_str() == word)
            .ok_or_else(|| UnknownWord::new(word))
    }
}

/// Stores a word type as its `as_str`, reads it back by `from_str`.
macro_rules! stored_as_word {
    ($type:ty) => {
        impl ToSql for $type {
            fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
                Ok(ToSqlOutput::from(self.as_str()))
            }
        }

        impl FromSql for $type {
            fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                value
                    .as_str()?
                    .parse()
                    .map_err(|e: UnknownWord| FromSqlError::Other(Box::new(e)))
            }
        }
    };
}
pub(crate) use stored_as_word;

stored_as_word!(State);
stored_as_word!(Direction);

/// What is known of a session when it begins. Longer texts than the schema takes are cut, never refused.
#[derive(Debug, Clone)]
pub struct NewSession {
    /// Which of our lines rang: account, trunk, handset.
    pub line: String,
    /// Who called whom.
    pub direction: Direction,
    /// The far party's number or address, in clear; the office needs it. `None`: withheld.
    pub caller: Option<String>,
    /// The number dialled.
    pub callee: Option<String>,
    /// SIP Call-ID.
    pub call_id: Option<String>,
    /// Model profile in use, e.g. `standard`.
    pub profile: String,
    /// Catalog id of the speech recogniser.
    pub stt_model: Option<String>,
    /// Catalog id of the language model.
    pub llm_model: Option<String>,
    /// Catalog id of the voice.
    pub voice: Option<String>,
    /// Whose matter it is; a case has one session at a time.
    pub case: Option<String>,
    /// Most turns; `None`: as many as come.
    pub max_turns: Option<u32>,
    /// Who keeps it going.
    pub driver: Driver,
    /// When [Unix ms].
    pub created_at_ms: i64,
}

impl NewSession {
    /// A call that came in by a line; nothing else is known of it yet.
    #[must_use]
    pub fn inbound(line: &str, profile: &str, created_at_ms: i64) -> NewSession {
        NewSession {
            line: line.to_owned(),
            direction: Direction::Inbound,
            caller: None,
            callee: None,
            call_id: None,
            profile: profile.to_owned(),
            stt_model: None,
            llm_model: None,
            voice: None,
            case: None,
            max_turns: None,
            driver: Driver::Call,
            created_at_ms,
        }
    }
}

/// Who keeps a session going.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Driver {
    /// A call of this process: its end is noticed.
    #[default]
    Call,
    /// Another program, which must give signs of life.
    Api,
}

/// Whether a session was there before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opened {
    /// It was made.
    New,
    /// The case had one that has not ended.
    Active,
}

/// What a session is prepared with. `Debug` hides it.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct Context {
    /// Version of its form, from 1.
    pub version: u32,
    /// All that the attendant is told before the call; at most 200,000 characters.
    pub content: String,
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Context(version {}, {} octets)",
            self.version,
            self.content.len()
        )
    }
}

/// A context as sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SealedContext {
    /// What it says.
    #[serde(flatten)]
    pub context: Context,
    /// SHA-256 of the content, hexadecimal.
    pub sha256: String,
    /// When [Unix ms].
    pub sealed_at_ms: i64,
}

/// How a session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// As it should: goodbye, or the caller hung up.
    Completed,
    /// Before its time: cancelled, shut down, timebox.
    Terminated,
    /// By a fault of ours.
    Failed,
    /// Never came to anything.
    Expired,
}

impl Outcome {
    /// The terminal state of this outcome.
    pub const fn state(self) -> State {
        match self {
            Outcome::Completed => State::Completed,
            Outcome::Terminated => State::Terminated,
            Outcome::Failed => State::Failed,
            Outcome::Expired => State::Expired,
        }
    }
}

/// A new session: what its owner keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionKey {
    /// Row number.
    pub id: SessionId,
    /// Public name, a random (version 4) UUID.
    pub uuid: String,
    /// Version for the next transition.
    pub version: u64,
}

/// A session as stored. `Debug` hides the numbers.
#[derive(Clone, PartialEq, Serialize)]
pub struct Session {
    /// Row number.
    pub id: SessionId,
    /// Public name.
    pub uuid: String,
    /// Which of our lines rang.
    pub line: String,
    /// Who called whom.
    pub direction: Direction,
    /// The far party's number, in clear: never log it.
    pub caller: Option<String>,
    /// The number dialled.
    pub callee: Option<String>,
    /// SIP Call-ID.
    pub call_id: Option<String>,
    /// Model profile.
    pub profile: String,
    /// Speech recogniser.
    pub stt_model: Option<String>,
    /// Language model.
    pub llm_model: Option<String>,
    /// Voice.
    pub voice: Option<String>,
    /// Where it stands.
    pub state: State,
    /// Transitions so far, plus one.
    pub version: u64,
    /// Why it ended (or why it is as it is).
    pub reason: Option<String>,
    /// Turns taken; also the last turn's number.
    pub turn_count: u32,
    /// When it was created [Unix ms].
    pub created_at_ms: i64,
    /// When it was answered [Unix ms].
    pub started_at_ms: Option<i64>,
    /// When it ended [Unix ms].
    pub ended_at_ms: Option<i64>,
    /// Whose matter it is.
    pub case: Option<String>,
    /// Most turns.
    pub max_turns: Option<u32>,
    /// The session that this one tries again.
    pub retry_of: Option<SessionId>,
    /// When its personal data were erased [Unix ms].
    pub erased_at_ms: Option<i64>,
}

impl Session {
    /// Columns in the order that [`Session::from_row`] reads them.
    pub(crate) const COLUMNS: &'static str = "s.id, s.uuid, s.line, s.direction, s.caller, s.callee, s.call_id, s.profile, \
         s.stt_model, s.llm_model, s.voice, s.state, s.version, s.reason, s.turn_count, s.created_at_ms, \
         s.started_at_ms, s.ended_at_ms, s.case_key, s.max_turns, s.retry_of, s.erased_at_ms";

    pub(crate) fn from_row(row: &Row<'_>) -> rusqlite::Result<Session> {
        Ok(Session {
            id: row.get(0)?,
            uuid: row.get(1)?,
            line: row.get(2)?,
            direction: row.get(3)?,
            caller: row.get(4)?,
            callee: row.get(5)?,
            call_id: row.get(6)?,
            profile: row.get(7)?,
            stt_model: row.get(8)?,
            llm_model: row.get(9)?,
            voice: row.get(10)?,
            state: row.get(11)?,
            version: row.get(12)?,
            reason: row.get(13)?,
            turn_count: row.get(14)?,
            created_at_ms: row.get(15)?,
            started_at_ms: row.get(16)?,
            ended_at_ms: row.get(17)?,
            case: row.get(18)?,
            max_turns: row.get(19)?,
            retry_of: row.get(20)?,
            erased_at_ms: row.get(21)?,
        })
    }

    /// Time from answer to end [ms]; `None` while it runs or when it was never answered. The wall clock may
    /// have been set meanwhile; it never gets negative.
    pub fn duration_ms(&self) -> Option<u64> {
        let (started, ended) = self.started_at_ms.zip(self.ended_at_ms)?;
        Some(u64::try_from(ended.saturating_sub(started)).unwrap_or(0))
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("id", &self.id)
            .field("line", &self.line)
            .field("state", &self.state)
            .field("version", &self.version)
            .field("reason", &self.reason)
            .field("turn_count", &self.turn_count)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_round_trip() {
        for state in State::ALL {
            assert_eq!(state.as_str().parse::<State>().expect("state"), state);
        }
        assert!("half_done".parse::<State>().is_err());
        assert_eq!(
            "inbound".parse::<Direction>().expect("direction"),
            Direction::Inbound
        );
    }

    #[test]
    fn terminal_states_lead_nowhere() {
        for from in State::ALL {
            let exits = State::ALL.into_iter().filter(|to| from.may_become(*to)).count();
            assert_eq!(exits == 0, from.is_terminal(), "{from}");
            assert!(!from.may_become(State::Created), "{from}");
            assert!(!from.may_become(from), "{from}");
        }
    }
}
