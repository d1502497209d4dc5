//! What single entries vouch for: turns, recordings, contexts, sessions, each compared with what is stored.

use rusqlite::{Connection, OptionalExtension};
use serde::Deserialize;

use super::{Entry, Files, Finding, Walk, file_hash};
use crate::{
    SessionId, StoreError, archive,
    audit::chain::{Hash, from_hex},
    mask, seal,
};

#[derive(Deserialize)]
struct TurnPayload {
    number: i64,
    sha256: String,
}

#[derive(Deserialize)]
struct BeginPayload {
    sha256: String,
}

#[derive(Deserialize)]
struct EndPayload {
    to: String,
    version: i64,
    turns: i64,
    reason: Option<String>,
}

#[derive(Deserialize)]
struct RecordingPayload {
    recording: String,
    sha256: Option<String>,
    octets: Option<u64>,
}

#[derive(Deserialize)]
struct KeyPayload {
    public_key: String,
}

impl Walk<'_> {
    /// What the entry vouches for.
    pub(super) fn vouched(&mut self, db: &Connection, entry: &Entry<'_>) -> Result<(), StoreError> {
        let (seq, session) = (entry.link.seq, entry.link.session);
        match (entry.link.kind, entry.link.phase) {
            (b"turn", b"note") => self.turn(db, entry)?,
            (b"context", b"note") => self.context(db, entry)?,
            (b"redaction", b"note") => self.redacted_turn(db, entry)?,
            (b"transcript", b"note") => self.transcript(db, entry)?,
            (b"summary", b"note") => self.summary(db, entry)?,
            (b"session", b"begin") => self.session_begin(db, entry)?,
            (b"session", b"complete" | b"fail" | b"timed_out" | b"interrupted") => {
                self.session_end(db, entry)?;
            }
            (b"recording", b"complete" | b"interrupted" | b"note") => self.recording(db, entry)?,
            (b"erasure", b"note") => match serde_json::from_slice::<RecordingPayload>(entry.link.payload) {
                Ok(told) => {
                    self.erased_recordings.insert(told.recording);
                }
                Err(_) => {
                    self.erased.insert(session);
                }
            },
            (b"key", b"note") => {
                let key = serde_json::from_slice::<KeyPayload>(entry.link.payload).ok();
                let key: Option<[u8; 32]> = key.and_then(|key| from_hex(&key.public_key)?.try_into().ok());
                self.keys.extend(key);
            }
            _ => {}
        }
        if entry.link.phase == b"begin" {
            self.begun.insert(seq);
        } else if entry.link.begun > 0 && !self.begun.remove(&entry.link.begun) {
            // Begun in an earlier part.
            self.ended.insert(entry.link.begun);
        }
        Ok(())
    }

    fn turn(&mut self, db: &Connection, entry: &Entry<'_>) -> Result<(), StoreError> {
        let (entry_seq, session) = (entry.link.seq, entry.link.session);
        let Ok(told) = serde_json::from_slice::<TurnPayload>(entry.link.payload) else {
            return Ok(());
        };
        let mut statement = db.prepare_cached(seal::TURN)?;
        let found = statement
            .query_row([session, told.number], seal::of_turn)
            .optional()?;
        let number = told.number;
        match found {
            None => self.seen.find(Finding::TurnMissing {
                session,
                number,
                entry: entry_seq,
            }),
            Some(None) => {
                self.seen.turns += 1;
                self.unsalted.insert(session);
            }
            Some(Some(hash)) => {
                self.seen.turns += 1;
                if Hash::from_hex(&told.sha256) != Some(hash) && !redacted(db, session, number)? {
                    self.elsewhere(db, entry, &told)?;
                }
            }
        }
        Ok(())
    }

    /// A turn whose digits were hidden: from then on this entry vouches for it.
    fn redacted_turn(&mut self, db: &Connection, entry: &Entry<'_>) -> Result<(), StoreError> {
        let Ok(told) = serde_json::from_slice::<TurnPayload>(entry.link.payload) else {
            return Ok(());
        };
        let found = db
            .prepare_cached(seal::TURN)?
            .query_row([entry.link.session, told.number], seal::of_turn)
            .optional()?;
        match found.flatten() {
            Some(hash) if Hash::from_hex(&told.sha256) != Some(hash) => self.elsewhere(db, entry, &told),
            // Missing or erased: the entry of the turn itself tells.
            _ => Ok(()),
        }
    }

    /// A turn that is not in its row what the entry says: its texts may be in a cold file.
    fn elsewhere(
        &mut self,
        db: &Connection,
        entry: &Entry<'_>,
        told: &TurnPayload,
    ) -> Result<(), StoreError> {
        let session = entry.link.session;
        let altered = Finding::TurnAltered {
            session,
            number: told.number,
            entry: entry.link.seq,
        };
        if !archive::is_archived(db, SessionId::new(session))? {
            self.seen.find(altered);
            return Ok(());
        }
        if self.files == Files::Elsewhere {
            return Ok(());
        }
        if self.cold.as_ref().is_none_or(|(of, _)| *of != session) {
            let texts = archive::texts(db, self.directory, SessionId::new(session));
            self.cold = Some((session, texts.ok().flatten().unwrap_or_default()));
        }
        let texts = self
            .cold
            .iter()
            .flat_map(|(_, texts)| texts)
            .find(|texts| i64::from(texts.number) == told.number);
        let hash = match texts {
            Some(texts) => db
                .prepare_cached(seal::TURN)?
                .query_row([session, told.number], |row| {
                    // What was archived left nothing behind.
                    let left = !(row.get::<_, String>(4)?.is_empty() && row.get::<_, String>(5)?.is_empty());
                    if left {
                        Ok(None)
                    } else {
                        seal::of_cold_turn(row, texts)
                    }
                })
                .optional()?
                .flatten(),
            None => None,
        };
        if hash.is_none() || Hash::from_hex(&told.sha256) != hash {
            self.seen.find(altered);
        }
        Ok(())
    }

    fn transcript(&mut self, db: &Connection, entry: &Entry<'_>) -> Result<(), StoreError> {
        let Ok(told) = serde_json::from_slice::<TurnPayload>(entry.link.payload) else {
            return Ok(());
        };
        let found = db
            .prepare_cached(seal::TRANSCRIPT)?
            .query_row([entry.link.session, told.number], seal::of_transcript)
            .optional()?;
        self.transcripts += u64::from(found.is_some());
        self.afterwards(entry, &told.sha256, found.flatten(), "the final transcript");
        Ok(())
    }

    fn summary(&mut self, db: &Connection, entry: &Entry<'_>) -> Result<(), StoreError> {
        let Ok(told) = serde_json::from_slice::<BeginPayload>(entry.link.payload) else {
            return Ok(());
        };
        let found = db
            .prepare_cached(seal::SUMMARY)?
            .query_row([entry.link.session], seal::of_summary)
            .optional()?;
        self.summaries += u64::from(found.is_some());
        self.afterwards(entry, &told.sha256, found.flatten(), "the summary");
        Ok(())
    }

    /// What was made after a call; gone only where an erasure stands in the chain.
    fn afterwards(&mut self, entry: &Entry<'_>, sha256: &str, found: Option<Hash>, what: &'static str) {
        let session = entry.link.session;
        match found {
            None => {
                self.unsalted.insert(session);
            }
            Some(hash) if Hash::from_hex(sha256) != Some(hash) => self.seen.find(Finding::AfterAltered {
                session,
                what,
                entry: entry.link.seq,
            }),
            Some(_) => {}
        }
    }

    fn recording(&mut self, db: &Connection, entry: &Entry<'_>) -> Result<(), StoreError> {
        let (entry_seq, session) = (entry.link.seq, entry.link.session);
        let Ok(RecordingPayload {
            recording,
            sha256: Some(sha256),
            octets: Some(octets),
        }) = serde_json::from_slice(entry.link.payload)
        else {
            return Ok(());
        };
        self.seen.recordings += 1;
        let row: Option<(String, Option<String>, i64)> = db
            .prepare_cached("SELECT state, sha256, session_id FROM recording WHERE uuid = ?1")?
            .query_row([&recording], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .optional()?;
        let altered = |what| Finding::RecordingAltered {
            recording: recording.clone(),
            session,
            what,
            entry: entry_seq,
        };
        let missing = Finding::RecordingMissing {
            recording: recording.clone(),
            session,
            entry: entry_seq,
        };
        let Some((state, stored, owner)) = row else {
            self.seen.find(missing);
            return Ok(());
        };
        if stored.as_deref() != Some(sha256.as_str()) || owner != session {
            self.seen.find(altered("its row"));
        } else if state == "erased" {
            self.gone_recordings.push(missing);
        } else if self.files == Files::InDirectory {
            match file_hash(&crate::recording::file(self.directory, &recording)) {
                Ok((hash, length)) if length == octets && Hash::from_hex(&sha256) == Some(hash) => {}
                Ok(_) => self.seen.find(altered("its file")),
                // A stop before the first octet leaves no file, and that is what was sealed.
                Err(_) if octets == 0 => {}
                Err(_) => self.gone_recordings.push(missing),
            }
        }
        Ok(())
    }

    fn context(&mut self, db: &Connection, entry: &Entry<'_>) -> Result<(), StoreError> {
        let (entry_seq, session) = (entry.link.seq, entry.link.session);
        let Ok(told) = serde_json::from_slice::<BeginPayload>(entry.link.payload) else {
            return Ok(());
        };
        let found = db
            .prepare_cached(seal::CONTEXT)?
            .query_row([session], seal::of_context)
            .optional()?;
        match found.flatten() {
            None => {
                self.unsalted.insert(session);
            }
            Some(hash) if Hash::from_hex(&told.sha256) != Some(hash) => {
                self.seen.find(Finding::ContextAltered {
                    session,
                    entry: entry_seq,
                });
            }
            Some(_) => {}
        }
        Ok(())
    }

    fn session_begin(&mut self, db: &Connection, entry: &Entry<'_>) -> Result<(), StoreError> {
        let (entry_seq, session) = (entry.link.seq, entry.link.session);
        let Ok(told) = serde_json::from_slice::<BeginPayload>(entry.link.payload) else {
            return Ok(());
        };
        let mut statement = db.prepare_cached(seal::SESSION)?;
        let found = statement.query_row([session], seal::of_session).optional()?;
        match found {
            None => self.seen.find(Finding::SessionMissing {
                session,
                entry: entry_seq,
            }),
            Some(None) => {
                self.seen.sessions += 1;
                self.unsalted.insert(session);
            }
            Some(Some(hash)) => {
                self.seen.sessions += 1;
                if Hash::from_hex(&told.sha256) != Some(hash) {
                    self.seen.find(Finding::SessionAltered {
                        session,
                        what: "what it began with",
                        entry: entry_seq,
                    });
                }
            }
        }
        Ok(())
    }

    fn session_end(&mut self, db: &Connection, entry: &Entry<'_>) -> Result<(), StoreError> {
        let (entry_seq, session) = (entry.link.seq, entry.link.session);
        let Ok(told) = serde_json::from_slice::<EndPayload>(entry.link.payload) else {
            return Ok(());
        };
        let found = db
            .prepare_cached(
                "SELECT state, version, turn_count, reason, ended_at_ms FROM session WHERE id = ?1",
            )?
            .query_row([session], |row| {
                let reason: Option<String> = row.get(3)?;
                let what = if row.get::<_, String>(0)? != told.to || row.get::<_, i64>(1)? != told.version {
                    Some("its state")
                } else if row.get::<_, i64>(2)? != told.turns {
                    Some("its number of turns")
                } else if reason.map(|reason| mask::digits(&reason)) != told.reason {
                    Some("its reason")
                } else if row.get::<_, i64>(4)? != entry.link.at_ms {
                    Some("its end")
                } else {
                    None
                };
                Ok(what)
            })
            .optional()?;
        if let Some(Some(what)) = found {
            self.seen.find(Finding::SessionAltered {
                session,
                what,
                entry: entry_seq,
            });
        }
        Ok(())
    }
}

/// Whether a later entry vouches for the turn with its digits hidden. That it is itself in the chain is seen there.
fn redacted(db: &Connection, session: i64, number: i64) -> Result<bool, StoreError> {
    Ok(db
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM audit WHERE session = ?1 AND kind = 'redaction' \
             AND json_extract(payload, '$.number') = ?2)",
        )?
        .query_row([session, number], |row| row.get(0))?)
}
