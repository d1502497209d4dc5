//! Summary: what a call was about, what came of it, what is left to do; written by the language model within a form.
//!
//! ```text
//! turns (final words where there are any, digits hidden) ──parts of 2400 characters──> model ──form──> summary
//!                                        ^                                               │
//!                                        `────────── the summary so far ─────────────────'
//! ```
//! The grammar makes the form certain, not the contents: what it says is a model's opinion and shown as one. What the
//! record knows better (the caller was put through) is taken from there.

use std::time::Duration;

use attendant_models::{
    client::{Engine, EngineError, GenerateRequest, LlmEvent, Priority},
    protocol::{ChatMessage, Role},
};
use attendant_store::{EventKind, Job, SessionRecord, Summary};

use super::{CALL, Trouble, Worker};
use crate::clock;

/// Longest one part may take, on one slow core.
const DEADLINE: Duration = Duration::from_secs(180);
/// Characters of a call that fit into a sequence beside the prefix and the form.
const PART: usize = 2_400;
/// Most parts: a call of half an hour has some 20,000 characters. Of a longer one the beginning and the end are read.
const MOST_PARTS: usize = 12;
/// Most tokens of the form.
const MAX_TOKENS: u32 = 220;
/// What may come of a call, as the model may say it.
const OUTCOMES: [&str; 5] = ["answered", "message", "appointment", "complaint", "unresolved"];
/// What the record says of a call.
const TRANSFERRED: &str = "transferred";
const SUMMARY: &str = "Summary: ";
const OUTCOME: &str = "Outcome: ";
const FOLLOW_UP: &str = "Follow-up: ";
/// Nothing is left to do.
const NONE: &str = "none";

/// The form, in GBNF.
fn grammar() -> String {
    let outcomes = OUTCOMES.map(|outcome| format!("\"{outcome}\"")).join(" | ");
    format!(
        "root ::= \"{SUMMARY}\" line \"\\n{OUTCOME}\" outcome \"\\n{FOLLOW_UP}\" (\"{NONE}\" | line) \"\\n\"\n\
         outcome ::= {outcomes}\n\
         line ::= [A-Z] [^\\n\\r*]{{9,240}} \".\"\n"
    )
}

/// What is asked of the model.
fn question(part: &str, so_far: Option<&str>) -> String {
    let before = so_far.map_or(String::new(), |summary| {
        format!("What was said before, in short: {summary}\n\n")
    });
    format!(
        "The call is over. Now write a note for the office about it; it is not spoken.\n\n{before}Transcript:\n{part}\n\n\
         Write three lines. \"{SUMMARY}\" what the caller wanted and what was agreed, in one or two sentences. \"{OUTCOME}\" one \
         of {}. \"{FOLLOW_UP}\" what somebody has to do now, or \"{NONE}\". Use only what the transcript says.",
        OUTCOMES.join(", ")
    )
}

impl Worker {
    /// Summarises a call.
    pub(super) async fn summary(&mut self, job: &Job, record: &SessionRecord) -> Result<(), Trouble> {
        let lines = lines(record);
        if lines.is_empty() {
            return Err(Trouble::Nothing("nothing was said"));
        }
        let mut so_far: Option<Form> = None;
        for part in parts(&lines) {
            let text = question(&part, so_far.as_ref().map(|form| form.summary.as_str()));
            let form = self.write(job, text).await?;
            if [Some(&form.summary), form.follow_up.as_ref()]
                .into_iter()
                .flatten()
                .any(|text| invents_a_number(text, &lines))
            {
                return Err(Trouble::Answer("it has a number that nobody said"));
            }
            so_far = Some(form);
        }
        let form = so_far.ok_or(Trouble::Hopeless("nothing was read"))?;
        let transferred = EventKind::TransferAnswered.as_str();
        let outcome = match record.events.iter().any(|event| event.kind == transferred) {
            true => TRANSFERRED.to_owned(),
            false => form.outcome,
        };
        let summary = Summary {
            made_at_ms: clock::unix_ms(),
            model: record.session.llm_model.clone(),
            outcome,
            text: form.summary,
            follow_ups: form.follow_up.into_iter().collect(),
        };
        let job = job.clone();
        self.store(move |store| store.complete_summary(&job, &summary, clock::unix_ms()))
            .await
    }

    async fn write(&mut self, job: &Job, question: String) -> Result<Form, Trouble> {
        let engines = self.workshop.engines.clone();
        let request = GenerateRequest {
            call: CALL | job.session.get().unsigned_abs(),
            turn: 0,
            deadline: DEADLINE,
            messages: vec![ChatMessage {
                role: Role::User,
                content: question,
            }],
            max_tokens: MAX_TOKENS,
            // The likeliest answer first; after a useless one, another.
            temperature: if job.attempt > 1 { 0.7 } else { 0.0 },
            seed: job.attempt,
            stop: vec![],
            grammar: Some(grammar()),
            score_ending: false,
            priority: Priority::Background,
        };
        let written = self
            .ask(Engine::Llm, async move {
                let mut generation = engines.generate(request);
                let mut text = String::new();
                while let Some(event) = generation.next().await {
                    match event? {
                        LlmEvent::Token(piece) => text.push_str(&piece),
                        LlmEvent::Ending(_) => {}
                        LlmEvent::Done(_) => break,
                    }
                }
                Ok::<_, EngineError>(text)
            })
            .await?;
        Form::parse(&written).ok_or(Trouble::Answer("it does not fill the form"))
    }
}

