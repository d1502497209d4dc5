//! From messages to the tokens of a prompt, by the model's own chat template.
//!
//! The whole conversation is rendered and tokenised each time (about 1 ms); what of it is cached is found by comparing
//! tokens, so a template may do as it likes.

use std::ffi::CString;

use attendant_models::protocol::{ChatMessage, Role};

use crate::llama::{Llama, Token, apply_template};

/// For models without a template of their own, and for those whose template llama.cpp does not know.
const CHATML: &str = "chatml";

/// What the prompt ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The last message.
    Message,
    /// The last message's last word, which more may follow.
    Open,
    /// The beginning of the assistant's message.
    Reply,
}

/// Renders prompts of one model.
#[derive(Debug)]
pub(crate) struct Chat {
    template: CString,
    /// Comes before every call's messages.
    prefix: Vec<ChatMessage>,
}

impl Chat {
    pub(crate) fn new(llama: &Llama) -> Self {
        let probe = [(CString::from(c"user"), CString::from(c"?"))];
        let template = llama
            .template()
            .filter(|t| apply_template(t, &probe, true).is_some())
            .unwrap_or_else(|| {
                tracing::warn!("the model has no chat template known to llama.cpp: using ChatML");
                CString::new(CHATML).unwrap_or_default()
            });
        Self {
            template,
            prefix: Vec::new(),
        }
    }

    pub(crate) fn set_prefix(&mut self, messages: Vec<ChatMessage>) {
        self.prefix = messages;
    }

    /// Tokens of prefix and messages; `None` when a template refuses the order of roles.
    pub(crate) fn prompt(
        &self,
        llama: &Llama,
        messages: &[ChatMessage],
        ending: Ending,
    ) -> Option<Vec<Token>> {
        let all: Vec<_> = self
            .prefix
            .iter()
            .chain(messages)
            .map(|m| (CString::from(role(m.role)), clean(llama, &m.content)))
            .collect();
        let text = apply_template(&self.template, &all, ending == Ending::Reply)?;
        let mut tokens = llama.tokenize(&text, true);
        if ending == Ending::Open
            && let Some(end) = tokens.iter().rposition(|&token| llama.is_end(token))
        {
            tokens.truncate(end);
        }
        Some(tokens)
    }
}

fn role(role: Role) -> &'static std::ffi::CStr {
    match role {
        Role::System => c"system",
        Role::User => c"user",
        Role::Assistant => c"assistant",
    }
}

/// A message is text: what would read as the template's own structure (`<|im_end|>`) loses its brackets, so that
/// nobody speaks for another role.
fn clean(llama: &Llama, content: &str) -> CString {
    let mut text: String = content.chars().filter(|c| *c != '\0').collect();
    if llama
        .tokenize(&text, false)
        .into_iter()
        .any(|t| llama.is_control(t))
    {
        text.retain(|c| !matches!(c, '<' | '>' | '[' | ']' | '|'));
    }
    CString::new(text).unwrap_or_default()
}
