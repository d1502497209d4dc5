//! The connection to one generation of a worker: its requests under way, and what was asked of it.
//!
//! A reply finds its request in the table of its own generation only, so what an older worker still says is dropped.
//! When the generation ends, every request in the table ends with it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use super::process::Process;
use super::{Engine, EngineError};
use crate::protocol::{Request, RequestId, Response, encode};

/// Requests one worker holds at once; more are refused as busy.
const MAX_UNDER_WAY: usize = 64;
/// Frames waiting to be written: every request, its cancel, and room for control. Full means the worker stopped reading.
pub(super) const OUT_FRAMES: usize = 3 * MAX_UNDER_WAY;

/// Held while the worker computes for a request; dropped when the worker is really done with it.
pub(crate) type Guard = Box<dyn Send>;

/// One reply, with its payload.
pub(crate) type Reply = (Response, Vec<u8>);

#[derive(Debug)]
pub(crate) struct Link {
    engine: Engine,
    pub(super) generation: u64,
    pub(super) process: Process,
    out: mpsc::Sender<Vec<u8>>,
    table: Mutex<Table>,
    /// Threads last acknowledged by the worker.
    acked: watch::Sender<Option<u32>>,
    /// Nonce of the last `Pong`.
    ponged: AtomicU64,
    /// Replies to nobody.
    stale: AtomicU64,
}

#[derive(Default)]
struct Table {
    entries: HashMap<RequestId, Entry>,
    /// Threads last asked for.
    threads: Option<u32>,
    frozen: bool,
    /// When it last began to run again.
    thawed: Option<Instant>,
    /// Why this generation ended, once it has.
    ended: Option<String>,
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table")
            .field("under_way", &self.entries.len())
            .field("ended", &self.ended)
            .finish()
    }
}

struct Entry {
    /// `None` once cancelled: nobody listens.
    to: Option<mpsc::Sender<Reply>>,
    cancelled: Option<Instant>,
    /// Only held.
    _guard: Option<Guard>,
}

impl Link {
    pub(super) fn new(engine: Engine, generation: u64, process: Process, out: mpsc::Sender<Vec<u8>>) -> Self {
        Self {
            engine,
            generation,
            process,
            out,
            table: Mutex::default(),
            acked: watch::Sender::new(None),
            ponged: AtomicU64::new(0),
            stale: AtomicU64::new(0),
        }
    }

    /// Sends a request, with the threads it shall run on where that changes.
    ///
    /// # Errors
    /// `Down` when this generation has ended, `Busy` when the worker has too much to do, `BadRequest` when it does not
    /// fit in a frame.
    pub(crate) fn begin(
        self: &Arc<Self>,
        id: RequestId,
        request: &Request,
        payload: &[u8],
        threads: Option<u32>,
        replies: usize,
        guard: Option<Guard>,
    ) -> Result<Pending, EngineError> {
        let frame = encode(request, payload).map_err(|e| EngineError::BadRequest(e.to_string()))?;
        let (to, rx) = mpsc::channel(replies);
        let mut table = self.table();
        if let Some(reason) = &table.ended {
            return Err(EngineError::Down {
                engine: self.engine,
                reason: reason.clone(),
            });
        }
        if table.entries.len() >= MAX_UNDER_WAY {
            return Err(EngineError::Busy);
        }
        if threads.is_some() && threads != table.threads {
            self.send_threads(&mut table, threads.unwrap_or(1))?;
        }
        self.out.try_send(frame).map_err(|_| EngineError::Busy)?;
        table.entries.insert(
            id,
            Entry {
                to: Some(to),
                cancelled: None,
                _guard: guard,
            },
        );
        drop(table);
        Ok(Pending {
            link: Arc::clone(self),
            id,
            rx,
            over: false,
        })
    }

    /// Asks for this many threads from now on, if that is news.
    pub(crate) fn set_threads(&self, threads: u32) {
        let mut table = self.table();
        if table.threads != Some(threads) && table.ended.is_none() {
            // Full: the worker reads nothing and will fail its health check; it has no use for threads.
            drop(self.send_threads(&mut table, threads));
        }
    }

    /// Waits until the worker has taken over the threads last asked for, at most `bound`.
    pub(crate) async fn threads_settled(&self, bound: Duration) {
        let wanted = self.table().threads;
        let mut acked = self.acked.subscribe();
        drop(tokio::time::timeout(bound, acked.wait_for(|a| *a == wanted)).await);
    }

    /// Whose worker this is.
    pub(crate) fn engine(&self) -> Engine {
        self.engine
    }

    /// LLM: the call's sequence is free again.
    pub(crate) fn release(&self, call: u64) {
        // Lost only when the worker reads nothing any more.
        self.send(&Request::Release { call });
    }

    /// Threads last asked for.
    pub(crate) fn threads(&self) -> Option<u32> {
        self.table().threads
    }

    fn send_threads(&self, table: &mut Table, threads: u32) -> Result<(), EngineError> {
        let frame = encode(&Request::SetThreads { threads }, &[])
            .map_err(|e| EngineError::BadRequest(e.to_string()))?;
        self.out.try_send(frame).map_err(|_| EngineError::Busy)?;
        table.threads = Some(threads);
        Ok(())
    }

