//! Caller: dials like a telephone, speaks, listens, and measures from the wire what a caller lives through.
//!
//! ```text
//! CallPlan ─> place ─> SIP dialog (tokio)  ──signals──> line (thread): conductor, clips, packets ─> Trace
//!                                                                                                    │
//! CallReport <────────────────────────── measure (pure) <─────────────────────────────────────────────┘
//! ```
//!
//! | Module | What |
//! |---|---|
//! | [`script`] | when to speak, wait, interrupt, hang up; sans-IO |
//! | [`line`] | the thread that sends and receives |
//! | [`stamp`] | arrival times from the kernel |
//! | [`measure`], [`figures`] | figures from packets; pure |
//! | [`speech`], [`engine`], [`workers`] | utterances from voices and recordings; an ear of its own |
//! | [`command`] | `attendant call` |

pub mod command;
pub mod engine;
pub mod figures;
pub mod line;
pub mod measure;
pub mod script;
pub mod speech;
pub mod stamp;
pub mod weather;
pub mod workers;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::mpsc,
    thread,
    time::Duration,
};

use attendant_media::{Codec, SAMPLE_RATE_HZ, resample};
use attendant_sip::{DialogEvent, Established, Sip, SipConfig, SipError};
use tokio::sync::oneshot;

use line::{Clip, Ended, Orders, Signal, Trace};
use measure::{Heard, Pacing, Run, WIRE_RATE_HZ, WireNs};
use script::Conductor;
pub use script::{Begin, Manners};

/// Audio ports of the caller: away from the daemon's own, so that both run on one machine.
const RTP_PORTS: (u16, u16) = (26_000, 26_199);
/// Signals that can wait for the audio thread; it reads one per ptime.
const SIGNALS: usize = 16;
/// Kept around a reply for the transcript [ns].
const REPLY_MARGIN_NS: u64 = 200_000_000;

/// Why a call could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Signalling: refused, unreachable, no common codec.
    #[error(transparent)]
    Sip(#[from] SipError),
    /// An utterance without voice.
    #[error("utterance {number} ('{label}') holds no voice: give a recording in which somebody speaks")]
    NoVoice {
        /// Its number, from 1.
        number: usize,
        /// Its label.
        label: String,
    },
    /// Audio socket or thread.
    #[error("the audio of the call failed: {0}")]
    Audio(#[from] io::Error),
    /// The audio thread ended without a result.
    #[error("the audio thread of the call ended without a result")]
    Lost,
}

/// Something to say.
#[derive(Debug, Clone)]
pub struct Utterance {
    /// For people: its text or file.
    pub label: String,
    /// 16 kHz mono.
    pub pcm: Vec<i16>,
    /// When to say it.
    pub begin: Begin,
}

/// A call to be made.
#[derive(Debug, Clone)]
pub struct CallPlan {
    /// `sip:user@host[:port][;transport=]`.
    pub target: String,
    /// User name and password, where the other side asks for them.
    pub credentials: Option<(String, String)>,
    /// What is said, in order.
    pub utterances: Vec<Utterance>,
    /// Patience.
    pub manners: Manners,
    /// The call ends after this in any case.
    pub longest: Duration,
    /// Noise of the caller's room [dBov].
    pub noise_dbov: Option<f64>,
    /// What comes back of what the caller hears.
    pub echo: Option<line::EchoPath>,
    /// What the network does to packets, both ways.
    pub weather: weather::Weather,
    /// For noise and RTP's random start values.
    pub seed: u64,
}

/// What a call was like.
#[derive(Debug)]
pub struct CallReport {
    /// SIP Call-ID.
    pub call_id: String,
    /// The dialog was established to the first voice of the greeting [ms].
    pub greeting_ms: Option<f64>,
    /// The greeting, 16 kHz mono.
    pub greeting: Vec<i16>,
    /// Per utterance that was sent.
    pub turns: Vec<TurnReport>,
    /// Packets received.
    pub pacing: Pacing,
    /// Answer to end of the audio.
    pub duration: Duration,
    /// Packets, for recordings.
    pub trace: Trace,
}

/// One utterance and what followed it.
#[derive(Debug)]
pub struct TurnReport {
    /// Its label.
    pub label: String,
    /// Which utterance of the plan.
    pub utterance: usize,
    /// It was spoken into a reply.
    pub interrupts: bool,
    /// First voiced sample sent.
    pub start: WireNs,
    /// Last voiced sample sent.
    pub end: WireNs,
    /// What followed.
    pub heard: Heard,
    /// The reply, 16 kHz mono; empty when none came.
    pub reply: Vec<i16>,
}

/// A user agent for outgoing calls, listening on `ip` with a port of the system's choice.
///
/// # Errors
/// [`SipError`] when no socket can be had.
pub async fn user_agent(ip: IpAddr) -> Result<Sip, SipError> {
    let (sip, mut events) = attendant_sip::start(SipConfig {
        udp: Some(SocketAddr::new(ip, 0)),
        tcp: Some(SocketAddr::new(ip, 0)),
        media_ip: None,
        rtp_ports: RTP_PORTS,
        accounts: Vec::new(),
        peers: Vec::new(),
        // The measuring caller speaks what it can decode sample by sample.
        codecs: vec![Codec::Pcmu, Codec::Pcma],
        user_agent: concat!("Attendant-caller/", env!("CARGO_PKG_VERSION")).to_owned(),
        max_calls: 64,
        ..SipConfig::default()
    })
    .await?;
    // Nobody is expected to call a caller; whoever does is refused as an unknown peer.
    tokio::spawn(async move { while events.recv().await.is_some() {} });
    Ok(sip)
}

/// The address to dial from: loopback only reaches loopback.
#[must_use]
pub fn local_ip_for(target: &str) -> IpAddr {
    let host = target.split_once('@').map_or(target, |(_, host)| host);
    if host.starts_with("127.") || host.starts_with("localhost") {
        IpAddr::V4(Ipv4Addr::LOCALHOST)
    } else {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED)
    }
}

