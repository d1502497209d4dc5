//! A plain HTTP/1.1 client for the API's tests: one request a connection, so that each is as odd as a test wants it.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use anyhow::{Context, Result};
use serde_json::Value;

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where the API is, and who asks.
#[derive(Debug, Clone)]
pub struct Client {
    /// Host and port.
    pub address: String,
    /// Sent as the bearer's.
    pub token: String,
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// As it came.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as JSON; `Null` when it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// A header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }
}

impl Client {
    /// Of the address that a daemon tells (`http://host:port`).
    #[must_use]
    pub fn new(admin: &str, token: &str) -> Self {
        Self {
            address: admin.trim_start_matches("http://").to_owned(),
            token: token.to_owned(),
        }
    }

    /// The same for another token.
    #[must_use]
    pub fn with(&self, token: &str) -> Self {
        Self {
            token: token.to_owned(),
            ..self.clone()
        }
    }

    /// Sends a request without waiting for its answer.
    ///
    /// # Errors
    /// When nobody takes it.
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<TcpStream> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        let mut head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n",
            self.address
        );
        if !self.token.is_empty() {
            head += &format!("Authorization: Bearer {}\r\n", self.token);
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += &format!("Content-Length: {}\r\n\r\n", body.len());
        let mut request = head.into_bytes();
        request.extend_from_slice(body);
        stream.write_all(&request)?;
        Ok(stream)
    }

    /// Sends a request; its answer.
    ///
    /// # Errors
    /// When there is none, or it is no HTTP.
    pub fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Answer> {
        let mut octets = Vec::new();
        self.send(method, path, headers, body)?.read_to_end(&mut octets)?;
        let end = octets.windows(4).position(|four| four == b"\r\n\r\n");
        let (head, body) = octets.split_at(end.context("no end of the headers")? + 4);
        let head = String::from_utf8_lossy(head);
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split_whitespace().nth(1));
        Ok(Answer {
            status: status.context("no status")?.parse()?,
            headers: lines
                .filter_map(|line| line.split_once(": "))
                .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
                .collect(),
            body: body.to_vec(),
        })
    }

    /// GET.
    ///
    /// # Errors
    /// As for [`Client::ask`].
    pub fn get(&self, path: &str) -> Result<Answer> {
        self.ask("GET", path, &[], b"")
    }

    /// POST of JSON.
    ///
    /// # Errors
    /// As for [`Client::ask`].
    pub fn post(&self, path: &str, body: &Value) -> Result<Answer> {
        let body = body.to_string();
        self.ask(
            "POST",
            path,
            &[("Content-Type", "application/json")],
            body.as_bytes(),
        )
    }
}
