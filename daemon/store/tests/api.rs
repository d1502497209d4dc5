//! Tokens, answers given once, whose session is whose, and calls in packets.

mod common;

use std::{collections::BTreeSet, thread};

use attendant_store::{
    Answer, ApiRole, Asked, Driver, HistoryFilter, NewPacket, NewSession, NewToken, Opened, Outcome, Reach,
    State, Store, StoreError, StreamState, TokenId,
};
use common::{NOW, directory, new_session, open, sqlite};

const HASH: [u8; 32] = [1; 32];
const DAY: i64 = 86_400_000;

fn token(store: &Store, name: &str, case_prefix: Option<&str>) -> TokenId {
    let mut hash = [0; 32];
    hash[..name.len()].copy_from_slice(name.as_bytes());
    let new = NewToken {
        name: name.into(),
        role: ApiRole::Agent,
        own: true,
        case_prefix: case_prefix.map(str::to_owned),
    };
    store.create_token(&new, &hash, NOW).expect("token")
}

fn driven(case: Option<&str>) -> NewSession {
    NewSession {
        case: case.map(str::to_owned),
        driver: Driver::Api,
        ..new_session()
    }
}

fn packet(token: TokenId, call: &str, number: u32) -> NewPacket {
    NewPacket {
        token,
        call: call.into(),
        number,
        sealed: vec![7; 64],
        session: new_session(),
    }
}

#[test]
fn a_token_is_known_by_its_hash_until_it_is_revoked() {
    let dir = directory();
    let store = open(dir.path());
    let id = token(&store, "shop", Some("shop/"));
    let mut hash = [0; 32];
    hash[..4].copy_from_slice(b"shop");
    let known = store.token(&hash).expect("read").expect("known");
    assert_eq!((known.id, known.role, known.own), (id, ApiRole::Agent, true));
    assert_eq!(
        known.reach(),
        Some(Reach {
            token: id,
            case_prefix: Some("shop/".into())
        })
    );
    assert_eq!(store.token(&HASH).expect("read"), None);
    let again = NewToken {
        name: "shop".into(),
        role: ApiRole::Admin,
        own: false,
        case_prefix: None,
    };
    assert!(matches!(
        store.create_token(&again, &HASH, NOW),
        Err(StoreError::TokenName)
    ));
    assert!(store.revoke_token("shop", NOW).expect("revoke"));
    assert!(!store.revoke_token("shop", NOW).expect("once"));
    assert_eq!(store.token(&hash).expect("read"), None);
    assert_eq!(store.tokens().expect("list").len(), 1, "its row stays");
    let refused = sqlite(dir.path()).execute("UPDATE api_token SET revoked_at_ms = NULL", []);
    assert!(refused.is_err());
    assert!(store.verify(None).expect("verify").is_sound());
}

#[test]
fn a_request_is_done_once() {
    let dir = directory();
    let store = open(dir.path());
    let me = token(&store, "me", None);
    let ask = |key: &str, hash: &[u8; 32], at| store.ask(me, key, hash, at).expect("ask");
    assert!(ask("k", &HASH, NOW) == Asked::First);
    assert!(ask("k", &HASH, NOW) == Asked::UnderWay);
    assert!(ask("k", &[2; 32], NOW) == Asked::Other);
    let answer = Answer {
        status: 201,
        content_type: Some("application/json".into()),
        location: None,
        body: Some(b"{}".to_vec()),
    };
    store.answer(me, "k", Some(&answer)).expect("keep");
    assert!(ask("k", &HASH, NOW) == Asked::Answered(answer));
    // Another's key is another.
    let other = token(&store, "other", None);
    assert!(store.ask(other, "k", &HASH, NOW).expect("ask") == Asked::First);
    // Refused: free again. Cut off: nobody knows. A day later: forgotten.
    assert!(ask("refused", &HASH, NOW) == Asked::First);
    store.answer(me, "refused", None).expect("free");
    assert!(ask("refused", &HASH, NOW) == Asked::First);
    assert_eq!(store.cut_off_answers().expect("start"), 2);
    assert!(ask("refused", &HASH, NOW) == Asked::CutOff);
    assert!(ask("k", &HASH, NOW + DAY + 1) == Asked::First);
}

