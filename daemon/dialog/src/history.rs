//! History: what was said so far in a call, as the model sees it.
//!
//! Messages alternate, the caller first: some chat templates refuse anything else. So the greeting is not
//! part of it, and what the caller says in two goes before a reply becomes one message. When the budget is
//! nearly used up after a reply, the oldest exchanges go until only 60 % of it is left. That happens between
//! turns, with room for what the caller says next: were it to happen while a caller waits, each try at an
//! answer would begin with another history, and the model would read it anew each time.

use serde::{Deserialize, Serialize};

/// Role of a [`Message`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Instructions.
    System,
    /// The caller.
    User,
    /// The attendant.
    Assistant,
}

/// One message to the model.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: String,
}

/// Hides what was said.
impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Message")
            .field("role", &self.role)
            .field("chars", &self.content.len())
            .finish()
    }
}

/// The conversation of one call, within a budget.
#[derive(Debug, Clone)]
pub struct History {
    messages: Vec<Message>,
    budget_chars: usize,
}

impl History {
    /// With room for `budget_chars` characters, about four of them to a token. The last exchange stays
    /// whatever its size.
    pub fn new(budget_chars: usize) -> History {
        History {
            messages: Vec::new(),
            budget_chars,
        }
    }

    /// The caller said `text`.
    pub fn push_caller(&mut self, text: &str) {
        self.push(Role::User, text);
        self.trim(self.budget_chars);
    }

    /// The attendant said `text`. Of an interrupted reply give only what the caller heard; nothing when it
    /// was nothing.
    pub fn push_reply(&mut self, text: &str) {
        // Before the caller's first words there is only the greeting.
        if !self.messages.is_empty() {
            self.push(Role::Assistant, text);
        }
        self.trim(self.budget_chars.saturating_sub(self.budget_chars / 5));
    }

    /// The messages after the system prompt, oldest first.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// The messages as they would be if the caller now said `text`; for speculation on an unfinished
    /// utterance.
    pub fn messages_with(&self, text: &str) -> Vec<Message> {
        let mut next = self.clone();
        next.push_caller(text);
        next.messages
    }

    /// The attendant's last words, if any.
    pub fn last_reply(&self) -> Option<&str> {
        self.messages
            .iter()
            .rev()
            .find(|m| m.role == Role::Assistant)
            .map(|m| m.content.as_str())
    }

    /// The caller's last words, if any.
    pub fn last_caller(&self) -> Option<&str> {
        self.messages
            .iter()
            .rev()
            .find(|m| m.role == Role::User)
            .map(|m| m.content.as_str())
    }

    fn push(&mut self, role: Role, text: &str) {
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if text.is_empty() {
            return;
        }
        match self.messages.last_mut() {
            Some(last) if last.role == role => {
                last.content.push(' ');
                last.content.push_str(&text);
            }
            Some(_) | None => self.messages.push(Message { role, content: text }),
        }
    }

    /// Trims when there are more than `most` characters.
    fn trim(&mut self, most: usize) {
        if self.chars() <= most {
            return;
        }
        let target = self.budget_chars / 10 * 6;
        // An exchange is the caller's message and the reply to it.
        while self.chars() > target && self.messages.len() > 2 {
            self.messages.drain(..2);
        }
        // What is left, one endless message, keeps its end.
        if let Some(last) = self.messages.last_mut()
            && last.content.chars().count() > self.budget_chars
        {
            let skip = last.content.chars().count() - self.budget_chars;
            last.content = last.content.chars().skip(skip).collect();
        }
    }

    fn chars(&self) -> usize {
        self.messages.iter().map(|m| m.content.chars().count()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn contents(history: &History) -> Vec<&str> {
        history.messages().iter().map(|m| m.content.as_str()).collect()
    }

    #[test]
    fn alternates_and_joins() {
        let mut history = History::new(1_000);
        history.push_reply("Hello, how can I help?");
        history.push_caller("When do you");
        history.push_reply("");
        history.push_caller("open on\n Monday?");
        history.push_reply("At eight.");
        assert_eq!(contents(&history), ["When do you open on Monday?", "At eight."]);
        assert_eq!(history.last_reply(), Some("At eight."));
        assert_eq!(history.messages_with("Thanks.").len(), 3);
        assert_eq!(history.messages().len(), 2);
    }

    #[test]
    fn trims_the_oldest_in_one_go() {
        let mut history = History::new(200);
        for turn in 0..30 {
            history.push_caller(&format!("question {turn:02} ............"));
            history.push_reply(&format!("answer {turn:02} ............"));
        }
        assert!(history.chars() <= 160, "{}", history.chars());
        assert_eq!(history.messages()[0].role, Role::User);
        assert!(history.last_reply().expect("reply").contains("29"));
    }

    #[test]
    fn tries_at_a_turn_begin_with_the_same_history() {
        let mut history = History::new(400);
        for turn in 0..40 {
            let before = history.messages().to_vec();
            for said in ["when", "when do you", "when do you open on Monday?"] {
                let tried = history.messages_with(said);
                assert_eq!(tried[..before.len()], before, "turn {turn}");
            }
            history.push_caller("when do you open on Monday?");
            history.push_reply("We open at eight o'clock.");
        }
    }

    #[test]
    fn an_endless_message_keeps_its_end() {
        let mut history = History::new(50);
        history.push_caller(&"blah ".repeat(100));
        history.push_caller("the end");
        assert!(history.chars() <= 50);
        assert!(contents(&history)[0].ends_with("the end"));
    }

    proptest! {
        #[test]
        fn always_alternates_from_the_caller(said in prop::collection::vec((any::<bool>(), ".{0,40}"), 0..60)) {
            let mut history = History::new(120);
            for (caller, text) in &said {
                if *caller { history.push_caller(text) } else { history.push_reply(text) }
            }
            for (index, message) in history.messages().iter().enumerate() {
                prop_assert_eq!(message.role == Role::User, index % 2 == 0);
                prop_assert!(!message.content.is_empty());
            }
        }
    }
}
