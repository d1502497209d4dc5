//! What the library leaves out of its messages, added on their way through.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use rsipstack::sip::{Header, HeadersExt as _, Method, Param, Response, SipMessage, StatusCodeKind, Uri};
use rsipstack::transaction::endpoint::MessageInspector;
use rsipstack::transport::SipAddr;

use crate::core::lock;
use crate::digest;
use crate::wire::{ALLOW, SUPPORTED};

/// Realm to prefer, by the Call-ID of the request.
pub(crate) type Realms = Arc<Mutex<HashMap<String, String>>>;

/// A header for the final refusal of an INVITE, by Call-ID: Contact of a 302, Retry-After of a 503.
pub(crate) type Extras = Arc<Mutex<HashMap<String, Header>>>;

/// Call-IDs whose remote target lies behind a proxy: the library adds our hop's transport to it, but it is not ours to
/// choose how the last proxy reaches the caller.
pub(crate) type Proxied = Arc<Mutex<HashSet<String>>>;

/// Where the far end of an unanswered call of ours is, by Call-ID: the library sends PRACK to the address that was
/// dialled, past the proxies that recorded themselves (RFC 3262 §4, RFC 3261 §12.1.2).
pub(crate) type Early = Arc<Mutex<HashMap<String, EarlyTarget>>>;

pub(crate) struct EarlyTarget {
    target: Uri,
    routes: Vec<String>,
}

/// Call-IDs of outgoing INVITEs under way.
pub(crate) type Dialled = Arc<Mutex<HashSet<String>>>;

#[derive(Default)]
pub(crate) struct Inspector {
    pub realms: Realms,
    pub extras: Extras,
    pub proxied: Proxied,
    pub early: Early,
    pub dialled: Dialled,
}

impl MessageInspector for Inspector {
    fn before_send(&self, mut msg: SipMessage, _dest: Option<&SipAddr>) -> SipMessage {
        match &mut msg {
            SipMessage::Request(request) => {
                for header in request.headers.iter_mut() {
                    match header {
                        Header::Authorization(h) => *h = digest::fix_credentials(h.value()).into(),
                        Header::ProxyAuthorization(h) => *h = digest::fix_credentials(h.value()).into(),
                        _ => {}
                    }
                }
                let id = request
                    .call_id_header()
                    .map(|id| id.value().to_string())
                    .unwrap_or_default();
                if lock(&self.proxied).contains(&id) {
                    request.uri.params.retain(|p| !matches!(p, Param::Transport(_)));
                }
                if request.method == Method::PRack
                    && let Some(early) = lock(&self.early).get(&id)
                {
                    request.uri = early.target.clone();
                    request.headers.retain(|h| !matches!(h, Header::Route(_)));
                    for route in &early.routes {
                        request.headers.push(Header::Route(route.clone().into()));
                    }
                }
                if request.method == Method::Register {
                    // An address of record has no transport; the library copies the registrar's.
                    for header in request.headers.iter_mut() {
                        match header {
                            Header::From(h) => *h = without_transport(h.value()).into(),
                            Header::To(h) => *h = without_transport(h.value()).into(),
                            _ => {}
                        }
                    }
                }
                if matches!(request.method, Method::Invite | Method::Update | Method::Refer) {
                    request.headers.unique_push(Header::Allow(ALLOW.into()));
                    request.headers.unique_push(Header::Supported(SUPPORTED.into()));
                }
            }
            SipMessage::Response(response) => {
                for header in response.headers.iter_mut() {
                    if let Header::Via(via) = header {
                        *via = crate::via::restore(via.value()).into();
                        break;
                    }
                }
                let method = response.cseq_header().and_then(|cseq| cseq.method());
                let is_success = response.status_code.kind() == StatusCodeKind::Successful;
                if response.status_code.code() >= 300 && matches!(method, Ok(Method::Invite)) {
                    let id = response
                        .call_id_header()
                        .map(|id| id.value().to_string())
                        .unwrap_or_default();
                    // Retransmissions repeat the message as it leaves here.
                    if let Some(header) = lock(&self.extras).remove(&id) {
                        response.headers.unique_push(header);
                    }
                }
                let invites =
                    matches!(method, Ok(Method::Invite | Method::Options | Method::Update)) && is_success;
                if invites || response.status_code.code() == 405 {
                    response.headers.unique_push(Header::Allow(ALLOW.into()));
                }
                if invites {
                    response
                        .headers
                        .unique_push(Header::Accept("application/sdp, application/dtmf-relay".into()));
                    response.headers.unique_push(Header::Supported(SUPPORTED.into()));
                }
            }
        }
        msg
    }

