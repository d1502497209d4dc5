//! Leg, as `rt-audio` has it: a socket, its two halves and its rings.

use crate::RxFrame;
use crate::rx::Receiver;
use crate::source::SourceFilter;
use crate::stats::{LegShared, bump};
use crate::tx::Transmitter;
use attendant_media::Codec;
use rtrb::{Consumer, Producer};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// What the owner asks of a leg beyond what atomics can say.
#[derive(Clone, Copy, Debug)]
pub enum Command {
    /// SDP changed.
    SetRemote {
        /// Where the peer wants its RTP.
        remote: SocketAddr,
        /// What it wants.
        codec: Codec,
        /// Payload type of its telephone-events.
        event_pt: Option<u8>,
    },
    /// Send this event code.
    Digit(u8),
}

/// One leg. Made and freed by other threads; between that only `rt-audio` touches it.
pub struct RtLeg {
    pub socket: UdpSocket,
    pub source: SourceFilter,
    pub receiver: Receiver,
    pub transmitter: Transmitter,
    pub rx: Producer<RxFrame>,
    pub commands: Consumer<Command>,
    pub shared: Arc<LegShared>,
}

impl RtLeg {
    /// The owner has let go of it.
    pub fn is_closed(&self) -> bool {
        self.shared.closed.load(Relaxed)
    }

    /// First half of a tick: one packet out. `skipped` ticks were left out before it.
    pub fn send(&mut self, skipped: u64) {
        while let Ok(command) = self.commands.pop() {
            match command {
                Command::SetRemote {
                    remote,
                    codec,
                    event_pt,
                } => {
                    self.source.set_remote(remote);
                    self.receiver.set_media(codec, event_pt);
                    self.transmitter.set_media(codec, event_pt);
                }
                Command::Digit(code) => self.transmitter.push_digit(code),
            }
        }
        if skipped > 0 {
            self.transmitter.skip(skipped);
        }
        self.transmitter
            .send(&self.socket, self.source.destination(), &self.shared);
    }

    /// Second half of a tick: what arrived in, one frame to the call.
    pub fn receive(&mut self, now_us: u64) {
        self.receiver
            .drain(&self.socket, &mut self.source, &self.shared, now_us);
        let mut frame = self.receiver.frame(&self.shared);
        frame.sent = self.transmitter.sent();
        if self.rx.push(frame).is_err() {
            bump(&self.shared.overruns);
        }
    }
}
