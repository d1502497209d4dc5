//! The record on a real file: life cycle, numbers under concurrency, kill -9, what outsiders may do to it.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use attendant_store::{
    DATABASE_FILE, EventKind, NewSession, NewTurn, Outcome, SessionId, SessionKey, Source, State, Store,
    StoreError,
};
use proptest::prelude::*;

mod common;
use common::*;

#[test]
fn a_call_from_ring_to_goodbye() {
    let dir = directory();
    let store = open(dir.path());
    let key = answered(&store);
    assert_eq!(key.uuid.len(), 36);
    let hash = "ab".repeat(32);
    let first = NewTurn {
        prompt_sha256: Some(hash.clone()),
        ..turn("When do you open?", Some(900))
    };
    let second = NewTurn {
        heard_text: Some("At".into()),
        interrupted: true,
        prompt_sha256: Some("nonsense".into()),
        ..turn("On Sunday?", None)
    };
    assert_eq!(store.append_turn(key.id, &first).expect("turn").get(), 1);
    store
        .record_event(key.id, EventKind::BargeIn, None, NOW + 600)
        .expect("event");
    assert_eq!(store.append_turn(key.id, &second).expect("turn").get(), 2);
    let version = store
        .finish_session(key.id, Outcome::Completed, "goodbye", NOW + 60_100)
        .expect("finish");
    assert_eq!(version, key.version + 1);

    let record = store.session(key.id).expect("record");
    assert_eq!(record.session.state, State::Completed);
    assert_eq!(record.session.caller.as_deref(), Some("+15550100"));
    assert_eq!(record.session.duration_ms(), Some(60_000));
    assert_eq!(record.session.turn_count, 2);
    assert_eq!(record.turns[0].prompt_sha256.as_deref(), Some(hash.as_str()));
    assert_eq!(record.turns[0].latencies.response_ms, Some(900));
    assert_eq!(record.turns[0].latencies.tts_first_ms, None);
    assert_eq!(record.turns[0].source, Source::Realtime);
    assert!(record.turns[1].interrupted);
    assert_eq!(record.turns[1].heard_text.as_deref(), Some("At"));
    assert_eq!(record.turns[1].prompt_sha256, None);
    assert_eq!(record.events[0].kind, "barge_in");
    assert_eq!(store.session_by_uuid(&key.uuid).expect("uuid"), Some(key.id));
    assert_eq!(store.session_by_uuid("nobody").expect("uuid"), None);
    let printed = format!("{record:?} {first:?} {store:?}");
    assert!(
        !printed.contains("555") && !printed.contains("open?"),
        "{printed}"
    );
    store.check_integrity().expect("sound");
}

#[test]
fn transitions_are_checked_and_compared() {
    let dir = directory();
    let store = open(dir.path());
    let key = store.create_session(&new_session()).expect("create");
    let go = |version, to| store.transition(key.id, version, to, Some("test"), NOW + 1);

    assert!(matches!(
        go(1, State::InProgress),
        Err(StoreError::Illegal {
            from: State::Created,
            ..
        })
    ));
    assert!(matches!(go(1, State::Created), Err(StoreError::Illegal { .. })));
    assert!(matches!(
        go(7, State::Ready),
        Err(StoreError::Conflict {
            expected: 7,
            found: 1,
            ..
        })
    ));
    assert!(matches!(
        store.transition(key.id, 1, State::Failed, None, NOW),
        Err(StoreError::NoReason { .. })
    ));
    assert!(matches!(
        store.finish_session(key.id, Outcome::Completed, "no", NOW),
        Err(StoreError::Illegal {
            to: State::Completed,
            ..
        })
    ));
    assert!(matches!(
        store.append_turn(key.id, &turn("early", None)),
        Err(StoreError::NotInProgress { .. })
    ));
    assert_eq!(go(1, State::Ready).expect("ready"), 2);
    assert!(
        matches!(go(1, State::InProgress), Err(StoreError::Conflict { .. })),
        "a stale copy"
    );
    assert_eq!(go(2, State::InProgress).expect("in progress"), 3);
    assert_eq!(go(3, State::Completed).expect("completed"), 4);
    for to in State::ALL {
        assert!(
            matches!(
                go(4, to),
                Err(StoreError::Final {
                    state: State::Completed,
                    ..
                })
            ),
            "{to}"
        );
    }
    assert!(matches!(
        store.append_turn(key.id, &turn("late", None)),
        Err(StoreError::NotInProgress { .. })
    ));
    assert!(matches!(
        store.finish_session(key.id, Outcome::Failed, "late", NOW),
        Err(StoreError::Final { .. })
    ));
    store
        .record_event(key.id, EventKind::MediaLost, None, NOW)
        .expect("events may be late");

    let nobody = SessionId::new(4_711);
    assert!(matches!(store.session(nobody), Err(StoreError::NotFound(_))));
    assert!(matches!(
        store.append_turn(nobody, &turn("x", None)),
        Err(StoreError::NotFound(_))
    ));
    assert!(matches!(
        store.record_event(nobody, EventKind::Hold, None, NOW),
        Err(StoreError::NotFound(_))
    ));
}

