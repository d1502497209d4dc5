//! Merged requests: an INVITE that a proxy forked reaches us twice, by two ways. Source: RFC 3261 §8.2.2.2.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use rsipstack::sip::{HeadersExt as _, Request};

use crate::core::lock;

/// INVITEs under way: From tag, Call-ID and CSeq. As many as there are transactions, which the library bounds.
#[derive(Debug, Clone, Default)]
pub(crate) struct Merging(Arc<Mutex<HashSet<String>>>);

/// One INVITE under way.
#[derive(Debug)]
pub(crate) struct Only {
    key: Option<String>,
    merging: Merging,
}

impl Drop for Only {
    fn drop(&mut self) {
        if let Some(key) = &self.key {
            lock(&self.merging.0).remove(key);
        }
    }
}

impl Merging {
    /// `None`: the same INVITE is under way by another transaction; answer 482.
    pub fn enter(&self, invite: &Request) -> Option<Only> {
        let key = key(invite);
        if let Some(key) = &key
            && !lock(&self.0).insert(key.clone())
        {
            return None;
        }
        Some(Only {
            key,
            merging: self.clone(),
        })
    }
}

fn key(invite: &Request) -> Option<String> {
    let tag = invite.from_header().ok()?.tag().ok()??;
    let id = invite.call_id_header().ok()?;
    let cseq = invite.cseq_header().ok()?.seq().ok()?;
    Some(format!("{}\n{}\n{cseq}", tag.value(), id.value()))
}
