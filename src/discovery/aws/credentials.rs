//! Credentials for AWS: given, from the environment, or of the instance that this server runs on.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request};
use http_body_util::Full;
use serde::Deserialize;

use super::super::client::{Answer, Client, Trouble};
use super::super::surroundings::Surroundings;
use crate::settings::Secret;

/// The metadata service answers at once or is not there.
const PATIENCE: Duration = Duration::from_secs(3);
/// Lifetime of a session with it, in seconds.
const SESSION: &str = "60";
const ROLES: &str = "/latest/meta-data/iam/security-credentials/";
/// Credentials are asked for again so many milliseconds before they end.
const EARLY: u64 = 300_000;

/// What requests are signed with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Credentials {
    pub(super) id: String,
    pub(super) key: Secret,
    /// Of a session.
    pub(super) token: Option<Secret>,
}

impl Credentials {
    /// A text without the secrets, should somebody have repeated them.
    pub(super) fn hidden(&self, text: String) -> String {
        let secrets = [Some(&self.key), self.token.as_ref()];
        let secrets = secrets.into_iter().flatten().map(Secret::expose).filter(|secret| !secret.is_empty());
        secrets.fold(text, |text, secret| text.replace(secret, "***"))
    }
}

/// Credentials of the instance, and when they end, in milliseconds since 1970.
#[derive(Debug, Default)]
pub(in super::super) struct Memory {
    known: Option<(Credentials, u64)>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Role {
    access_key_id: String,
    secret_access_key: String,
    token: String,
    expiration: String,
}

impl Memory {
    /// Those that are given, else of the environment, else of the instance.
    pub(super) async fn credentials(
        &mut self,
        given: Option<Credentials>,
        client: &Client,
        around: &Surroundings,
    ) -> Result<Credentials, Trouble> {
        if let Some(credentials) = given.or_else(|| of_environment(around)) {
            return Ok(credentials);
        }
        let now = around.now();
        if let Some((credentials, end)) = &self.known
            && now.saturating_add(EARLY) < *end
        {
            return Ok(credentials.clone());
        }
        let known = of_instance(client, around).await.map_err(|trouble| {
            let fields =
                "access_key_id and secret_access_key are not set, neither are the variables of the environment";
            Trouble(format!("no credentials: {fields}, and {trouble}"))
        })?;
        Ok(self.known.insert(known).0.clone())
    }
}

fn of_environment(around: &Surroundings) -> Option<Credentials> {
    let variable = |name: &str| around.variable(name);
    Some(Credentials {
        id: variable("AWS_ACCESS_KEY_ID")?,
        key: Secret::new(variable("AWS_SECRET_ACCESS_KEY")?),
        token: variable("AWS_SESSION_TOKEN").map(Secret::new),
    })
}

/// Asks the metadata service of the instance, in its second version.
async fn of_instance(client: &Client, around: &Surroundings) -> Result<(Credentials, u64), Trouble> {
    if around.variable("AWS_EC2_METADATA_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return Err(Trouble("the metadata service of the instance is not to be asked".to_owned()));
    }
    let base = around.variable("AWS_EC2_METADATA_SERVICE_ENDPOINT");
    // The address of the service on every instance.
    let base = base.unwrap_or_else(|| format!("{}://169.254.169.254", "http"));
    let base = base.trim_end_matches('/');
    let session =
        Request::put(format!("{base}/latest/api/token")).header("x-aws-ec2-metadata-token-ttl-seconds", SESSION);
    let session = text(&send(client, session).await?);
    let mut session = HeaderValue::from_str(&session).map_err(|_| Trouble("its session is no header".to_owned()))?;
    session.set_sensitive(true);
    let get = |path: String| Request::get(format!("{base}{path}")).header("x-aws-ec2-metadata-token", session.clone());
    let roles = text(&send(client, get(ROLES.to_owned())).await?);
    let role = roles.lines().next().unwrap_or_default().trim();
    if role.is_empty() || !role.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+=,.@_-".contains(&byte)) {
        return Err(Trouble("the instance has no role".to_owned()));
    }
    let answer = send(client, get(format!("{ROLES}{role}"))).await?;
    let role: Role = serde_json::from_slice(&answer.body)
        .map_err(|_| Trouble("the credentials of the instance cannot be read".to_owned()))?;
    let end = role.expiration.parse::<jiff::Timestamp>().map_or(0, jiff::Timestamp::as_millisecond);
    let credentials = Credentials {
        id: role.access_key_id,
        key: Secret::new(role.secret_access_key),
        token: Some(Secret::new(role.token)),
    };
    Ok((credentials, u64::try_from(end).unwrap_or(0)))
}

async fn send(client: &Client, request: http::request::Builder) -> Result<Answer, Trouble> {
    let request = request.body(Full::new(Bytes::new())).map_err(|error| Trouble(error.to_string()))?;
    let path = request.uri().path().to_owned();
    let answer = client.send(request, PATIENCE).await?;
    if answer.status == 200 {
        return Ok(answer);
    }
    Err(Trouble(format!("the metadata service of the instance answers {} to {path}", answer.status)))
}

fn text(answer: &Answer) -> String {
    String::from_utf8_lossy(&answer.body).trim().to_owned()
}
