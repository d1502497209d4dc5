//! Line: the caller's end of the audio: one thread per call that speaks, listens and writes down what crossed the wire.
//!
//! ```text
//! every 20 ms, by an absolute clock:
//!   read what arrived (stamped by the kernel) -> ask the conductor -> send one packet (clip or silence)
//! ```
//!
//! Arrival times are the kernel's, so reading once per ptime loses nothing. Departure times are taken just before the
//! packet is handed to the kernel.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    sync::mpsc::{Receiver, TryRecvError},
    time::Duration,
};

use attendant_media::{
    Codec,
    g711::{alaw_decode, alaw_encode, ulaw_decode, ulaw_encode},
    resample,
    rtcp::is_rtcp,
    rtp::{HEADER_OCTETS, Header, Packet, SeqNumber},
};
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{
    measure::{PACKET_SAMPLES, Spoken, Track, WIRE_RATE_HZ, WireNs, is_voiced, voiced_span},
    script::{Action, Conductor},
    stamp,
    weather::{Relay, Weather},
};

/// Packet time [ns].
const PTIME_NS: u64 = 20_000_000;
/// Duration of a sample on the wire [ns].
const SAMPLE_NS: u64 = 1_000_000_000 / WIRE_RATE_HZ as u64;
/// Behind by more than this, the clock starts anew instead of sending a burst [ns].
const GIVE_UP_NS: u64 = 10 * PTIME_NS;
/// Datagrams read in one ptime at most; a flood must not stop the sending.
const READ_AT_ONCE: usize = 64;
/// What is kept of a datagram [octets]; 20 ms of G.711 is 172.
const DATAGRAM_OCTETS: usize = 2048;
/// Silence kept before a clip's first and after its last voiced sample [samples].
const LEAD_SAMPLES: usize = 160;
const TAIL_SAMPLES: usize = 800;

/// An utterance, ready to be sent: 8 kHz mono, its own silence trimmed.
#[derive(Debug, Clone)]
pub struct Clip {
    samples: Vec<i16>,
    /// First voiced sample and the one after the last.
    voiced: (usize, usize),
}

impl Clip {
    /// From 16 kHz mono. `None` when it holds no voice.
    #[must_use]
    pub fn new(pcm: &[i16]) -> Option<Self> {
        let samples = resample::convert(pcm, attendant_media::SAMPLE_RATE_HZ, WIRE_RATE_HZ);
        let (begin, end) = voiced_span(&samples)?;
        let from = begin.saturating_sub(LEAD_SAMPLES);
        let to = (end + TAIL_SAMPLES).min(samples.len());
        Some(Self {
            samples: samples.get(from..to)?.to_vec(),
            voiced: (begin - from, end - from),
        })
    }

    /// From its first to its last voiced sample.
    #[must_use]
    pub fn duration(&self) -> Duration {
        Duration::from_nanos((self.voiced.1 - self.voiced.0) as u64 * SAMPLE_NS)
    }

    /// Longest silence inside it.
    #[must_use]
    pub fn longest_pause(&self) -> Duration {
        let voice = self.samples.get(self.voiced.0..self.voiced.1).unwrap_or_default();
        let (mut longest, mut current) = (0, 0);
        for block in voice.chunks(80) {
            current = if is_voiced(block) {
                0
            } else {
                current + block.len()
            };
            longest = longest.max(current);
        }
        Duration::from_nanos(longest as u64 * SAMPLE_NS)
    }
}

/// What the other side may still say about the call while it lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Send to this address from now on.
    Remote(SocketAddr, Codec),
    /// The other side has hung up, or the call has failed.
    Cleared,
}

/// What the caller's telephone sends back of what it plays.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct EchoPath {
    /// Level of the echo against what is played [dB]; negative.
    pub gain_db: f64,
    /// Delay [ms].
    pub delay_ms: u32,
}

impl std::str::FromStr for EchoPath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = text
            .split_once(':')
            .and_then(|(gain, delay)| Some((gain.trim().parse().ok()?, delay.trim().parse().ok()?)));
        match parsed {
            Some((gain_db, delay_ms)) if (-60.0..=0.0).contains(&gain_db) && delay_ms <= 500 => {
                Ok(Self { gain_db, delay_ms })
            }
            Some(_) | None => Err(format!(
                "{text:?} is no echo path: write level and delay, -60 to 0 dB and up to 500 ms, as in -12:120"
            )),
        }
    }
}

