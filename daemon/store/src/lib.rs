//! The record: sessions, turns with their latencies, and events, in one SQLite file. The only place with SQL.
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
//! - **Time** is passed in ([Unix ms]); the store has no clock.
//! - **Privacy.** Numbers and texts are stored in clear (the office needs them) but no `Debug` here prints
//!   them.

mod error;
mod event;
mod migrate;
mod report;
mod session;
mod store;
mod turn;

pub use error::StoreError;
pub use event::{Event, EventKind};
pub use report::{Percentiles, SessionRecord, SessionSummary};
pub use session::{Direction, NewSession, Outcome, Session, SessionId, SessionKey, State, UnknownWord};
pub use store::{DATABASE_FILE, Store};
pub use turn::{NewTurn, Source, Turn, TurnLatencies, TurnNumber};
