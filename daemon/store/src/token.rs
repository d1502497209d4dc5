//! Token: programs that may use the API, what each may see, and answers given once.
//!
//! A token is 32 random octets that its owner alone has; here stands its SHA-256. It is looked up by that hash, so that no
//! comparison tells by its time how much of a guess was right.

use rusqlite::{
    OptionalExtension, Row, ToSql, params,
    types::{FromSql, FromSqlError, FromSqlResult, ToSqlOutput, ValueRef},
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    NewSession, Opened, SessionId, SessionKey, Store, StoreError,
    audit::{AuditKind, Tx},
    life,
    session::{UnknownWord, stored_as_word},
};

/// Answers are kept for so long [ms].
const KEEP_ANSWERS_MS: i64 = 24 * 3_600 * 1_000;
/// Answers kept of one token; the oldest go first.
const MAX_ANSWERS: i64 = 20_000;
/// Longest body of an answer that is kept [octets], as in the schema.
pub const MAX_ANSWER: usize = 4 << 20;
/// Tokens in force at once.
const MAX_TOKENS: i64 = 1_000;

/// What a program may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApiRole {
    /// Everything.
    Admin,
    /// Watches calls and reads them.
    Supervisor,
    /// Reads calls and the audit chain.
    Auditor,
    /// Drives sessions: an integration.
    Agent,
}

impl ApiRole {
    /// All of them.
    pub const ALL: [ApiRole; 4] = [
        ApiRole::Admin,
        ApiRole::Supervisor,
        ApiRole::Auditor,
        ApiRole::Agent,
    ];

    /// As stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            ApiRole::Admin => "admin",
            ApiRole::Supervisor => "supervisor",
            ApiRole::Auditor => "auditor",
            ApiRole::Agent => "agent",
        }
    }
}

impl std::str::FromStr for ApiRole {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<ApiRole, UnknownWord> {
        ApiRole::ALL
            .into_iter()
            .find(|role| role.as_str() == word)
            .ok_or_else(|| UnknownWord::new(word))
    }
}

stored_as_word!(ApiRole);

/// Row number of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct TokenId(i64);

impl TokenId {
    /// The number.
    #[must_use]
    pub const fn get(self) -> i64 {
        self.0
    }

    /// From a number that came from [`TokenId::get`].
    #[must_use]
    pub const fn new(id: i64) -> TokenId {
        TokenId(id)
    }
}

impl ToSql for TokenId {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        self.0.to_sql()
    }
}

impl FromSql for TokenId {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        i64::column_result(value).map(TokenId)
    }
}

/// What a bound token sees: the sessions it began, and those of cases that begin so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    /// The token.
    pub token: TokenId,
    /// How its cases begin.
    pub case_prefix: Option<String>,
}

/// A token to be made.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// For people; unique.
    pub name: String,
    /// What it may do.
    pub role: ApiRole,
    /// Whether it sees only its own sessions and cases.
    pub own: bool,
    /// How its cases begin.
    pub case_prefix: Option<String>,
}

/// A token as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ApiToken {
    /// Row number.
    pub id: TokenId,
    /// For people.
    pub name: String,
    /// What it may do.
    pub role: ApiRole,
    /// Whether it sees only its own sessions and cases.
    pub own: bool,
    /// How its cases begin.
    pub case_prefix: Option<String>,
    /// When it was made [Unix ms].
    pub created_at_ms: i64,
    /// Since when it is good for nothing [Unix ms].
    pub revoked_at_ms: Option<i64>,
}

impl ApiToken {
    const COLUMNS: &'static str = "id, name, role, reach = 'own', case_prefix, created_at_ms, revoked_at_ms";

    fn from_row(row: &Row<'_>) -> rusqlite::Result<ApiToken> {
        Ok(ApiToken {
            id: row.get(0)?,
            name: row.get(1)?,
            role: row.get(2)?,
            own: row.get(3)?,
            case_prefix: row.get(4)?,
            created_at_ms: row.get(5)?,
            revoked_at_ms: row.get(6)?,
        })
    }

    /// What it is limited to; `None`: nothing.
    #[must_use]
    pub fn reach(&self) -> Option<Reach> {
        self.own.then(|| Reach {
            token: self.id,
            case_prefix: self.case_prefix.clone(),
        })
    }
}

/// An answer to be given again.
#[derive(Clone, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Of the body.
    pub content_type: Option<String>,
    /// Where what was made is.
    pub location: Option<String>,
    /// `None`: erased, or too long to keep.
    pub body: Option<Vec<u8>>,
}

/// What is known of an idempotency key.
#[derive(Clone, PartialEq, Eq)]
pub enum Asked {
    /// Nothing: it is taken from now on; do the work and tell [`Store::answer`].
    First,
    /// The same request is under way.
    UnderWay,
    /// A stop cut it off: whether it was done, nobody knows.
    CutOff,
    /// It was answered.
    Answered(Answer),
    /// It belongs to another request.
    Other,
}

