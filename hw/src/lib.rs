//! Lines that are hardware, and what the machine has of them.
//!
//! | Module | What it is |
//! |---|---|
//! | [`inventory()`] | sound devices and serial ports of this machine, for `attendant doctor` |
//! | [`modem`] | asks a serial device who it is and whether it can carry voice (V.253) |
//! | [`dle`] | V.253's shielded byte stream: audio and events on one serial line |
//!
//! This crate looks and asks; it does not yet answer a call on a modem or a handset.

pub mod dle;
mod inventory;
pub mod modem;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

pub use inventory::{AttachedBy, Inventory, Rates, SerialPort, SoundDevice, UsbIds, inventory};

/// Why a piece of hardware could not be used or asked.
#[derive(Debug, thiserror::Error)]
pub enum HwError {
    /// The user may not open the device: a matter of groups, not of wiring.
    #[error("{path} may not be opened by this user: add it to the group dialout (modem) or audio (handset)")]
    Forbidden {
        /// The device file.
        path: PathBuf,
    },
    /// Missing, busy, or not a serial device.
    #[error("cannot open {path}: {source}")]
    Open {
        /// The device file.
        path: PathBuf,
        /// What the system said.
        source: tokio_serial::Error,
    },
    /// Nothing there speaks AT: wrong port, no power, or another device than a modem.
    #[error("no answer to AT within {waited:?}: no modem on this port, or it is switched off")]
    Silent {
        /// How long an answer was awaited.
        waited: Duration,
    },
    /// The device went away while it was being asked (a pty reports its peer's end as EIO).
    #[error("the serial line broke: {0}")]
    Line(#[from] io::Error),
    /// ALSA itself could not be asked; devices may exist all the same.
    #[error("the sound system cannot be asked: {0}")]
    Sound(#[from] cpal::Error),
    /// The list of serial ports could not be read.
    #[error("serial ports cannot be listed: {0}")]
    Ports(tokio_serial::Error),
}
