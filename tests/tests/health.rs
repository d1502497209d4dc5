//! Whether the daemon lives and can serve, and its figures, as supervisors and monitoring ask.

use std::time::{Duration, Instant};

use attendant::metrics::Metrics;
use attendant_tests::House;

/// What `/ready` says of one part.
fn state(house: &House, name: &str) -> (u16, String) {
    let page = house.get("/ready").unwrap();
    let body = page.json().unwrap();
    let parts = body["dependencies"].as_array().unwrap();
    let part = parts.iter().find(|part| part["name"] == name);
    let state = part.unwrap_or_else(|| panic!("no {name} in {body}"))["state"].as_str();
    (page.status, state.unwrap().to_owned())
}

#[test]
fn each_part_says_how_it_is() {
    let house = House::start("").unwrap();
    let alive = house.get("/health").unwrap();
    assert_eq!(
        (alive.status, alive.json().unwrap()["state"].clone()),
        (200, "ok".into())
    );
    assert!(alive.head.contains("cache-control: no-store"));
    let page = house.get("/ready").unwrap();
    let body = page.json().unwrap();
    assert_eq!((page.status, &body["ready"]), (200, &true.into()), "{body}");
    for name in [
        "database",
        "audit",
        "engine_stt",
        "engine_llm",
        "engine_tts",
        "sip",
        "disk",
    ] {
        assert_eq!(state(&house, name), (200, "ok".to_owned()), "{body}");
    }
    // Without realtime priority it is degraded; both are alive.
    assert_ne!(state(&house, "rt_audio").1, "down");

    // Killed again and again, an engine is down, and the box says so.
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        assert!(Instant::now() < until, "the engine never went down");
        // It may be between two starts.
        let _ = house.kill("attendant-tts");
        match state(&house, "engine_tts") {
            (503, state) if state == "down" => break,
            (200, _) => std::thread::sleep(Duration::from_millis(100)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(house.get("/health").unwrap().status, 200, "the process lives");
    let until = Instant::now() + Duration::from_secs(90);
    while state(&house, "engine_tts") != (200, "ok".to_owned()) {
        assert!(Instant::now() < until, "the engine never came back");
        std::thread::sleep(Duration::from_millis(200));
    }
    let metrics = house.get("/metrics").unwrap();
    assert!(
        metrics.figure("attendant_engine_restarts_total{engine=\"tts\"}") >= 1.0,
        "{}",
        metrics.body
    );
}

#[test]
fn a_registrar_that_does_not_answer_is_told() {
    let account = "\n[[sip.account]]\nname = \"pbx\"\nregistrar = \"127.0.0.1:9\"\nusername = \"200\"\npassword = \"x\"\n";
    let house = House::start_with(|config| {
        config
            .replace(
                "[[sip.peer]]\nname = \"this machine\"\naddress = \"127.0.0.0/8\"\n",
                "",
            )
            .replace("[admin]", &format!("{account}\n[admin]"))
    })
    .unwrap();
    assert_eq!(
        state(&house, "sip"),
        (503, "down".to_owned()),
        "no call could come"
    );
}

#[test]
fn a_call_is_counted_and_nobody_is_named() {
    let house = House::start("").unwrap();
    house.call(&["--say", "What are your opening hours?"]).unwrap();
    let record = house.last_session().unwrap();
    let page = house.get("/metrics").unwrap();
    assert_eq!(page.status, 200);
    assert!(
        page.head.contains("application/openmetrics-text; version=1.0.0"),
        "{}",
        page.head
    );
    assert!(page.body.ends_with("# EOF\n"));
    for (series, least) in [
        ("attendant_calls_total{outcome=\"completed\"}", 1.0),
        ("attendant_turns_total", 1.0),
        ("attendant_turn_stage_seconds_count{stage=\"response\"}", 1.0),
        ("attendant_turn_stage_seconds_count{stage=\"stt\"}", 1.0),
        ("attendant_call_seconds_count", 1.0),
        ("attendant_rtp_packets_total{direction=\"received\"}", 50.0),
        ("attendant_rt_running", 1.0),
        ("attendant_record_writable", 1.0),
        ("attendant_engine_ready{engine=\"llm\"}", 1.0),
        ("attendant_engine_resident_bytes{engine=\"llm\"}", 1e8),
        ("attendant_audit_entries", 5.0),
        ("attendant_disk_free_bytes", 1e6),
    ] {
        assert!(page.figure(series) >= least, "{series} in {}", page.body);
    }
    let metrics = Metrics::new("small");
    let names = metrics.series();
    for line in page.body.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap();
        assert!(names.iter().any(|known| known == name), "{line}");
    }
    let series = page.body.lines().filter(|line| !line.starts_with('#')).count();
    assert!(series < 300, "{series} series");
    let caller = record.session.caller.as_deref().unwrap_or_default();
    // As a label's value, or within an address: the name itself may be a word like "call".
    let named = [format!("\"{caller}\""), format!("{caller}@"), "sip:".to_owned()];
    assert!(!caller.is_empty(), "{record:?}");
    for found in named {
        assert!(!page.body.contains(&found), "{found} in {}", page.body);
    }
    assert!(!page.body.contains(&record.session.uuid));
}
