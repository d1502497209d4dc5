//! A worker process as the daemon sees it, real models, and recorded prompts.
#![allow(unsafe_code, dead_code, missing_docs)]

use std::collections::BTreeSet;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use attendant_models::protocol::{
    Request, RequestId, Response, Stats, WORKER_FD, bytes_to_pcm, pcm_to_bytes, read_frame, write_frame,
};
use attendant_models::{ModelStore, Profile, Resolved, default_dir};

/// Longest wait for any answer; a loaded machine is slow.
const PATIENCE: Duration = Duration::from_secs(120);

/// The models of profile small; a test without them fails, since it would prove nothing.
pub fn models() -> Resolved {
    let resolved = ModelStore::open(default_dir()).and_then(|store| store.resolve(Profile::Small));
    resolved.unwrap_or_else(|e| panic!("no models ({e}): run `make models` first"))
}

pub struct Worker {
    child: Child,
    pub socket: UnixStream,
    next: RequestId,
}

/// How a request ended.
pub struct Answer {
    pub transcript: Option<Response>,
    pub pcm: Vec<i16>,
    pub first_audio: Option<Duration>,
    pub last: Response,
    pub took: Duration,
}

impl Answer {
    pub fn text(&self) -> &str {
        match &self.transcript {
            Some(Response::Transcript { text, .. }) => text,
            other => panic!("no transcript: {other:?}, {:?}", self.last),
        }
    }

    pub fn stats(&self) -> Stats {
        match &self.last {
            Response::Done { stats, .. } => *stats,
            other => panic!("not done: {other:?}"),
        }
    }
}

impl Worker {
    /// Starts `program` with a socket on descriptor 3 and waits until it is ready.
    pub fn start(program: impl AsRef<Path>, args: &[&str]) -> Self {
        let (socket, theirs) = UnixStream::pair().unwrap();
        let fd = theirs.as_raw_fd();
        let mut command = Command::new(program.as_ref());
        command.args(args);
        // SAFETY: only async-signal-safe calls between fork and exec; `dup2` also clears close-on-exec, except when
        // the numbers are equal.
        unsafe {
            command.pre_exec(move || {
                let ok = if fd == WORKER_FD {
                    libc::fcntl(fd, libc::F_SETFD, 0)
                } else {
                    libc::dup2(fd, WORKER_FD)
                };
                if ok < 0 {
                    Err(std::io::Error::last_os_error())
                } else {
                    Ok(())
                }
            });
        }
        let child = command
            .spawn()
            .unwrap_or_else(|e| panic!("{}: {e}: run `make build` first", program.as_ref().display()));
        drop(theirs);
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let worker = Self {
            child,
            socket,
            next: 0,
        };
        let ready = worker.receive().0;
        assert!(matches!(ready, Response::Ready { protocol: 1, .. }), "{ready:?}");
        worker
    }

    pub fn send(&self, request: &Request, payload: &[u8]) {
        write_frame(&mut &self.socket, request, payload).unwrap();
    }

    pub fn receive(&self) -> (Response, Vec<u8>) {
        read_frame(&mut &self.socket)
            .expect("an answer")
            .expect("the worker is alive")
    }

    pub fn next_id(&mut self) -> RequestId {
        self.next += 1;
        self.next
    }

    pub fn send_transcribe(&mut self, pcm: &[i16], deadline_ms: u32, language: &str) -> RequestId {
        let id = self.next_id();
        let request = Request::Transcribe {
            id,
            call: id,
            turn: 1,
            deadline_ms,
            language: Some(language.into()),
            hint: String::new(),
        };
        self.send(&request, &pcm_to_bytes(pcm));
        id
    }

    pub fn transcribe(&mut self, pcm: &[i16]) -> Answer {
        let id = self.send_transcribe(pcm, 100_000, "en");
        self.answer(id)
    }

    pub fn send_speak(&mut self, text: &str, speed: f32) -> RequestId {
        let id = self.next_id();
        let request = Request::Speak {
            id,
            call: id,
            turn: 1,
            deadline_ms: 100_000,
            text: text.into(),
            speed,
        };
        self.send(&request, &[]);
        id
    }

    pub fn speak(&mut self, text: &str) -> Answer {
        let id = self.send_speak(text, 1.0);
        self.answer(id)
    }

    /// Everything up to the end of request `id`; other answers are a mistake.
    pub fn answer(&mut self, id: RequestId) -> Answer {
        let begun = Instant::now();
        let (mut transcript, mut pcm, mut first_audio, mut expected_seq) = (None, Vec::new(), None, 0);
        loop {
            let (response, payload) = self.receive();
            assert_eq!(response.id(), Some(id), "{response:?}");
            match response {
                Response::Audio { seq, .. } => {
                    assert_eq!(seq, expected_seq, "audio in order");
                    expected_seq += 1;
                    assert!(payload.len() <= 32_000, "at most a second at a time");
                    first_audio.get_or_insert(begun.elapsed());
                    pcm.extend(bytes_to_pcm(&payload));
                }
                Response::Transcript { .. } => transcript = Some(response),
                last => {
                    return Answer {
                        transcript,
                        pcm,
                        first_audio,
                        last,
                        took: begun.elapsed(),
                    };
                }
            }
        }
    }

    pub fn send_nonsense(&self) {
        (&self.socket).write_all(&[0xff; 64]).unwrap();
    }

    /// Closes the socket; the worker must end by itself.
    pub fn hang_up(mut self) -> ExitStatus {
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        self.wait()
    }

    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the worker did not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a worker that must not come up; returns exit code and stderr.
pub fn refused(program: &str, args: &[&str]) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    (status.code(), String::from_utf8_lossy(&stderr).into_owned())
}

/// A recorded prompt of Debian's `asterisk-core-sounds-en-wav`, as 16 kHz PCM.
pub fn prompt(name: &str) -> Vec<i16> {
    let path = PathBuf::from("/usr/share/asterisk/sounds/en_US_f_Allison").join(format!("{name}.wav"));
    let file = std::fs::read(&path).unwrap_or_else(|e| {
        panic!(
            "{}: {e}: apt-get install asterisk-core-sounds-en-wav",
            path.display()
        )
    });
    // 8 kHz mono PCM after a 44-byte header; between two samples their mean.
    let narrow = bytes_to_pcm(file.get(44..).unwrap());
    let next = narrow.iter().skip(1).chain(narrow.last());
    narrow
        .iter()
        .zip(next)
        .flat_map(|(a, b)| [*a, i16::midpoint(*a, *b)])
        .collect()
}

/// Words without case and punctuation.
pub fn words(text: &str) -> Vec<String> {
    text.split(|c: char| !c.is_alphanumeric() && c != '\'')
        .filter(|w| !w.is_empty())
        .map(str::to_lowercase)
        .collect()
}

pub fn word_set(text: &str) -> BTreeSet<String> {
    words(text).into_iter().collect()
}

/// Noise of a fixed seed.
pub fn noise(samples: usize, amplitude: i32) -> Vec<i16> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    (0..samples)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            ((state >> 33) as i32 % (2 * amplitude) - amplitude) as i16
        })
        .collect()
}
