//! One million damaged messages through everything that reads bytes from the network before a call exists: the check, the
//! gate, the framing of streams, the library's parser and ours for SDP. No panic, and no memory kept.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use rsipstack::dialog::DialogId;
use rsipstack::sip::{HeadersExt, SipMessage, ToTypedHeader as _};
use rsipstack::transaction::endpoint::MessageInspector as _;
use rsipstack::transaction::key::{TransactionKey, TransactionRole};

use crate::gate::{Gate, Judged};
use crate::inspector::Inspector;
use crate::mutate::{Mutator, Shown, resident_kib};
use crate::sdp::Sdp;
use crate::wire::{self, Framing};

/// A debug build is some twenty times slower.
const MESSAGES: u64 = if cfg!(debug_assertions) { 50_000 } else { 1_000_000 };
/// Pools and tables are full by then.
const WARM: u64 = MESSAGES / 10;
/// What the allocator may still shift about \[KiB\]; four bytes kept per message would be more.
const SLACK_KIB: u64 = 2_048;

#[test]
fn a_million_damaged_messages_neither_panic_nor_stay() {
    let mut mutator = Mutator::new(4475);
    let gate = Gate::new(vec!["10.0.0.0/8".parse().unwrap()]);
    let inspector = Inspector::default();
    let (start, mut passed, mut answered, mut described, mut before) = (Instant::now(), 0u64, 0u64, 0u64, 0);
    for n in 0..MESSAGES {
        if n == WARM {
            before = resident_kib();
        }
        let message = mutator.message();
        let _shown = Shown(n, &message);
        let source: IpAddr = if n % 4 == 0 {
            [203, 0, 113, 5]
        } else {
            [10, 0, 0, (n % 200) as u8]
        }
        .into();
        let framing = if n % 2 == 0 {
            Framing::Datagram
        } else {
            Framing::Stream
        };
        // A tenth of a second each: the gate's buckets refill, and its tables forget.
        let now = start + Duration::from_millis(100 * n);
        let _ = wire::frame_length(&message);
        match gate.judge(&message, source, 5060, framing, now) {
            Judged::Pass(bytes) => {
                passed += 1;
                described += u64::from(read(&bytes, &inspector));
            }
            Judged::Reply { response, .. } => {
                answered += 1;
                assert!(
                    SipMessage::try_from(response.as_slice()).is_ok(),
                    "our own answer: {}",
                    response.escape_ascii()
                );
            }
            Judged::Drop => {}
        }
        // What the check would have refused, the library must survive as well: its own connections bypass the gate.
        if let Ok(message) = SipMessage::try_from(message.as_slice()) {
            typed(&message);
        }
    }
    let (after, seconds) = (resident_kib(), start.elapsed().as_secs_f64());
    println!(
        "messages={MESSAGES} passed={passed} answered={answered} sdp={described} rss_kib_before={before} rss_kib_after={after} seconds={seconds:.1}"
    );
    // The mutator has not become so wild that nothing gets through.
    assert!(passed > MESSAGES / 50 && answered > MESSAGES / 20 && described > MESSAGES / 500);
    assert!(
        after <= before + SLACK_KIB,
        "memory grew from {before} to {after} KiB"
    );
}

/// As the library and the call do with a message that has passed; whether it described a session.
fn read(bytes: &[u8], inspector: &Inspector) -> bool {
    let message = SipMessage::try_from(bytes).expect("what passes can be read");
    typed(&message);
    let message = inspector.after_received(message, None);
    let body = match &message {
        SipMessage::Request(request) => request.body.clone(),
        SipMessage::Response(response) => response.body.clone(),
    };
    drop(inspector.before_send(message, None).to_string());
    let Ok(sdp) = Sdp::parse(&body) else { return false };
    for (_, audio, _) in sdp.audio() {
        let _ = (sdp.connection_of(audio), sdp.direction_of(audio));
    }
    let again = Sdp::parse(sdp.to_string().as_bytes());
    assert_eq!(again.as_ref(), Ok(&sdp), "what we write reads the same");
    true
}

/// Every header that somebody looks into.
fn typed(message: &SipMessage) {
    let role = TransactionRole::Server;
    match message {
        SipMessage::Request(request) => {
            let _ = TransactionKey::from_request(request, role);
            let _ = DialogId::try_from((request, role));
            let _ = request.typed_contact_headers();
            headers(request);
        }
        SipMessage::Response(response) => {
            let _ = TransactionKey::from_response(response, TransactionRole::Client);
            let _ = DialogId::try_from((response, TransactionRole::Client));
            headers(response);
        }
    }
}

fn headers(message: &impl HeadersExt) {
    let _ = message.via_header().and_then(|via| via.typed());
    let _ = message.from_header().and_then(|from| from.typed());
    let _ = message.to_header().and_then(|to| to.typed());
    let _ = message.cseq_header().and_then(|cseq| cseq.typed());
    let _ = message.contact_header().and_then(|contact| contact.typed());
}
