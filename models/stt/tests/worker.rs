//! The speech-to-text worker with a real model and recorded speech, over its socket.
#![allow(missing_docs)]

mod common;

use std::time::{Duration, Instant};

use attendant_models::protocol::{FailKind, Request, Response};
use common::{Worker, models, noise, prompt, refused, word_set, words};

const PROGRAM: &str = env!("CARGO_BIN_EXE_attendant-stt");

fn start() -> Worker {
    let model = models().stt.path;
    Worker::start(PROGRAM, &["--model", model.to_str().unwrap(), "--threads", "2"])
}

#[test]
fn understands_recorded_prompts() {
    let mut worker = start();
    let cases = [
        ("all-circuits-busy-now", "all circuits are busy now"),
        (
            "conf-invalid",
            "that is not a valid conference number please try again",
        ),
        (
            "cannot-complete-as-dialed",
            "your call cannot be completed as dialed",
        ),
        ("conf-invalidpin", "that pin is invalid for this conference"),
        ("queue-thankyou", "thank you for your patience"),
    ];
    for (name, want) in cases {
        let answer = worker.transcribe(&prompt(name));
        assert_eq!(words(answer.text()), words(want), "{name}");
        let Some(Response::Transcript {
            avg_logprob,
            no_speech_prob,
            passes,
            audio_ctx,
            ..
        }) = answer.transcript
        else {
            panic!("no transcript");
        };
        assert!((-0.6..0.0).contains(&avg_logprob), "{name}: {avg_logprob}");
        assert!((0.0..0.5).contains(&no_speech_prob), "{name}: {no_speech_prob}");
        assert_eq!((passes, audio_ctx), (1, 512), "{name}");
    }
}

#[test]
fn one_caller_never_hears_the_words_of_another() {
    let mut worker = start();
    // Twelve seconds in a wide context, then one second in a small one: what would be left over is most.
    let (a, b) = (prompt("dir-intro"), prompt("all-circuits-busy-now"));
    let (fresh_a, fresh_b) = (worker.transcribe(&a), start().transcribe(&b));
    let of_a = word_set(fresh_a.text());
    assert!(of_a.len() > 15, "{of_a:?}");
    let own = word_set("all circuits are busy now");
    for round in 0..20 {
        assert_eq!(worker.transcribe(&a).text(), fresh_a.text(), "round {round}");
        let heard = worker.transcribe(&b);
        assert_eq!(heard.text(), fresh_b.text(), "round {round}");
        let strangers: Vec<_> = word_set(heard.text()).intersection(&of_a).cloned().collect();
        assert!(
            strangers.iter().all(|w| own.contains(w)),
            "round {round}: {strangers:?}"
        );
    }
}

#[test]
fn cancels_in_mid_inference_and_answers_pings() {
    let mut worker = start();
    // Half a minute takes several seconds.
    let long: Vec<i16> = prompt("demo-congrats").into_iter().take(28 * 16_000).collect();
    let id = worker.send_transcribe(&long, 100_000, "en");
    let queued = worker.send_transcribe(&long, 100_000, "en");
    std::thread::sleep(Duration::from_millis(100));
    let begun = Instant::now();
    worker.send(&Request::Ping { nonce: 5 }, &[]);
    assert!(matches!(worker.receive().0, Response::Pong { nonce: 5 }));
    assert!(
        begun.elapsed() < Duration::from_millis(500),
        "{:?}",
        begun.elapsed()
    );
    worker.send(&Request::Cancel { id: queued }, &[]);
    assert!(matches!(worker.receive().0, Response::Cancelled { id } if id == queued));
    worker.send(&Request::Cancel { id }, &[]);
    let last = worker.answer(id).last;
    assert!(matches!(last, Response::Cancelled { .. }), "{last:?}");
    let answer = worker.transcribe(&prompt("all-circuits-busy-now"));
    assert_eq!(words(answer.text()), words("all circuits are busy now"));
}

