//! What people who run telephone robots complain about most; each complaint has a test with its name. Those that are about
//! speech use `attendant bench` and its recorded callers, the others a telephone by hand.
//!
//! | Complaint | Also shown by |
//! |---|---|
//! | transfers fail or are mis-reported | `daemon/sip/tests/transfer.rs` |
//! | text is invented on silence | `noise::a_line_without_words_brings_no_words_into_the_dialog` |
//! | slow degradation over calls | `load::ten_thousand_calls_leave_nothing_behind` |
//! | a late offer gets 500 | `daemon/sip/tests/raw.rs`, `matrix` |

use std::process::Command;
use std::time::Duration;

use attendant_tests::phone::{Behind, Phone};
use attendant_tests::{House, program};
use serde_json::Value;

/// Callers who say nothing are not asked within these tests.
const PATIENT: &str = "[turn]\nstill_there_after_ms = 120000\n";

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn bench(args: &[&str]) -> Value {
    let output = Command::new(program("attendant"))
        .args(["bench", "--profile", "small", "--json"])
        .args(args)
        .output()
        .unwrap();
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)))
}

#[test]
fn hold_drops_the_call() {
    let house = House::start(PATIENT).unwrap();
    let mut phone = Phone::call(house.address(), &Behind::Nothing).unwrap();
    phone.listen(seconds(2)).unwrap();
    for direction in ["sendonly", "inactive"] {
        phone.reinvite(direction).unwrap();
        let held = phone.listen(seconds(6)).unwrap();
        assert!(
            !held.hung_up && held.voiced == 0,
            "on hold ({direction}): {held:?}"
        );
        phone.reinvite("sendrecv").unwrap();
        let back = phone.listen(seconds(2)).unwrap();
        assert!(
            !back.hung_up && back.packets > 50,
            "back from hold ({direction}): {back:?}"
        );
    }
    phone.request("BYE", "", "").unwrap();
    let record = house.last_session().unwrap();
    let count = |kind: &str| {
        record
            .events
            .iter()
            .filter(|event| event.kind.as_str() == kind)
            .count()
    };
    assert_eq!((count("hold"), count("resume")), (2, 2), "{record:?}");
}

#[test]
fn no_audio_behind_nat_and_hang_up_at_32_s() {
    let house = House::start(PATIENT).unwrap();
    let mut phone = Phone::call(house.address(), &Behind::Nat).unwrap();
    let first = phone.listen(seconds(4)).unwrap();
    assert!(
        first.voiced > 25,
        "the greeting comes back where our packets come from: {first:?}"
    );
    let later = phone.listen(seconds(32)).unwrap();
    assert!(!later.hung_up && later.packets > 1_500, "{later:?}");
    phone.request("BYE", "", "").unwrap();
    assert_eq!(house.last_session().unwrap().session.state.as_str(), "completed");
}

#[test]
fn the_second_call_hears_nothing() {
    let house = House::start(PATIENT).unwrap();
    for call in 1..=3 {
        let mut phone = Phone::call(house.address(), &Behind::Nothing).unwrap();
        let heard = phone.listen(seconds(3)).unwrap();
        assert!(heard.voiced > 25, "call {call}: {heard:?}");
        phone.request("BYE", "", "").unwrap();
    }
    assert_eq!(house.ended_sessions(3).unwrap().len(), 3);
}

#[test]
fn three_seconds_of_silence_before_the_greeting() {
    let house = House::start(PATIENT).unwrap();
    let mut phone = Phone::call(house.address(), &Behind::Nothing).unwrap();
    let heard = phone.listen(Duration::from_millis(1_000)).unwrap();
    assert!(heard.voiced > 5, "within a second: {heard:?}");
    phone.request("BYE", "", "").unwrap();
}

#[test]
fn keys_one_way_only() {
    let house = House::start(PATIENT).unwrap();
    for by_info in [false, true] {
        let mut phone = Phone::call(house.address(), &Behind::Nothing).unwrap();
        phone.listen(seconds(3)).unwrap();
        for key in [4, 2, 7] {
            if by_info {
                let body = format!("Signal={key}\r\nDuration=160\r\n");
                phone
                    .request("INFO", "Content-Type: application/dtmf-relay\r\n", &body)
                    .unwrap();
                phone.listen(Duration::from_millis(200)).unwrap();
            } else {
                phone.press(key).unwrap();
            }
        }
        phone.listen(seconds(8)).unwrap();
        phone.request("BYE", "", "").unwrap();
        let record = house.last_session().unwrap();
        let typed = record.turns.iter().any(|turn| {
            turn.caller_text
                .chars()
                .filter(char::is_ascii_digit)
                .collect::<String>()
                == "427"
        });
        assert!(typed, "by INFO: {by_info}: {record:?}");
    }
}

#[test]
fn hung_up_on_by_mistake() {
    // Longer than any transaction, twice as long as the first question "are you still there?".
    let house = House::start("[turn]\nstill_there_after_ms = 15000\nstill_there_times = 3\n").unwrap();
    let mut phone = Phone::call(house.address(), &Behind::Nothing).unwrap();
    let heard = phone.listen(seconds(40)).unwrap();
    assert!(
        !heard.hung_up,
        "a caller who thinks is asked, not dismissed: {heard:?}"
    );
    phone.request("BYE", "", "").unwrap();
    let record = house.last_session().unwrap();
    assert!(
        record
            .events
            .iter()
            .any(|event| event.kind.as_str() == "still_there")
    );
}

#[test]
#[ignore = "two minutes: part of make peer-test"]
fn echo_makes_it_interrupt_itself() {
    let report = bench(&["--turns", "8", "--only", "question", "--echo", "-12:120"]);
    assert_eq!(report["false_stops"], 0, "{report}");
    assert_eq!(report["unanswered"], 0, "{report}");
}

#[test]
#[ignore = "two minutes: part of make peer-test"]
fn a_cough_kills_the_reply() {
    let report = bench(&["--turns", "10", "--only", "question,cough"]);
    assert!(report["false_stop_trials"].as_u64().unwrap() > 0, "{report}");
    assert_eq!(report["false_stops"], 0, "{report}");
}

#[test]
#[ignore = "two minutes: part of make peer-test"]
fn no_barge_in() {
    let report = bench(&["--turns", "10", "--only", "question,barge-in"]);
    assert!(
        report["barge_in_stop_ms"].is_object(),
        "nobody interrupted: {report}"
    );
    assert_eq!(report["barge_ins_missed"], 0, "{report}");
}

#[test]
#[ignore = "two minutes: part of make peer-test"]
fn the_end_of_turn_cuts_into_dictated_digits() {
    let report = bench(&["--turns", "8", "--only", "digits"]);
    assert_eq!(report["false_cutoffs"], 0, "{report}");
}
