//! A session's life on a real file: preparation, retries, signs of life, one per case, numbers under concurrency.

use std::{collections::BTreeSet, sync::Barrier, thread};

use attendant_store::{Context, Driver, NewSession, Opened, Outcome, SessionId, State, Store, StoreError};

mod common;
use common::*;

/// Threads that begin at the same instant.
fn at_once<T: Send>(count: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let barrier = Barrier::new(count);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..count)
            .map(|n| {
                let (barrier, work) = (&barrier, &work);
                scope.spawn(move || {
                    barrier.wait();
                    work(n)
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("thread"))
            .collect()
    })
}

fn of_case(case: &str) -> NewSession {
    NewSession {
        case: Some(case.into()),
        ..new_session()
    }
}

#[test]
fn a_hundred_creations_at_once_make_one_session() {
    let dir = directory();
    let store = open(dir.path());
    let opened = at_once(100, |_| store.open_session(&of_case("claim 7")).expect("open"));
    let ids: BTreeSet<SessionId> = opened.iter().map(|(key, _)| key.id).collect();
    assert_eq!(ids.len(), 1);
    assert_eq!(opened.iter().filter(|(_, how)| *how == Opened::New).count(), 1);
    assert_eq!(store.list_sessions(1_000, None).expect("list").len(), 1);
    assert!(opened.iter().all(|(key, _)| key.uuid == opened[0].0.uuid));

    let created = at_once(100, |_| store.create_session(&of_case("claim 8")));
    assert_eq!(created.iter().filter(|created| created.is_ok()).count(), 1);
    for refused in created.iter().filter_map(|created| created.as_ref().err()) {
        assert!(matches!(refused, StoreError::CaseActive { .. }), "{refused}");
    }
    assert!(store.verify(None).expect("verify").is_sound());
}

#[test]
fn a_hundred_turns_at_once_are_numbered_without_gap() {
    let dir = directory();
    let store = open(dir.path());
    let key = answered(&store);
    let numbers = at_once(100, |n| {
        let said = turn(&format!("thread {n}"), None);
        store.append_turn(key.id, &said).expect("turn").get()
    });
    assert_eq!(
        numbers.into_iter().collect::<BTreeSet<u32>>(),
        (1..=100).collect()
    );
    let record = store.session(key.id).expect("record");
    assert!(
        (1..)
            .zip(&record.turns)
            .all(|(want, turn)| turn.number.get() == want)
    );
    assert_eq!((record.turns.len(), record.session.turn_count), (100, 100));
    let seen = store.verify(None).expect("verify");
    assert!(seen.is_sound() && seen.turns == 100, "{seen:?}");
}

#[test]
fn two_programs_number_the_turns_of_one_session() {
    let dir = directory();
    let daemon = open(dir.path());
    let other = Store::join(dir.path()).expect("join");
    let key = answered(&daemon);
    let numbers = at_once(40, |n| {
        let store = if n % 2 == 0 { &daemon } else { &other };
        store.append_turn(key.id, &turn("x", None)).expect("turn").get()
    });
    assert_eq!(numbers.into_iter().collect::<BTreeSet<u32>>(), (1..=40).collect());
}

#[test]
fn a_case_has_one_session_at_a_time() {
    let dir = directory();
    let store = open(dir.path());
    let first = store.create_session(&of_case("claim 7")).expect("create");
    assert!(matches!(
        store.create_session(&of_case("claim 7")),
        Err(StoreError::CaseActive { session }) if session == first.id
    ));
    store.create_session(&of_case("claim 8")).expect("another case");
    store.create_session(&new_session()).expect("no case");
    store.create_session(&new_session()).expect("no case again");
    store
        .finish_session(first.id, Outcome::Terminated, "cancelled", NOW)
        .expect("end");
    let (second, how) = store.open_session(&of_case("claim 7")).expect("open");
    assert_eq!(how, Opened::New);
    assert_ne!(second.id, first.id);
    let stored = store.session(second.id).expect("record").session;
    assert_eq!(stored.case.as_deref(), Some("claim 7"));
    let sql = format!(
        "INSERT INTO session (uuid, line, direction, profile, created_at_ms, case_key) \
         VALUES ('{}', 'x', 'inbound', 'x', 0, 'claim 7')",
        "0".repeat(36)
    );
    let error = sqlite(dir.path())
        .execute(&sql, [])
        .expect_err("by hand")
        .to_string();
    assert!(error.contains("UNIQUE"), "{error}");
}

