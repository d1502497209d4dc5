//! The caller against a simple answering peer over real SIP and RTP on loopback: greets with a tone, and answers with
//! another 700 ms after the caller has stopped.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use attendant::caller::{Begin, CallPlan, CallReport, Manners, Utterance, line::Ended, place, user_agent};
use attendant_media::{FRAME_SAMPLES, Frame};
use attendant_rt::{LegConfig, Rt, RtConfig, TxFrame};
use attendant_sip::{IncomingCall, Peer, Sip, SipConfig, SipEvent, SrtpPolicy};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// The peer answers after this much silence [frames].
const QUIET_FRAMES: u32 = 35;
/// Length of its greeting and answers [frames].
const ANSWER_FRAMES: usize = 60;
/// What counts as the caller's voice for it [dBov].
const VOICE_DBOV: f32 = -45.0;

fn tone(ms: usize) -> Vec<i16> {
    (0..ms * 16)
        .map(|i| ((i as f64 * 0.2).sin() * 9_000.0) as i16)
        .collect()
}

fn frames(epoch: u32) -> impl Iterator<Item = TxFrame> {
    let pcm = tone(ANSWER_FRAMES * 20);
    (0..ANSWER_FRAMES).map(move |n| {
        let mut frame = Frame::SILENCE;
        frame
            .samples
            .copy_from_slice(&pcm[n * FRAME_SAMPLES..(n + 1) * FRAME_SAMPLES]);
        TxFrame {
            frame,
            epoch,
            mark: epoch,
            last: n + 1 == ANSWER_FRAMES,
        }
    })
}

/// Answers one call. Stops its reply when the caller speaks into it.
async fn answer(rt: &Rt, call: IncomingCall) {
    let established = call.answer().await.unwrap();
    let mut leg = rt
        .add_leg(LegConfig {
            socket: established.socket.try_clone().unwrap(),
            rtcp_socket: Some(established.rtcp_socket.try_clone().unwrap()),
            stream: established.media.stream,
            symmetric: true,
            ssrc: 77,
        })
        .unwrap();
    let (mut epoch, mut owed, mut quiet) = (1, false, 0);
    for frame in frames(epoch) {
        leg.tx.push(frame).unwrap();
    }
    while !established.handle.is_over() {
        while let Ok(rx) = leg.rx.pop() {
            if rx.level_dbov > VOICE_DBOV {
                (owed, quiet) = (true, 0);
                epoch += 1;
                leg.control.flush(epoch);
            } else {
                quiet += 1;
            }
            if owed && quiet == QUIET_FRAMES {
                owed = false;
                for frame in frames(epoch) {
                    leg.tx.push(frame).unwrap();
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn peer(accepted: &[&str]) -> (Sip, SocketAddr) {
    let peers = accepted
        .iter()
        .map(|net| Peer {
            name: "here".into(),
            net: net.parse().unwrap(),
            srtp: SrtpPolicy::default(),
        })
        .collect();
    let config = SipConfig {
        udp: Some(SocketAddr::new(LOOPBACK, 0)),
        peers,
        rtp_ports: (27_000, 27_099),
        ..SipConfig::default()
    };
    let (sip, mut events) = attendant_sip::start(config).await.unwrap();
    let at = sip.local_addrs().first().map(|(_, at)| *at).unwrap();
    tokio::spawn(async move {
        let rt = Rt::spawn(RtConfig::default()).unwrap();
        while let Some(event) = events.recv().await {
            if let SipEvent::Incoming(call) = event {
                answer(&rt, call).await;
            }
        }
    });
    (sip, at)
}

fn plan(at: SocketAddr, utterances: Vec<Utterance>) -> CallPlan {
    CallPlan {
        target: format!("sip:attendant@{at}"),
        credentials: None,
        utterances,
        manners: Manners {
            quiet_ms: 500,
            ..Manners::default()
        },
        longest: Duration::from_secs(30),
        noise_dbov: Some(-70.0),
        echo: None,
        weather: attendant::caller::weather::Weather::default(),
        seed: 1,
    }
}

async fn call(utterances: Vec<Utterance>) -> CallReport {
    let (peer, at) = peer(&["127.0.0.0/8"]).await;
    let caller = user_agent(LOOPBACK).await.unwrap();
    let report = place(&caller, plan(at, utterances)).await.unwrap();
    caller.shutdown().await;
    peer.shutdown().await;
    report
}

fn utterance(ms: usize, begin: Begin) -> Utterance {
    Utterance {
        label: format!("{ms} ms"),
        pcm: tone(ms),
        begin,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_callers_wait_is_measured_from_the_wire() {
    let report = call(vec![
        utterance(800, Begin::AfterReply),
        utterance(400, Begin::AfterReply),
    ])
    .await;
    assert_eq!(report.ended(), Ended::Finished);
    assert!(
        report.greeting_ms.is_some_and(|ms| ms < 1_000.0),
        "{:?}",
        report.greeting_ms
    );
    assert_eq!(report.turns.len(), 2);
    for turn in &report.turns {
        // 35 frames of silence, the peer's jitter buffer, and the phase of three 20 ms clocks.
        let response = turn.heard.response_ms.unwrap();
        assert!((690.0..1_000.0).contains(&response), "{response}");
        assert!(!turn.heard.cut_off && !turn.heard.collision);
        let seconds = turn.reply.len() as f64 / 16_000.0;
        assert!(
            (1.2..2.0).contains(&seconds),
            "1.2 s of tone with its margins: {seconds}"
        );
    }
    assert!(report.pacing.received > 200 && report.pacing.lost == 0 && report.pacing.ssrc_changes == 0);
    assert_eq!(report.pacing.holes, 0);
    assert!(report.recording().iter().any(|sample| *sample != 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interruption_is_timed_and_a_pause_is_cut_off() {
    let mut halting = tone(400);
    halting.extend(vec![0; 16 * 1_100]);
    halting.extend(tone(400));
    let report = call(vec![
        utterance(500, Begin::AfterReply),
        utterance(600, Begin::IntoReply { after_ms: 400 }),
        Utterance {
            label: "halting".into(),
            pcm: halting,
            begin: Begin::AfterReply,
        },
    ])
    .await;
    let [first, second, third] = report.turns.as_slice() else {
        panic!("{:?}", report.turns.len())
    };
    assert!(!first.heard.cut_off);
    let stop = second.heard.stop_ms.unwrap();
    assert!(second.interrupts && (0.0..300.0).contains(&stop), "{stop}");
    assert!(!second.heard.not_stopped && !second.heard.cut_off);
    assert!(second.heard.response_ms.is_some());
    assert!(
        third.heard.cut_off,
        "the peer takes any silence of 700 ms for the end"
    );
    assert!(third.heard.response_ms.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_is_an_error_with_its_status() {
    let (stranger, at) = peer(&[]).await;
    let caller = user_agent(LOOPBACK).await.unwrap();
    let refused = place(&caller, plan(at, vec![utterance(200, Begin::AfterReply)]))
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("403"), "{refused}");
    caller.shutdown().await;
    stranger.shutdown().await;
}
