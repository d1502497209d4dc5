-- Programs that use the API: their tokens, whose session is whose, answers given once, what leaves by webhooks, and calls
-- that come in packets.

CREATE TABLE api_token (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    name          TEXT    NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 100),  -- for people
    role          TEXT    NOT NULL CHECK (role IN ('admin', 'supervisor', 'auditor', 'agent')),
    reach         TEXT    NOT NULL CHECK (reach IN ('all', 'own')),    -- own: what it began itself, or of its cases
    case_prefix   TEXT    CHECK (length(case_prefix) BETWEEN 1 AND 100),  -- its cases begin so
    sha256        BLOB    NOT NULL UNIQUE CHECK (length(sha256) = 32), -- of the token; the token itself is nowhere
    created_at_ms INTEGER NOT NULL CHECK (created_at_ms >= 0),
    revoked_at_ms INTEGER CHECK (revoked_at_ms >= 0)
) STRICT;

CREATE TRIGGER api_token_final BEFORE UPDATE ON api_token
WHEN NOT (
    NEW.id IS OLD.id AND NEW.name IS OLD.name AND NEW.role IS OLD.role AND NEW.reach IS OLD.reach AND
    NEW.case_prefix IS OLD.case_prefix AND NEW.sha256 IS OLD.sha256 AND NEW.created_at_ms IS OLD.created_at_ms AND
    OLD.revoked_at_ms IS NULL AND NEW.revoked_at_ms IS NOT NULL
)
BEGIN
    SELECT RAISE(ABORT, 'a token can only be revoked');
END;

CREATE TRIGGER api_token_no_delete BEFORE DELETE ON api_token
BEGIN
    SELECT RAISE(ABORT, 'tokens are revoked, their rows stay');
END;

-- Who began a session through the API.
CREATE TABLE session_owner (
    session_id INTEGER PRIMARY KEY REFERENCES session (id),
    token_id   INTEGER NOT NULL REFERENCES api_token (id)
) STRICT;

CREATE INDEX session_owner_by_token ON session_owner (token_id, session_id);
CREATE INDEX session_by_case ON session (case_key, created_at_ms, id) WHERE case_key IS NOT NULL;

-- What was answered to a request with an idempotency key; kept for a day.
CREATE TABLE api_answer (
    token_id     INTEGER NOT NULL REFERENCES api_token (id),
    key          TEXT    NOT NULL CHECK (length(key) BETWEEN 1 AND 200),
    request      BLOB    NOT NULL CHECK (length(request) = 32),        -- SHA-256 of method, path and body
    began_at_ms  INTEGER NOT NULL CHECK (began_at_ms >= 0),
    status       INTEGER CHECK (status BETWEEN 0 AND 599),             -- NULL: under way; 0: cut off by a stop
    content_type TEXT    CHECK (length(content_type) <= 200),
    location     TEXT    CHECK (length(location) <= 400),
    body         BLOB    CHECK (length(body) <= 4194304),              -- NULL: erased, or too long to keep
    PRIMARY KEY (token_id, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX api_answer_by_time ON api_answer (began_at_ms);

-- How far each webhook has been told of the audit chain.
CREATE TABLE webhook (
    url        TEXT    PRIMARY KEY CHECK (length(url) BETWEEN 1 AND 400),
    told_seq   INTEGER NOT NULL CHECK (told_seq >= 0)
) STRICT, WITHOUT ROWID;

-- A call whose sound comes in packets from another program.
CREATE TABLE stream_call (
    id            INTEGER PRIMARY KEY,
    token_id      INTEGER NOT NULL REFERENCES api_token (id),
    call_id       TEXT    NOT NULL CHECK (length(call_id) BETWEEN 1 AND 100),  -- the other program's name for it
    session_id    INTEGER NOT NULL UNIQUE REFERENCES session (id),
    state         TEXT    NOT NULL DEFAULT 'in_progress' CHECK (state IN
                  ('in_progress', 'processing', 'completed', 'failed', 'archived')),
    packets       INTEGER NOT NULL DEFAULT 0 CHECK (packets >= 0),
    duplicates    INTEGER NOT NULL DEFAULT 0 CHECK (duplicates >= 0),
    highest       INTEGER NOT NULL DEFAULT 0 CHECK (highest >= 0),
    octets        INTEGER NOT NULL DEFAULT 0 CHECK (octets >= 0),
    began_at_ms   INTEGER NOT NULL CHECK (began_at_ms >= 0),
    last_at_ms    INTEGER NOT NULL CHECK (last_at_ms >= 0),
    ended_at_ms   INTEGER CHECK (ended_at_ms >= 0),
    reason        TEXT    CHECK (length(reason) <= 400),
    UNIQUE (token_id, call_id)
) STRICT;

CREATE INDEX stream_call_by_state ON stream_call (state, last_at_ms);

CREATE TRIGGER stream_call_steps BEFORE UPDATE OF state ON stream_call
WHEN NOT (
    (OLD.state = 'in_progress' AND NEW.state = 'processing') OR
    (OLD.state = 'processing' AND NEW.state IN ('completed', 'failed')) OR
    (OLD.state IN ('completed', 'failed') AND NEW.state = 'archived')
)
BEGIN
    SELECT RAISE(ABORT, 'no such step of a streamed call');
END;

-- Its packets, encrypted with a key that is not in this file, until they stand in a recording.
CREATE TABLE stream_packet (
    stream_id INTEGER NOT NULL REFERENCES stream_call (id),
    number    INTEGER NOT NULL CHECK (number BETWEEN 1 AND 1000000),
    sealed    BLOB    NOT NULL CHECK (length(sealed) BETWEEN 28 AND 131100),
    PRIMARY KEY (stream_id, number)
) STRICT, WITHOUT ROWID;
