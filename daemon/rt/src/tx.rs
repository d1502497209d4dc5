//! From the ring to the socket: one packet per tick, whatever happens.
//!
//! What goes out, in this order: a digit being sent, the next voice frame, silence. On hold nothing goes out
//! and voice waits. Sending never stops otherwise, so that NATs, recorders and the peer's jitter buffer see one
//! steady stream.

use crate::TxFrame;
use crate::stats::{LegShared, bump};
use attendant_media::rtp::{Header, Packet, SeqNumber};
use attendant_media::telephone_event::{self, Outgoing};
use attendant_media::tone::Tone;
use attendant_media::{Codec, Encoder, Frame};
use rtrb::Consumer;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::Ordering::Relaxed;

/// Timestamp units in a ptime at the 8 kHz RTP clock.
const PTIME_UNITS: u16 = 160;
/// Largest packet we make.
const MAX_PACKET_OCTETS: usize = 256;
/// Samples of the ramp with which a flushed voice ends: 5 ms, too short to be a word, long enough not to click.
const FADE_SAMPLES: usize = 80;
/// A digit as sound \[ptimes\]: 100 ms on, 60 ms off.
const TONE_ON: u8 = 5;
const TONE_TOTAL: u8 = 8;

/// The sending half of a leg.
pub struct Transmitter {
    ring: Consumer<TxFrame>,
    encoder: Encoder,
    event_pt: Option<u8>,
    events: telephone_event::Sender,
    /// Digits as sound, for a peer without telephone-events: what sounds, and for how many ptimes it has.
    tone: Option<(Tone, u8)>,
    seq: SeqNumber,
    timestamp: u32,
    ssrc: u32,
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
    pub fn new(
        ring: Consumer<TxFrame>,
        codec: Codec,
        event_pt: Option<u8>,
        ssrc: u32,
        seed: u64,
    ) -> Transmitter {
        Transmitter {
            ring,
            encoder: Encoder::new(codec),
            event_pt,
            events: telephone_event::Sender::new(),
            tone: None,
            // RFC 3550 §5.1: both start at random.
            seq: SeqNumber((seed >> 32) as u16),
            timestamp: seed as u32,
            ssrc,
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
    pub fn set_media(&mut self, codec: Codec, event_pt: Option<u8>) {
        self.event_pt = event_pt;
        if codec != self.encoder.codec() {
            self.encoder = Encoder::new(codec);
        }
        self.marker = true;
    }

    /// Queues a digit by its event code; dropped when too many wait.
    pub fn push_digit(&mut self, code: u8) {
        self.events.push(code);
    }

    /// Time passed without a tick: the peer must see it in the timestamp.
    pub fn skip(&mut self, ticks: u64) {
        let units = (ticks as u32).wrapping_mul(u32::from(PTIME_UNITS));
        self.timestamp = self.timestamp.wrapping_add(units);
    }

    /// Sends this tick's packet.
    pub fn send(&mut self, socket: &UdpSocket, to: SocketAddr, shared: &LegShared) {
        let cut = self.flush(shared);
        self.sent = Frame::SILENCE;
        if shared.hold.load(Relaxed) {
            self.marker = true;
            self.speaking = false;
        } else if let Some(event) = self.poll_event() {
            let payload_type = self.event_pt.unwrap_or_default();
            self.transmit(
                socket,
                to,
                shared,
                payload_type,
                event.marker,
                event.timestamp,
                &event.payload,
            );
        } else {
            let frame = self.poll_tone().unwrap_or_else(|| self.voice(cut, shared));
            self.sent = frame;
            let payload = self.encoder.encode(&frame);
            let marker = std::mem::take(&mut self.marker);
            let payload_type = self.encoder.codec().payload_type();
            self.transmit(socket, to, shared, payload_type, marker, self.timestamp, &payload);
        }
        self.timestamp = self.timestamp.wrapping_add(u32::from(PTIME_UNITS));
        let idle = self.ring.is_empty() && !self.expecting;
        shared.idle.store(idle, Relaxed);
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
        self.event_pt?;
        self.events.poll(self.timestamp, PTIME_UNITS)
    }

    fn poll_tone(&mut self) -> Option<Frame> {
        if self.tone.is_none() && self.event_pt.is_none() {
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

    #[allow(clippy::too_many_arguments, reason = "the fields of one packet")]
    fn transmit(
        &mut self,
        socket: &UdpSocket,
        to: SocketAddr,
        shared: &LegShared,
        payload_type: u8,
        marker: bool,
        timestamp: u32,
        payload: &[u8],
    ) {
        let header = Header {
            marker,
            payload_type,
            seq: self.seq,
            timestamp,
            ssrc: self.ssrc,
        };
        self.seq = self.seq.next();
        let mut wire = [0u8; MAX_PACKET_OCTETS];
        let written = Packet { header, payload }.write(&mut wire);
        let sent = written
            .ok()
            .and_then(|octets| wire.get(..octets))
            .map(|packet| socket.send_to(packet, to));
        match sent {
            Some(Ok(_)) => bump(&shared.tx_packets),
            Some(Err(_)) | None => bump(&shared.tx_errors),
        }
    }
}

fn fade_out(mut frame: Frame) -> Frame {
    for (n, sample) in (0usize..).zip(&mut frame.samples) {
        let left = FADE_SAMPLES.saturating_sub(n) as i32;
        *sample = (i32::from(*sample) * left / FADE_SAMPLES as i32) as i16;
    }
    frame
}
