//! What people who run telephone robots complain about most; each complaint has a test with its name. Those that are about
//! speech use `attendant bench` and its recorded callers, the others a telephone by hand.
//!
//! | Complaint | Also shown by |
//! |---|---|
//! | transfers fail or are mis-reported | `daemon/sip/tests/transfer.rs`, `matrix` |
//! | text is invented on silence | `noise::a_line_without_words_brings_no_words_into_the_dialog` |
//! | slow degradation over calls | `load::ten_thousand_calls_leave_nothing_behind` |
//! | a late offer gets 500 | `daemon/sip/tests/raw.rs`, `matrix` |
//! | keys one way only | `matrix`, which also listens to the keys that we press |

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use attendant_store::SessionRecord;
use attendant_tests::phone::{Behind, Phone};
use attendant_tests::{House, exported, program};
use serde_json::Value;

/// Callers who say nothing are not asked within these tests.
const PATIENT: &str = "[turn]\nstill_there_after_ms = 120000\n";

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn count(record: &SessionRecord, kind: &str) -> usize {
    record.events.iter().filter(|event| event.kind == kind).count()
}

/// Whether the caller typed this, in one turn.
fn typed(record: &SessionRecord, keys: &str) -> bool {
    record.turns.iter().any(|turn| {
        let digits = turn.caller_text.chars().filter(char::is_ascii_digit);
        digits.collect::<String>() == keys
    })
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
    assert_eq!(
        (count(&record, "hold"), count(&record, "resume")),
        (2, 2),
        "{record:?}"
    );
}

#[test]
fn a_late_offer_gets_500() {
    let house = House::start(PATIENT).unwrap();
    let mut phone = Phone::call_late(house.address()).unwrap();
    let heard = phone.listen(seconds(3)).unwrap();
    assert!(heard.voiced > 25, "{heard:?}");
    phone.request("BYE", "", "").unwrap();
}

#[test]
fn transfers_fail_or_are_misreported() {
    let office = "[[transfer.target]]\nname = \"office\"\nuri = \"sip:300@127.0.0.1:9\"\n\
                  [[keys]]\ndigit = \"0\"\naction = \"transfer\"\ntarget = \"office\"\n";
    let house = House::start(&format!("{PATIENT}{office}")).unwrap();
    let mut phone = Phone::call(house.address(), &Behind::Nothing).unwrap();
    phone.listen(seconds(3)).unwrap();
    let ask = |phone: &mut Phone| {
        phone.referred = None;
        phone.press_by_info(0).unwrap();
        for _ in 0..20 {
            phone.listen(seconds(1)).unwrap();
            if let Some(target) = &phone.referred {
                assert!(target.contains("sip:300@127.0.0.1:9"), "{target}");
                return;
            }
        }
        panic!("no REFER came");
    };
    // Nobody is there: the caller is told so and stays.
    ask(&mut phone);
    phone.tell("486 Busy Here").unwrap();
    let back = phone.listen(seconds(5)).unwrap();
    assert!(!back.hung_up && back.voiced > 25, "{back:?}");
    // Somebody answers: only now it counts as done, and we leave.
    ask(&mut phone);
    let waiting = phone.listen(seconds(2)).unwrap();
    assert!(!waiting.hung_up, "{waiting:?}");
    phone.tell("200 OK").unwrap();
    let over = phone.listen(seconds(3)).unwrap();
    assert!(over.hung_up, "{over:?}");
    let record = house.last_session().unwrap();
    let told = ["transfer_asked", "transfer_failed", "transfer_answered"].map(|kind| count(&record, kind));
    assert_eq!(told, [2, 1, 1], "{record:?}");
    assert_eq!(record.session.reason.as_deref(), Some("put through"));
}

#[test]
fn one_way_audio_behind_nat() {
    let house = House::start(PATIENT).unwrap();
    let mut phone = Phone::call(house.address(), &Behind::Nat).unwrap();
    let heard = phone.listen(seconds(4)).unwrap();
    assert!(
        heard.voiced > 25,
        "the greeting comes back where our packets come from: {heard:?}"
    );
    for key in [4, 2, 7] {
        phone.press(key).unwrap();
    }
    phone.listen(seconds(8)).unwrap();
    phone.request("BYE", "", "").unwrap();
    let record = house.last_session().unwrap();
    assert!(typed(&record, "427"), "what we send is heard: {record:?}");
}

