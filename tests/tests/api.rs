//! The API of the real daemon: many at once, what each may see, what is refused and how, speech, streams, live events.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use attendant_store::{State, Store};
use attendant_tests::{
    House,
    http::{Answer, Client},
    program,
};
use serde_json::{Value, json};

const OFTEN: &str = "\n[api]\nrequests_per_minute = 100000\nrefused_per_minute = 100000\n";
/// "Which folder should I save the message to?", 8 kHz, from Debian's asterisk-core-sounds-en-wav.
const HUMAN: &str = "/usr/share/asterisk/sounds/en_US_f_Allison/vm-savefolder.wav";
const PROBLEM: &str = "application/problem+json";

fn token(house: &House, args: &[&str]) -> String {
    let output = Command::new(program("attendant"))
        .args(["token", "create", "--data-dir"])
        .arg(house.data_dir())
        .args(args)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn admin(house: &House) -> Client {
    Client::new(
        &house.daemon.admin,
        &token(house, &["--role", "admin", "the test"]),
    )
}

/// All at once; the answers in any order.
fn at_once(count: usize, ask: impl Fn(usize) -> Answer + Sync) -> Vec<(Answer, Duration)> {
    let start = std::sync::Barrier::new(count);
    thread::scope(|scope| {
        let asked: Vec<_> = (0..count)
            .map(|number| {
                let (ask, start) = (&ask, &start);
                scope.spawn(move || {
                    start.wait();
                    let begun = Instant::now();
                    (ask(number), begun.elapsed())
                })
            })
            .collect();
        asked.into_iter().map(|one| one.join().unwrap()).collect()
    })
}

/// A session in progress.
fn started(client: &Client, case: &str) -> String {
    let made = client
        .post(
            "/api/v1/sessions",
            &json!({ "case": case, "caller": "+15550142" }),
        )
        .unwrap();
    assert_eq!(made.status, 201, "{}", made.json());
    let id = made.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(
        made.header("location"),
        Some(format!("/api/v1/sessions/{id}").as_str())
    );
    let context = json!({ "context": "The caller is a regular customer." });
    for (step, body) in [("prepare", context), ("start", json!({}))] {
        let answer = client
            .post(&format!("/api/v1/sessions/{id}/{step}"), &body)
            .unwrap();
        assert_eq!(answer.status, 200, "{step}: {}", answer.json());
    }
    id
}

fn base64(octets: &[u8]) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in octets.chunks(3) {
        let mut padded = [0; 3];
        padded[..three.len()].copy_from_slice(three);
        let bits = u32::from_be_bytes([0, padded[0], padded[1], padded[2]]);
        for digit in 0..4 {
            let value = (bits >> (18 - 6 * digit)) & 63;
            text.push(if digit <= three.len() {
                char::from(DIGITS[value as usize])
            } else {
                '='
            });
        }
    }
    text
}

