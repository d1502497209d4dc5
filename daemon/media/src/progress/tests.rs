use super::*;
use crate::tone::Tone;

/// `(first Hz, second Hz, level, ms)`; 0 Hz is silence.
fn sound(parts: &[(f32, f32, f32, u32)]) -> Vec<Frame> {
    let mut samples = Vec::new();
    for (first, second, level, ms) in parts {
        let mut part = vec![0; (*ms * 16) as usize];
        if *first > 0.0 {
            Tone::new(*first, *second, *level).fill(&mut part);
        }
        samples.extend(part);
    }
    samples.chunks(FRAME_SAMPLES).map(Frame::from_slice).collect()
}

fn fax(frames: &[Frame]) -> Option<Fax> {
    let mut detector = FaxDetector::default();
    frames.iter().find_map(|frame| detector.push(frame))
}

fn exchange(frames: &[Frame]) -> Vec<Progress> {
    let mut detector = ExchangeDetector::default();
    frames.iter().filter_map(|frame| detector.push(frame)).collect()
}

#[test]
fn fax_machines_are_found_within_the_tolerances_of_the_standard() {
    for hz in [1062.0, 1080.0, 1100.0, 1120.0, 1138.0] {
        for ms in [425, 500, 575] {
            for level in [-10.0, -25.0, -40.0] {
                let call = sound(&[(0.0, 0.0, 0.0, 310), (hz, 0.0, level, ms), (0.0, 0.0, 0.0, 3000)]);
                assert_eq!(fax(&call), Some(Fax::Calling), "{hz} Hz {ms} ms {level} dBov");
            }
        }
    }
    for hz in [2085.0, 2100.0, 2115.0] {
        let answer = sound(&[(0.0, 0.0, 0.0, 110), (hz, 0.0, -15.0, 2600)]);
        assert_eq!(fax(&answer), Some(Fax::Answering), "{hz}");
    }
}

#[test]
fn what_is_no_fax_is_none() {
    let cases: &[(&str, Vec<Frame>)] = &[
        (
            "too short",
            sound(&[(1100.0, 0.0, -15.0, 300), (0.0, 0.0, 0.0, 3000)]),
        ),
        (
            "too long",
            sound(&[(1100.0, 0.0, -15.0, 900), (0.0, 0.0, 0.0, 3000)]),
        ),
        (
            "a melody goes on",
            sound(&[
                (1100.0, 0.0, -15.0, 500),
                (880.0, 0.0, -15.0, 500),
                (0.0, 0.0, 0.0, 2000),
            ]),
        ),
        (
            "another pitch",
            sound(&[(1000.0, 0.0, -15.0, 500), (0.0, 0.0, 0.0, 3000)]),
        ),
        (
            "two tones",
            sound(&[(1100.0, 700.0, -15.0, 500), (0.0, 0.0, 0.0, 3000)]),
        ),
        (
            "too faint",
            sound(&[(1100.0, 0.0, -55.0, 500), (0.0, 0.0, 0.0, 3000)]),
        ),
        ("2100 Hz, but short", sound(&[(2100.0, 0.0, -15.0, 700)])),
        (
            "a key",
            sound(&[(941.0, 1336.0, -13.0, 500), (0.0, 0.0, 0.0, 3000)]),
        ),
        ("silence", sound(&[(0.0, 0.0, 0.0, 5000)])),
    ];
    for (case, frames) in cases {
        assert_eq!(fax(frames), None, "{case}");
    }
}

fn beats(first: f32, second: f32, on: u32, off: u32, times: usize) -> Vec<Frame> {
    sound(&[(first, second, -18.0, on), (0.0, 0.0, 0.0, off)].repeat(times))
}

