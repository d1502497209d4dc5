//! A million mutated session descriptions through the parser and the negotiation: no panic, and what we answer can be
//! read. The seed is fixed; a failure names the description.

use std::net::IpAddr;

use attendant_media::codec::Codec;

use crate::media::{LocalMedia, SrtpPolicy};
use crate::sdp::{MAX_BYTES, Sdp};

/// Descriptions in a release build; a twentieth of it in a debug build.
const DESCRIPTIONS: usize = if cfg!(debug_assertions) { 50_000 } else { 1_000_000 };

/// What real peers send: a desk phone, a softphone with everything, hold the old way, an encrypted line, a fax.
const SAMPLES: [&str; 5] = [
    "v=0\r\no=- 20518 0 IN IP4 203.0.113.1\r\ns=-\r\nc=IN IP4 203.0.113.1\r\nt=0 0\r\nm=audio 54400 RTP/AVP 8 0 9 101\r\n\
     a=rtpmap:8 PCMA/8000\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\na=ptime:20\r\na=sendrecv\r\n",
    "v=0\r\no=bob 3104 2310 IN IP4 192.0.2.4\r\ns=Talk\r\nc=IN IP4 192.0.2.4\r\nt=0 0\r\na=rtcp-xr:rcvr-rtt=all:10000\r\n\
     m=audio 7078 RTP/AVPF 96 97 98 0 8\r\na=rtpmap:96 opus/48000/2\r\na=fmtp:96 useinbandfec=1\r\na=rtpmap:97 speex/16000\r\n\
     a=rtpmap:98 telephone-event/48000\r\na=rtcp-mux\r\na=rtcp:7079 IN IP4 192.0.2.4\r\na=maxptime:60\r\na=ptime:40\r\n\
     m=video 9078 RTP/AVPF 99\r\na=rtpmap:99 VP8/90000\r\n",
    "v=0\r\no=- 1 2 IN IP4 0.0.0.0\r\ns=-\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\nm=audio 5000 RTP/AVP 0\r\na=inactive\r\n",
    "v=0\r\no=- 1 2 IN IP6 2001:db8::1\r\ns=-\r\nc=IN IP6 2001:db8::1\r\nt=0 0\r\nm=audio 5000 RTP/SAVP 107 9 101\r\n\
     a=rtpmap:107 opus/48000/2\r\na=rtpmap:101 telephone-event/8000\r\n\
     a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0e|2^31|1:4\r\n\
     a=crypto:2 AES_CM_128_HMAC_SHA1_32 inline:AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0e\r\n",
    "v=0\r\no=- 1 2 IN IP4 192.0.2.9\r\ns=-\r\nc=IN IP4 192.0.2.9\r\nt=0 0\r\nm=image 5000 udptl t38\r\nm=audio 0 RTP/AVP 0\r\n",
];

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit.max(1) as u64) as usize
    }
}

/// Flips, cuts, repeats, splices, and numbers where they hurt.
fn mutate(random: &mut Random) -> Vec<u8> {
    let mut body = SAMPLES[random.below(SAMPLES.len())].as_bytes().to_vec();
    for _ in 0..1 + random.below(6) {
        let at = random.below(body.len() + 1);
        match random.below(8) {
            0 => body.truncate(at),
            1 => {
                let until = (at + random.below(80)).min(body.len());
                body.extend_from_within(at..until);
            }
            2 => {
                let other = SAMPLES[random.below(SAMPLES.len())].as_bytes();
                let from = random.below(other.len());
                let piece = &other[from..(from + random.below(60)).min(other.len())];
                body.splice(at..at, piece.iter().copied());
            }
            3 => {
                let number = [
                    "0",
                    "-1",
                    "65535",
                    "65536",
                    "4294967296",
                    "99999999999999999999",
                    "",
                    "1e9",
                    "0x10",
                ];
                let number = number[random.below(number.len())].bytes();
                body.splice(at..at, number);
            }
            4 if at < body.len() => {
                let until = (at + random.below(20)).min(body.len());
                body.drain(at..until);
            }
            _ if at < body.len() => body[at] = random.below(256) as u8,
            _ => {}
        }
    }
    body.truncate(MAX_BYTES + 100);
    body
}

#[test]
fn a_million_mutated_descriptions() {
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let here: IpAddr = [192, 0, 2, 1].into();
    let mut locals = [SrtpPolicy::Off, SrtpPolicy::Offered, SrtpPolicy::Required]
        .map(|policy| LocalMedia::new(here, 4000, &Codec::ALL, policy));
    let (mut read, mut agreed) = (0usize, 0usize);
    for n in 0..DESCRIPTIONS {
        let body = mutate(&mut random);
        let Ok(sdp) = Sdp::parse(&body) else {
            continue;
        };
        read += 1;
        let local = &mut locals[n % 3];
        if let Ok((answer, media)) = local.answer(&sdp, here) {
            agreed += 1;
            assert_eq!(
                answer.media.len(),
                sdp.media.len(),
                "{}",
                String::from_utf8_lossy(&body)
            );
            assert!((10..=60).contains(&media.stream.ptime_ms));
            // Reading back all of them would be most of the time.
            if n % 16 == 0 {
                assert_eq!(
                    Sdp::parse(answer.to_string().as_bytes()),
                    Ok(answer),
                    "{}",
                    String::from_utf8_lossy(&body)
                );
            }
        }
        let _ = local.accept(&sdp, here);
    }
    println!("{DESCRIPTIONS} descriptions, {read} read, {agreed} agreed on");
    assert!(
        read > DESCRIPTIONS / 4 && agreed > DESCRIPTIONS / 20,
        "{read} read, {agreed} agreed on"
    );
}
