//! The vocabulary between the turn machine and its owner: what was heard and said, and what to do now.

use serde::{Deserialize, Serialize};

/// One try at understanding and answering; never reused within a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AttemptId(pub u32);

/// How finished what was said sounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Completeness {
    /// A short complete answer: "yes", "no thanks".
    Short,
    /// A finished sentence or question.
    Finished,
    /// Nothing tells.
    Unknown,
    /// Clearly goes on: an open digit string, "and…", "um".
    Open,
}

/// What the transcript of an attempt amounts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hearing {
    /// Words.
    Speech(Completeness),
    /// The caller takes leave: a goodbye is the answer.
    Farewell,
    /// Into a reply: "mm-hm", "okay". The reply goes on.
    Backchannel,
    /// Speech, but not understood.
    Unclear,
    /// No speech at all: noise, breath, a cough.
    Nothing,
    /// The engine failed; worth another try.
    Failed,
}

/// Progress of an attempt's reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplyProgress {
    /// A clause is ready to be played.
    Clause,
    /// The last clause has been delivered.
    Done,
    /// The language model or the voice failed.
    Failed,
}

/// Stock phrases, synthesised beforehand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phrase {
    /// First words of the call.
    Greeting,
    /// Nobody has spoken for a while.
    StillThere,
    /// Not understood; please repeat.
    Unclear,
    /// The reply takes longer.
    OneMoment,
    /// An engine failed in the middle of a reply: an apology, then the answer.
    Apology,
    /// The turn could not be answered; please say it again.
    CannotAnswer,
    /// Too many failures: apology and goodbye.
    Trouble,
    /// The caller took leave.
    Goodbye,
    /// Nobody is there any more.
    GoodbyeSilence,
    /// The call has had its maximum of turns.
    MaxTurns,
    /// The timebox ends soon.
    TimeboxWarning {
        /// What is left [s].
        left_s: u32,
    },
    /// The timebox has ended.
    TimeboxEnd,
}

/// Why the attendant ends the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndCause {
    /// The caller said goodbye.
    Farewell,
    /// Nobody answered "are you still there?".
    Silence,
    /// Maximum number of turns.
    MaxTurns,
    /// Longest call reached.
    Timebox,
    /// Too many turns failed.
    Trouble,
}

/// What the owner must do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Transcribe the caller's frames `from..to`; answer with `handle_transcript`.
    Transcribe {
        /// Attempt.
        id: AttemptId,
        /// First frame.
        from: u64,
        /// One past the last frame.
        to: u64,
        /// Frames of it that were voiced.
        voiced_frames: u32,
    },
    /// Keys typed by the caller are this attempt's text.
    Keyed {
        /// Attempt.
        id: AttemptId,
        /// Digits, `*`; without the closing `#`.
        digits: String,
    },
    /// Prepare the reply to the attempt's text into a buffer; answer with `handle_reply`.
    Think {
        /// Attempt.
        id: AttemptId,
        /// The turn has not ended yet: no side effects.
        speculative: bool,
    },
    /// The turn has ended: the attempt's clauses may play, now and as they come.
    Commit {
        /// Attempt.
        id: AttemptId,
    },
    /// Be silent at once, and remember where: it is not clear yet whether the caller interrupts.
    Pause,
    /// The caller did not interrupt: go on from a moment before the pause.
    Resume,
    /// Forget the attempt; nothing of it has been heard.
    Drop {
        /// Attempt.
        id: AttemptId,
    },
    /// Play a stock phrase after what is playing.
    Say(Phrase),
    /// Lower the attendant's voice.
    Duck,
    /// Back to full voice.
    Unduck,
    /// Barge-in: stop playing at once and forget what is queued; the reply so far was heard.
    Stop {
        /// The interrupted attempt, if a reply was playing.
        id: Option<AttemptId>,
    },
    /// The reply has been played to its end.
    TurnDone {
        /// Attempt.
        id: AttemptId,
    },
    /// Clear the call.
    HangUp(EndCause),
}
