-- Recordings: where their files are, what seals them, how long they are kept. The audio itself is in encrypted files
-- beside the database; the key to them is in neither.

CREATE TABLE recording (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    uuid          TEXT    NOT NULL UNIQUE CHECK (length(uuid) = 36),  -- also the file's name
    session_id    INTEGER NOT NULL REFERENCES session (id),
    state         TEXT    NOT NULL DEFAULT 'recording' CHECK (state IN
                  ('recording', 'sealed', 'erased')),
    started_at_ms INTEGER NOT NULL CHECK (started_at_ms >= 0),
    ended_at_ms   INTEGER CHECK (ended_at_ms >= 0),
    keep_until_ms INTEGER CHECK (keep_until_ms >= 0),  -- NULL: no end
    samples       INTEGER CHECK (samples >= 0),        -- of each channel, 16 kHz
    missing       INTEGER CHECK (missing >= 0),        -- frames that stand as silence
    octets        INTEGER CHECK (octets >= 0),
    sha256        TEXT    CHECK (length(sha256) = 64), -- of the file
    whole         INTEGER CHECK (whole IN (0, 1)),     -- 0: the power went, the disk was full
    erased_at_ms  INTEGER CHECK (erased_at_ms >= 0),

    CHECK ((state = 'recording') = (sha256 IS NULL)),
    CHECK ((state = 'recording') = (ended_at_ms IS NULL)),
    CHECK ((state = 'erased') = (erased_at_ms IS NOT NULL))
) STRICT;

CREATE INDEX recording_by_session ON recording (session_id);
CREATE INDEX recording_open ON recording (id) WHERE state = 'recording';
CREATE INDEX recording_expiry ON recording (keep_until_ms) WHERE state = 'sealed' AND keep_until_ms IS NOT NULL;

CREATE TRIGGER recording_final BEFORE UPDATE ON recording
WHEN NOT (
    NEW.id IS OLD.id AND NEW.uuid IS OLD.uuid AND NEW.session_id IS OLD.session_id AND
    NEW.started_at_ms IS OLD.started_at_ms AND (
        (OLD.state = 'recording' AND NEW.state = 'sealed') OR
        (OLD.state = 'sealed' AND NEW.state = 'erased' AND NEW.sha256 IS OLD.sha256 AND NEW.octets IS OLD.octets AND
            NEW.samples IS OLD.samples AND NEW.missing IS OLD.missing AND NEW.whole IS OLD.whole AND
            NEW.ended_at_ms IS OLD.ended_at_ms)
    ))
BEGIN
    SELECT RAISE(ABORT, 'a recording is sealed once, and then final');
END;

CREATE TRIGGER recording_no_delete BEFORE DELETE ON recording
BEGIN
    SELECT RAISE(ABORT, 'recordings are erased, their rows stay');
END;

-- While a session stands here, nothing of it is erased: a dispute, a court.
CREATE TABLE legal_hold (
    session_id  INTEGER PRIMARY KEY REFERENCES session (id),
    since_ms    INTEGER NOT NULL CHECK (since_ms >= 0),
    reason      TEXT    NOT NULL CHECK (length(reason) BETWEEN 1 AND 400)
) STRICT;

CREATE TRIGGER recording_held BEFORE UPDATE ON recording
WHEN NEW.state = 'erased' AND EXISTS (SELECT 1 FROM legal_hold WHERE session_id = OLD.session_id)
BEGIN
    SELECT RAISE(ABORT, 'a legal hold keeps this recording');
END;

CREATE TRIGGER session_held BEFORE UPDATE OF erased_at_ms ON session
WHEN EXISTS (SELECT 1 FROM legal_hold WHERE session_id = OLD.id)
BEGIN
    SELECT RAISE(ABORT, 'a legal hold keeps this session');
END;
