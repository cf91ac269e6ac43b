//! Our error as a gRPC status with `google.rpc` details.

use std::collections::HashMap;
use std::time::Duration;

use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::error::{Error, Reason};

/// `google.rpc.ErrorInfo.domain` of every error.
pub const DOMAIN: &str = "backstay";
/// Longest `grpc-message` in bytes; percent-encoding may triple it.
const MESSAGE: usize = 600;
/// Most bytes of encoded details. With base64 and the message all trailers stay below the 8 KiB that proxies take.
const DETAILS: usize = 4400;

/// The status of an error, with the details that fit its reason. Logs the context that callers do not see.
pub fn status(error: &Error) -> Status {
    let row = error.reason().row();
    if let Some(context) = error.context_text() {
        tracing::warn!(reason = row.name, message = error.message(), context, "call failed");
    }
    let code = Code::from_i32(row.code as i32);
    let message = clipped(error.message(), MESSAGE);
    let mut violations = error.violations().len();
    let mut room = DETAILS;
    // The details are cut until they fit: first the long text, then the last of the violations.
    loop {
        let text = error.detail_text().map(|text| clipped(text, room));
        let status = Status::with_error_details_and_metadata(
            code,
            message,
            details(error, &error.violations()[..violations], text),
            MetadataMap::new(),
        );
        let size = status.details().len();
        if size <= DETAILS || (violations == 0 && room == 0) {
            return status;
        }
        if text.is_some() && room > 0 {
            room = room.saturating_sub(size - DETAILS);
        } else if violations > 0 {
            violations /= 2;
        } else {
            room = 0;
        }
    }
}

fn details(error: &Error, violations: &[crate::error::Violation], text: Option<&str>) -> ErrorDetails {
    let reason = error.reason();
    let metadata: HashMap<String, String> =
        error.metadata().iter().map(|(key, value)| ((*key).to_owned(), clipped(value, 256).to_owned())).collect();
    let fact = |key: &str| metadata.get(key).cloned().unwrap_or_default();
    let mut details = ErrorDetails::new();
    match reason {
        Reason::ObjectNotFound
        | Reason::ParentNotFound
        | Reason::ObjectExists
        | Reason::TransactionNotFound
        | Reason::ObjectInUse => {
            details.set_resource_info(fact("type"), fact("name"), fact("parent"), clipped(error.message(), 256));
        }
        Reason::TransactionLimit => {
            details.add_quota_failure_violation("transactions", clipped(error.message(), 256));
            details.set_retry_info(Some(Duration::from_secs(5)));
        }
        Reason::RuntimeUnavailable | Reason::Overloaded => {
            details.set_retry_info(Some(Duration::from_secs(1)));
        }
        Reason::TransactionFailed | Reason::ReloadFailed | Reason::RuntimeRejected => {
            details.add_precondition_failure_violation(reason.row().name, fact("name"), clipped(error.message(), 256));
        }
        Reason::TargetMissing | Reason::TargetAmbiguous if violations.is_empty() => {
            details.add_bad_request_violation("target", clipped(error.message(), 256));
        }
        _ => {}
    }
    for violation in violations {
        details.add_bad_request_violation(clipped(&violation.field, 256), clipped(&violation.message, 256));
    }
    if let Some(text) = text.filter(|text| !text.is_empty()) {
        details.set_debug_info(Vec::new(), text);
    }
    details.set_error_info(reason.row().name, DOMAIN, metadata);
    details
}

/// The longest beginning of a text that fits in `limit` bytes without cutting a character.
fn clipped(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Violation;

    fn violation(number: usize) -> Violation {
        Violation { field: format!("server.f{number}"), message: "is required".into(), code: 602, location: "body" }
    }

    #[test]
    fn every_reason_keeps_its_code_and_carries_error_info() {
        for reason in Reason::ALL {
            let status = status(&Error::new(*reason, "what happened").with("expected", 3));
            let info = status.get_details_error_info().unwrap();
            assert_eq!(status.code() as i32, reason.row().code as i32);
            assert_eq!((info.reason.as_str(), info.domain.as_str()), (reason.row().name, "backstay"));
            assert_eq!(info.metadata["expected"], "3");
            assert_eq!(status.message(), "what happened");
        }
    }

    #[test]
    fn details_fit_the_reason() {
        let error =
            Error::new(Reason::ObjectNotFound, "backend x does not exist").with("type", "backend").with("name", "x");
        let info = status(&error).get_details_resource_info().unwrap();
        assert_eq!((info.resource_type.as_str(), info.resource_name.as_str()), ("backend", "x"));
        assert!(status(&Error::new(Reason::TransactionLimit, "full")).get_details_quota_failure().is_some());
        assert!(status(&Error::new(Reason::RuntimeUnavailable, "away")).get_details_retry_info().is_some());
        let error = Error::new(Reason::ConfigurationRejected, "refused").detail("[ALERT] line 3");
        assert_eq!(status(&error).get_details_debug_info().unwrap().detail, "[ALERT] line 3");
        let error = Error::invalid(vec![violation(1), violation(2)]);
        let request = status(&error).get_details_bad_request().unwrap();
        assert_eq!(request.field_violations[1].field, "server.f2");
    }

    #[test]
    fn trailers_stay_below_eight_kibibytes() {
        let error = Error::invalid((0..5000).map(violation).collect())
            .message_replaced("ü\n".repeat(9000))
            .detail("haproxy says ü".repeat(9000))
            .with("long", "x".repeat(9000));
        let status = status(&error);
        let mut headers = http::HeaderMap::new();
        status.add_header(&mut headers).unwrap();
        let size: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
        assert!(size < 8192, "{size}");
        assert!(size > 4096, "{size}: nothing useful is left");
    }
}
