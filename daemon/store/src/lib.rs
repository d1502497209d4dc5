//! The record: sessions, turns with their latencies, events, and the audit chain over them, in one SQLite file. The only
//! place with SQL.
//!
//! ```text
//! call actors --spawn_blocking--> Store --Mutex--> writer connection --.
//! admin page  --spawn_blocking--> Store --Mutex--> reader connection --+--> attendant.db (WAL)
//! ```
//!
//! - **One owner.** [`Store::open`] locks the data directory; a second daemon on it is refused. Clones share
//!   the handle. [`Store::open_read_only`] is for tools beside a running daemon.
//! - **Blocking.** Every method blocks: a write for one fsync (under 1 ms on an SSD, up to some 100 ms on a
//!   worn SD card) plus the writes queued before it, a read for as long as it takes; readers never wait for
//!   writers. Call through `spawn_blocking`, never from the realtime thread.
//! - **Power cut.** WAL with `synchronous = FULL`: what a method returned `Ok` for is on the disk.
//! - **Provable.** Each write appends to a hash chain in its own transaction ([`audit`]); [`Store::verify`] names what was
//!   changed behind the program's back.
//! - **Time** is passed in ([Unix ms]); the store has no clock.
//! - **Privacy.** Numbers and texts are stored in clear (the office needs them) but no `Debug` here prints
//!   them.

mod after;
mod archive;
pub mod audit;
mod backup;
mod error;
mod event;
mod guardrail;
mod history;
mod import;
mod job;
mod life;
pub mod mask;
mod migrate;
mod person;
mod recording;
mod report;
mod seal;
mod session;
mod store;
mod stream;
mod time;
mod token;
mod turn;

pub use after::{AfterCall, FinalText, Quality, RedactedTurn, Replacement, Side, Summary};
pub use archive::{ARCHIVE_DIR, Archived};
pub use audit::{AuditEnd, AuditEntry, AuditKind, AuditSeq, Checkpoint, Finding, Verification};
pub use backup::Made;
pub use error::StoreError;
pub use event::{Event, EventKind};
pub use guardrail::{NewGuardrail, PromptText};
pub use history::{Cursor, HistoryFilter, HistoryPage};
pub use import::FinishedCall;
pub use job::{Job, JobEnd, JobFigures, JobKind, StoredJob};
pub use person::{Erasure, PersonalRecord};
pub use recording::{RECORDINGS_DIR, RECORDINGS_KEY_FILE, RecordingKey, RecordingSeal, StoredRecording};
pub use report::{Percentiles, SessionRecord, SessionSummary};
pub use session::{
    Context, Direction, Driver, NewSession, Opened, Outcome, SealedContext, Session, SessionId, SessionKey,
    State, UnknownWord,
};
pub use store::{DATABASE_FILE, Store, cache_octets};
pub use stream::{NewPacket, PacketTaken, StreamCall, StreamState};
pub use token::{Answer, ApiRole, ApiToken, Asked, MAX_ANSWER, NewToken, Reach, TokenId};
pub use turn::{NewTurn, Source, Turn, TurnLatencies, TurnNumber};
