//! Conversations with the real daemon and the small models, over real SIP and RTP on the loopback.

use std::{
    thread::sleep,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use attendant_tests::House;
use serde_json::Value;

fn heard(report: &Value, turn: usize) -> String {
    report["turns"][turn]["heard"]
        .as_str()
        .unwrap_or_default()
        .to_lowercase()
}

#[test]
fn a_question_is_understood_answered_and_recorded() {
    let house = House::start("").unwrap();
    let report = house
        .call(&[
            "--say",
            "What are your opening hours?",
            "Thank you. Where are you located?",
        ])
        .unwrap();
    assert!(
        report["greeting_ms"].as_f64().unwrap() < 1_000.0,
        "greeted at once: {report}"
    );
    // The house opens at eight; how the model puts it is its own affair.
    let answer = heard(&report, 0);
    assert!(answer.contains('8') || answer.contains("eight"), "{report}");
    assert_eq!(report["holes"], 0, "no packet missing: {report}");

    let record = house.last_session().unwrap();
    assert_eq!(record.session.state.as_str(), "completed");
    assert_eq!(record.turns.len(), 2, "{record:?}");
    let turn = &record.turns[0];
    assert!(
        turn.caller_text.to_lowercase().contains("opening hours"),
        "{}",
        turn.caller_text
    );
    for (stage, value) in [
        ("endpoint", turn.latencies.endpoint_ms),
        ("stt", turn.latencies.stt_ms),
        ("first token", turn.latencies.llm_first_token_ms),
        ("first clause", turn.latencies.llm_first_clause_ms),
        ("voice", turn.latencies.tts_first_ms),
        ("response", turn.latencies.response_ms),
    ] {
        assert!(value.is_some_and(|ms| ms > 0), "{stage}: {value:?}");
    }
}

/// In mid-reply an engine dies: the call goes on, the caller hears an apology or the answer, and the turn is answered.
fn survives_the_death_of(worker: &str) {
    let house = House::start("").unwrap();
    let mut killed_at = UNIX_EPOCH;
    let report = house
        .call_while(
            &[
                "--say",
                "Please tell me your opening hours and your address.",
                "And what is your name?",
            ],
            || {
                house.wait_for("the call", |record| record.session.started_at_ms.is_some())?;
                // Stock phrases were spoken before; when the voice computes, it speaks the first clause of the reply.
                let before = house.cpu_ticks("attendant-tts")?;
                let patience = Instant::now() + Duration::from_secs(30);
                while house.cpu_ticks("attendant-tts")? < before + 2 && Instant::now() < patience {
                    sleep(Duration::from_millis(5));
                }
                // By now that clause is being played, and the rest is being written and spoken.
                sleep(Duration::from_millis(600));
                killed_at = SystemTime::now();
                house.kill(worker)
            },
        )
        .unwrap();
    let record = house.last_session().unwrap();
    let killed_ms = i64::try_from(killed_at.duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
    let second = &record.turns[1];
    let second_began = second.at_ms - i64::from(second.latencies.utterance_ms.unwrap_or(0));
    assert!(
        (record.turns[0].at_ms..second_began).contains(&killed_ms),
        "{worker} did not die in mid-reply: at {killed_ms}, {record:?}"
    );
    let events: Vec<&str> = record.events.iter().map(|event| event.kind.as_str()).collect();
    println!("{worker}: {events:?}, heard {:?}", heard(&report, 0));
    assert_eq!(record.session.state.as_str(), "completed", "{record:?}");
    assert_eq!(record.turns.len(), 2, "both turns are answered: {report}");
    assert!(
        !heard(&report, 1).is_empty(),
        "the second question is answered aloud: {report}"
    );
    assert!(!house.workers(worker).unwrap().is_empty(), "{worker} is back");
}

#[test]
fn a_call_survives_the_death_of_the_ear() {
    survives_the_death_of("attendant-stt");
}

#[test]
fn a_call_survives_the_death_of_the_language_model() {
    survives_the_death_of("attendant-llm");
}

#[test]
fn a_call_survives_the_death_of_the_voice() {
    survives_the_death_of("attendant-tts");
}
