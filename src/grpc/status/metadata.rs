//! The metadata of the `ErrorInfo`: the values of an error for programs.
//!
//! `error_reason.proto` documents the keys of each reason; a test compares the two.

use chrono::SecondsFormat;

use crate::{
    app::{Error, Stall},
    domain::clock::Timestamp,
    grpc::convert,
};

type Entries = Vec<(&'static str, String)>;

/// The metadata of an error, without the call id.
pub(super) fn error_metadata(error: &Error) -> Entries {
    match error {
        Error::ChecksumMismatch { algorithm } => vec![("algorithm", (*algorithm).to_owned())],
        Error::SizeMismatch { .. }
        | Error::PartSizeMismatch { .. }
        | Error::UploadHasAllBytes { .. }
        | Error::UploadPartsTooLarge { .. }
        | Error::OffsetGap { .. }
        | Error::UploadPaused { .. }
        | Error::UploadCommitted(_)
        | Error::UploadStalled(_)
        | Error::CommitTooLate { .. } => upload_metadata(error),
        Error::QuotaBytes { .. }
        | Error::QuotaFiles { .. }
        | Error::FileTooLarge { .. }
        | Error::QuotaBelowUsage { .. } => quota_metadata(error),
        Error::ReadOutOfRange { size_bytes } => vec![("size_bytes", size_bytes.to_string())],
        Error::FileNotAvailable(state) => {
            vec![("state", convert::file::state_to_proto(*state).as_str_name().to_owned())]
        }
        Error::VersionIsCurrent(version) => vec![("version", version.to_string())],
        Error::FileRetained { until, hold } => {
            let set_by = hold.as_ref().map(|hold| ("hold_set_by", hold.by.clone()));
            retain_until(*until).into_iter().chain(set_by).collect()
        }
        Error::TenantExists(id) => vec![("tenant_id", id.to_string())],
        Error::TenantRetained { file_count, held_file_count, until } => {
            let mut entries = vec![
                ("file_count", file_count.to_string()),
                ("held_file_count", held_file_count.to_string()),
            ];
            entries.extend(retain_until(*until));
            entries
        }
        Error::CategoryExists(category) => vec![("category", category.clone())],
        Error::TooManyWebhooks(max) => vec![("webhook_count_max", max.to_string())],
        Error::WatchesExhausted { watch_count_max } => {
            vec![("watch_count_max", watch_count_max.to_string())]
        }
        Error::ProviderUnknown(provider) => vec![("provider", provider.clone())],
        Error::Overloaded(resource) => vec![("resource", (*resource).to_owned())],
        Error::Batch { reason, .. } => error_metadata(reason),
        _ => Vec::new(),
    }
}

fn upload_metadata(error: &Error) -> Entries {
    match error {
        Error::SizeMismatch { declared, received } => {
            vec![("declared_bytes", declared.to_string()), ("received_bytes", received.to_string())]
        }
        Error::PartSizeMismatch { number, declared, received } => vec![
            ("part_number", number.to_string()),
            ("declared_bytes", declared.to_string()),
            ("received_bytes", received.to_string()),
        ],
        Error::UploadHasAllBytes { size_bytes } => vec![("declared_bytes", size_bytes.to_string())],
        Error::UploadPartsTooLarge { part_size_bytes } => {
            vec![("part_size_bytes", part_size_bytes.to_string())]
        }
        Error::OffsetGap { expected, received } => vec![
            ("persisted_size_bytes", expected.to_string()),
            ("received_offset_bytes", received.to_string()),
        ],
        Error::UploadPaused { persisted_size_bytes } => {
            vec![("persisted_size_bytes", persisted_size_bytes.to_string())]
        }
        Error::UploadCommitted(file) => vec![("file_id", file.to_string())],
        Error::UploadStalled(Stall::Idle(idle)) => vec![("idle_seconds_max", idle.as_secs().to_string())],
        Error::UploadStalled(Stall::Slow { rate_min_bytes_per_second: rate, .. }) => {
            vec![("rate_min_bytes_per_second", rate.to_string())]
        }
        Error::CommitTooLate { age, age_max } => vec![
            ("age_seconds", age.as_secs().to_string()),
            ("age_seconds_max", age_max.as_secs().to_string()),
        ],
        _ => Vec::new(),
    }
}

fn quota_metadata(error: &Error) -> Entries {
    match error {
        Error::QuotaBytes { needed_bytes, used_bytes, reserved_bytes, limit_bytes } => vec![
            ("needed_bytes", needed_bytes.to_string()),
            ("used_bytes", used_bytes.to_string()),
            ("reserved_bytes", reserved_bytes.to_string()),
            ("limit_bytes", limit_bytes.to_string()),
        ],
        Error::QuotaFiles { file_count, file_count_max } => {
            vec![("file_count", file_count.to_string()), ("file_count_max", file_count_max.to_string())]
        }
        Error::FileTooLarge { kind, size_bytes, limit_bytes } => {
            let kind = kind.map(convert::quota::media_kind_to_proto);
            let kind = kind.map(|kind| ("media_kind", kind.as_str_name().to_owned()));
            let sizes = [("size_bytes", size_bytes.to_string()), ("limit_bytes", limit_bytes.to_string())];
            kind.into_iter().chain(sizes).collect()
        }
        Error::QuotaBelowUsage { used_bytes, reserved_bytes, file_count } => vec![
            ("used_bytes", used_bytes.to_string()),
            ("reserved_bytes", reserved_bytes.to_string()),
            ("file_count", file_count.to_string()),
        ],
        _ => Vec::new(),
    }
}

fn retain_until(until: Option<Timestamp>) -> Option<(&'static str, String)> {
    until.map(|until| ("retain_until_time", until.to_rfc3339_opts(SecondsFormat::AutoSi, true)))
}
