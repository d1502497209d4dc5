//! What must not work, and says so: each with a clear message, no panic, and the daemon goes on.

use std::{
    fs,
    net::UdpSocket,
    process::{Command, Output},
};

use attendant::child::local_config;
use attendant_tests::{House, program};

fn attendant(args: &[&str]) -> Output {
    Command::new(program("attendant")).args(args).output().unwrap()
}

/// The program fails, and its message has all these words.
fn fails_saying(args: &[&str], wants: &[&str]) {
    let output = attendant(args);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{args:?} should fail");
    assert!(!said.contains("panicked"), "{said}");
    for want in wants {
        assert!(said.contains(want), "{args:?} should mention '{want}': {said}");
    }
}

#[test]
fn a_configuration_that_makes_no_sense_is_refused_with_file_and_key() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("wrong.toml");
    let path = file.to_string_lossy().into_owned();
    for (text, wants) in [
        (
            "profil = \"small\"\n",
            vec!["wrong.toml", "profil", "expected one of"],
        ),
        ("[turn]\npause_ms = 5\n", vec!["wrong.toml", "pause_ms", "40"]),
        ("[sip]\nudp = \"port 5060\"\n", vec!["wrong.toml", "udp"]),
        ("profile = ", vec!["wrong.toml"]),
    ] {
        fs::write(&file, text).unwrap();
        fails_saying(&["serve", "--config", &path], &wants);
        fails_saying(&["config", "check", "--config", &path], &wants);
    }
    fails_saying(
        &["serve", "--config", "/nowhere/attendant.toml"],
        &["/nowhere/attendant.toml"],
    );
}

#[test]
fn a_port_in_use_is_named() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("attendant.toml");
    fs::write(&file, local_config("small", dir.path(), "127.0.0.1", port)).unwrap();
    fails_saying(
        &["serve", "--config", &file.to_string_lossy()],
        &[&port.to_string(), "in use"],
    );
}

#[test]
fn a_model_file_that_is_none_is_refused_and_nothing_is_stored() {
    let dir = tempfile::tempdir().unwrap();
    let models = dir.path().join("models");
    for (name, content, want) in [
        ("cut.gguf", b"GGUF\x03\0\0\0".to_vec(), "cut short"),
        ("music.gguf", b"RIFF....WAVEfmt ".to_vec(), "music.gguf"),
        ("ears.bin", 0x6767_6d6c_u32.to_le_bytes().to_vec(), "ears.bin"),
        ("voice.onnx", vec![0; 64], "voice.onnx"),
    ] {
        let file = dir.path().join(name);
        fs::write(&file, content).unwrap();
        let models = models.to_string_lossy().into_owned();
        fails_saying(
            &["models", "--models-dir", &models, "add", &file.to_string_lossy()],
            &[want],
        );
    }
    let blobs = fs::read_dir(models.join("blobs")).map_or(0, Iterator::count);
    assert_eq!(blobs, 0, "nothing was stored");
}

#[test]
fn missing_models_name_the_command_that_gets_them() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("attendant.toml");
    fs::write(&file, local_config("small", dir.path(), "127.0.0.1", 0)).unwrap();
    let output = Command::new(program("attendant"))
        .args(["serve", "--config", &file.to_string_lossy()])
        .env("ATTENDANT_MODELS_DIR", dir.path().join("models"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && said.contains("attendant models fetch"),
        "{said}"
    );
}

#[test]
fn strangers_and_nonsense_are_refused_and_a_call_still_works() {
    let house = House::start_with(|config| config.replace("127.0.0.0/8", "127.0.0.1/32")).unwrap();
    let invite = |host: &str| {
        format!(
            "INVITE sip:attendant@{to} SIP/2.0\r\nVia: SIP/2.0/UDP {host};branch=z9hG4bKx1;rport\r\n\
             From: <sip:stranger@{host}>;tag=1\r\nTo: <sip:attendant@{to}>\r\nCall-ID: stranger-1@{host}\r\n\
             CSeq: 1 INVITE\r\nMax-Forwards: 70\r\nContact: <sip:stranger@{host}>\r\nContent-Length: 0\r\n\r\n",
            to = house.address()
        )
    };
    let answer = house
        .raw_sip("127.0.0.9", invite("127.0.0.9").as_bytes())
        .unwrap();
    assert_eq!(answer.as_deref(), Some("SIP/2.0 403 Forbidden"));

    // A seeded generator: the same nonsense every time.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let nonsense = UdpSocket::bind("127.0.0.1:0").unwrap();
    for n in 0..300 {
        let mut datagram = invite("127.0.0.1").into_bytes();
        for _ in 0..=next() % 40 {
            let at = next() as usize % datagram.len();
            datagram[at] = next() as u8;
        }
        datagram.truncate(next() as usize % (datagram.len() + 1));
        nonsense.send_to(&datagram, house.address()).unwrap();
        if n % 50 == 0 {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
    let report = house.call(&["--say", "What are your opening hours?"]).unwrap();
    assert!(report["turns"][0]["response_ms"].is_number(), "{report}");
}

#[test]
fn one_call_too_many_is_refused_before_it_is_answered() {
    let house = House::start("[limits]\ncalls = 1\n").unwrap();
    let invite = |number: usize| {
        format!(
            "INVITE sip:attendant@{to} SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1;branch=z9hG4bKbusy{number};rport\r\n\
             From: <sip:second@127.0.0.1>;tag=b{number}\r\nTo: <sip:attendant@{to}>\r\nCall-ID: busy-{number}@test\r\n\
             CSeq: 1 INVITE\r\nMax-Forwards: 70\r\nContact: <sip:second@127.0.0.1>\r\nContent-Length: 0\r\n\r\n",
            to = house.address()
        )
    };
    let report = house
        .call_while(
            &["--no-transcribe", "--say", "What are your opening hours?"],
            || {
                house.wait_for("the call", |record| record.session.started_at_ms.is_some())?;
                let mut waits = Vec::new();
                for number in 0..5 {
                    let (answer, took) = house.final_answer("127.0.0.1", invite(number).as_bytes())?;
                    assert_eq!(answer, "SIP/2.0 486 Busy Here");
                    waits.push(took);
                }
                waits.sort();
                println!("refused within {waits:?}");
                Ok(())
            },
        )
        .unwrap();
    assert!(
        report["turns"][0]["response_ms"].as_f64().is_some(),
        "the first call goes on: {report}"
    );
}
