//! The text-to-speech worker with a real voice, over its socket; the speech-to-text worker listens.
#![allow(missing_docs)]

#[path = "../../stt/tests/common/mod.rs"]
mod common;

use std::path::Path;
use std::time::Duration;

use attendant_models::protocol::{FailKind, Request, Response};
use common::{Worker, models, refused, words};

const PROGRAM: &str = env!("CARGO_BIN_EXE_attendant-tts");
const LONG: &str = "Our office is open from Monday to Friday, nine in the morning until five in the afternoon, except \
                    on public holidays. On Saturdays we are open until noon. You can also leave a message, and we will \
                    call you back on the next working day.";

fn start() -> Worker {
    let models = models();
    let path = |p: &Path| p.to_str().unwrap().to_owned();
    let (voice, config, runtime) = (
        path(&models.voice.onnx),
        path(&models.voice.json),
        path(&models.onnxruntime),
    );
    let args = [
        "--voice",
        &voice,
        "--config",
        &config,
        "--runtime",
        &runtime,
        "--threads",
        "2",
    ];
    Worker::start(PROGRAM, &args)
}

/// Level while somebody speaks [dBov].
fn level(pcm: &[i16]) -> f64 {
    let frames: Vec<f64> = pcm
        .chunks_exact(320)
        .map(|f| f.iter().map(|s| (f64::from(*s) / 32_768.0).powi(2)).sum::<f64>() / 320.0)
        .collect();
    let loudest = frames.iter().copied().fold(0.0, f64::max);
    let active: Vec<f64> = frames.into_iter().filter(|p| *p > loudest / 300.0).collect();
    10.0 * (active.iter().sum::<f64>() / active.len() as f64).log10()
}

#[test]
fn speaks_at_a_steady_level_without_clipping() {
    let mut worker = start();
    for text in [
        "We are open until six o'clock.",
        "Yes.",
        "How may I help you?",
        LONG,
    ] {
        let answer = worker.speak(text);
        let pcm = &answer.pcm;
        assert_eq!(answer.stats().audio_ms as usize, pcm.len() / 16);
        let seconds_per_word = pcm.len() as f64 / 16_000.0 / words(text).len() as f64;
        assert!(
            (0.2..1.0).contains(&seconds_per_word),
            "{text}: {seconds_per_word:.2} s per word"
        );
        let level = level(pcm);
        assert!((-24.0..=-17.0).contains(&level), "{text}: {level:.1} dBov");
        assert!(pcm.iter().all(|s| s.unsigned_abs() < 30_000), "{text}: clipped");
        let loud = |s: &i16| s.unsigned_abs() > 500;
        let lead = pcm.iter().position(loud).unwrap() / 16;
        let tail = (pcm.len() - pcm.iter().rposition(loud).unwrap()) / 16;
        assert!(lead <= 120, "{text}: {lead} ms before the first sound");
        assert!(
            (150..=450).contains(&tail),
            "{text}: {tail} ms after the last sound"
        );
    }
}

#[test]
fn what_it_says_is_understood() {
    let listener = Path::new(PROGRAM).with_file_name("attendant-stt");
    let mut speaker = start();
    let model = models().stt.path;
    let mut listener = Worker::start(listener, &["--model", model.to_str().unwrap(), "--threads", "2"]);
    let sentences = [
        "Thank you for calling. How may I help you today?",
        "We are open from nine in the morning until five in the afternoon.",
        "Would you like to leave a message for the manager?",
    ];
    let (mut wrong, mut total) = (0, 0);
    for sentence in sentences {
        let heard = listener.transcribe(&speaker.speak(sentence).pcm);
        let (want, got) = (words(sentence), words(heard.text()));
        // Numbers come back as digits; all else must be there.
        wrong += want
            .iter()
            .filter(|w| !got.contains(w) && !["nine", "five"].contains(&w.as_str()))
            .count();
        total += want.len();
    }
    assert!(wrong <= 1, "{wrong} of {total} words not understood");
}

#[test]
fn nothing_to_say_and_nonsense() {
    let mut worker = start();
    for text in ["", "   ", "...", "\u{1f600}"] {
        let answer = worker.speak(text);
        assert_eq!((answer.pcm.len(), answer.stats().audio_ms), (0, 0), "{text:?}");
    }
    let too_long = "word ".repeat(1000);
    for (text, speed) in [
        ("hello", 0.0),
        ("hello", 9.0),
        ("hello", -1.0),
        (too_long.as_str(), 1.0),
    ] {
        let id = worker.send_speak(text, speed);
        let last = worker.answer(id).last;
        assert!(
            matches!(
                last,
                Response::Failed {
                    kind: FailKind::BadRequest,
                    ..
                }
            ),
            "{speed}: {last:?}"
        );
    }
    let id = worker.send_transcribe(&[0; 100], 1000, "en");
    let last = worker.answer(id).last;
    assert!(
        matches!(
            last,
            Response::Failed {
                kind: FailKind::BadRequest,
                ..
            }
        ),
        "{last:?}"
    );
    assert!(!worker.speak("Still here.").pcm.is_empty());
}