/// Makes a call and reports what it was like.
///
/// # Errors
/// [`CallError`].
pub async fn place(sip: &Sip, plan: CallPlan) -> Result<CallReport, CallError> {
    let mut clips = Vec::with_capacity(plan.utterances.len());
    for (index, utterance) in plan.utterances.iter().enumerate() {
        let clip = Clip::new(&utterance.pcm);
        clips.push(clip.ok_or_else(|| CallError::NoVoice {
            number: index + 1,
            label: utterance.label.clone(),
        })?);
    }
    let steps = plan.utterances.iter().map(|utterance| utterance.begin).collect();
    let orders = Orders {
        clips,
        conductor: Conductor::new(steps, plan.manners),
        longest: plan.longest,
        noise_dbov: plan.noise_dbov,
        echo: plan.echo,
        weather: plan.weather,
        seed: plan.seed,
    };
    let established = sip.invite(&plan.target, plan.credentials).await?;
    let call_id = established.handle.call_id().to_owned();
    let trace = converse(established, orders).await?;
    Ok(report(call_id, &plan.utterances, trace))
}

/// Runs the audio thread and carries the dialog's events to it.
async fn converse(established: Established, orders: Orders) -> Result<Trace, CallError> {
    let Established {
        socket,
        // Keeps its port: reports that come there find nobody, and do no harm.
        rtcp_socket: _rtcp_socket,
        media,
        mut events,
        handle,
    } = established;
    let (signal, signals) = mpsc::sync_channel(SIGNALS);
    let (done, mut result) = oneshot::channel();
    thread::Builder::new()
        .name("caller-audio".into())
        .spawn(move || {
            // The receiver only goes away with the call itself.
            drop(done.send(line::converse(
                &socket,
                media.stream.remote,
                media.stream.codec,
                orders,
                &signals,
            )));
        })?;
    let mut over = false;
    let trace = loop {
        tokio::select! {
            result = &mut result => break result.map_err(|_| CallError::Lost)?,
            event = events.recv(), if !over => {
                let news = match event {
                    Some(DialogEvent::Media(media)) => Some(Signal::Remote(media.stream.remote, media.stream.codec)),
                    Some(DialogEvent::Bye | DialogEvent::Failed(_)) | None => Some(Signal::Cleared),
                    Some(
                        DialogEvent::Hold(_)
                        | DialogEvent::InfoDigit(_)
                        | DialogEvent::Flash
                        | DialogEvent::Replaced,
                    ) => None,
                };
                over = news == Some(Signal::Cleared);
                if let Some(news) = news {
                    // Full: the thread reads one per ptime; a later change of media brings it up to date.
                    let _ = signal.try_send(news);
                }
            }
        }
    };
    if !over {
        // The other side may hang up in the same moment.
        drop(handle.bye().await);
    }
    Ok(trace?)
}

fn report(call_id: String, utterances: &[Utterance], trace: Trace) -> CallReport {
    let runs = measure::runs(&trace.rx);
    let heard = measure::turns(&trace.spoken, &runs, trace.until);
    let first_word = trace.spoken.first().map_or(trace.until, |said| said.start);
    let greeting = greeting(&runs, first_word);
    let turns = trace.spoken.iter().zip(heard).map(|(said, heard)| TurnReport {
        label: utterances
            .get(said.utterance)
            .map_or_else(String::new, |u| u.label.clone()),
        utterance: said.utterance,
        interrupts: said.interrupts,
        start: said.start,
        end: said.end,
        heard,
        reply: heard.reply.map_or_else(Vec::new, |span| wide(&trace, span)),
    });
    CallReport {
        call_id,
        greeting_ms: greeting.map(|(start, _)| measure::ms_between(trace.from, start)),
        greeting: greeting.map_or_else(Vec::new, |span| wide(&trace, span)),
        turns: turns.collect(),
        pacing: measure::pacing(&trace.rx),
        duration: Duration::from_nanos(trace.until.saturating_sub(trace.from)),
        trace,
    }
}

fn greeting(runs: &[Run], before: WireNs) -> Option<(WireNs, WireNs)> {
    let mut before = runs.iter().filter(|run| run.start < before);
    let first = before.next()?;
    Some((first.start, before.next_back().unwrap_or(first).end))
}

/// What was heard in a span, 16 kHz mono, with a little silence around it.
fn wide(trace: &Trace, (start, end): (WireNs, WireNs)) -> Vec<i16> {
    let audio = trace
        .rx
        .audio(start.saturating_sub(REPLY_MARGIN_NS), end + REPLY_MARGIN_NS);
    resample::convert(&audio, WIRE_RATE_HZ, SAMPLE_RATE_HZ)
}

impl CallReport {
    /// Both sides of the call as they met the caller's ear: one mono recording at 8 kHz.
    #[must_use]
    pub fn recording(&self) -> Vec<i16> {
        let (from, until) = (self.trace.from, self.trace.until);
        let sent = self.trace.tx.audio(from, until);
        let received = self.trace.rx.audio(from, until);
        sent.iter()
            .zip(&received)
            .map(|(a, b)| a.saturating_add(*b))
            .collect()
    }

    /// How the call ended.
    #[must_use]
    pub fn ended(&self) -> Ended {
        self.trace.ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_dialled_from_loopback() {
        assert!(local_ip_for("sip:attendant@127.0.0.1:5060").is_loopback());
        assert!(local_ip_for("sip:attendant@localhost").is_loopback());
        assert!(local_ip_for("sip:100@192.0.2.4;transport=tcp").is_unspecified());
    }
}
