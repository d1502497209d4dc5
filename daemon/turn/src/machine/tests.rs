//! Whole turns on a simulated clock: a scripted caller, engines with delays and failures, a playout that takes time.

mod interrupting;

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

const FRAME: Duration = Duration::from_millis(20);

/// What the engines do for one turn.
#[derive(Debug, Clone, Copy)]
struct Engine {
    /// Transcription takes [ms].
    stt_ms: u64,
    /// Reply's first clause takes [ms].
    reply_ms: u64,
    /// Reply's length when played [ms].
    speech_ms: u64,
    hearing: Hearing,
    /// The reply fails this many times before it succeeds.
    failures: u32,
    /// The transcript never comes.
    stalled: bool,
    /// The reply never comes.
    mute: bool,
    /// The reply has no word.
    empty: bool,
}

impl Default for Engine {
    fn default() -> Self {
        Self {
            stt_ms: 150,
            reply_ms: 300,
            speech_ms: 1_000,
            hearing: Hearing::Speech(Completeness::Finished),
            failures: 0,
            stalled: false,
            mute: false,
            empty: false,
        }
    }
}

impl Engine {
    /// Anything can happen: slow, dead, failing, empty or absurd.
    fn random(random: &mut impl FnMut(u64) -> u64) -> Self {
        let mut one_in = |n| random(n) == 0;
        let (stalled, mute, empty) = (one_in(25), one_in(25), one_in(25));
        let slow = |random: &mut dyn FnMut(u64) -> u64, usual: u64| {
            if random(10) == 0 {
                random(9_000)
            } else {
                usual + random(usual)
            }
        };
        let hearings = [
            Hearing::Speech(Completeness::Finished),
            Hearing::Speech(Completeness::Finished),
            Hearing::Speech(Completeness::Finished),
            Hearing::Speech(Completeness::Unknown),
            Hearing::Speech(Completeness::Open),
            Hearing::Speech(Completeness::Short),
            Hearing::Unclear,
            Hearing::Nothing,
            Hearing::Backchannel,
            Hearing::Failed,
        ];
        Self {
            stt_ms: slow(random, 150),
            reply_ms: slow(random, 300),
            speech_ms: 200 + random(5_000),
            hearing: hearings[random(hearings.len() as u64) as usize],
            failures: if random(8) == 0 { random(6) as u32 } else { 0 },
            stalled,
            mute,
            empty,
        }
    }
}

struct Sim {
    machine: TurnMachine,
    now: Instant,
    start: Instant,
    engine: Engine,
    failures_left: u32,
    /// Time → what arrives.
    arrivals: Vec<(Instant, Arrival)>,
    buffered: Option<AttemptId>,
    committed: Option<AttemptId>,
    plays_until: Option<Instant>,
    paused_left: Option<Duration>,
    /// Replies come to their end.
    arrivals_of_done: bool,
    /// (ms since start, what happened), for assertions.
    log: Vec<(u64, String)>,
    hung_up: bool,
    /// End of the caller's speech that has had no attendant voice since.
    waiting_since: Option<Instant>,
    longest_wait: Duration,
}

#[derive(Debug, Clone, Copy)]
enum Arrival {
    Transcript(AttemptId),
    Clause(AttemptId),
    Done(AttemptId),
    Failed(AttemptId),
}

impl Sim {
    fn new(config: TurnConfig, engine: Engine) -> Self {
        let start = Instant::now();
        let mut sim = Self {
            machine: TurnMachine::new(config, start),
            now: start,
            start,
            engine,
            failures_left: engine.failures,
            arrivals: vec![],
            buffered: None,
            committed: None,
            plays_until: None,
            paused_left: None,
            arrivals_of_done: true,
            log: vec![],
            hung_up: false,
            waiting_since: None,
            longest_wait: Duration::ZERO,
        };
        sim.act();
        sim
    }

    fn note(&mut self, what: impl Into<String>) {
        let at = (self.now - self.start).as_millis() as u64;
        self.log.push((at, what.into()));
    }

    fn play(&mut self, ms: u64) {
        let from = self.plays_until.unwrap_or(self.now).max(self.now);
        self.plays_until = Some(from + Duration::from_millis(ms));
    }

    fn later(&mut self, ms: u64, arrival: Arrival) {
        self.arrivals
            .push((self.now + Duration::from_millis(ms), arrival));
    }