/// What the telephone plays, until it comes back.
#[derive(Debug)]
struct Echo {
    gain: f64,
    delay: usize,
    played: std::collections::VecDeque<i16>,
}

impl Echo {
    fn new(path: EchoPath) -> Self {
        Self {
            gain: 10f64.powf(path.gain_db / 20.0),
            delay: (path.delay_ms * WIRE_RATE_HZ / 1000) as usize,
            played: std::collections::VecDeque::new(),
        }
    }

    /// One ptime was played; nothing received is silence.
    fn play(&mut self, received: &[i16]) {
        if received.is_empty() {
            self.played.extend([0; PACKET_SAMPLES]);
        } else {
            self.played.extend(received);
        }
    }

    fn add_to(&mut self, samples: &mut [i16]) {
        for sample in samples {
            if self.played.len() > self.delay
                && let Some(back) = self.played.pop_front()
            {
                *sample = sample.saturating_add((f64::from(back) * self.gain) as i16);
            }
        }
    }
}

/// How a call is conducted.
#[derive(Debug)]
pub struct Orders {
    /// What can be said.
    pub clips: Vec<Clip>,
    /// When it is said.
    pub conductor: Conductor,
    /// The call ends after this in any case.
    pub longest: Duration,
    /// Background noise of the caller's room [dBov]; `None` sends digital silence between utterances.
    pub noise_dbov: Option<f64>,
    /// What comes back of what the caller hears.
    pub echo: Option<EchoPath>,
    /// What the network does to packets, both ways; fair weather has no relay in between.
    pub weather: Weather,
    /// For noise, losses, sequence number and timestamp.
    pub seed: u64,
}

/// How the call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// Everything was said and heard.
    Finished,
    /// The other side hung up.
    ByOther,
    /// The longest duration was reached.
    TooLong,
}

/// A call as it crossed the wire.
#[derive(Debug)]
pub struct Trace {
    /// First packet sent.
    pub from: WireNs,
    /// End of the audio.
    pub until: WireNs,
    /// Utterances sent in full or in part.
    pub spoken: Vec<Spoken>,
    /// What was sent.
    pub tx: Track,
    /// What was received.
    pub rx: Track,
    /// How it ended.
    pub ended: Ended,
    /// Datagrams that were no RTP of ours.
    pub malformed: u64,
    /// Most that our own sending was late [ms]: what the caller's machine adds to the figures.
    pub own_late_ms: f64,
    /// The thread had realtime scheduling.
    pub realtime: bool,
}

