//! Power cuts: the writer is killed at random moments, and the log is torn in the middle of a write. Afterwards the
//! database is sound, the chain verifies, nothing that was promised is lost, and what was open ends with a reason.

use std::{
    collections::HashMap,
    fs,
    hash::{BuildHasher, Hasher, RandomState},
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use attendant_store::{
    AuditEnd, AuditKind, Context, DATABASE_FILE, NewSession, Outcome, SessionId, SessionKey, State, Store,
};

mod common;
use common::*;

/// Environment variable by which the test program, run again, knows that it is the writer to be killed.
const WRITER_DIRECTORY: &str = "ATTENDANT_STORE_POWER_DIRECTORY";
/// Kills in all, and in one directory.
const KILLS: u32 = 200;
const KILLS_PER_DIRECTORY: u32 = 25;
/// Callers at once.
const CALLERS: usize = 3;

/// A small generator; its seed is printed, so that a failure can be looked at again.
struct Dice(u64);

impl Dice {
    fn new() -> Dice {
        let seed = RandomState::new().build_hasher().finish() | 1;
        println!("seed {seed}");
        Dice(seed)
    }

    fn below(&mut self, most: u64) -> u64 {
        // xorshift64
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most.max(1)
    }
}

/// Says what is on the disk, in one write, so that a kill leaves no half of it that looks like a whole.
fn promise(what: &str) {
    let line = format!("\npromise {what} .\n");
    std::io::stdout()
        .lock()
        .write_all(line.as_bytes())
        .expect("stdout");
}

/// Not a test of its own: the process that the next one kills.
#[test]
fn writer_to_be_killed() {
    let Ok(path) = std::env::var(WRITER_DIRECTORY) else {
        return;
    };
    let store = open(Path::new(&path));
    store.recover(NOW).expect("recover");
    promise("ready");
    thread::scope(|scope| {
        for caller in 0..CALLERS {
            let store = store.clone();
            scope.spawn(move || {
                for n in 0_i64.. {
                    one_call(&store, caller, n);
                }
            });
        }
        scope.spawn(|| {
            loop {
                let what = serde_json::json!({ "to": "operator" });
                let begun = store
                    .audit_begin(AuditKind::Transfer, None, &what, NOW)
                    .expect("begin");
                store
                    .audit_end(begun, AuditEnd::Complete, &what, NOW)
                    .expect("end");
                store.keep_checkpoint().expect("checkpoint");
            }
        });
    });
}

fn one_call(store: &Store, caller: usize, n: i64) {
    let new = NewSession {
        case: Some(format!("case {caller} {n} {}", std::process::id())),
        ..new_session()
    };
    let key = store.create_session(&new).expect("create");
    promise(&format!("session {}", key.id));
    let context = Context {
        version: 1,
        content: "You are Robin.".into(),
    };
    let version = store.prepare(key.id, 1, &context, NOW).expect("prepare");
    store
        .transition(key.id, version, State::InProgress, None, NOW)
        .expect("answer");
    for k in 0..6_u32 {
        let text = format!("caller {caller} turn {k} ").repeat(60);
        let number = store.append_turn(key.id, &turn(&text, Some(k))).expect("turn");
        // Only now is the turn promised to anybody.
        promise(&format!("turn {} {number}", key.id));
    }
    store
        .finish_session(key.id, Outcome::Completed, "goodbye", NOW + 5)
        .expect("finish");
    promise(&format!("end {}", key.id));
}

/// What the writer promised of each session: turns, and whether it had ended.
#[derive(Default)]
struct Promised {
    sessions: HashMap<i64, (u32, bool)>,
    ready: bool,
}

impl Promised {
    fn take(&mut self, line: &str) {
        let Some(rest) = line
            .strip_prefix("promise ")
            .and_then(|rest| rest.strip_suffix(" .\n"))
        else {
            return;
        };
        let words: Vec<&str> = rest.split(' ').collect();
        match words.as_slice() {
            ["ready"] => self.ready = true,
            ["session", id] => {
                self.sessions.entry(id.parse().expect("id")).or_default();
            }
            ["turn", id, number] => {
                self.sessions.entry(id.parse().expect("id")).or_default().0 = number.parse().expect("number");
            }
            ["end", id] => self.sessions.entry(id.parse().expect("id")).or_default().1 = true,
            other => panic!("unknown promise {other:?}"),
        }
    }
}

fn spawn_writer(directory: &Path) -> (Child, BufReader<ChildStdout>) {
    let mut writer = Command::new(std::env::current_exe().expect("test program"))
        .args([
            "--exact",
            "writer_to_be_killed",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(WRITER_DIRECTORY, directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("spawn");
    let lines = BufReader::new(writer.stdout.take().expect("stdout"));
    (writer, lines)
}

#[test]
fn two_hundred_kills_lose_nothing_that_was_promised() {
    let mut dice = Dice::new();
    let (mut turns, mut interrupted, mut before_ready) = (0, 0, 0);
    let mut dir = directory();
    let mut promised = Promised::default();
    for kill in 0..KILLS {
        if kill % KILLS_PER_DIRECTORY == 0 {
            dir = directory();
            promised = Promised::default();
        }
        promised.ready = false;
        let started = Instant::now();
        let (mut writer, mut lines) = spawn_writer(dir.path());
        // One in eight dies while it starts, the others somewhere in their work.
        if dice.below(8) == 0 {
            thread::sleep(Duration::from_micros(dice.below(15_000)));
        } else {
            let mut line = String::new();
            while !promised.ready && lines.read_line(&mut line).expect("read") > 0 {
                promised.take(&line);
                line.clear();
            }
            assert!(promised.ready, "the writer ended by itself");
            thread::sleep(Duration::from_micros(dice.below(60_000)));
        }
        writer.kill().expect("kill -9");
        writer.wait().expect("wait");
        before_ready += u32::from(!promised.ready);
        let mut rest = String::new();
        lines.read_to_string(&mut rest).expect("read");
        rest.split_inclusive('\n').for_each(|line| promised.take(line));
        assert!(started.elapsed() < Duration::from_secs(30), "kill {kill} hung");

        let store = open(dir.path());
        interrupted += store.recover(NOW + 9_000).expect("recover");
        store.check_integrity().expect("sound");
        let seen = store.verify(None).expect("verify");
        assert!(
            seen.is_sound() && seen.open == 0,
            "kill {kill}: {:?}",
            seen.findings
        );
        for (id, (numbers, ended)) in &promised.sessions {
            let record = store.session(SessionId::new(*id)).expect("promised session");
            assert!(
                record.turns.len() >= *numbers as usize,
                "kill {kill}: a turn is lost"
            );
            assert_eq!(record.session.turn_count as usize, record.turns.len());
            assert!(
                (1..)
                    .zip(&record.turns)
                    .all(|(want, turn)| turn.number.get() == want)
            );
            let (state, reason) = (record.session.state, record.session.reason.as_deref());
            match (ended, state) {
                (_, State::Completed) => {}
                (false, State::Terminated) => assert_eq!(reason, Some("interrupted")),
                _ => panic!("kill {kill}: session {id} is {state}, promised ended: {ended}"),
            }
        }
        turns += seen.turns;
    }
    println!(
        "{KILLS} kills, {before_ready} of them before the record was open; {interrupted} sessions interrupted"
    );
    assert!(
        turns > 1_000 && interrupted > 50,
        "too idle a test: {turns} turns, {interrupted} interrupted"
    );
}

/// The files of a record at one instant.
struct Files {
    database: Vec<u8>,
    log: Vec<u8>,
    key: Vec<u8>,
}

impl Files {
    fn of(directory: &Path) -> Files {
        let read = |name: &str| fs::read(directory.join(name)).expect(name);
        Files {
            database: read(DATABASE_FILE),
            log: read(&format!("{DATABASE_FILE}-wal")),
            key: read("audit.key"),
        }
    }

    /// What is found after the cut: how many turns of the session, which must end as interrupted.
    fn after(&self, case: &str, log: &[u8], key: &SessionKey) -> usize {
        let dir = directory();
        let write = |name: &str, bytes: &[u8]| fs::write(dir.path().join(name), bytes).expect(name);
        write(DATABASE_FILE, &self.database);
        write(&format!("{DATABASE_FILE}-wal"), log);
        write("audit.key", &self.key);
        let store = open(dir.path());
        store.check_integrity().expect(case);
        store.recover(NOW + 9_000).expect(case);
        let record = store.session(key.id).expect(case);
        assert_eq!(record.session.state, State::Terminated, "{case}");
        assert_eq!(record.session.reason.as_deref(), Some("interrupted"), "{case}");
        assert!(
            (1..)
                .zip(&record.turns)
                .all(|(want, turn)| turn.number.get() == want),
            "{case}"
        );
        // Life goes on.
        let next = answered(&store);
        store.append_turn(next.id, &turn("and on", None)).expect(case);
        let seen = store.verify(None).expect(case);
        assert!(seen.is_sound(), "{case}: {:?}", seen.findings);
        record.turns.len()
    }
}

#[test]
fn a_torn_write_of_the_log_loses_only_what_was_not_promised() {
    const BEFORE: usize = 8;
    let dir = directory();
    let store = open(dir.path());
    let key = answered(&store);
    for n in 0..BEFORE {
        store
            .append_turn(key.id, &turn(&format!("turn {n}").repeat(300), None))
            .expect("turn");
    }
    let before = Files::of(dir.path());
    store
        .append_turn(key.id, &turn(&"the last".repeat(300), None))
        .expect("turn");
    let after = Files::of(dir.path());
    let (from, to) = (before.log.len(), after.log.len());
    assert!(
        to > from && after.log[..from] == before.log[..],
        "the log grew at its end"
    );
    assert_eq!(after.after("untouched", &after.log, &key), BEFORE + 1);

    let mut dice = Dice::new();
    for n in 0..40 {
        // Wherever the power went: the rest is missing, is zeros, is old rubbish; or an earlier part never arrived.
        let cut = from + usize::try_from(dice.below((to - from) as u64)).expect("small");
        let torn = |fill: &mut dyn FnMut(&mut Vec<u8>)| {
            let mut log = after.log.clone();
            fill(&mut log);
            log
        };
        let variants = [
            ("cut off", torn(&mut |log| log.truncate(cut))),
            ("zeros", torn(&mut |log| log[cut..].fill(0))),
            (
                "rubbish",
                torn(&mut |log| log[cut..].iter_mut().for_each(|b| *b = dice.below(256) as u8)),
            ),
            ("hole", torn(&mut |log| log[from..=cut].fill(0xff))),
        ];
        let (case, log) = &variants[n % variants.len()];
        let case = format!("{case} at {cut} of {from}..{to}");
        let found = after.after(&case, log, &key);
        assert!(
            found == BEFORE || (found == BEFORE + 1 && *log == after.log),
            "{case}: {found} turns"
        );
    }
}

#[test]
fn a_log_damaged_in_what_was_written_before_is_cut_back_to_a_whole_record() {
    let dir = directory();
    let store = open(dir.path());
    let key = answered(&store);
    let mut lengths = vec![Files::of(dir.path()).log.len()];
    for n in 0..10 {
        store
            .append_turn(key.id, &turn(&format!("turn {n}").repeat(100), None))
            .expect("turn");
        lengths.push(Files::of(dir.path()).log.len());
    }
    let whole = Files::of(dir.path());
    let mut dice = Dice::new();
    for _ in 0..20 {
        let from = lengths[0];
        let at = from + usize::try_from(dice.below((whole.log.len() - from) as u64)).expect("small");
        let mut log = whole.log.clone();
        log[at] ^= 1 << dice.below(8);
        // Everything before the transaction that was hit is there.
        let want = lengths.iter().filter(|length| **length <= at).count() - 1;
        assert_eq!(whole.after(&format!("octet {at}"), &log, &key), want);
    }
}