    fn act(&mut self) {
        while let Some(action) = self.machine.poll_action() {
            assert!(!self.hung_up, "acts after hanging up: {action:?}");
            match action {
                Action::Transcribe { id, .. } => {
                    if !self.engine.stalled {
                        self.later(self.engine.stt_ms, Arrival::Transcript(id));
                    }
                }
                Action::Think { id, .. } => {
                    if self.failures_left > 0 {
                        self.failures_left -= 1;
                        self.later(50, Arrival::Failed(id));
                    } else if self.engine.empty {
                        self.later(self.engine.reply_ms, Arrival::Done(id));
                    } else if !self.engine.mute {
                        self.later(self.engine.reply_ms, Arrival::Clause(id));
                        if self.arrivals_of_done {
                            self.later(self.engine.reply_ms + 100, Arrival::Done(id));
                        }
                    }
                }
                Action::Commit { id } => {
                    self.note("commit");
                    self.committed = Some(id);
                    if self.buffered == Some(id) {
                        self.note("reply");
                        self.play(self.engine.speech_ms);
                    }
                }
                Action::Keyed { digits, .. } => self.note(format!("keys {digits}")),
                Action::Drop { .. } => {
                    self.note("drop");
                    self.buffered = None;
                }
                Action::Say(phrase) => {
                    self.note(format!("say {phrase:?}"));
                    self.play(800);
                }
                Action::Duck => self.note("duck"),
                Action::Unduck => self.note("unduck"),
                Action::Pause => {
                    self.note("pause");
                    let left = self.plays_until.take().unwrap_or(self.now) - self.now;
                    self.paused_left = Some(left);
                }
                Action::Resume => {
                    self.note("resume");
                    let left = self.paused_left.take().expect("was paused");
                    self.plays_until = Some(self.now + left + Duration::from_millis(200));
                }
                Action::Stop { .. } => {
                    self.note("stop");
                    self.plays_until = None;
                    self.paused_left = None;
                }
                Action::TurnDone { .. } => self.note("done"),
                Action::HangUp(cause) => {
                    self.note(format!("hang up {cause:?}"));
                    self.hung_up = true;
                }
            }
        }
    }

    /// One frame per character: 'v' voice, '.' silence, 'c' a 20 ms click.
    fn run(&mut self, script: &str) {
        for c in script.chars() {
            self.tick(matches!(c, 'v' | 'c'));
        }
    }

    fn silence(&mut self, ms: u64) {
        for _ in 0..ms / 20 {
            self.tick(false);
        }
    }

    fn voice(&mut self, ms: u64) {
        for _ in 0..ms / 20 {
            self.tick(true);
        }
    }

    fn tick(&mut self, voiced: bool) {
        if self.hung_up {
            return;
        }
        self.now += FRAME;
        let due: Vec<Arrival> = self
            .arrivals
            .iter()
            .filter(|(t, _)| *t <= self.now)
            .map(|(_, a)| *a)
            .collect();
        self.arrivals.retain(|(t, _)| *t > self.now);
        for arrival in due {
            match arrival {
                Arrival::Transcript(id) => self.machine.handle_transcript(id, self.engine.hearing, self.now),
                Arrival::Clause(id) => {
                    if self.machine.attempt.is_some_and(|a| a.id == id) {
                        self.buffered = Some(id);
                        if self.committed == Some(id) {
                            self.note("reply");
                            self.play(self.engine.speech_ms);
                        }
                    }
                    self.machine.handle_reply(id, ReplyProgress::Clause, self.now);
                }
                Arrival::Done(id) => self.machine.handle_reply(id, ReplyProgress::Done, self.now),
                Arrival::Failed(id) => self.machine.handle_reply(id, ReplyProgress::Failed, self.now),
            }
            self.act();
        }
        let playing = self.plays_until.is_some_and(|t| t > self.now);
        self.machine.handle_playout(playing, self.now);
        self.act();
        let (speech_prob, level_dbov) = if voiced { (0.9, -20.0) } else { (0.05, -70.0) };
        self.machine.handle_frame(
            FrameVoice {
                speech_prob,
                level_dbov,
            },
            self.now,
        );
        self.act();
        if playing || voiced {
            self.waiting_since = None;
        }
        if voiced && !playing && self.machine.utterance.is_some() {
            self.waiting_since = Some(self.now);
        }
        if let Some(since) = self.waiting_since {
            self.longest_wait = self.longest_wait.max(self.now - since);
        }
    }

