//! Whether HAProxy runs, and everything that is not as it should be.

use super::{Context, Rooms};
use crate::error::Result;
use crate::process::presence::{self, Standing};
use crate::proto::runtime as pb;

pub(super) async fn get(context: Context, _: pb::GetHealthRequest) -> Result<pb::GetHealthResponse> {
    let (status, unknown) = match standing(&context).await {
        Standing::Up => (pb::HealthStatus::Up, None),
        Standing::Down(why) => (pb::HealthStatus::Down, Some(why)),
        Standing::Unknown(why) => (pb::HealthStatus::Unknown, Some(why)),
    };
    let why: Vec<String> = unknown.into_iter().chain(concerns(&context)).collect();
    let detail = (!why.is_empty()).then(|| why.join("; "));
    Ok(pb::GetHealthResponse { haproxy: status.into(), detail, why })
}

async fn standing(context: &Context) -> Standing {
    match &context.presence.status_cmd {
        // Who gives a command wants its answer, whatever a socket says.
        Some(command) => presence::status(command).await,
        None if context.health_by_command => Standing::Unknown("no status command is set".to_owned()),
        None => context.presence.standing().await,
    }
}

/// One sentence for each thing that is not as it should be, besides HAProxy not running: lower-case, no full stop.
///
/// Each room tells its own; what was found out once at the start is in [`Rooms::remarks`].
fn concerns(rooms: &Rooms) -> Vec<String> {
    let mut found = Vec::new();
    found.extend(rooms.configuration.trouble().map(|error| error.to_string()));
    found.extend(rooms.configuration.refused_edit());
    found.extend(rooms.reloads.concerns());
    found.extend(rooms.remarks.iter().cloned());
    found
}
