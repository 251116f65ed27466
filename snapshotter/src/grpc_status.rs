//! The table from this crate's errors to gRPC status.

use std::error::Error as _;
use std::io;

use tonic::{Code, Status};

use crate::error::Error;
use crate::layers::OpenError;
use crate::limits::MAX_STATUS_BYTES;

/// What the client is told of `error`: its code, and its message with all causes.
pub(crate) fn status(error: &Error) -> Status {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        // Some errors say what caused them, too.
        if !message.contains(&text) {
            message.push_str(": ");
            message.push_str(&text);
        }
        cause = error.source();
    }
    message.truncate(message.floor_char_boundary(MAX_STATUS_BYTES));
    Status::new(code(error), message)
}

fn code(error: &Error) -> Code {
    match error {
        Error::NotFound { .. } | Error::ParentNotFound { .. } => Code::NotFound,
        Error::AlreadyExists { .. } => Code::AlreadyExists,
        Error::ParentNotCommitted { .. }
        | Error::BadName { .. }
        | Error::LabelTooLong { .. }
        | Error::TooManyLabels { .. }
        | Error::BadField { .. }
        | Error::NoInfo
        | Error::BadFilter { .. }
        | Error::BadRegex { .. }
        | Error::TooManyFilters { .. }
        | Error::BadIdMapping { .. } => Code::InvalidArgument,
        Error::NotActive { .. }
        | Error::NotMountable { .. }
        | Error::HasChildren { .. }
        | Error::TooDeep { .. }
        | Error::Rebase { .. }
        | Error::IdMappedLayer { .. }
        // A snapshot stands on the layer already: there is nothing that containerd could fall back to.
        | Error::Layer(OpenError::Unservable { .. }) => Code::FailedPrecondition,
        Error::Layer(OpenError::Failed { temporary: true, .. }) | Error::BrokenOff { .. } => Code::Unavailable,
        Error::Io { source, .. } if is_full(source) => Code::ResourceExhausted,
        Error::BadRecord { .. } | Error::DamagedDatabase { .. } => Code::DataLoss,
        Error::Layer(OpenError::Failed { temporary: false, .. })
        | Error::Io { .. }
        | Error::Database { .. }
        | Error::NewerDatabase { .. }
        | Error::DatabaseInUse { .. }
        | Error::AwkwardPath { .. }
        | Error::SocketInUse { .. }
        | Error::NotASocket { .. }
        | Error::Serve { .. } => Code::Internal,
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_has_every_cause_and_fits_a_header() {
        let source = Box::new(io::Error::other("é".repeat(MAX_STATUS_BYTES)));
        let error = Error::Layer(OpenError::Failed { doing: "cannot read the manifest".to_owned(), temporary: true, source });
        let status = status(&error);
        assert_eq!(status.code(), Code::Unavailable);
        assert!(status.message().starts_with("cannot read the manifest: é"));
        assert!(status.message().len() <= MAX_STATUS_BYTES);
    }
}
