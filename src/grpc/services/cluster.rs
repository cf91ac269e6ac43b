//! Membership in a cluster: there is none.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Context;
use crate::error::{Error, Reason, Result};
use crate::proto::cluster as pb;

fn single() -> pb::ClusterSettings {
    pb::ClusterSettings { mode: Some(pb::ClusterMode::Single.into()), ..pb::ClusterSettings::default() }
}

fn alone() -> Error {
    Error::new(Reason::Unsupported, "dataplaneapi in single mode: it cannot join a cluster")
}

pub(super) async fn get(_: Context, _: pb::GetClusterRequest) -> Result<pb::GetClusterResponse> {
    Ok(pb::GetClusterResponse { settings: Some(single()) })
}

pub(super) async fn join(_: Context, request: pb::JoinClusterRequest) -> Result<pb::JoinClusterResponse> {
    let settings = request.settings.unwrap_or_default();
    match settings.bootstrap_key() {
        "" => Ok(pb::JoinClusterResponse { settings: Some(single()) }),
        key => Err(refusal_of(key)),
    }
}

/// A key is JSON in base64; one that can be read is refused all the same.
fn refusal_of(key: &str) -> Error {
    let decoded = STANDARD.decode(key.trim()).ok();
    let map = decoded.and_then(|json| serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&json).ok());
    match map {
        Some(_) => alone(),
        None => Error::new(Reason::InvalidValue, "bootstrap_key: expected a JSON object in base64")
            .with("field", "bootstrap_key"),
    }
}

pub(super) async fn replace(_: Context, _: pb::ReplaceClusterRequest) -> Result<pb::ReplaceClusterResponse> {
    Err(alone())
}

pub(super) async fn leave(_: Context, _: pb::LeaveClusterRequest) -> Result<pb::LeaveClusterResponse> {
    Ok(pb::LeaveClusterResponse {})
}

pub(super) async fn renew(
    _: Context,
    _: pb::RenewClusterCertificateRequest,
) -> Result<pb::RenewClusterCertificateResponse> {
    Err(alone())
}
