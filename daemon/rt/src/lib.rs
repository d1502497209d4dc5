//! The realtime audio thread: clock, legs, rings, counters.
//!
//! ```text
//!  socket --recv--> open (SRTP) -> jitter -> decode/conceal -> voice activity --RxFrame ring--> call
//!                      `--> reports (RTCP)     rt-audio, one tick every 20 ms
//!  socket <--send-- seal (SRTP) <- packets <- encode <- gain <- flush <----------TxFrame ring---- call
//!                      ^-- reports, telephone-events <----------------------command ring--------- LegControl
//!
//!  new legs --ring--> rt-audio --return ring--> rt-reaper (frees them, closes their sockets)
//! ```
//!
//! | Thread | Priority | Does |
//! |---|---|---|
//! | `rt-audio` | `SCHED_FIFO` 20 where the system allows it | everything between socket and rings |
//! | `rt-reaper` | normal | frees retired legs; parked while there are none |
//!
//! `rt-audio` moves frames and adds to atomics. It does not allocate, free, lock, log or format, and its only
//! system calls are its sockets' and its sleep. A full ring drops and counts; an empty one conceals or is silent
//! and counts. In a tick all legs send first, so that what is received never moves the sending instants.
//!
//! Enforced by this crate's `clippy.toml`, the lints below and `tests/no_alloc.rs`.

#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic
    )
)]
#![cfg_attr(
    not(test),
    deny(
        clippy::disallowed_types,
        clippy::disallowed_macros,
        clippy::disallowed_methods
    )
)]
#![cfg_attr(
    test,
    allow(
        clippy::disallowed_types,
        clippy::disallowed_macros,
        clippy::disallowed_methods
    )
)]

mod engine;
#[cfg(test)]
mod fuzz_tests;
mod handle;
mod leg;
#[cfg(test)]
mod leg_tests;
mod report;
mod rx;
mod sched;
mod source;
mod stats;
mod tx;
mod vad;

pub use handle::{Leg, LegConfig, LegControl, Rt, RtConfig};
pub use stats::{LateTicks, LegStats, PeerReport, Played, RtStats};
pub use vad::Vad;

use attendant_media::Frame;

/// One ptime from the far party of a leg.
#[derive(Clone, Copy, Debug)]
pub struct RxFrame {
    /// 16 kHz mono, 320 samples; silence when nothing is being received.
    pub frame: Frame,
    /// What was sent in the same tick, as the far party hears it: what an echo is made of.
    pub sent: Frame,
    /// How likely someone speaks in it, 0..=1 (earshot).
    pub speech_prob: f32,
    /// Mean level \[dBov\].
    pub level_dbov: f32,
    /// Made up in place of a lost or late packet.
    pub concealed: bool,
    /// A key that was pressed; each press is reported once.
    pub digit: Option<char>,
    /// Frames since the leg started.
    pub at: u64,
}

/// One ptime to the far party of a leg.
#[derive(Clone, Copy, Debug)]
pub struct TxFrame {
    /// 16 kHz mono, 320 samples.
    pub frame: Frame,
    /// What it belongs to; [`LegControl::flush`] drops what is older.
    pub epoch: u32,
    /// Number of the clause it belongs to, rising.
    pub mark: u32,
    /// The last frame of a clause after which silence is no fault.
    pub last: bool,
}

/// Why something could not be done with the realtime thread or a leg.
#[derive(Debug, thiserror::Error)]
pub enum RtError {
    /// The system gave no thread: the daemon cannot work.
    #[error("cannot start thread {name}")]
    Thread {
        /// Which one.
        name: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// As many legs as configured are up: refuse the call (486).
    #[error("all {max_legs} legs are in use")]
    TooManyLegs {
        /// The configured number.
        max_legs: usize,
    },
    /// The socket is unusable: give it up and take another.
    #[error("cannot use the RTP socket")]
    Socket(#[source] std::io::Error),
    /// The realtime thread has ended: the daemon must be restarted.
    #[error("the realtime thread is not running")]
    Stopped,
    /// No such key: refuse the request.
    #[error(transparent)]
    Digit(#[from] attendant_media::MediaError),
    /// The leg has not yet taken earlier commands: try again a tick later.
    #[error("too many commands are waiting for the leg")]
    Busy,
}
