//! Key menu: what is said of the keys beside speech ("or press 0 for the office"), and the read-back of what was typed.
//! Section `[menu]`.

use attendant_dialog::cards;
use serde::Deserialize;

use crate::transfer::{FLASH, KeyAction, KeySection, TransferSection};

/// Longest text \[characters\].
const MAX_CHARS: usize = 400;
/// Digits from which a string is read back in groups: longer ones nobody follows in one breath.
const GROUPED: usize = 5;

/// `[menu]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MenuSection {
    /// With which phrases it is said; nothing without `[[keys]]`.
    pub with: Vec<With>,
    /// What is said; `None`: made from the keys, in English.
    pub text: Option<String>,
    /// Said when digits were typed that are no key of the menu; `{digits}` are they. Empty: the language model answers.
    pub read_back: String,
}

impl Default for MenuSection {
    fn default() -> Self {
        Self {
            with: vec![With::Unclear],
            text: None,
            read_back: "I have {digits}. Is that right?".into(),
        }
    }
}

/// A phrase that the menu goes with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum With {
    /// The greeting.
    Greeting,
    /// "I didn't catch that": who is not understood can press a key.
    Unclear,
    /// "Are you still there?"
    StillThere,
}

impl MenuSection {
    /// # Errors
    /// What is wrong and what would be accepted.
    pub fn check(&self) -> Result<(), String> {
        let texts = [
            ("text", self.text.as_deref()),
            ("read_back", Some(&*self.read_back)),
        ];
        for (key, text) in texts {
            let text = text.unwrap_or_default();
            let length = text.chars().count();
            if length > MAX_CHARS {
                return Err(format!(
                    "{key}: want at most {MAX_CHARS} characters, got {length}"
                ));
            }
            let placeholder = text.replace("{digits}", "");
            if placeholder.contains('{') || (key == "text" && text.contains("{digits}")) {
                return Err(format!(
                    "{key}: the only name in braces is {{digits}}, in read_back"
                ));
            }
        }
        if !self.read_back.is_empty() && !self.read_back.contains("{digits}") {
            return Err("read_back: want {digits} in it, or \"\" for none".into());
        }
        Ok(())
    }

    /// "Or press 0 for the office, 9 to hear that again." Nothing without keys that can be named.
    #[must_use]
    pub fn said(&self, keys: &[KeySection], transfer: &TransferSection) -> Option<String> {
        if let Some(text) = &self.text {
            return Some(text.clone()).filter(|text| !text.trim().is_empty() && !keys.is_empty());
        }
        let offers: Vec<String> = keys
            .iter()
            .filter(|key| key.digit != FLASH)
            .map(|key| {
                let digit = if key.digit == '*' {
                    "star".to_owned()
                } else {
                    key.digit.to_string()
                };
                match (
                    key.action,
                    key.target.as_deref().and_then(|name| transfer.index(name)),
                ) {
                    (KeyAction::Transfer, target) => {
                        let target = target.and_then(|index| transfer.target.get(index));
                        format!(
                            "{digit} for {}",
                            target.map_or("somebody", |target| target.spoken())
                        )
                    }
                    (KeyAction::Repeat, _) => format!("{digit} to hear my last words again"),
                    (KeyAction::Message, _) => format!("{digit} to leave a message"),
                    (KeyAction::Hangup, _) => format!("{digit} to end the call"),
                }
            })
            .collect();
        let (last, others) = offers.split_last()?;
        Some(match others {
            [] => format!("Or press {last}."),
            others => format!("Or press {}, or {last}.", others.join(", ")),
        })
    }

    /// "I have 5 5 5, 1 2 3 4. Is that right?" Only for what is longer than a key of a menu.
    #[must_use]
    pub fn read_back(&self, typed: &str) -> Option<String> {
        let digits: Vec<String> = typed
            .chars()
            .filter_map(|digit| match digit {
                '*' => Some("star".to_owned()),
                '0'..='9' | 'A'..='D' => Some(digit.to_string()),
                _ => None,
            })
            .collect();
        if self.read_back.is_empty() || digits.len() < 2 {
            return None;
        }
        Some(self.read_back.replace("{digits}", &grouped(&digits)))
    }
}

