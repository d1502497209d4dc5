//! Heard: whether a transcript is what somebody said.
//!
//! Whisper invents on silence and noise: subtitle credits, "Thank you.", "[MUSIC]", loops. A caller who
//! coughs must not be answered, and a caller who says a short "thank you" must not be dropped. So inventions
//! are judged together with how much voice there was (the line's own voice activity) and how sure the
//! recogniser is. In doubt: [`Heard::Unclear`], which asks again, rather than `Nothing`, which is silent.

use crate::words::{digits_in, is_number, words};

/// Verdict on a transcript.
#[derive(Clone, PartialEq, Eq)]
pub enum Heard {
    /// Words to answer, freed of tags.
    Speech(String),
    /// Somebody spoke; what they said is not to be trusted. Ask again.
    Unclear,
    /// Nobody said anything. Go on listening.
    Nothing,
}

/// Hides what was said.
impl std::fmt::Debug for Heard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Heard::Speech(_) => "Speech",
            Heard::Unclear => "Unclear",
            Heard::Nothing => "Nothing",
        })
    }
}

/// Less voice than this is a click or a breath [ms].
const MIN_VOICED_MS: u32 = 100;
/// From here on somebody surely spoke [ms].
const SURE_VOICED_MS: u32 = 500;
/// Below this mean log-probability the words are guesses (the figure that OpenAI's Whisper retries at).
const MIN_LOGPROB: f32 = -1.0;
/// The same for one-word utterances, whose mean is taken over two or three tokens.
const MIN_LOGPROB_SHORT: f32 = -1.3;
/// Fastest credible speech over the voiced time [words per second]. Auctioneers reach 6; voice activity
/// misses a quarter.
const MAX_WORDS_PER_VOICED_SECOND: f32 = 9.0;
/// Fastest credible speech over the whole audio [words per second].
const MAX_WORDS_PER_SECOND: f32 = 7.5;

/// Whisper's subtitle credits; nobody says these to an attendant. Matched anywhere, as words.
const CREDITS: &[&str] = &[
    "thanks for watching",
    "thank you for watching",
    "thank you so much for watching",
    "thanks for listening to this",
    "please subscribe",
    "subscribe to my channel",
    "subscribe to our channel",
    "like and subscribe",
    "don't forget to subscribe",
    "see you in the next video",
    "see you next video",
    "i'll see you in the next",
    "subtitles by",
    "subtitled by",
    "subtitles created by",
    "captions by",
    "captioned by",
    "captioning by",
    "transcribed by",
    "transcription by",
    "transcript by",
    "amara org",
    "amaraorg",
    "castingwords",
    "opensubtitles",
    "mooji",
    "otter ai",
    "otterai",
    "all rights reserved",
    "untertitel der",
    "untertitel im auftrag",
    "untertitelung",
    "sous titres réalisés",
    "sous titrage",
    "sottotitoli creati",
    "subtítulos realizados",
    "subtítulos por",
    "legendas pela",
    "продолжение следует",
    "ご視聴ありがとうございました",
    "시청해주셔서 감사합니다",
    "请不吝点赞",
    "字幕由",
    "字幕志愿者",
];

/// What Whisper likes to hear in silence, and what callers do say. Believed when there was enough voice for
/// it.
const DOUBTFUL: &[&str] = &[
    "thank you",
    "thank you very much",
    "thank you so much",
    "thanks",
    "thank you thank you",
    "you",
    "bye",
    "bye bye",
    "goodbye",
    "okay",
    "ok",
    "so",
    "oh",
    "the",
    "i",
    "and",
    "a",
    "yeah",
    "hmm",
    "all right",
    "alright",
    "i'm sorry",
    "sorry",
    "good",
    "right",
    "hello",
    "hi",
    "no",
    "yes",
    "it",
    "that's it",
    "i don't know",
    "what",
    "we'll be right back",
    "cheers",
    "good night",
    "peace",
    "wow",
    "music",
    "silence",
    "applause",
    "laughter",
    "beep",
    "ding",
    "click",
    "foreign",
    "to be continued",
];

