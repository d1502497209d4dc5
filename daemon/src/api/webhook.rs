//! Webhook: the audit chain as it grows, to systems on the premises.
//!
//! ```text
//! chain ─> entries of the wanted kinds, up to 50 ─> POST, signed ─> 2xx: told (kept in the record) │ else: again, later
//! ```
//! The chain is the queue: nothing is lost while a system is away or the box restarts, nothing is held in memory, and what
//! was not acknowledged comes again (at least once; `X-Attendant-Delivery` names it). Each body is signed:
//! `X-Attendant-Signature: sha256=HMAC-SHA256(secret, timestamp "." body)`. Source: RFC 2104 (HMAC), RFC 9112 (HTTP/1.1).
//! Plain HTTP, for the local network; entries hold no personal data.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use axum::http::Uri;
use ring::hmac;
use serde::Deserialize;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{Api, live::Tail, views::EntryView};
use crate::clock;

/// Entries of one delivery.
const BATCH: usize = 50;
/// How long entries are gathered for one delivery.
const GATHER: Duration = Duration::from_millis(250);
/// Longest a delivery may take.
const BOUND: Duration = Duration::from_secs(10);
/// Between two tries: doubled each time, from the first to the second.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// As much of an answer as is read [octets].
const MAX_ANSWER: u64 = 4_096;

/// `[[api.webhook]]`.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookSection {
    /// `http://host:port/path`.
    pub url: String,
    /// Signs the deliveries.
    #[serde(default)]
    pub secret: Option<String>,
    /// File whose first line is the secret.
    #[serde(default)]
    pub secret_file: Option<PathBuf>,
    /// Kinds of entries; without it sessions, turns, recordings, guardrails and transfers.
    #[serde(default = "kinds")]
    pub kinds: Vec<String>,
}

fn kinds() -> Vec<String> {
    ["session", "turn", "recording", "guardrail", "transfer"]
        .map(str::to_owned)
        .to_vec()
}

impl std::fmt::Debug for WebhookSection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebhookSection")
            .field("url", &self.url)
            .field("kinds", &self.kinds)
            .finish_non_exhaustive()
    }
}

impl WebhookSection {
    /// Reads the secret and checks the address; `base` is the configuration's directory.
    ///
    /// # Errors
    /// What is wrong and what would be accepted.
    pub fn check(&mut self, base: &Path) -> Result<(), String> {
        if let Some(file) = &self.secret_file {
            let file = base.join(file);
            let text = std::fs::read_to_string(&file)
                .map_err(|error| format!("webhook '{}': {}: {error}", self.url, file.display()))?;
            self.secret = text.lines().next().map(str::to_owned);
        }
        if self.secret.as_ref().is_none_or(|secret| secret.len() < 16) {
            return Err(format!(
                "webhook '{}' needs a secret (or secret_file) of at least 16 characters",
                self.url
            ));
        }
        place(&self.url).map_err(|error| format!("webhook '{}': {error}", self.url))?;
        if self.url.len() > 400 || self.kinds.is_empty() {
            return Err(format!(
                "webhook '{}': at most 400 characters, and at least one kind",
                self.url
            ));
        }
        Ok(())
    }
}

/// Host, port and path of an address.
fn place(url: &str) -> anyhow::Result<(String, u16, String)> {
    let uri: Uri = url.parse().context("this is no address")?;
    ensure!(
        uri.scheme_str() == Some("http"),
        "wanted is http://host:port/path"
    );
    let host = uri.host().context("it names no host")?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    Ok((host.to_owned(), uri.port_u16().unwrap_or(80), path.to_owned()))
}

/// Tells one system, for as long as the daemon runs.
pub async fn run(api: Api, hook: WebhookSection) {
    let url = hook.url.clone();
    let after = loop {
        let known = url.clone();
        match api.store(move |store| store.webhook(&known)).await {
            Ok(after) => break after,
            Err(_) => tokio::time::sleep(AGAIN.1).await,
        }
    };
    let mut tail = Tail::new(&api, after);
    loop {
        let (entries, told) = gather(&mut tail, &hook.kinds).await;
        if !entries.is_empty() {
            deliver_until_taken(&hook, &entries).await;
        }
        let known = url.clone();
        // What cannot be noted is told again after a restart.
        drop(api.store(move |store| store.webhook_told(&known, told)).await);
    }
}

