//! Transfer: to whom a caller can be put through, what is said meanwhile, and what keys do. Sections `[transfer]` and
//! `[[keys]]` of the configuration.
//!
//! Nobody is ever put through to an address that is not on the list.

use attendant_dialog::{Persona, transfer::ANYBODY};
use serde::Deserialize;

/// Stands for the hook, pressed for a moment, among the keys.
pub use attendant_media::telephone_event::FLASH;

/// Most targets: more are not a list a caller chooses from.
const MAX_TARGETS: usize = 64;
/// Most keys pressed at a target: what a telephone's own memory holds.
const MAX_KEYS: usize = 32;
/// Longest text that is spoken [characters].
const MAX_CHARS: usize = 400;

/// `[transfer]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TransferSection {
    /// Whom callers can reach.
    pub target: Vec<Target>,
    /// How long a target may ring [s].
    pub ring_s: u32,
    /// Said before; `{target}` is the target's spoken name.
    pub put_through: String,
    /// Said now and then while it rings, where the caller is still with us.
    pub still_ringing: String,
    /// Said when the caller is back.
    pub failed: String,
    /// Said, or shown, to whoever takes over; `{said}` is what the caller said last.
    pub briefing: String,
    /// Said on a key with the action "message".
    pub message: String,
    /// What becomes of a caller whose target is to be told first, and a machine answers there.
    pub machine: OnMachine,
    /// Name of the target that takes faxes; `None`: a fax hears the attendant like anybody else.
    pub fax: Option<String>,
}

impl Default for TransferSection {
    fn default() -> Self {
        Self {
            target: Vec::new(),
            ring_s: 25,
            put_through: "I'll put you through to {target}. One moment, please.".into(),
            still_ringing: "It is still ringing. One moment, please.".into(),
            failed: "I'm sorry, {target} can't be reached right now. Can I take a message?".into(),
            briefing: "Hello, this is {attendant} at {business}. I have a caller for you, who said: {said}"
                .into(),
            message: "Please tell me your message, and I will pass it on.".into(),
            machine: OnMachine::Back,
            fax: None,
        }
    }
}

/// A machine answers where somebody was to be told about the caller.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnMachine {
    /// The caller comes back, and can leave a message with the attendant.
    #[default]
    Back,
    /// The caller is put through to it, without a briefing.
    Through,
}

/// `[[transfer.target]]`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// For keys, records and people; callers may say it, too.
    pub name: String,
    /// SIP address.
    pub uri: String,
    /// How it is called aloud: "the office".
    #[serde(default)]
    pub spoken: Option<String>,
    /// What else callers say for it.
    #[serde(default)]
    pub words: Vec<String>,
    /// Who takes over learns what it is about.
    #[serde(default)]
    pub briefing: Briefing,
    /// Pressed once the target answers, for an extension behind a menu; needs a briefing.
    #[serde(default)]
    pub keys: Option<String>,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Target({}, {:?})", self.name, self.briefing)
    }
}

impl Target {
    /// As said aloud.
    #[must_use]
    pub fn spoken(&self) -> &str {
        self.spoken.as_deref().unwrap_or(&self.name)
    }

    fn check_keys(&self) -> Result<(), String> {
        let Some(keys) = &self.keys else { return Ok(()) };
        let known = keys
            .chars()
            .all(|key| matches!(key, '0'..='9' | '*' | '#' | 'A'..='D'));
        if !known || !(1..=MAX_KEYS).contains(&keys.len()) {
            return Err(format!("keys: want 1 to {MAX_KEYS} of 0 to 9, *, # and A to D"));
        }
        if self.briefing == Briefing::None {
            return Err(
                "keys are pressed by us, and without a briefing the PBX makes the call: set briefing to \"header\" \
                 or \"spoken\""
                    .into(),
            );
        }
        Ok(())
    }
}

/// How whoever takes over learns what it is about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Briefing {
    /// Not at all: the PBX does the transfer at once.
    #[default]
    None,
    /// Called first; their telephone shows it, where it shows a Subject.
    Header,
    /// Called first, and told.
    Spoken,
}

/// `[[keys]]`: what one key does.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeySection {
    /// `0`–`9` or `*`; `#` ends what is typed. `!` is the hook, pressed for a moment.
    pub digit: char,
    /// What it does.
    pub action: KeyAction,
    /// For "transfer": the target's name.
    #[serde(default)]
    pub target: Option<String>,
}

/// What a key does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyAction {
    /// Puts the caller through.
    Transfer,
    /// Says the last words again.
    Repeat,
    /// Asks for a message.
    Message,
    /// Goodbye.
    Hangup,
}

