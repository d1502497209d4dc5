//! What the worker refuses, when it leaves, and how fast it is.

use super::*;

#[test]
fn limits_are_refused_with_a_reason() {
    let mut worker = Worker::start(1, 1, 512);
    let long = worker.ask(|id| generate(id, 1, vec![say(Role::User, &long_text(600))], 20));
    let Response::Failed {
        kind: FailKind::BadRequest,
        message,
        ..
    } = &long.end
    else {
        panic!("{long:?}")
    };
    assert!(message.contains("exceed the context of 512"), "{message}");

    let none = worker.ask(|id| generate(id, 1, vec![say(Role::User, "Hi")], 0));
    assert!(
        matches!(
            none.end,
            Response::Failed {
                kind: FailKind::BadRequest,
                ..
            }
        ),
        "{none:?}"
    );

    // One sequence, two calls at once: busy, until the first one is idle.
    let first = worker.send(question(1, "Count to twenty.", 30));
    let second = worker.ask(question(2, "Hi", 5));
    assert!(
        matches!(
            second.end,
            Response::Failed {
                kind: FailKind::Busy,
                ..
            }
        ),
        "{second:?}"
    );
    worker.finish(&[first]);
    assert_eq!(worker.ask(question(2, "Hi", 5)).stats().cached_tokens, 0);
    let mut tight = Worker::ask(&mut worker, |id| {
        generate(id, 3, vec![say(Role::User, &long_text(100))], 5)
    })
    .stats();
    tight.truncated = true;
    assert!(tight.prompt_tokens > 100);
}

#[test]
fn the_worker_leaves_with_its_daemon() {
    let mut worker = Worker::with_prefix(1);
    worker.send(|id| generate(id, 1, vec![say(Role::User, &long_text(500))], 20));
    std::thread::sleep(Duration::from_millis(100));
    worker.socket.shutdown(std::net::Shutdown::Both).unwrap();
    let asked = Instant::now();
    let status = worker.child.wait().unwrap();
    assert!(status.success(), "{status:?}");
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
}

/// Not a test of truth but of speed; run alone on a quiet machine: `cargo test --release -p attendant-llm -- --ignored --nocapture`.
#[test]
#[ignore = "prints speed; wants a quiet machine"]
fn speed() {
    for threads in [2, 1] {
        let mut worker = Worker::with_prefix(threads);
        for (call, ask) in [
            "When do you close on Saturday?",
            "How do I order a cake for my daughter's birthday?",
        ]
        .iter()
        .enumerate()
        {
            let stats = worker.ask(question(call as u64, ask, 60)).stats();
            println!("{threads} threads: {:.1} tok/s, {stats:?}", rate(&[stats]));
        }
        let prompt = worker
            .ask(|id| generate(id, 5, vec![say(Role::User, &long_text(200))], 1))
            .stats();
        let per_s = f64::from(prompt.prompt_tokens) * 1000.0 / f64::from(prompt.first_token_ms);
        println!("{threads} threads: prompt {per_s:.0} tok/s, {prompt:?}");
    }
}
