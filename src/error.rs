//! The one error type and the one table that says what each reason means to a caller.
//!
//! Nothing here knows a transport: gRPC codes and HTTP statuses are plain numbers of the table.

use std::borrow::Cow;
use std::path::Path;
use std::{fmt, io};

/// Result with the project's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal, $code:ident, $status:literal;)+) => {
        /// Why a call failed. Names are stable for ever; clients match on them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason { $($(#[doc = $doc])+ $variant,)+ }

        impl Reason {
            /// Every reason, in the order of the error table.
            pub const ALL: &'static [Reason] = &[$(Reason::$variant,)+];

            /// Its row in the error table.
            pub fn row(self) -> Row {
                match self {
                    $(Reason::$variant => Row {
                        name: $name,
                        code: Code::$code,
                        status: $status,
                        summary: concat!($($doc,)+),
                    },)+
                }
            }
        }
    };
}

/// gRPC status codes, by their numbers on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of gRPC")]
pub enum Code {
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    Unauthenticated = 16,
}

/// A row of the error table.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// `UPPER_SNAKE` name, sent as `google.rpc.ErrorInfo.reason`.
    pub name: &'static str,
    /// gRPC status code.
    pub code: Code,
    /// HTTP status of the REST gateway, also the `code` of its body unless a schema code replaces it.
    pub status: u16,
    /// When it happens, one sentence.
    pub summary: &'static str,
}

reasons! {
    /// The object does not exist.
    ObjectNotFound = "OBJECT_NOT_FOUND", NotFound, 404;
    /// The section that should hold the object does not exist, or none was named.
    ParentNotFound = "PARENT_NOT_FOUND", NotFound, 400;
    /// An object of that name exists already.
    ObjectExists = "OBJECT_EXISTS", AlreadyExists, 409;
    /// The configuration has another version than the one the change was made for; read it again and retry.
    VersionMismatch = "VERSION_MISMATCH", Aborted, 409;
    /// A change names neither `version` nor `transaction_id`.
    TargetMissing = "TARGET_MISSING", InvalidArgument, 400;
    /// A change names both `version` and `transaction_id`, or `force_reload` inside a transaction.
    TargetAmbiguous = "TARGET_AMBIGUOUS", InvalidArgument, 400;
    /// The index is not a position of the list.
    IndexOutOfRange = "INDEX_OUT_OF_RANGE", OutOfRange, 400;
    /// A field breaks a rule of the schema; every violation is listed with its path.
    InvalidField = "INVALID_FIELD", InvalidArgument, 422;
    /// A value fits the schema but cannot be written to the file or sent to HAProxy as it is.
    InvalidValue = "INVALID_VALUE", InvalidArgument, 400;
    /// The request cannot be decoded.
    MalformedRequest = "MALFORMED_REQUEST", InvalidArgument, 400;
    /// HAProxy refuses the resulting configuration; its own message, section and line are attached.
    ConfigurationRejected = "CONFIGURATION_REJECTED", InvalidArgument, 400;
    /// No such transaction is open.
    TransactionNotFound = "TRANSACTION_NOT_FOUND", NotFound, 404;
    /// The configuration moved on since the transaction began.
    TransactionOutdated = "TRANSACTION_OUTDATED", Aborted, 406;
    /// The transaction failed its check before and cannot be committed.
    TransactionFailed = "TRANSACTION_FAILED", FailedPrecondition, 406;
    /// Too many transactions are open; commit or delete one.
    TransactionLimit = "TRANSACTION_LIMIT", ResourceExhausted, 429;
    /// HAProxy was asked to reload at once and did not.
    ReloadFailed = "RELOAD_FAILED", FailedPrecondition, 400;
    /// HAProxy's runtime socket does not answer; back off and retry.
    RuntimeUnavailable = "RUNTIME_UNAVAILABLE", Unavailable, 500;
    /// HAProxy refused the runtime command; its message is attached.
    RuntimeRejected = "RUNTIME_REJECTED", FailedPrecondition, 500;
    /// What was to stay over reloads cannot.
    NotDurable = "NOT_DURABLE", FailedPrecondition, 400;
    /// The file is still used by the configuration.
    ObjectInUse = "OBJECT_IN_USE", FailedPrecondition, 409;
    /// No or wrong credentials.
    Unauthenticated = "UNAUTHENTICATED", Unauthenticated, 401;
    /// The request is larger than the limit.
    TooLarge = "TOO_LARGE", ResourceExhausted, 413;
    /// The deadline of the call passed.
    DeadlineExceeded = "DEADLINE_EXCEEDED", DeadlineExceeded, 504;
    /// The server does not do this, by its settings or at all.
    Unsupported = "UNSUPPORTED", Unimplemented, 501;
    /// Something failed that is no fault of the caller; the log says more.
    Internal = "INTERNAL", Internal, 500;
    /// The file does not hold both a certificate and a private key that can be read.
    CertificateRejected = "CERTIFICATE_REJECTED", InvalidArgument, 400;
    /// No such upload is open, or it is one of something else; begin again.
    UploadNotFound = "UPLOAD_NOT_FOUND", NotFound, 404;
    /// A piece of an upload does not begin where the one before ended; go on at `expected`.
    UploadOffset = "UPLOAD_OFFSET", OutOfRange, 400;
    /// Too many uploads are open; finish one, or wait until they expire.
    UploadLimit = "UPLOAD_LIMIT", ResourceExhausted, 429;
    /// HAProxy's worker went while it made the change; whether it was made is unknown, look before you repeat it.
    OutcomeUnknown = "OUTCOME_UNKNOWN", Unavailable, 500;
    /// The server is stopping; call again in a moment.
    Stopping = "STOPPING", Unavailable, 503;
    /// More is asked at once than there is room for: passwords to check, or memory for requests; call again in a moment.
    Overloaded = "OVERLOADED", ResourceExhausted, 503;
    /// A web page sends it, and pages of its origin are not allowed to, or call by a name that is not ours.
    ForeignOrigin = "FOREIGN_ORIGIN", PermissionDenied, 403;
    /// The disk or the quota of the server is full; free some space and retry.
    DiskFull = "DISK_FULL", ResourceExhausted, 500;
    /// A file of the server cannot be read or written as it stands there; the message says which one and why.
    FileUnusable = "FILE_UNUSABLE", FailedPrecondition, 500;
}

