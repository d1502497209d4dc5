//! Guardrails: what they held, in the audit chain; and the prompt in force when one first did.
//!
//! An entry of a turn says the rule and the rule's own words, nobody else's, so that it can stand for ever. The prompt is
//! told apart from turns by its hash; its text goes into the chain only when a guardrail held, once in a run of the daemon,
//! in parts where it is longer than an entry.

use serde::Serialize;

use crate::{
    AuditKind, AuditSeq, EventKind, SessionId, Store, StoreError, TurnNumber,
    audit::{Hash, hex},
    life,
};

/// Longest part of a prompt in one entry \[octets as JSON\]; the rest of a payload's 4000 is for the fields around it.
const PART: usize = 3_600;
/// Longest rule and words of it that are kept \[characters\].
const MAX_TEXT: usize = 300;

/// A guardrail that held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewGuardrail {
    /// `input`, `output` or `data`.
    pub stage: &'static str,
    /// What it is about.
    pub category: &'static str,
    /// The rule as written.
    pub rule: String,
    /// The rule's own words that were found.
    pub matched: String,
    /// What was done: `replaced`, `put_through`, `left_out`.
    pub action: &'static str,
    /// Of data: the key of the configuration.
    pub key: Option<String>,
}

#[derive(Serialize)]
struct Payload<'a> {
    stage: &'a str,
    category: &'a str,
    rule: String,
    matched: String,
    action: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    turn: Option<TurnNumber>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_sha256: Option<String>,
}

#[derive(Serialize)]
struct Part<'a> {
    prompt_sha256: &'a str,
    part: usize,
    of: usize,
    prompt: &'a str,
}

impl Store {
    /// Notes what held in a turn; with `prompt` also its whole text, which its SHA-256 in the entry names. All or nothing.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub fn record_guardrail(
        &self,
        session: SessionId,
        turn: Option<TurnNumber>,
        held: &NewGuardrail,
        prompt: &str,
        with_text: PromptText,
        now_ms: i64,
    ) -> Result<AuditSeq, StoreError> {
        let sha256 = hex(&Hash::of(prompt.as_bytes()).0);
        self.write(|tx| {
            if with_text == PromptText::Whole {
                let parts = parts(prompt);
                for (index, text) in parts.iter().enumerate() {
                    let part = Part {
                        prompt_sha256: &sha256,
                        part: index + 1,
                        of: parts.len(),
                        prompt: text,
                    };
                    tx.note(AuditKind::Guardrail, None, &part, now_ms)?;
                }
            }
            let payload = payload(held, turn, Some(sha256.clone()));
            let seq = tx.note(AuditKind::Guardrail, Some(session), &payload, now_ms)?;
            let detail = format!("{}: {} ({})", held.stage, held.category, held.action);
            life::insert_event(tx, session, EventKind::Guardrail, Some(&detail), now_ms)?;
            Ok(seq)
        })
    }

    /// Notes data of the house that were left out of the prompt.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub fn record_screened(&self, held: &NewGuardrail, now_ms: i64) -> Result<AuditSeq, StoreError> {
        self.audit_note(AuditKind::Guardrail, None, &payload(held, None, None), now_ms)
    }
}

/// Whether the prompt's text goes into the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PromptText {
    /// It does.
    Whole,
    /// It is there already: its hash says which it was.
    Known,
}

fn payload(held: &NewGuardrail, turn: Option<TurnNumber>, prompt_sha256: Option<String>) -> Payload<'_> {
    let cut = |text: &str| text.chars().take(MAX_TEXT).collect();
    Payload {
        stage: held.stage,
        category: held.category,
        rule: cut(&held.rule),
        matched: cut(&held.matched),
        action: held.action,
        turn,
        key: held.key.as_deref(),
        prompt_sha256,
    }
}

/// Cuts a text so that each part fits into an entry.
fn parts(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut from, mut octets) = (0, 0);
    for (at, c) in text.char_indices() {
        // As JSON writes it: what must be escaped takes at most six octets.
        let width = if c.is_control() || matches!(c, '"' | '\\') {
            6
        } else {
            c.len_utf8()
        };
        if octets + width > PART {
            parts.extend(text.get(from..at));
            (from, octets) = (at, 0);
        }
        octets += width;
    }
    parts.extend(text.get(from..));
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_the_whole() {
        for text in ["", "short", &"ä\n\"".repeat(3_000), &"word ".repeat(2_000)] {
            let parts = parts(text);
            assert_eq!(parts.concat(), *text);
            for part in &parts {
                assert!(serde_json::to_string(part).expect("a text").len() <= PART + 2);
            }
        }
        assert_eq!(parts("").len(), 1);
    }
}
