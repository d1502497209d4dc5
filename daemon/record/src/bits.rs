//! Bits, most significant first, and the two checksums of FLAC.

/// Writes bits into octets.
#[derive(Debug, Default)]
pub struct Bits {
    octets: Vec<u8>,
    /// Bits not yet in `octets`, right-aligned.
    waiting: u64,
    /// How many; fewer than 8 between calls.
    count: u32,
}

impl Bits {
    /// The lowest `count` (at most 32) bits of `value`.
    pub fn put(&mut self, value: u32, count: u32) {
        let kept = if count >= 32 {
            value
        } else {
            value & ((1 << count) - 1)
        };
        self.waiting = self.waiting << count | u64::from(kept);
        self.count += count;
        while self.count >= 8 {
            self.count -= 8;
            self.octets.push((self.waiting >> self.count) as u8);
        }
        self.waiting &= (1 << self.count) - 1;
    }

    /// `zeros` zeros and a one.
    pub fn put_unary(&mut self, mut zeros: u32) {
        while zeros >= 32 {
            self.put(0, 32);
            zeros -= 32;
        }
        self.put(0, zeros);
        self.put(1, 1);
    }

    /// Zeros up to the next octet.
    pub fn align(&mut self) {
        let short = (8 - self.count) % 8;
        self.put(0, short);
    }

    /// The whole octets so far.
    pub fn octets(&self) -> &[u8] {
        &self.octets
    }

    /// The octets.
    pub fn into_octets(self) -> Vec<u8> {
        self.octets
    }
}

/// CRC-8 of frame headers: x⁸ + x² + x + 1, from 0 (RFC 9639 §9.1.8).
pub fn crc8(octets: &[u8]) -> u8 {
    octets.iter().fold(0, |crc, octet| {
        (0..8).fold(crc ^ octet, |crc: u8, _| {
            if crc & 0x80 == 0 {
                crc << 1
            } else {
                crc << 1 ^ 0x07
            }
        })
    })
}

/// CRC-16 of frames: x¹⁶ + x¹⁵ + x² + 1, from 0 (RFC 9639 §9.3).
pub fn crc16(octets: &[u8]) -> u16 {
    octets.iter().fold(0, |crc, octet| {
        let index = usize::from((crc >> 8) as u8 ^ octet);
        crc << 8 ^ CRC16.get(index).copied().unwrap_or(0)
    })
}

const CRC16: [u16; 256] = {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut crc = (index as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 {
                crc << 1
            } else {
                crc << 1 ^ 0x8005
            };
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_come_out_in_order() {
        let mut bits = Bits::default();
        bits.put(0b101, 3);
        bits.put_unary(4);
        bits.put(0xffff_ffff, 32);
        bits.put_unary(40);
        bits.align();
        assert_eq!(bits.octets(), [0xa1, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0x80]);
    }

    #[test]
    fn checksums_of_the_standard_string() {
        // Check values of CRC-8/SMBUS and CRC-16/UMTS over "123456789".
        assert_eq!(crc8(b"123456789"), 0xf4);
        assert_eq!(crc16(b"123456789"), 0xfee8);
    }
}
