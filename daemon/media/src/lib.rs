//! Pure media: what happens to a frame between the socket and the engines.
//!
//! ```text
//! rx: packet -> rtp -> playout (jitter -> codec -> plc, comfort noise) -> Frame
//!                 `--> telephone_event -> digit
//! tx: Frame -> packetizer (codec) -> rtp -> packet
//!     digit -> telephone_event (or tone) --^
//! ```
//!
//! Nothing here knows a clock, a socket, a thread or a logger; time comes in as an argument. Whatever the
//! realtime thread calls allocates nothing after construction; what allocates ([`wav`], [`resample::convert`],
//! [`tone::dtmf`]) says so and is for set-up, tools and tests.
//!
//! The house format is **16 kHz mono `i16` in frames of 20 ms, 320 samples** ([`Frame`]).

pub mod codec;
pub mod echo;
pub mod frame;
pub mod g711;
pub mod g722;
pub mod jitter;
pub mod level;
pub mod noise;
pub mod opus;
pub mod packetizer;
pub mod playout;
pub mod plc;
pub mod progress;
pub mod resample;
pub mod rtcp;
pub mod rtp;
pub mod sequence;
pub mod srtp;
pub mod stream;
pub mod telephone_event;
pub mod tone;
pub mod wav;

pub use codec::{Codec, Decoder, Encoder};
pub use frame::{FRAME_SAMPLES, Frame, PTIME_MS, SAMPLE_RATE_HZ};
pub use stream::{Rtcp, Stream};

/// Why bytes could not be taken as media.
#[derive(Debug, thiserror::Error)]
pub enum MediaError {
    /// Not RTP version 2, or shorter than it claims: count it and drop it.
    #[error("malformed RTP: {what}")]
    MalformedRtp {
        /// Which check failed.
        what: &'static str,
    },
    /// Not whole RTCP packets: count it and drop it.
    #[error("malformed RTCP: {what}")]
    MalformedRtcp {
        /// Which check failed.
        what: &'static str,
    },
    /// Not sealed with the agreed key, or sent again by somebody: count it and drop it.
    #[error("unauthentic packet: {what}")]
    Unauthentic {
        /// Which check failed.
        what: &'static str,
    },
    /// Not a telephone-event payload (RFC 4733 §2.3): count it and drop it.
    #[error("malformed telephone-event payload of {octets} octets")]
    MalformedEvent {
        /// Length of the payload \[octets\].
        octets: usize,
    },
    /// Not comfort noise (RFC 3389 §3): count it and drop it.
    #[error("comfort noise without a level")]
    MalformedNoise,
    /// The caller's buffer cannot hold what is to be written: a programming error, nothing was written.
    #[error("buffer of {have} octets, {need} needed")]
    BufferTooSmall {
        /// Octets that are needed.
        need: usize,
        /// Octets the buffer has.
        have: usize,
    },
    /// No such key on a telephone: refuse the request.
    #[error("'{digit}' is not a DTMF digit; use 0-9, *, #, A-D")]
    NotADigit {
        /// What was asked for.
        digit: char,
    },
    /// The file is not a sound file that can be read: tell the person who named it.
    #[error("not a usable WAV file: {what}")]
    MalformedWav {
        /// Which check failed.
        what: String,
    },
    /// The file could not be read or written.
    #[error("{path}")]
    File {
        /// The file.
        path: std::path::PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}