#[test]
fn hang_up_at_32_s() {
    let house = House::start(PATIENT).unwrap();
    let mut phone = Phone::call(house.address(), &Behind::Nat).unwrap();
    let heard = phone.listen(seconds(36)).unwrap();
    assert!(!heard.hung_up && heard.packets > 1_700, "{heard:?}");
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
                phone.press_by_info(key).unwrap();
                phone.listen(Duration::from_millis(200)).unwrap();
            } else {
                phone.press(key).unwrap();
            }
        }
        phone.listen(seconds(8)).unwrap();
        phone.request("BYE", "", "").unwrap();
        let record = house.last_session().unwrap();
        assert!(typed(&record, "427"), "by INFO: {by_info}: {record:?}");
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
    assert!(count(&record, "still_there") > 0);
}

#[test]
fn text_is_invented_on_silence() {
    let house = House::start("[turn]\nstill_there_after_ms = 5000\nstill_there_times = 5\n").unwrap();
    let mut phone = Phone::call(house.address(), &Behind::Nothing).unwrap();
    let heard = phone.listen(seconds(25)).unwrap();
    assert!(!heard.hung_up, "{heard:?}");
    phone.request("BYE", "", "").unwrap();
    let record = house.last_session().unwrap();
    assert!(record.turns.is_empty(), "{:?}", record.turns);
    assert!(count(&record, "still_there") > 0);
}

#[test]
#[ignore = "a minute: part of make peer-test"]
fn recordings_drift() {
    let house = House::start(&format!("{PATIENT}[recording]\nenabled = true\n")).unwrap();
    let mut phone = Phone::call(house.address(), &Behind::Nothing).unwrap();
    // Worse than any telephone's clock: 80 ms in the time between the two tones.
    phone.run_fast(2_000);
    phone.listen(seconds(8)).unwrap();
    let first = phone.beep().unwrap();
    phone.listen(seconds(40)).unwrap();
    let second = phone.beep().unwrap();
    phone.listen(seconds(2)).unwrap();
    phone.request("BYE", "", "").unwrap();
    let record = house.last_session().unwrap();
    let (caller, _) = exported(house.data_dir(), &record.session.uuid).unwrap();
    let loud = |samples: &[i16]| samples.iter().position(|sample| sample.unsigned_abs() > 8_000);
    let from = loud(&caller).expect("the first tone");
    let later = from + 16_000;
    let to = later + loud(&caller[later..]).expect("the second tone");
    let recorded_ms = (to - from) as u128 / 16;
    let real_ms = (second - first).as_millis();
    assert!(
        recorded_ms.abs_diff(real_ms) <= 45,
        "{real_ms} ms apart, {recorded_ms} ms in the recording"
    );
}

/// Resident memory \[KiB\].
fn memory_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
#[ignore = "a minute: part of make peer-test"]
fn slow_degradation_over_calls() {
    let house = House::start(PATIENT).unwrap();
    let mut answered_ms = Vec::new();
    let mut memory = 0;
    for call in 0..30 {
        if call == 10 {
            memory = memory_kib(house.daemon.pid());
        }
        let dialled = Instant::now();
        let mut phone = Phone::call(house.address(), &Behind::Nothing).unwrap();
        answered_ms.push(dialled.elapsed().as_millis());
        let heard = phone.listen(Duration::from_millis(1_200)).unwrap();
        assert!(heard.voiced > 5, "call {call}: {heard:?}");
        phone.request("BYE", "", "").unwrap();
    }
    let middle = |calls: &[u128]| {
        let mut calls = calls.to_vec();
        calls.sort_unstable();
        calls[calls.len() / 2]
    };
    let (first, last) = (middle(&answered_ms[..10]), middle(&answered_ms[20..]));
    assert!(last <= 2 * first + 20, "answered after {answered_ms:?} ms");
    let grown_kib = memory_kib(house.daemon.pid()).saturating_sub(memory);
    assert!(grown_kib < 4_096, "grown by {grown_kib} KiB in 20 calls");
}

#[test]
fn the_end_of_turn_cuts_into_an_email_address() {
    let house = House::start(PATIENT).unwrap();
    let report = house
        .call(&[
            "--say",
            "My email address is, peter, dot, miller, at, maple, dot, com.",
        ])
        .unwrap();
    assert_eq!(report["turns"][0]["cut_off"], false, "{report}");
    let record = house.last_session().unwrap();
    let heard: Vec<_> = record
        .turns
        .iter()
        .map(|turn| turn.caller_text.to_lowercase())
        .collect();
    assert!(heard.len() == 1 && heard[0].contains("com"), "{heard:?}");
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
