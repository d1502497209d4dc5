//! The guard around Whisper's audio context: how much of the 30 s window to encode, and when a result is a loop.
//!
//! ```text
//! audio → smallest context that holds it ──pass──> good → accept
//!                ^                          `────> token cap hit, or an n-gram repeats
//!                `── next wider context <──────────────'      (the widest is accepted as it is)
//! ```
//!
//! The encoder's cost grows with its context; the default of 1500 (30 s) takes five times as long as 512. With a small
//! context the decoder sometimes loops, which the cap and the n-gram check catch.

use crate::SAMPLE_RATE_HZ;

/// Audio contexts and the longest audio each takes [samples]. A context of 50 covers one second; a good second of room
/// is left, since speech cut at the edge is what makes the decoder loop. A smaller one than 512 for short utterances
/// gains less than its loops cost (80 recorded prompts of up to 4.5 s, two threads; a loop takes a second or so):
///
/// | Context | tiny.en: word errors, median, loops | base |
/// |---|---|---|
/// | 512 | 5.9 %, 187 ms, 0 | 5.1 %, 306 ms, 1 |
/// | 384 | 6.1 %, 159 ms, 3 | 4.9 %, 254 ms, 1 |
/// | 256 | 7.8 %, 149 ms, 15 | 5.4 %, 200 ms, 7 |
const CONTEXTS: [(i32, usize); 4] = [
    (512, 9 * SAMPLE_RATE_HZ),
    (768, 14 * SAMPLE_RATE_HZ),
    (1024, 19 * SAMPLE_RATE_HZ),
    (1280, 24 * SAMPLE_RATE_HZ),
];
/// The whole window, 30 s.
pub const WIDEST: i32 = 1500;
/// Whisper's window [s]; longer audio is taken window by window.
const WINDOW_S: f32 = 30.0;
/// Longest n-gram looked at [words].
const LONGEST_NGRAM: usize = 8;

/// Context of the first pass.
#[must_use]
pub fn first_context(samples: usize) -> i32 {
    CONTEXTS
        .iter()
        .find(|(_, most)| samples <= *most)
        .map_or(WIDEST, |(context, _)| *context)
}

/// Context of the pass after one that looped, if there is a wider one.
#[must_use]
pub fn next_context(context: i32) -> Option<i32> {
    match context {
        512 => Some(768),
        WIDEST.. => None,
        _ => Some(WIDEST),
    }
}

/// Most tokens of a pass. Speech has about three to four tokens a second; the widest context rarely loops and gets
/// room for a fast talker.
#[must_use]
pub fn max_tokens(samples: usize, context: i32) -> i32 {
    let seconds = (samples as f32 / SAMPLE_RATE_HZ as f32).min(WINDOW_S);
    let (per_second, more) = if context == WIDEST {
        (8.0, 16.0)
    } else {
        (5.0, 8.0)
    };
    (per_second * seconds + more) as i32
}

/// Whether an n-gram of words repeats on the spot more often than people do.
#[must_use]
pub fn repeats(text: &str) -> bool {
    let words: Vec<String> = text
        .split_whitespace()
        .map(|w| {
            w.chars()
                .filter(|c| c.is_alphanumeric())
                .flat_map(char::to_lowercase)
                .collect()
        })
        .filter(|w: &String| !w.is_empty())
        .collect();
    (1..=LONGEST_NGRAM).any(|n| {
        // "no no no no no" and "five five five five" are speech; so is saying a phrase twice.
        let most = match n {
            1 => 5,
            2 => 3,
            _ => 2,
        };
        // A run of r equal n-grams is (r - 1)·n equal pairs of words at distance n.
        let mut run = 0;
        words.iter().zip(words.iter().skip(n)).any(|(a, b)| {
            run = if a == b { run + 1 } else { 0 };
            run >= most * n
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_context_holds_the_audio() {
        for (seconds, want) in [
            (0, 512),
            (9, 512),
            (10, 768),
            (15, 1024),
            (20, 1280),
            (25, WIDEST),
            (100, WIDEST),
        ] {
            assert_eq!(first_context(seconds * SAMPLE_RATE_HZ), want, "{seconds} s");
        }
        let mut context = 512;
        let mut passes = 1;
        while let Some(next) = next_context(context) {
            assert!(next > context);
            context = next;
            passes += 1;
        }
        assert_eq!((context, passes), (WIDEST, 3));
        for context in [768, 1024, 1280] {
            assert_eq!(next_context(context), Some(WIDEST));
        }
    }

    #[test]
    fn the_cap_grows_with_the_audio() {
        assert_eq!(max_tokens(2 * SAMPLE_RATE_HZ, 512), 18);
        assert_eq!(max_tokens(0, 512), 8);
        assert_eq!(max_tokens(600 * SAMPLE_RATE_HZ, WIDEST), 256);
    }

    #[test]
    fn tells_loops_from_emphasis() {
        let cases = [
            ("", false),
            ("no no no, not at all", false),
            ("five five five five", false),
            ("thank you very much thank you very much", false),
            ("you you you you you you you", true),
            ("and then and then and then and then and then", true),
            (
                "I would like to book I would like to book I would like to book",
                true,
            ),
            ("Yes. Yes. Yes. Yes. Yes. Yes.", true),
        ];
        for (text, want) in cases {
            assert_eq!(repeats(text), want, "{text}");
        }
    }
}
