//! What the sounds of a line mean: a busy tone ends a call, a machine is not briefed about a caller, the hook is a key, and
//! what was typed is read back.

use std::{
    path::Path,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use attendant_media::{
    Codec, g711,
    rtp::{Header, Packet, SeqNumber},
    tone, wav,
};
use attendant_sip::{DialogEvent, Established, Peer, SipConfig, SipEvent, SrtpPolicy};
use attendant_store::SessionRecord;
use attendant_tests::House;
use attendant_tests::phone::{Behind, Phone};

const SOUNDS: &str = "/usr/share/asterisk/sounds/en";
const RATE: usize = 8_000;
const PATIENT: &str = "[turn]\nstill_there_after_ms = 120000\n";

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn details(record: &SessionRecord, kind: &str) -> Vec<String> {
    let of_kind = record.events.iter().filter(|event| event.kind == kind);
    of_kind
        .map(|event| event.detail.clone().unwrap_or_default())
        .collect()
}

/// Half a second of two tones, half a second of silence, 8 kHz.
fn busy(beats: usize) -> Vec<i16> {
    let mut sound = vec![0; 16_000];
    tone::Tone::new(480.0, 620.0, -18.0).fill(&mut sound[..8_000]);
    let narrow = attendant_media::resample::convert(&sound, 16_000, 8_000);
    narrow.repeat(beats)
}

#[test]
fn a_busy_tone_ends_the_call() {
    let house = House::start(PATIENT).unwrap();
    let mut phone = Phone::call(house.address(), &Behind::Nothing).unwrap();
    phone.listen(seconds(5)).unwrap();
    let began = Instant::now();
    let heard = phone.play(&busy(7)).unwrap();
    assert!(heard.hung_up, "after {:?}: {heard:?}", began.elapsed());
    let record = house.last_session().unwrap();
    assert_eq!(details(&record, "tone"), ["busy"]);
    assert_eq!(record.session.state.as_str(), "completed");
    assert!(record.turns.is_empty(), "the tone was no word: {record:?}");
}

#[test]
fn the_hook_is_a_key_and_typed_digits_are_read_back() {
    let keys = "[[keys]]\ndigit = \"!\"\naction = \"hangup\"\n";
    let house = House::start(&format!("{PATIENT}{keys}")).unwrap();
    let mut phone = Phone::call(house.address(), &Behind::Nothing).unwrap();
    phone.listen(seconds(3)).unwrap();
    for key in [4, 2, 7] {
        phone.press(key).unwrap();
    }
    let heard = phone.listen(seconds(8)).unwrap();
    assert!(heard.voiced > 25 && !heard.hung_up, "{heard:?}");
    phone
        .request("INFO", "Content-Type: application/hook-flash\r\n", "")
        .unwrap();
    let heard = phone.listen(seconds(8)).unwrap();
    assert!(heard.hung_up, "the hook ends the call: {heard:?}");
    let record = house.last_session().unwrap();
    assert_eq!(details(&record, "flash").len(), 1);
    let replies: Vec<&str> = record.turns.iter().map(|turn| turn.reply_text.as_str()).collect();
    assert_eq!(
        replies.first(),
        Some(&"I have 4 2 7. Is that right?"),
        "{record:?}"
    );
    assert_eq!(
        record.session.reason.as_deref(),
        Some("ended by key"),
        "{record:?}"
    );
}

/// Who answers the attendant's call, what is put into the record, and whether the caller is put through.
#[test]
fn a_machine_is_not_told_about_a_caller_and_a_person_is() {
    let machine: &[&str] = &["500", "vm-theperson", "vm-isunavail", "vm-intro", "beep", "20000"];
    let person: &[&str] = &["600", "hello", "20000"];
    for (name, line, through) in [("a machine", machine, false), ("a person", person, true)] {
        let target = Target::start(sound(line));
        let transfer = format!(
            "{PATIENT}[[transfer.target]]\nname = \"office\"\nuri = \"{}\"\nbriefing = \"spoken\"\n\
             [[keys]]\ndigit = \"0\"\naction = \"transfer\"\ntarget = \"office\"\n",
            target.uri
        );
        let house = House::start(&transfer).unwrap();
        let mut phone = Phone::call(house.address(), &Behind::Nothing).unwrap();
        phone.listen(seconds(3)).unwrap();
        phone.press(0).unwrap();
        let referred = phone.transferred(seconds(25));
        assert_eq!(referred.is_ok(), through, "{name}: {referred:?}");
        if !through {
            let heard = phone.listen(seconds(5)).unwrap();
            assert!(!heard.hung_up, "the caller is back: {heard:?}");
            phone.request("BYE", "", "").unwrap();
        } else {
            phone.listen(seconds(3)).unwrap();
        }
        let record = house.last_session().unwrap();
        assert_eq!(details(&record, "answered"), [name], "{record:?}");
        if through {
            assert_eq!(details(&record, "transfer_answered").len(), 1, "{record:?}");
        } else {
            assert_eq!(
                details(&record, "transfer_failed"),
                ["heard there: a machine"],
                "{record:?}"
            );
        }
        drop(house);
        let voiced = target.stop();
        if through {
            assert!(voiced > 50, "the person was told: {voiced} packets");
        } else {
            assert!(voiced < 10, "the machine was told nothing: {voiced} packets");
        }
    }
}

/// Prompts one after the other, 8 kHz; a number is a silence [ms].
fn sound(parts: &[&str]) -> Vec<i16> {
    let mut samples = Vec::new();
    for part in parts {
        if let Ok(ms) = part.parse::<usize>() {
            samples.extend(std::iter::repeat_n(0, ms * RATE / 1_000));
            continue;
        }
        let prompt = wav::read(&Path::new(SOUNDS).join(format!("{part}.wav")))
            .unwrap_or_else(|e| panic!("{e}\nthis test needs: apt-get install asterisk-core-sounds-en-wav"));
        assert_eq!(prompt.rate as usize, RATE);
        samples.extend(prompt.samples);
    }
    samples
}

/// Whoever is to take over: a line of ours that answers the first call and plays a sound.
struct Target {
    uri: String,
    heard: JoinHandle<u32>,
}

impl Target {
    fn start(sound: Vec<i16>) -> Target {
        let (ready, uri) = std::sync::mpsc::channel();
        let heard = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let config = SipConfig {
                    udp: Some(([127, 0, 0, 1], 0).into()),
                    peers: vec![Peer {
                        name: "the attendant".into(),
                        net: "127.0.0.0/8".parse().unwrap(),
                        srtp: SrtpPolicy::Offered,
                    }],
                    codecs: vec![Codec::Pcmu],
                    rtp_ports: (28_000, 28_199),
                    ..SipConfig::default()
                };
                let (sip, mut events) = attendant_sip::start(config).await.unwrap();
                let (_, address) = sip.local_addrs()[0];
                ready.send(format!("sip:office@{address}")).unwrap();
                let call = loop {
                    match events.recv().await {
                        Some(SipEvent::Incoming(call)) => break call.answer().await.unwrap(),
                        Some(SipEvent::Registration { .. }) => {}
                        None => panic!("nobody called"),
                    }
                };
                let voiced = converse(call, &sound).await;
                sip.shutdown().await;
                voiced
            })
        });
        let uri = uri.recv().unwrap();
        Target { uri, heard }
    }

    /// Packets with sound that it heard.
    fn stop(self) -> u32 {
        self.heard.join().unwrap()
    }
}

