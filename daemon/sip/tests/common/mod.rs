//! Two of our own endpoints on the loopback interface.

#![allow(dead_code)]

pub mod raw;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use attendant_sip::{
    Account, DialogEvent, IncomingCall, Peer, RegistrationState, Sip, SipConfig, SipEvent, SrtpPolicy,
    TlsTrust, Transport, start,
};
use tokio::sync::mpsc;
use tokio::time::timeout;

pub const SOON: Duration = Duration::from_secs(5);

/// `ip` keeps tests that run at once apart: each takes its own 127.0.0.x, and with it all ports.
pub fn config(ip: &str, tcp: bool) -> SipConfig {
    let ip: IpAddr = ip.parse().unwrap();
    SipConfig {
        udp: Some(SocketAddr::new(ip, 0)),
        tcp: tcp.then_some(SocketAddr::new(ip, 0)),
        rtp_ports: (20_000, 20_199),
        max_calls: 200,
        ..SipConfig::default()
    }
}

pub fn peer(net: &str) -> Peer {
    Peer {
        name: "peer".to_string(),
        net: net.parse().unwrap(),
        srtp: SrtpPolicy::Offered,
    }
}

pub struct Line {
    pub sip: Sip,
    pub events: mpsc::Receiver<SipEvent>,
}

impl Line {
    pub async fn start(config: SipConfig) -> Line {
        let (sip, events) = start(config).await.unwrap();
        Line { sip, events }
    }

    /// A line that answers whoever calls from `caller`.
    pub async fn answering(ip: &str, caller: &str) -> Line {
        Line::start(SipConfig {
            peers: vec![peer(caller)],
            ..config(ip, true)
        })
        .await
    }

    /// A line that only calls.
    pub async fn calling(ip: &str) -> Line {
        Line::start(config(ip, false)).await
    }

    pub fn addr(&self, transport: Transport) -> SocketAddr {
        self.sip
            .local_addrs()
            .into_iter()
            .find(|(t, _)| *t == transport)
            .unwrap()
            .1
    }

    pub fn uri(&self, transport: Transport) -> String {
        let addr = self.addr(transport);
        match transport {
            Transport::Udp => format!("sip:100@{addr}"),
            Transport::Tcp => format!("sip:100@{addr};transport=tcp"),
            Transport::Tls => format!("sip:100@{addr};transport=tls"),
        }
    }

    pub async fn incoming(&mut self) -> IncomingCall {
        match timeout(SOON, self.events.recv()).await.expect("a call in time") {
            Some(SipEvent::Incoming(call)) => call,
            other => panic!("expected a call, got {other:?}"),
        }
    }

    pub async fn registration(&mut self, patience: Duration) -> RegistrationState {
        match timeout(patience, self.events.recv())
            .await
            .expect("a registration event in time")
        {
            Some(SipEvent::Registration { state, .. }) => state,
            other => panic!("expected a registration, got {other:?}"),
        }
    }

    pub async fn idle(&self) {
        let quiet = async {
            while self.sip.active_dialogs() > 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(SOON, quiet).await.expect("all dialogs over");
    }
}

pub async fn next(events: &mut mpsc::Receiver<DialogEvent>) -> Option<DialogEvent> {
    timeout(SOON, events.recv()).await.expect("an event in time")
}

pub fn account(registrar: SocketAddr, password: &str) -> Account {
    Account {
        name: "office".to_string(),
        registrar: registrar.to_string(),
        username: "100".to_string(),
        password: password.to_string(),
        auth_user: None,
        realm: None,
        expires_s: 60,
        transport: Transport::Udp,
        srtp: SrtpPolicy::Offered,
        trust: TlsTrust::default(),
    }
}
