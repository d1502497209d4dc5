//! Engines against a fake worker: this test executable itself, started again with `FAKE_WORKER` set.
//!
//! The fake speaks the real protocol on descriptor 3. Its behaviour is in the requests: the text, hint or first message
//! is a script of words (`work:300`, `die`, `hang`, `deaf`), so that a test reads in one place.

use std::collections::HashSet;
use std::io::Write;
use std::os::fd::FromRawFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use attendant_models::client::{
    ChatMessage, Engine, EngineConfig, EngineError, EngineState, Engines, GenerateRequest, LlmEvent,
    Priority, Role, SpeakRequest, TranscribeRequest, WorkerSpec,
};
use attendant_models::protocol::{
    FailKind, PROTOCOL_VERSION, Request, RequestId, Response, Stats, WORKER_FD, read_frame, write_frame,
};

// ---- the fake worker ----

/// Not a test: what this executable does as a worker.
#[test]
fn fake_worker() {
    if let Ok(setup) = std::env::var("FAKE_WORKER") {
        fake(&setup);
        std::process::exit(0);
    }
}

#[allow(unsafe_code)]
fn fake(setup: &str) {
    if setup == "bad_model" {
        eprintln!("model.gguf: not a model file");
        std::process::exit(2);
    }
    if setup == "never_ready" {
        thread::sleep(Duration::from_secs(60));
    }
    // SAFETY: descriptor 3 is the socket that the supervisor put there; nothing else owns it.
    let socket = unsafe { UnixStream::from_raw_fd(WORKER_FD) };
    let mut rx = socket.try_clone().unwrap();
    let tx = Arc::new(Mutex::new(socket));
    let cancelled = Arc::new(Mutex::new(HashSet::new()));
    let say = |r: &Response| write_frame(&mut *tx.lock().unwrap(), r, &[]).unwrap();
    let ready = Response::Ready {
        protocol: PROTOCOL_VERSION,
        engine: "fake 1".into(),
        model: format!("fake, {setup}"),
        load_ms: 1,
        sequences: 4,
    };
    let (mut threads, mut prefix) = (0, "none".to_owned());
    say(&ready);
    while let Some((request, _)) = read_frame::<Request>(&mut rx).unwrap() {
        let (id, script) = match request {
            Request::Ping { nonce } => {
                say(&Response::Pong { nonce });
                continue;
            }
            Request::Cancel { id } => {
                cancelled.lock().unwrap().insert(id);
                continue;
            }
            Request::SetThreads { threads: n } => {
                threads = n;
                say(&Response::ThreadsSet { threads });
                continue;
            }
            Request::SetPrefix { id, messages } => {
                prefix = messages[0].content.clone();
                (id, "work:50".to_owned())
            }
            Request::Transcribe { id, hint, .. } => (id, hint),
            Request::Generate { id, messages, .. } | Request::Prefill { id, messages, .. } => {
                (id, messages[0].content.clone())
            }
            Request::Speak { id, text, .. } => (id, text),
            Request::Release { .. } => continue,
            Request::Shutdown => return,
        };
        let (tx, cancelled, prefix) = (Arc::clone(&tx), Arc::clone(&cancelled), prefix.clone());
        thread::spawn(move || play(id, &script, threads, &prefix, &tx, &cancelled));
        if std::env::var("FAKE_DEAF").is_ok() {
            thread::sleep(Duration::from_secs(60));
        }
    }
}

