//! A seeded mutator of SIP messages: the same seed makes the same messages.
//!
//! Starts from the torture messages of RFC 4475 and RFC 5118 and from the messages of a normal call, and damages each in
//! one to eight places, so that what comes out is often nearly right: that is where parsers fail.

#![allow(dead_code)]

use std::path::Path;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

/// No message grows beyond this \[bytes\]; a little more than the endpoint takes.
const LONGEST: usize = 9_000;

/// Pieces that have broken a SIP parser somewhere.
const PIECES: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r",
    b"\r\n\r\n",
    b"\r\n ",
    b"\r\n\t",
    b";",
    b",",
    b":",
    b"::",
    b"\"",
    b"\\",
    b"\\\"",
    b"<",
    b">",
    b"<>",
    b"@",
    b"%",
    b"%00",
    b"%0d%0a",
    b"[",
    b"]",
    b"[::1]",
    b"[2001:db8:::1]",
    b"0",
    b"-1",
    b"4294967296",
    b"99999999999999999999999999",
    b"65536",
    b"\0",
    b"\xff\xfe",
    b"\xc3",
    b"\xc3\xbc",
    b"\xf0\x9f\x93\x9e",
    b"SIP/2.0",
    b"SIP/2.0/UDP",
    b"INVITE",
    b"ACK",
    b"z9hG4bK",
    b";branch=",
    b";tag=",
    b";rport",
    b";received=",
    b";maddr=255.255.255.255",
    b";ttl=",
    b"sip:",
    b"sips:",
    b"tel:",
    b"Via: ",
    b"v:",
    b"Content-Length: ",
    b"l:",
    b"Require: 100rel\r\n",
    b"Route: <sip:127.0.0.1;lr>\r\n",
    b"Record-Route: <sip:127.0.0.1;lr>\r\n",
    b"Replaces: x;to-tag=1;from-tag=2\r\n",
    b"Refer-To: <sip:x@y>\r\n",
    b"Session-Expires: 1\r\n",
    b"RAck: 1 1 INVITE\r\n",
    b"m=audio 0 RTP/AVP 0\r\n",
    b"a=rtpmap:0 ",
    b"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:",
    b"c=IN IP6 ::",
    b"a=ptime:0\r\n",
    b"a=fmtp:101 ",
    b"Digest realm=\"",
    b", nonce=\"\"",
    b"algorithm=SHA-256",
    b"                                        ",
];

/// What a normal call consists of, and what surrounds it.
const NORMAL: &[&str] = &[
    "INVITE sip:100@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:5070;branch=z9hG4bK1;rport\r\nFrom: \"X\" <sip:x@127.0.0.1>;tag=1\r\nTo: <sip:100@127.0.0.1>\r\nCall-ID: c1\r\nCSeq: 1 INVITE\r\nContact: <sip:x@127.0.0.1:5070>\r\nMax-Forwards: 70\r\nSupported: timer, 100rel, replaces\r\nSession-Expires: 1800;refresher=uac\r\nMin-SE: 90\r\nAllow: INVITE, ACK, BYE, CANCEL, OPTIONS, PRACK, UPDATE, REFER\r\nContent-Type: application/sdp\r\nContent-Length: 333\r\n\r\nv=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 9000 RTP/SAVP 9 0 8 96 13 101\r\na=rtpmap:9 G722/8000\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:96 opus/48000/2\r\na=fmtp:96 useinbandfec=1\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\na=ptime:20\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz\r\na=sendrecv\r\n",
    "ACK sip:100@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:5070;branch=z9hG4bK2;rport\r\nFrom: <sip:x@127.0.0.1>;tag=1\r\nTo: <sip:100@127.0.0.1>;tag=2\r\nCall-ID: c1\r\nCSeq: 1 ACK\r\nContent-Length: 0\r\n\r\n",
    "PRACK sip:100@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/TCP 127.0.0.1:5070;branch=z9hG4bK3\r\nFrom: <sip:x@127.0.0.1>;tag=1\r\nTo: <sip:100@127.0.0.1>;tag=2\r\nCall-ID: c1\r\nCSeq: 2 PRACK\r\nRAck: 1 1 INVITE\r\nContent-Length: 0\r\n\r\n",
    "REFER sip:100@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:5070;branch=z9hG4bK4;rport\r\nFrom: <sip:x@127.0.0.1>;tag=1\r\nTo: <sip:100@127.0.0.1>;tag=2\r\nCall-ID: c1\r\nCSeq: 3 REFER\r\nContact: <sip:x@127.0.0.1>\r\nRefer-To: <sip:y@127.0.0.1?Replaces=a%3Bto-tag%3Db%3Bfrom-tag%3Dc>\r\nReferred-By: <sip:x@127.0.0.1>\r\nContent-Length: 0\r\n\r\n",
    "NOTIFY sip:100@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:5070;branch=z9hG4bK5;rport\r\nFrom: <sip:x@127.0.0.1>;tag=1\r\nTo: <sip:100@127.0.0.1>;tag=2\r\nCall-ID: c1\r\nCSeq: 4 NOTIFY\r\nEvent: refer\r\nSubscription-State: terminated;reason=noresource\r\nContent-Type: message/sipfrag\r\nContent-Length: 16\r\n\r\nSIP/2.0 200 OK\r\n",
    "INFO sip:100@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:5070;branch=z9hG4bK6;rport\r\nFrom: <sip:x@127.0.0.1>;tag=1\r\nTo: <sip:100@127.0.0.1>;tag=2\r\nCall-ID: c1\r\nCSeq: 5 INFO\r\nContent-Type: application/dtmf-relay\r\nContent-Length: 24\r\n\r\nSignal=5\r\nDuration=160\r\n",
    "BYE sip:100@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:5070;branch=z9hG4bK7;rport\r\nFrom: <sip:x@127.0.0.1>;tag=1\r\nTo: <sip:100@127.0.0.1>;tag=2\r\nCall-ID: c1\r\nCSeq: 6 BYE\r\nReason: Q.850;cause=16\r\nContent-Length: 0\r\n\r\n",
    "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 127.0.0.1:5060;branch=z9hG4bK8;rport=5060;received=127.0.0.1\r\nFrom: <sip:100@127.0.0.1>;tag=1\r\nTo: <sip:x@127.0.0.1>;tag=2\r\nCall-ID: c2\r\nCSeq: 1 INVITE\r\nContact: <sip:x@127.0.0.1:5070>\r\nRequire: timer\r\nSession-Expires: 90;refresher=uas\r\nContent-Type: application/sdp\r\nContent-Length: 117\r\n\r\nv=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\nm=audio 9000 RTP/AVP 8 101\r\na=inactive\r\na=rtpmap:8 PCMA/8000\r\n",
    "SIP/2.0 401 Unauthorized\r\nVia: SIP/2.0/UDP 127.0.0.1:5060;branch=z9hG4bK9\r\nFrom: <sip:100@127.0.0.1>;tag=1\r\nTo: <sip:100@127.0.0.1>;tag=2\r\nCall-ID: c3\r\nCSeq: 1 REGISTER\r\nWWW-Authenticate: Digest realm=\"a\", nonce=\"b\", algorithm=SHA-256, qop=\"auth\"\r\nWWW-Authenticate: Digest realm=\"a\", nonce=\"b\", algorithm=MD5, qop=\"auth,auth-int\", stale=false\r\nContent-Length: 0\r\n\r\n",
];