    fn said(&self, what: &str) -> bool {
        self.log.iter().any(|(_, w)| w == what)
    }

    fn time_of(&self, what: &str) -> u64 {
        self.log
            .iter()
            .find(|(_, w)| w == what)
            .map(|(t, _)| *t)
            .unwrap_or_else(|| panic!("no {what}: {:?}", self.log))
    }

    fn count(&self, what: &str) -> usize {
        self.log.iter().filter(|(_, w)| w == what).count()
    }
}

/// The greeting has been played; the caller may begin.
fn greeted(engine: Engine) -> Sim {
    let mut sim = Sim::new(TurnConfig::default(), engine);
    sim.silence(1_000);
    sim.log.clear();
    sim
}

#[test]
fn greets_at_once() {
    let mut sim = Sim::new(TurnConfig::default(), Engine::default());
    sim.silence(20);
    assert_eq!(sim.time_of("say Greeting"), 0);
}

#[test]
fn a_finished_sentence_is_answered_after_its_hangover() {
    let mut sim = greeted(Engine::default());
    sim.voice(1_000);
    sim.silence(3_000);
    let reply = sim.time_of("reply");
    // Speech ends at 2000; 100 ms pause + 150 ms transcript + 300 ms reply.
    assert!((2_500..=2_620).contains(&reply), "{reply}");
    assert!(sim.said("done"), "{:?}", sim.log);
}

#[test]
fn silence_awaited_depends_on_what_was_said() {
    for (completeness, want_ms) in [
        (Completeness::Short, 400),
        (Completeness::Finished, 450),
        (Completeness::Unknown, 1_300),
        (Completeness::Open, 1_350),
    ] {
        let hearing = Hearing::Speech(completeness);
        let mut sim = greeted(Engine {
            hearing,
            stt_ms: 20,
            reply_ms: 20,
            ..Engine::default()
        });
        sim.voice(1_000);
        sim.silence(3_000);
        let waited = sim.time_of("commit") - 2_000;
        assert!(
            (want_ms..=want_ms + 40).contains(&waited),
            "{completeness:?}: {waited}"
        );
    }
}

#[test]
fn a_caller_who_goes_on_is_not_answered_in_between() {
    let hearing = Hearing::Speech(Completeness::Open);
    let mut sim = greeted(Engine {
        hearing,
        ..Engine::default()
    });
    sim.voice(1_000);
    sim.silence(1_200);
    sim.voice(800);
    assert!(sim.said("drop") && !sim.said("commit"), "{:?}", sim.log);
    sim.silence(4_000);
    assert_eq!(sim.count("commit"), 1);
    assert_eq!(sim.count("done"), 1);
}

#[test]
fn a_click_neither_starts_nor_interrupts() {
    let mut sim = greeted(Engine::default());
    sim.run("c....c....c.......");
    assert!(sim.log.is_empty(), "{:?}", sim.log);
    sim.voice(1_000);
    sim.silence(700);
    sim.run("c...c.....");
    assert!(!sim.said("stop"), "{:?}", sim.log);
}

#[test]
fn a_failed_reply_is_apologised_for_and_tried_again() {
    let mut sim = greeted(Engine {
        failures: 1,
        reply_ms: 600,
        stt_ms: 400,
        ..Engine::default()
    });
    sim.voice(1_000);
    sim.silence(4_000);
    assert!(sim.said("reply") && sim.said("done"), "{:?}", sim.log);
}

#[test]
fn a_stalled_engine_is_bridged_then_given_up_aloud() {
    let mut sim = greeted(Engine {
        stalled: true,
        ..Engine::default()
    });
    sim.voice(1_000);
    sim.silence(15_000);
    assert_eq!(sim.count("say OneMoment"), 3);
    assert!(sim.said("say CannotAnswer"), "{:?}", sim.log);
    assert!(
        sim.longest_wait <= Duration::from_millis(2_400),
        "{:?}",
        sim.longest_wait
    );
}

#[test]
fn three_failed_turns_end_the_call_politely() {
    let mut sim = greeted(Engine {
        hearing: Hearing::Unclear,
        ..Engine::default()
    });
    for _ in 0..3 {
        sim.voice(1_000);
        sim.silence(3_000);
    }
    assert_eq!(sim.count("say Unclear"), 2);
    assert!(
        sim.said("say Trouble") && sim.said("hang up Trouble"),
        "{:?}",
        sim.log
    );
}