#[test]
fn speaks_faster_when_asked() {
    let mut worker = start();
    let normal = worker.speak(LONG).pcm.len() as f64;
    let id = worker.send_speak(LONG, 1.4);
    let fast = worker.answer(id).pcm.len() as f64;
    assert!((1.15..1.6).contains(&(normal / fast)), "{}", normal / fast);
}

#[test]
fn the_first_audio_of_a_long_text_comes_early_and_cancel_is_heard() {
    let mut worker = start();
    let answer = worker.speak(LONG);
    let first = answer.first_audio.unwrap();
    assert!(
        first * 3 < answer.took,
        "first audio after {first:?} of {:?}",
        answer.took
    );

    let id = worker.send_speak(LONG, 1.0);
    let queued = worker.send_speak(LONG, 1.0);
    assert!(matches!(worker.receive().0, Response::Audio { seq: 0, .. }));
    worker.send(&Request::Cancel { id: queued }, &[]);
    worker.send(&Request::Cancel { id }, &[]);
    worker.send(&Request::Ping { nonce: 1 }, &[]);
    let (mut ended, mut audio) = (Vec::new(), 0);
    while ended.len() < 3 {
        match worker.receive().0 {
            Response::Audio { .. } => audio += 1,
            Response::Cancelled { id } => ended.push(id),
            Response::Pong { .. } => ended.push(0),
            other => panic!("{other:?}"),
        }
    }
    assert!(ended.contains(&id) && ended.contains(&queued));
    assert!(audio <= 5, "{audio} more pieces");
    assert!(!worker.speak("Still here.").pcm.is_empty());
}

#[test]
fn computes_with_the_threads_it_is_given() {
    let mut worker = start();
    for threads in [1, 2, 7] {
        worker.send(&Request::SetThreads { threads }, &[]);
        assert!(matches!(worker.receive().0, Response::ThreadsSet { threads: t } if t == threads));
        assert!(!worker.speak("One moment please.").pcm.is_empty());
    }
    worker.send(&Request::SetThreads { threads: 0 }, &[]);
    assert!(matches!(worker.receive().0, Response::ThreadsSet { threads: 0 }));
    let id = worker.send_speak("One moment please.", 1.0);
    std::thread::sleep(Duration::from_millis(50));
    worker.send(&Request::Cancel { id }, &[]);
    assert!(matches!(worker.answer(id).last, Response::Cancelled { .. }));
}

#[test]
fn ends_cleanly() {
    let mut worker = start();
    worker.send_nonsense();
    assert_eq!(worker.wait().code(), Some(3), "bad frame");

    let mut worker = start();
    worker.send_speak(LONG, 1.0);
    assert_eq!(worker.hang_up().code(), Some(0), "socket closed while it speaks");
}

#[test]
fn bad_files_are_one_clear_line() {
    let models = models();
    let path = |p: &Path| p.to_str().unwrap().to_owned();
    let (onnx, json, so) = (
        path(&models.voice.onnx),
        path(&models.voice.json),
        path(&models.onnxruntime),
    );
    let truncated = std::env::temp_dir().join(format!("attendant-tts-{}.onnx", std::process::id()));
    let whole = std::fs::read(&models.voice.onnx).unwrap();
    std::fs::write(&truncated, &whole[..whole.len() / 2]).unwrap();
    let truncated = path(&truncated);
    let cases = [
        [&truncated, &json, &so, "not a voice model"],
        [json.as_str(), &json, &so, "not a voice model"],
        [onnx.as_str(), &onnx, &so, "too large"],
        [
            onnx.as_str(),
            "/etc/hostname",
            &so,
            "not the description of a Piper voice",
        ],
        [onnx.as_str(), &json, &onnx, "not a library"],
        ["/nonexistent", &json, &so, "nonexistent"],
    ];
    for [voice, config, runtime, want] in cases {
        let (code, stderr) = refused(
            PROGRAM,
            &["--voice", voice, "--config", config, "--runtime", runtime],
        );
        assert_eq!(code, Some(2), "{want}: {stderr}");
        assert!(
            stderr.contains(want) && stderr.lines().count() == 1,
            "{want}: {stderr}"
        );
    }
    std::fs::remove_file(truncated).unwrap();
}
