//! What happens in a session beside its turns.

use serde::{Deserialize, Serialize};

/// Kind of a session event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// An engine crashed or missed its deadline.
    EngineDown,
    /// The caller heard an apology for it.
    Apology,
    /// The caller pressed a key. Its detail says how many, never which.
    Dtmf,
    /// The far end put us on hold.
    Hold,
    /// … and took us back.
    Resume,
    /// The caller interrupted a reply.
    BargeIn,
    /// The caller was not understood and asked to repeat.
    Unclear,
    /// "Are you still there?" was asked.
    StillThere,
    /// The timebox warning was spoken.
    TimeboxWarning,
    /// Codec or address of the media changed.
    MediaChanged,
    /// No media arrived for some time.
    MediaLost,
    /// At the end of the call: what both sides lost, jitter, delay, round trip.
    LineQuality,
    /// The caller is to be put through; its detail names the target.
    TransferAsked,
    /// It rings there.
    TransferRinging,
    /// The target has the caller.
    TransferAnswered,
    /// The caller stays with us; its detail says why.
    TransferFailed,
    /// Another party took the caller's place.
    Replaced,
    /// The caller pressed the hook.
    Flash,
    /// A fax machine called.
    Fax,
    /// The exchange played a tone into the call; its detail names it.
    Tone,
    /// Somebody answered a call of ours; its detail says what: a person, a machine, a tone.
    Answered,
    /// The caller left a message without the attendant; its detail says how long it is.
    Message,
    /// A guardrail held; its detail says where and of which kind, never the words.
    Guardrail,
}

impl EventKind {
    /// As stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            EventKind::EngineDown => "engine_down",
            EventKind::Apology => "apology",
            EventKind::Dtmf => "dtmf",
            EventKind::Hold => "hold",
            EventKind::Resume => "resume",
            EventKind::BargeIn => "barge_in",
            EventKind::Unclear => "unclear",
            EventKind::StillThere => "still_there",
            EventKind::TimeboxWarning => "timebox_warning",
            EventKind::MediaChanged => "media_changed",
            EventKind::MediaLost => "media_lost",
            EventKind::LineQuality => "line_quality",
            EventKind::TransferAsked => "transfer_asked",
            EventKind::TransferRinging => "transfer_ringing",
            EventKind::TransferAnswered => "transfer_answered",
            EventKind::TransferFailed => "transfer_failed",
            EventKind::Replaced => "replaced",
            EventKind::Flash => "flash",
            EventKind::Fax => "fax",
            EventKind::Tone => "tone",
            EventKind::Answered => "answered",
            EventKind::Message => "message",
            EventKind::Guardrail => "guardrail",
        }
    }
}

/// An event as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Event {
    /// When [Unix ms].
    pub at_ms: i64,
    /// Its kind, as [`EventKind::as_str`] writes it; text, so that an older program can show a newer one's.
    pub kind: String,
    /// Details for people; no digits, no transcript.
    pub detail: Option<String>,
}
