//! Leg, as `rt-audio` has it: a socket, its two halves and its rings.

use crate::RxFrame;
use crate::report::{Reporter, Surroundings};
use crate::rx::Receiver;
use crate::source::SourceFilter;
use crate::stats::{LegShared, bump};
use crate::tx::Transmitter;
use attendant_media::stream::Stream;
use rtrb::{Consumer, Producer};
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Ticks between two looks at the RTCP port: 200 ms, a hundredth of a round trip's worth of reports.
const RTCP_TICKS: u8 = 10;

/// What the owner asks of a leg beyond what atomics can say.
#[derive(Clone, Copy, Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "moves by copy into a ring made at set-up; a box would be freed here"
)]
pub enum Command {
    /// SDP changed.
    SetRemote(Stream),
    /// Send this event code.
    Digit(u8),
}

/// One leg. Made and freed by other threads; between that only `rt-audio` touches it.
pub struct RtLeg {
    pub socket: UdpSocket,
    pub rtcp_socket: Option<UdpSocket>,
    pub rtcp_ticks: u8,
    pub reporter: Reporter,
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
                Command::SetRemote(stream) => {
                    self.source.set_remote(stream.remote);
                    self.receiver.set_stream(stream);
                    self.transmitter.set_stream(stream);
                    self.reporter.set_carried(stream.rtcp);
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
        self.receiver.drain(
            &self.socket,
            &mut self.source,
            &mut self.reporter,
            &self.shared,
            now_us,
        );
        let mut frame = self.receiver.frame();
        frame.sent = self.transmitter.sent();
        if self.rx.push(frame).is_err() {
            bump(&self.shared.overruns);
        }
        self.exchange_reports(now_us);
    }

    /// Tells the peer that the leg ends.
    pub fn goodbye(&mut self, now_us: u64) {
        let (reporter, leg) = self.surroundings(now_us);
        reporter.goodbye(leg);
    }

    fn exchange_reports(&mut self, now_us: u64) {
        self.rtcp_ticks = self.rtcp_ticks.wrapping_add(1);
        if self.rtcp_ticks >= RTCP_TICKS {
            self.rtcp_ticks = 0;
            if let Some(socket) = &self.rtcp_socket {
                self.receiver.drain_reports(
                    socket,
                    self.source.destination(),
                    &mut self.reporter,
                    &self.shared,
                    now_us,
                );
            }
        }
        if let Some(percent) = self.reporter.take_loss() {
            self.transmitter.set_loss(percent);
        }
        let (reporter, leg) = self.surroundings(now_us);
        reporter.poll(leg);
    }

    fn surroundings(&mut self, now_us: u64) -> (&mut Reporter, Surroundings<'_>) {
        let (sent, sealer) = self.transmitter.report();
        let leg = Surroundings {
            rtp_socket: &self.socket,
            rtcp_socket: self.rtcp_socket.as_ref(),
            rtp_peer: self.source.destination(),
            sent,
            ssrc: self.receiver.ssrc(),
            playout: self.receiver.playout(),
            sealer,
            shared: &self.shared,
            now_us,
        };
        (&mut self.reporter, leg)
    }
}
