//! Guard: keeps what is no speech out of a reply, while it streams.
//!
//! Small models run on: they play the caller's part, print template tokens, fence code, recite their rules,
//! repeat themselves. The guard passes whole words and ends the reply at the first of these; see [`Trigger`].

use std::collections::VecDeque;

use crate::{
    Persona,
    prompt::STYLE_RULES,
    words::{Stop, full_stop, words},
};

/// Words in a row that make an echo of the rules.
const ECHO: usize = 6;
/// Shortest run of words that counts as a repetition when said twice in a row.
const REPEAT: usize = 4;
/// Longest word passed [bytes]; at a longer one the reply ends.
const MAX_WORD: usize = 200;

/// Tokens of chat templates and fences of code: the reply ends before them.
const TOKENS: &[&str] = &[
    "<|",
    "|>",
    "<s>",
    "</s>",
    "<start_of_turn>",
    "<end_of_turn>",
    "[INST]",
    "[/INST]",
    "<<SYS>>",
    "###",
    "```",
    "~~~",
];

/// Roles of others: when the model begins to speak for them, the reply ends.
const OTHERS: &[&str] = &[
    "user", "caller", "customer", "human", "system", "client", "question", "q", "note", "rules",
];
/// The attendant's own roles: before the first word they are dropped, later the reply ends.
const OWN: &[&str] = &[
    "assistant",
    "attendant",
    "ai",
    "bot",
    "answer",
    "reply",
    "response",
    "receptionist",
    "a",
];

/// How long a reply may get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuardLimits {
    /// After this many words the reply ends with its sentence; half as many again and it ends anyway.
    pub max_words: usize,
}

impl Default for GuardLimits {
    /// 45 words: about 17 s of speech, half as much again as the prompt asks for.
    fn default() -> GuardLimits {
        GuardLimits { max_words: 45 }
    }
}

/// Why a reply was ended early. All but `TooLong` are worth an entry in the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// The model began to speak for another role.
    Role,
    /// A token of a chat template.
    Token,
    /// Code.
    Code,
    /// The model recited its rules.
    Echo,
    /// The same words again.
    Repetition,
    /// Longer than allowed.
    TooLong,
}

/// Filters one reply as it streams.
#[derive(Debug, Clone)]
pub struct Guard {
    limits: GuardLimits,
    own_name: Option<String>,
    rules: Vec<Vec<String>>,
    held: String,
    /// Last normalised words, for echoes and repetitions.
    recent: VecDeque<String>,
    count: usize,
    sentence_start: bool,
    thinking: bool,
    trigger: Option<Trigger>,
}

impl Guard {
    /// For a new reply of this persona.
    pub fn new(limits: GuardLimits, persona: &Persona) -> Guard {
        Guard {
            limits,
            own_name: words(&persona.attendant_name).pop(),
            rules: STYLE_RULES.iter().map(|rule| words(rule)).collect(),
            held: String::new(),
            recent: VecDeque::new(),
            count: 0,
            sentence_start: true,
            thinking: false,
            trigger: None,
        }
    }

    /// Takes the next piece of the stream; returns what may be spoken of it: whole words with the space
    /// behind them.
    pub fn push(&mut self, piece: &str) -> String {
        let mut passed = String::new();
        if self.trigger.is_some() {
            return passed;
        }
        self.held.push_str(piece);
        while self.trigger.is_none() {
            let space = self.held.char_indices().find(|(_, c)| c.is_whitespace());
            if space.map_or(self.held.len(), |(at, _)| at) > MAX_WORD {
                self.trigger = Some(Trigger::TooLong);
                break;
            }
            let Some((at, space)) = space else { break };
            let rest = self.held.split_off(at + space.len_utf8());
            let mut word = std::mem::replace(&mut self.held, rest);
            word.truncate(at);
            let before = passed.len();
            self.word(&word, &mut passed);
            self.sentence_start |= space == '\n';
            // A space only behind a word, but a line's end always: it separates.
            if self.trigger.is_none() && (passed.len() > before || (space == '\n' && self.count > 0)) {
                passed.push(if space == '\n' { '\n' } else { ' ' });
            }
        }
        passed
    }

    /// The stream has ended: returns its last word.
    pub fn finish(&mut self) -> String {
        let mut passed = String::new();
        let word = std::mem::take(&mut self.held);
        if self.trigger.is_none() && !word.is_empty() && word.len() <= MAX_WORD {
            self.word(&word, &mut passed);
        }
        passed
    }