/// Entries of the wanted kinds, and the number of the last that was looked at.
async fn gather(tail: &mut Tail, kinds: &[String]) -> (Vec<EntryView>, i64) {
    let mut entries = Vec::new();
    let mut entry = tail.next().await;
    let until = tokio::time::Instant::now() + GATHER;
    loop {
        let told = entry.seq;
        if kinds.contains(&entry.kind) {
            entries.push(entry);
        }
        if entries.len() >= BATCH {
            return (entries, told);
        }
        match tokio::time::timeout_at(until, tail.next()).await {
            Ok(next) => entry = next,
            Err(_) => return (entries, told),
        }
    }
}

async fn deliver_until_taken(hook: &WebhookSection, entries: &[EntryView]) {
    let mut wait = AGAIN.0;
    let mut failed = 0_u32;
    loop {
        let taken = tokio::time::timeout(BOUND, deliver(hook, entries)).await;
        let error = match taken {
            Ok(Ok(())) => {
                if failed > 0 {
                    tracing::info!(failed, "a webhook takes deliveries again");
                }
                return;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        failed += 1;
        if failed == 1 {
            tracing::warn!(error, "a webhook does not take deliveries; they are tried again");
        }
        // Not all boxes at once.
        tokio::time::sleep(wait.mul_f64(rand::random_range(0.8..1.2))).await;
        wait = (wait * 2).min(AGAIN.1);
    }
}

async fn deliver(hook: &WebhookSection, entries: &[EntryView]) -> anyhow::Result<()> {
    let (host, port, path) = place(&hook.url)?;
    let body = json!({ "entries": entries }).to_string();
    let at = (clock::unix_ms() / 1_000).to_string();
    let secret = hook.secret.as_deref().unwrap_or_default();
    let signature = sign(secret, &at, &body);
    let seq = |entry: Option<&EntryView>| entry.map_or(0, |entry| entry.seq);
    let (first, last) = (seq(entries.first()), seq(entries.last()));
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         X-Attendant-Delivery: {first}-{last}\r\nX-Attendant-Timestamp: {at}\r\n\
         X-Attendant-Signature: sha256={signature}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    // An IPv6 address stands in brackets in a URL, and without them in a socket's address.
    let mut stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    let mut limited = stream.take(MAX_ANSWER);
    // The first line tells all; who keeps the line open must not keep us.
    while !answer.contains(&b'\n') {
        if limited.read_buf(&mut answer).await? == 0 {
            break;
        }
    }
    let line = String::from_utf8_lossy(&answer);
    let status = line
        .split_whitespace()
        .nth(1)
        .and_then(|status| status.parse::<u16>().ok());
    match status {
        Some(200..=299) => Ok(()),
        Some(status) => bail!("it answered {status}"),
        None => bail!("it did not answer in HTTP"),
    }
}

/// HMAC-SHA256 over the time and the body, hexadecimal.
fn sign(secret: &str, at: &str, body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let tag = hmac::sign(&key, format!("{at}.{body}").as_bytes());
    tag.as_ref().iter().map(|octet| format!("{octet:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        assert_eq!(
            place("http://pbx:8080/a?b=1").expect("url"),
            ("pbx".into(), 8080, "/a?b=1".into())
        );
        assert_eq!(
            place("http://10.0.0.1").expect("url"),
            ("10.0.0.1".into(), 80, "/".into())
        );
        for bad in ["", "pbx", "https://pbx/", "ftp://pbx/", "/path"] {
            assert!(place(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_signature_covers_time_and_body() {
        // `printf '1.{}' | openssl dgst -sha256 -hmac secret-of-16-chars`
        let signed = sign("secret-of-16-chars", "1", "{}");
        assert_eq!(
            signed,
            "3bf6c2006179a13dcd088b893f27ceefe685b1cc6df91acddb27f26366bd6e7e"
        );
        assert_ne!(signed, sign("secret-of-16-chars", "2", "{}"));
        assert_ne!(signed, sign("secret-of-16-chars", "1", "{ }"));
        assert_ne!(signed, sign("another-secret-16", "1", "{}"));
    }

    #[test]
    fn a_hook_without_a_secret_is_refused() {
        let mut hook = WebhookSection {
            url: "http://pbx/".into(),
            secret: None,
            secret_file: None,
            kinds: kinds(),
        };
        assert!(hook.check(Path::new("/")).is_err());
        hook.secret = Some("0123456789abcdef".into());
        assert!(hook.check(Path::new("/")).is_ok());
        assert!(!format!("{hook:?}").contains("0123456789abcdef"));
    }
}
