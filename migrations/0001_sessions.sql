-- Sessions (stored conversations), their turns with stage latencies, and what else happened in them.
--
--   created -> ready -> in_progress -> completed | terminated | failed | expired
--      `---------`---------------------------------^ (not completed)
--
-- Times are Unix milliseconds, durations milliseconds; both say so in their names. Terminal states are final:
-- the triggers below hold even against a careless sqlite3 prompt. Append only: a change is the next file.

CREATE TABLE session (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    uuid          TEXT    NOT NULL UNIQUE CHECK (length(uuid) = 36),
    line          TEXT    NOT NULL CHECK (length(line) BETWEEN 1 AND 200),
    direction     TEXT    NOT NULL CHECK (direction IN ('inbound', 'outbound')),
    caller        TEXT    CHECK (length(caller) <= 200),   -- far party's number, for calling back
    callee        TEXT    CHECK (length(callee) <= 200),
    call_id       TEXT    CHECK (length(call_id) <= 400),  -- SIP Call-ID; NULL on lines that have none
    profile       TEXT    NOT NULL CHECK (length(profile) BETWEEN 1 AND 100),
    stt_model     TEXT    CHECK (length(stt_model) <= 200),
    llm_model     TEXT    CHECK (length(llm_model) <= 200),
    voice         TEXT    CHECK (length(voice) <= 200),
    state         TEXT    NOT NULL DEFAULT 'created' CHECK (state IN
                  ('created', 'ready', 'in_progress', 'completed', 'terminated', 'failed', 'expired')),
    version       INTEGER NOT NULL DEFAULT 1 CHECK (version >= 1),  -- one more with every transition
    reason        TEXT    CHECK (length(reason) BETWEEN 1 AND 400),
    turn_count    INTEGER NOT NULL DEFAULT 0 CHECK (turn_count >= 0),  -- also the last turn's number
    created_at_ms INTEGER NOT NULL CHECK (created_at_ms >= 0),
    started_at_ms INTEGER CHECK (started_at_ms >= 0),  -- answered
    ended_at_ms   INTEGER CHECK (ended_at_ms >= 0),

    CHECK ((ended_at_ms IS NOT NULL) = (state IN ('completed', 'terminated', 'failed', 'expired'))),
    CHECK (state NOT IN ('created', 'ready') OR started_at_ms IS NULL),
    CHECK (state NOT IN ('in_progress', 'completed') OR started_at_ms IS NOT NULL),
    CHECK (state NOT IN ('terminated', 'failed', 'expired') OR reason IS NOT NULL)
) STRICT;

CREATE INDEX session_by_call_id ON session (call_id) WHERE call_id IS NOT NULL;
CREATE INDEX session_open ON session (id) WHERE state IN ('created', 'ready', 'in_progress');

CREATE TRIGGER session_final BEFORE UPDATE ON session
WHEN OLD.state IN ('completed', 'terminated', 'failed', 'expired')
BEGIN
    SELECT RAISE(ABORT, 'a terminal session is final');
END;

CREATE TRIGGER session_transition BEFORE UPDATE OF state ON session
WHEN OLD.state NOT IN ('completed', 'terminated', 'failed', 'expired') AND NOT (
    (OLD.state = 'created' AND NEW.state IN ('ready', 'terminated', 'failed', 'expired')) OR
    (OLD.state = 'ready' AND NEW.state IN ('in_progress', 'terminated', 'failed', 'expired')) OR
    (OLD.state = 'in_progress' AND NEW.state IN ('completed', 'terminated', 'failed', 'expired')))
BEGIN
    SELECT RAISE(ABORT, 'no such transition of a session');
END;

CREATE TRIGGER session_version BEFORE UPDATE OF state, version ON session
WHEN NEW.version <> OLD.version + 1
BEGIN
    SELECT RAISE(ABORT, 'a transition counts the version up by one');
END;

CREATE TRIGGER session_new BEFORE INSERT ON session
WHEN NEW.state <> 'created' OR NEW.version <> 1 OR NEW.turn_count <> 0
BEGIN
    SELECT RAISE(ABORT, 'a session begins as created');
END;

CREATE TABLE turn (
    session_id    INTEGER NOT NULL REFERENCES session (id) ON DELETE CASCADE,
    number        INTEGER NOT NULL CHECK (number >= 1),
    at_ms         INTEGER NOT NULL CHECK (at_ms >= 0),  -- end of the caller's speech
    caller_text   TEXT    NOT NULL CHECK (length(caller_text) <= 16000),  -- empty: silence, or not understood
    reply_text    TEXT    NOT NULL CHECK (length(reply_text) <= 16000),   -- the whole reply as generated
    heard_text    TEXT    CHECK (length(heard_text) <= 16000),  -- of an interrupted reply: what the caller heard
    source        TEXT    NOT NULL CHECK (source IN ('realtime', 'recording')),
    interrupted   INTEGER NOT NULL CHECK (interrupted IN (0, 1)),
    prompt_sha256 TEXT    CHECK (length(prompt_sha256) = 64),
    PRIMARY KEY (session_id, number)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER turn_in_progress BEFORE INSERT ON turn
WHEN (SELECT state FROM session WHERE id = NEW.session_id) IS NOT 'in_progress'
BEGIN
    SELECT RAISE(ABORT, 'turns belong to a session in progress');
END;

-- One row per turn; NULL where the stage did not run. Apart from `turn`, so that figures outlive archived
-- transcripts.
CREATE TABLE turn_latency (
    session_id          INTEGER NOT NULL,
    number              INTEGER NOT NULL,
    utterance_ms        INTEGER CHECK (utterance_ms >= 0),         -- length of the caller's utterance
    endpoint_ms         INTEGER CHECK (endpoint_ms >= 0),          -- last voiced sample -> end of turn decided
    stt_ms              INTEGER CHECK (stt_ms >= 0),               -- final transcription, asked -> text
    llm_first_token_ms  INTEGER CHECK (llm_first_token_ms >= 0),   -- asked -> first token
    llm_first_clause_ms INTEGER CHECK (llm_first_clause_ms >= 0),  -- asked -> first speakable clause
    llm_total_ms        INTEGER CHECK (llm_total_ms >= 0),         -- asked -> last token
    tts_first_ms        INTEGER CHECK (tts_first_ms >= 0),         -- first clause, asked -> audio
    response_ms         INTEGER CHECK (response_ms >= 0),          -- last voiced sample in -> first voiced sample out
    reply_ms            INTEGER CHECK (reply_ms >= 0),             -- length of the reply as played
    barge_in_stop_ms    INTEGER CHECK (barge_in_stop_ms >= 0),     -- caller's voice -> our silence
    PRIMARY KEY (session_id, number),
    FOREIGN KEY (session_id, number) REFERENCES turn (session_id, number) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

-- What happened beside the turns: an engine's crash and the apology, keys, hold, interruptions.
CREATE TABLE session_event (
    id         INTEGER PRIMARY KEY,
    session_id INTEGER NOT NULL REFERENCES session (id) ON DELETE CASCADE,
    at_ms      INTEGER NOT NULL CHECK (at_ms >= 0),
    kind       TEXT    NOT NULL CHECK (length(kind) BETWEEN 1 AND 40),
    detail     TEXT    CHECK (length(detail) <= 1000)
) STRICT;

CREATE INDEX session_event_by_session ON session_event (session_id, id);