/// Sounds of thinking: the caller has not begun yet.
const FILLERS: &[&str] = &[
    "um", "uh", "er", "erm", "hm", "hmm", "hmmm", "ah", "uhm", "umm", "mm", "eh",
];

/// From this much voice on its words are counted [ms].
const SLOW_FROM_MS: u32 = 4_000;
/// Nobody takes longer for a word, all in all [ms].
const SLOWEST_WORD_MS: u64 = 2_000;

/// Words that people do repeat.
const REPEATABLE: &[&str] = &[
    "no", "yes", "yeah", "yep", "ok", "okay", "hello", "hi", "bye", "please", "stop", "wait", "help", "very",
    "really", "ha", "la", "double", "w",
];

/// Judges a transcript. `avg_logprob`: mean log-probability of its tokens (≤ 0); `no_speech_prob`: 0…1;
/// `audio_ms`: length of the audio transcribed [ms]; `voiced_ms`: how much of it voice activity called voice
/// [ms].
pub fn judge(text: &str, avg_logprob: f32, no_speech_prob: f32, audio_ms: u32, voiced_ms: u32) -> Heard {
    let text = without_tags(text);
    let spoken = words(&text);
    let somebody = voiced_ms >= SURE_VOICED_MS;
    let doubt = if somebody { Heard::Unclear } else { Heard::Nothing };
    // A recogniser without figures counts as sure.
    let logprob = if avg_logprob.is_finite() { avg_logprob } else { 0.0 };
    let no_speech = if no_speech_prob.is_finite() {
        no_speech_prob
    } else {
        0.0
    };

    let joined = spoken.join(" ");
    let agrees = matches!(joined.as_str(), "mm hmm" | "mm hm" | "mhm");
    if !agrees && spoken.iter().all(|word| FILLERS.contains(&word.as_str())) {
        return Heard::Nothing;
    }
    if voiced_ms < MIN_VOICED_MS {
        return Heard::Nothing;
    }
    if is_credit(&joined) {
        return doubt;
    }
    if too_fast(&joined, spoken.len(), audio_ms, voiced_ms) || loops(&spoken) {
        return doubt;
    }
    if too_slow(&spoken, voiced_ms) {
        return Heard::Nothing;
    }
    if DOUBTFUL.contains(&joined.as_str()) && !believable(spoken.len(), logprob, no_speech, voiced_ms) {
        return doubt;
    }
    if no_speech > 0.8 && logprob < -0.5 {
        return doubt;
    }
    let least = if spoken.len() <= 2 {
        MIN_LOGPROB_SHORT
    } else {
        MIN_LOGPROB
    };
    if logprob < least {
        return Heard::Unclear;
    }
    Heard::Speech(text)
}

/// Seconds of voice with next to no word are music, hum or a street: "you" in 24 s of a piano. Slowly dictated digits
/// still are one in two seconds.
fn too_slow(spoken: &[String], voiced_ms: u32) -> bool {
    let said: usize = spoken.iter().map(|word| digits_in(word).max(1)).sum();
    voiced_ms >= SLOW_FROM_MS && u64::from(voiced_ms) > said as u64 * SLOWEST_WORD_MS
}

/// A short stock phrase is believed with voice enough for its words and a recogniser that is not doubting.
fn believable(count: usize, logprob: f32, no_speech: f32, voiced_ms: u32) -> bool {
    let words = u32::try_from(count).unwrap_or(u32::MAX);
    let enough = voiced_ms >= words.saturating_mul(110).max(160);
    let plenty = voiced_ms >= words.saturating_mul(200).max(300);
    let sure = no_speech < 0.6 && logprob > -0.8;
    (enough && sure) || (plenty && no_speech < 0.8 && logprob > MIN_LOGPROB)
}

