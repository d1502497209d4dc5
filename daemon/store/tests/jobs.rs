//! The work after a call: done once whoever takes it, whatever stops in between; what comes of it is sealed.

use std::{
    collections::BTreeSet,
    fs,
    sync::{Barrier, Mutex},
    thread,
};

use attendant_store::{
    FinalText, Job, JobEnd, JobKind, Outcome, Quality, RecordingSeal, RedactedTurn, Replacement, SessionId,
    Side, Source, Store, StoreError, Summary,
};

mod common;
use common::*;

const LEASE: i64 = 60_000;

/// A call with one turn that has ended.
fn ended(store: &Store, said: &str) -> SessionId {
    let key = answered(store);
    store.append_turn(key.id, &turn(said, Some(700))).expect("turn");
    store
        .finish_session(key.id, Outcome::Completed, "goodbye", NOW + 60_000)
        .expect("end");
    key.id
}

fn queue(store: &Store) -> u32 {
    store.queue_jobs(&JobKind::ALL, 1_000, NOW).expect("queue")
}

fn lease(store: &Store, now: i64) -> Option<Job> {
    store.lease_job(LEASE, now).expect("lease")
}

fn texts(said: &str) -> Vec<FinalText> {
    vec![FinalText {
        number: 1,
        source: Source::Recording,
        text: said.into(),
        sure: 930,
        masked: 0,
    }]
}

fn summary() -> Summary {
    Summary {
        made_at_ms: NOW,
        model: Some("qwen".into()),
        outcome: "answered".into(),
        text: "The caller asked for the opening hours.".into(),
        follow_ups: vec!["Call back on Monday.".into()],
    }
}

/// Does whatever the job wants.
fn work(store: &Store, job: &Job, now: i64) -> Result<(), StoreError> {
    match job.kind {
        JobKind::Transcript => store.complete_transcript(job, &texts("When do you open?"), now),
        JobKind::Redaction => store.complete_redaction(job, &[], &[], now),
        JobKind::Summary => store.complete_summary(job, &summary(), now),
        JobKind::Quality => store.complete_quality(job, &Quality::default(), now),
    }
}

fn sound(store: &Store) {
    let seen = store.verify(None).expect("verify");
    assert!(seen.is_sound(), "{:?}", seen.findings);
}

fn first(store: &Store) -> String {
    let findings = store.verify(None).expect("verify").findings;
    findings.first().map_or("sound".into(), ToString::to_string)
}

#[test]
fn a_call_has_each_job_once_and_they_come_in_order() {
    let dir = directory();
    let store = open(dir.path());
    let call = ended(&store, "when do you open");
    let running = answered(&store).id;
    assert_eq!((queue(&store), queue(&store)), (1, 0));
    assert_eq!(store.jobs(call).expect("jobs").len(), 4);
    assert!(store.jobs(running).expect("jobs").is_empty());
    // A later step waits for the earlier one, also while that one is under way or has to be tried again.
    let job = lease(&store, NOW).expect("first");
    assert_eq!(
        (job.kind, job.attempt, job.session),
        (JobKind::Transcript, 1, call)
    );
    assert_eq!(lease(&store, NOW), None);
    store
        .end_job(&job, &JobEnd::Retry(NOW + 500, "deadline passed"), NOW)
        .expect("retry");
    assert_eq!(lease(&store, NOW + 499), None);
    for kind in JobKind::ALL {
        let job = lease(&store, NOW + 500).expect("due");
        assert_eq!(job.kind, kind);
        work(&store, &job, NOW + 600).expect("done");
        // Whoever does it again is told.
        assert!(matches!(
            work(&store, &job, NOW + 700),
            Err(StoreError::NotLeased { .. })
        ));
    }
    assert_eq!(lease(&store, i64::MAX / 2), None);
    let after = store.session(call).expect("record").after;
    let made = Summary {
        made_at_ms: NOW + 600,
        ..summary()
    };
    assert_eq!(
        (after.transcript, after.summary),
        (texts("When do you open?"), Some(made))
    );
    assert_eq!(after.quality, Some(Quality::default()));
    assert!(
        after.jobs.iter().all(|job| job.state == "done"),
        "{:?}",
        after.jobs
    );
    assert_eq!(after.jobs[0].attempts, 2);
    assert_eq!(
        store.session(call).expect("record").turns[0].caller_text,
        "when do you open",
        "the live transcript stays"
    );
    // The call that ran then has ended now.
    store
        .finish_session(running, Outcome::Completed, "goodbye", NOW)
        .expect("end");
    assert_eq!(queue(&store), 1);
    assert!(store.verify(None).expect("verify").is_sound());
}