#[test]
fn silence_is_asked_about_twice_then_the_call_ends() {
    let mut sim = greeted(Engine::default());
    sim.silence(40_000);
    assert_eq!(sim.count("say StillThere"), 2);
    assert!(
        sim.said("say GoodbyeSilence") && sim.said("hang up Silence"),
        "{:?}",
        sim.log
    );
}

#[test]
fn noise_reaches_nobody() {
    let mut sim = greeted(Engine {
        hearing: Hearing::Nothing,
        ..Engine::default()
    });
    sim.voice(4_000);
    sim.silence(2_000);
    assert!(!sim.said("commit"), "{:?}", sim.log);
}

#[test]
fn a_farewell_is_returned() {
    let mut sim = greeted(Engine {
        hearing: Hearing::Farewell,
        ..Engine::default()
    });
    sim.voice(600);
    sim.silence(3_000);
    assert!(
        sim.said("say Goodbye") && sim.said("hang up Farewell"),
        "{:?}",
        sim.log
    );
}

#[test]
fn keys_stop_the_reply_and_become_a_turn() {
    let mut sim = greeted(Engine {
        speech_ms: 4_000,
        ..Engine::default()
    });
    sim.voice(1_000);
    sim.silence(1_000);
    for digit in ['4', '2'] {
        sim.machine.handle_digit(digit, sim.now);
        sim.act();
        sim.silence(200);
    }
    sim.machine.handle_digit('#', sim.now);
    sim.act();
    sim.silence(6_000);
    assert!(sim.said("stop") && sim.said("keys 42"), "{:?}", sim.log);
    assert_eq!(sim.machine.turns(), 2);
}

#[test]
fn the_timebox_warns_and_ends() {
    let config = TurnConfig {
        timebox_s: 20,
        timebox_warnings_s: vec![10],
        still_there_times: 9,
        ..TurnConfig::default()
    };
    let mut sim = Sim::new(config, Engine::default());
    sim.silence(30_000);
    assert!(sim.said("say TimeboxWarning { left_s: 10 }"), "{:?}", sim.log);
    assert!(sim.said("hang up Timebox"), "{:?}", sim.log);
}

#[test]
fn the_longest_utterance_is_answered_without_a_pause() {
    let mut sim = greeted(Engine::default());
    sim.voice(29_000);
    assert!(sim.said("commit"), "{:?}", sim.log);
}

#[test]
fn a_reply_that_broke_off_is_a_turn_of_its_own() {
    let mut sim = greeted(Engine {
        speech_ms: 600,
        ..Engine::default()
    });
    sim.voice(1_000);
    // The first clause is played; the rest never comes.
    sim.arrivals_of_done = false;
    sim.silence(1_600);
    assert!(sim.said("reply") && !sim.said("done"), "{:?}", sim.log);
    sim.arrivals_of_done = true;
    sim.voice(1_000);
    sim.silence(3_000);
    assert_eq!((sim.count("stop"), sim.count("drop")), (1, 0), "{:?}", sim.log);
    assert_eq!(sim.count("commit"), 2);
    assert_eq!(sim.machine.turns(), 2, "{:?}", sim.log);
}

#[test]
fn endless_music_is_asked_about_and_given_up() {
    // An ear that is so slow that the caller is asked for patience, over which the music goes on.
    for stt_ms in [150, 3_500] {
        let mut sim = greeted(Engine {
            hearing: Hearing::Nothing,
            stt_ms,
            ..Engine::default()
        });
        for _ in 0..10 {
            sim.voice(20_000);
        }
        assert_eq!(sim.count("say Unclear"), 2, "{stt_ms}: {:?}", sim.log);
        assert!(sim.said("hang up Silence"), "{stt_ms}: {:?}", sim.log);
    }
}

#[test]
fn the_last_turn_says_goodbye() {
    let mut sim = Sim::new(
        TurnConfig {
            max_turns: 1,
            ..TurnConfig::default()
        },
        Engine::default(),
    );
    sim.silence(1_000);
    sim.voice(1_000);
    sim.silence(6_000);
    assert!(
        sim.said("say MaxTurns") && sim.said("hang up MaxTurns"),
        "{:?}",
        sim.log
    );
}

