//! Migrations: the schema's history, compiled in, each step in one transaction.
//!
//! `PRAGMA user_version` holds the number of the last migration. It is part of the transaction, so a power
//! cut leaves the schema before or after a step, never between. Files are append only: what has shipped is
//! not edited.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use crate::StoreError;

/// `application_id` of our databases: "ATTD" in ASCII, so that `file` and we know them.
const APPLICATION_ID: i32 = 0x4154_5444;

/// One step of the schema; the first brings version 1.
struct Migration {
    name: &'static str,
    sql: &'static str,
}

macro_rules! migration {
    ($name:literal) => {
        Migration {
            name: $name,
            sql: include_str!(concat!("../../../migrations/", $name)),
        }
    };
}

const MIGRATIONS: &[Migration] = &[
    migration!("0001_sessions.sql"),
    migration!("0002_audit.sql"),
    migration!("0003_lifecycle.sql"),
    migration!("0004_recordings.sql"),
    migration!("0005_search.sql"),
    migration!("0006_api.sql"),
    migration!("0007_jobs.sql"),
];

/// Newest schema version this program knows.
pub fn newest() -> u32 {
    u32::try_from(MIGRATIONS.len()).unwrap_or(u32::MAX)
}

/// Schema version of an open database.
pub fn version(connection: &Connection) -> Result<u32, rusqlite::Error> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Refuses a database that is newer than the program or not ours.
pub fn check(connection: &Connection, path: &Path) -> Result<u32, StoreError> {
    let found = version(connection)?;
    let application: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let tables: u32 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let ours = application == APPLICATION_ID || (application == 0 && found == 0 && tables == 0);
    if !ours {
        return Err(StoreError::NotOurs {
            path: path.to_owned(),
        });
    }
    if found > newest() {
        return Err(StoreError::TooNew {
            path: path.to_owned(),
            found,
            supported: newest(),
        });
    }
    Ok(found)
}

/// Brings the database to [`newest`]. Foreign keys must still be off: a step may rebuild a table.
pub fn run(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let from = check(connection, path)?;
    for (number, migration) in (1..=newest()).zip(MIGRATIONS) {
        if number > from {
            step(connection, number, migration).map_err(|source| StoreError::Migration {
                name: migration.name,
                source,
            })?;
        }
    }
    Ok(())
}

fn step(connection: &mut Connection, number: u32, migration: &Migration) -> Result<(), rusqlite::Error> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(migration.sql)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", number)?;
    transaction.commit()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> Connection {
        Connection::open_in_memory().expect("in memory")
    }

    #[test]
    fn runs_once_and_then_does_nothing() {
        let mut db = memory();
        run(&mut db, Path::new("t")).expect("first");
        assert_eq!(version(&db).expect("version"), newest());
        run(&mut db, Path::new("t")).expect("second");
        assert_eq!(version(&db).expect("version"), newest());
    }

    #[test]
    fn refuses_what_is_newer_or_foreign() {
        let mut db = memory();
        run(&mut db, Path::new("t")).expect("migrate");
        db.pragma_update(None, "user_version", newest() + 4)
            .expect("pragma");
        let error = run(&mut db, Path::new("/data/attendant.db")).expect_err("newer");
        assert!(
            matches!(error, StoreError::TooNew { found, .. } if found == newest() + 4),
            "{error}"
        );
        assert!(error.to_string().contains("newer attendant"), "{error}");

        let mut other = memory();
        other
            .execute_batch("CREATE TABLE cooking (recipe TEXT)")
            .expect("foreign");
        assert!(matches!(
            run(&mut other, Path::new("t")),
            Err(StoreError::NotOurs { .. })
        ));
    }

    #[test]
    fn a_failing_step_leaves_nothing_behind() {
        let mut db = memory();
        let broken = Migration {
            name: "9999_broken.sql",
            sql: "CREATE TABLE half (a TEXT); CREATE TABL oops;",
        };
        assert!(step(&mut db, 7, &broken).is_err());
        assert_eq!(version(&db).expect("version"), 0);
        let tables: u32 = db
            .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
            .expect("count");
        assert_eq!(tables, 0);
    }

    #[test]
    fn files_are_numbered_in_order() {
        for (number, migration) in (1..).zip(MIGRATIONS) {
            assert!(
                migration.name.starts_with(&format!("{number:04}_")),
                "{}",
                migration.name
            );
        }
    }
}