impl TransferSection {
    /// Checks targets, texts and the keys that lead to them.
    ///
    /// # Errors
    /// What is wrong and what would be accepted.
    pub fn check(&self, keys: &[KeySection]) -> Result<(), String> {
        if self.target.len() > MAX_TARGETS {
            return Err(format!("more than {MAX_TARGETS} targets"));
        }
        if !(5..=120).contains(&self.ring_s) {
            return Err(format!("ring_s = {}: want 5 to 120", self.ring_s));
        }
        for (index, target) in self.target.iter().enumerate() {
            let name = &target.name;
            if name.trim().is_empty() || name.len() > 60 {
                return Err("a target needs a name of 1 to 60 characters".into());
            }
            if self.target.iter().take(index).any(|other| other.name == *name) {
                return Err(format!("two targets are called '{name}'"));
            }
            attendant_sip::check_target(&target.uri)
                .map_err(|error| format!("target '{name}': uri {error}"))?;
            target
                .check_keys()
                .map_err(|error| format!("target '{name}': {error}"))?;
        }
        for (key, text, allowed) in [
            ("put_through", &self.put_through, &["target"][..]),
            ("still_ringing", &self.still_ringing, &["target"]),
            ("failed", &self.failed, &["target"]),
            ("briefing", &self.briefing, &["target", "said"]),
            ("message", &self.message, &[]),
        ] {
            check_text(key, text, allowed)?;
        }
        if let Some(fax) = &self.fax {
            self.index(fax)
                .ok_or_else(|| format!("fax = '{fax}' is no target; {}", self.names()))?;
        }
        for (index, key) in keys.iter().enumerate() {
            if !matches!(key.digit, '0'..='9' | '*' | FLASH) {
                return Err(format!("key '{}': want 0 to 9, * or ! (the hook)", key.digit));
            }
            if keys.iter().take(index).any(|other| other.digit == key.digit) {
                return Err(format!("key '{}' is there twice", key.digit));
            }
            match (key.action, &key.target) {
                (KeyAction::Transfer, Some(target)) if self.index(target).is_some() => {}
                (KeyAction::Transfer, _) => {
                    return Err(format!(
                        "key '{}' transfers to no target; {}",
                        key.digit,
                        self.names()
                    ));
                }
                (_, None) => {}
                (_, Some(_)) => {
                    return Err(format!("key '{}': only \"transfer\" has a target", key.digit));
                }
            }
        }
        Ok(())
    }

    fn names(&self) -> String {
        let names: Vec<&str> = self.target.iter().map(|target| target.name.as_str()).collect();
        if names.is_empty() {
            "there is no [[transfer.target]]".into()
        } else {
            format!("targets are: {}", names.join(", "))
        }
    }

    /// Place of the target with this name.
    #[must_use]
    pub fn index(&self, name: &str) -> Option<usize> {
        self.target
            .iter()
            .position(|target| target.name.eq_ignore_ascii_case(name))
    }

    /// Whom the caller's words ask for. The first target also takes those who want "somebody".
    #[must_use]
    pub fn asked_for(&self, text: &str) -> Option<usize> {
        let names: Vec<Vec<&str>> = self
            .target
            .iter()
            .enumerate()
            .map(|(index, target)| {
                let own = [target.name.as_str(), target.spoken()].into_iter();
                let words = target.words.iter().map(String::as_str);
                let anybody = ANYBODY.iter().copied().filter(|_| index == 0);
                own.chain(words).chain(anybody).collect()
            })
            .collect();
        attendant_dialog::asks_for(text, &names)
    }

    /// "I'll put you through to the office."
    #[must_use]
    pub fn put_through(&self, index: usize) -> String {
        self.with_target(&self.put_through, index)
    }

    /// "I'm sorry, the office can't be reached."
    #[must_use]
    pub fn failed(&self, index: usize) -> String {
        self.with_target(&self.failed, index)
    }

    /// "It is still ringing."
    #[must_use]
    pub fn still_ringing(&self, index: usize) -> String {
        self.with_target(&self.still_ringing, index)
    }

    /// What whoever takes over is told.
    #[must_use]
    pub fn briefing(&self, index: usize, persona: &Persona, said: &str) -> String {
        self.with_target(&self.briefing, index)
            .replace("{business}", &persona.business_name)
            .replace("{attendant}", &persona.attendant_name)
            // Last: the caller's words are no template.
            .replace("{said}", said)
    }

    fn with_target(&self, text: &str, index: usize) -> String {
        let spoken = self.target.get(index).map_or("", Target::spoken);
        text.replace("{target}", spoken)
    }

    /// All that is said to callers, for the phrase book.
    #[must_use]
    pub fn texts(&self, keys: &[KeySection]) -> Vec<String> {
        let mut texts: Vec<String> = (0..self.target.len())
            .flat_map(|index| {
                [
                    self.put_through(index),
                    self.failed(index),
                    self.still_ringing(index),
                ]
            })
            .collect();
        if keys.iter().any(|key| key.action == KeyAction::Message) {
            texts.push(self.message.clone());
        }
        texts.sort_unstable();
        texts.dedup();
        texts
    }
}

