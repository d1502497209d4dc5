//! From the socket to a frame: everything that is received on one leg.

use crate::RxFrame;
use crate::report::Reporter;
use crate::source::SourceFilter;
use crate::stats::{LegShared, bump};
use crate::vad::Vad;
use attendant_media::noise;
use attendant_media::playout::{Heard, Playout};
use attendant_media::rtcp;
use attendant_media::rtp::Packet;
use attendant_media::srtp::{Keys, Opener};
use attendant_media::stream::Stream;
use attendant_media::telephone_event::{self, Event};
use attendant_media::tone::DtmfDetector;
use attendant_media::{jitter::Inserted, rtp};
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::Ordering::Relaxed;

/// Datagrams taken from one socket in a tick. A peer sends one or two; more is a burst after a stall or a flood.
const MAX_DATAGRAMS: usize = 64;
/// Largest datagram that is looked at whole; a network's usual 1500 octets and some.
const MAX_DATAGRAM_OCTETS: usize = 1600;
/// Below this the last frame counts as quiet: a good moment for the jitter buffer to skip one.
/// (Steady line noise scores up to 0.4.)
const QUIET_PROB: f32 = 0.45;
/// Digits that may wait for a frame to carry them.
const WAITING_DIGITS: usize = 16;

/// The receiving half of a leg.
pub struct Receiver {
    stream: Stream,
    playout: Playout,
    opener: Option<Opener>,
    vad: Vad,
    events: telephone_event::Receiver,
    /// Listens for tones in the sound where the peer has no telephone-events.
    detector: DtmfDetector,
    digits: [Option<char>; WAITING_DIGITS],
    ssrc: Ssrc,
    quiet: bool,
    at: u64,
    datagram: Box<[u8; MAX_DATAGRAM_OCTETS]>,
}

/// Which of the peer's streams is heard. A new one is taken at its second packet in a row.
#[derive(Clone, Copy, Default)]
struct Ssrc {
    current: Option<u32>,
    candidate: Option<u32>,
}

enum Change {
    Current,
    Changed,
    Unknown,
}

impl Ssrc {
    fn handle(&mut self, ssrc: u32) -> Change {
        match self.current {
            None => {
                self.current = Some(ssrc);
                Change::Current
            }
            Some(current) if current == ssrc => {
                self.candidate = None;
                Change::Current
            }
            Some(_) if self.candidate == Some(ssrc) => {
                *self = Ssrc {
                    current: Some(ssrc),
                    candidate: None,
                };
                Change::Changed
            }
            Some(_) => {
                self.candidate = Some(ssrc);
                Change::Unknown
            }
        }
    }
}

impl Receiver {
    #[allow(clippy::disallowed_methods, reason = "made by the owner's thread")]
    pub fn new(stream: Stream) -> Receiver {
        Receiver {
            stream,
            playout: Playout::new(stream.codec),
            opener: stream.srtp.as_ref().map(opener),
            vad: Vad::new(),
            events: telephone_event::Receiver::new(),
            detector: DtmfDetector::new(),
            digits: [None; WAITING_DIGITS],
            ssrc: Ssrc::default(),
            quiet: true,
            at: 0,
            datagram: Box::new([0; MAX_DATAGRAM_OCTETS]),
        }
    }

    /// SDP changed what comes.
    pub fn set_stream(&mut self, stream: Stream) {
        // The same key goes on where it was: its replay window and rollover counter belong to it.
        let key = |stream: &Stream| stream.srtp.map(|keys| (keys.suite, keys.remote));
        if key(&stream) != key(&self.stream) {
            self.opener = stream.srtp.as_ref().map(opener);
        }
        // What was not changed may still be on its way in the old codec: the payload type decides.
        if stream.codec != self.stream.codec {
            self.playout.set_codec(stream.codec);
        }
        self.stream = stream;
    }

    /// The peer's stream that is heard.
    pub fn ssrc(&self) -> Option<u32> {
        self.ssrc.current
    }

