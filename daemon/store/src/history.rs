//! History: the calls of years, page by page, by what is known of them or by what was said.

use rusqlite::{Connection, params_from_iter, types::Value};

use crate::{Reach, Session, SessionId, SessionSummary, State, Store, StoreError, report};

/// Most rows of a page.
const MAX_PAGE: u32 = 200;
/// Most words of a search.
const MAX_WORDS: usize = 16;
/// Turns looked through for one page of a search that is narrowed further.
const MAX_HITS: usize = 2_000;
/// Bits of a turn's number in its place in the index of words.
const NUMBER_BITS: u32 = 20;

/// Which calls. All that is given must be true of a call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HistoryFilter {
    /// Where they stand.
    pub state: Option<State>,
    /// The line.
    pub line: Option<String>,
    /// The caller's whole number, as stored.
    pub caller: Option<String>,
    /// Created at or after [Unix ms].
    pub from_ms: Option<i64>,
    /// Created before [Unix ms].
    pub to_ms: Option<i64>,
    /// Words that all stand in one turn; `*` behind the last one: what begins so.
    pub words: Option<String>,
    /// Whose matter it is.
    pub case: Option<String>,
    /// Only what this program may see.
    pub reach: Option<Reach>,
}

/// Where a page ended; the next one begins behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    created_at_ms: i64,
    id: i64,
}

impl Cursor {
    /// For a URL; [`Cursor::parse`] reads it.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}.{}", self.created_at_ms, self.id)
    }

    /// From [`Cursor::text`]; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Cursor> {
        let (created_at_ms, id) = text.split_once('.')?;
        Some(Cursor {
            created_at_ms: created_at_ms.parse().ok()?,
            id: id.parse().ok()?,
        })
    }
}

/// Some calls, newest first.
#[derive(Debug, Clone, PartialEq)]
pub struct HistoryPage {
    /// The calls.
    pub sessions: Vec<SessionSummary>,
    /// Where the next page begins; `None`: this is the last.
    pub next: Option<Cursor>,
}

impl Store {
    /// The calls that fit, newest first, at most `limit` (at most 200) behind `after`.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub fn history(
        &self,
        filter: &HistoryFilter,
        after: Option<Cursor>,
        limit: u32,
    ) -> Result<HistoryPage, StoreError> {
        let limit = limit.clamp(1, MAX_PAGE) as usize;
        self.read(|db| {
            let words = filter
                .words
                .as_deref()
                .map(match_all)
                .filter(|words| !words.is_empty());
            let mut sessions = match words {
                Some(words) => search(db, filter, &words, after, limit)?,
                None => listed(db, filter, after, limit)?,
            };
            let more = sessions.len() > limit;
            sessions.truncate(limit);
            let next = sessions.last().filter(|_| more).map(|last| Cursor {
                created_at_ms: last.created_at_ms,
                id: last.id.get(),
            });
            let sessions = sessions
                .into_iter()
                .map(|session| report::summary(db, session))
                .collect::<Result<_, _>>()?;
            Ok(HistoryPage { sessions, next })
        })
    }
}

/// What a filter says in SQL, and its values.
fn conditions(filter: &HistoryFilter) -> (String, Vec<Value>) {
    let given = [
        (
            "s.state = ?",
            filter.state.map(|state| Value::from(state.as_str().to_owned())),
        ),
        ("s.line = ?", filter.line.clone().map(Value::from)),
        ("s.caller = ?", filter.caller.clone().map(Value::from)),
        ("s.created_at_ms >= ?", filter.from_ms.map(Value::from)),
        ("s.created_at_ms < ?", filter.to_ms.map(Value::from)),
        ("s.case_key = ?", filter.case.clone().map(Value::from)),
    ];
    let mut sql = String::from("1");
    let mut values = Vec::new();
    for (condition, value) in given {
        if let Some(value) = value {
            sql.push_str(" AND ");
            sql.push_str(condition);
            values.push(value);
        }
    }
    if let Some(reach) = &filter.reach {
        sql.push_str(" AND (s.id IN (SELECT session_id FROM session_owner WHERE token_id = ?)");
        values.push(Value::from(reach.token.get()));
        if let Some(prefix) = &reach.case_prefix {
            sql.push_str(" OR substr(s.case_key, 1, length(?)) = ?");
            values.extend([Value::from(prefix.clone()), Value::from(prefix.clone())]);
        }
        sql.push(')');
    }
    (sql, values)
}

