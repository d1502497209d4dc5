//! Recorded lines: people and machines that answer, music on hold. What the detectors of call progress make of them, after
//! G.711 and with the voice detector that calls use.
//!
//! Needs the distribution's `asterisk-core-sounds-en-wav` and `asterisk-moh-opsound-wav`.

#![allow(
    missing_docs,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::disallowed_macros
)]

use std::path::Path;

use attendant_media::g711::{ulaw_decode, ulaw_encode};
use attendant_media::progress::{Answer, AnswerDetector, ExchangeDetector, FaxDetector};
use attendant_media::{FRAME_SAMPLES, Frame, SAMPLE_RATE_HZ, resample, wav};
use attendant_rt::Vad;

const SOUNDS: &str = "/usr/share/asterisk/sounds/en";
const MUSIC: &str = "/usr/share/asterisk/moh";
const LINE_RATE_HZ: u32 = 8_000;

/// As it comes from a line of G.711, 16 kHz.
fn over_the_line(path: &Path) -> Vec<i16> {
    let sound = wav::read(path).unwrap_or_else(|error| {
        panic!(
            "{error}\nthis test needs: apt-get install asterisk-core-sounds-en-wav asterisk-moh-opsound-wav"
        )
    });
    let narrow = resample::convert(&sound.samples, sound.rate, LINE_RATE_HZ);
    let coded: Vec<i16> = narrow.into_iter().map(|s| ulaw_decode(ulaw_encode(s))).collect();
    resample::convert(&coded, LINE_RATE_HZ, SAMPLE_RATE_HZ)
}

/// Prompts one after the other; a number is a silence \[ms\].
fn line(parts: &[&str]) -> Vec<i16> {
    let mut samples = Vec::new();
    for part in parts {
        match part.parse::<usize>() {
            Ok(ms) => samples.extend(std::iter::repeat_n(0, ms * 16)),
            Err(_) => samples.extend(over_the_line(&Path::new(SOUNDS).join(format!("{part}.wav")))),
        }
    }
    samples
}

fn frames(samples: &[i16]) -> impl Iterator<Item = Frame> + '_ {
    samples.chunks(FRAME_SAMPLES).map(Frame::from_slice)
}

fn answers(samples: &[i16]) -> Vec<Answer> {
    let (mut vad, mut detector) = (Vad::new(), AnswerDetector::default());
    frames(samples)
        .filter_map(|frame| {
            let speech_prob = vad.handle_frame(&frame);
            detector.push(&frame, speech_prob)
        })
        .collect()
}

#[test]
fn people_and_machines_are_told_apart() {
    let person: &[&[&str]] = &[
        &["600", "hello", "2000"],
        &["900", "vm-Friends", "2000"],
        &["400", "hello", "300", "sorry", "2000"],
        &["500", "sorry", "2000"],
        &["300", "hello-world", "2000"],
        &["700", "location", "2000"],
        &["500", "hours", "400", "time", "2000"],
        // The limit: a short recording without a beep waits like a person.
        &["500", "privacy-prompt", "3000"],
    ];
    let machine: &[&[&str]] = &[
        &[
            "600",
            "vm-theperson",
            "digits/2",
            "digits/0",
            "digits/1",
            "vm-isunavail",
            "vm-intro",
            "beep",
            "3000",
        ],
        &["300", "vm-intro", "400", "beep", "3000"],
        &["800", "vm-nobodyavail", "300", "beep", "3000"],
        &["500", "privacy-prompt", "300", "beep", "3000"],
        &["500", "demo-congrats"],
        &["500", "ss-noservice", "beep", "2000"],
        &["200", "all-circuits-busy-now", "please-try-call-later", "2000"],
    ];
    let mut wrong = Vec::new();
    for parts in person {
        let found = answers(&line(parts));
        if found != [Answer::Person] {
            wrong.push(format!("{parts:?}: {found:?}"));
        }
    }
    for parts in machine {
        let found = answers(&line(parts));
        // Its beep, where there is one, is found as well.
        let beep = parts.contains(&"beep");
        let want: &[Answer] = if beep {
            &[Answer::Machine, Answer::Beep]
        } else {
            &[Answer::Machine]
        };
        if found != want {
            wrong.push(format!("{parts:?}: {found:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A prompt is no tone, and has no beep in it.
#[test]
fn a_voice_is_neither_tone_nor_beep() {
    let names = [
        "demo-congrats",
        "demo-instruct",
        "demo-moreinfo",
        "vm-intro",
        "vm-options",
        "tt-weasels",
        "dir-instr",
        "basic-pbx-ivr-main",
        "priv-callee-options",
        "queue-periodic-announce",
        "confbridge-menu-exit-in",
    ];
    for name in names {
        let samples = line(&[name]);
        let (mut fax, mut exchange) = (FaxDetector::default(), ExchangeDetector::default());
        let mut beeps = AnswerDetector::default();
        for frame in frames(&samples) {
            assert_eq!(fax.push(&frame), None, "{name}");
            assert_eq!(exchange.push(&frame), None, "{name}");
            let found = beeps.push(&frame, 0.9);
            assert!(matches!(found, None | Some(Answer::Machine)), "{name}: {found:?}");
        }
    }
}

#[test]
fn music_on_hold_is_no_tone_of_an_exchange() {
    let pieces = std::fs::read_dir(MUSIC).expect("apt-get install asterisk-moh-opsound-wav");
    let mut heard = 0;
    for piece in pieces.flatten().map(|entry| entry.path()) {
        if piece.extension().is_none_or(|extension| extension != "wav") {
            continue;
        }
        let samples = over_the_line(&piece);
        let (mut fax, mut exchange) = (FaxDetector::default(), ExchangeDetector::default());
        for (at, frame) in frames(&samples).enumerate() {
            let second = at as f32 / 50.0;
            assert_eq!(fax.push(&frame), None, "{} at {second} s", piece.display());
            assert_eq!(exchange.push(&frame), None, "{} at {second} s", piece.display());
        }
        heard += 1;
    }
    assert!(heard >= 3, "{heard} pieces");
}
