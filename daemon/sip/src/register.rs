//! Registration of one account.
//!
//! ```text
//! Trying --200--> Registered --every 30 s: 200--> Registered
//!   |  `--401 after our password, 403, 404--> Refused: said once; never registered: stop, else retry rarely
//!   `--timeout, 5xx--> Unreachable --backoff with jitter--> Trying
//! ```
//! A refresh every 30 s serves three ends at once: it keeps a NAT open, finds out that the registrar went away, and
//! gives a registrar that came back with an empty memory its binding again. Source: RFC 3261 §10.2.

use std::sync::Arc;
use std::time::Duration;

use rsipstack::dialog::authenticate::Credential;
use rsipstack::dialog::registration::Registration;
use rsipstack::platform::CancellationToken;
use rsipstack::sip::uri::ParamsExt as _;
use rsipstack::sip::{self, Header, Response, Uri, typed};
use tokio::sync::mpsc;

use crate::SipEvent;
use crate::config::{Account, Transport};
use crate::core::{Core, lock};
use crate::error::SipError;
use crate::locate::Server;
use crate::tls;

/// Longest time between refreshes, however long the registrar grants.
const REFRESH: Duration = Duration::from_secs(30);
/// A registrar that has not answered by then is unreachable; UDP itself would wait 32 s.
const PATIENCE: Duration = Duration::from_secs(8);
/// Pause after the first failure; doubles up to [`MAX_BACKOFF`].
const MIN_BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(60);
/// A password that worked before is tried again this rarely: the registrar may be restoring its data.
const REFUSED_RETRY: Duration = Duration::from_secs(600);
/// Expiry asked for when the configuration says 0 \[s\].
const DEFAULT_EXPIRES_S: u32 = 300;

/// Where an account stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistrationState {
    /// The first attempt, or one after a failure, is under way.
    Trying,
    /// Calls to this account reach us.
    Registered {
        /// Granted lifetime \[s\].
        expires_s: u32,
    },
    /// The registrar does not want us: wrong password or unknown account. Said once; attempts have stopped.
    Refused {
        /// SIP status.
        status: u16,
        /// What it means and what to do.
        reason: String,
    },
    /// No usable answer; will be tried again.
    Unreachable {
        /// What went wrong.
        reason: String,
        /// Next attempt \[s\].
        retry_in_s: u32,
    },
}

enum Outcome {
    Registered {
        expires_s: u32,
    },
    Refused {
        status: u16,
        reason: String,
    },
    Failed {
        reason: String,
        retry_after: Option<Duration>,
    },
}

/// Holds one registration until `cancel`, then gives it up.
pub(crate) async fn run(
    core: Arc<Core>,
    account: Account,
    events: mpsc::Sender<SipEvent>,
    cancel: CancellationToken,
) {
    let Ok(server) = parse_registrar(&account) else {
        // `start` checked it.
        return;
    };
    let mut task = Task::new(core, account, server, events);
    tokio::select! {
        () = cancel.cancelled() => {}
        () = task.hold() => {}
    }
    if task.registered {
        let _ = tokio::time::timeout(
            Duration::from_secs(1),
            task.registration.register(task.server.clone(), Some(0)),
        )
        .await;
    }
}

struct Task {
    core: Arc<Core>,
    account: Account,
    server: Uri,
    events: mpsc::Sender<SipEvent>,
    registration: Registration,
    expires_s: u32,
    registered: bool,
    ever_registered: bool,
    refusal_said: bool,
    backoff: Duration,
}

impl Task {
    fn new(core: Arc<Core>, account: Account, server: Uri, events: mpsc::Sender<SipEvent>) -> Task {
        let credential = Credential {
            username: account.username.clone(),
            password: account.password.clone(),
            realm: account.realm.clone(),
            auth_username: account.auth_user.clone(),
        };
        let registration = Registration::new(core.endpoint.clone(), Some(credential));
        if let Some(realm) = &account.realm {
            lock(&core.realms).insert(registration.call_id.value().to_string(), realm.clone());
        }
        let expires_s = if account.expires_s == 0 {
            DEFAULT_EXPIRES_S
        } else {
            account.expires_s
        };
        Task {
            core,
            account,
            server,
            events,
            registration,
            expires_s,
            registered: false,
            ever_registered: false,
            refusal_said: false,
            backoff: MIN_BACKOFF,
        }
    }

