//! What a verification can find, and what it saw.

use super::Checkpoint;

/// Findings kept; beyond these they are counted.
const MAX_FINDINGS: usize = 100;

/// Something that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Finding {
    /// A row of `audit` was changed.
    #[error("entry {seq} was altered")]
    EntryAltered {
        /// Its number.
        seq: i64,
    },
    /// A row of `audit` was put into another's place.
    #[error("entry {seq} was moved: what belongs there stands as entry {found_at}")]
    EntryMoved {
        /// The place.
        seq: i64,
        /// Where its entry is now.
        found_at: i64,
    },
    /// Rows of `audit` are gone.
    #[error("entry {from} is missing{}", upto(*.from, *.to))]
    EntryMissing {
        /// First that is missing.
        from: i64,
        /// Last.
        to: i64,
    },
    /// Rows of `audit` were added without the key.
    #[error("entry {from} was added by another program: it is not covered by the signed head (entry {head})")]
    EntryUnsigned {
        /// First of them.
        from: i64,
        /// Entry of the head.
        head: i64,
    },
    /// The signed head is gone or false.
    #[error("the signed head of the chain {what}")]
    Head {
        /// What is wrong.
        what: &'static str,
    },
    /// A checkpoint does not fit the chain.
    #[error("the checkpoint at entry {seq} {what}")]
    Checkpoint {
        /// Its entry.
        seq: i64,
        /// What is wrong.
        what: &'static str,
    },
    /// A row of `turn` was changed.
    #[error("turn {number} of session {session} was altered (entry {entry} vouches for another)")]
    TurnAltered {
        /// Session.
        session: i64,
        /// Turn.
        number: i64,
        /// The audit entry.
        entry: i64,
    },
    /// A row of `turn` is gone.
    #[error("turn {number} of session {session} is missing (entry {entry} vouches for it)")]
    TurnMissing {
        /// Session.
        session: i64,
        /// Turn.
        number: i64,
        /// The audit entry.
        entry: i64,
    },
    /// A row of `turn` was added.
    #[error("turn {number} of session {session} was added: no entry vouches for it")]
    TurnAdded {
        /// Session.
        session: i64,
        /// Turn.
        number: i64,
    },
    /// A row of `session` was changed.
    #[error("session {session} was altered: {what} (entry {entry} vouches for another)")]
    SessionAltered {
        /// Session.
        session: i64,
        /// What differs.
        what: &'static str,
        /// The audit entry.
        entry: i64,
    },
    /// A row of `session` is gone.
    #[error("session {session} is missing (entry {entry} vouches for it)")]
    SessionMissing {
        /// Session.
        session: i64,
        /// The audit entry.
        entry: i64,
    },
    /// A row of `session` was added.
    #[error("session {session} was added: no entry vouches for it")]
    SessionAdded {
        /// Session.
        session: i64,
    },
    /// A sealed context was changed.
    #[error("the context of session {session} was altered (entry {entry} vouches for another)")]
    ContextAltered {
        /// Session.
        session: i64,
        /// The audit entry.
        entry: i64,
    },
    /// What was made after a call was changed.
    #[error("{what} of session {session} was altered (entry {entry} vouches for another)")]
    AfterAltered {
        /// Session.
        session: i64,
        /// Final transcript or summary.
        what: &'static str,
        /// The audit entry.
        entry: i64,
    },
    /// What nobody made after a call was added.
    #[error("{what} of session {session} was added: no entry vouches for it")]
    AfterAdded {
        /// Session.
        session: i64,
        /// Final transcript or summary.
        what: &'static str,
    },
    /// A recording's file or row was changed.
    #[error(
        "recording {recording} of session {session} was altered: {what} (entry {entry} vouches for another)"
    )]
    RecordingAltered {
        /// Its public name.
        recording: String,
        /// Session.
        session: i64,
        /// What differs.
        what: &'static str,
        /// The audit entry.
        entry: i64,
    },
    /// A recording's file or row is gone.
    #[error("recording {recording} of session {session} is missing (entry {entry} vouches for it)")]
    RecordingMissing {
        /// Its public name.
        recording: String,
        /// Session.
        session: i64,
        /// The audit entry.
        entry: i64,
    },
    /// Personal data are gone and no erasure stands in the chain.
    #[error("data of session {session} were removed without an erasure in the chain")]
    ErasedUnseen {
        /// Session.
        session: i64,
    },
    /// A trigger that protects the record is gone.
    #[error("the database no longer refuses changes: its trigger {name} is {what}")]
    Guard {
        /// Name of the trigger.
        name: String,
        /// Missing or changed.
        what: &'static str,
    },
}

fn upto(from: i64, to: i64) -> String {
    if to > from {
        format!(", and all up to {to}")
    } else {
        String::new()
    }
}

/// What a verification saw.
#[derive(Debug, Clone, Default)]
pub struct Verification {
    /// Entries read.
    pub entries: u64,
    /// Sessions compared.
    pub sessions: u64,
    /// Turns compared.
    pub turns: u64,
    /// Recordings compared, those erased included.
    pub recordings: u64,
    /// Sessions whose personal data were erased, as the chain tells.
    pub erased: u64,
    /// Begun, and not ended yet.
    pub open: u64,
    /// Checkpoints compared, the one given included.
    pub checkpoints: u64,
    /// Where the chain stands.
    pub head: Option<Checkpoint>,
    /// What is wrong, the first in the chain first (at most 100).
    pub findings: Vec<Finding>,
    /// Findings beyond those.
    pub more: u64,
}

impl Verification {
    /// Whether all is as it was written.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty()
    }

    pub(super) fn find(&mut self, finding: Finding) {
        if self.findings.len() < MAX_FINDINGS {
            self.findings.push(finding);
        } else {
            self.more += 1;
        }
    }
}
