//! Redaction: what nobody should keep, hidden in the texts of a call and silent in its recording.
//!
//! A turn in which a card number was said is silent as a whole, for the words' places within it are not known; so is the
//! reply that repeats it. Keys are found by their tones. The sealed recording is not touched: a new one, sealed as well,
//! takes its place, and the chain tells which parts are silent.

use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use attendant_dialog::cards;
use attendant_record::{MasterKey, Muted, RecordError, Side};
use attendant_store::{
    Job, RecordingSeal, RedactedTurn, Replacement, SessionRecord, Side as StoredSide, Store, StoredRecording,
};

use super::{AfterCallSection, Trouble, Worker, quietly, recording, transcript::utterance};
use crate::clock;

/// Numbers of so many digits are hidden in the reply to a card number, and in what live hearing made of it.
const REPEATED: usize = 4;
/// … and of so many in replies later on.
const REPEATED_LATER: usize = 8;
/// Longest reply that is silenced when no turn follows \[ms\].
const LONGEST_REPLY_MS: i64 = 60_000;
/// Most silent parts; beyond them the nearest are joined.
const MOST_PARTS: usize = 100;
/// Samples in a millisecond.
const PER_MS: u64 = 16;

/// What is to be hidden in a call.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    turns: Vec<RedactedTurn>,
    muted: Vec<Muted>,
}

impl Worker {
    /// Hides what is to be hidden.
    pub(super) async fn redaction(&mut self, job: &Job, record: SessionRecord) -> Result<(), Trouble> {
        let section = self.workshop.config.after_call.clone();
        let store = self.workshop.store.clone();
        let (turns, replacement) = quietly(move |stop| {
            let found = recording(&store, &record)?;
            let started_ms = found.as_ref().map(|(stored, _)| stored.started_at_ms);
            let plan = plan(&record, started_ms, &section);
            let replacement = match found {
                Some((stored, path)) => {
                    silence(&store, &stored, &path, plan.muted, section.redact_keys, stop)?
                }
                None => None,
            };
            Ok((plan.turns, replacement))
        })
        .await?;
        let store = self.workshop.store.clone();
        let job = job.clone();
        self.store(move |_| {
            let done = store.complete_redaction(&job, &turns, replacement.as_slice(), clock::unix_ms());
            if let (Err(_), Some(replacement)) = (&done, &replacement) {
                store.drop_replacement(&replacement.uuid)?;
            }
            done
        })
        .await
    }
}

/// The recording made anew, if any of it is to be silent.
fn silence(
    store: &Store,
    stored: &StoredRecording,
    path: &Path,
    mut muted: Vec<Muted>,
    keys: bool,
    stop: &AtomicBool,
) -> Result<Option<Replacement>, Trouble> {
    let master = MasterKey::new(store.recordings_key()?);
    if keys {
        muted.extend(attendant_record::tones(path, &master, stop)?);
    }
    let muted = joined(muted, stored.samples.unwrap_or(0));
    if muted.is_empty() {
        return Ok(None);
    }
    let (uuid, new) = store.begin_replacement()?;
    let made = attendant_record::mute(path, &new, &master, &muted, stop);
    let made = match made {
        Ok(_) if stop.load(Ordering::Relaxed) => Err(RecordError::Stopped),
        made => made,
    };
    let (figures, sum) = match made {
        Ok(made) => made,
        Err(error) => {
            store.drop_replacement(&uuid)?;
            return Err(error.into());
        }
    };
    let side = |side| match side {
        Side::Caller => StoredSide::Caller,
        Side::Attendant => StoredSide::Attendant,
    };
    Ok(Some(Replacement {
        replaces: stored.id,
        uuid,
        muted: muted
            .iter()
            .map(|part| (side(part.side), part.from / PER_MS, part.to.div_ceil(PER_MS)))
            .collect(),
        seal: RecordingSeal {
            sha256: sum.sha256,
            octets: sum.octets,
            samples: figures.samples,
            missing: stored.missing.unwrap_or(0),
            whole: stored.whole.unwrap_or(false),
        },
    }))
}

