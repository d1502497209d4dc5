//! From the ring to the socket: one frame per tick, in packets of the length the peer wants, whatever happens.
//!
//! What goes out, in this order: a digit being sent, the next voice frame, silence. On hold nothing goes out but
//! an empty datagram now and then, which keeps a NAT's door open (RFC 6263 §4.1), and voice waits. Sending never
//! stops otherwise, so that NATs, recorders and the peer's jitter buffer see one steady stream.

use crate::TxFrame;
use crate::report::Sent;
use crate::stats::{LegShared, bump};
use attendant_media::Frame;
use attendant_media::codec::MAX_PAYLOAD_OCTETS;
use attendant_media::packetizer::{Packed, Packetizer};
use attendant_media::rtp::{HEADER_OCTETS, Header, Packet, SeqNumber};
use attendant_media::srtp::{Keys, MAX_OVERHEAD_OCTETS, Sealer};
use attendant_media::stream::Stream;
use attendant_media::telephone_event::{self, Outgoing};
use attendant_media::tone::Tone;
use rtrb::Consumer;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::Ordering::Relaxed;

/// Largest packet we make.
const MAX_PACKET_OCTETS: usize = HEADER_OCTETS + MAX_PAYLOAD_OCTETS + MAX_OVERHEAD_OCTETS;
/// Ticks on hold between two empty datagrams: 15 s (RFC 6263 §7).
const KEEP_ALIVE_TICKS: u32 = 750;
/// Samples of the ramp with which a flushed voice ends: 5 ms, too short to be a word, long enough not to click.
const FADE_SAMPLES: usize = 80;
/// A digit as sound \[ptimes\]: 100 ms on, 60 ms off.
const TONE_ON: u8 = 5;
const TONE_TOTAL: u8 = 8;

/// The sending half of a leg.
pub struct Transmitter {
    ring: Consumer<TxFrame>,
    stream: Stream,
    packetizer: Packetizer,
    sealer: Option<Sealer>,
    events: telephone_event::Sender,
    /// Digits as sound, for a peer without telephone-events: what sounds, and for how many ptimes it has.
    tone: Option<(Tone, u8)>,
    seq: SeqNumber,
    /// RTP instant of this tick's first sample.
    timestamp: u32,
    ssrc: u32,
    /// Packets and octets of payload sent under this SSRC.
    packets: u32,
    octets: u32,
    held_ticks: u32,
    /// The next packet starts a stream anew.
    marker: bool,
    /// The last voice frame promised another: an empty ring now is an underrun.
    expecting: bool,
    /// Epoch of the last voice frame.
    epoch: u32,
    /// Voice was sent at the last tick.
    speaking: bool,
    gain_permille: u32,
    mark: u32,
    frames_in_mark: u32,
    /// The sound of the last tick.
    sent: Frame,
}

enum Next {
    Voice(TxFrame),
    /// A flush cut the voice: the start of the first frame that was dropped.
    Cut(Frame),
    Nothing,
}

impl Transmitter {
    pub fn new(ring: Consumer<TxFrame>, stream: Stream, ssrc: u32, seed: u64) -> Transmitter {
        Transmitter {
            ring,
            stream,
            packetizer: Packetizer::new(stream.codec, stream.ptime_ms),
            sealer: stream.srtp.as_ref().map(sealer),
            events: telephone_event::Sender::new(),
            tone: None,
            // RFC 3550 §5.1: both start at random.
            seq: SeqNumber((seed >> 32) as u16),
            timestamp: seed as u32,
            ssrc,
            packets: 0,
            octets: 0,
            held_ticks: 0,
            marker: true,
            expecting: false,
            epoch: 0,
            speaking: false,
            gain_permille: 1000,
            mark: 0,
            frames_in_mark: 0,
            sent: Frame::SILENCE,
        }
    }

    /// The sound of the last tick; silence where there was none.
    pub fn sent(&self) -> Frame {
        self.sent
    }

    /// SDP changed what is to be sent.
    pub fn set_stream(&mut self, stream: Stream) {
        let key = |stream: &Stream| stream.srtp.map(|keys| (keys.suite, keys.local));
        if key(&stream) != key(&self.stream) {
            self.sealer = stream.srtp.as_ref().map(sealer);
        }
        if stream.codec.rtp_clock_hz() != self.stream.codec.rtp_clock_hz() {
            // One SSRC has one clock (RFC 7160 §4.1): the stream starts anew under another.
            self.ssrc = self
                .ssrc
                .wrapping_mul(0x9e37_79b1)
                .wrapping_add(self.timestamp | 1);
            (self.packets, self.octets) = (0, 0);
        }
        self.packetizer.set_format(stream.codec, stream.ptime_ms);
        self.stream = stream;
        self.marker = true;
    }

