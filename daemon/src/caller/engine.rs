//! Engine: the caller's own speech worker, used before or after a call, one request at a time.
//!
//! The daemon supervises its workers and shares cores between them; a caller only needs a voice and an ear for a
//! moment, so this is the protocol in its plainest form: start, wait until ready, ask, wait, end.
#![allow(unsafe_code)]

use std::{
    io::{self, BufReader},
    os::{fd::AsRawFd, unix::net::UnixStream, unix::process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use attendant_models::protocol::{
    Request, RequestId, Response, WORKER_FD, bytes_to_pcm, pcm_to_bytes, read_frame, write_frame,
};

/// Longest a model may take to load.
const READY_TIMEOUT: Duration = Duration::from_secs(120);
/// Longest one request may take; the worker gives up by itself a little earlier.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Name of the calls in the worker's log.
const CALL: u64 = 0;

/// Why the engine did not deliver.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Not built, or not beside the executable.
    #[error("cannot start {program}: {source}. Build the workers: make build")]
    Start {
        /// The worker.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It ended, hung or broke the protocol; its message is on stderr.
    #[error("{program} gave no answer: {source}")]
    Broken {
        /// The worker.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It refused this request.
    #[error("{program}: {message}")]
    Failed {
        /// The worker.
        program: PathBuf,
        /// Its message.
        message: String,
    },
}

/// A worker process of our own. Ends when dropped.
#[derive(Debug)]
pub struct Engine {
    program: PathBuf,
    child: Child,
    to: UnixStream,
    from: BufReader<UnixStream>,
    next: RequestId,
}

impl Engine {
    /// Starts a worker and waits until its model is loaded.
    ///
    /// # Errors
    /// [`EngineError::Start`], [`EngineError::Broken`].
    pub fn start(program: &Path, args: &[String]) -> Result<Self, EngineError> {
        let failed = |source| EngineError::Start {
            program: program.to_owned(),
            source,
        };
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        let fd = theirs.as_raw_fd();
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::null());
        // SAFETY: the closure only calls fcntl and dup2, which are async-signal-safe, on a descriptor that is open
        // until after the spawn.
        unsafe {
            command.pre_exec(move || {
                let done = if fd == WORKER_FD {
                    libc::fcntl(fd, libc::F_SETFD, 0)
                } else {
                    libc::dup2(fd, WORKER_FD)
                };
                if done < 0 {
                    Err(io::Error::last_os_error())
                } else {
                    Ok(())
                }
            });
        }
        let child = command.spawn().map_err(failed)?;
        drop(theirs);
        let from = BufReader::new(ours.try_clone().map_err(failed)?);
        let mut engine = Self {
            program: program.to_owned(),
            child,
            to: ours,
            from,
            next: 1,
        };
        engine.patience(READY_TIMEOUT)?;
        match engine.read()? {
            (Response::Ready { .. }, _) => {}
            (other, _) => {
                return Err(engine.broken(io::Error::other(format!("{other:?} before it was ready"))));
            }
        }
        engine.patience(REQUEST_TIMEOUT)?;
        Ok(engine)
    }

    /// What is said in `pcm` (16 kHz mono).
    ///
    /// # Errors
    /// [`EngineError::Broken`], [`EngineError::Failed`].
    pub fn transcribe(&mut self, pcm: &[i16], language: &str) -> Result<String, EngineError> {
        let id = self.id();
        let request = Request::Transcribe {
            id,
            call: CALL,
            turn: 0,
            deadline_ms: REQUEST_TIMEOUT.as_millis() as u32 - 1000,
            language: Some(language.to_owned()),
            hint: String::new(),
        };
        let mut text = String::new();
        self.ask(&request, &pcm_to_bytes(pcm), |response, _| {
            if let Response::Transcript { text: heard, .. } = response {
                text = heard.trim().to_owned();
            }
        })?;
        Ok(text)
    }

    /// `text` as 16 kHz mono.
    ///
    /// # Errors
    /// [`EngineError::Broken`], [`EngineError::Failed`].
    pub fn speak(&mut self, text: &str) -> Result<Vec<i16>, EngineError> {
        let request = Request::Speak {
            id: self.id(),
            call: CALL,
            turn: 0,
            deadline_ms: REQUEST_TIMEOUT.as_millis() as u32 - 1000,
            text: text.to_owned(),
            speed: 1.0,
        };
        let mut pcm = Vec::new();
        self.ask(&request, &[], |response, payload| {
            if matches!(response, Response::Audio { .. }) {
                pcm.extend(bytes_to_pcm(payload));
            }
        })?;
        Ok(pcm)
    }

    fn id(&mut self) -> RequestId {
        self.next += 1;
        self.next
    }

    fn ask(
        &mut self,
        request: &Request,
        payload: &[u8],
        mut take: impl FnMut(&Response, &[u8]),
    ) -> Result<(), EngineError> {
        write_frame(&mut self.to, request, payload).map_err(|e| self.broken(e))?;
        loop {
            let (response, payload) = self.read()?;
            take(&response, &payload);
            match response {
                // STT answers with its transcript first and ends with `Done`.
                Response::Done { .. } => return Ok(()),
                Response::Failed { message, .. } => {
                    return Err(EngineError::Failed {
                        program: self.program.clone(),
                        message,
                    });
                }
                Response::Cancelled { .. } => return Err(self.broken(io::Error::other("cancelled"))),
                Response::Ready { .. }
                | Response::Pong { .. }
                | Response::ThreadsSet { .. }
                | Response::Transcript { .. }
                | Response::Ending { .. }
                | Response::Token { .. }
                | Response::Audio { .. } => {}
            }
        }
    }

    fn read(&mut self) -> Result<(Response, Vec<u8>), EngineError> {
        let frame = read_frame(&mut self.from).map_err(|e| self.broken(e))?;
        frame.ok_or_else(|| self.broken(io::ErrorKind::UnexpectedEof.into()))
    }

    fn patience(&self, timeout: Duration) -> Result<(), EngineError> {
        self.to
            .set_read_timeout(Some(timeout))
            .map_err(|e| self.broken(e))
    }

    fn broken(&self, source: io::Error) -> EngineError {
        EngineError::Broken {
            program: self.program.clone(),
            source,
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // It may already be gone; either way nothing is left behind.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_or_silent_worker_is_an_error() {
        let missing = Engine::start(Path::new("/no/such/worker"), &[]).unwrap_err();
        assert!(missing.to_string().contains("make build"), "{missing}");
        let silent = Engine::start(Path::new("/bin/true"), &[]).unwrap_err();
        assert!(matches!(silent, EngineError::Broken { .. }), "{silent}");
    }
}
