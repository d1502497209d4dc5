//! Recordings: both sides of a call on channels of their own, FLAC (RFC 9639), encrypted, on the disk within a second.
//!
//! ```text
//! call ──(channel, 5 s of frames)──> thread `recording`: Track ─> flac ─> vault ─> file, fdatasync once a second
//! ```
//! [`Track`] is pure but for its file; [`Recording`] runs it on its own thread, so that a call never waits for a disk:
//! when the channel is full, frames are counted as lost and stand as silence. Time comes from the frames' numbers, which
//! the realtime thread counts: what is missing becomes silence of the same length, so that nothing drifts.

mod bits;
pub mod flac;
mod listen;
pub mod packet;
mod recording;
mod redact;
mod track;
pub mod vault;

use std::{
    io,
    path::{Path, PathBuf},
};

pub use listen::{Cut, cuts};
pub use recording::{Recorded, Recording};
pub use redact::{Muted, Side, mute, tones};
pub use track::{Figures, Track, export, length};
pub use vault::{End, MasterKey, Sum, repair, sum};

/// Why a recording could not be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// Disk full, gone, or no rights: the recording ends here, the call goes on.
    #[error("the recording {} cannot be used: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is no recording.
    #[error("{} is no recording of an attendant", path.display())]
    NotOurs {
        /// The file.
        path: PathBuf,
    },
    /// Another box's key, or the file was changed: restore both file and key from where they belong together.
    #[error("the recording {} was damaged after {sound} octets, or this is not the key it was made with", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Octets that are sound.
        sound: u64,
    },
    /// A chunk that no recording makes: a bug.
    #[error("a chunk of {octets} octets is too long")]
    TooLong {
        /// Its length.
        octets: usize,
    },
    /// Whoever asked for it no longer wants it: a call has begun.
    #[error("stopped")]
    Stopped,
    /// The system's cryptography refused: no random numbers.
    #[error("the system's cryptography does not work")]
    Crypto,
}

impl RecordError {
    fn file(path: &Path) -> impl FnOnce(io::Error) -> RecordError {
        let path = path.to_owned();
        move |source| RecordError::File { path, source }
    }
}

/// Octets free for this user on the file system of `path`; `None` when the system does not tell.
#[must_use]
pub fn free_octets(path: &Path) -> Option<u64> {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).ok()?;
    statvfs(&path)
}

#[allow(unsafe_code, reason = "the standard library has no free space")]
fn statvfs(path: &std::ffi::CStr) -> Option<u64> {
    let mut stat = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: `path` ends in NUL and `stat` is large enough; it is read only after the call has filled it.
    let stat = unsafe {
        if libc::statvfs(path.as_ptr(), stat.as_mut_ptr()) != 0 {
            return None;
        }
        stat.assume_init()
    };
    #[allow(clippy::unnecessary_cast, reason = "32 bits on some systems")]
    Some(stat.f_bavail as u64 * stat.f_frsize as u64)
}