/// Removes `[MUSIC]`, `(applause)`, `*sighs*`, notes; trims.
fn without_tags(text: &str) -> String {
    let mut kept = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['[', '(', '*', '♪', '♫', '<', '{']) {
        kept.push_str(&rest[..at]);
        let open = rest[at..].chars().next().unwrap_or(' ');
        let inner = &rest[at + open.len_utf8()..];
        let close = match open {
            '[' => ']',
            '(' => ')',
            '<' => '>',
            '{' => '}',
            other => other,
        };
        kept.push(' ');
        // A tag is short; without its end only the sign goes.
        rest = match inner.find(close) {
            Some(end) if end <= 60 => &inner[end + close.len_utf8()..],
            Some(_) | None => inner,
        };
    }
    kept.push_str(rest);
    let kept = kept.split_whitespace().collect::<Vec<_>>().join(" ");
    kept.trim_start_matches([',', '.', ';', ':', '-', '–', '—', '>', '!', '?'])
        .trim()
        .to_owned()
}

fn is_credit(joined: &str) -> bool {
    let padded = format!(" {joined} ");
    CREDITS.iter().any(|credit| {
        // Scripts without spaces match anywhere.
        if credit.is_ascii() {
            padded.contains(&format!(" {credit} "))
        } else {
            joined.contains(credit)
        }
    })
}

fn too_fast(joined: &str, count: usize, audio_ms: u32, voiced_ms: u32) -> bool {
    if count < 4 {
        return false;
    }
    let seconds = |ms: u32| f32::from(u16::try_from(ms.max(1)).unwrap_or(u16::MAX)) / 1000.0;
    let count = f32::from(u16::try_from(count).unwrap_or(u16::MAX));
    let letters = f32::from(u16::try_from(joined.chars().count()).unwrap_or(u16::MAX));
    // Long dictations exceed a u16 of milliseconds; then nothing is too fast.
    let long = audio_ms > u32::from(u16::MAX);
    !long
        && (count / seconds(voiced_ms) > MAX_WORDS_PER_VOICED_SECOND
            || count / seconds(audio_ms) > MAX_WORDS_PER_SECOND
            || letters / seconds(audio_ms) > 45.0)
}