/// Makes damaged messages for ever.
pub struct Mutator {
    random: StdRng,
    seeds: Vec<Vec<u8>>,
}

impl Mutator {
    /// # Panics
    /// When the torture messages are not there.
    pub fn new(seed: u64) -> Mutator {
        let torture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/torture");
        let mut seeds: Vec<Vec<u8>> = NORMAL.iter().map(|text| text.as_bytes().to_vec()).collect();
        for rfc in ["rfc4475", "rfc5118"] {
            let mut files: Vec<_> = std::fs::read_dir(torture.join(rfc))
                .expect("the torture messages")
                .map(|entry| entry.unwrap().path())
                .collect();
            files.sort();
            seeds.extend(files.iter().map(|file| std::fs::read(file).unwrap()));
        }
        assert_eq!(seeds.len(), NORMAL.len() + 50 + 12);
        Mutator {
            random: StdRng::seed_from_u64(seed),
            seeds,
        }
    }

    /// The next message.
    pub fn message(&mut self) -> Vec<u8> {
        let mut message = self.seed();
        for _ in 0..self.random.random_range(1..=8) {
            self.damage(&mut message);
        }
        message.truncate(LONGEST);
        message
    }

    fn seed(&mut self) -> Vec<u8> {
        let at = self.random.random_range(0..self.seeds.len());
        self.seeds[at].clone()
    }

    fn damage(&mut self, message: &mut Vec<u8>) {
        if message.is_empty() {
            *message = self.seed();
        }
        let at = self.random.random_range(0..message.len());
        let end = (at + self.random.random_range(1..40usize)).min(message.len());
        match self.random.random_range(0..11) {
            0 => message[at] ^= 1 << self.random.random_range(0..8),
            1 => message[at] = self.random.random(),
            2 => drop(message.drain(at..end)),
            3 => {
                let piece = message[at..end].to_vec();
                message.splice(at..at, piece);
            }
            4 | 5 => {
                let piece = PIECES[self.random.random_range(0..PIECES.len())];
                message.splice(at..at, piece.iter().copied());
            }
            6 => {
                let piece = PIECES[self.random.random_range(0..PIECES.len())];
                message.splice(at..end, piece.iter().copied());
            }
            7 => message.truncate(at),
            8 => {
                // A line of another message, or a line twice.
                let other = self.seed();
                let lines: Vec<&[u8]> = other.split_inclusive(|b| *b == b'\n').collect();
                let line = lines[self.random.random_range(0..lines.len())];
                let start = message[..at]
                    .iter()
                    .rposition(|b| *b == b'\n')
                    .map_or(0, |n| n + 1);
                message.splice(start..start, line.iter().copied());
            }
            9 => {
                // The tail of another message.
                let other = self.seed();
                let from = self.random.random_range(0..other.len());
                message.truncate(at);
                message.extend_from_slice(&other[from..]);
            }
            _ => {
                let byte = message[at];
                let times = self.random.random_range(1..3_000);
                message.splice(at..at, std::iter::repeat_n(byte, times));
            }
        }
    }
}

/// Shows the message that was being handled when a test panicked.
pub struct Shown<'a>(pub u64, pub &'a [u8]);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("message {}: {}", self.0, self.1.escape_ascii());
        }
    }
}

/// Resident memory of this process \[KiB\].
pub fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .unwrap()
}

/// What the allocator has given out \[KiB\]: what rises here is kept. Gaps between what is kept, which depend on how much was
/// there at once, are not in it.
#[cfg(target_env = "gnu")]
#[allow(unsafe_code)]
pub fn heap_kib() -> u64 {
    // SAFETY: has no conditions; it adds up all heaps, each under its own lock.
    let info = unsafe { libc::mallinfo2() };
    ((info.uordblks + info.hblkhd) >> 10) as u64
}