impl Store {
    /// Makes a token of which the caller has told nobody but its owner; `sha256` is of the token's text.
    ///
    /// # Errors
    /// [`StoreError::TokenName`] when the name is taken, [`StoreError::TooManyTokens`], or of the database.
    pub fn create_token(
        &self,
        new: &NewToken,
        sha256: &[u8; 32],
        now_ms: i64,
    ) -> Result<TokenId, StoreError> {
        self.write(|tx| {
            let (known, in_force): (bool, i64) = tx.query_row(
                "SELECT EXISTS (SELECT 1 FROM api_token WHERE name = ?1), \
                 (SELECT count(*) FROM api_token WHERE revoked_at_ms IS NULL)",
                [&new.name],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )?;
            if known || new.name.trim().is_empty() || new.name.chars().count() > 100 {
                return Err(StoreError::TokenName);
            }
            if in_force >= MAX_TOKENS {
                return Err(StoreError::TooManyTokens);
            }
            tx.execute(
                "INSERT INTO api_token (name, role, reach, case_prefix, sha256, created_at_ms) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![
                    new.name,
                    new.role,
                    if new.own { "own" } else { "all" },
                    new.case_prefix,
                    sha256,
                    now_ms.max(0)
                ],
            )?;
            let id = TokenId(tx.last_insert_rowid());
            let made = json!({ "event": "token made", "token": id, "role": new.role, "own": new.own });
            tx.note(AuditKind::Settings, None, &made, now_ms)?;
            Ok(id)
        })
    }

    /// Takes a token out of force; returns whether it was in force.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub fn revoke_token(&self, name: &str, now_ms: i64) -> Result<bool, StoreError> {
        self.write(|tx| {
            let id: Option<TokenId> = tx
                .prepare_cached(
                    "UPDATE api_token SET revoked_at_ms = ?2 WHERE name = ?1 AND revoked_at_ms IS NULL RETURNING id",
                )?
                .query_row(params![name, now_ms.max(0)], |row| row.get(0))
                .optional()?;
            if let Some(id) = id {
                let gone = json!({ "event": "token revoked", "token": id });
                tx.note(AuditKind::Settings, None, &gone, now_ms)?;
            }
            Ok(id.is_some())
        })
    }

    /// All tokens, oldest first.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub fn tokens(&self) -> Result<Vec<ApiToken>, StoreError> {
        self.read(|db| {
            let sql = format!(
                "SELECT {} FROM api_token ORDER BY id LIMIT 10000",
                ApiToken::COLUMNS
            );
            let mut statement = db.prepare_cached(&sql)?;
            let rows = statement.query_map([], ApiToken::from_row)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// The token in force that has this hash.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub fn token(&self, sha256: &[u8; 32]) -> Result<Option<ApiToken>, StoreError> {
        self.read(|db| {
            let sql = format!(
                "SELECT {} FROM api_token WHERE sha256 = ?1 AND revoked_at_ms IS NULL",
                ApiToken::COLUMNS
            );
            Ok(db
                .prepare_cached(&sql)?
                .query_row([sha256], ApiToken::from_row)
                .optional()?)
        })
    }

    /// The session of its case that has not ended, else a new one that belongs to this token.
    ///
    /// # Errors
    /// [`StoreError::TooManySessions`] with `most` of them active, or of the database.
    pub fn open_owned(
        &self,
        new: &NewSession,
        token: TokenId,
        most: u32,
    ) -> Result<(SessionKey, Opened), StoreError> {
        self.write(|tx| {
            if let Some(key) = life::active(tx, new.case.as_deref())? {
                return Ok((key, Opened::Active));
            }
            room(tx, most)?;
            let key = life::create(tx, new, None)?;
            own(tx, key.id, token)?;
            Ok((key, Opened::New))
        })
    }

    /// As [`Store::retry_session`]; the new session belongs to this token.
    ///
    /// # Errors
    /// As there, and [`StoreError::TooManySessions`].
    pub fn retry_owned(
        &self,
        session: SessionId,
        token: TokenId,
        most: u32,
        now_ms: i64,
    ) -> Result<SessionKey, StoreError> {
        self.write(|tx| {
            room(tx, most)?;
            let key = life::retry(tx, session, now_ms)?;
            own(tx, key.id, token)?;
            Ok(key)
        })
    }

    /// Whether a bound token may see the session.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub fn within_reach(&self, session: SessionId, reach: &Reach) -> Result<bool, StoreError> {
        self.read(|db| {
            Ok(db
                .prepare_cached(
                    "SELECT EXISTS (SELECT 1 FROM session_owner WHERE session_id = ?1 AND token_id = ?2) OR \
                     coalesce((SELECT substr(case_key, 1, length(?3)) = ?3 FROM session WHERE id = ?1), 0)",
                )?
                .query_row(params![session, reach.token, reach.case_prefix], |row| row.get(0))?)
        })
    }

    /// Takes an idempotency key for a request (told apart by its hash), or tells what is known of it.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub fn ask(
        &self,
        token: TokenId,
        key: &str,
        request: &[u8; 32],
        now_ms: i64,
    ) -> Result<Asked, StoreError> {
        self.write(|tx| {
            tx.prepare_cached("DELETE FROM api_answer WHERE began_at_ms < ?1")?
                .execute([now_ms.saturating_sub(KEEP_ANSWERS_MS)])?;
            let known = tx
                .prepare_cached(
                    "SELECT request, status, content_type, location, body FROM api_answer \
                     WHERE token_id = ?1 AND key = ?2",
                )?
                .query_row(params![token, key], |row| {
                    Ok((
                        row.get::<_, [u8; 32]>(0)?,
                        row.get::<_, Option<u16>>(1)?,
                        Answer {
                            status: row.get::<_, Option<u16>>(1)?.unwrap_or(0),
                            content_type: row.get(2)?,
                            location: row.get(3)?,
                            body: row.get(4)?,
                        },
                    ))
                })
                .optional()?;
            match known {
                Some((before, _, _)) if before != *request => return Ok(Asked::Other),
                Some((_, None, _)) => return Ok(Asked::UnderWay),
                Some((_, Some(0), _)) => return Ok(Asked::CutOff),
                Some((_, Some(_), answer)) => return Ok(Asked::Answered(answer)),
                None => {}
            }
            tx.prepare_cached(
                "DELETE FROM api_answer WHERE token_id = ?1 AND key IN (SELECT key FROM api_answer \
                 WHERE token_id = ?1 AND status IS NOT NULL ORDER BY began_at_ms DESC LIMIT -1 OFFSET ?2)",
            )?
            .execute(params![token, MAX_ANSWERS])?;
            tx.prepare_cached(
                "INSERT INTO api_answer (token_id, key, request, began_at_ms) VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![token, key, request, now_ms.max(0)])?;
            Ok(Asked::First)
        })
    }

    /// Keeps the answer to a key; a body too long to keep is left out. `None` gives the key free again: nothing was done.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub fn answer(&self, token: TokenId, key: &str, answer: Option<&Answer>) -> Result<(), StoreError> {
        self.write(|tx| {
            match answer {
                Some(answer) => tx
                    .prepare_cached(
                        "UPDATE api_answer SET status = ?3, content_type = ?4, location = ?5, body = ?6 \
                         WHERE token_id = ?1 AND key = ?2",
                    )?
                    .execute(params![
                        token,
                        key,
                        answer.status,
                        answer.content_type,
                        answer.location,
                        answer.body.as_ref().filter(|body| body.len() <= MAX_ANSWER)
                    ])?,
                None => tx
                    .prepare_cached("DELETE FROM api_answer WHERE token_id = ?1 AND key = ?2")?
                    .execute(params![token, key])?,
            };
            Ok(())
        })
    }

    /// At start: requests that the stop cut off are known as such.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub fn cut_off_answers(&self) -> Result<usize, StoreError> {
        self.write(|tx| Ok(tx.execute("UPDATE api_answer SET status = 0 WHERE status IS NULL", [])?))
    }

    /// How far a webhook has been told; where the chain stands when it is new.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub fn webhook(&self, url: &str) -> Result<i64, StoreError> {
        self.write(|tx| {
            tx.execute(
                "INSERT INTO webhook (url, told_seq) VALUES (?1, (SELECT coalesce(max(seq), 0) FROM audit)) \
                 ON CONFLICT (url) DO NOTHING",
                [url],
            )?;
            Ok(
                tx.query_row("SELECT told_seq FROM webhook WHERE url = ?1", [url], |row| {
                    row.get(0)
                })?,
            )
        })
    }

    /// A webhook has been told of everything up to here.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub fn webhook_told(&self, url: &str, seq: i64) -> Result<(), StoreError> {
        self.write(|tx| {
            tx.prepare_cached("UPDATE webhook SET told_seq = ?2 WHERE url = ?1 AND told_seq < ?2")?
                .execute(params![url, seq])?;
            Ok(())
        })
    }
}

pub(crate) fn own(tx: &Tx<'_>, session: SessionId, token: TokenId) -> Result<(), StoreError> {
    tx.prepare_cached("INSERT INTO session_owner (session_id, token_id) VALUES (?1, ?2)")?
        .execute(params![session, token])?;
    Ok(())
}

/// Whether one more session of a program finds room.
fn room(tx: &Tx<'_>, most: u32) -> Result<(), StoreError> {
    let active: u32 = tx
        .prepare_cached(
            "SELECT count(*) FROM session WHERE heartbeat_at_ms IS NOT NULL \
             AND state IN ('created', 'ready', 'in_progress')",
        )?
        .query_row([], |row| row.get(0))?;
    if active >= most {
        return Err(StoreError::TooManySessions { most });
    }
    Ok(())
}