#[test]
fn many_workers_at_once_do_each_job_once() {
    let dir = directory();
    let store = open(dir.path());
    for _ in 0..10 {
        ended(&store, "hello");
    }
    let other = Store::join(dir.path()).expect("join");
    let (barrier, done) = (Barrier::new(8), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for n in 0..8 {
            let store = if n % 2 == 0 { &store } else { &other };
            let (barrier, done) = (&barrier, &done);
            scope.spawn(move || {
                barrier.wait();
                queue(store);
                let mut idle = 0;
                while idle < 50 {
                    let Some(job) = lease(store, NOW) else {
                        idle += 1;
                        thread::yield_now();
                        continue;
                    };
                    work(store, &job, NOW).expect("leased to one");
                    done.lock().expect("lock").push((job.session, job.kind));
                }
            });
        }
    });
    let done = done.into_inner().expect("lock");
    let once: BTreeSet<_> = done.iter().copied().collect();
    assert_eq!((done.len(), once.len()), (40, 40));
    let figures = store.job_figures().expect("figures");
    assert_eq!((figures.waiting, figures.running, figures.failed), (0, 0, 0));
    sound(&store);
}

#[test]
fn a_stop_in_the_middle_leaves_no_half_and_no_double() {
    let dir = directory();
    let store = open(dir.path());
    let call = ended(&store, "hello");
    queue(&store);
    let lost = lease(&store, NOW).expect("job");
    // The daemon is killed: nothing of it is stored.
    drop(store);
    let store = open(dir.path());
    store.recover(NOW).expect("recover");
    assert_eq!(store.release_jobs().expect("release"), 1);
    let job = lease(&store, NOW).expect("again");
    assert_eq!((job.id, job.attempt), (lost.id, 2));
    // What the first worker still had in hand comes too late.
    assert!(matches!(
        work(&store, &lost, NOW),
        Err(StoreError::NotLeased { .. })
    ));
    assert!(matches!(
        store.end_job(&lost, &JobEnd::Failed("late"), NOW),
        Err(StoreError::NotLeased { .. })
    ));
    work(&store, &job, NOW).expect("done");
    assert_eq!(store.session(call).expect("record").after.transcript.len(), 1);

    // A worker that is not heard of loses its job when its lease is over.
    let slow = lease(&store, NOW).expect("redaction");
    assert_eq!(lease(&store, NOW + LEASE - 1), None);
    let taken = lease(&store, NOW + LEASE).expect("taken over");
    assert_eq!((taken.id, taken.attempt), (slow.id, 2));
    assert!(matches!(
        work(&store, &slow, NOW),
        Err(StoreError::NotLeased { .. })
    ));
    work(&store, &taken, NOW + LEASE).expect("done");
    // Given back to a live call: no try was used up.
    let back = lease(&store, NOW).expect("summary");
    store.end_job(&back, &JobEnd::Back(NOW + 5), NOW).expect("back");
    assert_eq!(lease(&store, NOW + 4), None);
    assert_eq!(lease(&store, NOW + 5).expect("summary").attempt, 1);
    sound(&store);
}

