//! Weather: a bad network between the caller and the daemon, in user space.
//!
//! ```text
//! caller's socket --> [ lose, delay, reorder, duplicate ] --> daemon
//!                <-- [             the same             ] <--
//! ```
//! A relay on a socket and a thread of its own: the daemon's symmetric RTP sends its audio back through it, so that both ways
//! suffer. Seeded: the same seed loses the same packets. Losses come singly or in bursts (Gilbert 1960: a good state that
//! loses nothing, a bad one that loses all).

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    io,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use super::stamp;

/// Packets in flight per direction; a call sends fifty a second, and nothing is delayed for long.
const IN_FLIGHT: usize = 256;
/// Largest datagram relayed [bytes].
const DATAGRAM: usize = 2048;
/// How often the relay looks whether it is to end.
const PATIENCE: Duration = Duration::from_millis(50);

/// What the network does to packets, each way.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize)]
pub struct Weather {
    /// Share of packets lost [%].
    pub loss_percent: f64,
    /// Mean length of a burst of losses [packets]; 0 or 1: each packet for itself.
    pub burst_packets: f64,
    /// Greatest additional delay [ms], uniformly spread; packets keep their order.
    pub jitter_ms: f64,
    /// Share of packets that are overtaken by the two after them [%].
    pub reorder_percent: f64,
    /// Share of packets that come twice [%].
    pub duplicate_percent: f64,
}

impl Weather {
    /// Nothing happens to any packet.
    #[must_use]
    pub fn is_fair(&self) -> bool {
        *self
            == Self {
                burst_packets: self.burst_packets,
                ..Self::default()
            }
    }
}

/// One direction. Pure: decides what happens to each packet.
#[derive(Debug)]
struct Sky {
    weather: Weather,
    random: StdRng,
    losing: bool,
    /// When the last packet in order leaves; none may overtake it by jitter alone.
    last: Option<Instant>,
}

impl Sky {
    fn new(weather: Weather, seed: u64) -> Self {
        Self {
            weather,
            random: StdRng::seed_from_u64(seed),
            losing: false,
            last: None,
        }
    }

    fn chance(&mut self, percent: f64) -> bool {
        percent > 0.0 && self.random.random_bool((percent / 100.0).clamp(0.0, 1.0))
    }

    /// When the packet that came at `now` arrives, and its copy; nothing when it is lost.
    fn on_packet(&mut self, now: Instant) -> [Option<Instant>; 2] {
        if self.is_lost() {
            return [None, None];
        }
        let jitter =
            Duration::from_secs_f64(self.random.random::<f64>() * self.weather.jitter_ms.max(0.0) / 1e3);
        let at = if self.chance(self.weather.reorder_percent) {
            // Two packets of 20 ms overtake it, whatever the jitter.
            now + jitter + Duration::from_millis(45)
        } else {
            let at = self.last.map_or(now + jitter, |last| last.max(now + jitter));
            self.last = Some(at);
            at
        };
        let copy = self
            .chance(self.weather.duplicate_percent)
            .then(|| at + Duration::from_millis(3));
        [Some(at), copy]
    }

    fn is_lost(&mut self) -> bool {
        let mean = self.weather.burst_packets.max(1.0);
        let loss = (self.weather.loss_percent / 100.0).clamp(0.0, 0.99);
        if mean <= 1.0 {
            return self.random.random_bool(loss);
        }
        // Leaving the bad state with 1 / mean makes bursts that long; entering it so often makes the share of losses.
        let leave = 1.0 / mean;
        let enter = (leave * loss / (1.0 - loss)).min(1.0);
        self.losing = self
            .random
            .random_bool(if self.losing { 1.0 - leave } else { enter });
        self.losing
    }
}