fn check_text(key: &str, text: &str, allowed: &[&str]) -> Result<(), String> {
    let length = text.chars().count();
    if text.trim().is_empty() || length > MAX_CHARS {
        return Err(format!("{key}: want 1 to {MAX_CHARS} characters, got {length}"));
    }
    let house = ["business", "attendant"].iter().filter(|_| key == "briefing");
    let known: Vec<&str> = allowed.iter().chain(house).copied().collect();
    for name in text.split('{').skip(1) {
        let name = name.split('}').next().unwrap_or(name);
        if !known.contains(&name) {
            return Err(format!(
                "{key} uses {{{name}}}, which does not exist there; known: {}",
                known.join(", ")
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(name: &str, uri: &str) -> Target {
        Target {
            name: name.into(),
            uri: uri.into(),
            spoken: None,
            words: vec![],
            briefing: Briefing::None,
            keys: None,
        }
    }

    fn section() -> TransferSection {
        TransferSection {
            target: vec![
                Target {
                    spoken: Some("the office".into()),
                    ..target("office", "sip:200@192.0.2.1")
                },
                Target {
                    words: vec!["garage".into()],
                    ..target("workshop", "sip:201@pbx.example;transport=tcp")
                },
            ],
            ..TransferSection::default()
        }
    }

    fn key(digit: char, action: KeyAction, target: Option<&str>) -> KeySection {
        KeySection {
            digit,
            action,
            target: target.map(Into::into),
        }
    }

    #[test]
    fn a_list_that_is_wrong_says_what_is() {
        type Change = fn(&mut TransferSection);
        let changes: &[(Change, &str)] = &[
            (|s| s.target[0].uri = "200".into(), "target 'office': uri"),
            (|s| s.target[0].uri = "http://x".into(), "is not a SIP address"),
            (|s| s.target[0].uri = "sip:a b@h".into(), "target 'office'"),
            (
                |s| s.target[0].uri = "sip:1@h?Subject=x".into(),
                "target 'office'",
            ),
            (|s| s.target[0].keys = Some("1".into()), "set briefing"),
            (|s| s.target[0].keys = Some("1,2".into()), "keys: want 1 to 32"),
            (|s| s.target[0].keys = Some(String::new()), "keys: want 1 to 32"),
            (|s| s.target[1].name = "office".into(), "two targets"),
            (|s| s.target[1].name = " ".into(), "needs a name"),
            (|s| s.ring_s = 1, "5 to 120"),
            (|s| s.failed = "{name} is out".into(), "{name}"),
            (|s| s.put_through = String::new(), "put_through"),
            (|s| s.message = "for {target}".into(), "message"),
            (|s| s.fax = Some("fax".into()), "targets are: office, workshop"),
        ];
        section().check(&[]).unwrap();
        for (change, want) in changes {
            let mut section = section();
            change(&mut section);
            let error = section.check(&[]).unwrap_err();
            assert!(error.contains(want), "{want}: {error}");
        }
    }

    #[test]
    fn keys_lead_to_what_exists() {
        use KeyAction::*;
        section()
            .check(&[
                key('1', Transfer, Some("office")),
                key('9', Repeat, None),
                key('*', Hangup, None),
                key('!', Transfer, Some("workshop")),
            ])
            .unwrap();
        for (keys, want) in [
            (vec![key('1', Transfer, Some("boss"))], "targets are: office"),
            (vec![key('1', Transfer, None)], "transfers to no target"),
            (vec![key('#', Repeat, None)], "0 to 9"),
            (vec![key('1', Repeat, None), key('1', Hangup, None)], "twice"),
            (vec![key('1', Repeat, Some("office"))], "only \"transfer\""),
        ] {
            let error = section().check(&keys).unwrap_err();
            assert!(error.contains(want), "{want}: {error}");
        }
    }

    #[test]
    fn the_first_target_takes_those_who_want_anybody() {
        let section = section();
        assert_eq!(section.asked_for("I want to talk to a human."), Some(0));
        assert_eq!(section.asked_for("Put me through to the garage."), Some(1));
        assert_eq!(section.asked_for("When do you open?"), None);
        assert_eq!(
            TransferSection::default().asked_for("Operator, please."),
            None,
            "nobody on the list"
        );
    }

    #[test]
    fn what_is_said_names_the_target() {
        let section = section();
        assert_eq!(
            section.put_through(0),
            "I'll put you through to the office. One moment, please."
        );
        assert!(section.failed(1).contains("workshop"));
        let persona = Persona {
            business_name: "Hillside".into(),
            attendant_name: "Joe".into(),
            ..Persona::default()
        };
        assert_eq!(
            section.briefing(0, &persona, "it is about {business} tyres"),
            "Hello, this is Joe at Hillside. I have a caller for you, who said: it is about {business} tyres"
        );
    }
}
