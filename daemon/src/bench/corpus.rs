//! Corpus: what the scripted callers say, each with its exact text.
//!
//! Human voice comes from the distribution's recorded prompts (`asterisk-core-sounds-en-wav`, texts in
//! `asterisk-core-sounds-en`); questions, pauses, dictated digits and interruptions are spoken by the voices that this
//! machine has. The same seed gives the same calls.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};
use serde::Serialize;

use crate::caller::{
    Begin, Utterance,
    line::Clip,
    speech::{self, Speaker, SpeechError, Voice},
};

/// Where the distribution puts the recorded prompts.
const SOUNDS_DIR: &str = "/usr/share/asterisk/sounds/en_US_f_Allison";
/// … and their texts.
const SOUNDS_TEXTS: &str = "/usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz";
/// Words of a usable prompt: fewer are fragments, more a lecture.
const PROMPT_WORDS: std::ops::RangeInclusive<usize> = 5..=24;
/// Longest prompt [ms].
const PROMPT_MS: u128 = 8_000;
/// Longest silence inside a prompt [ms]; beyond it anybody would answer.
const PROMPT_PAUSE_MS: u128 = 1_200;
/// Pauses inside a sentence are chosen from this range [ms].
const PAUSE_MS: std::ops::RangeInclusive<u32> = 300..=1_200;
/// How far into a reply the caller interrupts [ms].
const INTO_REPLY_MS: std::ops::RangeInclusive<u32> = 500..=1_200;
/// Marks a pause in the texts below.
const PAUSE: char = '|';

/// What callers ask.
const QUESTIONS: [&str; 36] = [
    "What are your opening hours?",
    "Can I book an appointment for tomorrow?",
    "Where exactly are you located?",
    "How much does a first visit cost?",
    "Do I need to bring anything with me?",
    "Is there somewhere to park near you?",
    "Could you please tell me your address?",
    "Are you open on Saturday morning?",
    "I would like to speak to a person, please.",
    "Can I leave a message for the manager?",
    "What time do you close today?",
    "Do you accept credit cards?",
    "I need to cancel my appointment on Friday.",
    "Can you call me back later this afternoon?",
    "How long does it usually take?",
    "Do you have anything free next week?",
    "My name is Martin and I have a question about my invoice.",
    "Is it possible to come without an appointment?",
    "Which bus should I take to get to you?",
    "Can I change my appointment to another day?",
    "Do you offer discounts for students?",
    "I think I left my umbrella at your office.",
    "What services do you offer?",
    "Are you open on public holidays?",
    "Can I pay with cash?",
    "How do I get to your office from the station?",
    "Is the building accessible by wheelchair?",
    "I am calling about the letter that you sent me.",
    "Who should I talk to about a complaint?",
    "Could you repeat that more slowly, please?",
    "Do you also work with children?",
    "Can you send me a confirmation by email?",
    "What happens if I arrive a little late?",
    "I would like to make an appointment for my mother.",
    "How early can I come in the morning?",
    "Is there a waiting list at the moment?",
];

/// Sentences with a pause in the middle.
const PAUSES: [&str; 14] = [
    "I would like to book an appointment | for next Tuesday afternoon.",
    "Can you tell me | whether you are open on Sunday?",
    "My name is Anna Miller and | I am calling about an invoice.",
    "I was wondering if | you have anything free on Monday.",
    "The problem is that | the printer in our office does not work.",
    "I need to speak with | the person who manages the building.",
    "Could you please check if | my order has arrived?",
    "We would like to come | with four or five people | some time next week.",
    "I am looking for | a dentist who also treats children.",
    "If I come on Thursday | how long will I have to wait?",
    "Is it possible to | change the date of my visit?",
    "I wanted to ask about | the price of a consultation.",
    "Please tell the doctor that | I will be ten minutes late.",
    "Yes, I | I would like to cancel my appointment.",
];

/// Dictated digits, in the groups in which people say them.
const DIGITS: [&str; 10] = [
    "My number is five five five | zero one four two.",
    "You can reach me at | two zero two | five five five | zero one seven three.",
    "My customer number is | four seven one | nine two eight.",
    "The order number is seven three | six six | one zero.",
    "My date of birth is the third of May | nineteen eighty four.",
    "It is invoice number | one two zero | three five nine.",
    "Please call me back on | six one seven | five five five | zero one nine eight.",
    "The reference is eight eight four | two one | three.",
    "My zip code is nine zero | two one zero.",
    "The account ends in | four two | seven seven.",
];

