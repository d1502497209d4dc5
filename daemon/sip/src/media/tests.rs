use super::*;
use attendant_media::stream::Rtcp;

fn local() -> LocalMedia {
    with_policy(SrtpPolicy::Offered)
}

fn with_policy(srtp: SrtpPolicy) -> LocalMedia {
    LocalMedia::new([127, 0, 0, 1].into(), 4000, &Codec::ALL, srtp)
}

fn offer(connection: &str, formats: &str, attributes: &str) -> Sdp {
    let text = format!(
        "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 {connection}\r\nt=0 0\r\nm=audio 5000 RTP/AVP {formats}\r\n{attributes}"
    );
    Sdp::parse(text.as_bytes()).unwrap()
}

fn answered(sdp: &Sdp) -> Result<(Sdp, Negotiated), SdpError> {
    local().answer(sdp, [192, 0, 2, 9].into())
}

#[test]
fn the_callers_order_of_codecs_decides() {
    assert_eq!(
        answered(&offer("192.0.2.1", "97 8 0", ""))
            .unwrap()
            .1
            .stream
            .codec,
        Codec::Pcma
    );
    assert_eq!(
        answered(&offer("192.0.2.1", "0 8", "")).unwrap().1.stream.codec,
        Codec::Pcmu
    );
}

#[test]
fn no_common_codec_names_what_was_offered() {
    let error = answered(&offer("192.0.2.1", "96 18", "a=rtpmap:96 speex/16000\r\n")).unwrap_err();
    assert_eq!(
        error,
        SdpError::NoCommonCodec {
            offered: "speex, payload type 18".to_string()
        }
    );
}

#[test]
fn telephone_event_keeps_the_offered_payload_type() {
    let sdp = offer("192.0.2.1", "0 97", "a=rtpmap:97 telephone-event/8000\r\n");
    let (answer, agreed) = answered(&sdp).unwrap();
    assert_eq!(agreed.stream.event_pt, Some(97));
    assert_eq!(answer.media[0].formats, ["0", "97"]);
    assert_eq!(
        answered(&offer("192.0.2.1", "0", "")).unwrap().1.stream.event_pt,
        None
    );
}

#[test]
fn every_kind_of_hold_is_seen() {
    let cases = [
        ("192.0.2.1", "", Direction::SendRecv, false),
        ("192.0.2.1", "a=sendonly\r\n", Direction::RecvOnly, true),
        ("192.0.2.1", "a=inactive\r\n", Direction::Inactive, true),
        ("192.0.2.1", "a=recvonly\r\n", Direction::SendOnly, false),
        ("0.0.0.0", "", Direction::RecvOnly, true),
        ("0.0.0.0", "a=inactive\r\n", Direction::Inactive, true),
    ];
    for (connection, attribute, direction, hold) in cases {
        let (answer, agreed) = answered(&offer(connection, "0", attribute)).unwrap();
        assert_eq!(
            (agreed.direction, agreed.on_hold()),
            (direction, hold),
            "{connection} {attribute}"
        );
        assert_eq!(answer.direction_of(&answer.media[0]), direction);
    }
}

#[test]
fn other_streams_are_refused_in_place() {
    let sdp = offer("192.0.2.1", "0", "m=video 6000 RTP/AVP 98 99\r\n");
    let (answer, _) = answered(&sdp).unwrap();
    assert_eq!(answer.media.len(), 2);
    assert_eq!(
        (answer.media[1].kind.as_str(), answer.media[1].port),
        ("video", 0)
    );
}