/// Holds the conversation. Blocks until it is over; run it on a thread of its own.
///
/// # Errors
/// The socket's own.
pub fn converse(
    socket: &UdpSocket,
    remote: SocketAddr,
    codec: Codec,
    mut orders: Orders,
    signals: &Receiver<Signal>,
) -> io::Result<Trace> {
    stamp::enable(socket)?;
    let realtime = stamp::ask_realtime();
    let mut sender = Sender::new(remote, codec, orders.noise_dbov, orders.seed);
    sender.echo = orders.echo.map(Echo::new);
    let relay = |to| match orders.weather.is_fair() {
        true => Ok(None),
        false => Relay::start(socket.local_addr()?, to, orders.weather, orders.seed).map(Some),
    };
    let mut between = relay(remote)?;
    if let Some(relay) = &between {
        sender.remote = relay.address;
    }
    let now = stamp::realtime();
    let mut trace = Trace {
        from: now,
        until: now,
        spoken: Vec::new(),
        tx: Track::default(),
        rx: Track::default(),
        ended: Ended::TooLong,
        malformed: 0,
        own_late_ms: 0.0,
        realtime,
    };
    let mut due = stamp::monotonic() + PTIME_NS;
    let mut ticks_left = orders.longest.as_nanos() / u128::from(PTIME_NS);
    while ticks_left > 0 {
        ticks_left -= 1;
        stamp::sleep_until(due);
        let late = stamp::monotonic().saturating_sub(due);
        trace.own_late_ms = trace.own_late_ms.max(late as f64 / 1e6);
        due = if late > GIVE_UP_NS {
            stamp::monotonic() + PTIME_NS
        } else {
            due + PTIME_NS
        };
        match signals.try_recv() {
            Ok(Signal::Remote(address, codec)) => {
                between = relay(address)?;
                sender.remote = between.as_ref().map_or(address, |relay| relay.address);
                sender.codec = codec;
            }
            Ok(Signal::Cleared) | Err(TryRecvError::Disconnected) => {
                trace.ended = Ended::ByOther;
                break;
            }
            Err(TryRecvError::Empty) => {}
        }
        let before = trace.rx.packets().len();
        let heard = listen(socket, &mut trace)?;
        if let Some(echo) = &mut sender.echo {
            let packets = trace.rx.packets().iter().skip(before);
            echo.play(
                &packets
                    .flat_map(|p| trace.rx.samples_of(p))
                    .copied()
                    .collect::<Vec<_>>(),
            );
        }
        match orders.conductor.on_tick(heard, sender.is_speaking()) {
            Action::Nothing => {}
            Action::HangUp => {
                trace.ended = Ended::Finished;
                break;
            }
            Action::Say {
                utterance,
                interrupts,
            } => {
                if let Some(clip) = orders.clips.get_mut(utterance) {
                    sender.begin(
                        utterance,
                        interrupts,
                        std::mem::take(&mut clip.samples),
                        clip.voiced,
                    );
                }
            }
        }
        sender.send(socket, &mut trace)?;
    }
    // What is already in the socket still counts.
    listen(socket, &mut trace)?;
    trace.until = stamp::realtime();
    Ok(trace)
}

/// Reads what has arrived; whether voice was in it.
fn listen(socket: &UdpSocket, trace: &mut Trace) -> io::Result<bool> {
    let mut datagram = [0; DATAGRAM_OCTETS];
    let mut heard = false;
    for _ in 0..READ_AT_ONCE {
        let (len, at) = match stamp::try_recv(socket, &mut datagram) {
            Ok(Some(got)) => got,
            Ok(None) => break,
            // An ICMP answer to a packet of ours: the other side is gone or not there yet.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
            Err(error) => return Err(error),
        };
        if datagram.get(..len).is_some_and(is_rtcp) {
            continue;
        }
        let packet = datagram.get(..len).and_then(|octets| Packet::parse(octets).ok());
        let audio = packet.and_then(|packet| {
            let codec = Codec::from_payload_type(packet.header.payload_type)?;
            Some((packet.header, decode(codec, packet.payload)?))
        });
        let Some((header, samples)) = audio else {
            trace.malformed += u64::from(packet.is_none());
            continue;
        };
        heard |= is_voiced(&samples);
        trace
            .rx
            .push(at, header.seq.0, header.timestamp, header.ssrc, &samples);
    }
    Ok(heard)
}

/// What is sent, packet by packet.
struct Sender {
    remote: SocketAddr,
    codec: Codec,
    header: Header,
    /// The utterance under way: its samples, how many were sent, its voice, its number, whether it interrupts.
    current: Option<Speech>,
    /// Amplitude of the room's noise [samples].
    noise: f64,
    echo: Option<Echo>,
    random: StdRng,
}

struct Speech {
    samples: Vec<i16>,
    sent: usize,
    voiced: (usize, usize),
    spoken: Spoken,
}

impl Sender {
    fn new(remote: SocketAddr, codec: Codec, noise_dbov: Option<f64>, seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let header = Header {
            marker: true,
            payload_type: codec.static_payload_type().unwrap_or_default(),
            seq: SeqNumber(random.random()),
            timestamp: random.random(),
            ssrc: random.random(),
        };
        // Uniform noise of amplitude a has an effective value of a / √3.
        let noise = noise_dbov.map_or(0.0, |dbov| 32768.0 * 10f64.powf(dbov / 20.0) * 3f64.sqrt());
        Self {
            remote,
            codec,
            header,
            current: None,
            noise,
            echo: None,
            random,
        }
    }

    fn is_speaking(&self) -> bool {
        self.current.is_some()
    }