/// One more than `limit`, if there are.
fn listed(
    db: &Connection,
    filter: &HistoryFilter,
    after: Option<Cursor>,
    limit: usize,
) -> Result<Vec<Session>, StoreError> {
    let (mut sql, mut values) = conditions(filter);
    if let Some(after) = after {
        sql.push_str(" AND (s.created_at_ms, s.id) < (?, ?)");
        values.extend([after.created_at_ms.into(), after.id.into()]);
    }
    values.push(Value::from(limit as i64 + 1));
    let mut statement = db.prepare_cached(&format!(
        "SELECT {} FROM session s WHERE {sql} ORDER BY s.created_at_ms DESC, s.id DESC LIMIT ?",
        Session::COLUMNS
    ))?;
    let rows = statement.query_map(params_from_iter(values), Session::from_row)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Sessions in the order of their creation, newest first: the index of words is in that order.
fn search(
    db: &Connection,
    filter: &HistoryFilter,
    words: &str,
    after: Option<Cursor>,
    limit: usize,
) -> Result<Vec<Session>, StoreError> {
    let before = after.map_or(i64::MAX, |after| after.id << NUMBER_BITS);
    let mut hits = db.prepare_cached(
        "SELECT rowid FROM turn_index WHERE turn_index MATCH ?1 AND rowid < ?2 ORDER BY rowid DESC LIMIT ?3",
    )?;
    let (sql, values) = conditions(filter);
    let mut one = db.prepare_cached(&format!(
        "SELECT {} FROM session s WHERE {sql} AND s.id = ?",
        Session::COLUMNS
    ))?;
    let (mut found, mut last) = (Vec::new(), None);
    let mut rows = hits.query(rusqlite::params![words, before, MAX_HITS as i64])?;
    while let Some(row) = rows.next()? {
        let session = row.get::<_, i64>(0)? >> NUMBER_BITS;
        if last == Some(session) {
            continue;
        }
        last = Some(session);
        let mut values = values.clone();
        values.push(session.into());
        let mut sessions = one.query_map(params_from_iter(values), Session::from_row)?;
        if let Some(session) = sessions.next() {
            found.push(session?);
            if found.len() > limit {
                break;
            }
        }
    }
    Ok(found)
}

/// A search for all words of a text, whatever signs stand between them.
fn match_all(text: &str) -> String {
    let words: Vec<String> = text
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .take(MAX_WORDS)
        .map(|word| format!("\"{word}\""))
        .collect();
    let mut all = words.join(" AND ");
    // What begins with one letter is half the language.
    let begun = text.trim_end().ends_with('*') && words.last().is_some_and(|word| word.chars().count() > 4);
    if begun {
        all.push('*');
    }
    all
}

/// Takes a turn out of the index of words. The index has to be told what it forgets, while the text is still there.
pub(crate) fn forget(db: &Connection, session: SessionId, number: u32) -> Result<(), StoreError> {
    db.prepare_cached(
        "INSERT INTO turn_index (turn_index, rowid, caller_text, reply_text) \
         SELECT 'delete', ?3, caller_text, reply_text FROM turn WHERE session_id = ?1 AND number = ?2",
    )?
    .execute(rusqlite::params![session, number, place(session, number)])?;
    Ok(())
}

/// The same for a turn whose texts are elsewhere.
pub(crate) fn forget_texts(
    db: &Connection,
    session: SessionId,
    number: u32,
    caller_text: &str,
    reply_text: &str,
) -> Result<(), StoreError> {
    db.prepare_cached(
        "INSERT INTO turn_index (turn_index, rowid, caller_text, reply_text) VALUES ('delete', ?1, ?2, ?3)",
    )?
    .execute(rusqlite::params![place(session, number), caller_text, reply_text])?;
    Ok(())
}

/// A turn's place in the index of words.
pub(crate) fn place(session: SessionId, number: u32) -> i64 {
    session.get() << NUMBER_BITS | i64::from(number & ((1 << NUMBER_BITS) - 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn words_become_a_search() {
        for (text, want) in [
            ("oil change", "\"oil\" AND \"change\""),
            ("oil chan* ", "\"oil\" AND \"chan\"*"),
            ("oil*", "\"oil\"*"),
            ("oi*", "\"oi\""),
            ("\"OR* NEAR(", "\"OR\" AND \"NEAR\""),
            ("Grüße, -x", "\"Grüße\" AND \"x\""),
            (" ?! ", ""),
        ] {
            assert_eq!(match_all(text), want, "{text}");
        }
    }

    #[test]
    fn a_cursor_survives_a_url() {
        let cursor = Cursor {
            created_at_ms: 1_760_000_000_000,
            id: 12,
        };
        assert_eq!(Cursor::parse(&cursor.text()), Some(cursor));
        for bad in ["", "1", "1.", ".2", "a.b", "1.2.3"] {
            assert_eq!(Cursor::parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_search_that_sqlite_takes(text in "\\PC{0,60}") {
            let words = match_all(&text);
            let db = Connection::open_in_memory().expect("memory");
            db.execute_batch("CREATE VIRTUAL TABLE t USING fts5 (x)").expect("fts5");
            if !words.is_empty() {
                let found: Result<Option<i64>, _> =
                    db.query_row("SELECT max(rowid) FROM t WHERE t MATCH ?1", [words], |row| row.get(0));
                prop_assert!(found.is_ok(), "{text}");
            }
        }
    }
}