/// What is said and repeated of cards, and which keys were typed; `started_ms` is the recording's, if there is one.
fn plan(record: &SessionRecord, started_ms: Option<i64>, section: &AfterCallSection) -> Plan {
    let said: Vec<&str> = record
        .turns
        .iter()
        .map(|turn| turn.caller_text.as_str())
        .collect();
    let cards = cards::hide_cards(&said);
    let (mut plan, mut card_seen) = (Plan::default(), false);
    for (n, (turn, card)) in record.turns.iter().zip(cards).enumerate() {
        let number = turn.number.get();
        let in_final = record
            .after
            .transcript
            .iter()
            .any(|text| text.number == number && text.masked > 0);
        let has_card = section.redact_cards && (card.digits > 0 || in_final);
        let mut caller_text = turn.caller_text.clone();
        if has_card {
            caller_text = if in_final {
                cards::hide_numbers(&card.text, REPEATED).text
            } else {
                card.text
            };
        }
        if section.redact_keys {
            caller_text = cards::hide_keys(&caller_text).text;
        }
        let keyed = section.redact_keys && caller_text != turn.caller_text && !has_card;
        card_seen |= has_card;
        let least = match (has_card || keyed, card_seen) {
            (true, _) => REPEATED,
            (false, true) => REPEATED_LATER,
            (false, false) => usize::MAX,
        };
        let reply_text = cards::hide_numbers(&turn.reply_text, least).text;
        let heard_text = turn
            .heard_text
            .as_ref()
            .map(|text| cards::hide_numbers(text, least).text);
        let repeated = reply_text != turn.reply_text || heard_text != turn.heard_text;
        if let Some(started_ms) = started_ms {
            if has_card && let Some(cut) = utterance(turn, started_ms) {
                plan.muted.push(Muted {
                    side: Side::Caller,
                    from: cut.from,
                    to: cut.to,
                });
            }
            if repeated {
                let next = record.turns.get(n + 1);
                let from = turn.at_ms - started_ms;
                let to = next.map_or(from + LONGEST_REPLY_MS, |next| next.at_ms - started_ms);
                let samples = |ms: i64| u64::try_from(ms).unwrap_or(0) * PER_MS;
                plan.muted.push(Muted {
                    side: Side::Attendant,
                    from: samples(from),
                    to: samples(to),
                });
            }
        }
        if repeated || caller_text != turn.caller_text {
            plan.turns.push(RedactedTurn {
                number,
                caller_text,
                reply_text,
                heard_text,
            });
        }
    }
    plan
}