    async fn hold(&mut self) {
        self.tell(RegistrationState::Trying).await;
        loop {
            let outcome = match self.attempt().await {
                Ok(outcome) => outcome,
                Err(error) => Outcome::Failed {
                    reason: error.to_string(),
                    retry_after: None,
                },
            };
            let pause = match outcome {
                Outcome::Registered { expires_s } => {
                    if !self.registered {
                        self.tell(RegistrationState::Registered { expires_s }).await;
                    }
                    self.registered = true;
                    self.ever_registered = true;
                    self.refusal_said = false;
                    self.backoff = MIN_BACKOFF;
                    REFRESH
                        .min(Duration::from_secs(u64::from(expires_s)) / 2)
                        .max(Duration::from_secs(1))
                }
                Outcome::Refused { status, reason } => {
                    self.registered = false;
                    if !std::mem::replace(&mut self.refusal_said, true) {
                        self.tell(RegistrationState::Refused { status, reason }).await;
                    }
                    if !self.ever_registered {
                        return;
                    }
                    jittered(REFUSED_RETRY)
                }
                Outcome::Failed { reason, retry_after } => {
                    self.registered = false;
                    let pause = retry_after
                        .unwrap_or_else(|| jittered(self.backoff))
                        .min(MAX_BACKOFF * 10);
                    self.backoff = (self.backoff * 2).min(MAX_BACKOFF);
                    let retry_in_s = u32::try_from(pause.as_secs_f32().ceil() as u64).unwrap_or(u32::MAX);
                    self.tell(RegistrationState::Unreachable { reason, retry_in_s })
                        .await;
                    pause
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Tries the registrar's servers in their order until one answers.
    async fn attempt(&mut self) -> Result<Outcome, SipError> {
        let servers = self.core.locator.servers(&self.server).await?;
        let addresses = servers.iter().map(|server| server.addr.ip().to_canonical());
        self.core
            .gate
            .set_registrar(&self.account.name, addresses.collect());
        let mut outcome = Outcome::Failed {
            reason: "the registrar's name has no address".to_string(),
            retry_after: None,
        };
        for server in servers {
            // The library asks the same locator, and is told the first that is not down: this one.
            outcome = self.attempt_at(server).await?;
            match outcome {
                // Not the 423, which is answered at once.
                Outcome::Failed { retry_after, .. } if retry_after.is_none_or(|wait| wait >= MIN_BACKOFF) => {
                    self.core.locator.failed(server.addr, retry_after);
                }
                _ => {
                    self.core.locator.works(server.addr);
                    break;
                }
            }
        }
        Ok(outcome)
    }

    async fn attempt_at(&mut self, server: Server) -> Result<Outcome, SipError> {
        if self.registration.contact.is_none() {
            let uri = self
                .core
                .contact(&self.account.username, server.addr.ip(), self.transport())?;
            self.registration.contact = Some(typed::Contact {
                display_name: None,
                uri,
                params: Vec::new(),
            });
        }
        if let Err(error) = tls::ensure(&self.core, server, &self.server, &self.account.trust).await {
            return Ok(Outcome::Failed {
                reason: error.to_string(),
                retry_after: None,
            });
        }
        let register = self
            .registration
            .register(self.server.clone(), Some(self.expires_s));
        let failed = |reason| Outcome::Failed {
            reason,
            retry_after: None,
        };
        match tokio::time::timeout(PATIENCE, register).await {
            Ok(Ok(response)) => Ok(self.judge(&response)),
            Ok(Err(error)) => Ok(failed(SipError::from(error).to_string())),
            Err(_) => Ok(failed(format!(
                "no answer from {} within {} s",
                server.addr,
                PATIENCE.as_secs()
            ))),
        }
    }

    fn judge(&mut self, response: &Response) -> Outcome {
        let status = response.status_code.code();
        let phrase = response.status_code.text();
        let refused = |what: &str| Outcome::Refused {
            status,
            reason: format!("{status} {phrase}: {what}"),
        };
        match status {
            200 => Outcome::Registered {
                expires_s: self.registration.expires(),
            },
            401 | 407 => {
                refused("the registrar does not accept the user name or password; correct them and restart")
            }
            403 => refused(
                "the registrar forbids this account to register; check user name, password and its permissions",
            ),
            404 => refused("the registrar does not know this account; check the user name and registrar"),
            423 => {
                let asked = header_number(response, |h| match h {
                    Header::MinExpires(v) => Some(v.value()),
                    _ => None,
                });
                self.expires_s = asked
                    .unwrap_or(self.expires_s.saturating_mul(2))
                    .clamp(60, 86_400);
                Outcome::Failed {
                    reason: format!("{status} {phrase}"),
                    retry_after: Some(Duration::from_millis(100)),
                }
            }
            _ => {
                let wait = header_number(response, |h| match h {
                    Header::RetryAfter(v) => Some(v.value()),
                    _ => None,
                });
                let retry_after = wait.map(|s| Duration::from_secs(u64::from(s.max(1))));
                let reason = match status {
                    408 => format!("no answer from {}", self.account.registrar),
                    _ => format!("the registrar answered {status} {phrase}"),
                };
                Outcome::Failed { reason, retry_after }
            }
        }
    }

    fn transport(&self) -> Transport {
        self.server
            .transport()
            .map_or(Transport::Udp, |transport| Transport::of(*transport))
    }

    async fn tell(&self, state: RegistrationState) {
        let event = SipEvent::Registration {
            account: self.account.name.clone(),
            state,
        };
        if self.events.send(event).await.is_err() {
            tracing::debug!("nobody listens to registration events");
        }
    }
}

/// Half to all of `pause`: several boxes do not return in step after a power cut.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::random_range(0.5..=1.0))
}

fn header_number<'a>(response: &'a Response, pick: impl Fn(&'a Header) -> Option<&'a str>) -> Option<u32> {
    let value = response.headers.iter().find_map(pick)?;
    value.split([';', '(', ' ']).next()?.trim().parse().ok()
}

/// # Errors
/// [`SipError::BadAddress`] with what would be accepted.
pub(crate) fn parse_registrar(account: &Account) -> Result<Uri, SipError> {
    let bad = || SipError::BadAddress {
        text: account.registrar.clone(),
        expected: "a registrar such as pbx.example, 192.0.2.1:5060 or pbx.example;transport=tcp (or tls)",
    };
    let text = account.registrar.trim().trim_start_matches("sip:");
    if text.is_empty() || text.contains(char::is_whitespace) || text.contains('@') {
        return Err(bad());
    }
    let mut uri = Uri::try_from(format!("sip:{text}").as_str()).map_err(|_| bad())?;
    match uri.transport() {
        Some(sip::Transport::Udp | sip::Transport::Tcp | sip::Transport::Tls) => {}
        Some(_) => return Err(bad()),
        None => {
            let transport = match account.transport {
                Transport::Udp => None,
                Transport::Tcp => Some(sip::Transport::Tcp),
                Transport::Tls => Some(sip::Transport::Tls),
            };
            uri.params.extend(transport.map(sip::Param::Transport));
        }
    }
    Ok(uri)
}
