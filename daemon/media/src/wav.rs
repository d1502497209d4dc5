//! WAV files in and out, for prompts, tools and tests. Source: Microsoft and IBM, Multimedia Programming
//! Interface and Data Specifications 1.0 (1991), RIFF WAVE; `WAVE_FORMAT_EXTENSIBLE` (2001).
//!
//! Read: PCM of 8, 16, 24 and 32 bits, 32-bit float, A-law and µ-law, any number of channels (mixed to one).
//! Written: 16-bit mono PCM.

use crate::frame::SAMPLE_RATE_HZ;
use crate::{MediaError, g711, resample};
use std::io::Read;
use std::path::Path;

/// Largest file that is read: over an hour at 16 kHz. Whatever is larger is not a prompt.
const MAX_FILE_OCTETS: u64 = 256 << 20;
const FORMAT_PCM: u16 = 1;
const FORMAT_FLOAT: u16 = 3;
const FORMAT_ALAW: u16 = 6;
const FORMAT_ULAW: u16 = 7;
const FORMAT_EXTENSIBLE: u16 = 0xfffe;

/// A recording, mono.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wav {
    /// Samples per second \[Hz\].
    pub rate: u32,
    /// Linear PCM, one channel.
    pub samples: Vec<i16>,
}

impl Wav {
    /// The recording at the house's 16 kHz.
    #[must_use]
    pub fn to_16k(&self) -> Vec<i16> {
        resample::convert(&self.samples, self.rate, SAMPLE_RATE_HZ)
    }

    /// Its length \[ms\].
    #[must_use]
    pub fn duration_ms(&self) -> u64 {
        self.samples.len() as u64 * 1000 / u64::from(self.rate.max(1))
    }
}

/// Reads a file.
///
/// # Errors
/// [`MediaError::File`] when it cannot be read, [`MediaError::MalformedWav`] when it is something else.
pub fn read(path: &Path) -> Result<Wav, MediaError> {
    let file_error = |source| MediaError::File {
        path: path.to_owned(),
        source,
    };
    let file = std::fs::File::open(path).map_err(file_error)?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE_OCTETS + 1)
        .read_to_end(&mut bytes)
        .map_err(file_error)?;
    if bytes.len() as u64 > MAX_FILE_OCTETS {
        return Err(malformed(format!("larger than {} MB", MAX_FILE_OCTETS >> 20)));
    }
    parse(&bytes)
}

/// Reads a file's content.
///
/// # Errors
/// [`MediaError::MalformedWav`].
pub fn parse(bytes: &[u8]) -> Result<Wav, MediaError> {
    if bytes.get(..4) != Some(b"RIFF") || bytes.get(8..12) != Some(b"WAVE") {
        return Err(malformed("no RIFF WAVE header".to_owned()));
    }
    let mut rest = bytes.get(12..).unwrap_or_default();
    let mut format = None;
    while let Some((&[a, b, c, d, l0, l1, l2, l3], after)) = rest.split_first_chunk::<8>() {
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        // A streamed file carries 0 or 0xffffffff as its length, a cut one too much: take what is there.
        let body = after.get(..length).unwrap_or(after);
        match &[a, b, c, d] {
            b"fmt " => format = Some(Format::parse(body)?),
            b"data" => {
                let format = format.ok_or_else(|| malformed("data before format".to_owned()))?;
                return format.samples(if length == 0 { after } else { body });
            }
            _ => {}
        }
        rest = after.get(length.saturating_add(length % 2)..).unwrap_or_default();
    }
    Err(malformed("no data".to_owned()))
}

/// Writes 16-bit mono PCM.
///
/// # Errors
/// [`MediaError::File`].
pub fn write(path: &Path, rate: u32, samples: &[i16]) -> Result<(), MediaError> {
    std::fs::write(path, to_bytes(rate, samples)).map_err(|source| MediaError::File {
        path: path.to_owned(),
        source,
    })
}

/// A 16-bit mono PCM file's content.
#[must_use]
pub fn to_bytes(rate: u32, samples: &[i16]) -> Vec<u8> {
    let data_octets = u32::try_from(samples.len() * 2).unwrap_or(u32::MAX - 36);
    let mut out = Vec::with_capacity(44 + samples.len() * 2);
    out.extend(b"RIFF");
    out.extend((36 + data_octets).to_le_bytes());
    out.extend(b"WAVEfmt ");
    out.extend(16u32.to_le_bytes());
    out.extend(FORMAT_PCM.to_le_bytes());
    out.extend(1u16.to_le_bytes());
    out.extend(rate.to_le_bytes());
    out.extend(rate.saturating_mul(2).to_le_bytes());
    out.extend(2u16.to_le_bytes());
    out.extend(16u16.to_le_bytes());
    out.extend(b"data");
    out.extend(data_octets.to_le_bytes());
    for sample in samples {
        out.extend(sample.to_le_bytes());
    }
    out
}