    /// Takes the worker's cores away, or gives them back.
    pub(crate) fn set_frozen(&self, frozen: bool) {
        let mut table = self.table();
        if table.frozen == frozen {
            return;
        }
        table.frozen = frozen;
        if frozen {
            self.process.freeze();
        } else {
            self.process.thaw();
            let now = Instant::now();
            table.thawed = Some(now);
            // Time frozen counts against nobody.
            for entry in table.entries.values_mut() {
                entry.cancelled = entry.cancelled.map(|_| now);
            }
        }
    }

    /// Whether it may compute, and since when it may again.
    pub(super) fn running_since(&self) -> (bool, Option<Instant>) {
        let table = self.table();
        (!table.frozen, table.thawed)
    }

    /// Sends a frame that is no request of the table; false when the worker does not read.
    pub(super) fn send(&self, request: &Request) -> bool {
        encode(request, &[]).is_ok_and(|frame| self.out.try_send(frame).is_ok())
    }

    /// Takes one reply of this generation.
    pub(super) fn handle(&self, reply: Response, payload: Vec<u8>) {
        match reply {
            Response::Pong { nonce } => self.ponged.store(nonce, Ordering::Relaxed),
            Response::ThreadsSet { threads } => drop(self.acked.send_replace(Some(threads))),
            Response::Ready { .. } => {}
            _ => self.deliver(reply, payload),
        }
    }

    fn deliver(&self, reply: Response, payload: Vec<u8>) {
        let Some(id) = reply.id() else { return };
        let last = matches!(
            reply,
            Response::Done { .. } | Response::Failed { .. } | Response::Cancelled { .. }
        );
        let mut table = self.table();
        let Some(entry) = table.entries.get_mut(&id) else {
            self.stale.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let delivered = match &entry.to {
            Some(to) => to.try_send((reply, payload)).is_ok(),
            None => true,
        };
        if last {
            let ended = table.entries.remove(&id);
            drop(table);
            // Outside the lock: a guard's drop may wake others.
            drop(ended);
        } else if !delivered {
            // The listener is full or gone: it must not hold up the others.
            drop(table);
            self.cancel(id);
        }
    }

    /// Nobody listens to `id` any more.
    fn cancel(&self, id: RequestId) {
        let mut table = self.table();
        let Some(entry) = table.entries.get_mut(&id) else {
            return;
        };
        entry.to = None;
        if entry.cancelled.is_none() {
            entry.cancelled = Some(Instant::now());
            if !self.send(&Request::Cancel { id }) {
                self.process.kill();
            }
        }
    }

    /// True when a cancelled request did not end within `bound` and stands in the way of others.
    pub(super) fn stuck(&self, bound: Duration, others_wait: bool) -> bool {
        let table = self.table();
        let late = |e: &Entry| e.cancelled.is_some_and(|at| at.elapsed() > bound);
        !table.frozen && table.entries.values().any(late) && (others_wait || table.entries.len() > 1)
    }

    /// Ends every request under way; no more begin.
    pub(super) fn end(&self, reason: &str) {
        let mut table = self.table();
        table.ended.get_or_insert_with(|| reason.to_owned());
        let entries = std::mem::take(&mut table.entries);
        drop(table);
        drop(entries);
    }

    pub(super) fn ended(&self) -> bool {
        self.table().ended.is_some()
    }

    pub(super) fn last_pong(&self) -> u64 {
        self.ponged.load(Ordering::Relaxed)
    }

    pub(super) fn stale(&self) -> u64 {
        self.stale.load(Ordering::Relaxed)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request under way. Dropping it cancels it.
#[derive(Debug)]
pub(crate) struct Pending {
    link: Arc<Link>,
    id: RequestId,
    rx: mpsc::Receiver<Reply>,
    over: bool,
}

impl Pending {
    /// The next reply. Cancel-safe. After `Done` ask no more.
    ///
    /// # Errors
    /// `Down` when the worker ended; what `Failed` says; `Stale` when the worker prefers a newer request of that call.
    pub(crate) async fn next(&mut self) -> Result<Reply, EngineError> {
        let Some((reply, payload)) = self.rx.recv().await else {
            self.over = true;
            return Err(self.link.why_gone());
        };
        match reply {
            Response::Failed { kind, message, .. } => {
                self.over = true;
                Err(EngineError::of(kind, message))
            }
            Response::Cancelled { .. } => {
                self.over = true;
                Err(EngineError::Stale)
            }
            Response::Done { .. } => {
                self.over = true;
                Ok((reply, payload))
            }
            _ => Ok((reply, payload)),
        }
    }
}

impl Link {
    /// Why a listener's channel closed without a last reply.
    fn why_gone(&self) -> EngineError {
        match &self.table().ended {
            Some(reason) => EngineError::Down {
                engine: self.engine,
                reason: reason.clone(),
            },
            None => EngineError::Engine("reply overran its buffer".to_owned()),
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.over {
            self.link.cancel(self.id);
        }
    }
}