/// Ten thousand turns of callers who speak, wait, interrupt and mutter, with engines that do anything.
#[test]
fn ten_thousand_turns_without_dead_air() {
    let mut state = 1u64;
    let mut random = move |below: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below.max(1)
    };
    let (mut turns, mut calls) = (0, 0);
    let mut longest = Duration::ZERO;
    while turns < 10_000 {
        let mut sim = Sim::new(TurnConfig::default(), Engine::default());
        sim.silence(random(2_000));
        for _ in 0..20 {
            if sim.hung_up {
                break;
            }
            sim.engine = Engine::random(&mut random);
            sim.failures_left = sim.engine.failures;
            sim.voice(if random(40) == 0 {
                28_000 + random(20_000)
            } else {
                700 + random(3_500)
            });
            sim.silence(200 + random(9_000));
            turns += 1;
        }
        calls += 1;
        assert!(
            sim.longest_wait <= Duration::from_millis(2_500),
            "call {calls}: {:?} {:?}",
            sim.longest_wait,
            sim.log
        );
        longest = longest.max(sim.longest_wait);
    }
    println!("{turns} turns in {calls} calls; longest wait {longest:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Random callers and random engines: no panic, no action after the end, nobody waits past the bound.
    #[test]
    fn nobody_waits_past_the_bound(
        segments in prop::collection::vec((any::<bool>(), 1u64..150), 1..40),
        stt_ms in 10u64..6_000,
        reply_ms in 10u64..8_000,
        speech_ms in 100u64..5_000,
        failures in 0u32..6,
        stalled in any::<bool>(),
        hearing in prop::sample::select(vec![
            Hearing::Speech(Completeness::Finished), Hearing::Speech(Completeness::Open), Hearing::Unclear,
            Hearing::Failed, Hearing::Farewell, Hearing::Speech(Completeness::Short),
        ]),
        digit_at in prop::option::of(0usize..40),
    ) {
        let engine = Engine { stt_ms, reply_ms, speech_ms, hearing, failures, stalled, ..Engine::default() };
        let mut sim = Sim::new(TurnConfig::default(), engine);
        for (i, (voiced, frames)) in segments.into_iter().enumerate() {
            if digit_at == Some(i) && !sim.hung_up {
                sim.machine.handle_digit('5', sim.now);
                sim.act();
                sim.waiting_since = Some(sim.now); // A key is the caller's activity, as a word is.
            }
            for _ in 0..frames {
                sim.tick(voiced);
            }
        }
        sim.silence(20_000);
        prop_assert!(sim.longest_wait <= Duration::from_millis(2_500), "{:?} {:?}", sim.longest_wait, sim.log);
        prop_assert!(sim.hung_up || sim.machine.poll_timeout().is_some());
    }
}

#[test]
fn a_call_runs_again_from_its_trace() {
    let mut sim = Sim::new(TurnConfig::default(), Engine::default());
    // The greeting was asked for before anybody could ask for a trace.
    sim.machine = TurnMachine::new(TurnConfig::default(), sim.start);
    sim.machine.keep_trace();
    sim.act();
    sim.silence(1_000);
    sim.voice(1_000);
    sim.silence(1_200);
    sim.machine.handle_digit('7', sim.now);
    sim.act();
    sim.silence(4_000);
    sim.engine.hearing = Hearing::Backchannel;
    sim.voice(400);
    sim.silence(3_000);
    let steps = sim.machine.take_trace();
    let text = serde_json::to_string(&steps).unwrap();
    assert!(text.contains("\"digit\":\"0\""), "the key is there");
    assert!(
        !text.contains("\"digit\":\"7\"") && !text.contains("\"digits\":\"7\""),
        "but not which"
    );
    let read: Vec<Timed> = serde_json::from_str(&text).unwrap();
    assert_eq!(read, steps);
    assert_eq!(trace::replay(TurnConfig::default(), &steps, sim.start), Ok(()));
    let hasty = TurnConfig {
        hangover_short_ms: 100,
        hangover_finished_ms: 150,
        ..TurnConfig::default()
    };
    let difference = trace::replay(hasty, &steps, sim.start).unwrap_err();
    assert!(
        matches!(difference.replayed, Some(Action::Commit { .. })),
        "{difference:?}"
    );
}