    /// The peer loses that much of ours \[%\].
    pub fn set_loss(&mut self, percent: u8) {
        self.packetizer.set_loss(percent);
    }

    /// What a report says of us.
    pub fn report(&mut self) -> (Sent, Option<&mut Sealer>) {
        let sent = Sent {
            ssrc: self.ssrc,
            timestamp: self.timestamp,
            packets: self.packets,
            octets: self.octets,
        };
        (sent, self.sealer.as_mut())
    }

    /// Queues a digit by its event code; dropped when too many wait.
    pub fn push_digit(&mut self, code: u8) {
        self.events.push(code);
    }

    /// Time passed without a tick: the peer must see it in the timestamp.
    pub fn skip(&mut self, ticks: u64) {
        let units = (ticks as u32).wrapping_mul(self.tick_units());
        self.timestamp = self.timestamp.wrapping_add(units);
    }

    /// Sends what this tick completes: no packet, one or two.
    pub fn send(&mut self, socket: &UdpSocket, to: SocketAddr, shared: &LegShared) {
        let cut = self.flush(shared);
        self.sent = Frame::SILENCE;
        let mut payload = [0; MAX_PAYLOAD_OCTETS];
        if shared.hold.load(Relaxed) {
            self.wait_held(socket, to);
        } else if let Some(event) = self.poll_event() {
            // What was said before the digit goes out before it.
            if let Some(packed) = self.packetizer.flush(&mut payload) {
                self.transmit_sound(socket, to, shared, packed, self.timestamp, &payload);
            }
            let header = self.header(
                event.marker,
                self.stream.event_pt.unwrap_or_default(),
                event.timestamp,
            );
            self.transmit(socket, to, shared, header, &event.payload);
        } else {
            let frame = self.poll_tone().unwrap_or_else(|| self.voice(cut, shared));
            self.sent = frame;
            self.packetizer.push(&frame);
            let end = self.timestamp.wrapping_add(self.tick_units());
            while let Some(packed) = self.packetizer.poll(&mut payload) {
                self.transmit_sound(socket, to, shared, packed, end, &payload);
            }
        }
        self.timestamp = self.timestamp.wrapping_add(self.tick_units());
        let idle = self.ring.is_empty() && !self.expecting;
        shared.idle.store(idle, Relaxed);
    }

    /// RTP clock units in a tick.
    fn tick_units(&self) -> u32 {
        self.stream.codec.rtp_clock_hz() / 50
    }

    fn wait_held(&mut self, socket: &UdpSocket, to: SocketAddr) {
        self.packetizer.clear();
        self.marker = true;
        self.speaking = false;
        self.held_ticks += 1;
        if self.held_ticks >= KEEP_ALIVE_TICKS {
            self.held_ticks = 0;
            // Nobody is told of a failure: the door may be shut for good, and then the call's own timeout speaks.
            let _ = socket.send_to(&[], to);
        }
    }

    /// Drops what a flush made old; gives the first dropped frame if it cut into a voice.
    fn flush(&mut self, shared: &LegShared) -> Option<Frame> {
        let epoch = shared.flush_epoch.load(Relaxed);
        let mut first = None;
        while let Ok(next) = self.ring.peek() {
            if next.epoch >= epoch {
                break;
            }
            if first.is_none() {
                first = Some(next.frame);
            }
            let _ = self.ring.pop();
        }
        if self.epoch < epoch {
            self.expecting = false;
        }
        first.filter(|_| self.speaking)
    }

    fn next(&mut self, cut: Option<Frame>) -> Next {
        match (cut, self.ring.pop()) {
            (_, Ok(voice)) => Next::Voice(voice),
            (Some(frame), Err(_)) => Next::Cut(frame),
            (None, Err(_)) => Next::Nothing,
        }
    }

