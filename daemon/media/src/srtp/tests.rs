use aes::Aes128;
use aes::cipher::KeyInit;
use hmac::Mac;
use proptest::prelude::*;

use super::session::{Session, generate, hmac_sha1};
use super::*;
use crate::rtp::{Header, Packet, SeqNumber};

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    let octet = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(octet).collect()
}

fn master(seed: u8) -> MasterKey {
    MasterKey::new(std::array::from_fn(|n| {
        (n as u8).wrapping_mul(29).wrapping_add(seed)
    }))
}

/// RFC 3711 B.3.
#[test]
fn session_keys_of_the_rfc() {
    let octets = hex("E1F97A0D3E018BE0D64FA32C06DE4139 0EC675AD498AFEEBB6960B3AABE6");
    let master = MasterKey::new(octets.try_into().unwrap());
    let mut key = [0; 16];
    let mut salt = [0; 14];
    let mut auth = [0; 94];
    generate(&master, 0, &mut key);
    generate(&master, 2, &mut salt);
    generate(&master, 1, &mut auth);
    assert_eq!(key[..], hex("C61E7A93744F39EE10734AFE3FF7A087"));
    assert_eq!(salt[..], hex("30CBBC08863D8C85D49DB34A9AE1"));
    assert_eq!(
        auth[..],
        hex(
            "CEBE321F6FF7716B6FD4AB49AF256A156D38BAA48F0A0ACF3C34E2359E6CDBCEE049646C43D9327AD175578EF7227098
             6371C10C9A369AC2F94A8C5FBCDDDC256D6E919A48B610EF17C2041E474035766B68642C59BBFC2F34DB60DBDFB2"
        )
    );
}

/// RFC 3711 B.2: the keystream for SSRC 0 and index 0, at its beginning and around block 0xff00.
#[test]
fn keystream_of_the_rfc() {
    let key: [u8; 16] = hex("2B7E151628AED2A6ABF7158809CF4F3C").try_into().unwrap();
    let session = Session {
        aes: Aes128::new(&key.into()),
        mac: hmac_sha1(&[0; 20]),
        salt: hex("F0F1F2F3F4F5F6F7F8F9FAFBFCFD").try_into().unwrap(),
    };
    let mut stream = vec![0; 0xff02 * 16];
    session.apply(0, 0, &mut stream);
    assert_eq!(
        stream[..32],
        hex("E03EAD0935C95E80E166B16DD92B4EB4 D23513162B02D0F72A43A2FE4A5F97AB")
    );
    assert_eq!(
        stream[0xfeff * 16..],
        hex(
            "EC8CDF7398607CB0F2D21675EA9EA1E4 362B7C3C6773516318A077D7FC5073AE 6A2CC3787889374FBEB4C81B17BA6C44"
        )
    );
}

/// RFC 2202, case 1 cut to our key length: HMAC-SHA1 with a key of 20 octets.
#[test]
fn hmac_of_the_rfc() {
    let tag = hmac_sha1(&[0x0b; 20])
        .chain_update(b"Hi There")
        .finalize()
        .into_bytes();
    assert_eq!(tag[..], hex("b617318655057264e28bc0b6fb378c8ef146be00"));
}

/// A whole packet as libsrtp makes it (its test driver's reference packet, RFC 3711 B.3's master key).
#[test]
fn a_packet_of_another_implementation() {
    let octets = hex("e1f97a0d3e018be0d64fa32c06de4139 0ec675ad498afeebb6960b3aabe6");
    let key = MasterKey::new(octets.try_into().unwrap());
    let plain = hex("800f1234decafbadcafebabe abababababababababababababababab");
    let sealed = hex("800f1234decafbadcafebabe 4e55dc4ce79978d88ca4d215949d2402 b78d6acc99ea179b8dbb");
    let mut wire = [0; 64];
    wire[..plain.len()].copy_from_slice(&plain);
    let octets = Sealer::new(Suite::Tag80, &key)
        .seal_rtp(&mut wire, plain.len())
        .unwrap();
    assert_eq!(wire[..octets], sealed);
    let mut wire = sealed.clone();
    let octets = Opener::new(Suite::Tag80, &key).open_rtp(&mut wire).unwrap();
    assert_eq!(wire[..octets], plain);
}

fn packet(seq: u16, ssrc: u32, payload: &[u8]) -> ([u8; 300], usize) {
    let header = Header {
        marker: false,
        payload_type: 8,
        seq: SeqNumber(seq),
        timestamp: 7,
        ssrc,
    };
    let mut wire = [0; 300];
    let octets = Packet { header, payload }.write(&mut wire).unwrap();
    (wire, octets)
}

fn seal(sealer: &mut Sealer, seq: u16, ssrc: u32, payload: &[u8]) -> Vec<u8> {
    let (mut wire, octets) = packet(seq, ssrc, payload);
    let octets = sealer.seal_rtp(&mut wire, octets).unwrap();
    wire[..octets].to_vec()
}

