//! Judge: what a transcript means for the turn, and how finished it sounds.
//!
//! ```text
//!  transcript ─> heard (words, unclear, nothing) ─> into a reply? "mm-hm", a cough ─> farewell, finished, open …
//!                                                                                         │ open to doubt
//!                                                             the language model's opinion <┘ (later)
//! ```

use attendant_dialog::{Completeness as Verdict, heard};
use attendant_models::client::Transcript;
use attendant_turn::{Completeness, Hearing};

/// A finished answer of at most so many words is a short one: "yes, please".
const SHORT_WORDS: usize = 3;
/// Words less certain than this do not tell whether the caller has finished [mean log-probability of their tokens].
const DOUBTFUL_LOGPROB: f32 = -0.6;

/// What is known about the moment at which something was said.
#[derive(Debug, Clone)]
pub struct Moment {
    /// Length of what was transcribed [ms].
    pub audio_ms: u32,
    /// How much of it was voice [ms].
    pub voiced_ms: u32,
    /// The attendant's last words.
    pub last_reply: Option<String>,
    /// A reply was paused for it, in a sentence that asks nothing.
    pub into_reply: bool,
    /// The language model will be asked whether it sounds finished.
    pub ask_model: bool,
}

/// What was said, as the call and its turn see it.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// The words; empty unless there are any to answer.
    pub text: String,
    /// What they amount to.
    pub hearing: Hearing,
    /// What the words alone say about whether they are all; where the language model may know better.
    pub verdict: Option<Verdict>,
}

impl Judged {
    /// Nothing to answer, for this reason.
    #[must_use]
    pub fn wordless(hearing: Hearing) -> Self {
        Self {
            text: String::new(),
            hearing,
            verdict: None,
        }
    }
}

/// What a transcript amounts to.
#[must_use]
pub fn judge(transcript: &Transcript, moment: &Moment) -> Judged {
    let logprob = transcript.avg_logprob;
    let heard = heard::judge(
        &transcript.text,
        logprob,
        transcript.no_speech_prob,
        moment.audio_ms,
        moment.voiced_ms,
    );
    let text = match heard {
        heard::Heard::Speech(text) => text,
        heard::Heard::Unclear => return Judged::wordless(Hearing::Unclear),
        heard::Heard::Nothing => return Judged::wordless(Hearing::Nothing),
    };
    if moment.into_reply && attendant_dialog::is_backchannel(&text) {
        return Judged::wordless(Hearing::Backchannel);
    }
    let farewell = attendant_dialog::ends_call(&text, moment.last_reply.as_deref());
    if moment.into_reply && !farewell && attendant_dialog::is_mutter(&text, logprob, moment.voiced_ms) {
        return Judged::wordless(Hearing::Unclear);
    }
    let (hearing, verdict) = if farewell {
        (Hearing::Farewell, None)
    } else {
        completeness(&text, logprob, moment.ask_model)
    };
    Judged {
        text,
        hearing,
        verdict,
    }
}

fn completeness(text: &str, logprob: f32, ask_model: bool) -> (Hearing, Option<Verdict>) {
    let verdict = attendant_dialog::completeness(text);
    let short = text.split_whitespace().count() <= SHORT_WORDS;
    let by_words = match for_the_turn(verdict) {
        Completeness::Finished if short => Completeness::Short,
        other => other,
    };
    if !ask_model || !attendant_dialog::wants_second_opinion(text, verdict) {
        return (Hearing::Speech(by_words), None);
    }
    if logprob < DOUBTFUL_LOGPROB {
        // Words that were guessed may lack their end.
        return (Hearing::Speech(Completeness::Unknown), None);
    }
    let until_heard = match verdict {
        Verdict::Finished => Completeness::Unknown,
        Verdict::Open(_) | Verdict::Unknown => by_words,
    };
    (Hearing::Speech(until_heard), Some(verdict))
}

/// A verdict on words in the turn's own terms.
#[must_use]
pub fn for_the_turn(verdict: Verdict) -> Completeness {
    match verdict {
        Verdict::Finished => Completeness::Finished,
        Verdict::Open(_) => Completeness::Open,
        Verdict::Unknown => Completeness::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str, logprob: f32, voiced_ms: u32, into_reply: bool, ask_model: bool) -> Judged {
        let transcript = Transcript {
            text: text.into(),
            avg_logprob: logprob,
            no_speech_prob: 0.0,
            passes: 1,
            audio_ctx: 512,
            stats: Default::default(),
            waited_ms: 0,
        };
        let moment = Moment {
            audio_ms: voiced_ms + 400,
            voiced_ms,
            last_reply: Some("We open at eight.".into()),
            into_reply,
            ask_model,
        };
        judge(&transcript, &moment)
    }

    #[test]
    fn what_is_said_into_a_reply_may_ask_for_nothing() {
        let cases = [
            ("Okay.", -0.2, 400, true, Hearing::Backchannel),
            ("Okay.", -0.2, 400, false, Hearing::Speech(Completeness::Short)),
            ("Up.", -0.9, 300, true, Hearing::Unclear),
            ("Stop.", -0.9, 300, true, Hearing::Speech(Completeness::Unknown)),
            ("Goodbye.", -0.2, 500, true, Hearing::Farewell),
            ("", -0.2, 400, true, Hearing::Nothing),
        ];
        for (text, logprob, voiced_ms, into_reply, want) in cases {
            assert_eq!(
                said(text, logprob, voiced_ms, into_reply, false).hearing,
                want,
                "{text:?}"
            );
        }
    }

    #[test]
    fn a_question_waits_for_the_second_opinion_and_a_guess_has_none() {
        let text = "What time do you open on Monday?";
        let asked = said(text, -0.2, 2_000, false, true);
        assert_eq!(asked.hearing, Hearing::Speech(Completeness::Unknown));
        assert_eq!(asked.verdict, Some(Verdict::Finished));
        let alone = said(text, -0.2, 2_000, false, false);
        assert_eq!(
            (alone.hearing, alone.verdict),
            (Hearing::Speech(Completeness::Finished), None)
        );
        let guessed = said(text, -0.8, 2_000, false, true);
        assert_eq!(
            (guessed.hearing, guessed.verdict),
            (Hearing::Speech(Completeness::Unknown), None)
        );
    }
}
