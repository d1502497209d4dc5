-- The audit chain: what happened, in an order that cannot be changed unseen. daemon/store/src/audit/chain.rs tells how an
-- entry is hashed and verified. No personal data stands in it, only salted hashes of it, so that a caller's data can be
-- erased and the chain still verifies.

CREATE TABLE audit (
    seq     INTEGER PRIMARY KEY CHECK (seq >= 1),  -- 1, 2, 3 … without gap
    at_ms   INTEGER NOT NULL CHECK (at_ms >= 0),
    kind    TEXT    NOT NULL CHECK (length(kind) BETWEEN 1 AND 40),
    phase   TEXT    NOT NULL CHECK (phase IN ('note', 'begin', 'complete', 'fail', 'timed_out', 'interrupted')),
    begun   INTEGER CHECK (begun < seq),           -- of an end: its beginning
    session INTEGER CHECK (session >= 1),          -- session.id
    payload TEXT    NOT NULL CHECK (length(payload) BETWEEN 2 AND 4000),  -- a JSON object
    hash    BLOB    NOT NULL CHECK (length(hash) = 32),

    CHECK ((begun IS NOT NULL) = (phase NOT IN ('note', 'begin')))
) STRICT;

-- What began ends once.
CREATE UNIQUE INDEX audit_end ON audit (begun) WHERE begun IS NOT NULL;
CREATE INDEX audit_by_session ON audit (session, seq) WHERE session IS NOT NULL;

-- The latest entry, signed with a key that is not in this file: entries cut off at the end are missed.
CREATE TABLE audit_head (
    one       INTEGER PRIMARY KEY CHECK (one = 1),
    seq       INTEGER NOT NULL,
    at_ms     INTEGER NOT NULL,
    hash      BLOB    NOT NULL CHECK (length(hash) = 32),
    key       BLOB    NOT NULL CHECK (length(key) = 32),         -- public key that signed
    signature BLOB    NOT NULL CHECK (length(signature) = 64)
) STRICT;

-- The same, kept from time to time.
CREATE TABLE audit_checkpoint (
    seq       INTEGER PRIMARY KEY,
    at_ms     INTEGER NOT NULL,
    hash      BLOB    NOT NULL CHECK (length(hash) = 32),
    key       BLOB    NOT NULL CHECK (length(key) = 32),
    signature BLOB    NOT NULL CHECK (length(signature) = 64)
) STRICT;

-- Begun and not yet ended; only a list to look things up in, it proves nothing.
CREATE TABLE audit_open (
    seq     INTEGER PRIMARY KEY,
    kind    TEXT    NOT NULL,
    session INTEGER
) STRICT;

CREATE INDEX audit_open_by_session ON audit_open (session) WHERE session IS NOT NULL;

CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit
BEGIN
    SELECT RAISE(ABORT, 'the audit chain is append-only');
END;

CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit
BEGIN
    SELECT RAISE(ABORT, 'the audit chain is append-only');
END;

CREATE TRIGGER audit_in_order BEFORE INSERT ON audit
WHEN NEW.seq <> (SELECT coalesce(max(seq), 0) + 1 FROM audit)
BEGIN
    SELECT RAISE(ABORT, 'audit entries are numbered without gap');
END;

CREATE TRIGGER audit_checkpoint_no_update BEFORE UPDATE ON audit_checkpoint
BEGIN
    SELECT RAISE(ABORT, 'checkpoints are append-only');
END;

CREATE TRIGGER audit_checkpoint_no_delete BEFORE DELETE ON audit_checkpoint
BEGIN
    SELECT RAISE(ABORT, 'checkpoints are append-only');
END;

CREATE TRIGGER audit_head_no_delete BEFORE DELETE ON audit_head
BEGIN
    SELECT RAISE(ABORT, 'the audit chain has a head');
END;

-- 16 random bytes hashed along with a row's personal data; gone with the data, so that the hash tells nothing any more.
ALTER TABLE session ADD COLUMN salt BLOB CHECK (length(salt) = 16);
ALTER TABLE session ADD COLUMN erased_at_ms INTEGER CHECK (erased_at_ms >= 0);
ALTER TABLE turn ADD COLUMN salt BLOB CHECK (length(salt) = 16);

-- Final as before, but for what erasing a caller's data takes away.
DROP TRIGGER session_final;
CREATE TRIGGER session_final BEFORE UPDATE ON session
WHEN OLD.state IN ('completed', 'terminated', 'failed', 'expired') AND NOT (
    NEW.id IS OLD.id AND NEW.uuid IS OLD.uuid AND NEW.line IS OLD.line AND NEW.direction IS OLD.direction AND
    NEW.profile IS OLD.profile AND NEW.state IS OLD.state AND NEW.version IS OLD.version AND
    NEW.reason IS OLD.reason AND NEW.turn_count IS OLD.turn_count AND NEW.created_at_ms IS OLD.created_at_ms AND
    NEW.started_at_ms IS OLD.started_at_ms AND NEW.ended_at_ms IS OLD.ended_at_ms AND
    (
        (OLD.erased_at_ms IS NULL AND NEW.erased_at_ms IS NOT NULL AND NEW.caller IS NULL AND NEW.callee IS NULL AND
            NEW.call_id IS NULL AND NEW.salt IS NULL) OR
        (OLD.salt IS NULL AND OLD.erased_at_ms IS NEW.erased_at_ms AND NEW.caller IS OLD.caller AND
            NEW.callee IS OLD.callee AND NEW.call_id IS OLD.call_id)
    ))
BEGIN
    SELECT RAISE(ABORT, 'a terminal session is final');
END;

CREATE TRIGGER session_no_delete BEFORE DELETE ON session
BEGIN
    SELECT RAISE(ABORT, 'sessions are kept; erase their personal data instead');
END;

CREATE TRIGGER turn_final BEFORE UPDATE ON turn
WHEN NOT (
    NEW.session_id IS OLD.session_id AND NEW.number IS OLD.number AND NEW.at_ms IS OLD.at_ms AND
    NEW.source IS OLD.source AND NEW.interrupted IS OLD.interrupted AND NEW.prompt_sha256 IS OLD.prompt_sha256 AND
    (
        (OLD.salt IS NULL AND NEW.caller_text IS OLD.caller_text AND NEW.reply_text IS OLD.reply_text AND
            NEW.heard_text IS OLD.heard_text) OR
        (NEW.salt IS NULL AND NEW.caller_text = '' AND NEW.reply_text = '' AND NEW.heard_text IS NULL AND
            (SELECT erased_at_ms FROM session WHERE id = OLD.session_id) IS NOT NULL)
    ))
BEGIN
    SELECT RAISE(ABORT, 'a turn is final');
END;

CREATE TRIGGER turn_no_delete BEFORE DELETE ON turn
BEGIN
    SELECT RAISE(ABORT, 'turns are kept; erase their texts instead');
END;