#[test]
fn the_rollover_counter_follows_through_loss_reordering_and_wraps() {
    for suite in [Suite::Tag80, Suite::Tag32] {
        let key = master(1);
        let (mut sealer, mut opener) = (Sealer::new(suite, &key), Opener::new(suite, &key));
        let mut held: Option<Vec<u8>> = None;
        for n in 0..200_000u32 {
            let seq = 65_000u16.wrapping_add(n as u16);
            let mut wire = seal(&mut sealer, seq, 5, &n.to_be_bytes());
            let mut open = |wire: &mut Vec<u8>, n: u32| {
                let octets = opener.open_rtp(wire).unwrap();
                assert_eq!(wire[12..octets], n.to_be_bytes());
            };
            // Some are lost, and some come after the next one, across every wrap.
            match n % 7 {
                3 => {}
                5 => held = Some(wire),
                6 => {
                    open(&mut wire, n);
                    open(&mut held.take().unwrap(), n - 1);
                }
                _ => open(&mut wire, n),
            }
        }
    }
}

#[test]
fn replays_forgeries_and_other_keys_are_refused() {
    let (key, suite) = (master(1), Suite::Tag32);
    let (mut sealer, mut opener) = (Sealer::new(suite, &key), Opener::new(suite, &key));
    let wires: Vec<Vec<u8>> = (0..100).map(|seq| seal(&mut sealer, seq, 5, &[1; 20])).collect();
    for wire in &wires {
        opener.open_rtp(&mut wire.clone()).unwrap();
        let again = opener.open_rtp(&mut wire.clone()).unwrap_err();
        assert!(matches!(again, MediaError::Unauthentic { what: "replayed" }));
    }
    // Too old for the window: refused, although never seen.
    assert!(opener.open_rtp(&mut wires[3].clone()).is_err());
    let next = seal(&mut sealer, 100, 5, &[1; 20]);
    for place in 0..next.len() {
        let mut forged = next.clone();
        forged[place] ^= 1;
        assert!(opener.open_rtp(&mut forged).is_err(), "octet {place}");
    }
    assert!(
        Opener::new(suite, &master(2))
            .open_rtp(&mut next.clone())
            .is_err()
    );
    for length in 0..next.len() {
        assert!(opener.open_rtp(&mut next[..length].to_vec()).is_err());
    }
    opener.open_rtp(&mut next.clone()).unwrap();
}

#[test]
fn several_streams_under_one_key() {
    let (key, suite) = (master(3), Suite::Tag80);
    let mut opener = Opener::new(suite, &key);
    for ssrc in 0..10u32 {
        let mut sealer = Sealer::new(suite, &key);
        for seq in [65_534u16, 65_535, 0, 1] {
            let mut wire = seal(&mut sealer, seq, ssrc, &[9; 8]);
            assert_eq!(opener.open_rtp(&mut wire).unwrap(), 20, "{ssrc} {seq}");
            assert_eq!(wire[12..20], [9; 8]);
        }
    }
}

#[test]
fn a_master_key_identifier_is_skipped() {
    let key = master(3);
    let mut wire = seal(&mut Sealer::new(Suite::Tag80, &key), 1, 2, &[9; 8]);
    wire.splice(20..20, [0, 0, 0, 1]);
    assert_eq!(
        Opener::new(Suite::Tag80, &key.with_mki(4))
            .open_rtp(&mut wire)
            .unwrap(),
        20
    );
    assert_eq!(wire[12..20], [9; 8]);
}

#[test]
fn rtcp_both_ways() {
    let key = master(4);
    for suite in [Suite::Tag80, Suite::Tag32] {
        let (mut sealer, mut opener) = (Sealer::new(suite, &key), Opener::new(suite, &key));
        for n in 0..100u8 {
            let mut wire = [0u8; 64];
            wire[..12].copy_from_slice(&[0x80, 201, 0, 2, 0, 0, 0, 9, n, 2, 3, 4]);
            let plain = wire[..12].to_vec();
            let octets = sealer.seal_rtcp(&mut wire, 12).unwrap();
            assert_eq!(octets, 26);
            assert_eq!(wire[..8], plain[..8]);
            assert_ne!(wire[8..12], plain[8..]);
            let replay = wire[..octets].to_vec();
            assert_eq!(opener.open_rtcp(&mut wire[..octets]).unwrap(), 12);
            assert_eq!(wire[..12], plain);
            assert!(opener.open_rtcp(&mut replay.clone()).is_err());
        }
    }
}

#[test]
fn keys_do_not_print() {
    let keys = Keys {
        suite: Suite::Tag80,
        local: master(1),
        remote: master(2),
    };
    assert_eq!(
        format!("{keys:?}"),
        "Keys { suite: Tag80, local: [redacted], remote: [redacted] }"
    );
}

proptest! {
    #[test]
    fn random_datagrams_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        let mut opener = Opener::new(Suite::Tag32, &master(1).with_mki(2));
        prop_assert!(opener.open_rtp(&mut bytes.clone()).is_err());
        prop_assert!(opener.open_rtcp(&mut bytes.clone()).is_err());
    }
}