/// Said into a reply.
const INTERRUPTIONS: [&str; 10] = [
    "Sorry, can I ask you something else first?",
    "Wait, what about Saturday?",
    "Excuse me, I meant next week.",
    "Hold on, could you give me the address instead?",
    "No, that is not what I asked.",
    "Just a moment, I need to write this down.",
    "Thanks, but what does it cost?",
    "Actually, I would rather come in the morning.",
    "Okay, and how do I get there?",
    "Stop, please, let me ask another question.",
];

/// Said while listening; asks for nothing.
const BACKCHANNELS: [&str; 8] = [
    "Mm-hmm.",
    "Okay.",
    "Yes.",
    "Uh-huh.",
    "I see.",
    "Right.",
    "Yeah.",
    "Okay, good.",
];

/// What kind of speech an utterance is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Kind {
    /// A synthetic voice asks.
    Question,
    /// A recorded human.
    Human,
    /// A pause in mid-sentence.
    Pause,
    /// Digits in groups.
    Digits,
    /// Spoken into a reply.
    BargeIn,
    /// "Mm-hm" into a reply, which is to go on.
    Backchannel,
    /// A cough into a reply, which is to go on.
    Cough,
}

impl Kind {
    /// Of every 40 turns, how many are of this kind.
    const MIX: [(Self, usize); 7] = [
        (Self::Question, 12),
        (Self::Human, 7),
        (Self::Pause, 7),
        (Self::Digits, 4),
        (Self::BargeIn, 5),
        (Self::Backchannel, 3),
        (Self::Cough, 2),
    ];

    /// Whether it wants an answer.
    #[must_use]
    pub fn is_turn(self) -> bool {
        !matches!(self, Self::Backchannel | Self::Cough)
    }

    /// Whether it needs a reply to be spoken into.
    fn needs_reply(self) -> bool {
        matches!(self, Self::BargeIn | Self::Backchannel | Self::Cough)
    }

    /// Name in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Question => "question",
            Self::Human => "human",
            Self::Pause => "pause",
            Self::Digits => "digits",
            Self::BargeIn => "barge_in",
            Self::Backchannel => "backchannel",
            Self::Cough => "cough",
        }
    }
}

/// One utterance of the corpus.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// What kind it is.
    pub kind: Kind,
    /// What is said.
    pub text: String,
    /// How it is made.
    pub sound: Sound,
    /// When it is said.
    pub begin: Begin,
}

/// How an utterance is made.
#[derive(Debug, Clone, PartialEq)]
pub enum Sound {
    /// From a file.
    Recording(PathBuf),
    /// A cough, made of noise.
    Cough {
        /// Which one.
        seed: u64,
    },
    /// Spoken, with a silence [ms] before each part but the first.
    Spoken {
        /// By this voice.
        voice: Voice,
        /// Parts of the text.
        parts: Vec<(u32, String)>,
    },
}

impl Item {
    /// The utterance, ready for a call.
    ///
    /// # Errors
    /// [`SpeechError`] of the voice or the recording.
    pub fn render(&self, speaker: &mut Speaker<'_>) -> Result<Utterance, SpeechError> {
        let pcm = match &self.sound {
            Sound::Recording(path) => speech::recording(path)?,
            Sound::Cough { seed } => cough(*seed),
            Sound::Spoken { voice, parts } => {
                let mut pcm = Vec::new();
                for (pause_ms, text) in parts {
                    let part = trimmed(&speaker.say(voice, text)?);
                    pcm.extend(std::iter::repeat_n(0, *pause_ms as usize * 16));
                    pcm.extend(part);
                }
                pcm
            }
        };
        Ok(Utterance {
            label: self.text.clone(),
            pcm,
            begin: self.begin,
        })
    }
}

