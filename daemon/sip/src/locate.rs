//! Where a SIP address is: servers in order, and around those that are down.
//!
//! ```text
//! host:port ──> addresses          bare domain ──> SRV by priority and weight, else addresses on the standard port
//!                        `──> those that failed within the last minute go to the end
//! ```
//! The library asks here, too, so that a request and its CANCEL reach the same server. The first server is used again as
//! soon as its minute is over. Source: RFC 3263 §4, RFC 2782.

use std::collections::HashMap;
use std::fmt::Debug;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::RData;
use rsipstack::resolver::sip_resolver::{LookupSource, SrvRecord, resolve_logic};
use rsipstack::sip::uri::ParamsExt as _;
use rsipstack::sip::{Domain, Host, Transport, Uri};
use rsipstack::transport::SipAddr;
use rsipstack::transport::transport_layer::DomainResolver;

use crate::core::lock;
use crate::error::SipError;

/// How long an answer of the DNS is used.
const FRESH: Duration = Duration::from_secs(60);
/// How long a server that failed is tried last.
const DOWN: Duration = Duration::from_secs(60);
/// Longest that a server may ask to be left alone.
const LONGEST_DOWN: Duration = Duration::from_secs(3600);
/// Longest wait for SRV records: a box without DNS still finds `pbx.lan` in its hosts file.
const SRV_PATIENCE: Duration = Duration::from_secs(3);
/// Names and servers remembered at once.
const MAX_KNOWN: usize = 256;

/// One SRV record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Srv {
    /// Host name of the server.
    pub target: String,
    /// Its port.
    pub port: u16,
    /// Lower is tried first.
    pub priority: u16,
    /// Share among those of the same priority.
    pub weight: u16,
}

/// Who answers questions about names.
#[async_trait]
pub trait Names: Send + Sync + Debug {
    /// SRV records of a name such as `_sip._udp.example.com`; none when there are none.
    async fn srv(&self, name: &str) -> Vec<Srv>;

    /// Addresses of a host.
    ///
    /// # Errors
    /// When it has none.
    async fn addresses(&self, host: &str) -> io::Result<Vec<IpAddr>>;
}

/// The system's DNS and hosts file.
#[derive(Debug)]
struct SystemNames {
    dns: Option<TokioResolver>,
}

impl SystemNames {
    fn new() -> SystemNames {
        let dns = TokioResolver::builder_tokio().and_then(|builder| builder.build());
        SystemNames { dns: dns.ok() }
    }
}

#[async_trait]
impl Names for SystemNames {
    async fn srv(&self, name: &str) -> Vec<Srv> {
        let Some(dns) = &self.dns else { return Vec::new() };
        let Ok(Ok(found)) = tokio::time::timeout(SRV_PATIENCE, dns.srv_lookup(name)).await else {
            return Vec::new();
        };
        let records = found
            .message()
            .all_sections()
            .filter_map(|record| match &record.data {
                RData::SRV(srv) => Some(Srv {
                    target: srv.target.to_string().trim_end_matches('.').to_string(),
                    port: srv.port,
                    priority: srv.priority,
                    weight: srv.weight,
                }),
                _ => None,
            });
        records.collect()
    }

    async fn addresses(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let mut found: Vec<IpAddr> = tokio::net::lookup_host((host, 0))
            .await?
            .map(|addr| addr.ip())
            .collect();
        found.sort_by_key(|ip| !ip.is_ipv4());
        found.dedup();
        Ok(found)
    }
}

/// The library's order of records over our names.
struct Source<'a>(&'a dyn Names);

#[async_trait]
impl LookupSource for Source<'_> {
    async fn lookup_srv(&self, name: &str) -> Result<Vec<SrvRecord>, String> {
        let records = self.0.srv(name).await.into_iter().map(|srv| SrvRecord {
            target: srv.target,
            port: srv.port,
            priority: srv.priority,
            weight: srv.weight,
        });
        Ok(records.collect())
    }

    async fn lookup_a_aaaa(&self, name: &str) -> Result<Vec<IpAddr>, String> {
        self.0.addresses(name).await.map_err(|error| error.to_string())
    }
}

/// A place to send requests to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Server {
    pub addr: SocketAddr,
    pub transport: Transport,
}

type Asked = (String, Option<u16>, Option<Transport>);

#[derive(Debug)]
struct Known {
    servers: Vec<Server>,
    at: Instant,
}

/// Knows where names are and which servers are down.
#[derive(Debug, Clone)]
pub(crate) struct Locator {
    names: Arc<dyn Names>,
    known: Arc<Mutex<HashMap<Asked, Known>>>,
    down: Arc<Mutex<HashMap<SocketAddr, Instant>>>,
}

impl Locator {
    /// Asks `names`, or the system.
    pub fn new(names: Option<Arc<dyn Names>>) -> Locator {
        Locator {
            names: names.unwrap_or_else(|| Arc::new(SystemNames::new())),
            known: Arc::default(),
            down: Arc::default(),
        }
    }

