//! The dialog, sans-IO: what the model is told, what of its words is spoken and how, what of the caller's
//! words counts.
//!
//! ```text
//! Whisper text --heard::judge--> Speech --intent--> goodbye?
//!                                  `--guardrails--> History --messages--> LLM
//! LLM tokens --Guard--> text --ClauseSplitter--> clause --guardrails--> clause --spoken--> words for the voice
//! live text  --completeness--> has the caller finished? (for the endpointer)
//! ```
//! Pure functions and small values: no clock, no file, no model. No business fact is in here; they come from
//! [`Persona`].

pub mod backchannel;
pub mod cards;
pub mod clauses;
pub mod completeness;
pub mod guard;
pub mod guardrails;
pub mod heard;
pub mod history;
pub mod intent;
pub mod number_words;
pub mod phrases;
pub mod prompt;
pub mod spoken;
pub mod transfer;
mod words;

pub use backchannel::{is_backchannel, is_mutter};
pub use clauses::ClauseSplitter;
pub use completeness::{Completeness, OpenReason, completeness, second_opinion, wants_second_opinion};
pub use guard::{Guard, GuardLimits};
pub use guardrails::{Guardrails, OutputCheck, Rules};
pub use heard::Heard;
pub use history::{History, Message, Role};
pub use intent::ends_call;
pub use phrases::Phrases;
pub use prompt::{Persona, Prompt, system_prompt};
pub use spoken::spoken;
pub use transfer::asks_for;

/// What is wrong with the texts of a configuration. Say it at start, with the file and the key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DialogError {
    /// A text that must say something is empty.
    #[error("`{key}` is empty; write what the attendant should say")]
    Empty {
        /// The key in its section.
        key: &'static str,
    },
    /// A text is longer than a caller would listen to, or a model can hold.
    #[error("`{key}` is too long: {found}; at most {most} are allowed")]
    TooLong {
        /// The key in its section.
        key: &'static str,
        /// What was found, with its unit.
        found: String,
        /// What is accepted, with its unit.
        most: String,
    },
    /// A placeholder that does not exist.
    #[error("`{key}` uses {{{name}}}, which does not exist; use {{business}} or {{attendant}}")]
    Placeholder {
        /// The key in its section.
        key: &'static str,
        /// The unknown name.
        name: String,
    },
}