/// The form, filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Form {
    summary: String,
    outcome: String,
    follow_up: Option<String>,
}

impl Form {
    /// From what the model wrote; `None` when something is missing.
    fn parse(text: &str) -> Option<Form> {
        let field = |name: &str| {
            let line = text
                .lines()
                .find_map(|line| line.trim().strip_prefix(name.trim_end()))?;
            Some(line.trim().to_owned()).filter(|value| !value.is_empty())
        };
        let outcome = field(OUTCOME).filter(|outcome| OUTCOMES.contains(&outcome.as_str()))?;
        Some(Form {
            summary: field(SUMMARY)?,
            outcome,
            follow_up: field(FOLLOW_UP).filter(|todo| todo.trim_end_matches('.') != NONE),
        })
    }
}

/// Whether a text has a number of three digits or more that stands nowhere in the transcript. Shorter ones may have been said
/// in words.
fn invents_a_number(text: &str, lines: &[String]) -> bool {
    let numbers = |text: &str| -> Vec<String> {
        text.split(|c: char| !c.is_numeric())
            .filter(|number| number.chars().count() >= 3)
            .map(str::to_owned)
            .collect()
    };
    let said: String = lines
        .join("\n")
        .chars()
        .filter(|c| !matches!(c, ' ' | '-'))
        .collect();
    numbers(text).iter().any(|number| !said.contains(number.as_str()))
}

/// What was said, a line each; the final words where there are any, else the live ones.
fn lines(record: &SessionRecord) -> Vec<String> {
    let mut lines = Vec::new();
    for turn in &record.turns {
        let last = record
            .after
            .transcript
            .iter()
            .find(|text| text.number == turn.number.get() && !text.text.is_empty());
        let said = last.map_or(turn.caller_text.as_str(), |text| text.text.as_str());
        // What was not heard was not said.
        let replied = turn.heard_text.as_ref().unwrap_or(&turn.reply_text);
        for (who, text) in [("Caller", said), ("Attendant", replied.as_str())] {
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            if !text.is_empty() {
                lines.push(format!("{who}: {text}"));
            }
        }
    }
    if record.turns.iter().all(|turn| turn.caller_text.trim().is_empty()) {
        lines.clear();
    }
    lines
}

/// Lines put together to parts that a sequence holds; a longer line is cut.
fn parts(lines: &[String]) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    for line in lines {
        let line: String = line.chars().take(PART).collect();
        match parts.last_mut() {
            Some(part) if part.chars().count() + 1 + line.chars().count() <= PART => {
                part.push('\n');
                part.push_str(&line);
            }
            _ => parts.push(line),
        }
    }
    if parts.len() > MOST_PARTS {
        parts.drain(MOST_PARTS / 2..parts.len() - MOST_PARTS / 2);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_read_or_refused() {
        let whole = "Summary: The caller asked for the opening hours.\nOutcome: answered\nFollow-up: none\n";
        let form = Form::parse(whole).expect("whole");
        assert_eq!(form.summary, "The caller asked for the opening hours.");
        assert_eq!((form.outcome.as_str(), form.follow_up), ("answered", None));
        let todo = Form::parse("Summary: A message.\nOutcome: message\nFollow-up: Call back.").expect("todo");
        assert_eq!(todo.follow_up.as_deref(), Some("Call back."));
        for broken in [
            "",
            "The caller asked for the hours.",
            "Summary: \nOutcome: answered\nFollow-up: none",
            "Summary: Something.\nOutcome: wonderful\nFollow-up: none",
            "Summary: Something.",
        ] {
            assert_eq!(Form::parse(broken), None, "{broken:?}");
        }
        let grammar = grammar();
        assert!(
            grammar.contains("\"answered\" | \"message\"") && grammar.contains("\\nOutcome: "),
            "{grammar}"
        );
    }

    #[test]
    fn numbers_are_taken_from_the_call() {
        let lines = ["Caller: Call me at 555 01-42 after nine.".to_owned()];
        for (text, want) in [
            ("Call back at 5550142.", false),
            ("Call back at 555 0142 after 9.", false),
            ("Call back at 555 0143.", true),
            ("It costs 120 dollars.", true),
            ("Nothing.", false),
        ] {
            assert_eq!(invents_a_number(text, &lines), want, "{text}");
        }
    }

    #[test]
    fn a_long_call_is_read_in_parts() {
        let lines: Vec<String> = (0..400)
            .map(|n| format!("Caller: line {n} {}", "word ".repeat(30)))
            .collect();
        let found = parts(&lines);
        assert_eq!(found.len(), MOST_PARTS);
        assert!(found.iter().all(|part| part.chars().count() <= PART));
        assert!(found[0].starts_with("Caller: line 0 ") && found[MOST_PARTS - 1].contains("line 399 "));
        assert_eq!(parts(&["x".repeat(9_000)])[0].len(), PART);
        assert!(parts(&[]).is_empty());
        let question = question(&found[0], Some("He asked for the hours."));
        assert!(question.contains("in short: He asked") && question.contains(&found[0]));
    }
}
