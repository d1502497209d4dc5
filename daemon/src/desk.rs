//! Desk: callers whom the box cannot serve get what `[fallback]` says, with the attendant's engines or without them.
//!
//! ```text
//! IncomingCall, Cause ─> Treatment ─┬─ refuse: 486, 302, 503, before answer
//!                                   ├─ refer: answer ─> REFER ─> BYE
//!                                   └─ voicemail: session, answer ─> announcement, recording ─> BYE
//! ```
//! What cannot be done (no record, no room, no line of audio left) becomes a refusal, still before answer.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use attendant_models::protocol::{bytes_to_pcm, pcm_to_bytes};
use attendant_rt::Rt;
use attendant_sip::{IncomingCall, Refusal};
use attendant_store::{NewSession, Store};
use sha2::{Digest, Sha256};
use tokio::sync::{Semaphore, SemaphorePermit, watch};

use crate::{
    call::{PromptInForce, leg, mailbox, recorder::Recorder},
    clock,
    config::Config,
    fallback::{Cause, Treatment},
    recording,
    serve::line_name,
    session,
};

/// Calls that are answered without the attendant, at once: beyond the lines, but not beyond the dialogs and audio legs that
/// are there for them.
const PLACES: usize = 6;

/// What such calls need.
pub struct Desk {
    config: Arc<Config>,
    sip: Arc<attendant_sip::SipConfig>,
    /// `None`: nothing is answered.
    rt: Option<Arc<Rt>>,
    /// `None`: no messages are taken.
    store: Option<Store>,
    announcement: Option<Arc<Vec<i16>>>,
    places: Semaphore,
}

impl Desk {
    /// A desk with what there is.
    #[must_use]
    pub fn new(
        config: Arc<Config>,
        sip: Arc<attendant_sip::SipConfig>,
        rt: Option<Arc<Rt>>,
        store: Option<Store>,
    ) -> Self {
        let text = config.fallback.announcement(&config.business);
        let announcement = text
            .and_then(|text| load(&config.data_dir(), &text))
            .map(Arc::new);
        Self {
            config,
            sip,
            rt,
            store,
            announcement,
            places: Semaphore::new(PLACES),
        }
    }

