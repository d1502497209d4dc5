//! Stock phrases: what is said without a model. Synthesised once and cached; configurable.

use serde::{Deserialize, Serialize};

use crate::{DialogError, Persona};

/// Longest stock phrase [characters]: about 25 s of speech.
const MAX_CHARS: usize = 400;

/// What the attendant says of itself. `{business}` and `{attendant}` stand for the persona's names. Section
/// `[phrases]` of the configuration; a missing key takes its default, an unknown one is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Phrases {
    /// At once when the line is answered.
    pub greeting: String,
    /// After a silence of the caller.
    pub still_there: String,
    /// After a longer silence, before hanging up.
    pub silence_goodbye: String,
    /// Answer to the caller's goodbye.
    pub goodbye: String,
    /// Speech was heard but not understood.
    pub unclear: String,
    /// The same, the second time running.
    pub unclear_again: String,
    /// A reply is late; the engines work on it.
    pub one_moment: String,
    /// An engine crashed in this turn; the turn is tried again.
    pub apology: String,
    /// The reply cannot be made; the caller is asked to say it again.
    pub failed_turn: String,
    /// The engines stay down: the call ends.
    pub unavailable: String,
    /// The call has had its number of turns.
    pub max_turns: String,
    /// The first warning that the call's time runs out.
    pub timebox_warning: String,
    /// The last warning.
    pub timebox_last_warning: String,
    /// The call's time is over.
    pub timebox_end: String,
}

impl Default for Phrases {
    fn default() -> Phrases {
        let text = str::to_owned;
        Phrases {
            greeting: text("Hello, this is {attendant} at {business}. How can I help you?"),
            still_there: text("Are you still there?"),
            silence_goodbye: text(
                "I can't hear you any more, so I will hang up now. Please call again. Goodbye.",
            ),
            goodbye: text("Thank you for calling. Goodbye."),
            unclear: text("I'm sorry, I didn't catch that. Could you say it again, please?"),
            unclear_again: text("I'm sorry, I still didn't understand. Could you say it in a few words?"),
            one_moment: text("One moment, please."),
            apology: text("I'm sorry, something went wrong on my side. One moment, please."),
            failed_turn: text("I'm sorry, I lost that. Could you say it again, please?"),
            unavailable: text(
                "I'm sorry, I cannot help you at the moment. Please call again a little later. Goodbye.",
            ),
            max_turns: text(
                "I'm sorry, we have to end this call now. Please call again if you need more. Goodbye.",
            ),
            timebox_warning: text("Just so you know, this call can last another five minutes."),
            timebox_last_warning: text("We have one more minute on this call."),
            timebox_end: text("I'm sorry, the time for this call is over. Please call again. Goodbye."),
        }
    }
}

impl Phrases {
    /// The phrases with the persona's names put in.
    pub fn filled(&self, persona: &Persona) -> Phrases {
        let mut filled = self.clone();
        for (_, text) in filled.entries_mut() {
            *text = text
                .replace("{business}", &persona.business_name)
                .replace("{attendant}", &persona.attendant_name);
        }
        filled
    }

    /// All of them with their keys, in the order of a call: for caching and for checks.
    pub fn entries(&self) -> [(&'static str, &str); 14] {
        [
            ("greeting", &self.greeting),
            ("still_there", &self.still_there),
            ("silence_goodbye", &self.silence_goodbye),
            ("goodbye", &self.goodbye),
            ("unclear", &self.unclear),
            ("unclear_again", &self.unclear_again),
            ("one_moment", &self.one_moment),
            ("apology", &self.apology),
            ("failed_turn", &self.failed_turn),
            ("unavailable", &self.unavailable),
            ("max_turns", &self.max_turns),
            ("timebox_warning", &self.timebox_warning),
            ("timebox_last_warning", &self.timebox_last_warning),
            ("timebox_end", &self.timebox_end),
        ]
    }

    fn entries_mut(&mut self) -> [(&'static str, &mut String); 14] {
        [
            ("greeting", &mut self.greeting),
            ("still_there", &mut self.still_there),
            ("silence_goodbye", &mut self.silence_goodbye),
            ("goodbye", &mut self.goodbye),
            ("unclear", &mut self.unclear),
            ("unclear_again", &mut self.unclear_again),
            ("one_moment", &mut self.one_moment),
            ("apology", &mut self.apology),
            ("failed_turn", &mut self.failed_turn),
            ("unavailable", &mut self.unavailable),
            ("max_turns", &mut self.max_turns),
            ("timebox_warning", &mut self.timebox_warning),
            ("timebox_last_warning", &mut self.timebox_last_warning),
            ("timebox_end", &mut self.timebox_end),
        ]
    }

    /// Checks each phrase before the first call needs it.
    ///
    /// # Errors
    /// [`DialogError`] names the first bad key.
    pub fn check(&self) -> Result<(), DialogError> {
        for (key, text) in self.entries() {
            if text.trim().is_empty() {
                return Err(DialogError::Empty { key });
            }
            let length = text.chars().count();
            if length > MAX_CHARS {
                return Err(DialogError::TooLong {
                    key,
                    found: format!("{length} characters"),
                    most: format!("{MAX_CHARS} characters"),
                });
            }
            if let Some(name) = unknown_placeholder(text) {
                return Err(DialogError::Placeholder {
                    key,
                    name: name.to_owned(),
                });
            }
        }
        Ok(())
    }
}

/// A name in braces that stands for nothing.
pub(crate) fn unknown_placeholder(text: &str) -> Option<&str> {
    text.split('{')
        .skip(1)
        .map(|rest| rest.split('}').next().unwrap_or(rest))
        .find(|name| !matches!(*name, "business" | "attendant"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_good_and_fillable() {
        let phrases = Phrases::default();
        phrases.check().expect("defaults");
        let persona = Persona {
            business_name: "Hillside Motors".into(),
            attendant_name: "Joe".into(),
            ..Persona::default()
        };
        let filled = phrases.filled(&persona);
        assert_eq!(
            filled.greeting,
            "Hello, this is Joe at Hillside Motors. How can I help you?"
        );
        for (key, text) in filled.entries() {
            assert!(!text.contains('{'), "{key}: {text}");
        }
    }

    #[test]
    fn names_the_bad_key() {
        let with = |greeting: &str| Phrases {
            greeting: greeting.into(),
            ..Phrases::default()
        };
        assert_eq!(with("  ").check(), Err(DialogError::Empty { key: "greeting" }));
        assert!(matches!(
            with(&"x".repeat(500)).check(),
            Err(DialogError::TooLong { key: "greeting", .. })
        ));
        assert_eq!(
            with("Hi {bussiness}").check(),
            Err(DialogError::Placeholder {
                key: "greeting",
                name: "bussiness".into()
            })
        );
        assert!(with("Hi {").check().is_err());
    }
}