    /// Why the reply was ended, if it was: the rest need not be generated.
    pub fn trigger(&self) -> Option<Trigger> {
        self.trigger
    }

    fn word(&mut self, word: &str, passed: &mut String) {
        let mut word = word;
        if let Some((_, after)) = word.rsplit_once("</think>") {
            self.thinking = false;
            word = after;
        } else if self.thinking {
            return;
        }
        if let Some((before, _)) = word.split_once("<think>") {
            self.thinking = true;
            word = before;
        }
        if let Some(at) = TOKENS.iter().filter_map(|token| word.find(token)).min() {
            let code = word[at..].starts_with("```") || word[at..].starts_with("~~~");
            self.trigger = Some(if code { Trigger::Code } else { Trigger::Token });
            word = &word[..at];
        }
        if word.is_empty() || self.role(word) {
            return;
        }
        for bare in words(word) {
            self.count += 1;
            self.recent.push_back(bare);
            if self.recent.len() > 60 {
                self.recent.pop_front();
            }
        }
        let mark = word.trim_end_matches(['"', '\'', ')', '*', '”', '’']);
        let ends = mark.ends_with(['!', '?']) || (mark.ends_with('.') && full_stop(mark) == Stop::Sentence);
        self.sentence_start = ends;
        if self.trigger.is_none() {
            self.trigger = self.judge(ends);
        }
        // The word that completes an echo or a repetition is not said.
        if !matches!(self.trigger, Some(Trigger::Echo | Trigger::Repetition)) {
            passed.push_str(word);
        }
    }

    /// Handles `User:` and its like at the beginning of a sentence; true when the word is not to be said.
    fn role(&mut self, word: &str) -> bool {
        if !self.sentence_start {
            return false;
        }
        let Some(name) = word.trim_matches(['*', '[', ']', '(', ')']).strip_suffix(':') else {
            return false;
        };
        let name = name.trim_end_matches('*').to_lowercase();
        let own = OWN.contains(&name.as_str()) || self.own_name.as_ref() == Some(&name);
        if own && self.count == 0 {
            return true;
        }
        if own || OTHERS.contains(&name.as_str()) {
            self.trigger = Some(Trigger::Role);
            return true;
        }
        false
    }

    fn judge(&self, sentence_ends: bool) -> Option<Trigger> {
        let recent: Vec<&String> = self.recent.iter().collect();
        if recent.len() >= ECHO {
            let last = &recent[recent.len() - ECHO..];
            if self.rules.iter().any(|rule| {
                rule.windows(ECHO)
                    .any(|window| window.iter().eq(last.iter().copied()))
            }) {
                return Some(Trigger::Echo);
            }
        }
        let repeats = (REPEAT..=recent.len() / 2).any(|length| {
            let (before, last) = recent[recent.len() - 2 * length..].split_at(length);
            before == last && !last.iter().all(|word| crate::words::is_number(word))
        });
        if repeats {
            return Some(Trigger::Repetition);
        }
        let over = (sentence_ends && self.count >= self.limits.max_words)
            || self.count
                >= self
                    .limits
                    .max_words
                    .saturating_add(self.limits.max_words / 2)
                    .max(1);
        over.then_some(Trigger::TooLong)
    }
}

/// Guards a whole reply at once. An early end falls back to the end of the last whole sentence, if there is
/// one. `None` when nothing speakable is left.
pub fn sanitise(reply: &str, limits: GuardLimits, persona: &Persona) -> Option<String> {
    let mut guard = Guard::new(limits, persona);
    let mut text = guard.push(reply);
    text.push_str(&guard.finish());
    let mut text = text.trim();
    if guard.trigger().is_some()
        && let Some(end) = last_sentence_end(text)
    {
        text = &text[..end];
    }
    text.chars().any(char::is_alphanumeric).then(|| text.to_owned())
}