#[test]
fn exchanges_of_several_countries_are_understood() {
    let cases = [
        (
            "busy, North America",
            beats(480.0, 620.0, 500, 500, 5),
            Progress::Busy,
        ),
        ("busy, Europe", beats(425.0, 0.0, 480, 480, 5), Progress::Busy),
        ("busy, Britain", beats(400.0, 0.0, 375, 375, 5), Progress::Busy),
        (
            "congestion, North America",
            beats(480.0, 620.0, 250, 250, 6),
            Progress::Congestion,
        ),
        (
            "congestion, Germany",
            beats(425.0, 0.0, 240, 240, 6),
            Progress::Congestion,
        ),
        (
            "ringing, North America",
            beats(440.0, 480.0, 2000, 4000, 2),
            Progress::Ringback,
        ),
        (
            "ringing, Britain",
            sound(
                &[
                    (400.0, 450.0, -18.0, 400),
                    (0.0, 0.0, 0.0, 200),
                    (400.0, 450.0, -18.0, 400),
                    (0.0, 0.0, 0.0, 2000),
                ]
                .repeat(2),
            ),
            Progress::Ringback,
        ),
        (
            "ringing, Europe",
            beats(425.0, 0.0, 1000, 4000, 2),
            Progress::Ringback,
        ),
        ("dial tone", beats(350.0, 440.0, 6000, 20, 1), Progress::Dial),
        (
            "dial tone, Europe",
            beats(425.0, 0.0, 6000, 20, 1),
            Progress::Dial,
        ),
    ];
    for (case, frames, want) in cases {
        assert_eq!(exchange(&frames), [want], "{case}");
    }
}

/// Vowels in syllables: harmonics of a wavering pitch under a changing formant.
fn talk(seed: u32, ms: u32) -> Vec<Frame> {
    let mut state = seed;
    let mut random = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f64::from(state >> 8) / f64::from(1 << 24)
    };
    let mut samples: Vec<i16> = Vec::new();
    let mut phase = 0.0_f64;
    while samples.len() < (ms * 16) as usize {
        let length = (1_600.0 + 4_800.0 * random()) as usize;
        let (pitch, formant) = (90.0 + 160.0 * random(), 300.0 + 900.0 * random());
        let voiced = random() < 0.75;
        for n in 0..length {
            let t = n as f64 / length as f64;
            let hz = pitch * (1.0 + 0.08 * (t * 6.0).sin());
            phase += hz / 16_000.0;
            let loudness = (std::f64::consts::PI * t).sin() * 6_000.0;
            let mut sum = 0.0;
            for harmonic in 1..20 {
                let at = hz * f64::from(harmonic);
                let weight = 1.0 / (1.0 + ((at - formant) / 150.0).powi(2)) + 0.05;
                sum += weight * (std::f64::consts::TAU * phase * f64::from(harmonic)).sin();
            }
            let noise = random() * 2.0 - 1.0;
            let value = if voiced { sum } else { 0.2 * noise };
            samples.push((value * loudness).clamp(-30_000.0, 30_000.0) as i16);
        }
    }
    samples.chunks(FRAME_SAMPLES).map(Frame::from_slice).collect()
}

#[test]
fn ten_minutes_of_talk_are_neither_fax_nor_exchange() {
    for seed in 0..10 {
        let frames = talk(seed, 60_000);
        assert_eq!(fax(&frames), None, "seed {seed}");
        assert_eq!(exchange(&frames), [], "seed {seed}");
    }
}

/// What a line brings, in order; the voice's probability is the truth.
#[derive(Clone, Copy)]
enum Part {
    Talk(u32),
    Quiet(u32),
    /// Hz, Hz, ms.
    Sound(f32, f32, u32),
}
use Part::{Quiet, Sound, Talk};

fn answers(parts: &[Part]) -> Vec<Answer> {
    let mut detector = AnswerDetector::default();
    let mut found = Vec::new();
    for (seed, part) in parts.iter().enumerate() {
        let (frames, speech_prob) = match part {
            Talk(ms) => (talk(seed as u32, *ms), 0.9),
            Quiet(ms) => (sound(&[(0.0, 0.0, 0.0, *ms)]), 0.1),
            // A detector of voices may well take a tone for one.
            Sound(first, second, ms) => (sound(&[(*first, *second, -18.0, *ms)]), 0.9),
        };
        found.extend(
            frames
                .iter()
                .filter_map(|frame| detector.push(frame, speech_prob)),
        );
    }
    found
}