/// A cough, 16 kHz mono: one to three bursts of noise that start hard and fade, each with a throat's resonance.
fn cough(seed: u64) -> Vec<i16> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut pcm = Vec::new();
    for _ in 0..random.random_range(1..=3) {
        let length = random.random_range(2_400..4_800);
        let resonance: f64 = random.random_range(0.15..0.45);
        let (mut last, mut before) = (0.0, 0.0);
        for at in 0..length {
            let fade = (-4.0 * f64::from(at) / f64::from(length)).exp();
            let hit = (f64::from(at) / 60.0).min(1.0);
            let noise: f64 = random.random_range(-1.0..1.0);
            // Two poles near the throat's resonance.
            let sample = noise + 1.7 * resonance.cos() * last - 0.72 * before;
            (before, last) = (last, sample);
            pcm.push((sample * fade * hit * 3_000.0).clamp(-32_000.0, 32_000.0) as i16);
        }
        pcm.extend(std::iter::repeat_n(0, random.random_range(1_000..2_500)));
    }
    pcm
}

/// A part without the voice's own silence around it, so that pauses are as long as they should be.
fn trimmed(pcm: &[i16]) -> Vec<i16> {
    let span = crate::caller::measure::voiced_span(pcm);
    span.and_then(|(from, to)| pcm.get(from..to))
        .unwrap_or(pcm)
        .to_vec()
}

/// A recorded prompt and its text.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompt {
    /// Its text.
    pub text: String,
    /// Its file.
    pub path: PathBuf,
}

/// The distribution's recorded prompts that are whole sentences; empty when they are not installed.
#[must_use]
pub fn prompts() -> Vec<Prompt> {
    let texts = Command::new("gzip")
        .args(["-dc", SOUNDS_TEXTS])
        .stdin(Stdio::null())
        .output();
    let texts = texts
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default();
    prompts_from(&texts, Path::new(SOUNDS_DIR))
}

fn prompts_from(texts: &str, dir: &Path) -> Vec<Prompt> {
    let mut seen = HashSet::new();
    let mut prompts = Vec::new();
    for line in texts.lines().filter(|line| !line.starts_with(';')) {
        let Some((name, text)) = line.split_once(": ") else {
            continue;
        };
        let text = text.trim();
        // Fragments ("... has left"), notes ("[tone]"), keys ("*"), and texts with typing errors are no references.
        let whole = !text.contains("..") && !text.contains(['[', '(', '*', '#', ':', '/', ';']);
        let sound = ["umute", "represenatives", "Un-indent", "Digium", "Waldo", "IAX"]
            .iter()
            .all(|w| !text.contains(w));
        // "Goodbye" may make the attendant hang up in mid-bench.
        let stays = !text.to_lowercase().contains("goodbye");
        // What has no beginning or end is a fragment: whoever hears it waits for the rest.
        let complete = text.starts_with(char::is_uppercase)
            && text.ends_with(['.', '!', '?'])
            && !text.starts_with("Followed");
        let words = PROMPT_WORDS.contains(&text.split_whitespace().count());
        let path = dir.join(format!("{name}.wav"));
        if whole && sound && stays && complete && words && path.is_file() && seen.insert(text.to_lowercase())
        {
            prompts.push(Prompt {
                text: text.to_owned(),
                path,
            });
        }
    }
    prompts.retain(|prompt| {
        let clip = fs::metadata(&prompt.path)
            .ok()
            .and_then(|_| Clip::new(&speech::recording(&prompt.path).ok()?));
        clip.is_some_and(|clip| {
            clip.duration().as_millis() <= PROMPT_MS && clip.longest_pause().as_millis() <= PROMPT_PAUSE_MS
        })
    });
    prompts
}

/// Voices that the scripted callers use here.
#[must_use]
pub fn voices() -> Vec<Voice> {
    let mut voices: Vec<Voice> = [
        "flite:slt",
        "flite:rms",
        "flite:awb",
        "espeak:en-us",
        "espeak:en-gb",
        "piper",
    ]
    .iter()
    .filter_map(|name| name.parse().ok())
    .filter(Voice::is_installed)
    .collect();
    // The attendant's own voice is the least like a caller.
    if voices.len() > 3 {
        voices.retain(|voice| *voice != Voice::Piper);
    }
    voices
}

