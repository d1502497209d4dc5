//! Views: what of the record is shown, as the document describes it.

use attendant_store::{
    AuditEntry, Direction, Event, Session, SessionSummary, Source, State, StoredRecording, StreamCall,
    StreamState, Turn,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Where a session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SessionState {
    /// Known, nothing prepared.
    Created,
    /// Prepared.
    Ready,
    /// Turns are taken.
    InProgress,
    /// Ended as it should.
    Completed,
    /// Ended before its time.
    Terminated,
    /// Ended by a fault.
    Failed,
    /// Nobody kept it going.
    Expired,
}

impl From<State> for SessionState {
    fn from(state: State) -> Self {
        match state {
            State::Created => Self::Created,
            State::Ready => Self::Ready,
            State::InProgress => Self::InProgress,
            State::Completed => Self::Completed,
            State::Terminated => Self::Terminated,
            State::Failed => Self::Failed,
            State::Expired => Self::Expired,
        }
    }
}

impl From<SessionState> for State {
    fn from(state: SessionState) -> Self {
        match state {
            SessionState::Created => Self::Created,
            SessionState::Ready => Self::Ready,
            SessionState::InProgress => Self::InProgress,
            SessionState::Completed => Self::Completed,
            SessionState::Terminated => Self::Terminated,
            SessionState::Failed => Self::Failed,
            SessionState::Expired => Self::Expired,
        }
    }
}

/// A session; a call is one, too.
#[derive(Debug, Serialize, ToSchema)]
pub struct SessionView {
    /// Its name.
    #[schema(format = "uuid")]
    pub id: String,
    /// Where it stands.
    pub state: SessionState,
    /// Counts its steps; for `if_version`.
    pub version: u64,
    /// Which line.
    pub line: String,
    /// `inbound` or `outbound`.
    #[schema(value_type = String)]
    pub direction: &'static str,
    /// Who called; absent when withheld or erased.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caller: Option<String>,
    /// The number dialled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub callee: Option<String>,
    /// Whose matter it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub case: Option<String>,
    /// Why it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Turns taken; also the last turn's number.
    pub turns: u32,
    /// Most turns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_turns: Option<u32>,
    /// When it was created [Unix ms].
    pub created_at_ms: i64,
    /// When it was answered [Unix ms].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at_ms: Option<i64>,
    /// When it ended [Unix ms].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at_ms: Option<i64>,
    /// When its personal data were erased [Unix ms].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub erased_at_ms: Option<i64>,
    /// Answer to end [ms].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// Median of what the caller waited for an answer [ms].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub median_response_ms: Option<u32>,
}

impl From<Session> for SessionView {
    fn from(session: Session) -> Self {
        let duration_ms = session.duration_ms();
        Self {
            id: session.uuid,
            state: session.state.into(),
            version: session.version,
            line: session.line,
            direction: match session.direction {
                Direction::Inbound => "inbound",
                Direction::Outbound => "outbound",
            },
            caller: session.caller,
            callee: session.callee,
            case: session.case,
            reason: session.reason,
            turns: session.turn_count,
            max_turns: session.max_turns,
            created_at_ms: session.created_at_ms,
            started_at_ms: session.started_at_ms,
            ended_at_ms: session.ended_at_ms,
            erased_at_ms: session.erased_at_ms,
            duration_ms,
            median_response_ms: None,
        }
    }
}

impl From<SessionSummary> for SessionView {
    fn from(summary: SessionSummary) -> Self {
        Self {
            median_response_ms: summary.median_response_ms,
            ..Self::from(summary.session)
        }
    }
}

/// One exchange.
#[derive(Debug, Serialize, ToSchema)]
pub struct TurnView {
    /// 1, 2, 3 … without gap.
    pub number: u32,
    /// End of the caller's speech [Unix ms].
    pub at_ms: i64,
    /// What the caller said.
    pub caller_text: String,
    /// The whole reply.
    pub reply_text: String,
    /// Of an interrupted reply: what was heard of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heard_text: Option<String>,
    /// `realtime` or `recording`.
    #[schema(value_type = String)]
    pub source: &'static str,
    /// The caller cut the reply off.
    pub interrupted: bool,
    /// What the caller waited for an answer [ms].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_ms: Option<u32>,
}

impl From<Turn> for TurnView {
    fn from(turn: Turn) -> Self {
        Self {
            number: turn.number.get(),
            at_ms: turn.at_ms,
            caller_text: turn.caller_text,
            reply_text: turn.reply_text,
            heard_text: turn.heard_text,
            source: match turn.source {
                Source::Realtime => "realtime",
                Source::Recording => "recording",
            },
            interrupted: turn.interrupted,
            response_ms: turn.latencies.response_ms,
        }
    }
}

/// What happened beside the turns.
#[derive(Debug, Serialize, ToSchema)]
pub struct EventView {
    /// When [Unix ms].
    pub at_ms: i64,
    /// What, e.g. `barge_in`.
    pub kind: String,
    /// Details for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl From<Event> for EventView {
    fn from(event: Event) -> Self {
        Self {
            at_ms: event.at_ms,
            kind: event.kind,
            detail: event.detail,
        }
    }
}

/// A recording: left the caller, right the attendant.
#[derive(Debug, Serialize, ToSchema)]
pub struct RecordingView {
    /// Its name.
    #[schema(format = "uuid")]
    pub id: String,
    /// `recording`, `sealed` or `erased`.
    pub state: String,
    /// When it began [Unix ms].
    pub started_at_ms: i64,
    /// When it ended [Unix ms].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at_ms: Option<i64>,
    /// When it may be erased [Unix ms].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_until_ms: Option<i64>,
    /// Length [ms].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub length_ms: Option<u64>,
    /// SHA-256 of the encrypted file, as the audit chain has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Whether it ended as it should.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub whole: Option<bool>,
}

impl From<StoredRecording> for RecordingView {
    fn from(recording: StoredRecording) -> Self {
        Self {
            id: recording.uuid,
            state: recording.state,
            started_at_ms: recording.started_at_ms,
            ended_at_ms: recording.ended_at_ms,
            keep_until_ms: recording.keep_until_ms,
            // 16 samples a millisecond.
            length_ms: recording.samples.map(|samples| samples / 16),
            sha256: recording.sha256,
            whole: recording.whole,
        }
    }
}

/// An entry of the audit chain; what is live is told in the same form.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct EntryView {
    /// 1, 2, 3 … without gap.
    pub seq: i64,
    /// When [Unix ms].
    pub at_ms: i64,
    /// What it is about, e.g. `session`, `turn`, `guardrail`.
    pub kind: String,
    /// `note`, `begin`, `complete`, `fail`, `timed_out` or `interrupted`.
    pub phase: String,
    /// Of an end: the entry that began it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub begun: Option<i64>,
    /// The session's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = "uuid")]
    pub session: Option<String>,
    /// Its payload: a JSON object without personal data, as text, since its octets are hashed.
    pub payload: String,
    /// SHA-256, hexadecimal.
    pub hash: String,
}