    /// Servers of an address in the order to try them; at least one.
    ///
    /// # Errors
    /// [`SipError::Unresolved`].
    pub async fn servers(&self, uri: &Uri) -> Result<Vec<Server>, SipError> {
        let port = uri.host_with_port.port.map(|port| port.value());
        self.find(&uri.host_with_port.host, port, uri.transport().copied())
            .await
    }

    async fn find(
        &self,
        host: &Host,
        port: Option<u16>,
        transport: Option<Transport>,
    ) -> Result<Vec<Server>, SipError> {
        let domain = match host {
            Host::IpAddr(ip) => {
                let transport = transport.unwrap_or_default();
                let port = port.unwrap_or_else(|| transport.default_port().value());
                let addr = SocketAddr::new(*ip, port);
                return Ok(vec![Server { addr, transport }]);
            }
            Host::Domain(domain) => domain,
        };
        let asked = (domain.to_string().to_ascii_lowercase(), port, transport);
        let now = Instant::now();
        let fresh = {
            let known = lock(&self.known);
            let entry = known.get(&asked).filter(|entry| now - entry.at < FRESH);
            entry.map(|entry| entry.servers.clone())
        };
        let servers = match fresh {
            Some(servers) => servers,
            None => self.look_up(domain, asked, now).await?,
        };
        Ok(self.in_order(servers, now))
    }

    async fn look_up(&self, domain: &Domain, asked: Asked, now: Instant) -> Result<Vec<Server>, SipError> {
        let (_, port, transport) = asked;
        let source = Source(self.names.as_ref());
        let found = resolve_logic(&source, domain, port.map(Into::into), transport, false).await;
        let mut known = lock(&self.known);
        match found {
            Ok(targets) if !targets.is_empty() => {
                let servers: Vec<Server> = targets
                    .into_iter()
                    .map(|target| Server {
                        addr: target.addr,
                        transport: target.transport,
                    })
                    .collect();
                if known.len() >= MAX_KNOWN {
                    known.retain(|_, entry| now - entry.at < FRESH);
                }
                if known.len() < MAX_KNOWN {
                    let entry = Known {
                        servers: servers.clone(),
                        at: now,
                    };
                    known.insert(asked, entry);
                }
                Ok(servers)
            }
            // While the DNS is away, what it said last is better than nothing.
            _ => match known.get(&asked) {
                Some(entry) => Ok(entry.servers.clone()),
                None => Err(SipError::Unresolved { name: asked.0 }),
            },
        }
    }

    fn in_order(&self, mut servers: Vec<Server>, now: Instant) -> Vec<Server> {
        let down = lock(&self.down);
        // Stable: the order among the good ones, and among the bad ones, stays.
        servers.sort_by_key(|server| down.get(&server.addr).is_some_and(|until| now < *until));
        servers
    }

    /// `addr` did not answer, or said that it cannot: it is tried last for a while, or for as long as it said
    /// (Retry-After, RFC 3261 §20.33).
    pub fn failed(&self, addr: SocketAddr, said: Option<Duration>) {
        let now = Instant::now();
        let mut down = lock(&self.down);
        if down.len() >= MAX_KNOWN {
            down.retain(|_, until| now < *until);
        }
        if down.len() < MAX_KNOWN {
            down.insert(addr, now + said.unwrap_or(DOWN).min(LONGEST_DOWN));
        }
    }

    /// `addr` answered.
    pub fn works(&self, addr: SocketAddr) {
        lock(&self.down).remove(&addr);
    }
}