/// One broken rule of a request, with the path of the field as the caller sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Path such as `server.agent-check` or `return_hdrs[1].name`.
    pub field: String,
    /// What was expected.
    pub message: String,
    /// Validation code of /v2 (601 to 619), 0 when there is none.
    pub code: u16,
    /// Where the value stood: `body`, `query` or `path`.
    pub location: &'static str,
}

/// An error: a reason, one public sentence, and what helps the caller to act.
#[derive(Debug, Clone)]
pub struct Error {
    inner: Box<Inner>,
}

#[derive(Debug, Clone)]
struct Inner {
    reason: Reason,
    message: Cow<'static, str>,
    violations: Vec<Violation>,
    metadata: Vec<(&'static str, String)>,
    detail: Option<String>,
    context: Option<String>,
}

impl Error {
    /// An error with a public sentence: lower-case, no full stop, naming field, line or key.
    pub fn new(reason: Reason, message: impl Into<Cow<'static, str>>) -> Self {
        Error {
            inner: Box::new(Inner {
                reason,
                message: message.into(),
                violations: Vec::new(),
                metadata: Vec::new(),
                detail: None,
                context: None,
            }),
        }
    }

    /// An error that is no fault of the caller. `context` goes to the log only.
    pub fn internal(context: impl fmt::Display) -> Self {
        Error::new(Reason::Internal, "internal error, see the log").context(context)
    }

    /// An error of a file: `what` was to be done with it, such as "write".
    ///
    /// What an operator can mend is said to the caller too: `DISK_FULL`, `FILE_UNUSABLE`. All else is `INTERNAL`.
    pub fn of_file(what: &str, path: &Path, error: &io::Error) -> Self {
        let system = error.to_string();
        let system = system.split(" (os error").next().unwrap_or_default().to_lowercase();
        let (reason, words) = match error.kind() {
            io::ErrorKind::StorageFull => (Reason::DiskFull, "no space is left on the disk"),
            io::ErrorKind::QuotaExceeded => (Reason::DiskFull, "the disk quota is used up"),
            io::ErrorKind::ReadOnlyFilesystem => (Reason::FileUnusable, "the file system is read-only"),
            io::ErrorKind::PermissionDenied => (Reason::FileUnusable, "permission denied"),
            io::ErrorKind::IsADirectory => (Reason::FileUnusable, "a folder stands in its place"),
            io::ErrorKind::NotADirectory => (Reason::FileUnusable, "a part of the path is no folder"),
            io::ErrorKind::NotFound => (Reason::FileUnusable, "it does not exist, or a folder of its path does not"),
            io::ErrorKind::ResourceBusy => (Reason::FileUnusable, "a file system is mounted there"),
            io::ErrorKind::InvalidFilename => (Reason::FileUnusable, "the name is too long"),
            io::ErrorKind::NotSeekable => (Reason::FileUnusable, "no regular file stands there"),
            io::ErrorKind::FileTooLarge => (Reason::FileUnusable, "it is too large"),
            // A circle of links, a disk that fails: the system's own words say it.
            _ if error.raw_os_error().is_some() => (Reason::FileUnusable, &*system),
            _ => return Error::internal(format!("cannot {what} {}: {error}", path.display())),
        };
        Error::new(reason, format!("cannot {what} {}: {words}", path.display())).context(error)
    }

