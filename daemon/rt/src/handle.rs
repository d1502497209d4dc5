//! What other threads hold: the realtime thread ([`Rt`]) and their end of a leg ([`Leg`]).

use crate::engine::Engine;
use crate::leg::{Command, RtLeg};
use crate::report::Reporter;
use crate::rx::Receiver;
use crate::source::SourceFilter;
use crate::stats::{LegShared, LegStats, Played, RtCounters, RtStats};
use crate::tx::Transmitter;
use crate::{RtError, RxFrame, TxFrame, sched};
use attendant_media::stream::Stream;
use attendant_media::{Frame, telephone_event};
use rtrb::{Consumer, Producer, RingBuffer};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

/// Guards a ring's producer among threads of normal priority; `rt-audio` never takes it.
#[allow(clippy::disallowed_types, reason = "only between threads of normal priority")]
type HandleLock<T> = std::sync::Mutex<T>;

/// Received frames that may wait for the call: 5 s.
const RX_RING_FRAMES: usize = 256;
/// Frames that may wait to be sent: 20 s, longer than any clause.
const TX_RING_FRAMES: usize = 1024;
/// Commands that may wait for a tick; more than the digits of any number.
const COMMAND_RING: usize = 64;
/// How often the reaper looks while a leg is on its way to it.
const REAP_EVERY: Duration = Duration::from_millis(5);

/// How the thread is to run.
#[derive(Clone, Copy, Debug)]
pub struct RtConfig {
    /// Most legs at a time.
    pub max_legs: usize,
    /// `SCHED_FIFO` priority to ask for, 1..=99; 0: run with normal priority.
    pub priority: u8,
}

impl Default for RtConfig {
    fn default() -> Self {
        RtConfig {
            max_legs: 64,
            priority: 20,
        }
    }
}

/// What a leg is made from.
#[derive(Debug)]
pub struct LegConfig {
    /// Bound; made nonblocking here.
    pub socket: UdpSocket,
    /// For RTCP where it has a port of its own; bound, made nonblocking here. Without it such reports are not sent.
    pub rtcp_socket: Option<UdpSocket>,
    /// What SDP agreed on.
    pub stream: Stream,
    /// Answer to where packets come from (RFC 4961) rather than to `remote`.
    pub symmetric: bool,
    /// Our identity in RTP.
    pub ssrc: u32,
}

/// The owner's end of a leg.
#[derive(Debug)]
pub struct Leg {
    /// One frame per tick from the peer; holds 5 s, then frames are dropped and counted as overruns.
    pub rx: Consumer<RxFrame>,
    /// Frames to the peer; holds 20 s.
    pub tx: Producer<TxFrame>,
    /// Everything else. Dropping it ends the leg and closes its socket.
    pub control: LegControl,
}

/// The realtime thread. Dropping it ends the thread and all legs.
pub struct Rt {
    incoming: HandleLock<Producer<Box<RtLeg>>>,
    counters: Arc<RtCounters>,
    stop: Arc<AtomicBool>,
    reaper: Arc<Reaper>,
    reaper_thread: Thread,
    max_legs: usize,
    threads: Option<(JoinHandle<()>, JoinHandle<()>)>,
}

/// What the handles and the reaper share.
#[derive(Debug, Default)]
struct Reaper {
    /// Legs that exist anywhere.
    legs: AtomicUsize,
    /// Legs whose owner is gone and that are not freed yet.
    closing: AtomicUsize,
    stop: AtomicBool,
}

impl Rt {
    /// Starts `rt-audio` and `rt-reaper`.
    ///
    /// # Errors
    /// [`RtError::Thread`] when the system gives no thread. A refusal of realtime priority is no error; see
    /// [`RtStats::realtime`].
    pub fn spawn(config: RtConfig) -> Result<Rt, RtError> {
        let max_legs = config.max_legs.max(1);
        let (incoming, incoming_end) = RingBuffer::new(max_legs);
        let (retired, retired_end) = RingBuffer::new(max_legs);
        let counters = Arc::new(RtCounters::default());
        let stop = Arc::new(AtomicBool::new(false));
        let engine = Engine {
            legs: Vec::with_capacity(max_legs),
            incoming: incoming_end,
            retired,
            counters: counters.clone(),
            stop: stop.clone(),
            priority: config.priority,
        };
        let reaper = Arc::new(Reaper::default());
        let reaper_thread = {
            let reaper = reaper.clone();
            spawn("rt-reaper", move || reaper.run(retired_end))?
        };
        let audio_thread = match spawn("rt-audio", move || drop(engine.run())) {
            Ok(thread) => thread,
            Err(error) => {
                reaper.stop.store(true, Ordering::Release);
                reaper_thread.thread().unpark();
                return Err(error);
            }
        };
        Ok(Rt {
            incoming: HandleLock::new(incoming),
            counters,
            stop,
            reaper,
            reaper_thread: reaper_thread.thread().clone(),
            max_legs,
            threads: Some((audio_thread, reaper_thread)),
        })
    }