#[test]
fn what_cannot_be_done_is_told_and_the_rest_goes_on() {
    let dir = directory();
    let store = open(dir.path());
    let call = ended(&store, "hello");
    queue(&store);
    let job = lease(&store, NOW).expect("transcript");
    store
        .end_job(&job, &JobEnd::Failed("the recording is damaged"), NOW)
        .expect("failed");
    let job = lease(&store, NOW).expect("redaction");
    store
        .end_job(&job, &JobEnd::Skipped("nothing to hide"), NOW)
        .expect("skipped");
    let told: Vec<(String, Option<String>)> = store
        .jobs(call)
        .expect("jobs")
        .into_iter()
        .map(|job| (job.state, job.why))
        .take(2)
        .collect();
    let why = |state: &str, why: &str| (state.to_owned(), Some(why.to_owned()));
    assert_eq!(
        told,
        [
            why("failed", "the recording is damaged"),
            why("skipped", "nothing to hide")
        ]
    );
    assert_eq!(lease(&store, NOW).expect("goes on").kind, JobKind::Summary);
    assert_eq!(store.job_figures().expect("figures").failed, 1);
    for (sql, why) in [
        (
            "UPDATE job SET state = 'waiting', ended_at_ms = NULL WHERE state = 'failed'",
            "done once",
        ),
        ("DELETE FROM job", "are kept"),
        (
            "INSERT INTO job (session_id, kind, step, created_at_ms, next_at_ms) VALUES (1, 'transcript', 1, 0, 0)",
            "UNIQUE",
        ),
    ] {
        let error = sqlite(dir.path()).execute(sql, []).expect_err(sql).to_string();
        assert!(error.contains(why), "{sql}: {error}");
    }
}

#[test]
fn the_queue_is_bounded_and_loses_nobody() {
    let dir = directory();
    let store = open(dir.path());
    for _ in 0..7 {
        ended(&store, "hello");
    }
    let kinds = [JobKind::Summary, JobKind::Quality];
    let more = |store: &Store| store.queue_jobs(&kinds, 6, NOW).expect("queue");
    assert_eq!((more(&store), more(&store)), (3, 0));
    let mut done = 0;
    while let Some(job) = lease(&store, NOW) {
        work(&store, &job, NOW).expect("done");
        done += 1;
        more(&store);
    }
    assert_eq!(done, 14, "all seven calls got both");
}

#[test]
fn calls_from_before_have_no_jobs() {
    let dir = directory();
    let old = rusqlite::Connection::open(dir.path().join("attendant.db")).expect("open");
    old.execute_batch(include_str!("../../../migrations/0001_sessions.sql"))
        .expect("schema");
    old.execute_batch(
        "PRAGMA application_id = 0x41545444; PRAGMA user_version = 1;
         INSERT INTO session (uuid, line, direction, profile, created_at_ms)
         VALUES ('123456789012345678901234567890123456', 'office', 'inbound', 'small', 5);
         UPDATE session SET state = 'ready', version = 2;
         UPDATE session SET state = 'in_progress', version = 3, started_at_ms = 6;
         UPDATE session SET state = 'completed', version = 4, ended_at_ms = 7",
    )
    .expect("old call");
    drop(old);
    let store = open(dir.path());
    assert_eq!(queue(&store), 0);
    ended(&store, "hello");
    assert_eq!(queue(&store), 1);
}

