//! Parts: what is synthesised in one go. Small enough that a cancel is heard soon and the first audio comes early, and
//! never across the end of a sentence. Pure.

use espeak_rs::{Clause, Terminator};

/// Longest first part [IPA characters]; about three seconds of speech, 150 ms of computing on two cores.
const LONGEST_FIRST: usize = 60;
/// Longest later part [IPA characters].
const LONGEST: usize = 120;

/// One go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// IPA with the punctuation that carries its melody.
    pub phonemes: String,
    /// How long to pause after it.
    pub pause: Pause,
}

/// What follows a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pause {
    /// The same clause goes on: it was only too long.
    None,
    /// This punctuation.
    After(Terminator),
}

impl Pause {
    /// Silence after the last sound [ms], as read aloud by a calm speaker.
    #[must_use]
    pub fn millis(self) -> u32 {
        match self {
            Self::None => 30,
            Self::After(Terminator::Comma) => 110,
            Self::After(Terminator::Semicolon | Terminator::Colon) => 160,
            Self::After(Terminator::Period | Terminator::Question | Terminator::Exclamation) => 220,
        }
    }
}

/// Joins clauses of a sentence while they fit, and splits a clause that alone is too long between words.
#[must_use]
pub fn parts(clauses: &[Clause]) -> Vec<Part> {
    let mut out: Vec<Part> = Vec::new();
    let mut current: Option<Part> = None;
    for (phonemes, pause) in clauses.iter().flat_map(pieces) {
        let length = phonemes.chars().count();
        let mark = match pause {
            Pause::None => Terminator::Comma.as_char(),
            Pause::After(terminator) => terminator.as_char(),
        };
        let limit = if out.is_empty() { LONGEST_FIRST } else { LONGEST };
        match &mut current {
            Some(part) if joins(part.pause) && part.phonemes.chars().count() + length < limit => {
                part.phonemes.push(' ');
                part.phonemes.push_str(&phonemes);
                part.phonemes.push(mark);
                part.pause = pause;
            }
            _ => {
                out.extend(current.take());
                current = Some(Part {
                    phonemes: format!("{phonemes}{mark}"),
                    pause,
                });
            }
        }
    }
    out.extend(current);
    out
}

/// Whether more may follow in one go: within the sentence, at a real pause.
fn joins(pause: Pause) -> bool {
    matches!(pause, Pause::After(terminator) if !terminator.ends_sentence())
}

fn pieces(clause: &Clause) -> Vec<(String, Pause)> {
    let mut out: Vec<(String, Pause)> = Vec::new();
    let mut piece = String::new();
    for word in clause.phonemes.split_whitespace() {
        if !piece.is_empty() && piece.chars().count() + word.chars().count() >= LONGEST {
            out.push((std::mem::take(&mut piece), Pause::None));
        }
        if !piece.is_empty() {
            piece.push(' ');
        }
        piece.push_str(word);
    }
    out.push((piece, Pause::After(clause.terminator)));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clause(phonemes: &str, terminator: Terminator) -> Clause {
        Clause {
            phonemes: phonemes.into(),
            terminator,
        }
    }

    #[test]
    fn joins_within_a_sentence_only() {
        let got = parts(&[
            clause("a b", Terminator::Comma),
            clause("c", Terminator::Question),
            clause("d", Terminator::Period),
        ]);
        let want = [
            Part {
                phonemes: "a b, c?".into(),
                pause: Pause::After(Terminator::Question),
            },
            Part {
                phonemes: "d.".into(),
                pause: Pause::After(Terminator::Period),
            },
        ];
        assert_eq!(got, want);
        assert!(parts(&[]).is_empty());
    }

    #[test]
    fn every_part_is_bounded_and_nothing_is_lost() {
        let words = vec!["wordz"; 100].join(" ");
        let got = parts(&[
            clause(&words, Terminator::Period),
            clause("end", Terminator::Comma),
        ]);
        assert!(
            got.iter().all(|p| p.phonemes.chars().count() <= LONGEST + 1),
            "{got:?}"
        );
        let count = got
            .iter()
            .map(|p| p.phonemes.matches("wordz").count())
            .sum::<usize>();
        assert_eq!(count, 100);
        assert_eq!(
            got.iter().filter(|p| p.pause == Pause::None).count(),
            got.len() - 2
        );
    }

    #[test]
    fn the_first_part_is_short() {
        let long = "x".repeat(40);
        let got = parts(&vec![clause(&long, Terminator::Comma); 5]);
        assert_eq!(got[0].phonemes.chars().count(), 41, "one clause");
        assert_eq!(got[1].phonemes.chars().count(), 83, "then two");
    }
}
