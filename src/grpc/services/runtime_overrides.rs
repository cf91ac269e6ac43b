//! What was written at run time and stays, and who wrote it.

use super::Context;
use super::paging::Page;
use crate::error::{Error, Reason, Result, Violation};
use crate::overrides::{Dropped, Override, Target, Writer};
use crate::proto::runtime as pb;

/// Who writes, and for how long.
pub(super) fn writer(context: &Context, persistence: pb::Persistence, force_sync: bool) -> Writer {
    let durable = match persistence {
        pb::Persistence::Unspecified => context.durable_writes,
        pb::Persistence::Worker => false,
        pb::Persistence::Durable => true,
    };
    Writer { durable, force_sync, by: context.caller.as_deref().unwrap_or_default().to_owned() }
}

pub(super) async fn list(
    context: Context,
    request: pb::ListRuntimeOverridesRequest,
) -> Result<pb::ListRuntimeOverridesResponse> {
    let page = Page::new(i64::from(request.page_size), &request.page_token, context.transport)?;
    let (found, next_page_token) = page.cut(context.overrides.list(), 0)?;
    let overrides = found.into_iter().map(message).collect();
    let dropped = context.overrides.dropped().into_iter().map(dropped).collect();
    Ok(pb::ListRuntimeOverridesResponse { overrides, next_page_token, dropped })
}

pub(super) async fn drop_some(
    context: Context,
    request: pb::DropRuntimeOverridesRequest,
) -> Result<pb::DropRuntimeOverridesResponse> {
    let wanted = [
        &request.frontend,
        &request.backend,
        &request.server,
        &request.map,
        &request.acl,
        &request.stick_table,
        &request.key,
        &request.field,
    ];
    let named = wanted.iter().any(|name| !name.is_empty());
    if named == request.all {
        let message = if named { "nothing else may be named with it" } else { "name an override, or all" };
        return Err(Error::invalid(vec![Violation {
            field: "all".into(),
            message: message.into(),
            code: 602,
            location: "query",
        }]));
    }
    let mut answer = pb::DropRuntimeOverridesResponse::default();
    for found in context.overrides.list() {
        let shown = message(found.clone());
        let has = [
            &shown.frontend,
            &shown.backend,
            &shown.server,
            &shown.map,
            &shown.acl,
            &shown.stick_table,
            &shown.key,
            &shown.field,
        ];
        if wanted.iter().zip(has).any(|(wanted, has)| !wanted.is_empty() && *wanted != has) {
            continue;
        }
        if !context.overrides.give_up(&found.target).await? {
            answer.until_reload.push(shown.clone());
        }
        answer.overrides.push(shown);
    }
    if named && answer.overrides.is_empty() {
        return Err(Error::new(Reason::ObjectNotFound, "no runtime override has what is named"));
    }
    Ok(answer)
}

fn message(found: Override) -> pb::RuntimeOverride {
    let shown = pb::RuntimeOverride {
        since_ms: found.since,
        user: found.by,
        value: found.value,
        ..pb::RuntimeOverride::default()
    };
    match found.target {
        Target::FrontendMaxconn { frontend } => pb::RuntimeOverride { frontend, field: "maxconn".into(), ..shown },
        Target::Server { backend, server, field } => {
            pb::RuntimeOverride { backend, server, field: field.name().into(), ..shown }
        }
        Target::Map { map } => pb::RuntimeOverride { map, field: "entries".into(), ..shown },
        Target::MapEntry { map, key } => pb::RuntimeOverride { map, key, field: "value".into(), ..shown },
        Target::MapLine { map, key, .. } => pb::RuntimeOverride { map, key, field: "line".into(), ..shown },
        Target::TableEntry { table, key, field } => pb::RuntimeOverride { stick_table: table, key, field, ..shown },
        Target::AclEntry { acl, value } => pb::RuntimeOverride { acl, key: value, field: "value".into(), ..shown },
    }
}

fn dropped(dropped: Dropped) -> pb::DroppedRuntimeOverride {
    pb::DroppedRuntimeOverride { was: Some(message(dropped.found)), reason: dropped.why, time_ms: dropped.at }
}