/// A running relay; ends with the value.
#[derive(Debug)]
pub struct Relay {
    /// Where the caller sends to, and hears from.
    pub address: SocketAddr,
    /// Where the daemon hears from, and may send to before it has.
    pub beyond: SocketAddr,
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Relay {
    /// Relays between `caller` and `daemon` until dropped.
    ///
    /// # Errors
    /// When no sockets can be had.
    pub fn start(caller: SocketAddr, daemon: SocketAddr, weather: Weather, seed: u64) -> io::Result<Self> {
        let near = UdpSocket::bind((caller.ip(), 0))?;
        let far = UdpSocket::bind((caller.ip(), 0))?;
        for socket in [&near, &far] {
            socket.set_read_timeout(Some(PATIENCE))?;
        }
        let (address, beyond) = (near.local_addr()?, far.local_addr()?);
        let over = Arc::new(AtomicBool::new(false));
        let (near_out, far_out) = (near.try_clone()?, far.try_clone()?);
        let threads = [(near, far_out, daemon, 0), (far, near_out, caller, 1)]
            .into_iter()
            .map(|(from, by, to, way)| {
                let (over, sky) = (
                    over.clone(),
                    Sky::new(weather, seed.wrapping_mul(2).wrapping_add(way)),
                );
                std::thread::spawn(move || relay(&from, &by, to, sky, &over))
            });
        let threads = threads.collect();
        Ok(Self {
            address,
            beyond,
            over,
            threads,
        })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// One direction: what comes in at `from` goes out by `by`, when its time has come.
fn relay(from: &UdpSocket, by: &UdpSocket, to: SocketAddr, mut sky: Sky, over: &AtomicBool) {
    // A busy machine must not make the weather worse than it was asked to be; where this is refused it may.
    stamp::ask_realtime();
    let mut waiting: BinaryHeap<Reverse<(Instant, u64, Vec<u8>)>> = BinaryHeap::new();
    let mut buffer = [0; DATAGRAM];
    let mut count = 0;
    while !over.load(Ordering::Relaxed) {
        let now = Instant::now();
        while let Some(Reverse((due, ..))) = waiting.peek()
            && *due <= now
        {
            if let Some(Reverse((_, _, datagram))) = waiting.pop() {
                // A closed socket at the other end is no reason to stop: its BYE is on the way.
                let _ = by.send_to(&datagram, to);
            }
        }
        let patience = waiting
            .peek()
            .map_or(PATIENCE, |Reverse((due, ..))| due.saturating_duration_since(now));
        // A timeout of nothing would wait for ever.
        let _ = from.set_read_timeout(Some(patience.clamp(Duration::from_micros(200), PATIENCE)));
        let Ok((length, _)) = from.recv_from(&mut buffer) else {
            continue;
        };
        for due in sky.on_packet(Instant::now()).into_iter().flatten() {
            if waiting.len() < IN_FLIGHT {
                count += 1;
                waiting.push(Reverse((due, count, buffer[..length].to_vec())));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PTIME: Duration = Duration::from_millis(20);

    fn run(weather: Weather, packets: u32) -> Vec<(u32, Duration)> {
        let mut sky = Sky::new(weather, 7);
        let start = Instant::now();
        let mut arrived: Vec<(u32, Duration)> = (0..packets)
            .flat_map(|n| {
                let sent = start + PTIME * n;
                sky.on_packet(sent)
                    .into_iter()
                    .flatten()
                    .map(move |at| (n, at - start))
                    .collect::<Vec<_>>()
            })
            .collect();
        arrived.sort_by_key(|(_, at)| *at);
        arrived
    }

    #[test]
    fn losses_are_as_many_and_as_long_as_asked_for() {
        for (loss_percent, burst_packets) in [(5.0, 1.0), (10.0, 1.0), (10.0, 4.0), (20.0, 8.0)] {
            let arrived = run(
                Weather {
                    loss_percent,
                    burst_packets,
                    ..Weather::default()
                },
                100_000,
            );
            let share = 100.0 - arrived.len() as f64 / 1_000.0;
            assert!(
                (share - loss_percent).abs() < loss_percent / 8.0,
                "{share} % of {loss_percent} %"
            );
            let bursts = arrived
                .windows(2)
                .filter(|pair| pair[1].0 > pair[0].0 + 1)
                .count();
            let mean = (100_000 - arrived.len()) as f64 / bursts as f64;
            // Single losses fall side by side now and then.
            let want = if burst_packets > 1.0 {
                burst_packets
            } else {
                1.0 / (1.0 - loss_percent / 100.0)
            };
            assert!((mean - want).abs() < want / 8.0, "bursts of {mean}, not {want}");
        }
    }

    #[test]
    fn jitter_delays_but_keeps_the_order_and_reordering_does_not() {
        let jitter = run(
            Weather {
                jitter_ms: 60.0,
                ..Weather::default()
            },
            10_000,
        );
        assert_eq!(jitter.len(), 10_000);
        assert!(jitter.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert!(
            jitter
                .iter()
                .all(|(n, at)| *at - PTIME * *n <= Duration::from_millis(61))
        );
        assert!(
            jitter
                .iter()
                .any(|(n, at)| *at - PTIME * *n > Duration::from_millis(50))
        );
        let mixed = run(
            Weather {
                reorder_percent: 5.0,
                duplicate_percent: 5.0,
                ..Weather::default()
            },
            10_000,
        );
        let back = mixed.windows(2).filter(|pair| pair[1].0 < pair[0].0).count();
        let twice = mixed.len() - 10_000;
        assert!(
            (300..700).contains(&back) && (350..650).contains(&twice),
            "{back} {twice}"
        );
        assert!(
            Weather {
                burst_packets: 4.0,
                ..Weather::default()
            }
            .is_fair()
        );
    }

    #[test]
    fn a_relay_carries_both_ways_and_ends() {
        let (caller, daemon) = (
            UdpSocket::bind("127.0.0.1:0").unwrap(),
            UdpSocket::bind("127.0.0.1:0").unwrap(),
        );
        for socket in [&caller, &daemon] {
            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        }
        let weather = Weather {
            jitter_ms: 10.0,
            ..Weather::default()
        };
        let relay = Relay::start(
            caller.local_addr().unwrap(),
            daemon.local_addr().unwrap(),
            weather,
            1,
        )
        .unwrap();
        caller.send_to(b"there", relay.address).unwrap();
        let mut buffer = [0; 16];
        let (length, back) = daemon.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..length], back), (&b"there"[..], relay.beyond));
        daemon.send_to(b"back", back).unwrap();
        let (length, from) = caller.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..length], from), (&b"back"[..], relay.address));
        drop(relay);
    }
}
