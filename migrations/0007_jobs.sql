-- What is done after a call, once and never twice: a queue that survives a restart, and what comes of it.
--
--   waiting --lease--> running --> done | skipped | failed
--      ^------------------'  (retried, given back to a live call, or its lease ran out)

CREATE TABLE job (
    id             INTEGER PRIMARY KEY AUTOINCREMENT,
    session_id     INTEGER NOT NULL REFERENCES session (id),
    kind           TEXT    NOT NULL CHECK (kind IN ('transcript', 'redaction', 'summary', 'quality')),
    step           INTEGER NOT NULL CHECK (step BETWEEN 1 AND 9),  -- waits for the lower ones of its session
    state          TEXT    NOT NULL DEFAULT 'waiting' CHECK (state IN
                   ('waiting', 'running', 'done', 'skipped', 'failed')),
    attempts       INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    created_at_ms  INTEGER NOT NULL CHECK (created_at_ms >= 0),
    next_at_ms     INTEGER NOT NULL CHECK (next_at_ms >= 0),       -- not before
    lease          BLOB    CHECK (length(lease) = 16),             -- whose it is
    lease_until_ms INTEGER CHECK (lease_until_ms >= 0),
    ended_at_ms    INTEGER CHECK (ended_at_ms >= 0),
    why            TEXT    CHECK (length(why) BETWEEN 1 AND 400),  -- skipped, failed, tried again

    -- Once per session: this is what makes a job idempotent.
    UNIQUE (session_id, kind),
    CHECK ((state = 'running') = (lease IS NOT NULL)),
    CHECK ((state = 'running') = (lease_until_ms IS NOT NULL)),
    CHECK ((state IN ('done', 'skipped', 'failed')) = (ended_at_ms IS NOT NULL)),
    CHECK (state NOT IN ('skipped', 'failed') OR why IS NOT NULL)
) STRICT;

CREATE INDEX job_waiting ON job (next_at_ms, id) WHERE state = 'waiting';
CREATE INDEX job_running ON job (lease_until_ms) WHERE state = 'running';

CREATE TRIGGER job_final BEFORE UPDATE ON job
WHEN OLD.state IN ('done', 'skipped', 'failed') OR NEW.id IS NOT OLD.id OR NEW.session_id IS NOT OLD.session_id OR
    NEW.kind IS NOT OLD.kind
BEGIN
    SELECT RAISE(ABORT, 'a job is done once');
END;

CREATE TRIGGER job_no_delete BEFORE DELETE ON job
BEGIN
    SELECT RAISE(ABORT, 'jobs are kept, so that none is done twice');
END;

-- Sessions up to this one have their jobs. Calls from before this version keep what they have.
CREATE TABLE job_floor (
    one        INTEGER PRIMARY KEY CHECK (one = 1),
    session_id INTEGER NOT NULL CHECK (session_id >= 0)
) STRICT;

INSERT INTO job_floor (one, session_id)
    SELECT 1, coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'session'), 0);

