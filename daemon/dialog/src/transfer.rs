//! Transfer: whether the caller asks to be put through, and to whom. A rule, over a list of names.
//!
//! Being put through by mistake costs the caller the call; being asked "what is it about?" costs a sentence. So a name
//! alone counts only where it is the whole answer ("The workshop, please."), else it wants a verb of asking before it.

use crate::words::words;

/// What a caller says of whoever it is at the other end, when any person will do.
pub const ANYBODY: &[&str] = &[
    "operator",
    "human",
    "human being",
    "person",
    "real person",
    "live person",
    "receptionist",
    "reception",
    "representative",
    "agent",
    "somebody",
    "someone",
    "anybody",
    "anyone",
    "staff",
    "a colleague",
    "your boss",
    "manager",
];

/// What asks for somebody; the name follows.
const ASKING: &[&[&str]] = &[
    &["speak", "to"],
    &["speak", "with"],
    &["talk", "to"],
    &["talk", "with"],
    &["put", "me", "through", "to"],
    &["put", "through", "to"],
    &["transfer", "me", "to"],
    &["transferred", "to"],
    &["connect", "me", "to"],
    &["connect", "me", "with"],
    &["connected", "to"],
    &["get", "me"],
    &["give", "me"],
    &["i", "want"],
    &["i", "need"],
    &["i'd", "like"],
    &["can", "i", "have"],
    &["could", "i", "have"],
    &["may", "i", "have"],
    &["looking", "for"],
    &["reach"],
];

/// Words between the asking and the name.
const BETWEEN: &[&str] = &[
    "a", "an", "the", "your", "my", "our", "some", "in", "at", "from", "of", "real", "actual", "live",
    "somebody", "someone", "anybody", "anyone", "person", "please", "mister", "mr", "mrs", "miss", "ms",
];

/// What stands around a name that is the whole answer.
const POLITE: &[&str] = &[
    "please", "thanks", "thank", "you", "yes", "yeah", "okay", "ok", "um", "uh", "the", "a", "an", "just",
    "your", "hello", "hi", "no",
];

/// What turns it into something else.
const NOT: &[&str] = &[
    "don't", "not", "never", "didn't", "without", "already", "isn't", "who",
];

/// Which of `targets` the caller's `text` asks for; each is a list of names, in lower case. The longest name wins, and of
/// two equally long ones the one said later: "somebody in the workshop".
#[must_use]
pub fn asks_for<S: AsRef<str>>(text: &str, targets: &[Vec<S>]) -> Option<usize> {
    let said = words(text);
    if said.iter().any(|word| NOT.contains(&word.as_str())) {
        return None;
    }
    let mut best: Option<(usize, usize, usize)> = None;
    for (index, names) in targets.iter().enumerate() {
        for name in names {
            let name = words(name.as_ref());
            let Some(at) = asked_at(&said, &name) else {
                continue;
            };
            if best.is_none_or(|(length, place, _)| (name.len(), at) > (length, place)) {
                best = Some((name.len(), at, index));
            }
        }
    }
    best.map(|(_, _, index)| index)
}

/// Where a name is asked for, if it is.
fn asked_at(said: &[String], name: &[String]) -> Option<usize> {
    if name.is_empty() {
        return None;
    }
    said.windows(name.len()).enumerate().find_map(|(at, window)| {
        let before = said.get(..at).unwrap_or_default();
        let after = said.get(at + name.len()..).unwrap_or_default();
        let whole = before
            .iter()
            .chain(after)
            .all(|word| POLITE.contains(&word.as_str()));
        (window == name && (whole || is_asked(before))).then_some(at)
    })
}

/// Whether what stands before a name ends in asking for it.
fn is_asked(before: &[String]) -> bool {
    let fillers = before
        .iter()
        .rev()
        .take_while(|word| BETWEEN.contains(&word.as_str()))
        .count();
    // "somebody in the workshop": some of the fillers may belong to the asking.
    (0..=fillers).any(|left| {
        let asking = before.get(..before.len() - left).unwrap_or_default();
        ASKING.iter().any(|phrase| {
            asking.len() >= phrase.len()
                && asking
                    .iter()
                    .rev()
                    .zip(phrase.iter().rev())
                    .all(|(word, wanted)| word == wanted)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets() -> Vec<Vec<&'static str>> {
        vec![
            [&["office"], ANYBODY].concat(),
            vec!["workshop", "the garage"],
            vec!["workshop manager", "anna"],
        ]
    }

    #[test]
    fn asking_for_somebody_is_understood() {
        let cases = [
            ("Can I speak to the office?", 0),
            ("I'd like to talk to a human, please.", 0),
            ("Operator.", 0),
            ("Operator, please!", 0),
            ("Could you put me through to the workshop?", 1),
            ("Please transfer me to your workshop.", 1),
            ("Can I talk to somebody in the workshop?", 1),
            ("I want to speak with someone from the office, please.", 0),
            ("Give me the operator.", 0),
            ("The workshop manager, please.", 2),
            ("I need to talk to the workshop manager.", 2),
            ("Connect me with Anna.", 2),
            ("I need a real person.", 0),
            ("Yes, the garage please.", 1),
            ("I want to talk to someone.", 0),
            ("Can I have the workshop please", 1),
        ];
        for (text, want) in cases {
            assert_eq!(asks_for(text, &targets()), Some(want), "{text}");
        }
    }

    #[test]
    fn talking_about_somebody_is_not_asking_for_them() {
        let cases = [
            "",
            "Where is your office?",
            "When does the workshop open?",
            "I left my keys in the workshop yesterday.",
            "I don't want to talk to a human.",
            "Someone told me you sell tyres.",
            "I already spoke to the office.",
            "Who do I speak to in the office?",
            "My manager said you would call me.",
            "Is Anna a nice person?",
            "The office chair you sold me is broken.",
        ];
        for text in cases {
            assert_eq!(asks_for(text, &targets()), None, "{text}");
        }
        assert_eq!(asks_for("Operator.", &[] as &[Vec<&str>]), None);
    }
}