#[test]
fn a_hundred_at_once_make_one_session_and_a_hundred_turns() {
    let house = House::start(OFTEN).unwrap();
    let client = admin(&house);
    let made = at_once(100, |_| {
        client
            .post("/api/v1/sessions", &json!({ "case": "order 17" }))
            .unwrap()
    });
    let ids: BTreeSet<String> = made.iter().map(|(a, _)| a.json()["id"].to_string()).collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    let statuses = |status| made.iter().filter(|(a, _)| a.status == status).count();
    assert_eq!((statuses(201), statuses(200)), (1, 99));

    // The same request a hundred times, by its key.
    let body = json!({ "line": "keyed" }).to_string();
    let headers = [
        ("Content-Type", "application/json"),
        ("Idempotency-Key", "one-and-the-same"),
    ];
    let keyed = at_once(100, |_| {
        client
            .ask("POST", "/api/v1/sessions", &headers, body.as_bytes())
            .unwrap()
    });
    let ids: BTreeSet<String> = keyed
        .iter()
        .map(|(a, _)| format!("{} {}", a.status, a.json()["id"]))
        .collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    let replayed = keyed
        .iter()
        .filter(|(a, _)| a.header("idempotency-replayed").is_some())
        .count();
    assert_eq!(replayed, 99);

    let id = started(&client, "order 18");
    let path = format!("/api/v1/sessions/{id}/turns");
    let taken = at_once(100, |n| {
        client
            .post(
                &path,
                &json!({ "caller_text": format!("Question {n}?"), "reply_text": "Yes." }),
            )
            .unwrap()
    });
    let numbers: BTreeSet<u64> = taken
        .iter()
        .filter_map(|(a, _)| a.json()["number"].as_u64())
        .collect();
    assert_eq!(numbers, (1..=100).collect(), "every number once");
    // Page by page.
    let mut seen = Vec::new();
    let mut after = 0;
    loop {
        let page = client
            .get(&format!("/api/v1/calls/{id}/turns?limit=30&after={after}"))
            .unwrap()
            .json();
        seen.extend(
            page["turns"]
                .as_array()
                .unwrap()
                .iter()
                .map(|turn| turn["number"].as_u64().unwrap()),
        );
        match page["next"].as_u64() {
            Some(next) => after = next,
            None => break,
        }
    }
    assert_eq!(seen, (1..=100).collect::<Vec<_>>());

    let store = Store::open_read_only(house.data_dir()).unwrap();
    assert_eq!(store.list_sessions(10, None).unwrap().len(), 3);
    assert!(store.verify(None).unwrap().is_sound());
}

#[test]
fn fifty_first_packets_make_one_call_and_its_recording() {
    let house = House::start(OFTEN).unwrap();
    let client = admin(&house);
    // 100 ms of a tone each.
    let sound: Vec<u8> = (0..1_600_u32)
        .flat_map(|n| (if n % 40 < 20 { 6_000_i16 } else { -6_000 }).to_le_bytes())
        .collect();
    let sound = base64(&sound);
    let packet = |number: usize| json!({ "number": number, "audio": sound });
    let path = "/api/v1/call/stream/call-1";
    let firsts = at_once(50, |n| client.post(path, &packet(n + 1)).unwrap());
    for (answer, _) in &firsts {
        assert_eq!(answer.status, 200, "{}", answer.json());
    }
    let sessions: BTreeSet<String> = firsts
        .iter()
        .map(|(a, _)| a.json()["call"]["session"].to_string())
        .collect();
    assert_eq!(sessions.len(), 1, "{sessions:?}");
    let slowest = firsts.iter().map(|(_, took)| *took).max().unwrap();
    println!("slowest of 50 first packets at once: {slowest:?}");

    // A duplicate, a gap, and the pace of one after the other.
    let again = client.post(path, &packet(7)).unwrap().json();
    assert_eq!(
        (again["duplicate"].as_bool(), again["call"]["packets"].as_u64()),
        (Some(true), Some(50))
    );
    let mut times: Vec<Duration> = (61..=100)
        .rev()
        .map(|number| {
            let begun = Instant::now();
            assert_eq!(client.post(path, &packet(number)).unwrap().status, 200);
            begun.elapsed()
        })
        .collect();
    times.sort_unstable();
    println!(
        "one packet after the other: p50 {:?}, p95 {:?}",
        times[20], times[38]
    );

    let call = client.post("/api/v1/call/call-1/end", &json!({})).unwrap().json();
    assert_eq!(
        (&call["state"], &call["missing"], &call["duplicates"]),
        (&json!("processing"), &json!(10), &json!(1))
    );
    let until = Instant::now() + Duration::from_secs(20);
    let call = loop {
        let call = client.get("/api/v1/call/call-1").unwrap().json();
        if call["state"] != "processing" || Instant::now() > until {
            break call;
        }
        thread::sleep(Duration::from_millis(200));
    };
    assert_eq!(call["state"], "completed", "{call}");
    let late = client.post(path, &packet(101)).unwrap();
    assert_eq!(
        (late.status, &late.json()["type"]),
        (409, &json!("urn:attendant:problem:stream-ended"))
    );

    // Ten seconds, gap included; in parts and as a whole the same.
    let session = call["session"].as_str().unwrap();
    let recordings = client
        .get(&format!("/api/v1/calls/{session}/recordings"))
        .unwrap()
        .json();
    let recording = &recordings["recordings"][0];
    assert_eq!(
        (&recording["length_ms"], &recording["whole"]),
        (&json!(10_000), &json!(true)),
        "{recording}"
    );
    let audio = format!("/api/v1/recordings/{}/audio", recording["id"].as_str().unwrap());
    let whole = client.get(&audio).unwrap();
    assert_eq!(
        (whole.status, whole.header("content-type")),
        (200, Some("audio/flac"))
    );
    assert!(whole.body.starts_with(b"fLaC"));
    let length = whole.body.len();
    for (range, part) in [
        ("bytes=0-99".to_owned(), &whole.body[..100]),
        (
            format!("bytes={}-", length - 1_000),
            &whole.body[length - 1_000..],
        ),
        (
            "bytes=1000-50000".to_owned(),
            &whole.body[1_000..50_001.min(length)],
        ),
    ] {
        let answer = client.ask("GET", &audio, &[("Range", &range)], b"").unwrap();
        assert_eq!((answer.status, answer.body.as_slice()), (206, part), "{range}");
    }
    let beyond = client
        .ask("GET", &audio, &[("Range", "bytes=99999999-")], b"")
        .unwrap();
    assert_eq!(
        (beyond.status, beyond.header("content-range")),
        (416, Some(format!("bytes */{length}").as_str()))
    );
    let store = Store::open_read_only(house.data_dir()).unwrap();
    assert!(store.verify(None).unwrap().is_sound());
}