#[async_trait]
impl DomainResolver for Locator {
    async fn resolve(&self, target: &SipAddr) -> rsipstack::Result<SipAddr> {
        let port = target.addr.port.map(|port| port.value());
        let servers = self
            .find(&target.addr.host, port, target.r#type)
            .await
            .map_err(|error| rsipstack::Error::DnsResolutionError(error.to_string()))?;
        let first = servers
            .first()
            .ok_or_else(|| rsipstack::Error::DnsResolutionError("no server".to_string()))?;
        Ok(SipAddr {
            r#type: Some(first.transport),
            addr: first.addr.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[derive(Debug, Default)]
    struct Book {
        srv: HashMap<&'static str, Vec<Srv>>,
        hosts: HashMap<&'static str, IpAddr>,
        asked: AtomicU32,
    }

    #[async_trait]
    impl Names for Book {
        async fn srv(&self, name: &str) -> Vec<Srv> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            self.srv.get(name).cloned().unwrap_or_default()
        }

        async fn addresses(&self, host: &str) -> io::Result<Vec<IpAddr>> {
            let found = self.hosts.get(host).copied();
            found
                .map(|ip| vec![ip])
                .ok_or_else(|| io::ErrorKind::NotFound.into())
        }
    }

    fn srv(target: &str, port: u16, priority: u16, weight: u16) -> Srv {
        Srv {
            target: target.to_string(),
            port,
            priority,
            weight,
        }
    }

    fn book() -> Arc<Book> {
        let hosts = [
            ("a.example", [192, 0, 2, 1]),
            ("b.example", [192, 0, 2, 2]),
            ("plain.example", [192, 0, 2, 9]),
        ];
        Arc::new(Book {
            srv: HashMap::from([
                (
                    "_sip._udp.example",
                    vec![srv("b.example", 5070, 20, 0), srv("a.example", 5060, 10, 0)],
                ),
                ("_sip._tcp.stream", vec![srv("a.example", 5080, 1, 0)]),
            ]),
            hosts: hosts.into_iter().map(|(name, ip)| (name, ip.into())).collect(),
            asked: AtomicU32::default(),
        })
    }

    async fn addrs(locator: &Locator, uri: &str) -> Vec<String> {
        let servers = locator.servers(&Uri::try_from(uri).unwrap()).await;
        servers.map_or(Vec::new(), |servers| {
            servers
                .iter()
                .map(|server| format!("{} {}", server.addr, server.transport))
                .collect()
        })
    }

    #[tokio::test]
    async fn servers_come_in_the_order_of_the_rfc() {
        let locator = Locator::new(Some(book()));
        let cases: &[(&str, &[&str])] = &[
            ("sip:1@192.0.2.7", &["192.0.2.7:5060 UDP"]),
            ("sip:1@192.0.2.7:5099;transport=tcp", &["192.0.2.7:5099 TCP"]),
            ("sip:1@[2001:db8::1]", &["[2001:db8::1]:5060 UDP"]),
            ("sip:1@example", &["192.0.2.1:5060 UDP", "192.0.2.2:5070 UDP"]),
            // A port means: no SRV.
            ("sip:1@a.example:5061", &["192.0.2.1:5061 UDP"]),
            ("sip:1@stream", &["192.0.2.1:5080 TCP"]),
            ("sip:1@plain.example", &["192.0.2.9:5060 UDP"]),
            ("sip:1@nowhere.example", &[]),
        ];
        for (uri, want) in cases {
            assert_eq!(addrs(&locator, uri).await, *want, "{uri}");
        }
    }

    #[tokio::test]
    async fn a_server_that_failed_is_tried_last_until_it_answers() {
        let locator = Locator::new(Some(book()));
        let first: SocketAddr = "192.0.2.1:5060".parse().unwrap();
        locator.failed(first, None);
        assert_eq!(
            addrs(&locator, "sip:1@example").await,
            ["192.0.2.2:5070 UDP", "192.0.2.1:5060 UDP"]
        );
        locator.works(first);
        assert_eq!(
            addrs(&locator, "sip:1@example").await,
            ["192.0.2.1:5060 UDP", "192.0.2.2:5070 UDP"]
        );
        // Alone, it is still tried.
        locator.failed("192.0.2.9:5060".parse().unwrap(), None);
        assert_eq!(
            addrs(&locator, "sip:1@plain.example").await,
            ["192.0.2.9:5060 UDP"]
        );
        // After its minute it is the first again.
        lock(&locator.down).insert(first, Instant::now());
        assert_eq!(
            addrs(&locator, "sip:1@example").await.first().unwrap(),
            "192.0.2.1:5060 UDP"
        );
        // What it said itself counts, within bounds.
        for (said_s, least_s, most_s) in [(5, 0, 5), (120, 61, 120), (1_000_000, 3_599, 3_600)] {
            locator.failed(first, Some(Duration::from_secs(said_s)));
            let until = *lock(&locator.down).get(&first).unwrap();
            let left = until.saturating_duration_since(Instant::now()).as_secs();
            assert!(
                (least_s..=most_s).contains(&left),
                "{said_s} s said, {left} s left"
            );
        }
    }

    #[tokio::test]
    async fn answers_are_kept_a_while_and_longer_when_the_dns_is_away() {
        let names = book();
        let mut locator = Locator::new(Some(names.clone()));
        for _ in 0..5 {
            assert_eq!(addrs(&locator, "sip:1@example").await.len(), 2);
        }
        assert_eq!(names.asked.load(Ordering::SeqCst), 2, "UDP and TCP, once");
        for entry in lock(&locator.known).values_mut() {
            entry.at = Instant::now() - FRESH;
        }
        locator.names = Arc::new(Book::default());
        assert_eq!(addrs(&locator, "sip:1@example").await.len(), 2);
    }

    #[tokio::test]
    async fn the_table_of_names_is_bounded() {
        let locator = Locator::new(Some(book()));
        for n in 0..2 * u16::try_from(MAX_KNOWN).unwrap() {
            let uri = format!("sip:1@plain.example:{}", 1000 + n);
            assert_eq!(addrs(&locator, &uri).await.len(), 1);
            locator.failed(SocketAddr::new([10, 0, 0, 1].into(), n), None);
        }
        assert!(lock(&locator.known).len() <= MAX_KNOWN);
        assert!(lock(&locator.down).len() <= MAX_KNOWN);
    }
}