/// Parts in order, within the recording, those that touch joined; at most [`MOST_PARTS`], the nearest joined first.
fn joined(mut parts: Vec<Muted>, samples: u64) -> Vec<Muted> {
    for part in &mut parts {
        part.to = part.to.min(samples);
    }
    parts.retain(|part| part.from < part.to);
    parts.sort_unstable();
    let mut all: Vec<Muted> = Vec::new();
    for part in parts {
        match all.last_mut() {
            Some(last) if last.side == part.side && part.from <= last.to => last.to = last.to.max(part.to),
            _ => all.push(part),
        }
    }
    while all.len() > MOST_PARTS {
        let gap = |pair: &[Muted]| match pair {
            [a, b] if a.side == b.side => b.from - a.to,
            _ => u64::MAX,
        };
        let nearest = all.windows(2).enumerate().min_by_key(|(_, pair)| gap(pair));
        let Some((at, _)) = nearest else { break };
        let gone = all.remove(at + 1);
        if let Some(part) = all.get_mut(at) {
            part.to = gone.to;
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use attendant_store::{NewSession, NewTurn, State, TurnLatencies};

    /// A call whose turns end 10 s apart, each after 3 s of speech.
    fn record(turns: &[(&str, &str)]) -> SessionRecord {
        let dir = tempfile::tempdir().expect("dir");
        let store = Store::open(dir.path(), 1).expect("open");
        let key = store
            .create_session(&NewSession::inbound("office", "small", 1))
            .expect("create");
        store.transition(key.id, 1, State::Ready, None, 2).expect("ready");
        store
            .transition(key.id, 2, State::InProgress, None, 3)
            .expect("answer");
        for (n, (said, reply)) in (1..).zip(turns) {
            let turn = NewTurn {
                at_ms: 100_000 + n * 10_000,
                caller_text: (*said).into(),
                reply_text: (*reply).into(),
                latencies: TurnLatencies {
                    utterance_ms: Some(3_000),
                    ..TurnLatencies::default()
                },
                ..NewTurn::default()
            };
            store.append_turn(key.id, &turn).expect("turn");
        }
        store.session(key.id).expect("record")
    }

    fn part(side: Side, from_ms: u64, to_ms: u64) -> Muted {
        Muted {
            side,
            from: from_ms * PER_MS,
            to: to_ms * PER_MS,
        }
    }

    #[test]
    fn a_card_is_hidden_where_it_is_said_and_where_it_is_repeated() {
        let record = record(&[
            ("I want to pay invoice 1234.", "With which card?"),
            ("4111 1111 1111 1111", "So it is 4111 1111 1111 1111?"),
            ("Yes.", "Thank you. 41111111 11111111 was charged 79 dollars."),
        ]);
        let made = plan(&record, Some(100_000), &AfterCallSection::default());
        let texts: Vec<(u32, &str, &str)> = made
            .turns
            .iter()
            .map(|turn| (turn.number, turn.caller_text.as_str(), turn.reply_text.as_str()))
            .collect();
        assert_eq!(
            texts,
            [
                (2, "**** **** **** ****", "So it is **** **** **** ****?"),
                (3, "Yes.", "Thank you. ******** ******** was charged 79 dollars."),
            ]
        );
        assert_eq!(
            made.muted,
            [
                // The utterance ended at 20 s.
                part(Side::Caller, 16_700, 20_400),
                part(Side::Attendant, 20_000, 30_000),
                part(Side::Attendant, 30_000, 90_000),
            ]
        );
        let off = AfterCallSection {
            redact_cards: false,
            ..AfterCallSection::default()
        };
        assert_eq!(plan(&record, Some(100_000), &off), Plan::default());
    }

    #[test]
    fn typed_keys_are_hidden_and_choices_are_not() {
        let record = record(&[
            (&cards::keyed("1"), "The workshop."),
            (&cards::keyed("47110815"), "I have 4711 0815."),
        ]);
        let made = plan(&record, None, &AfterCallSection::default());
        assert_eq!((made.turns.len(), made.muted.len()), (1, 0));
        assert_eq!(made.turns[0].caller_text, cards::keyed("********"));
        assert_eq!(made.turns[0].reply_text, "I have **** ****.");
    }

    #[test]
    fn parts_are_in_order_and_bounded() {
        let caller = |from, to| part(Side::Caller, from, to);
        let found = joined(
            vec![
                caller(500, 700),
                part(Side::Attendant, 0, 9_999_999),
                caller(100, 300),
                caller(250, 400),
                caller(2_000, 2_000),
            ],
            1_000 * PER_MS,
        );
        assert_eq!(
            found,
            [
                caller(100, 400),
                caller(500, 700),
                part(Side::Attendant, 0, 1_000)
            ]
        );
        let many = (0..500).map(|n| caller(n * 100, n * 100 + 50)).collect();
        let found = joined(many, u64::MAX);
        assert_eq!(found.len(), MOST_PARTS);
        let covered = |ms: u64| {
            found
                .iter()
                .any(|part| (part.from..part.to).contains(&(ms * PER_MS)))
        };
        assert!((0..500).all(|n| covered(n * 100) && covered(n * 100 + 49)));
    }
}
