use proptest::prelude::*;

use super::read::{MAX_LINES, parse_crypto};
use super::*;

const LINPHONE: &str = "v=0\r\no=bob 3104 2310 IN IP4 192.0.2.4\r\ns=Talk\r\nc=IN IP4 192.0.2.4\r\nt=0 0\r\n\
    a=rtcp-xr:rcvr-rtt=all:10000\r\nm=audio 7078 RTP/AVP 96 0 8 97\r\na=rtpmap:96 opus/48000/2\r\n\
    a=fmtp:96 useinbandfec=1\r\na=rtpmap:97 telephone-event/8000\r\nm=video 9078 RTP/AVP 98\r\na=rtpmap:98 VP8/90000\r\n";

#[test]
fn reads_a_softphone_offer() {
    let sdp = Sdp::parse(LINPHONE.as_bytes()).unwrap();
    let (index, audio, profile) = sdp.audio().next().unwrap();
    assert_eq!((index, audio.port, profile), (0, 7078, Profile::Plain));
    assert_eq!(
        (audio.rtpmaps[0].clock_hz, audio.rtpmaps[0].channels),
        (48_000, 2)
    );
    assert_eq!(audio.formats, ["96", "0", "8", "97"]);
    assert_eq!(
        sdp.connection_of(audio),
        Some(&Connection::Ip([192, 0, 2, 4].into()))
    );
    assert_eq!(sdp.direction_of(audio), Direction::SendRecv);
    assert_eq!(sdp.media.len(), 2);
}

#[test]
fn refuses_what_is_not_sdp() {
    let cases: &[(&str, &[u8])] = &[
        ("empty", b""),
        ("text", b"hello"),
        ("no version", b"o=- 1 1 IN IP4 1.2.3.4\r\n"),
        ("no origin", b"v=0\r\ns=-\r\n"),
        ("short origin", b"v=0\r\no=- 1 1\r\n"),
        (
            "bad port",
            b"v=0\r\no=- 1 1 IN IP4 1.2.3.4\r\nm=audio x RTP/AVP 0\r\n",
        ),
        (
            "port too large",
            b"v=0\r\no=- 1 1 IN IP4 1.2.3.4\r\nm=audio 70000 RTP/AVP 0\r\n",
        ),
        (
            "no format",
            b"v=0\r\no=- 1 1 IN IP4 1.2.3.4\r\nm=audio 4000 RTP/AVP\r\n",
        ),
        (
            "bad connection",
            b"v=0\r\no=- 1 1 IN IP4 1.2.3.4\r\nc=ATM x y\r\n",
        ),
    ];
    for (case, body) in cases {
        assert!(Sdp::parse(body).is_err(), "{case}");
    }
}

#[test]
fn refuses_what_is_too_large() {
    let head = "v=0\r\no=- 1 1 IN IP4 1.2.3.4\r\n";
    let cases = [
        ("bytes", format!("{head}{}", "a=x\r\n".repeat(MAX_BYTES))),
        ("lines", format!("{head}{}", "a=x\r\n".repeat(MAX_LINES))),
        (
            "media",
            format!("{head}{}", "m=audio 1 RTP/AVP 0\r\n".repeat(MAX_MEDIA + 1)),
        ),
        (
            "formats",
            format!("{head}m=audio 1 RTP/AVP{}\r\n", " 0".repeat(MAX_FORMATS + 1)),
        ),
    ];
    for (case, body) in cases {
        assert!(
            matches!(Sdp::parse(body.as_bytes()), Err(SdpError::TooLarge(_))),
            "{case}"
        );
    }
}