#[test]
fn a_bound_token_sees_its_own_sessions_and_cases() {
    let dir = directory();
    let store = open(dir.path());
    let (me, shop) = (token(&store, "me", None), token(&store, "shop", Some("shop%_")));
    let (mine, opened) = store.open_owned(&driven(Some("shop%_1")), me, 9).expect("open");
    assert_eq!(opened, Opened::New);
    let (same, opened) = store.open_owned(&driven(Some("shop%_1")), shop, 9).expect("open");
    assert_eq!((same.id, opened), (mine.id, Opened::Active));
    let (other, _) = store.open_owned(&driven(Some("shopping")), me, 9).expect("open");
    store.create_session(&new_session()).expect("a call");
    let reach = |token, prefix: Option<&str>| Reach {
        token,
        case_prefix: prefix.map(str::to_owned),
    };
    for (reach, want) in [
        (reach(me, None), vec![other.id, mine.id]),
        // A prefix is no pattern.
        (reach(shop, Some("shop%_")), vec![mine.id]),
        (reach(shop, None), vec![]),
    ] {
        for session in [mine.id, other.id] {
            let visible = store.within_reach(session, &reach).expect("reach");
            assert_eq!(visible, want.contains(&session), "{reach:?}");
        }
        let filter = HistoryFilter {
            reach: Some(reach),
            ..HistoryFilter::default()
        };
        let page = store.history(&filter, None, 10).expect("page");
        let seen: Vec<_> = page.sessions.iter().map(|s| s.session.id).collect();
        assert_eq!(seen, want);
    }
    assert!(matches!(
        store.open_owned(&driven(None), me, 2),
        Err(StoreError::TooManySessions { most: 2 })
    ));
    store
        .finish_session(mine.id, Outcome::Failed, "test", NOW)
        .expect("end");
    let again = store.retry_owned(mine.id, me, 9, NOW + 1).expect("retry");
    assert!(store.within_reach(again.id, &reach(me, None)).expect("reach"));
    assert!(store.is_driven(again.id).expect("driven"));
}

#[test]
fn fifty_first_packets_make_one_call() {
    let dir = directory();
    let store = open(dir.path());
    let me = token(&store, "me", None);
    let calls: BTreeSet<i64> = thread::scope(|scope| {
        let taking: Vec<_> = (1..=50)
            .map(|number| {
                let store = store.clone();
                scope.spawn(move || store.take_packets(&[packet(me, "c", number)], NOW))
            })
            .collect();
        taking
            .into_iter()
            .flat_map(|taken| taken.join().expect("thread").expect("written"))
            .map(|taken| taken.expect("taken").call.id)
            .collect()
    });
    assert_eq!(calls.len(), 1);
    let taken = store
        .take_packets(&[packet(me, "c", 7), packet(me, "c", 60)], NOW)
        .expect("written");
    let duplicates: Vec<bool> = taken
        .iter()
        .map(|t| t.as_ref().expect("taken").duplicate)
        .collect();
    assert_eq!(duplicates, [true, false]);
    let call = store.stream_call(me, "c").expect("read").expect("known");
    assert_eq!((call.packets, call.duplicates, call.highest), (51, 1, 60));
    assert_eq!(
        store.session_head(call.session).expect("session").state,
        State::InProgress
    );

    assert_eq!(
        store.end_stream(call.id, NOW).expect("end").state,
        StreamState::Processing
    );
    assert_eq!(
        store.end_stream(call.id, NOW).expect("again").state,
        StreamState::Processing
    );
    let late = store
        .take_packets(&[packet(me, "c", 61), packet(me, "d", 1)], NOW)
        .expect("written");
    assert!(matches!(late[0], Err(StoreError::StreamEnded { .. })) && late[1].is_ok());
    assert_eq!(
        store.finish_stream(call.id, None, NOW).expect("done").state,
        StreamState::Completed
    );
    assert_eq!(
        store.session_head(call.session).expect("session").state,
        State::Completed
    );
    assert_eq!(store.archive_streams(NOW + DAY - 1).expect("too early"), 0);
    assert!(store.packet(call.id, 7).expect("read").is_some());
    assert_eq!(store.archive_streams(NOW + DAY).expect("archive"), 1);
    assert_eq!(store.packet(call.id, 7).expect("read"), None);
    let back = sqlite(dir.path()).execute("UPDATE stream_call SET state = 'in_progress' WHERE id = 1", []);
    assert!(back.is_err());
    assert!(store.verify(None).expect("verify").is_sound());
}

#[test]
fn erasing_a_caller_takes_packets_and_answers() {
    let dir = directory();
    let store = open(dir.path());
    let me = token(&store, "me", None);
    store.take_packets(&[packet(me, "c", 1)], NOW).expect("written")[0]
        .as_ref()
        .expect("taken");
    let call = store.stream_call(me, "c").expect("read").expect("known");
    store.end_stream(call.id, NOW).expect("end");
    store.finish_stream(call.id, None, NOW).expect("done");
    assert!(store.ask(me, "k", &HASH, NOW).expect("ask") == Asked::First);
    let answer = Answer {
        status: 200,
        content_type: None,
        location: None,
        body: Some(b"+15550100".to_vec()),
    };
    store.answer(me, "k", Some(&answer)).expect("keep");
    assert_eq!(store.erase_caller("+15550100", NOW).expect("erase").sessions, 1);
    assert_eq!(store.packet(call.id, 1).expect("read"), None);
    let Asked::Answered(answer) = store.ask(me, "k", &HASH, NOW).expect("ask") else {
        panic!("it stays answered");
    };
    assert_eq!(answer.body, None);
}

#[test]
fn a_webhook_goes_on_where_it_was() {
    let dir = directory();
    let store = open(dir.path());
    let start = store.webhook("http://a/").expect("new");
    assert_eq!(
        Some(start),
        store.checkpoint().expect("head").map(|head| head.seq)
    );
    store.create_session(&new_session()).expect("session");
    assert_eq!(store.webhook("http://a/").expect("known"), start);
    store.webhook_told("http://a/", start + 1).expect("told");
    store.webhook_told("http://a/", start).expect("never back");
    assert_eq!(store.webhook("http://a/").expect("known"), start + 1);
}
