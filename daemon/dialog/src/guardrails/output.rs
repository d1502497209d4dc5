//! What must not be spoken, whoever wrote it. Looked at clause by clause, before a clause reaches the voice.

use super::{
    Category, Hit, Rules, Stage,
    contacts::{Contacts, Known, Unknown},
    pattern::{Matcher, normal},
};

/// Words of earlier clauses that a phrase may have begun in.
const TAIL: usize = 12;
/// Words in a row from the beginning of one of the house's own rules that give it away.
pub(super) const RULE_WORDS: usize = 8;
/// A shorter rule is ordinary speech.
const FEWEST_RULE_WORDS: usize = 5;

/// Foul words; whole words only.
const FOUL: &[&str] = &[
    "fuck*|motherfuck*|shit|shitty|bullshit|asshole*|bitch*|cunt*|bastard*|dickhead*|whore*|slut*",
    "nigger*|faggot*|retard|retards|kike|spic|chink",
    "shut up",
    "you're|are ~1 stupid|idiot|moron|pathetic|worthless",
    "i'll|will kill|hurt you",
];

/// Advice that a telephone attendant must not give.
const HARM: &[&str] = &[
    "kill|hurt|harm yourself|himself|herself",
    "you should|could|must die",
    "take|swallow|inject ~4 milligrams|milligram|mg|pills|tablets|capsules|ibuprofen|aspirin|paracetamol|acetaminophen|opioid*",
    "mix|combine ~2 bleach|ammonia",
    "no need ~2 ambulance|911|112|emergency",
    "don't need|call ~3 ambulance|911|112|emergency",
];

/// The model has taken other orders.
const TAKEN_OVER: &[&str] = &[
    "developer|dan|god|jailbreak|unrestricted|debug|sudo mode",
    "i|i'll ~2 ignore|disregard|forget ~4 instructions|rules|guidelines|restrictions",
    "ignoring|disregarding ~4 instructions|rules|guidelines|restrictions",
    "i'm|am ~1 now ~1 dan|unrestricted|jailbroken",
    "i have|with no restrictions|rules|filters|limits|limitations",
    "pwned|jailbroken|jailbreak",
    "as dan",
    "your wish is my command",
    "matey|arr|ahoy",
];

/// The prompt, or talk of it.
const LEAK: &[&str] = &[
    "system|initial|hidden prompt|prompts",
    "system|hidden|secret|initial instructions",
    "my prompt|programming|guidelines|directives !and|reply",
    "my instructions|rules are|is|say|state|tell|were|include|begin|start",
    "i|i've|i'm ~2 instructed|programmed|prompted !by|on",
    "everything you write is spoken",
    "facts below",
    "you are ~6 telephone attendant of",
    "here|these are ~2 my|the|your instructions|rules|guidelines !for|on|about",
    "end of ~1 prompt|system",
];

/// Talk of other people's business.
const OTHERS: &[&str] = &[
    "last|previous|other|another|earlier caller|customer|client|patient ~3 said|asked|told|called|ordered|booked|wanted|paid|bought|lives|mentioned|complained",
    "last|previous|other|another caller|customer|client|patient was|is ~1 named|called|mr|mrs|ms|miss",
    "last|previous|another caller's|customer's|client's|patient's name|number|address|phone|email|appointment|order|details|bill",
    "someone|somebody else's name|number|address|phone|email|appointment|order|details|bill",
    "our|all ~1 customers|clients|patients are|include ~1 mr|mrs|ms|miss",
    "list of ~2 customers|clients|patients|callers",
];

/// Promises that nobody made.
const PROMISES: &[&str] = &[
    "legally|contractually binding",
    "no takesies backsies",
    "i|we promise|guarantee ~3 refund|discount|free|compensation",
    "i|we accept|admit ~2 liability|fault|responsibility",
];

/// What models say of themselves, or decline with.
const REFUSAL: &[&str] = &[
    "as a|an ~2 language model",
    "as an ai|artificial",
    "i'm|am ~2 language model",
    "i'm|am ~1 qwen|chatgpt|gpt|claude|gemini|llama|alexa|siri",
    "created|developed|trained|made|built by ~1 alibaba|openai|anthropic|google|meta|microsoft|qwen",
    "knowledge cutoff|cut",
    "my training data|cutoff",
    "cannot|can't|unable|not ~1 fulfill|fulfil|comply|assist ~3 request",
    "i don't have ~1 feelings|emotions|consciousness",
    "against my programming|guidelines",
    "large language model",
];

pub(super) fn fill(matcher: &mut Matcher<Category>, forbidden: &[String], wanted: impl Fn(Category) -> bool) {
    for (category, patterns) in [
        (Category::Safety, HARM),
        (Category::Abuse, FOUL),
        (Category::OthersData, OTHERS),
        (Category::PromptLeak, LEAK),
        (Category::Injection, TAKEN_OVER),
        (Category::Scope, PROMISES),
        (Category::Refusal, REFUSAL),
    ] {
        if wanted(category) {
            matcher.add(category, patterns);
        }
    }
    if wanted(Category::Scope) {
        matcher.add_literal(Category::Scope, forbidden);
    }
}

/// How the house's own rules begin; reciting one is a leak. What is shorter would be met in ordinary speech.
pub(super) fn beginnings(rules: &[String]) -> Vec<String> {
    rules
        .iter()
        .map(|rule| normal(rule))
        .filter(|words| words.len() >= FEWEST_RULE_WORDS)
        .map(|words| words.get(..RULE_WORDS).unwrap_or(&words).join(" "))
        .collect()
}

/// Looks at the clauses of one reply, in their order.
#[derive(Debug, Clone)]
pub struct OutputCheck<'a> {
    rules: &'a Rules,
    call: Known,
    contacts: Contacts,
    tail: Vec<String>,
}

impl<'a> OutputCheck<'a> {
    pub(super) fn new<'b>(rules: &'a Rules, conversation: impl Iterator<Item = &'b str>) -> OutputCheck<'a> {
        let mut call = Known::default();
        if rules.checks_contacts {
            conversation.for_each(|text| call.add(text));
        }
        OutputCheck {
            rules,
            call,
            contacts: Contacts::default(),
            tail: Vec::new(),
        }
    }

    /// Looks at the next clause; the first hit ends the reply: neither this clause nor a later one may be spoken.
    pub fn clause(&mut self, clause: &str) -> Option<Hit> {
        if !self.rules.output_wanted {
            return None;
        }
        self.tail.extend(normal(clause));
        if let Some(found) = self.rules.output.find(&self.tail) {
            return Some(Hit {
                stage: Stage::Output,
                category: found.means,
                rule: found.pattern,
                matched: found.matched,
            });
        }
        let surplus = self.tail.len().saturating_sub(TAIL);
        self.tail.drain(..surplus);
        if !self.rules.checks_contacts {
            return None;
        }
        let unknown = self.contacts.check(clause, &self.rules.house, &self.call)?;
        let (rule, matched) = match unknown {
            Unknown::Number(digits) => ("a number that nobody gave", format!("{digits} digits")),
            Unknown::Address => ("an address that nobody gave", "e-mail address".to_owned()),
        };
        Some(Hit {
            stage: Stage::Output,
            category: Category::OthersData,
            rule: rule.to_owned(),
            matched,
        })
    }
}