#[test]
fn what_was_made_afterwards_is_sealed() {
    let dir = directory();
    let store = open(dir.path());
    let call = ended(&store, "hello");
    queue(&store);
    while let Some(job) = lease(&store, NOW) {
        work(&store, &job, NOW).expect("done");
    }
    sound(&store);
    let db = sqlite(dir.path());
    for (table, trigger, column) in [
        ("transcript", "transcript_final", "text"),
        ("summary", "summary_final", "follow_ups"),
    ] {
        let sql = format!("UPDATE {table} SET {column} = '[\"other\"]'");
        let error = db.execute(&sql, []).expect_err("final").to_string();
        assert!(error.contains("final"), "{error}");
        let error = db
            .execute(&format!("DELETE FROM {table}"), [])
            .expect_err("kept")
            .to_string();
        assert!(error.contains("kept"), "{error}");
        let kept: String = db
            .query_row(&format!("SELECT {column} FROM {table}"), [], |row| row.get(0))
            .expect("row");
        let trigger_sql: String = db
            .query_row(
                "SELECT sql FROM sqlite_schema WHERE name = ?1",
                [trigger],
                |row| row.get(0),
            )
            .expect("trigger");
        db.execute_batch(&format!("DROP TRIGGER {trigger}; {sql}"))
            .expect("by force");
        let found = first(&store);
        assert!(found.contains("of session 1 was altered"), "{table}: {found}");
        db.execute(&format!("UPDATE {table} SET {column} = ?1"), [kept])
            .expect("back");
        db.execute_batch(&trigger_sql).expect("back");
        sound(&store);
    }
    let other = answered(&store).id;
    db.execute(
        "INSERT INTO summary SELECT 2, made_at_ms, model, outcome, text, follow_ups, salt FROM summary",
        [],
    )
    .expect("forged");
    assert!(
        first(&store).contains("a summary of session 2 was added"),
        "{}",
        first(&store)
    );
    db.execute_batch("DROP TRIGGER summary_no_delete; DELETE FROM summary WHERE session_id = 2")
        .expect("away");
    assert_eq!((call.get(), other.get()), (1, 2));
}

/// A call with a sealed recording.
fn recorded(store: &Store, said: &str) -> (SessionId, i64, String) {
    let key = answered(store);
    let begun = store
        .begin_recording(key.id, Some(NOW + 1_000_000), NOW)
        .expect("begin");
    fs::write(&begun.path, b"a card number").expect("file");
    store.append_turn(key.id, &turn(said, None)).expect("turn");
    store
        .seal_recording(begun.id, &seal_of(b"a card number"), NOW)
        .expect("seal");
    store
        .finish_session(key.id, Outcome::Completed, "goodbye", NOW)
        .expect("end");
    (key.id, begun.id, begun.uuid)
}

fn seal_of(octets: &[u8]) -> RecordingSeal {
    RecordingSeal {
        sha256: ring::digest::digest(&ring::digest::SHA256, octets)
            .as_ref()
            .try_into()
            .expect("32"),
        octets: octets.len() as u64,
        samples: 16_000,
        missing: 0,
        whole: true,
    }
}

fn hidden() -> RedactedTurn {
    RedactedTurn {
        number: 1,
        caller_text: "my xylophone **** **** **** ****".into(),
        reply_text: "At nine.".into(),
        heard_text: None,
    }
}