#[test]
fn who_answers_is_told_by_how_they_speak() {
    let cases: &[(&str, &[Part], &[Answer])] = &[
        ("hello?", &[Quiet(600), Talk(500), Quiet(1500)], &[Answer::Person]),
        (
            "a name",
            &[Quiet(200), Talk(1400), Quiet(1500)],
            &[Answer::Person],
        ),
        (
            "hello, a breath, a name",
            &[Quiet(400), Talk(400), Quiet(400), Talk(900), Quiet(1500)],
            &[Answer::Person],
        ),
        (
            "a sentence",
            &[Quiet(400), Talk(2400), Quiet(1500)],
            &[Answer::Person],
        ),
        (
            "a click, then hello",
            &[Quiet(400), Talk(20), Quiet(900), Talk(500), Quiet(900)],
            &[Answer::Person],
        ),
        ("a machine goes on", &[Quiet(800), Talk(6000)], &[Answer::Machine]),
        (
            "it breathes",
            &[Talk(1600), Quiet(600), Talk(1200), Quiet(500), Talk(900)],
            &[Answer::Machine],
        ),
        (
            "it says who it is, and beeps",
            &[
                Quiet(500),
                Talk(4000),
                Quiet(400),
                Sound(1000.0, 0.0, 400),
                Quiet(2000),
            ],
            &[Answer::Machine, Answer::Beep],
        ),
        (
            "a short greeting with a beep",
            &[Talk(2000), Quiet(500), Sound(800.0, 0.0, 300), Quiet(2000)],
            &[Answer::Machine, Answer::Beep],
        ),
        (
            "a beep as low as a tone of the exchange",
            &[Talk(2000), Quiet(500), Sound(440.0, 0.0, 400), Quiet(2000)],
            &[Answer::Machine, Answer::Beep],
        ),
        ("nobody speaks", &[Quiet(5000)], &[Answer::Silent]),
        (
            "it rings behind a gateway, then a person",
            &[
                Sound(440.0, 480.0, 2000),
                Quiet(4000),
                Sound(440.0, 480.0, 2000),
                Quiet(2500),
                Talk(600),
                Quiet(1500),
            ],
            &[Answer::Ringing, Answer::Person],
        ),
        (
            "the same in Europe, then a machine",
            &[
                Sound(425.0, 0.0, 1000),
                Quiet(4000),
                Sound(425.0, 0.0, 1000),
                Quiet(1500),
                Talk(5000),
            ],
            &[Answer::Ringing, Answer::Machine],
        ),
        (
            "busy behind a gateway",
            &[Sound(480.0, 620.0, 500), Quiet(500)].repeat(5),
            &[Answer::Busy],
        ),
        ("a fax", &[Quiet(1000), Sound(2100.0, 0.0, 2600)], &[Answer::Fax]),
    ];
    for (case, parts, want) in cases {
        assert_eq!(answers(parts), *want, "{case}");
    }
}

#[test]
fn whatever_comes_is_told_once_and_in_order() {
    let mut state = 7u32;
    let mut random = move |below: u32| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) % below
    };
    for _ in 0..40 {
        let parts: Vec<Part> = (0..12)
            .map(|_| match random(3) {
                0 => Talk(20 + random(4000)),
                1 => Quiet(20 + random(3000)),
                _ => Sound(
                    200.0 + random(2200) as f32,
                    random(2) as f32 * 480.0,
                    20 + random(2500),
                ),
            })
            .collect();
        let found = answers(&parts);
        let last = found
            .iter()
            .position(|answer| !matches!(answer, Answer::Ringing | Answer::Machine));
        assert!(last.is_none_or(|last| last + 1 == found.len()), "{found:?}");
        assert!(
            found.iter().filter(|answer| **answer == Answer::Machine).count() <= 1,
            "{found:?}"
        );
    }
}
