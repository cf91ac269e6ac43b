//! The configuration as text.

use bytes::Bytes;

use super::{Context, runtime_actions};
use crate::configuration::{RawOptions, RawSource};
use crate::error::{Error, Reason, Result};
use crate::proto::configuration as pb;

pub(super) async fn version(context: Context, request: pb::GetVersionRequest) -> Result<pb::GetVersionResponse> {
    let id = Some(request.transaction_id.as_str()).filter(|id| !id.is_empty());
    Ok(pb::GetVersionResponse { version: context.configuration.view(id)?.version })
}

pub(super) async fn get(
    context: Context,
    request: pb::GetRawConfigurationRequest,
) -> Result<pb::GetRawConfigurationResponse> {
    let source = match (request.transaction_id.as_str(), request.version) {
        ("", 0) => RawSource::Current,
        ("", version) => RawSource::Backup(version),
        (id, 0) => RawSource::Transaction(id),
        _ => {
            return Err(Error::new(
                Reason::TargetAmbiguous,
                "both version and transaction specified, specify only one",
            ));
        }
    };
    let text = context.configuration.raw_text(source).await?;
    Ok(pb::GetRawConfigurationResponse {
        version: text.version,
        data: text.text.into(),
        configuration_checksum: text.checksum.unwrap_or_default(),
        cluster_version: text.cluster_version.unwrap_or_default(),
    })
}

pub(super) async fn push(
    context: Context,
    request: pb::PushRawConfigurationRequest,
) -> Result<pb::PushRawConfigurationResponse> {
    let options = RawOptions {
        version: request.version,
        skip_version: request.skip_version,
        skip_reload: request.skip_reload,
        force_reload: request.force_reload,
        only_validate: request.only_validate,
        keep_bytes: context.is_json,
    };
    // A reload brings all of the text to HAProxy: they are for those who skip it.
    if request.skip_reload && !request.only_validate && !request.runtime_actions.is_empty() {
        let actions = runtime_actions::read(&request.runtime_actions)?;
        context.configuration.check_raw(&request.data, options).await?;
        runtime_actions::carry_out(&context.runtime, &actions).await?;
    }
    let outcome = context.configuration.replace_raw(&request.data, options).await?;
    let stored = context.configuration.raw_text(RawSource::Current).await?;
    Ok(pb::PushRawConfigurationResponse {
        data: Bytes::from(stored.text),
        version: outcome.version,
        reload_id: outcome.reload_id.unwrap_or_default(),
        warnings: outcome.warnings,
        configuration_checksum: stored.checksum.unwrap_or_default(),
        cluster_version: stored.cluster_version.unwrap_or_default(),
    })
}