#[test]
fn our_offer_and_our_answer_agree() {
    for (policy, sealed) in [(SrtpPolicy::Offered, false), (SrtpPolicy::Required, true)] {
        for codec in Codec::ALL {
            let mut ours = LocalMedia::new([127, 0, 0, 1].into(), 4000, &[codec, Codec::Pcmu], policy);
            let mut theirs = with_policy(SrtpPolicy::Offered);
            let offer = ours.offer(Direction::SendRecv);
            let text = offer.to_string();
            assert_eq!(text.contains("RTP/SAVP"), sealed);
            let (answer, there) = theirs
                .answer(&Sdp::parse(text.as_bytes()).unwrap(), [192, 0, 2, 9].into())
                .unwrap();
            let answer = Sdp::parse(answer.to_string().as_bytes()).unwrap();
            let here = ours.accept(&answer, [192, 0, 2, 9].into()).unwrap();
            let (here, there) = (here.stream, there.stream);
            assert_eq!((here.codec, there.codec), (codec, codec));
            assert_eq!((here.payload_type, here.ptime_ms), (there.payload_type, 20));
            let event = if codec == Codec::Opus {
                (102, 48_000)
            } else {
                (101, 8000)
            };
            assert_eq!((here.event_pt, here.event_clock_hz), (Some(event.0), event.1));
            assert_eq!((there.event_pt, there.event_clock_hz), (Some(event.0), event.1));
            assert_eq!((here.rtcp, there.rtcp), (Rtcp::Mux, Rtcp::Mux));
            match (here.srtp, there.srtp) {
                (Some(here), Some(there)) if sealed => {
                    assert_eq!((here.local, here.remote), (there.remote, there.local));
                    assert_ne!(here.local, here.remote);
                }
                (None, None) if !sealed => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn opus_as_softphones_offer_it() {
    let sdp = offer(
        "192.0.2.1",
        "96 0 97 98",
        "a=rtpmap:96 opus/48000/2\r\na=fmtp:96 useinbandfec=1\r\na=rtpmap:97 telephone-event/8000\r\n\
         a=rtpmap:98 telephone-event/48000\r\na=ptime:40\r\na=maxptime:30\r\n",
    );
    let (answer, agreed) = answered(&sdp).unwrap();
    let stream = agreed.stream;
    assert_eq!(
        (stream.codec, stream.payload_type, stream.ptime_ms),
        (Codec::Opus, 96, 20)
    );
    assert_eq!((stream.event_pt, stream.event_clock_hz), (Some(98), 48_000));
    let line = answer.to_string();
    assert!(
        line.contains("a=rtpmap:96 opus/48000/2\r\n") && line.contains("useinbandfec=1"),
        "{line}"
    );
    assert_eq!(answer.media[0].formats, ["96", "98"]);
    // Without events at its clock, those at 8 kHz are taken.
    let sdp = offer(
        "192.0.2.1",
        "96 97",
        "a=rtpmap:96 opus/48000/2\r\na=rtpmap:97 telephone-event/8000\r\n",
    );
    let stream = answered(&sdp).unwrap().1.stream;
    assert_eq!((stream.event_pt, stream.event_clock_hz), (Some(97), 8000));
}

#[test]
fn an_answer_may_renumber_opus() {
    let mut ours = local();
    ours.offer(Direction::SendRecv);
    let answer = offer("192.0.2.1", "120", "a=rtpmap:120 OPUS/48000/2\r\n");
    let stream = ours.accept(&answer, [192, 0, 2, 9].into()).unwrap().stream;
    assert_eq!(
        (stream.payload_type, stream.receive_type),
        (120, OPUS_PAYLOAD_TYPE)
    );
    assert_eq!(stream.codec_of(120), Some(Codec::Opus));
    assert_eq!(stream.codec_of(OPUS_PAYLOAD_TYPE), Some(Codec::Opus));
}

#[test]
fn a_dynamic_number_means_what_its_map_says() {
    let sdp = offer(
        "192.0.2.1",
        "97 9",
        "a=rtpmap:97 PCMA/8000\r\na=rtpmap:9 G722/8000\r\n",
    );
    let stream = answered(&sdp).unwrap().1.stream;
    assert_eq!((stream.codec, stream.payload_type), (Codec::Pcma, 97));
    // G.722 at its real rate is none (RFC 3551 §4.5.2), and a static number may mean another thing.
    let sdp = offer(
        "192.0.2.1",
        "9 0",
        "a=rtpmap:9 G722/16000\r\na=rtpmap:0 PCMU/8000\r\n",
    );
    assert_eq!(answered(&sdp).unwrap().1.stream.codec, Codec::Pcmu);
}

#[test]
fn only_configured_codecs_are_spoken() {
    let mut narrow = LocalMedia::new([127, 0, 0, 1].into(), 4000, &[Codec::Pcma], SrtpPolicy::Off);
    assert_eq!(narrow.offer(Direction::SendRecv).media[0].formats, ["8", "101"]);
    let (_, agreed) = narrow
        .answer(&offer("192.0.2.1", "9 0 8", ""), [192, 0, 2, 9].into())
        .unwrap();
    assert_eq!(agreed.stream.codec, Codec::Pcma);
    assert!(
        narrow
            .answer(&offer("192.0.2.1", "9 0", ""), [192, 0, 2, 9].into())
            .is_err()
    );
    let mut all = local();
    assert_eq!(
        all.offer(Direction::SendRecv).media[0].formats,
        ["107", "9", "0", "8", "101", "102"]
    );
}

#[test]
fn packet_times_are_met_as_near_as_possible() {
    for (attributes, pcmu, opus) in [
        ("", 20, 20),
        ("a=ptime:10\r\n", 10, 10),
        ("a=ptime:30\r\n", 30, 20),
        ("a=ptime:60\r\n", 60, 60),
        ("a=ptime:60\r\na=maxptime:40\r\n", 40, 40),
        ("a=ptime:5\r\n", 10, 10),
        ("a=ptime:150\r\n", 60, 60),
        ("a=ptime:0\r\n", 20, 20),
        ("a=maxptime:10\r\n", 10, 10),
    ] {
        let stream = answered(&offer("192.0.2.1", "0", attributes)).unwrap().1.stream;
        assert_eq!(stream.ptime_ms, pcmu, "{attributes}");
        let attributes = format!("a=rtpmap:96 opus/48000/2\r\n{attributes}");
        let stream = answered(&offer("192.0.2.1", "96", &attributes)).unwrap().1.stream;
        assert_eq!(stream.ptime_ms, opus, "{attributes}");
    }
}

#[test]
fn reports_go_where_the_peer_wants_them() {
    let port = |text: &str| Rtcp::Port(text.parse().unwrap());
    for (attributes, want) in [
        ("", port("192.0.2.1:5001")),
        ("a=rtcp:7000\r\n", port("192.0.2.1:7000")),
        ("a=rtcp:7000 IN IP4 192.0.2.77\r\n", port("192.0.2.77:7000")),
        ("a=rtcp:5000\r\na=rtcp-mux\r\n", Rtcp::Mux),
    ] {
        let (answer, agreed) = answered(&offer("192.0.2.1", "0", attributes)).unwrap();
        assert_eq!(agreed.stream.rtcp, want, "{attributes}");
        assert_eq!(answer.media[0].rtcp_mux, want == Rtcp::Mux);
    }
}

const KEY: &str = "a=crypto:3 F8_128_HMAC_SHA1_80 inline:AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0e\r\n\
    a=crypto:4 AES_CM_128_HMAC_SHA1_32 inline:AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0e|2^31|1:1\r\n";

fn lines(media: &str) -> Sdp {
    let text = format!("v=0\r\no=- 1 1 IN IP4 1.2.3.4\r\nc=IN IP4 1.2.3.4\r\n{media}");
    Sdp::parse(text.as_bytes()).unwrap()
}

#[test]
fn a_key_is_answered_with_ours_under_its_number() {
    for proto in ["RTP/SAVP", "RTP/SAVPF"] {
        let (answer, agreed) = answered(&lines(&format!("m=audio 5000 {proto} 0\r\n{KEY}"))).unwrap();
        let keys = agreed.stream.srtp.unwrap();
        assert_eq!(keys.suite, Suite::Tag32);
        assert_eq!(keys.remote.expose()[..4], [1, 2, 3, 4]);
        let line = &answer.media[0];
        assert_eq!((line.proto.as_str(), line.cryptos.len()), (proto, 1));
        assert_eq!((line.cryptos[0].tag, line.cryptos[0].key), (4, keys.local));
    }
}

#[test]
fn a_key_stays_for_the_whole_call() {
    let mut local = local();
    let sdp = lines(&format!("m=audio 5000 RTP/SAVP 0\r\n{KEY}"));
    let key = |local: &mut LocalMedia| {
        local
            .answer(&sdp, [1, 2, 3, 4].into())
            .unwrap()
            .1
            .stream
            .srtp
            .unwrap()
            .local
    };
    let first = key(&mut local);
    assert_eq!(first, key(&mut local));
    assert_ne!(first, key(&mut self::local()));
}

#[test]
fn policies_decide_about_encryption() {
    let (plain, sealed) = (
        "m=audio 5000 RTP/AVP 0\r\n".to_string(),
        format!("m=audio 5002 RTP/SAVP 0\r\n{KEY}"),
    );
    let both = format!("{plain}{sealed}");
    let port = |policy, text: &str| {
        let answer = with_policy(policy).answer(&lines(text), [1, 2, 3, 4].into());
        answer.map(|(_, agreed)| (agreed.stream.remote.port(), agreed.stream.srtp.is_some()))
    };
    use SrtpPolicy::{Off, Offered, Required};
    assert_eq!(port(Off, &plain), Ok((5000, false)));
    assert!(matches!(port(Off, &sealed), Err(SdpError::Sealed(_))));
    assert_eq!(port(Off, &both), Ok((5000, false)));
    assert_eq!(port(Offered, &plain), Ok((5000, false)));
    assert_eq!(port(Offered, &sealed), Ok((5002, true)));
    assert_eq!(port(Offered, &both), Ok((5002, true)));
    assert_eq!(port(Required, &plain), Err(SdpError::NotSealed));
    assert_eq!(port(Required, &sealed), Ok((5002, true)));
    // Sealed without a key for us, and with keys agreed on elsewhere (DTLS).
    assert!(matches!(
        port(Offered, "m=audio 5000 RTP/SAVP 0\r\n"),
        Err(SdpError::Sealed(_))
    ));
    assert_eq!(
        port(Offered, "m=audio 5000 UDP/TLS/RTP/SAVPF 0\r\n"),
        Err(SdpError::NoAudio)
    );
    assert_eq!(port(Offered, "m=audio 0 RTP/AVP 0\r\n"), Err(SdpError::NoAudio));
}

#[test]
fn a_host_name_falls_back_to_the_signalling_address() {
    let (_, agreed) = answered(&offer("pbx.example", "0", "")).unwrap();
    assert_eq!(agreed.stream.remote, "192.0.2.9:5000".parse().unwrap());
}
