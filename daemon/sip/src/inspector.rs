//! What the library leaves out of its messages, added on their way through.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use rsipstack::sip::{Header, HeadersExt as _, Method, Param, SipMessage, StatusCodeKind};
use rsipstack::transaction::endpoint::MessageInspector;
use rsipstack::transport::SipAddr;

use crate::core::lock;
use crate::digest;
use crate::wire::ALLOW;

/// Realm to prefer, by the Call-ID of the request.
pub(crate) type Realms = Arc<Mutex<HashMap<String, String>>>;

/// A header for the final refusal of an INVITE, by Call-ID: Contact of a 302, Retry-After of a 503.
pub(crate) type Extras = Arc<Mutex<HashMap<String, Header>>>;

/// Call-IDs whose remote target lies behind a proxy: the library adds our hop's transport to it, but it is not ours to
/// choose how the last proxy reaches the caller.
pub(crate) type Proxied = Arc<Mutex<HashSet<String>>>;

#[derive(Default)]
pub(crate) struct Inspector {
    pub realms: Realms,
    pub extras: Extras,
    pub proxied: Proxied,
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
                if request.method == Method::Invite {
                    request.headers.unique_push(Header::Allow(ALLOW.into()));
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
                let invites = matches!(method, Ok(Method::Invite | Method::Options)) && is_success;
                if invites || response.status_code.code() == 405 {
                    response.headers.unique_push(Header::Allow(ALLOW.into()));
                }
                if invites {
                    response
                        .headers
                        .unique_push(Header::Accept("application/sdp, application/dtmf-relay".into()));
                    // RFC 3261 §11.2 wants it; we support no extension yet, and an empty list is legal.
                    response.headers.unique_push(Header::Supported("".into()));
                }
            }
        }
        msg
    }

    fn after_received(&self, mut msg: SipMessage, _from: Option<&SipAddr>) -> SipMessage {
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

fn without_transport(value: &str) -> String {
    value
        .replacen(";transport=TCP", "", 1)
        .replacen(";transport=UDP", "", 1)
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