/// The calls of a run: `turns` utterances in calls of at most `per_call`; of these kinds only, where any are named.
#[must_use]
pub fn calls(
    turns: usize,
    per_call: usize,
    seed: u64,
    only: &[Kind],
    prompts: &[Prompt],
    voices: &[Voice],
) -> Vec<Vec<Item>> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut kinds = mix(turns, only, prompts.is_empty());
    kinds.shuffle(&mut random);
    let mut kinds: Vec<Vec<Kind>> = kinds.chunks(per_call.max(1)).map(<[Kind]>::to_vec).collect();
    for call in &mut kinds {
        // A call begins with something to interrupt, and nobody interrupts twice in a row.
        let interrupts = |kind: Option<&Kind>| kind.is_some_and(|kind| kind.needs_reply());
        for at in 0..call.len() {
            let follows = at == 0 || interrupts(call.get(at - 1));
            if follows && interrupts(call.get(at)) {
                match (at + 1..call.len()).find(|other| !interrupts(call.get(*other))) {
                    Some(other) => call.swap(at, other),
                    None => call[at] = Kind::Question,
                }
            }
        }
    }
    let mut decks = Decks::new(prompts, voices, &mut random);
    kinds
        .into_iter()
        .map(|call| {
            call.into_iter()
                .map(|kind| decks.deal(kind, &mut random))
                .collect()
        })
        .collect()
}

/// Calls of human prompts only, for the word error rate.
#[must_use]
pub fn prompt_calls(count: usize, per_call: usize, seed: u64, prompts: &[Prompt]) -> Vec<Vec<Item>> {
    let mut prompts = prompts.to_vec();
    prompts.shuffle(&mut StdRng::seed_from_u64(seed));
    let items: Vec<Item> = prompts.iter().take(count).map(human).collect();
    items.chunks(per_call.max(1)).map(<[Item]>::to_vec).collect()
}

/// Kinds for `turns` turns in the proportions of [`Kind::MIX`].
fn mix(turns: usize, only: &[Kind], no_humans: bool) -> Vec<Kind> {
    let wanted = || {
        Kind::MIX
            .into_iter()
            .filter(|(kind, _)| only.is_empty() || only.contains(kind))
    };
    let total: usize = wanted().map(|(_, share)| share).sum();
    let mut kinds = Vec::with_capacity(turns);
    let mut due = 0;
    for (kind, share) in wanted() {
        due += share;
        let kind = if no_humans && kind == Kind::Human {
            Kind::Question
        } else {
            kind
        };
        kinds.resize(turns * due / total, kind);
    }
    kinds
}

fn human(prompt: &Prompt) -> Item {
    Item {
        kind: Kind::Human,
        text: prompt.text.clone(),
        sound: Sound::Recording(prompt.path.clone()),
        begin: Begin::AfterReply,
    }
}

