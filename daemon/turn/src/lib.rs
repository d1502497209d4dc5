//! Turn-taking: who has the floor, when the caller has finished, when the attendant stops.
//!
//! Pure: frames' voicing, transcripts, playout progress and `now` go in; [`Action`]s and the next deadline come out.
//! Whole calls run in tests on a simulated clock.
//!
//! - [`voice`]: per-frame speech probability → voiced/silent with hysteresis.
//! - [`action`]: what the machine is told, and what it asks for.
//! - [`config`]: every bound, with its unit and reason.
//! - [`machine`]: the turn itself; its picture is there.
//! - [`trace`]: what happened to a machine, so that it can happen again.

pub mod action;
pub mod config;
pub mod machine;
pub mod trace;
pub mod voice;

pub use action::{Action, AttemptId, Completeness, EndCause, Hearing, Phrase, ReplyProgress};
pub use config::TurnConfig;
pub use machine::TurnMachine;
pub use trace::{Step, Timed};
pub use voice::{FrameVoice, VoiceGate};