    fn after_received(&self, mut msg: SipMessage, _from: Option<&SipAddr>) -> SipMessage {
        if let SipMessage::Response(response) = &mut msg
            && matches!(response.status_code.code(), 101..200)
            && response.rseq_value().is_some()
        {
            self.note_early(response);
        }
        if let SipMessage::Response(response) = &mut msg
            && matches!(response.status_code.code(), 401 | 407)
        {
            let realm = response
                .call_id_header()
                .ok()
                .and_then(|id| lock(&self.realms).get(id.value()).cloned());
            let www: Vec<&str> = response.headers.iter().filter_map(www_authenticate).collect();
            let proxy: Vec<&str> = response.headers.iter().filter_map(proxy_authenticate).collect();
            let www = digest::choose_challenge(&www, realm.as_deref());
            let proxy = digest::choose_challenge(&proxy, realm.as_deref());
            if let Some(www) = www {
                response.headers.retain(|h| www_authenticate(h).is_none());
                response.headers.push(Header::WwwAuthenticate(www.into()));
            }
            if let Some(proxy) = proxy {
                response.headers.retain(|h| proxy_authenticate(h).is_none());
                response.headers.push(Header::ProxyAuthenticate(proxy.into()));
            }
        }
        msg
    }
}

impl Inspector {
    fn note_early(&self, response: &Response) {
        let (Ok(id), Ok(contacts)) = (response.call_id_header(), response.typed_contact_headers()) else {
            return;
        };
        let Some(contact) = contacts.into_iter().next() else {
            return;
        };
        let mut routes: Vec<String> = response
            .record_route_headers()
            .into_iter()
            .flat_map(|route| split_addresses(route.value()))
            .collect();
        routes.reverse();
        // Held until it is noted: the end of the call takes the note away. One that comes later is not kept.
        let dialled = lock(&self.dialled);
        if dialled.contains(id.value()) {
            lock(&self.early).insert(
                id.value().to_string(),
                EarlyTarget {
                    target: contact.uri,
                    routes,
                },
            );
        }
    }
}

/// `<sip:a;lr>, <sip:b;lr>`: the addresses one by one.
fn split_addresses(value: &str) -> Vec<String> {
    let mut parts = Vec::new();
    let mut rest = value;
    while let Some(end) = rest.find('>') {
        // Parameters behind the bracket belong to the address before.
        let comma = rest
            .get(end..)
            .and_then(|r| r.find(','))
            .map_or(rest.len(), |at| end + at);
        let (part, more) = rest.split_at(comma);
        parts.push(part.trim().to_string());
        rest = more.strip_prefix(',').unwrap_or(more);
    }
    if !rest.trim().is_empty() {
        parts.push(rest.trim().to_string());
    }
    parts
}

fn without_transport(value: &str) -> String {
    value
        .replacen(";transport=TCP", "", 1)
        .replacen(";transport=UDP", "", 1)
        .replacen(";transport=TLS", "", 1)
}

fn www_authenticate(header: &Header) -> Option<&str> {
    match header {
        Header::WwwAuthenticate(h) => Some(h.value()),
        _ => None,
    }
}

fn proxy_authenticate(header: &Header) -> Option<&str> {
    match header {
        Header::ProxyAuthenticate(h) => Some(h.value()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_routes_are_split_at_their_brackets() {
        let cases: &[(&str, &[&str])] = &[
            ("<sip:a;lr>", &["<sip:a;lr>"]),
            ("<sip:a;lr>,<sip:b;lr>;x=1", &["<sip:a;lr>", "<sip:b;lr>;x=1"]),
            ("<sip:a,b@h;lr> , <sip:c>", &["<sip:a,b@h;lr>", "<sip:c>"]),
            ("sip:a", &["sip:a"]),
            ("", &[]),
        ];
        for (value, want) in cases {
            assert_eq!(split_addresses(value), *want, "{value}");
        }
    }
}