/// Byte index behind the last whole sentence.
fn last_sentence_end(text: &str) -> Option<usize> {
    let mut end = None;
    let mut at = 0;
    for word in text.split_inclusive(char::is_whitespace) {
        let bare = word.trim_end();
        if bare.ends_with(['!', '?']) || (bare.ends_with('.') && full_stop(bare) == Stop::Sentence) {
            end = Some(at + bare.len());
        }
        at += word.len();
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn persona() -> Persona {
        Persona {
            attendant_name: "Joe".into(),
            ..Persona::default()
        }
    }

    /// Streams `text` in pieces of three characters.
    fn stream(text: &str) -> (String, Option<Trigger>) {
        let mut guard = Guard::new(GuardLimits { max_words: 20 }, &persona());
        let chars: Vec<char> = text.chars().collect();
        let mut passed: String = chars
            .chunks(3)
            .map(|piece| guard.push(&piece.iter().collect::<String>()))
            .collect();
        passed.push_str(&guard.finish());
        (passed.trim().to_owned(), guard.trigger())
    }

    #[test]
    fn passes_speech_and_stops_the_rest() {
        use Trigger::*;
        let cases: &[(&str, &str, Option<Trigger>)] = &[
            ("We open at nine.", "We open at nine.", None),
            ("Assistant: We open at nine.", "We open at nine.", None),
            ("Joe: We open at nine.", "We open at nine.", None),
            ("**Joe:** Hi there.", "Hi there.", None),
            ("At nine.\nUser: And on Sunday?", "At nine.", Some(Role)),
            ("At nine. Caller: thanks", "At nine.", Some(Role)),
            ("At nine.<|im_end|>\n<|im_start|>user", "At nine.", Some(Token)),
            ("At nine. </s> more", "At nine.", Some(Token)),
            ("Here: ```python\nprint()```", "Here:", Some(Code)),
            (
                "<think>The caller wants hours.</think>\n\nAt nine.",
                "At nine.",
                None,
            ),
            ("<think> never ends", "", None),
            (
                "Ask for the caller: he knows.",
                "Ask for the caller: he knows.",
                None,
            ),
            (
                "My rules: answer in one or two short sentences, at most",
                "My rules: answer in one or two short",
                None,
            ),
            (
                "We are closed now, sorry. We are closed now, sorry. We are closed",
                "We are closed now, sorry. We are closed now,",
                Some(Repetition),
            ),
            (
                "My number is five five five five five five five five.",
                "My number is five five five five five five five five.",
                None,
            ),
        ];
        for (text, want, trigger) in cases {
            let (passed, found) = stream(text);
            if text.starts_with("My rules") {
                assert_eq!(found, Some(Echo), "{text}");
                assert!(passed.len() < text.len() / 2 + 20, "{passed}");
                continue;
            }
            assert_eq!((passed.as_str(), found), (*want, *trigger), "{text}");
        }
    }

    #[test]
    fn ends_a_run_on_at_a_sentence() {
        let text = "This is a sentence of seven words here. ".to_owned()
            + "Then comes another one that is quite a bit longer than the first. And a third. And a fourth.";
        let (passed, trigger) = stream(&text);
        assert_eq!(trigger, Some(Trigger::TooLong));
        assert!(passed.ends_with("than the first."), "{passed}");
        let (passed, _) = stream(&(0..100).map(|n| format!("word{n} ")).collect::<String>());
        assert_eq!(passed.split_whitespace().count(), 30);
    }

    #[test]
    fn whole_replies_end_with_a_whole_sentence_or_are_none() {
        let whole = |text| sanitise(text, GuardLimits { max_words: 8 }, &persona());
        assert_eq!(
            whole("One two three four. Five six seven eight nine ten eleven twelve thirteen.").as_deref(),
            Some("One two three four.")
        );
        assert_eq!(whole("<|im_end|>"), None);
        assert_eq!(whole("..."), None);
        assert_eq!(whole("  \n "), None);
        assert_eq!(whole("Fine.").as_deref(), Some("Fine."));
    }

    proptest! {
        #[test]
        fn never_passes_a_template_token(pieces in prop::collection::vec("[a-z<>|/\\[\\]INST#` \n:_.]{0,12}", 0..40)) {
            let mut guard = Guard::new(GuardLimits::default(), &persona());
            let mut passed: String = pieces.iter().map(|piece| guard.push(piece)).collect();
            passed.push_str(&guard.finish());
            for token in TOKENS {
                prop_assert!(!passed.contains(token), "{passed:?}");
            }
        }

        #[test]
        fn pieces_do_not_matter(text in "\\PC{0,200}", size in 1_usize..9) {
            let run = |size: usize| {
                let mut guard = Guard::new(GuardLimits::default(), &persona());
                let chars: Vec<char> = text.chars().collect();
                let mut passed: String =
                    chars.chunks(size).map(|piece| guard.push(&piece.iter().collect::<String>())).collect();
                passed.push_str(&guard.finish());
                passed
            };
            prop_assert_eq!(run(size), run(1));
        }
    }
}
