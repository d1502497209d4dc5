//! Packet: a piece of sound encrypted by itself, until it stands in a recording.
//!
//! ```text
//! nonce, 12 random octets │ ciphertext │ tag, 16 octets
//! ```
//! AES-256-GCM with a key of its own from the box's key; what the packet belongs to is additional data, so that none can be
//! put in another's place.

use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    rand::{SecureRandom, SystemRandom},
};

use crate::{MasterKey, RecordError};

/// Encrypts a packet that belongs to `place`.
///
/// # Errors
/// [`RecordError::Crypto`].
pub fn seal(master: &MasterKey, place: &str, plain: &[u8]) -> Result<Vec<u8>, RecordError> {
    let mut nonce = [0; NONCE_LEN];
    SystemRandom::new()
        .fill(&mut nonce)
        .map_err(|_| RecordError::Crypto)?;
    let mut sealed = plain.to_vec();
    key(master)?
        .seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(place.as_bytes()),
            &mut sealed,
        )
        .map_err(|_| RecordError::Crypto)?;
    Ok([nonce.as_slice(), &sealed].concat())
}

/// Decrypts it; `None` when it was changed, belongs elsewhere, or has another key.
#[must_use]
pub fn open(master: &MasterKey, place: &str, sealed: &[u8]) -> Option<Vec<u8>> {
    let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>()?;
    let mut octets = sealed.to_vec();
    let plain = key(master)
        .ok()?
        .open_in_place(
            Nonce::assume_unique_for_key(*nonce),
            Aad::from(place.as_bytes()),
            &mut octets,
        )
        .ok()?
        .len();
    octets.truncate(plain);
    Some(octets)
}

fn key(master: &MasterKey) -> Result<LessSafeKey, RecordError> {
    let key = master.derive(b"attendant packets", b"attendant packet v1")?;
    let key = UnboundKey::new(&AES_256_GCM, &key).map_err(|_| RecordError::Crypto)?;
    Ok(LessSafeKey::new(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_place_and_key_open_a_packet() {
        let master = MasterKey::new([7; 32]);
        let sealed = seal(&master, "1/a/1", b"hello").expect("seal");
        assert_eq!(sealed.len(), 5 + 28);
        assert_eq!(
            open(&master, "1/a/1", &sealed).as_deref(),
            Some(b"hello".as_slice())
        );
        assert_eq!(open(&master, "1/a/2", &sealed), None);
        assert_eq!(open(&MasterKey::new([8; 32]), "1/a/1", &sealed), None);
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(open(&master, "1/a/1", &changed), None, "octet {at}");
        }
        assert_eq!(open(&master, "1/a/1", b"short"), None);
    }
}