/// Plays, and counts what comes, until the other end hangs up or the sound is over.
async fn converse(mut call: Established, sound: &[i16]) -> u32 {
    call.socket.set_nonblocking(true).unwrap();
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    let mut voiced = 0;
    let mut wire = [0; 1_500];
    for (n, chunk) in sound.chunks(160).enumerate() {
        tokio::select! {
            _ = ticks.tick() => {}
            event = call.events.recv() => match event {
                None | Some(DialogEvent::Bye | DialogEvent::Failed(_)) => return voiced,
                Some(_) => {}
            },
        }
        let payload: Vec<u8> = chunk.iter().map(|sample| g711::ulaw_encode(*sample)).collect();
        let header = Header {
            marker: n == 0,
            payload_type: 0,
            seq: SeqNumber(n as u16),
            timestamp: n as u32 * 160,
            ssrc: 0x7a,
        };
        let packet = Packet {
            header,
            payload: &payload,
        };
        let octets = packet.write(&mut wire).unwrap();
        let _ = call.socket.send_to(&wire[..octets], call.media.stream.remote);
        while let Ok((length, _)) = call.socket.recv_from(&mut wire) {
            if let Ok(packet) = Packet::parse(&wire[..length]) {
                // µ-law codes are loud where their low bits are small.
                let loud = packet.payload.iter().any(|code| (code & 0x7f) < 0x50);
                voiced += u32::from(loud);
            }
        }
    }
    voiced
}