    /// All broken rules of a request at once; the first one is the public sentence.
    pub fn invalid(violations: Vec<Violation>) -> Self {
        let message = match violations.first() {
            Some(first) => format!("{} in {} {}", first.field, first.location, first.message),
            None => "invalid request".to_owned(),
        };
        let mut error = Error::new(Reason::InvalidField, message);
        error.inner.violations = violations;
        error
    }

    /// Attaches broken rules.
    #[must_use]
    pub fn with_violation(mut self, violation: Violation) -> Self {
        self.inner.violations.push(violation);
        self
    }

    /// Attaches a fact that programs may read, such as `expected` and `actual`.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl fmt::Display) -> Self {
        self.inner.metadata.push((key, value.to_string()));
        self
    }

    /// Attaches long public text, such as what HAProxy printed.
    #[must_use]
    pub fn detail(mut self, text: impl Into<String>) -> Self {
        self.inner.detail = Some(text.into());
        self
    }

    /// Attaches text for the log that no caller sees.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.inner.context = Some(context.to_string());
        self
    }

    /// Replaces the public sentence, keeping everything else.
    #[must_use]
    pub fn message_replaced(mut self, message: impl Into<Cow<'static, str>>) -> Self {
        self.inner.message = message.into();
        self
    }

    /// The reason.
    pub fn reason(&self) -> Reason {
        self.inner.reason
    }

    /// The public sentence.
    pub fn message(&self) -> &str {
        &self.inner.message
    }

    /// Broken rules, if the request itself was at fault.
    pub fn violations(&self) -> &[Violation] {
        &self.inner.violations
    }

    /// Facts for programs.
    pub fn metadata(&self) -> &[(&'static str, String)] {
        &self.inner.metadata
    }

    /// Long public text.
    pub fn detail_text(&self) -> Option<&str> {
        self.inner.detail.as_deref()
    }

    /// Text for the log.
    pub fn context_text(&self) -> Option<&str> {
        self.inner.context.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.inner.message)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_have_unique_upper_snake_names_and_sensible_statuses() {
        let mut names: Vec<_> = Reason::ALL.iter().map(|r| r.row().name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Reason::ALL.len());
        for reason in Reason::ALL {
            let row = reason.row();
            assert!(row.name.len() <= 63);
            assert!(row.name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'), "{}", row.name);
            assert!((400..600).contains(&row.status), "{}", row.name);
            assert!(!row.summary.trim().is_empty());
        }
    }

    #[test]
    fn what_an_operator_can_mend_is_said_to_the_caller() {
        let of = |code| Error::of_file("write", Path::new("/e/h.cfg"), &io::Error::from_raw_os_error(code));
        for (code, reason, words) in [
            (28, Reason::DiskFull, "cannot write /e/h.cfg: no space is left on the disk"),
            (122, Reason::DiskFull, "cannot write /e/h.cfg: the disk quota is used up"),
            (30, Reason::FileUnusable, "cannot write /e/h.cfg: the file system is read-only"),
            (13, Reason::FileUnusable, "cannot write /e/h.cfg: permission denied"),
            (21, Reason::FileUnusable, "cannot write /e/h.cfg: a folder stands in its place"),
            (40, Reason::FileUnusable, "cannot write /e/h.cfg: too many levels of symbolic links"),
            (36, Reason::FileUnusable, "cannot write /e/h.cfg: the name is too long"),
            (5, Reason::FileUnusable, "cannot write /e/h.cfg: input/output error"),
        ] {
            let error = of(code);
            assert_eq!((error.reason(), error.message()), (reason, words));
            assert!(error.context_text().unwrap().contains(&code.to_string()), "the log has the system's own words");
        }
        let error = Error::of_file("write", Path::new("/e/h.cfg"), &io::Error::other("ours"));
        assert_eq!((error.reason(), error.message()), (Reason::Internal, "internal error, see the log"));
    }

    #[test]
    fn the_log_context_is_not_shown_to_callers() {
        let error = Error::internal("secret path");
        assert!(!error.to_string().contains("secret"));
        assert_eq!(error.context_text(), Some("secret path"));
    }
}