#[test]
fn who_may_not_is_told_so_in_one_form() {
    let house = House::start(OFTEN).unwrap();
    let admin = admin(&house);
    let with = |name: &str, args: &[&str]| admin.with(&token(&house, &[args, &[name]].concat()));
    let supervisor = with("watcher", &["--role", "supervisor"]);
    let auditor = with("auditor", &["--role", "auditor"]);
    let agent = with("agent", &["--role", "agent", "--own"]);
    let shop = with("shop", &["--role", "agent", "--case-prefix", "shop/"]);
    let mine = started(&agent, "a");
    let theirs = started(&shop, "shop/1");
    let create = json!({ "case": "b" });
    let refusals: Vec<(u16, Answer)> = vec![
        (401, admin.with("").get("/api/v1/calls").unwrap()),
        (401, admin.with("att_0000").get("/api/v1/calls").unwrap()),
        (401, admin.with("").get("/api/v1/nothing").unwrap()),
        (403, supervisor.post("/api/v1/sessions", &create).unwrap()),
        (403, auditor.post("/api/v1/sessions", &create).unwrap()),
        (403, shop.post("/api/v1/sessions", &create).unwrap()),
        (403, agent.get("/api/v1/audit").unwrap()),
        (403, supervisor.get("/api/v1/audit").unwrap()),
        (404, agent.get(&format!("/api/v1/sessions/{theirs}")).unwrap()),
        (404, shop.get(&format!("/api/v1/calls/{mine}/turns")).unwrap()),
        (
            404,
            admin
                .get("/api/v1/sessions/00000000-0000-0000-0000-000000000000")
                .unwrap(),
        ),
        (404, admin.get("/api/v1/nothing").unwrap()),
        (405, admin.ask("DELETE", "/api/v1/sessions", &[], b"").unwrap()),
        (
            409,
            admin
                .post(&format!("/api/v1/sessions/{mine}/start"), &json!({}))
                .unwrap(),
        ),
        (400, admin.get("/api/v1/calls?limit=0").unwrap()),
        (400, admin.get("/api/v1/calls?unknown=1").unwrap()),
        (400, admin.get("/api/v1/calls?cursor=x").unwrap()),
        (
            400,
            admin
                .ask(
                    "POST",
                    "/api/v1/sessions",
                    &[("Content-Type", "application/json")],
                    b"{",
                )
                .unwrap(),
        ),
        (
            415,
            admin
                .ask(
                    "POST",
                    "/api/v1/sessions",
                    &[("Content-Type", "text/plain")],
                    b"{}",
                )
                .unwrap(),
        ),
        (
            422,
            admin
                .post("/api/v1/sessions", &json!({ "max_turns": 0 }))
                .unwrap(),
        ),
        (
            422,
            admin
                .post("/api/v1/sessions", &json!({ "colour": "red" }))
                .unwrap(),
        ),
        (
            413,
            admin
                .ask(
                    "POST",
                    "/api/v1/sessions",
                    &[("Content-Type", "application/json")],
                    &vec![b' '; (3 << 20) + 1],
                )
                .unwrap(),
        ),
    ];
    for (number, (status, answer)) in refusals.iter().enumerate() {
        let problem = answer.json();
        assert_eq!(answer.status, *status, "{number}: {problem}");
        assert_eq!(
            answer.header("content-type"),
            Some(PROBLEM),
            "{number}: {problem}"
        );
        assert_eq!(problem["status"], *status, "{number}: {problem}");
        for field in ["type", "title", "detail"] {
            assert!(
                problem[field].as_str().is_some_and(|text| !text.is_empty()),
                "{number}: {problem}"
            );
        }
        assert!(answer.header("x-request-id").is_some(), "{number}");
    }
    let allow = |answer: &Answer| answer.header("allow").map(str::to_owned);
    assert_eq!(allow(&refusals[12].1).as_deref(), Some("POST"));
    assert_eq!(refusals[0].1.header("www-authenticate"), Some("Bearer"));

    // What may be, is.
    assert_eq!(
        agent.get("/api/v1/calls").unwrap().json()["calls"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(
        supervisor.get("/api/v1/calls").unwrap().json()["calls"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    assert!(
        !auditor.get("/api/v1/audit?limit=5").unwrap().json()["entries"]
            .as_array()
            .unwrap()
            .is_empty()
    );
    assert!(
        String::from_utf8_lossy(&auditor.get("/api/v1/audit/checkpoint").unwrap().body).contains("signature")
    );
    let named = admin
        .ask("GET", "/api/v1/calls", &[("X-Request-Id", "my-own.name_1")], b"")
        .unwrap();
    assert_eq!(named.header("x-request-id"), Some("my-own.name_1"));

    // The end, once; and another try.
    let end = |body: Value| {
        admin
            .post(&format!("/api/v1/sessions/{mine}/end"), &body)
            .unwrap()
    };
    assert_eq!(
        end(json!({ "outcome": "terminated", "reason": "a test" })).json()["state"],
        "terminated"
    );
    assert_eq!(end(json!({ "outcome": "completed" })).status, 409);
    assert_eq!(
        agent
            .post(&format!("/api/v1/sessions/{mine}/retry"), &json!({}))
            .unwrap()
            .status,
        201
    );
    assert_eq!(
        agent
            .post(&format!("/api/v1/sessions/{mine}/retry"), &json!({}))
            .unwrap()
            .status,
        409
    );

    // A key of another request; a token that was revoked.
    let keyed = |body: &str| {
        let headers = [("Content-Type", "application/json"), ("Idempotency-Key", "k")];
        admin
            .ask("POST", "/api/v1/sessions", &headers, body.as_bytes())
            .unwrap()
    };
    assert_eq!(
        (keyed("{\"case\":\"x\"}").status, keyed("{\"case\":\"y\"}").status),
        (201, 409)
    );
    let revoked = Command::new(program("attendant"))
        .args(["token", "revoke", "--data-dir"])
        .arg(house.data_dir())
        .arg("agent")
        .status()
        .unwrap();
    assert!(revoked.success());
    assert_eq!(agent.get("/api/v1/calls").unwrap().status, 401);
    // Nowhere on the disk stands a token.
    for entry in fs::read_dir(house.data_dir()).unwrap().flatten() {
        let octets = fs::read(entry.path()).unwrap_or_default();
        let known = admin.token.as_bytes();
        assert!(
            !octets.windows(known.len()).any(|part| part == known),
            "{entry:?}"
        );
    }
}

#[test]
fn too_often_is_too_often() {
    let house = House::start("\n[api]\nrequests_per_minute = 20\nrefused_per_minute = 5\n").unwrap();
    let client = admin(&house);
    let statuses: Vec<u16> = (0..22)
        .map(|_| client.get("/api/v1/calls").unwrap().status)
        .collect();
    assert!(statuses[..20].iter().all(|status| *status == 200), "{statuses:?}");
    let refused = client.get("/api/v1/calls").unwrap();
    assert_eq!(refused.status, 429);
    assert!(
        refused
            .header("retry-after")
            .is_some_and(|s| s.parse::<u32>().is_ok())
    );
    let stranger = client.with("");
    let statuses: Vec<u16> = (0..6)
        .map(|_| stranger.get("/api/v1/calls").unwrap().status)
        .collect();
    assert_eq!(statuses, [401, 401, 401, 401, 401, 429]);
}

#[test]
fn speech_in_is_text_and_speech_out() {
    let house = House::start(OFTEN).unwrap();
    let client = admin(&house);
    let id = started(&client, "talk");
    let path = format!("/api/v1/sessions/{id}/speech");
    let wav = fs::read(HUMAN).expect("run scripts/setup.sh test");
    let say = |body: &[u8]| {
        client
            .ask("POST", &path, &[("Content-Type", "audio/wav")], body)
            .unwrap()
    };
    let answer = say(&wav);
    let spoken = answer.json();
    assert_eq!(answer.status, 200, "{spoken}");
    println!(
        "answered in {} ms, of which {} ms heard",
        spoken["total_ms"], spoken["stt_ms"]
    );
    assert_eq!(
        (&spoken["heard_as"], &spoken["turn"]),
        (&json!("speech"), &json!(1)),
        "{spoken}"
    );
    let heard = spoken["caller_text"].as_str().unwrap().to_lowercase();
    assert!(heard.contains("folder") && heard.contains("message"), "{heard}");
    assert!(!spoken["reply_text"].as_str().unwrap().is_empty());
    let audio = spoken["audio"].as_str().unwrap();
    assert!(
        audio.starts_with("UklGR") && audio.len() > 16_000,
        "a RIFF file of more than a moment"
    );
    assert!(spoken["remaining_s"].as_u64().is_some_and(|left| left > 1_700));
    // Silence is no turn.
    let silence = attendant_media::wav::to_bytes(16_000, &vec![0; 16_000]);
    assert_eq!(say(&silence).json()["heard_as"], "nothing");
    let turns = client.get(&format!("/api/v1/calls/{id}/turns")).unwrap().json();
    assert_eq!(turns["turns"].as_array().unwrap().len(), 1);
    for (status, body) in [
        (422, b"no WAV at all".to_vec()),
        (422, attendant_media::wav::to_bytes(8_000, &vec![0; 8_000 * 30])),
        (413, vec![0; 10_000_001]),
    ] {
        assert_eq!(say(&body).status, status);
    }
    let wrong = client
        .ask("POST", &path, &[("Content-Type", "audio/mpeg")], &wav)
        .unwrap();
    assert_eq!(wrong.status, 415);
    assert_eq!(
        client
            .post(
                &format!("/api/v1/sessions/{id}/end"),
                &json!({ "outcome": "completed" })
            )
            .unwrap()
            .status,
        200
    );
    assert_eq!(say(&wav).status, 409, "ended");
    let record = house.last_session().unwrap();
    assert_eq!((record.session.state, record.turns.len()), (State::Completed, 1));
}

#[test]
fn the_timebox_warns_and_ends() {
    let house = House::start(&format!(
        "{OFTEN}\n[turn]\ntimebox_s = 4\ntimebox_warnings_s = [3, 1]\n"
    ))
    .unwrap();
    let client = admin(&house);
    let id = started(&client, "short");
    let record = house.last_session().unwrap();
    assert_eq!(
        (record.session.state, record.session.reason.as_deref()),
        (State::Terminated, Some("timebox"))
    );
    let lasted = record.session.duration_ms().unwrap();
    assert!((3_500..6_000).contains(&lasted), "{lasted} ms");
    let events = client.get(&format!("/api/v1/calls/{id}/events")).unwrap().json();
    let warnings = events["events"].as_array().unwrap().iter();
    assert_eq!(
        warnings
            .filter(|event| event["kind"] == "timebox_warning")
            .count(),
        2,
        "{events}"
    );
}

#[test]
fn what_happens_is_told_as_it_happens() {
    // A system that takes what it is told, but for the first time.
    let system = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hook", system.local_addr().unwrap());
    let hook = format!(
        "{OFTEN}\n[[api.webhook]]\nurl = \"{url}\"\nsecret = \"a secret of the test\"\nkinds = [\"session\", \"turn\"]\n"
    );
    let house = House::start(&hook).unwrap();
    let client = admin(&house);
    let told = thread::spawn(move || {
        let mut deliveries = Vec::new();
        for (number, stream) in system.incoming().take(2).enumerate() {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let (mut headers, mut line) = (Vec::new(), String::new());
            while reader.read_line(&mut line).unwrap() > 2 {
                headers.push(line.trim().to_owned());
                line.clear();
            }
            let length = headers
                .iter()
                .find_map(|h| h.strip_prefix("Content-Length: "))
                .unwrap()
                .parse()
                .unwrap();
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let status = if number == 0 { "503 Not Now" } else { "204 Taken" };
            write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").unwrap();
            deliveries.push((headers, body));
        }
        deliveries
    });
    let watching = client.send("GET", "/api/v1/events", &[], b"").unwrap();
    thread::sleep(Duration::from_millis(300));
    let id = started(&client, "told");
    let mut kinds = Vec::new();
    for line in BufReader::new(watching).lines() {
        let line = line.unwrap();
        if let Some(data) = line.strip_prefix("data: ") {
            let entry: Value = serde_json::from_str(data).unwrap();
            assert!(!data.contains("15550142"), "no numbers in {data}");
            if entry["session"] == json!(id) {
                kinds.push(entry["kind"].as_str().unwrap().to_owned());
            }
            if kinds.len() == 4 {
                break;
            }
        }
    }
    assert_eq!(kinds, ["session", "context", "session", "session"]);
    let deliveries = told.join().unwrap();
    let named = |headers: &[String], name: &str| {
        headers
            .iter()
            .find_map(|h| h.strip_prefix(name))
            .map(str::to_owned)
    };
    let delivery = |n: usize| named(&deliveries[n].0, "X-Attendant-Delivery: ");
    assert_eq!(delivery(0), delivery(1), "refused, and told again");
    for (headers, body) in &deliveries {
        let body = String::from_utf8(body.clone()).unwrap();
        let at = named(headers, "X-Attendant-Timestamp: ").unwrap();
        let signed = named(headers, "X-Attendant-Signature: sha256=").unwrap();
        let mut openssl = Command::new("openssl")
            .args(["dgst", "-sha256", "-hmac", "a secret of the test"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("openssl");
        openssl
            .stdin
            .take()
            .unwrap()
            .write_all(format!("{at}.{body}").as_bytes())
            .unwrap();
        let said = openssl.wait_with_output().unwrap();
        assert!(
            String::from_utf8_lossy(&said.stdout).contains(&signed),
            "another program agrees with {signed}"
        );
        assert!(body.contains(&id) && !body.contains("15550142"), "{body}");
    }
}