fn play(
    id: RequestId,
    script: &str,
    threads: u32,
    prefix: &str,
    tx: &Mutex<UnixStream>,
    cancelled: &Mutex<HashSet<RequestId>>,
) {
    let say = |r: &Response| {
        let _ = write_frame(&mut *tx.lock().unwrap(), r, &[0; 4]);
    };
    for word in script.split_whitespace() {
        match word.split_once(':').unwrap_or((word, "")) {
            ("work", ms) => {
                let mut left: u64 = ms.parse().unwrap();
                // Steps, not one sleep: time frozen does not count as work.
                while left > 0 {
                    if cancelled.lock().unwrap().contains(&id) {
                        return say(&Response::Cancelled { id });
                    }
                    thread::sleep(Duration::from_millis(10));
                    left = left.saturating_sub(10);
                }
            }
            ("token", text) => say(&Response::Token {
                id,
                text: text.into(),
            }),
            ("prefix", _) => say(&Response::Token {
                id,
                text: prefix.into(),
            }),
            ("audio", _) => say(&Response::Audio { id, seq: 0 }),
            ("text", _) => say(&Response::Transcript {
                id,
                text: format!("threads {threads}"),
                avg_logprob: -0.1,
                no_speech_prob: 0.0,
                passes: 1,
                audio_ctx: 512,
            }),
            ("stale", _) => say(&Response::Done {
                id: id + 1000,
                stats: Stats::default(),
            }),
            ("refuse", _) => {
                return say(&Response::Failed {
                    id,
                    kind: FailKind::BadRequest,
                    message: "no".into(),
                });
            }
            ("die", _) => std::process::abort(),
            ("hang", _) => thread::sleep(Duration::from_secs(60)),
            ("noise", _) => {
                let _ = tx.lock().unwrap().write_all(&[0xff; 64]);
            }
            other => panic!("script: {other:?}"),
        }
    }
    say(&Response::Done {
        id,
        stats: Stats {
            compute_ms: threads,
            ..Stats::default()
        },
    });
}

// ---- the bench ----

fn spec(setup: &str) -> WorkerSpec {
    WorkerSpec {
        program: std::env::current_exe().unwrap(),
        args: ["fake_worker", "--exact", "--nocapture", "--test-threads=1"]
            .map(String::from)
            .to_vec(),
        env: vec![("FAKE_WORKER".into(), setup.into())],
        memory_limit_mb: Some(512),
        ready_timeout: Duration::from_secs(10),
    }
}

fn config() -> EngineConfig {
    EngineConfig {
        stt: spec("stt"),
        llm: spec("llm"),
        tts: spec("tts"),
        cores: 2,
    }
}

async fn started(config: EngineConfig) -> Engines {
    let engines = Engines::start(config).unwrap();
    engines.ready(Duration::from_secs(10)).await.unwrap();
    engines
}

fn stt(call: u64, script: &str) -> TranscribeRequest {
    TranscribeRequest {
        call,
        turn: 1,
        deadline: Duration::from_secs(20),
        language: None,
        hint: script.into(),
        pcm: vec![0; 320],
        priority: Priority::Live,
    }
}

fn llm(call: u64, script: &str) -> GenerateRequest {
    GenerateRequest {
        call,
        turn: 1,
        deadline: Duration::from_secs(20),
        messages: vec![user(script)],
        max_tokens: 10,
        temperature: 0.0,
        seed: 0,
        stop: vec![],
        grammar: None,
        score_ending: false,
        priority: Priority::Live,
    }
}

fn tts(call: u64, script: &str, priority: Priority) -> SpeakRequest {
    SpeakRequest {
        call,
        turn: 1,
        deadline: Duration::from_secs(20),
        text: script.into(),
        speed: 1.0,
        priority,
    }
}

fn user(text: &str) -> ChatMessage {
    ChatMessage {
        role: Role::User,
        content: text.into(),
    }
}

async fn collect(engines: &Engines, request: GenerateRequest) -> Result<String, EngineError> {
    let mut generation = engines.generate(request);
    let mut text = String::new();
    while let Some(event) = generation.next().await {
        match event? {
            LlmEvent::Token(piece) => text.push_str(&piece),
            LlmEvent::Ending(_) => {}
            LlmEvent::Done(_) => assert!(generation.next().await.is_none(), "nothing after Done"),
        }
    }
    Ok(text)
}