#[test]
fn preparing_seals_the_context_and_an_empty_one_fails() {
    let dir = directory();
    let store = open(dir.path());
    let context = Context {
        version: 3,
        content: "Customer Ü. Maier, claim 7, prefers mornings.".into(),
    };
    let key = store.create_session(&new_session()).expect("create");
    assert!(matches!(
        store.prepare(key.id, 9, &context, NOW),
        Err(StoreError::Conflict { .. })
    ));
    assert_eq!(store.context(key.id).expect("context"), None);
    assert_eq!(store.prepare(key.id, 1, &context, NOW + 5).expect("prepare"), 2);
    let sealed = store.context(key.id).expect("context").expect("sealed");
    assert_eq!(
        (sealed.context.clone(), sealed.sealed_at_ms),
        (context.clone(), NOW + 5)
    );
    assert_eq!(sealed.sha256.len(), 64);
    assert!(!format!("{sealed:?}").contains("Maier"));
    assert!(matches!(
        store.prepare(key.id, 2, &context, NOW),
        Err(StoreError::Illegal {
            from: State::Ready,
            ..
        })
    ));

    for content in ["", " \n\t", "\0"] {
        let key = store.create_session(&new_session()).expect("create");
        let empty = Context {
            version: 1,
            content: content.into(),
        };
        assert!(matches!(
            store.prepare(key.id, 1, &empty, NOW),
            Err(StoreError::EmptyContext { session }) if session == key.id
        ));
        let session = store.session(key.id).expect("record").session;
        assert_eq!(session.state, State::Failed);
        assert_eq!(session.reason.as_deref(), Some("the context is empty"));
    }
    assert!(store.verify(None).expect("verify").is_sound());
}

#[test]
fn a_retry_comes_soon_after_an_abrupt_end_and_once() {
    const MINUTE: i64 = 60_000;
    let dir = directory();
    let store = open(dir.path());
    let ended = |outcome, case: &str| {
        let key = match outcome {
            Some(Outcome::Completed) => answered_as(&store, &of_case(case)),
            _ => store.create_session(&of_case(case)).expect("create"),
        };
        if let Some(outcome) = outcome {
            store
                .finish_session(key.id, outcome, "cut off", NOW)
                .expect("end");
        }
        key.id
    };
    type Case = (&'static str, Option<Outcome>, i64, Result<(), &'static str>);
    let cases: &[Case] = &[
        ("terminated", Some(Outcome::Terminated), 0, Ok(())),
        ("failed", Some(Outcome::Failed), 10 * MINUTE - 1, Ok(())),
        ("expired", Some(Outcome::Expired), MINUTE, Ok(())),
        (
            "too late",
            Some(Outcome::Failed),
            10 * MINUTE,
            Err("10 minutes ago"),
        ),
        (
            "completed",
            Some(Outcome::Completed),
            MINUTE,
            Err("was completed"),
        ),
        ("running", None, MINUTE, Err("has not ended")),
    ];
    for (case, outcome, after, want) in cases {
        let old = ended(*outcome, case);
        let got = store.retry_session(old, NOW + after);
        match want {
            Ok(()) => {
                let new = got.expect(case);
                let (new, old) = (
                    store.session(new.id).expect("new").session,
                    store.session(old).expect("old").session,
                );
                assert_eq!(
                    (new.retry_of, new.state),
                    (Some(old.id), State::Created),
                    "{case}"
                );
                assert_eq!((new.caller, new.case), (old.caller, old.case), "{case}");
                let again = store.retry_session(old.id, NOW + after).expect_err(case);
                assert!(
                    again.to_string().contains("has been tried again"),
                    "{case}: {again}"
                );
            }
            Err(why) => {
                let error = got.expect_err(case).to_string();
                assert!(error.contains(why), "{case}: {error}");
            }
        }
    }
    let old = ended(Some(Outcome::Failed), "raced");
    let retried = at_once(20, |_| store.retry_session(old, NOW));
    assert_eq!(retried.iter().filter(|retried| retried.is_ok()).count(), 1);
    assert!(matches!(
        store.retry_session(SessionId::new(4_711), NOW),
        Err(StoreError::NotFound(_))
    ));
}

#[test]
fn sessions_of_programs_that_fell_silent_expire() {
    let dir = directory();
    let store = open(dir.path());
    let driven = NewSession {
        driver: Driver::Api,
        ..new_session()
    };
    let [silent, alive] = [(); 2].map(|()| store.create_session(&driven).expect("create").id);
    let call = answered(&store).id;
    store.heartbeat(alive, NOW + 50_000).expect("heartbeat");
    assert_eq!(store.reap(60_000, NOW + 60_000).expect("reap"), []);
    assert_eq!(store.reap(60_000, NOW + 60_001).expect("reap"), [silent]);
    let ended = store.session(silent).expect("record").session;
    assert_eq!(
        (ended.state, ended.reason.as_deref()),
        (State::Expired, Some("no sign of life"))
    );
    assert!(matches!(
        store.heartbeat(silent, NOW + 60_002),
        Err(StoreError::Final { .. })
    ));
    assert_eq!(store.reap(60_000, NOW + 9_999_999).expect("reap"), [alive]);
    assert_eq!(
        store.session(call).expect("record").session.state,
        State::InProgress
    );
    assert!(store.verify(None).expect("verify").is_sound());
}

#[test]
fn turns_end_at_the_sessions_bound() {
    let dir = directory();
    let store = open(dir.path());
    let bounded = NewSession {
        max_turns: Some(2),
        ..new_session()
    };
    let key = answered_as(&store, &bounded);
    for _ in 0..2 {
        store.append_turn(key.id, &turn("x", None)).expect("turn");
    }
    assert!(matches!(
        store.append_turn(key.id, &turn("x", None)),
        Err(StoreError::TooManyTurns { max_turns: 2, .. })
    ));
    assert_eq!(store.session(key.id).expect("record").session.turn_count, 2);
}
