//! A record of many calls, and how long its users wait.
//!
//! ```sh
//! cargo run --release -p attendant-store --example million -- /tmp/million 1000000 2
//! ```
//! Fills the directory with so many calls of so many turns (unless it holds a record already), then measures history
//! pages, filters, searches, verifying the chain and a backup. ARCHITECTURE.md has the figures.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use attendant_store::{
    Cursor, DATABASE_FILE, FinishedCall, HistoryFilter, NewSession, NewTurn, Outcome, State, Store,
    TurnLatencies,
};

/// 9 October 2025.
const NOW: i64 = 1_760_000_000_000;
/// Between two calls [ms]: a million of them are three years of a busy office.
const EVERY_MS: i64 = 95_000;
const BATCH: usize = 2_000;
/// Questions of each kind.
const ASKED: usize = 200;

const WORDS: [&str; 40] = [
    "oil",
    "change",
    "tyres",
    "winter",
    "summer",
    "appointment",
    "tomorrow",
    "morning",
    "afternoon",
    "price",
    "brakes",
    "inspection",
    "invoice",
    "address",
    "parking",
    "hours",
    "saturday",
    "sunday",
    "open",
    "closed",
    "please",
    "thanks",
    "the",
    "a",
    "is",
    "my",
    "car",
    "when",
    "how",
    "much",
    "can",
    "you",
    "I",
    "need",
    "to",
    "for",
    "and",
    "it",
    "with",
    "at",
];

/// The same numbers in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }

    fn sentence(&mut self, words: u64) -> String {
        let mut said: Vec<String> = (0..words)
            .filter_map(|_| WORDS.get(self.below(40) as usize).map(ToString::to_string))
            .collect();
        // Names, of which there are many.
        said.push(format!("name{}", self.below(50_000)));
        said.join(" ")
    }
}