fn kill(pid: u32) {
    let pid = pid.to_string();
    assert!(
        std::process::Command::new("kill")
            .args(["-9", &pid])
            .status()
            .unwrap()
            .success()
    );
}

fn is_frozen(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit(')').next().unwrap().trim_start().starts_with('T')
}

fn pid(engines: &Engines, engine: Engine) -> u32 {
    engines.status()[engine.index()].pid.unwrap()
}

async fn after(engines: &Engines, engine: Engine, generation: u64) {
    let mut status = engines.subscribe();
    let back = status.wait_for(|s| {
        s[engine.index()].generation >= generation && s[engine.index()].state == EngineState::Ready
    });
    tokio::time::timeout(Duration::from_secs(15), back)
        .await
        .expect("back in time")
        .unwrap();
}

// ---- the tests ----

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_answered_by_each_engine() {
    let engines = started(config()).await;
    let said = engines.transcribe(stt(1, "work:20 text")).await.unwrap();
    assert_eq!((said.text.as_str(), said.passes), ("threads 2", 1));
    assert_eq!(
        collect(&engines, llm(1, "token:a work:20 token:b"))
            .await
            .unwrap(),
        "ab"
    );
    let speech = engines
        .speak(tts(1, "audio audio", Priority::Live))
        .await
        .unwrap();
    assert_eq!(speech.pcm.len(), 4);
    let refused = engines.speak(tts(1, "refuse", Priority::Live)).await;
    assert!(matches!(refused, Err(EngineError::BadRequest(_))));
    let status = engines.status();
    assert!(
        status
            .iter()
            .all(|s| s.state == EngineState::Ready && s.generation == 1 && s.restarts == 0)
    );
    assert_eq!(status[1].model, "fake, llm");
    engines.shutdown().await;
    assert!(
        engines
            .status()
            .iter()
            .all(|s| s.state == EngineState::Stopped && s.pid.is_none())
    );
    assert!(matches!(
        engines.transcribe(stt(1, "text")).await,
        Err(EngineError::Down { .. })
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_in_mid_request_fails_it_at_once_and_the_worker_comes_back() {
    let engines = started(config()).await;
    let mut generation = engines.generate(llm(1, "token:a work:5000"));
    assert_eq!(
        generation.next().await.unwrap().unwrap(),
        LlmEvent::Token("a".into())
    );
    let killed = Instant::now();
    kill(pid(&engines, Engine::Llm));
    let end = generation.next().await.unwrap();
    assert!(
        matches!(
            end,
            Err(EngineError::Down {
                engine: Engine::Llm,
                ..
            })
        ),
        "{end:?}"
    );
    assert!(
        killed.elapsed() < Duration::from_secs(1),
        "at once: {:?}",
        killed.elapsed()
    );
    assert!(generation.next().await.is_none());
    after(&engines, Engine::Llm, 2).await;
    assert_eq!(collect(&engines, llm(1, "token:b")).await.unwrap(), "b");
    let llm = &engines.status()[Engine::Llm.index()];
    assert!(llm.last_error.as_deref().unwrap().contains("signal 9"), "{llm:?}");
    engines.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_have_a_floor() {
    let engines = started(config()).await;
    let begin = Instant::now();
    for generation in 1..=3 {
        assert!(engines.transcribe(stt(1, "die")).await.is_err());
        after(&engines, Engine::Stt, generation + 1).await;
    }
    // At once, then 0.5 s, then 1 s.
    assert!(
        begin.elapsed() >= Duration::from_millis(1500),
        "{:?}",
        begin.elapsed()
    );
    assert_eq!(engines.status()[0].restarts, 3);
    assert_eq!(engines.status()[1].restarts, 0, "the others are left alone");
    engines.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replies_to_nobody_are_dropped_and_counted() {
    let engines = started(config()).await;
    let said = engines.transcribe(stt(1, "stale text")).await.unwrap();
    assert_eq!(said.text, "threads 2");
    let mut status = engines.subscribe();
    let counted = status.wait_for(|s| s[0].stale_replies == 1);
    tokio::time::timeout(Duration::from_secs(5), counted)
        .await
        .expect("counted")
        .unwrap();
    engines.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_cancels_and_gives_the_cores_back() {
    let engines = started(config()).await;
    let slow = engines.transcribe(stt(1, "work:10000 text"));
    assert!(
        tokio::time::timeout(Duration::from_millis(300), slow)
            .await
            .is_err()
    );
    let begin = Instant::now();
    engines.transcribe(stt(2, "text")).await.unwrap();
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    drop(engines.generate(llm(1, "work:10000")));
    engines.transcribe(stt(2, "text")).await.unwrap();
    assert_eq!(
        engines.status()[0].restarts + engines.status()[1].restarts,
        0,
        "cancel was enough"
    );
    engines.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_ignores_cancel_is_killed_when_others_wait() {
    let engines = started(config()).await;
    let stuck = engines.transcribe(stt(1, "hang"));
    assert!(
        tokio::time::timeout(Duration::from_millis(100), stuck)
            .await
            .is_err()
    );
    let next = engines.transcribe(stt(2, "text")).await;
    assert!(matches!(next, Err(EngineError::Down { .. })), "{next:?}");
    after(&engines, Engine::Stt, 2).await;
    engines.transcribe(stt(2, "text")).await.unwrap();
    engines.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_does_not_answer_pings_is_killed() {
    let mut config = config();
    config.tts.env.push(("FAKE_DEAF".into(), "1".into()));
    let engines = started(config).await;
    let deaf = engines.speak(tts(1, "work:60000", Priority::Live)).await;
    let Err(EngineError::Down { reason, .. }) = deaf else {
        panic!("{deaf:?}")
    };
    assert_eq!(reason, "does not answer");
    engines.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_starts_are_explained_and_not_hammered() {
    let mut config = config();
    config.stt = spec("bad_model");
    config.tts = WorkerSpec {
        ready_timeout: Duration::from_millis(300),
        ..spec("never_ready")
    };
    let engines = Engines::start(config.clone()).unwrap();
    let ready = engines.ready(Duration::from_secs(2)).await;
    let Err(EngineError::Down {
        engine: Engine::Stt,
        reason,
    }) = ready
    else {
        panic!("{ready:?}")
    };
    assert_eq!(reason, "model.gguf: not a model file");
    let status = engines.status();
    assert_eq!((status[0].state, status[0].restarts), (EngineState::Backoff, 0));
    assert!(
        status[2]
            .last_error
            .as_deref()
            .unwrap()
            .contains("not ready within"),
        "{:?}",
        status[2]
    );
    engines.shutdown().await;

    config.llm.program = PathBuf::from("/nonexistent/attendant-llm");
    assert!(matches!(
        Engines::start(config),
        Err(EngineError::Start {
            engine: Engine::Llm,
            ..
        })
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_above_its_memory_limit_is_restarted() {
    let mut config = config();
    config.tts.memory_limit_mb = Some(0);
    let engines = Engines::start(config).unwrap();
    let mut status = engines.subscribe();
    let killed = status.wait_for(|s| {
        s[2].last_error
            .as_deref()
            .is_some_and(|e| e.contains("its limit of 0 MB"))
    });
    tokio::time::timeout(Duration::from_secs(10), killed)
        .await
        .expect("in time")
        .unwrap();
    engines.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nonsense_on_the_socket_is_a_crash_not_a_panic() {
    let engines = started(config()).await;
    let end = engines.transcribe(stt(1, "noise work:5000")).await;
    assert!(matches!(end, Err(EngineError::Down { .. })), "{end:?}");
    after(&engines, Engine::Stt, 2).await;
    engines.shutdown().await;
}

/// Whoever is told that a worker died may at once wait for the next one, and is not sent back to the dead one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_after_a_crash_gets_the_next_worker() {
    let engines = started(config()).await;
    let killed = pid(&engines, Engine::Stt);
    let busy = engines.transcribe(stt(1, "work:5000"));
    let (end, ()) = tokio::join!(busy, async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        kill(killed);
    });
    assert!(matches!(end, Err(EngineError::Down { .. })), "{end:?}");
    assert_ne!(
        engines.status()[0].state,
        EngineState::Ready,
        "told after it is known"
    );
    engines
        .ready_one(Engine::Stt, Duration::from_secs(5))
        .await
        .unwrap();
    engines.transcribe(stt(1, "text")).await.unwrap();
    engines.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_prefix_is_in_force_again_before_a_new_llm_is_ready() {
    let engines = started(config()).await;
    engines.set_prefix(vec![user("hello")]).await.unwrap();
    assert_eq!(collect(&engines, llm(1, "prefix")).await.unwrap(), "hello");
    kill(pid(&engines, Engine::Llm));
    after(&engines, Engine::Llm, 2).await;
    assert_eq!(collect(&engines, llm(1, "prefix")).await.unwrap(), "hello");
    // Set while the worker is down: taken over by the next one.
    kill(pid(&engines, Engine::Llm));
    let mut status = engines.subscribe();
    status
        .wait_for(|s| s[1].state != EngineState::Ready)
        .await
        .unwrap();
    assert!(matches!(
        engines.set_prefix(vec![user("new")]).await,
        Err(EngineError::Down { .. })
    ));
    after(&engines, Engine::Llm, 3).await;
    assert_eq!(collect(&engines, llm(1, "prefix")).await.unwrap(), "new");
    engines.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_llm_is_frozen_while_a_caller_waits_for_a_transcript() {
    let engines = started(config()).await;
    let mut generation = engines.generate(llm(1, "work:600 token:a"));
    tokio::time::sleep(Duration::from_millis(100)).await;
    let (pid, running) = (pid(&engines, Engine::Llm), engines.clone());
    let task = tokio::spawn(async move { running.transcribe(stt(2, "work:400 text")).await });
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert!(is_frozen(pid));
    assert_eq!(task.await.unwrap().unwrap().text, "threads 2");
    assert_eq!(
        generation.next().await.unwrap().unwrap(),
        LlmEvent::Token("a".into())
    );
    assert!(!is_frozen(pid));
    // A clause behind the playing one: one thread beside the LLM.
    let mut generation = engines.generate(llm(1, "work:300 token:a"));
    let speech = engines
        .speak(tts(1, "work:50 audio", Priority::Background))
        .await
        .unwrap();
    assert_eq!(speech.stats.compute_ms, 1, "threads");
    assert!(!is_frozen(pid));
    while generation.next().await.is_some() {}
    engines.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deadlines_hold_in_the_queue_and_in_the_worker() {
    let engines = started(config()).await;
    let running = engines.clone();
    let first = tokio::spawn(async move { running.transcribe(stt(1, "work:600 text")).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    let queued = TranscribeRequest {
        deadline: Duration::from_millis(200),
        ..stt(2, "text")
    };
    assert!(matches!(
        engines.transcribe(queued).await,
        Err(EngineError::Deadline)
    ));
    first.await.unwrap().unwrap();
    let slow = TranscribeRequest {
        deadline: Duration::from_millis(200),
        ..stt(2, "work:5000 text")
    };
    assert!(matches!(
        engines.transcribe(slow).await,
        Err(EngineError::Deadline)
    ));
    engines.transcribe(stt(2, "text")).await.unwrap();
    engines.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_engines_leave_no_process() {
    let engines = started(config()).await;
    let pids = Engine::ALL.map(|e| pid(&engines, e));
    drop(engines);
    let until = Instant::now() + Duration::from_secs(5);
    while pids.iter().any(|p| PathBuf::from(format!("/proc/{p}")).exists()) {
        assert!(Instant::now() < until, "a worker outlived its owner");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
