-- The rest of a session's life: one at a time per case, retries, signs of life, and the context it was prepared with.

ALTER TABLE session ADD COLUMN case_key TEXT CHECK (length(case_key) BETWEEN 1 AND 200);   -- whose matter it is
ALTER TABLE session ADD COLUMN max_turns INTEGER CHECK (max_turns BETWEEN 1 AND 10000);    -- NULL: no bound of its own
ALTER TABLE session ADD COLUMN heartbeat_at_ms INTEGER CHECK (heartbeat_at_ms >= 0);       -- NULL: nobody has to give any
ALTER TABLE session ADD COLUMN retry_of INTEGER REFERENCES session (id);

CREATE UNIQUE INDEX session_one_per_case ON session (case_key)
    WHERE case_key IS NOT NULL AND state IN ('created', 'ready', 'in_progress');
CREATE UNIQUE INDEX session_one_retry ON session (retry_of) WHERE retry_of IS NOT NULL;
CREATE INDEX session_heartbeat ON session (heartbeat_at_ms)
    WHERE heartbeat_at_ms IS NOT NULL AND state IN ('created', 'ready', 'in_progress');

-- What the attendant was told before the call: sealed when the session is prepared, never changed.
CREATE TABLE context (
    session_id   INTEGER PRIMARY KEY REFERENCES session (id),
    version      INTEGER NOT NULL CHECK (version >= 1),
    content      TEXT    NOT NULL CHECK (length(content) BETWEEN 1 AND 200000),
    sha256       TEXT    NOT NULL CHECK (length(sha256) = 64),  -- of the content
    sealed_at_ms INTEGER NOT NULL CHECK (sealed_at_ms >= 0),
    salt         BLOB    NOT NULL CHECK (length(salt) = 16)
) STRICT;

CREATE TRIGGER context_before_start BEFORE INSERT ON context
WHEN (SELECT state FROM session WHERE id = NEW.session_id) IS NOT 'created'
BEGIN
    SELECT RAISE(ABORT, 'a context is sealed when a session is prepared');
END;

CREATE TRIGGER context_final BEFORE UPDATE ON context
BEGIN
    SELECT RAISE(ABORT, 'a sealed context is final');
END;

CREATE TRIGGER context_no_delete BEFORE DELETE ON context
WHEN (SELECT erased_at_ms FROM session WHERE id = OLD.session_id) IS NULL
BEGIN
    SELECT RAISE(ABORT, 'a sealed context is kept until its personal data are erased');
END;