/// What stands in the record, and in the conversation, for keys.
#[must_use]
pub fn typed(keys: &str) -> String {
    if keys.chars().all(|key| key == FLASH) {
        "(pressed the hook)".to_owned()
    } else {
        cards::keyed(keys)
    }
}

/// Groups of three, the last of two to four.
fn grouped(digits: &[String]) -> String {
    if digits.len() < GROUPED {
        return digits.join(" ");
    }
    let (mut rest, mut groups) = (digits, Vec::new());
    while rest.len() > 4 {
        let (group, after) = rest.split_at(if rest.len() == 5 { 2 } else { 3 });
        groups.push(group.join(" "));
        rest = after;
    }
    groups.push(rest.join(" "));
    groups.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transfer::Target;

    fn key(digit: char, action: KeyAction, target: Option<&str>) -> KeySection {
        KeySection {
            digit,
            action,
            target: target.map(Into::into),
        }
    }

    fn office() -> TransferSection {
        TransferSection {
            target: vec![Target {
                name: "office".into(),
                uri: "sip:200@192.0.2.1".into(),
                spoken: Some("the office".into()),
                words: vec![],
                keys: None,
                briefing: crate::transfer::Briefing::None,
            }],
            ..TransferSection::default()
        }
    }

    #[test]
    fn the_menu_names_the_keys() {
        use KeyAction::*;
        let menu = MenuSection::default();
        let said = |keys: &[KeySection]| menu.said(keys, &office());
        assert_eq!(said(&[]), None);
        assert_eq!(
            said(&[key('!', Hangup, None)]),
            None,
            "nobody is told to press the hook"
        );
        let office = key('0', Transfer, Some("office"));
        assert_eq!(
            said(std::slice::from_ref(&office)).as_deref(),
            Some("Or press 0 for the office.")
        );
        assert_eq!(
            said(&[office.clone(), key('9', Repeat, None), key('*', Hangup, None)]).as_deref(),
            Some("Or press 0 for the office, 9 to hear my last words again, or star to end the call.")
        );
        let own = MenuSection {
            text: Some("Oder drücken Sie die Null.".into()),
            ..menu.clone()
        };
        assert_eq!(
            own.said(&[office], &TransferSection::default()).as_deref(),
            Some("Oder drücken Sie die Null.")
        );
        assert_eq!(own.said(&[], &TransferSection::default()), None);
    }

    #[test]
    fn keys_stand_in_the_record_as_what_was_done() {
        assert_eq!(typed("427"), "(typed on the keypad: 427)");
        assert_eq!(typed("!"), "(pressed the hook)");
    }

    #[test]
    fn digits_are_read_back_one_by_one() {
        let menu = MenuSection::default();
        for (typed, want) in [
            ("5", None),
            ("#", None),
            ("42", Some("4 2")),
            ("427", Some("4 2 7")),
            ("4270", Some("4 2 7 0")),
            ("42701", Some("4 2, 7 0 1")),
            ("5551234", Some("5 5 5, 1 2 3 4")),
            ("00491701234567", Some("0 0 4, 9 1 7, 0 1 2, 3 4, 5 6 7")),
            ("*21", Some("star 2 1")),
        ] {
            let want = want.map(|digits: &str| format!("I have {digits}. Is that right?"));
            assert_eq!(menu.read_back(typed), want, "{typed}");
        }
        let silent = MenuSection {
            read_back: String::new(),
            ..menu
        };
        assert_eq!(silent.read_back("427"), None);
    }

    /// As the voice gets it: no "four hundred twenty-seven".
    #[test]
    fn read_back_digits_are_spoken_one_by_one() {
        let said = attendant_dialog::spoken(&MenuSection::default().read_back("427701").unwrap());
        for number in ["hundred", "twenty", "seventy"] {
            assert!(!said.contains(number), "{said}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        MenuSection::default().check().unwrap();
        for (text, read_back, want) in [
            (Some("x".repeat(500)), "{digits}", "at most 400"),
            (Some("press {digits}".into()), "{digits}", "read_back"),
            (None, "is that right?", "want {digits}"),
            (None, "{digit}", "braces"),
        ] {
            let menu = MenuSection {
                text,
                read_back: read_back.into(),
                ..MenuSection::default()
            };
            let error = menu.check().unwrap_err();
            assert!(error.contains(want), "{error}");
        }
    }
}
