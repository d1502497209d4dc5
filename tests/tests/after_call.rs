//! The work after a call, by the real daemon with real models: done once, also over `kill -9`, and never beside a call.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use attendant::child::Daemon;
use attendant_store::{AfterCall, AuditSeq, JobKind, SessionId, Source, Store};
use attendant_tests::{House, program};

const RECORDED: &str = "\n[recording]\nenabled = true\nannounce = ''\n";
/// A call's work: two transcripts, a scan of the recording, one summary on 2 cores.
const WORK: Duration = Duration::from_secs(180);

fn after(dir: &Path, session: SessionId) -> anyhow::Result<AfterCall> {
    Ok(Store::open_read_only(dir)?.session(session)?.after)
}

fn state_of(after: &AfterCall, kind: JobKind) -> &str {
    let job = after.jobs.iter().find(|job| job.kind == kind);
    job.map_or("none", |job| job.state.as_str())
}

/// Waits until it holds.
fn wait(dir: &Path, session: SessionId, what: &str, holds: impl Fn(&AfterCall) -> bool) -> AfterCall {
    let until = Instant::now() + WORK;
    loop {
        let found = after(dir, session).expect("record");
        if holds(&found) {
            return found;
        }
        assert!(Instant::now() < until, "waited for {what}: {:?}", found.jobs);
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn is_over(after: &AfterCall) -> bool {
    let over = |state: &str| matches!(state, "done" | "skipped" | "failed");
    after.jobs.len() == JobKind::ALL.len() && after.jobs.iter().all(|job| over(&job.state))
}

/// Entries of a kind in the chain.
fn entries(store: &Store, kind: &str) -> usize {
    let all = store.audit_entries(AuditSeq::new(0), 10_000).expect("entries");
    all.iter().filter(|entry| entry.kind == kind).count()
}

#[test]
fn a_call_is_transcribed_and_summarised_once_over_a_kill() {
    let house = House::start(RECORDED).unwrap();
    house
        .call(&[
            "--say",
            "What are your opening hours?",
            "And how much is an oil change?",
        ])
        .unwrap();
    let record = house.last_session().unwrap();
    let (dir, id) = (house.data_dir(), record.session.id);
    let live: Vec<String> = record.turns.iter().map(|turn| turn.caller_text.clone()).collect();
    assert!(live.len() >= 2, "{} turns", live.len());

    // In the middle of the summary.
    let before = wait(dir, id, "the summary to begin", |after| {
        state_of(after, JobKind::Summary) == "running"
    });
    assert_eq!(
        state_of(&before, JobKind::Transcript),
        "done",
        "{:?}",
        before.jobs
    );
    house.kill_daemon();
    let store = Store::open_read_only(dir).unwrap();
    assert_eq!(state_of(&after(dir, id).unwrap(), JobKind::Summary), "running");
    drop(store);

    let again = Daemon::start_program(&program("attendant"), &dir.join("attendant.toml")).unwrap();
    let done = wait(dir, id, "the work to end", is_over);
    for kind in JobKind::ALL {
        assert_eq!(state_of(&done, kind), "done", "{:?}", done.jobs);
    }
    // The transcript was made before the kill, and not again.
    assert_eq!(done.transcript, before.transcript);
    let finals: Vec<&str> = done.transcript.iter().map(|text| text.text.as_str()).collect();
    assert!(
        !finals.is_empty()
            && done
                .transcript
                .iter()
                .all(|text| text.source == Source::Recording)
    );
    assert!(
        finals.join(" ").to_lowercase().contains("hours"),
        "what was said is in the recording: {finals:?}"
    );
    let summary = done.summary.as_ref().expect("summary");
    assert!(summary.text.len() > 20 && summary.model.is_some());
    let quality = done.quality.expect("figures");
    assert_eq!(quality.turns as usize, live.len());
    assert!(
        quality.words_compared >= 4 && quality.response_p50_ms.is_some(),
        "{quality:?}"
    );

    let store = Store::open_read_only(dir).unwrap();
    let now: Vec<String> = store
        .session(id)
        .unwrap()
        .turns
        .into_iter()
        .map(|turn| turn.caller_text)
        .collect();
    assert_eq!(now, live, "the live transcript is as it was");
    assert_eq!(entries(&store, "summary"), 1);
    assert_eq!(entries(&store, "transcript"), done.transcript.len());
    let seen = store.verify(None).unwrap();
    assert!(seen.is_sound(), "{:?}", seen.findings);
    println!(
        "live {live:?}\nfinal {finals:?}\n{}: {} {:?}",
        summary.outcome, summary.text, summary.follow_ups
    );
    drop(again);
}

#[test]
fn a_call_takes_the_engines_from_the_work_after_another() {
    let house = House::start(RECORDED).unwrap();
    house.call(&["--say", "What are your opening hours?"]).unwrap();
    let id = house.last_session().unwrap().session.id;
    let dir = house.data_dir();
    wait(dir, id, "the summary to begin", |after| {
        state_of(after, JobKind::Summary) == "running"
    });
    let mut gave_way = Duration::MAX;
    let report = house
        .call_while(&["--say", "Do you work on Saturday?"], || {
            let store = Store::open_read_only(dir)?;
            let until = Instant::now() + Duration::from_secs(20);
            while store.list_sessions(1, None)?[0].session.id == id {
                anyhow::ensure!(Instant::now() < until, "no second call");
                std::thread::sleep(Duration::from_millis(5));
            }
            let began = Instant::now();
            while state_of(&store.session(id)?.after, JobKind::Summary) == "running" {
                anyhow::ensure!(Instant::now() < until, "the work went on beside the call");
                std::thread::sleep(Duration::from_millis(5));
            }
            gave_way = began.elapsed();
            // And stays away while the call lasts.
            let second = store.list_sessions(1, None)?[0].session.id;
            while !store.session(second)?.session.state.is_terminal() {
                let running = store.job_figures()?.running;
                let over = store.session(second)?.session.state.is_terminal();
                anyhow::ensure!(running == 0 || over, "a job runs beside a call");
                std::thread::sleep(Duration::from_millis(20));
            }
            Ok(())
        })
        .unwrap();
    println!("the work gave way after {} ms", gave_way.as_millis());
    assert!(gave_way <= Duration::from_millis(200), "{gave_way:?}: {report}");
    let done = wait(dir, id, "the work to end", is_over);
    let job = done
        .jobs
        .iter()
        .find(|job| job.kind == JobKind::Summary)
        .expect("job");
    assert_eq!(
        (job.state.as_str(), job.attempts),
        ("done", 1),
        "giving way is no try"
    );
}