/// Shuffled decks of texts that are dealt round and round, so that nothing repeats before all was said.
struct Decks<'a> {
    prompts: Vec<&'a Prompt>,
    texts: [(Kind, Vec<&'static str>); 5],
    dealt: [usize; 7],
    voices: &'a [Voice],
    speeches: usize,
}

impl<'a> Decks<'a> {
    fn new(prompts: &'a [Prompt], voices: &'a [Voice], random: &mut StdRng) -> Self {
        let mut prompts: Vec<&Prompt> = prompts.iter().collect();
        prompts.shuffle(random);
        let mut texts = [
            (Kind::Question, QUESTIONS.to_vec()),
            (Kind::Pause, PAUSES.to_vec()),
            (Kind::Digits, DIGITS.to_vec()),
            (Kind::BargeIn, INTERRUPTIONS.to_vec()),
            (Kind::Backchannel, BACKCHANNELS.to_vec()),
        ];
        for (_, deck) in &mut texts {
            deck.shuffle(random);
        }
        Self {
            prompts,
            texts,
            dealt: [0; 7],
            voices,
            speeches: 0,
        }
    }

    fn deal(&mut self, kind: Kind, random: &mut StdRng) -> Item {
        let turn = &mut self.dealt[kind as usize];
        *turn += 1;
        let turn = *turn - 1;
        if kind == Kind::Human
            && let Some(prompt) = self.prompts.get(turn % self.prompts.len().max(1))
        {
            return human(prompt);
        }
        if kind == Kind::Cough {
            return Item {
                kind,
                text: "(cough)".into(),
                sound: Sound::Cough {
                    seed: random.random(),
                },
                begin: Begin::WhileReplying {
                    after_ms: random.random_range(INTO_REPLY_MS),
                },
            };
        }
        let deck = self
            .texts
            .iter()
            .find(|(of, _)| *of == kind)
            .map_or(&QUESTIONS[..], |(_, deck)| deck);
        let text = deck.get(turn % deck.len()).copied().unwrap_or_default();
        self.speeches += 1;
        let voice = self
            .voices
            .get(self.speeches % self.voices.len().max(1))
            .cloned()
            .unwrap_or(Voice::Piper);
        let parts = text.split(PAUSE).enumerate().map(|(n, part)| {
            let pause = if n == 0 { 0 } else { random.random_range(PAUSE_MS) };
            (pause, part.trim().to_owned())
        });
        let parts: Vec<(u32, String)> = parts.collect();
        let begin = match kind {
            Kind::BargeIn => Begin::IntoReply {
                after_ms: random.random_range(INTO_REPLY_MS),
            },
            Kind::Backchannel => Begin::WhileReplying {
                after_ms: random.random_range(INTO_REPLY_MS),
            },
            Kind::Question | Kind::Human | Kind::Pause | Kind::Digits | Kind::Cough => Begin::AfterReply,
        };
        let text = parts
            .iter()
            .map(|(_, part)| part.as_str())
            .collect::<Vec<_>>()
            .join(" ");
        Item {
            kind,
            text,
            sound: Sound::Spoken { voice, parts },
            begin,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn voices() -> Vec<Voice> {
        vec![Voice::Piper, Voice::Flite("slt".into())]
    }

    #[test]
    fn the_mix_is_kept_and_the_seed_decides() {
        let calls_of = |seed| calls(40, 8, seed, &[], &[], &voices());
        let got = calls_of(1);
        assert_eq!(got.iter().map(Vec::len).collect::<Vec<_>>(), [8; 5]);
        let count = |kind| got.iter().flatten().filter(|item| item.kind == kind).count();
        assert_eq!(count(Kind::Pause), 7);
        assert_eq!(count(Kind::Digits), 4);
        assert!((3..=5).contains(&count(Kind::BargeIn)));
        assert!(count(Kind::Backchannel) + count(Kind::Cough) >= 3);
        assert_eq!(count(Kind::Human), 0);
        assert_eq!(got, calls_of(1));
        assert_ne!(got, calls_of(2));
        for call in calls(200, 8, 3, &[], &[], &voices()) {
            assert!(!call[0].kind.needs_reply());
            assert!(
                call.windows(2)
                    .all(|w| !w[0].kind.needs_reply() || !w[1].kind.needs_reply())
            );
        }
        assert!(calls(0, 8, 1, &[], &[], &voices()).is_empty());
        assert_eq!(calls(1, 8, 1, &[], &[], &[]).concat().len(), 1);
        let coughs = calls(40, 8, 1, &[Kind::Question, Kind::Cough], &[], &voices()).concat();
        assert!(
            coughs
                .iter()
                .all(|i| matches!(i.kind, Kind::Question | Kind::Cough))
        );
        assert!(coughs.iter().filter(|i| i.kind == Kind::Cough).count() >= 3);
    }

    #[test]
    fn pauses_lie_between_the_parts() {
        let items = calls(200, 8, 1, &[], &[], &voices()).concat();
        for item in items
            .iter()
            .filter(|item| matches!(item.kind, Kind::Pause | Kind::Digits))
        {
            let Sound::Spoken { parts, .. } = &item.sound else {
                panic!("{item:?}")
            };
            assert!(parts.len() > 1 && parts[0].0 == 0, "{item:?}");
            assert!(parts[1..].iter().all(|(pause, _)| PAUSE_MS.contains(pause)));
            assert!(!item.text.contains(PAUSE) && !item.text.contains("  "));
        }
    }

    #[test]
    fn fragments_and_notes_are_no_prompts() {
        let dir = tempfile::tempdir().unwrap();
        let tone: Vec<i16> = (0..8000)
            .map(|i| ((f64::from(i) * 0.4).sin() * 8000.0) as i16)
            .collect();
        for name in ["a", "b", "c", "d", "f"] {
            attendant_media::wav::write(&dir.path().join(format!("{name}.wav")), 8000, &tone).unwrap();
        }
        let texts = "; comment\na: Please enter your number now.\nb: ...has left the conference now\n\
                     c: [this is a beep tone here]\nd: Too short.\ne: There is no file for this one.\n\
                     f: please enter your number now.\n";
        let got = prompts_from(texts, dir.path());
        assert_eq!(
            got.iter().map(|p| p.text.as_str()).collect::<Vec<_>>(),
            ["Please enter your number now."]
        );
    }
}
