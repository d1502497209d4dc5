//! Session keys: derived from a master key, and what they do to a packet. Source: RFC 3711 §4.1.1, §4.2.1, §4.3.

use aes::Aes128;
use aes::cipher::{InnerIvInit, KeyInit, StreamCipher};
use hmac::{Hmac, Mac};
use sha1::Sha1;

use super::{KEY_OCTETS, MasterKey, SALT_OCTETS};

const AUTH_KEY_OCTETS: usize = 20;

/// Session keys of one direction, for RTP or for RTCP.
#[derive(Clone)]
pub struct Session {
    pub aes: Aes128,
    pub mac: Hmac<Sha1>,
    pub salt: [u8; SALT_OCTETS],
}

impl Session {
    /// `label` is 0 for RTP, 3 for RTCP (§4.3.2); keys are never derived anew (rate 0).
    pub fn derive(master: &MasterKey, label: u8) -> Session {
        let mut key = [0; KEY_OCTETS];
        let mut auth = [0; AUTH_KEY_OCTETS];
        let mut salt = [0; SALT_OCTETS];
        generate(master, label, &mut key);
        generate(master, label + 1, &mut auth);
        generate(master, label + 2, &mut salt);
        Session {
            aes: Aes128::new(&key.into()),
            mac: hmac_sha1(&auth),
            salt,
        }
    }

    /// Encrypts or decrypts (§4.1.1): the counter starts at salt · 2^16 ⊕ SSRC · 2^64 ⊕ index · 2^16.
    pub fn apply(&self, ssrc: u32, index: u64, data: &mut [u8]) {
        let mut iv = [0; 16];
        iv[..SALT_OCTETS].copy_from_slice(&self.salt);
        let mix = |place: &mut [u8], octets: &[u8]| {
            for (place, octet) in place.iter_mut().zip(octets) {
                *place ^= octet;
            }
        };
        mix(&mut iv[4..8], &ssrc.to_be_bytes());
        mix(&mut iv[8..14], &index.to_be_bytes()[2..]);
        stream(&self.aes, &iv).apply_keystream(data);
    }

    pub fn tag(&self, parts: [&[u8]; 2]) -> Hmac<Sha1> {
        let mut mac = self.mac.clone();
        parts.into_iter().for_each(|part| mac.update(part));
        mac
    }
}

type Counter<'a> = ctr::Ctr128BE<&'a Aes128>;

fn stream<'a>(aes: &'a Aes128, iv: &[u8; 16]) -> Counter<'a> {
    Counter::from_core(ctr::CtrCore::inner_iv_init(aes, iv.into()))
}

pub fn hmac_sha1(key: &[u8; AUTH_KEY_OCTETS]) -> Hmac<Sha1> {
    // A key shorter than the hash's block is padded with zeros to one (RFC 2104 §2).
    let mut block = [0; 64];
    block[..AUTH_KEY_OCTETS].copy_from_slice(key);
    <Hmac<Sha1> as KeyInit>::new(&block.into())
}

/// The key derivation function (§4.3.3).
pub fn generate(master: &MasterKey, label: u8, out: &mut [u8]) {
    let mut key = [0; KEY_OCTETS];
    key.copy_from_slice(&master.octets[..KEY_OCTETS]);
    let mut iv = [0; 16];
    iv[..SALT_OCTETS].copy_from_slice(&master.octets[KEY_OCTETS..]);
    iv[7] ^= label;
    stream(&Aes128::new(&key.into()), &iv).apply_keystream(out);
}
