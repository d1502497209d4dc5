//! Redaction of recordings: what is to be silent is, to the sample, and nothing else is touched.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use attendant_media::{FRAME_SAMPLES, frame::frames, tone};
use attendant_record::{Cut, MasterKey, Muted, RecordError, Side, Track, cuts, export, length, mute, tones};

const KEY: MasterKey = MasterKey::new([5; 32]);
static GO_ON: AtomicBool = AtomicBool::new(false);

/// A voice-like sound: a pitch that moves, with harmonics. Never two tones alone.
fn voice(samples: usize, pitch_hz: f64) -> Vec<i16> {
    let mut phase = 0.0_f64;
    (0..samples)
        .map(|n| {
            let t = n as f64 / 16_000.0;
            phase += (pitch_hz + 30.0 * (t * 5.0).sin()) / 16_000.0;
            let x: f64 = (1..=12)
                .map(|k| (phase * std::f64::consts::TAU * f64::from(k)).sin() / f64::from(k))
                .sum();
            (x * 5_000.0 * (0.6 + 0.4 * (t * 9.0).sin())) as i16
        })
        .collect()
}

fn recorded(path: &Path, left: &[i16], right: &[i16]) {
    let mut track = Track::create(path, &KEY).expect("create");
    for (at, (heard, sent)) in (0..).zip(frames(left).zip(frames(right))) {
        track.push(at, &heard, &sent).expect("push");
    }
    track.finish().map_err(|(error, _)| error).expect("finish");
}

/// Left and right as a player hears them.
fn played(path: &Path) -> (Vec<i16>, Vec<i16>) {
    let mut flac = Vec::new();
    export(path, &KEY, &mut flac).expect("export");
    let mut reader = claxon::FlacReader::new(flac.as_slice()).expect("header");
    let samples: Vec<i16> = reader
        .samples()
        .map(|sample| sample.expect("sample") as i16)
        .collect();
    let side = |n| samples.iter().skip(n).step_by(2).copied().collect();
    (side(0), side(1))
}

fn files() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let dir = tempfile::tempdir().expect("dir");
    let (old, new) = (dir.path().join("old.rec"), dir.path().join("new.rec"));
    (dir, old, new)
}

#[test]
fn known_parts_are_silent_and_all_else_is_sample_for_sample() {
    let (_dir, old, new) = files();
    // 7.3 s: the last block is short.
    let samples = 365 * FRAME_SAMPLES;
    let (left, right) = (voice(samples, 120.0), voice(samples, 190.0));
    recorded(&old, &left, &right);
    let before = fs::read(&old).expect("old");
    let muted = [
        Muted {
            side: Side::Caller,
            from: 16_001,
            to: 40_123,
        },
        Muted {
            side: Side::Attendant,
            from: 0,
            to: 5,
        },
        // Beyond the end, and the wrong way round.
        Muted {
            side: Side::Caller,
            from: samples as u64 - 100,
            to: u64::MAX,
        },
        Muted {
            side: Side::Attendant,
            from: 9_000,
            to: 8_000,
        },
    ];
    let (figures, sum) = mute(&old, &new, &KEY, &muted, &GO_ON).expect("mute");
    assert_eq!(figures.samples, samples as u64);
    assert_eq!(attendant_record::sum(&new).expect("sum"), sum);
    let (l, r) = played(&new);
    assert_eq!((l.len(), r.len()), (samples, samples));
    for n in 0..samples {
        let silent = (16_001..40_123).contains(&n) || n >= samples - 100;
        assert_eq!(l[n], if silent { 0 } else { left[n] }, "left, sample {n}");
        assert_eq!(r[n], if n < 5 { 0 } else { right[n] }, "right, sample {n}");
    }
    assert_eq!(
        fs::read(&old).expect("old"),
        before,
        "what is sealed stays as it is"
    );
}

#[test]
fn keys_are_found_and_speech_is_not_one() {
    let (_dir, old, new) = files();
    let mut left = voice(32_000, 140.0);
    let mut pressed = Vec::new();
    for (n, key) in "4111".chars().enumerate() {
        let start = left.len();
        left.extend(tone::dtmf(key, 60 + n as u32 * 23));
        pressed.push((start, left.len()));
        left.extend(vec![0; 1_600 + 37 * n]);
    }
    left.extend(voice(48_000, 210.0));
    let last = left.len();
    left.extend(tone::dtmf('#', 80));
    pressed.push((last, left.len()));
    left.extend(vec![0; FRAME_SAMPLES - left.len() % FRAME_SAMPLES + 3_200]);
    recorded(&old, &left, &voice(left.len(), 180.0));
    let found = tones(&old, &KEY, &GO_ON).expect("tones");
    assert_eq!(found.len(), 2, "four keys in a row are one part: {found:?}");
    for (from, to) in &pressed {
        let covered = |part: &&Muted| part.from <= *from as u64 && part.to >= *to as u64;
        assert!(
            found.iter().any(|part| covered(&part)),
            "{from}..{to} in {found:?}"
        );
    }
    let length: u64 = found.iter().map(|part| part.to - part.from).sum();
    assert!(length < 16_000 * 2, "speech is kept: {found:?}");
    mute(&old, &new, &KEY, &found, &GO_ON).expect("mute");
    assert_eq!(tones(&new, &KEY, &GO_ON).expect("tones"), []);
    let (l, _) = played(&new);
    for (from, to) in pressed {
        assert!(l[from..to].iter().all(|sample| *sample == 0));
    }
    assert_eq!(l[..30_000], left[..30_000], "what was said before is still there");
}

#[test]
fn cuts_are_what_was_said_there() {
    let (_dir, old, _) = files();
    let left = voice(100 * FRAME_SAMPLES, 120.0);
    recorded(&old, &left, &vec![0; left.len()]);
    let wanted = [
        (0, 10),
        (3_199, 3_201),
        (5_000, 20_000),
        (31_990, 90_000),
        (40_000, 50_000),
        (7, 3),
    ]
    .map(|(from, to)| Cut { from, to });
    let found = cuts(&old, &KEY, &GO_ON, &wanted).expect("cuts");
    for (cut, samples) in wanted.iter().zip(found) {
        let to = (cut.to as usize).min(left.len());
        let want = left.get(cut.from as usize..to).unwrap_or_default();
        assert_eq!(samples, want, "{cut:?}");
    }
}

#[test]
fn a_cut_recording_is_redacted_up_to_the_cut_and_a_stop_is_heard() {
    let (_dir, old, new) = files();
    let mut track = Track::create(&old, &KEY).expect("create");
    for (at, frame) in (0..).zip(frames(&voice(155 * FRAME_SAMPLES, 120.0))) {
        track.push(at, &frame, &frame).expect("push");
    }
    // The power goes.
    drop(track);
    let (figures, _) = mute(&old, &new, &KEY, &[], &GO_ON).expect("mute");
    assert_eq!(figures.samples, 48_000);
    assert_eq!(length(&new, &KEY).expect("length").0, 48_000);
    fs::remove_file(&new).expect("remove");
    let stop = AtomicBool::new(false);
    stop.store(true, Ordering::Relaxed);
    assert!(matches!(
        mute(&old, &new, &KEY, &[], &stop),
        Err(RecordError::Stopped)
    ));
    let wrong = MasterKey::new([6; 32]);
    assert!(tones(&old, &wrong, &GO_ON).is_err());
}