    fn begin(&mut self, utterance: usize, interrupts: bool, samples: Vec<i16>, voiced: (usize, usize)) {
        let spoken = Spoken {
            utterance,
            start: 0,
            end: 0,
            interrupts,
        };
        self.current = Some(Speech {
            samples,
            sent: 0,
            voiced,
            spoken,
        });
        self.header.marker = true;
    }

    fn send(&mut self, socket: &UdpSocket, trace: &mut Trace) -> io::Result<()> {
        let mut samples = [0i16; PACKET_SAMPLES];
        if let Some(speech) = &self.current {
            for (slot, sample) in samples.iter_mut().zip(speech.samples.iter().skip(speech.sent)) {
                *slot = *sample;
            }
        }
        if let Some(echo) = &mut self.echo {
            echo.add_to(&mut samples);
        }
        if self.noise >= 1.0 {
            for sample in &mut samples {
                *sample = sample.saturating_add(self.random.random_range(-self.noise..self.noise) as i16);
            }
        }
        let mut datagram = [0; HEADER_OCTETS + PACKET_SAMPLES];
        let (head, payload) = datagram.split_at_mut(HEADER_OCTETS);
        self.header.payload_type = self.codec.static_payload_type().unwrap_or_default();
        let header = Packet {
            header: self.header,
            payload: &[],
        };
        header.write(head).map_err(io::Error::other)?;
        for (octet, sample) in payload.iter_mut().zip(samples) {
            *octet = match self.codec {
                Codec::Pcma => alaw_encode(sample),
                // The only other one that we offer.
                Codec::Pcmu | Codec::G722 | Codec::Opus => ulaw_encode(sample),
            };
        }
        let at = stamp::realtime();
        match socket.send_to(&datagram, self.remote) {
            Ok(_) => {}
            // The other side's socket is closed; its BYE is on the way.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        trace.tx.push(
            at,
            self.header.seq.0,
            self.header.timestamp,
            self.header.ssrc,
            &samples,
        );
        self.header.marker = false;
        self.header.seq = self.header.seq.next();
        self.header.timestamp = self.header.timestamp.wrapping_add(PACKET_SAMPLES as u32);
        if self
            .current
            .as_mut()
            .is_some_and(|speech| speech.advance(at, &mut trace.spoken))
        {
            self.current = None;
        }
        Ok(())
    }
}

impl Speech {
    /// One packet of it left at `at`; whether it was the last one.
    fn advance(&mut self, at: WireNs, spoken: &mut Vec<Spoken>) -> bool {
        let packet = self.sent..self.sent + PACKET_SAMPLES;
        let (first, last) = (self.voiced.0, self.voiced.1.saturating_sub(1));
        let time_of = |sample: usize| at + (sample - packet.start) as u64 * SAMPLE_NS;
        if packet.contains(&first) {
            self.spoken.start = time_of(first);
            self.spoken.end = at + PTIME_NS;
            spoken.push(self.spoken);
        }
        if packet.contains(&last)
            && let Some(entry) = spoken.last_mut()
        {
            entry.end = time_of(last);
        }
        self.sent = packet.end;
        self.sent >= self.samples.len()
    }
}