    /// Adds a leg; it sends from the next tick on.
    ///
    /// # Errors
    /// [`RtError::TooManyLegs`], [`RtError::Socket`], [`RtError::Stopped`].
    #[allow(
        clippy::disallowed_methods,
        reason = "the leg is made here, before it is handed over"
    )]
    pub fn add_leg(&self, config: LegConfig) -> Result<Leg, RtError> {
        if !self.is_running() {
            return Err(RtError::Stopped);
        }
        for socket in [Some(&config.socket), config.rtcp_socket.as_ref()]
            .into_iter()
            .flatten()
        {
            socket.set_nonblocking(true).map_err(RtError::Socket)?;
        }
        if self.reaper.legs.fetch_add(1, Ordering::AcqRel) >= self.max_legs {
            self.reaper.legs.fetch_sub(1, Ordering::AcqRel);
            return Err(RtError::TooManyLegs {
                max_legs: self.max_legs,
            });
        }
        let (leg, rt_leg) = make_leg(config, self.reaper.clone(), self.reaper_thread.clone());
        let mut incoming = self
            .incoming
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        match incoming.push(Box::new(rt_leg)) {
            Ok(()) => Ok(leg),
            // As many places as legs: full only when the thread takes none.
            Err(_) => {
                leg.control.disown();
                Err(RtError::Stopped)
            }
        }
    }

    /// How the thread keeps time.
    #[must_use]
    pub fn stats(&self) -> RtStats {
        let legs = self.reaper.legs.load(Ordering::Relaxed);
        self.counters
            .read(u32::try_from(legs).unwrap_or(u32::MAX), self.is_running())
    }

    fn is_running(&self) -> bool {
        self.threads
            .as_ref()
            .is_some_and(|(audio, _)| !audio.is_finished())
    }
}

impl Drop for Rt {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some((audio, reaper)) = self.threads.take() {
            let _ = audio.join();
            self.reaper.stop.store(true, Ordering::Release);
            reaper.thread().unpark();
            let _ = reaper.join();
        }
    }
}

impl Reaper {
    #[allow(clippy::disallowed_methods, reason = "runs on rt-reaper")]
    fn run(&self, mut retired: Consumer<Box<RtLeg>>) {
        while !self.stop.load(Ordering::Acquire) {
            if self.closing.load(Ordering::Acquire) == 0 {
                std::thread::park();
                continue;
            }
            while let Ok(leg) = retired.pop() {
                drop(leg);
                self.legs.fetch_sub(1, Ordering::AcqRel);
                self.closing.fetch_sub(1, Ordering::AcqRel);
            }
            std::thread::sleep(REAP_EVERY);
        }
    }
}

/// Wishes and counters of one leg. Dropping it ends the leg.
#[derive(Debug)]
pub struct LegControl {
    shared: Arc<LegShared>,
    commands: HandleLock<Producer<Command>>,
    reaper: Arc<Reaper>,
    reaper_thread: Thread,
    /// The leg never reached `rt-audio`.
    disowned: AtomicBool,
}

impl LegControl {
    /// From the next tick on, frames of an epoch before this one are dropped unheard. Epochs only rise.
    pub fn flush(&self, epoch: u32) {
        self.shared.flush_epoch.fetch_max(epoch, Ordering::Relaxed);
    }

    /// Gain of the voice we send \[1/1000\], 0..=4000; reached smoothly within a frame.
    pub fn set_gain(&self, permille: u32) {
        self.shared.gain_permille.store(permille, Ordering::Relaxed);
    }

