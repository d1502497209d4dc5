//! Quality: how well a call went, in figures without a word of it.

use attendant_store::{EventKind, Quality, SessionRecord};

use crate::bench::wer;

/// The figures of a call.
#[must_use]
pub fn of(record: &SessionRecord) -> Quality {
    let count = |kind: EventKind| {
        let events = record.events.iter().filter(|event| event.kind == kind.as_str());
        u32::try_from(events.count()).unwrap_or(u32::MAX)
    };
    let mut waits: Vec<u32> = record
        .turns
        .iter()
        .filter_map(|turn| turn.latencies.response_ms)
        .collect();
    waits.sort_unstable();
    // By nearest rank.
    let percentile = |percent: usize| {
        let rank = (waits.len() * percent).div_ceil(100).max(1);
        waits.get(rank - 1).copied()
    };
    let mut words = wer::WordErrors::default();
    for text in &record.after.transcript {
        let live = record.turns.iter().find(|turn| turn.number.get() == text.number);
        // Hidden digits cannot be compared.
        if let Some(live) = live.filter(|live| text.masked == 0 && !live.caller_text.contains('*')) {
            words.add(wer::compare(&text.text, &live.caller_text));
        }
    }
    let interruptions = record.turns.iter().filter(|turn| turn.interrupted).count();
    Quality {
        turns: record.session.turn_count,
        response_p50_ms: percentile(50),
        response_p95_ms: percentile(95),
        interruptions: u32::try_from(interruptions).unwrap_or(u32::MAX),
        unclear: count(EventKind::Unclear),
        apologies: count(EventKind::Apology),
        engine_failures: count(EventKind::EngineDown),
        words_compared: u32::try_from(words.words).unwrap_or(u32::MAX),
        words_differing: u32::try_from(words.errors).unwrap_or(u32::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use attendant_store::{FinalText, NewSession, NewTurn, Source, State, Store, TurnLatencies};

    #[test]
    fn counts_what_happened() {
        let dir = tempfile::tempdir().expect("dir");
        let store = Store::open(dir.path(), 1).expect("open");
        let key = store
            .create_session(&NewSession::inbound("office", "small", 1))
            .expect("create");
        store.transition(key.id, 1, State::Ready, None, 2).expect("ready");
        store
            .transition(key.id, 2, State::InProgress, None, 3)
            .expect("answer");
        for (n, said) in ["When do you open", "four one one *"].iter().enumerate() {
            let turn = NewTurn {
                caller_text: (*said).into(),
                interrupted: n == 1,
                latencies: TurnLatencies {
                    response_ms: Some(700 + 100 * n as u32),
                    ..TurnLatencies::default()
                },
                ..NewTurn::default()
            };
            store.append_turn(key.id, &turn).expect("turn");
        }
        for kind in [EventKind::Unclear, EventKind::Unclear, EventKind::EngineDown] {
            store.record_event(key.id, kind, None, 5).expect("event");
        }
        let mut record = store.session(key.id).expect("record");
        for (number, text) in [(1, "When do you open today"), (2, "four one one one")] {
            record.after.transcript.push(FinalText {
                number,
                source: Source::Recording,
                text: text.into(),
                sure: 900,
                masked: 0,
            });
        }
        let want = Quality {
            turns: 2,
            response_p50_ms: Some(700),
            response_p95_ms: Some(800),
            interruptions: 1,
            unclear: 2,
            apologies: 0,
            engine_failures: 1,
            words_compared: 5,
            words_differing: 1,
        };
        assert_eq!(of(&record), want);
    }
}