#[test]
fn nothing_said_is_nothing_and_noise_ends() {
    let mut worker = start();
    for (what, pcm) in [
        ("empty", vec![]),
        ("a click", vec![3000; 40]),
        ("silence", vec![0; 160_000]),
    ] {
        let answer = worker.transcribe(&pcm);
        assert_eq!(answer.text(), "", "{what}");
        assert_eq!(answer.stats().audio_ms as usize, pcm.len() / 16, "{what}");
    }
    for amplitude in [100, 3000, 30_000] {
        let answer = worker.transcribe(&noise(160_000, amplitude));
        let said = words(answer.text());
        assert!(said.len() <= 58, "the token cap holds: {said:?}");
    }
}

#[test]
fn keeps_deadlines_and_refuses_nonsense() {
    let mut worker = start();
    let pcm = prompt("conf-invalid");
    let id = worker.send_transcribe(&pcm, 20, "en");
    let last = worker.answer(id).last;
    assert!(
        matches!(
            last,
            Response::Failed {
                kind: FailKind::Deadline,
                ..
            }
        ),
        "{last:?}"
    );
    for language in ["xx", "", "e\0n"] {
        let id = worker.send_transcribe(&pcm, 100_000, language);
        let last = worker.answer(id).last;
        assert!(
            matches!(
                last,
                Response::Failed {
                    kind: FailKind::BadRequest,
                    ..
                }
            ),
            "{language:?}: {last:?}"
        );
    }
    let id = worker.send_speak("hello", 1.0);
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
}

#[test]
fn computes_with_the_threads_it_is_given() {
    let mut worker = start();
    let pcm = prompt("all-circuits-busy-now");
    for threads in [1, 2] {
        worker.send(&Request::SetThreads { threads }, &[]);
        assert!(matches!(worker.receive().0, Response::ThreadsSet { threads: t } if t == threads));
        assert_eq!(
            words(worker.transcribe(&pcm).text()),
            words("all circuits are busy now")
        );
    }
    worker.send(&Request::SetThreads { threads: 0 }, &[]);
    assert!(matches!(worker.receive().0, Response::ThreadsSet { threads: 0 }));
    let id = worker.send_transcribe(&pcm, 100_000, "en");
    std::thread::sleep(Duration::from_millis(50));
    worker.send(&Request::SetThreads { threads: 1 }, &[]);
    assert!(matches!(worker.receive().0, Response::ThreadsSet { threads: 1 }));
    assert_eq!(
        words(worker.answer(id).text()),
        words("all circuits are busy now")
    );
}

#[test]
fn ends_cleanly() {
    let mut worker = start();
    worker.send_nonsense();
    assert_eq!(worker.wait().code(), Some(3), "bad frame");

    let mut worker = start();
    worker.send_transcribe(&prompt("conf-invalid"), 100_000, "en");
    assert_eq!(worker.hang_up().code(), Some(0), "socket closed in mid-inference");

    let mut worker = start();
    worker.send(&Request::Shutdown, &[]);
    assert_eq!(worker.wait().code(), Some(0), "shutdown");
}

#[test]
fn a_bad_model_is_one_clear_line() {
    let models = models();
    let truncated = std::env::temp_dir().join(format!("attendant-stt-{}.bin", std::process::id()));
    let whole = std::fs::read(&models.stt.path).unwrap();
    std::fs::write(&truncated, &whole[..whole.len() / 2]).unwrap();
    let cases = [
        (truncated.to_str().unwrap(), "truncated"),
        (models.voice.onnx.to_str().unwrap(), "not a Whisper model"),
        (models.llm.path.to_str().unwrap(), "GGUF"),
        ("/nonexistent", "No such file"),
        ("/tmp", "not a file"),
    ];
    for (file, want) in cases {
        let (code, stderr) = refused(PROGRAM, &["--model", file]);
        assert_eq!(code, Some(2), "{file}: {stderr}");
        assert!(
            stderr.contains(want) && stderr.lines().count() == 1,
            "{file}: {stderr}"
        );
    }
    std::fs::remove_file(truncated).unwrap();
    let (code, stderr) = refused(PROGRAM, &["--model", models.stt.path.to_str().unwrap()]);
    assert_eq!(code, Some(64), "started by hand: {stderr}");
}
