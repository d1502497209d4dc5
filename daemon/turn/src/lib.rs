//! Turn-taking: who has the floor, when the caller has finished, when the attendant stops.
//!
//! Pure: frames' voicing, transcripts, playout progress and `now` go in; [`Action`]s and the next deadline come out.
//! Whole calls run in tests on a simulated clock.
//!
//! - [`voice`]: per-frame speech probability → voiced/silent with hysteresis.
//! - [`config`]: every bound, with its unit and reason.
//! - [`machine`]: the turn itself; its picture is there.

pub mod config;
pub mod machine;
pub mod voice;

pub use config::TurnConfig;
pub use machine::{Action, AttemptId, Completeness, EndCause, Hearing, Phrase, ReplyProgress, TurnMachine};
pub use voice::{FrameVoice, VoiceGate};