/// Whether a run of words comes again and again: `n` words three times over, one word five times.
fn loops(spoken: &[String]) -> bool {
    (1..=10).any(|length| {
        let times = match length {
            1 => 5,
            2 => 4,
            _ => 3,
        };
        spoken.windows(length * times).any(|window| {
            let (first, rest) = window.split_at(length);
            rest.chunks(length).all(|chunk| chunk == first)
                && !first
                    .iter()
                    .all(|word| is_number(word) || word.len() == 1 || REPEATABLE.contains(&word.as_str()))
        })
    }) || spoken.chunk_by(|a, b| a == b).any(|run| run.len() > 14)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn verdicts() {
        let speech = |text: &str| Heard::Speech(text.to_owned());
        // text, logprob, no speech, audio [ms], voiced [ms]
        let cases: &[(&str, f32, f32, u32, u32, Heard)] = &[
            ("You.", -0.1, 0.0, 28_000, 24_540, Heard::Nothing),
            ("It is the piano.", -0.3, 0.0, 28_000, 20_000, Heard::Nothing),
            (
                "My number is 555 0142.",
                -0.2,
                0.0,
                9_000,
                6_000,
                speech("My number is 555 0142."),
            ),
            (
                "What time do you open?",
                -0.2,
                0.01,
                2000,
                1300,
                speech("What time do you open?"),
            ),
            ("", 0.0, 0.9, 2000, 0, Heard::Nothing),
            (" . ", -0.4, 0.1, 2000, 800, Heard::Nothing),
            ("[MUSIC]", -0.3, 0.1, 3000, 900, Heard::Nothing),
            ("(upbeat music) Thank you.", -0.3, 0.1, 3000, 120, Heard::Nothing),
            ("[BLANK_AUDIO]", -0.3, 0.1, 3000, 0, Heard::Nothing),
            ("♪ ♪", -0.3, 0.1, 3000, 900, Heard::Nothing),
            (
                "*coughs* Can you hear me?",
                -0.3,
                0.1,
                3000,
                1200,
                speech("Can you hear me?"),
            ),
            ("Thanks for watching!", -0.1, 0.0, 2000, 200, Heard::Nothing),
            ("Thanks for watching!", -0.1, 0.0, 2000, 900, Heard::Unclear),
            (
                "Subtitles by the Amara.org community",
                -0.2,
                0.0,
                3000,
                100,
                Heard::Nothing,
            ),
            (
                "ご視聴ありがとうございました",
                -0.2,
                0.0,
                3000,
                100,
                Heard::Nothing,
            ),
            ("Thank you.", -0.2, 0.02, 1200, 420, speech("Thank you.")),
            ("Thank you.", -0.2, 0.02, 1200, 260, speech("Thank you.")),
            ("Thank you.", -0.5, 0.3, 1200, 140, Heard::Nothing),
            ("Thank you.", -0.9, 0.7, 1200, 250, Heard::Nothing),
            ("Thank you.", -0.9, 0.9, 1500, 700, Heard::Unclear),
            ("You", -0.7, 0.5, 1000, 120, Heard::Nothing),
            ("No.", -0.4, 0.1, 700, 200, speech("No.")),
            ("Yes.", -0.6, 0.1, 700, 180, speech("Yes.")),
            ("Yes.", -0.6, 0.1, 700, 60, Heard::Nothing),
            ("Um...", -0.4, 0.1, 900, 400, Heard::Nothing),
            ("Mm-hmm.", -0.4, 0.1, 900, 400, speech("Mm-hmm.")),
            (
                "I want to to go go the the car of",
                -1.4,
                0.2,
                4000,
                2500,
                Heard::Unclear,
            ),
            ("The green of.", -1.2, 0.2, 1500, 300, Heard::Unclear),
            (
                "I'm going to go I'm going to go I'm going to go I'm going to go",
                -0.2,
                0.1,
                6000,
                3000,
                Heard::Unclear,
            ),
            ("the the the the the the", -0.2, 0.1, 3000, 200, Heard::Nothing),
            (
                "No, no, no, no, no, no!",
                -0.2,
                0.1,
                3000,
                1800,
                speech("No, no, no, no, no, no!"),
            ),
            (
                "Five five five five five five",
                -0.2,
                0.1,
                4000,
                2400,
                speech("Five five five five five five"),
            ),
            (
                "I would like to make an appointment for my car on Monday",
                -0.3,
                0.1,
                1000,
                300,
                Heard::Nothing,
            ),
            (
                "I would like to make an appointment for my car on Monday",
                -0.3,
                0.1,
                1500,
                900,
                Heard::Unclear,
            ),
            (
                "I would like to make an appointment for my car on Monday",
                -0.3,
                0.1,
                3500,
                2300,
                speech("I would like to make an appointment for my car on Monday"),
            ),
            (
                "Tell me more about [the",
                f32::NAN,
                f32::NAN,
                2500,
                1200,
                speech("Tell me more about the"),
            ),
        ];
        for (text, logprob, no_speech, audio, voiced, want) in cases {
            let got = judge(text, *logprob, *no_speech, *audio, *voiced);
            assert!(
                got == *want,
                "{text:?} {logprob} {no_speech} {audio} {voiced}: {got:?}, not {want:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,200}", a in any::<f32>(), b in any::<f32>(), c in any::<u32>(), d in any::<u32>()) {
            if let Heard::Speech(said) = judge(&text, a, b, c, d) {
                prop_assert!(said.chars().any(char::is_alphanumeric));
            }
        }
    }
}