impl EntryView {
    /// With the session's public name.
    pub fn new(entry: AuditEntry, session: Option<String>) -> Self {
        Self {
            seq: entry.seq.get(),
            at_ms: entry.at_ms,
            kind: entry.kind,
            phase: entry.phase,
            begun: entry.begun.map(attendant_store::AuditSeq::get),
            session,
            payload: entry.payload,
            hash: entry.hash,
        }
    }
}

/// A call whose sound comes in packets.
#[derive(Debug, Serialize, ToSchema)]
pub struct StreamView {
    /// The program's own name for it.
    pub call_id: String,
    /// Its session.
    #[schema(format = "uuid")]
    pub session: String,
    /// `in_progress`, `processing`, `completed`, `failed` or `archived`.
    #[schema(value_type = String)]
    pub state: &'static str,
    /// Different packets taken.
    pub packets: u32,
    /// Packets that came again.
    pub duplicates: u32,
    /// Highest number so far.
    pub highest: u32,
    /// Numbers up to it that have not come.
    pub missing: u32,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl From<StreamCall> for StreamView {
    fn from(call: StreamCall) -> Self {
        Self {
            call_id: call.call,
            session: call.session_uuid,
            state: StreamState::as_str(call.state),
            packets: call.packets,
            duplicates: call.duplicates,
            highest: call.highest,
            missing: call.highest.saturating_sub(call.packets),
            reason: call.reason,
        }
    }
}