    fn voice(&mut self, cut: Option<Frame>, shared: &LegShared) -> Frame {
        match self.next(cut) {
            Next::Voice(voice) => {
                self.expecting = !voice.last;
                self.epoch = voice.epoch;
                self.speaking = true;
                if voice.mark != self.mark {
                    self.mark = voice.mark;
                    self.frames_in_mark = 0;
                }
                self.frames_in_mark = self.frames_in_mark.wrapping_add(1);
                bump(&shared.played_frames);
                let packed = u64::from(self.mark) << 32 | u64::from(self.frames_in_mark);
                shared.played_mark.store(packed, Relaxed);
                self.with_gain(voice.frame, shared)
            }
            Next::Cut(frame) => {
                self.speaking = false;
                fade_out(self.with_gain(frame, shared))
            }
            Next::Nothing => {
                self.speaking = false;
                // Once for each gap, however long it lasts.
                if std::mem::take(&mut self.expecting) {
                    bump(&shared.underruns);
                }
                Frame::SILENCE
            }
        }
    }

    /// Goes over to a new gain within the frame, so that ducking does not click.
    fn with_gain(&mut self, mut frame: Frame, shared: &LegShared) -> Frame {
        let wanted = shared.gain_permille.load(Relaxed).min(4000);
        let from = self.gain_permille as i32;
        self.gain_permille = wanted;
        let change = wanted as i32 - from;
        if change == 0 && wanted == 1000 {
            return frame;
        }
        let length = frame.samples.len() as i32;
        for (n, sample) in (0i32..).zip(&mut frame.samples) {
            let gain = from + change * n / length;
            *sample =
                (i32::from(*sample) * gain / 1000).clamp(i32::from(i16::MIN), i32::from(i16::MAX)) as i16;
        }
        frame
    }

    fn poll_event(&mut self) -> Option<Outgoing> {
        self.stream.event_pt?;
        let units = u16::try_from(self.stream.event_clock_hz / 50).unwrap_or(160);
        self.events.poll(self.timestamp, units)
    }

    fn poll_tone(&mut self) -> Option<Frame> {
        if self.tone.is_none() && self.stream.event_pt.is_none() {
            let event = telephone_event::Event {
                code: self.events.take()?,
                end: false,
                volume: 0,
                duration: 0,
            };
            self.tone = event
                .digit()
                .and_then(|digit| Tone::dtmf(digit).ok())
                .map(|tone| (tone, 0));
        }
        let (tone, ptimes) = self.tone.as_mut()?;
        let mut frame = Frame::SILENCE;
        if *ptimes < TONE_ON {
            tone.fill(&mut frame.samples);
        }
        *ptimes += 1;
        if *ptimes >= TONE_TOTAL {
            self.tone = None;
        }
        Some(frame)
    }

    /// Sends a packet of sound that was made of samples up to the RTP instant `end`.
    fn transmit_sound(
        &mut self,
        socket: &UdpSocket,
        to: SocketAddr,
        shared: &LegShared,
        packed: Packed,
        end: u32,
        payload: &[u8; MAX_PAYLOAD_OCTETS],
    ) {
        let marker = std::mem::take(&mut self.marker);
        let header = self.header(marker, self.stream.payload_type, end.wrapping_sub(packed.age));
        let payload = payload.get(..packed.octets).unwrap_or_default();
        self.transmit(socket, to, shared, header, payload);
    }

    fn header(&self, marker: bool, payload_type: u8, timestamp: u32) -> Header {
        Header {
            marker,
            payload_type,
            seq: self.seq,
            timestamp,
            ssrc: self.ssrc,
        }
    }

    fn transmit(
        &mut self,
        socket: &UdpSocket,
        to: SocketAddr,
        shared: &LegShared,
        header: Header,
        payload: &[u8],
    ) {
        self.seq = self.seq.next();
        let mut wire = [0u8; MAX_PACKET_OCTETS];
        let written = Packet { header, payload }.write(&mut wire);
        let sealed = written.and_then(|octets| match &mut self.sealer {
            Some(sealer) => sealer.seal_rtp(&mut wire, octets),
            None => Ok(octets),
        });
        let packet = sealed.ok().and_then(|octets| wire.get(..octets));
        match packet.map(|packet| socket.send_to(packet, to)) {
            Some(Ok(_)) => {
                self.packets = self.packets.wrapping_add(1);
                self.octets = self.octets.wrapping_add(payload.len() as u32);
                bump(&shared.tx_packets);
            }
            Some(Err(_)) | None => bump(&shared.tx_errors),
        }
    }
}

fn sealer(keys: &Keys) -> Sealer {
    Sealer::new(keys.suite, &keys.local)
}

fn fade_out(mut frame: Frame) -> Frame {
    for (n, sample) in (0usize..).zip(&mut frame.samples) {
        let left = FADE_SAMPLES.saturating_sub(n) as i32;
        *sample = (i32::from(*sample) * left / FADE_SAMPLES as i32) as i16;
    }
    frame
}