fn call(n: usize, turns: usize, dice: &mut Dice) -> FinishedCall {
    let at = NOW + n as i64 * EVERY_MS;
    let outcome = match dice.below(100) {
        0 => Outcome::Failed,
        1..=5 => Outcome::Terminated,
        _ => Outcome::Completed,
    };
    FinishedCall {
        session: NewSession {
            caller: Some(format!("+1555{:07}", dice.below(200_000))),
            callee: Some("100".into()),
            call_id: Some(format!("{n:x}@example")),
            ..NewSession::inbound(&format!("line {}", dice.below(4)), "small", at)
        },
        started_at_ms: at + 1_000,
        ended_at_ms: at + 60_000,
        outcome,
        reason: "goodbye".into(),
        turns: (0..turns)
            .map(|turn| NewTurn {
                at_ms: at + 2_000 + turn as i64 * 9_000,
                caller_text: dice.sentence(8),
                reply_text: dice.sentence(14),
                latencies: TurnLatencies {
                    response_ms: Some(600 + dice.below(900) as u32),
                    ..TurnLatencies::default()
                },
                ..NewTurn::default()
            })
            .collect(),
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let dir = PathBuf::from(args.next().ok_or("which directory?")?);
    let calls: usize = args.next().map_or(Ok(1_000_000), |n| n.parse())?;
    let turns: usize = args.next().map_or(Ok(2), |n| n.parse())?;
    let new = !dir.join(DATABASE_FILE).exists();
    let store = Store::open(&dir, NOW)?;
    if new {
        fill(&store, calls, turns)?;
    }
    let size = std::fs::metadata(store.path())?.len();
    println!("{calls} calls of {turns} turns: {} MiB", size >> 20);
    questions(&store, calls)?;

    let started = Instant::now();
    let seen = store.verify(None)?;
    let (took, sound) = (started.elapsed(), seen.is_sound());
    println!(
        "verify: {} entries, {} sessions, {} turns in {:.2} s ({:.2} s for a million entries), sound: {sound}",
        seen.entries,
        seen.sessions,
        seen.turns,
        took.as_secs_f64(),
        took.as_secs_f64() * 1e6 / seen.entries as f64
    );
    backup(&store, &dir)
}

fn fill(store: &Store, calls: usize, turns: usize) -> Result<(), Box<dyn std::error::Error>> {
    let (started, mut dice) = (Instant::now(), Dice(7));
    for first in (0..calls).step_by(BATCH) {
        let batch: Vec<_> = (first..calls.min(first + BATCH))
            .map(|n| call(n, turns, &mut dice))
            .collect();
        store.import(&batch, NOW)?;
    }
    println!("filled in {:.0} s", started.elapsed().as_secs_f64());
    Ok(())
}

fn questions(store: &Store, calls: usize) -> Result<(), Box<dyn std::error::Error>> {
    let mut dice = Dice(99);
    let span = calls as i64 * EVERY_MS;
    let common = |dice: &mut Dice| {
        WORDS
            .get(dice.below(40) as usize)
            .copied()
            .unwrap_or_default()
            .to_owned()
    };
    type Ask<'a> = (&'a str, Box<dyn Fn(&mut Dice) -> (HistoryFilter, Option<Cursor>)>);
    let asks: Vec<Ask<'_>> = vec![
        ("first page", Box::new(|_| (HistoryFilter::default(), None))),
        (
            "any page",
            Box::new(move |dice| {
                let at = NOW + dice.below(span as u64) as i64;
                (HistoryFilter::default(), Cursor::parse(&format!("{at}.1")))
            }),
        ),
        (
            "by state",
            Box::new(move |dice| {
                let state = [State::Failed, State::Completed, State::Terminated, State::Expired];
                let at = NOW + dice.below(span as u64) as i64;
                let filter = HistoryFilter {
                    state: state.get(dice.below(4) as usize).copied(),
                    ..HistoryFilter::default()
                };
                (filter, Cursor::parse(&format!("{at}.1")))
            }),
        ),
        (
            "by line and state",
            Box::new(|dice| {
                let filter = HistoryFilter {
                    line: Some(format!("line {}", dice.below(5))),
                    state: Some(State::Failed),
                    ..HistoryFilter::default()
                };
                (filter, None)
            }),
        ),
        (
            "by caller",
            Box::new(|dice| {
                let filter = HistoryFilter {
                    caller: Some(format!("+1555{:07}", dice.below(250_000))),
                    ..HistoryFilter::default()
                };
                (filter, None)
            }),
        ),
        (
            "one day",
            Box::new(move |dice| {
                let from = NOW + dice.below(span as u64) as i64;
                let filter = HistoryFilter {
                    from_ms: Some(from),
                    to_ms: Some(from + 86_400_000),
                    ..HistoryFilter::default()
                };
                (filter, None)
            }),
        ),
        ("a common word", Box::new(move |dice| (words(common(dice)), None))),
        (
            "three common words",
            Box::new(move |dice| {
                let text = [common(dice), common(dice), common(dice)].join(" ");
                (words(text), None)
            }),
        ),
        (
            "a name",
            Box::new(|dice| (words(format!("name{}", dice.below(50_000))), None)),
        ),
        (
            "a name begun",
            Box::new(|dice| (words(format!("name{}*", dice.below(5_000))), None)),
        ),
        (
            "a name and a word, on one line",
            Box::new(move |dice| {
                let filter = HistoryFilter {
                    line: Some("line 2".into()),
                    ..words(format!("name{} {}", dice.below(50_000), common(dice)))
                };
                (filter, None)
            }),
        ),
        (
            "nothing there",
            Box::new(|dice| (words(format!("nobody{}", dice.below(50_000))), None)),
        ),
    ];
    println!(
        "{:<32} {:>9} {:>9} {:>9}  rows",
        "question", "p50 [ms]", "p95 [ms]", "max [ms]"
    );
    for (what, ask) in asks {
        let (mut took, mut rows) = (Vec::with_capacity(ASKED), 0);
        for _ in 0..ASKED {
            let (filter, after) = ask(&mut dice);
            let started = Instant::now();
            rows += store.history(&filter, after, 50)?.sessions.len();
            took.push(started.elapsed().as_secs_f64() * 1e3);
        }
        took.sort_by(f64::total_cmp);
        let rank = |percent: usize| {
            took.get((ASKED * percent).div_ceil(100).max(1) - 1)
                .copied()
                .unwrap_or_default()
        };
        println!(
            "{what:<32} {:>9.2} {:>9.2} {:>9.2}  {}",
            rank(50),
            rank(95),
            rank(100),
            rows / ASKED
        );
    }
    Ok(())
}

fn words(text: String) -> HistoryFilter {
    HistoryFilter {
        words: Some(text),
        ..HistoryFilter::default()
    }
}

fn backup(store: &Store, dir: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let started = Instant::now();
    let made = store.backup(&dir.join("backup"), 1, NOW)?;
    println!(
        "backup: {} MiB of {} MiB, verified, in {:.0} s",
        made.octets >> 20,
        made.database_octets >> 20,
        started.elapsed().as_secs_f64()
    );
    Ok(())
}
