//! The metadata of the `ErrorInfo`: the values of an error for programs.
//!
//! `error_reason.proto` documents the keys of each reason; a test compares the two.

use std::time::Duration;

use chrono::SecondsFormat;

use crate::{
    app::{
        Error, QuotaShortage,
        imports::ImportError,
        owner::NotOwner,
        uploads::{Stall, UploadError, bytes_per_second},
        visitors::VisitorError,
    },
    domain::{
        clock::Timestamp,
        file::{FileState, LegalHold},
        media_type::MediaKind,
    },
    grpc::convert,
};

type Entries = Vec<(&'static str, String)>;

/// The metadata of an error, without the call id.
pub(super) fn error_metadata(error: &Error) -> Entries {
    match error {
        Error::Upload(error) => upload_metadata(error),
        Error::Import(error) => import_metadata(error),
        Error::QuotaBytes(_)
        | Error::QuotaFiles { .. }
        | Error::FileTooLarge { .. }
        | Error::QuotaBelowUsage { .. }
        | Error::CreditsExhausted { .. } => limit_metadata(error),
        Error::Visitor(VisitorError::GrantSpent { size_bytes, use_count_max }) => {
            vec![("size_bytes", size_bytes.to_string()), ("use_count_max", use_count_max.to_string())]
        }
        Error::ReadOutOfRange { size_bytes } => vec![("size_bytes", size_bytes.to_string())],
        Error::FileNotAvailable(state) => state_entry(*state),
        Error::VersionIsCurrent(version) => vec![("version", version.to_string())],
        Error::FileRetained { until, hold } => retained_entries(*until, hold.as_ref()),
        Error::TenantExists(id) => vec![("tenant_id", id.to_string())],
        Error::TenantCreationsExhausted { creations_per_minute_max: max, .. } => {
            one_entry("creations_per_minute_max", max)
        }
        Error::TenantRetained { file_count, held_file_count, until } => {
            let mut entries = vec![
                ("file_count", file_count.to_string()),
                ("held_file_count", held_file_count.to_string()),
            ];
            entries.extend(retain_until(*until));
            entries
        }
        Error::CategoryExists(category) => vec![("category", category.clone())],
        Error::TooManyGrants { .. } | Error::TooManyShares { .. } | Error::TooManyVersions { .. } => {
            count_entries(error)
        }
        Error::TooManyWebhooks(max) => one_entry("webhook_count_max", max),
        Error::WatchesExhausted { watch_count_max } => one_entry("watch_count_max", watch_count_max),
        Error::ProviderUnknown(provider) => vec![("provider", provider.clone())],
        Error::StoreNotOwned(not_owner) => owner_entries(not_owner),
        Error::Overloaded(workload) => vec![("resource", workload.to_string())],
        Error::RateLimited { .. } => rate_entries(error),
        Error::Batch { reason, .. } => error_metadata(reason),
        Error::Invalid(_)
        | Error::Visitor(_)
        | Error::PageTokenInvalid
        | Error::CursorInvalid
        | Error::CursorTooOld
        | Error::RequestIdReused
        | Error::Unauthenticated(_)
        | Error::NotAllowed(_)
        | Error::NotFound(_)
        | Error::EtagMismatch
        | Error::RequestInProgress
        | Error::FileDeleted
        | Error::ScanRequired
        | Error::EmailNotConfigured
        | Error::TenantPersonal
        | Error::ShareRevoked
        | Error::TenantSuspended
        | Error::TenantReadOnly
        | Error::TenantDeleted
        | Error::CategoryInUse(_)
        | Error::ObjectMissing
        | Error::ObjectDamaged
        | Error::StorageUnavailable(_)
        | Error::StorageFull(_)
        | Error::DatabaseUnavailable(_)
        | Error::OutcomeUnknown { .. }
        | Error::ShuttingDown
        | Error::Internal(_) => Vec::new(),
    }
}

/// The metadata of errors about quotas, sizes and credits.
fn limit_metadata(error: &Error) -> Entries {
    match error {
        Error::QuotaBytes(shortage) => shortage_entries(shortage),
        Error::QuotaFiles { file_count, file_count_max } => {
            vec![("file_count", file_count.to_string()), ("file_count_max", file_count_max.to_string())]
        }
        Error::FileTooLarge { kind, size_bytes, limit_bytes } => {
            file_size_entries(*kind, *size_bytes, *limit_bytes)
        }
        Error::QuotaBelowUsage { used_bytes, reserved_bytes, file_count } => vec![
            ("used_bytes", used_bytes.to_string()),
            ("reserved_bytes", reserved_bytes.to_string()),
            ("file_count", file_count.to_string()),
        ],
        Error::CreditsExhausted { balance, required } => {
            vec![("balance_credits", balance.to_string()), ("required_credits", required.to_string())]
        }
        _ => Vec::new(),
    }
}

/// The limits of what belongs to one file.
fn count_entries(error: &Error) -> Entries {
    match error {
        Error::TooManyGrants { grant_count_max } => one_entry("grant_count_max", grant_count_max),
        Error::TooManyShares { share_count_max } => one_entry("share_count_max", share_count_max),
        Error::TooManyVersions { version_count_max } => one_entry("version_count_max", version_count_max),
        _ => Vec::new(),
    }
}

fn retained_entries(until: Option<Timestamp>, hold: Option<&LegalHold>) -> Entries {
    let set_by = hold.map(|hold| ("hold_set_by", hold.by.clone()));
    retain_until(until).into_iter().chain(set_by).collect()
}

fn one_entry(key: &'static str, value: impl ToString) -> Entries {
    vec![(key, value.to_string())]
}

fn state_entry(state: FileState) -> Entries {
    one_entry("state", convert::file::state_to_proto(state).as_str_name())
}

fn upload_metadata(error: &UploadError) -> Entries {
    match error {
        UploadError::ChecksumMismatch { algorithm } => vec![("algorithm", algorithm.to_string())],
        UploadError::PartEtagMismatch { number } => one_entry("part_number", number),
        UploadError::DigestUnknown(state) => state_entry(*state),
        UploadError::SizeMismatch { declared, received } => size_entries(*declared, *received),
        UploadError::PartSizeMismatch { number, declared, received } => {
            let number = [("part_number", number.to_string())];
            number.into_iter().chain(size_entries(*declared, *received)).collect()
        }
        UploadError::HasAllBytes { size_bytes } => vec![("declared_bytes", size_bytes.to_string())],
        UploadError::PartsTooLarge { part_size_bytes } => {
            vec![("part_size_bytes", part_size_bytes.to_string())]
        }
        UploadError::OffsetGap { expected, received } => vec![
            ("persisted_size_bytes", expected.to_string()),
            ("received_offset_bytes", received.to_string()),
        ],
        UploadError::Paused { persisted_size_bytes } => {
            vec![("persisted_size_bytes", persisted_size_bytes.to_string())]
        }
        UploadError::Committed(file) => vec![("file_id", file.to_string())],
        UploadError::Stalled(Stall::Idle(idle)) => idle_entries(*idle),
        UploadError::Stalled(Stall::Slow { received_bytes, seconds, rate_min_bytes_per_second }) => vec![
            ("rate_bytes_per_second", bytes_per_second(*received_bytes, *seconds).to_string()),
            ("rate_min_bytes_per_second", rate_min_bytes_per_second.to_string()),
        ],
        UploadError::CommitTooLate { age, age_max } => age_entries(*age, *age_max),
        UploadError::TooManyOpen { scope, upload_count_max } => {
            vec![("scope", scope.to_string()), ("upload_count_max", upload_count_max.to_string())]
        }
        UploadError::StreamOrder(_)
        | UploadError::NotFinished
        | UploadError::ResentBytesDiffer
        | UploadError::DirectUnsupported
        | UploadError::IsDirect
        | UploadError::NotDirect
        | UploadError::PartsLost
        | UploadError::Fenced => Vec::new(),
    }
}

fn import_metadata(error: &ImportError) -> Entries {
    match error {
        ImportError::Stalled(idle) => idle_entries(*idle),
        ImportError::ChecksumMismatch { algorithm } => vec![("algorithm", algorithm.to_string())],
        ImportError::SizeMismatch { declared, received } => size_entries(*declared, *received),
        ImportError::CommitTooLate { age, age_max } => age_entries(*age, *age_max),
        ImportError::StreamOrder(_)
        | ImportError::FetchFailed { .. }
        | ImportError::SourceIdle(_)
        | ImportError::SourceSlow { .. }
        | ImportError::StoreLostBytes
        | ImportError::LeaseExpired => Vec::new(),
    }
}

fn shortage_entries(shortage: &QuotaShortage) -> Entries {
    let mut entries = vec![
        ("needed_bytes", shortage.needed_bytes.to_string()),
        ("used_bytes", shortage.used_bytes.to_string()),
        ("reserved_bytes", shortage.reserved_bytes.to_string()),
        ("limit_bytes", shortage.limit_bytes.to_string()),
    ];
    if let Some(pending) = shortage.pending_deletion {
        entries.push(("pending_deletion_bytes", pending.bytes.to_string()));
        entries.push(("pending_deletion_bytes_max", pending.bytes_max.to_string()));
    }
    entries.extend(shortage.trash_bytes.map(|bytes| ("trash_bytes", bytes.to_string())));
    entries
}

fn file_size_entries(kind: Option<MediaKind>, size_bytes: u64, limit_bytes: i64) -> Entries {
    let kind = kind.map(convert::quota::media_kind_to_proto);
    let kind = kind.map(|kind| ("media_kind", kind.as_str_name().to_owned()));
    let sizes = [("size_bytes", size_bytes.to_string()), ("limit_bytes", limit_bytes.to_string())];
    kind.into_iter().chain(sizes).collect()
}

fn owner_entries(not_owner: &NotOwner) -> Entries {
    let mut entries = one_entry("provider", &not_owner.provider);
    if let Some(owner) = &not_owner.owner {
        entries.push(("owner_installation_id", owner.database.installation_id.to_string()));
        entries.push(("owner_epoch", owner.beat.epoch.to_string()));
        entries.push(("owner_write_time", owner.write_time.to_rfc3339_opts(SecondsFormat::Secs, true)));
    }
    entries
}

fn rate_entries(error: &Error) -> Entries {
    let Error::RateLimited { scope, event, per_second_max, .. } = error else { return Vec::new() };
    let action = event.action().map(|action| ("action", action.to_owned()));
    [("scope", scope.to_string()), ("event", event.name().to_owned())]
        .into_iter()
        .chain(action)
        .chain([("per_second_max", per_second_max.to_string())])
        .collect()
}

fn size_entries(declared: u64, received: u64) -> Entries {
    vec![("declared_bytes", declared.to_string()), ("received_bytes", received.to_string())]
}

fn idle_entries(idle: Duration) -> Entries {
    vec![("idle_seconds_max", idle.as_secs().to_string())]
}

fn age_entries(age: Duration, age_max: Duration) -> Entries {
    vec![("age_seconds", age.as_secs().to_string()), ("age_seconds_max", age_max.as_secs().to_string())]
}

fn retain_until(until: Option<Timestamp>) -> Option<(&'static str, String)> {
    until.map(|until| ("retain_until_time", until.to_rfc3339_opts(SecondsFormat::AutoSi, true)))
}
