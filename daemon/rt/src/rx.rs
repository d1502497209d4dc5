//! From the socket to a frame: everything that is received on one leg.

use crate::RxFrame;
use crate::source::SourceFilter;
use crate::stats::{LegShared, bump};
use crate::vad::Vad;
use attendant_media::jitter::{FRAME_OCTETS, Inserted, JitterBuffer, Popped};
use attendant_media::plc::Concealer;
use attendant_media::rtp::Packet;
use attendant_media::telephone_event::{self, Event};
use attendant_media::tone::DtmfDetector;
use attendant_media::{Codec, Decoder, Frame};
use std::io::ErrorKind;
use std::net::UdpSocket;
use std::sync::atomic::Ordering::Relaxed;

/// Datagrams taken from one socket in a tick. A peer sends one or two; more is a burst after a stall or a flood.
const MAX_DATAGRAMS: usize = 64;
/// Largest datagram that is looked at whole; RTP of ours is 172 octets.
const MAX_DATAGRAM_OCTETS: usize = 1600;
/// Comfort noise (RFC 3389): uses a sequence number, carries no samples.
const COMFORT_NOISE: u8 = 13;
/// Below this the last frame counts as quiet: a good moment for the jitter buffer to skip one.
/// (Steady line noise scores up to 0.4.)
const QUIET_PROB: f32 = 0.45;
/// Digits that may wait for a frame to carry them.
const WAITING_DIGITS: usize = 16;

/// The receiving half of a leg.
pub struct Receiver {
    jitter: JitterBuffer,
    decoder: Decoder,
    concealer: Concealer,
    vad: Vad,
    events: telephone_event::Receiver,
    event_pt: Option<u8>,
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

enum Stream {
    Current,
    Changed,
    Unknown,
}

impl Ssrc {
    fn handle(&mut self, ssrc: u32) -> Stream {
        match self.current {
            None => {
                self.current = Some(ssrc);
                Stream::Current
            }
            Some(current) if current == ssrc => {
                self.candidate = None;
                Stream::Current
            }
            Some(_) if self.candidate == Some(ssrc) => {
                *self = Ssrc {
                    current: Some(ssrc),
                    candidate: None,
                };
                Stream::Changed
            }
            Some(_) => {
                self.candidate = Some(ssrc);
                Stream::Unknown
            }
        }
    }
}

impl Receiver {
    #[allow(clippy::disallowed_methods, reason = "made by the owner's thread")]
    pub fn new(codec: Codec, event_pt: Option<u8>) -> Receiver {
        Receiver {
            jitter: JitterBuffer::new(),
            decoder: Decoder::new(codec),
            concealer: Concealer::new(),
            vad: Vad::new(),
            events: telephone_event::Receiver::new(),
            event_pt,
            detector: DtmfDetector::new(),
            digits: [None; WAITING_DIGITS],
            ssrc: Ssrc::default(),
            quiet: true,
            at: 0,
            datagram: Box::new([0; MAX_DATAGRAM_OCTETS]),
        }
    }

    /// SDP changed what comes.
    pub fn set_media(&mut self, codec: Codec, event_pt: Option<u8>) {
        self.event_pt = event_pt;
        if codec != self.decoder.codec() {
            self.set_codec(codec);
        }
    }

    /// Takes what has arrived.
    pub fn drain(&mut self, socket: &UdpSocket, source: &mut SourceFilter, shared: &LegShared, now_us: u64) {
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
            let datagram = *self.datagram;
            let Some(Ok(packet)) = datagram.get(..octets).map(Packet::parse) else {
                bump(&shared.rx_malformed);
                continue;
            };
            if !self.is_ours(packet.header.payload_type) {
                bump(&shared.rx_malformed);
                continue;
            }
            if !source.accept(from, now_us) {
                bump(&shared.rx_foreign);
                continue;
            }
            shared.last_rx_us.store(now_us, Relaxed);
            self.handle_packet(&packet, shared, now_us);
        }
        self.publish(shared);
    }

    /// The frame of this tick.
    pub fn frame(&mut self, shared: &LegShared) -> RxFrame {
        let mut payload = [0; FRAME_OCTETS];
        let (frame, concealed) = match self.jitter.pop(&mut payload, self.quiet) {
            Popped::Frame => (self.concealer.good(self.decoder.decode(&payload)), false),
            Popped::Lost => {
                bump(&shared.rx_concealed);
                (self.concealer.lost(), true)
            }
            Popped::Empty => (self.concealer.good(Frame::SILENCE), false),
        };
        if self.event_pt.is_none()
            && let Some(digit) = self.detector.handle_frame(&frame)
        {
            self.note_digit(digit);
        }
        let speech_prob = self.vad.handle_frame(&frame);
        self.quiet = speech_prob < QUIET_PROB;
        let at = self.at;
        self.at += 1;
        let digit = self.take_digit();
        RxFrame {
            frame,
            sent: Frame::SILENCE,
            speech_prob,
            level_dbov: frame.energy_dbov(),
            concealed,
            digit,
            at,
        }
    }

    fn is_ours(&self, payload_type: u8) -> bool {
        Codec::from_payload_type(payload_type).is_some()
            || Some(payload_type) == self.event_pt
            || payload_type == COMFORT_NOISE
    }

    fn handle_packet(&mut self, packet: &Packet<'_>, shared: &LegShared, now_us: u64) {
        match self.ssrc.handle(packet.header.ssrc) {
            Stream::Current => {}
            Stream::Changed => {
                bump(&shared.ssrc_changes);
                self.jitter.reset();
                self.events = telephone_event::Receiver::new();
            }
            Stream::Unknown => return,
        }
        let payload_type = packet.header.payload_type;
        if Some(payload_type) == self.event_pt {
            self.jitter.account(packet.header.seq);
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
        let Some(codec) = Codec::from_payload_type(payload_type) else {
            self.jitter.account(packet.header.seq);
            return;
        };
        // A peer may change between the two laws without a word (RFC 3264 §5.1: whatever was offered may come).
        if codec != self.decoder.codec() {
            self.set_codec(codec);
        }
        if self.jitter.insert(packet, now_us) == Inserted::Refused {
            bump(&shared.rx_malformed);
        }
    }

    fn set_codec(&mut self, codec: Codec) {
        self.decoder = Decoder::new(codec);
        self.jitter.reset();
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
        let stats = self.jitter.stats();
        shared.rx_packets.store(stats.packets, Relaxed);
        shared.rx_lost.store(stats.lost, Relaxed);
        shared.rx_late.store(stats.late, Relaxed);
        shared.rx_duplicates.store(stats.duplicates, Relaxed);
        shared.jitter_us.store((stats.jitter_ms * 1000.0) as u32, Relaxed);
        shared.jitter_delay_ms.store(self.jitter.depth_ms(), Relaxed);
    }
}
