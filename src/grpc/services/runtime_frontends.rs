//! Frontends as they run.

use super::Context;
use super::runtime_overrides::writer;
use crate::error::{Error, Result, Violation};
use crate::overrides::Write;
use crate::proto::runtime as pb;

pub(super) async fn set(
    context: Context,
    request: pb::SetRuntimeFrontendRequest,
) -> Result<pb::SetRuntimeFrontendResponse> {
    let frontend = request.frontend.unwrap_or_default();
    let wrong = |message: &str, code| {
        let (field, message) = ("frontend.maxconn".into(), message.into());
        Error::invalid(vec![Violation { field, message, code, location: "body" }])
    };
    let asked = frontend.maxconn.ok_or_else(|| wrong("is required", 602))?;
    let maxconn = i32::try_from(asked).ok().filter(|maxconn| *maxconn > 0).map(i32::unsigned_abs);
    let maxconn = maxconn.ok_or_else(|| wrong("should be from 1 to 2147483647", 605))?;
    let writer = writer(&context, request.persistence(), false);
    context.overrides.write(Write::FrontendMaxconn(request.name, maxconn), &writer).await?;
    Ok(pb::SetRuntimeFrontendResponse { frontend: Some(frontend) })
}