    /// Where playing stands, as of the last tick.
    #[must_use]
    pub fn played(&self) -> Played {
        self.shared.played()
    }

    /// Sends a digit, as telephone-event or as tone; voice waits meanwhile.
    ///
    /// # Errors
    /// [`RtError::Digit`] for what is no key, [`RtError::Busy`] when too much waits.
    pub fn send_digit(&self, digit: char) -> Result<(), RtError> {
        self.command(Command::Digit(telephone_event::code_of(digit)?))
    }

    /// SDP changed where and what the peer wants.
    ///
    /// # Errors
    /// [`RtError::Busy`] when too much waits.
    pub fn set_remote(&self, stream: Stream) -> Result<(), RtError> {
        self.command(Command::SetRemote(stream))
    }

    /// While held nothing is sent and voice waits; what comes in is still heard.
    pub fn hold(&self, held: bool) {
        self.shared.hold.store(held, Ordering::Relaxed);
    }

    /// What happened on the leg.
    #[must_use]
    pub fn stats(&self) -> LegStats {
        self.shared.stats(sched::now_us())
    }

    fn command(&self, command: Command) -> Result<(), RtError> {
        let mut commands = self
            .commands
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        commands.push(command).map_err(|_| RtError::Busy)
    }

    fn disown(&self) {
        self.disowned.store(true, Ordering::Relaxed);
    }
}

impl Drop for LegControl {
    fn drop(&mut self) {
        if self.disowned.load(Ordering::Relaxed) {
            self.reaper.legs.fetch_sub(1, Ordering::AcqRel);
            return;
        }
        self.shared.closed.store(true, Ordering::Relaxed);
        self.reaper.closing.fetch_add(1, Ordering::AcqRel);
        self.reaper_thread.unpark();
    }
}

fn make_leg(config: LegConfig, reaper: Arc<Reaper>, reaper_thread: Thread) -> (Leg, RtLeg) {
    let (mut rx_in, mut rx_out) = RingBuffer::new(RX_RING_FRAMES);
    prefault(&mut rx_in, &mut rx_out);
    let (tx_in, tx_out) = RingBuffer::new(TX_RING_FRAMES);
    let (commands_in, commands_out) = RingBuffer::new(COMMAND_RING);
    let shared = Arc::new(LegShared::new(sched::now_us()));
    let seed = RandomState::new().build_hasher().finish();
    let stream = config.stream;
    let name_seed = RandomState::new().build_hasher().finish();
    let rt_leg = RtLeg {
        socket: config.socket,
        rtcp_socket: config.rtcp_socket,
        rtcp_ticks: 0,
        reporter: Reporter::new(stream.rtcp, config.ssrc, name_seed),
        source: SourceFilter::new(stream.remote, config.symmetric),
        receiver: Receiver::new(stream),
        transmitter: Transmitter::new(tx_out, stream, config.ssrc, seed),
        rx: rx_in,
        commands: commands_out,
        shared: shared.clone(),
    };
    let control = LegControl {
        shared,
        commands: HandleLock::new(commands_in),
        reaper,
        reaper_thread,
        disowned: AtomicBool::new(false),
    };
    (
        Leg {
            rx: rx_out,
            tx: tx_in,
            control,
        },
        rt_leg,
    )
}

/// A leg that the test ticks itself.
#[cfg(test)]
pub(crate) fn make_test_leg(config: LegConfig) -> (Leg, RtLeg) {
    assert!(config.socket.set_nonblocking(true).is_ok());
    assert!(
        config
            .rtcp_socket
            .as_ref()
            .is_none_or(|socket| socket.set_nonblocking(true).is_ok())
    );
    make_leg(config, Arc::new(Reaper::default()), std::thread::current())
}

/// Touches the ring's memory, so that `rt-audio` meets no page fault in its first round.
fn prefault(producer: &mut Producer<RxFrame>, consumer: &mut Consumer<RxFrame>) {
    let blank = RxFrame {
        frame: Frame::SILENCE,
        sent: Frame::SILENCE,
        speech_prob: 0.0,
        level_dbov: 0.0,
        concealed: false,
        digit: None,
        at: 0,
    };
    while producer.push(blank).is_ok() {}
    while consumer.pop().is_ok() {}
}

fn spawn(name: &'static str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, RtError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)
        .map_err(|source| RtError::Thread { name, source })
}
