//! The compute permit: who may use how many cores now.
//!
//! Engines that spin on each other's cores run five times slower, so cores are handed out. A *task* is one request to
//! STT or TTS; tasks are short (one utterance, one clause). The LLM is no task: it works on many calls at once for as
//! long as any of them wants text, and gives way to tasks.
//!
//! ```text
//!                 ┌── exclusive: all cores; every other engine that computes is frozen
//! waiting ─start─>┤
//!                 └── single: 1 thread, beside the LLM on the remaining cores
//!
//! exclusive: Live tasks; Speculative ones while the LLM does nothing live and no single task runs
//! single   : everything else
//! slice    : after an exclusive task, whoever was frozen runs [`SLICE`] before the next exclusive task starts
//! ```
//!
//! Order among the waiting: priority (raised one step per [`AGING`] of waiting), then the call served longest ago, then
//! arrival. Pure: events and `now` go in, a [`Plan`] comes out; `client` carries it out.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::supervise::Engine;

/// What the frozen ones get between two exclusive tasks: about five tokens of a live reply.
pub const SLICE: Duration = Duration::from_millis(150);
/// Frozen for this long in total, even LLM work nobody waits for gets a slice.
const STARVED: Duration = Duration::from_secs(1);
/// Waiting this long raises a task by one priority, so that background work ends some day.
const AGING: Duration = Duration::from_millis(500);
/// Tasks that may wait for one engine; more are refused as busy.
pub const MAX_WAITING: usize = 16;
/// Calls remembered for taking turns.
const TURNS: usize = 64;

/// How urgent a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// A caller is waiting in silence for exactly this.
    Live,
    /// It will be needed if the caller has really finished.
    Speculative,
    /// Nobody hears it missing for a while: clauses behind the one that is playing, work after the call.
    Background,
}

impl Priority {
    fn index(self) -> usize {
        match self {
            Self::Live => 0,
            Self::Speculative => 1,
            Self::Background => 2,
        }
    }
}

/// Names a task in the permit.
pub type TaskId = u64;

/// A task that asks for compute.
#[derive(Debug, Clone, Copy)]
pub struct Task {
    /// Unique.
    pub id: TaskId,
    /// [`Engine::Stt`] or [`Engine::Tts`].
    pub engine: Engine,
    /// How urgent.
    pub priority: Priority,
    /// For taking turns between calls.
    pub call: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Share {
    Exclusive,
    Single,
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    task: Task,
    since: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Running {
    task: Task,
    share: Share,
    since: Instant,
}

/// What should hold from now on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Tasks to start, with their threads.
    pub start: Vec<(TaskId, u32)>,
    /// Engines that must not compute, by [`Engine::index`].
    pub frozen: [bool; 3],
    /// Threads of the LLM while it is not frozen.
    pub llm_threads: u32,
}

/// The permit's state.
#[derive(Debug)]
pub struct Permit {
    cores: u32,
    waiting: Vec<Waiting>,
    running: Vec<Running>,
    /// Requests under way in the LLM, by priority.
    llm: [u32; 3],
    /// Calls in the order in which they were served, latest last.
    turns: VecDeque<u64>,
    /// No exclusive task before this.
    slice_until: Option<Instant>,
    /// How long the LLM was frozen since it last had a slice.
    starved: Duration,
}

impl Permit {
    /// A permit over `cores` cores (at least 1).
    #[must_use]
    pub fn new(cores: u32) -> Self {
        Self {
            cores: cores.max(1),
            waiting: Vec::new(),
            running: Vec::new(),
            llm: [0; 3],
            turns: VecDeque::new(),
            slice_until: None,
            starved: Duration::ZERO,
        }
    }

    /// Asks for compute; false when too many wait for this engine already.
    #[must_use]
    pub fn on_request(&mut self, task: Task, now: Instant) -> bool {
        if self.waiting(task.engine) >= MAX_WAITING {
            return false;
        }
        self.waiting.push(Waiting { task, since: now });
        true
    }