#[test]
fn a_redaction_replaces_text_and_recording_and_the_chain_verifies() {
    let dir = directory();
    let store = open(dir.path());
    let (call, old, old_uuid) = recorded(&store, "my xylophone 4111 1111 1111 1111");
    store.queue_jobs(&[JobKind::Redaction], 10, NOW).expect("queue");
    lease(&store, NOW).expect("job");
    let replacement = |uuid: &str| Replacement {
        replaces: old,
        uuid: uuid.to_owned(),
        muted: vec![(Side::Caller, 1_000, 4_000)],
        seal: seal_of(b"a silence"),
    };

    // Killed before the replacement is in the record: its file goes, all is as before.
    let (left, path) = store.begin_replacement().expect("begin");
    fs::write(&path, b"a silence").expect("file");
    drop(store);
    let store = open(dir.path());
    store.recover(NOW).expect("recover");
    store.release_jobs().expect("release");
    assert!(!path.exists() && store.recording(&left).expect("row").is_none());
    sound(&store);

    // A legal hold keeps it as it is.
    store.hold(call, Some("court"), NOW).expect("hold");
    let job = lease(&store, NOW).expect("again");
    let (uuid, path) = store.begin_replacement().expect("begin");
    fs::write(&path, b"a silence").expect("file");
    assert!(matches!(
        store.complete_redaction(&job, &[hidden()], &[replacement(&uuid)], NOW),
        Err(StoreError::Held { .. })
    ));
    store.drop_replacement(&uuid).expect("thrown away");
    assert!(!path.exists());
    store.hold(call, None, NOW).expect("release");

    let (uuid, path) = store.begin_replacement().expect("begin");
    fs::write(&path, b"a silence").expect("file");
    store
        .complete_redaction(&job, &[hidden()], &[replacement(&uuid)], NOW + 5)
        .expect("done");
    let (new, _) = store.recording(&uuid).expect("row").expect("there");
    assert_eq!(
        (new.state.as_str(), new.keep_until_ms),
        ("sealed", Some(NOW + 1_000_000))
    );
    let (gone, old_path) = store.recording(&old_uuid).expect("row").expect("row stays");
    assert_eq!(gone.state, "erased");
    assert!(path.exists() && !old_path.exists());
    let names: Vec<_> = fs::read_dir(dir.path().join("recordings"))
        .expect("dir")
        .collect();
    assert_eq!(names.len(), 1, "no mark is left: {names:?}");
    let record = store.session(call).expect("record");
    assert_eq!(record.turns[0].caller_text, hidden().caller_text);
    let found = |words: &str| {
        let filter = attendant_store::HistoryFilter {
            words: Some(words.into()),
            ..Default::default()
        };
        store.history(&filter, None, 10).expect("search").sessions.len()
    };
    assert_eq!((found("4111"), found("xylophone")), (0, 1));
    let seen = store.verify(None).expect("verify");
    assert!(
        seen.is_sound() && seen.recordings == 2 && seen.turns == 1,
        "{seen:?}"
    );
    let told: Vec<String> = store
        .audit_entries(attendant_store::AuditSeq::new(0), 100)
        .expect("entries")
        .into_iter()
        .filter(|entry| entry.kind == "redaction")
        .map(|entry| entry.payload)
        .collect();
    assert!(
        told[1].contains(&old_uuid) && told[1].contains("[[\"caller\",1000,4000]]"),
        "{told:?}"
    );

    // Not in a single octet of any file.
    drop(store);
    for entry in fs::read_dir(dir.path()).expect("dir") {
        let file = entry.expect("entry").path();
        if file.is_file() {
            let octets = fs::read(&file).expect("read");
            assert!(
                !octets.windows(9).any(|w| w == b"4111 1111"),
                "{}",
                file.display()
            );
        }
    }
    // What was hidden is sealed, too.
    let store = open(dir.path());
    let db = sqlite(dir.path());
    db.execute(
        "UPDATE turn SET caller_text = 'my xylophone 1111 1111 1111 1111'",
        [],
    )
    .expect("the trigger lets digits be hidden");
    assert!(
        first(&store).contains("turn 1 of session 1 was altered"),
        "{}",
        first(&store)
    );
    let error = db
        .execute("UPDATE turn SET caller_text = 'short'", [])
        .expect_err("length");
    assert!(error.to_string().contains("a turn is final"), "{error}");
}

#[test]
fn an_erased_call_has_nothing_left_to_do() {
    let dir = directory();
    let store = open(dir.path());
    let call = ended(&store, "hello");
    queue(&store);
    let job = lease(&store, NOW).expect("transcript");
    work(&store, &job, NOW).expect("done");
    let under_way = lease(&store, NOW).expect("redaction");
    assert_eq!(
        store.erase_caller("+15550100", NOW + 9).expect("erase").sessions,
        1
    );
    assert!(matches!(
        work(&store, &under_way, NOW + 10),
        Err(StoreError::NotLeased { .. })
    ));
    assert_eq!(lease(&store, NOW + LEASE), None);
    let after = store.session(call).expect("record").after;
    assert!(after.transcript.is_empty() && after.summary.is_none());
    assert!(
        after.jobs[1..].iter().all(|job| job.state == "skipped"),
        "{:?}",
        after.jobs
    );
    sound(&store);
}
