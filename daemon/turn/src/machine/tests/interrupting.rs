//! The caller speaks into a reply: an interruption, a "mm-hm", a cough.

use super::*;

#[test]
fn barge_in_ducks_then_stops_then_listens() {
    let mut sim = greeted(Engine {
        speech_ms: 4_000,
        ..Engine::default()
    });
    sim.voice(1_000);
    sim.silence(1_000);
    let voice_at = (sim.now - sim.start).as_millis() as u64;
    sim.voice(600);
    let silent = sim.time_of("pause") - voice_at;
    assert!(sim.time_of("duck") - voice_at <= 80);
    assert!((120..=180).contains(&silent), "{silent}");
    sim.silence(6_000);
    assert!(sim.said("stop") && !sim.said("resume"), "{:?}", sim.log);
    assert_eq!(sim.count("commit"), 2, "{:?}", sim.log);
    assert_eq!(sim.machine.turns(), 2);
}

#[test]
fn a_backchannel_or_a_cough_does_not_end_the_reply() {
    for hearing in [Hearing::Backchannel, Hearing::Nothing, Hearing::Unclear] {
        let mut sim = greeted(Engine {
            speech_ms: 4_000,
            ..Engine::default()
        });
        sim.voice(1_000);
        sim.silence(1_000);
        sim.engine.hearing = hearing;
        sim.voice(400);
        sim.silence(6_000);
        assert!(
            sim.said("resume") && !sim.said("stop"),
            "{hearing:?}: {:?}",
            sim.log
        );
        let gap = sim.time_of("resume") - sim.time_of("pause");
        // 260 ms until the voice ends, 400 ms of silence.
        assert!(gap <= 720, "{hearing:?}: {gap}");
        assert_eq!((sim.count("commit"), sim.count("done")), (1, 1), "{:?}", sim.log);
        assert_eq!(sim.machine.turns(), 1);
    }
}

#[test]
fn a_first_word_nobody_understood_does_not_let_the_reply_go_on() {
    let mut sim = greeted(Engine {
        speech_ms: 6_000,
        stt_ms: 100,
        ..Engine::default()
    });
    sim.voice(1_000);
    sim.silence(1_000);
    sim.engine.hearing = Hearing::Unclear;
    // "Stop, please, let me ask another question."
    sim.voice(200);
    sim.silence(240);
    sim.engine.hearing = Hearing::Speech(Completeness::Finished);
    sim.voice(1_200);
    sim.silence(3_000);
    assert!(sim.said("stop") && !sim.said("resume"), "{:?}", sim.log);
    assert_eq!(sim.count("pause"), 1, "{:?}", sim.log);
}

#[test]
fn a_long_voice_interrupts_whatever_it_says() {
    let mut sim = greeted(Engine {
        speech_ms: 6_000,
        ..Engine::default()
    });
    sim.voice(1_000);
    sim.silence(1_000);
    sim.engine.hearing = Hearing::Unclear;
    sim.voice(1_300);
    sim.silence(3_000);
    assert!(sim.said("stop") && !sim.said("resume"), "{:?}", sim.log);
    assert!(sim.said("say Unclear"), "{:?}", sim.log);
}

#[test]
fn a_dead_engine_does_not_leave_a_paused_reply_in_silence() {
    let mut sim = greeted(Engine {
        speech_ms: 6_000,
        ..Engine::default()
    });
    sim.voice(1_000);
    sim.silence(1_000);
    sim.engine.stalled = true;
    sim.voice(400);
    sim.silence(5_000);
    assert!(sim.said("stop") && sim.said("say OneMoment"), "{:?}", sim.log);
}

#[test]
fn a_short_noise_during_the_reply_only_ducks() {
    let mut sim = greeted(Engine {
        speech_ms: 3_000,
        ..Engine::default()
    });
    sim.voice(1_000);
    sim.silence(1_000);
    sim.voice(80);
    sim.silence(3_000);
    assert!(
        sim.said("duck") && sim.said("unduck") && !sim.said("stop"),
        "{:?}",
        sim.log
    );
}
