-- Finding a call among a million: by time with whatever else is known, by caller, by what was said.

CREATE INDEX session_by_time ON session (created_at_ms, id);
CREATE INDEX session_by_state ON session (state, created_at_ms, id);
CREATE INDEX session_by_line ON session (line, created_at_ms, id);
CREATE INDEX session_by_caller ON session (caller, created_at_ms, id) WHERE caller IS NOT NULL;

-- A turn's place in the index of words.
CREATE VIEW turn_words AS
    SELECT (session_id << 20) | number AS id, caller_text, reply_text FROM turn;

-- Holds words and where they are, not the texts; those stay in `turn`.
CREATE VIRTUAL TABLE turn_index USING fts5 (
    caller_text, reply_text, content = 'turn_words', content_rowid = 'id', tokenize = 'unicode61 remove_diacritics 2'
);

-- What is erased leaves no trace in the index.
INSERT INTO turn_index (turn_index, rank) VALUES ('secure-delete', 1);
INSERT INTO turn_index (rowid, caller_text, reply_text) SELECT id, caller_text, reply_text FROM turn_words;
