//! Switchboard: asks a call in progress for something, from outside of it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{mpsc, oneshot};

/// Requests that may wait for a call.
const REQUESTS: usize = 4;

/// What a call can be asked for.
#[derive(Debug)]
pub enum Request {
    /// Put the caller through.
    Transfer {
        /// Name of the target.
        target: String,
        /// Whether it has begun; how it goes is in the call's record.
        answer: oneshot::Sender<Result<(), TransferRefused>>,
    },
}

/// Why a call does not begin a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TransferRefused {
    /// It has ended, or never was.
    #[error("there is no such call")]
    NoCall,
    /// Not on the list: never done.
    #[error("no [[transfer.target]] has that name")]
    Unknown,
    /// One at a time.
    #[error("the caller is being put through already")]
    Busy,
}

type Lines = Arc<Mutex<HashMap<u64, mpsc::Sender<Request>>>>;

/// The calls in progress.
#[derive(Debug, Clone, Default)]
pub struct Switchboard {
    lines: Lines,
}

/// Keeps a call on the switchboard until dropped.
#[derive(Debug)]
pub struct Listed {
    lines: Lines,
    call: u64,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.call);
    }
}

impl Switchboard {
    /// A call begins.
    #[must_use]
    pub fn list(&self, call: u64) -> (Listed, mpsc::Receiver<Request>) {
        let (requests, taken) = mpsc::channel(REQUESTS);
        self.lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(call, requests);
        let lines = self.lines.clone();
        (Listed { lines, call }, taken)
    }

    /// Asks `call` to put its caller through to the target of this name.
    ///
    /// # Errors
    /// [`TransferRefused`].
    pub async fn transfer(&self, call: u64, target: &str) -> Result<(), TransferRefused> {
        let line = {
            let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
            lines.get(&call).cloned()
        };
        let line = line.ok_or(TransferRefused::NoCall)?;
        let (answer, answered) = oneshot::channel();
        let request = Request::Transfer {
            target: target.to_owned(),
            answer,
        };
        line.send(request).await.map_err(|_| TransferRefused::NoCall)?;
        answered.await.map_err(|_| TransferRefused::NoCall)?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_call_is_asked_while_it_lasts() {
        let board = Switchboard::default();
        assert_eq!(board.transfer(7, "office").await, Err(TransferRefused::NoCall));
        let (listed, mut requests) = board.list(7);
        let asked = tokio::spawn({
            let board = board.clone();
            async move { board.transfer(7, "office").await }
        });
        let Some(Request::Transfer { target, answer }) = requests.recv().await else {
            panic!("no request");
        };
        assert_eq!(target, "office");
        answer.send(Err(TransferRefused::Unknown)).unwrap();
        assert_eq!(asked.await.unwrap(), Err(TransferRefused::Unknown));
        drop((listed, requests));
        assert_eq!(board.transfer(7, "office").await, Err(TransferRefused::NoCall));
    }
}