-- A turn's words once more, made afterwards; the live ones stay as they are in `turn`.
CREATE TABLE transcript (
    session_id  INTEGER NOT NULL,
    number      INTEGER NOT NULL,
    source      TEXT    NOT NULL CHECK (source IN ('recording')),
    made_at_ms  INTEGER NOT NULL CHECK (made_at_ms >= 0),
    text        TEXT    NOT NULL CHECK (length(text) <= 16000),
    sure        INTEGER NOT NULL CHECK (sure BETWEEN 0 AND 1000),  -- mean probability of its tokens [‰]
    masked      INTEGER NOT NULL CHECK (masked >= 0),              -- digits that were hidden before it was stored
    salt        BLOB    NOT NULL CHECK (length(salt) = 16),
    PRIMARY KEY (session_id, number, source),
    FOREIGN KEY (session_id, number) REFERENCES turn (session_id, number)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER transcript_final BEFORE UPDATE ON transcript
BEGIN
    SELECT RAISE(ABORT, 'a final transcript is final');
END;

CREATE TRIGGER transcript_no_delete BEFORE DELETE ON transcript
WHEN (SELECT erased_at_ms FROM session WHERE id = OLD.session_id) IS NULL
BEGIN
    SELECT RAISE(ABORT, 'a final transcript is kept until its personal data are erased');
END;

-- What the call was about, what came of it, and what is left to do.
CREATE TABLE summary (
    session_id  INTEGER PRIMARY KEY REFERENCES session (id),
    made_at_ms  INTEGER NOT NULL CHECK (made_at_ms >= 0),
    model       TEXT    CHECK (length(model) <= 200),
    outcome     TEXT    NOT NULL CHECK (length(outcome) BETWEEN 1 AND 40),
    text        TEXT    NOT NULL CHECK (length(text) BETWEEN 1 AND 2000),
    follow_ups  TEXT    NOT NULL CHECK (length(follow_ups) BETWEEN 2 AND 4000),  -- a JSON list of texts
    salt        BLOB    NOT NULL CHECK (length(salt) = 16)
) STRICT;

CREATE TRIGGER summary_final BEFORE UPDATE ON summary
BEGIN
    SELECT RAISE(ABORT, 'a summary is final');
END;

CREATE TRIGGER summary_no_delete BEFORE DELETE ON summary
WHEN (SELECT erased_at_ms FROM session WHERE id = OLD.session_id) IS NULL
BEGIN
    SELECT RAISE(ABORT, 'a summary is kept until its personal data are erased');
END;

-- How well the call went; no personal data.
CREATE TABLE quality (
    session_id        INTEGER PRIMARY KEY REFERENCES session (id),
    made_at_ms        INTEGER NOT NULL CHECK (made_at_ms >= 0),
    turns             INTEGER NOT NULL CHECK (turns >= 0),
    response_p50_ms   INTEGER CHECK (response_p50_ms >= 0),
    response_p95_ms   INTEGER CHECK (response_p95_ms >= 0),
    interruptions     INTEGER NOT NULL CHECK (interruptions >= 0),
    unclear           INTEGER NOT NULL CHECK (unclear >= 0),
    apologies         INTEGER NOT NULL CHECK (apologies >= 0),
    engine_failures   INTEGER NOT NULL CHECK (engine_failures >= 0),
    words_compared    INTEGER NOT NULL CHECK (words_compared >= 0),   -- of the final transcript
    words_differing   INTEGER NOT NULL CHECK (words_differing >= 0)   -- in the live one
) STRICT;

-- Turns whose digits were hidden. Then, and only then, their texts may change, to others of the same length.
CREATE TABLE redaction (
    session_id INTEGER NOT NULL,
    number     INTEGER NOT NULL,
    at_ms      INTEGER NOT NULL CHECK (at_ms >= 0),
    PRIMARY KEY (session_id, number),
    FOREIGN KEY (session_id, number) REFERENCES turn (session_id, number)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER redaction_final BEFORE UPDATE ON redaction
BEGIN
    SELECT RAISE(ABORT, 'a redaction is final');
END;

CREATE TRIGGER redaction_no_delete BEFORE DELETE ON redaction
BEGIN
    SELECT RAISE(ABORT, 'a redaction is final');
END;

-- A redacted recording takes the place of the one it was made from.
ALTER TABLE recording ADD COLUMN replaces INTEGER REFERENCES recording (id);
ALTER TABLE recording ADD COLUMN muted TEXT CHECK (length(muted) <= 4000);  -- JSON: [[side, from ms, to ms], …]

CREATE UNIQUE INDEX recording_replaced_once ON recording (replaces) WHERE replaces IS NOT NULL;

CREATE TRIGGER recording_muted_final BEFORE UPDATE OF replaces, muted ON recording
BEGIN
    SELECT RAISE(ABORT, 'what was muted is final');
END;

-- Cold files: the texts of old turns, compressed, one gzip member per session, beside the database.
CREATE TABLE archive (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    uuid       TEXT    NOT NULL UNIQUE CHECK (length(uuid) = 36),  -- also the file's name
    state      TEXT    NOT NULL DEFAULT 'kept' CHECK (state IN ('kept', 'replaced')),
    made_at_ms INTEGER NOT NULL CHECK (made_at_ms >= 0),
    octets     INTEGER NOT NULL CHECK (octets >= 0),
    sha256     TEXT    NOT NULL CHECK (length(sha256) = 64)
) STRICT;

CREATE TABLE archived (
    session_id INTEGER PRIMARY KEY REFERENCES session (id),
    archive_id INTEGER NOT NULL REFERENCES archive (id),
    start      INTEGER NOT NULL CHECK (start >= 0),  -- of its member [octets]
    octets     INTEGER NOT NULL CHECK (octets > 0)
) STRICT;

CREATE INDEX archived_by_file ON archived (archive_id, start);

CREATE TRIGGER archived_no_delete BEFORE DELETE ON archived
WHEN (SELECT erased_at_ms FROM session WHERE id = OLD.session_id) IS NULL
BEGIN
    SELECT RAISE(ABORT, 'what is archived is kept until its personal data are erased');
END;

-- Final as before, but for erasure, redaction and archiving.
DROP TRIGGER turn_final;
CREATE TRIGGER turn_final BEFORE UPDATE ON turn
WHEN NOT (
    NEW.session_id IS OLD.session_id AND NEW.number IS OLD.number AND NEW.at_ms IS OLD.at_ms AND
    NEW.source IS OLD.source AND NEW.interrupted IS OLD.interrupted AND NEW.prompt_sha256 IS OLD.prompt_sha256 AND
    (
        (OLD.salt IS NULL AND NEW.caller_text IS OLD.caller_text AND NEW.reply_text IS OLD.reply_text AND
            NEW.heard_text IS OLD.heard_text) OR
        (NEW.salt IS NULL AND NEW.caller_text = '' AND NEW.reply_text = '' AND NEW.heard_text IS NULL AND
            (SELECT erased_at_ms FROM session WHERE id = OLD.session_id) IS NOT NULL) OR
        (NEW.salt IS NOT NULL AND length(NEW.caller_text) = length(OLD.caller_text) AND
            length(NEW.reply_text) = length(OLD.reply_text) AND
            length(NEW.heard_text) IS length(OLD.heard_text) AND
            EXISTS (SELECT 1 FROM redaction r WHERE r.session_id = OLD.session_id AND r.number = OLD.number)) OR
        (NEW.salt IS OLD.salt AND NEW.caller_text = '' AND NEW.reply_text = '' AND NEW.heard_text IS NULL AND
            EXISTS (SELECT 1 FROM archived a WHERE a.session_id = OLD.session_id))
    ))
BEGIN
    SELECT RAISE(ABORT, 'a turn is final');
END;