    /// Nobody is being served.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.places.available_permits() == PLACES
    }

    /// Treats a call as configured for `cause`; returns when that has been done.
    pub async fn turn_away(
        &self,
        id: u64,
        incoming: IncomingCall,
        cause: Cause,
        drain: watch::Receiver<bool>,
    ) {
        tracing::warn!(call = id, reason = cause.text(), "a call cannot be served");
        let refusal = self.config.fallback.refusal(cause);
        match self.config.fallback.treatment(cause) {
            Treatment::Refuse(refusal) => refuse(incoming, refusal).await,
            Treatment::Refer(uri) => self.pass_on(id, incoming, &uri, refusal).await,
            Treatment::Voicemail => self.take_message(id, incoming, refusal, drain).await,
        }
    }

    /// Audio and a place, if both are left.
    fn place(&self) -> Option<(&Rt, SemaphorePermit<'_>)> {
        let place = self.places.try_acquire().ok()?;
        Some((self.rt.as_deref()?, place))
    }

    async fn pass_on(&self, id: u64, incoming: IncomingCall, uri: &str, refusal: Refusal) {
        let Some((rt, _place)) = self.place() else {
            return refuse(incoming, refusal).await;
        };
        let call = match incoming.answer().await {
            Ok(call) => call,
            Err(error) => return tracing::info!(call = id, %error, "not answered"),
        };
        let passed = match leg::open(rt, &call) {
            Ok(leg) => mailbox::pass_on(call, leg, uri).await,
            // Dropping the call hangs up.
            Err(_) => Err("no audio leg"),
        };
        match passed {
            Ok(()) => tracing::info!(call = id, "the caller was handed over"),
            Err(why) => tracing::warn!(call = id, why, "the caller could not be handed over"),
        }
    }

    async fn take_message(
        &self,
        id: u64,
        incoming: IncomingCall,
        refusal: Refusal,
        drain: watch::Receiver<bool>,
    ) {
        let sound = config_of_messages(&self.config);
        let (Some((rt, _place)), Some(store)) = (self.place(), &self.store) else {
            return refuse(incoming, refusal).await;
        };
        if let Err(error) = recording::has_room(store, &sound) {
            tracing::error!(call = id, %error, "no message can be taken");
            return refuse(incoming, refusal).await;
        }
        let key = match session::open(
            store,
            self.session(&incoming),
            "{\"fallback\":\"voicemail\"}".into(),
        )
        .await
        {
            Ok(key) => key,
            Err(error) => {
                tracing::error!(call = id, error, "no record, no message");
                return refuse(incoming, refusal).await;
            }
        };
        let call = match incoming.answer().await {
            Ok(call) => call,
            Err(error) => {
                tracing::info!(call = id, %error, "not answered");
                return session::fail(store, &key, error.to_string()).await;
            }
        };
        let leg = match leg::open(rt, &call) {
            Ok(leg) => leg,
            Err(error) => {
                tracing::error!(call = id, %error, "no audio leg");
                return session::fail(store, &key, error.to_string()).await;
            }
        };
        // No model speaks here: there is no prompt.
        let recorder = Recorder::new(store.clone(), key, &sound, PromptInForce::new(""));
        let terms = mailbox::Terms {
            announcement: self.announcement.clone(),
            longest: Duration::from_secs(u64::from(self.config.fallback.longest_s)),
        };
        mailbox::take(call, leg, recorder, terms, drain).await;
    }

    fn session(&self, incoming: &IncomingCall) -> NewSession {
        NewSession {
            caller: Some(incoming.from.user.expose().clone()),
            callee: Some(incoming.to_user.clone()),
            call_id: Some(incoming.call_id.clone()),
            ..NewSession::inbound(
                &line_name(&self.sip, incoming.source),
                &self.config.profile().to_string(),
                clock::unix_ms(),
            )
        }
    }
}

/// Messages are recorded, whether calls are or not.
fn config_of_messages(config: &Config) -> crate::config::RecordingSection {
    crate::config::RecordingSection {
        enabled: true,
        ..config.recording.clone()
    }
}

async fn refuse(incoming: IncomingCall, refusal: Refusal) {
    if let Err(error) = incoming.refuse(refusal).await {
        tracing::debug!(%error, "the caller had given up already");
    }
}

/// Keeps the sound of the announcement for the day on which there is no voice.
pub fn keep(data_dir: &Path, text: &str, pcm: &[i16]) {
    let path = announcement_path(data_dir, text);
    if path.exists() {
        return;
    }
    let written = fs::create_dir_all(path.parent().unwrap_or(data_dir))
        .and_then(|()| fs::write(path.with_extension("new"), pcm_to_bytes(pcm)))
        .and_then(|()| fs::rename(path.with_extension("new"), &path));
    if let Err(error) = written {
        tracing::warn!(%error, "the announcement could not be kept: without a voice there is only the beep");
    }
}

fn load(data_dir: &Path, text: &str) -> Option<Vec<i16>> {
    let octets = fs::read(announcement_path(data_dir, text)).ok()?;
    (!octets.is_empty()).then(|| bytes_to_pcm(&octets))
}

fn announcement_path(data_dir: &Path, text: &str) -> PathBuf {
    let name: String = Sha256::digest(text)
        .iter()
        .take(16)
        .map(|b| format!("{b:02x}"))
        .collect();
    data_dir.join("cache/mailbox").join(format!("{name}.pcm"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_announcement_is_kept_by_its_words() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(load(dir.path(), "Hello."), None);
        keep(dir.path(), "Hello.", &[1, -2, 3]);
        assert_eq!(load(dir.path(), "Hello."), Some(vec![1, -2, 3]));
        assert_eq!(
            load(dir.path(), "Goodbye."),
            None,
            "another text is another sound"
        );
    }
}
