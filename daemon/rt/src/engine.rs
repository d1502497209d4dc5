//! The loop of `rt-audio`.
//!
//! Ticks lie on a grid of 20 ms. A tick that begins late still runs, at once; when more than three are due the
//! rest is skipped, and every leg's timestamp says so.

use crate::leg::RtLeg;
use crate::sched;
use crate::stats::RtCounters;
use rtrb::{Consumer, Producer};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// The tick \[µs\].
pub const TICK_US: u64 = 20_000;
/// Lateness that is made up for by ticks in quick succession \[µs\].
const CATCH_UP_US: u64 = 3 * TICK_US;

/// What `rt-audio` owns.
pub struct Engine {
    /// Has its full capacity from the start. Boxed, because as boxes they come, go and are freed elsewhere.
    #[allow(clippy::vec_box, reason = "a leg is several kB and moves between rings")]
    pub legs: Vec<Box<RtLeg>>,
    pub incoming: Consumer<Box<RtLeg>>,
    pub retired: Producer<Box<RtLeg>>,
    pub counters: Arc<RtCounters>,
    pub stop: Arc<AtomicBool>,
    /// `SCHED_FIFO` priority to ask for; 0: none.
    pub priority: u8,
}

impl Engine {
    /// Runs until told to stop; gives itself back, so that another thread frees what is left.
    pub fn run(mut self) -> Engine {
        let granted = sched::become_realtime(self.priority);
        self.counters.realtime.store(granted.realtime, Relaxed);
        self.counters.refused_errno.store(granted.refused_errno, Relaxed);
        self.counters.memory_locked.store(granted.memory_locked, Relaxed);
        let mut deadline_us = sched::now_us() + TICK_US;
        while !self.stop.load(Relaxed) {
            sched::sleep_until(deadline_us);
            let now_us = sched::now_us();
            let late_us = now_us.saturating_sub(deadline_us);
            let skipped = if late_us > CATCH_UP_US {
                late_us / TICK_US
            } else {
                0
            };
            self.tick(now_us, skipped);
            self.counters.count_tick(late_us, skipped);
            self.counters
                .max_busy_us
                .fetch_max(sched::now_us().saturating_sub(now_us), Relaxed);
            deadline_us += TICK_US * (1 + skipped);
        }
        self
    }

    /// One ptime on all legs: all send, then all receive.
    pub fn tick(&mut self, now_us: u64, skipped: u64) {
        self.retire(now_us);
        while self.legs.len() < self.legs.capacity() {
            let Ok(leg) = self.incoming.pop() else {
                break;
            };
            self.legs.push(leg);
        }
        for leg in &mut self.legs {
            leg.send(skipped);
        }
        for leg in &mut self.legs {
            leg.receive(now_us);
        }
    }

    /// Hands closed legs to the reaper. With its ring full they stay, silent to their owner, until there is room.
    fn retire(&mut self, now_us: u64) {
        let mut next = 0;
        while let Some(leg) = self.legs.get(next) {
            if leg.is_closed() && !self.retired.is_full() {
                let mut leg = self.legs.swap_remove(next);
                leg.goodbye(now_us);
                if let Err(rtrb::PushError::Full(leg)) = self.retired.push(leg) {
                    // Cannot be: there was room and nobody else pushes. Never free here.
                    self.legs.push(leg);
                    break;
                }
            } else {
                next += 1;
            }
        }
    }
}