    /// The task has ended, or no longer wants to start.
    pub fn on_end(&mut self, id: TaskId, now: Instant) {
        self.waiting.retain(|w| w.task.id != id);
        let Some(at) = self.running.iter().position(|r| r.task.id == id) else {
            return;
        };
        let ended = self.running.swap_remove(at);
        if ended.share == Share::Exclusive {
            self.starved += now.saturating_duration_since(ended.since);
            let llm_waits = self.llm_live() || (self.llm_busy() && self.starved >= STARVED);
            if llm_waits || !self.running.is_empty() {
                self.slice_until = Some(now + SLICE);
                self.starved = Duration::ZERO;
            }
        }
    }

    /// The LLM got a request.
    pub fn on_llm_begin(&mut self, priority: Priority) {
        self.llm[priority.index()] += 1;
    }

    /// The LLM is done with a request.
    pub fn on_llm_end(&mut self, priority: Priority) {
        let n = &mut self.llm[priority.index()];
        *n = n.saturating_sub(1);
        if !self.llm_busy() {
            self.starved = Duration::ZERO;
        }
    }

    /// Tasks that wait for this engine.
    #[must_use]
    pub fn waiting(&self, engine: Engine) -> usize {
        self.waiting.iter().filter(|w| w.task.engine == engine).count()
    }

    /// Whether nobody computes or waits.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty() && !self.llm_busy()
    }

