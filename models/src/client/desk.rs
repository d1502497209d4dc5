//! The shell around the permit: who asks for compute waits here, and what the permit plans is carried out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;

use crate::permit::{Permit, Plan, Priority, Task, TaskId};
use crate::supervise::link::Link;
use crate::supervise::{Engine, EngineError, Worker};

/// Longest wait for the LLM to take over fewer threads before a single task starts beside it.
const SETTLE: Duration = Duration::from_millis(60);

/// Where compute is asked for: the permit and those who wait for its word.
pub(super) struct Desk {
    state: Mutex<DeskState>,
    changed: Arc<Notify>,
}

pub(super) struct DeskState {
    pub(super) permit: Permit,
    grants: HashMap<TaskId, oneshot::Sender<u32>>,
}

impl Desk {
    pub(super) fn new(cores: u32, changed: Arc<Notify>) -> Self {
        let state = DeskState {
            permit: Permit::new(cores),
            grants: HashMap::new(),
        };
        Self {
            state: Mutex::new(state),
            changed,
        }
    }

    /// Queues for compute. The guard leaves the queue, or gives the cores back.
    pub(super) fn ask(
        self: &Arc<Self>,
        worker: &Arc<Worker>,
        task: Task,
    ) -> Result<(TaskGuard, oneshot::Receiver<u32>), EngineError> {
        let (tx, rx) = oneshot::channel();
        let mut state = self.state();
        if !state.permit.on_request(task, Instant::now().into_std()) {
            return Err(EngineError::Busy);
        }
        state.grants.insert(task.id, tx);
        worker.set_waiting(state.permit.waiting(task.engine));
        drop(state);
        self.changed.notify_one();
        Ok((
            TaskGuard {
                desk: Arc::clone(self),
                worker: Arc::clone(worker),
                task,
            },
            rx,
        ))
    }

    pub(super) fn state(&self) -> MutexGuard<'_, DeskState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the queue, then cores; given back on drop.
pub(super) struct TaskGuard {
    desk: Arc<Desk>,
    worker: Arc<Worker>,
    task: Task,
}

impl Drop for TaskGuard {
    fn drop(&mut self) {
        let mut state = self.desk.state();
        state.permit.on_end(self.task.id, Instant::now().into_std());
        state.grants.remove(&self.task.id);
        self.worker.set_waiting(state.permit.waiting(self.task.engine));
        drop(state);
        self.desk.changed.notify_one();
    }
}

/// The LLM works on something.
pub(super) struct LlmGuard {
    desk: Arc<Desk>,
    priority: Priority,
}

impl LlmGuard {
    pub(super) fn new(desk: &Arc<Desk>, priority: Priority) -> Self {
        desk.state().permit.on_llm_begin(priority);
        desk.changed.notify_one();
        Self {
            desk: Arc::clone(desk),
            priority,
        }
    }
}

impl Drop for LlmGuard {
    fn drop(&mut self) {
        self.desk.state().permit.on_llm_end(self.priority);
        self.desk.changed.notify_one();
    }
}

/// The shell around the permit: carries every new plan out.
pub(super) async fn run(desk: Arc<Desk>, workers: [Arc<Worker>; 3], mut stop: watch::Receiver<bool>) {
    loop {
        let (plan, again) = {
            let mut state = desk.state();
            let plan = state.permit.plan(Instant::now().into_std());
            for worker in [&workers[0], &workers[2]] {
                worker.set_waiting(state.permit.waiting(worker.engine()));
            }
            (plan, state.permit.poll_timeout())
        };
        let links = [0, 1, 2].map(|i| workers[i].current());
        carry_out(&desk, &plan, &links).await;
        let again = again.map(Instant::from_std);
        tokio::select! {
            () = desk.changed.notified() => {}
            () = tokio::time::sleep_until(again.unwrap_or_else(far)), if again.is_some() => {}
            _ = stop.wait_for(|s| *s) => break,
        }
    }
    for worker in &workers {
        if let Some(link) = worker.current() {
            link.set_frozen(false);
        }
    }
}

/// Placeholder for a timer that is switched off.
fn far() -> Instant {
    Instant::now() + Duration::from_secs(3600)
}

/// Takes cores away before it hands them out.
async fn carry_out(desk: &Desk, plan: &Plan, links: &[Option<Arc<Link>>; 3]) {
    let frozen = |engine: Engine| plan.frozen[engine.index()];
    for link in links.iter().flatten().filter(|l| frozen(l.engine())) {
        link.set_frozen(true);
    }
    if let Some(llm) = &links[Engine::Llm.index()] {
        let fewer = llm.threads().is_none_or(|t| t > plan.llm_threads);
        llm.set_threads(plan.llm_threads);
        if fewer && !frozen(Engine::Llm) && !plan.start.is_empty() {
            llm.threads_settled(SETTLE).await;
        }
    }
    for link in links.iter().flatten().filter(|l| !frozen(l.engine())) {
        link.set_frozen(false);
    }
    let mut state = desk.state();
    for (id, threads) in &plan.start {
        // Gone when it left the queue meanwhile; its guard has given the cores back.
        if let Some(grant) = state.grants.remove(id) {
            let _ = grant.send(*threads);
        }
    }
}