#[test]
fn one_of_many_racing_transitions_wins() {
    let dir = directory();
    let store = open(dir.path());
    let key = store.create_session(&new_session()).expect("create");
    let results: Vec<_> = thread::scope(|scope| {
        let racers: Vec<_> = (0..16)
            .map(|_| scope.spawn(|| store.transition(key.id, 1, State::Ready, None, NOW)))
            .collect();
        racers
            .into_iter()
            .map(|racer| racer.join().expect("thread"))
            .collect()
    });
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    for lost in results.iter().filter_map(|result| result.as_ref().err()) {
        assert!(
            matches!(
                lost,
                StoreError::Conflict {
                    expected: 1,
                    found: 2,
                    ..
                }
            ),
            "{lost}"
        );
    }
}

#[test]
fn sixteen_threads_number_their_turns_without_gap() {
    const THREADS: u32 = 16;
    const TURNS: u32 = 12;
    let dir = directory();
    let store = open(dir.path());
    let key = answered(&store);
    let numbers: Vec<u32> = thread::scope(|scope| {
        let writers: Vec<_> = (0..THREADS)
            .map(|writer| {
                let store = store.clone();
                scope.spawn(move || {
                    (0..TURNS)
                        .map(|n| {
                            let text = format!("writer {writer} turn {n}");
                            store
                                .append_turn(key.id, &turn(&text, Some(n)))
                                .expect("turn")
                                .get()
                        })
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        writers
            .into_iter()
            .flat_map(|writer| writer.join().expect("thread"))
            .collect()
    });
    let distinct: BTreeSet<u32> = numbers.iter().copied().collect();
    assert_eq!(distinct, (1..=THREADS * TURNS).collect());
    assert_eq!(numbers.len(), distinct.len());
    let record = store.session(key.id).expect("record");
    assert_eq!(record.session.turn_count, THREADS * TURNS);
    assert!(
        (1..)
            .zip(&record.turns)
            .all(|(want, turn)| turn.number.get() == want)
    );
}

#[test]
fn the_schema_itself_refuses_what_the_program_never_does() {
    let dir = directory();
    let store = open(dir.path());
    let ended = answered(&store);
    store.append_turn(ended.id, &turn("hello", None)).expect("turn");
    store
        .finish_session(ended.id, Outcome::Completed, "goodbye", NOW + 900)
        .expect("finish");
    let fresh = store.create_session(&new_session()).expect("create");
    let live = answered(&store);
    store.append_turn(live.id, &turn("hello", None)).expect("turn");

    let db = sqlite(dir.path());
    db.pragma_update(None, "foreign_keys", true).expect("pragma");
    let (ended, fresh, live) = (ended.id, fresh.id, live.id);
    for (sql, why) in [
        (
            format!("UPDATE session SET state = 'in_progress', version = version + 1 WHERE id = {ended}"),
            "is final",
        ),
        (
            format!("UPDATE session SET reason = 'other' WHERE id = {ended}"),
            "is final",
        ),
        (
            format!("UPDATE session SET turn_count = 9 WHERE id = {ended}"),
            "is final",
        ),
        (
            format!("UPDATE session SET state = 'in_progress', version = 2 WHERE id = {fresh}"),
            "no such transition",
        ),
        (
            format!("UPDATE session SET state = 'ready' WHERE id = {fresh}"),
            "up by one",
        ),
        (
            format!("UPDATE session SET state = 'asleep', version = 2 WHERE id = {fresh}"),
            "no such transition",
        ),
        (
            format!("UPDATE session SET state = 'failed', version = 2, ended_at_ms = 1 WHERE id = {fresh}"),
            "CHECK",
        ),
        (
            format!("UPDATE session SET state = 'expired', version = 2, reason = 'x' WHERE id = {fresh}"),
            "CHECK",
        ),
        (
            format!("UPDATE session SET direction = 'sideways' WHERE id = {fresh}"),
            "CHECK",
        ),
        (
            format!("UPDATE session SET created_at_ms = 'yesterday' WHERE id = {fresh}"),
            "cannot store TEXT",
        ),
        (
            format!("INSERT INTO turn VALUES ({fresh}, 1, 0, '', '', NULL, 'realtime', 0, NULL, NULL)"),
            "in progress",
        ),
        (
            format!("INSERT INTO turn VALUES ({ended}, 2, 0, '', '', NULL, 'realtime', 0, NULL, NULL)"),
            "in progress",
        ),
        (
            format!("INSERT INTO turn VALUES ({live}, 1, 0, '', '', NULL, 'realtime', 0, NULL, NULL)"),
            "UNIQUE",
        ),
        (
            format!("INSERT INTO turn VALUES ({live}, 2, 0, '', '', NULL, 'dream', 0, NULL, NULL)"),
            "CHECK",
        ),
        (
            format!("INSERT INTO turn_latency (session_id, number) VALUES ({live}, 99)"),
            "FOREIGN KEY",
        ),
        (
            format!("UPDATE turn_latency SET stt_ms = -1 WHERE session_id = {live}"),
            "CHECK",
        ),
        (
            "INSERT INTO session_event (session_id, at_ms, kind) VALUES (4711, 0, 'hold')".to_owned(),
            "FOREIGN KEY",
        ),
        (
            "INSERT INTO session (uuid, line, direction, profile, state, created_at_ms) \
             VALUES ('123456789012345678901234567890123456', 'x', 'inbound', 'x', 'completed', 0)"
                .to_owned(),
            "begins as created",
        ),
    ] {
        let error = db.execute(&sql, []).expect_err(&sql).to_string();
        assert!(error.contains(why), "{sql}: {error}");
    }
}

#[test]
fn recovery_ends_what_was_open_and_nothing_else() {
    let dir = directory();
    let store = open(dir.path());
    let done = answered(&store);
    store
        .finish_session(done.id, Outcome::Completed, "goodbye", NOW + 900)
        .expect("finish");
    let live = answered(&store);
    store.append_turn(live.id, &turn("hello", None)).expect("turn");
    let ringing = store.create_session(&new_session()).expect("create");
    drop(store);

    let store = open(dir.path());
    assert_eq!(store.recover(NOW + 5_000).expect("recover"), 2);
    assert_eq!(store.recover(NOW + 5_000).expect("recover"), 0);
    for key in [&live, &ringing] {
        let session = store.session(key.id).expect("record").session;
        assert_eq!(session.state, State::Terminated);
        assert_eq!(session.reason.as_deref(), Some("interrupted"));
        assert_eq!(session.ended_at_ms, Some(NOW + 5_000));
        assert_eq!(session.version, key.version + 1);
    }
    assert_eq!(
        store.session(done.id).expect("record").session.state,
        State::Completed
    );
    assert_eq!(store.session(live.id).expect("record").turns.len(), 1);
}

#[test]
fn lists_and_percentiles() {
    let dir = directory();
    let store = open(dir.path());
    assert_eq!(store.response_percentiles(100).expect("none"), None);
    let keys: Vec<SessionKey> = (0..5).map(|_| answered(&store)).collect();
    for (key, base) in keys.iter().zip([100, 200, 300, 400, 500]) {
        for extra in [0, 10, 20] {
            store
                .append_turn(key.id, &turn("x", Some(base + extra)))
                .expect("turn");
        }
        store.append_turn(key.id, &turn("x", None)).expect("turn");
    }
    store
        .finish_session(keys[4].id, Outcome::Completed, "goodbye", NOW + 1_100)
        .expect("finish");

    let list = store.list_sessions(2, None).expect("list");
    let ids: Vec<SessionId> = list.iter().map(|summary| summary.session.id).collect();
    assert_eq!(ids, [keys[4].id, keys[3].id]);
    assert_eq!(
        (list[0].duration_ms, list[0].median_response_ms),
        (Some(1_000), Some(510))
    );
    assert_eq!((list[1].duration_ms, list[1].session.turn_count), (None, 4));
    let older = store.list_sessions(10, Some(keys[3].id)).expect("list");
    assert_eq!(older.len(), 3);
    assert!(store.list_sessions(0, None).expect("list").is_empty());

    let all = store.response_percentiles(1_000).expect("all").expect("some");
    assert_eq!((all.turns, all.p50_ms, all.p95_ms), (15, 310, 520));
    let last = store.response_percentiles(3).expect("last").expect("some");
    assert_eq!((last.turns, last.p50_ms, last.p95_ms), (3, 510, 520));
}

#[test]
fn one_daemon_per_directory_and_readers_beside_it() {
    let dir = directory();
    assert!(matches!(
        Store::open_read_only(dir.path()),
        Err(StoreError::Missing { .. })
    ));
    let store = open(dir.path());
    let error = Store::open(dir.path(), NOW).expect_err("second");
    assert!(
        matches!(error, StoreError::InUse { .. }) && error.to_string().contains("stop it"),
        "{error}"
    );
    let reader = Store::open_read_only(dir.path()).expect("reader");
    let key = answered(&store);
    assert_eq!(
        reader.session(key.id).expect("read").session.state,
        State::InProgress
    );
    assert!(matches!(reader.recover(NOW), Err(StoreError::ReadOnly)));
    let clone = store.clone();
    drop(store);
    assert!(
        matches!(Store::open(dir.path(), NOW), Err(StoreError::InUse { .. })),
        "a clone still holds it"
    );
    drop(clone);
    open(dir.path());
}

#[test]
fn a_daemon_just_killed_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let killed = Store::open(dir.path(), NOW).unwrap();
    let (gone, successor) = (std::time::Duration::from_millis(300), dir.path().to_owned());
    let successor = std::thread::spawn(move || Store::open(&successor, NOW).map(|_| ()));
    std::thread::sleep(gone);
    assert!(!successor.is_finished());
    drop(killed);
    successor.join().unwrap().unwrap();
}

#[test]
fn the_files_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let dir = directory();
    let data = dir.path().join("new/data");
    let store = open(&data);
    answered(&store);
    let mode = |path: &Path| std::fs::metadata(path).expect("metadata").permissions().mode() & 0o777;
    assert_eq!(mode(&data), 0o700);
    for entry in std::fs::read_dir(&data).expect("directory") {
        let path = entry.expect("entry").path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
}

#[test]
fn refuses_what_it_cannot_use_and_says_what_to_do() {
    let newer = directory();
    drop(open(newer.path()));
    sqlite(newer.path())
        .pragma_update(None, "user_version", 99)
        .expect("pragma");
    for error in [
        Store::open(newer.path(), NOW).err(),
        Store::open_read_only(newer.path()).err(),
    ] {
        let error = error.expect("newer");
        assert!(matches!(error, StoreError::TooNew { found: 99, .. }), "{error}");
        assert!(error.to_string().contains("newer attendant"), "{error}");
    }

    let foreign = directory();
    sqlite(foreign.path())
        .execute_batch("CREATE TABLE t (a)")
        .expect("foreign");
    assert!(matches!(
        Store::open(foreign.path(), NOW),
        Err(StoreError::NotOurs { .. })
    ));

    let garbage = directory();
    std::fs::write(garbage.path().join(DATABASE_FILE), vec![0x55; 8_192]).expect("write");
    assert!(matches!(
        Store::open(garbage.path(), NOW),
        Err(StoreError::Damaged(_))
    ));

    let file = directory();
    std::fs::write(file.path().join("data"), "").expect("write");
    let error = Store::open(&file.path().join("data"), NOW).expect_err("a file");
    assert!(matches!(error, StoreError::Directory { .. }), "{error}");
}

#[test]
fn endless_and_odd_input_is_cut_not_refused() {
    let dir = directory();
    let store = open(dir.path());
    let long = "ü\0".repeat(50_000);
    let new = NewSession {
        line: String::new(),
        caller: Some(long.clone()),
        profile: long.clone(),
        created_at_ms: -5,
        ..new_session()
    };
    let mut key = store.create_session(&new).expect("create");
    for state in [State::Ready, State::InProgress] {
        key.version = store
            .transition(key.id, key.version, state, Some(&long), i64::MIN)
            .expect("transition");
    }
    store
        .append_turn(key.id, &turn(&long, Some(u32::MAX)))
        .expect("turn");
    for _ in 0..1_100 {
        store
            .record_event(key.id, EventKind::Dtmf, Some(&long), i64::MAX)
            .expect("event");
    }
    store
        .finish_session(key.id, Outcome::Failed, &long, i64::MAX)
        .expect("finish");
    let record = store.session(key.id).expect("record");
    assert_eq!(record.session.line, "unknown");
    assert_eq!(record.events.len(), 1_000);
    assert_eq!(record.turns[0].caller_text.chars().count(), 16_000);
    assert_eq!(record.turns[0].latencies.response_ms, Some(u32::MAX));
}

/// Environment variable by which the test binary, run again, knows that it is the writer to be killed.
const WRITER_DIRECTORY: &str = "ATTENDANT_STORE_TEST_DIRECTORY";

/// Not a test of its own: the process that the next one kills.
#[test]
fn writer_to_be_killed() {
    let Ok(path) = std::env::var(WRITER_DIRECTORY) else {
        return;
    };
    let store = open(Path::new(&path));
    let key = answered(&store);
    println!("session {}", key.id);
    for n in 0_u32.. {
        let text = format!("turn {n} ").repeat(200);
        let number = store.append_turn(key.id, &turn(&text, Some(n))).expect("turn");
        // Only now is the turn promised to anybody.
        println!("turn {number}");
    }
}

#[test]
fn kill_9_loses_no_committed_turn() {
    let dir = directory();
    for round in 0..6_u64 {
        let mut writer = Command::new(std::env::current_exe().expect("test binary"))
            .args([
                "--exact",
                "writer_to_be_killed",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(WRITER_DIRECTORY, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("spawn");
        let mut lines = BufReader::new(writer.stdout.take().expect("stdout"))
            .lines()
            .map_while(Result::ok);
        let mut session = None;
        let mut promised = 0;
        // Another moment in each round, so that the kill meets the writer in different steps.
        let until = 5 + 17 * round;
        for line in lines.by_ref() {
            // The test harness may have begun the line with words of its own.
            if let Some((_, id)) = line.split_once("session ") {
                session = id.parse().ok().map(SessionId::new);
            } else if let Some(number) = line.strip_prefix("turn ") {
                promised = number.parse().expect("number");
            }
            if promised >= until {
                break;
            }
        }
        thread::sleep(Duration::from_micros(900 * round));
        writer.kill().expect("kill -9");
        writer.wait().expect("wait");
        for line in lines {
            if let Some(number) = line.strip_prefix("turn ").and_then(|number| number.parse().ok()) {
                promised = number;
            }
        }
        let session = session.expect("the writer's session");

        let store = open(dir.path());
        store.check_integrity().expect("sound");
        let record = store.session(session).expect("record");
        let found = u64::try_from(record.turns.len()).expect("count");
        // One turn may have been committed without the promise getting through.
        assert!(
            (promised..=promised + 1).contains(&found),
            "promised {promised}, found {found}"
        );
        assert_eq!(u64::from(record.session.turn_count), found);
        assert!(
            (1..)
                .zip(&record.turns)
                .all(|(want, turn)| turn.number.get() == want)
        );
        assert!(
            record
                .turns
                .iter()
                .all(|turn| turn.latencies.response_ms.is_some())
        );
        assert_eq!(store.recover(NOW + 9_000).expect("recover"), 1);
    }
}

#[derive(Debug, Clone)]
enum Step {
    Go(State, bool),
    Finish(u8),
    Turn,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..State::ALL.len(), any::<bool>()).prop_map(|(state, stale)| Step::Go(State::ALL[state], stale)),
        any::<u8>().prop_map(Step::Finish),
        Just(Step::Turn),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is asked in whatever order: the record follows the machine, and refusals change nothing.
    #[test]
    fn the_record_follows_the_machine(steps in prop::collection::vec(step(), 1..25)) {
        let dir = directory();
        let store = open(dir.path());
        let key = store.create_session(&new_session()).expect("create");
        let (mut state, mut version, mut turns) = (State::Created, 1, 0);
        for step in steps {
            match step {
                Step::Go(to, stale) => {
                    let expected = if stale { version + 3 } else { version };
                    let done = store.transition(key.id, expected, to, Some("why"), NOW);
                    prop_assert_eq!(done.is_ok(), !stale && state.may_become(to));
                    if let Ok(now) = done {
                        (state, version) = (to, now);
                    }
                }
                Step::Finish(which) => {
                    let outcome = [Outcome::Completed, Outcome::Terminated, Outcome::Failed, Outcome::Expired]
                        [usize::from(which % 4)];
                    let done = store.finish_session(key.id, outcome, "why", NOW);
                    prop_assert_eq!(done.is_ok(), state.may_become(outcome.state()));
                    if let Ok(now) = done {
                        (state, version) = (outcome.state(), now);
                    }
                }
                Step::Turn => {
                    let done = store.append_turn(key.id, &turn("x", None));
                    prop_assert_eq!(done.is_ok(), state == State::InProgress);
                    turns += u32::from(done.is_ok());
                }
            }
            let session = store.session(key.id).expect("record").session;
            prop_assert_eq!((session.state, session.version, session.turn_count), (state, version, turns));
        }
    }
}
