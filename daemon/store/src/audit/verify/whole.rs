//! What only the whole chain tells: head and checkpoints, rows that nobody vouches for, triggers that are gone.

use std::{collections::BTreeMap, path::Path};

use rusqlite::{Connection, OptionalExtension};

use super::{Checkpoint, Finding, Verification, Walk, head, kept};
use crate::StoreError;

impl Walk<'_> {
    /// What only the whole tells.
    pub(super) fn finish(mut self, db: &Connection, last: i64) -> Result<Verification, StoreError> {
        let mut checkpoints = kept(db)?;
        checkpoints.extend(self.given);
        checkpoints.sort_by_key(|checkpoint| checkpoint.seq);
        for checkpoint in &checkpoints {
            self.compare(checkpoint);
        }
        let head = head(db)?;
        self.judge_head(head, last);
        self.added(db)?;
        let mut unseen: Vec<i64> = self.unsalted.difference(&self.erased).copied().collect();
        unseen.sort_unstable();
        for session in unseen {
            self.seen.find(Finding::ErasedUnseen { session });
        }
        for finding in std::mem::take(&mut self.gone_recordings) {
            let told = matches!(&finding, Finding::RecordingMissing { recording, .. }
                if self.erased_recordings.contains(recording));
            if !told {
                self.seen.find(finding);
            }
        }
        self.guards(db)?;
        self.seen.erased = self.erased.len() as u64;
        self.seen.open = self.begun.difference(&self.ended).count() as u64;
        self.seen.head = head;
        Ok(self.seen)
    }

    fn compare(&mut self, checkpoint: &Checkpoint) {
        self.seen.checkpoints += 1;
        let known = self.keys.contains(&checkpoint.key) || Some(checkpoint.key) == self.public_key;
        let what = match self.hashes.get(&checkpoint.seq) {
            None => "vouches for an entry that is not there: the record was cut off or replaced",
            Some(_) if !checkpoint.signature_is_right() => "has a false signature",
            Some(_) if !known => "was signed with a key that is not this box's",
            Some(hash) if *hash != checkpoint.hash => {
                "vouches for another entry: the record was rewritten after it"
            }
            Some(_) => return,
        };
        self.seen.find(Finding::Checkpoint {
            seq: checkpoint.seq,
            what,
        });
    }

    fn judge_head(&mut self, head: Option<Checkpoint>, last: i64) {
        let Some(head) = head else {
            if last > 0 {
                self.seen.find(Finding::Head { what: "is missing" });
            }
            return;
        };
        if head.seq > last {
            self.missing(last + 1, head.seq);
        }
        if head.seq < last {
            self.seen.find(Finding::EntryUnsigned {
                from: head.seq + 1,
                head: head.seq,
            });
        }
        if !head.signature_is_right() {
            self.seen.find(Finding::Head {
                what: "has a false signature",
            });
        } else if self.public_key.is_some_and(|key| key != head.key) {
            self.seen.find(Finding::Head {
                what: "was signed with another key than the one beside the database (audit.pub)",
            });
        } else if self.hashes.get(&head.seq).is_some_and(|hash| *hash != head.hash) {
            self.seen.find(Finding::Head {
                what: "vouches for another last entry",
            });
        }
    }

    /// Rows that no entry vouches for. Where entries are missing, that is the finding.
    fn added(&mut self, db: &Connection) -> Result<(), StoreError> {
        if self.missed {
            return Ok(());
        }
        let count = |table: &str| -> Result<u64, StoreError> {
            Ok(db.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))?)
        };
        if count("turn")? > self.seen.turns {
            let added = db
                .query_row(
                    "SELECT session_id, number FROM turn t WHERE NOT EXISTS (SELECT 1 FROM audit a \
                     WHERE a.session = t.session_id AND a.kind = 'turn' AND json_extract(a.payload, '$.number') = t.number) \
                     ORDER BY session_id, number LIMIT 1",
                    [],
                    |row| Ok((row.get(0)?, row.get(1)?)),
                )
                .optional()?;
            if let Some((session, number)) = added {
                self.seen.find(Finding::TurnAdded { session, number });
            }
        }
        let made = [
            ("transcript", "a final transcript", self.transcripts),
            ("summary", "a summary", self.summaries),
        ];
        for (table, what, vouched) in made {
            if count(table)? > vouched {
                let added = db
                    .query_row(
                        &format!(
                            "SELECT session_id FROM {table} t GROUP BY session_id HAVING count(*) > (SELECT count(*) \
                             FROM audit a WHERE a.session = t.session_id AND a.kind = '{table}') LIMIT 1"
                        ),
                        [],
                        |row| row.get(0),
                    )
                    .optional()?;
                if let Some(session) = added {
                    self.seen.find(Finding::AfterAdded { session, what });
                }
            }
        }
        if count("session")? > self.seen.sessions {
            let added = db
                .query_row(
                    "SELECT id FROM session s WHERE NOT EXISTS (SELECT 1 FROM audit a \
                     WHERE a.session = s.id AND a.kind = 'session' AND a.phase = 'begin') ORDER BY id LIMIT 1",
                    [],
                    |row| row.get(0),
                )
                .optional()?;
            if let Some(session) = added {
                self.seen.find(Finding::SessionAdded { session });
            }
        }
        Ok(())
    }

    /// Whether the triggers are those of a fresh database.
    fn guards(&mut self, db: &Connection) -> Result<(), StoreError> {
        let mut fresh = Connection::open_in_memory()?;
        crate::migrate::run(&mut fresh, Path::new("memory"))?;
        // A newer program's database may have others.
        if crate::migrate::version(db)? != crate::migrate::newest() {
            return Ok(());
        }
        let (wanted, found) = (triggers(&fresh)?, triggers(db)?);
        for (name, sql) in &wanted {
            let what = match found.get(name) {
                None => "missing",
                Some(other) if other != sql => "changed",
                Some(_) => continue,
            };
            self.seen.find(Finding::Guard {
                name: name.clone(),
                what,
            });
        }
        for name in found.keys().filter(|name| !wanted.contains_key(*name)) {
            self.seen.find(Finding::Guard {
                name: name.clone(),
                what: "not ours",
            });
        }
        Ok(())
    }
}

fn triggers(db: &Connection) -> Result<BTreeMap<String, String>, StoreError> {
    let mut statement = db.prepare("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}