#[test]
fn keys_are_read_or_left_alone() {
    let key = "inline:AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0e";
    let cases = [
        ("1 AES_CM_128_HMAC_SHA1_80", key.to_string(), "", true),
        ("2 aes_cm_128_hmac_sha1_32", key.to_string(), "", true),
        ("1 AES_CM_128_HMAC_SHA1_80", format!("{key}|2^31"), "", true),
        ("1 AES_CM_128_HMAC_SHA1_80", format!("{key}|2^20|1:4"), "", true),
        (
            "1 AES_CM_128_HMAC_SHA1_80",
            key.to_string(),
            "WSH=128 -FUTURE",
            true,
        ),
        (
            "1 AES_CM_128_HMAC_SHA1_80",
            key.to_string(),
            "UNENCRYPTED_SRTP",
            false,
        ),
        ("1 AES_CM_128_HMAC_SHA1_80", format!("{key}|1:900"), "", false),
        ("1 AES_CM_128_HMAC_SHA1_80", format!("{key};{key}"), "", false),
        ("1 AES_CM_128_HMAC_SHA1_80", "inline:AQID".to_string(), "", false),
        ("1 AES_CM_128_HMAC_SHA1_80", "prompt:x".to_string(), "", false),
        ("1 F8_128_HMAC_SHA1_80", key.to_string(), "", false),
        ("x AES_CM_128_HMAC_SHA1_80", key.to_string(), "", false),
    ];
    for (head, key, parameters, usable) in cases {
        let line = format!("{head} {key} {parameters}");
        let crypto = parse_crypto(&line);
        assert_eq!(crypto.is_some(), usable, "{line}");
        if let Some(crypto) = crypto {
            assert_eq!(crypto.key.expose()[..3], [1, 2, 3]);
            assert!(format!("{crypto:?}").contains("[redacted]"));
        }
    }
}

fn token() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9_+-]{1,12}"
}

fn ip() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u16; 8]>().prop_map(IpAddr::from)
    ]
}

fn connection() -> impl Strategy<Value = Connection> {
    prop_oneof![
        ip().prop_map(Connection::Ip),
        "[a-z]{1,8}[.]example".prop_map(Connection::Host)
    ]
}

fn direction() -> impl Strategy<Value = Direction> {
    prop_oneof![
        Just(Direction::SendRecv),
        Just(Direction::SendOnly),
        Just(Direction::RecvOnly),
        Just(Direction::Inactive)
    ]
}

fn media() -> impl Strategy<Value = Media> {
    let rtpmap = (0u8..128, token(), any::<u32>(), any::<u8>()).prop_map(
        |(payload_type, name, clock_hz, channels)| RtpMap {
            payload_type,
            name,
            clock_hz,
            channels,
        },
    );
    let crypto = (0u32..1_000_000_000, any::<bool>(), any::<[u8; 30]>(), 0u8..=128).prop_map(
        |(tag, long, key, mki_octets)| Crypto {
            tag,
            suite: if long { Suite::Tag80 } else { Suite::Tag32 },
            key: MasterKey::new(key).with_mki(mki_octets),
        },
    );
    (
        (
            token(),
            any::<u16>(),
            "[A-Z]{2,5}/[A-Z]{2,5}",
            prop::collection::vec(token(), 1..6),
        ),
        prop::option::of(connection()),
        prop::collection::vec(rtpmap, 0..4),
        prop::collection::vec((any::<u8>(), "[a-z0-9=;-]{1,20}"), 0..3),
        (prop::option::of(any::<u16>()), prop::option::of(any::<u16>())),
        (
            prop::option::of((any::<u16>(), prop::option::of(ip()))),
            any::<bool>(),
            prop::collection::vec(crypto, 0..3),
        ),
        prop::option::of(direction()),
    )
        .prop_map(
            |(
                (kind, port, proto, formats),
                connection,
                rtpmaps,
                fmtps,
                (ptime_ms, max_ptime_ms),
                (rtcp, rtcp_mux, cryptos),
                direction,
            )| Media {
                kind,
                port,
                proto,
                formats,
                connection,
                rtpmaps,
                fmtps,
                ptime_ms,
                max_ptime_ms,
                rtcp,
                rtcp_mux,
                cryptos,
                direction,
            },
        )
}

proptest! {
    #[test]
    fn any_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = Sdp::parse(&bytes);
    }

    #[test]
    fn nearly_sdp_never_panics(tail in "([a-z]=[ -~]{0,40}\r?\n){0,30}") {
        if let Ok(sdp) = Sdp::parse(format!("v=0\r\no=- 1 1 IN IP4 1.2.3.4\r\n{tail}").as_bytes()) {
            let directions: Vec<Direction> = sdp.audio().map(|(_, m, _)| sdp.direction_of(m)).collect();
            let _ = (directions, sdp.to_string());
        }
    }

    #[test]
    fn what_is_built_parses_back(
        session_id in "[0-9]{1,20}", version in any::<u64>(), origin in ip(),
        connection in prop::option::of(connection()), direction in prop::option::of(direction()),
        media in prop::collection::vec(media(), 0..4),
    ) {
        let sdp = Sdp { session_id, version, origin, connection, direction, media };
        prop_assert_eq!(Sdp::parse(sdp.to_string().as_bytes()), Ok(sdp));
    }
}