#[derive(Clone, Copy)]
struct Format {
    tag: u16,
    channels: u16,
    rate: u32,
    bits: u16,
}

impl Format {
    fn parse(body: &[u8]) -> Result<Format, MediaError> {
        let word = |at: usize| match body.get(at..at + 2) {
            Some(&[lo, hi]) => Ok(u16::from_le_bytes([lo, hi])),
            _ => Err(malformed("format chunk cut off".to_owned())),
        };
        let rate = u32::from(word(4)?) | u32::from(word(6)?) << 16;
        let tag = match word(0)? {
            FORMAT_EXTENSIBLE => word(24)?,
            tag => tag,
        };
        let format = Format {
            tag,
            channels: word(2)?,
            rate,
            bits: word(14)?,
        };
        if !(1..=32).contains(&format.channels) {
            return Err(malformed(format!("{} channels", format.channels)));
        }
        if !(1000..=384_000).contains(&format.rate) {
            return Err(malformed(format!("{} samples per second", format.rate)));
        }
        Ok(format)
    }

    fn samples(self, data: &[u8]) -> Result<Wav, MediaError> {
        let mono = match (self.tag, self.bits) {
            (FORMAT_PCM, 8) => self.mix(data, |[x]| (i16::from(x) - 128) << 8),
            (FORMAT_PCM, 16) => self.mix(data, i16::from_le_bytes),
            (FORMAT_PCM, 24) => self.mix(data, |[_, lo, hi]| i16::from_le_bytes([lo, hi])),
            (FORMAT_PCM, 32) => self.mix(data, |[_, _, lo, hi]| i16::from_le_bytes([lo, hi])),
            (FORMAT_FLOAT, 32) => self.mix(data, |x: [u8; 4]| (f32::from_le_bytes(x) * 32_767.0) as i16),
            (FORMAT_ALAW, 8) => self.mix(data, |[x]| g711::alaw_decode(x)),
            (FORMAT_ULAW, 8) => self.mix(data, |[x]| g711::ulaw_decode(x)),
            (tag, bits) => {
                return Err(malformed(format!(
                    "format {tag} with {bits} bits; convert it to 16-bit PCM first (for example with sox)"
                )));
            }
        };
        Ok(Wav {
            rate: self.rate,
            samples: mono,
        })
    }

    fn mix<const N: usize>(self, data: &[u8], sample: impl Fn([u8; N]) -> i16) -> Vec<i16> {
        let channels = usize::from(self.channels);
        let (all, _) = data.as_chunks::<N>();
        all.chunks_exact(channels)
            .map(|group| {
                let sum: i32 = group.iter().map(|&octets| i32::from(sample(octets))).sum();
                (sum / i32::from(self.channels)) as i16
            })
            .collect()
    }
}

fn malformed(what: String) -> MediaError {
    MediaError::MalformedWav { what }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trips(rate in 1000u32..96_000, samples in proptest::collection::vec(any::<i16>(), 1..500)) {
            let wav = parse(&to_bytes(rate, &samples)).unwrap();
            prop_assert_eq!(wav, Wav { rate, samples });
        }

        #[test]
        fn random_bytes_never_panic(tail in proptest::collection::vec(any::<u8>(), 0..200), at in 8usize..40) {
            let _ = parse(&tail);
            let mut bytes = to_bytes(8000, &[1, 2, 3]);
            bytes.splice(at.., tail);
            let _ = parse(&bytes);
        }
    }

    #[test]
    fn other_formats() {
        let mut stereo = to_bytes(8000, &[100, 300, -100, -300]);
        stereo[22] = 2;
        assert_eq!(parse(&stereo).unwrap().samples, [200, -200]);
        let mut narrow = to_bytes(8000, &[]);
        narrow[34] = 8;
        narrow[40] = 2;
        narrow.extend([128, 255]);
        assert_eq!(parse(&narrow).unwrap().samples, [0, 127 << 8]);
        narrow[20] = 7;
        assert_eq!(
            parse(&narrow).unwrap().samples,
            [g711::ulaw_decode(128), g711::ulaw_decode(255)]
        );
    }

    #[test]
    fn wrong_files_say_why() {
        assert!(parse(b"ID3 something").unwrap_err().to_string().contains("RIFF"));
        assert!(matches!(
            read(Path::new("/nonexistent.wav")),
            Err(MediaError::File { .. })
        ));
        let mut odd = to_bytes(8000, &[1]);
        odd[20] = 0x55;
        assert!(parse(&odd).unwrap_err().to_string().contains("format 85"));
    }
}