    /// The receiving end.
    pub fn playout(&mut self) -> &mut Playout {
        &mut self.playout
    }

    /// Takes what has arrived.
    pub fn drain(
        &mut self,
        socket: &UdpSocket,
        source: &mut SourceFilter,
        reporter: &mut Reporter,
        shared: &LegShared,
        now_us: u64,
    ) {
        for _ in 0..MAX_DATAGRAMS {
            let (octets, from) = match socket.recv_from(self.datagram.as_mut_slice()) {
                Ok(received) => received,
                // An ICMP message for what we sent; the next datagram may be fine.
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::Interrupted | ErrorKind::ConnectionRefused
                    ) =>
                {
                    continue;
                }
                Err(_) => break,
            };
            // A copy, in which it can be opened while we learn from it.
            let mut datagram = *self.datagram;
            match datagram.get_mut(..octets) {
                Some(datagram) => self.take(datagram, from, source, reporter, shared, now_us),
                None => bump(&shared.rx_malformed),
            }
        }
        self.publish(shared);
    }

    /// Takes one datagram from the RTP port.
    pub fn take(
        &mut self,
        datagram: &mut [u8],
        from: SocketAddr,
        source: &mut SourceFilter,
        reporter: &mut Reporter,
        shared: &LegShared,
        now_us: u64,
    ) {
        if rtcp::is_rtcp(datagram) {
            self.handle_report(datagram, from, source.destination(), reporter, shared, now_us);
        } else {
            self.handle_datagram(datagram, from, source, shared, now_us);
        }
    }

    /// Takes what has arrived on RTCP's own port.
    pub fn drain_reports(
        &mut self,
        socket: &UdpSocket,
        rtp_peer: SocketAddr,
        reporter: &mut Reporter,
        shared: &LegShared,
        now_us: u64,
    ) {
        for _ in 0..MAX_DATAGRAMS {
            let mut datagram = [0; MAX_DATAGRAM_OCTETS];
            let Ok((octets, from)) = socket.recv_from(&mut datagram) else {
                break;
            };
            match datagram.get_mut(..octets) {
                Some(datagram) if rtcp::is_rtcp(datagram) => {
                    self.handle_report(datagram, from, rtp_peer, reporter, shared, now_us);
                }
                _ => bump(&shared.rx_malformed),
            }
        }
    }

    /// The frame of this tick.
    pub fn frame(&mut self) -> RxFrame {
        let (frame, heard) = self.playout.frame(self.quiet);
        if self.stream.event_pt.is_none()
            && let Some(digit) = self.detector.handle_frame(&frame)
        {
            self.note_digit(digit);
        }
        let speech_prob = self.vad.handle_frame(&frame);
        self.quiet = speech_prob < QUIET_PROB;
        let at = self.at;
        self.at += 1;
        RxFrame {
            frame,
            sent: attendant_media::Frame::SILENCE,
            speech_prob,
            level_dbov: frame.energy_dbov(),
            concealed: heard == Heard::Concealed,
            digit: self.take_digit(),
            at,
        }
    }

    fn handle_report(
        &mut self,
        datagram: &mut [u8],
        from: SocketAddr,
        rtp_peer: SocketAddr,
        reporter: &mut Reporter,
        shared: &LegShared,
        now_us: u64,
    ) {
        if !reporter.is_peer(from, rtp_peer) {
            return bump(&shared.rx_foreign);
        }
        let octets = match &mut self.opener {
            None => datagram.len(),
            Some(opener) => match opener.open_rtcp(datagram) {
                Ok(octets) => octets,
                Err(_) => return bump(&shared.rx_unauthentic),
            },
        };
        let plain = datagram.get(..octets).unwrap_or_default();
        let Ok(received) = rtcp::parse(plain, reporter.ssrc()) else {
            return bump(&shared.rx_malformed);
        };
        bump(&shared.rx_reports);
        reporter.handle(&received, from, shared, now_us);
        if received.goodbye.is_some() && received.goodbye == self.ssrc.current {
            // Whatever comes next is a new stream, to be taken at its first packet.
            self.ssrc = Ssrc::default();
            self.forget_stream();
        }
    }

    fn handle_datagram(
        &mut self,
        datagram: &mut [u8],
        from: SocketAddr,
        source: &mut SourceFilter,
        shared: &LegShared,
        now_us: u64,
    ) {
        if rtp::header_octets(datagram).is_err() {
            return bump(&shared.rx_malformed);
        }
        let octets = match &mut self.opener {
            None => datagram.len(),
            Some(opener) => match opener.open_rtp(datagram) {
                Ok(octets) => octets,
                Err(_) => return bump(&shared.rx_unauthentic),
            },
        };
        let Some(Ok(packet)) = datagram.get(..octets).map(Packet::parse) else {
            return bump(&shared.rx_malformed);
        };
        if !self.is_ours(packet.header.payload_type) {
            return bump(&shared.rx_malformed);
        }
        if !source.accept(from, now_us) {
            return bump(&shared.rx_foreign);
        }
        shared.last_rx_us.store(now_us, Relaxed);
        self.handle_packet(&packet, shared, now_us);
    }

    fn is_ours(&self, payload_type: u8) -> bool {
        self.stream.codec_of(payload_type).is_some()
            || Some(payload_type) == self.stream.event_pt
            || payload_type == noise::PAYLOAD_TYPE
    }

    fn handle_packet(&mut self, packet: &Packet<'_>, shared: &LegShared, now_us: u64) {
        match self.ssrc.handle(packet.header.ssrc) {
            Change::Current => {}
            Change::Changed => {
                bump(&shared.ssrc_changes);
                self.forget_stream();
            }
            Change::Unknown => return,
        }
        let payload_type = packet.header.payload_type;
        if Some(payload_type) == self.stream.event_pt {
            self.playout.account_event(packet.header.seq);
            match Event::parse(packet.payload) {
                Ok(event) => {
                    if let Some(digit) = self.events.handle(packet.header.timestamp, event) {
                        self.note_digit(digit);
                    }
                }
                Err(_) => bump(&shared.rx_malformed),
            }
            return;
        }
        let Some(codec) = self.stream.codec_of(payload_type) else {
            if self.playout.insert_noise(packet).is_err() {
                bump(&shared.rx_malformed);
            }
            return;
        };
        // A peer may change the codec without a word (RFC 3264 §5.1: whatever was offered may come).
        if codec != self.playout.codec() {
            bump(&shared.codec_changes);
            self.playout.set_codec(codec);
        }
        if self.playout.insert(packet, now_us) == Inserted::Refused {
            bump(&shared.rx_malformed);
        }
    }

    fn forget_stream(&mut self) {
        self.playout.reset();
        self.events = telephone_event::Receiver::new();
    }

    fn note_digit(&mut self, digit: char) {
        if let Some(free) = self.digits.iter_mut().find(|waiting| waiting.is_none()) {
            *free = Some(digit);
        }
    }

    fn take_digit(&mut self) -> Option<char> {
        self.digits.rotate_left(1);
        self.digits.last_mut().and_then(Option::take)
    }

    fn publish(&self, shared: &LegShared) {
        let stats = self.playout.stats();
        shared.rx_packets.store(stats.packets, Relaxed);
        shared.rx_lost.store(stats.lost, Relaxed);
        shared.rx_late.store(stats.late, Relaxed);
        shared.rx_duplicates.store(stats.duplicates, Relaxed);
        shared.rx_concealed.store(stats.concealed, Relaxed);
        shared.rx_grown.store(stats.grown, Relaxed);
        shared.rx_skipped.store(stats.skipped, Relaxed);
        shared.jitter_us.store((stats.jitter_ms * 1000.0) as u32, Relaxed);
        shared.jitter_delay_ms.store(self.playout.depth_ms(), Relaxed);
    }
}

fn opener(keys: &Keys) -> Opener {
    Opener::new(keys.suite, &keys.remote)
}