    /// When to ask for a plan again although nothing happened.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.waiting.is_empty() {
            None
        } else {
            self.slice_until
        }
    }

    /// Starts what may start and says what should hold now.
    pub fn plan(&mut self, now: Instant) -> Plan {
        if self.slice_until.is_some_and(|until| now >= until) {
            self.slice_until = None;
        }
        let mut start = Vec::new();
        while let Some((at, share)) = self.next(now) {
            let task = self.waiting.remove(at).task;
            self.turns.retain(|c| *c != task.call);
            self.turns.push_back(task.call);
            if self.turns.len() > TURNS {
                self.turns.pop_front();
            }
            self.running.push(Running {
                task,
                share,
                since: now,
            });
            start.push((task.id, if share == Share::Exclusive { self.cores } else { 1 }));
        }
        Plan {
            start,
            frozen: self.frozen(),
            llm_threads: self.llm_threads(),
        }
    }

    /// The next task that may start now, and how.
    fn next(&self, now: Instant) -> Option<(usize, Share)> {
        if self.exclusive().is_some() {
            return None;
        }
        let mut order: Vec<usize> = (0..self.waiting.len()).collect();
        order.sort_by_key(|&i| self.rank(&self.waiting[i], now));
        order.into_iter().find_map(|i| {
            let task = self.waiting[i].task;
            if self.running.iter().any(|r| r.task.engine == task.engine) {
                return None;
            }
            let share = self.share(task);
            let may = match share {
                Share::Exclusive => self.slice_until.is_none() || !self.slice_wanted(),
                Share::Single => self.running.len() < self.most_singles(),
            };
            may.then_some((i, share))
        })
    }

    fn share(&self, task: Task) -> Share {
        match task.priority {
            Priority::Live => Share::Exclusive,
            Priority::Speculative if !self.llm_live() && self.running.is_empty() => Share::Exclusive,
            Priority::Speculative | Priority::Background => Share::Single,
        }
    }

    /// Smaller is served earlier.
    fn rank(&self, waiting: &Waiting, now: Instant) -> (usize, usize, Instant) {
        let raised = now.saturating_duration_since(waiting.since).as_millis() / AGING.as_millis();
        let class = waiting
            .task
            .priority
            .index()
            .saturating_sub(usize::try_from(raised).unwrap_or(usize::MAX));
        let turn = self
            .turns
            .iter()
            .position(|c| *c == waiting.task.call)
            .map_or(0, |at| at + 1);
        (class, turn, waiting.since)
    }

    fn frozen(&self) -> [bool; 3] {
        let mut frozen = [false; 3];
        if let Some(owner) = self.exclusive() {
            frozen[Engine::Llm.index()] = self.llm_busy();
            for other in self.running.iter().filter(|r| r.task.engine != owner) {
                frozen[other.task.engine.index()] = true;
            }
        }
        frozen
    }

    fn llm_threads(&self) -> u32 {
        let singles = self.running.iter().filter(|r| r.share == Share::Single).count();
        self.cores
            .saturating_sub(u32::try_from(singles).unwrap_or(u32::MAX))
            .max(1)
    }

    fn exclusive(&self) -> Option<Engine> {
        self.running
            .iter()
            .find(|r| r.share == Share::Exclusive)
            .map(|r| r.task.engine)
    }

    /// Single tasks that may run at once: one core stays for a busy LLM where there is more than one.
    fn most_singles(&self) -> usize {
        let kept = u32::from(self.llm_busy());
        self.cores.saturating_sub(kept).max(1) as usize
    }

    fn slice_wanted(&self) -> bool {
        self.llm_busy() || !self.running.is_empty()
    }

    fn llm_live(&self) -> bool {
        self.llm[Priority::Live.index()] > 0
    }

    fn llm_busy(&self) -> bool {
        self.llm.iter().any(|n| *n > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Priority::{Background, Live, Speculative};

    const STT: Engine = Engine::Stt;
    const TTS: Engine = Engine::Tts;

    struct Bench {
        permit: Permit,
        start: Instant,
    }

    impl Bench {
        fn new(cores: u32) -> Self {
            Self {
                permit: Permit::new(cores),
                start: Instant::now(),
            }
        }
        fn at(&self, ms: u64) -> Instant {
            self.start + Duration::from_millis(ms)
        }
        fn ask(&mut self, id: TaskId, engine: Engine, priority: Priority, call: u64, ms: u64) {
            let now = self.at(ms);
            assert!(self.permit.on_request(
                Task {
                    id,
                    engine,
                    priority,
                    call
                },
                now
            ));
        }
        fn end(&mut self, id: TaskId, ms: u64) {
            let now = self.at(ms);
            self.permit.on_end(id, now);
        }
        fn plan(&mut self, ms: u64) -> Plan {
            let now = self.at(ms);
            self.permit.plan(now)
        }
    }

    #[test]
    fn a_waiting_caller_gets_all_cores_and_the_llm_is_frozen() {
        let mut b = Bench::new(4);
        b.permit.on_llm_begin(Live);
        b.ask(1, STT, Live, 1, 0);
        let plan = b.plan(0);
        assert_eq!(
            plan,
            Plan {
                start: vec![(1, 4)],
                frozen: [false, true, false],
                llm_threads: 4
            }
        );
        b.end(1, 300);
        assert_eq!(
            b.plan(300),
            Plan {
                start: vec![],
                frozen: [false; 3],
                llm_threads: 4
            }
        );
    }

    #[test]
    fn an_idle_llm_is_left_alone() {
        let mut b = Bench::new(2);
        b.ask(1, STT, Live, 1, 0);
        assert_eq!(b.plan(0).frozen, [false; 3]);
        b.permit.on_llm_begin(Speculative);
        assert_eq!(
            b.plan(10).frozen,
            [false, true, false],
            "work that arrives meanwhile waits"
        );
    }

    #[test]
    fn later_clauses_run_on_one_thread_beside_the_llm() {
        let mut b = Bench::new(2);
        b.permit.on_llm_begin(Live);
        b.ask(1, TTS, Background, 1, 0);
        assert_eq!(
            b.plan(0),
            Plan {
                start: vec![(1, 1)],
                frozen: [false; 3],
                llm_threads: 1
            }
        );
        b.ask(2, STT, Live, 2, 50);
        assert_eq!(
            b.plan(50),
            Plan {
                start: vec![(2, 2)],
                frozen: [false, true, true],
                llm_threads: 1
            }
        );
        b.end(2, 350);
        assert_eq!(b.plan(350).frozen, [false; 3]);
        b.end(1, 400);
        assert_eq!(b.plan(400).llm_threads, 2);
    }

    #[test]
    fn the_llm_gets_a_slice_between_two_tasks() {
        let mut b = Bench::new(2);
        b.permit.on_llm_begin(Live);
        b.ask(1, STT, Live, 1, 0);
        b.ask(2, STT, Live, 2, 0);
        b.ask(3, TTS, Live, 3, 0);
        assert_eq!(b.plan(0).start, [(1, 2)]);
        b.end(1, 300);
        assert_eq!(
            b.plan(300),
            Plan {
                start: vec![],
                frozen: [false; 3],
                llm_threads: 2
            }
        );
        assert_eq!(b.permit.poll_timeout(), Some(b.at(450)));
        assert_eq!(b.plan(449).start, []);
        assert_eq!(b.plan(450).start, [(2, 2)]);
    }

    #[test]
    fn nobody_to_serve_no_slice() {
        let mut b = Bench::new(2);
        b.ask(1, STT, Live, 1, 0);
        b.ask(2, TTS, Live, 2, 0);
        assert_eq!(b.plan(0).start, [(1, 2)]);
        b.end(1, 300);
        assert_eq!(b.plan(300).start, [(2, 2)]);
    }

    #[test]
    fn speculation_steps_aside_for_a_live_reply() {
        let mut b = Bench::new(2);
        b.ask(1, STT, Speculative, 1, 0);
        assert_eq!(b.plan(0).start, [(1, 2)], "alone it may have everything");
        b.end(1, 200);
        b.permit.on_llm_begin(Live);
        b.ask(2, STT, Speculative, 1, 300);
        assert_eq!(
            b.plan(300),
            Plan {
                start: vec![(2, 1)],
                frozen: [false; 3],
                llm_threads: 1
            }
        );
    }

    #[test]
    fn work_nobody_waits_for_is_not_starved_for_ever() {
        let mut b = Bench::new(2);
        b.permit.on_llm_begin(Background);
        let mut ms = 0;
        for id in 0..4 {
            b.ask(id, STT, Live, id, ms);
            b.ask(100 + id, TTS, Live, 100 + id, ms);
            assert_eq!(b.plan(ms).start.len(), 1, "no slice owed yet at {ms}");
            let running = b.permit.running[0].task.id;
            ms += 300;
            b.end(running, ms);
        }
        assert_eq!(b.plan(ms).start, [], "1200 ms frozen: now a slice");
        assert_eq!(b.plan(ms + 150).start.len(), 1);
    }

    #[test]
    fn calls_take_turns_and_priorities_rule() {
        let mut b = Bench::new(2);
        b.ask(1, STT, Background, 1, 0);
        b.ask(2, STT, Speculative, 1, 0);
        b.ask(3, STT, Live, 1, 0);
        b.ask(4, STT, Live, 1, 1);
        b.ask(5, STT, Live, 2, 2);
        let mut order = Vec::new();
        for ms in [10, 20, 30, 40, 50] {
            let id = b.plan(ms).start[0].0;
            order.push(id);
            b.end(id, ms);
        }
        assert_eq!(order, [3, 5, 4, 2, 1]);
    }

    #[test]
    fn waiting_raises() {
        let mut b = Bench::new(2);
        b.ask(1, TTS, Live, 1, 0);
        b.ask(2, TTS, Background, 2, 0);
        assert_eq!(b.plan(0).start, [(1, 2)]);
        b.ask(3, TTS, Live, 1, 1000);
        b.end(1, 1100);
        assert_eq!(
            b.plan(1100).start,
            [(2, 1)],
            "two steps up, and its call was not served yet"
        );
    }

    #[test]
    fn one_core_still_works() {
        let mut b = Bench::new(0);
        b.permit.on_llm_begin(Live);
        b.ask(1, TTS, Background, 1, 0);
        assert_eq!(
            b.plan(0),
            Plan {
                start: vec![(1, 1)],
                frozen: [false; 3],
                llm_threads: 1
            }
        );
        b.ask(2, STT, Live, 1, 5);
        assert_eq!(b.plan(5).frozen, [false, true, true]);
    }

    #[test]
    fn queues_are_bounded_and_can_be_left() {
        let mut b = Bench::new(2);
        for id in 0..MAX_WAITING as u64 {
            b.ask(id, STT, Live, id, 0);
        }
        let now = b.at(0);
        assert!(!b.permit.on_request(
            Task {
                id: 99,
                engine: STT,
                priority: Live,
                call: 1
            },
            now
        ));
        assert!(b.permit.on_request(
            Task {
                id: 100,
                engine: TTS,
                priority: Live,
                call: 1
            },
            now
        ));
        for id in 0..MAX_WAITING as u64 {
            b.end(id, 1);
        }
        assert_eq!(b.permit.waiting(STT), 0);
    }
}
