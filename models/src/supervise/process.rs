//! A worker's process: spawned with its socket as fd 3, signalled as a group, reaped by the thread that spawned it.
//!
//! One thread per engine spawns and waits, because the kernel ties `PR_SET_PDEATHSIG` to the *thread* that forked: on a
//! pool thread the worker would die when the pool shrinks. The death signal is `SIGKILL`, which also ends a stopped
//! (frozen) worker.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;

use tokio::sync::oneshot;

use super::WorkerSpec;
use crate::protocol::WORKER_FD;

/// The memory limit of [`WorkerSpec`] counts what is resident. `RLIMIT_DATA` counts what is *reserved* and private
/// (heap arenas, 8 MB of stack per thread), so it needs headroom; mapped model files don't count in it, which is why
/// it is used and not `RLIMIT_AS`.
const RESERVE_HEADROOM_MB: u64 = 512;

/// A running worker process. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Process {
    pid: libc::pid_t,
    alive: Arc<Mutex<bool>>,
}

/// What a spawn yields.
pub(super) struct Spawned {
    pub process: Process,
    /// Our end of its socket.
    pub socket: UnixStream,
    pub stderr: ChildStderr,
    pub exit: oneshot::Receiver<ExitStatus>,
}

struct Order {
    spec: WorkerSpec,
    nice: i32,
    reply: oneshot::Sender<io::Result<Spawned>>,
}

/// The thread that spawns and reaps one engine's processes, one after the other.
#[derive(Debug)]
pub(super) struct Spawner {
    orders: mpsc::SyncSender<Order>,
}

impl Spawner {
    /// # Errors
    /// When the system has no thread left.
    pub(super) fn new(name: &str) -> io::Result<Self> {
        let (orders, rx) = mpsc::sync_channel::<Order>(1);
        thread::Builder::new()
            .name(format!("sup-{name}"))
            .spawn(move || {
                for order in rx {
                    serve(order);
                }
            })?;
        Ok(Self { orders })
    }

    /// # Errors
    /// As the system says, e.g. `NotFound` when the program is missing.
    pub(super) async fn spawn(&self, spec: &WorkerSpec, nice: i32) -> io::Result<Spawned> {
        let (reply, answer) = oneshot::channel();
        let order = Order {
            spec: spec.clone(),
            nice,
            reply,
        };
        // Full only while an older process is still being reaped; then this is one more failed start.
        self.orders
            .try_send(order)
            .map_err(|e| io::Error::other(format!("spawner: {e}")))?;
        answer.await.map_err(io::Error::other)?
    }
}

fn serve(order: Order) {
    match spawn(&order.spec, order.nice) {
        Err(e) => drop(order.reply.send(Err(e))),
        Ok((mut child, socket, stderr)) => {
            let pid = child.id().cast_signed();
            let alive = Arc::new(Mutex::new(true));
            let (tell, exit) = oneshot::channel();
            let process = Process {
                pid,
                alive: Arc::clone(&alive),
            };
            drop(order.reply.send(Ok(Spawned {
                process,
                socket,
                stderr,
                exit,
            })));
            await_exit(pid);
            // Reaped only after nobody can signal this pid any more: it may be another's a moment later.
            *locked(&alive) = false;
            if let Ok(status) = child.wait() {
                let _ = tell.send(status);
            }
        }
    }
}

fn spawn(spec: &WorkerSpec, nice: i32) -> io::Result<(Child, UnixStream, ChildStderr)> {
    let (ours, theirs) = UnixStream::pair()?;
    let fd = theirs.as_raw_fd();
    // SAFETY: getpid has no preconditions.
    let parent = unsafe { libc::getpid() };
    let reserve = spec.memory_limit_mb.map(|mb| (mb + RESERVE_HEADROOM_MB) << 20);
    let mut command = Command::new(&spec.program);
    command
        .args(&spec.args)
        .envs(spec.env.iter().map(|(k, v)| (k, v)))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0);
    // SAFETY: the closure only makes async-signal-safe system calls on values copied before the fork.
    unsafe {
        command.pre_exec(move || prepare(fd, parent, nice, reserve));
    }
    let mut child = command.spawn()?;
    drop(theirs);
    let stderr = child
        .stderr
        .take()
        .ok_or_else(|| io::Error::other("no stderr pipe"))?;
    Ok((child, ours, stderr))
}

/// Runs in the child between fork and exec.
fn prepare(fd: i32, parent: libc::pid_t, nice: i32, reserve: Option<u64>) -> io::Result<()> {
    // SAFETY: plain system calls with valid arguments; all are async-signal-safe.
    unsafe {
        if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong) != 0 {
            return Err(io::Error::last_os_error());
        }
        if libc::getppid() != parent {
            libc::_exit(1);
        }
        if fd == WORKER_FD {
            if libc::fcntl(fd, libc::F_SETFD, 0) != 0 {
                return Err(io::Error::last_os_error());
            }
        } else if libc::dup2(fd, WORKER_FD) < 0 {
            return Err(io::Error::last_os_error());
        }
        // Everything else closes at exec, whoever opened it; best effort on kernels before 5.11.
        let first = (WORKER_FD + 1).cast_unsigned();
        libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
        libc::setpriority(libc::PRIO_PROCESS, 0, nice);
        let no_core = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        libc::setrlimit(libc::RLIMIT_CORE, &raw const no_core);
        if let Some(bytes) = reserve {
            let limit = libc::rlimit {
                rlim_cur: bytes,
                rlim_max: bytes,
            };
            libc::setrlimit(libc::RLIMIT_DATA, &raw const limit);
        }
        // When memory runs out, a worker goes before the daemon.
        let oom = libc::open(
            c"/proc/self/oom_score_adj".as_ptr(),
            libc::O_WRONLY | libc::O_CLOEXEC,
        );
        if oom >= 0 {
            libc::write(oom, b"500".as_ptr().cast(), 3);
            libc::close(oom);
        }
    }
    Ok(())
}

/// Blocks until the process has ended, without reaping it.
fn await_exit(pid: libc::pid_t) {
    loop {
        // SAFETY: an all-zero siginfo_t is valid, and waitid only writes to it.
        let ended = unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            libc::waitid(
                libc::P_PID,
                pid.cast_unsigned(),
                &raw mut info,
                libc::WEXITED | libc::WNOWAIT,
            )
        };
        if ended == 0 || io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return;
        }
    }
}

fn locked(alive: &Mutex<bool>) -> MutexGuard<'_, bool> {
    alive.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Process {
    pub(super) fn pid(&self) -> u32 {
        self.pid.cast_unsigned()
    }

    /// Ends it now; a frozen one too.
    pub(super) fn kill(&self) {
        self.signal(libc::SIGKILL);
    }

    /// Takes its cores away at once, wherever it computes.
    pub(super) fn freeze(&self) {
        self.signal(libc::SIGSTOP);
    }

    /// Lets it go on.
    pub(super) fn thaw(&self) {
        self.signal(libc::SIGCONT);
    }

    /// Resident memory [MB]; `None` when it has ended.
    pub(super) fn resident_mb(&self) -> Option<u64> {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.pid)).ok()?;
        let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
        // SAFETY: sysconf has no preconditions.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        Some((pages * u64::try_from(page).unwrap_or(4096)) >> 20)
    }

    fn signal(&self, signal: i32) {
        let alive = locked(&self.alive);
        if *alive {
            // SAFETY: kill has no memory preconditions; the pid is not reaped yet, so it is still our group's.
            unsafe { libc::kill(-self.pid, signal) };
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
