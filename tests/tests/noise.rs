//! Lines without a caller's words: silence, hum, music on hold, a street. Nothing that was not said reaches the dialog.

use std::path::Path;

use attendant_media::{SAMPLE_RATE_HZ, resample, wav};
use attendant_tests::{House, wav_file};

/// The distribution's music on hold (`asterisk-moh-opsound-wav`).
const MUSIC: &str = "/usr/share/asterisk/moh/macroform-the_simplicity.wav";
const RATE: usize = SAMPLE_RATE_HZ as usize;

/// A small generator: the same noise at every run.
struct Random(u64);

impl Random {
    /// -1…1.
    fn next(&mut self) -> f64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as f64 / f64::from(1u32 << 30) - 1.0
    }
}

/// Mains hum with its harmonics and a little hiss, −26 dBov.
fn hum(seconds: usize) -> Vec<i16> {
    let mut random = Random(1);
    (0..seconds * RATE)
        .map(|n| {
            let t = n as f64 / RATE as f64 * std::f64::consts::TAU;
            let tones = (50.0 * t).sin()
                + 0.6 * (100.0 * t).sin()
                + 0.4 * (150.0 * t).sin()
                + 0.3 * (300.0 * t).sin();
            (tones * 1_600.0 + random.next() * 120.0) as i16
        })
        .collect()
}

/// A street: rumble, cars that pass, a horn now and then, some −25 dBov.
fn street(seconds: usize) -> Vec<i16> {
    let mut random = Random(2);
    let (mut rumble, mut hiss) = (0.0, 0.0);
    (0..seconds * RATE)
        .map(|n| {
            let second = n as f64 / RATE as f64;
            rumble = rumble * 0.995 + random.next() * 0.1;
            hiss = hiss * 0.7 + random.next() * 0.3;
            let passing = (1.0 - ((second % 7.0) - 3.5).abs() / 3.5).max(0.0).powi(3);
            let horn = if second % 11.0 > 10.4 {
                (second * 2_640.0).sin() + (second * 3_300.0).sin()
            } else {
                0.0
            };
            (rumble * 2_500.0 + hiss * passing * 5_000.0 + horn * 900.0) as i16
        })
        .collect()
}

fn music(seconds: usize) -> Vec<i16> {
    let music = wav::read(Path::new(MUSIC)).unwrap_or_else(|e| {
        panic!("{e}\nthis test needs music on hold: apt-get install asterisk-moh-opsound-wav")
    });
    let mut samples = resample::convert(&music.samples, music.rate, SAMPLE_RATE_HZ);
    samples.truncate(seconds * RATE);
    assert_eq!(samples.len(), seconds * RATE, "the piece is long enough");
    samples
}

/// Two clicks of a millisecond, which begin and end what the caller sends, and nothing between them.
fn silence(seconds: usize) -> Vec<i16> {
    let mut samples = vec![0; seconds * RATE];
    let last = samples.len() - 16;
    samples[..16].fill(4_000);
    samples[last..].fill(4_000);
    samples
}

#[test]
fn a_line_without_words_brings_no_words_into_the_dialog() {
    let house = House::start("").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let lines = [
        ("ten seconds of silence", silence(10)),
        ("hum", hum(60)),
        ("music", music(60)),
        ("street", street(60)),
    ];
    std::thread::scope(|scope| {
        for (name, samples) in &lines {
            let file = wav_file(dir.path(), &format!("{}.wav", name.replace(' ', "-")), samples).unwrap();
            let house = &house;
            scope.spawn(move || {
                house
                    .call(&["--no-transcribe", "--wav", &file])
                    .unwrap_or_else(|e| panic!("{name}: {e:#}"))
            });
        }
    });
    let sessions = house.ended_sessions(lines.len()).unwrap();
    for session in sessions {
        assert_eq!(session.session.state.as_str(), "completed", "{session:?}");
        let words: Vec<&str> = session
            .turns
            .iter()
            .map(|turn| turn.caller_text.as_str())
            .collect();
        assert!(words.is_empty(), "invented: {words:?}");
        let asked = |kind: &str| session.events.iter().any(|event| event.kind.as_str() == kind);
        assert!(
            asked("still_there") || asked("unclear"),
            "somebody asked: {session:?}"
        );
    }
}