/// The samples of a payload of G.711; `None` for the codecs that we did not offer.
fn decode(codec: Codec, payload: &[u8]) -> Option<Vec<i16>> {
    let sample = match codec {
        Codec::Pcmu => ulaw_decode,
        Codec::Pcma => alaw_decode,
        Codec::G722 | Codec::Opus => return None,
    };
    Some(payload.iter().map(|octet| sample(*octet)).collect())
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread};

    use super::*;
    use crate::caller::{
        measure::{pacing, runs, turns},
        script::{Begin, Manners},
    };

    fn tone(ms: usize, lead_ms: usize) -> Vec<i16> {
        let mut pcm = vec![0; lead_ms * 16];
        pcm.extend((0..ms * 16).map(|i| ((i as f64 * 0.3).sin() * 8000.0) as i16));
        pcm.extend(vec![0; 1600]);
        pcm
    }

    #[test]
    fn clips_are_trimmed_to_their_voice() {
        let clip = Clip::new(&tone(500, 700)).unwrap();
        assert!(
            (clip.duration().as_millis() as i64 - 500).abs() < 8,
            "{:?}",
            clip.duration()
        );
        assert!(clip.voiced.0 <= LEAD_SAMPLES + 80);
        assert!(clip.longest_pause() < Duration::from_millis(20));
        assert!(Clip::new(&[0; 16_000]).is_none());
        let mut halting = tone(300, 0);
        halting.extend(tone(300, 500));
        let pause = Clip::new(&halting).unwrap().longest_pause().as_millis();
        assert!((580..=620).contains(&pause), "{pause}");
    }

    /// A peer on the wire: silence, but after 400 ms without voice from the caller a tone of 300 ms, once per turn.
    fn peer(socket: &UdpSocket, caller: SocketAddr, packets: usize) {
        let mut random = Sender::new(caller, Codec::Pcma, None, 5);
        let voice = Clip::new(&tone(300, 0)).unwrap();
        let mut trace = Trace {
            from: 0,
            until: 0,
            spoken: Vec::new(),
            tx: Track::default(),
            rx: Track::default(),
            ended: Ended::TooLong,
            malformed: 0,
            own_late_ms: 0.0,
            realtime: false,
        };
        stamp::enable(socket).unwrap();
        let (mut quiet, mut owed) = (0, true);
        let mut due = stamp::monotonic();
        for _ in 0..packets {
            due += PTIME_NS;
            stamp::sleep_until(due);
            if listen(socket, &mut trace).unwrap() {
                (quiet, owed) = (0, true);
            } else {
                quiet += 1;
            }
            if owed && quiet == 20 {
                owed = false;
                random.begin(0, false, voice.samples.clone(), voice.voiced);
            }
            random.send(socket, &mut trace).unwrap();
        }
    }

    #[test]
    fn a_conversation_over_real_sockets_is_measured() {
        let ours = UdpSocket::bind("127.0.0.1:0").unwrap();
        let theirs = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (caller, remote) = (ours.local_addr().unwrap(), theirs.local_addr().unwrap());
        let peer = thread::spawn(move || peer(&theirs, caller, 300));
        let manners = Manners {
            quiet_ms: 300,
            think_ms: 100,
            ..Manners::default()
        };
        let orders = Orders {
            clips: vec![
                Clip::new(&tone(600, 100)).unwrap(),
                Clip::new(&tone(400, 0)).unwrap(),
            ],
            conductor: Conductor::new(vec![Begin::AfterReply; 2], manners),
            longest: Duration::from_secs(10),
            noise_dbov: None,
            echo: None,
            weather: Weather::default(),
            seed: 1,
        };
        let (_keep, signals) = mpsc::channel();
        let trace = converse(&ours, remote, Codec::Pcma, orders, &signals).unwrap();
        peer.join().unwrap();
        assert_eq!(
            (trace.ended, trace.spoken.len(), trace.malformed),
            (Ended::Finished, 2, 0)
        );
        let figures = turns(&trace.spoken, &runs(&trace.rx), trace.until);
        for turn in &figures {
            let response = turn.response_ms.unwrap();
            // 20 silent packets of the peer's clock, up to two packet times of phase, and a busy machine.
            assert!((380.0..700.0).contains(&response), "{response}");
            assert!(!turn.cut_off && !turn.collision);
        }
        let pacing = pacing(&trace.rx);
        assert!(
            pacing.received > 50 && pacing.lost == 0 && pacing.holes == 0,
            "{pacing:?}"
        );
        let saved = trace.rx.audio(trace.from, trace.until);
        assert!(is_voiced(&saved));
    }

    #[test]
    fn a_cleared_call_ends_at_once() {
        let ours = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (tell, signals) = mpsc::channel();
        tell.send(Signal::Cleared).unwrap();
        let orders = Orders {
            clips: Vec::new(),
            conductor: Conductor::new(Vec::new(), Manners::default()),
            longest: Duration::from_secs(10),
            noise_dbov: Some(-60.0),
            echo: None,
            weather: Weather::default(),
            seed: 1,
        };
        let remote = ours.local_addr().unwrap();
        let trace = converse(&ours, remote, Codec::Pcmu, orders, &signals).unwrap();
        assert_eq!(trace.ended, Ended::ByOther);
    }
}
