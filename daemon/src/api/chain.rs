//! Chain: the audit chain as it stands, for whoever checks it elsewhere.

use attendant_store::AuditSeq;
use axum::{
    Extension, Json,
    extract::{Query, State as Shared},
    http::header,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api, Problem,
    access::{Caller, Right},
    fields,
    views::EntryView,
};

/// Entries on a page when nothing else is said.
const PAGE: u64 = 100;

/// The routes.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(entries))
        .routes(routes!(checkpoint))
}

/// Which entries.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default, deny_unknown_fields)]
pub struct WantedEntries {
    /// Only those behind this number.
    #[param(minimum = 0, maximum = 1000000000000_i64)]
    #[serde(deserialize_with = "fields::maybe_within::<_, 0, 1000000000000>")]
    after: Option<u64>,
    /// Entries on the page; 100 when absent.
    #[param(minimum = 1, maximum = 1000)]
    #[serde(deserialize_with = "fields::maybe_within::<_, 1, 1000>")]
    limit: Option<u64>,
}

/// Some entries, oldest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct EntryPage {
    /// The entries.
    entries: Vec<EntryView>,
    /// `after` of the next page; absent where the chain ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<i64>,
}

/// The audit chain, oldest entry first.
#[utoipa::path(get, path = "/audit", tag = "audit", params(WantedEntries), responses(
    (status = 200, description = "A page.", body = EntryPage),
))]
async fn entries(
    Shared(api): Shared<Api>,
    Extension(caller): Extension<Caller>,
    Query(wanted): Query<WantedEntries>,
) -> Result<Json<EntryPage>, Problem> {
    caller.may_everywhere(Right::Audit)?;
    let after = AuditSeq::new(wanted.after.unwrap_or(0).cast_signed());
    let limit = wanted.limit.unwrap_or(PAGE) as u32;
    let mut entries = api.entries(after, limit + 1).await?;
    let more = entries.len() > limit as usize;
    entries.truncate(limit as usize);
    let next = entries.last().filter(|_| more).map(|entry| entry.seq);
    Ok(Json(EntryPage { entries, next }))
}

/// Where the chain stands, signed; what `attendant audit checkpoint` prints.
#[utoipa::path(get, path = "/audit/checkpoint", tag = "audit", responses(
    (status = 200, description = "The checkpoint.", body = String, content_type = "text/plain"),
))]
async fn checkpoint(
    Shared(api): Shared<Api>,
    Extension(caller): Extension<Caller>,
) -> Result<Response, Problem> {
    caller.may_everywhere(Right::Audit)?;
    let checkpoint = api.store(|store| store.checkpoint()).await?;
    let checkpoint = checkpoint.ok_or_else(|| Problem::not_found("checkpoint"))?;
    let kind = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    Ok((kind, checkpoint.to_string()).into_response())
}

impl Api {
    /// Entries behind `after`, with the public names of their sessions.
    pub(super) async fn entries(&self, after: AuditSeq, limit: u32) -> Result<Vec<EntryView>, Problem> {
        self.store(move |store| {
            let entries = store.audit_entries(after, limit)?;
            entries
                .into_iter()
                .map(|entry| {
                    let session = entry
                        .session
                        .map(|session| store.session_uuid(session))
                        .transpose()?;
                    Ok(EntryView::new(entry, session.flatten()))
                })
                .collect()
        })
        .await
    }
}
